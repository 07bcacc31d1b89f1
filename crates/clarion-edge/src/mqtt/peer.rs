//! The protocol state of one MQTT connection, from CONNACK on: a [`Peer`] of the node's, for 3.1, 3.1.1 and 5.
//!
//! Owns: packet ids both ways, topic aliases, what a client is answered, which of its subscriptions is the user's feed, its will. A
//! packet is decoded, judged and answered, or turned into what the shard is asked for. Invariants: after an error nothing more is
//! heard; an idle peer holds a few hundred bytes; all that a client makes it remember has a bound. Must not know: sockets, how
//! anything is matched or stored, how a client proved who it is.

mod acks;
mod aliases;
mod config;
mod connack;
mod inbound;
mod outlet;
mod properties;
mod publish;
mod setup;
mod subscribe;
mod topics;

pub use config::{MqttPeerConfig, PeerCounters};
pub use setup::{ConnectRefusal, Hello, PeerSetup, SessionTerms, check_connect};
pub use topics::{TemplateError, UserTopics};

use aliases::{AliasesIn, AliasesOut};
use clarion_core::inflight::Inflight;
use clarion_core::port::outlet::Given;
use clarion_core::port::peer::{
    Ask, Delivery, Gave, Goes, Heard, Out, Peer, PeerPublish, Place, Receipt, Resumed, SubOptions,
    Taking, Verdict, Will,
};
use clarion_core::{Content, Millis, Principal, Refusal};
use clarion_wire::mqtt::{self, AckKind, Decoded, Disconnect, Packet, Property, Side, Version};
use connack::Greeting;
use inbound::Inbound;
use publish::LastTopic;
use setup::StoredWill;
use std::sync::Arc;
use subscribe::{Answer, Feed};

const DIALECT: &str = "mqtt";
/// QoS of a feed that nobody subscribed.
const AUTO_FEED_QOS: u8 = 1;
/// Packet ids among which free ones are looked for, at least; else twice the window.
const SPAN_MIN: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct MqttPeer {
    config: Arc<MqttPeerConfig>,
    principal: Principal,
    client_id: Arc<str>,
    user: Option<Arc<str>>,
    version: Version,
    problem_information: bool,
    /// The connection is ending: nothing more is heard or told.
    over: bool,
    /// The session outlives the connection, or did so before.
    stored: bool,
    /// The largest packet that the client takes.
    packet_bytes: usize,
    /// Aliases that the client may set.
    topic_aliases: u16,
    /// How long the session may outlive the connection, as the client last said.
    session_expiry_s: u32,
    session_expiry_max_s: u32,
    greeting: Option<Box<Greeting>>,
    will: Option<Box<StoredWill>>,

    aliases_in: AliasesIn,
    inbound: Inbound,
    last_topic: Option<Box<LastTopic>>,

    aliases_out: AliasesOut,
    inflight: Inflight,
    span: usize,

    /// Hashes of the filters that were granted, in order.
    filters: Vec<u64>,
    /// Of the access rules by which they were.
    acl_version: u64,
    /// Of those by which the feed was.
    feed_acl_version: u64,
    feed: Option<Box<Feed>>,
    answer: Option<Box<Answer>>,
}

impl MqttPeer {
    /// A peer for a connection that was accepted; [`Outlet::open`] tells the client so.
    ///
    /// [`Outlet::open`]: clarion_core::port::outlet::Outlet::open
    pub fn new(setup: PeerSetup) -> Self {
        let PeerSetup { mut hello, config, principal, client_id, user, .. } = setup;
        let feed = user.as_deref().filter(|_| setup.auto_feed).and_then(|user| {
            let options = SubOptions { qos: AUTO_FEED_QOS, ..SubOptions::default() };
            Some(Box::new(Feed::new(0, config.user_topics.first_of(user)?, options)))
        });
        let will = hello.will.take();
        Self {
            client_id,
            user,
            version: hello.version,
            problem_information: hello.problem_information,
            over: false,
            stored: false,
            packet_bytes: hello.packet_bytes.try_into().unwrap_or(usize::MAX),
            topic_aliases: if hello.version == Version::V5 { config.topic_aliases } else { 0 },
            session_expiry_s: setup.session.expiry_s,
            session_expiry_max_s: setup.session.expiry_max_s,
            will,
            aliases_in: AliasesIn::default(),
            inbound: Inbound::default(),
            last_topic: None,
            aliases_out: AliasesOut::new(hello.topic_aliases.min(config.topic_aliases_out)),
            inflight: Inflight::default(),
            span: (usize::from(config.max_inflight) * 2).max(SPAN_MIN),
            filters: Vec::new(),
            acl_version: principal.acl_version(),
            feed_acl_version: setup.feed_acl_version,
            feed,
            answer: None,
            principal,
            config,
            greeting: Some(Box::new(Greeting {
                hello,
                assigned: setup.assigned,
                keep_alive: setup.keep_alive,
                session: setup.session,
                present: false,
            })),
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, now: Millis, out: &mut Vec<u8>) -> Ask {
        match packet {
            Packet::Publish(publish) => self.hear_publish(publish, now, out),
            Packet::Puback(ack) => self.hear_puback(ack, out),
            Packet::Pubrec(ack) => self.hear_pubrec(ack, out),
            Packet::Pubrel(ack) => self.hear_pubrel(ack, out),
            Packet::Pubcomp(ack) => self.hear_pubcomp(ack, out),
            Packet::Subscribe(subscribe) => self.hear_subscribe(subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.hear_unsubscribe(unsubscribe),
            Packet::Pingreq => {
                mqtt::pingresp(out);
                Ask::Nothing
            }
            Packet::Disconnect(disconnect) => self.hear_disconnect(disconnect, out),
            Packet::Auth(_) => {
                self.fail(0x82, "AUTH without an authentication method in CONNECT", out)
            }
            Packet::Connect(_) => self.fail(0x82, "a second CONNECT", out),
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                self.fail(0x82, "only a server sends such a packet", out)
            }
        }
    }

    fn hear_disconnect(&mut self, packet: &Disconnect<'_>, out: &mut Vec<u8>) -> Ask {
        let expiry = packet.properties.iter().find_map(|property| match property {
            Property::SessionExpiry(seconds) => Some(seconds),
            _ => None,
        });
        if let Some(seconds) = expiry {
            // §3.14.2.2.2: a session that was to end with its connection cannot be kept after all.
            if self.session_expiry_s == 0 && seconds > 0 {
                return self.fail(0x82, "a session expiry where CONNECT had none", out);
            }
            self.session_expiry_s = seconds.min(self.session_expiry_max_s);
        }
        self.over = true;
        // MQTT-3.14.4-3: only a normal end takes the will back.
        let will = packet.reason != 0;
        if !will {
            self.will = None;
        }
        Ask::End { will }
    }

    /// The client broke the protocol.
    fn fail(&mut self, code: u8, what: &str, out: &mut Vec<u8>) -> Ask {
        self.disconnect(code, what, None, out);
        Ask::End { will: true }
    }
}

impl Peer for MqttPeer {
    fn hear(&mut self, bytes: &[u8], now: Millis, out: &mut Vec<u8>) -> Heard {
        if self.over {
            return Heard { consumed: bytes.len(), ask: Ask::Nothing };
        }
        let profile = self.config.profile;
        match mqtt::decode(bytes, self.version, Side::Client, &profile) {
            Ok(Decoded::More) => Heard { consumed: 0, ask: Ask::More },
            Ok(Decoded::Packet { packet, len }) => {
                Heard { consumed: len, ask: self.packet(&packet, now, out) }
            }
            Err(malformed) => {
                let ask = self.fail(malformed.reason, malformed.what, out);
                Heard { consumed: bytes.len(), ask }
            }
        }
    }

