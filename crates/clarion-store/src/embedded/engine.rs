//! What the embedded engine's threads share: the database, its keyspaces, the cache of channels, the latch.
//!
//! Invariants: after a failed write or fsync the latch is set and no write is tried again; fjall's `clear` is never
//! called; fjall is only called on the store's own threads (opening and closing apart).

use super::channels::Channels;
use super::codec::{Claim, Remembered};
use super::filter::FloorSource;
use super::{EmbeddedConfig, keys};
use crate::rules::{IDEMPOTENCY_MS, RECORD_BYTES_MAX};
use bytes::Bytes;
use clarion_core::port::store::{Record, StoreError};
use clarion_core::{Code, Millis};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Half a day: what one keyspace of remembered publishes covers.
const HALF_DAY_MS: u64 = IDEMPOTENCY_MS / 2;
/// Keyspaces of remembered publishes are called this and their number.
pub(super) const IDEMPOTENCY_PREFIX: &str = "idem-";

pub(super) struct Keyspaces {
    pub(super) log: Keyspace,
    pub(super) channels: Keyspace,
    pub(super) names: Keyspace,
    pub(super) cursors: Keyspace,
    pub(super) records: Keyspace,
    pub(super) due: Keyspace,
    pub(super) meta: Keyspace,
}

pub(super) struct Engine {
    pub(super) db: Database,
    pub(super) ks: Keyspaces,
    pub(super) config: EmbeddedConfig,
    pub(super) dir: PathBuf,
    pub(super) generation: u32,
    pub(super) channels: Channels,
    /// States that were loaded because the cache did not have them.
    pub(super) loads: AtomicU64,
    /// Bytes that were trimmed since the log was compacted last.
    pub(super) garbage: AtomicU64,
    /// The engine holds as much as it may.
    pub(super) full: AtomicBool,
    pub(super) floors: Arc<FloorSource>,
    pub(super) remembered: RwLock<BTreeMap<u64, Keyspace>>,
    pub(super) failed: Mutex<Option<String>>,
    pub(super) _lock: File,
}

/// Why a unit or a call did not work.
#[derive(Debug)]
pub(super) enum Fault {
    /// The unit is refused; the others go on.
    Refused(Code),
    /// The engine failed.
    Engine(fjall::Error),
    /// Something stored cannot be read.
    Damaged(String),
}

impl Fault {
    pub(super) fn damaged(what: &str) -> Self {
        Self::Damaged(format!("{what} in the data directory is damaged"))
    }
}

impl From<Code> for Fault {
    fn from(code: Code) -> Self {
        Self::Refused(code)
    }
}

impl From<fjall::Error> for Fault {
    fn from(error: fjall::Error) -> Self {
        Self::Engine(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(code) => Self::Refused { code, detail: code.row().title.into() },
            Fault::Engine(e) => {
                Self::Refused { code: Code::StoreUnavailable, detail: e.to_string() }
            }
            Fault::Damaged(detail) => Self::Refused { code: Code::StoreUnavailable, detail },
        }
    }
}

