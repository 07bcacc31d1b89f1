//! `$SYS/…`: what the server tells of itself, to whom, and that it is right.

use crate::{
    api::Api,
    mqtt::{broker::Broker, versions},
};
use clarion_tests::{
    mqtt::{Client, Filter, Message, Options, Version, prop},
    wait_for,
};
use std::collections::{BTreeMap, BTreeSet};

versions! {
    nothing_is_told_unless_it_is_wanted: v31 v311 v5;
    a_later_subscriber_gets_the_last_values: v31 v311 v5;
    changes_come_live: v31 v311 v5;
    what_is_told_is_what_happened: v31 v311 v5;
}

const CONNECTED: &str = "$SYS/broker/clients/connected";
const UPTIME: &str = "$SYS/broker/uptime";

fn telling() -> Broker {
    Broker::with(&[
        ("mqtt.sys_interval", "20ms"),
        ("node.shards", "2"),
        ("store.sweep_interval", "100ms"),
    ])
}

/// What a new subscriber of everything is given at once.
fn values(broker: &Broker, version: Version) -> BTreeMap<String, String> {
    let mut reader = broker.client(version, "values");
    let mut found = BTreeMap::new();
    // The first ones are there a moment after the start.
    wait_for("values", || {
        assert_eq!(reader.subscribe(&[("$SYS/#", 2)]), [2]);
        reader.ping();
        while let Some(message) = reader.arrived() {
            assert_eq!(message.qos, 0, "{message:?}");
            found.insert(message.topic.clone(), message.text());
        }
        found.contains_key(UPTIME)
    });
    reader.disconnect();
    found
}

fn nothing_is_told_unless_it_is_wanted(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    assert_eq!(reader.subscribe(&[("$SYS/#", 0), (UPTIME, 0)]), [0, 0]);
    reader.quiet();
}

fn a_later_subscriber_gets_the_last_values(version: Version) {
    let broker = telling();
    let told = values(&broker, version);
    assert!(told["$SYS/broker/version"].starts_with("clarion version "), "{told:?}");
    let seconds = told[UPTIME].strip_suffix(" seconds").expect("seconds");
    assert!(seconds.parse::<u64>().is_ok_and(|seconds| seconds < 600), "{seconds}");
    // By name, with the flag that says that it was there before; also under a filter that others share parts of.
    for filter in ["$SYS/broker/version", "$SYS/+/version", "$SYS/broker/version/#"] {
        let mut reader = broker.client(version, "reader");
        reader.subscribe(&[(filter, 1)]);
        let got = reader.message();
        assert_eq!((got.topic.as_str(), got.retain, got.qos), ("$SYS/broker/version", true, 0));
        reader.quiet();
    }
    // For wildcards at the beginning they are not there, nor for other protocols.
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("#", 0), ("+/broker/#", 0), ("+/#", 0)]);
    let mut live = broker.client(version, "live");
    live.subscribe(&[(UPTIME, 0)]);
    // What was there before, and what has changed: time goes on.
    while !live.message().retain {}
    while live.message().retain {}
    reader.quiet();
    let mut api = Api::of(broker.server());
    let list = api.ok("GET", "/api/v1/retained?filter=$SYS/%23", None);
    assert_eq!(list["messages"].as_array().map(Vec::len), Some(0));
    assert_eq!(api.metric("clarion_retained_messages"), 0);
}

fn changes_come_live(version: Version) {
    let broker = telling();
    values(&broker, version);
    let mut reader = broker.client(version, "reader");
    wait_for("the last one to have gone", || {
        reader.subscribe(&[(CONNECTED, 0)]);
        reader.message().text() == "1"
    });
    let others: Vec<Client> = (0..5).map(|n| broker.client(version, &format!("{n}"))).collect();
    while reader.message().text() != "6" {}
    for other in others {
        other.vanish();
    }
    while reader.message().text() != "1" {}
    // Nothing comes from outside.
    let mut writer = broker.client(version, "writer");
    while reader.message().text() != "2" {}
    for qos in 0..3 {
        let reason = writer.publish_as(Message::new(CONNECTED, "99").qos(qos).retained());
        assert_eq!(reason, if version == Version::V5 && qos > 0 { 0x90 } else { 0 });
    }
    writer.ping();
    reader.quiet();
    let mut later = broker.client(version, "later");
    later.subscribe(&[("$SYS/broker/clients/+", 0)]);
    assert_ne!(later.message().text(), "99");
    // Who has left is not told.
    assert!(reader.unsubscribe(&[CONNECTED]).iter().all(|code| *code == 0));
    while reader.arrived().is_some() {}
    drop(writer);
    drop(later);
    wait_for("the change", || values(&broker, version)[CONNECTED] == "2");
    reader.quiet();
}

