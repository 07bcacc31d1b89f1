//! In what the others may differ, each with the section that is on our side.
//!
//! Whether a difference is allowed is seen by the bytes and by what the other made of them, not by what this codec says of
//! them.

use super::super::*;
use super::naive::{Section, field, is_malformed, number, section, texts};
use super::oracles::Verdict;
use super::{By, Case};

/// A difference that is allowed.
pub(super) struct Difference {
    pub(super) name: &'static str,
    pub(super) section: &'static str,
    pub(super) by: By,
    pub(super) applies: fn(&Case<'_>) -> bool,
}

const fn allow(
    by: By,
    name: &'static str,
    section: &'static str,
    applies: fn(&Case<'_>) -> bool,
) -> Difference {
    Difference { name, section, by, applies }
}

use By::{Both, Core, Rmqtt};

/// All of them. Sections are those of 5 unless they say otherwise.
pub(super) const ALLOWED: &[Difference] = &[
    // They take what must be refused.
    allow(Core, "reserved flags of the first byte", "2.1.3; 3.1.1 2.2.2", reserved_flags),
    allow(Both, "a packet from the wrong side", "2.1.2", wrong_side),
    allow(Both, "characters in strings", "1.5.4; 3.1.1 1.5.3", characters),
    allow(Both, "wildcards in topics", "3.3.2.1", wildcards),
    allow(Both, "wildcards in response topics", "3.3.2.3.5", response_wildcards),
    allow(Both, "malformed filters", "4.7.1, 4.7.3, 4.8.2", malformed_filters),
    allow(Both, "DUP with QoS 0", "3.3.1.1", dup_with_qos_0),
    allow(Both, "numbers longer than need be", "1.5.5", long_numbers),
    allow(Rmqtt, "a body of packets without one", "3.12, 3.13; 3.1.1 3.14", body_of_none),
    allow(Rmqtt, "bytes behind the last field", "3.1.3; 3.1.1 3.2", trailing),
    allow(Core, "answers of more than two bytes", "3.1.1 3.4.1", long_answers),
    allow(Both, "a session is present though refused", "3.2.2.1.1", session_though_refused),
    allow(Core, "reserved CONNACK flags", "3.2.2.1", connack_flags),
    allow(Core, "the reserved connect flag", "3.1.2.3", connect_flag),
    allow(Both, "flags of no will and will QoS 3", "3.1.2.6, 3.1.2.7", will_flags),
    allow(Both, "No Local with $share", "3.8.3.1", shared_no_local),
    allow(Rmqtt, "answers without codes", "3.9.3, 3.11.3", no_codes),
    allow(Rmqtt, "a SUBACK of 3.1 that refuses", "3.1 3.9", refusing_suback),
    allow(Both, "reserved bits of subscription options", "3.1.1 3.8.3", options),
    allow(Core, "an empty topic", "3.1.1 4.7.3", empty_topic),
    allow(Both, "neither topic nor alias", "3.3.2.1", neither_topic_nor_alias),
    allow(Core, "packet id 0", "2.2.1", id_0),
    allow(Both, "AUTH of one byte", "3.15.2.1", short_auth),
    allow(Rmqtt, "a name with the level of another", "3.1.2.2", mixed_name_and_level),
    allow(Rmqtt, "a password without user name", "3.1.1 3.1.2.9", password_alone_311),
    allow(Rmqtt, "return code 6", "3.1.1 3.2.2.3", return_code_6),
    allow(Rmqtt, "maximum QoS 2", "3.2.2.3.4", maximum_qos_2),
    allow(Rmqtt, "maximum packet size 0", "3.2.2.3.6", maximum_packet_0),
    allow(Both, "an empty will topic", "4.7.3", empty_will_topic),
    allow(Core, "an empty client id without clean session", "3.1.1 3.1.3.1", empty_id_311),
    allow(Both, "a client's subscription identifier", "3.3.4", subscription_id),
    allow(Both, "authentication data alone", "3.1.2.11.10", auth_data_alone),
    allow(Both, "AUTH without a method", "3.15.2.2.2", auth_without_method),
    allow(Core, "PUBLISH without properties' length", "2.2.2.1", no_property_length),
    // They refuse what may be.
    allow(Rmqtt, "flags that 3.1 does not use", "3.1 2.1", unused_flags),
    allow(Rmqtt, "connect flags that 3.1 does not use", "3.1 3.1", unused_connect_flags),
    allow(Rmqtt, "names that 3.1 lets be missing", "3.1 3.1", missing_names),
    allow(Rmqtt, "a CONNACK byte that 3.1 does not use", "3.1 3.2", unused_connack),
    allow(Rmqtt, "an empty client id without clean start", "3.1.3.1", empty_client_id),
    allow(Rmqtt, "a message expiry of 0", "3.3.2.3.3", expiry_0),
    allow(Core, "a password without user name", "3.1.2.9", password_alone),
    allow(Core, "DISCONNECT with 0x8C", "2.4, table 2-6", disconnect_8c),
    // They say it otherwise.
    allow(Rmqtt, "properties with default values", "3.1.2.11, 3.2.2.3, 3.3.2.3", defaults),
    allow(Rmqtt, "AUTH of no bytes", "3.15.2.1", empty_auth),
    // They wait for what will not help.
    allow(Rmqtt, "headers that cannot be right", "4.13.1; 3.1.1 4.8", bad_headers),
];

fn only_they_take(case: &Case<'_>) -> bool {
    case.ours.is_err() && matches!(case.theirs, Verdict::Taken(_))
}

fn only_we_take(case: &Case<'_>) -> bool {
    matches!(case.ours, Ok(Decoded::Packet { .. })) && matches!(case.theirs, Verdict::Refused(_))
}

fn five(case: &Case<'_>) -> bool {
    case.version == Version::V5
}

fn expected_flags(kind: u8) -> u8 {
    if matches!(kind, 6 | 8 | 10) { 2 } else { 0 }
}

fn has_odd_flags(case: &Case<'_>) -> bool {
    case.kind() != 3 && case.bytes[0] & 15 != expected_flags(case.kind())
}

fn reserved_flags(case: &Case<'_>) -> bool {
    only_they_take(case) && has_odd_flags(case)
}

fn wrong_side(case: &Case<'_>) -> bool {
    let of_clients = [1, 8, 10, 12].contains(&case.kind());
    let of_servers = [2, 9, 11, 13].contains(&case.kind());
    let of_server_in_5 = case.kind() == 14 && !five(case);
    only_they_take(case)
        && match case.from {
            Side::Client => of_servers,
            Side::Server => of_clients || of_server_in_5,
        }
}

fn characters(case: &Case<'_>) -> bool {
    let refused = |c: char| {
        let code = u32::from(c);
        c.is_control() || (0xfdd0..0xfdf0).contains(&code) || code % 0x1_0000 >= 0xfffe
    };
    let found = |packet: &Packet<'_>| texts(packet).iter().any(|text| text.contains(refused));
    only_they_take(case) && case.reading().as_ref().is_some_and(found)
}

fn wildcards(case: &Case<'_>) -> bool {
    let topic = match case.reading() {
        Some(Packet::Publish(it)) => it.topic,
        Some(Packet::Connect(it)) => it.will.map(|will| will.topic).unwrap_or_default(),
        _ => return false,
    };
    only_they_take(case) && topic.bytes.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

fn response_wildcards(case: &Case<'_>) -> bool {
    let properties = match case.reading() {
        Some(Packet::Publish(it)) => it.properties,
        Some(Packet::Connect(it)) => it.will.map(|will| will.properties).unwrap_or_default(),
        _ => return false,
    };
    only_they_take(case)
        && properties.iter().any(|property| match property {
            Property::ResponseTopic(topic) => topic.is_empty() || topic.contains(['+', '#']),
            _ => false,
        })
}

fn malformed_filters(case: &Case<'_>) -> bool {
    let filters: Vec<Topic<'_>> = match case.reading() {
        Some(Packet::Subscribe(it)) => it.filters().map(|one| one.filter).collect(),
        Some(Packet::Unsubscribe(it)) => it.filters().collect(),
        _ => return false,
    };
    only_they_take(case) && filters.iter().any(|filter| is_malformed(filter.as_str()))
}

fn dup_with_qos_0(case: &Case<'_>) -> bool {
    only_they_take(case) && case.bytes[0] & 0b1111_1110 == 0x38
}

/// Where the properties of the packet begin.
fn at_properties<'a>(case: &Case<'a>) -> Option<&'a [u8]> {
    let body = case.body?;
    match case.kind() {
        1 => body.get(10..),
        3 => {
            let (_, rest) = field(body)?;
            rest.get(if case.bytes[0] & 6 == 0 { 0 } else { 2 }..)
        }
        4..=7 => body.get(3..),
        2 | 8..=11 => body.get(2..),
        _ => body.get(1..),
    }
}

