//! Messages of topics on their way to peers: matched, merged, put into outboxes, or waiting for a place in the window.
//!
//! Invariants: a session gets a message once, however many of its subscriptions match; what has a QoS above 0 keeps its order;
//! the queue is bounded, and what it does not take is counted. Must not know: how matching filters are found.

use super::PeerState;
use super::share::FIRST_SHARE;
use super::stored::{FIRST_LOG, Stored};
use crate::metrics::ShardCounters;
use crate::shard::deliver::{SHARE_ABOVE, list_dirty, make_outbox_room};
use crate::shard::live::{LogEntry, TopicEntry};
use crate::shard::session::{Role, Session};
use crate::shard::slab::Slab;
use crate::shard::{SessionKey, Shard, ShardContext, State};
use crate::shares::{Member, Picked, ShareName};
use clarion_core::port::peer::{Delivery, Gave, Place, SubOptions};
use clarion_core::{AddressKind, Message, Millis};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// How a session gets a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) check: bool,
    pub(super) ids: &'a [u32],
}

/// A delivery that waits for a place in the window.
struct Waiting {
    message: Arc<Message>,
    qos: u8,
    retain: bool,
    check: bool,
    ids: Box<[u32]>,
    /// It is one of a group's: when its session ends another member gets it.
    share: Option<Arc<ShareName>>,
}

/// See [`PeerState::queue`].
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Queue {
    /// What waits for members of groups.
    pub(super) fn into_shared(self) -> impl Iterator<Item = (Arc<ShareName>, Arc<Message>)> {
        self.waiting.into_iter().filter_map(|w| Some((w.share?, w.message)))
    }
}

/// What became of a delivery.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Given {
    /// It is in the outbox or waits in the session's queue.
    Taken,
    /// The client may not or cannot have it.
    Passed,
    /// There was no room.
    Full,
}

/// What giving needs of the shard.
pub(super) struct Giving<'a> {
    pub(super) context: &'a ShardContext,
    pub(super) tick: u64,
    pub(super) now: Millis,
    /// When the node began.
    pub(super) started: Millis,
}

impl Giving<'_> {
    /// Gives a session a message, or has it wait.
    pub(super) fn give(
        &self,
        session: &mut Session,
        message: &Arc<Message>,
        way: Way<'_>,
        share: Option<&Arc<ShareName>>,
    ) -> Given {
        if session.closing.is_some() {
            return Given::Full;
        }
        let queued = PeerState::of(session).is_some_and(|peer| peer.queue.is_some());
        let must_wait = way.qos > 0 && (queued || session.credit == Some(0));
        let size = message.content.payload.len();
        if !must_wait && make_outbox_room(session, size, self.context, self.tick) {
            return self.put(session, message, way);
        }
        if way.qos == 0 { Given::Full } else { self.enqueue(session, message, way, share) }
    }

    /// Puts a message into the outbox.
    fn put(&self, session: &mut Session, message: &Message, way: Way<'_>) -> Given {
        let Session { outlet, outbox, credit, .. } = session;
        let Some(peer) = outlet.peer() else { return Given::Full };
        let Way { qos, retain, check, ids } = way;
        let delivery = Delivery {
            message,
            qos,
            retain,
            ids,
            check,
            place: None,
            number: None,
            dup: false,
            now: self.now,
        };
        if peer.give(delivery, outbox.control()) == Gave::Passed {
            return Given::Passed;
        }
        let payload = &message.content.payload;
        if payload.len() > SHARE_ABOVE {
            outbox.begin_message();
            outbox.share(payload.clone());
        } else {
            outbox.begin_message().extend_from_slice(payload);
        }
        if qos > 0 {
            *credit = credit.map(|credit| credit.saturating_sub(1));
        }
        Given::Taken
    }

    fn enqueue(
        &self,
        session: &mut Session,
        message: &Arc<Message>,
        way: Way<'_>,
        share: Option<&Arc<ShareName>>,
    ) -> Given {
        let config = &self.context.config;
        let Some(peer) = PeerState::of(session) else { return Given::Full };
        let weight = message.content.weight();
        let queue = peer.queue.get_or_insert_default();
        let full = queue.waiting.len() >= config.peer_queue_messages
            || (queue.bytes > 0 && queue.bytes + weight > config.peer_queue_bytes);
        if full {
            if queue.waiting.is_empty() {
                peer.queue = None;
            }
            return Given::Full;
        }
        queue.bytes += weight;
        queue.waiting.push_back(Waiting {
            message: message.clone(),
            qos: way.qos,
            retain: way.retain,
            check: way.check,
            ids: way.ids.into(),
            share: share.cloned(),
        });
        Given::Taken
    }

    /// Gives what waits, as far as there is room. Returns how many were given.
    fn drain(&self, session: &mut Session) -> u64 {
        let mut given = 0;
        // One place is left to a feed that is behind.
        let behind = session.subs.iter().any(|entry| entry.sub.wants_page())
            || PeerState::of(session).is_some_and(|peer| peer.has_log_behind());
        let places = u32::from(behind && session.outlet.uses_credit());
        while session.credit.is_none_or(|credit| credit > places) && session.closing.is_none() {
            let next = PeerState::of(session).and_then(|peer| peer.queue.as_ref()?.waiting.front());
            let Some(size) = next.map(|next| next.message.content.payload.len()) else { break };
            if !make_outbox_room(session, size, self.context, self.tick) {
                break;
            }
            let Some(next) = take_first(session) else { break };
            let Waiting { message, qos, retain, check, ids, .. } = next;
            let way = Way { qos, retain, check, ids: &ids };
            given += u64::from(self.put(session, &message, way) == Given::Taken);
        }
        given
    }
}

