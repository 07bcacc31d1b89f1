//! The server ends, orderly or not, and starts again on the same data.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        KEPT, assert_again, assert_no_panic, at, away, begin, client, durable, nothing_more,
        numbered, numbers, pass, resume, start,
    },
};
use clarion_tests::{
    Server,
    mqtt::{Message, Options, Packet, Version, prop},
};

versions! {
    what_waits_outlives_the_server: v31 v311 v5;
    an_orderly_end_keeps_the_ids: v31 v311 v5;
    after_a_crash_nothing_is_missing: v31 v311 v5;
    what_was_confirmed_does_not_come_again_after_a_crash: v311 v5;
    many_sessions_are_there_again: v311 v5;
    a_session_may_be_discarded_right_before_a_crash: v311 v5;
    several_ends_in_a_row: v311 v5;
}

/// Ends it orderly or not, and starts it again.
fn restart(server: &mut Server, crash: bool) {
    if crash {
        server.kill9();
    } else {
        assert_eq!(server.terminate().code(), Some(0));
    }
    server.restart();
}

fn what_waits_outlives_the_server(version: Version) {
    let mut server = start(&[]);
    let topics = ["a", "b/c", "d/e/f"];
    away(&server, version, "s", &[("a", 1), ("b/+", 2), ("d/#", 1), ("live", 0)]);
    for (n, crash) in [false, true, true, false].into_iter().enumerate() {
        let mut writer = client(&server, version, "writer");
        let first = n as u32 * 10;
        for topic in topics {
            writer.publish_all(numbered(topic, 2, first..first + 5));
        }
        restart(&mut server, crash);
        let mut writer = client(&server, version, "writer");
        for topic in topics {
            writer.publish_all(numbered(topic, 2, first + 5..first + 10));
        }
        let mut session = resume(&server, version, "s");
        let mut got = vec![Vec::new(); 3];
        for _ in 0..30 {
            let message = session.message();
            assert!(!message.dup, "never sent before: {message:?}");
            let own = topics.iter().position(|topic| *topic == message.topic).expect("known");
            got[own].push(message.text());
        }
        assert!(got.iter().all(|own| *own == numbers(first..first + 10)), "{got:?}");
        writer.publish("live", "live", 1);
        let live = session.message();
        assert_eq!((live.text().as_str(), live.qos), ("live", 0));
        nothing_more(&server, version, &mut session, &topics);
        session.disconnect();
    }
    assert_no_panic(&server);
}

fn an_orderly_end_keeps_the_ids(version: Version) {
    for attached in [true, false] {
        let mut server = start(&[]);
        away(&server, version, "reader", &[("own", 1)]);
        let mut writer = client(&server, version, "writer");
        let mut session = begin(&server, version, "s");
        session.subscribe(&[("a", 1), ("b/+", 2)]);
        writer.publish_all(numbered("a", 1, 0..3));
        for n in 3..7 {
            writer.publish("b/c", n.to_string(), 2);
        }
        let mut sent: Vec<Message> = (0..7).map(|_| session.unacked()).collect();
        sent.sort_by_key(Message::text);
        session.ack(4, sent[1].id, 0);
        for n in [3, 4] {
            session.ack(5, sent[n].id, 0);
            assert_eq!(session.wait_ack(6, sent[n].id), 0);
        }
        session.ack(7, sent[4].id, 0);
        let own = |n| Message { id: n, ..Message::new("own", "mine").qos(2) };
        session.send_message(own(77));
        session.wait_ack(5, 77);
        session.quiet();
        if attached {
            assert_eq!(server.terminate().code(), Some(0));
            // 5 says why.
            assert_eq!(session.ended().is_some(), version == Version::V5);
            server.restart();
        } else {
            session.disconnect();
            restart(&mut server, false);
        }
        let mut session = resume(&server, version, "s");
        let mut again = Vec::new();
        for _ in 0..5 {
            match session.packet() {
                Packet::Publish(message) => again.push(message),
                Packet::Ack { kind: 6, id, .. } => assert_eq!(id, sent[3].id),
                other => panic!("{other:?}"),
            }
        }
        session.quiet();
        again.sort_by_key(Message::text);
        for (got, before) in again.iter().zip([0, 2, 5, 6].map(|n| &sent[n])) {
            assert_again(got, before.id, &before.text());
        }
        session.send_message(Message { dup: true, ..own(77) });
        session.wait_ack(5, 77);
        session.ack(6, 77, 0);
        session.wait_ack(7, 77);
        let mut reader = resume(&server, version, "reader");
        assert_eq!(reader.message().text(), "mine");
        nothing_more(&server, version, &mut reader, &["own"]);
        assert_no_panic(&server);
    }
}

