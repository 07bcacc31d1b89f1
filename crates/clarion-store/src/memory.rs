//! The engine `memory`: everything in this process, nothing survives it.
//!
//! A commit takes effect before `commit` returns, so dropping its future cancels nothing. Every answer says durability
//! `memory`. Must not know: files, threads.

mod commit;
mod log;
mod read;

use crate::rules;
use bytes::Bytes;
use clarion_core::port::BoxFuture;
use clarion_core::port::store::{
    Batch, Committed, Find, Found, Head, Health, Page, ReadRange, Reader, Record, Store,
    StoreError, StoredCursor, SweepBudget, Swept,
};
use clarion_core::{Address, Code, Epoch, Millis, Seq};
use log::Log;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the engine `memory` can be told.
#[derive(Debug, Clone, Default)]
pub struct MemoryConfig {
    /// Most bytes that all logs may hold together; then publishes are refused. 0 = unbounded.
    pub max_bytes: u64,
    /// Where epochs come from: `None` = the operating system's randomness, `Some` = a fixed sequence (simulations).
    pub epoch_seed: Option<u64>,
}

/// See the module.
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

/// A claim on a key.
struct Claim {
    owner: Bytes,
    fence: u64,
    until: Millis,
}

/// A publish under an idempotency key.
#[derive(Clone, Copy)]
struct Remembered {
    epoch: Epoch,
    seq: Seq,
    created_at: Millis,
}

#[derive(Default)]
struct Inner {
    config: MemoryConfig,
    failed: Option<String>,
    logs: BTreeMap<Address, Log>,
    names: HashMap<u32, Address>,
    last_number: u32,
    epochs_drawn: u64,
    held: u64,
    cursors: HashMap<(Reader, Address), StoredCursor>,
    own_channels: HashMap<Reader, BTreeSet<Address>>,
    readers: HashMap<Address, BTreeSet<Reader>>,
    records: BTreeMap<Bytes, (u64, Bytes)>,
    claims: BTreeMap<Bytes, Claim>,
    remembered: BTreeMap<(u32, Box<str>), Remembered>,
    sweep_after: Option<Address>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(config: MemoryConfig) -> Self {
        Self { inner: Mutex::new(Inner { config, ..Inner::default() }) }
    }

    /// From now on every write is refused with this reason, as an engine whose disk failed would; `None` heals it.
    pub fn set_failed(&self, reason: Option<String>) {
        self.lock().failed = reason;
    }

    /// Every channel's epoch changes, as after a loss of history.
    pub fn lose_history(&self) {
        let mut inner = self.lock();
        let addresses: Vec<Address> = inner.logs.keys().cloned().collect();
        for address in addresses {
            let epoch = inner.draw_epoch();
            if let Some(log) = inner.logs.get_mut(&address) {
                log.epoch = epoch;
            }
        }
    }

    // A panic while the lock is held leaves whole units behind, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, StoreError>,
    ) -> BoxFuture<Result<T, StoreError>> {
        let answer = work(&mut self.lock());
        Box::pin(future::ready(answer))
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryConfig::default())
    }
}

impl Inner {
    fn writable(&self) -> Result<(), StoreError> {
        match &self.failed {
            Some(reason) => Err(refused(Code::StoreUnavailable, reason)),
            None => Ok(()),
        }
    }

    fn draw_epoch(&mut self) -> Epoch {
        loop {
            self.epochs_drawn += 1;
            let drawn = match self.config.epoch_seed {
                Some(seed) => crate::random::mix(seed.wrapping_add(self.epochs_drawn)) as u32,
                None => crate::random::u32(),
            };
            if drawn != 0 {
                return drawn;
            }
        }
    }

    fn log_or_new(&mut self, address: &Address) -> &mut Log {
        if !self.logs.contains_key(address) {
            self.last_number += 1;
            let (number, epoch) = (self.last_number, self.draw_epoch());
            self.names.insert(number, address.clone());
            self.logs.insert(address.clone(), Log::new(number, epoch));
        }
        self.logs.get_mut(address).expect("it was put there above")
    }

