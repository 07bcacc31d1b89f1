//! What was written to members that cannot ack, until it counts as acked: per member a queue of runs of seqs, oldest
//! first; what a member was written within one second and in a row is one entry.
//!
//! Entries are exact and never widened over what others got, since all of an entry is acked at its time. What grows
//! beyond [`RUNS`] entries is acked early instead, the oldest first: beyond so many stretches (with members in turns:
//! messages) in `settle_ms` a member that breaks gives back less than all of that time.
//!
//! An entry may hold seqs that were acked otherwise meanwhile (acked explicitly, trimmed): the cursor knows. Invariant:
//! a seq is in one entry at most. Must not know: the cursor, leases.

use crate::mode::Member;
use crate::{Millis, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Inclusive.
pub(super) type Run = (Seq, Seq);

/// Most entries; what is more is acked early. They are 24 bytes each.
const RUNS: usize = 262_144;

/// So long an entry grows.
const BUCKET_MS: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
struct Entry {
    from: Seq,
    /// When the first of it is due.
    due: Millis,
    /// How many seqs follow the first.
    more: u32,
    /// How much later the last of it is due.
    later: u32,
}

impl Entry {
    fn run(&self) -> Run {
        (self.from, self.from + Seq::from(self.more))
    }

    fn due(&self) -> Millis {
        self.due.saturating_add(u64::from(self.later))
    }

    /// Takes one seq more, if it follows in seq and in time.
    fn grow(&mut self, seq: Seq, due: Millis) -> bool {
        let later = due.saturating_sub(self.due);
        let fits = seq == self.run().1 + 1 && later < BUCKET_MS && self.more < u32::MAX;
        if fits {
            self.more += 1;
            // Below BUCKET_MS.
            self.later = self.later.max(later as u32);
        }
        fits
    }
}

#[derive(Debug, Clone, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// Its key in `order`.
    key: Millis,
}

/// See the module. The owner `None` is nobody: such entries are acked in truth and wait for room in the cursor.
#[derive(Debug, Clone)]
pub(super) struct Settling {
    owners: BTreeMap<Option<Member>, Queue>,
    /// The owners by the time of their oldest entry, or earlier: an entry that grew is due later.
    order: BTreeSet<(Millis, Option<Member>)>,
    len: usize,
    /// [`RUNS`], less in tests.
    pub(super) most: usize,
}

impl Default for Settling {
    fn default() -> Self {
        Self { owners: BTreeMap::new(), order: BTreeSet::new(), len: 0, most: RUNS }
    }
}

impl Settling {
    /// Not when so much waits for room in the cursor that acking early cannot help.
    pub(super) fn has_room(&self) -> bool {
        self.len < 2 * self.most
    }

    pub(super) fn wakes_at(&self) -> Option<Millis> {
        self.order.first().map(|(at, _)| *at)
    }

    pub(super) fn add(&mut self, owner: Option<Member>, (from, to): Run, due: Millis) {
        let queue = self.owners.entry(owner).or_default();
        if from == to
            && let Some(last) = queue.entries.back_mut()
            && last.grow(from, due)
        {
            return;
        }
        if queue.entries.is_empty() {
            queue.key = due;
            self.order.insert((due, owner));
        }
        let mut from = from;
        loop {
            let more = u32::try_from(to - from).unwrap_or(u32::MAX);
            queue.entries.push_back(Entry { from, due, more, later: 0 });
            self.len += 1;
            match from + Seq::from(more) {
                last if last < to => from = last + 1,
                _ => return,
            }
        }
    }

    /// Takes out what is due, ascending.
    pub(super) fn take_due(&mut self, now: Millis) -> Vec<Run> {
        let mut runs = Vec::new();
        while let Some(&(key, owner)) = self.order.first()
            && key <= now
        {
            while let Some(entry) = self.take_first(owner, |entry| entry.due() <= now) {
                runs.push(entry.run());
            }
            self.order_anew(owner);
        }
        ascending(runs)
    }

    /// Takes out the oldest entries of members when there are too many, some more than need be; ascending.
    pub(super) fn take_excess(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        if self.len <= self.most {
            return runs;
        }
        let enough = self.most - self.most / 64;
        while self.len > enough {
            let Some(&(_, owner)) = self.order.iter().find(|(_, owner)| owner.is_some()) else {
                break;
            };
            runs.extend(self.take_first(owner, |_| true).map(|entry| entry.run()));
            self.order_anew(owner);
        }
        ascending(runs)
    }

    /// Takes out everything of a member: what is due, and what is not yet; ascending.
    pub(super) fn take_owner(&mut self, member: Member, now: Millis) -> (Vec<Run>, Vec<Run>) {
        let Some(queue) = self.owners.remove(&Some(member)) else {
            return (Vec::new(), Vec::new());
        };
        self.order.remove(&(queue.key, Some(member)));
        self.len -= queue.entries.len();
        let (due, young): (Vec<_>, Vec<_>) =
            queue.entries.iter().partition(|entry| entry.due() <= now);
        let runs = |entries: Vec<Entry>| ascending(entries.iter().map(Entry::run).collect());
        (runs(due), runs(young))
    }

    /// Takes out everything, ascending.
    pub(super) fn take_all(&mut self) -> Vec<Run> {
        let owners = std::mem::take(&mut self.owners);
        self.order.clear();
        self.len = 0;
        let entries = owners.values().flat_map(|queue| &queue.entries);
        ascending(entries.map(Entry::run).collect())
    }

    fn take_first(
        &mut self,
        owner: Option<Member>,
        fits: impl Fn(&Entry) -> bool,
    ) -> Option<Entry> {
        let entries = &mut self.owners.get_mut(&owner)?.entries;
        let first = *entries.front().filter(|entry| fits(entry))?;
        entries.pop_front();
        self.len -= 1;
        Some(first)
    }

    /// Puts an owner where its oldest entry belongs.
    fn order_anew(&mut self, owner: Option<Member>) {
        let Some(queue) = self.owners.get_mut(&owner) else { return };
        self.order.remove(&(queue.key, owner));
        match queue.entries.front() {
            Some(first) => {
                queue.key = first.due();
                self.order.insert((queue.key, owner));
            }
            None => {
                self.owners.remove(&owner);
            }
        }
    }
}

/// In order, and what is adjacent as one.
fn ascending(mut runs: Vec<Run>) -> Vec<Run> {
    runs.sort_unstable();
    runs.dedup_by(|next, run| {
        let adjacent = next.0 == run.1 + 1;
        if adjacent {
            run.1 = next.1;
        }
        adjacent
    });
    runs
}

#[cfg(test)]
mod tests;
