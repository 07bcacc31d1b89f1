//! `$share` with durable members, what their group's cursor is made of: several shards, refusals, lives that end, windows, ids.

use crate::mqtt_durable::{
    away, begin, client, durable, ids, nothing_more, numbered, numbers, resume, start,
};
use clarion_tests::{
    Server,
    mqtt::{Client, Filter, Message, Packet, Version::V5, prop},
    wait_for,
};

const SHARED: &str = "$share/g/s/+";

fn sharded() -> Server {
    start(&[("node.shards", "4")])
}

fn member(server: &Server, id: &str, qos: u8) -> Client {
    let mut member = begin(server, V5, id);
    assert_eq!(member.subscribe(&[(SHARED, qos)]), [qos]);
    member
}

/// What is there by one look; nothing is acked.
fn look(member: &mut Client) -> Vec<Message> {
    member.send(&[0xC0, 0]);
    let mut found = Vec::new();
    loop {
        match member.packet() {
            Packet::Pingresp => return found,
            Packet::Publish(message) => found.push(message),
            Packet::Ack { kind: 6, id, .. } => member.ack(7, id, 0),
            other => panic!("{other:?}"),
        }
    }
}

fn finish(client: &mut Client, message: &Message) {
    match message.qos {
        0 => {}
        1 => client.ack(4, message.id, 0),
        _ => client.ack(5, message.id, 0),
    }
}

#[track_caller]
fn assert_each_once(texts: &mut [String], count: u32) {
    texts.sort_by_key(|text| text.parse::<u32>().expect("a number"));
    assert_eq!(texts, numbers(0..count));
}

/// Members on all shards, of all kinds; each message is somebody's once, though some come and go.
#[test]
fn members_on_other_shards() {
    let mut server = sharded();
    let mut members: Vec<Client> =
        (0..4).map(|n| member(&server, &format!("m{n}"), 1 + n % 2)).collect();
    let mut clean = client(&server, V5, "clean");
    assert_eq!(clean.subscribe(&[(SHARED, 1)]), [1]);
    members.push(clean);
    let mut writer = client(&server, V5, "writer");
    let mut texts: Vec<String> = Vec::new();
    for round in 0..6 {
        writer.publish_all(numbered("s/a", 2, round * 100..round * 100 + 100));
        if round == 3 {
            let left = members.swap_remove(1);
            left.vanish();
            members.push(resume(&server, V5, "m1"));
        }
        wait_for("all of a round", || {
            for member in &mut members {
                for message in look(member) {
                    finish(member, &message);
                    texts.push(message.text());
                }
            }
            texts.len() >= (round as usize + 1) * 100
        });
        // What was finished is in time.
        members.iter_mut().for_each(|member| assert!(look(member).is_empty()));
    }
    assert_each_once(&mut texts, 600);
    // Acks are written before an orderly end, whoever owns the cursor.
    server.terminate();
    server.restart();
    let mut back = resume(&server, V5, "m0");
    back.quiet();
}

/// QoS 1 that nobody has acked comes again after a crash; what was acked and written does not.
#[test]
fn a_crash_gives_back_what_is_unacked() {
    let mut server = sharded();
    let mut members = ["a", "b", "c"].map(|id| member(&server, id, 1));
    client(&server, V5, "writer").publish_all(numbered("s/a", 1, 0..30));
    let mut seen = 0;
    wait_for("all", || {
        seen += members.iter_mut().map(|member| look(member).len()).sum::<usize>();
        seen >= 30
    });
    server.kill9();
    drop(members);
    server.restart();
    let mut back = resume(&server, V5, "c");
    assert_eq!(back.texts(30), numbers(0..30));
    nothing_more(&server, V5, &mut back, &["s/a"]);
}

/// An ack with an error discards the message: it is nobody else's.
#[test]
fn what_is_refused_is_discarded() {
    let server = start(&[]);
    let mut member = member(&server, "m", 2);
    let mut writer = client(&server, V5, "writer");
    writer.publish_all([Message::new("s/a", "1").qos(1), Message::new("s/a", "2").qos(2)]);
    for kind in [4, 5] {
        let message = member.unacked();
        member.ack(kind, message.id, 0x80);
    }
    member.ping();
    member.vanish();
    let mut back = resume(&server, V5, "m");
    nothing_more(&server, V5, &mut back, &["s/a"]);
}

#[test]
fn members_of_qos_0_take_part_while_they_are_there() {
    let server = sharded();
    away(&server, V5, "durable", &[(SHARED, 1)]);
    let mut plain = client(&server, V5, "plain");
    assert_eq!(plain.subscribe(&[(SHARED, 0)]), [0]);
    let mut writer = client(&server, V5, "writer");
    writer.publish_all(numbered("s/a", 1, 0..100));
    for n in 0..100 {
        let message = plain.message();
        assert_eq!((message.text(), message.qos), (n.to_string(), 0));
    }
    plain.ping();
    plain.vanish();
    resume(&server, V5, "durable").quiet();
}

