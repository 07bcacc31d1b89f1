//! Windows both ways, and the largest packet.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::mqtt::{Client, Message, Options, Packet, Version, id, prop, publish};

versions! {
    at_most_so_many_unacked: v31 v311 v5;
    packets_that_are_too_large_end_it: v31 v311 v5;
}

const MESSAGES: usize = 12;

fn fill(writer: &mut Client, topic: &str, qos: u8) {
    for n in 0..MESSAGES {
        writer.publish(topic, n.to_string(), qos);
    }
}

/// The ids of messages that come without anything being acknowledged.
fn unacked(reader: &mut Client, window: usize, first: usize) -> Vec<u16> {
    let ids = (first..first + window).map(|n| {
        let got = reader.unacked();
        assert_eq!(got.text(), n.to_string());
        got.id
    });
    let ids: Vec<u16> = ids.collect();
    reader.quiet();
    ids
}

/// `mqtt.max_inflight` holds for every version.
fn at_most_so_many_unacked(version: Version) {
    let broker = Broker::with(&[("mqtt.max_inflight", "3")]);
    let mut writer = broker.client(version, "writer");
    for qos in [1, 2] {
        let mut reader = broker.client(version, "reader");
        reader.subscribe(&[("a", qos)]);
        fill(&mut writer, "a", 2);
        let mut ids = unacked(&mut reader, 3, 0);
        for n in 3..MESSAGES {
            let id = ids.remove(0);
            if qos == 1 {
                reader.ack(4, id, 0);
            } else {
                reader.ack(5, id, 0);
                // PUBREC frees no place, PUBCOMP does.
                assert!(matches!(reader.packet(), Packet::Ack { kind: 6, id: i, .. } if i == id));
                reader.quiet();
                reader.ack(7, id, 0);
            }
            ids.extend(unacked(&mut reader, 1, n));
        }
        reader.disconnect();
    }
}

#[test]
fn a_client_says_how_many() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    for window in [1, 2, 5] {
        let mut reader = Options::new(Version::V5, "reader")
            .with(prop::receive_maximum(window as u16))
            .connect(broker.at());
        reader.subscribe(&[("a", 1), ("free", 0)]);
        fill(&mut writer, "a", 1);
        let ids = unacked(&mut reader, window, 0);
        // QoS 0 takes no place.
        writer.publish("free", "free", 0);
        assert_eq!(reader.message().text(), "free");
        // Acknowledged in any order, also with an error.
        for (n, id) in ids.iter().rev().enumerate() {
            reader.ack(4, *id, if n == 0 { 0x97 } else { 0 });
        }
        assert_eq!(reader.texts(MESSAGES - window).last().unwrap(), &(MESSAGES - 1).to_string());
        reader.disconnect();
    }
}

/// 4.9: a PUBREC with an error is the end of that message.
#[test]
fn a_refused_message_frees_its_place() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let mut reader =
        Options::new(Version::V5, "reader").with(prop::receive_maximum(1u16)).connect(broker.at());
    reader.subscribe(&[("a", 2)]);
    fill(&mut writer, "a", 2);
    for n in 0..MESSAGES {
        let got = reader.unacked();
        assert_eq!(got.text(), n.to_string());
        reader.ack(5, got.id, 0x80);
    }
    reader.quiet();
}

/// MQTT-3.3.4-9 and 4.9: more at once than the server takes is an error of the protocol.
#[test]
fn a_server_says_how_many() {
    let broker = Broker::with(&[("mqtt.receive_maximum", "7")]);
    let (mut writer, connack) = Options::new(Version::V5, "writer").attempt(broker.at());
    let most = connack.number(id::RECEIVE_MAXIMUM).unwrap_or(65_535) as u16;
    let message = |id| publish(Version::V5, &Message { id, ..Message::new("a", "x").qos(2) });
    for id in 1..=most {
        writer.send(&message(id));
    }
    for id in 1..=most {
        assert!(matches!(writer.packet(), Packet::Ack { kind: 5, id: i, .. } if i == id));
    }
    writer.quiet();
    // One that is over makes room for one more.
    writer.ack(6, 1, 0);
    assert!(matches!(writer.packet(), Packet::Ack { kind: 7, id: 1, .. }));
    writer.send(&message(most + 1));
    assert!(matches!(writer.packet(), Packet::Ack { kind: 5, .. }));
    writer.send(&message(most + 2));
    assert_eq!(writer.ended(), Some(0x93));
}

fn packets_that_are_too_large_end_it(version: Version) {
    let broker = Broker::with(&[("mqtt.max_packet_bytes", "2000")]);
    let (mut writer, connack) = Options::new(version, "writer").attempt(broker.at());
    if version == Version::V5 {
        assert_eq!(connack.number(id::MAXIMUM_PACKET_SIZE), Some(2000));
    }
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[("a", 1), ("will", 0)]);
    // To the byte: head of 3, topic of 3, id of 2, properties of 1.
    let rest = if version == Version::V5 { 9 } else { 8 };
    assert_eq!(writer.publish("a", "x".repeat(2000 - rest), 1), 0);
    assert_eq!(watcher.message().payload.len(), 2000 - rest);
    let will = Message::new("will", "");
    let mut writer = Options::new(version, "writer").will(will, &[]).connect(broker.at());
    // Judged by the announced length alone.
    writer.send(&[0x32, 0xD1, 0x0F]);
    let told = (version == Version::V5).then_some(0x95);
    assert!(matches!(writer.ended(), reason if reason == told));
    assert_eq!(watcher.message().topic, "will");
    watcher.quiet();
}

/// MQTT-3.1.2-24, -25.
#[test]
fn a_client_says_how_large() {
    let broker = Broker::start();
    let mut writer = broker.client(Version::V5, "writer");
    let mut all = broker.client(Version::V5, "all");
    all.subscribe(&[("a", 2)]);
    let mut small = Options::new(Version::V5, "small")
        .with(prop::maximum_packet_size(100u32))
        .with(prop::receive_maximum(2u16))
        .connect(broker.at());
    small.subscribe(&[("a", 2)]);
    for qos in 0..3 {
        // Head of 2, topic of 3, id of 2 (QoS 1 and 2), properties of 1.
        let fits = 100 - 6 - if qos > 0 { 2 } else { 0 };
        for size in [fits, fits + 1, fits + 2, 5000, 100_000] {
            writer.publish("a", "x".repeat(size), qos);
            assert_eq!(all.message().payload.len(), size);
        }
        assert_eq!(small.message().payload.len(), fits);
        // What was passed over took no place in the window.
        small.quiet();
    }
    // Retained ones neither.
    for (topic, size) in [("r/1", 50), ("r/2", 500), ("r/3", 50)] {
        writer.publish_as(Message::new(topic, "x".repeat(size)).qos(1).retained());
    }
    small.subscribe(&[("r/#", 1)]);
    let mut topics = [small.message().topic, small.message().topic];
    topics.sort();
    assert_eq!(topics, ["r/1", "r/3"]);
    small.quiet();
}

#[test]
fn a_reason_string_is_left_out_where_it_does_not_fit() {
    let broker = Broker::start();
    // Room for DISCONNECT with a reason, not with an explanation; CONNACK has to fit in too.
    let (mut client, connack) =
        Options::new(Version::V5, "c").with(prop::maximum_packet_size(60u32)).attempt(broker.at());
    assert_eq!(connack.code, 0);
    client.send(&[0x30, 0x03, 0, 0, 0]);
    let packets = client.rest();
    assert!(matches!(packets[..], [Packet::Disconnect { reason: 0x82, .. }]), "{packets:?}");
}
