//! Waiting for what has no event to wait for. Must not know: what it is.

use std::time::{Duration, Instant};

/// How long anything may take before the test fails; generous, since the machine may be busy.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(5);

/// Looks until the condition holds; panics at the deadline.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for: {what}");
        pause();
    }
}

/// The same without blocking a runtime.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds().await {
        assert!(Instant::now() < end, "waited {DEADLINE:?} in vain for: {what}");
        tokio::time::sleep_until((Instant::now() + STEP).into()).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that polls: the condition has no event"
)]
fn pause() {
    std::thread::sleep(STEP);
}
