//! Stand-in for the codec until it is merged.
use clarion_wire::mqtt::*;
#[allow(dead_code)]
pub(super) enum Side { Client, Server }
pub(super) enum Decoded<'a> { More, Packet { packet: Packet<'a>, len: usize } }
pub(super) struct PublishHead<'a> { pub(super) dup: bool, pub(super) qos: Qos, pub(super) retain: bool, pub(super) topic: &'a [u8], pub(super) packet_id: u16 }
#[allow(dead_code)]
pub(super) enum AckKind { Puback, Pubrec, Pubrel, Pubcomp }
fn varint(out: &mut Vec<u8>, mut n: usize) { loop { let b = (n & 127) as u8; n >>= 7; if n > 0 { out.push(b | 128) } else { out.push(b); return } } }
fn str16(out: &mut Vec<u8>, s: &[u8]) { out.extend_from_slice(&(s.len() as u16).to_be_bytes()); out.extend_from_slice(s); }
pub(super) fn publish_head(out: &mut Vec<u8>, v: Version, h: &PublishHead<'_>, len: usize) {
    out.push(0x30 | (h.qos as u8) << 1);
    let n = 2 + h.topic.len() + if h.qos > Qos::AtMostOnce { 2 } else { 0 } + usize::from(v == Version::V5) + len;
    varint(out, n);
    str16(out, h.topic);
    if h.qos > Qos::AtMostOnce { out.extend_from_slice(&h.packet_id.to_be_bytes()) }
    if v == Version::V5 { out.push(0) }
}
pub(super) fn connect(out: &mut Vec<u8>, c: &Connect<'_>) {
    let mut b = Vec::new();
    str16(&mut b, if c.version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
    b.push(match c.version { Version::V31 => 3, Version::V311 => 4, Version::V5 => 5 });
    b.push(2); b.extend_from_slice(&c.keep_alive.to_be_bytes());
    if c.version == Version::V5 { b.extend_from_slice(&[3, 33, 255, 255]) }
    str16(&mut b, c.client_id.as_bytes());
    out.push(0x10); varint(out, b.len()); out.extend_from_slice(&b);
}
pub(super) fn subscribe(out: &mut Vec<u8>, v: Version, id: u16, f: &SubscribeFilter<'_>) {
    let n = 2 + usize::from(v == Version::V5) + 3 + f.filter.bytes.len();
    out.push(0x82); varint(out, n); out.extend_from_slice(&id.to_be_bytes());
    if v == Version::V5 { out.push(0) }
    str16(out, f.filter.bytes); out.push(f.qos as u8);
}
pub(super) fn ack(out: &mut Vec<u8>, kind: AckKind, id: u16) {
    out.push(match kind { AckKind::Puback => 0x40, AckKind::Pubrec => 0x50, AckKind::Pubrel => 0x62, AckKind::Pubcomp => 0x70 });
    out.push(2); out.extend_from_slice(&id.to_be_bytes());
}
pub(super) fn decode<'a>(b: &'a [u8], v: Version, _: Side, _: &Profile) -> Result<Decoded<'a>, Malformed> {
    let (mut n, mut i, mut shift) = (0usize, 1, 0);
    loop { let Some(x) = b.get(i) else { return Ok(Decoded::More) }; n |= usize::from(x & 127) << shift; shift += 7; i += 1; if *x < 128 { break } }
    let Some(body) = b.get(i..i + n) else { return Ok(Decoded::More) };
    let id = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let ackd = || Ack { packet_id: id(0), reason: body.get(2).copied().unwrap_or(0), properties: Properties::default() };
    let packet = match b[0] >> 4 {
        2 => Packet::Connack(Connack { session_present: body[0] == 1, code: body[1], properties: Properties::default() }),
        3 => {
            let t = usize::from(id(0));
            let qos = match b[0] >> 1 & 3 { 0 => Qos::AtMostOnce, 1 => Qos::AtLeastOnce, _ => Qos::ExactlyOnce };
            let mut at = 2 + t;
            let packet_id = if qos > Qos::AtMostOnce { at += 2; id(at - 2) } else { 0 };
            if v == Version::V5 { at += 1 + usize::from(body[at]) }
            Packet::Publish(Publish { dup: b[0] & 8 > 0, qos, retain: b[0] & 1 > 0, topic: Topic { bytes: &body[2..2 + t], text: None }, packet_id, properties: Properties::default(), payload: &body[at..] })
        }
        4 => Packet::Puback(ackd()), 5 => Packet::Pubrec(ackd()), 6 => Packet::Pubrel(ackd()), 7 => Packet::Pubcomp(ackd()),
        9 => Packet::Suback(Suback { packet_id: id(0), properties: Properties::default(), codes: &body[if v == Version::V5 { 3 + usize::from(body[2]) } else { 2 }..] }),
        14 => Packet::Disconnect(Disconnect { reason: body.first().copied().unwrap_or(0), properties: Properties::default() }),
        _ => Packet::Pingresp,
    };
    Ok(Decoded::Packet { packet, len: i + n })
}
