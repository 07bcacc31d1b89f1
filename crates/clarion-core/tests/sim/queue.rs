//! The queue: two shared cursors on one channel, and the model of who may hold what. The consumers are in
//! `consumer.rs`.

use crate::commit::{Job, Then};
use crate::rng::Rng;
use crate::store::{Reader, Unit};
use crate::world::{Chan, DEAD, QUEUE, World};
use crate::{invariant, note};
use clarion_core::mode::{Candidate, Member, Mode, pick};
use clarion_core::port::store::Move;
use clarion_core::shared_cursor::{Ended, Leave, Limits, SharedCursor};
use clarion_core::{Cursor, Epoch, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Shared cursors on the queue; each has three consumers.
pub(crate) const SHARED: usize = 2;
pub(crate) const OUTBOX: usize = 3;

pub(crate) type Given = (Epoch, Seq, u64);

/// What was written may be acked so much later than `settle_ms`.
const BUCKET_MS: u64 = 1_000;

pub(crate) struct SharedNode {
    pub(crate) cursor: Option<SharedCursor>,
    mode: Mode,
    pub(crate) limits: Limits,
    pub(crate) members: BTreeMap<Member, VecDeque<Given>>,
}

impl SharedNode {
    pub(crate) fn both(rng: &mut Rng) -> Vec<Self> {
        let new = |mode, limits| Self { cursor: None, mode, limits, members: BTreeMap::new() };
        let unify = Limits {
            max_unacked: rng.range(3, 8) as usize,
            ack_wait_ms: Some(rng.range(40, 200)),
            max_attempts: Some(rng.range(2, 4) as u32),
            settle_ms: rng.range(80, 300),
            oldest_first: false,
        };
        let sets = Limits {
            max_unacked: rng.range(2, 6) as usize,
            ack_wait_ms: rng.chance(500).then_some(rng.range(40, 200)),
            max_attempts: None,
            settle_ms: rng.range(80, 300),
            oldest_first: false,
        };
        let mode = if rng.chance(500) { Mode::Every } else { Mode::Group };
        vec![new(Mode::Unify, unify), new(mode, sets)]
    }
}

/// What must hold for one shared cursor.
#[derive(Default)]
pub(crate) struct SharedModel {
    epoch: Epoch,
    stored: Cursor,
    leases: BTreeMap<Seq, (BTreeSet<Member>, Option<Millis>)>,
    attempts: BTreeMap<Seq, u32>,
    acked: BTreeSet<Seq>,
    /// Written to a member that cannot ack, and when; and what came back from such as broke.
    written: BTreeMap<Seq, (Member, Millis)>,
    given_back: BTreeSet<Seq>,
    /// Consumed, in the dead list, or expired.
    finished: BTreeSet<u64>,
}

impl SharedModel {
    pub(crate) fn node_restarted(&mut self) {
        self.leases.clear();
        self.attempts.clear();
        self.acked.clear();
        self.written.clear();
        self.given_back.clear();
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
        let written = self.written.get(&seq);
        invariant!(
            written.is_none(),
            "what was written comes again only from who broke",
            "{seq} to {members:?}, {written:?}"
        );
        self.given_back.remove(&seq);
        if !self.attempts.contains_key(&seq) {
            let last = self.attempts.last_key_value().map_or(0, |(last, _)| *last);
            invariant!(seq > last, "first hand-outs are in order", "{seq} after {last}");
        }
        let attempts = self.attempts.entry(seq).or_default();
        *attempts += 1;
        let enough = limits.max_attempts.is_none_or(|max| *attempts <= max);
        invariant!(enough, "attempts are bounded", "{attempts} of {seq}");
        let counts = |seq: &&Seq| {
            !self.acked.contains(seq)
                && !self.written.contains_key(seq)
                && !self.given_back.contains(seq)
        };
        let unacked = self.attempts.keys().filter(counts).count();
        invariant!(unacked <= limits.max_unacked, "the window is bounded", "{unacked}");
        let end = limits.ack_wait_ms.map(|wait| now + wait);
        self.leases.insert(seq, (members.iter().copied().collect(), end));
    }

    pub(crate) fn taken_off(&mut self, seq: Seq, member: Member) {
        if let Some((members, _)) = self.leases.get_mut(&seq) {
            members.remove(&member);
            if members.is_empty() {
                self.leases.remove(&seq);
            }
        }
    }

    pub(crate) fn wrote(&mut self, seq: Seq, member: Member, now: Millis) {
        let lease = self.leases.remove(&seq);
        let held = lease.as_ref().is_some_and(|(members, _)| members.contains(&member));
        invariant!(held, "only who has a lease is written to", "{seq} to {member}, {lease:?}");
        self.written.insert(seq, (member, now));
    }

    /// After the cursor settled what is due.
    fn settled(&mut self, cursor: &Cursor, settle_ms: u64, now: Millis) -> u64 {
        let before = self.written.len();
        self.written.retain(|seq, &mut (member, at)| {
            let (acked, age) = (cursor.is_acked(*seq), now - at);
            let right = if acked { age >= settle_ms } else { age < settle_ms + BUCKET_MS };
            invariant!(
                right,
                "what was written settles in its time",
                "{seq} of {member} is acked: {acked}, after {age} of {settle_ms} ms"
            );
            if acked {
                self.acked.insert(*seq);
            }
            !acked
        });
        (before - self.written.len()) as u64
    }

    /// After the cursor knows that this member ended. Returns how many came back of what was written to it.
    pub(crate) fn left(
        &mut self,
        cursor: &Cursor,
        member: Member,
        how: Leave,
        (now, settle_ms): (Millis, u64),
    ) -> u64 {
        for seq in self.leases.keys().copied().collect::<Vec<_>>() {
            self.taken_off(seq, member);
        }
        let mut back = 0;
        self.written.retain(|seq, &mut (of, at)| {
            if of != member {
                return true;
            }
            let acked = cursor.is_acked(*seq);
            let right = if acked {
                how == Leave::Whole || now - at >= settle_ms
            } else {
                how == Leave::Broken
            };
            invariant!(
                right,
                "who leaves whole acks what it was written, who breaks gives it back",
                "{seq} of {member}, {how:?}, is acked: {acked}"
            );
            if acked {
                self.acked.insert(*seq);
            } else {
                back += 1;
                self.given_back.insert(*seq);
                self.attempts.insert(*seq, 1);
            }
            false
        });
        back
    }

    /// What a clean stop owes to members that cannot ack.
    fn check_stopped(&self, cursor: &Cursor) {
        let lost = self.written.keys().find(|seq| !cursor.is_acked(**seq));
        invariant!(lost.is_none(), "a clean stop acks what was written", "{lost:?}");
    }

    /// A member that cannot ack has read a message.
    pub(crate) fn consumed(&mut self, id: u64) {
        self.finished.insert(id);
    }

    pub(crate) fn trimmed(&mut self, ids: impl Iterator<Item = u64>) {
        self.finished.extend(ids);
    }

    /// The node's cursor has passed everything below `first`.
    fn passed(&mut self, first: Seq) {
        self.leases = self.leases.split_off(&first);
        self.written = self.written.split_off(&first);
        self.given_back = self.given_back.split_off(&first);
        self.acked.extend(1..first);
    }

    pub(crate) fn acked(&mut self, seq: Seq, id: u64) {
        self.leases.remove(&seq);
        self.written.remove(&seq);
        self.given_back.remove(&seq);
        self.acked.insert(seq);
        self.finished.insert(id);
    }
}

impl World {
    pub(crate) fn queue_tick(&mut self) {
        for i in 0..SHARED {
            self.load_shared(i);
            let now = self.now;
            let SharedNode { cursor: Some(cursor), limits, .. } = &mut self.node.shared[i] else {
                continue;
            };
            let wakes_at = cursor.wakes_at();
            let ended = cursor.expire(now);
            let settled = cursor.settle(now);
            invariant!(
                wakes_at.is_some_and(|at| at <= now) || ended.is_empty() && !settled,
                "a shared cursor says when it has something to do",
                "at {wakes_at:?}, not at {now}: {ended:?}, {settled}"
            );
            let model = &mut self.oracle.shared[i];
            self.stats.settled += model.settled(cursor.cursor(), limits.settle_ms, now);
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

    pub(crate) fn hand_out(&mut self, i: usize) {
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

    pub(crate) fn leases_ended(&mut self, i: usize, ended: &[Ended]) {
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

    /// A clean stop: what was written is acked, and that is stored before the node ends.
    pub(crate) fn stop_shared(&mut self) {
        for i in 0..SHARED {
            let Some(cursor) = &mut self.node.shared[i].cursor else { continue };
            cursor.settle_all();
            self.oracle.shared[i].check_stopped(cursor.cursor());
            let channel = self.addresses[QUEUE].clone();
            let moves =
                vec![Move { channel, epoch: cursor.epoch(), cursor: cursor.cursor().clone() }];
            self.store.apply(self.now, &[Unit::Ack { reader: Reader::Shared(i), moves }]);
        }
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
