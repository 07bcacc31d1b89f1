//! What was under way when the connection ended: packet ids, DUP, order, and what was half done.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        End, again, assert_again, assert_released, begin, client, nothing_more, numbered, resume,
        start,
    },
};
use clarion_tests::mqtt::{Client, Message, Packet, Version, publish};

versions! {
    three_in_flight_the_second_acked: v31 v311 v5;
    qos_2_goes_on_where_it_was: v31 v311 v5;
    the_order_is_that_of_all_filters_together: v311 v5;
    it_comes_again_as_often_as_it_takes: v311 v5;
    ids_are_not_used_again_while_they_are_under_way: v311 v5;
    the_rest_comes_after_what_was_under_way: v311 v5;
    an_own_publish_goes_on: v311 v5;
    what_was_acked_last_counts: v311 v5;
}

fn three_in_flight_the_second_acked(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for qos in [1, 2] {
        for (n, filter) in ["r/a", "r/+"].into_iter().enumerate() {
            for end in End::ALL {
                let id = format!("s{qos}{n}{end:?}");
                let mut session = begin(&server, version, &id);
                session.subscribe(&[(filter, qos)]);
                writer.publish_all(numbered("r/a", qos, 0..3));
                let first = session.unacked();
                let second = session.unacked();
                let third = session.unacked();
                assert!(![&first, &second, &third].iter().any(|message| message.dup));
                if qos == 1 {
                    session.ack(4, second.id, 0);
                } else {
                    session.ack(5, second.id, 0);
                    assert_released(&mut session, second.id);
                }
                session.quiet();
                let mut session = again(&server, version, &id, session, end);
                let (one, three) = (session.unacked(), session.unacked());
                assert_again(&one, first.id, "0");
                assert_again(&three, third.id, "2");
                assert_eq!((one.qos, three.qos, one.topic.as_str()), (qos, qos, "r/a"));
                session.quiet();
                for message in [one, three] {
                    finish(&mut session, &message);
                }
                nothing_more(&server, version, &mut session, &["r/a"]);
                session.unsubscribe(&[filter]);
                session.disconnect();
            }
        }
    }
}

/// Acknowledges a message as its QoS asks for.
fn finish(client: &mut Client, message: &Message) {
    if message.qos == 1 {
        client.ack(4, message.id, 0);
    } else {
        client.ack(5, message.id, 0);
        assert_eq!(client.wait_ack(6, message.id), 0);
        client.ack(7, message.id, 0);
    }
}

fn qos_2_goes_on_where_it_was(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for end in End::ALL {
        let id = format!("s{end:?}");
        let mut session = begin(&server, version, &id);
        session.subscribe(&[("a", 2)]);
        writer.publish_all(numbered("a", 2, 0..4));
        let sent: Vec<Message> = (0..4).map(|_| session.unacked()).collect();
        // 0 is sent, 1 and 3 are released, 2 is done.
        for n in [1, 2, 3] {
            session.ack(5, sent[n].id, 0);
            assert_eq!(session.wait_ack(6, sent[n].id), 0);
        }
        session.ack(7, sent[2].id, 0);
        session.quiet();
        let mut session = again(&server, version, &id, session, end);
        for round in 0..2 {
            let mut released = Vec::new();
            for _ in 0..3 {
                match session.packet() {
                    Packet::Publish(message) => assert_again(&message, sent[0].id, "0"),
                    Packet::Ack { kind: 6, id, reason: 0, .. } => released.push(id),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(released, [sent[1].id, sent[3].id], "in the order of the PUBRECs");
            session.quiet();
            if round == 0 {
                session = again(&server, version, &id, session, end);
            }
        }
        session.ack(7, sent[1].id, 0);
        session.ack(7, sent[3].id, 0);
        session.quiet();
        let mut session = again(&server, version, &id, session, end);
        finish_again(&mut session, &sent[0]);
        nothing_more(&server, version, &mut session, &["a"]);
        session.unsubscribe(&["a"]);
        session.disconnect();
    }
}

#[track_caller]
fn finish_again(client: &mut Client, sent: &Message) {
    let got = client.unacked();
    assert_again(&got, sent.id, &sent.text());
    finish(client, &got);
}

fn the_order_is_that_of_all_filters_together(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for end in End::ALL {
        let id = format!("s{end:?}");
        let mut session = begin(&server, version, &id);
        let filters = [("x", 1), ("y", 2), ("w/+", 2), ("v/#", 1), ("+/+/deep", 2)];
        session.subscribe(&filters);
        let topics = ["x", "w/1", "y", "a/b/deep", "v/a/b", "w/2", "v"];
        for n in 0..21 {
            writer.publish(topics[n % topics.len()], n.to_string(), 1 + (n % 2) as u8);
        }
        let mut sent: Vec<Message> = (0..21).map(|_| session.unacked()).collect();
        let mut distinct: Vec<u16> = sent.iter().map(|message| message.id).collect();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 21, "each has an id of its own");
        let mut nth = 0;
        sent.retain(|message| {
            nth += 1;
            if nth % 3 == 0 {
                finish(&mut session, message);
            }
            nth % 3 != 0
        });
        session.quiet();
        let mut session = again(&server, version, &id, session, end);
        for before in &sent {
            finish_again(&mut session, before);
        }
        session.quiet();
        for topic in ["x", "y", "w/1", "v", "1/2/deep"] {
            nothing_more(&server, version, &mut session, &[topic]);
        }
        session.unsubscribe(&filters.map(|(filter, _)| filter));
        session.disconnect();
    }
}

fn it_comes_again_as_often_as_it_takes(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a/+", 2)]);
    for (n, qos) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
        writer.publish("a/b", n.to_string(), qos);
    }
    let sent: Vec<Message> = (0..4).map(|_| session.unacked()).collect();
    for end in [End::Said, End::Cut, End::TakenOver, End::Cut, End::TakenOver, End::Said] {
        session = again(&server, version, "s", session, end);
        for before in &sent {
            assert_again(&session.unacked(), before.id, &before.text());
        }
        session.quiet();
    }
    for before in &sent {
        finish(&mut session, before);
    }
    nothing_more(&server, version, &mut session, &["a/b"]);
}