fn after_a_crash_nothing_is_missing(version: Version) {
    let mut server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 2)]);
    writer.publish_all(numbered("a", 1, 0..5).chain(numbered("b/c", 2, 0..5)));
    let sent: Vec<Message> = (0..10).map(|_| session.unacked()).collect();
    let of_b: Vec<&Message> = sent.iter().filter(|message| message.topic == "b/c").collect();
    // 0 is received and released, nothing else.
    session.ack(5, of_b[0].id, 0);
    assert_eq!(session.wait_ack(6, of_b[0].id), 0);
    restart(&mut server, true);
    let mut writer = client(&server, version, "writer");
    writer.publish_all(numbered("a", 1, 5..8).chain(numbered("b/c", 2, 5..8)));
    let mut session = resume(&server, version, "s");
    let (mut a, mut b, mut released) = (Vec::new(), Vec::new(), 0);
    while a.len() < 8 || b.len() < 7 || released < 1 {
        match session.packet() {
            Packet::Ack { kind: 6, id, .. } => {
                assert_eq!(id, of_b[0].id, "nothing else was released");
                session.ack(7, id, 0);
                released += 1;
            }
            Packet::Publish(got) => {
                let n: usize = got.text().parse().expect("a number");
                // What was sent before may be a repetition, and says so; QoS 2 has its id.
                assert_eq!(got.dup, n < 5, "{got:?}");
                if got.topic == "a" {
                    a.push(got.text());
                    session.ack(4, got.id, 0);
                } else {
                    assert!(n >= 5 || got.id == of_b[n].id, "{got:?}, sent as {:?}", of_b[n]);
                    b.push(got.text());
                    session.ack(5, got.id, 0);
                    assert_eq!(session.wait_ack(6, got.id), 0);
                    session.ack(7, got.id, 0);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((a, b), (numbers(0..8), numbers(1..8)));
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
    assert_no_panic(&server);
}

/// A DISCONNECT writes what was acked; so does the handshake of QoS 2.
fn what_was_confirmed_does_not_come_again_after_a_crash(version: Version) {
    let mut server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 1), ("c", 2)]);
    for n in 0..6 {
        for topic in ["a", "b/c", "c"] {
            writer.publish(topic, n.to_string(), 2);
        }
    }
    for _ in 0..18 {
        let got = session.unacked();
        let n: u32 = got.text().parse().expect("a number");
        if n == 1 || n == 4 {
            continue;
        }
        if got.qos == 1 {
            session.ack(4, got.id, 0);
        } else {
            session.ack(5, got.id, 0);
            assert_eq!(session.wait_ack(6, got.id), 0);
            session.ack(7, got.id, 0);
        }
    }
    session.disconnect();
    // The end of a connection is written before the next one begins.
    let session = resume(&server, version, "s");
    restart(&mut server, true);
    drop(session);
    let mut session = resume(&server, version, "s");
    let mut got: Vec<(String, String)> = Vec::new();
    for _ in 0..6 {
        let message = session.message();
        assert!(message.dup, "{message:?}");
        got.push((message.topic.clone(), message.text()));
    }
    let of = |topic: &str| -> Vec<String> {
        got.iter().filter(|(of, _)| of == topic).map(|(_, text)| text.clone()).collect()
    };
    for topic in ["a", "b/c", "c"] {
        assert_eq!(of(topic), ["1", "4"], "{topic}");
    }
    nothing_more(&server, version, &mut session, &["a", "b/c", "c"]);
}

fn many_sessions_are_there_again(version: Version) {
    let mut server = start(&[]);
    for n in 0..200 {
        let own = format!("own/{n}");
        away(&server, version, &format!("s{n}"), &[("all", 1), (&own, 2), ("w/+", 1)]);
    }
    for (round, crash) in [true, false].into_iter().enumerate() {
        restart(&mut server, crash);
        let mut writer = client(&server, version, "writer");
        writer.publish("all", "all", 1);
        writer.publish("w/x", "wild", 1);
        for n in (round..200).step_by(20) {
            writer.publish(&format!("own/{n}"), "own", 2);
        }
        for n in 0..200 {
            let mut session = resume(&server, version, &format!("s{n}"));
            let count = if n % 20 == round { 3 } else { 2 };
            let mut texts = session.texts(count);
            texts.sort();
            assert_eq!(
                texts,
                ["all", "own", "wild"]
                    .into_iter()
                    .filter(|t| count == 3 || *t != "own")
                    .collect::<Vec<_>>()
            );
            session.disconnect();
        }
    }
}

