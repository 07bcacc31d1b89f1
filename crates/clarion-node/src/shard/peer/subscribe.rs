//! What peers subscribe to: entries in the lists of topics, of filters, and of groups.
//!
//! Invariant: the node's interest names this shard for a topic or filter exactly while an entry of it is here. Must not know:
//! access rules (the peer has asked them).

use super::server_topics::live_topic;
use super::{OwnSub, PeerState};
use crate::shard::live::TopicEntry;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use crate::shares::Member;
use clarion_core::port::peer::{RetainHandling, SubOptions, Subscribe, Unsubscribe};
use clarion_core::topic;
use std::rc::Rc;

impl Shard {
    /// A peer subscribes.
    pub(super) fn peer_subscribes(
        self: &Rc<Self>,
        key: SessionKey,
        token: u32,
        list: Vec<Subscribe>,
    ) {
        let mut retained = Vec::new();
        let mut begins = false;
        for Subscribe { filter, share, feed, options, retained: handling } in list {
            if feed {
                begins |= self.begin_feed(key, token);
                continue;
            }
            let mut guard = self.state.borrow_mut();
            let shared = share.is_some();
            let is_new = self.subscribe(&mut guard, key, &filter, share, options);
            let wanted = match handling {
                RetainHandling::Always => true,
                RetainHandling::IfNew => is_new,
                RetainHandling::Never => false,
            };
            if wanted && !shared && self.may_retain(&filter) {
                retained.push((filter, options));
            }
        }
        let mut guard = self.state.borrow_mut();
        let Some(session) = guard.sessions.get_mut(key) else { return };
        let Session { outlet, outbox, .. } = session;
        if let Some(peer) = outlet.peer().filter(|_| !begins) {
            peer.subscribed(token, outbox.control());
        }
        self.mark_dirty(&mut guard, key);
        for (filter, options) in retained {
            self.owe_retained(&mut guard, key, filter, options);
        }
    }

    /// Whether something may be retained for a filter.
    fn may_retain(&self, filter: &str) -> bool {
        self.context.retained.may_have(filter) || self.context.sys.may_have(filter)
    }

    /// Returns whether the subscription is new.
    fn subscribe(
        &self,
        state: &mut State,
        key: SessionKey,
        filter: &str,
        share: Option<Box<str>>,
        options: SubOptions,
    ) -> bool {
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return false };
        let is_new = !peer.subs.iter().any(|sub| *sub.filter == *filter && sub.share == share);
        if is_new {
            peer.subs.push(OwnSub { filter: filter.into(), share: share.clone() });
            self.context.counters.peer_subscriptions.add(1);
        }
        let index = self.context.index;
        if let Some(share) = share {
            let member = Member { shard: index, key, options };
            self.context.interest.shares(|shares| shares.join(filter, &share, member));
            return is_new;
        }
        let entry = TopicEntry { session: key.index, options };
        let entries = if topic::is_wildcard(filter) {
            let entries = state.filters.entry(filter);
            if entries.is_empty() {
                self.context.interest.enter_filter(filter, index);
            }
            entries
        } else {
            let Some(channel) = live_topic(filter) else { return is_new };
            &mut state.live.entry(&channel, &self.context).topics
        };
        let known = if is_new { None } else { Some(entries.iter_mut()) };
        match known.and_then(|mut all| all.find(|known| known.session == entry.session)) {
            Some(known) => *known = entry,
            None => entries.push(entry),
        }
        is_new
    }

    /// A peer unsubscribes.
    pub(super) fn peer_unsubscribes(&self, key: SessionKey, token: u32, list: &[Unsubscribe]) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut existed = Vec::with_capacity(list.len());
        for Unsubscribe { filter, share, feed } in list {
            existed.push(if *feed {
                self.end_feed(state, key)
            } else {
                let sub = OwnSub { filter: filter.clone(), share: share.clone() };
                self.unsubscribe(state, key, &sub)
            });
        }
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Session { outlet, outbox, .. } = session;
        if let Some(peer) = outlet.peer() {
            peer.unsubscribed(token, &existed, outbox.control());
        }
        self.feed_changed(state, key);
        self.mark_dirty(state, key);
    }

    fn unsubscribe(&self, state: &mut State, key: SessionKey, sub: &OwnSub) -> bool {
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return false };
        let at =
            peer.subs.iter().position(|own| own.filter == sub.filter && own.share == sub.share);
        let Some(at) = at else { return false };
        peer.subs.swap_remove(at);
        self.forget_sub(state, key, sub);
        true
    }

    /// All of a session that has ended.
    pub(super) fn forget_subs(&self, state: &mut State, key: SessionKey, peer: &mut PeerState) {
        for sub in std::mem::take(&mut peer.subs) {
            self.forget_sub(state, key, &sub);
        }
    }

    fn forget_sub(&self, state: &mut State, key: SessionKey, sub: &OwnSub) {
        let (filter, index) = (&*sub.filter, self.context.index);
        self.context.counters.peer_subscriptions.sub(1);
        if let Some(share) = &sub.share {
            self.context.interest.shares(|shares| shares.leave(filter, share, (index, key)));
        } else if topic::is_wildcard(filter) {
            let Some(entries) = state.filters.get_mut(filter) else { return };
            entries.retain(|entry| entry.session != key.index);
            if entries.is_empty() {
                state.filters.remove(filter);
                self.context.interest.leave_filter(filter, index);
            }
        } else if let Some(channel) = live_topic(filter)
            && let Some(live) = state.live.get_mut(&channel)
        {
            if let Some(at) = live.topics.iter().position(|entry| entry.session == key.index) {
                live.topics.swap_remove(at);
            }
            state.live.tidy(&channel, &self.context);
        }
    }
}
