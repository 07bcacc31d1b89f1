//! What goes to the client: PUBLISH of topics and of the feed, DISCONNECT.
//!
//! Invariants: a packet that the client does not take is not sent and takes no place in the window; a packet id, an alias and a place
//! in the feed are noted exactly for what is sent.

use super::aliases::Alias;
use super::config::PeerCounters;
use super::properties::{self, Extra};
use super::subscribe::Feed;
use super::{DIALECT, MqttPeer};
use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::port::peer::{Delivery, Gave, Place, Taking};
use clarion_core::subscription::Gap;
use clarion_core::{Address, AddressKind, Content, Epoch, Message, Millis, Verb};
use clarion_wire::mqtt::{self, Property, PublishHead, Qos, Version};

/// Outlets of all versions share frames: they are the payload alone.
const FORMAT: u32 = 4;

/// One PUBLISH.
struct Packet<'a> {
    content: &'a Content,
    /// `None`: the feed's.
    topic: Option<&'a Address>,
    qos: Qos,
    retain: bool,
    ids: &'a [u32],
    place: Option<Place>,
    /// It has this number already.
    number: Option<u16>,
    dup: bool,
    now: Millis,
    payload_len: usize,
}

fn qos(number: u8) -> Qos {
    match number {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce,
    }
}

impl MqttPeer {
    pub(super) fn give_topic(&mut self, delivery: Delivery<'_>, out: &mut Vec<u8>) -> Gave {
        let message = delivery.message;
        let content = &*message.content;
        // What has a number was handed out in its time (design §1.8).
        if delivery.number.is_none() && content.expired(delivery.now) {
            return Gave::Passed;
        }
        let check = delivery.check || self.acl_version != self.principal.acl_version();
        // What the server tells of itself is for everyone, whatever rules say meanwhile.
        if check
            && !message.channel.is_server_topic()
            && !self.principal.allows(Verb::Subscribe, &message.channel)
        {
            PeerCounters::count(&self.config.counters.forbidden);
            return Gave::Passed;
        }
        let packet = Packet {
            content,
            topic: Some(&message.channel),
            qos: qos(delivery.qos),
            retain: delivery.retain,
            ids: delivery.ids,
            place: delivery.place,
            number: delivery.number,
            dup: delivery.dup,
            now: delivery.now,
            payload_len: content.payload.len(),
        };
        self.write_publish(&packet, out)
    }

