//! A peer without its shard: bytes in, asks and bytes out. Below: one module for each side of it.

use super::*;
use clarion_core::acl::{Acl, AclCell, Pattern, Rule};
use clarion_core::port::outlet::Outlet;
use clarion_core::{Address, Code, Content, Message, MessageId, Sender, Verb};
use clarion_wire::mqtt::{AckKind, Connect, Profile, Publish, PublishHead, Qos, Topic};

mod delivery;
mod ends;
mod feed;
mod greeting;
mod publish;
mod random;
mod subscribe;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const NOW: Millis = 1_000_000;

fn config() -> MqttPeerConfig {
    MqttPeerConfig {
        profile: Profile { packet_bytes_max: 4096, free_topics: false },
        payload_bytes: 1000,
        headers_count: 3,
        headers_bytes: 64,
        user_topics: UserTopics::parse(["user/{user}", "u-{user}"]).unwrap(),
        receive_maximum: 5,
        max_inflight: 8,
        topic_aliases: 2,
        topic_alias_bytes: 32,
        topic_aliases_out: 4,
        subscriptions: 4,
        session_expiry_3x_s: u32::MAX,
        topic_levels: 5,
        subscribe_denied_code: 0x87,
        server_reference: None,
        server_moved: false,
        response_information: None,
        counters: PeerCounters::default(),
    }
}

/// What a CONNECT of a test says.
#[derive(Clone)]
struct Say {
    version: Version,
    clean: bool,
    properties: Vec<Property<'static>>,
    will: Option<(&'static str, &'static [u8], Qos, bool)>,
    will_properties: Vec<Property<'static>>,
}

impl Say {
    /// Reasons are not told in words, so that answers are short.
    fn new(version: Version) -> Self {
        let properties = vec![Property::RequestProblemInfo(false)];
        Self { version, clean: true, properties, will: None, will_properties: Vec::new() }
    }

    fn with(mut self, properties: impl IntoIterator<Item = Property<'static>>) -> Self {
        self.properties.extend(properties);
        self
    }

    fn decoded<T>(&self, what: impl FnOnce(&Connect<'_>) -> T) -> T {
        let will = self.will.map(|(topic, payload, qos, retain)| mqtt::Will {
            topic: Topic::from(topic),
            payload,
            qos,
            retain,
            properties: mqtt::Properties::default(),
        });
        let connect = Connect {
            version: self.version,
            clean: self.clean,
            keep_alive: 60,
            client_id: "client",
            will,
            user_name: None,
            password: None,
            properties: mqtt::Properties::default(),
        };
        let mut bytes = Vec::new();
        let properties = self.properties.iter().copied();
        mqtt::connect(&mut bytes, &connect, properties, self.will_properties.iter().copied());
        let decoded = mqtt::decode_connect(&bytes, &config().profile).unwrap();
        let Decoded::Packet { packet: Packet::Connect(connect), .. } = decoded else {
            panic!("{decoded:?}")
        };
        what(&connect)
    }

    /// Bob's session, who may do everything for himself.
    fn setup(&self, config: MqttPeerConfig) -> PeerSetup {
        let hello = self.decoded(|connect| Hello::of(connect, &config));
        let expiry_s = hello.session_expiry_s;
        PeerSetup {
            hello,
            client_id: "client".into(),
            assigned: false,
            user: Some("bob".into()),
            principal: Principal::user_of("bob", &[Verb::Publish, Verb::Subscribe]),
            feed_acl_version: 0,
            keep_alive: 60,
            session: SessionTerms { expiry_s, expiry_max_s: u32::MAX },
            auto_feed: false,
            config: Arc::new(config),
        }
    }
}

/// A peer with its connection's bytes.
struct Session {
    peer: MqttPeer,
    version: Version,
    out: Vec<u8>,
}

impl Session {
    fn new(version: Version) -> Self {
        Self::of(Say::new(version).setup(config()))
    }

    fn of(setup: PeerSetup) -> Self {
        let version = setup.hello.version;
        let mut peer = MqttPeer::new(setup);
        peer.open(&mut Vec::new());
        Self { peer, version, out: Vec::new() }
    }

    /// One packet, which is heard whole.
    fn hear(&mut self, bytes: &[u8]) -> Ask {
        for len in 1..bytes.len().min(8) {
            let heard = self.peer.hear(&bytes[..len], NOW, &mut self.out);
            if !matches!(heard.ask, Ask::More) {
                return heard.ask;
            }
        }
        let heard = self.peer.hear(bytes, NOW, &mut self.out);
        assert_eq!(heard.consumed, bytes.len());
        heard.ask
    }

