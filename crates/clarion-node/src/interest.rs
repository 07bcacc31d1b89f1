//! Which shards have live readers of a channel: shared, read-mostly.
//!
//! Invariant: a shard registers before it reads the head of a channel for a new reader, and the committer asks after a
//! commit became visible; so a commit is hinted or seen in that read. Must not know: sessions.

use crate::attach::user_tag;
use clarion_core::{Address, AddressKind};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// A set of shards, a bit each.
pub(crate) type ShardSet = u64;

/// See the module.
pub(crate) struct Interest {
    shards: RwLock<HashMap<Address, ShardSet>>,
    /// Shards on which gates stand: they are told of every user's channel that is theirs.
    gates: AtomicUsize,
    /// How often a shard's first gate came.
    gates_came: AtomicU64,
    shard_count: usize,
}

/// A look at the present state.
pub(crate) struct InterestGuard<'a> {
    shards: RwLockReadGuard<'a, HashMap<Address, ShardSet>>,
    /// 0 without gates.
    shard_count: usize,
}

impl InterestGuard<'_> {
    /// The shards with live readers of this channel.
    pub(crate) fn shards(&self, channel: &Address) -> ShardSet {
        let readers = if self.shards.is_empty() { None } else { self.shards.get(channel) };
        let gates = if self.shard_count > 0 && channel.kind() == AddressKind::User {
            1 << (user_tag(channel.id()) as usize % self.shard_count)
        } else {
            0
        };
        readers.copied().unwrap_or(0) | gates
    }
}

impl Interest {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self { shards: RwLock::default(), gates: AtomicUsize::new(0), gates_came: AtomicU64::new(0), shard_count }
    }

    pub(crate) fn read(&self) -> InterestGuard<'_> {
        InterestGuard {
            shards: self.shards.read().unwrap_or_else(PoisonError::into_inner),
            shard_count: if self.has_gates() { self.shard_count } else { 0 },
        }
    }

    /// Whether a gate stands anywhere.
    pub(crate) fn has_gates(&self) -> bool {
        self.gates.load(Ordering::SeqCst) > 0
    }

    /// A mark of who is there: when it is the same before and after a commit, and not `None`, each shard had a gate all
    /// the time, so the commit's hint found one.
    pub(crate) fn gates_mark(&self) -> Option<u64> {
        let came = self.gates_came.load(Ordering::SeqCst);
        self.has_gates().then_some(came)
    }

    /// The first gate stands on a shard.
    pub(crate) fn gates_came(&self) {
        self.gates_came.fetch_add(1, Ordering::SeqCst);
        self.gates.fetch_add(1, Ordering::SeqCst);
    }

    /// None stands on it any more.
    pub(crate) fn gates_went(&self) {
        self.gates.fetch_sub(1, Ordering::SeqCst);
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
