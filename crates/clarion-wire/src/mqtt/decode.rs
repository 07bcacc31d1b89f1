//! Bytes to packets.
//!
//! A packet is looked at twice: its header as soon as it is there, which tells whether there can be such a packet, and the
//! whole when it is. Must not know: what the session makes of it.

mod connect;

pub use connect::{connect_version, decode_connect};

use super::property::{self, Had, Set};
use super::read::{Reader, Varint, varint};
use super::rules;
use super::{
    Ack, Connack, Decoded, Disconnect, Malformed, Packet, Profile, Properties, Publish, Qos, Side,
    Suback, Subscribe, SubscribeFilter, Topic, Unsubscribe, Version,
};

// Packets by the upper half of their first byte.
pub(super) const CONNECT: u8 = 1;
pub(super) const CONNACK: u8 = 2;
pub(super) const PUBLISH: u8 = 3;
pub(super) const PUBACK: u8 = 4;
pub(super) const PUBREC: u8 = 5;
pub(super) const PUBREL: u8 = 6;
pub(super) const PUBCOMP: u8 = 7;
pub(super) const SUBSCRIBE: u8 = 8;
pub(super) const SUBACK: u8 = 9;
pub(super) const UNSUBSCRIBE: u8 = 10;
pub(super) const UNSUBACK: u8 = 11;
pub(super) const PINGREQ: u8 = 12;
pub(super) const PINGRESP: u8 = 13;
pub(super) const DISCONNECT: u8 = 14;
pub(super) const AUTH: u8 = 15;

// Reason codes that packets of 5 have (table 2-6), whichever side sends them.
const OF_CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97,
    0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f,
];
const OF_PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const OF_PUBREL: &[u8] = &[0x00, 0x92];
const OF_SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
const OF_UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91];
const OF_DISCONNECT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94,
    0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];
const OF_AUTH: &[u8] = &[0x00, 0x18, 0x19];

/// Decodes the packet at the front of `bytes`, which is not the first of its connection if a client sent it.
pub fn decode<'a>(
    bytes: &'a [u8],
    version: Version,
    from: Side,
    profile: &Profile,
) -> Result<Decoded<'a>, Malformed> {
    let Some((&first, behind)) = bytes.split_first() else {
        return Ok(Decoded::More);
    };
    check_first(first, version, from)?;
    let (remaining, length_bytes) = match varint(behind) {
        Varint::More => return Ok(Decoded::More),
        Varint::TooLong => return Err(rules::LENGTH.broken(version)),
        Varint::Number { shortest: false, .. } if version == Version::V5 => {
            return Err(rules::LENGTH_LONG.broken(version));
        }
        Varint::Number { value, bytes, .. } => (value, bytes),
    };
    let head = 1 + length_bytes;
    check_length(first >> 4, head, remaining, version, profile)?;
    let len = head + remaining as usize;
    let Some(body) = bytes.get(head..len) else {
        return Ok(Decoded::More);
    };
    let mut reader = Reader::new(body, version, profile);
    let packet = match first >> 4 {
        PUBLISH => publish(first, &mut reader, from)?,
        kind => other(kind, &mut reader, from)?,
    };
    Ok(Decoded::Packet { packet, len })
}

/// Which flags a first byte must have, and which of them are looked at. 3.1 does not use the flags of most packets, nor
/// RETAIN with those that have a QoS, and allows DUP with these.
fn flags_of(kind: u8, version: Version) -> (u8, u8) {
    match (kind, version) {
        (PUBREL | SUBSCRIBE | UNSUBSCRIBE, Version::V31) => (0b0010, 0b0110),
        (PUBREL | SUBSCRIBE | UNSUBSCRIBE, _) => (0b0010, 0b1111),
        (_, Version::V31) => (0, 0),
        _ => (0, 0b1111),
    }
}

/// What the first byte shows.
fn check_first(first: u8, version: Version, from: Side) -> Result<(), Malformed> {
    let kind = first >> 4;
    let broken = match (kind, from) {
        (PUBLISH, _) => match first & 0b1110 {
            0b1000 => &rules::DUP,
            0b0110 | 0b1110 => &rules::QOS,
            _ => return Ok(()),
        },
        (CONNECT, Side::Client) => &rules::SECOND_CONNECT,
        (0 | CONNACK | SUBACK | UNSUBACK | PINGRESP, Side::Client)
        | (0 | CONNECT | SUBSCRIBE | UNSUBSCRIBE | PINGREQ, Side::Server) => &rules::KIND,
        (AUTH, _) | (DISCONNECT, Side::Server) if version != Version::V5 => &rules::KIND,
        _ => {
            let (flags, mask) = flags_of(kind, version);
            if first & mask == flags {
                return Ok(());
            }
            &rules::FLAGS
        }
    };
    Err(broken.broken(version))
}

