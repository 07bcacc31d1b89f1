//! Retained messages for new subscriptions: read page by page, as the session takes them, by one task a session.
//!
//! Invariant: of a topic that changes while this reads, nothing older is given: it is looked up again. What is read ahead is
//! bounded in bytes, by one message at least. Must not know: how a record looks.

use super::PeerState;
use super::give::{Given, Giving, Way};
use crate::retained::{self, Reading};
use crate::shard::deliver::list_dirty;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use bytes::Bytes;
use clarion_core::address::SERVER_TOPICS;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::SubOptions;
use clarion_core::port::store::Record;
use clarion_core::{Message, topic};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Records that are read at once, at most, and with the first page, when nobody knows how large they are.
const PAGE: usize = 64;
const FIRST_PAGE: usize = 2;
/// Messages that sessions share while some of them wait for room.
const SHARED_MAX: usize = 1024;

/// Topics that a session may have missed before all count as missed.
const MISSED_MAX: usize = 1024;

/// What a session still is to be given.
#[derive(Default)]
pub(super) struct Owed {
    filters: VecDeque<OwedFilter>,
    /// Topics whose change did not reach the session, since it had no room.
    missed: HashSet<Box<str>>,
    /// There were too many.
    missed_more: bool,
}

/// Of one filter: behind which key.
type OwedFilter = (Box<str>, SubOptions, Option<Bytes>);

impl Owed {
    /// How many filters: those that wait, and the one that is being read.
    pub(super) fn filters(&self) -> usize {
        self.filters.len() + 1
    }

    /// A change of a retained message found no room.
    pub(super) fn miss(&mut self, topic: &str) {
        if self.missed.len() < MISSED_MAX {
            self.missed.insert(topic.into());
        } else {
            self.missed_more = true;
        }
    }
}

/// How giving one message went.
pub(super) enum Step {
    Done,
    /// The session has no room.
    Wait(Rc<Notify>),
    /// The subscription, or the session, is over.
    Over,
}

impl Shard {
    /// A session is to be given what is retained for a filter.
    pub(super) fn owe_retained(
        self: &Rc<Self>,
        state: &mut State,
        key: SessionKey,
        filter: Box<str>,
        options: SubOptions,
    ) {
        self.owe_retained_after(state, key, filter, options, None);
    }

    /// The same for what lies behind a key.
    pub(super) fn owe_retained_after(
        self: &Rc<Self>,
        state: &mut State,
        key: SessionKey,
        filter: Box<str>,
        options: SubOptions,
        after: Option<Bytes>,
    ) {
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        let begins = peer.owed.is_none();
        let owed = peer.owed.get_or_insert_default();
        match owed.filters.iter_mut().find(|(known, ..)| *known == filter) {
            Some(known) => (known.1, known.2) = (options, after),
            None => owed.filters.push_back((filter, options, after)),
        }
        if begins {
            tokio::task::spawn_local(self.clone().read_retained(key));
        }
    }

    async fn read_retained(self: Rc<Self>, key: SessionKey) {
        while let Some((filter, options, after)) = self.next_owed(key) {
            let all = async {
                let to_the_end = self.read_filter(key, &filter, options, after).await?;
                self.read_missed(key, &filter, options).await?;
                Some(to_the_end)
            };
            let read = all.await;
            if read == Some(true) {
                self.replayed(key, &filter);
            }
            if read.is_none() {
                tracing::warn!("a session ends: retained messages could not be read");
                self.close_session(&mut self.state.borrow_mut(), key, CloseReason::Store);
                return self.context.mailbox.nudge();
            }
        }
    }

    /// What changed while this read, and found no room in the session, it is given now: the newest of each topic.
    async fn read_missed(
        self: &Rc<Self>,
        key: SessionKey,
        filter: &str,
        options: SubOptions,
    ) -> Option<()> {
        loop {
            let (missed, more) = {
                let mut state = self.state.borrow_mut();
                let peer = state.sessions.get_mut(key).and_then(PeerState::of);
                let Some(owed) = peer.and_then(|peer| peer.owed.as_mut()) else { return Some(()) };
                (std::mem::take(&mut owed.missed), std::mem::take(&mut owed.missed_more))
            };
            if more {
                self.read_filter(key, filter, options, None).await?;
                continue;
            }
            if missed.is_empty() {
                return Some(());
            }
            for topic in missed.iter().filter(|topic| topic::matches(filter, topic)) {
                let reading = self.context.retained.read(topic);
                if let Some(message) = self.look_up(topic, &reading).await?
                    && !self.give_latest(key, filter, (options, false), (message, &reading)).await?
                {
                    return Some(());
                }
            }
        }
    }

