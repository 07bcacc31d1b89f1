//! Packets that must be taken, and what is in them; what the encoders write, byte for byte.

use super::*;
use Side::{Client, Server};
use Version::{V5, V31, V311};

#[test]
fn packets_that_are_taken() {
    // 3.1 does not use the flags of these, nor the bits of these bytes.
    for (first, body) in [
        (0x41, "0001"),
        (0x62, "0001"),
        (0x6a, "0001"),
        (0x6b, "0001"),
        (0x82, "0001 'a' fd"),
        (0x8a, "0001 'a' 00"),
        (0xaa, "0001 'a'"),
        (0xc1, ""),
        (0xe9, ""),
    ] {
        whole(&packet(first, body), V31, Client, &STRICT);
    }
    whole(&packet(0x20, "ff 00"), V31, Server, &STRICT);
    for (first, body) in [
        (0x30, "'t'"),
        (0x30, "'$SYS/x'"),
        (0x30, "0005 41f0aa9b94"),
        (0x30, "0003 efbbbf"),
        (0x30, "0002 c2a0"),
        (0x30, "0006 efb78f efb7b0"),
        (0x30, "0003 efbfbd"),
        (0x31, "'t' 00"),
        (0x32, "'t' ffff 00"),
        (0x3d, "'t' 0001 00"),
        (0x82, "0001 'a' 00 'b/+/c/#' 01 '$share/g/x' 02"),
        (0xa2, "0001 'a' '#'"),
        (0xc0, ""),
        (0xe0, ""),
    ] {
        whole(&packet(first, body), V31, Client, &STRICT);
        whole(&packet(first, body), V311, Client, &STRICT);
    }
    // A length of more bytes than needed is allowed below 5.
    whole(&bytes("c0 80 00"), V311, Client, &STRICT);
    for (first, body) in [
        (0x30, "'t' 00"),
        (0x30, "'' 03 23 0001"),
        (0x30, "'t' 0e 26 'a' 'b' 26 'a' 'b' 70"),
        (0x40, "0001"),
        (0x40, "0001 10"),
        (0x40, "0001 80 00"),
        (0x62, "0001 92 04 1f 'x'"),
        (0x82, "0001 02 0b 01 'a' 2e"),
        (0x82, "0001 00 '$share/g/a' 02"),
        (0x82, "0001 00 '$shared/g/a' 04"),
        (0xe0, "04"),
        (0xe0, "00 05 11 00000001"),
        (0xf0, ""),
        (0xf0, "18 04 15 'a'"),
    ] {
        whole(&packet(first, body), V5, Client, &STRICT);
    }
    for (first, body) in [
        (0x20, "01 00 00"),
        (0x20, "00 9c 04 1c 'b'"),
        (0x30, "'t' 05 0b 01 0b ff 7f"),
        (0x90, "0001 00 00 01 02 80 a2"),
        (0xb0, "0001 00 11"),
        (0xd0, ""),
        (0xe0, "8b"),
        (0xf0, "00 04 15 'a'"),
    ] {
        whole(&packet(first, body), V5, Server, &STRICT);
    }
}

#[test]
fn connects_that_are_taken() {
    let long = format!("'MQIsdp' 03 02 000a '{}'", "x".repeat(300));
    for (version, body) in [
        (V31, "'MQIsdp' 03 02 000a 'p'"),
        (V31, "'MQIsdp' 03 01 000a 'p'"),
        (V31, "'MQIsdp' 03 3a 000a 'p'"),
        (V31, long.as_str()),
        (V31, "'MQIsdp' 03 c2 000a 'p'"),
        (V31, "'MQIsdp' 03 c2 000a 'p' 'u'"),
        (V31, "'MQIsdp' 03 c2 000a 'p' 'u' 's'"),
        (V31, "'MQIsdp' 03 c6 000a 'p' 't' 'm'"),
        (V311, "'MQTT' 04 02 000a ''"),
        (V311, "'MQTT' 04 82 000a 'p' ''"),
        (V311, "'MQTT' 04 c2 000a 'p' 'u' 0003 610062"),
        (V311, "'MQTT' 04 36 000a 'p' 't' 0000"),
        (V5, "'MQTT' 05 00 000a 00 ''"),
        (V5, "'MQTT' 05 42 000a 00 'p' 'secret'"),
        (V5, "'MQTT' 05 02 000a 08 15 'a' 16 'b' 'p'"),
        (V5, "'MQTT' 05 06 000a 00 'p' 05 18 00000001 't' 'm'"),
    ] {
        let bytes = packet(0x10, body);
        let Packet::Connect(connect) = whole(&bytes, V311, Client, &STRICT) else { unreachable!() };
        assert_eq!(connect.version, version, "{body}");
        assert_eq!(connect_version(&bytes), Some(version), "{body}");
    }
    // Only 3.1 does not use the flags of CONNECT.
    whole(&packet(0x14, "'MQIsdp' 03 02 000a 'p'"), V31, Client, &STRICT);
}

