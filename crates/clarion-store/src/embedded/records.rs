//! Small records and claims: the writer's compare-and-sets.
//!
//! Invariant: units see the records as the units before them in the batch left them.

use super::codec::Claim;
use super::engine::Fault;
use super::keys;
use super::writer::Writer;
use crate::rules::{self, RECORD_BYTES_MAX};
use bytes::Bytes;
use clarion_core::port::store::{Change, Expect, StoreError};
use clarion_core::{Code, Millis};
use fjall::OwnedWriteBatch;

impl Writer {
    pub(super) fn record(
        &mut self,
        key: Bytes,
        expect: Expect,
        change: Change,
    ) -> Result<u64, Fault> {
        rules::check_key(&key)?;
        if key.is_empty() {
            return Err(Code::BadRequest.into());
        }
        let present = match self.plan.records.get(&key) {
            Some(planned) => planned.as_ref().map(|(version, _)| *version),
            None => self.engine.record(&key)?.map(|(version, _)| version),
        };
        let as_expected = match expect {
            Expect::Any => true,
            Expect::Absent => present.is_none(),
            Expect::Version(version) => present == Some(version),
        };
        if !as_expected {
            return Err(Code::Conflict.into());
        }
        match change {
            Change::Put(value) if value.len() > RECORD_BYTES_MAX => {
                Err(Code::PayloadTooLarge.into())
            }
            Change::Put(value) => {
                let version = present.unwrap_or(0) + 1;
                self.plan.records.insert(key, Some((version, value)));
                Ok(version)
            }
            Change::Delete => {
                self.plan.records.insert(key, None);
                Ok(0)
            }
        }
    }

    pub(super) fn write_records(&mut self, out: &mut OwnedWriteBatch) {
        for (key, planned) in &self.plan.records {
            match planned {
                Some((version, value)) => {
                    self.scratch.clear();
                    self.scratch.extend_from_slice(&version.to_be_bytes());
                    self.scratch.extend_from_slice(value);
                    out.insert(&self.engine.ks.records, &key[..], self.scratch.as_slice());
                }
                None => out.remove(&self.engine.ks.records, &key[..]),
            }
        }
    }

    pub(super) fn check_fence(
        &self,
        now: Millis,
        key: &[u8],
        fence: u64,
    ) -> Result<(), StoreError> {
        let claim = self.engine.claim(key)?;
        if claim.is_some_and(|claim| claim.fence == fence && now < claim.until) {
            return Ok(());
        }
        let detail = "the claim that this batch stands on is lost".into();
        Err(StoreError::Refused { code: Code::Conflict, detail })
    }

    pub(super) fn claim(
        &mut self,
        now: Millis,
        key: &[u8],
        owner: Bytes,
        ttl_ms: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.writable()?;
        rules::check_key(key).map_err(Fault::from)?;
        let present = self.engine.claim(key)?;
        let held = present.as_ref().is_some_and(|claim| now < claim.until);
        if held && present.as_ref().is_some_and(|claim| claim.owner != owner) {
            return Ok(None);
        }
        let before = present.map_or(0, |claim| claim.fence);
        let fence = if held { before } else { before + 1 };
        let claim = Claim { fence, until: now.saturating_add(ttl_ms), owner };
        self.begin(now);
        let mut out = self.new_batch(1);
        self.scratch.clear();
        claim.put(&mut self.scratch);
        out.insert(&self.engine.ks.meta, keys::claim(key), self.scratch.as_slice());
        self.finish(out)?;
        Ok(Some(fence))
    }
}
