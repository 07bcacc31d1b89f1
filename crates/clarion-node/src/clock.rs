//! The one place that reads the clock; everything below takes the time as an argument.

use clarion_core::Millis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub fn now() -> Millis {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as Millis)
}
