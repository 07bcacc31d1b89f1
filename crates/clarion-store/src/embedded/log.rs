//! The writer's part that appends, trims and keeps logs within their bounds.
//!
//! Invariants: seqs are dense, a refused publish takes none; `created_at` never falls; trimming only moves the floor;
//! a reference is written in the same batch as its body and has the same `created_at`.

use super::codec::{self, Header};
use super::engine::Fault;
use super::keys;
use super::writer::{Staged, Writer};
use crate::rules::{self, HOUR_MS, NAME_KEPT_MS};
use clarion_core::port::store::{Publish, Referred, Stored};
use clarion_core::{Address, Code, Epoch, MessageId, Millis, Overflow, Retention, Seq};
use fjall::{OwnedWriteBatch, Slice};
use std::sync::atomic::Ordering;

/// The floor that the bound by count implies is written down when it is this much of the bound ahead.
const COUNT_SLACK: u64 = 8;
/// … and at least this many seqs.
const COUNT_SLACK_MIN: u64 = 64;

/// The hour in which something at `at` is due.
pub(super) fn hour_after(at: Millis) -> u32 {
    u32::try_from(at / HOUR_MS + 1).unwrap_or(u32::MAX)
}

impl Writer {
    /// Appends a message, then the references to it. `unit` is its place in the batch.
    pub(super) fn publish(
        &mut self,
        out: &mut OwnedWriteBatch,
        unit: usize,
        publish: &Publish,
    ) -> Result<Stored, Fault> {
        let key = publish.content.idempotency_key.as_deref();
        if key.is_some_and(|key| key.len() > rules::IDEMPOTENCY_BYTES_MAX) {
            return Err(Code::BadRequest.into());
        }
        if let Some(key) = key
            && let Some(index) = self.touch(&publish.channel, false)?
            && let Some(first) = self.recall(index, key)?
        {
            return Ok(first);
        }
        self.check_space()?;
        let index = self.touch_or_create(&publish.channel)?;
        let weight = publish.content.weight() as u64;
        self.check_room(index, &publish.retention, weight)?;
        let filters = self.touch_filters(publish)?;
        let at = self.time_in(index, &filters);
        self.keep_policy(index, &publish.retention);
        let header = self.next_header(index, at, weight, publish.content.counted);
        let header = Header { expires_at: publish.content.expires_at, ..header };
        self.scratch.clear();
        codec::put_message(&mut self.scratch, &header, &publish.content);
        let seq = self.append(out, index);
        let touched = &self.plan.touched[index];
        let number = touched.channel.number;
        let stored = Stored {
            id: MessageId::stored(header.created_at, number, seq),
            epoch: touched.state.epoch,
            seq,
            created_at: header.created_at,
            duplicate: false,
        };
        if let Some(key) = key {
            self.plan.remembered.insert((number, key.into()), stored);
        }
        for (place, filter) in filters.into_iter().enumerate() {
            let (epoch, seq) = self.refer(out, filter, publish, &stored, number);
            self.plan.refs.push(Referred { unit, at: place, epoch, seq });
        }
        Ok(stored)
    }

    /// The filters' logs that a publish goes to. All must take it before anything is appended.
    fn touch_filters(&mut self, publish: &Publish) -> Result<Vec<usize>, Fault> {
        let mut filters = Vec::with_capacity(publish.refs.len());
        for filter in &publish.refs {
            let index = self.touch_or_create(filter)?;
            let weight = rules::reference_weight(&publish.channel, &publish.content);
            self.check_room(index, &publish.retention, weight)?;
            filters.push(index);
        }
        Ok(filters)
    }

    /// One time for a message and its references that falls in none of their logs.
    fn time_in(&self, index: usize, filters: &[usize]) -> Millis {
        let all = std::iter::once(&index).chain(filters);
        let times = all.map(|index| self.plan.touched[*index].state.record.last_at);
        times.fold(self.plan.now, Millis::max)
    }

    /// Appends a reference to a message; returns its place.
    fn refer(
        &mut self,
        out: &mut OwnedWriteBatch,
        index: usize,
        publish: &Publish,
        to: &Stored,
        number: u32,
    ) -> (Epoch, Seq) {
        self.keep_policy(index, &publish.retention);
        let (channel, content) = (&publish.channel, &publish.content);
        let weight = rules::reference_weight(channel, content);
        let header = self.next_header(index, to.created_at, weight, false);
        self.scratch.clear();
        if rules::is_inline(channel, content) {
            let header = Header { expires_at: content.expires_at, ..header };
            let place = (number, to.seq, channel.as_str());
            codec::put_copy(&mut self.scratch, &header, place, content);
        } else {
            codec::put_reference(&mut self.scratch, &header, number, to.seq);
        }
        (self.plan.touched[index].state.epoch, self.append(out, index))
    }

    /// Moves the log's totals on by one record.
    fn next_header(&mut self, index: usize, at: Millis, weight: u64, counted: bool) -> Header {
        let record = &mut self.plan.touched[index].state.record;
        record.last += 1;
        record.last_at = record.last_at.max(at);
        record.bytes += weight;
        record.counted += u64::from(counted);
        Header {
            created_at: record.last_at,
            bytes: record.bytes,
            weight,
            counted: record.counted,
            expires_at: None,
        }
    }

    /// Stages what is in the scratch buffer as the log's last record.
    fn append(&mut self, out: &mut OwnedWriteBatch, index: usize) -> Seq {
        let touched = &self.plan.touched[index];
        let seq = touched.state.record.last;
        let value = Slice::from(self.scratch.as_slice());
        out.insert(&self.engine.ks.log, keys::log(touched.channel.number, seq), value.clone());
        self.plan.staged.push(Staged { touched: index, seq, value });
        seq
    }

