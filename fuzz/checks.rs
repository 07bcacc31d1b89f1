//! What must hold for the MQTT codec whatever the bytes are. Shared by the fuzz targets and, over the committed corpus, by
//! the tests of clarion-wire.

#![allow(dead_code, reason = "each target uses its own")]

use crate::mqtt::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const STRICT: Profile = Profile { packet_bytes_max: 1 << 20, free_topics: false };
const FREE: Profile = Profile { packet_bytes_max: 1 << 20, free_topics: true };

/// How the next packet is decoded.
#[derive(Debug, Clone, Copy)]
enum How {
    Connect,
    Next(Version, Side),
}

impl How {
    fn decode<'a>(self, bytes: &'a [u8], profile: &Profile) -> Result<Decoded<'a>, Malformed> {
        match self {
            Self::Connect => decode_connect(bytes, profile),
            Self::Next(version, from) => decode(bytes, version, from, profile),
        }
    }
}

/// Bytes of a client, as the first of a connection and as any later ones.
pub(crate) fn client(bytes: &[u8]) {
    let _ = connect_version(bytes);
    for profile in [&STRICT, &FREE] {
        if let Some((Packet::Connect(connect), len)) = check(How::Connect, bytes, profile) {
            assert_eq!(connect_version(bytes), Some(connect.version));
            check_all(How::Next(connect.version, Side::Client), &bytes[len..], profile);
        }
        for version in VERSIONS {
            check_all(How::Next(version, Side::Client), bytes, profile);
        }
    }
}

/// Bytes of a server.
pub(crate) fn server(bytes: &[u8]) {
    for profile in [&STRICT, &FREE] {
        for version in VERSIONS {
            check_all(How::Next(version, Side::Server), bytes, profile);
        }
    }
}

/// Packets of both, encoded again.
pub(crate) fn round_trip(bytes: &[u8]) {
    for profile in [&STRICT, &FREE] {
        again(How::Connect, bytes, profile);
        for version in VERSIONS {
            again(How::Next(version, Side::Client), bytes, profile);
            again(How::Next(version, Side::Server), bytes, profile);
        }
    }
}

fn check_all(how: How, mut bytes: &[u8], profile: &Profile) {
    while let Some((_, len)) = check(how, bytes, profile) {
        bytes = &bytes[len..];
    }
}

/// Decodes one packet, and what is left when bytes of it are missing.
fn check<'a>(how: How, bytes: &'a [u8], profile: &Profile) -> Option<(Packet<'a>, usize)> {
    match how.decode(bytes, profile) {
        Ok(Decoded::More) => None,
        Ok(Decoded::Packet { packet, len }) => {
            assert!(len >= 2 && len <= bytes.len());
            for end in [0, 1, 2, len / 2, len - 1] {
                let got = how.decode(&bytes[..end.min(len - 1)], profile);
                assert_eq!(got, Ok(Decoded::More), "{end} of {len}");
            }
            walk(&packet, profile);
            if !profile.free_topics {
                let free = Ok(Decoded::Packet { packet: packet.clone(), len });
                assert_eq!(how.decode(bytes, &FREE), free, "what is strict is free");
            }
            Some((packet, len))
        }
        Err(why) => {
            assert!(why.reason >= 0x80 && !why.statement.is_empty() && !why.what.is_empty());
            // What a part shows to be wrong is not made good by more bytes.
            let part = how.decode(&bytes[..bytes.len() / 2], profile);
            assert!(part == Ok(Decoded::More) || part == Err(why), "{part:?} {why:?}");
            None
        }
    }
}