impl Engine {
    /// Why writes are refused, if they are.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No write is taken from now on.
    pub(super) fn latch(&self, reason: String) {
        tracing::error!(reason, "the store takes no writes until it is restarted");
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    /// Asks fjall whether one of its own threads failed, and latches if so.
    pub(super) fn probe(&self) -> Option<String> {
        if self.failure().is_none()
            && let Err(error) = self.db.persist(PersistMode::Buffer)
        {
            self.latch(error.to_string());
        }
        self.failure()
    }

    /// The bytes of one keyspace that holds `value`s at most a few hundred bytes long.
    pub(super) fn small_options(config: &EmbeddedConfig) -> KeyspaceCreateOptions {
        KeyspaceCreateOptions::default()
            .manual_journal_persist(true)
            .max_memtable_size(config.memtable_bytes)
    }

    /// Bytes on disk without the journal, which is bounded by itself, and with what waits in memory to be written.
    pub(super) fn used_bytes(&self) -> u64 {
        let ks = &self.ks;
        let fixed = [&ks.log, &ks.channels, &ks.names, &ks.cursors, &ks.records, &ks.due, &ks.meta];
        let on_disk: u64 = fixed.into_iter().map(Keyspace::disk_space).sum();
        on_disk + self.db.write_buffer_size()
    }

    /// A publish that was remembered under this key.
    pub(super) fn remembered(
        &self,
        now: Millis,
        number: u32,
        key: &str,
    ) -> Result<Option<Remembered>, Fault> {
        let spaces = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = (now / HALF_DAY_MS).saturating_sub(2);
        let key = keys::idempotency(number, key);
        for space in spaces.range(oldest..).rev().map(|(_, space)| space) {
            let Some(value) = self.db.snapshot().get(space, &key)? else { continue };
            let found =
                Remembered::take(&value).ok_or_else(|| Fault::damaged("an idempotency key"))?;
            return Ok((now < found.created_at.saturating_add(IDEMPOTENCY_MS)).then_some(found));
        }
        Ok(None)
    }

    /// Where a publish of this moment is remembered.
    pub(super) fn remember_in(&self, now: Millis) -> Result<Keyspace, Fault> {
        let half_day = now / HALF_DAY_MS;
        let known = self.remembered.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = known.get(&half_day) {
            return Ok(space.clone());
        }
        drop(known);
        let name = format!("{IDEMPOTENCY_PREFIX}{half_day}");
        let space = self.db.keyspace(&name, || Self::small_options(&self.config))?;
        let mut known = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(half_day, space.clone());
        Ok(space)
    }

    /// Drops the keyspaces whose every publish is older than an idempotency key lives.
    pub(super) fn drop_forgotten(&self, now: Millis) -> Result<(), Fault> {
        let oldest = (now / HALF_DAY_MS).saturating_sub(2);
        let mut known = self.remembered.write().unwrap_or_else(PoisonError::into_inner);
        let kept = known.split_off(&oldest);
        let dropped = std::mem::replace(&mut *known, kept);
        drop(known);
        for (_, space) in dropped {
            self.db.delete_keyspace(space)?;
        }
        Ok(())
    }

    /// A stored record: its version and value.
    pub(super) fn record(&self, key: &[u8]) -> Result<Option<(u64, Bytes)>, Fault> {
        let Some(value) = self.db.snapshot().get(&self.ks.records, key)? else { return Ok(None) };
        Ok(Some(split_record(&value)?))
    }

    pub(super) fn scan(
        &self,
        prefix: &Bytes,
        after: Option<&Bytes>,
        limit: usize,
    ) -> Result<Vec<Record>, Fault> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.clone()),
            _ => Bound::Included(prefix.clone()),
        };
        let range = (from, Bound::Unbounded);
        let mut found = Vec::new();
        let mut bytes = 0;
        for item in self.db.snapshot().range::<Bytes, _>(&self.ks.records, range).take(limit) {
            let (key, value) = item.into_inner()?;
            if !key.starts_with(prefix) {
                break;
            }
            let (version, value) = split_record(&value)?;
            bytes += value.len();
            found.push(Record { key: Bytes::copy_from_slice(&key), version, value });
            if bytes > 4 * RECORD_BYTES_MAX {
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn claim(&self, key: &[u8]) -> Result<Option<Claim>, Fault> {
        let Some(value) = self.db.snapshot().get(&self.ks.meta, keys::claim(key))? else {
            return Ok(None);
        };
        Ok(Some(Claim::take(&value).ok_or_else(|| Fault::damaged("a claim"))?))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The filter's handle on the database keeps the database alive; without this it would never close.
        self.floors.clear();
    }
}

fn split_record(value: &[u8]) -> Result<(u64, Bytes), Fault> {
    let (version, rest) =
        value.split_first_chunk().ok_or_else(|| Fault::damaged("a small record"))?;
    Ok((u64::from_be_bytes(*version), Bytes::copy_from_slice(rest)))
}
