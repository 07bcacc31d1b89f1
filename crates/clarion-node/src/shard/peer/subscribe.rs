//! What peers subscribe to: entries in the lists of topics, of filters, and of groups.
//!
//! Invariant: the node's interest names this shard for a topic or filter exactly while an entry of it is here. Must not know:
//! access rules (the peer has asked them).

use super::server_topics::live_topic;
use super::{OwnSub, PeerState};
use crate::shard::live::TopicEntry;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::port::peer::{RetainHandling, SubOptions, Subscribe, Unsubscribe};
use clarion_core::topic;
use std::rc::Rc;

/// A subscription as it stands in the lists of what is live.
pub(super) struct TopicSub {
    pub(super) filter: Box<str>,
    pub(super) share: Option<Box<str>>,
    pub(super) options: SubOptions,
    /// See [`TopicEntry::durable`].
    pub(super) durable: bool,
}

impl Shard {
    /// A peer subscribes.
    pub(super) fn peer_subscribes(
        self: &Rc<Self>,
        key: SessionKey,
        token: u32,
        list: Vec<Subscribe>,
    ) {
        if self.has_stored(key) {
            return self.stored_subscribes(key, token, list);
        }
        let mut retained = Vec::new();
        let mut begins = false;
        for Subscribe { filter, share, feed, options, retained: handling } in list {
            if feed {
                begins |= self.begin_feed(key, token);
                self.note_sub(key, filter);
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
            peer.subscribed(token, true, outbox.control());
        }
        self.mark_dirty(&mut guard, key);
        for (filter, options) in retained {
            self.owe_retained(&mut guard, key, filter, options);
        }
    }

    /// Whether something may be retained for a filter.
    pub(super) fn may_retain(&self, filter: &str) -> bool {
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
        }
        let topic = TopicSub { filter: filter.into(), share, options, durable: false };
        self.enter_topic(state, key, &topic, !is_new);
        is_new
    }

    /// A topic of the feed of a session that ends with its connection.
    fn note_sub(&self, key: SessionKey, filter: Box<str>) {
        let mut state = self.state.borrow_mut();
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        if !peer.has_sub(&filter) {
            peer.subs.push(OwnSub { filter, share: None });
        }
    }

    fn has_stored(&self, key: SessionKey) -> bool {
        let mut state = self.state.borrow_mut();
        let peer = state.sessions.get_mut(key).and_then(PeerState::of);
        peer.is_some_and(|peer| peer.stored.is_some())
    }

    /// A subscription enters the lists of what is live; `known` = it stands there with other options.
    pub(super) fn enter_topic(
        &self,
        state: &mut State,
        key: SessionKey,
        topic: &TopicSub,
        known: bool,
    ) {
        let TopicSub { filter, share, options, durable } = topic;
        let (filter, options, index) = (&**filter, *options, self.context.index);
        if let Some(share) = share {
            self.context.counters.peer_subscriptions.add(u64::from(!known));
            return self.enter_share(state, key, (filter, share), options);
        }
        let entry = TopicEntry { session: key.index, options, durable: *durable };
        let entries = if topic::is_wildcard(filter) {
            let entries = state.filters.entry(filter);
            if entries.is_empty() {
                self.context.interest.enter_filter(filter, index);
            }
            entries
        } else {
            let Some(channel) = live_topic(filter) else { return };
            &mut state.live.entry(&channel, &self.context).topics
        };
        let known = if known { Some(entries.iter_mut()) } else { None };
        match known.and_then(|mut all| all.find(|known| known.session == entry.session)) {
            Some(known) => *known = entry,
            None => {
                self.context.counters.peer_subscriptions.add(1);
                entries.push(entry);
            }
        }
    }

    /// A peer unsubscribes.
    pub(super) fn peer_unsubscribes(
        self: &Rc<Self>,
        key: SessionKey,
        token: u32,
        list: &[Unsubscribe],
    ) {
        if self.has_stored(key) {
            return self.stored_unsubscribes(key, token, list);
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut existed = Vec::with_capacity(list.len());
        for Unsubscribe { filter, share, feed } in list {
            let sub = OwnSub { filter: filter.clone(), share: share.clone() };
            let known = self.unsubscribe(state, key, &sub);
            existed.push(if *feed { self.end_feed(state, key) } else { known });
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
        self.forget_topic(state, key, &sub.filter, sub.share.as_deref());
        true
    }

    /// All of a session that has ended.
    pub(super) fn forget_subs(&self, state: &mut State, key: SessionKey, peer: &mut PeerState) {
        for OwnSub { filter, share } in std::mem::take(&mut peer.subs) {
            self.forget_topic(state, key, &filter, share.as_deref());
        }
    }

    /// A subscription leaves the lists of what is live.
    pub(super) fn forget_topic(
        &self,
        state: &mut State,
        key: SessionKey,
        filter: &str,
        share: Option<&str>,
    ) {
        let index = self.context.index;
        let counter = &self.context.counters.peer_subscriptions;
        if let Some(share) = share {
            counter.sub(1);
            self.leave_share(state, key, (filter, share));
        } else if topic::is_wildcard(filter) {
            let Some(entries) = state.filters.get_mut(filter) else { return };
            counter.sub(1);
            entries.retain(|entry| entry.session != key.index);
            if entries.is_empty() {
                state.filters.remove(filter);
                self.context.interest.leave_filter(filter, index);
            }
        } else if let Some(channel) = live_topic(filter)
            && let Some(live) = state.live.get_mut(&channel)
        {
            if let Some(at) = live.topics.iter().position(|entry| entry.session == key.index) {
                counter.sub(1);
                live.topics.swap_remove(at);
            }
            state.live.tidy(&channel, &self.context);
        }
    }
}