    fn check_room(&mut self, index: usize, bound: &Retention, weight: u64) -> Result<(), Fault> {
        if bound.overflow == Overflow::TrimOldest {
            self.plan.touched[index].bytes_bound = bound.bytes;
            return Ok(());
        }
        let record = &self.plan.touched[index].state.record;
        if bound.has_room(record.bytes - record.floor_bytes, weight) {
            return Ok(());
        }
        // Exact only now: a bound by count may have freed more than is written down.
        let state = self.plan.touched[index].state;
        let held = state.record.bytes - self.bytes_before(index, state.first())?;
        if bound.has_room(held, weight) { Ok(()) } else { Err(Code::QueueFull.into()) }
    }

    fn keep_policy(&mut self, index: usize, bound: &Retention) {
        let touched = &mut self.plan.touched[index];
        let record = &mut touched.state.record;
        let empty = record.floor > record.last;
        if (record.age_ms, record.count) == (bound.age_ms, bound.count) {
            return;
        }
        if record.count != bound.count && record.count != 0 {
            // What the old bound gave up stays given up.
            let first = touched.state.first();
            if let Ok(bytes) = self.bytes_before(index, first) {
                self.set_floor(index, first, bytes);
            }
        }
        let touched = &mut self.plan.touched[index];
        let record = &mut touched.state.record;
        record.age_ms = bound.age_ms;
        record.count = bound.count;
        touched.dirty = true;
        if empty || bound.age_ms != 0 {
            self.reschedule(index);
        }
    }

    /// The sweeper looks at this channel no later than its policy wants, seen from now.
    pub(super) fn reschedule(&mut self, index: usize) {
        let now = self.plan.now;
        let touched = &mut self.plan.touched[index];
        let age = touched.state.record.age_ms;
        let wait = if age == 0 || touched.state.is_empty() { NAME_KEPT_MS } else { age };
        let wanted = hour_after(now.saturating_add(wait));
        let due = touched.state.record.due;
        touched.state.record.due = if due == 0 { wanted } else { due.min(wanted) };
    }

    fn set_floor(&mut self, index: usize, floor: Seq, floor_bytes: u64) {
        let touched = &mut self.plan.touched[index];
        let record = &mut touched.state.record;
        if floor > record.floor {
            let left = floor_bytes.saturating_sub(record.floor_bytes);
            self.engine.garbage.fetch_add(left, Ordering::Relaxed);
            record.floor = floor;
            record.floor_bytes = floor_bytes;
            touched.dirty = true;
        }
    }

    /// Total bytes of a touched log before `seq`, what this batch appends included.
    pub(super) fn bytes_before(&self, index: usize, seq: Seq) -> Result<u64, Fault> {
        let touched = &self.plan.touched[index];
        let record = &touched.state.record;
        if seq > record.last {
            return Ok(record.bytes);
        }
        if seq <= touched.committed {
            let mut committed = touched.state;
            committed.record.last = touched.committed;
            return self.engine.bytes_before(touched.channel.number, &committed, seq);
        }
        let staged = self.staged(index, seq).ok_or_else(|| Fault::damaged("a staged record"))?;
        let (header, _) = codec::record(&staged.value).ok_or_else(|| Fault::damaged("a record"))?;
        Ok(header.bytes_before())
    }

    fn staged(&self, index: usize, seq: Seq) -> Option<&Staged> {
        self.plan.staged.iter().find(|s| s.touched == index && s.seq == seq)
    }

    pub(super) fn trim(&mut self, channel: &Address, below: Seq) -> Result<Seq, Fault> {
        let Some(index) = self.touch(channel, false)? else { return Ok(1) };
        self.trim_touched(index, below)?;
        Ok(self.plan.touched[index].state.first())
    }

    pub(super) fn trim_touched(&mut self, index: usize, below: Seq) -> Result<(), Fault> {
        let state = self.plan.touched[index].state;
        let floor = below.min(state.record.last + 1);
        if floor <= state.first() {
            return Ok(());
        }
        let bytes = self.bytes_before(index, floor)?;
        self.set_floor(index, floor, bytes);
        if floor > state.record.last {
            self.reschedule(index);
        }
        Ok(())
    }

    /// Applies the bounds by bytes and count to a touched log, once for the batch.
    pub(super) fn retain(&mut self, index: usize) -> Result<(), Fault> {
        let touched = &self.plan.touched[index];
        let (state, bound) = (touched.state, touched.bytes_bound);
        let record = &state.record;
        let over = |before: u64| bound != 0 && record.bytes - before > bound;
        if over(record.floor_bytes) {
            let first = state.first();
            let before = self.bytes_before(index, first)?;
            self.set_floor(index, first, before);
            if over(before) {
                let keep = bound - rules::bytes_slack(bound);
                let floor = self.first_within(index, first, keep)?;
                let before = self.bytes_before(index, floor)?;
                self.set_floor(index, floor, before);
            }
            return Ok(());
        }
        let slack = (record.count / COUNT_SLACK).max(COUNT_SLACK_MIN);
        if record.count != 0 && state.first() - record.floor >= slack {
            let before = self.bytes_before(index, state.first())?;
            self.set_floor(index, state.first(), before);
        }
        Ok(())
    }

    /// The first seq from `first` on from which the log holds at most `keep` bytes.
    fn first_within(&self, index: usize, first: Seq, keep: u64) -> Result<Seq, Fault> {
        let record = self.plan.touched[index].state.record;
        let (mut low, mut high) = (first, record.last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if record.bytes - self.bytes_before(index, middle)? <= keep {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }
}