    /// What was written since this was asked last.
    fn said(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn publish(&mut self, topic: &str, qos: Qos, id: u16) -> Ask {
        let bytes = publish_bytes(self.version, topic, qos, id, &[], b"hi");
        self.hear(&bytes)
    }

    fn ack(&mut self, kind: AckKind, id: u16, code: u8) -> Ask {
        let bytes = ack_bytes(self.version, kind, id, code);
        self.hear(&bytes)
    }

    fn published(&mut self, token: u32, result: Result<bool, Code>) -> Goes {
        let result = result.map(|readers| Receipt { readers }).map_err(Refusal::from);
        self.peer.published(token, result, &mut self.out)
    }

    fn give(&mut self, message: &Message, qos: u8) -> Gave {
        let delivery = Delivery {
            message,
            qos,
            retain: false,
            ids: &[],
            check: false,
            place: None,
            number: None,
            dup: false,
            now: NOW,
        };
        self.peer.give(delivery, &mut self.out)
    }
}

fn publish_bytes(
    version: Version,
    topic: &str,
    qos: Qos,
    packet_id: u16,
    properties: &[Property<'_>],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let topic = topic.as_bytes();
    let head = PublishHead { dup: false, qos, retain: false, topic, packet_id };
    let properties = properties.iter().copied();
    mqtt::publish_head(&mut bytes, version, &head, properties, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

fn ack_bytes(version: Version, kind: AckKind, id: u16, code: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    mqtt::ack(&mut bytes, version, kind, id, code, std::iter::empty());
    bytes
}

fn disconnect_bytes(version: Version, code: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if version == Version::V5 {
        mqtt::disconnect(&mut bytes, version, code, std::iter::empty());
    }
    bytes
}

/// It ended with an error, told by this code where the version tells any.
fn assert_failed(session: &mut Session, ask: &Ask, code: u8) {
    assert!(matches!(ask, Ask::End { will: true }), "{ask:?}");
    assert_eq!(session.said(), disconnect_bytes(session.version, code), "{:?}", session.version);
    assert!(matches!(session.hear(&[0xC0, 0]), Ask::Nothing));
    assert!(session.said().is_empty(), "nothing more is told");
}

fn handed_in(ask: Ask) -> PeerPublish {
    match ask {
        Ask::Publish(publish) => *publish,
        other => panic!("{other:?}"),
    }
}

fn message(channel: Address, content: Content) -> Message {
    let content = Arc::new(content);
    let id = MessageId::live(NOW, 1, 1);
    Message { id, channel, epoch: 0, seq: 0, created_at: NOW, content }
}

fn on_topic(topic: &str, payload: &'static [u8]) -> Message {
    let content = Content { payload: payload.into(), ..Content::default() };
    message(Address::topic(topic).unwrap(), content)
}

/// Rules that allow all but what a pattern names.
fn all_but(pattern: &str) -> Acl {
    let patterns = vec![Pattern::parse(pattern).unwrap()];
    let rule = Rule { allow: false, publish: true, subscribe: true, patterns, subjects: None };
    Acl::new(vec![rule], true)
}

/// The packets that a client reads.
fn packets(version: Version, mut bytes: &[u8], mut each: impl FnMut(&Packet<'_>)) {
    let profile = Profile { packet_bytes_max: 1 << 20, free_topics: false };
    while !bytes.is_empty() {
        let decoded = mqtt::decode(bytes, version, Side::Server, &profile).unwrap();
        let Decoded::Packet { packet, len } = decoded else { panic!("{bytes:?} is no packet") };
        each(&packet);
        bytes = &bytes[len..];
    }
}

/// The one PUBLISH that a client reads: what, and its properties.
fn one_publish(version: Version, bytes: &[u8]) -> (String, u16, Vec<String>) {
    let mut found = Vec::new();
    packets(version, bytes, |packet| {
        let Packet::Publish(Publish { topic, packet_id, properties, .. }) = packet else {
            panic!("{packet:?}")
        };
        let properties = properties.iter().map(|property| format!("{property:?}")).collect();
        found.push((topic.as_str().to_owned(), *packet_id, properties));
    });
    assert_eq!(found.len(), 1);
    found.remove(0)
}
