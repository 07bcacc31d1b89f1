//! Age retention, names that are given back, remembered publishes that aged out, and compaction of what was trimmed.
//!
//! The sweeper's thread looks at the channels that are due and works out floors; the writer applies them. Invariants:
//! every channel has one valid entry in `due`, the one that its record names; a sweep looks at no more channels than
//! its budget says and each look moves the entry beyond the present hour, so that sweeps come to an end.

use super::channels::State;
use super::codec;
use super::engine::{Engine, Fault};
use super::keys;
use super::log::hour_after;
use super::queue::{Queue, Rejected};
use super::space;
use super::writer::{Job, Writer};
use crate::rules::{HOUR_MS, NAME_KEPT_MS};
use clarion_core::port::store::{StoreError, SweepBudget, Swept};
use clarion_core::{Address, Code, Millis, Seq};
use fjall::Readable;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

/// The writer gets so many channels at a time, so that commits go in between.
const VISITS_AT_ONCE: usize = 256;
/// Trimmed bytes that make a compaction worth it, if they are also a good part of what is on disk.
const COMPACT_BYTES_MIN: u64 = 64 << 20;

/// One entry of `due`, looked at.
pub(super) struct Visit {
    hour: u32,
    number: u32,
    /// `None`: the entry belongs to nobody any more.
    channel: Option<Address>,
    /// The first seq that age lets stay, and when it was created.
    below: Seq,
    oldest_at: Option<Millis>,
}

impl Engine {
    /// Looks at what is due and has the writer act on it.
    pub(super) fn sweep(
        &self,
        now: Millis,
        budget: SweepBudget,
        jobs: &Queue<Job>,
    ) -> Result<Swept, StoreError> {
        self.drop_forgotten(now)?;
        let limit = budget.channels.max(1);
        let due = self.due(now, limit.saturating_add(1))?;
        let mut swept = Swept { more: due.len() > limit, ..Swept::default() };
        for chunk in due[..due.len().min(limit)].chunks(VISITS_AT_ONCE) {
            let visits: Result<Vec<Visit>, Fault> =
                chunk.iter().map(|(hour, number)| self.visit(now, *hour, *number)).collect();
            swept.channels += chunk.len() as u64;
            swept.trimmed += hand_over(now, visits?, jobs)?;
        }
        Ok(swept)
    }

    fn due(&self, now: Millis, limit: usize) -> Result<Vec<(u32, u32)>, Fault> {
        let end = keys::due(hour_after(now), 0);
        let snapshot = self.db.snapshot();
        let entries = snapshot.range(&self.ks.due, ..end).take(limit).map(|item| {
            let key = item.key()?;
            let parts = keys::due_hour(&key).zip(keys::trailing_number(&key));
            parts.ok_or_else(|| Fault::damaged("an entry of the sweeper"))
        });
        entries.collect()
    }

    fn visit(&self, now: Millis, hour: u32, number: u32) -> Result<Visit, Fault> {
        let stale = Visit { hour, number, channel: None, below: 0, oldest_at: None };
        let Some(channel) = self.channel_by_number(number)? else { return Ok(stale) };
        let state = channel.state();
        if channel.number != number || state.record.due != hour {
            return Ok(stale);
        }
        let (below, oldest_at) = self.first_by_age(now, number, &state)?;
        Ok(Visit { channel: Some(channel.address.clone()), below, oldest_at, ..stale })
    }

    /// The first seq that age lets stay and its time. Times never fall within a log, so halving finds it.
    fn first_by_age(
        &self,
        now: Millis,
        number: u32,
        state: &State,
    ) -> Result<(Seq, Option<Millis>), Fault> {
        let age = state.record.age_ms;
        if age == 0 {
            return Ok((state.first(), None));
        }
        let last = state.record.last;
        let first = self.first_since(number, (state.first(), last), now.saturating_sub(age))?;
        let oldest_at = if first > last { None } else { self.created_at(number, first)? };
        Ok((first, oldest_at))
    }

