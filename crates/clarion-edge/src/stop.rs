//! The phases of a listener's stop, as the server tells them.
//!
//! Invariant: they only go forward. Must not know: how long each may take.

use tokio::sync::watch;

/// How far the stop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all: connections are taken.
    Run,
    /// No more connections; requests under way are answered.
    Finish,
    /// What is still open ends at once.
    Cut,
}

/// Resolves when the stop has come so far; a server whose end of it has gone is past all phases.
pub(crate) async fn reached(mut stop: watch::Receiver<Stop>, phase: Stop) {
    // The error means just that.
    let _ = stop.wait_for(|now| *now >= phase).await;
}
