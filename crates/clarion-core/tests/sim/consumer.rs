//! Consumers of the queue: they crash, nack, stay silent and answer late. Some cannot ack: what is written to them is in
//! flight for a while, and lost if their connection breaks meanwhile.

use crate::queue::{Given, OUTBOX};
use crate::rng::Rng;
use crate::world::{Event, World};
use crate::{invariant, note};
use clarion_core::Millis;
use clarion_core::mode::Member;
use clarion_core::shared_cursor::{Acked, Leave};
use std::collections::VecDeque;

/// Longest pause between two steps of a consumer.
const PAUSE_MS: u64 = 30;

/// A consumer's side.
#[derive(Default)]
pub(crate) struct QueueClient {
    member: Option<Member>,
    /// Its protocol has no ack.
    mute: bool,
    received: Vec<Given>,
    /// What it said nothing about, or said it already.
    former: Vec<Given>,
    /// Written to it, and when.
    in_flight: VecDeque<(Given, Millis)>,
    calmed: bool,
}

impl QueueClient {
    pub(crate) fn new(c: usize, rng: &mut Rng) -> Self {
        Self { mute: c % 3 == 2 || rng.chance(200), ..Self::default() }
    }

    pub(crate) fn lost(&mut self) {
        *self = Self { mute: self.mute, ..Self::default() };
    }
}

impl World {
    pub(crate) fn queue_client_step(&mut self, c: usize) {
        let i = c / 3;
        let pause = if self.calm { 3 } else { self.rng.range(1, PAUSE_MS) };
        self.after(pause, Event::QueueClient(c));
        let Some(member) = self.queue_clients[c].member else {
            return self.join(c, i);
        };
        self.read_in_flight(c, false);
        let calmed = std::mem::replace(&mut self.queue_clients[c].calmed, self.calm);
        let waits_for_ever = self.node.shared[i].limits.ack_wait_ms.is_none();
        if self.fault(25) || self.calm && !calmed && waits_for_ever {
            return self.consumer_ends(c, i, member);
        }
        let outbox = self.node.shared[i].members.get_mut(&member).expect("it has joined");
        let count = if self.calm { OUTBOX } else { self.rng.index(3) }.min(outbox.len());
        let taken: Vec<_> = outbox.drain(..count).collect();
        if self.queue_clients[c].mute {
            for given in taken {
                self.write(c, i, member, given);
            }
            return self.hand_out(i);
        }
        self.queue_clients[c].received.extend(taken);
        self.hand_out(i);
        while let Some(given) = self.queue_clients[c].received.pop() {
            self.answer(c, i, member, given);
            if self.fault(400) {
                break;
            }
        }
    }

    fn join(&mut self, c: usize, i: usize) {
        let member = self.oracle.next_session();
        note!(self.now, "consumer {c} joins as {member}");
        self.queue_clients[c].member = Some(member);
        self.node.shared[i].members.insert(member, VecDeque::new());
        self.hand_out(i);
    }

    fn consumer_ends(&mut self, c: usize, i: usize, member: Member) {
        let how = if self.fault(600) { Leave::Broken } else { Leave::Whole };
        note!(self.now, "consumer {c} ({member}) ends: {how:?}");
        if how == Leave::Whole {
            self.read_in_flight(c, true);
        }
        self.queue_clients[c].lost();
        self.queue_clients[c].calmed = self.calm;
        let now = self.now;
        let shared = &mut self.node.shared[i];
        shared.members.remove(&member);
        if let Some(cursor) = &mut shared.cursor {
            let ended = cursor.leave(member, now, how);
            let at = (now, shared.limits.settle_ms);
            let back = self.oracle.shared[i].left(cursor.cursor(), member, how, at);
            self.stats.given_back += back;
            self.leases_ended(i, &ended);
        }
        self.hand_out(i);
    }

    /// The write is the ack.
    fn write(&mut self, c: usize, i: usize, member: Member, given: Given) {
        let (epoch, seq, id) = given;
        let now = self.now;
        self.queue_clients[c].in_flight.push_back((given, now));
        let Some(cursor) = &mut self.node.shared[i].cursor else { return };
        if cursor.epoch() == epoch && cursor.wrote(seq, member, now) {
            note!(now, "{seq} ({id}) is written to {member}");
            self.stats.written += 1;
            self.oracle.shared[i].wrote(seq, member, now);
        }
    }

    /// What was written arrives after a while, surely before it counts as acked.
    fn read_in_flight(&mut self, c: usize, all: bool) {
        let i = c / 3;
        let surely = self.node.shared[i].limits.settle_ms - PAUSE_MS - 10;
        while let Some(&((_, seq, id), at)) = self.queue_clients[c].in_flight.front() {
            if !all && self.now - at < surely && self.fault(500) {
                break;
            }
            self.queue_clients[c].in_flight.pop_front();
            note!(self.now, "consumer {c} has read {seq} ({id})");
            self.oracle.shared[i].consumed(id);
        }
    }

    /// The node stops in order: what is in flight arrives.
    pub(crate) fn streams_end(&mut self) {
        for c in 0..self.queue_clients.len() {
            self.read_in_flight(c, true);
        }
    }

    fn answer(&mut self, c: usize, i: usize, member: Member, given: Given) {
        if self.fault(120) {
            // Silence; perhaps it answers when it is too late.
            return self.queue_clients[c].former.push(given);
        }
        if self.fault(200) {
            self.stats.nacked += 1;
            self.queue_clients[c].former.push(given);
            self.nack(i, member, given);
        } else {
            self.consume(i, given);
        }
        if self.fault(300)
            && let Some(former) = self.queue_clients[c].former.pop()
        {
            if self.rng.chance(800) {
                self.stats.late_nacks += 1;
                self.nack(i, member, former);
            } else {
                self.consume(i, former);
            }
        }
    }

    fn nack(&mut self, i: usize, member: Member, (epoch, seq, id): Given) {
        let delay = if self.rng.chance(300) { self.rng.range(1, 60) } else { 0 };
        let now = self.now;
        let Some(cursor) = &mut self.node.shared[i].cursor else { return };
        if cursor.epoch() != epoch {
            return;
        }
        note!(now, "{member} nacks {seq} ({id}) for {delay} ms");
        let ended = cursor.nack(seq, member, now, delay);
        self.oracle.shared[i].taken_off(seq, member);
        self.leases_ended(i, &[ended]);
        self.hand_out(i);
    }

    fn consume(&mut self, i: usize, (epoch, seq, id): Given) {
        let Some(cursor) = &mut self.node.shared[i].cursor else { return };
        if cursor.epoch() != epoch {
            return;
        }
        let acked = cursor.ack(seq);
        note!(self.now, "ack of {seq} ({id}) on shared cursor {i}: {acked:?}");
        invariant!(acked != Acked::Unknown, "what was handed out can be acked", "{seq}");
        self.oracle.shared[i].acked(seq, id);
        self.hand_out(i);
    }
}
