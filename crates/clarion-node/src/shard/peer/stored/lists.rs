//! A stored session's place in the lists: what is live comes by topic, what is stored by log.
//!
//! Invariant: a subscription that reads a topic's own log has one entry, which stands for both.

use super::{FEED, Stored};
use crate::shard::live::LogEntry;
use crate::shard::peer::subscribe::TopicSub;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::{Address, AddressKind};

/// Whether a log is a topic's own: its entry stands for what is live, too.
pub(super) fn is_topic(channel: &Address) -> bool {
    channel.kind() == AddressKind::Topic
}

impl Shard {
    /// A subscription of a stored session enters the lists: for what is live, and its log if it is read.
    pub(super) fn enter_stored(&self, state: &mut State, key: SessionKey, slot: u32) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        let Some(sub) = stored.subs.get(slot) else { return };
        if sub.tail.is_some() || sub.share.as_deref() == Some(FEED) {
            return;
        }
        let log = stored.logs.get(slot as usize).and_then(Option::as_ref);
        let log = log.map(|log| log.channel.clone());
        if !log.as_ref().is_some_and(is_topic) {
            let topic = TopicSub {
                filter: sub.filter.clone(),
                share: sub.share.clone(),
                options: sub.options,
                durable: sub.is_durable(),
            };
            self.enter_topic(state, key, &topic, false);
        }
        if let Some(channel) = log {
            self.enter_log(state, key, slot, &channel);
        }
    }

    pub(super) fn enter_log(
        &self,
        state: &mut State,
        key: SessionKey,
        slot: u32,
        channel: &Address,
    ) {
        let entry = LogEntry { session: key.index, slot };
        let logs = &mut state.live.entry(channel, &self.context).logs;
        if !logs.contains(&entry) {
            logs.push(entry);
            self.context.counters.peer_subscriptions.add(u64::from(is_topic(channel)));
        }
    }

    pub(super) fn leave_log(
        &self,
        state: &mut State,
        key: SessionKey,
        slot: u32,
        channel: &Address,
    ) {
        let entry = LogEntry { session: key.index, slot };
        if let Some(live) = state.live.get_mut(channel) {
            if let Some(at) = live.logs.iter().position(|other| *other == entry) {
                live.logs.swap_remove(at);
                self.context.counters.peer_subscriptions.sub(u64::from(is_topic(channel)));
            }
            state.live.tidy(channel, &self.context);
        }
    }

    /// All of a stored session leaves the lists.
    pub(in crate::shard::peer) fn leave_stored(
        &self,
        state: &mut State,
        key: SessionKey,
        stored: &Stored,
    ) {
        for (slot, sub) in stored.subs.iter().filter(|(_, sub)| sub.tail.is_none()) {
            let log = stored.logs.get(slot as usize).and_then(Option::as_ref);
            if !log.is_some_and(|log| is_topic(&log.channel)) {
                self.forget_topic(state, key, &sub.filter, sub.share.as_deref());
            }
            if let Some(log) = log {
                self.leave_log(state, key, slot, &log.channel);
            }
        }
    }
}
