//! Subscriptions that overlap, their options and identifiers, and topics that begin with `$`.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::mqtt::{Filter, Message, Options, Version, id, prop};
use std::collections::BTreeSet;

versions! {
    overlapping_ones_give_a_message_once: v31 v311 v5;
    dollar_topics_are_not_for_wildcards: v31 v311 v5;
    dollar_topics_are_not_published_to: v31 v311 v5;
    all_clients_get_a_message: v31 v311 v5;
}

fn overlapping_ones_give_a_message_once(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    let filters = [("a/#", 0), ("a/+", 2), ("a/b", 1), ("#", 0), ("+/b", 1)];
    assert_eq!(reader.subscribe(&filters), [0, 2, 1, 0, 1]);
    for published in 0..3 {
        writer.publish("a/b", "once", published);
        // MQTT-3.3.5-1: the highest of the QoS granted.
        let got = reader.message();
        assert_eq!((got.text().as_str(), got.qos), ("once", published));
        reader.quiet();
    }
    writer.publish("a/b/c", "x", 2);
    assert_eq!(reader.message().qos, 0);
    reader.quiet();
    reader.unsubscribe(&["a/+"]);
    writer.publish("a/b", "y", 2);
    assert_eq!(reader.message().qos, 1, "the highest of those that are left");
    reader.unsubscribe(&["a/b", "+/b", "a/#", "#"]);
    writer.publish("a/b", "z", 2);
    reader.quiet();
}

/// MQTT-4.7.2-1.
fn dollar_topics_are_not_for_wildcards(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    assert_eq!(reader.subscribe(&[("#", 0), ("+/#", 0), ("+/broker/version", 0)]), [0, 0, 0]);
    reader.quiet();
    // Asked for by name it is granted, whether there is anything or not.
    assert!(reader.subscribe(&[("$SYS/#", 1)])[0] <= 1);
    reader.ping();
}

fn dollar_topics_are_not_published_to(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("$internal/#", 2), ("$SYS/broker/x", 2)]);
    for topic in ["$internal/a", "$SYS/broker/x", "$"] {
        writer.publish(topic, "x", 0);
        for qos in [1, 2] {
            let reason = writer.publish(topic, "x", qos);
            // Not authorized, or a topic name that is not accepted; 3.x has no way to say it.
            let expected: &[u8] = if version == Version::V5 { &[0x87, 0x90] } else { &[0] };
            assert!(expected.contains(&reason), "{topic} with QoS {qos}: {reason:#04x}");
        }
    }
    reader.quiet();
    writer.quiet();
}

fn all_clients_get_a_message(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut readers: Vec<_> = (0..50)
        .map(|n| {
            let mut reader = broker.client(version, &format!("reader {n}"));
            reader.subscribe(&[("fan", n % 3), (&*format!("own/{n}"), 1)]);
            reader
        })
        .collect();
    for n in 0..20 {
        writer.publish("fan", n.to_string(), n % 3);
    }
    writer.publish("own/7", "seven", 1);
    for (reader, subscribed) in readers.iter_mut().zip((0..3).cycle()) {
        for n in 0..20 {
            let got = reader.message();
            assert_eq!((got.text(), got.qos), (n.to_string(), subscribed.min(n % 3)));
        }
    }
    assert_eq!(readers[7].message().text(), "seven");
    readers.iter_mut().for_each(clarion_tests::mqtt::Client::quiet);
}

/// The subscription identifiers of a message.
fn ids(message: &Message) -> BTreeSet<u32> {
    let ids = message.properties.iter().filter(|property| property.0 == id::SUBSCRIPTION_ID);
    let values = ids.map(|p| clarion_tests::mqtt::number(std::slice::from_ref(p), p.0));
    values.map(|value| value.expect("a number")).collect()
}

