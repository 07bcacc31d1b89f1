//! Which shards have live readers of a channel: shared, read-mostly.
//!
//! Invariant: a shard registers before it reads the head of a channel for a new reader, and the committer asks after a
//! commit became visible; so a commit is hinted or seen in that read. Must not know: sessions.

use clarion_core::Address;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A set of shards, a bit each.
pub(crate) type ShardSet = u64;

/// See the module.
#[derive(Default)]
pub(crate) struct Interest {
    shards: RwLock<HashMap<Address, ShardSet>>,
}

/// A look at the present state.
pub(crate) struct InterestGuard<'a>(RwLockReadGuard<'a, HashMap<Address, ShardSet>>);

impl InterestGuard<'_> {
    /// The shards with live readers of this channel.
    pub(crate) fn shards(&self, channel: &Address) -> ShardSet {
        if self.0.is_empty() { 0 } else { self.0.get(channel).copied().unwrap_or(0) }
    }
}

impl Interest {
    pub(crate) fn read(&self) -> InterestGuard<'_> {
        InterestGuard(self.shards.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// This shard has a first live reader.
    pub(crate) fn enter(&self, channel: &Address, shard: usize) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        *shards.entry(channel.clone()).or_default() |= 1 << shard;
    }

    /// This shard has none any more.
    pub(crate) fn leave(&self, channel: &Address, shard: usize) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = shards.get_mut(channel) {
            *set &= !(1 << shard);
            if *set == 0 {
                shards.remove(channel);
            }
        }
    }
}
