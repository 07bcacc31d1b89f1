//! Scenarios of the recordings that are told in words: what they say is done here, and is right here.

use super::plain::{PlainGate, Producer, texts};
use super::vectors::Scenario;
use super::{player, runtime};
use clarion_tests::Server;

/// A mode that there is none of ends the start, and says so.
pub(super) fn unknown_mode(scenario: &Scenario) {
    let mode = scenario.mode.as_deref().unwrap_or_default();
    let start =
        Server::builder().set("mikudos.mode", mode).arg("--speak").arg("mikudos").try_start();
    let failed = start.expect_err("it does not start");
    assert_eq!(failed.status.code(), Some(64), "{}", failed.stderr);
    assert!(failed.stderr.contains("mikudos.mode"), "{}", failed.stderr);
}

/// 26 pushes, the first answered by nobody: all are kept, not 20.
pub(super) fn keeps_20(_: &Scenario) {
    runtime().block_on(async {
        let server = player::server("unify", 60_000);
        let producer = Producer::open(&server).await;
        let mut gate = PlainGate::open(&server, "", 1).await;
        gate.next().await;
        for n in 0..26 {
            producer.push("21", &format!("{{\"n\":{n}}}"), 600).await;
            let said = gate.next().await;
            if n > 0 {
                gate.unreceived(&said).await;
            }
        }
        let all = texts(&gate.all_of("21").await);
        let right: Vec<String> = (0..26).map(|n| format!("{{\"n\":{n}}}")).collect();
        assert_eq!(all, right);
    });
}

/// 20 stored messages, a restart, one more: the new one is kept, the old ones too, and its number is new.
pub(super) fn restart_evicts_nothing(_: &Scenario) {
    runtime().block_on(async {
        let mut server = player::server("unify", 60_000);
        let producer = Producer::open(&server).await;
        let mut last = 0;
        for n in 100..120 {
            last = producer.push("21", &n.to_string(), 600).await;
        }
        server.restart();
        let producer = Producer::open(&server).await;
        let mut gate = PlainGate::open(&server, "", 1).await;
        let id = producer.push("21", "new", 600).await;
        assert!(id > last, "{id} after {last}");
        let said = loop {
            let said = gate.next().await;
            if said.channel == "21" {
                break said;
            }
        };
        assert_eq!(said.id, id);
        gate.unreceived(&said).await;
        let right: Vec<String> =
            (100..120).map(|n| n.to_string()).chain(["new".to_owned()]).collect();
        assert_eq!(texts(&gate.all_of("21").await), right);
    });
}
