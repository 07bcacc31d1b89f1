//! Publish and subscribe: each QoS, topics and filters, sizes, clean sessions.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::mqtt::{Client, Message, Options, Packet, Version, publish};

versions! {
    each_qos: v31 v311 v5;
    granted_qos_bounds: v31 v311 v5;
    payloads_of_all_sizes: v31 v311 v5;
    topics_of_all_kinds: v31 v311 v5;
    filters_match_as_specified: v31 v311 v5;
    unsubscribed_is_over: v31 v311 v5;
    many_filters_at_once: v31 v311 v5;
    versions_meet: v31 v311 v5;
    clean_sessions_get_nothing_later: v31 v311 v5;
    what_was_not_acked_does_not_outlive_a_clean_session: v31 v311 v5;
    nothing_is_sent_twice_on_one_connection: v311 v5;
    a_publish_may_be_repeated: v31 v311 v5;
    packets_come_in_any_pieces: v31 v311 v5;
    order_is_kept: v31 v311 v5;
    clients_that_publish_to_themselves: v31 v311 v5;
}

fn each_qos(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    assert_eq!(reader.subscribe(&[("a/0", 0), ("a/1", 1), ("a/2", 2)]), [0, 1, 2]);
    for subscribed in 0..3 {
        for published in 0..3 {
            let topic = format!("a/{subscribed}");
            assert!(writer.publish(&topic, format!("{published}"), published) < 0x80);
            let got = reader.message();
            assert_eq!((got.topic.as_str(), got.text()), (&*topic, published.to_string()));
            assert_eq!(got.qos, subscribed.min(published));
            assert!(!got.retain && !got.dup, "{got:?}");
        }
    }
    reader.quiet();
    writer.quiet();
    reader.disconnect();
    writer.disconnect();
}

fn granted_qos_bounds(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    // The same filter again replaces the subscription.
    for granted in [2, 0, 1] {
        assert_eq!(reader.subscribe(&[("a", granted)]), [granted]);
        writer.publish("a", "x", 2);
        assert_eq!(reader.message().qos, granted);
        reader.quiet();
    }
}

fn payloads_of_all_sizes(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    reader.subscribe(&[("size", 2)]);
    for size in [0, 1, 100, 119, 120, 127, 128, 4096, 16_374, 16_383, 16_384, 65_536, 500_000] {
        let payload: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        for qos in 0..3 {
            writer.publish("size", &payload, qos);
            let got = reader.message();
            assert!(
                got.payload == payload,
                "{size} bytes with QoS {qos} came as {}",
                got.payload.len()
            );
        }
    }
}

fn topics_of_all_kinds(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    let long = "x".repeat(65_535);
    let topics =
        [" ", "/", "//", "/a", "a/", "a//b", "ä/€/𝄞", "a b/c", "a/$b", "ﷺ", "\u{feff}x", &long];
    for topic in topics {
        assert_eq!(reader.subscribe(&[(topic, 1)]), [1], "{topic:?}");
        writer.publish(topic, "x", 1);
        let got = reader.message();
        assert!(got.topic == topic, "{topic:?} came as {:?}", got.topic);
    }
    // Names differ by case and by every slash.
    for other in ["A/", "a", "A", "a/b", "Ä/€/𝄞", "/A"] {
        writer.publish(other, "x", 1);
    }
    reader.quiet();
}

fn filters_match_as_specified(version: Version) {
    let cases: [(&str, &[&str], &[&str]); 11] = [
        (
            "sport/tennis/player1/#",
            &[
                "sport/tennis/player1",
                "sport/tennis/player1/ranking",
                "sport/tennis/player1/score/wimbledon",
            ],
            &["sport/tennis/player2", "sport/tennis"],
        ),
        ("sport/#", &["sport", "sport/", "sport/a"], &["sports", "Sport/a", "/sport"]),
        ("#", &["a", "/", "/a/b", "a/b/c/d/e"], &[]),
        (
            "sport/tennis/+",
            &["sport/tennis/player1", "sport/tennis/"],
            &["sport/tennis/player1/ranking", "sport/tennis"],
        ),
        ("sport/+", &["sport/", "sport/a"], &["sport", "sport/a/b"]),
        ("+", &["a", "b"], &["/a", "a/", "a/b"]),
        ("+/+", &["/finance", "a/b", "/"], &["a", "a/b/c"]),
        ("/+", &["/finance", "/"], &["finance", "/finance/a"]),
        ("+/tennis/#", &["a/tennis", "/tennis/b/c"], &["tennis", "a/b/tennis"]),
        ("+/+/c/#", &["a/b/c", "a/b/c/d", "//c"], &["a/c", "a/b/d"]),
        ("a//+/", &["a///", "a//b/"], &["a//b", "a/b/"]),
    ];
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    for (filter, matching, others) in cases {
        let mut reader = broker.client(version, "reader");
        assert_eq!(reader.subscribe(&[(filter, 1)]), [1], "{filter}");
        for topic in matching.iter().chain(others) {
            writer.publish(topic, topic, 1);
        }
        for topic in matching {
            let got = reader.message();
            assert_eq!((got.topic.as_str(), &*got.text()), (*topic, *topic), "{filter}");
        }
        reader.quiet();
        reader.disconnect();
    }
}

