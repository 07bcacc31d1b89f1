//! Valid packets of all kinds and what chance makes of them, the same ones at each run.

use super::super::*;

/// SplitMix64: all chance comes from a seed.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    /// Below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn id(&mut self) -> u16 {
        1 + self.below(0xffff) as u16
    }
}

const TOPICS: &[&str] = &["t", "a/b", "$SYS/x", "/", "a//b", "bücher/é", "sensors/7/temperature"];
const FILTERS: &[&str] = &["t", "a/+/b", "#", "+", "a/#", "$share/g/a/+", "/", "$SYS/#", "ü/+"];
const TEXTS: &[&str] =
    &["", "x", "text/plain", "größe 𝄞", "a longer text of some forty characters"];
const PAYLOADS: &[&[u8]] = &[b"", b"\0", b"payload", &[0xff; 130], &[b'x'; 200]];
const QOS: &[Qos] = &[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

fn property(chance: &mut Chance, id: u8) -> Property<'static> {
    use Property as P;
    let flag = chance.one_in(2);
    let number = chance.pick(&[0, 1, 10, 0xffff_ffff]);
    let short = chance.pick(&[1, 10, 0xffff]);
    let text = chance.pick(TEXTS);
    match id {
        0x01 => P::PayloadFormat(flag.into()),
        0x02 => P::MessageExpiry(number),
        0x03 => P::ContentType(text),
        0x08 => P::ResponseTopic(chance.pick(TOPICS)),
        0x09 => P::CorrelationData(chance.pick(PAYLOADS)),
        0x0b => P::SubscriptionId(chance.pick(&[1, 127, 128, 268_435_455])),
        0x11 => P::SessionExpiry(number),
        0x12 => P::AssignedClientId(text),
        0x13 => P::ServerKeepAlive(short),
        0x15 => P::AuthMethod(text),
        0x16 => P::AuthData(chance.pick(PAYLOADS)),
        0x17 => P::RequestProblemInfo(flag),
        0x18 => P::WillDelay(number),
        0x19 => P::RequestResponseInfo(flag),
        0x1a => P::ResponseInfo(text),
        0x1c => P::ServerReference(text),
        0x1f => P::ReasonString(text),
        0x21 => P::ReceiveMaximum(short),
        0x22 => P::TopicAliasMaximum(short),
        0x23 => P::TopicAlias(short),
        0x24 => P::MaximumQos(flag.into()),
        0x25 => P::RetainAvailable(flag),
        0x26 => P::UserProperty(text, chance.pick(TEXTS)),
        0x27 => P::MaximumPacketSize(chance.pick(&[1, 1000, u32::MAX])),
        0x28 => P::WildcardAvailable(flag),
        0x29 => P::SubscriptionIdsAvailable(flag),
        _ => P::SharedAvailable(flag),
    }
}

/// A third of these, in any order but user properties, of which there may be two.
fn properties(chance: &mut Chance, ids: &[u8]) -> Vec<Property<'static>> {
    let mut list: Vec<_> = ids
        .iter()
        .flat_map(|id| if chance.one_in(3) { Some(property(chance, *id)) } else { None })
        .collect();
    for _ in 0..chance.below(3) {
        let at = chance.below(list.len() + 1);
        list.insert(at, property(chance, 0x26));
    }
    list
}

fn connect_packet(chance: &mut Chance, version: Version, out: &mut Vec<u8>) {
    let will = chance.one_in(2).then(|| Will {
        topic: chance.pick(TOPICS).into(),
        payload: chance.pick(PAYLOADS),
        qos: chance.pick(QOS),
        retain: chance.one_in(2),
        properties: Properties::default(),
    });
    let user_name = chance.one_in(2).then(|| chance.pick(TEXTS));
    let password = (chance.one_in(2) && (version == Version::V5 || user_name.is_some()))
        .then(|| chance.pick(PAYLOADS));
    let clean = chance.one_in(2);
    let may_be_empty = version == Version::V5 || (version == Version::V311 && clean);
    let client_id = if may_be_empty && chance.one_in(4) { "" } else { chance.pick(&TEXTS[1..]) };
    let keep_alive = chance.pick(&[0, 60, 0xffff]);
    let packet = Connect {
        version,
        clean,
        keep_alive,
        client_id,
        will,
        user_name,
        password,
        properties: Properties::default(),
    };
    let mut list = properties(chance, &[0x11, 0x17, 0x19, 0x21, 0x22, 0x27]);
    if chance.one_in(4) {
        list.extend([property(chance, 0x15), property(chance, 0x16)]);
    }
    let will_list = properties(chance, &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18]);
    connect(out, &packet, list.into_iter(), will_list.into_iter());
}

