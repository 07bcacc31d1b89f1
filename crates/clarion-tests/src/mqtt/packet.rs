//! Packets and properties of MQTT 3.1, 3.1.1 and 5, written and read in the plainest way. Invariant: what is read is read
//! whole; a byte too many or too few is a panic of the test.

use super::property::{Property, Value, kind};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 3.1
    V31,
    /// 3.1.1
    V311,
    /// 5
    V5,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V31, Self::V311, Self::V5];

    /// The number in a CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// A PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of the packet")]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    pub properties: Vec<Property>,
}

impl Message {
    /// Of QoS 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        Self { topic: topic.to_owned(), payload: payload.as_ref().to_vec(), ..Self::default() }
    }

    /// With this QoS.
    #[must_use]
    pub fn qos(self, qos: u8) -> Self {
        Self { qos, ..self }
    }

    /// With the retain flag.
    #[must_use]
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    /// With one more property.
    #[must_use]
    pub fn with(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Its topic, payload, QoS and retain flag.
    pub message: Message,
    /// Its own properties.
    pub properties: Vec<Property>,
}

/// A filter and how it is subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The filter.
    pub filter: String,
    /// The byte behind it: QoS, No Local, Retain As Published, Retain Handling.
    pub options: u8,
}

impl Filter {
    /// With this QoS.
    pub fn new(filter: &str, qos: u8) -> Self {
        Self { filter: filter.to_owned(), options: qos }
    }

    /// Not what this client itself publishes.
    #[must_use]
    pub fn no_local(self) -> Self {
        Self { options: self.options | 4, ..self }
    }

    /// With the retain flag as it was published.
    #[must_use]
    pub fn as_published(self) -> Self {
        Self { options: self.options | 8, ..self }
    }

    /// 0: retained messages at each SUBSCRIBE; 1: at a new one; 2: none.
    #[must_use]
    pub fn retain_handling(self, handling: u8) -> Self {
        Self { options: self.options | handling << 4, ..self }
    }
}

/// A packet that a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the packets")]
pub enum Packet {
    Connack {
        present: bool,
        code: u8,
        properties: Vec<Property>,
    },
    Publish(Message),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP: 4 to 7.
    Ack {
        kind: u8,
        id: u16,
        reason: u8,
        properties: Vec<Property>,
    },
    /// SUBACK, UNSUBACK: 9, 11.
    Suback {
        kind: u8,
        id: u16,
        codes: Vec<u8>,
        properties: Vec<Property>,
    },
    Pingresp,
    Disconnect {
        reason: u8,
        properties: Vec<Property>,
    },
    Auth {
        reason: u8,
        properties: Vec<Property>,
    },
}

/// Bytes of hex digits, blanks between them.
pub fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|digit| !digit.is_whitespace())
        .map(|digit| digit.to_digit(16).unwrap_or_else(|| panic!("{hex}")) as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {hex}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let length = u16::try_from(text.len()).expect("a text of at most 65,535 bytes");
    out.extend(length.to_be_bytes());
    out.extend(text);
}

fn put_variable(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = (value % 128) as u8;
        value /= 128;
        out.push(low | if value > 0 { 0x80 } else { 0 });
        if value == 0 {
            return;
        }
    }
}

fn put_properties(out: &mut Vec<u8>, version: Version, properties: &[Property]) {
    if version < Version::V5 {
        assert!(properties.is_empty(), "only 5 has properties");
        return;
    }
    let mut bytes = Vec::new();
    for Property(id, value) in properties {
        bytes.push(*id);
        match value {
            Value::Byte(value) => bytes.push(*value),
            Value::Two(value) => bytes.extend(value.to_be_bytes()),
            Value::Four(value) => bytes.extend(value.to_be_bytes()),
            Value::Variable(value) => put_variable(&mut bytes, *value as usize),
            Value::Text(text) => put_text(&mut bytes, text.as_bytes()),
            Value::Data(data) => put_text(&mut bytes, data),
            Value::Pair(name, value) => {
                put_text(&mut bytes, name.as_bytes());
                put_text(&mut bytes, value.as_bytes());
            }
        }
    }
    put_variable(out, bytes.len());
    out.extend(bytes);
}

/// A packet of its first byte and what stands behind its length.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_variable(&mut out, body.len());
    out.extend(body);
    out
}

/// A CONNECT.
pub fn connect(options: &super::Options) -> Vec<u8> {
    let version = options.version;
    let mut body = Vec::new();
    put_text(&mut body, if version == Version::V31 { b"MQIsdp" } else { b"MQTT" });
    body.push(version.level());
    let mut flags = u8::from(options.clean) << 1;
    if let Some(will) = &options.will {
        flags |= 4 | will.message.qos << 3 | u8::from(will.message.retain) << 5;
    }
    flags |= u8::from(options.password.is_some()) << 6 | u8::from(options.user.is_some()) << 7;
    body.push(flags);
    body.extend(options.keep_alive.to_be_bytes());
    put_properties(&mut body, version, &options.properties);
    put_text(&mut body, options.id.as_bytes());
    if let Some(will) = &options.will {
        put_properties(&mut body, version, &will.properties);
        put_text(&mut body, will.message.topic.as_bytes());
        put_text(&mut body, &will.message.payload);
    }
    if let Some(user) = &options.user {
        put_text(&mut body, user.as_bytes());
    }
    if let Some(password) = &options.password {
        put_text(&mut body, password);
    }
    frame(0x10, &body)
}

