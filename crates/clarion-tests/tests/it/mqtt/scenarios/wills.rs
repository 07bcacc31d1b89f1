//! Wills: when they are published, when not, and as what.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::mqtt::{Client, Message, Options, Version, id, number, pairs, prop, text};
use std::time::{Duration, Instant};

versions! {
    a_broken_connection_publishes_it: v31 v311 v5;
    a_disconnect_discards_it: v31 v311 v5;
    it_may_be_retained: v31 v311 v5;
    a_protocol_error_publishes_it: v31 v311 v5;
    it_has_its_qos: v31 v311 v5;
    it_may_be_empty: v311 v5;
}

fn watcher(broker: &Broker, version: Version, filter: &str) -> Client {
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[(filter, 2)]);
    watcher
}

fn a_broken_connection_publishes_it(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    for (n, reset) in [(1, false), (2, true)] {
        let will = Message::new(&format!("will/{n}"), "gone");
        let client = Options::new(version, "c").will(will, &[]).connect(broker.at());
        watcher.quiet();
        if reset {
            client.reset()
        } else {
            client.vanish()
        }
        let got = watcher.message();
        assert_eq!((got.topic, got.qos, got.retain), (format!("will/{n}"), 0, false));
    }
    watcher.quiet();
}

fn a_disconnect_discards_it(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    let with = |n| Options::new(version, "c").will(Message::new(&format!("will/{n}"), "x"), &[]);
    with(1).connect(broker.at()).disconnect();
    // It is gone with that connection; the next one has its own.
    broker.client(version, "c").vanish();
    with(2).connect(broker.at()).vanish();
    assert_eq!(watcher.message().topic, "will/2");
    watcher.quiet();
}

fn it_may_be_retained(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    for retained in [false, true] {
        let will = Message { retain: retained, ..Message::new("will/a", "kept").qos(1) };
        Options::new(version, "c").will(will, &[]).connect(broker.at()).vanish();
        assert!(!watcher.message().retain, "live");
        let mut late = broker.client(version, "late");
        late.subscribe(&[("will/a", 1)]);
        if retained {
            let got = late.message();
            assert_eq!((got.text().as_str(), got.retain), ("kept", true));
        }
        late.quiet();
    }
    // An empty one clears.
    let will = Message::new("will/a", "").retained();
    Options::new(version, "c").will(will, &[]).connect(broker.at()).vanish();
    assert_eq!(watcher.message().text(), "");
    let mut late = broker.client(version, "late");
    late.subscribe(&[("will/a", 1)]);
    late.quiet();
}

fn a_protocol_error_publishes_it(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    let will = Message::new("will/error", "x");
    let mut client = Options::new(version, "c").will(will, &[]).connect(broker.at());
    // A second CONNECT.
    client.send(&clarion_tests::mqtt::connect(&Options::new(version, "c")));
    client.rest();
    assert_eq!(watcher.message().topic, "will/error");
}

fn it_has_its_qos(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    for qos in 0..3 {
        let will = Message::new("will/q", "x".repeat(3000)).qos(qos);
        Options::new(version, "c").will(will, &[]).connect(broker.at()).vanish();
        let got = watcher.message();
        assert_eq!((got.qos, got.payload.len()), (qos, 3000));
    }
}

fn it_may_be_empty(version: Version) {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, version, "will/+");
    let will = Message::new("will/empty", "").qos(1);
    Options::new(version, "c").will(will, &[]).connect(broker.at()).vanish();
    assert_eq!(watcher.message().text(), "");
}

#[test]
fn its_properties_travel() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    let properties = [
        prop::payload_format(1),
        prop::message_expiry(100u32),
        prop::content_type("text/plain"),
        prop::response_topic("r"),
        prop::correlation([7]),
        prop::user("k", "1"),
        prop::user("k", "2"),
    ];
    let will = Message::new("will/p", "x");
    Options::new(Version::V5, "c").will(will, &properties).connect(broker.at()).vanish();
    let got = watcher.message();
    assert_eq!(pairs(&got.properties), [("k", "1"), ("k", "2")]);
    assert_eq!(text(&got.properties, id::CONTENT_TYPE), Some("text/plain"));
    assert_eq!(text(&got.properties, id::RESPONSE_TOPIC), Some("r"));
    assert_eq!(number(&got.properties, id::PAYLOAD_FORMAT), Some(1));
    assert!(got.properties.contains(&prop::correlation([7])));
    assert!(number(&got.properties, id::MESSAGE_EXPIRY).is_some_and(|left| left <= 100));
    assert_eq!(number(&got.properties, id::WILL_DELAY), None);
}

#[test]
fn a_client_may_ask_for_it_at_its_end() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    let will = Message::new("will/asked", "x");
    Options::new(Version::V5, "c").will(will, &[]).connect(broker.at()).disconnect_with(4, &[]);
    assert_eq!(watcher.message().topic, "will/asked");
}

fn delayed(n: u8, delay: u32, expiry: u32) -> Options {
    let will = Message::new(&format!("will/{n}"), "late");
    Options::new(Version::V5, &format!("c{n}"))
        .will(will, &[prop::will_delay(delay)])
        .with(prop::session_expiry(expiry))
}

#[test]
fn a_delay_is_waited_for() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    let began = Instant::now();
    delayed(1, 1, 100).connect(broker.at()).vanish();
    watcher.quiet();
    assert_eq!(watcher.message().topic, "will/1");
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_session_that_ends_before_publishes_it_then() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    // 3.1.3.2.2: the delay, or the end of the session, whichever is first. Without expiry that is at once.
    delayed(1, 1000, 0).connect(broker.at()).vanish();
    assert_eq!(watcher.message().topic, "will/1");
    let began = Instant::now();
    delayed(2, 1000, 1).connect(broker.at()).vanish();
    assert_eq!(watcher.message().topic, "will/2");
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    // A clean start ends the old session.
    delayed(3, 1000, 1000).connect(broker.at()).vanish();
    watcher.quiet();
    broker.client(Version::V5, "c3").quiet();
    assert_eq!(watcher.message().topic, "will/3");
}

#[test]
fn who_is_back_in_time_has_not_died() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    delayed(1, 1, 100).connect(broker.at()).vanish();
    // MQTT-3.1.3-9.
    let mut back = Options::new(Version::V5, "c1")
        .clean(false)
        .with(prop::session_expiry(100u32))
        .connect(broker.at());
    delayed(2, 1, 100).connect(broker.at()).vanish();
    assert_eq!(watcher.message().topic, "will/2", "c1's time was over before");
    back.quiet();
    watcher.quiet();
}

#[test]
fn keep_alive_ends_with_the_will_after_its_delay() {
    let broker = Broker::start();
    let mut watcher = watcher(&broker, Version::V5, "will/+");
    let began = Instant::now();
    let mut silent = delayed(1, 1, 100).keep_alive(1).connect(broker.at());
    silent.rest();
    assert_eq!(watcher.message().topic, "will/1");
    assert!(began.elapsed() >= Duration::from_millis(2500), "{:?}", began.elapsed());
}
