//! `$share` with durable members: who is away gets nothing new, and what a member leaves undone is another's or nobody's.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        End, assert_again, assert_no_panic, away, begin, client, nothing_more, numbered, numbers,
        resume, start,
    },
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Packet, Version},
    wait_for,
};
use std::collections::BTreeMap;

versions! {
    who_is_away_gets_nothing_new: v311 v5;
    what_comes_while_all_are_away_waits: v311 v5;
    what_waits_outlives_the_server: v311 v5;
    qos_1_of_a_dead_member_goes_to_others_in_order: v311 v5;
    qos_2_of_a_dead_member_waits_for_it: v311 v5;
    qos_2_dies_with_its_session: v311 v5;
    a_member_that_flaps: v311 v5;
    a_crash_with_everybody_there: v311 v5;
    it_ends_with_its_last_member: v311 v5;
    beside_a_subscription_of_its_own: v311 v5;
    clean_and_durable_members: v311 v5;
}

const SHARED: &str = "$share/g/s/+";
const EXACT: &str = "$share/g/s/a";

fn member(server: &Server, version: Version, id: &str, filter: &str, qos: u8) -> Client {
    let mut member = begin(server, version, id);
    assert_eq!(member.subscribe(&[(filter, qos)]), [qos]);
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
            other => panic!("{other:?}"),
        }
    }
}

/// Looks until these have so many together; what each of them has.
fn look_for<const N: usize>(members: [&mut Client; N], count: usize) -> [Vec<Message>; N] {
    let mut members = members;
    let mut found = std::array::from_fn(|_| Vec::new());
    wait_for("every message at some member", || {
        for (found, member) in found.iter_mut().zip(&mut members) {
            found.extend(look(member));
        }
        found.iter().map(Vec::len).sum::<usize>() >= count
    });
    found
}

fn finish(client: &mut Client, message: &Message) {
    if message.qos == 1 {
        client.ack(4, message.id, 0);
    } else {
        client.ack(5, message.id, 0);
        assert_eq!(client.wait_ack(6, message.id), 0);
        client.ack(7, message.id, 0);
    }
}

fn texts<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<String> {
    messages.into_iter().map(Message::text).collect()
}

/// These are all numbers up to `count`, each of them once.
#[track_caller]
fn assert_each_once<'a>(messages: impl IntoIterator<Item = &'a Message>, count: u32) {
    let mut seen: Vec<u32> =
        messages.into_iter().map(|message| message.text().parse().expect("a number")).collect();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..count), "{seen:?}");
}

fn who_is_away_gets_nothing_new(version: Version) {
    for filter in [SHARED, EXACT] {
        let server = start(&[]);
        let mut writer = client(&server, version, "writer");
        let gone = member(&server, version, "gone", filter, 2);
        let mut there = member(&server, version, "there", filter, 2);
        gone.disconnect();
        writer.publish_all(numbered("s/a", 1, 0..10).chain(numbered("s/a", 2, 10..20)));
        assert_eq!(there.texts(20), numbers(0..20));
        let mut back = resume(&server, version, "gone");
        back.quiet();
        // Now it takes part again.
        writer.publish_all(numbered("s/a", 1, 0..20));
        let [of_back, of_there] = look_for([&mut back, &mut there], 20);
        assert!(!of_back.is_empty() && !of_there.is_empty(), "one had nothing to do");
        assert_each_once(of_back.iter().chain(&of_there), 20);
    }
}

fn what_comes_while_all_are_away_waits(version: Version) {
    for filter in [SHARED, EXACT] {
        let server = start(&[]);
        let mut writer = client(&server, version, "writer");
        for id in ["one", "two"] {
            away(&server, version, id, &[(filter, 2)]);
        }
        writer.publish_all(numbered("s/a", 1, 0..10).chain(numbered("s/a", 2, 10..20)));
        let mut two = resume(&server, version, "two");
        assert_eq!(two.texts(20), numbers(0..20));
        let mut one = resume(&server, version, "one");
        one.quiet();
        two.quiet();
    }
}

fn what_waits_outlives_the_server(version: Version) {
    let mut server = start(&[]);
    for id in ["one", "two"] {
        away(&server, version, id, &[(SHARED, 1), (EXACT, 1)]);
    }
    for crash in [true, false] {
        client(&server, version, "writer").publish_all(numbered("s/a", 1, 0..10));
        if !crash {
            server.terminate();
        }
        server.restart();
        client(&server, version, "writer").publish_all(numbered("s/a", 1, 10..20));
        let mut one = resume(&server, version, "one");
        // Two groups, for the filters differ.
        let got = one.texts(40);
        let mut count = BTreeMap::new();
        got.iter().for_each(|text| *count.entry(text.clone()).or_insert(0) += 1);
        assert!(count.len() == 20 && count.values().all(|n| *n == 2), "{count:?}");
        one.quiet();
        one.disconnect();
        let mut two = resume(&server, version, "two");
        two.quiet();
        two.disconnect();
    }
}

