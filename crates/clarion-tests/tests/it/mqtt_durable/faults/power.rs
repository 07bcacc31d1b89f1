//! The power goes while publishers and readers are at work, again and again.

use crate::{
    faults::{
        power::cut_the_power,
        shim::{Shim, Word},
    },
    mqtt_durable::{assert_again, assert_no_panic, at, away, begin, client, durable, resume},
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Packet, Version, ack, publish},
    wait_for,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

const ROUNDS: u64 = 4;
const ACKED_PER_ROUND: u64 = 600;

/// What a client keeps of a publish that is under way.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    New,
    Sent,
    Received,
}

struct Publisher {
    name: String,
    version: Version,
    qos: u8,
    /// All below are acknowledged.
    next: u64,
    stage: Stage,
}

impl Publisher {
    fn message(&self) -> Message {
        let id = 1 + (self.next % 50) as u16;
        let topic = format!("power/{}", self.name);
        let dup = self.stage == Stage::Sent;
        Message { id, dup, ..Message::new(&topic, format!("{} {}", self.name, self.next)) }
            .qos(self.qos)
    }

    /// One publish after the other, until the connection ends or `done` says so between two.
    fn run(&mut self, at: SocketAddr, acked: &AtomicU64, done: impl Fn() -> bool) {
        let mut client = durable(self.version, &self.name).connect(at).cut_anywhere();
        while self.stage != Stage::New || !done() {
            let message = self.message();
            if self.stage != Stage::Received {
                client.try_send(&publish(self.version, &message));
                self.stage = Stage::Sent;
                if !self.answered(&mut client, 3 + self.qos, message.id) {
                    return;
                }
            }
            if self.qos == 2 {
                self.stage = Stage::Received;
                client.try_send(&ack(self.version, 6, message.id, 0));
                if !self.answered(&mut client, 7, message.id) {
                    return;
                }
            }
            self.next += 1;
            self.stage = Stage::New;
            acked.fetch_add(1, Relaxed);
        }
        client.disconnect();
    }

    fn answered(&self, client: &mut Client, kind: u8, id: u16) -> bool {
        match client.maybe_packet() {
            Some(Packet::Ack { kind: k, id: i, reason, .. }) => {
                assert_eq!((k, i), (kind, id));
                assert!(reason < 0x80 || (kind == 7 && reason == 0x92), "{reason:#04x}");
                true
            }
            None => false,
            other => panic!("{other:?}"),
        }
    }
}

/// A reader of QoS 2 that is there, and what it keeps.
#[derive(Default)]
struct Reader {
    received: BTreeMap<u16, String>,
    handed_on: Vec<String>,
}

impl Reader {
    /// Reads until the connection ends, or a mark has come and nothing is half done.
    fn run(&mut self, mut client: Client, version: Version) {
        while let Some(packet) = client.maybe_packet() {
            match packet {
                Packet::Publish(got) if got.qos < 2 => {
                    client.try_send(&ack(version, 4, got.id, 0));
                    self.handed_on.push(got.text());
                }
                Packet::Publish(got) => {
                    // The id is of the same message as long as it is not released.
                    if let Some(before) = self.received.get(&got.id) {
                        assert_again(&got, got.id, before);
                    } else {
                        self.received.insert(got.id, got.text());
                        self.handed_on.push(got.text());
                    }
                    client.try_send(&ack(version, 5, got.id, 0));
                }
                Packet::Ack { kind: 6, id, .. } => {
                    self.received.remove(&id);
                    client.try_send(&ack(version, 7, id, 0));
                }
                other => panic!("{other:?}"),
            }
            if self.handed_on.last().is_some_and(|text| text == "mark") && self.received.is_empty()
            {
                client.disconnect();
                return;
            }
        }
    }
}

/// Each number of each publisher; with QoS 2 once, with QoS 1 first in its order.
fn judge(who: &str, handed_on: &[String], publishers: &[Publisher]) {
    for publisher in publishers {
        let mut next = 0;
        let mut seen = BTreeSet::new();
        for text in handed_on {
            let Some(n) = text.strip_prefix(&format!("{} ", publisher.name)) else { continue };
            let n: u64 = n.parse().expect("a number");
            if !seen.insert(n) {
                assert_eq!(publisher.qos, 1, "{who}: {text} came twice");
            } else if publisher.qos == 1 {
                assert_eq!(n, next, "{who}: {text}");
                next += 1;
            }
        }
        let missing: Vec<u64> = (0..publisher.next).filter(|n| !seen.contains(n)).take(5).collect();
        assert!(missing.is_empty(), "{who} has nothing of {}: {missing:?}", publisher.name);
        assert_eq!(seen.len() as u64, publisher.next, "{who}: {}", publisher.name);
    }
}

