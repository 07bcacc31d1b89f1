//! CONNECT: the one packet whose version is not known before.

use super::super::property;
use super::super::read::{Reader, Varint, varint};
use super::super::rules;
use super::super::{Connect, Decoded, Malformed, Packet, Profile, Properties, Qos, Version, Will};
use super::CONNECT;

/// How a CONNECT of 3.1 begins behind its header, which is the only one whose flags are not used.
const BEGINNING_31: &[u8] = b"\0\x06MQIsdp\x03";

const RESERVED: u8 = 0b0000_0001;
const CLEAN: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

/// Decodes the first packet of a client: CONNECT of any version and nothing else.
pub fn decode_connect<'a>(bytes: &'a [u8], profile: &Profile) -> Result<Decoded<'a>, Malformed> {
    // Until the version is known, statements are those of 5.
    const ANY: Version = Version::V5;
    let Some((&first, behind)) = bytes.split_first() else {
        return Ok(Decoded::More);
    };
    if first >> 4 != CONNECT {
        return Err(rules::NOT_CONNECT.broken(ANY));
    }
    let (remaining, length_bytes, shortest) = match varint(behind) {
        Varint::More => return Ok(Decoded::More),
        Varint::TooLong => return Err(rules::LENGTH.broken(ANY)),
        Varint::Number { value, bytes, shortest } => (value, bytes, shortest),
    };
    let head = 1 + length_bytes;
    if head as u32 + remaining > profile.packet_bytes_max {
        return Err(rules::TOO_LARGE.broken(ANY));
    }
    let len = head + remaining as usize;
    // With any flag it is one of 3.1 or none.
    let there = bytes.get(head..len.min(bytes.len())).unwrap_or_default();
    if first & 0b1111 != 0 && !there.iter().zip(BEGINNING_31).all(|(is, should)| is == should) {
        return Err(rules::FLAGS.broken(ANY));
    }
    let Some(body) = bytes.get(head..len) else {
        return Ok(Decoded::More);
    };
    let version = protocol(&mut Reader::new(body, ANY, profile))?;
    if version == Version::V5 && !shortest {
        return Err(rules::LENGTH_LONG.broken(version));
    }
    let mut reader = Reader::new(body, version, profile);
    protocol(&mut reader)?;
    let packet = Packet::Connect(connect(&mut reader)?);
    reader.end()?;
    Ok(Decoded::Packet { packet, len })
}

/// In the form of which version a CONNECT is answered that [`decode_connect`] refused: its own; 3.1.1 when its level is not
/// known; none, and it is closed without an answer, when it is not for an MQTT server or does not get that far.
pub fn connect_version(bytes: &[u8]) -> Option<Version> {
    let (&first, behind) = bytes.split_first()?;
    let Varint::Number { bytes: length_bytes, .. } = varint(behind) else {
        return None;
    };
    if first >> 4 != CONNECT {
        return None;
    }
    let mut reader = Reader::checked(behind.get(length_bytes..)?, Version::V5);
    match protocol(&mut reader) {
        Ok(version) => Some(version),
        Err(refusal) if refusal == rules::PROTOCOL_LEVEL.broken(Version::V5) => Some(Version::V311),
        Err(_) => None,
    }
}

/// Takes the name and the level of the protocol.
fn protocol(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let name = reader.binary()?;
    match (name, reader.u8()?) {
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT" | b"MQIsdp", _) => reader.broken(&rules::PROTOCOL_LEVEL),
        _ => reader.broken(&rules::PROTOCOL_NAME),
    }
}

fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, Malformed> {
    let version = reader.version();
    let flags = reader.u8()?;
    check_flags(flags, reader)?;
    let clean = flags & CLEAN != 0;
    let keep_alive = reader.u16()?;
    let (properties, had) = property::take(reader, property::OF_CONNECT)?;
    if had.auth_data() && !had.auth_method() {
        return reader.broken(&rules::AUTH_DATA_ALONE);
    }
    let client_id = reader.text()?;
    let will = if flags & WILL == 0 { None } else { Some(will(flags, reader)?) };
    // 3.1 lets them be missing though their flags are set, when the packet ends there.
    let ends = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
    let has_name = flags & USER_NAME != 0 && !ends(reader);
    let user_name = if has_name { Some(reader.text()?) } else { None };
    let has_password = flags & PASSWORD != 0 && !ends(reader);
    let password = if has_password { Some(reader.binary()?) } else { None };
    let needs_id = version == Version::V31 || (version == Version::V311 && !clean);
    if client_id.is_empty() && needs_id {
        return reader.broken(&rules::CLIENT_ID_EMPTY);
    }
    Ok(Connect { version, clean, keep_alive, client_id, will, user_name, password, properties })
}

/// 3.1 has no rules for flags whose feature is not used.
fn check_flags(flags: u8, reader: &Reader<'_>) -> Result<(), Malformed> {
    let version = reader.version();
    let will = flags & WILL != 0;
    let will_qos = flags >> 3 & 3;
    if version != Version::V31 {
        if flags & RESERVED != 0 {
            return reader.broken(&rules::CONNECT_RESERVED);
        }
        if !will && will_qos != 0 {
            return reader.broken(&rules::WILL_QOS_UNSET);
        }
        if !will && flags & WILL_RETAIN != 0 {
            return reader.broken(&rules::WILL_RETAIN_UNSET);
        }
    }
    if will && will_qos == 3 {
        return reader.broken(&rules::WILL_QOS);
    }
    if version != Version::V5 && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return reader.broken(&rules::PASSWORD_ALONE);
    }
    Ok(())
}

fn will<'a>(flags: u8, reader: &mut Reader<'a>) -> Result<Will<'a>, Malformed> {
    let (properties, _): (Properties<'a>, _) = property::take(reader, property::OF_WILL)?;
    let topic = reader.topic()?;
    let payload = reader.binary()?;
    let qos = Qos::from_bits(flags >> 3 & 3).unwrap_or_default();
    Ok(Will { topic, payload, qos, retain: flags & WILL_RETAIN != 0, properties })
}
