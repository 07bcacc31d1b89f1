//! Which shards have live readers of a channel, or of a filter that matches it, and who shares a filter: shared,
//! read-mostly.
//!
//! Invariant: a shard registers before it reads the head of a channel for a new reader, and the committer asks after a
//! commit became visible; so a commit is hinted or seen in that read. Must not know: sessions.

use crate::attach::user_tag;
use crate::shares::{Picked, Shares};
use clarion_core::topic_tree::TopicTree;
use clarion_core::{Address, AddressKind};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A set of shards, a bit each.
pub(crate) type ShardSet = u64;

#[derive(Default)]
struct Readers {
    channels: HashMap<Address, ShardSet>,
    /// Filters with wildcards over topics.
    filters: TopicTree<ShardSet>,
    shares: Shares,
}

/// See the module.
pub(crate) struct Interest {
    readers: RwLock<Readers>,
    /// Shards on which gates stand: they are told of every user's channel that is theirs.
    gates: AtomicUsize,
    /// How often a first gate came to a shard.
    comings: AtomicU64,
    shard_count: usize,
}

/// A look at the present state.
pub(crate) struct InterestGuard<'a> {
    readers: RwLockReadGuard<'a, Readers>,
    /// 0 without gates.
    shard_count: usize,
}

impl InterestGuard<'_> {
    /// The shards with live readers of this channel; those who share a filter apart.
    pub(crate) fn shards(&self, channel: &Address) -> ShardSet {
        let Readers { channels, filters, .. } = &*self.readers;
        let mut set = if channels.is_empty() { None } else { channels.get(channel) }
            .copied()
            .unwrap_or_default();
        match channel.kind() {
            AddressKind::User if self.shard_count > 0 => {
                set |= 1 << (user_tag(channel.id()) as usize % self.shard_count);
            }
            AddressKind::Topic => filters.matches(channel.id(), |shards| set |= *shards),
            _ => {}
        }
        set
    }

    /// Whether anybody reads this channel, sharing or not.
    pub(crate) fn has_any(&self, channel: &Address) -> bool {
        let shared =
            || channel.kind() == AddressKind::Topic && self.readers.shares.has_any(channel.id());
        self.shards(channel) != 0 || shared()
    }

    /// The member of each sharing group that a message of this channel goes to.
    pub(crate) fn pick(&self, channel: &Address) -> Vec<Picked> {
        match channel.kind() {
            AddressKind::Topic => self.readers.shares.pick(channel.id()),
            _ => Vec::new(),
        }
    }
}

impl Interest {
    pub(crate) fn new(shard_count: usize) -> Self {
        Self {
            readers: RwLock::default(),
            gates: AtomicUsize::new(0),
            comings: AtomicU64::new(0),
            shard_count,
        }
    }

    pub(crate) fn read(&self) -> InterestGuard<'_> {
        InterestGuard {
            readers: self.readers.read().unwrap_or_else(PoisonError::into_inner),
            shard_count: if self.has_gates() { self.shard_count } else { 0 },
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Readers> {
        self.readers.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells one state of affairs of gates from another: 0 = none stands anywhere, else it grows whenever one comes.
    pub(crate) fn gates_seen(&self) -> u64 {
        let comings = self.comings.load(Ordering::SeqCst);
        if self.has_gates() { comings } else { 0 }
    }

    /// Whether a gate stands anywhere.
    pub(crate) fn has_gates(&self) -> bool {
        self.gates.load(Ordering::SeqCst) > 0
    }

    /// The first gate stands on a shard.
    pub(crate) fn gates_came(&self) {
        self.comings.fetch_add(1, Ordering::SeqCst);
        self.gates.fetch_add(1, Ordering::SeqCst);
    }

    /// None stands on it any more.
    pub(crate) fn gates_went(&self) {
        self.gates.fetch_sub(1, Ordering::SeqCst);
    }

    /// This shard has a first live reader.
    pub(crate) fn enter(&self, channel: &Address, shard: usize) {
        *self.write().channels.entry(channel.clone()).or_default() |= 1 << shard;
    }

    /// This shard has none any more.
    pub(crate) fn leave(&self, channel: &Address, shard: usize) {
        let channels = &mut self.write().channels;
        if let Some(set) = channels.get_mut(channel) {
            *set &= !(1 << shard);
            if *set == 0 {
                channels.remove(channel);
            }
        }
    }

    /// This shard has a first subscription to a filter.
    pub(crate) fn enter_filter(&self, filter: &str, shard: usize) {
        *self.write().filters.entry(filter) |= 1 << shard;
    }

    /// This shard has none any more.
    pub(crate) fn leave_filter(&self, filter: &str, shard: usize) {
        let filters = &mut self.write().filters;
        if let Some(set) = filters.get_mut(filter) {
            *set &= !(1 << shard);
            if *set == 0 {
                filters.remove(filter);
            }
        }
    }

    /// Changes who shares filters.
    pub(crate) fn shares<T>(&self, change: impl FnOnce(&mut Shares) -> T) -> T {
        change(&mut self.write().shares)
    }
}