/// The properties of the packet.
fn properties<'a>(case: &Case<'a>) -> Option<Section<'a>> {
    if five(case) { section(at_properties(case)?) } else { None }
}

fn long_numbers(case: &Case<'_>) -> bool {
    let long_in = |at: &[u8]| {
        section(at).is_some_and(|Section { list, long, .. }| {
            long || list
                .iter()
                .any(|(id, value)| *id == 0x0b && value.len() > 1 && value.ends_with(&[0]))
        })
    };
    let of_will = || {
        let Section { behind, .. } = properties(case)?;
        let (_, behind) = field(behind)?;
        Some(case.kind() == 1 && case.body?[7] & 4 != 0 && long_in(behind))
    };
    five(case)
        && only_they_take(case)
        && (number(&case.bytes[1..]).is_some_and(|(_, long, _)| long)
            || at_properties(case).is_some_and(long_in)
            || of_will().unwrap_or(false))
}

fn body_of_none(case: &Case<'_>) -> bool {
    let has_none = matches!(case.kind(), 12 | 13) || case.kind() == 14 && !five(case);
    only_they_take(case) && has_none && case.body.is_some_and(|body| !body.is_empty())
}

/// Without some bytes of its end, we agree.
fn trailing(case: &Case<'_>) -> bool {
    let Some(body) = case.body else { return false };
    let agreed = |len: usize| {
        let mut shorter = vec![case.bytes[0]];
        encode::put_varint(&mut shorter, len);
        shorter.extend_from_slice(&body[..len]);
        case.agrees_on(&shorter)
    };
    only_they_take(case) && (0..body.len()).rev().any(agreed)
}