/// What the length shows.
fn check_length(
    kind: u8,
    head: usize,
    remaining: u32,
    version: Version,
    profile: &Profile,
) -> Result<(), Malformed> {
    if head as u32 + remaining > profile.packet_bytes_max {
        return Err(rules::TOO_LARGE.broken(version));
    }
    let (least, most) = match kind {
        PUBLISH => return Ok(()),
        PINGREQ | PINGRESP => (0, 0),
        DISCONNECT if version != Version::V5 => (0, 0),
        CONNACK | PUBACK | PUBREC | PUBREL | PUBCOMP | UNSUBACK if version != Version::V5 => (2, 2),
        DISCONNECT | AUTH => (0, u32::MAX),
        _ => (2, u32::MAX),
    };
    if remaining < least {
        return Err(rules::SHORT.broken(version));
    }
    if remaining > most {
        return Err(rules::TRAILING.broken(version));
    }
    Ok(())
}

fn publish<'a>(first: u8, reader: &mut Reader<'a>, from: Side) -> Result<Packet<'a>, Malformed> {
    let Some(qos) = Qos::from_bits(first >> 1 & 3) else {
        return reader.broken(&rules::QOS);
    };
    let topic = reader.topic_or_empty()?;
    let packet_id = if qos == Qos::AtMostOnce { 0 } else { reader.packet_id()? };
    let (properties, had) = property::take(reader, property::OF_PUBLISH)?;
    if topic.bytes.is_empty() && !had.topic_alias() {
        return reader.broken(&rules::NO_TOPIC);
    }
    if from == Side::Client && had.subscription_id() {
        return reader.broken(&rules::SUBSCRIPTION_ID_CLIENT);
    }
    Ok(Packet::Publish(Publish {
        dup: first & 0b1000 != 0,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.remainder(),
    }))
}

fn other<'a>(kind: u8, reader: &mut Reader<'a>, from: Side) -> Result<Packet<'a>, Malformed> {
    let packet = match kind {
        CONNACK => Packet::Connack(connack(reader)?),
        PUBACK => Packet::Puback(ack(reader, OF_PUBACK)?),
        PUBREC => Packet::Pubrec(ack(reader, OF_PUBACK)?),
        PUBREL => Packet::Pubrel(ack(reader, OF_PUBREL)?),
        PUBCOMP => Packet::Pubcomp(ack(reader, OF_PUBREL)?),
        SUBSCRIBE => Packet::Subscribe(subscribe(reader)?),
        SUBACK => Packet::Suback(suback(reader)?),
        UNSUBSCRIBE => Packet::Unsubscribe(unsubscribe(reader)?),
        UNSUBACK => Packet::Unsuback(unsuback(reader)?),
        PINGREQ => Packet::Pingreq,
        PINGRESP => Packet::Pingresp,
        DISCONNECT => Packet::Disconnect(disconnect(reader, from)?),
        AUTH => Packet::Auth(auth(reader)?),
        _ => return reader.broken(&rules::KIND),
    };
    reader.end()?;
    Ok(packet)
}

fn reason(reader: &mut Reader<'_>, known: &[u8]) -> Result<u8, Malformed> {
    let code = reader.u8()?;
    if known.contains(&code) { Ok(code) } else { reader.broken(&rules::REASON) }
}

fn connack<'a>(reader: &mut Reader<'a>) -> Result<Connack<'a>, Malformed> {
    let flags = reader.u8()?;
    // 3.1 reserves this byte and does not say that it is 0.
    let flags = if reader.version() == Version::V31 { 0 } else { flags };
    if flags > 1 {
        return reader.broken(&rules::CONNACK_FLAGS);
    }
    let code = reader.u8()?;
    let known = if reader.is_five() { OF_CONNACK.contains(&code) } else { code <= 5 };
    if !known {
        return reader.broken(&rules::RETURN_CODE);
    }
    let session_present = flags == 1;
    if session_present && code != 0 {
        return reader.broken(&rules::SESSION_PRESENT);
    }
    let (properties, _) = property::take(reader, property::OF_CONNACK)?;
    Ok(Connack { session_present, code, properties })
}

fn ack<'a>(reader: &mut Reader<'a>, known: &[u8]) -> Result<Ack<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (reason, properties, _) = reason_and_properties(reader, known, property::OF_ANSWER)?;
    Ok(Ack { packet_id, reason, properties })
}

/// Both may be left out from the end of the packet, and are not there below 5.
fn reason_and_properties<'a>(
    reader: &mut Reader<'a>,
    known: &[u8],
    allowed: Set,
) -> Result<(u8, Properties<'a>, Option<Had>), Malformed> {
    if reader.is_empty() || !reader.is_five() {
        return Ok((0, Properties::default(), None));
    }
    let reason = reason(reader, known)?;
    if reader.is_empty() {
        return Ok((reason, Properties::default(), None));
    }
    let (properties, had) = property::take(reader, allowed)?;
    Ok((reason, properties, Some(had)))
}