fn what_is_told_is_what_happened(version: Version) {
    let broker = telling();
    let mut writer = broker.client(version, "writer");
    let mut readers: Vec<Client> = (0..3)
        .map(|n| {
            let mut reader = broker.client(version, &format!("reader {n}"));
            reader.subscribe(&[("a/+", 1), ("b", 0)]);
            reader
        })
        .collect();
    for n in 0..50 {
        writer.publish("a/x", format!("{n:0100}"), 1);
        writer.publish("nobody", "x", 2);
    }
    writer.publish_as(Message::new("kept", "x").qos(1).retained());
    for reader in &mut readers {
        reader.texts(50);
        reader.ping();
    }
    writer.publish("$SYS/x", "refused", 0);
    writer.ping();
    // It counts itself, too.
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[("$SYS/#", 0)]);
    // PUBLISH (a refused one is a packet, too), PUBREL, PUBACK, SUBSCRIBE, PINGREQ.
    let packets = 102 + 50 + 150 + (3 + 1) + (3 + 1);
    let expected = [
        ("messages/received", packets),
        ("publish/messages/received", 101),
        ("publish/messages/dropped", 0),
        ("clients/connected", 5),
        ("clients/maximum", 5),
        ("subscriptions/count", 7),
        ("retained messages/count", 1),
        ("load/publish/received/15min", 1),
    ];
    let mut told = BTreeMap::new();
    wait_for("all to be told", || {
        let got = watcher.message();
        told.insert(got.topic.clone(), got.text());
        expected.iter().all(|(name, value)| match told.get(&format!("$SYS/broker/{name}")) {
            Some(told) if name.starts_with("load/") => told != "0.00",
            told => told.is_some_and(|told| *told == value.to_string()),
        })
    });
    let number =
        |name: &str| -> f64 { told[&format!("$SYS/broker/{name}")].parse().expect("a number") };
    assert!(number("publish/messages/sent") >= 150.0, "{told:?}");
    assert!(number("bytes/received") >= 50.0 * 100.0, "{told:?}");
    assert!(number("bytes/sent") >= 150.0 * 100.0, "{told:?}");
    let load = |minutes: u8| number(&format!("load/publish/received/{minutes}min"));
    assert!(load(1) > load(5) && load(5) > load(15), "{told:?}");
}

#[test]
fn the_documented_topics_are_those_that_are_told() {
    let broker = telling();
    let mut told = BTreeSet::new();
    wait_for("loads", || {
        told.extend(values(&broker, Version::V5).into_keys());
        let last = ["load/bytes/sent/15min", "clients/total"];
        last.iter().all(|name| told.contains(&format!("$SYS/broker/{name}")))
    });
    let text = include_str!("../../../../../docs/mqtt.md");
    let documented: BTreeSet<String> = text
        .split('`')
        .filter(|part| part.starts_with("$SYS/broker/"))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(told, documented);
}

#[test]
fn sessions_without_a_connection_are_told() {
    let broker = telling();
    let kept = |id: &str, seconds: u32| {
        let options = Options::new(Version::V5, id).clean(false);
        options.with(prop::session_expiry(seconds)).connect(broker.at())
    };
    kept("away", 1000).disconnect();
    kept("short", 1).disconnect();
    let _there = kept("there", 1000);
    let _clean = broker.client(Version::V5, "clean");
    // Who asks is there, too.
    let expected = [("total", "4"), ("disconnected", "1"), ("expired", "1"), ("connected", "3")];
    wait_for("the numbers", || {
        let told = values(&broker, Version::V5);
        expected.iter().all(|(name, value)| {
            told.get(&format!("$SYS/broker/clients/{name}")).is_some_and(|told| told == value)
        })
    });
}

#[test]
fn options_of_5_hold_for_them() {
    let broker = telling();
    values(&broker, Version::V5);
    let version = "$SYS/broker/version";
    let mut reader = broker.client(Version::V5, "reader");
    reader.subscribe_as(&[Filter::new(version, 1).retain_handling(2)], &[]);
    reader.quiet();
    reader.subscribe_as(&[Filter::new(version, 1).retain_handling(1)], &[]);
    reader.quiet();
    reader.subscribe_as(&[Filter::new(UPTIME, 1).as_published()], &[]);
    for _ in 0..2 {
        let got = reader.message();
        assert!(got.topic == UPTIME && got.retain, "live ones too: {got:?}");
    }
    // Members of a group get what changes, in turn, and nothing that was there before.
    let mut members = [broker.client(Version::V5, "m1"), broker.client(Version::V5, "m2")];
    for member in &mut members {
        member.subscribe(&[("$share/g/$SYS/broker/uptime", 0)]);
    }
    for member in &mut members {
        let got = member.message();
        assert!(got.topic == UPTIME && !got.retain, "{got:?}");
    }
}

#[test]
fn they_are_gone_with_the_process() {
    let mut broker = telling();
    values(&broker, Version::V5);
    broker.restart_with("mqtt.sys_interval", "0");
    let mut reader = Options::new(Version::V5, "reader").connect(broker.at());
    reader.subscribe(&[("$SYS/#", 0)]);
    reader.quiet();
}
