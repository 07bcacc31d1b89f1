//! A cursor that several members share: each message to one set of members at a time, under a lease (design §1.6).
//!
//! Invariants: a seq is in exactly one place: acked, leased, settling (written to a member that cannot ack), back (to be
//! handed out again), given back (the same, by a member that broke), dying (on its way to the dead list) or not handed
//! out yet (≥ `next`); so there is at most one unexpired lease per seq. Seqs are handed out first in ascending order. What
//! is leased, back and dying never exceeds `max_unacked`. Leases and what settles are memory only: a restart lapses them.
//! Must not know: clocks, sessions, bodies, stores; the caller asks [`SharedCursor::upcoming`], reads the message, picks
//! members and calls [`SharedCursor::lease`].

use crate::cursor::RUNS_MAX;
use crate::mode::Member;
use crate::{Cursor, Epoch, Millis, Seq, mutant};
use given_back::GivenBack;
use settling::Settling;
use std::collections::{BTreeMap, BTreeSet};

mod given_back;
mod settling;
mod written;

/// Bounds of a shared cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most seqs that are handed out and not acked.
    pub max_unacked: usize,
    /// How long a lease lasts; `None` = until its members end (MQTT `$share`, gates).
    pub ack_wait_ms: Option<u64>,
    /// A message that came back so often dies; `None` = never.
    pub max_attempts: Option<u32>,
    /// What was written to a member that cannot ack counts as acked after this time, or when it leaves whole; earlier
    /// only when more than 262,144 stretches of seqs (for members that take turns: messages) were written within it.
    pub settle_ms: u64,
    /// What came back is handed out before anything new; else they take turns.
    pub oldest_first: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_unacked: 1_000,
            ack_wait_ms: Some(30_000),
            max_attempts: Some(10),
            settle_ms: 30_000,
            oldest_first: false,
        }
    }
}

/// One hand-out that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What was handed out.
    pub seq: Seq,
    /// Who still has it: a nack and an end take a member off, the last one ends the lease.
    pub members: Vec<Member>,
    /// When it lapses.
    pub deadline: Option<Millis>,
    /// Which hand-out of this message it is, from 1.
    pub attempts: u32,
}

/// What an ack did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// It is acked now.
    Now,
    /// It was acked before.
    Before,
    /// It was never handed out; nothing changed.
    Unknown,
}

/// How a member ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It ended in order: what was written to it is acked, what it only holds a lease on comes back.
    Whole,
    /// Its connection broke or timed out: what was written to it within the last `settle_ms` comes back too.
    Broken,
}

/// What became of a message whose lease ended without an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// This member had no lease on it, or others of its set still have one.
    Nothing,
    /// It will be handed out again.
    Back(Seq),
    /// It was handed out too often: the caller moves it to the dead list, then acks it.
    Dead(Seq),
}

/// A message that came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Back {
    attempts: u32,
    /// Not before this; then it is in `delayed`, else in `ready`.
    due: Millis,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SharedCursor {
    epoch: Epoch,
    cursor: Cursor,
    limits: Limits,
    /// The first seq that was never handed out by this object.
    next: Seq,
    head: Seq,
    leases: BTreeMap<Seq, Lease>,
    deadlines: BTreeSet<(Millis, Seq)>,
    held: BTreeMap<Member, BTreeSet<Seq>>,
    back: BTreeMap<Seq, Back>,
    ready: BTreeSet<Seq>,
    delayed: BTreeSet<(Millis, Seq)>,
    dying: BTreeSet<Seq>,
    settling: Settling,
    given_back: GivenBack,
    /// The last hand-out was of a message that came back: a new one has its turn.
    turn_of_new: bool,
    /// Acked since the last write began.
    dirty: bool,
    /// A write is under way.
    flushing: bool,
}

