//! `$share/<group>/<filter>` among live sessions.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::mqtt::{Client, Filter, Message, Packet, Version, prop};
use std::collections::BTreeMap;

versions! {
    each_message_goes_to_one_member: v311 v5;
    groups_and_others_get_their_own: v311 v5;
    a_member_that_leaves_is_not_picked: v311 v5;
    nothing_retained_comes: v311 v5;
}

fn member(broker: &Broker, version: Version, name: &str, filter: &str) -> Client {
    let mut member = broker.client(version, name);
    assert_eq!(member.subscribe(&[(filter, 1)]), [1]);
    member
}

/// What is there, by one look at each; all are acknowledged.
fn take(members: &mut [Client]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for member in members {
        member.send(&[0xC0, 0]);
        let mut own = Vec::new();
        loop {
            match member.packet() {
                Packet::Pingresp => break,
                Packet::Publish(message) => {
                    if message.qos == 1 {
                        member.ack(4, message.id, 0);
                    }
                    own.push(message.text());
                }
                other => panic!("{other:?}"),
            }
        }
        all.push(own);
    }
    all
}

/// Reads until everything has come.
fn take_all(members: &mut [Client], count: usize) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new(); members.len()];
    clarion_tests::wait_for("every message at some member", || {
        for (all, own) in all.iter_mut().zip(take(members)) {
            all.extend(own);
        }
        all.iter().map(Vec::len).sum::<usize>() >= count
    });
    all
}

fn each_message_goes_to_one_member(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    for filter in ["$share/g/s/a", "$share/g/s/+", "$share/g/s/#", "$share/g//"] {
        let topic = if filter.ends_with("//") { "/" } else { "s/a" };
        let mut members: Vec<Client> =
            (0..3).map(|n| member(&broker, version, &format!("m{n}"), filter)).collect();
        for n in 0..30 {
            writer.publish(topic, n.to_string(), n % 2);
        }
        let got = take_all(&mut members, 30);
        let mut seen = BTreeMap::new();
        for text in got.iter().flatten() {
            *seen.entry(text.parse::<u32>().expect("a number")).or_insert(0) += 1;
        }
        assert!(seen.keys().copied().eq(0..30) && seen.values().all(|n| *n == 1), "{seen:?}");
        assert!(got.iter().all(|own| !own.is_empty()), "one had nothing to do: {got:?}");
        assert!(take(&mut members).iter().all(Vec::is_empty));
        // What members say in UNSUBSCRIBE is the whole.
        for member in &mut members {
            let codes = member.unsubscribe(&[filter]);
            assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
        }
        writer.publish(topic, "nobody", 1);
        assert!(take(&mut members).iter().all(Vec::is_empty));
    }
}

fn groups_and_others_get_their_own(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut one = [
        member(&broker, version, "1a", "$share/one/s/#"),
        member(&broker, version, "1b", "$share/one/s/#"),
    ];
    let mut two = [member(&broker, version, "2a", "$share/two/s/#")];
    let mut plain = member(&broker, version, "plain", "s/+");
    // The same group with another filter is another one.
    let mut other = [member(&broker, version, "1c", "$share/one/s/+")];
    for n in 0..10 {
        writer.publish("s/a", n.to_string(), 1);
    }
    let numbers: Vec<String> = (0..10).map(|n: u32| n.to_string()).collect();
    assert_eq!(plain.texts(10), numbers);
    assert_eq!(take_all(&mut two, 10), std::slice::from_ref(&numbers));
    assert_eq!(take_all(&mut other, 10), std::slice::from_ref(&numbers));
    let mut of_one: Vec<String> = take_all(&mut one, 10).concat();
    of_one.sort();
    assert_eq!(of_one, numbers);
    // A client in a group and beside it gets both.
    let mut both = broker.client(version, "both");
    both.subscribe(&[("$share/three/t", 1), ("t", 1)]);
    writer.publish("t", "x", 1);
    assert_eq!(both.texts(2), ["x", "x"]);
    both.quiet();
}

fn a_member_that_leaves_is_not_picked(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut stays = [member(&broker, version, "stays", "$share/g/s")];
    let leaves = member(&broker, version, "leaves", "$share/g/s");
    let mut unsubscribes = member(&broker, version, "unsubscribes", "$share/g/s");
    unsubscribes.unsubscribe(&["$share/g/s"]);
    leaves.disconnect();
    for n in 0..10 {
        writer.publish("s", n.to_string(), 1);
    }
    let numbers: Vec<String> = (0..10).map(|n: u32| n.to_string()).collect();
    assert_eq!(take_all(&mut stays, 10), [numbers]);
    unsubscribes.quiet();
}

/// 4.8.2: no retained messages.
fn nothing_retained_comes(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    writer.publish_as(Message::new("s/a", "kept").qos(1).retained());
    let mut member = member(&broker, version, "m", "$share/g/s/#");
    member.quiet();
    writer.publish_as(Message::new("s/a", "live").qos(1).retained());
    let got = member.message();
    assert_eq!((got.text().as_str(), got.retain), ("live", false));
}

#[test]
fn members_have_options_of_their_own() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let mut low = broker.client(Version::V5, "low");
    let mut high = broker.client(Version::V5, "high");
    low.subscribe_as(&[Filter::new("$share/g/s", 0)], &[prop::subscription_id(1u32)]);
    high.subscribe_as(
        &[Filter::new("$share/g/s", 2).as_published()],
        &[prop::subscription_id(2u32)],
    );
    for n in 0..8 {
        writer.publish_as(Message::new("s", n.to_string()).qos(1).retained());
    }
    writer.publish("other", "", 1);
    let mut count = 0;
    for (client, qos, retain, id) in [(&mut low, 0, false, 1u32), (&mut high, 1, true, 2)] {
        client.send(&[0xC0, 0]);
        while let Packet::Publish(got) = client.packet() {
            assert_eq!((got.qos, got.retain), (qos, retain));
            assert!(got.properties.contains(&prop::subscription_id(id)), "{got:?}");
            if got.qos > 0 {
                client.ack(4, got.id, 0);
            }
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

#[test]
fn what_a_dead_member_had_not_acked_goes_to_another_or_nobody_twice() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let mut dies = member(&broker, Version::V5, "dies", "$share/g/s");
    writer.publish("s", "acked", 1);
    assert_eq!(dies.message().text(), "acked");
    writer.publish("s", "not acked", 1);
    assert_eq!(dies.unacked().text(), "not acked");
    let mut lives = [member(&broker, Version::V5, "lives", "$share/g/s")];
    dies.vanish();
    // 4.8.2: it may be sent to another; it must not be what was acknowledged.
    let mut got = Vec::new();
    clarion_tests::wait_for("the end of the dead member", || {
        writer.publish("s", "mark", 1);
        got.extend(take(&mut lives).concat());
        got.iter().filter(|text| *text == "mark").count() >= 3
    });
    got.retain(|text| text != "mark");
    assert!(got.is_empty() || got == ["not acked"], "{got:?}");
}
