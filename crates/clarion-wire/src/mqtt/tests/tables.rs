//! The tables of the specification of 5, whole: each property and each reason code in each packet.

use super::super::rules;
use super::*;
use Side::{Client, Server};
use Version::V5;

/// Table 2-4: identifier, a value, packets that have it (0 = the will of a CONNECT).
const PROPERTIES: &[(u8, &str, &[u8])] = &[
    (0x01, "00", &[0, 3]),
    (0x02, "00000001", &[0, 3]),
    (0x03, "'x'", &[0, 3]),
    (0x08, "'x'", &[0, 3]),
    (0x09, "'x'", &[0, 3]),
    (0x0b, "01", &[3, 8]),
    (0x11, "00000001", &[1, 2, 14]),
    (0x12, "'x'", &[2]),
    (0x13, "0001", &[2]),
    (0x15, "'x'", &[1, 2, 15]),
    (0x16, "'x'", &[1, 2, 15]),
    (0x17, "00", &[1]),
    (0x18, "00000001", &[0]),
    (0x19, "00", &[1]),
    (0x1a, "'x'", &[2]),
    (0x1c, "'x'", &[2, 14]),
    (0x1f, "'x'", &[2, 4, 5, 6, 7, 9, 11, 14, 15]),
    (0x21, "0001", &[1, 2]),
    (0x22, "0001", &[1, 2]),
    (0x23, "0001", &[3]),
    (0x24, "00", &[2]),
    (0x25, "00", &[2]),
    (0x26, "'x' 'x'", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15]),
    (0x27, "00000001", &[1, 2]),
    (0x28, "00", &[2]),
    (0x29, "00", &[2]),
    (0x2a, "00", &[2]),
];

/// Packets that have properties: kind, who sends it, first byte, what stands in front of and behind the properties.
const PACKETS: &[(u8, Side, u8, &str, &str)] = &[
    (0, Client, 0x10, "'MQTT' 05 06 000a 00 'p'", "'t' 'm'"),
    (1, Client, 0x10, "'MQTT' 05 02 000a", "'p'"),
    (2, Server, 0x20, "00 00", ""),
    (3, Server, 0x30, "'t'", ""),
    (4, Client, 0x40, "0001 00", ""),
    (5, Client, 0x50, "0001 00", ""),
    (6, Client, 0x62, "0001 00", ""),
    (7, Client, 0x70, "0001 00", ""),
    (8, Client, 0x82, "0001", "'p' 00"),
    (9, Server, 0x90, "0001", "00"),
    (10, Client, 0xa2, "0001", "'p'"),
    (11, Server, 0xb0, "0001", "00"),
    (14, Client, 0xe0, "00", ""),
    (15, Client, 0xf0, "18", ""),
];

/// A packet with these properties, and with those without which they could not stand.
fn with_properties(kind: u8, first: u8, front: &str, list: &str, behind: &str) -> Vec<u8> {
    let list = bytes(list);
    let needs_method = kind == 15 || (kind == 1 && list.first() == Some(&0x16));
    let method = if needs_method && list.first() != Some(&0x15) { bytes("15 'm'") } else { vec![] };
    let mut body = bytes(front);
    body.push((method.len() + list.len()) as u8);
    body.extend(method);
    body.extend(list);
    body.extend(bytes(behind));
    let mut packet = vec![first];
    encode::put_varint(&mut packet, body.len());
    packet.extend(body);
    packet
}

#[test]
fn properties_of_packets() {
    for (kind, from, first, front, behind) in PACKETS {
        for (id, value, packets) in PROPERTIES {
            let list = format!("{id:02x} {value}");
            let bytes = with_properties(*kind, *first, front, &list, behind);
            let got = decode_any(&bytes, V5, *from, &STRICT);
            if packets.contains(kind) {
                let length = bytes.len();
                assert!(
                    matches!(got, Ok(Decoded::Packet { len, .. }) if len == length),
                    "{kind} {list}: {got:?}"
                );
            } else {
                assert_eq!(got, Err(rules::PROPERTY_PLACE.broken(V5)), "{kind} {list}");
            }
            // Only one may stand twice everywhere, and one more in a server's PUBLISH.
            if packets.contains(kind) {
                let twice = format!("{list} {list}");
                let bytes = with_properties(*kind, *first, front, &twice, behind);
                let got = decode_any(&bytes, V5, *from, &STRICT);
                let repeats = *id == 0x26 || (*id == 0x0b && *kind == 3);
                assert_eq!(got.is_ok(), repeats, "{kind} {twice}: {got:?}");
            }
        }
    }
}

