//! Packets and properties as values.

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 3.1 (`MQIsdp`, level 3).
    V31,
    /// 3.1.1 (`MQTT`, level 4).
    V311,
    /// 5 (`MQTT`, level 5).
    V5,
}

/// Who sent a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// A client: what a server decodes.
    Client,
    /// A server: what a client decodes.
    Server,
}

/// What the first bytes of a connection hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The beginning of a packet, perhaps nothing: decode again when more bytes have come.
    More,
    /// A whole packet, and maybe more behind it.
    Packet {
        /// It.
        packet: Packet<'a>,
        /// So many bytes it took.
        len: usize,
    },
}

/// What a decoder accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Largest packet, fixed header included; a larger one is refused as soon as its length is known.
    pub packet_bytes_max: u32,
    /// Topics are taken as any bytes: wildcards, U+0000 and what is no UTF-8 in PUBLISH, filters of any form (for a
    /// dialect whose topics are request URIs).
    pub free_topics: bool,
}

/// A UTF-8 string or, with [`Profile::free_topics`], bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Topic<'a> {
    /// As they came.
    pub bytes: &'a [u8],
    /// The same, when it is UTF-8; always there unless the profile has free topics.
    pub text: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// The text; empty when it is none.
    pub fn as_str(&self) -> &'a str {
        self.text.unwrap_or_default()
    }
}

impl<'a> From<&'a str> for Topic<'a> {
    fn from(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), text: Some(text) }
    }
}

impl std::fmt::Debug for Topic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}

/// Properties as they stand on the wire, checked: known ones, allowed in this packet, none twice that may not be, values in
/// range. Cheap to pass on and to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a> {
    pub(super) raw: &'a [u8],
}

/// A quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum Qos {
    /// At most once.
    #[default]
    AtMostOnce = 0,
    /// At least once.
    AtLeastOnce = 1,
    /// Exactly once.
    ExactlyOnce = 2,
}

impl Qos {
    /// 0, 1 or 2; nothing else is one.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// A client's packet, or (for clients and differential tests) a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// 1
    Connect(Connect<'a>),
    /// 2
    Connack(Connack<'a>),
    /// 3
    Publish(Publish<'a>),
    /// 4
    Puback(Ack<'a>),
    /// 5
    Pubrec(Ack<'a>),
    /// 6
    Pubrel(Ack<'a>),
    /// 7
    Pubcomp(Ack<'a>),
    /// 8
    Subscribe(Subscribe<'a>),
    /// 9
    Suback(Suback<'a>),
    /// 10
    Unsubscribe(Unsubscribe<'a>),
    /// 11
    Unsuback(Suback<'a>),
    /// 12
    Pingreq,
    /// 13
    Pingresp,
    /// 14
    Disconnect(Disconnect<'a>),
    /// 15, 5 only
    Auth(Disconnect<'a>),
}

/// CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Of the protocol.
    pub version: Version,
    /// 3.x: clean session; 5: clean start.
    pub clean: bool,
    /// Seconds; 0 = off.
    pub keep_alive: u16,
    /// May be empty where the version allows it.
    pub client_id: &'a str,
    /// If any.
    pub will: Option<Will<'a>>,
    /// If any.
    pub user_name: Option<&'a str>,
    /// If any.
    pub password: Option<&'a [u8]>,
    /// 5.
    pub properties: Properties<'a>,
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// Valid topic name.
    pub topic: Topic<'a>,
    /// The message.
    pub payload: &'a [u8],
    /// Its QoS.
    pub qos: Qos,
    /// Its retain flag.
    pub retain: bool,
    /// 5.
    pub properties: Properties<'a>,
}

/// CONNACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack<'a> {
    /// A session was there.
    pub session_present: bool,
    /// 3.x: return code (0–5); 5: reason code.
    pub code: u8,
    /// 5.
    pub properties: Properties<'a>,
}

/// PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before.
    pub dup: bool,
    /// Its QoS.
    pub qos: Qos,
    /// Its retain flag.
    pub retain: bool,
    /// Valid topic name; empty (5) when an alias stands for it.
    pub topic: Topic<'a>,
    /// 0 with QoS 0.
    pub packet_id: u16,
    /// 5.
    pub properties: Properties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// 5; 0 when it was left out.
    pub reason: u8,
    /// 5.
    pub properties: Properties<'a>,
}

/// SUBSCRIBE. Its filters, of which there is at least one, are checked when it is decoded; [`Subscribe::filters`] gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// 5.
    pub properties: Properties<'a>,
    pub(super) version: Version,
    pub(super) raw: &'a [u8],
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeFilter<'a> {
    /// Valid, `$share/…/` included.
    pub filter: Topic<'a>,
    /// Asked for.
    pub qos: Qos,
    /// 5.
    pub no_local: bool,
    /// 5.
    pub retain_as_published: bool,
    /// 5: 0, 1 or 2.
    pub retain_handling: u8,
}

/// SUBACK and UNSUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suback<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// 5.
    pub properties: Properties<'a>,
    /// One for each filter; empty in an UNSUBACK of 3.x.
    pub codes: &'a [u8],
}

/// UNSUBSCRIBE. Like [`Subscribe`]; [`Unsubscribe::filters`] gives the filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Never 0.
    pub packet_id: u16,
    /// 5.
    pub properties: Properties<'a>,
    pub(super) raw: &'a [u8],
}

/// DISCONNECT and AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// 5; 0 when it was left out.
    pub reason: u8,
    /// 5.
    pub properties: Properties<'a>,
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// The reason code with which 5 answers (0x81 malformed, 0x82 protocol error, 0x84 unsupported version, 0x90 topic name
    /// invalid, 0x95 packet too large, …).
    pub reason: u8,
    /// What was wrong, for logs and reason strings.
    pub what: &'static str,
    /// The statement of the specification, such as `MQTT-3.1.2-3`.
    pub statement: &'static str,
}