impl SharedCursor {
    /// From the stored cursor of a channel whose last seq is `head`; nothing is leased.
    pub fn new(epoch: Epoch, cursor: Cursor, head: Seq, limits: Limits) -> Self {
        let next = if mutant!("shared_cursor_starts_at_its_top") {
            cursor.top() + 1
        } else {
            cursor.next_unacked(1)
        };
        // Every run of the cursor lies between two unacked seqs, so this bounds its runs too.
        let limits = Limits { max_unacked: limits.max_unacked.min(RUNS_MAX - 1), ..limits };
        Self {
            epoch,
            cursor,
            limits,
            next,
            head,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            held: BTreeMap::new(),
            back: BTreeMap::new(),
            ready: BTreeSet::new(),
            delayed: BTreeSet::new(),
            dying: BTreeSet::new(),
            settling: Settling::default(),
            given_back: GivenBack::default(),
            turn_of_new: false,
            dirty: false,
            flushing: false,
        }
    }

    /// The history that it counts in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What is acked.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The first seq that was never handed out.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The last committed seq that it knows of.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// What counts against `max_unacked`: leased, back and dying.
    pub fn unacked(&self) -> usize {
        self.leases.len() + self.back.len() + self.dying.len()
    }

    /// The lease of this seq, if it is handed out.
    pub fn lease_of(&self, seq: Seq) -> Option<&Lease> {
        self.leases.get(&seq)
    }

    /// Which hand-out of this seq is under way, from 1; 0 if it is not leased.
    pub fn attempts_of(&self, seq: Seq) -> u32 {
        self.leases.get(&seq).map_or(0, |lease| lease.attempts)
    }

    /// How many leases a member has.
    pub fn held_by(&self, member: Member) -> usize {
        self.held.get(&member).map_or(0, BTreeSet::len)
    }

    /// A commit of the channel. Returns whether there is more to hand out.
    pub fn raise_head(&mut self, epoch: Epoch, head: Seq) -> bool {
        let raised = epoch == self.epoch && head > self.head;
        if raised {
            self.head = head;
        }
        raised
    }

    /// The seq to hand out now, if there is one: new ones ascending and those that came back, in turns, so that
    /// neither starves the other, or the oldest first if so limited. It hands out nothing: it names the same seq until [`Self::lease`], [`Self::skip`] or
    /// [`Self::trimmed`] took it.
    pub fn upcoming(&mut self, now: Millis) -> Option<Seq> {
        while let Some(&(due, seq)) = self.delayed.first().filter(|(due, _)| *due <= now) {
            self.delayed.remove(&(due, seq));
            self.ready.insert(seq);
        }
        self.next = self.cursor.next_unacked(self.next);
        let fresh = Some(self.next).filter(|next| self.is_fresh(*next));
        let given_back = self.given_back.first().filter(|_| self.has_room());
        let again = [self.ready.first().copied(), given_back].into_iter().flatten().min();
        if self.turn_of_new && !self.limits.oldest_first {
            fresh.or(again)
        } else {
            again.or(fresh)
        }
    }

    /// Hands `seq`, which [`Self::upcoming`] named, to these members. Returns whether it did: not when it is leased,
    /// acked, dying, not its turn yet, or when there is no member.
    pub fn lease(&mut self, seq: Seq, members: &[Member], now: Millis) -> bool {
        self.lease_for(seq, members, now, self.limits.ack_wait_ms)
    }

    /// The same with a time of its own; `None` = until its members end.
    pub fn lease_for(
        &mut self,
        seq: Seq,
        members: &[Member],
        now: Millis,
        ack_wait_ms: Option<u64>,
    ) -> bool {
        if members.is_empty() {
            return false;
        }
        let attempts = if self.ready.remove(&seq) {
            self.back.remove(&seq).map_or(0, |back| back.attempts)
        } else if self.given_back.contains(seq) && self.has_room() {
            if !mutant!("given_back_for_ever") {
                self.given_back.remove(seq);
            }
            1
        } else if self.is_fresh(seq) {
            0
        } else {
            return false;
        };
        // Only a new one has no hand-out behind it.
        self.turn_of_new = attempts > 0;
        self.next = self.next.max(seq + 1);
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup();
        for member in &members {
            self.held.entry(*member).or_default().insert(seq);
        }
        let deadline = ack_wait_ms.map(|wait| now.saturating_add(wait));
        self.deadlines.extend(deadline.map(|at| (at, seq)));
        let attempts = attempts.saturating_add(1);
        self.leases.insert(seq, Lease { seq, members, deadline, attempts });
        true
    }

