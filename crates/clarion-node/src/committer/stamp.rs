//! The time of batches.
//!
//! Invariant: it never falls, also over a crash. Must not know: what is committed.

use crate::node::store_refusal;
use bytes::Bytes;
use clarion_core::port::store::{Change, Expect, Store, Unit};
use clarion_core::{Millis, Refusal};
use std::sync::Arc;

/// The time of batches: that of the clock, but it never falls.
///
/// A record keeps a time that lies ahead of all that were used, since after a crash nobody knows the last one.
#[derive(Debug, Default)]
pub(crate) struct CommitClock {
    pub(super) last: Millis,
    /// 0 until one was written.
    pub(super) ceiling: Millis,
}

/// Record key of the time that lies ahead.
const CLOCK_KEY: &[u8] = b"clock";
/// How far ahead it lies.
const AHEAD_MS: Millis = 10_000;

impl CommitClock {
    /// Goes on where an earlier run ended.
    pub(crate) async fn load(store: &Arc<dyn Store>) -> Result<Self, Refusal> {
        let key = Bytes::from_static(CLOCK_KEY);
        let found = store.records(key, None, 1).await.map_err(store_refusal)?;
        let value = found.first().filter(|record| record.key == CLOCK_KEY);
        let last =
            value.and_then(|record| Some(u64::from_be_bytes(record.value[..].try_into().ok()?)));
        Ok(Self { last: last.unwrap_or_default(), ceiling: 0 })
    }

    /// The time of the last batch, or one that lies ahead of it.
    pub(crate) fn last(&self) -> Millis {
        self.last
    }

    pub(super) fn next(&mut self, now: Millis, above_all: bool) -> Millis {
        self.last = now.max(self.last + Millis::from(above_all));
        self.last
    }

    /// What must be written with a batch of this time.
    pub(super) fn ceiling(&mut self, now: Millis) -> Option<Unit> {
        if now + AHEAD_MS / 2 < self.ceiling {
            return None;
        }
        self.ceiling = now + AHEAD_MS;
        let change = Change::Put(Bytes::copy_from_slice(&self.ceiling.to_be_bytes()));
        Some(Unit::Record { key: Bytes::from_static(CLOCK_KEY), expect: Expect::Any, change })
    }

    /// The end of an orderly run: nothing lies ahead.
    pub(super) fn end(&self) -> Unit {
        let change = Change::Put(Bytes::copy_from_slice(&self.last.to_be_bytes()));
        Unit::Record { key: Bytes::from_static(CLOCK_KEY), expect: Expect::Any, change }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_falls_and_a_beginning_lies_above_all_before() {
        let mut clock = CommitClock { last: 5, ceiling: 0 };
        assert_eq!([clock.next(3, false), clock.next(3, true), clock.next(3, false)], [5, 6, 6]);
        assert_eq!(clock.next(9, true), 9);
        assert!(clock.ceiling(9).is_some() && clock.ceiling(10).is_none());
        assert!(clock.ceiling(9 + AHEAD_MS).is_some());
    }
}