fn take_first(session: &mut Session) -> Option<Waiting> {
    let peer = PeerState::of(session)?;
    let queue = peer.queue.as_mut()?;
    let next = queue.waiting.pop_front()?;
    queue.bytes -= next.message.content.weight();
    if queue.waiting.is_empty() {
        peer.queue = None;
    }
    Some(next)
}

/// Whether a subscription leaves out what its own client published.
fn is_own(session: &mut Session, message: &Message, options: SubOptions) -> bool {
    if !options.no_local {
        return false;
    }
    let device = message.content.sender.as_ref().and_then(|sender| sender.device.as_deref());
    PeerState::of(session).is_some_and(|peer| Some(&*peer.client) == device)
}

fn count(counters: &ShardCounters, given: Given) -> u64 {
    if given == Given::Full {
        counters.dropped_outbox.add(1);
        counters.peer_dropped.add(1);
    }
    u64::from(given == Given::Taken)
}

impl Shard {
    /// A message of a topic: to every peer with a subscription that matches. Returns how many took it.
    pub(in crate::shard) fn deliver_topic(&self, state: &mut State, message: &Arc<Message>) -> u64 {
        if message.channel.kind() != AddressKind::Topic {
            return 0;
        }
        let giving = self.giving(state);
        let stored = !message.is_live();
        let State { live, filters, sessions, dirty, matched, .. } = state;
        let exact = live.get(&message.channel);
        matched.clear();
        filters.matches(message.channel.id(), |entries| matched.extend_from_slice(entries));
        // What is stored comes by the logs themselves.
        let logs = exact.filter(|_| !stored).map_or(&[][..], |live| &live.logs);
        matched.extend(logs.iter().filter_map(|log| by_log(sessions, log)));
        let exact = exact.map_or(&[][..], |live| &live.topics);
        let mut delivered = 0;
        let mut to = |entries: &[TopicEntry]| {
            let Some(session) = sessions.at_mut(entries[0].session) else { return };
            if stored && reads_log(session, message, entries) {
                return;
            }
            let given = give_merged(&giving, session, message, entries);
            delivered += count(&giving.context.counters, given);
            if given == Given::Full
                && message.content.retain
                && let Some(owed) = PeerState::of(session).and_then(|peer| peer.owed.as_mut())
            {
                owed.miss(message.channel.id());
            }
            list_dirty(session, dirty);
        };
        if matched.is_empty() {
            exact.chunks(1).for_each(&mut to);
        } else {
            matched.extend_from_slice(exact);
            matched.sort_unstable_by_key(|entry| entry.session);
            matched.chunk_by(|a, b| a.session == b.session).for_each(&mut to);
        }
        self.context.counters.delivered.add(delivered);
        delivered
    }

    /// A message for one member of a group: the first that takes it.
    pub(crate) fn deliver_share(&self, message: &Arc<Message>, picked: &Picked) {
        for (at, member) in picked.members.iter().enumerate() {
            if member.shard != self.context.index {
                let rest =
                    Picked { name: picked.name.clone(), members: picked.members[at..].to_vec() };
                return rest.post(&self.context.mailboxes, message.clone());
            }
            if self.give_member(message, member, &picked.name) {
                return;
            }
        }
        self.context.counters.dropped_outbox.add(1);
        self.context.counters.peer_dropped.add(1);
    }

