//! Recorded traffic of the original servers, replayed against this one; and each of the originals' losses, which must not
//! happen here.
//!
//! `vectors` reads the recordings, `player` plays one against a fresh server, `model` says what is right where the
//! original was wrong, `table` names what differs on purpose. docs/golden.md says the same for readers; a test keeps it
//! complete.

mod calls;
mod gates;
mod losses;
mod losses_status;
mod message_sync;
mod model;
mod own;
mod own_load;
mod pages;
mod plain;
mod player;
mod proto;
mod table;
mod vectors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use table::Case;
use tokio::runtime::{Builder, Runtime};
use vectors::Scenario;

/// A runtime whose blocking main task holds up no connection.
fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("a runtime")
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs each scenario of a recording and names those that failed.
fn run_each(file: &str, run: impl Fn(&Scenario)) {
    let only = std::env::var("GOLDEN").unwrap_or_default();
    let mut failed = Vec::new();
    for scenario in vectors::read(file) {
        if !scenario.name.contains(&only) {
            continue;
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&scenario))) {
            failed.push(format!("{}: {}", scenario.name, words(&*panic)));
        }
    }
    assert!(failed.is_empty(), "{} scenarios failed:\n{}", failed.len(), failed.join("\n"));
}

/// Plays a scenario as its case says.
fn play(scenario: &Scenario) {
    match table::case(&scenario.name) {
        Case::Replay(plan) => runtime().block_on(player::play(scenario, plan)),
        Case::Own(run) => run(scenario),
        // Named in docs/golden.md; there is nothing to run against.
        Case::NotHere => {}
    }
}

#[test]
fn mikudos_unify() {
    run_each("mikudos/golden_unify.json", play);
}

#[test]
fn mikudos_group() {
    run_each("mikudos/golden_group.json", play);
}

#[test]
fn mikudos_every() {
    run_each("mikudos/golden_every.json", play);
}

#[test]
fn mikudos_status() {
    run_each("mikudos/golden_status.json", play);
}

#[test]
fn mikudos_errors() {
    run_each("mikudos/golden_errors.json", play);
}

#[test]
fn mikudos_storage() {
    run_each("mikudos/golden_storage.json", play);
}

#[test]
fn message_sync_all() {
    run_each("message-sync/golden.json", message_sync::play);
}
