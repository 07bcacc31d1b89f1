//! What all tests of the codec share.

mod bad;
mod corpus;
mod differential;
mod good;
mod round_trip;
mod tables;

use super::*;

const STRICT: Profile = Profile { packet_bytes_max: u32::MAX, free_topics: false };
const FREE: Profile = Profile { packet_bytes_max: u32::MAX, free_topics: true };
const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Bytes from hexadecimal digits; spaces do not count, and a text in single quotes stands for its bytes behind a length
/// of two bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, part) in text.split('\'').enumerate() {
        if index % 2 == 1 {
            bytes.extend_from_slice(&(part.len() as u16).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
            continue;
        }
        let digits: Vec<u8> = part.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).unwrap();
            bytes.push(u8::from_str_radix(pair, 16).unwrap());
        }
    }
    bytes
}

/// A packet of this first byte and body.
fn packet(first: u8, body: &str) -> Vec<u8> {
    let body = bytes(body);
    let mut packet = vec![first];
    encode::put_varint(&mut packet, body.len());
    packet.extend(body);
    packet
}

/// Decodes as the connection would: a CONNECT by its own function.
fn decode_any<'a>(
    bytes: &'a [u8],
    version: Version,
    from: Side,
    profile: &Profile,
) -> Result<Decoded<'a>, Malformed> {
    if from == Side::Client && bytes.first().is_some_and(|first| first >> 4 == 1) {
        decode_connect(bytes, profile)
    } else {
        decode(bytes, version, from, profile)
    }
}

/// The one packet that these bytes are.
fn whole<'a>(bytes: &'a [u8], version: Version, from: Side, profile: &Profile) -> Packet<'a> {
    match decode_any(bytes, version, from, profile) {
        Ok(Decoded::Packet { packet, len }) => {
            assert_eq!(len, bytes.len(), "{}", hex(bytes));
            packet
        }
        other => panic!("{}: {other:?}", hex(bytes)),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
