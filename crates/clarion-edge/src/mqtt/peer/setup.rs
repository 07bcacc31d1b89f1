//! What a CONNECT asks for, as far as a peer has to know it for the life of its connection, and what of it cannot be had.
//!
//! Must not know: who may connect (the edge authenticates before a peer is made).

use super::config::MqttPeerConfig;
use super::properties;
use clarion_core::{Content, Principal};
use clarion_wire::mqtt::{Connect, Property, Version, Will};
use std::sync::Arc;

/// What a CONNECT asks for.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Of the protocol.
    pub version: Version,
    /// Clean session (3.x), clean start (5).
    pub clean: bool,
    /// Seconds; 0 = off.
    pub keep_alive: u16,
    /// QoS 1 and 2 deliveries that the client takes unacked; 65,535 below 5.
    pub receive_maximum: u16,
    /// The largest packet that it takes.
    pub packet_bytes: u32,
    /// Topic aliases that it takes.
    pub topic_aliases: u16,
    /// Whether it wants reasons in words.
    pub problem_information: bool,
    /// Whether it asks where responses go.
    pub response_information: bool,
    /// Seconds that its session is to outlive the connection; below 5: 0 with a clean session, else what is configured.
    pub session_expiry_s: u32,
    /// Its will. `None` too for one that is no message by itself, which [`check_connect`] tells clients of 5.
    pub(super) will: Option<Box<StoredWill>>,
}

/// A will as it waits.
#[derive(Debug, Clone)]
pub(super) struct StoredWill {
    pub(super) topic: Box<str>,
    pub(super) content: Content,
    pub(super) delay_s: u32,
}

/// What the server keeps when the connection ends. What there is already comes with [`Peer::resume`].
///
/// [`Peer::resume`]: clarion_core::port::peer::Peer::resume
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionTerms {
    /// Seconds that it outlives the connection.
    pub expiry_s: u32,
    /// The longest that a client may ask for.
    pub expiry_max_s: u32,
}

/// All that a peer is made of.
#[derive(Debug, Clone)]
pub struct PeerSetup {
    /// What CONNECT asked for.
    pub hello: Hello,
    /// Never empty.
    pub client_id: Arc<str>,
    /// The server chose the client id.
    pub assigned: bool,
    /// Whose session it is; `None` = anonymous.
    pub user: Option<Arc<str>>,
    /// What it may do; knows user and client id.
    pub principal: Principal,
    /// Version of the access rules by which the feed was granted, read before that was asked.
    pub feed_acl_version: u64,
    /// Seconds of silence that were granted; 0 = off.
    pub keep_alive: u16,
    /// What the session is to the server.
    pub session: SessionTerms,
    /// The user's feed comes unasked, with QoS 1, on the first of his topics.
    pub auto_feed: bool,
    /// Of the listener.
    pub config: Arc<MqttPeerConfig>,
}

/// Why a CONNECT cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectRefusal {
    /// What CONNACK says, in the client's version; `None` = there is no CONNACK that can say it, the connection is closed.
    pub code: Option<u8>,
    /// In words.
    pub what: &'static str,
}

impl Hello {
    /// Takes a CONNECT apart.
    pub fn of(connect: &Connect<'_>, config: &MqttPeerConfig) -> Self {
        let five = connect.version == Version::V5;
        let mut hello = Self {
            version: connect.version,
            clean: connect.clean,
            keep_alive: connect.keep_alive,
            receive_maximum: u16::MAX,
            packet_bytes: u32::MAX,
            topic_aliases: 0,
            problem_information: five,
            response_information: false,
            session_expiry_s: if five || connect.clean { 0 } else { config.session_expiry_3x_s },
            will: connect.will.as_ref().and_then(|will| StoredWill::of(will, config)),
        };
        for property in connect.properties.iter() {
            match property {
                Property::ReceiveMaximum(maximum) => hello.receive_maximum = maximum,
                Property::MaximumPacketSize(bytes) => hello.packet_bytes = bytes,
                Property::TopicAliasMaximum(maximum) => hello.topic_aliases = maximum,
                Property::RequestProblemInfo(wanted) => hello.problem_information = wanted,
                Property::RequestResponseInfo(wanted) => hello.response_information = wanted,
                Property::SessionExpiry(seconds) => hello.session_expiry_s = seconds,
                _ => {}
            }
        }
        hello
    }

    /// Deliveries of QoS 1 and 2 that may be out at once.
    pub fn window(&self, config: &MqttPeerConfig) -> u32 {
        self.receive_maximum.min(config.max_inflight).into()
    }
}

impl StoredWill {
    fn of(will: &Will<'_>, config: &MqttPeerConfig) -> Option<Box<Self>> {
        let content = will_content(will, config).ok()?;
        let delay = will.properties.iter().find_map(|property| match property {
            Property::WillDelay(seconds) => Some(seconds),
            _ => None,
        });
        let topic = will.topic.as_str().into();
        Some(Box::new(Self { topic, content, delay_s: delay.unwrap_or_default() }))
    }
}

fn will_content(
    will: &Will<'_>,
    config: &MqttPeerConfig,
) -> Result<Content, clarion_core::Refusal> {
    let mut content = Content::default();
    let Will { properties, payload, qos, retain, .. } = will;
    properties::fill(&mut content, properties, payload, *qos, *retain, config)?;
    Ok(content)
}

/// What CONNACK says that a client has to know, at its longest, with a client id of 23 bytes that the server made up.
fn connack_bytes(connect: &Connect<'_>, config: &MqttPeerConfig) -> u32 {
    let keep_alive = 3;
    let receive_maximum = if config.receive_maximum < u16::MAX { 3 } else { 0 };
    let session_expiry = if Hello::of(connect, config).session_expiry_s > 0 { 5 } else { 0 };
    let client_id = if connect.client_id.is_empty() { 3 + 23 } else { 0 };
    5 + 5 + keep_alive + receive_maximum + session_expiry + client_id
}

/// What in a CONNECT cannot be accepted, whoever sends it: called before it is authenticated.
pub fn check_connect(connect: &Connect<'_>, config: &MqttPeerConfig) -> Result<(), ConnectRefusal> {
    // Older versions cannot be told what is wrong with a will: it is dropped when it would be published, like any of their
    // messages that is refused.
    if connect.version != Version::V5 {
        return Ok(());
    }
    let refused = |code, what| Err(ConnectRefusal { code: Some(code), what });
    for property in connect.properties.iter() {
        match property {
            Property::AuthMethod(_) => {
                return refused(0x8C, "there is no such authentication method");
            }
            // MQTT-3.1.2-24: a packet that is too large is not sent, so there is no way to accept.
            Property::MaximumPacketSize(bytes) if bytes < connack_bytes(connect, config) => {
                let what = "the maximum packet size leaves no room for CONNACK";
                return Err(ConnectRefusal { code: None, what });
            }
            _ => {}
        }
    }
    let Some(will) = &connect.will else { return Ok(()) };
    if config.user_topics.address(will.topic.as_str()).is_err() {
        return refused(0x90, "the will's topic is not one to publish to");
    }
    match will_content(will, config) {
        Ok(_) => Ok(()),
        Err(refusal) => refused(refusal.code.row().mqtt5, refusal.code.row().title),
    }
}
