//! A disk that is slow or fails, and durable sessions: nothing is answered that is not stored, and what is stored is there.
//!
//! `power`: what no sync covered is taken back.

mod power;

use crate::{
    faults::shim::{Shim, Word},
    mqtt::versions,
    mqtt_durable::{
        assert_no_panic, at, away, begin, client, durable, nothing_more, numbered, numbers, resume,
        start,
    },
};
use clarion_tests::{
    Server,
    mqtt::{Client, Filter, Message, Options, Packet, Version, ack, connect, publish, subscribe},
    wait_for,
};
use std::io::ErrorKind;

const EIO: u64 = 5;
const ENOSPC: u64 = 28;

versions! {
    no_answer_comes_before_its_sync: v311 v5;
    no_answer_comes_before_a_slow_sync: v311 v5;
    nothing_is_released_before_its_sync: v311 v5;
    after_a_failed_sync_nothing_is_acknowledged: v311 v5;
    a_disk_that_has_no_room_is_told: v311 v5;
    a_full_store_gives_what_it_has: v311 v5;
}

/// Nothing came that could be read.
#[track_caller]
fn assert_silent(client: &Client) {
    let stream = client.stream();
    stream.set_nonblocking(true).expect("a socket");
    let found = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    match found {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("something came before the sync: {other:?}"),
    }
}

/// Says something while no sync gets through: its answer comes only when one does.
#[track_caller]
fn held(shim: &Shim, client: &mut Client, bytes: &[u8], expected: impl Fn(&Packet) -> bool) {
    let before = shim.get(Word::SyncsHeld);
    shim.set(Word::SyncHold, 1);
    client.send(bytes);
    wait_for("the sync", || shim.get(Word::SyncsHeld) > before);
    assert_silent(client);
    shim.set(Word::SyncHold, 0);
    let answer = client.packet();
    assert!(expected(&answer), "{answer:?}");
}

fn is_ack(packet: &Packet, kind: u8, id: u16) -> bool {
    matches!(packet, Packet::Ack { kind: k, id: i, reason: 0..0x80, .. } if (*k, *i) == (kind, id))
}

fn to(topic: &str, id: u16, qos: u8) -> Message {
    Message { id, ..Message::new(topic, id.to_string()).qos(qos) }
}

fn no_answer_comes_before_its_sync(version: Version) {
    let shim = Shim::new();
    let server = shim.start();
    for (n, (filter, topic)) in [("exact", "exact"), ("wild/+", "wild/a")].into_iter().enumerate() {
        let reader = format!("reader {n}");
        // A session, a subscription.
        let mut session = Client::open(at(&server), version);
        let hello = connect(&durable(version, &reader));
        held(&shim, &mut session, &hello, |answer| {
            matches!(answer, Packet::Connack { present: false, code: 0, .. })
        });
        let filters = [Filter::new(filter, 2)];
        held(
            &shim,
            &mut session,
            &subscribe(version, 1, &filters, &[]),
            |answer| matches!(answer, Packet::Suback { kind: 9, id: 1, codes, .. } if *codes == [2]),
        );
        session.disconnect();
        // Publishes of a durable session, and of one that is not.
        let mut own = begin(&server, version, &format!("writer {n}"));
        let mut clean = client(&server, version, "clean");
        for writer in [&mut own, &mut clean] {
            let one = publish(version, &to(topic, 1, 1));
            held(&shim, writer, &one, |answer| is_ack(answer, 4, 1));
            let two = publish(version, &to(topic, 2, 2));
            held(&shim, writer, &two, |answer| is_ack(answer, 5, 2));
        }
        // Of the durable one that the id is free is stored, too.
        held(&shim, &mut own, &ack(version, 6, 2, 0), |answer| is_ack(answer, 7, 2));
        clean.ack(6, 2, 0);
        assert_eq!(clean.wait_ack(7, 2), 0);
        let mut session = resume(&server, version, &reader);
        let mut texts = session.texts(4);
        texts.sort();
        assert_eq!(texts, ["1", "1", "2", "2"]);
        nothing_more(&server, version, &mut session, &[topic]);
        session.disconnect();
    }
    assert_no_panic(&server);
}

fn no_answer_comes_before_a_slow_sync(version: Version) {
    let shim = Shim::new();
    let server = shim.start();
    away(&server, version, "s", &[("exact", 1), ("wild/+", 2)]);
    let mut writer = begin(&server, version, "writer");
    shim.set(Word::SyncDelayMs, 100);
    for n in 0..6 {
        let topic = if n % 2 == 0 { "exact" } else { "wild/a" };
        let qos = 1 + n / 2 % 2;
        let id = writer.next_id();
        let mut done = shim.get(Word::SyncsDone);
        writer.send(&publish(version, &to(topic, id, qos)));
        for kind in if qos == 1 { &[4][..] } else { &[5, 7] } {
            assert!(writer.wait_ack(*kind, id) < 0x80);
            let now = shim.get(Word::SyncsDone);
            assert!(now > done, "answered with type {kind} before a sync was through");
            done = now;
            if *kind == 5 {
                writer.ack(6, id, 0);
            }
        }
    }
    shim.set(Word::SyncDelayMs, 0);
    let mut session = resume(&server, version, "s");
    assert_eq!(session.texts(6).len(), 6);
    nothing_more(&server, version, &mut session, &["exact", "wild/a"]);
}