fn long_answers(case: &Case<'_>) -> bool {
    only_they_take(case)
        && !five(case)
        && matches!(case.kind(), 4..=7)
        && case.body.is_some_and(|body| body.len() > 2)
}

fn session_though_refused(case: &Case<'_>) -> bool {
    let refused = |body: &[u8]| body[0] & 1 == 1 && body[1] != 0;
    only_they_take(case) && case.kind() == 2 && case.body.is_some_and(refused)
}

fn connack_flags(case: &Case<'_>) -> bool {
    only_they_take(case) && case.kind() == 2 && case.body.is_some_and(|body| body[0] > 1)
}

fn connect_flag(case: &Case<'_>) -> bool {
    only_they_take(case) && case.kind() == 1 && case.body.is_some_and(|body| body[7] & 1 == 1)
}

fn will_flags(case: &Case<'_>) -> bool {
    let odd = |body: &[u8]| {
        let flags = body[7];
        flags & 0b0000_0100 == 0 && flags & 0b0011_1000 != 0 || flags & 0b0001_1000 == 0b0001_1000
    };
    only_they_take(case) && case.kind() == 1 && case.body.is_some_and(odd)
}

fn shared_no_local(case: &Case<'_>) -> bool {
    let Some(Packet::Subscribe(subscribe)) = case.reading() else { return false };
    let odd = |it: SubscribeFilter<'_>| it.no_local && it.filter.as_str().starts_with("$share/");
    only_they_take(case) && subscribe.filters().any(odd)
}