fn qos_1_of_a_dead_member_goes_to_others_in_order(version: Version) {
    for end in [End::Said, End::Cut] {
        let server = start(&[]);
        let mut writer = client(&server, version, "writer");
        let mut dies = member(&server, version, "dies", SHARED, 1);
        let mut lives = member(&server, version, "lives", SHARED, 1);
        writer.publish_all(numbered("s/a", 2, 0..30));
        let [of_dies, of_lives] = look_for([&mut dies, &mut lives], 30);
        // Of its own it acks some, here and there.
        let (acked, left): (Vec<_>, Vec<_>) =
            of_dies.into_iter().enumerate().partition(|(n, _)| n % 3 == 1);
        acked.iter().for_each(|(_, message)| finish(&mut dies, message));
        dies.quiet();
        if end == End::Said {
            dies.disconnect()
        } else {
            dies.vanish()
        }
        let [taken] = look_for([&mut lives], left.len());
        let left: Vec<Message> = left.into_iter().map(|(_, message)| message).collect();
        assert_eq!(texts(&taken), texts(&left), "in their order, and nothing else");
        of_lives.iter().chain(&taken).for_each(|message| finish(&mut lives, message));
        lives.quiet();
        let mut back = resume(&server, version, "dies");
        back.quiet();
        lives.quiet();
        assert_no_panic(&server);
    }
}