/// PUBREL of a delivery: that it is released is stored before.
fn nothing_is_released_before_its_sync(version: Version) {
    let shim = Shim::new();
    let server = shim.start();
    for filter in ["a", "+"] {
        let id = format!("s {filter}");
        let mut session = begin(&server, version, &id);
        session.subscribe(&[(filter, 2)]);
        client(&server, version, "writer").publish_all(numbered("a", 2, 0..3));
        for n in 0..3 {
            let got = session.unacked();
            assert_eq!(got.text(), n.to_string());
            if n < 2 {
                continue;
            }
            let received = ack(version, 5, got.id, 0);
            held(&shim, &mut session, &received, |answer| is_ack(answer, 6, got.id));
        }
        session.disconnect();
        client(&server, version, &id).disconnect();
    }
}

/// What a publish came to, after a sync has failed: it was not acknowledged.
#[track_caller]
fn assert_not_acknowledged(version: Version, client: &mut Client) {
    match client.maybe_packet() {
        Some(Packet::Ack { kind: 4 | 5 | 7, reason: 0x80.., .. }) if version == Version::V5 => {}
        Some(Packet::Disconnect { reason: 0x80.., .. }) => {}
        None => {}
        other => panic!("acknowledged: {other:?}"),
    }
}

/// No PUBCOMP comes, whether the connection goes on or not.
#[track_caller]
fn assert_no_answer(client: &mut Client) {
    client.try_send(&[0xC0, 0]);
    match client.maybe_packet() {
        Some(Packet::Pingresp | Packet::Disconnect { .. }) | None => {}
        other => panic!("acknowledged: {other:?}"),
    }
}

fn after_a_failed_sync_nothing_is_acknowledged(version: Version) {
    let shim = Shim::new();
    let mut server = shim.start();
    away(&server, version, "exact", &[("a", 2)]);
    away(&server, version, "wild", &[("+", 2)]);
    let mut writer = begin(&server, version, "writer");
    writer.publish_all(numbered("a", 1, 0..10).chain(numbered("a", 2, 10..20)));
    // Handshakes that are half done when it happens.
    let mut half = begin(&server, version, "half");
    half.send_message(Message { id: 9, ..Message::new("a", "half").qos(2) });
    assert!(half.wait_ack(5, 9) < 0x80);
    let mut others: Vec<Client> =
        (0..4).map(|n| begin(&server, version, &format!("other {n}"))).collect();
    shim.set(Word::SyncErrno, EIO);
    shim.set(Word::SyncFails, 1);
    for (n, other) in others.iter_mut().enumerate() {
        let message = to("a", 100 + n as u16, 1 + (n % 2) as u8);
        other.send(&publish(version, &message));
        assert_not_acknowledged(version, other);
    }
    half.ack(6, 9, 0);
    assert_no_answer(&mut half);
    assert_eq!(shim.get(Word::SyncsFailed), 1, "the fault was not hit");
    // A session could not be stored, so there is none; who needs none comes in.
    let refused = if version == Version::V5 { 0x88 } else { 3 };
    for id in ["new", "writer"] {
        let (mut session, connack) = durable(version, id).attempt(at(&server));
        assert_eq!((connack.code, connack.present), (refused, false), "{id}");
        assert_eq!(session.ended(), None);
    }
    let mut live = client(&server, version, "live");
    live.subscribe(&[("live/x", 0)]);
    live.publish("live/x", "x", 0);
    assert_eq!(live.message().text(), "x");
    assert_no_answer(&mut half);
    server.restart();
    let mut half = resume(&server, version, "half");
    half.ack(6, 9, 0);
    assert!([0, 0x92].contains(&half.wait_ack(7, 9)));
    // Whoever was not answered says it again.
    for n in 0..4 {
        let mut other = resume(&server, version, &format!("other {n}"));
        let message = Message { dup: true, ..to("a", 100 + n, 1 + (n % 2) as u8) };
        other.send(&publish(version, &message));
        if n % 2 == 0 {
            assert_eq!(other.wait_ack(4, 100 + n), 0);
        } else {
            assert!(other.wait_ack(5, 100 + n) < 0x80);
            other.ack(6, 100 + n, 0);
            assert_eq!(other.wait_ack(7, 100 + n), 0);
        }
    }
    for id in ["exact", "wild"] {
        assert_all_there(&server, version, id);
    }
    assert_no_panic(&server);
}