    fn write_publish(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Gave {
        let Some(topic) = topic_text(packet.topic, self.feed.as_deref()) else {
            return Gave::Passed;
        };
        let number = match packet.qos {
            Qos::AtMostOnce => None,
            _ if packet.number.is_some() => None,
            // The shard gives only what has a place.
            _ => match self.inflight.next(self.span) {
                Some(number) => Some(number),
                None => return Gave::Passed,
            },
        };
        let id = packet.number.or(number.map(|number| number.id)).unwrap_or_default();
        let mut alias = match packet.topic {
            Some(address) => self.aliases_out.of(address),
            None => self.aliases_out.of_feed(topic),
        };
        let start = out.len();
        let mut len = write_head(self.version, topic, packet, id, alias, out);
        if len > self.packet_bytes && matches!(alias, Alias::New(_)) {
            // Its few bytes may be what is too much.
            out.truncate(start);
            alias = Alias::None;
            len = write_head(self.version, topic, packet, id, alias, out);
        }
        if len > self.packet_bytes {
            out.truncate(start);
            PeerCounters::count(&self.config.counters.too_large);
            return Gave::Passed;
        }
        self.aliases_out.sent(alias, packet.topic);
        if let Some(held) = packet.number {
            self.inflight.send_held(held);
        } else if let Some(number) = number {
            self.inflight.take(number, packet.qos == Qos::ExactlyOnce, packet.place);
        }
        Gave::Head
    }

    pub(super) fn feed_qos(&self) -> u8 {
        self.feed_options().map_or(0, |(_, options)| options.qos)
    }

    fn feed_options(&self) -> Option<(&str, clarion_core::port::peer::SubOptions)> {
        self.feed.as_ref().and_then(|feed| feed.current())
    }

    /// Whether the client may and can have this of its feed.
    pub(super) fn takes_feed(&self, given: &Given<'_>, frame_len: usize) -> Taking {
        if !self.may_read_feed() {
            return Taking::End;
        }
        let Some((topic, options)) = self.feed_options() else { return Taking::Passed };
        let content = &*given.message.content;
        if content.expired(given.now) {
            return Taking::Passed;
        }
        if options.no_local
            && let Some(sender) = &content.sender
            && sender.device.as_deref() == Some(&*self.client_id)
            && self.user.as_deref().unwrap_or_default() == &*sender.user
        {
            return Taking::Passed;
        }
        // The weight counts all that a publisher chose the length of; the rest is small.
        if content.weight() + content.headers.len() + topic.len() + 64 <= self.packet_bytes {
            return Taking::Yes;
        }
        let packet = feed_packet(given, &options, frame_len);
        let mut scratch = Vec::new();
        let len = write_head(self.version, topic, &packet, 1, Alias::None, &mut scratch);
        if len > self.packet_bytes {
            PeerCounters::count(&self.config.counters.too_large);
            return Taking::Passed;
        }
        Taking::Yes
    }

    /// Asked anew after each change of the rules: what was granted by older ones may be over.
    pub(super) fn may_read_feed(&self) -> bool {
        self.principal.acl_version() == self.feed_acl_version
            || self
                .user
                .as_deref()
                .and_then(|user| Address::user(user).ok())
                .is_some_and(|own| self.principal.allows(Verb::Subscribe, &own))
    }

    /// Ends the connection from this side: DISCONNECT, as far as the version has it, and nothing more is heard.
    pub(super) fn disconnect(
        &mut self,
        code: u8,
        what: &str,
        reference: Option<&str>,
        out: &mut Vec<u8>,
    ) {
        self.over = true;
        if self.version != Version::V5 {
            return;
        }
        let start = out.len();
        let what = Some(Property::ReasonString(what)).filter(|_| self.problem_information);
        let reference = reference.map(Property::ServerReference);
        // The more of it the better, but no packet that is larger than the client takes (MQTT-3.1.2-24).
        for properties in [[reference, what], [reference, None], [None, None]] {
            mqtt::disconnect(out, self.version, code, properties.into_iter().flatten());
            if out.len() - start <= self.packet_bytes {
                return;
            }
            out.truncate(start);
        }
    }
}

fn topic_text<'a>(topic: Option<&'a Address>, feed: Option<&'a Feed>) -> Option<&'a str> {
    match topic {
        Some(address) => Some(address.id()),
        None => feed.and_then(Feed::current).map(|(topic, _)| topic),
    }
}

/// Gives the length of the whole packet.
fn write_head(
    version: Version,
    topic: &str,
    packet: &Packet<'_>,
    id: u16,
    alias: Alias,
    out: &mut Vec<u8>,
) -> usize {
    let topic = if matches!(alias, Alias::Known(_)) { "" } else { topic };
    let head = PublishHead {
        dup: packet.dup,
        qos: packet.qos,
        retain: packet.retain,
        topic: topic.as_bytes(),
        packet_id: id,
    };
    let extra = Extra { ids: packet.ids, alias, now: packet.now };
    if version != Version::V5 || properties::is_plain(packet.content) {
        let properties = properties::of_plain(&extra);
        return mqtt::publish_head(out, version, &head, properties, packet.payload_len);
    }
    let properties = properties::of_delivery(packet.content, extra);
    mqtt::publish_head(out, version, &head, properties, packet.payload_len)
}

/// A delivery of the feed. All come with the QoS of its subscription, whatever that of the publish: an ack is what moves the cursor.
fn feed_packet<'a>(
    given: &Given<'a>,
    options: &'a clarion_core::port::peer::SubOptions,
    frame_len: usize,
) -> Packet<'a> {
    let message = given.message;
    Packet {
        content: &message.content,
        topic: None,
        qos: qos(options.qos),
        retain: options.retain_as_published && message.content.retain,
        ids: if options.id == 0 { &[] } else { std::slice::from_ref(&options.id) },
        place: (!message.is_live()).then_some(Place {
            log: u32::from(message.channel.kind() == AddressKind::All),
            epoch: message.epoch,
            seq: message.seq,
        }),
        number: None,
        dup: false,
        now: given.now,
        payload_len: frame_len,
    }
}

impl Outlet for MqttPeer {
    fn format(&self) -> u32 {
        FORMAT
    }

    fn dialect(&self) -> &'static str {
        DIALECT
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        out.extend_from_slice(&message.content.payload);
    }

    fn before(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>) {
        let Some((_, options)) = self.feed_options() else { return };
        let packet = feed_packet(&given, &options, frame_len);
        let gave = self.write_publish(&packet, out);
        debug_assert_eq!(gave, Gave::Head, "the shard asks first whether it is taken");
    }

    // The payload ends the packet.
    fn behind(&mut self, _given: Given<'_>, _frame_len: usize, _out: &mut Vec<u8>) {}

    fn open(&mut self, out: &mut Vec<u8>) {
        self.greet(out);
    }

    // The protocol has no form for what is missing.
    fn gap(&mut self, _channel: &Address, _epoch: Epoch, _gap: Gap, _out: &mut Vec<u8>) {}

    // The client sends PINGREQ.
    fn heartbeat(&mut self, _out: &mut Vec<u8>) {}

    fn close(&mut self, reason: CloseReason, _retry_ms: u64, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        let config = self.config.clone();
        let reference = match reason {
            CloseReason::Shutdown => config.server_reference.as_deref(),
            _ => None,
        };
        let code = match reason {
            CloseReason::Finished => 0,
            CloseReason::Kicked => 0x98,
            CloseReason::Shutdown if reference.is_none() => 0x8B,
            CloseReason::Shutdown if config.server_moved => 0x9D,
            CloseReason::Shutdown => 0x9C,
            CloseReason::TakenOver => 0x8E,
            CloseReason::KeepAlive => 0x8D,
            CloseReason::TooSlow | CloseReason::TooManyNacks => 0x97,
            CloseReason::Store => 0x88,
            CloseReason::Expired | CloseReason::Forbidden => 0x87,
        };
        self.disconnect(code, reason.name(), reference, out);
    }
}