/// Looks at everything that is decoded late.
fn walk(packet: &Packet<'_>, profile: &Profile) {
    let bytes_of = |properties: &Properties<'_>| {
        assert_eq!(properties.iter().count() == 0, properties.is_empty());
    };
    match packet {
        Packet::Connect(it) => {
            bytes_of(&it.properties);
            if let Some(will) = &it.will {
                bytes_of(&will.properties);
                assert!(!will.topic.bytes.is_empty());
            }
        }
        Packet::Publish(it) => {
            bytes_of(&it.properties);
            assert!(profile.free_topics || it.topic.text.is_some());
            assert_eq!(it.packet_id == 0, it.qos == Qos::AtMostOnce);
        }
        Packet::Subscribe(it) => {
            bytes_of(&it.properties);
            assert!(it.filters().count() > 0 && it.packet_id != 0);
            assert!(profile.free_topics || it.filters().all(|one| one.filter.text.is_some()));
        }
        Packet::Unsubscribe(it) => {
            bytes_of(&it.properties);
            assert!(it.filters().count() > 0 && it.packet_id != 0);
        }
        Packet::Connack(it) => bytes_of(&it.properties),
        Packet::Puback(it) | Packet::Pubrec(it) | Packet::Pubrel(it) | Packet::Pubcomp(it) => {
            bytes_of(&it.properties);
            assert!(it.packet_id != 0);
        }
        Packet::Suback(it) | Packet::Unsuback(it) => bytes_of(&it.properties),
        Packet::Disconnect(it) | Packet::Auth(it) => bytes_of(&it.properties),
        Packet::Pingreq | Packet::Pingresp => {}
    }
}

fn again(how: How, bytes: &[u8], profile: &Profile) {
    let Ok(Decoded::Packet { packet, len }) = how.decode(bytes, profile) else { return };
    let version = match (&packet, how) {
        (Packet::Connect(it), _) => it.version,
        (_, How::Next(version, _)) => version,
        (_, How::Connect) => unreachable!("another first packet"),
    };
    let mut out = Vec::new();
    encode(&packet, version, &mut out);
    assert!(out.len() <= len, "{packet:?} became longer");
    let Ok(Decoded::Packet { packet: second, len }) = how.decode(&out, profile) else {
        panic!("{packet:?} became {out:02x?}");
    };
    assert_eq!(len, out.len());
    assert_same(&packet, &second);
}

/// They are equal, but for bits of subscription options that 3.1 does not use.
fn assert_same(first: &Packet<'_>, second: &Packet<'_>) {
    match (first, second) {
        (Packet::Subscribe(a), Packet::Subscribe(b)) => {
            assert_eq!((a.packet_id, a.properties), (b.packet_id, b.properties));
            assert!(a.filters().eq(b.filters()), "{a:?} {b:?}");
        }
        _ => assert_eq!(first, second),
    }
}

fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    let acknowledge = |out: &mut Vec<u8>, kind, it: &Ack<'_>| {
        ack(out, version, kind, it.packet_id, it.reason, it.properties.iter());
    };
    match packet {
        Packet::Connect(it) => {
            let will = it.will.as_ref().map(|will| will.properties).unwrap_or_default();
            connect(out, it, it.properties.iter(), will.iter());
        }
        Packet::Connack(it) => {
            connack(out, version, it.session_present, it.code, it.properties.iter());
        }
        Packet::Publish(it) => {
            let Publish { dup, qos, retain, packet_id, .. } = *it;
            let head = PublishHead { dup, qos, retain, topic: it.topic.bytes, packet_id };
            let len = publish_head(out, version, &head, it.properties.iter(), it.payload.len());
            out.extend_from_slice(it.payload);
            assert_eq!(len, out.len());
        }
        Packet::Puback(it) => acknowledge(out, AckKind::Puback, it),
        Packet::Pubrec(it) => acknowledge(out, AckKind::Pubrec, it),
        Packet::Pubrel(it) => acknowledge(out, AckKind::Pubrel, it),
        Packet::Pubcomp(it) => acknowledge(out, AckKind::Pubcomp, it),
        Packet::Subscribe(it) => {
            subscribe(out, version, it.packet_id, it.filters(), it.properties.iter());
        }
        Packet::Suback(it) => suback(out, version, it.packet_id, it.codes, it.properties.iter()),
        Packet::Unsubscribe(it) => {
            unsubscribe(out, version, it.packet_id, it.filters(), it.properties.iter());
        }
        Packet::Unsuback(it) => {
            unsuback(out, version, it.packet_id, it.codes, it.properties.iter());
        }
        Packet::Pingreq => pingreq(out),
        Packet::Pingresp => pingresp(out),
        Packet::Disconnect(it) => disconnect(out, version, it.reason, it.properties.iter()),
        Packet::Auth(it) => auth(out, it.reason, it.properties.iter()),
    }
}
