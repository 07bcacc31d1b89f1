//! What each unit of a batch does, and the sweep.

use super::log::{Body, Log};
use super::{Inner, Remembered, refused};
use crate::rules::{self, IDEMPOTENCY_MS, NAME_KEPT_MS};
use bytes::Bytes;
use clarion_core::port::store::{
    Batch, Change, Committed, Done, Durability, Expect, Move, Publish, Reader, Referred,
    StoreError, Stored, StoredCursor, SweepBudget, Swept, Unit,
};
use clarion_core::{Address, Code, Epoch, MessageId, Millis, Seq};
use std::ops::Bound;
use std::sync::Arc;

impl Inner {
    pub(super) fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        self.writable()?;
        if let Some((key, fence)) = &batch.fence {
            let held =
                self.claims.get(key).is_some_and(|c| c.fence == *fence && batch.now < c.until);
            if !held {
                return Err(refused(Code::Conflict, "the claim that this batch stands on is lost"));
            }
        }
        let now = batch.now;
        let mut refs = Vec::new();
        let mut results = Vec::with_capacity(batch.units.len());
        for (place, unit) in batch.units.into_iter().enumerate() {
            let done = match unit {
                Unit::Publish(publish) => {
                    self.publish(now, place, &publish, &mut refs).map(Done::Published)
                }
                other => self.unit(now, other),
            };
            results.push(done.unwrap_or_else(Done::Refused));
        }
        Ok(Committed { durability: Durability::Memory, results, refs })
    }

    fn unit(&mut self, now: Millis, unit: Unit) -> Result<Done, Code> {
        match unit {
            Unit::Publish(_) => Err(Code::Internal),
            Unit::Ack { reader, moves } => {
                rules::check_key(reader.as_bytes())?;
                for of in &moves {
                    self.ack(now, &reader, of);
                }
                Ok(Done::Acked)
            }
            Unit::Start { reader, channel } => self.start(now, &reader, &channel),
            Unit::Forget { reader, channel } => {
                rules::check_key(reader.as_bytes())?;
                let all =
                    || self.own_channels.get(&reader).into_iter().flatten().cloned().collect();
                let channels: Vec<Address> = channel.map_or_else(all, |channel| vec![channel]);
                channels.iter().for_each(|channel| self.forget(&reader, channel));
                Ok(Done::Acked)
            }
            Unit::Record { key, expect, change } => self.record(key, expect, change),
            Unit::Trim { channel, below } => Ok(Done::Trimmed(self.trim(&channel, below))),
            Unit::Erase { channel, seq } => Ok(Done::Erased(self.erase(&channel, seq))),
        }
    }

    fn publish(
        &mut self,
        now: Millis,
        unit: usize,
        publish: &Publish,
        refs: &mut Vec<Referred>,
    ) -> Result<Stored, Code> {
        let key = publish.content.idempotency_key.as_deref();
        if key.is_some_and(|k| k.len() > rules::IDEMPOTENCY_BYTES_MAX) {
            return Err(Code::BadRequest);
        }
        if let Some(stored) = key.and_then(|k| self.remembered(now, &publish.channel, k)) {
            return Ok(stored);
        }
        let weight = publish.content.weight() as u64;
        self.check_room(publish)?;
        let now = self.time_in(now, publish);
        let log = self.log_or_new(&publish.channel);
        log.retention = publish.retention;
        let (seq, created_at) = log.append(now, Body::Full(publish.content.clone()), weight);
        let (number, epoch, left) = (log.number, log.epoch, log.retain());
        self.held = self.held + weight - left;
        if let Some(key) = key {
            self.remembered.insert((number, key.into()), Remembered { epoch, seq, created_at });
        }
        for (at, filter) in publish.refs.iter().enumerate() {
            let (epoch, seq) = self.refer(now, filter, publish, (number, seq));
            refs.push(Referred { unit, at, epoch, seq });
        }
        let id = MessageId::stored(created_at, number, seq);
        Ok(Stored { id, epoch, seq, created_at, duplicate: false })
    }

    /// Whether every log that a publish goes to, and the whole, have room for it.
    fn check_room(&self, publish: &Publish) -> Result<(), Code> {
        let held = |channel| self.logs.get(channel).map_or(0, Log::bytes);
        let (channel, bound) = (&publish.channel, &publish.retention);
        let weight = publish.content.weight() as u64;
        let of_ref = rules::reference_weight(channel, &publish.content);
        let has_room = bound.has_room(held(channel), weight)
            && publish.refs.iter().all(|filter| bound.has_room(held(filter), of_ref));
        if !has_room {
            return Err(Code::QueueFull);
        }
        let max = self.config.max_bytes;
        let all = weight + of_ref * publish.refs.len() as u64;
        if max > 0 && self.held.saturating_add(all) > max { Err(Code::StoreFull) } else { Ok(()) }
    }

    /// One time for a message and its references that falls in none of their logs.
    fn time_in(&self, now: Millis, publish: &Publish) -> Millis {
        let logs = publish.refs.iter().filter_map(|filter| self.logs.get(filter));
        logs.chain(self.logs.get(&publish.channel)).map(|log| log.last_at).fold(now, Millis::max)
    }

    fn refer(
        &mut self,
        now: Millis,
        filter: &Address,
        publish: &Publish,
        (number, seq): (u32, Seq),
    ) -> (Epoch, Seq) {
        let (channel, content) = (&publish.channel, &publish.content);
        let weight = rules::reference_weight(channel, content);
        let body = if rules::is_inline(channel, content) {
            Body::Copy(Arc::new((number, seq, channel.clone())), content.clone())
        } else {
            Body::Reference(number, seq)
        };
        let log = self.log_or_new(filter);
        log.retention = publish.retention;
        let (seq, _) = log.append(now, body, weight);
        let (epoch, left) = (log.epoch, log.retain());
        self.held = self.held + weight - left;
        (epoch, seq)
    }

    pub(super) fn remembered(&self, now: Millis, channel: &Address, key: &str) -> Option<Stored> {
        let number = self.logs.get(channel)?.number;
        let found = self.remembered.get(&(number, key.into()))?;
        (now < found.created_at.saturating_add(IDEMPOTENCY_MS)).then_some(Stored {
            id: MessageId::stored(found.created_at, number, found.seq),
            epoch: found.epoch,
            seq: found.seq,
            created_at: found.created_at,
            duplicate: true,
        })
    }

    fn ack(&mut self, now: Millis, reader: &Reader, of: &Move) {
        let known = self.logs.contains_key(&of.channel);
        if !known && of.epoch != 0 {
            return;
        }
        let epoch = self.log_or_new(&of.channel).epoch;
        let key = (reader.clone(), of.channel.clone());
        let Some(new) = rules::merge_move(self.cursors.get(&key), reader, of, epoch, now) else {
            return;
        };
        self.put_cursor(new);
    }

    fn put_cursor(&mut self, new: StoredCursor) {
        let (reader, channel) = (new.reader.clone(), new.channel.clone());
        self.own_channels.entry(reader.clone()).or_default().insert(channel.clone());
        self.readers.entry(channel.clone()).or_default().insert(reader.clone());
        self.cursors.insert((reader, channel), new);
    }

    fn start(&mut self, at: Millis, reader: &Reader, channel: &Address) -> Result<Done, Code> {
        rules::check_key(reader.as_bytes())?;
        let log = self.log_or_new(channel);
        let (epoch, last) = (log.epoch, log.last());
        let stored = self.cursors.get(&(reader.clone(), channel.clone()));
        if let Some(new) = rules::start(stored, reader, channel, (epoch, last), at) {
            self.put_cursor(new);
        }
        Ok(Done::Started { epoch, last, at })
    }

    fn forget(&mut self, reader: &Reader, channel: &Address) {
        self.cursors.remove(&(reader.clone(), channel.clone()));
        if let Some(own) = self.own_channels.get_mut(reader) {
            own.remove(channel);
            if own.is_empty() {
                self.own_channels.remove(reader);
            }
        }
        if let Some(readers) = self.readers.get_mut(channel) {
            readers.remove(reader);
            if readers.is_empty() {
                self.readers.remove(channel);
            }
        }
    }

    fn record(&mut self, key: Bytes, expect: Expect, change: Change) -> Result<Done, Code> {
        rules::check_key(&key)?;
        let version = self.records.get(&key).map(|(version, _)| *version);
        let as_expected = match expect {
            Expect::Any => true,
            Expect::Absent => version.is_none(),
            Expect::Version(wanted) => version == Some(wanted),
        };
        if !as_expected {
            return Err(Code::Conflict);
        }
        match change {
            Change::Put(value) if value.len() > rules::RECORD_BYTES_MAX => {
                Err(Code::PayloadTooLarge)
            }
            Change::Put(value) => {
                let next = version.unwrap_or(0) + 1;
                self.records.insert(key, (next, value));
                Ok(Done::Recorded(next))
            }
            Change::Delete => {
                self.records.remove(&key);
                Ok(Done::Recorded(0))
            }
        }
    }

    fn trim(&mut self, channel: &Address, below: Seq) -> Seq {
        let Some(log) = self.logs.get_mut(channel) else { return 1 };
        self.held -= log.trim(below);
        log.first
    }

    /// Blanks a body, and every copy of it.
    fn erase(&mut self, channel: &Address, seq: Seq) -> bool {
        let Some(log) = self.logs.get_mut(channel) else { return false };
        let number = log.number;
        // What was trimmed is told no time: a copy may stand anywhere.
        let at = log.entry(seq).map(|entry| entry.created_at);
        let mut erased = log.erase(seq);
        if at.is_some() && !erased {
            return false;
        }
        let filters = self.logs.iter_mut().filter(|(filter, _)| rules::refers_to(filter, channel));
        for (_, log) in filters {
            if let Some(copy) = log.copy_of(number, seq, at) {
                erased |= log.erase(copy);
            }
        }
        erased
    }

    pub(super) fn sweep(&mut self, now: Millis, budget: SweepBudget) -> Swept {
        self.remembered.retain(|_, r| now < r.created_at.saturating_add(IDEMPOTENCY_MS));
        let from = match self.sweep_after.take() {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let round = (from, Bound::Unbounded);
        let mut due: Vec<Address> = self
            .logs
            .range::<Address, _>(round)
            .take(budget.channels.saturating_add(1))
            .map(|(address, _)| address.clone())
            .collect();
        let more = due.len() > budget.channels;
        due.truncate(budget.channels);
        let mut swept = Swept { channels: due.len() as u64, trimmed: 0, more };
        if more {
            self.sweep_after = due.last().cloned();
        }
        for address in due {
            swept.trimmed += self.sweep_one(now, &address);
        }
        swept
    }

    fn sweep_one(&mut self, now: Millis, address: &Address) -> u64 {
        let Some(log) = self.logs.get_mut(address) else { return 0 };
        let before = log.first;
        self.held -= log.trim(log.first_by_age(now));
        let trimmed = log.first - before;
        let idle = now >= log.last_at.saturating_add(NAME_KEPT_MS);
        if log.first > log.last() && idle && !self.readers.contains_key(address) {
            self.names.remove(&log.number);
            self.logs.remove(address);
        }
        trimmed
    }
}