    /// Returns whether the member took it.
    fn give_member(&self, message: &Arc<Message>, member: &Member, name: &Arc<ShareName>) -> bool {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(member.key) else { return false };
        let SubOptions { qos, check, retain_as_published, .. } = member.options;
        let ids = member.options.ids();
        let retain = retain_as_published && message.content.retain;
        let way = Way { qos: qos.min(message.content.qos), retain, check, ids };
        let given = giving.give(session, message, way, Some(name));
        list_dirty(session, &mut state.dirty);
        self.context.counters.delivered.add(u64::from(given == Given::Taken));
        given == Given::Taken
    }

    /// A place in a window is free again.
    pub(super) fn peer_freed(&self, key: SessionKey, acked: Option<Place>, exactly_once: bool) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        session.credit = session.credit.map(|credit| credit.saturating_add(1));
        let channel =
            acked.and_then(|place| Some(session.subs.get(place.log as usize)?.channel.clone()));
        if let Some(place) = acked.filter(|place| place.log >= FIRST_LOG) {
            if place.log >= FIRST_SHARE {
                self.share_freed(state, key, place);
            } else {
                self.log_freed(state, key, place, exactly_once);
            }
            self.drain_queue(state, key);
            return self.mark_dirty(state, key);
        }
        if let (Some(place), Some(channel)) = (acked, channel) {
            self.ack_own(state, key, Some(&channel), (place.epoch, place.seq, place.seq));
        }
        self.drain_queue(state, key);
        self.mark_dirty(state, key);
    }

    /// What waits for a place in the window, or for room, goes as far as it may.
    pub(super) fn drain_queue(&self, state: &mut State, key: SessionKey) {
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Role::Peer(peer) = &session.role else { return };
        if session.outbox.len() <= self.context.config.outbox_bytes / 2 {
            peer.room.notify_waiters();
        }
        if peer.queue.is_none() {
            return;
        }
        let given = giving.drain(session);
        if given > 0 {
            self.context.counters.delivered.add(given);
            self.mark_dirty(state, key);
            self.context.mailbox.nudge();
        }
    }

    /// What waited for a member of groups that has ended goes to others.
    pub(super) fn share_again(self: &Rc<Self>, queue: Queue) {
        for (name, message) in queue.into_shared() {
            let picked = self.context.interest.shares(|shares| shares.pick_of(&name));
            if let Some(picked) = picked {
                self.deliver_share(&message, &picked);
            }
        }
    }
}

/// The subscription behind a log of a topic.
fn by_log(sessions: &mut Slab<Session>, log: &LogEntry) -> Option<TopicEntry> {
    let options = Stored::of(sessions.at_mut(log.session)?)?.options(log.slot)?;
    Some(TopicEntry { session: log.session, options, durable: true })
}

/// Whether a session gets what is stored on this topic by a log of its.
fn reads_log(session: &mut Session, message: &Message, entries: &[TopicEntry]) -> bool {
    entries.iter().any(|entry| entry.durable)
        || Stored::of(session).is_some_and(|stored| stored.has_durable(message.channel.id()))
}

/// Gives a session a message that several of its subscriptions may match: with the highest QoS and all ids.
fn give_merged(
    giving: &Giving<'_>,
    session: &mut Session,
    message: &Arc<Message>,
    entries: &[TopicEntry],
) -> Given {
    if let [TopicEntry { options, .. }] = entries {
        if is_own(session, message, *options) {
            return Given::Passed;
        }
        let ids = options.ids();
        let retain = options.retain_as_published && message.content.retain;
        let qos = options.qos.min(message.content.qos);
        return giving.give(session, message, Way { qos, retain, check: options.check, ids }, None);
    }
    let mut ids = Vec::new();
    let mut merged: Option<SubOptions> = None;
    for TopicEntry { options, .. } in entries {
        if is_own(session, message, *options) {
            continue;
        }
        ids.extend_from_slice(options.ids());
        let so_far = merged.get_or_insert(SubOptions { check: true, ..SubOptions::default() });
        so_far.qos = so_far.qos.max(options.qos);
        so_far.retain_as_published |= options.retain_as_published;
        // One subscription that is allowed as a whole is enough.
        so_far.check &= options.check;
    }
    let Some(options) = merged else { return Given::Passed };
    let retain = options.retain_as_published && message.content.retain;
    let qos = options.qos.min(message.content.qos);
    giving.give(session, message, Way { qos, retain, check: options.check, ids: &ids }, None)
}