fn qos_2_of_a_dead_member_waits_for_it(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut dies = member(&server, version, "dies", SHARED, 2);
    writer.publish_all(numbered("s/a", 2, 0..4));
    let sent: Vec<Message> = (0..4).map(|_| dies.unacked()).collect();
    // 1 is released, 2 is done.
    for n in [1, 2] {
        dies.ack(5, sent[n].id, 0);
        assert_eq!(dies.wait_ack(6, sent[n].id), 0);
    }
    dies.ack(7, sent[2].id, 0);
    dies.quiet();
    let mut lives = member(&server, version, "lives", SHARED, 2);
    dies.vanish();
    // MQTT-4.8.2-4: they are not another's. What is published now is.
    wait_for("the end of the dead member", || {
        writer.publish("s/a", "new", 1);
        let came = look(&mut lives);
        assert!(came.iter().all(|message| message.text() == "new"), "{came:?}");
        came.iter().for_each(|message| finish(&mut lives, message));
        !came.is_empty()
    });
    let mut back = resume(&server, version, "dies");
    let (mut published, mut released, mut new) = (Vec::new(), Vec::new(), 0);
    while published.len() < 2 || released.is_empty() {
        match back.packet() {
            Packet::Publish(message) if message.text() == "new" => new += 1,
            Packet::Publish(message) => published.push(message),
            Packet::Ack { kind: 6, id, .. } => released.push(id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(new, 0, "of QoS 1, and another's");
    for (got, n) in published.iter().zip([0, 3]) {
        assert_again(got, sent[n].id, &n.to_string());
        finish(&mut back, got);
    }
    assert_eq!(released, [sent[1].id]);
    back.ack(7, sent[1].id, 0);
    back.quiet();
    assert!(look(&mut lives).iter().all(|message| message.text() == "new"));
}

fn qos_2_dies_with_its_session(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut dies = member(&server, version, "dies", SHARED, 2);
    writer.publish_all(numbered("s/a", 2, 0..3));
    (0..3).for_each(|_| drop(dies.unacked()));
    let mut lives = member(&server, version, "lives", SHARED, 2);
    dies.disconnect();
    lives.quiet();
    // Its session is over, and they with it.
    client(&server, version, "dies").disconnect();
    nothing_more(&server, version, &mut lives, &["s/a"]);
    begin(&server, version, "dies").quiet();
}

/// One comes and goes all the time: every message is finished by somebody, once.
fn a_member_that_flaps(version: Version) {
    let server = start(&[("mqtt.max_inflight", "10")]);
    let mut writer = client(&server, version, "writer");
    let mut steady = member(&server, version, "steady", SHARED, 2);
    away(&server, version, "flaps", &[(SHARED, 2)]);
    let mut finished: Vec<Message> = Vec::new();
    let mut next = 0;
    for round in 0..30 {
        let mut flaps = resume(&server, version, "flaps");
        for n in next..next + 6 {
            writer.send_message(Message::new("s/a", n.to_string()).qos(1 + (n % 2) as u8));
        }
        next += 6;
        settle(&mut writer);
        for (who, whole) in [(&mut steady, true), (&mut flaps, round % 3 == 0)] {
            for (n, message) in look(who).into_iter().enumerate() {
                // The other finishes every second one, and leaves the rest undone.
                if whole || n % 2 == 0 {
                    finish(who, &message);
                    finished.push(message);
                }
            }
            // These are in time, whatever comes next.
            who.ping();
        }
        if round % 2 == 0 { flaps.vanish() } else { flaps.disconnect() }
    }
    let mut flaps = resume(&server, version, "flaps");
    wait_for("the rest", || {
        for who in [&mut steady, &mut flaps] {
            for message in look(who) {
                finish(who, &message);
                finished.push(message);
            }
        }
        finished.len() >= next as usize
    });
    assert_each_once(&finished, next);
    steady.quiet();
    flaps.quiet();
    assert_no_panic(&server);
}

/// Waits until all publishes of a writer are through.
fn settle(writer: &mut Client) {
    writer.send(&[0xC0, 0]);
    loop {
        match writer.packet() {
            Packet::Pingresp => break,
            Packet::Ack { kind: 5, id, .. } => writer.ack(6, id, 0),
            Packet::Ack { kind: 4 | 7, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

fn a_crash_with_everybody_there(version: Version) {
    let mut server = start(&[]);
    let mut one = member(&server, version, "one", SHARED, 2);
    let mut two = member(&server, version, "two", SHARED, 2);
    let mut finished = Vec::new();
    let mut next = 0;
    for _ in 0..5 {
        let mut writer = client(&server, version, "writer");
        writer.publish_all(numbered("s/a", 2, next..next + 20));
        next += 20;
        // Part of them is finished, part is under way.
        let found = look_for([&mut one, &mut two], 20);
        for (who, found) in [&mut one, &mut two].into_iter().zip(found) {
            for message in found.into_iter().step_by(2) {
                finish(who, &message);
                finished.push(message);
            }
            who.ping();
        }
        server.kill9();
        drop((one, two));
        server.restart();
        one = resume(&server, version, "one");
        two = resume(&server, version, "two");
        wait_for("the rest", || {
            for who in [&mut one, &mut two] {
                for message in look_and_complete(who) {
                    finish(who, &message);
                    finished.push(message);
                }
            }
            finished.len() >= next as usize
        });
        assert_each_once(&finished, next);
    }
    assert_no_panic(&server);
}

/// The same, and PUBRELs of what was finished before a crash are answered.
fn look_and_complete(member: &mut Client) -> Vec<Message> {
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

fn it_ends_with_its_last_member(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for filter in [SHARED, EXACT] {
        // One unsubscribes, the session of the other ends: nothing is kept for anybody.
        let mut one = member(&server, version, "one", filter, 1);
        away(&server, version, "two", &[(filter, 1)]);
        one.unsubscribe(&[filter]);
        writer.publish("s/a", "waits for two", 1);
        one.quiet();
        assert_eq!(resume(&server, version, "two").message().text(), "waits for two");
        client(&server, version, "two").disconnect();
        writer.publish("s/a", "to nobody", 1);
        assert_eq!(one.subscribe(&[(filter, 1)]), [1]);
        nothing_more(&server, version, &mut one, &["s/a"]);
        one.disconnect();
        client(&server, version, "one").disconnect();
    }
}

fn beside_a_subscription_of_its_own(version: Version) {
    let server = start(&[]);
    away(&server, version, "s", &[(EXACT, 1), ("s/a", 1), ("s/+", 2)]);
    client(&server, version, "writer").publish_all(numbered("s/a", 1, 0..5));
    let mut session = resume(&server, version, "s");
    let mut got = session.texts(10);
    got.sort();
    let mut expected = [numbers(0..5), numbers(0..5)].concat();
    expected.sort();
    assert_eq!(got, expected, "once for the group, once for the others");
    session.quiet();
}

fn clean_and_durable_members(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    away(&server, version, "durable", &[(SHARED, 1)]);
    let mut clean = client(&server, version, "clean");
    clean.subscribe(&[(SHARED, 1)]);
    writer.publish_all(numbered("s/a", 1, 0..10));
    assert_eq!(clean.texts(5), numbers(0..5));
    // These acks are in time.
    clean.ping();
    // What it leaves waits for the member that is away.
    clean.vanish();
    let mut back = resume(&server, version, "durable");
    assert_eq!(back.texts(5), numbers(5..10));
    nothing_more(&server, version, &mut back, &["s/a"]);
}
