//! The seeded simulation: the core types that the server runs, in a world of virtual time where everything that can go
//! wrong does, against a reference model that states what must hold. Each seed is run in two worlds: devices, queues and gates; then
//! sessions of clients (`sessions`).
//!
//! `SIM_SEEDS=n` runs the seeds 1 to n (200 by default), `SIM_SEED=n` only that one. The same seed is the same run; a
//! run that breaks an invariant is repeated with its events written down, and the last of them are printed.

mod attach;
mod client;
mod commit;
mod consumer;
mod gates;
mod node;
mod oracle;
mod queue;
mod rng;
mod sessions;
mod stats;
mod store;
mod world;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic;

/// Events that a failing run prints.
const TRACE_LINES: usize = 80;

thread_local! {
    static TRACE: RefCell<Option<VecDeque<String>>> = const { RefCell::new(None) };
}

/// Whether events are written down.
pub(crate) fn tracing() -> bool {
    TRACE.with_borrow(Option::is_some)
}

/// Writes an event down.
pub(crate) fn trace(line: String) {
    TRACE.with_borrow_mut(|lines| {
        if let Some(lines) = lines {
            if lines.len() == TRACE_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    });
}

/// Notes what happens, for the report of a failing seed.
macro_rules! note {
    ($now:expr, $($arg:tt)*) => {
        if $crate::tracing() {
            $crate::trace(format!("{:>6} {}", $now, format!($($arg)*)));
        }
    };
}
pub(crate) use note;

/// What must hold, by name.
macro_rules! invariant {
    ($holds:expr, $name:literal, $($arg:tt)*) => {
        if !$holds {
            panic!("invariant '{}' broken: {}", $name, format!($($arg)*));
        }
    };
}
pub(crate) use invariant;

fn run(seed: u64) -> Result<stats::Stats, String> {
    let outcome = panic::catch_unwind(|| {
        let mut stats = world::World::new(seed).run();
        stats.add(&sessions::World::new(seed).run());
        stats
    });
    outcome.map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(|s| (*s).to_string())).unwrap_or_default()
    })
}

fn report(seed: u64, why: &str) -> String {
    TRACE.set(Some(VecDeque::new()));
    let again = run(seed).err();
    let lines = TRACE.take().unwrap_or_default();
    let same = if again.as_deref() == Some(why) {
        ""
    } else {
        "\n(the second run differs: not deterministic)"
    };
    let events = Vec::from(lines).join("\n");
    format!("\n{events}\n\nseed {seed}: {why}{same}\nrun it alone with SIM_SEED={seed}\n")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn every_seed_keeps_the_rules() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SIM_SEEDS").unwrap_or(200),
    };
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut total = stats::Stats::default();
    let mut failure = None;
    for seed in seeds.clone() {
        match run(seed) {
            Ok(stats) => total.add(&stats),
            Err(why) => {
                failure = Some(report(seed, &why));
                break;
            }
        }
    }
    panic::set_hook(hook);
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{total:?}");
    if seeds.count() >= 20 {
        total.check_everything_happened();
    }
}
