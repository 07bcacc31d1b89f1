//! One MQTT client: CONNECT, subscriptions if it wants any, publishes, acks to everything, DISCONNECT if it is told to.
//!
//! Invariants: all that one reading brought is handled and acked with one write; an unfinished packet is all that a
//! connection keeps. Must not know: what is published, or what for.

use std::{
    io, iter,
    net::{IpAddr, SocketAddr},
};

use clarion_wire::mqtt::{
    self, AckKind, Connack, Connect, Decoded, Packet, Profile, Properties, Property, PublishHead,
    Qos, Side, SubscribeFilter, Version,
};
use rustix::event::epoll::EventFlags;

use super::{
    super::BenchError,
    link::{Buffers, Layers, Link},
};

/// Longer than any measurement: nobody has to ping.
const KEEP_ALIVE: u16 = 7200;
/// Filters in one SUBSCRIBE.
const SUBSCRIBE_AT_ONCE: u32 = 500;
/// How long a session stays that is to stay: longer than any measurement, and no longer than brokers grant by default.
const SESSION_EXPIRY_S: u32 = 86_400;
/// Publishes without an ack, unless the broker takes fewer.
const UNACKED_MAX: u16 = u16::MAX;

const PROFILE: Profile = Profile { packet_bytes_max: 64 << 20, free_topics: false };

/// What all clients of a measurement have in common.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) at: SocketAddr,
    pub(super) layers: Layers,
    pub(super) version: Version,
}

/// What one client is to be.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) client_id: String,
    pub(super) from: Option<IpAddr>,
    pub(super) session: Session,
    pub(super) subscription: Option<(String, Qos)>,
    /// Further subscriptions, to topics that nobody publishes to.
    pub(super) beside: u32,
}

/// What the broker is to keep of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// Nothing, and it forgets what it has.
    Clean,
    /// The session that it has, else a new one. Not even the first time a clean start: Mosquitto does not save what began so.
    Kept,
}

/// What a client has learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard<'a> {
    /// It is connected, and subscribed if it wanted to be.
    Ready,
    /// The broker had a session of it; told before [`Self::Ready`].
    Present,
    /// A message's payload.
    Message(&'a [u8]),
    /// A message with QoS 2 came: the broker is still to release it.
    Held,
    /// It has.
    Released,
    /// A publish of its own is done with.
    Acked,
    /// The broker has closed the connection after DISCONNECT.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Linking,
    Connecting,
    Subscribing,
    Ready,
    Leaving,
    Gone,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    link: Link,
    version: Version,
    stage: Stage,
    wish: Option<Box<Wish>>,
    /// An unfinished packet.
    rest: Vec<u8>,
    next_id: u16,
    unacked: u16,
    unacked_max: u16,
}

/// What all clients of a thread share.
#[derive(Debug)]
pub(super) struct Desk {
    buffers: Buffers,
    out: Vec<u8>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { buffers: Buffers::new(), out: Vec::new() }
    }
}

impl Client {
    /// Begins to connect.
    pub(super) fn start(plan: &Plan, wish: Wish) -> io::Result<Self> {
        Ok(Self {
            link: Link::start(&plan.layers, plan.at, wish.from)?,
            version: plan.version,
            stage: Stage::Linking,
            wish: Some(Box::new(wish)),
            rest: Vec::new(),
            next_id: 0,
            unacked: 0,
            unacked_max: UNACKED_MAX,
        })
    }

    /// For the poller.
    pub(super) fn socket(&self) -> &rustix::fd::OwnedFd {
        self.link.socket()
    }

    /// Does what the socket is ready for.
    pub(super) fn wake(
        &mut self,
        plan: &Plan,
        desk: &mut Desk,
        ready: EventFlags,
        hear: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), BenchError> {
        match (self.serve(plan, desk, ready, hear), self.stage) {
            (Err(BenchError::Io(_)), Stage::Leaving) => {
                self.stage = Stage::Gone;
                hear(Heard::Gone);
                Ok(())
            }
            (_, Stage::Gone) => Ok(()),
            (served, _) => served,
        }
    }

