//! Packets to bytes. Each function appends one packet.
//!
//! Invariants: what is written decodes to what was given, as long as what was given is valid; lengths are in their
//! shortest form; properties are left out below version 5. A string or binary above 65,535 bytes, which has no wire
//! form, is cut there. Must not know: what may be sent when.

use super::decode::{
    AUTH, CONNACK, CONNECT, DISCONNECT, PINGREQ, PINGRESP, PUBACK, PUBCOMP, PUBLISH, PUBREC,
    PUBREL, SUBACK, SUBSCRIBE, UNSUBACK, UNSUBSCRIBE,
};
use super::{Connect, Property, Qos, SubscribeFilter, Topic, Version};

const STRING_BYTES_MAX: usize = u16::MAX as usize;

/// A PUBLISH but for its properties and payload.
#[derive(Debug, Clone, Copy)]
pub struct PublishHead<'a> {
    /// Sent before.
    pub dup: bool,
    /// Its QoS.
    pub qos: Qos,
    /// Its retain flag.
    pub retain: bool,
    /// May be empty (5) when an alias stands for it.
    pub topic: &'a [u8],
    /// Not written with QoS 0.
    pub packet_id: u16,
}

/// Which answer to a PUBLISH, or to such an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// To QoS 1.
    Puback,
    /// To QoS 2.
    Pubrec,
    /// To PUBREC.
    Pubrel,
    /// To PUBREL.
    Pubcomp,
}

/// Appends everything that stands in front of the payload. Gives the length of the whole packet, payload included, so
/// that the caller can take the head back when the client takes no packet of that length, which no client does above
/// [`super::PACKET_BYTES_LIMIT`].
pub fn publish_head<'p>(
    out: &mut Vec<u8>,
    version: Version,
    head: &PublishHead<'_>,
    properties: impl Iterator<Item = Property<'p>> + Clone,
    payload_len: usize,
) -> usize {
    let numbered = head.qos != Qos::AtMostOnce;
    let topic = cut(head.topic);
    let five = version == Version::V5;
    let properties_len: usize =
        if five { properties.clone().map(|property| property.size()).sum() } else { 0 };
    let prefix_len = if five { varint_size(properties_len) } else { 0 };
    let remaining =
        2 + topic.len() + 2 * usize::from(numbered) + prefix_len + properties_len + payload_len;
    out.reserve(5 + remaining - payload_len);
    let before = out.len();
    let flags = u8::from(head.dup) << 3 | (head.qos as u8) << 1 | u8::from(head.retain);
    out.push(PUBLISH << 4 | flags);
    put_varint(out, remaining);
    let head_len = out.len() - before;
    out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    out.extend_from_slice(topic);
    if numbered {
        out.extend_from_slice(&head.packet_id.to_be_bytes());
    }
    if five {
        put_varint(out, properties_len);
        for property in properties {
            property.put(out);
        }
    }
    head_len + remaining
}

/// Appends a CONNECT, but with these properties instead of its own and its will's.
pub fn connect<'p>(
    out: &mut Vec<u8>,
    packet: &Connect<'_>,
    properties: impl Iterator<Item = Property<'p>>,
    will_properties: impl Iterator<Item = Property<'p>>,
) {
    let (name, level): (&[u8], u8) = match packet.version {
        Version::V31 => (b"MQIsdp", 3),
        Version::V311 => (b"MQTT", 4),
        Version::V5 => (b"MQTT", 5),
    };
    let mut flags = u8::from(packet.clean) << 1;
    if let Some(will) = &packet.will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(packet.password.is_some()) << 6 | u8::from(packet.user_name.is_some()) << 7;
    framed(out, CONNECT << 4, |out| {
        put_binary(out, name);
        out.push(level);
        out.push(flags);
        out.extend_from_slice(&packet.keep_alive.to_be_bytes());
        put_properties(out, packet.version, properties);
        put_text(out, packet.client_id);
        if let Some(will) = &packet.will {
            put_properties(out, packet.version, will_properties);
            put_binary(out, will.topic.bytes);
            put_binary(out, will.payload);
        }
        if let Some(name) = packet.user_name {
            put_text(out, name);
        }
        if let Some(password) = packet.password {
            put_binary(out, password);
        }
    });
}

/// Appends a CONNACK. 3.1 has no session-present flag.
pub fn connack<'p>(
    out: &mut Vec<u8>,
    version: Version,
    session_present: bool,
    code: u8,
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, CONNACK << 4, |out| {
        out.push(u8::from(session_present && version != Version::V31));
        out.push(code);
        put_properties(out, version, properties);
    });
}

