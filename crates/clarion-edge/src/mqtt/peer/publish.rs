//! What a client publishes, and its answers: PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP towards it.
//!
//! Invariants: answers keep the order of the publishes; a QoS 2 message is handed in once until its PUBREL. Refusals: 5 is told by
//! the code of the answer; 3.x, which has no such answer, gets a positive one where sending again cannot help, and loses its
//! connection where it can, so that it sends again. QoS 0 is dropped and counted.

use super::aliases::BadAlias;
use super::config::PeerCounters;
use super::inbound::Asked;
use super::{MqttPeer, properties};
use clarion_core::port::peer::{Ask, Goes, PeerPublish, Receipt};
use clarion_core::{Address, AddressKind, Code, Content, Millis, Refusal, Sender, Verb};
use clarion_wire::mqtt::{self, Ack, AckKind, Property, Publish, Qos, Version};
use std::sync::Arc;

/// Longer topics are looked up anew each time.
const REMEMBERED_BYTES: usize = 1024;

/// The topic that was published to last: mostly the next one, too.
#[derive(Debug)]
pub(super) struct LastTopic {
    /// `None` when it is the address's own id.
    text: Option<Box<str>>,
    address: Address,
    allowed: bool,
    acl_version: u64,
}

impl LastTopic {
    fn is(&self, topic: &str) -> bool {
        self.text.as_deref().unwrap_or(self.address.id()) == topic
    }
}

/// The reason code of PUBACK and PUBREC (§3.4.2.1), which have fewer than the code table.
fn publish_code(code: Code) -> u8 {
    match code.row().mqtt5 {
        code @ (0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99) => code,
        // Too large.
        0x95 => 0x97,
        _ => 0x80,
    }
}

impl MqttPeer {
    pub(super) fn hear_publish(
        &mut self,
        packet: &Publish<'_>,
        now: Millis,
        out: &mut Vec<u8>,
    ) -> Ask {
        let aliased = match self.resolve_alias(packet) {
            Ok(aliased) => aliased,
            Err(BadAlias::Invalid) => {
                return self.fail(0x94, "the topic alias is 0 or too large", out);
            }
            // §3.3.4: unlike one that is out of range.
            Err(BadAlias::Unknown) => {
                return self.fail(0x82, "the topic alias was not set", out);
            }
            Err(BadAlias::Bytes) => {
                return self.fail(0x97, "the topics behind the aliases are too many bytes", out);
            }
        };
        let asked = Asked { qos: packet.qos, id: packet.packet_id };
        if packet.qos == Qos::ExactlyOnce {
            if self.inbound.received.contains(asked.id) {
                self.ack(AckKind::Pubrec, asked.id, 0, None, out);
                return Ask::Nothing;
            }
            if self.inbound.asking.contains(asked.id) {
                return Ask::Nothing;
            }
        }
        // 3.x has no receive maximum, but no more ids than this either.
        let maximum = match self.version {
            Version::V5 => self.config.receive_maximum,
            Version::V31 | Version::V311 => u16::MAX,
        };
        if packet.qos != Qos::AtMostOnce && self.inbound.len() >= usize::from(maximum) {
            return self.fail(0x93, "more than the receive maximum is unanswered", out);
        }
        let topic = aliased.as_deref().unwrap_or(packet.topic.as_str());
        match self.draft(topic, packet, now) {
            Ok(mut publish) => {
                self.inbound.begin(asked);
                self.inbound.handed_on(asked);
                publish.token = asked.token();
                publish.once = (self.stored && asked.qos == Qos::ExactlyOnce).then_some(asked.id);
                Ask::Publish(publish)
            }
            Err(_) if packet.qos == Qos::AtMostOnce => {
                PeerCounters::count(&self.config.counters.refused);
                Ask::Nothing
            }
            Err(refusal) => {
                self.inbound.begin(asked);
                match self.inbound.refused(asked, refusal) {
                    None => Ask::Nothing,
                    Some(refusal) => match self.answer(asked, Err(&refusal), out) {
                        Goes::On => Ask::Nothing,
                        Goes::End => Ask::End { will: true },
                    },
                }
            }
        }
    }

    fn resolve_alias(&mut self, packet: &Publish<'_>) -> Result<Option<Arc<str>>, BadAlias> {
        if packet.properties.is_empty() {
            return Ok(None);
        }
        let alias = packet.properties.iter().find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let Some(alias) = alias else { return Ok(None) };
        let bytes = self.config.topic_alias_bytes;
        self.aliases_in.resolve(alias, packet.topic.as_str(), self.topic_aliases, bytes)
    }

    fn draft(
        &mut self,
        topic: &str,
        packet: &Publish<'_>,
        now: Millis,
    ) -> Result<Box<PeerPublish>, Refusal> {
        let address = self.target(topic)?;
        let mut publish =
            Box::new(PeerPublish { address, content: Content::default(), token: 0, once: None });
        let content = &mut publish.content;
        let Publish { properties, payload, qos, retain, .. } = packet;
        properties::fill(content, properties, payload, *qos, *retain, &self.config)?;
        content.sender = Some(self.sender());
        content.expires_at = Content::end_of_life(content.asked_s, now);
        Ok(publish)
    }