#[test]
fn fields_of_a_connect() {
    let body = "'MQTT' 05 ee 003c 05 11 00000e10 'id' 05 18 00000005 'w/t' 'gone' 'user' 0002 00ff";
    let bytes = packet(0x10, body);
    let Packet::Connect(connect) = whole(&bytes, V5, Client, &STRICT) else { unreachable!() };
    assert!(connect.clean);
    assert_eq!((connect.keep_alive, connect.client_id), (60, "id"));
    let properties: Vec<_> = connect.properties.iter().collect();
    assert_eq!(properties, [Property::SessionExpiry(3600)]);
    assert_eq!((connect.user_name, connect.password), (Some("user"), Some(&[0, 0xff][..])));
    let will = connect.will.unwrap();
    assert_eq!((will.topic.as_str(), will.payload), ("w/t", &b"gone"[..]));
    assert_eq!((will.qos, will.retain), (Qos::AtLeastOnce, true));
    let properties: Vec<_> = will.properties.iter().collect();
    assert_eq!(properties, [Property::WillDelay(5)]);
}

/// Which form a refusal of a CONNECT takes.
#[test]
fn versions_of_refused_connects() {
    for (expected, first, body) in [
        (Some(V311), 0x10, "'MQTT' 06 00 000a 'p'"),
        (Some(V311), 0x10, "'MQTT' 02 00 000a 'p'"),
        (Some(V311), 0x10, "'MQIsdp' 06 00 000a 'p'"),
        (Some(V311), 0x10, "'MQTT' 04 00 000a ''"),
        (Some(V31), 0x10, "'MQIsdp' 03 00 000a ''"),
        (Some(V5), 0x10, "'MQTT' 05 00 000a 02 17 02 'p'"),
        (None, 0x10, "'MQT' 04 02 000a 'p'"),
        (None, 0x10, "'MQTT'"),
        (None, 0xc0, ""),
    ] {
        assert_eq!(connect_version(&packet(first, body)), expected, "{body}");
    }
    assert_eq!(connect_version(&[]), None);
}

#[test]
fn fields_of_a_publish() {
    let bytes = packet(0x3b, "'a/b' 1234 07 01 01 02 00000064 706179");
    let Packet::Publish(publish) = whole(&bytes, V5, Client, &STRICT) else { unreachable!() };
    assert_eq!((publish.dup, publish.qos, publish.retain), (true, Qos::AtLeastOnce, true));
    assert_eq!((publish.topic.as_str(), publish.packet_id), ("a/b", 0x1234));
    assert_eq!(publish.payload, b"pay");
    let properties: Vec<_> = publish.properties.iter().collect();
    assert_eq!(properties, [Property::PayloadFormat(1), Property::MessageExpiry(100)]);
}

#[test]
fn fields_of_a_subscribe() {
    let bytes = packet(0x82, "000a 00 'a' 2d '$share/g/b' 02");
    let Packet::Subscribe(subscribe) = whole(&bytes, V5, Client, &STRICT) else { unreachable!() };
    let filters: Vec<_> = subscribe.filters().collect();
    let first = SubscribeFilter {
        filter: "a".into(),
        qos: Qos::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: 2,
    };
    let second = SubscribeFilter {
        filter: "$share/g/b".into(),
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    };
    assert_eq!((subscribe.packet_id, filters), (10, vec![first, second]));
}

fn none() -> std::iter::Empty<Property<'static>> {
    std::iter::empty()
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = vec![0xee];
    write(&mut out);
    assert_eq!(out.remove(0), 0xee, "what was there stays");
    hex(&out)
}

