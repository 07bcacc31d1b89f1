//! Retained messages: set, replaced, cleared, given to whom, how, and for how long.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::{
    mqtt::{Client, Filter, Message, Options, Version, id, number, pairs, prop, text},
    wait_for,
};

versions! {
    kept_replaced_and_cleared: v31 v311 v5;
    wildcards_find_them: v31 v311 v5;
    each_qos_is_kept: v31 v311 v5;
    live_they_are_like_others: v31 v311 v5;
    each_subscribe_gives_them: v31 v311 v5;
    cleared_by_an_empty_one_of_any_qos: v31 v311 v5;
    many_of_them: v31 v311 v5;
}

fn retain(client: &mut Client, topic: &str, payload: &str, qos: u8) {
    assert!(client.publish_as(Message::new(topic, payload).qos(qos).retained()) < 0x80);
    if qos == 0 {
        // It has been read when what was sent after it is answered.
        client.ping();
    }
}

/// What a new client is given for this filter at once, by topic.
fn kept(broker: &Broker, version: Version, filter: &str) -> Vec<(String, String)> {
    let mut reader = broker.client(version, "looks");
    reader.subscribe(&[(filter, 2), ("end/of/retained", 0)]);
    let mut writer = broker.client(version, "ends");
    writer.publish("end/of/retained", "", 0);
    let mut found = Vec::new();
    loop {
        let got = reader.message();
        if got.topic == "end/of/retained" {
            found.sort();
            return found;
        }
        assert!(got.retain, "{got:?}");
        found.push((got.topic.clone(), got.text()));
    }
}

fn pair(topic: &str, text: &str) -> (String, String) {
    (topic.to_owned(), text.to_owned())
}

fn kept_replaced_and_cleared(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    assert_eq!(kept(&broker, version, "a/b"), []);
    for qos in 0..3 {
        retain(&mut writer, "a/b", &format!("one {qos}"), qos);
        assert_eq!(kept(&broker, version, "a/b"), [pair("a/b", &format!("one {qos}"))]);
        retain(&mut writer, "a/b", &format!("two {qos}"), qos);
        assert_eq!(kept(&broker, version, "a/b"), [pair("a/b", &format!("two {qos}"))]);
        // Without the flag nothing is kept and nothing cleared.
        writer.publish("a/b", "not kept", qos);
        writer.publish("a/b", "", qos);
        assert_eq!(kept(&broker, version, "a/b"), [pair("a/b", &format!("two {qos}"))]);
        retain(&mut writer, "a/b", "", qos);
        assert_eq!(kept(&broker, version, "a/b"), []);
    }
    // It outlives its publisher.
    retain(&mut writer, "a/b", "outlives", 1);
    writer.vanish();
    assert_eq!(kept(&broker, version, "a/b"), [pair("a/b", "outlives")]);
}

fn wildcards_find_them(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let topics = ["t", "t/", "t/a", "t/a/b", "t/b", "t/b/b", "/t", "u", "u/a/b"];
    for topic in topics {
        retain(&mut writer, topic, topic, 1);
    }
    let cases: [(&str, &[&str]); 9] = [
        ("t/#", &["t", "t/", "t/a", "t/a/b", "t/b", "t/b/b"]),
        ("t/+", &["t/", "t/a", "t/b"]),
        ("+/+/b", &["t/a/b", "t/b/b", "u/a/b"]),
        ("+", &["t", "u"]),
        ("t/+/b", &["t/a/b", "t/b/b"]),
        ("+/t", &["/t"]),
        ("u/a/b/#", &["u/a/b"]),
        ("v/#", &[]),
        ("#", &["/t", "t", "t/", "t/a", "t/a/b", "t/b", "t/b/b", "u", "u/a/b"]),
    ];
    for (filter, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|topic| pair(topic, topic)).collect();
        assert_eq!(kept(&broker, version, filter), expected, "{filter}");
    }
}

fn each_qos_is_kept(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    for published in 0..3 {
        retain(&mut writer, "q", "x", published);
        for subscribed in 0..3 {
            let mut reader = broker.client(version, "reader");
            reader.subscribe(&[("q", subscribed)]);
            let got = reader.message();
            assert_eq!((got.qos, got.retain, got.dup), (published.min(subscribed), true, false));
            reader.quiet();
        }
    }
}

fn live_they_are_like_others(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    reader.subscribe(&[("live/#", 1)]);
    retain(&mut writer, "live/a", "x", 1);
    let got = reader.message();
    assert_eq!((got.text().as_str(), got.retain), ("x", false), "MQTT-3.3.1-9");
    // What clears comes too, as an empty message.
    retain(&mut writer, "live/a", "", 1);
    let got = reader.message();
    assert_eq!((got.text().as_str(), got.retain), ("", false));
    reader.quiet();
}

fn each_subscribe_gives_them(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    retain(&mut writer, "each/a", "x", 1);
    let mut reader = broker.client(version, "reader");
    for filter in ["each/a", "each/a", "each/+", "each/a"] {
        reader.subscribe(&[(filter, 1)]);
        let got = reader.message();
        assert_eq!((got.text().as_str(), got.retain), ("x", true), "{filter}");
        reader.quiet();
    }
    // For each filter of one SUBSCRIBE its own.
    retain(&mut writer, "each/b", "y", 1);
    let mut reader = broker.client(version, "other");
    reader.subscribe(&[("each/a", 0), ("each/b", 1)]);
    let mut got = [reader.message(), reader.message()];
    got.sort_by(|a, b| a.topic.cmp(&b.topic));
    assert_eq!(got.each_ref().map(|m| (m.text(), m.qos)), [("x".into(), 0), ("y".into(), 1)]);
    reader.quiet();
}

