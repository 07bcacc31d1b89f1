//! When to stop: SIGTERM or SIGINT.

use crate::exit::{self, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers. From `install` on neither signal kills the process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. Must run inside a runtime.
    pub(crate) fn install() -> Result<Self, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(exit::SOFTWARE, format!("signals cannot be handled: {error}"))
            })
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and tells its name. Called again it waits for the next: a second signal, during
    /// the stop, means "now".
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