    /// The first seq of a span that was created at `oldest` or later; beyond the span when there is none.
    pub(super) fn first_since(
        &self,
        number: u32,
        (first, last): (Seq, Seq),
        oldest: Millis,
    ) -> Result<Seq, Fault> {
        let (mut low, mut high) = (first, first.max(last + 1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.created_at(number, middle)? {
                Some(at) if at >= oldest => high = middle,
                // A record that is missing can only lie below what is kept.
                Some(_) | None => low = middle + 1,
            }
        }
        Ok(low)
    }

    fn created_at(&self, number: u32, seq: Seq) -> Result<Option<Millis>, Fault> {
        let Some(value) = self.db.snapshot().get(&self.ks.log, keys::log(number, seq))? else {
            return Ok(None);
        };
        let (header, _) = codec::record(&value).ok_or_else(|| Fault::damaged("a log record"))?;
        Ok(Some(header.created_at))
    }

    /// Rewrites the log without what was trimmed, when that is worth it or the engine is full.
    pub(super) fn compact_if_due(&self) -> Result<(), Fault> {
        let garbage = self.garbage.load(Ordering::Relaxed);
        let on_disk = self.ks.log.disk_space();
        let worth_it = garbage >= COMPACT_BYTES_MIN && garbage >= on_disk / 3;
        let full = self.full.load(Ordering::Relaxed) && garbage > 0;
        if !(worth_it || full) {
            return Ok(());
        }
        // The rewrite needs room for what stays.
        let free = space::free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free < on_disk.saturating_add(self.config.min_free_bytes) {
            return Ok(());
        }
        self.garbage.fetch_sub(garbage, Ordering::Relaxed);
        if full {
            self.ks.log.rotate_memtable_and_wait()?;
        }
        self.ks.log.major_compact()?;
        Ok(())
    }
}

fn hand_over(now: Millis, visits: Vec<Visit>, jobs: &Queue<Job>) -> Result<u64, StoreError> {
    let (answer, answered) = mpsc::sync_channel(1);
    jobs.push(Job::Sweep(now, visits, answer)).map_err(|rejected| match rejected {
        Rejected::Full => refused(Code::Overloaded, "the writer has more to do than it may"),
        Rejected::Closed => refused(Code::ShuttingDown, "the store is closed"),
    })?;
    answered.recv().unwrap_or_else(|_| Err(refused(Code::StoreUnavailable, "the writer ended")))
}

fn refused(code: Code, detail: &str) -> StoreError {
    StoreError::Refused { code, detail: detail.into() }
}

impl Writer {
    pub(super) fn sweep(&mut self, now: Millis, visits: &[Visit]) -> Result<u64, StoreError> {
        self.writable()?;
        self.begin(now);
        let mut out = self.new_batch(visits.len() * 3);
        let mut trimmed = 0;
        for visit in visits {
            let swept = match &visit.channel {
                Some(channel) => self.sweep_one(now, channel, visit),
                None => Ok(None),
            };
            match swept {
                Ok(Some(seqs)) => trimmed += seqs,
                Ok(None) => out.remove(&self.engine.ks.due, keys::due(visit.hour, visit.number)),
                Err(fault) => return Err(self.give_up(fault)),
            }
        }
        self.finish(out)?;
        Ok(trimmed)
    }

    /// `None`: the entry is stale.
    fn sweep_one(
        &mut self,
        now: Millis,
        channel: &Address,
        visit: &Visit,
    ) -> Result<Option<u64>, Fault> {
        let Some(index) = self.touch(channel, false)? else { return Ok(None) };
        let touched = &self.plan.touched[index];
        if touched.channel.number != visit.number || touched.state.record.due != visit.hour {
            return Ok(None);
        }
        let before = touched.state.first();
        self.trim_touched(index, visit.below)?;
        let touched = &self.plan.touched[index];
        let state = touched.state;
        let idle = now >= state.record.last_at.saturating_add(NAME_KEPT_MS);
        if state.is_empty() && idle && !self.has_readers(touched.channel.number)? {
            self.plan.touched[index].ends = true;
            return Ok(Some(state.first() - before));
        }
        let next = match visit.oldest_at {
            Some(at) if state.record.age_ms != 0 => at.saturating_add(state.record.age_ms),
            _ => now.saturating_add(NAME_KEPT_MS),
        };
        self.plan.touched[index].state.record.due = hour_after(next.max(now + HOUR_MS));
        Ok(Some(state.first() - before))
    }
}

/// What the sweeper's thread is asked for.
pub(super) struct SweepJob {
    pub(super) now: Millis,
    pub(super) budget: SweepBudget,
    pub(super) answer: tokio::sync::oneshot::Sender<Result<Swept, StoreError>>,
}

/// Serves until the queue is closed and empty.
pub(super) fn run(engine: &Arc<Engine>, sweeps: &Queue<SweepJob>, jobs: &Queue<Job>) {
    while let Some(SweepJob { now, budget, answer }) = sweeps.pop() {
        let swept = match engine.failure() {
            Some(detail) => Err(StoreError::Refused { code: Code::StoreUnavailable, detail }),
            None => engine.sweep(now, budget, jobs),
        };
        let done = swept.as_ref().is_ok_and(|swept| !swept.more);
        let _ = answer.send(swept);
        if done && let Err(fault) = engine.compact_if_due() {
            tracing::warn!(?fault, "the log could not be compacted");
        }
    }
}