fn no_codes(case: &Case<'_>) -> bool {
    let nothing_behind = || match five(case) {
        true => properties(case).map(|section| section.behind.is_empty()),
        false => case.body.map(|body| body.len() == 2),
    };
    only_they_take(case) && matches!(case.kind(), 9 | 11) && nothing_behind().unwrap_or(false)
}

fn refusing_suback(case: &Case<'_>) -> bool {
    let refuses = |body: &[u8]| body[2..].contains(&0x80);
    only_they_take(case)
        && case.version == Version::V31
        && case.kind() == 9
        && case.body.is_some_and(refuses)
}

fn options(case: &Case<'_>) -> bool {
    let mut rest = case.body.and_then(|body| body.get(2..)).unwrap_or_default();
    let mut found = false;
    while let Some((_, behind)) = field(rest)
        && let Some((options, behind)) = behind.split_first()
    {
        found |= options & 0xfc != 0;
        rest = behind;
    }
    only_they_take(case) && case.version == Version::V311 && case.kind() == 8 && found
}

fn begins_with_no_topic(case: &Case<'_>) -> bool {
    only_they_take(case)
        && case.kind() == 3
        && case.body.is_some_and(|body| body.starts_with(&[0, 0]))
}

fn empty_topic(case: &Case<'_>) -> bool {
    !five(case) && begins_with_no_topic(case)
}

fn neither_topic_nor_alias(case: &Case<'_>) -> bool {
    five(case) && begins_with_no_topic(case) && properties(case).is_some_and(|it| !it.has(0x23))
}

fn id_0(case: &Case<'_>) -> bool {
    let at = match case.kind() {
        3 if case.bytes[0] & 6 != 0 => case.body.and_then(field).map(|(_, rest)| rest),
        4..=11 => case.body,
        _ => None,
    };
    only_they_take(case) && at.is_some_and(|at| at.starts_with(&[0, 0]))
}

fn short_auth(case: &Case<'_>) -> bool {
    only_they_take(case) && case.kind() == 15 && case.body.is_some_and(|body| body.len() == 1)
}

fn auth_without_method(case: &Case<'_>) -> bool {
    only_they_take(case) && case.kind() == 15 && properties(case).is_some_and(|it| !it.has(0x15))
}

fn mixed_name_and_level(case: &Case<'_>) -> bool {
    let mixed =
        |body: &[u8]| body.starts_with(b"\0\x04MQTT\x03") || body.starts_with(b"\0\x06MQIsdp\x04");
    only_they_take(case) && case.kind() == 1 && case.body.is_some_and(mixed)
}

fn password_alone_311(case: &Case<'_>) -> bool {
    let alone = |body: &[u8]| body[7] & 0b1100_0000 == 0b0100_0000;
    only_they_take(case)
        && case.version == Version::V311
        && case.kind() == 1
        && case.body.is_some_and(alone)
}

fn return_code_6(case: &Case<'_>) -> bool {
    only_they_take(case)
        && !five(case)
        && case.kind() == 2
        && case.body.is_some_and(|body| body[1] == 6)
}

fn connack_has(case: &Case<'_>, wanted: (u8, &[u8])) -> bool {
    case.kind() == 2 && properties(case).is_some_and(|it| it.list.contains(&wanted))
}

fn maximum_qos_2(case: &Case<'_>) -> bool {
    only_they_take(case) && connack_has(case, (0x24, &[2]))
}

fn maximum_packet_0(case: &Case<'_>) -> bool {
    only_they_take(case) && connack_has(case, (0x27, &[0; 4]))
}

fn disconnect_8c(case: &Case<'_>) -> bool {
    only_we_take(case) && case.kind() == 14 && case.body.is_some_and(|body| body[0] == 0x8c)
}

fn empty_will_topic(case: &Case<'_>) -> bool {
    let empty = || {
        let body = case.body?;
        let (_, rest) = field(if five(case) { properties(case)?.behind } else { &body[10..] })?;
        let at_topic = if five(case) { section(rest)?.behind } else { rest };
        Some(body[7] & 4 != 0 && at_topic.starts_with(&[0, 0]))
    };
    only_they_take(case) && case.kind() == 1 && empty().unwrap_or(false)
}

