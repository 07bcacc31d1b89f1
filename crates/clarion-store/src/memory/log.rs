//! One channel's log in memory.
//!
//! Invariant: `entries` are the seqs `first..=last`, `bytes` is the sum of their weights.

use clarion_core::port::store::Head;
use clarion_core::{Address, Content, Epoch, Millis, Overflow, Retention, Seq};
use std::collections::VecDeque;
use std::sync::Arc;

/// What stands at one seq.
pub(super) enum Body {
    Full(Arc<Content>),
    /// Number of another channel and seq there.
    Reference(u32, Seq),
    /// The same, that channel's address, and what stands there.
    Copy(Arc<(u32, Seq, Address)>, Arc<Content>),
    Erased,
}

pub(super) struct Entry {
    pub(super) body: Body,
    pub(super) created_at: Millis,
    pub(super) expires_at: Option<Millis>,
    weight: u64,
}

pub(super) struct Log {
    pub(super) number: u32,
    pub(super) epoch: Epoch,
    pub(super) first: Seq,
    pub(super) last_at: Millis,
    pub(super) retention: Retention,
    entries: VecDeque<Entry>,
    bytes: u64,
    counted: u64,
}

impl Log {
    pub(super) fn new(number: u32, epoch: Epoch) -> Self {
        Self {
            number,
            epoch,
            first: 1,
            last_at: 0,
            retention: Retention { age_ms: 0, count: 0, bytes: 0, overflow: Overflow::TrimOldest },
            entries: VecDeque::new(),
            bytes: 0,
            counted: 0,
        }
    }

    pub(super) fn last(&self) -> Seq {
        self.first + self.entries.len() as u64 - 1
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            first: self.first,
            last: self.last(),
            counted: self.counted,
            bytes: self.bytes,
            last_at: self.last_at,
        }
    }

    pub(super) fn entry(&self, seq: Seq) -> Option<&Entry> {
        self.entries.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// Appends; returns the seq and the clamped time.
    pub(super) fn append(&mut self, now: Millis, body: Body, weight: u64) -> (Seq, Millis) {
        self.last_at = self.last_at.max(now);
        let (expires_at, counted) = match &body {
            Body::Full(content) => (content.expires_at, content.counted),
            Body::Copy(_, content) => (content.expires_at, false),
            Body::Reference(..) | Body::Erased => (None, false),
        };
        self.bytes += weight;
        self.counted += u64::from(counted);
        self.entries.push_back(Entry { body, created_at: self.last_at, expires_at, weight });
        (self.last(), self.last_at)
    }

    /// Gives up everything below; returns the bytes that left.
    pub(super) fn trim(&mut self, below: Seq) -> u64 {
        let before = self.bytes;
        while self.first < below {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes -= entry.weight;
            self.first += 1;
        }
        before - self.bytes
    }

    /// Applies the bounds by count and bytes; returns the bytes that left.
    pub(super) fn retain(&mut self) -> u64 {
        let mut left = self.trim(self.retention.first_by_count(self.last()));
        if self.retention.over_bytes(self.bytes) {
            let keep = self.retention.bytes - crate::rules::bytes_slack(self.retention.bytes);
            while self.bytes > keep && !self.entries.is_empty() {
                left += self.trim(self.first + 1);
            }
        }
        left
    }

    /// The first seq that age lets stay.
    pub(super) fn first_by_age(&self, now: Millis) -> Seq {
        let oldest = self.retention.oldest_allowed(now);
        self.first + self.entries.partition_point(|e| e.created_at < oldest) as u64
    }

    /// The seq of the copy of a message, which was appended at `at`; `None` = nobody knows when.
    pub(super) fn copy_of(&self, number: u32, seq: Seq, at: Option<Millis>) -> Option<Seq> {
        let from = at.map_or(0, |at| self.entries.partition_point(|e| e.created_at < at));
        let is_copy = |entry: &Entry| match &entry.body {
            Body::Copy(of, _) => (of.0, of.1) == (number, seq),
            Body::Full(_) | Body::Reference(..) | Body::Erased => false,
        };
        let then = self.entries.range(from..);
        let found = then
            .take_while(|entry| at.is_none_or(|at| entry.created_at == at))
            .position(is_copy)?;
        Some(self.first + (from + found) as u64)
    }

    /// Blanks a body; returns whether there was one.
    pub(super) fn erase(&mut self, seq: Seq) -> bool {
        let index = seq.checked_sub(self.first).and_then(|i| usize::try_from(i).ok());
        let Some(entry) = index.and_then(|i| self.entries.get_mut(i)) else { return false };
        !matches!(std::mem::replace(&mut entry.body, Body::Erased), Body::Erased)
    }
}