    fn published(
        &mut self,
        token: u32,
        result: Result<Receipt, Refusal>,
        out: &mut Vec<u8>,
    ) -> Goes {
        self.hear_published(token, result, out)
    }

    fn subscribed(&mut self, _token: u32, granted: bool, out: &mut Vec<u8>) {
        self.write_suback(granted, out);
    }

    fn unsubscribed(&mut self, _token: u32, existed: &[bool], out: &mut Vec<u8>) {
        self.write_unsuback(existed, out);
    }

    fn give(&mut self, delivery: Delivery<'_>, out: &mut Vec<u8>) -> Gave {
        self.give_topic(delivery, out)
    }

    fn hold(&mut self, place: Place) -> Option<u16> {
        let number = self.inflight.next(self.span)?;
        self.inflight.hold(number, place);
        Some(number.id)
    }

    fn drop_held(&mut self, number: u16) {
        self.inflight.drop_held(number);
    }

    fn lose(&mut self, number: u16) -> Option<bool> {
        self.inflight.lose(number)
    }

    fn released(&mut self, number: u16, out: &mut Vec<u8>) {
        if !self.over && self.inflight.release(number) {
            self.ack(AckKind::Pubrel, number, 0, None, out);
        }
    }

    fn completed(&mut self, number: u16, known: bool, out: &mut Vec<u8>) {
        self.inbound.received.remove(number);
        if !self.over {
            self.write_pubcomp(number, known, out);
        }
    }

    fn outs(&self, at_end: bool) -> Vec<Out> {
        self.inflight.outs(at_end)
    }

    fn resume(&mut self, resumed: Resumed) -> Vec<Verdict> {
        self.take_over(resumed)
    }

    fn expiry_s(&self) -> u32 {
        self.session_expiry_s
    }

    fn feed_is_numbered(&self) -> bool {
        self.feed_qos() > 0
    }

    fn takes(&self, given: Given<'_>, frame_len: usize) -> Taking {
        self.takes_feed(&given, frame_len)
    }

    fn will(&mut self, now: Millis) -> Option<Will> {
        let will = self.will.take()?;
        // Asked now, since rules may have changed since CONNECT.
        let Some(mut will) = self.permitted(*will) else {
            PeerCounters::count(&self.config.counters.refused);
            return None;
        };
        let from = now.saturating_add(u64::from(will.delay_s) * 1000);
        let content = &mut will.publish.content;
        content.expires_at = Content::end_of_life(content.asked_s, from);
        Some(will)
    }

    fn last_will(&self) -> Option<Will> {
        self.permitted(self.will.as_deref()?.clone())
    }
}

impl MqttPeer {
    /// A will as a message, if it may be published.
    fn permitted(&self, will: StoredWill) -> Option<Will> {
        let StoredWill { topic, mut content, delay_s } = will;
        let address = self.config.user_topics.address(&topic).ok()?;
        if !self.may_publish(&address) {
            return None;
        }
        content.sender = Some(self.sender());
        let publish = PeerPublish { address, content, token: 0, once: None };
        // §3.1.3.2.2: it waits no longer than its session.
        Some(Will { publish, delay_s: delay_s.min(self.session_expiry_s) })
    }
}

#[cfg(test)]
mod tests;