fn empty_id_311(case: &Case<'_>) -> bool {
    let empty = |body: &[u8]| body[7] & 2 == 0 && body[10..].starts_with(&[0, 0]);
    only_they_take(case)
        && case.version == Version::V311
        && case.kind() == 1
        && case.body.is_some_and(empty)
}

fn has_property(case: &Case<'_>, id: u8) -> bool {
    properties(case).is_some_and(|it| it.has(id))
}

fn subscription_id(case: &Case<'_>) -> bool {
    only_they_take(case)
        && case.kind() == 3
        && case.from == Side::Client
        && has_property(case, 0x0b)
}

fn auth_data_alone(case: &Case<'_>) -> bool {
    only_they_take(case)
        && case.kind() == 1
        && has_property(case, 0x16)
        && !has_property(case, 0x15)
}

fn no_property_length(case: &Case<'_>) -> bool {
    only_they_take(case)
        && five(case)
        && case.kind() == 3
        && at_properties(case).is_some_and(<[u8]>::is_empty)
}

fn unused_flags(case: &Case<'_>) -> bool {
    only_we_take(case) && case.version == Version::V31 && has_odd_flags(case)
}

fn unused_connect_flags(case: &Case<'_>) -> bool {
    let odd = |body: &[u8]| {
        let flags = body[9];
        flags & 1 == 1 || flags & 0b0000_0100 == 0 && flags & 0b0011_1000 != 0
    };
    only_we_take(case) && case.is_connect_31() && case.body.is_some_and(odd)
}

fn missing_names(case: &Case<'_>) -> bool {
    let missing = match &case.ours {
        Ok(Decoded::Packet { packet: Packet::Connect(it), .. }) => {
            let flags = case.body.map_or(0, |body| body[9]);
            flags & 0x80 != 0 && it.user_name.is_none()
                || flags & 0x40 != 0 && it.password.is_none()
        }
        _ => false,
    };
    only_we_take(case) && case.is_connect_31() && missing
}

fn unused_connack(case: &Case<'_>) -> bool {
    only_we_take(case)
        && case.version == Version::V31
        && case.kind() == 2
        && case.body.is_some_and(|body| body[0] > 1)
}

fn empty_client_id(case: &Case<'_>) -> bool {
    let empty = || {
        let Section { behind, .. } = properties(case)?;
        Some(behind.starts_with(&[0, 0]) && case.body?[7] & 2 == 0)
    };
    only_we_take(case) && five(case) && case.kind() == 1 && empty().unwrap_or(false)
}

fn expiry_0(case: &Case<'_>) -> bool {
    let has = |list: &[(u8, &[u8])]| list.iter().any(|(id, value)| *id == 2 && *value == [0; 4]);
    let found = || {
        let Section { list, behind, .. } = properties(case)?;
        if case.kind() == 3 {
            return Some(has(&list));
        }
        let (_, behind) = field(behind)?;
        let Section { list, .. } = section(behind)?;
        Some(case.kind() == 1 && case.body?[7] & 4 != 0 && has(&list))
    };
    only_we_take(case) && five(case) && found().unwrap_or(false)
}

fn password_alone(case: &Case<'_>) -> bool {
    let alone = |body: &[u8]| body[7] & 0b1100_0000 == 0b0100_0000;
    only_we_take(case) && five(case) && case.kind() == 1 && case.body.is_some_and(alone)
}

fn defaults(case: &Case<'_>) -> bool {
    matches!(case.ours, Ok(Decoded::Packet { .. })) && five(case) && case.agrees_on(case.bytes)
}

fn empty_auth(case: &Case<'_>) -> bool {
    matches!(case.theirs, Verdict::Taken(_)) && case.kind() == 15 && case.body == Some(&[])
}

fn bad_headers(case: &Case<'_>) -> bool {
    case.ours.is_err() && case.theirs == Verdict::More && case.body.is_none()
}