#[test]
fn shortest_forms() {
    use AckKind::{Puback, Pubcomp, Pubrec, Pubrel};
    let reason = || std::iter::once(Property::ReasonString("no"));
    assert_eq!(written(|out| ack(out, V311, Puback, 1, 0x87, reason())), "40020001");
    assert_eq!(written(|out| ack(out, V5, Pubrec, 1, 0, none())), "50020001");
    assert_eq!(written(|out| ack(out, V5, Pubrel, 1, 0x92, none())), "6203000192");
    assert_eq!(
        written(|out| ack(out, V5, Pubcomp, 1, 0, reason())),
        "70090001 00051f00026e6f".replace(' ', "")
    );
    assert_eq!(written(|out| disconnect(out, V311, 0, none())), "e000");
    assert_eq!(written(|out| disconnect(out, V5, 0, none())), "e000");
    assert_eq!(written(|out| disconnect(out, V5, 0x8b, none())), "e0018b");
    assert_eq!(written(|out| auth(out, 0, none())), "f000");
    assert_eq!(written(|out| connack(out, V31, true, 0, none())), "20020000");
    assert_eq!(written(|out| connack(out, V311, true, 0, reason())), "20020100");
    assert_eq!(written(|out| connack(out, V5, false, 0x87, none())), "2003008700");
    assert_eq!(written(|out| unsuback(out, V311, 1, &[0x11], none())), "b0020001");
    assert_eq!(written(|out| unsuback(out, V5, 1, &[0x11], none())), "b00400010011");
    assert_eq!(written(pingreq), "c000");
    assert_eq!(written(pingresp), "d000");
}

#[test]
fn heads_know_the_length_of_their_packet() {
    for (payload, head_len) in [(0, 5), (124, 5), (125, 6), (16_380, 6), (16_381, 7)] {
        let mut out = Vec::new();
        let head = PublishHead {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: b"t",
            packet_id: 9,
        };
        let len = publish_head(&mut out, V311, &head, none(), payload);
        assert_eq!((out.len(), len), (head_len, head_len + payload));
        out.resize(len, b'x');
        whole(&out, V311, Client, &STRICT);
    }
}

/// A packet of exactly the largest size is taken.
#[test]
fn the_largest_packet() {
    let body = "'t' 00 01 02 03";
    let len = packet(0x30, body).len() as u32;
    let at_most = |packet_bytes_max| Profile { packet_bytes_max, free_topics: false };
    whole(&packet(0x30, body), V311, Client, &at_most(len));
    assert!(decode(&packet(0x30, body), V311, Client, &at_most(len - 1)).is_err());
    let connect = packet(0x10, "'MQTT' 04 02 000a 'p'");
    let len = connect.len() as u32;
    whole(&connect, V311, Client, &at_most(len));
    assert!(decode_connect(&connect, &at_most(len - 1)).is_err());
}

/// Properties whose length takes one more byte than that of shorter ones.
#[test]
fn lengths_of_properties() {
    for total in [3, 127, 128, 16_383, 16_384, 60_000] {
        let data = vec![7; total - 3];
        let head = PublishHead {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: b"t",
            packet_id: 1,
        };
        let mut out = Vec::new();
        let properties = std::iter::once(Property::CorrelationData(&data));
        let len = publish_head(&mut out, V5, &head, properties.clone(), 0);
        assert_eq!(len, out.len());
        let Packet::Publish(publish) = whole(&out, V5, Client, &STRICT) else { unreachable!() };
        assert!(publish.properties.iter().eq(properties));
    }
}

#[test]
fn what_has_no_wire_form_is_cut() {
    let long = "ä".repeat(40_000);
    let mut out = Vec::new();
    let properties = std::iter::once(Property::UserProperty(&long, &long));
    let head =
        PublishHead { dup: false, qos: Qos::AtMostOnce, retain: false, topic: b"t", packet_id: 0 };
    let len = publish_head(&mut out, V5, &head, properties, 0);
    assert_eq!(len, out.len());
    let Packet::Publish(publish) = whole(&out, V5, Server, &STRICT) else { unreachable!() };
    let cut = "ä".repeat(32_767);
    assert!(publish.properties.iter().eq([Property::UserProperty(&cut, &cut)]));
    let mut out = Vec::new();
    let properties = std::iter::once(Property::CorrelationData(long.as_bytes()));
    let len = publish_head(&mut out, V5, &head, properties, 0);
    assert_eq!(len, out.len());
    let Packet::Publish(publish) = whole(&out, V5, Server, &STRICT) else { unreachable!() };
    let cut = &long.as_bytes()[..65_535];
    assert!(publish.properties.iter().eq([Property::CorrelationData(cut)]));
}
