//! A connection of the client. Invariants: packets come out in the order in which they came in, save that a method that
//! waits for an answer keeps what came before it; a panic tells what was waited for. Must not know: which broker it is.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

use super::{
    packet::{self, Filter, Message, Packet, Version, Will, ack, parse},
    property::{Property, number, text},
};
use crate::DEADLINE;

/// Publishes of one client that are unanswered at a time; fewer than any server allows.
const UNANSWERED: usize = 20;

/// What a CONNECT says.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields of the packet")]
pub struct Options {
    pub version: Version,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    pub will: Option<Will>,
    pub properties: Vec<Property>,
}

impl Options {
    /// A clean session without keep-alive.
    pub fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.to_owned(),
            clean: true,
            keep_alive: 0,
            user: None,
            password: None,
            will: None,
            properties: Vec::new(),
        }
    }

    /// Clean or not.
    #[must_use]
    pub fn clean(self, clean: bool) -> Self {
        Self { clean, ..self }
    }

    /// Seconds.
    #[must_use]
    pub fn keep_alive(self, keep_alive: u16) -> Self {
        Self { keep_alive, ..self }
    }

    /// With a user name.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    /// With a password.
    #[must_use]
    pub fn password(self, password: &str) -> Self {
        Self { password: Some(password.as_bytes().to_vec()), ..self }
    }

    /// With a will.
    #[must_use]
    pub fn will(self, message: Message, properties: &[Property]) -> Self {
        Self { will: Some(Will { message, properties: properties.to_vec() }), ..self }
    }

    /// With one more property.
    #[must_use]
    pub fn with(mut self, property: Property) -> Self {
        self.properties.push(property);
        self
    }

    /// Connects; panics when it is refused.
    pub fn connect(&self, at: SocketAddr) -> Client {
        let (client, connack) = self.attempt(at);
        assert_eq!(connack.code, 0, "{} was refused: {connack:?}", self.id);
        client
    }

    /// Connects and returns what it was answered.
    pub fn attempt(&self, at: SocketAddr) -> (Client, Connack) {
        let mut client = Client::open(at, self.version);
        let connack = client.handshake(self);
        (client, connack)
    }
}

/// What a CONNECT was answered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Connack {
    /// A session was there.
    pub present: bool,
    /// Return or reason code.
    pub code: u8,
    /// Its properties.
    pub properties: Vec<Property>,
}

impl Connack {
    /// The number that a property has.
    pub fn number(&self, id: u8) -> Option<u32> {
        number(&self.properties, id)
    }

    /// The text that a property has.
    pub fn text(&self, id: u8) -> Option<&str> {
        text(&self.properties, id)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    backlog: VecDeque<Packet>,
    last_id: u16,
    connack: Connack,
    may_be_cut: bool,
}

impl Client {
    /// A clean session; panics when it is refused.
    pub fn connect(at: SocketAddr, version: Version, id: &str) -> Self {
        Options::new(version, id).connect(at)
    }

    /// A TCP connection on which nothing was sent yet.
    pub fn open(at: SocketAddr, version: Version) -> Self {
        let stream = TcpStream::connect_timeout(&at, DEADLINE).expect("the server accepts");
        Self::on(stream, version)
    }

    /// On a socket that is connected.
    pub fn on(stream: TcpStream, version: Version) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let (input, backlog) = (Vec::new(), VecDeque::new());
        let connack = Connack::default();
        Self { stream, version, input, backlog, last_id: 0, connack, may_be_cut: false }
    }

    /// Sends CONNECT and reads CONNACK.
    pub fn handshake(&mut self, options: &Options) -> Connack {
        self.send(&packet::connect(options));
        match self.packet() {
            Packet::Connack { present, code, properties } => {
                self.connack = Connack { present, code, properties };
            }
            other => panic!("no CONNACK but {other:?}"),
        }
        self.connack.clone()
    }

