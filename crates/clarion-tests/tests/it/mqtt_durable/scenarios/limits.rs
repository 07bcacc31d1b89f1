//! Many subscriptions, and bounds of the window.

use crate::{
    api::Api,
    mqtt::versions,
    mqtt_durable::{away, begin, client, durable, nothing_more, numbered, numbers, resume, start},
};
use clarion_tests::{
    mqtt::{Client, Message, Packet, Version},
    raw::narrow,
    wait_for,
};
use std::collections::BTreeSet;

versions! {
    ten_thousand_subscriptions: v311 v5;
    filters_of_every_length: v311 v5;
    a_window_of_one: v311 v5;
    who_takes_nothing_has_nothing_read_for_it: v311 v5;
}

const MANY: usize = 10_000;
/// Filters of one SUBSCRIBE.
const PART: usize = 500;

fn filter(n: usize) -> String {
    if n % 100 == 7 { format!("f/{n}/+") } else { format!("f/{n}/x") }
}

fn ten_thousand_subscriptions(version: Version) {
    let mut server = start(&[("mqtt.subscriptions_max", "10000")]);
    let mut session = begin(&server, version, "s");
    let filters: Vec<String> = (0..MANY).map(filter).collect();
    for part in filters.chunks(PART) {
        let part: Vec<(&str, u8)> = part.iter().map(|filter| (filter.as_str(), 1)).collect();
        assert!(session.subscribe(&part).iter().all(|code| *code == 1));
    }
    let refused = if version == Version::V5 { 0x97 } else { 0x80 };
    assert_eq!(session.subscribe(&[("f/more", 1)]), [refused]);
    // One that is there already is none more.
    assert_eq!(session.subscribe(&[("f/3/x", 1)]), [1]);
    session.disconnect();
    let topics: Vec<String> = (0..10).map(|n| format!("f/{}/x", n * 1000 + 7 + n % 2)).collect();
    for restarted in [false, true] {
        if restarted {
            server.terminate();
            server.restart();
        }
        let mut writer = client(&server, version, "writer");
        for topic in &topics {
            writer.publish_all(numbered(topic, 1, 0..3));
            writer.publish(&format!("{topic}/none"), "to nobody", 1);
        }
        let mut session = resume(&server, version, "s");
        let mut got = BTreeSet::new();
        for _ in 0..30 {
            let message = session.message();
            assert!(got.insert((message.topic.clone(), message.text())), "twice: {message:?}");
        }
        let expected =
            topics.iter().flat_map(|t| numbers(0..3).into_iter().map(|n| (t.clone(), n)));
        assert_eq!(got, expected.collect());
        session.quiet();
        assert_eq!(session.subscribe(&[("f/more", 1)]), [refused]);
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        nothing_more(&server, version, &mut session, &topics);
        session.disconnect();
    }
    // There is room again for what is given up.
    let mut session = resume(&server, version, "s");
    session.unsubscribe(&["f/7/+"]);
    assert_eq!(session.subscribe(&[("f/more", 1)]), [1]);
}

fn filters_of_every_length(version: Version) {
    let mut server = start(&[]);
    let lengths = [890, 895, 1000, 1001, 1002, 1024, 5000, 60_000];
    let topics: Vec<String> = lengths.iter().map(|length| "t".repeat(*length)).collect();
    let filters: Vec<String> =
        topics.iter().flat_map(|topic| [topic.clone(), format!("{topic}/+")]).collect();
    let mut session = begin(&server, version, "s");
    for filter in &filters {
        assert_eq!(session.subscribe(&[(filter, 1)]), [1], "{} bytes", filter.len());
    }
    session.disconnect();
    server.kill9();
    server.restart();
    let mut writer = client(&server, version, "writer");
    for topic in &topics {
        writer.publish(topic, "exact", 1);
        writer.publish(&format!("{topic}/x"), "wild", 1);
    }
    let mut session = resume(&server, version, "s");
    let mut got: Vec<(usize, String)> = (0..filters.len())
        .map(|_| session.message())
        .map(|message| (message.topic.len(), message.text()))
        .collect();
    got.sort();
    let mut expected: Vec<(usize, String)> = lengths
        .iter()
        .flat_map(|length| [(*length, "exact".to_owned()), (length + 2, "wild".to_owned())])
        .collect();
    expected.sort();
    assert_eq!(got, expected);
    for filter in &filters {
        session.unsubscribe(&[filter]);
    }
    session.disconnect();
}

fn one(client: &mut Client, text: &str) -> Message {
    let got = client.unacked();
    assert_eq!(got.text(), text);
    client.quiet();
    got
}

fn a_window_of_one(version: Version) {
    let server = start(&[("mqtt.max_inflight", "1")]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a/+", 2)]);
    session.disconnect();
    writer.publish_all(numbered("a/b", 2, 0..4));
    let mut session = resume(&server, version, "s");
    for n in 0..4 {
        let first = one(&mut session, &n.to_string());
        assert!(!first.dup);
        session.vanish();
        session = resume(&server, version, "s");
        let again = one(&mut session, &n.to_string());
        assert_eq!((again.id, again.dup), (first.id, true));
        session.ack(5, again.id, 0);
        assert_eq!(session.wait_ack(6, again.id), 0);
        session.vanish();
        session = resume(&server, version, "s");
        assert!(matches!(session.packet(), Packet::Ack { kind: 6, id, .. } if id == again.id));
        // What is released still takes the place.
        session.quiet();
        session.ack(7, again.id, 0);
    }
    nothing_more(&server, version, &mut session, &["a/b"]);
}

/// Some that do not read, one that reads but never acks: nothing is read from the disk for them over and over.
fn who_takes_nothing_has_nothing_read_for_it(version: Version) {
    const BIG: u32 = 60;
    const SMALL: u32 = 400;
    let server = start(&[]);
    // What fits no more stands at another place for each.
    let mut slow: Vec<Client> = (0..6)
        .map(|n| {
            let mut slow = Client::on(narrow(server.listener("mqtt")), version);
            assert_eq!(slow.handshake(&durable(version, &format!("slow{n}"))).code, 0);
            slow.subscribe(&[("big", 1)]);
            slow
        })
        .collect();
    let mut mute = begin(&server, version, "mute");
    mute.subscribe(&[("small", 2)]);
    away(&server, version, "away", &[("away", 1)]);
    let mut writer = client(&server, version, "writer");
    let padding = "x".repeat(64 << 10);
    for n in 0..BIG {
        writer.publish("big", format!("{n} {padding}"), 1);
    }
    writer.publish_all(numbered("small", 2, 0..SMALL));
    let unacked: Vec<Message> = (0..256).map(|_| mute.unacked()).collect();
    mute.quiet();
    let mut api = Api::of(&server);
    wait_for("an end of reading", || {
        let before = api.metric("clarion_pages_total");
        // Commits, so that reads have their turns too.
        writer.publish_all(numbered("away", 1, 0..100));
        api.metric("clarion_pages_total") == before
    });
    // All go on where they were.
    for slow in &mut slow {
        for n in 0..BIG {
            assert!(slow.message().text().starts_with(&format!("{n} ")));
        }
    }
    for message in &unacked {
        mute.ack(5, message.id, 0);
        assert_eq!(mute.wait_ack(6, message.id), 0);
        mute.ack(7, message.id, 0);
    }
    for n in 256..SMALL {
        assert_eq!(mute.message().text(), n.to_string());
    }
}
