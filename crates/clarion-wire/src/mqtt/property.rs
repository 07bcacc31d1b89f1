//! Properties (5 §2.2.2): which there are, which packet has which, their values.
//!
//! Invariants: [`Properties`] are checked when they are made, so walking through them cannot fail. Must not know: packets
//! beyond which properties they have.

use super::encode::{cut, cut_text, put_binary, put_text, put_varint, varint_size};
use super::read::Reader;
use super::{Malformed, Properties, Version, rules};

/// A property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property<'a> {
    /// 0x01; 0 = bytes, 1 = UTF-8.
    PayloadFormat(u8),
    /// 0x02; seconds.
    MessageExpiry(u32),
    /// 0x03
    ContentType(&'a str),
    /// 0x08; a valid topic name.
    ResponseTopic(&'a str),
    /// 0x09
    CorrelationData(&'a [u8]),
    /// 0x0B; never 0, up to 268,435,455.
    SubscriptionId(u32),
    /// 0x11; seconds.
    SessionExpiry(u32),
    /// 0x12
    AssignedClientId(&'a str),
    /// 0x13; seconds.
    ServerKeepAlive(u16),
    /// 0x15
    AuthMethod(&'a str),
    /// 0x16
    AuthData(&'a [u8]),
    /// 0x17
    RequestProblemInfo(bool),
    /// 0x18; seconds.
    WillDelay(u32),
    /// 0x19
    RequestResponseInfo(bool),
    /// 0x1A
    ResponseInfo(&'a str),
    /// 0x1C
    ServerReference(&'a str),
    /// 0x1F
    ReasonString(&'a str),
    /// 0x21; never 0.
    ReceiveMaximum(u16),
    /// 0x22
    TopicAliasMaximum(u16),
    /// 0x23; never 0.
    TopicAlias(u16),
    /// 0x24; 0 or 1.
    MaximumQos(u8),
    /// 0x25
    RetainAvailable(bool),
    /// 0x26; a name and a value.
    UserProperty(&'a str, &'a str),
    /// 0x27; never 0.
    MaximumPacketSize(u32),
    /// 0x28
    WildcardAvailable(bool),
    /// 0x29
    SubscriptionIdsAvailable(bool),
    /// 0x2A
    SharedAvailable(bool),
}

/// Properties by their identifiers, all of which are below 64.
pub(super) type Set = u64;

const fn set(ids: &[u8]) -> Set {
    let mut set = 0;
    let mut at = 0;
    while at < ids.len() {
        set |= 1 << ids[at];
        at += 1;
    }
    set
}

const SUBSCRIPTION_ID: u8 = 0x0b;
const SESSION_EXPIRY: u8 = 0x11;
const AUTH_METHOD: u8 = 0x15;
const AUTH_DATA: u8 = 0x16;
const USER_PROPERTY: u8 = 0x26;

// Which packet has which (5 table 2-4).
pub(super) const OF_CONNECT: Set = set(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
pub(super) const OF_WILL: Set = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
pub(super) const OF_CONNACK: Set = set(&[
    0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29,
    0x2a,
]);
pub(super) const OF_PUBLISH: Set = set(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26]);
pub(super) const OF_ANSWER: Set = set(&[0x1f, 0x26]);
pub(super) const OF_SUBSCRIBE: Set = set(&[0x0b, 0x26]);
pub(super) const OF_UNSUBSCRIBE: Set = set(&[0x26]);
pub(super) const OF_DISCONNECT: Set = set(&[0x11, 0x1c, 0x1f, 0x26]);
pub(super) const OF_AUTH: Set = set(&[0x15, 0x16, 0x1f, 0x26]);

const KNOWN: Set = OF_CONNECT | OF_WILL | OF_CONNACK | OF_PUBLISH | OF_DISCONNECT;

/// Those that may stand more than once, in packets that have them.
const REPEATED: Set = set(&[USER_PROPERTY]);
const REPEATED_IN_PUBLISH: Set = set(&[USER_PROPERTY, SUBSCRIPTION_ID]);

/// Which properties a packet had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Had(Set);

impl Had {
    pub(super) fn auth_method(self) -> bool {
        self.0 & 1 << AUTH_METHOD != 0
    }

    pub(super) fn auth_data(self) -> bool {
        self.0 & 1 << AUTH_DATA != 0
    }

    pub(super) fn subscription_id(self) -> bool {
        self.0 & 1 << SUBSCRIPTION_ID != 0
    }

    pub(super) fn session_expiry(self) -> bool {
        self.0 & 1 << SESSION_EXPIRY != 0
    }

    pub(super) fn topic_alias(self) -> bool {
        self.0 & 1 << 0x23 != 0
    }
}

/// Takes the properties of a packet that has those of `allowed`. None below version 5.
pub(super) fn take<'a>(
    reader: &mut Reader<'a>,
    allowed: Set,
) -> Result<(Properties<'a>, Had), Malformed> {
    if !reader.is_five() {
        return Ok((Properties::default(), Had(0)));
    }
    let length = reader.varint()?;
    if length == 0 {
        return Ok((Properties::default(), Had(0)));
    }
    let Ok(raw) = reader.bytes(length as usize) else {
        return reader.broken(&rules::PROPERTY_LENGTH);
    };
    let mut had = 0;
    let mut inner = reader.within(raw);
    let repeated = if allowed == OF_PUBLISH { REPEATED_IN_PUBLISH } else { REPEATED };
    while !inner.is_empty() {
        let id = inner.u8()?;
        let one = 1_u64.checked_shl(id.into()).unwrap_or(0);
        if KNOWN & one == 0 {
            return inner.broken(&rules::PROPERTY_UNKNOWN);
        }
        if allowed & one == 0 {
            return inner.broken(&rules::PROPERTY_PLACE);
        }
        Property::value(id, &mut inner)?;
        if had & one & !repeated != 0 {
            return inner.broken(&rules::PROPERTY_TWICE);
        }
        had |= one;
    }
    Ok((Properties { raw }, Had(had)))
}

impl<'a> Property<'a> {
    /// Takes the value of the property with this identifier.
    fn value(id: u8, reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match id {
            0x01 => Self::PayloadFormat(boolean(reader)?.into()),
            0x02 => Self::MessageExpiry(reader.u32()?),
            0x03 => Self::ContentType(reader.text()?),
            0x08 => Self::ResponseTopic(response_topic(reader)?),
            0x09 => Self::CorrelationData(reader.binary()?),
            SUBSCRIPTION_ID => match reader.varint()? {
                0 => return reader.broken(&rules::SUBSCRIPTION_ID),
                id => Self::SubscriptionId(id),
            },
            SESSION_EXPIRY => Self::SessionExpiry(reader.u32()?),
            0x12 => Self::AssignedClientId(reader.text()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            AUTH_METHOD => Self::AuthMethod(reader.text()?),
            AUTH_DATA => Self::AuthData(reader.binary()?),
            0x17 => Self::RequestProblemInfo(boolean(reader)?),
            0x18 => Self::WillDelay(reader.u32()?),
            0x19 => Self::RequestResponseInfo(boolean(reader)?),
            0x1a => Self::ResponseInfo(reader.text()?),
            0x1c => Self::ServerReference(reader.text()?),
            0x1f => Self::ReasonString(reader.text()?),
            0x21 => match reader.u16()? {
                0 => return reader.broken(&rules::RECEIVE_MAXIMUM),
                maximum => Self::ReceiveMaximum(maximum),
            },
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => match reader.u16()? {
                0 => return reader.broken(&rules::TOPIC_ALIAS),
                alias => Self::TopicAlias(alias),
            },
            0x24 => Self::MaximumQos(boolean(reader)?.into()),
            0x25 => Self::RetainAvailable(boolean(reader)?),
            USER_PROPERTY => Self::UserProperty(reader.text()?, reader.text()?),
            0x27 => match reader.u32()? {
                0 => return reader.broken(&rules::MAXIMUM_PACKET),
                maximum => Self::MaximumPacketSize(maximum),
            },
            0x28 => Self::WildcardAvailable(boolean(reader)?),
            0x29 => Self::SubscriptionIdsAvailable(boolean(reader)?),
            0x2a => Self::SharedAvailable(boolean(reader)?),
            _ => return reader.broken(&rules::PROPERTY_UNKNOWN),
        })
    }
}

fn boolean(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => reader.broken(&rules::PROPERTY_BOOL),
    }
}

fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    let topic = reader.text()?;
    if !reader.is_free() && clarion_core::topic::check_name(topic).is_err() {
        return reader.broken(&rules::RESPONSE_TOPIC);
    }
    Ok(topic)
}

impl<'a> Properties<'a> {
    /// One after the other, as they stand.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
        let mut reader = Reader::checked(self.raw, Version::V5);
        std::iter::from_fn(move || {
            let id = reader.u8().ok()?;
            Property::value(id, &mut reader).ok()
        })
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }
}

impl Property<'_> {
    /// Appends it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match *self {
            Self::PayloadFormat(value) => byte(out, 0x01, value),
            Self::MessageExpiry(value) => four(out, 0x02, value),
            Self::ContentType(text) => string(out, 0x03, text),
            Self::ResponseTopic(text) => string(out, 0x08, text),
            Self::CorrelationData(bytes) => binary(out, 0x09, bytes),
            Self::SubscriptionId(id) => {
                out.push(SUBSCRIPTION_ID);
                put_varint(out, id as usize);
            }
            Self::SessionExpiry(value) => four(out, SESSION_EXPIRY, value),
            Self::AssignedClientId(text) => string(out, 0x12, text),
            Self::ServerKeepAlive(value) => two(out, 0x13, value),
            Self::AuthMethod(text) => string(out, AUTH_METHOD, text),
            Self::AuthData(bytes) => binary(out, AUTH_DATA, bytes),
            Self::RequestProblemInfo(value) => byte(out, 0x17, value.into()),
            Self::WillDelay(value) => four(out, 0x18, value),
            Self::RequestResponseInfo(value) => byte(out, 0x19, value.into()),
            Self::ResponseInfo(text) => string(out, 0x1a, text),
            Self::ServerReference(text) => string(out, 0x1c, text),
            Self::ReasonString(text) => string(out, 0x1f, text),
            Self::ReceiveMaximum(value) => two(out, 0x21, value),
            Self::TopicAliasMaximum(value) => two(out, 0x22, value),
            Self::TopicAlias(value) => two(out, 0x23, value),
            Self::MaximumQos(value) => byte(out, 0x24, value),
            Self::RetainAvailable(value) => byte(out, 0x25, value.into()),
            Self::UserProperty(name, value) => {
                string(out, USER_PROPERTY, name);
                put_text(out, value);
            }
            Self::MaximumPacketSize(value) => four(out, 0x27, value),
            Self::WildcardAvailable(value) => byte(out, 0x28, value.into()),
            Self::SubscriptionIdsAvailable(value) => byte(out, 0x29, value.into()),
            Self::SharedAvailable(value) => byte(out, 0x2a, value.into()),
        }
    }

    /// So many bytes it has on the wire.
    pub(super) fn size(&self) -> usize {
        1 + match *self {
            Self::PayloadFormat(_)
            | Self::RequestProblemInfo(_)
            | Self::RequestResponseInfo(_)
            | Self::MaximumQos(_)
            | Self::RetainAvailable(_)
            | Self::WildcardAvailable(_)
            | Self::SubscriptionIdsAvailable(_)
            | Self::SharedAvailable(_) => 1,
            Self::ServerKeepAlive(_)
            | Self::ReceiveMaximum(_)
            | Self::TopicAliasMaximum(_)
            | Self::TopicAlias(_) => 2,
            Self::MessageExpiry(_)
            | Self::SessionExpiry(_)
            | Self::WillDelay(_)
            | Self::MaximumPacketSize(_) => 4,
            Self::SubscriptionId(id) => varint_size(id as usize),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientId(text)
            | Self::AuthMethod(text)
            | Self::ResponseInfo(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => 2 + cut_text(text).len(),
            Self::CorrelationData(bytes) | Self::AuthData(bytes) => 2 + cut(bytes).len(),
            Self::UserProperty(name, value) => 4 + cut_text(name).len() + cut_text(value).len(),
        }
    }
}

fn byte(out: &mut Vec<u8>, id: u8, value: u8) {
    out.extend_from_slice(&[id, value]);
}

fn two(out: &mut Vec<u8>, id: u8, value: u16) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

fn four(out: &mut Vec<u8>, id: u8, value: u32) {
    out.push(id);
    out.extend_from_slice(&value.to_be_bytes());
}

fn string(out: &mut Vec<u8>, id: u8, text: &str) {
    out.push(id);
    put_text(out, text);
}

fn binary(out: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    out.push(id);
    put_binary(out, bytes);
}