fn subscribe<'a>(reader: &mut Reader<'a>) -> Result<Subscribe<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (properties, _) = property::take(reader, property::OF_SUBSCRIBE)?;
    if reader.is_empty() {
        return reader.broken(&rules::NO_FILTERS);
    }
    let version = reader.version();
    let mut filters = reader.clone();
    while !filters.is_empty() {
        let filter = filters.filter()?;
        let one = subscribe_filter(filter, filters.u8()?, version)?;
        if one.no_local && !filters.is_free() && filter.bytes.starts_with(b"$share/") {
            return filters.broken(&rules::SHARED_NO_LOCAL);
        }
    }
    Ok(Subscribe { packet_id, properties, version, raw: reader.remainder() })
}

fn subscribe_filter(
    filter: Topic<'_>,
    options: u8,
    version: Version,
) -> Result<SubscribeFilter<'_>, Malformed> {
    let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
    // 3.1 says of these bits that they are not used.
    if options & reserved != 0 && version != Version::V31 {
        return Err(rules::OPTIONS.broken(version));
    }
    let Some(qos) = Qos::from_bits(options & 3) else {
        return Err(rules::OPTIONS_QOS.broken(version));
    };
    let five = version == Version::V5;
    let retain_handling = if five { options >> 4 & 3 } else { 0 };
    if retain_handling == 3 {
        return Err(rules::RETAIN_HANDLING.broken(version));
    }
    Ok(SubscribeFilter {
        filter,
        qos,
        no_local: five && options & 0b0100 != 0,
        retain_as_published: five && options & 0b1000 != 0,
        retain_handling,
    })
}

impl<'a> Subscribe<'a> {
    /// The filters, in their order.
    pub fn filters(&self) -> impl Iterator<Item = SubscribeFilter<'a>> + Clone + use<'a> {
        let version = self.version;
        let mut reader = Reader::checked(self.raw, version);
        std::iter::from_fn(move || {
            let filter = reader.filter().ok()?;
            subscribe_filter(filter, reader.u8().ok()?, version).ok()
        })
    }
}

fn suback<'a>(reader: &mut Reader<'a>) -> Result<Suback<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (properties, _) = property::take(reader, property::OF_ANSWER)?;
    let codes = reader.remainder();
    let known: &[u8] = match reader.version() {
        Version::V5 => OF_SUBACK,
        Version::V311 => &[0, 1, 2, 0x80],
        Version::V31 => &[0, 1, 2],
    };
    check_codes(codes, known, reader)?;
    Ok(Suback { packet_id, properties, codes })
}

fn check_codes(codes: &[u8], known: &[u8], reader: &Reader<'_>) -> Result<(), Malformed> {
    if codes.is_empty() {
        return reader.broken(&rules::NO_CODES);
    }
    if codes.iter().all(|code| known.contains(code)) {
        Ok(())
    } else {
        reader.broken(&rules::SUBACK_CODE)
    }
}

fn unsubscribe<'a>(reader: &mut Reader<'a>) -> Result<Unsubscribe<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (properties, _) = property::take(reader, property::OF_UNSUBSCRIBE)?;
    if reader.is_empty() {
        return reader.broken(&rules::NO_FILTERS_LEFT);
    }
    let mut filters = reader.clone();
    while !filters.is_empty() {
        filters.filter()?;
    }
    Ok(Unsubscribe { packet_id, properties, raw: reader.remainder() })
}

impl<'a> Unsubscribe<'a> {
    /// The filters, in their order.
    pub fn filters(&self) -> impl Iterator<Item = Topic<'a>> + Clone + use<'a> {
        let mut reader = Reader::checked(self.raw, Version::V5);
        std::iter::from_fn(move || reader.filter().ok())
    }
}

fn unsuback<'a>(reader: &mut Reader<'a>) -> Result<Suback<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (properties, _) = property::take(reader, property::OF_ANSWER)?;
    let codes = reader.remainder();
    if reader.is_five() {
        check_codes(codes, OF_UNSUBACK, reader)?;
    }
    Ok(Suback { packet_id, properties, codes })
}

fn disconnect<'a>(reader: &mut Reader<'a>, from: Side) -> Result<Disconnect<'a>, Malformed> {
    let (reason, properties, had) =
        reason_and_properties(reader, OF_DISCONNECT, property::OF_DISCONNECT)?;
    if from == Side::Server && had.is_some_and(Had::session_expiry) {
        return reader.broken(&rules::EXPIRY_FROM_SERVER);
    }
    Ok(Disconnect { reason, properties })
}

/// Without reason and properties it is a success (3.15.2.1); with them, the method is among these.
fn auth<'a>(reader: &mut Reader<'a>) -> Result<Disconnect<'a>, Malformed> {
    if reader.is_empty() {
        return Ok(Disconnect { reason: 0, properties: Properties::default() });
    }
    let reason = reason(reader, OF_AUTH)?;
    let (properties, had) = property::take(reader, property::OF_AUTH)?;
    if !had.auth_method() {
        return reader.broken(&rules::AUTH_METHOD);
    }
    Ok(Disconnect { reason, properties })
}
