//! Retained messages that come on a SUBSCRIBE are owed: a connection that ends in between does not end it.

use crate::{
    mqtt::versions,
    mqtt_durable::{assert_again, assert_no_panic, begin, client, nothing_more, resume, start},
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Packet, Version},
};
use std::collections::BTreeMap;

versions! {
    a_replay_goes_on_after_a_cut: v311 v5;
    a_replay_goes_on_after_an_orderly_end: v311 v5;
    a_replay_goes_on_after_a_crash: v311 v5;
    a_replay_ends_with_its_session: v311 v5;
    several_replays_go_on: v311 v5;
}

const KEPT: usize = 1000;
/// So many are acked before the connection ends, and so many more were seen.
const ACKED: usize = 100;
const SEEN: usize = 20;

fn topic(n: usize) -> String {
    format!("kept/{n:04}")
}

fn retain(server: &Server, version: Version, count: usize) {
    let mut writer = client(server, version, "writer");
    let message = |n| Message::new(&topic(n), n.to_string()).qos(2).retained();
    writer.publish_all((0..count).map(message));
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Cut,
    Stopped,
    Killed,
}

/// Acks some, sees some more; what was acked and what was only seen.
fn begin_to_read(session: &mut Client, qos: u8) -> (Vec<String>, Vec<Message>) {
    let mut acked = Vec::new();
    for _ in 0..ACKED {
        let got = session.message();
        assert_eq!((got.qos, got.retain, got.dup), (qos, true, false), "{got:?}");
        acked.push(got.topic);
    }
    let seen = (0..SEEN).map(|_| session.unacked()).collect();
    session.ping();
    (acked, seen)
}

fn cut_in_between(version: Version, how: How) {
    for qos in [1, 2] {
        // Few are under way, or all.
        for window in ["30", "1000"] {
            let mut server = start(&[("mqtt.max_inflight", window)]);
            retain(&server, version, KEPT);
            let mut session = begin(&server, version, "s");
            assert_eq!(session.subscribe(&[("kept/#", qos)]), [qos]);
            let (acked, seen) = begin_to_read(&mut session, qos);
            match how {
                How::Cut => session.vanish(),
                How::Stopped => {
                    server.terminate();
                    drop(session);
                }
                How::Killed => {
                    server.kill9();
                    drop(session);
                }
            }
            if how != How::Cut {
                server.restart();
            }
            let mut session = resume(&server, version, "s");
            let found = read_the_rest(&mut session, &acked, &seen, how);
            let mut all: Vec<&String> = acked.iter().chain(found.keys()).collect();
            all.sort();
            all.dedup();
            assert_eq!(all.len(), KEPT, "nothing is missing");
            if qos == 2 || how != How::Killed {
                assert!(found.values().all(|times| *times == 1), "twice");
                let again = acked.iter().find(|topic| found.contains_key(*topic));
                assert_eq!(again, None, "acked, and there again");
            }
            nothing_more(&server, version, &mut session, &["kept/0007"]);
            // All is given now; it does not begin again.
            session.disconnect();
            let mut session = resume(&server, version, "s");
            nothing_more(&server, version, &mut session, &["kept/0008"]);
            assert_no_panic(&server);
        }
    }
}

/// Reads, without any SUBSCRIBE, up to the last one; how often each topic came.
fn read_the_rest(
    session: &mut Client,
    acked: &[String],
    seen: &[Message],
    how: How,
) -> BTreeMap<String, u32> {
    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    let missing = |found: &BTreeMap<String, u32>| {
        let acked = acked.iter().filter(|topic| !found.contains_key(*topic)).count();
        found.len() + acked < KEPT
    };
    let mut before = seen.iter();
    while missing(&found) {
        let got = match session.packet() {
            Packet::Publish(got) => got,
            // Of those that were acked, after a crash.
            Packet::Ack { kind: 6, id, .. } => {
                session.ack(7, id, 0);
                continue;
            }
            other => panic!("{other:?}"),
        };
        assert!(got.retain, "{got:?}");
        if how != How::Killed
            && let Some(before) = before.next()
        {
            // They come first, as they were sent.
            assert_eq!(got.topic, before.topic);
            assert_again(&got, before.id, &before.text());
        }
        if got.qos == 1 {
            session.ack(4, got.id, 0);
        } else {
            session.ack(5, got.id, 0);
            assert_eq!(session.wait_ack(6, got.id), 0);
            session.ack(7, got.id, 0);
        }
        *found.entry(got.topic).or_default() += 1;
    }
    found
}

fn a_replay_goes_on_after_a_cut(version: Version) {
    cut_in_between(version, How::Cut);
}

fn a_replay_goes_on_after_an_orderly_end(version: Version) {
    cut_in_between(version, How::Stopped);
}

fn a_replay_goes_on_after_a_crash(version: Version) {
    cut_in_between(version, How::Killed);
}

fn a_replay_ends_with_its_session(version: Version) {
    let server = start(&[("mqtt.max_inflight", "10")]);
    retain(&server, version, 50);
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("kept/#", 1)]);
    session.unacked();
    session.disconnect();
    client(&server, version, "s").disconnect();
    let mut session = begin(&server, version, "s");
    session.quiet();
    // Nor does a subscription that was given up give the rest; but what is under way is finished.
    session.subscribe(&[("kept/#", 1)]);
    let under_way: Vec<Message> = (0..10).map(|_| session.unacked()).collect();
    session.unsubscribe(&["kept/#"]);
    session.disconnect();
    let mut session = resume(&server, version, "s");
    for before in &under_way {
        assert_again(&session.unacked(), before.id, &before.text());
    }
    session.quiet();
}

/// Two filters, of different QoS, and messages that are published meanwhile.
fn several_replays_go_on(version: Version) {
    let mut server = start(&[("mqtt.max_inflight", "10")]);
    retain(&server, version, 60);
    let mut session = begin(&server, version, "s");
    let subscribed = session.subscribe(&[("kept/#", 1), ("kept/+", 2), ("live", 1)]);
    assert_eq!(subscribed, [1, 2, 1]);
    let mut writer = client(&server, version, "writer");
    let mut found: BTreeMap<(String, u8), u32> = BTreeMap::new();
    for round in 0..12 {
        writer.publish("live", round.to_string(), 1);
        for _ in 0..if round < 11 { 10 } else { 120 + 12 - 110 } {
            let got = session.message();
            assert_eq!(got.retain, got.topic != "live");
            let name = if got.topic == "live" { format!("live {}", got.text()) } else { got.topic };
            *found.entry((name, got.qos)).or_default() += 1;
        }
        // These acks are in time.
        session.ping();
        if round % 4 == 3 {
            server.terminate();
            drop(session);
            server.restart();
            writer = client(&server, version, "writer");
        } else {
            session.vanish();
        }
        session = resume(&server, version, "s");
    }
    assert_eq!(found.len(), 132, "60 retained ones twice, 12 others");
    assert!(found.values().all(|times| *times == 1), "{found:?}");
    session.quiet();
}
