//! Log lines on standard error, as text or JSON.
//!
//! Our own targets (`clarion…`) follow the configured level; libraries are heard from `warn` on, except with `trace`.

use crate::config::sections::{Log, LogFormat, LogLevel};
use std::io::{self, IsTerminal};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry,
};

/// Installs the global subscriber. A second call changes nothing.
pub(crate) fn init(log: &Log) {
    let targets = targets(log.level);
    let lines = fmt::layer().with_writer(io::stderr);
    let layer = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).with_filter(targets).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(targets).boxed(),
    };
    // Only a second call fails here, and then the first one's lines go on.
    let _ = tracing::subscriber::set_global_default(registry().with(layer));
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::WARN) };
    Targets::new().with_default(libraries).with_target("clarion", level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn our_lines_and_those_of_libraries() {
        let check = |level, target: &str, weight, expected| {
            assert_eq!(targets(level).would_enable(target, &weight), expected, "{target} {weight}");
        };
        check(LogLevel::Info, "clarion_node::shard", Level::INFO, true);
        check(LogLevel::Info, "clarion_node::shard", Level::DEBUG, false);
        check(LogLevel::Debug, "clarion", Level::DEBUG, true);
        check(LogLevel::Debug, "hyper::proto", Level::INFO, false);
        check(LogLevel::Debug, "hyper::proto", Level::WARN, true);
        check(LogLevel::Error, "hyper::proto", Level::WARN, false);
        check(LogLevel::Trace, "hyper::proto", Level::TRACE, true);
        check(LogLevel::Off, "clarion", Level::ERROR, false);
    }
}