    /// An anonymous client is known by its client id alone.
    pub(super) fn sender(&self) -> Sender {
        Sender {
            user: self.user.as_deref().unwrap_or_default().into(),
            device: Some((&*self.client_id).into()),
        }
    }

    /// The channel behind a topic, if this client may publish to it.
    fn target(&mut self, topic: &str) -> Result<Address, Refusal> {
        let acl_version = self.principal.acl_version();
        let forbidden = || Refusal::from(Code::Forbidden);
        if let Some(last) = &self.last_topic
            && last.is(topic)
            && last.acl_version == acl_version
        {
            return if last.allowed { Ok(last.address.clone()) } else { Err(forbidden()) };
        }
        if topic.split('/').count() > self.config.topic_levels {
            return Err(Refusal::new(Code::BadAddress, "the topic has too many levels"));
        }
        let address = self.config.user_topics.address(topic)?;
        let allowed = self.may_publish(&address);
        if topic.len() <= REMEMBERED_BYTES {
            let text = (address.id() != topic).then(|| topic.into());
            let last = LastTopic { text, address: address.clone(), allowed, acl_version };
            match &mut self.last_topic {
                Some(place) => **place = last,
                place => *place = Some(Box::new(last)),
            }
        }
        if allowed { Ok(address) } else { Err(forbidden()) }
    }

    /// A user's topic is for himself and for administrators, whatever else a principal may.
    pub(super) fn may_publish(&self, address: &Address) -> bool {
        let own = address.kind() != AddressKind::User || self.user.as_deref() == Some(address.id());
        (own || self.principal.allows(Verb::Admin, address))
            && self.principal.allows(Verb::Publish, address)
    }

    pub(super) fn hear_published(
        &mut self,
        token: u32,
        result: Result<Receipt, Refusal>,
        out: &mut Vec<u8>,
    ) -> Goes {
        // It is ending already, with or without its will.
        if self.over {
            return Goes::On;
        }
        self.inbound.answered();
        let mut goes = self.answer(Asked::of(token), result.as_ref().copied(), out);
        while goes == Goes::On
            && let Some((asked, refusal)) = self.inbound.next_refused()
        {
            goes = self.answer(asked, Err(&refusal), out);
        }
        goes
    }

    fn answer(
        &mut self,
        asked: Asked,
        result: Result<Receipt, &Refusal>,
        out: &mut Vec<u8>,
    ) -> Goes {
        let (code, taken, detail) = match result {
            // Whether a QoS 2 message has readers is not told: PUBREC may be sent again when nobody knows any more.
            Ok(Receipt { readers: false }) if asked.qos == Qos::AtLeastOnce => (0x10, true, None),
            Ok(_) => (0, true, None),
            Err(refusal) if self.version == Version::V5 => {
                (publish_code(refusal.code), false, Some(&*refusal.detail))
            }
            Err(refusal) if refusal.code.retryable() => {
                self.over = true;
                return Goes::End;
            }
            Err(_) => {
                PeerCounters::count(&self.config.counters.refused);
                (0, true, None)
            }
        };
        self.inbound.end(asked, taken);
        let kind = match asked.qos {
            Qos::AtMostOnce => return Goes::On,
            Qos::AtLeastOnce => AckKind::Puback,
            Qos::ExactlyOnce => AckKind::Pubrec,
        };
        self.ack(kind, asked.id, code, detail, out);
        Goes::On
    }

    pub(super) fn hear_pubrel(&mut self, packet: &Ack<'_>, out: &mut Vec<u8>) -> Ask {
        let number = packet.packet_id;
        if self.stored {
            return Ask::Complete { number };
        }
        let there = self.inbound.received.remove(number);
        self.write_pubcomp(number, there, out);
        Ask::Nothing
    }

    pub(super) fn write_pubcomp(&self, number: u16, known: bool, out: &mut Vec<u8>) {
        // MQTT-4.3.3: whatever is known of it, the client can forget it.
        let code = if known || self.version != Version::V5 { 0 } else { 0x92 };
        self.ack(AckKind::Pubcomp, number, code, None, out);
    }

    /// Writes an answer, unless it is larger than the client takes (MQTT-3.1.2-25).
    pub(super) fn ack(
        &self,
        kind: AckKind,
        id: u16,
        code: u8,
        detail: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        let detail = detail.filter(|_| self.problem_information).map(Property::ReasonString);
        mqtt::ack(out, self.version, kind, id, code, detail.into_iter());
        if out.len() - start > self.packet_bytes {
            out.truncate(start);
            if detail.is_some() {
                self.ack(kind, id, code, None, out);
            }
        }
    }
}