#[test]
fn a_life_that_ends_while_nobody_is_there() {
    let server = start(&[]);
    away(&server, V5, "m", &[(SHARED, 1)]);
    let mut writer = client(&server, V5, "writer");
    writer.publish_as(Message::new("s/a", "short").qos(1).with(prop::message_expiry(1u32)));
    writer.publish("s/a", "long", 1);
    crate::mqtt_durable::pass(&server, 2);
    let mut back = resume(&server, V5, "m");
    assert_eq!(back.message().text(), "long");
    back.quiet();
}

/// A small window is never exceeded, and does not stop the others.
#[test]
fn each_has_as_much_as_its_window_holds() {
    let server = sharded();
    let small = |id: &str, places: u16| {
        let mut member = durable(V5, id).with(prop::receive_maximum(places)).connect(at(&server));
        assert_eq!(member.subscribe(&[(SHARED, 1)]), [1]);
        member
    };
    let mut slow = small("slow", 3);
    let mut quick = small("quick", 10);
    client(&server, V5, "writer").publish_all(numbered("s/a", 1, 0..200));
    let (mut held, mut texts) = (Vec::new(), Vec::new());
    wait_for("what the slow one does not hold", || {
        held.extend(look(&mut slow));
        for message in look(&mut quick) {
            finish(&mut quick, &message);
            texts.push(message.text());
        }
        held.len() + texts.len() >= 200
    });
    assert_eq!(held.len(), 3);
    assert!(look(&mut slow).is_empty() && look(&mut quick).is_empty());
    texts.extend(held.iter().map(Message::text));
    assert_each_once(&mut texts, 200);
    slow.vanish();
    let got: Vec<String> = (0..3).map(|_| quick.message().text()).collect();
    assert_eq!(got, held.iter().map(Message::text).collect::<Vec<_>>());
}

fn at(server: &Server) -> std::net::SocketAddr {
    server.listener("mqtt")
}

/// Each member has its own id and QoS; a QoS 2 message that comes again has the id, too.
#[test]
fn ids_are_those_of_the_member() {
    let server = start(&[]);
    let mut one = begin(&server, V5, "one");
    one.subscribe_as(&[Filter::new(SHARED, 1)], &[prop::subscription_id(7u32)]);
    let mut two = begin(&server, V5, "two");
    two.subscribe_as(&[Filter::new(SHARED, 2)], &[prop::subscription_id(8u32)]);
    client(&server, V5, "writer").publish_all(numbered("s/a", 2, 0..2));
    let (of_one, of_two) = (one.unacked(), two.unacked());
    assert_eq!((of_one.qos, ids(&of_one)), (1, [7].into()));
    assert_eq!((of_two.qos, ids(&of_two)), (2, [8].into()));
    two.vanish();
    let again = resume(&server, V5, "two").unacked();
    assert!(again.dup && again.id == of_two.id && ids(&again) == [8].into(), "{again:?}");
}

/// What a session has of QoS 2 is kept for it, though the group goes on and its log is trimmed.
#[test]
fn what_is_kept_for_a_session_is_not_trimmed() {
    let mut server = start(&[("store.sweep_interval", "10s")]);
    let mut two = member(&server, "two", 2);
    let mut writer = client(&server, V5, "writer");
    writer.publish("s/a", "kept", 2);
    let sent = two.unacked();
    two.vanish();
    let mut one = member(&server, "one", 1);
    writer.publish_all(numbered("s/a", 1, 0..20));
    assert_eq!(one.texts(20), numbers(0..20));
    one.ping();
    crate::mqtt_durable::pass(&server, 21);
    server.kill9();
    server.restart();
    let again = resume(&server, V5, "two").unacked();
    assert_eq!((again.text().as_str(), again.id, again.dup), ("kept", sent.id, true));
}

/// A change of a subscription's QoS makes its group durable, or not.
#[test]
fn raised_and_lowered() {
    let server = sharded();
    let mut m = member(&server, "m", 0);
    let mut writer = client(&server, V5, "writer");
    assert_eq!(m.subscribe(&[(SHARED, 1)]), [1]);
    m.disconnect();
    writer.publish("s/a", "waits", 1);
    let mut m = resume(&server, V5, "m");
    assert_eq!(m.message().text(), "waits");
    assert_eq!(m.subscribe(&[(SHARED, 0)]), [0]);
    m.disconnect();
    writer.publish("s/a", "to nobody", 1);
    let mut m = resume(&server, V5, "m");
    assert_eq!(m.subscribe(&[(SHARED, 1)]), [1]);
    nothing_more(&server, V5, &mut m, &["s/a"]);
}