    fn cursors_of(&self, reader: &Reader) -> Vec<StoredCursor> {
        let own = self.own_channels.get(reader).into_iter().flatten();
        own.filter_map(|channel| self.cursors.get(&(reader.clone(), channel.clone())))
            .cloned()
            .collect()
    }

    fn cursors_on(&self, reader: &Reader, channels: Vec<Address>) -> Vec<Option<StoredCursor>> {
        let on = |channel| self.cursors.get(&(reader.clone(), channel)).cloned();
        channels.into_iter().map(on).collect()
    }

    fn readers_of(&self, channel: &Address) -> Vec<StoredCursor> {
        let readers = self.readers.get(channel).into_iter().flatten();
        readers
            .filter_map(|reader| self.cursors.get(&(reader.clone(), channel.clone())))
            .cloned()
            .collect()
    }

    fn scan(&self, prefix: &Bytes, after: Option<&Bytes>, limit: usize) -> Vec<Record> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(prefix.clone()),
        };
        self.records
            .range((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, (version, value))| Record {
                key: key.clone(),
                version: *version,
                value: value.clone(),
            })
            .collect()
    }

    fn claim(&mut self, now: Millis, key: Bytes, owner: Bytes, ttl_ms: u64) -> Option<u64> {
        let until = now.saturating_add(ttl_ms);
        let claim =
            self.claims.entry(key).or_insert(Claim { owner: Bytes::new(), fence: 0, until: 0 });
        let held = claim.fence > 0 && now < claim.until;
        if held && claim.owner != owner {
            return None;
        }
        if !held {
            claim.fence += 1;
        }
        claim.owner = owner;
        claim.until = until;
        Some(claim.fence)
    }
}

fn refused(code: Code, detail: impl Into<String>) -> StoreError {
    StoreError::Refused { code, detail: detail.into() }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch) -> BoxFuture<Result<Committed, StoreError>> {
        self.answer(|inner| inner.commit(batch))
    }

    fn heads(&self, channels: Vec<Address>) -> BoxFuture<Result<Vec<Head>, StoreError>> {
        self.answer(|inner| Ok(channels.iter().map(|c| inner.head(c)).collect()))
    }

    fn read(
        &self,
        now: Millis,
        ranges: Vec<ReadRange>,
    ) -> BoxFuture<Result<Vec<Page>, StoreError>> {
        self.answer(|inner| Ok(ranges.iter().map(|range| inner.page(now, range)).collect()))
    }

    fn cursors(&self, reader: Reader) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        self.answer(|inner| Ok(inner.cursors_of(&reader)))
    }

    fn cursors_on(
        &self,
        reader: Reader,
        channels: Vec<Address>,
    ) -> BoxFuture<Result<Vec<Option<StoredCursor>>, StoreError>> {
        self.answer(|inner| Ok(inner.cursors_on(&reader, channels)))
    }

    fn readers(&self, channel: Address) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        self.answer(|inner| Ok(inner.readers_of(&channel)))
    }

    fn records(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Record>, StoreError>> {
        self.answer(|inner| Ok(inner.scan(&prefix, after.as_ref(), limit)))
    }

    fn find(&self, now: Millis, what: Find) -> BoxFuture<Result<Option<Found>, StoreError>> {
        self.answer(|inner| Ok(inner.find(now, &what)))
    }

    fn claim(
        &self,
        now: Millis,
        key: Bytes,
        owner: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<Result<Option<u64>, StoreError>> {
        self.answer(|inner| {
            inner.writable()?;
            rules::check_key(&key).map_err(|code| refused(code, "the claim's key is too long"))?;
            Ok(inner.claim(now, key, owner, ttl_ms))
        })
    }

    fn sweep(&self, now: Millis, budget: SweepBudget) -> BoxFuture<Result<Swept, StoreError>> {
        self.answer(|inner| {
            inner.writable()?;
            Ok(inner.sweep(now, budget))
        })
    }

    fn check(&self) -> BoxFuture<Health> {
        let failed = self.lock().failed.clone();
        Box::pin(future::ready(Health { failed, disk_bytes: None }))
    }
}

#[cfg(test)]
mod tests;