    /// What the CONNECT was answered.
    pub fn connack(&self) -> &Connack {
        &self.connack
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// A packet id that was not used lately.
    pub fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// The server may be killed: the connection may end within a packet.
    #[must_use]
    pub fn cut_anywhere(mut self) -> Self {
        self.may_be_cut = true;
        self
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends bytes to a server that may have closed the connection already.
    pub fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next packet.
    pub fn packet(&mut self) -> Packet {
        self.maybe_packet().expect("the connection goes on")
    }

    /// The next packet, or the end of the connection.
    pub fn maybe_packet(&mut self) -> Option<Packet> {
        if let Some(packet) = self.backlog.pop_front() {
            return Some(packet);
        }
        let (first, body) = self.frame()?;
        Some(parse(self.version, first, &body))
    }

    /// The next packet as bytes: its first one and what stands behind its length.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((length, start)) = self.length()
                && self.input.len() >= start + length
            {
                let frame: Vec<u8> = self.input.drain(..start + length).collect();
                return Some((frame[0], frame[start..].to_vec()));
            }
            let mut part = [0; 16 << 10];
            match self.stream.read(&mut part) {
                Ok(0) => {
                    let whole = self.input.is_empty() || self.may_be_cut;
                    assert!(whole, "it ends within a packet: {:02x?}", self.input);
                    return None;
                }
                Ok(read) => self.input.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no packet: {error}; before it came {:?}", self.backlog),
            }
        }
    }