/// Few ids are left, and most are under way: those that are must not be given to anything else.
fn ids_are_not_used_again_while_they_are_under_way(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 2)]);
    writer.publish_all(numbered("a", 1, 0..5).chain(numbered("a", 2, 5..10)));
    let held: Vec<Message> = (0..10).map(|_| session.unacked()).collect();
    let held_ids: Vec<u16> = held.iter().map(|message| message.id).collect();
    for round in 0..3 {
        let before = session;
        session = again(&server, version, "s", before, End::ALL[round]);
        for message in &held {
            assert_again(&session.unacked(), message.id, &message.text());
        }
        writer.publish_all(numbered("a", 1, 10..30).chain(numbered("a", 2, 30..50)));
        for n in 10..50 {
            let got = session.unacked();
            assert_eq!((got.text(), got.dup), (n.to_string(), false));
            assert!(!held_ids.contains(&got.id), "{} is under way", got.id);
            finish(&mut session, &got);
        }
        session.quiet();
    }
}

fn the_rest_comes_after_what_was_under_way(version: Version) {
    let server = start(&[("mqtt.max_inflight", "4")]);
    let mut writer = client(&server, version, "writer");
    for (qos, filter) in [(1, "a"), (2, "a"), (1, "+"), (2, "#")] {
        let id = format!("s{filter}{qos}");
        let mut session = begin(&server, version, &id);
        session.subscribe(&[(filter, qos)]);
        writer.publish_all(numbered("a", qos, 0..10));
        let sent: Vec<Message> = (0..4).map(|_| session.unacked()).collect();
        session.quiet();
        session.disconnect();
        writer.publish_all(numbered("a", qos, 10..20));
        let mut session = resume(&server, version, &id);
        for before in &sent {
            assert_again(&session.unacked(), before.id, &before.text());
        }
        session.quiet();
        sent.iter().for_each(|before| finish(&mut session, before));
        for n in 4..20 {
            let got = session.message();
            assert_eq!((got.text(), got.dup), (n.to_string(), false));
        }
        nothing_more(&server, version, &mut session, &["a"]);
        session.unsubscribe(&[filter]);
        session.disconnect();
    }
}

/// The other way: what the client was sending.
fn an_own_publish_goes_on(version: Version) {
    let server = start(&[]);
    let mut reader = client(&server, version, "reader");
    reader.subscribe(&[("own", 2)]);
    for end in End::ALL {
        let id = format!("s{end:?}");
        let mut session = begin(&server, version, &id);
        let message = |n: u16| Message { id: n, ..Message::new("own", n.to_string()).qos(2) };
        for n in 1..=3 {
            session.send_message(message(n));
            assert_eq!(session.wait_ack(5, n) & 0x80, 0);
        }
        // 1 is received, 2 as well and its PUBREL is under way, 3 is done.
        session.ack(6, 3, 0);
        session.wait_ack(7, 3);
        let mut session = again(&server, version, &id, session, end);
        for _ in 0..2 {
            session.send(&publish(version, &Message { dup: true, ..message(1) }));
            assert_eq!(session.wait_ack(5, 1) & 0x80, 0);
        }
        for n in [1, 2] {
            session.ack(6, n, 0);
            assert_eq!(session.wait_ack(7, n), 0);
        }
        let mut got = reader.texts(3);
        got.sort();
        assert_eq!(got, ["1", "2", "3"]);
        reader.quiet();
        // All three ids are free: the same again are new messages.
        for n in 1..=3 {
            session.send_message(message(n));
            session.wait_ack(5, n);
            session.ack(6, n, 0);
            session.wait_ack(7, n);
        }
        assert_eq!(reader.texts(3), ["1", "2", "3"]);
        reader.quiet();
        session.disconnect();
    }
}

/// An ack that the server has read is not forgotten, whatever ends the connection right after it.
fn what_was_acked_last_counts(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 2)]);
    let mut expected = 0;
    for end in [End::ALL, End::ALL, End::ALL].concat() {
        for topic in ["a", "b/c"] {
            let qos = if topic == "a" { 1 } else { 2 };
            writer.publish(topic, expected.to_string(), qos);
            assert_eq!(session.message().text(), expected.to_string());
            expected += 1;
        }
        session.quiet();
        session = again(&server, version, "s", session, end);
        session.quiet();
    }
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
}

/// 4.3: a client that refuses a message has it.
#[test]
fn what_was_refused_does_not_come_again() {
    let server = start(&[]);
    let mut writer = client(&server, Version::V5, "writer");
    let mut session = begin(&server, Version::V5, "s");
    session.subscribe(&[("a", 2)]);
    writer.publish_all(numbered("a", 1, 0..2).chain(numbered("a", 2, 2..4)));
    let sent: Vec<Message> = (0..4).map(|_| session.unacked()).collect();
    session.ack(4, sent[0].id, 0x80);
    session.ack(5, sent[2].id, 0x97);
    session.quiet();
    session.vanish();
    let mut session = resume(&server, Version::V5, "s");
    finish_again(&mut session, &sent[1]);
    finish_again(&mut session, &sent[3]);
    nothing_more(&server, Version::V5, &mut session, &["a"]);
}