/// The power goes while something is written and not on disk; the server starts again on what is left.
fn lose_the_power(shim: &Shim, server: &mut Server) {
    let held = shim.get(Word::SyncsHeld);
    shim.set(Word::SyncHold, 1);
    wait_for("a sync", || shim.get(Word::SyncsHeld) > held);
    server.kill9();
}

fn start_again(shim: &Shim, server: &mut Server) {
    shim.set(Word::SyncHold, 0);
    let (data, log) = (shim.path().join("data"), shim.path().join("log"));
    let (bytes, names) = cut_the_power(&data, &log);
    println!("{bytes} bytes and {names} names lost");
    assert!(bytes > 0, "the power took nothing");
    server.restart();
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power_and_qos_2_comes_once() {
    let shim = Shim::new();
    let log = shim.path().join("log");
    let builder = shim.builder().env("CLARION_SHIM_LOG", log.to_str().expect("text"));
    // Small tables, so that they are written out and switched in every round.
    let builder = builder.set("store.memtable_bytes", "1MiB");
    let mut server = builder.set("store.small_memtable_bytes", "1MiB").start();
    let version = Version::V5;
    for (id, filter) in [("exact", "power/q2 a"), ("wild", "power/+")] {
        away(&server, version, id, &[(filter, 2)]);
    }
    let mut session = begin(&server, version, "there");
    session.subscribe(&[("power/#", 2)]);
    session.disconnect();
    let publisher = |name: &str, version, qos| {
        let name = name.to_owned();
        Publisher { name, version, qos, next: 0, stage: Stage::New }
    };
    let mut publishers = [
        publisher("q1 a", Version::V311, 1),
        publisher("q1 b", Version::V5, 1),
        publisher("q2 a", Version::V311, 2),
        publisher("q2 b", Version::V5, 2),
    ];
    publishers.iter().for_each(|own| begin(&server, own.version, &own.name).disconnect());
    let acked = AtomicU64::new(0);
    let mut reader = Reader::default();
    for round in 1..=ROUNDS {
        let there = resume(&server, version, "there").cut_anywhere();
        let address = at(&server);
        thread::scope(|scope| {
            for publisher in &mut publishers {
                let acked = &acked;
                scope.spawn(move || publisher.run(address, acked, || false));
            }
            let reader = &mut reader;
            scope.spawn(move || reader.run(there, version));
            wait_for("publishes", || acked.load(Relaxed) >= round * ACKED_PER_ROUND);
            lose_the_power(&shim, &mut server);
        });
        start_again(&shim, &mut server);
    }
    for publisher in &mut publishers {
        publisher.run(at(&server), &acked, || true);
    }
    let mut marker = client(&server, version, "marker");
    for name in ["q2 a", "mark"] {
        marker.publish(&format!("power/{name}"), "mark", 2);
    }
    reader.run(resume(&server, version, "there"), version);
    judge("who was there", &reader.handed_on, &publishers);
    for id in ["exact", "wild"] {
        let mut reader = Reader::default();
        reader.run(resume(&server, version, id), version);
        let own = if id == "exact" { &publishers[2..3] } else { &publishers[..] };
        judge(id, &reader.handed_on, own);
    }
    assert_no_panic(&server);
}

/// Ids of QoS 2 that a client has seen, and that it was told to release, are on disk before.
#[test]
fn what_a_client_has_seen_is_stored() {
    let shim = Shim::new();
    let log = shim.path().join("log");
    let mut server = shim.builder().env("CLARION_SHIM_LOG", log.to_str().expect("text")).start();
    let version = Version::V5;
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 2), ("b/+", 2)]);
    let mut writer = client(&server, version, "writer");
    for n in 0..10 {
        writer.publish(if n % 2 == 0 { "a" } else { "b/c" }, n.to_string(), 2);
    }
    let sent: Vec<Message> = (0..10).map(|_| session.unacked()).collect();
    for message in &sent[..5] {
        session.ack(5, message.id, 0);
        assert_eq!(session.wait_ack(6, message.id), 0);
    }
    shim.set(Word::SyncHold, 1);
    let held = shim.get(Word::SyncsHeld);
    // Something that is written, and lost.
    writer.send_message(Message::new("a", "lost").qos(1));
    wait_for("a sync", || shim.get(Word::SyncsHeld) > held);
    server.kill9();
    drop((session, writer));
    start_again(&shim, &mut server);
    let mut session = resume(&server, version, "s");
    let (mut published, mut released) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        match session.packet() {
            Packet::Publish(message) => published.push(message),
            Packet::Ack { kind: 6, id, .. } => released.push(id),
            other => panic!("{other:?}"),
        }
    }
    session.quiet();
    assert_eq!(released, sent[..5].iter().map(|message| message.id).collect::<Vec<_>>());
    for (got, before) in published.iter().zip(&sent[5..]) {
        assert_again(got, before.id, &before.text());
    }
    assert_no_panic(&server);
}
