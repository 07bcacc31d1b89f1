//! What the operator says by signals: SIGTERM or SIGINT = stop, SIGHUP = read credentials and access rules again.

use crate::exit::{self, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The handlers. From `install` on none of these signals kills the process.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
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
            hang_up: install(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal to stop and tells its name; every SIGHUP until then is answered by `reload`. Called again it
    /// waits for the next: a second signal, during the stop, means "now".
    pub(crate) async fn stop(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hang_up.recv() => reload(),
            }
        }
    }
}