    /// Acks a seq that is or was handed out, whoever acks it: the first one acks for all. Also what the caller calls
    /// when a dead one is in the dead list.
    pub fn ack(&mut self, seq: Seq) -> Acked {
        if self.cursor.is_acked(seq) {
            return Acked::Before;
        }
        if seq >= self.next {
            return Acked::Unknown;
        }
        self.acknowledge(seq);
        Acked::Now
    }

    /// Acks by a lease that the caller has proved, though this object may not have given it: after a restart those who
    /// were handed messages before still ack them. What lies further ahead than leases can reach is not taken.
    pub fn ack_early(&mut self, seq: Seq) -> Acked {
        if seq < self.next || self.cursor.is_acked(seq) {
            return self.ack(seq);
        }
        let ahead = self.cursor.unacked(seq) - self.cursor.unacked(self.next - 1);
        let reachable = seq <= self.head && ahead <= self.limits.max_unacked as u64;
        if !reachable || !self.cursor.ack(seq) {
            return Acked::Unknown;
        }
        self.dirty = true;
        Acked::Now
    }

    /// Whether a seq may still be handed out: it is neither acked, nor leased, nor on its way to the dead list, nor
    /// written to somebody.
    pub fn may_come(&self, seq: Seq) -> bool {
        if seq >= self.next {
            !self.cursor.is_acked(seq)
        } else {
            self.back.contains_key(&seq) || self.given_back.contains(seq)
        }
    }

    /// The caller found that `seq`, which [`Self::upcoming`] named, is nothing to hand out (expired, erased, hidden):
    /// it counts as acked.
    pub fn skip(&mut self, seq: Seq) {
        if seq <= self.next && seq <= self.head {
            self.acknowledge(seq);
        }
    }

    /// The channel keeps nothing below `first` any more.
    pub fn trimmed(&mut self, first: Seq) {
        let floor = first.saturating_sub(1);
        let gone: Vec<Seq> = [
            self.leases.range(..first).map(|(seq, _)| *seq).collect::<Vec<_>>(),
            self.back.range(..first).map(|(seq, _)| *seq).collect(),
            self.dying.range(..first).copied().collect(),
        ]
        .concat();
        for seq in gone {
            self.forget(seq);
        }
        self.given_back.cut_below(first);
        self.dirty |= self.cursor.ack_to(floor);
        self.next = self.next.max(first);
    }