    /// Length of the first packet behind its head, and of its head.
    fn length(&self) -> Option<(usize, usize)> {
        let mut length = 0;
        for place in 0..4 {
            let byte = *self.input.get(1 + place)?;
            length |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return Some((length, 2 + place));
            }
        }
        panic!("a length of more than four bytes: {:02x?}", &self.input[..5]);
    }

    /// The first packet for which this holds; what came before it stays.
    pub fn wait(&mut self, what: &str, holds: impl Fn(&Packet) -> bool) -> Packet {
        if let Some(at) = self.backlog.iter().position(&holds) {
            return self.backlog.remove(at).expect("found");
        }
        loop {
            let Some((first, body)) = self.frame() else {
                panic!("the connection ended before {what}; there is {:?}", self.backlog)
            };
            let packet = parse(self.version, first, &body);
            if holds(&packet) {
                return packet;
            }
            self.backlog.push_back(packet);
        }
    }

    /// Waits for an acknowledgement of this kind, 4 to 7; its reason code.
    pub fn wait_ack(&mut self, kind: u8, id: u16) -> u8 {
        let what = format!("an acknowledgement of type {kind} for {id}");
        let found = self.wait(
            &what,
            |packet| matches!(packet, Packet::Ack { kind: k, id: i, .. } if (*k, *i) == (kind, id)),
        );
        let Packet::Ack { reason, .. } = found else { unreachable!("as asked for") };
        reason
    }

    /// Sends an acknowledgement: `kind` 4 to 7.
    pub fn ack(&mut self, kind: u8, id: u16, reason: u8) {
        self.send(&ack(self.version, kind, id, reason));
    }

    /// The next packet, which is a message; it is not acknowledged.
    pub fn unacked(&mut self) -> Message {
        match self.packet() {
            Packet::Publish(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next packet, which is a message; it is acknowledged as its QoS asks for.
    pub fn message(&mut self) -> Message {
        let message = self.unacked();
        match message.qos {
            0 => {}
            1 => self.ack(4, message.id, 0),
            _ => {
                self.ack(5, message.id, 0);
                assert_eq!(self.wait_ack(6, message.id), 0);
                self.ack(7, message.id, 0);
            }
        }
        message
    }

    /// A QoS 0 message that came before something else that was waited for.
    pub fn arrived(&mut self) -> Option<Message> {
        let is_message = |packet: &Packet| matches!(packet, Packet::Publish(m) if m.qos == 0);
        let at = self.backlog.iter().position(is_message)?;
        match self.backlog.remove(at) {
            Some(Packet::Publish(message)) => Some(message),
            _ => None,
        }
    }

    /// The payloads of the next messages, as texts; all are acknowledged.
    pub fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text()).collect()
    }

    /// Publishes and waits until it is acknowledged as its QoS asks for; the last reason code.
    pub fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> u8 {
        self.publish_as(Message::new(topic, payload).qos(qos))
    }

    /// The same, with all that a message may have. An id is put in.
    pub fn publish_as(&mut self, mut message: Message) -> u8 {
        if message.qos > 0 {
            message.id = self.next_id();
        }
        self.send(&packet::publish(self.version, &message));
        match message.qos {
            0 => 0,
            1 => self.wait_ack(4, message.id),
            _ => match self.wait_ack(5, message.id) {
                refused @ 0x80.. => refused,
                _ => {
                    self.ack(6, message.id, 0);
                    self.wait_ack(7, message.id)
                }
            },
        }
    }

    /// Sends a PUBLISH and waits for nothing; its id, put in where it has none.
    pub fn send_message(&mut self, mut message: Message) -> u16 {
        if message.qos > 0 && message.id == 0 {
            message.id = self.next_id();
        }
        self.send(&packet::publish(self.version, &message));
        message.id
    }

    /// Publishes all, many of them unanswered at a time; panics when one is refused.
    pub fn publish_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let part = messages.by_ref().take(UNANSWERED);
            let sent: Vec<(u8, u16)> = part.map(|m| (m.qos, self.send_message(m))).collect();
            for (qos, id) in &sent {
                if *qos > 0 {
                    let reason = self.wait_ack(3 + qos, *id);
                    assert!(reason < 0x80, "PUBLISH {id} was refused: {reason:#04x}");
                }
                if *qos == 2 {
                    self.ack(6, *id, 0);
                }
            }
            for (_, id) in sent.iter().filter(|(qos, _)| *qos == 2) {
                assert_eq!(self.wait_ack(7, *id), 0, "PUBCOMP of {id}");
            }
        }
    }

    /// Subscribes; the codes of the answer.
    pub fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let filters: Vec<_> = filters.iter().map(|(f, qos)| Filter::new(f, *qos)).collect();
        self.subscribe_as(&filters, &[])
    }

    /// Subscribes with all that 5 offers.
    pub fn subscribe_as(&mut self, filters: &[Filter], properties: &[Property]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&packet::subscribe(self.version, id, filters, properties));
        let codes = self.wait_suback(9, id);
        assert_eq!(codes.len(), filters.len(), "one code for each filter");
        codes
    }

    /// Unsubscribes; the codes of the answer (none below 5).
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.next_id();
        self.send(&packet::unsubscribe(self.version, id, filters));
        self.wait_suback(11, id)
    }

    fn wait_suback(&mut self, kind: u8, id: u16) -> Vec<u8> {
        let found = self.wait(
            "SUBACK or UNSUBACK",
            |packet| matches!(packet, Packet::Suback { kind: k, id: i, .. } if (*k, *i) == (kind, id)),
        );
        let Packet::Suback { codes, .. } = found else { unreachable!("as asked for") };
        codes
    }

    /// PINGREQ, and nothing comes before its answer.
    pub fn quiet(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.packet(), Packet::Pingresp);
    }

    /// PINGREQ, and its answer comes, whatever came before.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        self.wait("PINGRESP", |packet| *packet == Packet::Pingresp);
    }

    /// Reads to the end of the connection; the reason code of a DISCONNECT, before which nothing else came.
    pub fn ended(&mut self) -> Option<u8> {
        let reason = match self.maybe_packet()? {
            Packet::Disconnect { reason, .. } => reason,
            other => panic!("no end but {other:?}"),
        };
        assert_eq!(self.maybe_packet(), None, "DISCONNECT is the last packet");
        Some(reason)
    }

    /// All packets up to the end of the connection.
    pub fn rest(&mut self) -> Vec<Packet> {
        std::iter::from_fn(|| self.maybe_packet()).collect()
    }

    /// DISCONNECT, and waits for the end.
    pub fn disconnect(mut self) {
        self.send(&packet::disconnect(self.version, 0, &[]));
        self.rest();
    }

    /// DISCONNECT with a reason code and properties, and waits for the end.
    pub fn disconnect_with(mut self, reason: u8, properties: &[Property]) {
        self.send(&packet::disconnect(self.version, reason, properties));
        self.rest();
    }

    /// Ends the connection without a word.
    pub fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }
}