fn unsubscribed_is_over(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    reader.subscribe(&[("a", 1), ("b/+", 1), ("c/#", 1), ("d", 1)]);
    let codes = reader.unsubscribe(&["a", "b/+", "c/#", "e", "d/+"]);
    let expected: &[u8] = if version == Version::V5 { &[0, 0, 0, 0x11, 0x11] } else { &[] };
    assert_eq!(codes, expected);
    for topic in ["a", "b/x", "c", "c/x", "e"] {
        writer.publish(topic, "gone", 1);
    }
    writer.publish("d", "there", 1);
    assert_eq!(reader.message().text(), "there");
    reader.quiet();
    // It can be made again.
    reader.subscribe(&[("a", 1)]);
    writer.publish("a", "again", 1);
    assert_eq!(reader.message().text(), "again");
}

fn many_filters_at_once(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    let names: Vec<String> = (0..100).map(|n| format!("many/{n}")).collect();
    let filters: Vec<(&str, u8)> =
        names.iter().zip(0..).map(|(name, n)| (name.as_str(), n % 3)).collect();
    let expected: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
    assert_eq!(reader.subscribe(&filters), expected);
    for name in &names {
        writer.publish(name, name, 1);
        assert_eq!(reader.message().text(), *name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let codes = reader.unsubscribe(&names);
    assert_eq!(codes.len(), if version == Version::V5 { 100 } else { 0 });
    writer.publish("many/7", "x", 1);
    reader.quiet();
}

/// Clients of all versions read what this one publishes, and the reverse.
fn versions_meet(version: Version) {
    let broker = Broker::start();
    let mut own = broker.client(version, "own");
    own.subscribe(&[("to/own", 2)]);
    for other_version in Version::ALL {
        let mut other = broker.client(other_version, "other");
        other.subscribe(&[("to/other", 2)]);
        for qos in 0..3 {
            own.publish("to/other", "there", qos);
            assert_eq!((other.message().qos), qos);
            other.publish("to/own", "back", qos);
            assert_eq!((own.message().qos), qos);
        }
        other.disconnect();
    }
}

fn clean_sessions_get_nothing_later(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    for end in ["disconnect", "vanish", "reset"] {
        let mut reader = broker.client(version, "reader");
        reader.subscribe(&[("a", 2)]);
        match end {
            "disconnect" => reader.disconnect(),
            "vanish" => reader.vanish(),
            _ => reader.reset(),
        }
        for qos in 0..3 {
            writer.publish("a", "while away", qos);
        }
        let (mut reader, connack) = Options::new(version, "reader").attempt(broker.at());
        assert_eq!((connack.code, connack.present), (0, false));
        reader.quiet();
        writer.publish("a", "the subscription is gone", 1);
        reader.quiet();
    }
}

fn what_was_not_acked_does_not_outlive_a_clean_session(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("a", 2)]);
    for qos in [1, 2] {
        writer.publish("a", "x", qos);
        assert_eq!(reader.unacked().qos, qos);
    }
    reader.vanish();
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("a", 2)]);
    reader.quiet();
    // Its packet ids are free again.
    writer.publish("a", "y", 2);
    assert_eq!(reader.message().text(), "y");
}

/// Only a new connection makes a server send again (5: 4.4; 3.1.1: 4.4).
fn nothing_is_sent_twice_on_one_connection(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("a", 2)]);
    writer.publish("a", "1", 1);
    writer.publish("a", "2", 2);
    let (one, two) = (reader.unacked(), reader.unacked());
    assert_ne!(one.id, two.id);
    for _ in 0..3 {
        reader.quiet();
    }
    reader.ack(5, two.id, 0);
    assert!(matches!(reader.packet(), Packet::Ack { kind: 6, id, .. } if id == two.id));
    reader.quiet();
    // The other order of acknowledgements is fine, and what comes now waits for none of them.
    writer.publish("a", "3", 1);
    let three = reader.unacked();
    assert!(three.id != one.id && three.id != two.id, "{three:?} uses an id that is taken");
    reader.ack(4, three.id, 0);
    reader.ack(7, two.id, 0);
    reader.ack(4, one.id, 0);
    reader.quiet();
}

