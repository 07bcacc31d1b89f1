//! Packets that no client may send, each with the exact answer that it gets and the statement that it breaks.
//!
//! `table`: the packets. Invariant: every one of them ends its connection, and nobody else's.

mod table;

use crate::{bad_input::assert_healthy, mqtt::broker::Broker};
use clarion_tests::mqtt::{Client, Message, Options, Packet, Version, unhex};
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

/// Less than elsewhere: all answers come at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// When a packet is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// As the first of a connection.
    First,
    /// After an accepted CONNECT.
    After,
}

/// How the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Without a word.
    Close,
    /// With a CONNACK of this return or reason code.
    Connack(u8),
    /// With a DISCONNECT of this reason code.
    Disconnect(u8),
}

/// When, version, bytes, answer, statement of the specification, what is wrong.
type Row = (When, Version, &'static str, Answer, &'static str, &'static str);

fn ended(client: &mut Client) -> Answer {
    match client.rest().as_slice() {
        [] => Answer::Close,
        [Packet::Connack { code, present: false, .. }] if *code > 0 => Answer::Connack(*code),
        [Packet::Disconnect { reason, .. }] => Answer::Disconnect(*reason),
        other => panic!("it is answered {other:?}"),
    }
}

fn check(broker: &Broker, (when, version, hex, answer, ..): Row) {
    let mut client = Client::open(broker.at(), version);
    client.stream().set_read_timeout(Some(PATIENCE)).expect("a socket");
    if when == When::After {
        let connack = client.handshake(&Options::new(version, "malformed"));
        assert_eq!(connack.code, 0);
    }
    client.try_send(&unhex(hex));
    assert_eq!(ended(&mut client), answer);
}

#[test]
fn each_is_answered_as_it_should() {
    let broker = Broker::start();
    let mut other = broker.client(Version::V311, "other");
    other.subscribe(&[("#", 0)]);
    let (mut complaints, mut seen) = (Vec::new(), BTreeSet::new());
    let mut count = 0;
    for row in table::rows() {
        let (when, version, hex, answer, statement, what) = row;
        assert!(seen.insert((when == When::First, version, unhex(hex))), "{hex} stands twice");
        count += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&broker, row))) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            complaints
                .push(format!("{version:?} {hex} ({what}, {statement}), not {answer:?}: {text}"));
        }
    }
    println!("{count} malformed packets");
    assert!(count >= 100);
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    // Nothing of all that was passed on, and those who behave go on.
    other.quiet();
    other.publish("a", "well", 0);
    assert_eq!(other.message(), Message::new("a", "well"));
    assert_healthy(broker.server());
}

/// What is announced and never comes costs its sender his connection, not the server its memory.
#[test]
fn lengths_are_not_believed() {
    let broker = Broker::start();
    let server = broker.server();
    let before = server.peak_rss_kib();
    let mut open = Vec::new();
    for n in 0..200 {
        let mut client = broker.client(Version::V311, &format!("announces {n}"));
        // One MiB each, of which a few bytes come.
        client.send(&[0x30, 0x80, 0x80, 0x40, 0, 1, b'a']);
        open.push(client);
        let mut first = Client::open(broker.at(), Version::V311);
        first.send(&unhex("10 80 80 04 0004 4D515454"));
        open.push(first);
    }
    broker.client(Version::V5, "last").quiet();
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("400 announcements of long packets: +{grown} KiB");
    assert!(grown < 20 << 10, "{grown} KiB");
}