#[test]
fn there_are_no_other_properties() {
    let known: Vec<u8> = PROPERTIES.iter().map(|(id, ..)| *id).collect();
    for (kind, from, first, front, behind) in PACKETS {
        for id in (0..=0xff_u8).filter(|id| !known.contains(id)) {
            let bytes =
                with_properties(*kind, *first, front, &format!("{id:02x} 00000001"), behind);
            let got = decode_any(&bytes, V5, *from, &STRICT);
            assert_eq!(got, Err(rules::PROPERTY_UNKNOWN.broken(V5)), "{kind} {id:02x}");
        }
    }
}

/// Table 2-6: code, packets that have it.
const REASONS: &[(u8, &[u8])] = &[
    (0x00, &[2, 4, 5, 6, 7, 9, 11, 14, 15]),
    (0x01, &[9]),
    (0x02, &[9]),
    (0x04, &[14]),
    (0x10, &[4, 5]),
    (0x11, &[11]),
    (0x18, &[15]),
    (0x19, &[15]),
    (0x80, &[2, 4, 5, 9, 11, 14]),
    (0x81, &[2, 14]),
    (0x82, &[2, 14]),
    (0x83, &[2, 4, 5, 9, 11, 14]),
    (0x84, &[2]),
    (0x85, &[2]),
    (0x86, &[2]),
    (0x87, &[2, 4, 5, 9, 11, 14]),
    (0x88, &[2]),
    (0x89, &[2, 14]),
    (0x8a, &[2]),
    (0x8b, &[14]),
    (0x8c, &[2, 14]),
    (0x8d, &[14]),
    (0x8e, &[14]),
    (0x8f, &[9, 11, 14]),
    (0x90, &[2, 4, 5, 14]),
    (0x91, &[4, 5, 9, 11]),
    (0x92, &[6, 7]),
    (0x93, &[14]),
    (0x94, &[14]),
    (0x95, &[2, 14]),
    (0x96, &[14]),
    (0x97, &[2, 4, 5, 9, 14]),
    (0x98, &[14]),
    (0x99, &[2, 4, 5, 14]),
    (0x9a, &[2, 14]),
    (0x9b, &[2, 14]),
    (0x9c, &[2, 14]),
    (0x9d, &[2, 14]),
    (0x9e, &[9, 14]),
    (0x9f, &[2, 14]),
    (0xa0, &[14]),
    (0xa1, &[9, 14]),
    (0xa2, &[9, 14]),
];

#[test]
fn reason_codes_of_packets() {
    for (kind, from, first, front, behind) in [
        (2, Server, 0x20, "00", "00"),
        (4, Client, 0x40, "0001", "00"),
        (5, Client, 0x50, "0001", "00"),
        (6, Client, 0x62, "0001", "00"),
        (7, Client, 0x70, "0001", "00"),
        (9, Server, 0x90, "0001 00", ""),
        (11, Server, 0xb0, "0001 00", ""),
        (14, Client, 0xe0, "", "00"),
        (15, Client, 0xf0, "", "04 15 'm'"),
    ] {
        for code in 0..=0xff_u8 {
            let known = REASONS.iter().any(|(it, packets)| *it == code && packets.contains(&kind));
            let bytes = packet(first, &format!("{front} {code:02x} {behind}"));
            let got = decode(&bytes, V5, from, &STRICT);
            assert_eq!(got.is_ok(), known, "{kind} {code:02x}: {got:?}");
        }
    }
}

#[test]
fn return_codes_of_older_packets() {
    for version in [Version::V31, Version::V311] {
        for code in 0..=0xff_u8 {
            let bytes = packet(0x20, &format!("00 {code:02x}"));
            assert_eq!(decode(&bytes, version, Server, &STRICT).is_ok(), code <= 5, "{code}");
            let bytes = packet(0x90, &format!("0001 {code:02x}"));
            let known = code <= 2 || (code == 0x80 && version == Version::V311);
            assert_eq!(decode(&bytes, version, Server, &STRICT).is_ok(), known, "{code}");
        }
    }
}

/// Flags of first bytes (table 2-2), all of them: 3.1 does not use most.
#[test]
fn flags_of_first_bytes() {
    for (kind, from, flags) in [
        (2, Server, 0),
        (4, Client, 0),
        (5, Client, 0),
        (6, Client, 2),
        (7, Client, 0),
        (8, Client, 2),
        (9, Server, 0),
        (10, Client, 2),
        (11, Server, 0),
        (12, Client, 0),
        (13, Server, 0),
        (14, Client, 0),
        (15, Client, 0),
    ] {
        for (version, used) in
            [(Version::V31, if flags == 2 { 6 } else { 0 }), (Version::V311, 15), (V5, 15)]
        {
            if kind == 15 && version != V5 {
                continue;
            }
            for given in 0..16 {
                let first = [kind << 4 | given];
                let got = decode(&first, version, from, &STRICT);
                let good = given & used == flags & used;
                assert_eq!(got.is_ok(), good, "{version:?} {kind} {given:04b}: {got:?}");
            }
        }
    }
}
