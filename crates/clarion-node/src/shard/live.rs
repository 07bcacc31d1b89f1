//! Live lists: who on this shard is to be told of a channel's commits.
//!
//! Invariant: the node's interest names this shard for a channel exactly while its entry here is not empty. Must not
//! know: what is done with a record.

use super::ShardContext;
use super::members::SharedKey;
use clarion_core::Address;
use clarion_core::port::peer::SubOptions;
use std::collections::HashMap;

/// A subscription in a live list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LiveEntry {
    pub(super) session: u32,
    pub(super) sub: u16,
}

/// A peer's subscription to a topic, or to a filter that matches it.
#[derive(Clone, Copy)]
pub(super) struct TopicEntry {
    pub(super) session: u32,
    pub(super) options: SubOptions,
    /// What is stored reaches it by its log.
    pub(super) durable: bool,
}

/// A log of a stored session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) session: u32,
    pub(super) slot: u32,
}

/// Everybody on one channel.
#[derive(Default)]
pub(super) struct Live {
    pub(super) subs: Vec<LiveEntry>,
    /// Shared cursors that are in memory.
    pub(super) shared: Vec<SharedKey>,
    /// Stored sessions of peers that read it as a log.
    pub(super) logs: Vec<LogEntry>,
    /// Peers that have subscribed to just this topic.
    pub(super) topics: Vec<TopicEntry>,
}

impl Live {
    fn is_empty(&self) -> bool {
        self.subs.is_empty()
            && self.shared.is_empty()
            && self.logs.is_empty()
            && self.topics.is_empty()
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct LiveLists(HashMap<Address, Live>);

impl LiveLists {
    pub(super) fn get(&self, channel: &Address) -> Option<&Live> {
        self.0.get(channel)
    }

    pub(super) fn get_mut(&mut self, channel: &Address) -> Option<&mut Live> {
        self.0.get_mut(channel)
    }

    /// A channel's entry, about to be given something.
    pub(super) fn entry(&mut self, channel: &Address, context: &ShardContext) -> &mut Live {
        self.0.entry(channel.clone()).or_insert_with(|| {
            context.interest.enter(channel, context.index);
            Live::default()
        })
    }

    /// Something was taken from a channel's entry.
    pub(super) fn tidy(&mut self, channel: &Address, context: &ShardContext) {
        if self.0.get(channel).is_some_and(Live::is_empty) {
            self.0.remove(channel);
            context.interest.leave(channel, context.index);
        }
    }
}