fn publish_packet(chance: &mut Chance, version: Version, from: Side, out: &mut Vec<u8>) {
    let qos = chance.pick(QOS);
    let mut list = properties(chance, &[0x01, 0x02, 0x03, 0x08, 0x09]);
    let aliased = version == Version::V5 && chance.one_in(4);
    if aliased {
        list.push(property(chance, 0x23));
    }
    if from == Side::Server {
        list.extend((0..chance.below(3)).map(|_| property(chance, 0x0b)));
    }
    let topic = if aliased && chance.one_in(2) { "" } else { chance.pick(TOPICS) };
    let head = PublishHead {
        dup: qos != Qos::AtMostOnce && chance.one_in(2),
        qos,
        retain: chance.one_in(2),
        topic: topic.as_bytes(),
        packet_id: chance.id(),
    };
    let payload = chance.pick(PAYLOADS);
    publish_head(out, version, &head, list.into_iter(), payload.len());
    out.extend_from_slice(payload);
}

fn subscribe_packet(chance: &mut Chance, version: Version, out: &mut Vec<u8>) {
    let filters: Vec<SubscribeFilter<'_>> = (0..=chance.below(3))
        .map(|_| {
            let filter = chance.pick(FILTERS);
            SubscribeFilter {
                filter: filter.into(),
                qos: chance.pick(QOS),
                no_local: !filter.starts_with("$share") && chance.one_in(2),
                retain_as_published: chance.one_in(2),
                retain_handling: chance.below(3) as u8,
            }
        })
        .collect();
    let list = properties(chance, &[0x0b]);
    subscribe(out, version, chance.id(), filters.into_iter(), list.into_iter());
}

fn connack_packet(chance: &mut Chance, version: Version, out: &mut Vec<u8>) {
    let fails = chance.one_in(2);
    let code = match (fails, version) {
        (false, _) => 0,
        (true, Version::V5) => 0x87,
        (true, _) => 5,
    };
    let present = !fails && version != Version::V31 && chance.one_in(2);
    let ids = [
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x27, 0x28, 0x29,
        0x2a,
    ];
    connack(out, version, present, code, properties(chance, &ids).into_iter());
}

/// A valid packet of this kind (the upper half of its first byte) and who sends it.
pub(super) fn valid(chance: &mut Chance, kind: u8, version: Version) -> (Side, Vec<u8>) {
    let mut out = Vec::new();
    let both = if chance.one_in(2) { Side::Client } else { Side::Server };
    let five = version == Version::V5;
    let from = match kind {
        1 | 8 | 10 | 12 => Side::Client,
        2 | 9 | 11 | 13 => Side::Server,
        14 if !five => Side::Client,
        _ => both,
    };
    let fails = chance.one_in(2);
    let id = chance.id();
    let answer = properties(chance, &[0x1f]).into_iter();
    match kind {
        1 => connect_packet(chance, version, &mut out),
        2 => connack_packet(chance, version, &mut out),
        3 => publish_packet(chance, version, from, &mut out),
        4..=7 => {
            let kinds = [AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp];
            let reason = if kind < 6 { 0x80 } else { 0x92 } * u8::from(fails);
            ack(&mut out, version, kinds[usize::from(kind - 4)], id, reason, answer);
        }
        8 => subscribe_packet(chance, version, &mut out),
        9 => {
            let codes: &[u8] = if five { &[0, 1, 2, 0x80, 0x87] } else { &[0, 1, 2] };
            let codes: Vec<u8> = (0..=chance.below(4)).map(|_| chance.pick(codes)).collect();
            suback(&mut out, version, id, &codes, answer);
        }
        10 => {
            let filters: Vec<Topic<'_>> =
                (0..=chance.below(3)).map(|_| chance.pick(FILTERS).into()).collect();
            unsubscribe(
                &mut out,
                version,
                id,
                filters.into_iter(),
                answer.filter(|property| matches!(property, Property::UserProperty(..))),
            );
        }
        11 => {
            let codes: Vec<u8> =
                (0..=chance.below(4)).map(|_| chance.pick(&[0, 0x11, 0x87])).collect();
            unsuback(&mut out, version, id, &codes, answer);
        }
        12 => pingreq(&mut out),
        13 => pingresp(&mut out),
        14 => {
            let mut list = properties(chance, &[0x1c, 0x1f]);
            if from == Side::Client && chance.one_in(2) {
                list.push(property(chance, 0x11));
            }
            disconnect(&mut out, version, if fails { 0x81 } else { 0 }, list.into_iter());
        }
        _ => {
            let mut list = properties(chance, &[0x16, 0x1f]);
            list.push(property(chance, 0x15));
            auth(&mut out, 0x18, list.into_iter());
        }
    }
    (from, out)
}

