//! QoS 2, both ways: what ends in the middle of a handshake, and packet ids that come back.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        End, again, assert_again, assert_no_panic, at, away, begin, client, durable, nothing_more,
        numbered, numbers, pass, resume, start,
    },
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Packet, Version, prop},
};
use std::collections::BTreeSet;

versions! {
    a_filter_that_is_unsubscribed_in_between: v311 v5;
    an_unknown_pubrel_is_answered: v31 v311 v5;
    a_publish_that_is_repeated_after_a_kill: v311 v5;
    a_retained_publish_that_is_repeated: v311 v5;
    a_pubrel_that_is_repeated_after_a_kill: v311 v5;
    an_id_that_is_used_again_at_once: v311 v5;
    kills_at_every_step_of_an_own_publish: v311 v5;
    kills_at_every_step_of_a_delivery: v311 v5;
}

/// Seen, received, and all that the server then says of them on the next connection.
struct Handshakes {
    sent: Message,
    received: Message,
}

fn half_done(session: &mut Client) -> Handshakes {
    let (sent, received) = (session.unacked(), session.unacked());
    session.ack(5, received.id, 0);
    assert_eq!(session.wait_ack(6, received.id), 0);
    session.quiet();
    Handshakes { sent, received }
}

impl Handshakes {
    /// The one that was sent is sent again or closed, the other one closed; neither id is anything else's meanwhile.
    fn go_on(&self, session: &mut Client) {
        let (mut sent, mut received) = (false, false);
        while !(sent && received) {
            match session.packet() {
                Packet::Publish(got) => {
                    assert_again(&got, self.sent.id, &self.sent.text());
                    assert!(!sent, "twice: {got:?}");
                    sent = true;
                    session.ack(5, got.id, 0);
                    assert_eq!(session.wait_ack(6, got.id), 0);
                    session.ack(7, got.id, 0);
                }
                Packet::Ack { kind: 6, id, .. } => {
                    sent |= id == self.sent.id;
                    received |= id == self.received.id;
                    assert!(id == self.sent.id || id == self.received.id, "PUBREL of {id}");
                    session.ack(7, id, 0);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What was handed out is finished, though it expired since.
#[test]
fn a_message_that_expires_in_between() {
    let version = Version::V5;
    for filter in ["e/a", "e/+"] {
        for end in [None, Some(End::Cut), Some(End::TakenOver), Some(End::Said)] {
            let mut server = start(&[]);
            let mut session = begin(&server, version, "s");
            session.subscribe(&[(filter, 2)]);
            let mut writer = client(&server, version, "writer");
            for text in ["sent", "received"] {
                let message = Message::new("e/a", text).qos(2).with(prop::message_expiry(1u32));
                writer.publish_as(message);
            }
            let handshakes = half_done(&mut session);
            let mut session = match end {
                Some(End::TakenOver) => {
                    pass(&server, 2);
                    again(&server, version, "s", session, End::TakenOver)
                }
                Some(end) => {
                    if end == End::Said {
                        session.disconnect()
                    } else {
                        session.vanish()
                    }
                    pass(&server, 2);
                    resume(&server, version, "s")
                }
                None => {
                    server.restart();
                    pass(&server, 2);
                    resume(&server, version, "s")
                }
            };
            handshakes.go_on(&mut session);
            nothing_more(&server, version, &mut session, &["e/a"]);
        }
    }
}

fn a_filter_that_is_unsubscribed_in_between(version: Version) {
    for filter in ["a", "+"] {
        for crash in [false, true] {
            let mut server = start(&[]);
            let mut session = begin(&server, version, "s");
            session.subscribe(&[(filter, 2)]);
            let mut writer = client(&server, version, "writer");
            writer.publish_all(numbered("a", 2, 0..2));
            let handshakes = half_done(&mut session);
            session.unsubscribe(&[filter]);
            writer.publish("a", "to nobody", 2);
            // Other messages come meanwhile, under ids of their own.
            session.subscribe(&[("other/+", 2)]);
            writer.publish_all(numbered("other/x", 2, 2..5));
            for n in 2..5 {
                let got = session.message();
                assert_eq!(got.text(), n.to_string());
                assert!(got.id != handshakes.sent.id && got.id != handshakes.received.id);
            }
            session.disconnect();
            if crash {
                // The end of a connection is written before the next one begins.
                let next = resume(&server, version, "s");
                server.restart();
                drop(next);
            }
            let mut session = resume(&server, version, "s");
            handshakes.go_on(&mut session);
            nothing_more(&server, version, &mut session, &["other/x"]);
        }
    }
}

fn an_unknown_pubrel_is_answered(version: Version) {
    let mut server = start(&[]);
    let ask = |session: &mut Client| {
        for id in [1, 77, u16::MAX] {
            session.ack(6, id, 0);
            let reason = session.wait_ack(7, id);
            // 5 may say that it knows nothing of it.
            assert!([0, 0x92].contains(&reason), "{reason:#04x}");
        }
        session.quiet();
    };
    ask(&mut client(&server, version, "clean"));
    let mut session = begin(&server, version, "s");
    ask(&mut session);
    session.disconnect();
    server.restart();
    let mut session = resume(&server, version, "s");
    ask(&mut session);
    assert!(session.publish("a", "x", 2) < 0x80);
}

fn own(n: u16, text: &str) -> Message {
    Message { id: n, ..Message::new("own", text).qos(2) }
}

fn repeated(message: &Message) -> Message {
    Message { dup: true, ..message.clone() }
}

/// Two readers: one by an exact filter, one by a wildcard; each gets these, each of them once.
fn assert_delivered(server: &Server, version: Version, expected: &[String]) {
    for id in ["exact", "wild"] {
        let mut reader = resume(server, version, id);
        let mut texts = reader.texts(expected.len());
        texts.sort();
        assert_eq!(texts, expected, "of {id}");
        nothing_more(server, version, &mut reader, &["own"]);
        reader.disconnect();
    }
}

fn with_readers(version: Version) -> Server {
    let server = start(&[]);
    away(&server, version, "exact", &[("own", 2)]);
    away(&server, version, "wild", &[("own/#", 2)]);
    server
}

fn a_publish_that_is_repeated_after_a_kill(version: Version) {
    let mut server = with_readers(version);
    let mut session = begin(&server, version, "s");
    let messages: Vec<Message> = (1..=20).map(|n| own(n, &format!("{n:02}"))).collect();
    for message in &messages {
        session.send_message(message.clone());
    }
    // Some of the answers are read; of the others nobody knows.
    for n in 1..=12 {
        assert_eq!(session.wait_ack(5, n) & 0x80, 0);
    }
    server.kill9();
    drop(session);
    server.restart();
    let mut session = resume(&server, version, "s");
    for message in &messages {
        session.send_message(repeated(message));
    }
    for n in 1..=20 {
        assert_eq!(session.wait_ack(5, n) & 0x80, 0);
        session.ack(6, n, 0);
    }
    for n in 1..=20 {
        assert_eq!(session.wait_ack(7, n), 0);
    }
    session.disconnect();
    let expected: Vec<String> = (1..=20).map(|n| format!("{n:02}")).collect();
    assert_delivered(&server, version, &expected);
    assert_no_panic(&server);
}

fn a_retained_publish_that_is_repeated(version: Version) {
    let server = with_readers(version);
    let mut session = begin(&server, version, "s");
    let message = own(7, "01").retained();
    session.send_message(message.clone());
    assert_eq!(session.wait_ack(5, 7) & 0x80, 0);
    session.vanish();
    let mut session = resume(&server, version, "s");
    session.send_message(repeated(&message));
    assert_eq!(session.wait_ack(5, 7) & 0x80, 0);
    session.ack(6, 7, 0);
    assert_eq!(session.wait_ack(7, 7), 0);
    session.disconnect();
    assert_delivered(&server, version, &["01".to_owned()]);
    assert_no_panic(&server);
}

fn a_pubrel_that_is_repeated_after_a_kill(version: Version) {
    let mut server = with_readers(version);
    let mut session = begin(&server, version, "s");
    for n in 1..=9 {
        session.send_message(own(n, &n.to_string()));
        assert_eq!(session.wait_ack(5, n) & 0x80, 0);
    }
    for n in 1..=9 {
        session.ack(6, n, 0);
    }
    for n in 1..=4 {
        assert_eq!(session.wait_ack(7, n), 0);
    }
    server.kill9();
    drop(session);
    server.restart();
    let mut session = resume(&server, version, "s");
    for n in 5..=9 {
        session.ack(6, n, 0);
        let reason = session.wait_ack(7, n);
        assert!([0, 0x92].contains(&reason), "{reason:#04x}");
    }
    // All are free again: those whose PUBCOMP was read at once, too.
    for n in 1..=9 {
        session.send_message(own(n, &format!("a{n}")));
        assert_eq!(session.wait_ack(5, n) & 0x80, 0);
        session.ack(6, n, 0);
        assert_eq!(session.wait_ack(7, n), 0);
    }
    session.disconnect();
    let mut expected: Vec<String> =
        (1..=9).flat_map(|n| [n.to_string(), format!("a{n}")]).collect();
    expected.sort();
    assert_delivered(&server, version, &expected);
}

/// The same id right after each PUBCOMP, with a kill now and then: each is a new message.
fn an_id_that_is_used_again_at_once(version: Version) {
    let mut server = with_readers(version);
    let mut session = begin(&server, version, "s");
    for n in 0..40 {
        session.send_message(own(5, &format!("{n:02}")));
        assert_eq!(session.wait_ack(5, 5) & 0x80, 0);
        session.ack(6, 5, 0);
        assert_eq!(session.wait_ack(7, 5), 0);
        if n % 8 == 7 {
            server.kill9();
            drop(session);
            server.restart();
            session = resume(&server, version, "s");
        }
    }
    session.disconnect();
    let expected: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    assert_delivered(&server, version, &expected);
}

/// Up to which packet of the handshake the server lived.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Step {
    Sent,
    Received,
    Released,
    Completed,
}

impl Step {
    const ALL: [Self; 4] = [Self::Sent, Self::Received, Self::Released, Self::Completed];
}

fn kills_at_every_step_of_an_own_publish(version: Version) {
    let mut server = with_readers(version);
    let mut session = begin(&server, version, "s");
    let mut n = 0;
    for step in [Step::ALL, Step::ALL, Step::ALL].concat() {
        n += 1;
        let message = own(3, &format!("{n:02}"));
        session.send_message(message.clone());
        if step >= Step::Received {
            assert_eq!(session.wait_ack(5, 3) & 0x80, 0);
        }
        if step >= Step::Released {
            session.ack(6, 3, 0);
        }
        if step >= Step::Completed {
            assert_eq!(session.wait_ack(7, 3), 0);
        }
        server.kill9();
        drop(session);
        server.restart();
        session = durable(version, "s").connect(at(&server));
        assert!(session.connack().present);
        // The client does what it must: the last packet that is not answered, again.
        if step <= Step::Received {
            session.send_message(repeated(&message));
            assert_eq!(session.wait_ack(5, 3) & 0x80, 0);
        }
        if step <= Step::Released {
            session.ack(6, 3, 0);
            assert_eq!(session.wait_ack(7, 3) & 0x60, 0);
        }
    }
    session.disconnect();
    let expected: Vec<String> = (1..=n).map(|n| format!("{n:02}")).collect();
    assert_delivered(&server, version, &expected);
}

fn kills_at_every_step_of_a_delivery(version: Version) {
    let mut server = start(&[]);
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 2), ("b/+", 2)]);
    // What a client keeps: ids that it has received and not released, and what it handed on.
    let mut kept: BTreeSet<u16> = BTreeSet::new();
    let mut handed_on: Vec<String> = Vec::new();
    let mut n = 0;
    for step in [Step::ALL, Step::ALL, Step::ALL].concat() {
        let topic = if n % 2 == 0 { "a" } else { "b/c" };
        client(&server, version, "writer").publish(topic, n.to_string(), 2);
        n += 1;
        let got = session.unacked();
        let id = got.id;
        if step >= Step::Received {
            kept.insert(id);
            handed_on.push(got.text());
            session.ack(5, id, 0);
        }
        if step >= Step::Released {
            assert_eq!(session.wait_ack(6, id), 0);
        }
        if step >= Step::Completed {
            kept.remove(&id);
            session.ack(7, id, 0);
            session.ping();
        }
        server.kill9();
        drop(session);
        server.restart();
        session = resume(&server, version, "s");
        while handed_on.len() < n as usize || !kept.is_empty() {
            match session.packet() {
                Packet::Publish(again) => {
                    assert_again(&again, id, &got.text());
                    if kept.insert(id) {
                        handed_on.push(again.text());
                    }
                    session.ack(5, id, 0);
                }
                Packet::Ack { kind: 6, id: released, .. } => {
                    assert_eq!(released, id);
                    kept.remove(&id);
                    session.ack(7, id, 0);
                }
                other => panic!("{other:?}"),
            }
        }
        if step == Step::Completed {
            // At most PUBREL, again.
            session.send(&[0xC0, 0]);
            loop {
                match session.packet() {
                    Packet::Ack { kind: 6, id: released, .. } => {
                        assert_eq!(released, id);
                        session.ack(7, id, 0);
                    }
                    Packet::Pingresp => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        session.quiet();
    }
    assert_eq!(handed_on, numbers(0..n));
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
}