fn a_session_may_be_discarded_right_before_a_crash(version: Version) {
    let mut server = start(&[]);
    for n in 0..10 {
        let id = format!("s{n}");
        away(&server, version, &id, &[("a", 1), ("b/+", 1)]);
        client(&server, version, "writer").publish("a", "lost", 1);
        let clean = Options { clean: true, ..durable(version, &id) };
        let session = clean.connect(at(&server));
        assert!(!session.connack().present);
        // It was told so; that is true whatever happens now.
        server.kill9();
        drop(session);
        server.restart();
        let mut session = durable(version, &id).connect(at(&server));
        // Of 5 the new session is one that is kept.
        assert_eq!(session.connack().present, version == Version::V5);
        session.quiet();
        session.subscribe(&[("a", 1)]);
        nothing_more(&server, version, &mut session, &["a"]);
        session.unsubscribe(&["a"]);
        session.disconnect();
    }
}

fn several_ends_in_a_row(version: Version) {
    let mut server = start(&[]);
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 2)]);
    let mut writer = client(&server, version, "writer");
    writer.publish_all(numbered("a", 1, 0..3));
    writer.publish_all(numbered("b/c", 2, 0..3));
    let sent: Vec<Message> = (0..6).map(|_| session.unacked()).collect();
    for crash in [true, false, true, true, false, false, true] {
        restart(&mut server, crash);
        session = resume(&server, version, "s");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            let got = session.unacked();
            assert!(got.dup, "{got:?}");
            let before = sent.iter().find(|b| (&b.topic, b.text()) == (&got.topic, got.text()));
            let before = before.expect("sent before");
            if got.topic == "a" {
                a.push(got.text());
            } else {
                assert_eq!(got.id, before.id);
                b.push(got.text());
            }
        }
        assert_eq!((a, b), (numbers(0..3), numbers(0..3)));
        session.quiet();
    }
    drop(session);
    let mut session = resume(&server, version, "s");
    let mut texts = session.texts(6);
    texts.sort();
    assert_eq!(texts, ["0", "0", "1", "1", "2", "2"]);
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
}

/// Expiry goes on while the server is down; of who was connected at a crash it counts from the restart.
#[test]
fn sessions_expire_over_restarts() {
    for crash in [false, true] {
        let mut server = start(&[]);
        let options = |id: &str, seconds| {
            Options::new(Version::V5, id).clean(false).with(prop::session_expiry(seconds))
        };
        let gone = options("gone", 1).connect(at(&server));
        options("away", 1).connect(at(&server)).disconnect();
        let stays = options("stays", KEPT).connect(at(&server));
        options("away, stays", KEPT).connect(at(&server)).disconnect();
        restart(&mut server, crash);
        drop((gone, stays));
        pass(&server, 2);
        for (id, present) in
            [("gone", false), ("away", false), ("stays", true), ("away, stays", true)]
        {
            let session = options(id, KEPT).connect(at(&server));
            assert_eq!(session.connack().present, present, "{id}, after a crash: {crash}");
        }
    }
}

/// So do messages.
#[test]
fn messages_expire_over_restarts() {
    for crash in [false, true] {
        let mut server = start(&[]);
        away(&server, Version::V5, "s", &[("a", 1), ("b/+", 1)]);
        let mut writer = client(&server, Version::V5, "writer");
        for topic in ["a", "b/c"] {
            let message = |text| Message::new(topic, text).qos(1);
            writer.publish_as(message("short").with(prop::message_expiry(1u32)));
            writer.publish_as(message("long").with(prop::message_expiry(1000u32)));
        }
        restart(&mut server, crash);
        pass(&server, 2);
        let mut session = resume(&server, Version::V5, "s");
        assert_eq!(session.texts(2), ["long", "long"]);
        nothing_more(&server, Version::V5, &mut session, &["a", "b/c"]);
    }
}