    fn serve(
        &mut self,
        plan: &Plan,
        desk: &mut Desk,
        ready: EventFlags,
        hear: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), BenchError> {
        if ready.contains(EventFlags::OUT) {
            self.link.writable(&plan.layers, plan.at, &mut desk.buffers)?;
        }
        let hung_up = ready.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
        if hung_up || ready.contains(EventFlags::IN) {
            while self.read(desk, hung_up, hear)? {}
        }
        if self.stage == Stage::Linking && self.link.is_open() {
            self.stage = Stage::Connecting;
            desk.out.clear();
            self.put_connect(&mut desk.out);
            self.link.send(&mut desk.buffers, &desk.out)?;
        }
        Ok(())
    }

    /// One reading; whether there may be more.
    fn read(
        &mut self,
        desk: &mut Desk,
        hung_up: bool,
        hear: &mut impl FnMut(Heard<'_>),
    ) -> Result<bool, BenchError> {
        let Desk { buffers, out } = desk;
        let start = self.rest.len();
        buffers.input[..start].copy_from_slice(&self.rest);
        self.rest.clear();
        let received = self.link.receive(buffers, start, hung_up)?;
        out.clear();
        let mut at = 0;
        let input = &buffers.input[..received.end];
        while at < input.len() {
            let decoded = mqtt::decode(&input[at..], self.version, Side::Server, &PROFILE);
            match decoded.map_err(|e| odd(format!("the broker's packet: {}", e.what)))? {
                Decoded::More => break,
                Decoded::Packet { packet, len } => {
                    at += len;
                    self.take(&packet, out, hear)?;
                }
            }
        }
        self.rest.extend_from_slice(&input[at..]);
        if self.rest.is_empty() && self.rest.capacity() > 4096 {
            self.rest = Vec::new();
        }
        // Nothing may follow DISCONNECT.
        if !out.is_empty() && self.stage != Stage::Leaving {
            self.link.send(buffers, out)?;
        }
        Ok(received.more)
    }

    fn take(
        &mut self,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        hear: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), BenchError> {
        match packet {
            Packet::Publish(publish) => {
                match publish.qos {
                    Qos::AtMostOnce => {}
                    Qos::AtLeastOnce => self.put_ack(out, AckKind::Puback, publish.packet_id),
                    Qos::ExactlyOnce => self.put_ack(out, AckKind::Pubrec, publish.packet_id),
                }
                hear(Heard::Message(publish.payload));
                if publish.qos == Qos::ExactlyOnce {
                    hear(Heard::Held);
                }
            }
            Packet::Pubrel(ack) => {
                self.put_ack(out, AckKind::Pubcomp, ack.packet_id);
                hear(Heard::Released);
            }
            Packet::Pubrec(ack) => {
                accepted("a publish", ack.reason)?;
                self.put_ack(out, AckKind::Pubrel, ack.packet_id);
            }
            Packet::Puback(ack) | Packet::Pubcomp(ack) => {
                accepted("a publish", ack.reason)?;
                self.unacked = self.unacked.saturating_sub(1);
                hear(Heard::Acked);
            }
            Packet::Connack(connack) => self.connected(connack, out, hear)?,
            Packet::Suback(suback) => {
                for code in suback.codes {
                    accepted("SUBSCRIBE", *code)?;
                }
                self.subscribed(out, hear);
            }
            Packet::Disconnect(disconnect) => {
                let reason = disconnect.reason;
                return Err(odd(format!("the broker closed the session: reason {reason:#04x}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn connected(
        &mut self,
        connack: &Connack<'_>,
        out: &mut Vec<u8>,
        hear: &mut impl FnMut(Heard<'_>),
    ) -> Result<(), BenchError> {
        if connack.code != 0 {
            return Err(odd(format!("CONNECT was refused: code {:#04x}", connack.code)));
        }
        // 3.1 does not tell.
        if connack.session_present || self.version == Version::V31 {
            hear(Heard::Present);
        }
        for property in connack.properties.iter() {
            if let Property::ReceiveMaximum(most) = property {
                self.unacked_max = most;
            }
        }
        let wish = self.wish.as_ref().and_then(|wish| wish.subscription.as_ref());
        let Some((topic, qos)) = wish else {
            self.ready(hear);
            return Ok(());
        };
        let filter = filter(topic, *qos);
        mqtt::subscribe(out, self.version, 1, iter::once(filter), iter::empty());
        self.stage = Stage::Subscribing;
        Ok(())
    }

    /// Subscribes what is left, some at a time.
    fn subscribed(&mut self, out: &mut Vec<u8>, hear: &mut impl FnMut(Heard<'_>)) {
        let Some(wish) = self.wish.as_mut().filter(|wish| wish.beside > 0) else {
            return self.ready(hear);
        };
        let rest = wish.beside.saturating_sub(SUBSCRIBE_AT_ONCE);
        let topics = (rest..wish.beside).map(|n| format!("beside/{}/{n}", wish.client_id));
        let topics: Vec<String> = topics.collect();
        wish.beside = rest;
        let qos = wish.subscription.as_ref().map_or(Qos::AtMostOnce, |(_, qos)| *qos);
        let filters = topics.iter().map(|topic| filter(topic, qos));
        mqtt::subscribe(out, self.version, 1, filters, iter::empty());
    }

    fn ready(&mut self, hear: &mut impl FnMut(Heard<'_>)) {
        self.stage = Stage::Ready;
        self.wish = None;
        hear(Heard::Ready);
    }

    fn put_connect(&self, out: &mut Vec<u8>) {
        let wish = self.wish.as_ref();
        let (client_id, session) =
            wish.map_or(("", Session::Clean), |wish| (&wish.client_id, wish.session));
        let connect = Connect {
            version: self.version,
            clean: session == Session::Clean,
            keep_alive: KEEP_ALIVE,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: Properties::default(),
        };
        let most = iter::once(Property::ReceiveMaximum(u16::MAX));
        let kept = (session == Session::Kept).then_some(Property::SessionExpiry(SESSION_EXPIRY_S));
        mqtt::connect(out, &connect, most.chain(kept), iter::empty());
    }

    fn put_ack(&self, out: &mut Vec<u8>, kind: AckKind, packet_id: u16) {
        mqtt::ack(out, self.version, kind, packet_id, 0, iter::empty());
    }

    /// Whether one more publish of this quality may go.
    pub(super) fn may_publish(&self, qos: Qos) -> bool {
        qos == Qos::AtMostOnce || self.unacked < self.unacked_max
    }

    /// Appends a publish to what the next [`Self::send`] sends.
    pub(super) fn put_publish(&mut self, out: &mut Vec<u8>, topic: &str, qos: Qos, payload: &[u8]) {
        if qos != Qos::AtMostOnce {
            self.unacked += 1;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        }
        let head = PublishHead {
            dup: false,
            qos,
            retain: false,
            topic: topic.as_bytes(),
            packet_id: self.next_id,
        };
        mqtt::publish_head(out, self.version, &head, iter::empty(), payload.len());
        out.extend_from_slice(payload);
    }

    /// Says DISCONNECT; the session stays as it was asked for.
    pub(super) fn leave(&mut self, desk: &mut Desk) -> io::Result<()> {
        if self.stage == Stage::Gone {
            return Ok(());
        }
        self.stage = Stage::Leaving;
        let Desk { buffers, out } = desk;
        out.clear();
        mqtt::disconnect(out, self.version, 0, iter::empty());
        self.link.send(buffers, out)
    }

    /// Sends packets.
    pub(super) fn send(&mut self, desk: &mut Desk, packets: &[u8]) -> io::Result<()> {
        self.link.send(&mut desk.buffers, packets)
    }
}

fn filter(topic: &str, qos: Qos) -> SubscribeFilter<'_> {
    SubscribeFilter {
        filter: topic.into(),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

fn accepted(what: &str, code: u8) -> Result<(), BenchError> {
    if code < 0x80 {
        return Ok(());
    }
    Err(odd(format!("{what} was refused: code {code:#04x}")))
}

fn odd(text: String) -> BenchError {
    BenchError::Other(text)
}
