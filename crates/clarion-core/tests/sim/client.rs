//! Clients of devices: they read slowly, stall, disconnect, ack late, twice or never, and come back with old tokens.

use crate::node::{Frame, Sid};
use crate::note;
use crate::rng::Rng;
use crate::world::{Chan, Dev, Event, World};
use clarion_core::window::Numbering;
use clarion_core::{Epoch, Millis, Seq};
use std::collections::BTreeMap;

/// What an ack covers.
pub(crate) type Range = (Chan, Epoch, Seq, Seq);

/// How a client acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Everything that it was given up to here, by token.
    Cumulative,
    /// Message by message, in any order.
    Single,
    /// By the numbers of a window.
    Numbered(Numbering),
}

#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) sid: Sid,
    stalled_until: Millis,
    /// Received and not acked: ranges, or numbers.
    ranges: Vec<Range>,
    numbers: Vec<u64>,
    token: BTreeMap<Chan, Range>,
}

pub(crate) struct Client {
    pub(crate) style: Style,
    pub(crate) connections: Vec<Connection>,
    tokens: Vec<BTreeMap<Chan, Range>>,
    away_until: Millis,
    pub(crate) patience: u64,
}

/// Tokens that a client may come back with.
const TOKENS_KEPT: usize = 6;

impl Client {
    pub(crate) fn new(dev: Dev, memory: bool, rng: &mut Rng) -> Self {
        let style = match dev {
            1 | 4 => Style::Single,
            // Numbers are promised for what is on disk.
            5 if memory => Style::Single,
            5 if rng.chance(500) => {
                let last = rng.range(4, 9);
                Style::Numbered(Numbering { last, wraps: true, max_unacked: 3 })
            }
            5 => Style::Numbered(Numbering::gap_free(rng.range(2, 8) as usize)),
            _ => Style::Cumulative,
        };
        Self {
            style,
            connections: Vec::new(),
            tokens: Vec::new(),
            away_until: 0,
            patience: rng.range(5, 40),
        }
    }

    pub(crate) fn lost_all(&mut self) {
        self.connections.clear();
    }

    pub(crate) fn lost(&mut self, sid: Sid) {
        self.connections.retain(|c| c.sid != sid);
    }

    pub(crate) fn waits_for_nothing(&self) -> bool {
        self.connections.iter().all(|c| c.ranges.is_empty() && c.numbers.is_empty())
    }
}

impl World {
    pub(crate) fn client_step(&mut self, dev: Dev) {
        let most = if matches!(self.clients[dev].style, Style::Numbered(_)) { 1 } else { 3 };
        let wants = match self.clients[dev].connections.len() {
            0 => self.calm || self.now >= self.clients[dev].away_until,
            n => n < most && self.fault(25),
        };
        if wants {
            let token = self.old_token(dev);
            let sid = self.attach(dev, token);
            let connection = Connection { sid, ..Connection::default() };
            self.clients[dev].connections.push(connection);
        }
        let sids: Vec<Sid> = self.clients[dev].connections.iter().map(|c| c.sid).collect();
        for sid in sids {
            self.connection_step(dev, sid);
        }
        let patience = if self.calm { 4 } else { self.clients[dev].patience };
        let pause = self.rng.range(1, patience);
        self.after(pause, Event::Client(dev));
    }

    /// The newest token, an old one, or none.
    fn old_token(&mut self, dev: Dev) -> Vec<Range> {
        let tokens = &self.clients[dev].tokens;
        if tokens.is_empty() || self.rng.chance(300) {
            return Vec::new();
        }
        let newest = tokens.len() - 1;
        let i = if self.rng.chance(500) { newest } else { self.rng.index(tokens.len()) };
        self.clients[dev].tokens[i].values().copied().collect()
    }

    fn connection(&mut self, dev: Dev, sid: Sid) -> &mut Connection {
        let mut all = self.clients[dev].connections.iter_mut();
        all.find(|c| c.sid == sid).expect("a connection that the client has")
    }

    fn connection_step(&mut self, dev: Dev, sid: Sid) {
        if self.fault(15) {
            return self.disconnect(dev, sid);
        }
        let (now, calm) = (self.now, self.calm);
        if self.connection(dev, sid).stalled_until > now && !calm {
            return;
        }
        if self.fault(15) {
            self.connection(dev, sid).stalled_until = now + self.rng.range(50, 500);
            note!(now, "session {sid} stalls");
            return;
        }
        let count = if self.calm { 50 } else { self.rng.range(0, 4) };
        for _ in 0..count {
            let Some(frame) = self.next_frame(sid) else { break };
            self.receive(dev, sid, frame);
        }
        self.pump(sid);
        let acks = if self.calm { 50 } else { self.rng.range(0, 3) };
        for _ in 0..acks {
            self.ack_something(dev, sid);
        }
    }

    fn disconnect(&mut self, dev: Dev, sid: Sid) {
        note!(self.now, "session {sid} disconnects");
        self.detach(sid);
        self.clients[dev].lost(sid);
        let away = self.rng.range(0, 150);
        self.clients[dev].away_until = self.now + away;
    }

    fn receive(&mut self, dev: Dev, sid: Sid, frame: Frame) {
        self.oracle.received(dev, &frame, self.clients[dev].style);
        let style = self.clients[dev].style;
        let connection = self.connection(dev, sid);
        let (range, number) = match frame {
            Frame::Message { chan, epoch, seq, start, number, .. } => match style {
                Style::Cumulative => ((chan, epoch, start, seq), number),
                _ => ((chan, epoch, seq, seq), number),
            },
            Frame::Gap { chan, epoch, from, to, .. } => ((chan, epoch, from, to), None),
        };
        match number {
            Some(number) => connection.numbers.push(number),
            None if range.2 <= range.3 => connection.ranges.push(range),
            None => {}
        }
        if style == Style::Cumulative && range.2 <= range.3 {
            connection.token.insert(range.0, range);
            let token = connection.token.clone();
            let tokens = &mut self.clients[dev].tokens;
            tokens.push(token);
            if tokens.len() > TOKENS_KEPT {
                tokens.remove(0);
            }
        }
    }

    fn ack_something(&mut self, dev: Dev, sid: Sid) {
        // Where numbers come again, a second ack would be one of another message.
        let once =
            matches!(self.clients[dev].style, Style::Numbered(Numbering { wraps: true, .. }));
        let twice = self.fault(100) && !once;
        let (random, cumulative) =
            (self.rng.next() as usize, self.clients[dev].style == Style::Cumulative);
        let connection = self.connection(dev, sid);
        if !connection.numbers.is_empty() {
            let i = random % connection.numbers.len();
            let number = connection.numbers[i];
            if !twice {
                connection.numbers.remove(i);
            }
            self.oracle.number_acked(dev, number);
            return self.ack_number(dev, number);
        }
        if connection.ranges.is_empty() {
            return;
        }
        let i = random % connection.ranges.len();
        let range = connection.ranges[i];
        if !twice {
            if cumulative {
                connection.ranges.retain(|r| r.0 != range.0 || r.1 != range.1 || r.3 > range.3);
            } else {
                connection.ranges.remove(i);
            }
        }
        self.ack(dev, range);
    }
}