    /// Waits until a session may take something. `false` when it has ended.
    pub(super) async fn has_room(&self, key: SessionKey) -> bool {
        loop {
            let room = {
                let mut state = self.state.borrow_mut();
                let Some(session) = state.sessions.get_mut(key) else { return false };
                if session.outbox.len() <= self.context.config.outbox_bytes / 2 {
                    return true;
                }
                let Some(peer) = PeerState::of(session) else { return false };
                peer.room.clone()
            };
            room.notified().await;
        }
    }

    fn next_owed(&self, key: SessionKey) -> Option<OwedFilter> {
        let mut state = self.state.borrow_mut();
        let peer = state.sessions.get_mut(key).and_then(PeerState::of)?;
        let next = peer.owed.as_mut()?.filters.pop_front();
        if next.is_none() {
            peer.owed = None;
        }
        next
    }

    /// Whether it came to the end. `None` when the store does not answer.
    async fn read_filter(
        self: &Rc<Self>,
        key: SessionKey,
        filter: &str,
        options: SubOptions,
        mut after: Option<Bytes>,
    ) -> Option<bool> {
        if filter.starts_with(SERVER_TOPICS) {
            self.give_server_topics(key, filter, options).await;
            return Some(true);
        }
        let wildcard = topic::is_wildcard(filter);
        let prefix = if wildcard { retained::prefix(filter) } else { retained::key(filter) };
        let mut limit = if wildcard { FIRST_PAGE } else { 1 };
        let mut first = true;
        // What is read ahead is held only for who takes it.
        while self.has_room(key).await {
            // The number is taken anew for each page.
            let reading = self.context.retained.read(filter);
            let page = {
                let _turn = self.loads.acquire().await.ok()?;
                self.context.store.records(prefix.clone(), after, limit).await.ok()?
            };
            let full = wildcard && page.len() == limit;
            let mut bytes = 0;
            let mut records = page.into_iter();
            let mut found = Vec::new();
            after = None;
            // The first one whatever its size.
            while bytes < self.context.config.outbox_bytes
                && let Some(record) = records.next()
            {
                bytes += record.value.len();
                after = Some(record.key.clone());
                found.extend(self.shared_message(record));
            }
            let last = !full && records.next().is_none();
            drop(records);
            if wildcard {
                limit = (self.context.config.outbox_bytes * limit / bytes.max(1)).clamp(1, PAGE);
            }
            let messages = merge(filter, found, &reading, first);
            first = false;
            for (message, in_order) in messages {
                let how = (options, in_order);
                if !self.give_latest(key, filter, how, (message, &reading)).await? {
                    return Some(false);
                }
            }
            if last {
                return Some(true);
            }
        }
        Some(false)
    }

    /// A record's message. Sessions that are given the same one hold it once.
    fn shared_message(&self, record: Record) -> Option<Arc<Message>> {
        let mut shared = self.retained_shared.borrow_mut();
        if let Some((version, message)) = shared.get(&record.key)
            && *version == record.version
            && let Some(message) = message.upgrade()
        {
            return Some(message);
        }
        if shared.len() >= SHARED_MAX {
            shared.retain(|_, (_, message)| message.strong_count() > 0);
            if shared.len() >= SHARED_MAX {
                shared.clear();
            }
        }
        let message = Arc::new(retained::decode(record.value)?);
        shared.insert(record.key, (record.version, Arc::downgrade(&message)));
        Some(message)
    }