/// A PUBLISH that comes twice before its PUBREL is one message with QoS 2; with QoS 1 it may be two.
fn a_publish_may_be_repeated(version: Version) {
    let broker = Broker::start();
    let mut writer = broker.client(version, "writer");
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("a", 2)]);
    let mut message = Message { id: 7, ..Message::new("a", "once").qos(2) };
    for dup in [false, true, true] {
        message.dup = dup;
        writer.send(&publish(version, &message));
        assert!(matches!(writer.packet(), Packet::Ack { kind: 5, id: 7, reason: 0 | 0x10, .. }));
    }
    for _ in 0..2 {
        // The second PUBREL is for an id that is not known any more.
        writer.ack(6, 7, 0);
        assert!(matches!(writer.packet(), Packet::Ack { kind: 7, id: 7, reason: 0 | 0x92, .. }));
    }
    assert_eq!(reader.message().text(), "once");
    reader.quiet();
    // The id stands for another message now.
    message = Message { id: 7, ..Message::new("a", "another").qos(2) };
    writer.send(&publish(version, &message));
    assert!(matches!(writer.packet(), Packet::Ack { kind: 5, id: 7, reason: 0, .. }));
    writer.ack(6, 7, 0);
    assert!(matches!(writer.packet(), Packet::Ack { kind: 7, id: 7, .. }));
    let got = reader.message();
    assert_eq!((got.text().as_str(), got.dup), ("another", false));
    // With QoS 1 and DUP: acknowledged, and the flag does not travel.
    let message = Message { id: 8, dup: true, ..Message::new("a", "dup").qos(1) };
    writer.send(&publish(version, &message));
    assert!(matches!(writer.packet(), Packet::Ack { kind: 4, id: 8, .. }));
    assert!(!reader.message().dup);
}

fn packets_come_in_any_pieces(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    reader.subscribe(&[("pieces", 1)]);
    let mut writer = Client::open(broker.at(), version);
    let options = Options::new(version, "writer");
    // Every byte alone, CONNECT too.
    let one = publish(version, &Message { id: 1, ..Message::new("pieces", "one").qos(1) });
    let two = publish(version, &Message { id: 2, ..Message::new("pieces", "two").qos(1) });
    let bytes = [clarion_tests::mqtt::connect(&options), one, two].concat();
    for byte in bytes.chunks(1) {
        writer.send(byte);
    }
    assert!(matches!(writer.packet(), Packet::Connack { code: 0, .. }));
    for id in [1, 2] {
        assert!(matches!(writer.packet(), Packet::Ack { kind: 4, id: i, .. } if i == id));
    }
    assert_eq!(reader.texts(2), ["one", "two"]);
    // And everything at once, without waiting for CONNACK.
    let mut writer = Client::open(broker.at(), version);
    writer.send(&[&bytes[..], &[0xC0, 0], &[0xE0, 0]].concat());
    let packets = writer.rest();
    assert!(matches!(packets[0], Packet::Connack { code: 0, .. }), "{packets:?}");
    assert_eq!(packets.len(), 4, "{packets:?}");
    assert_eq!(reader.texts(2), ["one", "two"]);
}

fn order_is_kept(version: Version) {
    let broker = Broker::start();
    let mut reader = broker.client(version, "reader");
    let mut writer = broker.client(version, "writer");
    reader.subscribe(&[("order/#", 2)]);
    let message =
        |n: u16, qos| Message { id: n + 1, ..Message::new("order/x", n.to_string()).qos(qos) };
    // All with one QoS, many sent without waiting for anything; no more than any server takes at once.
    for qos in 0..3 {
        for first in (0..200).step_by(20) {
            let numbers = first..first + 20;
            writer.send(
                &numbers
                    .clone()
                    .flat_map(|n| publish(version, &message(n, qos)))
                    .collect::<Vec<_>>(),
            );
            for kind in [4, 5, 7].into_iter().filter(|kind| (*kind == 4) == (qos == 1) && qos > 0) {
                for n in numbers.clone() {
                    let got = writer.packet();
                    assert!(
                        matches!(got, Packet::Ack { kind: k, id, .. } if (k, id) == (kind, n + 1))
                    );
                    if kind == 5 {
                        writer.ack(6, n + 1, 0);
                    }
                }
            }
            for n in numbers {
                assert_eq!(reader.message().text(), n.to_string());
            }
        }
    }
    reader.quiet();
}

fn clients_that_publish_to_themselves(version: Version) {
    let broker = Broker::start();
    let mut client = broker.client(version, "both");
    client.subscribe(&[("self", 2)]);
    for qos in 0..3 {
        client.publish("self", format!("{qos}"), qos);
        let got = client.message();
        assert_eq!((got.text(), got.qos), (qos.to_string(), qos));
    }
    client.quiet();
}
