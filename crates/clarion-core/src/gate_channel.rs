//! The one cursor `*` of a user's channel as gates share it (design §3, mikudos): which gates may still answer for what
//! was handed out, and what nobody is left to answer for.
//!
//! Invariants: a seq is acked, or handed out (remembered with the gates that may still answer, each once), or neither
//! (not handed out yet, or forgotten); what is unacked stays so until somebody acks it, whatever the gates do. There is
//! no `ack_wait`, no `max_attempts` and no window. Must not know: clocks, streams, modes, bodies, stores; the caller
//! picks the gates, replays what a REQUEST asks for and bounds the memory by [`GateChannel::forget_hand_outs`].

use crate::mode::Member;
use crate::shared_cursor::Acked;
use crate::{Cursor, Epoch, Millis, Seq, mutant};
use std::collections::BTreeMap;

/// Numbers from here on are live-only pushes.
pub const LIVE_IDS: u32 = 1 << 31;

/// So many numbers stored pushes have before they begin anew.
const STORED_IDS: u64 = LIVE_IDS as u64 - 1;

/// The number that gates see: `1 + (seq-1) mod (2^31-1)`.
pub fn msg_id(seq: Seq) -> u32 {
    let below = seq.saturating_sub(1) % STORED_IDS;
    // It is below 2^31.
    1 + below as u32
}

/// What is known of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A gate that it was handed to may still answer.
    Waiting,
    /// It is acked.
    Received,
    /// It is unacked, and nobody is left who may answer.
    Unreceived,
}

/// A hand-out that is remembered.
#[derive(Debug, Clone)]
struct HandOut {
    /// Who may still answer, in the order in which they got it, and how many answers of theirs are due; each once, so
    /// that a gate which asks for the same message again and again costs nothing.
    waiting: Vec<(Member, u32)>,
    /// The last time that somebody got it.
    at: Millis,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct GateChannel {
    epoch: Epoch,
    cursor: Cursor,
    head: Seq,
    hand_outs: BTreeMap<Seq, HandOut>,
    /// Acked since the last write began.
    dirty: bool,
    /// A write is under way.
    flushing: bool,
}

impl GateChannel {
    /// From the stored cursor of a channel whose last seq is `head`; nothing is handed out.
    pub fn new(epoch: Epoch, cursor: Cursor, head: Seq) -> Self {
        Self { epoch, cursor, head, hand_outs: BTreeMap::new(), dirty: false, flushing: false }
    }

    /// The history that it counts in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is acked.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The last committed seq that it knows of.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// A commit of the channel. Returns whether there is something new.
    pub fn raise_head(&mut self, epoch: Epoch, head: Seq) -> bool {
        let raised = epoch == self.epoch && head > self.head;
        if raised {
            self.head = head;
        }
        raised
    }

    /// The seq that a gate means by this number: the newest one up to the head that has it; `None` when no stored push
    /// ever had it.
    pub fn seq_of(&self, msg_id: u32) -> Option<Seq> {
        if msg_id == 0 || msg_id >= LIVE_IDS {
            return None;
        }
        let first = Seq::from(msg_id);
        let rounds = self.head.checked_sub(first)? / STORED_IDS;
        Some(first + rounds * STORED_IDS)
    }

    /// A push (again, after a REQUEST or a new gate) was handed to these gates; empty = nobody was there. A second
    /// hand-out adds its gates to those that still may answer. What is handed out was committed, so it raises the head;
    /// what is acked is not remembered.
    pub fn hand_out(&mut self, seq: Seq, gates: &[Member], now: Millis) {
        if self.cursor.is_acked(seq) {
            return;
        }
        self.head = self.head.max(seq);
        let hand_out =
            self.hand_outs.entry(seq).or_insert(HandOut { waiting: Vec::new(), at: now });
        if mutant!("second_hand_out_forgets_the_first") {
            hand_out.waiting.clear();
        }
        for gate in gates {
            hand_out.at = now;
            match hand_out.waiting.iter_mut().find(|(of, _)| of == gate) {
                Some((_, due)) => *due = due.saturating_add(1),
                None => hand_out.waiting.push((*gate, 1)),
            }
        }
    }

    /// RECEIVED, from whatever gate, or a removal: acks for all, also what this object never handed out (a restart
    /// forgets hand-outs). [`Acked::Unknown`]: the channel has no such seq.
    pub fn received(&mut self, seq: Seq) -> Acked {
        if seq == 0 || seq > self.head {
            return Acked::Unknown;
        }
        if self.cursor.is_acked(seq) {
            return Acked::Before;
        }
        if !mutant!("received_is_still_waited_for") {
            self.hand_outs.remove(&seq);
        }
        self.dirty |= self.cursor.ack(seq);
        Acked::Now
    }