    /// Gives a topic's message, or the one that it has meanwhile. Whether more may follow.
    async fn give_latest(
        self: &Rc<Self>,
        key: SessionKey,
        filter: &str,
        (options, in_order): (SubOptions, bool),
        (mut message, read_by): (Arc<Message>, &Reading),
    ) -> Option<bool> {
        let mut again: Option<Reading> = None;
        loop {
            let changed = again.as_ref().unwrap_or(read_by).changed(message.channel.id());
            if changed == Some(true) && !self.has_missed(key, message.channel.id()) {
                // It has come live.
                return Some(true);
            }
            if changed != Some(false) {
                let topic = message.channel.id().to_owned();
                let reading = self.context.retained.read(&topic);
                let Some(latest) = self.look_up(&topic, &reading).await? else {
                    return Some(true);
                };
                message = latest;
                again = Some(reading);
                continue;
            }
            match self.give_retained(key, filter, &message, (options, in_order)) {
                Step::Done => return Some(true),
                Step::Over => return Some(false),
                Step::Wait(room) => room.notified().await,
            }
        }
    }

    /// Whether a change of a topic did not reach a session; asked once.
    fn has_missed(&self, key: SessionKey, topic: &str) -> bool {
        let mut state = self.state.borrow_mut();
        let peer = state.sessions.get_mut(key).and_then(PeerState::of);
        let owed = peer.and_then(|peer| peer.owed.as_mut());
        owed.is_some_and(|owed| owed.missed.remove(topic) || owed.missed_more)
    }

    /// What a topic has. Outer `None` when the store does not answer.
    async fn look_up(&self, topic: &str, reading: &Reading) -> Option<Option<Arc<Message>>> {
        if topic.starts_with(SERVER_TOPICS) {
            return Some(self.context.sys.get(topic));
        }
        if let Some((_, message)) = reading.overlay.first() {
            return Some(message.clone());
        }
        let records = self.context.store.records(retained::key(topic), None, 1).await.ok()?;
        let message = records.into_iter().next().and_then(|record| retained::decode(record.value));
        Some(message.filter(|message| message.channel.id() == topic).map(Arc::new))
    }

    pub(super) fn give_retained(
        &self,
        key: SessionKey,
        filter: &str,
        message: &Arc<Message>,
        (options, in_order): (SubOptions, bool),
    ) -> Step {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(key) else { return Step::Over };
        let subscribed = PeerState::of(session).is_some_and(|peer| peer.has_sub(filter));
        if session.closing.is_some() || !subscribed {
            return Step::Over;
        }
        if message.content.expired(giving.now) {
            return Step::Done;
        }
        let stored = PeerState::of(session).is_some_and(|peer| peer.stored.is_some());
        let given = if stored {
            match giving.give_replayed(session, message, (filter, options), in_order) {
                None => Given::Full,
                Some(true) => Given::Taken,
                Some(false) => Given::Passed,
            }
        } else {
            give(&giving, session, message, options)
        };
        if given != Given::Full {
            list_dirty(session, &mut state.dirty);
            self.context.mailbox.nudge();
        }
        self.context.counters.delivered.add(u64::from(given == Given::Taken));
        if stored {
            self.list_stored(state, key);
        }
        let Some(session) = state.sessions.get_mut(key) else { return Step::Over };
        let peer = PeerState::of(session).filter(|peer| peer.owed.is_some());
        match (given, peer) {
            (Given::Full, Some(peer)) => Step::Wait(peer.room.clone()),
            (Given::Full, None) => Step::Over,
            (Given::Taken | Given::Passed, _) => Step::Done,
        }
    }
}

fn give(
    giving: &Giving<'_>,
    session: &mut Session,
    message: &Arc<Message>,
    options: SubOptions,
) -> Given {
    let (qos, ids) = (options.qos.min(message.content.qos), options.ids());
    giving.give(session, message, Way { qos, retain: true, check: options.check, ids }, None)
}

/// What a page of records says, and of each whether it comes in the order of the keys. What was not committed when the first page was read comes with that one, whatever its place;
/// what is not when a later one is read came with the first, or comes live: no page tells what is older than that.
fn merge(
    filter: &str,
    found: Vec<Arc<Message>>,
    reading: &Reading,
    first: bool,
) -> Vec<(Arc<Message>, bool)> {
    let overlay = &reading.overlay;
    let changed: HashSet<&str> = overlay.iter().map(|(topic, _)| &**topic).collect();
    let mut messages: Vec<(Arc<Message>, bool)> = found
        .into_iter()
        .filter(|message| topic::matches(filter, message.channel.id()))
        .filter(|message| !changed.contains(message.channel.id()))
        .map(|message| (message, true))
        .collect();
    if first {
        messages.extend(overlay.iter().filter_map(|(_, message)| Some((message.clone()?, false))));
    }
    messages
}