#[test]
fn identifiers_come_with_what_matches() {
    let broker = Broker::start();
    let mut reader = broker.client(Version::V5, "reader");
    let mut writer = broker.client(Version::V5, "writer");
    let mut subscribe = |filter: &str, id: u32| {
        let codes = reader.subscribe_as(&[Filter::new(filter, 1)], &[prop::subscription_id(id)]);
        assert_eq!(codes, [1]);
    };
    subscribe("ids/a", 1);
    subscribe("ids/b", 268_435_455);
    subscribe("ids/c", 127);
    subscribe("ids/d", 128);
    reader.subscribe(&[("ids/none", 1)]);
    for (topic, expected) in [
        ("a", vec![1]),
        ("b", vec![268_435_455]),
        ("c", vec![127]),
        ("d", vec![128]),
        ("none", vec![]),
    ] {
        writer.publish(&format!("ids/{topic}"), "x", 1);
        assert_eq!(ids(&reader.message()), expected.into_iter().collect());
    }
    // Two filters of one SUBSCRIBE have the same; a new SUBSCRIBE replaces it, or takes it away.
    let both = [Filter::new("two/a", 1), Filter::new("two/b", 1)];
    reader.subscribe_as(&both, &[prop::subscription_id(5u32)]);
    for topic in ["two/a", "two/b"] {
        writer.publish(topic, "x", 1);
        assert_eq!(ids(&reader.message()), [5].into());
    }
    reader.subscribe_as(&both[..1], &[prop::subscription_id(6u32)]);
    reader.subscribe_as(&both[1..], &[]);
    writer.publish("two/a", "x", 1);
    assert_eq!(ids(&reader.message()), [6].into());
    writer.publish("two/b", "x", 1);
    assert_eq!(ids(&reader.message()), [].into());
}

#[test]
fn overlapping_ones_give_all_identifiers() {
    let broker = Broker::start();
    let mut reader = broker.client(Version::V5, "reader");
    let mut writer = broker.client(Version::V5, "writer");
    for (filter, id) in [("o/#", 1u32), ("o/+", 2), ("o/a", 3), ("+/b", 4)] {
        reader.subscribe_as(&[Filter::new(filter, 1)], &[prop::subscription_id(id)]);
    }
    reader.subscribe(&[("+/+", 1)]);
    for (topic, expected) in [
        ("o/a", vec![1, 2, 3]),
        ("o/b", vec![1, 2, 4]),
        ("o/a/b", vec![1]),
        ("x/b", vec![4]),
        ("x/y", vec![]),
    ] {
        writer.publish(topic, topic, 1);
        let got = reader.message();
        // MQTT-3.3.4-3 to -5: one copy with all, in any order.
        assert_eq!((&*got.topic, ids(&got)), (topic, expected.into_iter().collect()));
        reader.quiet();
    }
}

#[test]
fn no_local_means_this_client() {
    let broker = Broker::start();
    let mut both = broker.client(Version::V5, "both");
    let mut other = broker.client(Version::V5, "other");
    both.subscribe_as(&[Filter::new("nl/+", 1).no_local()], &[]);
    other.subscribe_as(&[Filter::new("nl/+", 1)], &[]);
    for qos in 0..3 {
        both.publish("nl/a", "own", qos);
        assert_eq!(other.message().text(), "own");
        both.quiet();
        other.publish("nl/a", "another's", qos);
        assert_eq!(both.message().text(), "another's");
        assert_eq!(other.message().text(), "another's");
    }
    // It may be taken back.
    both.subscribe_as(&[Filter::new("nl/+", 1)], &[]);
    both.publish("nl/a", "own", 1);
    assert_eq!(both.message().text(), "own");
    // A filter that overlaps, without the option, gives it.
    both.subscribe_as(&[Filter::new("nl/+", 1).no_local(), Filter::new("nl/b", 1)], &[]);
    both.publish("nl/b", "by the other filter", 1);
    assert_eq!(both.message().text(), "by the other filter");
    both.quiet();
}

#[test]
fn no_local_is_about_client_ids_not_connections() {
    let broker = Broker::start();
    let mut reader = broker.client(Version::V5, "reader");
    reader.subscribe_as(&[Filter::new("nl", 1).no_local()], &[]);
    // A will of a connection with that id that was taken over is its own too.
    let will = Message::new("nl", "will").qos(1);
    let mut old = Options::new(Version::V5, "other").will(will, &[]).connect(broker.at());
    old.quiet();
    old.vanish();
    assert_eq!(reader.message().text(), "will");
    reader.publish("nl", "own", 1);
    reader.quiet();
}
