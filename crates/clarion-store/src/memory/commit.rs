//! What each unit of a batch does, and the sweep.

use super::log::Body;
use super::{Inner, Remembered, refused};
use crate::rules::{self, IDEMPOTENCY_MS, NAME_KEPT_MS, REFERENCE_WEIGHT};
use bytes::Bytes;
use clarion_core::port::store::{
    Batch, Change, Committed, Done, Durability, Expect, Move, Publish, Reader, StoreError, Stored,
    SweepBudget, Swept, Unit,
};
use clarion_core::{Address, AddressKind, Code, MessageId, Millis, Retention, Seq};
use std::ops::Bound;

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
        let results = batch
            .units
            .into_iter()
            .map(|unit| self.unit(now, unit).unwrap_or_else(Done::Refused))
            .collect();
        Ok(Committed { durability: Durability::Memory, results })
    }

    fn unit(&mut self, now: Millis, unit: Unit) -> Result<Done, Code> {
        match unit {
            Unit::Publish(publish) => self.publish(now, &publish).map(Done::Published),
            Unit::Ack { reader, moves } => {
                rules::check_key(reader.as_bytes())?;
                for of in &moves {
                    self.ack(now, &reader, of);
                }
                Ok(Done::Acked)
            }
            Unit::Forget { reader } => {
                for channel in self.own_channels.remove(&reader).into_iter().flatten() {
                    self.cursors.remove(&(reader.clone(), channel.clone()));
                    if let Some(readers) = self.readers.get_mut(&channel) {
                        readers.remove(&reader);
                        if readers.is_empty() {
                            self.readers.remove(&channel);
                        }
                    }
                }
                Ok(Done::Acked)
            }
            Unit::Record { key, expect, change } => self.record(key, expect, change),
            Unit::Trim { channel, below } => Ok(Done::Trimmed(self.trim(&channel, below))),
            Unit::Erase { channel, seq } => {
                let log = self.logs.get_mut(&channel);
                Ok(Done::Erased(log.is_some_and(|log| log.erase(seq))))
            }
        }
    }

    fn publish(&mut self, now: Millis, publish: &Publish) -> Result<Stored, Code> {
        let key = publish.content.idempotency_key.as_deref();
        if key.is_some_and(|k| k.len() > rules::IDEMPOTENCY_BYTES_MAX) {
            return Err(Code::BadRequest);
        }
        if let Some(stored) = key.and_then(|k| self.remembered(now, &publish.channel, k)) {
            return Ok(stored);
        }
        let weight = publish.content.weight() as u64;
        let held = self.logs.get(&publish.channel).map_or(0, super::log::Log::bytes);
        if !publish.retention.has_room(held, weight) {
            return Err(Code::QueueFull);
        }
        if self.config.max_bytes > 0 && self.held.saturating_add(weight) > self.config.max_bytes {
            return Err(Code::StoreFull);
        }
        let log = self.log_or_new(&publish.channel);
        log.retention = publish.retention;
        let (seq, created_at) = log.append(now, Body::Full(publish.content.clone()), weight);
        let (number, epoch, left) = (log.number, log.epoch, log.retain());
        self.held = self.held + weight - left;
        if let Some(key) = key {
            self.remembered.insert((number, key.into()), Remembered { epoch, seq, created_at });
        }
        for filter in &publish.refs {
            self.refer(now, filter, number, seq);
        }
        let id = MessageId::stored(created_at, number, seq);
        Ok(Stored { id, epoch, seq, created_at, duplicate: false })
    }

    fn refer(&mut self, now: Millis, filter: &Address, number: u32, seq: Seq) {
        let log = self.log_or_new(filter);
        log.retention = Retention::default_of(AddressKind::Filter);
        log.append(now, Body::Reference(number, seq), REFERENCE_WEIGHT);
        let left = log.retain();
        self.held = self.held + REFERENCE_WEIGHT - left;
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
        self.cursors.insert(key, new);
        self.own_channels.entry(reader.clone()).or_default().insert(of.channel.clone());
        self.readers.entry(of.channel.clone()).or_default().insert(reader.clone());
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