/// Appends an answer in its shortest form: 5 leaves out a reason 0 without properties.
pub fn ack<'p>(
    out: &mut Vec<u8>,
    version: Version,
    kind: AckKind,
    packet_id: u16,
    reason: u8,
    properties: impl Iterator<Item = Property<'p>>,
) {
    let first = match kind {
        AckKind::Puback => PUBACK << 4,
        AckKind::Pubrec => PUBREC << 4,
        AckKind::Pubrel => PUBREL << 4 | 0b0010,
        AckKind::Pubcomp => PUBCOMP << 4,
    };
    framed(out, first, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        put_reason_and_properties(out, version, reason, properties);
    });
}

/// Appends a SUBSCRIBE; options that only 5 has are left out below it.
pub fn subscribe<'p, 'f>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: impl Iterator<Item = SubscribeFilter<'f>>,
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, SUBSCRIBE << 4 | 0b0010, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        put_properties(out, version, properties);
        for one in filters {
            put_binary(out, one.filter.bytes);
            let mut options = one.qos as u8;
            if version == Version::V5 {
                options |= u8::from(one.no_local) << 2
                    | u8::from(one.retain_as_published) << 3
                    | one.retain_handling << 4;
            }
            out.push(options);
        }
    });
}

/// Appends a SUBACK.
pub fn suback<'p>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    codes: &[u8],
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, SUBACK << 4, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        put_properties(out, version, properties);
        out.extend_from_slice(codes);
    });
}

/// Appends an UNSUBSCRIBE.
pub fn unsubscribe<'p, 'f>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    filters: impl Iterator<Item = Topic<'f>>,
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, UNSUBSCRIBE << 4 | 0b0010, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        put_properties(out, version, properties);
        for filter in filters {
            put_binary(out, filter.bytes);
        }
    });
}

/// Appends an UNSUBACK; codes are left out below 5.
pub fn unsuback<'p>(
    out: &mut Vec<u8>,
    version: Version,
    packet_id: u16,
    codes: &[u8],
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, UNSUBACK << 4, |out| {
        out.extend_from_slice(&packet_id.to_be_bytes());
        put_properties(out, version, properties);
        if version == Version::V5 {
            out.extend_from_slice(codes);
        }
    });
}

/// Appends a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PINGREQ << 4, 0]);
}

/// Appends a PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PINGRESP << 4, 0]);
}

/// Appends a DISCONNECT in its shortest form.
pub fn disconnect<'p>(
    out: &mut Vec<u8>,
    version: Version,
    reason: u8,
    properties: impl Iterator<Item = Property<'p>>,
) {
    framed(out, DISCONNECT << 4, |out| {
        put_reason_and_properties(out, version, reason, properties);
    });
}

/// Appends an AUTH, which only 5 has.
pub fn auth<'p>(out: &mut Vec<u8>, reason: u8, properties: impl Iterator<Item = Property<'p>>) {
    framed(out, AUTH << 4, |out| {
        let before = out.len();
        out.push(reason);
        put_properties(out, Version::V5, properties);
        if out.get(before..) == Some(&[0, 0]) {
            out.truncate(before);
        }
    });
}

/// Both are left out when they say nothing.
fn put_reason_and_properties<'p>(
    out: &mut Vec<u8>,
    version: Version,
    reason: u8,
    properties: impl Iterator<Item = Property<'p>>,
) {
    if version != Version::V5 {
        return;
    }
    let before = out.len();
    out.push(reason);
    put_properties(out, version, properties);
    match out.get(before..) {
        Some([0, 0]) => out.truncate(before),
        Some([_, 0]) => out.truncate(before + 1),
        _ => {}
    }
}

/// Appends a first byte, the length of what `body` appends, and that.
fn framed(out: &mut Vec<u8>, first: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(first);
    counted(out, body);
}

fn put_properties<'p>(
    out: &mut Vec<u8>,
    version: Version,
    properties: impl Iterator<Item = Property<'p>>,
) {
    if version == Version::V5 {
        counted(out, |out| properties.for_each(|property| property.put(out)));
    }
}

/// Appends what `body` does behind its length. Most lengths have one byte, so room for one is left and longer ones are
/// made room for when they are known.
fn counted(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    body(out);
    let count = out.len() - at - 1;
    if count < 0x80 {
        if let Some(length) = out.get_mut(at) {
            *length = count as u8;
        }
        return;
    }
    let mut length = Vec::with_capacity(4);
    put_varint(&mut length, count);
    out.splice(at..=at, length);
}

/// Bytes of a variable byte integer.
pub(super) fn varint_size(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Never more than four bytes: a larger value has no form and loses its upper bits.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    for _ in 0..3 {
        if value < 0x80 {
            break;
        }
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8 & 0x7f);
}

/// What of it has a wire form.
pub(super) fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..STRING_BYTES_MAX).unwrap_or(bytes)
}

pub(super) fn cut_text(text: &str) -> &str {
    text.get(..text.floor_char_boundary(STRING_BYTES_MAX)).unwrap_or(text)
}

pub(super) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = cut(bytes);
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_binary(out, cut_text(text).as_bytes());
}