    /// UNRECEIVED, from this gate. One that got the message twice is waited for until it has answered twice: its second
    /// answer must not stand for another gate. Its answer may come on another stream of the same gate than the message went out on:
    /// who is not waited for takes the one off that got it first. Returns whether that was the last one: the message
    /// is parked now. After RECEIVED, or repeated beyond those waited for, it does nothing.
    pub fn unreceived(&mut self, seq: Seq, from: Member) -> bool {
        let Some(hand_out) = self.hand_outs.get_mut(&seq) else { return false };
        if hand_out.waiting.is_empty() {
            return false;
        }
        let at = hand_out.waiting.iter().position(|(gate, _)| *gate == from).unwrap_or(0);
        hand_out.waiting[at].1 -= 1;
        if hand_out.waiting[at].1 == 0 {
            hand_out.waiting.remove(at);
        }
        if mutant!("one_unreceived_parks") {
            hand_out.waiting.clear();
        }
        hand_out.waiting.is_empty()
    }

    /// This gate has gone: what only it could still answer for is parked. Returns these, ascending.
    pub fn gate_left(&mut self, gate: Member) -> Vec<Seq> {
        let mut parked = Vec::new();
        for (seq, hand_out) in &mut self.hand_outs {
            let Some(at) = hand_out.waiting.iter().position(|(of, _)| *of == gate) else {
                continue;
            };
            if !mutant!("who_left_is_waited_for") {
                hand_out.waiting.remove(at);
            }
            if hand_out.waiting.is_empty() {
                parked.push(*seq);
            }
        }
        parked
    }

    /// What became of this seq. What is unacked and not remembered has nobody who is waited for.
    pub fn outcome(&self, seq: Seq) -> Outcome {
        if self.cursor.is_acked(seq) {
            return Outcome::Received;
        }
        match self.hand_outs.get(&seq) {
            Some(hand_out) if !hand_out.waiting.is_empty() => Outcome::Waiting,
            _ => Outcome::Unreceived,
        }
    }

    /// Whether this gate was handed this seq and may still answer.
    pub fn waits_for(&self, seq: Seq, gate: Member) -> bool {
        self.hand_outs.get(&seq).is_some_and(|out| out.waiting.iter().any(|(of, _)| *of == gate))
    }

    /// What is handed out and unacked, and has nobody left to answer or was handed out last before `before` (silence);
    /// ascending, above `above`.
    pub fn parked(&self, above: Seq, before: Millis) -> Vec<Seq> {
        let Some(from) = above.checked_add(1) else { return Vec::new() };
        let hand_outs = self.hand_outs.range(from..);
        let parked = hand_outs.filter(|(_, out)| {
            let silent = out.at < before && !mutant!("silence_is_waited_out");
            out.waiting.is_empty() || silent
        });
        parked.map(|(seq, _)| *seq).collect()
    }

    /// Hand-outs that are remembered.
    pub fn pending(&self) -> usize {
        self.hand_outs.len()
    }

    /// Drops the memory of hand-outs, not the cursor: what is unacked stays unacked, a REQUEST brings it again.
    pub fn forget_hand_outs(&mut self) {
        self.hand_outs = BTreeMap::new();
    }

    /// The channel keeps nothing below `first` any more.
    pub fn trimmed(&mut self, first: Seq) {
        let floor = first.saturating_sub(1);
        self.hand_outs = self.hand_outs.split_off(&first);
        self.dirty |= self.cursor.ack_to(floor);
        self.head = self.head.max(floor);
    }

    /// The channel's history is another one now: everything starts anew at its first kept seq.
    pub fn restart(&mut self, epoch: Epoch, first: Seq, head: Seq) {
        if epoch != self.epoch {
            // A write of the former history may be under way; its end must not be taken for that of a later one.
            let flushing = self.flushing;
            *self = Self::new(epoch, Cursor::at(first.saturating_sub(1)), head);
            (self.dirty, self.flushing) = (true, flushing);
        }
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Begins a write of the cursor; `None` when there is nothing to write or a write is under way.
    pub fn begin_flush(&mut self) -> Option<Cursor> {
        if self.flushing || !self.dirty {
            return None;
        }
        (self.flushing, self.dirty) = (true, false);
        Some(self.cursor.clone())
    }

    /// The write under way is over; what did not succeed is dirty again.
    pub fn end_flush(&mut self, committed: bool) {
        self.dirty |= self.flushing && !committed;
        self.flushing = false;
    }

    /// Nothing dirty, no write under way, no hand-out remembered: it may leave memory.
    pub fn is_idle(&self) -> bool {
        !self.dirty && !self.flushing && self.hand_outs.is_empty()
    }
}

#[cfg(test)]
mod tests;
