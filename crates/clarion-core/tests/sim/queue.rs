//! The queue: two shared cursors on one channel, their consumers (who crash, nack, stay silent and answer late), and
//! the model of who may hold what.

use crate::commit::{Job, Then};
use crate::rng::Rng;
use crate::store::{Reader, Unit};
use crate::world::{Chan, DEAD, Event, QUEUE, World};
use crate::{invariant, note};
use clarion_core::mode::{Candidate, Member, Mode, pick};
use clarion_core::port::store::Move;
use clarion_core::shared_cursor::{Acked, Ended, Leave, Limits, SharedCursor};
use clarion_core::{Cursor, Epoch, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Shared cursors on the queue; each has three consumers.
pub(crate) const SHARED: usize = 2;
const OUTBOX: usize = 3;

type Given = (Epoch, Seq, u64);

pub(crate) struct SharedNode {
    cursor: Option<SharedCursor>,
    mode: Mode,
    limits: Limits,
    members: BTreeMap<Member, VecDeque<Given>>,
}

impl SharedNode {
    pub(crate) fn both(rng: &mut Rng) -> Vec<Self> {
        let new = |mode, limits| Self { cursor: None, mode, limits, members: BTreeMap::new() };
        let unify = Limits {
            max_unacked: rng.range(3, 8) as usize,
            ack_wait_ms: Some(rng.range(40, 200)),
            max_attempts: Some(rng.range(2, 4) as u32),
            ..Limits::default()
        };
        let sets = Limits {
            max_unacked: rng.range(2, 6) as usize,
            ack_wait_ms: rng.chance(500).then_some(rng.range(40, 200)),
            max_attempts: None,
            ..Limits::default()
        };
        let mode = if rng.chance(500) { Mode::Every } else { Mode::Group };
        vec![new(Mode::Unify, unify), new(mode, sets)]
    }
}

/// A consumer's side.
#[derive(Default)]
pub(crate) struct QueueClient {
    member: Option<Member>,
    received: Vec<Given>,
    /// What it said nothing about, or said it already.
    former: Vec<Given>,
    calmed: bool,
}

/// What must hold for one shared cursor.
#[derive(Default)]
pub(crate) struct SharedModel {
    epoch: Epoch,
    stored: Cursor,
    leases: BTreeMap<Seq, (BTreeSet<Member>, Option<Millis>)>,
    attempts: BTreeMap<Seq, u32>,
    acked: BTreeSet<Seq>,
    /// Consumed, in the dead list, or expired.
    finished: BTreeSet<u64>,
}

impl SharedModel {
    pub(crate) fn node_restarted(&mut self) {
        self.leases.clear();
        self.attempts.clear();
        self.acked.clear();
    }

    fn begins(&mut self, epoch: Epoch, stored: Cursor) {
        self.node_restarted();
        (self.epoch, self.stored) = (epoch, stored);
    }

    fn handed_out(&mut self, limits: &Limits, seq: Seq, members: &[Member], now: Millis) {
        let leased = self.leases.get(&seq).filter(|(_, end)| end.is_none_or(|end| end > now));
        invariant!(
            leased.is_none(),
            "at most one unexpired lease",
            "{seq} is with {leased:?}, now {members:?} at {now}"
        );
        let repeated = self.stored.is_acked(seq) || self.acked.contains(&seq);
        invariant!(!repeated, "nothing acked is handed out again", "{seq} to {members:?}");
        if !self.attempts.contains_key(&seq) {
            let last = self.attempts.last_key_value().map_or(0, |(last, _)| *last);
            invariant!(seq > last, "first hand-outs are in order", "{seq} after {last}");
        }
        let attempts = self.attempts.entry(seq).or_default();
        *attempts += 1;
        let enough = limits.max_attempts.is_none_or(|max| *attempts <= max);
        invariant!(enough, "attempts are bounded", "{attempts} of {seq}");
        let unacked = self.attempts.keys().filter(|seq| !self.acked.contains(seq)).count();
        invariant!(unacked <= limits.max_unacked, "the window is bounded", "{unacked}");
        let end = limits.ack_wait_ms.map(|wait| now + wait);
        self.leases.insert(seq, (members.iter().copied().collect(), end));
    }

    fn taken_off(&mut self, seq: Seq, member: Member) {
        if let Some((members, _)) = self.leases.get_mut(&seq) {
            members.remove(&member);
            if members.is_empty() {
                self.leases.remove(&seq);
            }
        }
    }

    fn left(&mut self, member: Member) {
        for seq in self.leases.keys().copied().collect::<Vec<_>>() {
            self.taken_off(seq, member);
        }
    }

    pub(crate) fn trimmed(&mut self, ids: impl Iterator<Item = u64>) {
        self.finished.extend(ids);
    }

    /// The node's cursor has passed everything below `first`.
    fn passed(&mut self, first: Seq) {
        self.leases = self.leases.split_off(&first);
        self.acked.extend(1..first);
    }

    fn acked(&mut self, seq: Seq, id: u64) {
        self.leases.remove(&seq);
        self.acked.insert(seq);
        self.finished.insert(id);
    }
}

impl World {
    pub(crate) fn queue_tick(&mut self) {
        for i in 0..SHARED {
            self.load_shared(i);
            let now = self.now;
            let Some(cursor) = &mut self.node.shared[i].cursor else { continue };
            let ended = cursor.expire(now);
            self.stats.lapsed += ended.len() as u64;
            self.leases_ended(i, &ended);
            self.hand_out(i);
        }
    }

    /// Takes the cursor up from the store, also when the channel has another history.
    fn load_shared(&mut self, i: usize) {
        let head = self.store.log(QUEUE).head();
        let shared = &mut self.node.shared[i];
        if head.epoch == 0 {
            return;
        }
        if let Some(cursor) = shared.cursor.as_mut() {
            if cursor.epoch() != head.epoch {
                cursor.restart(head.epoch, head.first, head.last);
                self.oracle.shared[i].begins(head.epoch, Cursor::at(head.first - 1));
            }
            return;
        }
        if self.rng.chance(self.config.read_fails) {
            return;
        }
        let stored = self.store.cursor(Reader::Shared(i), QUEUE);
        let stored = stored.filter(|(epoch, _)| *epoch == head.epoch).map(|(_, cursor)| cursor);
        let stored = stored.unwrap_or(Cursor::at(head.first - 1));
        note!(self.now, "shared cursor {i} goes on from {stored:?} of {head:?}");
        self.oracle.shared[i].begins(head.epoch, stored.clone());
        shared.cursor = Some(SharedCursor::new(head.epoch, stored, head.last, shared.limits));
    }

    pub(crate) fn queue_hint(&mut self, epoch: Epoch, seq: Seq) {
        for i in 0..SHARED {
            if let Some(cursor) = &mut self.node.shared[i].cursor
                && cursor.raise_head(epoch, seq)
            {
                self.hand_out(i);
            }
        }
    }

    fn hand_out(&mut self, i: usize) {
        self.load_shared(i);
        loop {
            let now = self.now;
            let SharedNode { cursor: Some(cursor), mode, limits, members } =
                &mut self.node.shared[i]
            else {
                return;
            };
            let candidates: Vec<_> = members
                .iter()
                .filter(|(_, outbox)| outbox.len() < OUTBOX)
                .map(|(member, _)| Candidate {
                    member: *member,
                    group: ["a", "b"][(member % 2) as usize],
                    rank: *member,
                })
                .collect();
            if candidates.is_empty() {
                return;
            }
            let Some(seq) = cursor.upcoming(now) else { return };
            let log = self.store.log(QUEUE);
            if seq < log.first {
                note!(now, "shared cursor {i}: {seq} is trimmed below {}", log.first);
                cursor.trimmed(log.first);
                self.oracle.shared[i].passed(log.first);
                continue;
            }
            let rec = *log.rec(seq).expect("it is below the head");
            if rec.expired(now) {
                cursor.skip(seq);
                self.oracle.shared[i].acked(seq, rec.id);
                continue;
            }
            let chosen = pick(*mode, &candidates, self.rng.next());
            let leased = cursor.lease(seq, &chosen, now);
            invariant!(leased, "what is upcoming can be leased", "{seq} to {chosen:?}");
            note!(now, "shared cursor {i}: {seq} ({}) to {chosen:?}", rec.id);
            self.stats.handed_out += 1;
            self.oracle.shared[i].handed_out(limits, seq, &chosen, now);
            let epoch = cursor.epoch();
            for member in chosen {
                members.entry(member).or_default().push_back((epoch, seq, rec.id));
            }
        }
    }

    fn leases_ended(&mut self, i: usize, ended: &[Ended]) {
        for end in ended {
            if let Ended::Dead(seq) = *end {
                self.stats.died += 1;
                let epoch = self.node.shared[i].cursor.as_ref().map_or(0, SharedCursor::epoch);
                self.bury(i, epoch, seq);
            }
        }
    }

    /// A dead message goes to the dead list, then it is acked.
    pub(crate) fn bury(&mut self, i: usize, epoch: Epoch, seq: Seq) {
        let log = self.store.log(QUEUE);
        let Some(rec) = log.rec(seq).filter(|_| log.epoch == epoch) else { return };
        let id = rec.id * SHARED as u64 + i as u64;
        let unit = Unit::Publish { chan: DEAD, id, expires: None };
        self.submit(vec![Job { unit, then: Then::Dead { shared: i, epoch, seq } }]);
    }

    pub(crate) fn buried(&mut self, i: usize, epoch: Epoch, seq: Seq) {
        let Some(cursor) = &mut self.node.shared[i].cursor else { return };
        if cursor.epoch() == epoch && self.store.log(QUEUE).epoch == epoch {
            cursor.ack(seq);
            let rec = self.store.log(QUEUE).rec(seq).expect("it was there");
            self.oracle.shared[i].acked(seq, rec.id);
            self.hand_out(i);
        }
    }

    pub(crate) fn flush_shared(&mut self) {
        for i in 0..SHARED {
            let Some(cursor) = &mut self.node.shared[i].cursor else { continue };
            let epoch = cursor.epoch();
            if let Some(acked) = cursor.begin_flush() {
                let moves =
                    vec![Move { channel: self.addresses[QUEUE].clone(), epoch, cursor: acked }];
                let unit = Unit::Ack { reader: Reader::Shared(i), moves };
                self.submit(vec![Job { unit, then: Then::SharedFlush(i) }]);
            }
        }
    }

    pub(crate) fn shared_flushed(&mut self, i: usize, committed: bool) {
        if let Some(cursor) = &mut self.node.shared[i].cursor {
            cursor.end_flush(committed);
        }
    }

    pub(crate) fn queue_client_step(&mut self, c: usize) {
        let i = c / 3;
        let pause = if self.calm { 3 } else { self.rng.range(1, 30) };
        self.after(pause, Event::QueueClient(c));
        let Some(member) = self.queue_clients[c].member else {
            return self.join(c, i);
        };
        let calmed = std::mem::replace(&mut self.queue_clients[c].calmed, self.calm);
        let waits_for_ever = self.node.shared[i].limits.ack_wait_ms.is_none();
        if self.fault(25) || self.calm && !calmed && waits_for_ever {
            return self.consumer_ends(c, i, member);
        }
        let outbox = self.node.shared[i].members.get_mut(&member).expect("it has joined");
        let count = if self.calm { OUTBOX } else { self.rng.index(3) }.min(outbox.len());
        let taken: Vec<_> = outbox.drain(..count).collect();
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
        note!(self.now, "consumer {c} ({member}) ends");
        self.queue_clients[c] = QueueClient { calmed: self.calm, ..QueueClient::default() };
        self.node.shared[i].members.remove(&member);
        self.oracle.shared[i].left(member);
        let now = self.now;
        if let Some(cursor) = &mut self.node.shared[i].cursor {
            let ended = cursor.leave(member, now, Leave::Broken);
            self.leases_ended(i, &ended);
        }
        self.hand_out(i);
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

    pub(crate) fn queue_missing(&self) -> Vec<String> {
        let log = self.store.log(QUEUE);
        let missing = (0..SHARED).filter_map(|i| {
            let stored = self.store.cursor(Reader::Shared(i), QUEUE);
            let done =
                stored.as_ref().is_some_and(|(e, c)| *e == log.epoch && c.floor() == log.last());
            let shared = &self.node.shared[i].cursor;
            (!done).then(|| {
                format!("shared cursor {i} is at {stored:?} of {:?}: {shared:?}", log.head())
            })
        });
        missing.collect()
    }

    pub(crate) fn check_queue_at_the_end(&self, chan: Chan) {
        for id in self.acknowledged(chan) {
            for (i, model) in self.oracle.shared.iter().enumerate() {
                let finished = model.finished.contains(&id);
                invariant!(
                    finished,
                    "nothing acknowledged is lost in a queue",
                    "{id} by shared cursor {i}"
                );
            }
        }
    }
}
