//! A second, simple reading of what packets consist of, to check differences by.

use super::super::*;

/// Properties as they stand.
pub(super) struct Section<'a> {
    /// Identifiers and values.
    pub(super) list: Vec<(u8, &'a [u8])>,
    /// The number in front of them could have been shorter.
    pub(super) long: bool,
    /// What stands behind them.
    pub(super) behind: &'a [u8],
}

impl Section<'_> {
    pub(super) fn has(&self, wanted: u8) -> bool {
        self.list.iter().any(|(id, _)| *id == wanted)
    }
}

/// All texts of a packet.
pub(super) fn texts<'a>(packet: &Packet<'a>) -> Vec<&'a str> {
    let (mut texts, properties) = match packet {
        Packet::Connect(it) => {
            let mut texts = vec![it.client_id, it.user_name.unwrap_or_default()];
            let mut list = vec![it.properties];
            if let Some(will) = &it.will {
                texts.push(will.topic.as_str());
                list.push(will.properties);
            }
            (texts, list)
        }
        Packet::Publish(it) => (vec![it.topic.as_str()], vec![it.properties]),
        Packet::Subscribe(it) => {
            (it.filters().map(|one| one.filter.as_str()).collect(), vec![it.properties])
        }
        Packet::Unsubscribe(it) => {
            (it.filters().map(|one| one.as_str()).collect(), vec![it.properties])
        }
        Packet::Connack(it) => (vec![], vec![it.properties]),
        Packet::Puback(it) | Packet::Pubrec(it) | Packet::Pubrel(it) | Packet::Pubcomp(it) => {
            (vec![], vec![it.properties])
        }
        Packet::Suback(it) | Packet::Unsuback(it) => (vec![], vec![it.properties]),
        Packet::Disconnect(it) | Packet::Auth(it) => (vec![], vec![it.properties]),
        Packet::Pingreq | Packet::Pingresp => (vec![], vec![]),
    };
    for property in properties.iter().flat_map(Properties::iter) {
        use Property as P;
        match property {
            P::UserProperty(name, value) => texts.extend([name, value]),
            P::ContentType(text)
            | P::ResponseTopic(text)
            | P::AssignedClientId(text)
            | P::AuthMethod(text)
            | P::ResponseInfo(text)
            | P::ServerReference(text)
            | P::ReasonString(text) => texts.push(text),
            _ => {}
        }
    }
    texts
}

pub(super) fn is_malformed(filter: &str) -> bool {
    let filter = match filter.strip_prefix("$share") {
        Some("") => return true,
        Some(rest) if rest.starts_with('/') => {
            let mut parts = rest[1..].splitn(2, '/');
            let group = parts.next().unwrap_or_default();
            if group.is_empty() || group.contains(['+', '#']) {
                return true;
            }
            parts.next().unwrap_or_default()
        }
        _ => filter,
    };
    let last = filter.split('/').count() - 1;
    filter.is_empty()
        || filter.split('/').enumerate().any(|(at, level)| {
            level.len() > 1 && level.contains(['+', '#']) || level == "#" && at != last
        })
}

/// A number and what stands behind it; whether it could have been shorter.
pub(super) fn number(bytes: &[u8]) -> Option<(usize, bool, &[u8])> {
    let len = 1 + bytes.iter().take_while(|byte| **byte >= 0x80).count();
    let value =
        bytes.get(..len)?.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    Some((value, len > 1 && bytes[len - 1] == 0, &bytes[len..]))
}

/// A field with a length of two bytes, and what stands behind it.
pub(super) fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let len = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    bytes[2..].split_at_checked(len)
}

/// Identifiers and values of properties.
fn walk(mut section: &[u8]) -> Vec<(u8, &[u8])> {
    let mut list = Vec::new();
    while let Some((&id, rest)) = section.split_first() {
        let len = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => Some(1),
            0x13 | 0x21..=0x23 => Some(2),
            0x02 | 0x11 | 0x18 | 0x27 => Some(4),
            0x0b => number(rest).map(|(_, _, behind)| rest.len() - behind.len()),
            0x26 => {
                field(rest).and_then(|(_, more)| field(more)).map(|(_, end)| rest.len() - end.len())
            }
            _ => field(rest).map(|(_, end)| rest.len() - end.len()),
        };
        let Some((value, behind)) = len.and_then(|len| rest.split_at_checked(len)) else { break };
        list.push((id, value));
        section = behind;
    }
    list
}

/// The properties of the packet, whether the number in front is too long, and what stands behind them.
pub(super) fn section(at: &[u8]) -> Option<Section<'_>> {
    let (len, long, rest) = number(at)?;
    let (section, behind) = rest.split_at_checked(len)?;
    Some(Section { list: walk(section), long, behind })
}