fn cleared_by_an_empty_one_of_any_qos(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    for (set, cleared) in [(0, 2), (1, 0), (2, 1)] {
        retain(&mut writer, "clear", "x", set);
        retain(&mut writer, "clear", "", cleared);
        assert_eq!(kept(&broker, version, "clear"), []);
        // Clearing what is not there is fine.
        retain(&mut writer, "clear", "", cleared);
    }
}

fn many_of_them(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let topics: Vec<String> = (0..300).map(|n| format!("many/{}/{n:03}", n % 7)).collect();
    for topic in &topics {
        writer.publish_as(Message::new(topic, topic).retained());
    }
    writer.ping();
    let mut expected: Vec<_> = topics.iter().map(|topic| pair(topic, topic)).collect();
    expected.sort();
    assert_eq!(kept(&broker, version, "many/#"), expected);
    expected.retain(|(topic, _)| topic.starts_with("many/3/"));
    assert_eq!(kept(&broker, version, "many/3/+"), expected);
}

#[test]
fn retain_handling_says_when() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    retain(&mut writer, "rh", "x", 1);
    let mut reader = broker.client(Version::V5, "reader");
    let mut subscribe = |handling: u8, expected: bool| {
        let filter = Filter::new("rh", 1).retain_handling(handling);
        assert_eq!(reader.subscribe_as(&[filter], &[]), [1]);
        if expected {
            let got = reader.message();
            assert!(got.retain, "{got:?}");
        }
        reader.quiet();
    };
    subscribe(2, false);
    subscribe(1, false);
    subscribe(0, true);
    subscribe(0, true);
    subscribe(1, false);
    subscribe(2, false);
    assert_eq!(reader.unsubscribe(&["rh"]), [0]);
    let filter = Filter::new("rh", 1).retain_handling(1);
    reader.subscribe_as(&[filter], &[]);
    assert!(reader.message().retain);
    reader.quiet();
}

#[test]
fn retain_as_published_keeps_the_flag() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let mut keeps = broker.client(Version::V5, "keeps");
    let mut drops = broker.client(Version::V5, "drops");
    keeps.subscribe_as(&[Filter::new("rap", 1).as_published()], &[]);
    drops.subscribe_as(&[Filter::new("rap", 1)], &[]);
    for retained in [true, false, true] {
        let message = Message { retain: retained, ..Message::new("rap", "x").qos(1) };
        writer.publish_as(message);
        assert_eq!(keeps.message().retain, retained, "MQTT-3.3.1-13");
        assert!(!drops.message().retain, "MQTT-3.3.1-12");
    }
    // What is retained comes with the flag to both.
    for client in [&mut keeps, &mut drops] {
        client.unsubscribe(&["rap"]);
    }
    keeps.subscribe_as(&[Filter::new("rap", 1).as_published()], &[]);
    drops.subscribe_as(&[Filter::new("rap", 1)], &[]);
    assert!(keeps.message().retain && drops.message().retain);
}

#[test]
fn properties_are_kept_too() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let message = Message::new("p", "{}")
        .qos(1)
        .retained()
        .with(prop::payload_format(1))
        .with(prop::content_type("application/json"))
        .with(prop::response_topic("answers/here"))
        .with(prop::correlation([0, 1, 255]))
        .with(prop::message_expiry(1000u32))
        .with(prop::user("b", "2"))
        .with(prop::user("a", "1"))
        .with(prop::user("b", "2"));
    writer.publish_as(message.clone());
    let mut reader = broker.client(Version::V5, "reader");
    reader.subscribe_as(&[Filter::new("p", 1)], &[prop::subscription_id(9u32)]);
    let got = reader.message();
    assert_eq!(got.payload, message.payload);
    assert_eq!(pairs(&got.properties), [("b", "2"), ("a", "1"), ("b", "2")]);
    assert_eq!(number(&got.properties, id::SUBSCRIPTION_ID), Some(9));
    assert_eq!(number(&got.properties, id::PAYLOAD_FORMAT), Some(1));
    assert_eq!(text(&got.properties, id::CONTENT_TYPE), Some("application/json"));
    assert_eq!(text(&got.properties, id::RESPONSE_TOPIC), Some("answers/here"));
    assert!(got.properties.contains(&prop::correlation([0, 1, 255])));
    let left = number(&got.properties, id::MESSAGE_EXPIRY).expect("MQTT-3.3.2-6");
    assert!((900..=1000).contains(&left), "{left}");
    // Clients of 3.x get the payload.
    let mut reader = broker.client(Version::V311, "older");
    reader.subscribe(&[("p", 1)]);
    assert_eq!(reader.message().payload, message.payload);
}

#[test]
fn an_expired_one_is_gone() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let expiring = Message::new("e", "short").qos(1).retained().with(prop::message_expiry(2u32));
    writer.publish_as(expiring);
    retain(&mut writer, "e/stays", "long", 1);
    let mut seen = Vec::new();
    wait_for("the expiry", || {
        let mut reader = Options::new(Version::V5, "reader").connect(broker.at());
        reader.subscribe(&[("e/#", 0)]);
        let first = reader.message();
        if first.topic == "e/stays" && kept(&broker, Version::V5, "e").is_empty() {
            return true;
        }
        let of_it = if first.topic == "e" { first } else { reader.message() };
        seen.extend(number(&of_it.properties, id::MESSAGE_EXPIRY));
        false
    });
    assert!(seen.windows(2).all(|two| two[0] >= two[1]), "it counts down: {seen:?}");
    assert!(seen.iter().all(|left| *left <= 2), "{seen:?}");
    assert_eq!(kept(&broker, Version::V311, "e/#"), [pair("e/stays", "long")]);
}