const EDGES: &[u8] =
    &[0, 1, 2, 3, 4, 0x0b, 0x11, 0x1f, 0x23, 0x26, 0x7f, 0x80, 0xc2, 0xff, b'+', b'#', b'/', b'$'];

/// Changes one thing in the body of a packet.
fn change(chance: &mut Chance, body: &mut Vec<u8>) {
    let at = chance.below(body.len());
    match chance.below(8) {
        _ if body.is_empty() => body.push(chance.pick(EDGES)),
        0 | 1 => body[at] ^= 1 << chance.below(8),
        2 | 3 => body[at] = chance.pick(EDGES),
        4 => drop(body.drain(at..(at + 1 + chance.below(4)).min(body.len()))),
        5 => body.insert(at, chance.pick(EDGES)),
        6 => body.truncate(at),
        _ => {
            let end = (at + 1 + chance.below(8)).min(body.len());
            let copy = body[at..end].to_vec();
            body.splice(at..at, copy);
        }
    }
}

/// Makes something near it of a packet: up to three changes of its body, sometimes one of its first byte or of how its
/// length is written.
pub(super) fn mutated(chance: &mut Chance, packet: &[u8]) -> Vec<u8> {
    let head = 1 + packet[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    let mut first = packet[0];
    let mut body = packet[head..].to_vec();
    match chance.below(20) {
        0 => first ^= 1 << chance.below(4),
        1 => first ^= 1 << chance.below(8),
        _ => {}
    }
    for _ in 0..chance.below(4) {
        change(chance, &mut body);
    }
    let mut out = vec![first];
    encode::put_varint(&mut out, body.len());
    match chance.below(50) {
        // One byte longer than it need be.
        0 if out.len() < 5 => {
            if let Some(last) = out.last_mut() {
                *last |= 0x80;
            }
            out.push(0);
        }
        // The packet is not all there.
        1 => out[1] = out[1].wrapping_add(1) & 0x7f,
        _ => {}
    }
    out.extend(body);
    out
}

/// What chance comes upon too seldom.
pub(super) const SELDOM: &[(Version, Side, u8, &str)] = &[
    (Version::V31, Side::Client, 0x10, "'MQIsdp' 03 03 003c 'p'"),
    (Version::V31, Side::Client, 0x10, "'MQIsdp' 03 0a 003c 'p'"),
    (Version::V31, Side::Client, 0x10, "'MQIsdp' 03 82 003c 'p'"),
    (Version::V31, Side::Client, 0x10, "'MQIsdp' 03 c2 003c 'p' 'u'"),
    (Version::V31, Side::Client, 0x10, "'MQIsdp' 04 02 003c 'p'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 03 02 003c 'p'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 42 003c 'p' 's'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 03 003c 'p'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 22 003c 'p'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 1e 003c 'p' 't' 'm'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 06 003c 'p' '' 'm'"),
    (Version::V311, Side::Client, 0x10, "'MQTT' 04 00 003c ''"),
    (Version::V5, Side::Client, 0x10, "'MQTT' 05 06 003c 00 'p' 00 '' 'm'"),
    (Version::V5, Side::Client, 0x10, "'MQTT' 05 02 003c 04 16 'd' 'p'"),
    (Version::V31, Side::Server, 0x90, "0001 80"),
    (Version::V311, Side::Server, 0x20, "00 06"),
    (Version::V5, Side::Server, 0x20, "00 00 02 24 02"),
    (Version::V5, Side::Server, 0x20, "00 00 05 27 00000000"),
    (Version::V311, Side::Server, 0xb0, "0000"),
    (Version::V5, Side::Client, 0x32, "'t' 0001"),
    (Version::V5, Side::Client, 0x30, "'t' 02 0b 01"),
    (Version::V5, Side::Client, 0x30, "'t' 04 08 '#'"),
    (Version::V5, Side::Client, 0x30, "'' 00"),
    (Version::V311, Side::Client, 0x30, "''"),
    (Version::V5, Side::Client, 0x82, "0001 00 '$share/g/t' 04"),
    (Version::V5, Side::Server, 0xe0, "8c"),
    (Version::V5, Side::Client, 0xf0, "18 00"),
];