/// A session gets what was acknowledged, and of what was not at most what was sent.
fn assert_all_there(server: &Server, version: Version, id: &str) {
    let mut session = resume(server, version, id);
    client(server, version, "marker").publish("a", "mark", 2);
    let mut rest = Vec::new();
    loop {
        match session.message().text() {
            mark if mark == "mark" => break,
            text => rest.push(text),
        }
    }
    // Of each QoS what was acknowledged comes first, once and in order.
    for acked in [numbers(0..10), numbers(10..20)] {
        let (found, others) = rest.into_iter().partition(|text| acked.contains(text));
        assert_eq!(acked, found as Vec<String>);
        rest = others;
    }
    rest.sort();
    // Of QoS 1 both may have been stored.
    let mut once = rest.clone();
    once.dedup();
    assert_eq!(once, ["100", "101", "102", "103", "half"]);
    let twice = |text: &&str| rest.iter().filter(|found| found == text).count() > 1;
    assert!(!["101", "103", "half"].iter().any(twice), "QoS 2 comes once: {rest:?}");
}

/// A reader whose window is small has a backlog; the disk has no room for anything more.
fn a_disk_that_has_no_room_is_told(version: Version) {
    let shim = Shim::new();
    let mut server = shim.builder().set("mqtt.max_inflight", "5").start();
    let mut sessions: Vec<Client> = ["full/a", "full/+"]
        .into_iter()
        .map(|filter| {
            let mut session = begin(&server, version, filter);
            session.subscribe(&[(filter, 1)]);
            session
        })
        .collect();
    let mut writers: Vec<Client> =
        (0..4).map(|n| begin(&server, version, &format!("writer {n}"))).collect();
    writers[0].publish_all(numbered("full/a", 1, 0..100));
    shim.set(Word::WriteErrno, ENOSPC);
    for (n, writer) in writers.iter_mut().enumerate() {
        let qos = 1 + (n % 2) as u8;
        let id = 1000 + n as u16;
        writer.send(&publish(version, &to("full/a", id, qos)));
        match writer.maybe_packet() {
            // Of the first one nobody knows whether it is stored; then there is no store, or no room in it.
            Some(Packet::Ack { kind, id: i, reason: 0x80.., .. }) if version == Version::V5 => {
                assert_eq!((kind, i), (3 + qos, id));
                writer.quiet();
            }
            // 3.1.1 has no word for it.
            None if version < Version::V5 => {}
            other => panic!("QoS {qos}: {other:?}"),
        }
    }
    assert!(shim.get(Word::WritesFailed) > 0, "the fault was not hit");
    for session in &mut sessions {
        assert_eq!(session.texts(100), numbers(0..100), "what is there is given");
        session.quiet();
    }
    // Room again: at the latest after a restart all is well. What was refused is there at most once.
    shim.set(Word::WriteErrno, 0);
    server.restart();
    drop(sessions);
    client(&server, version, "writer").publish("full/a", "room", 1);
    for id in ["full/a", "full/+"] {
        let mut session = resume(&server, version, id);
        // The acks could not be written.
        let mut again = Vec::new();
        loop {
            match session.message().text() {
                room if room == "room" => break,
                text => again.push(text.parse::<u32>().expect("a number")),
            }
        }
        let refused: Vec<u32> = again.iter().copied().filter(|n| *n >= 1000).collect();
        assert!(refused.len() <= 4 && refused.is_sorted(), "{refused:?}");
        again.retain(|n| *n < 1000);
        assert!(again.is_sorted() && again.iter().all(|n| *n < 100), "{again:?}");
    }
    assert_no_panic(&server);
}

/// The bound of the store itself: publishes are refused, sessions come and go and are given what waits.
fn a_full_store_gives_what_it_has(version: Version) {
    let mut server = start(&[]);
    for (id, filter) in [("exact", "full"), ("wild", "#")] {
        away(&server, version, id, &[(filter, 2)]);
    }
    client(&server, version, "writer").publish_all(numbered("full", 1, 0..50).chain(numbered(
        "full",
        2,
        50..100,
    )));
    server.reconfigure(|builder| builder.set("store.min_free_bytes", "1000000TiB"));
    server.restart();
    for id in ["exact", "wild"] {
        let mut session = resume(&server, version, id);
        assert_eq!(session.texts(100), numbers(0..100));
        session.disconnect();
    }
    for qos in [1, 2] {
        let mut writer = Options::new(version, "writer").connect(at(&server));
        writer.send(&publish(version, &to("full", 1, qos)));
        match writer.maybe_packet() {
            Some(Packet::Ack { kind, reason: 0x97, .. }) if version == Version::V5 => {
                assert_eq!(kind, 3 + qos);
            }
            None if version < Version::V5 => {}
            other => panic!("QoS {qos}: {other:?}"),
        }
    }
    assert_no_panic(&server);
}