    /// The channel's history is another one now: everything starts anew at its first kept seq.
    pub fn restart(&mut self, epoch: Epoch, first: Seq, head: Seq) {
        if epoch != self.epoch {
            // A write of the former history may be under way; its end must not be taken for that of a later one.
            let flushing = self.flushing;
            *self = Self::new(epoch, Cursor::at(first.saturating_sub(1)), head, self.limits);
            (self.dirty, self.flushing) = (true, flushing);
        }
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether a write is under way.
    pub fn is_flushing(&self) -> bool {
        self.flushing
    }

    /// Nothing is with anybody, delayed or unwritten: all that is lost with its memory is how often what came back was
    /// handed out.
    pub fn is_resting(&self) -> bool {
        let with_somebody =
            !self.leases.is_empty() || !self.dying.is_empty() || self.settling() > 0;
        !self.dirty && !self.flushing && !with_somebody && self.delayed.is_empty()
    }

    /// Nothing is unacked or unwritten: it may leave memory.
    pub fn is_idle(&self) -> bool {
        !self.dirty && !self.flushing && self.unacked() == 0 && self.settling() == 0
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

    /// This member refuses a message; it is handed out again, not before `delay_ms` have passed.
    pub fn nack(&mut self, seq: Seq, member: Member, now: Millis, delay_ms: u64) -> Ended {
        let Some(lease) = self.leases.get_mut(&seq) else {
            return Ended::Nothing;
        };
        // A late nack of a former holder must not end the lease that somebody else has now.
        if !lease.members.contains(&member) && !mutant!("two_leases") {
            return Ended::Nothing;
        }
        lease.members.retain(|m| *m != member && !mutant!("two_leases"));
        let last = lease.members.is_empty();
        self.let_go(member, seq);
        if last { self.end(seq, now.saturating_add(delay_ms), now) } else { Ended::Nothing }
    }

    /// This member has ended: what only it had a lease on is handed out again; what was written to it is acked or comes
    /// back, by how it ended. Of what comes back of that, each stretch of seqs is named by its first one only.
    pub fn leave(&mut self, member: Member, now: Millis, how: Leave) -> Vec<Ended> {
        let held = self.held.remove(&member).unwrap_or_default();
        let mut ended = Vec::new();
        for seq in held {
            let Some(lease) = self.leases.get_mut(&seq) else { continue };
            lease.members.retain(|m| *m != member);
            if lease.members.is_empty() {
                ended.push(self.end(seq, now, now));
            }
        }
        ended.extend(self.end_written(member, now, how).into_iter().map(Ended::Back));
        ended
    }

    /// Ends the leases whose time is over. Returns what became of each.
    pub fn expire(&mut self, now: Millis) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some(&(deadline, seq)) = self.deadlines.first().filter(|(at, _)| *at <= now) {
            self.deadlines.remove(&(deadline, seq));
            if mutant!("lease_not_lapsed") {
                continue;
            }
            ended.push(self.end(seq, now, now));
        }
        ended
    }

    /// When [`Self::expire`], [`Self::settle`] or [`Self::upcoming`] may have something to do that it does not have now.
    pub fn wakes_at(&self) -> Option<Millis> {
        let lapse = self.deadlines.first().map(|(at, _)| *at);
        let due = self.delayed.first().map(|(at, _)| *at);
        [lapse, due, self.settling.wakes_at()].into_iter().flatten().min()
    }

    /// The lease of `seq` is over without an ack.
    fn end(&mut self, seq: Seq, due: Millis, now: Millis) -> Ended {
        let Some(lease) = self.drop_lease(seq) else {
            return Ended::Nothing;
        };
        let enough = self.limits.max_attempts.is_some_and(|max| {
            if mutant!("dies_too_late") { lease.attempts > max } else { lease.attempts >= max }
        });
        if enough {
            self.dying.insert(seq);
            return Ended::Dead(seq);
        }
        self.back.insert(seq, Back { attempts: lease.attempts, due });
        if due <= now {
            self.ready.insert(seq);
        } else {
            self.delayed.insert((due, seq));
        }
        Ended::Back(seq)
    }

    fn drop_lease(&mut self, seq: Seq) -> Option<Lease> {
        let lease = self.leases.remove(&seq)?;
        if let Some(deadline) = lease.deadline {
            self.deadlines.remove(&(deadline, seq));
        }
        for member in &lease.members {
            self.let_go(*member, seq);
        }
        Some(lease)
    }

    fn let_go(&mut self, member: Member, seq: Seq) {
        if let Some(held) = self.held.get_mut(&member) {
            held.remove(&seq);
            if held.is_empty() {
                self.held.remove(&member);
            }
        }
    }

    /// `seq` is acked. Where the cursor has no room for one more run it is kept as written until there is.
    fn acknowledge(&mut self, seq: Seq) {
        let settles = !self.forget(seq) && seq < self.next;
        let acked = self.cursor.ack(seq);
        self.dirty |= acked;
        if !acked && !settles && !self.cursor.is_acked(seq) {
            self.next = self.next.max(seq + 1);
            self.settling.add(None, (seq, seq), 0);
        }
    }

    /// Takes a seq out of every place but the cursor and what settles. Returns whether it was in one.
    fn forget(&mut self, seq: Seq) -> bool {
        let back = self.back.remove(&seq);
        if let Some(back) = &back {
            self.ready.remove(&seq);
            self.delayed.remove(&(back.due, seq));
        }
        let leased = self.drop_lease(seq).is_some();
        let dying = self.dying.remove(&seq);
        self.given_back.remove(seq) || back.is_some() || leased || dying
    }

    /// Whether one more seq may be handed out.
    fn has_room(&self) -> bool {
        self.unacked() < self.limits.max_unacked && self.settling.has_room()
    }

    /// Whether `seq` may be handed out for the first time. What was given back comes first when it is more than the
    /// window: else members that break would pile it up for ever.
    fn is_fresh(&self, seq: Seq) -> bool {
        let waits = self.given_back.len() >= self.limits.max_unacked as u64;
        seq == self.next
            && seq <= self.head
            && !self.cursor.is_acked(seq)
            && self.has_room()
            && !waits
    }
}

#[cfg(test)]
mod tests;