/// A PUBLISH.
pub fn publish(version: Version, message: &Message) -> Vec<u8> {
    let mut body = Vec::with_capacity(message.payload.len() + message.topic.len() + 16);
    put_text(&mut body, message.topic.as_bytes());
    if message.qos > 0 {
        body.extend(message.id.to_be_bytes());
    }
    put_properties(&mut body, version, &message.properties);
    body.extend(&message.payload);
    let flags = u8::from(message.dup) << 3 | message.qos << 1 | u8::from(message.retain);
    frame(0x30 | flags, &body)
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (`kind` 4 to 7) in its shortest form.
pub fn ack(version: Version, kind: u8, id: u16, reason: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == Version::V5 && reason != 0 {
        body.push(reason);
    }
    frame(kind << 4 | if kind == 6 { 2 } else { 0 }, &body)
}

/// A SUBSCRIBE.
pub fn subscribe(
    version: Version,
    id: u16,
    filters: &[Filter],
    properties: &[Property],
) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    put_properties(&mut body, version, properties);
    for filter in filters {
        put_text(&mut body, filter.filter.as_bytes());
        body.push(filter.options);
    }
    frame(0x82, &body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    put_properties(&mut body, version, &[]);
    for filter in filters {
        put_text(&mut body, filter.as_bytes());
    }
    frame(0xA2, &body)
}

/// A DISCONNECT.
pub fn disconnect(version: Version, reason: u8, properties: &[Property]) -> Vec<u8> {
    let mut body = Vec::new();
    if version == Version::V5 && (reason != 0 || !properties.is_empty()) {
        body.push(reason);
        put_properties(&mut body, version, properties);
    }
    frame(0xE0, &body)
}

/// What is left of a packet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        assert!(self.0.len() >= count, "a packet is cut short: {:02x?}", self.0);
        let (part, rest) = self.0.split_at(count);
        self.0 = rest;
        part
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().expect("two bytes"))
    }

    fn data(&mut self) -> Vec<u8> {
        let length = self.two().into();
        self.take(length).to_vec()
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.data()).expect("texts are UTF-8")
    }

    fn variable(&mut self) -> u32 {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte();
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                assert!(place == 0 || byte > 0, "a length that is longer than it need be");
                return value;
            }
        }
        panic!("a length of more than four bytes");
    }

    fn properties(&mut self, version: Version) -> Vec<Property> {
        if version < Version::V5 {
            return Vec::new();
        }
        let length = self.variable() as usize;
        let mut rest = Rest(self.take(length));
        let mut found = Vec::new();
        while !rest.0.is_empty() {
            let id = rest.byte();
            let value = match kind(id).unwrap_or_else(|| panic!("property {id} does not exist")) {
                Value::Byte(_) => Value::Byte(rest.byte()),
                Value::Two(_) => Value::Two(rest.two()),
                Value::Four(_) => {
                    Value::Four(u32::from_be_bytes(rest.take(4).try_into().expect("four")))
                }
                Value::Variable(_) => Value::Variable(rest.variable()),
                Value::Text(_) => Value::Text(rest.text()),
                Value::Data(_) => Value::Data(rest.data()),
                Value::Pair(..) => Value::Pair(rest.text(), rest.text()),
            };
            found.push(Property(id, value));
        }
        found
    }

    /// A reason code and properties, either of which may be left out at the end.
    fn reason(&mut self, version: Version) -> (u8, Vec<Property>) {
        let reason = if self.0.is_empty() { 0 } else { self.byte() };
        let properties = if self.0.is_empty() { Vec::new() } else { self.properties(version) };
        (reason, properties)
    }
}

/// Reads a packet of a server: its first byte and what stands behind its length.
pub fn parse(version: Version, first: u8, body: &[u8]) -> Packet {
    let mut rest = Rest(body);
    let flags = first & 0x0F;
    let packet = match first >> 4 {
        3 => return parse_publish(version, flags, rest),
        2 => {
            let present = rest.byte();
            assert!(present < 2, "reserved flags in CONNACK");
            let code = rest.byte();
            // A version that the server does not know is refused as 3.1.1 does.
            let properties = if rest.0.is_empty() { Vec::new() } else { rest.properties(version) };
            Packet::Connack { present: present == 1, code, properties }
        }
        kind @ 4..=7 => {
            let id = rest.two();
            let (reason, properties) =
                if version == Version::V5 { rest.reason(version) } else { (0, Vec::new()) };
            Packet::Ack { kind, id, reason, properties }
        }
        kind @ (9 | 11) => {
            let id = rest.two();
            let properties = rest.properties(version);
            let codes = rest.take(rest.0.len()).to_vec();
            Packet::Suback { kind, id, codes, properties }
        }
        13 => Packet::Pingresp,
        14 => {
            assert_eq!(version, Version::V5, "no server of 3.x sends DISCONNECT");
            let (reason, properties) = rest.reason(version);
            Packet::Disconnect { reason, properties }
        }
        15 => {
            let (reason, properties) = rest.reason(version);
            Packet::Auth { reason, properties }
        }
        other => panic!("no server sends packets of type {other}"),
    };
    assert_eq!(flags, if first >> 4 == 6 { 2 } else { 0 }, "flags of {packet:?}");
    assert!(rest.0.is_empty(), "{:02x?} stands behind {packet:?}", rest.0);
    packet
}

fn parse_publish(version: Version, flags: u8, mut rest: Rest<'_>) -> Packet {
    let qos = flags >> 1 & 3;
    assert!(qos < 3, "QoS 3");
    let topic = rest.text();
    let id = if qos > 0 { rest.two() } else { 0 };
    assert!(qos == 0 || id > 0, "packet id 0");
    let dup = flags & 8 > 0;
    assert!(qos > 0 || !dup, "DUP with QoS 0");
    let properties = rest.properties(version);
    let payload = rest.0.to_vec();
    Packet::Publish(Message { topic, payload, qos, retain: flags & 1 > 0, dup, id, properties })
}
