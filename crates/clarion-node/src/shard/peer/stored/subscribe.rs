//! SUBSCRIBE and UNSUBSCRIBE of a stored session: planned in memory with a stamp to come, committed, then answered.
//!
//! Invariants: a new log is in the live list before its cursor begins, so that what is committed after that is hinted; the client is
//! answered when the change is committed and durable interest is complete; nothing more is heard of it before. Must not know:
//! access rules (the peer has asked them).

use super::lists::is_topic;
use super::{FEED, Log, Stored};
use crate::committer::{Begins, CommitAnswer, Reply};
use crate::durable::{self, Asked, Known};
use crate::sessions::{delete, put};
use crate::shard::deliver::list_dirty;
use crate::shard::peer::share::Joining;
use crate::shard::peer::subscribe::TopicSub;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use bytes::Bytes;
use clarion_core::durable::record::{self, CHUNK};
use clarion_core::durable::subs::{PENDING, StoredSub, Subscribing, Tail};
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::{RetainHandling, SubOptions, Subscribe, Unsubscribe};
use clarion_core::port::store::{Done, Durability, Reader, Unit};
use clarion_core::{Address, Cursor, Epoch, Millis, Seq};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where a tail ends when only its stamp says so.
const TAIL_END: Seq = 1 << 42;

/// What the client is told when the change is committed.
pub(in crate::shard) struct Settling {
    pub(super) token: u32,
    pub(super) told: Told,
    /// Retained messages that follow.
    pub(super) retained: Vec<(Box<str>, SubOptions)>,
}

pub(super) enum Told {
    Subscribed,
    Unsubscribed(Vec<bool>),
    Nothing,
}

/// A change that is planned.
#[derive(Default)]
pub(in crate::shard) struct Change {
    pub(super) slots: BTreeSet<u32>,
    /// Logs whose cursor begins, or whose head is asked for, in order.
    starts: Vec<(u32, Address)>,
    enters: Vec<Address>,
    /// Logs that nobody of this session reads any more.
    pub(super) leaves: Vec<Address>,
    groups: Joining,
    /// What is retained and owed then.
    owed: Option<Unit>,
}

/// A chunk of subscriptions as it will be.
struct Chunk {
    key: Bytes,
    subs: Vec<(u8, StoredSub)>,
}

impl Stored {
    fn chunks(&self, slots: &BTreeSet<u32>) -> Vec<Chunk> {
        let chunks: BTreeSet<u32> = slots.iter().map(|slot| slot / CHUNK as u32).collect();
        let chunk = |chunk: u32| {
            let slot = |place: u8| chunk * CHUNK as u32 + u32::from(place);
            let sub = |place: u8| Some((place, self.subs.get(slot(place))?.clone()));
            Chunk {
                key: record::chunk_key(self.number(), chunk),
                subs: (0..CHUNK as u8).filter_map(sub).collect(),
            }
        };
        chunks.into_iter().map(chunk).collect()
    }

    /// Plans one SUBSCRIBE. Returns its slot and whether it is new.
    fn plan(&mut self, wanted: &Subscribe, change: &mut Change) -> (u32, bool) {
        let Subscribe { filter, share, options, .. } = wanted;
        let share = if wanted.feed { Some(FEED) } else { share.as_deref() };
        let what = self.subs.subscribing(filter, share, options.qos);
        if let Some(group) = share.filter(|group| *group != FEED) {
            change.groups.plan(filter, group, self.shared_qos(filter, group), options.qos);
        }
        let head = (self.epoch_of(filter), TAIL_END);
        let (slot, other) = self.subs.subscribe(filter, share, *options, PENDING, head);
        change.slots.extend([Some(slot), other].into_iter().flatten());
        let channel = self.subs.get(slot).and_then(StoredSub::channel);
        let has_log = self.log(slot).is_some();
        match (what, channel) {
            (Subscribing::New { starts: true } | Subscribing::Raised, Some(channel))
                if !has_log =>
            {
                self.turn = self.turn.wrapping_add(1);
                self.set_log(slot, Some(Log::new(channel.clone(), Cursor::default(), self.turn)));
                change.enters.push(channel.clone());
                change.starts.push((slot, channel));
            }
            (Subscribing::Revived | Subscribing::Raised, Some(channel)) => {
                change.starts.push((slot, channel));
            }
            (Subscribing::Lowered, Some(channel)) => {
                change.starts.extend(other.map(|tail| (tail, channel)));
            }
            _ => {}
        }
        self.count_tails();
        (slot, matches!(what, Subscribing::New { .. } | Subscribing::Revived))
    }

    /// A subscription, a feed's too, and its group.
    fn find<'a>(&self, filter: &str, share: Option<&'a str>) -> Option<(u32, Option<&'a str>)> {
        if let Some(slot) = self.subs.find(filter, share) {
            return Some((slot, share));
        }
        let feed = self.subs.find(filter, Some(FEED)).filter(|_| share.is_none());
        feed.map(|slot| (slot, Some(FEED)))
    }

    /// What a subscription to a group was granted; 0 = there is none.
    fn shared_qos(&self, filter: &str, group: &str) -> u8 {
        let sub = self.subs.find(filter, Some(group)).and_then(|slot| self.subs.get(slot));
        sub.map_or(0, |sub| sub.options.qos)
    }

    fn epoch_of(&self, filter: &str) -> Epoch {
        let slot = self.subs.find(filter, None);
        let log = slot.and_then(|slot| self.logs.get(slot as usize)?.as_ref());
        log.map_or(0, |log| log.sub.epoch())
    }

    pub(super) fn count_tails(&mut self) {
        self.tails = self.subs.iter().filter(|(_, sub)| sub.tail.is_some()).count();
    }

    /// Plans one UNSUBSCRIBE. Returns its slot, and the log that nobody reads any more.
    fn plan_end(&mut self, filter: &str, share: Option<&str>, change: &mut Change) -> Option<u32> {
        let (slot, share) = self.find(filter, share)?;
        let old = self.subs.get(slot)?.clone();
        if let Some(group) = share.filter(|group| *group != FEED) {
            change.groups.plan(filter, group, old.options.qos, 0);
        }
        let head = (self.epoch_of(filter), TAIL_END);
        self.subs.unsubscribe(filter, share, PENDING, head)?;
        change.slots.insert(slot);
        let Some(log) = self.log(slot) else { return Some(slot) };
        let channel = log.channel.clone();
        if self.log(slot).is_some_and(|log| log.out > 0) && self.subs.get(slot).is_none() {
            // What is out keeps its place until it is over.
            let tail = Tail { at: PENDING, epoch: head.0, until: head.1, all: false };
            self.subs.put(slot, StoredSub { tail: Some(tail), ..old });
        }
        if self.subs.get(slot).is_some() {
            change.starts.push((slot, channel));
        } else {
            self.set_log(slot, None);
            change.leaves.push(channel);
        }
        self.count_tails();
        Some(slot)
    }

    /// The cursor of a log has begun, or its head is known.
    fn started(&mut self, slot: u32, Known { epoch, last, .. }: Known) {
        let Some(log) = self.log(slot) else { return };
        if log.sub.is_entering() {
            log.cursor = Cursor::at(last);
            log.epoch = epoch;
            log.sub.begin(epoch, last + 1, last);
        } else {
            log.sub.hint(epoch, last, false, false);
        }
        self.queue(slot);
    }
}

/// The units of a change, when its stamp is known.
fn units(number: u64, chunks: Vec<Chunk>, change: &Change, at: Millis) -> Vec<Unit> {
    let reader = Reader::session(number);
    let mut units = Vec::new();
    for Chunk { key, mut subs } in chunks {
        subs.iter_mut().for_each(|(_, sub)| sub.settle(at));
        let subs: Vec<(u8, &StoredSub)> = subs.iter().map(|(place, sub)| (*place, sub)).collect();
        units.push(if subs.is_empty() {
            delete(key)
        } else {
            put(key, record::encode_chunk(&subs))
        });
    }
    units.extend(change.owed.clone());
    for (_, channel) in &change.starts {
        units.push(Unit::Start { reader: reader.clone(), channel: channel.clone() });
    }
    for channel in &change.enters {
        units.push(durable::entry(channel, number));
    }
    for channel in &change.leaves {
        units.push(Unit::Forget { reader: reader.clone(), channel: Some(channel.clone()) });
        units.push(delete(durable::key(channel, number)));
    }
    units
}

impl Shard {
    /// A stored session subscribes.
    pub(in crate::shard::peer) fn stored_subscribes(
        self: &Rc<Self>,
        key: SessionKey,
        token: u32,
        list: Vec<Subscribe>,
    ) {
        let mut change = Change::default();
        let mut retained = Vec::new();
        let mut feed = false;
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            for wanted in list {
                let Some(session) = state.sessions.get_mut(key) else { return };
                let Some(stored) = Stored::of(session) else { return };
                let (slot, is_new) = stored.plan(&wanted, &mut change);
                feed |= wanted.feed;
                if wanted.feed {
                    continue;
                }
                self.enter_planned(state, key, slot, &wanted, is_new);
                let wants = match wanted.retained {
                    RetainHandling::Always => true,
                    RetainHandling::IfNew => is_new,
                    RetainHandling::Never => false,
                };
                if wants && wanted.share.is_none() && self.may_retain(&wanted.filter) {
                    retained.push((wanted.filter, wanted.options));
                }
            }
        }
        if feed {
            self.begin_feed(key, 0);
        }
        let settling = Settling { token, told: Told::Subscribed, retained };
        self.commit_change(key, change, settling);
    }

    fn enter_planned(
        &self,
        state: &mut State,
        key: SessionKey,
        slot: u32,
        wanted: &Subscribe,
        is_new: bool,
    ) {
        let durable = wanted.options.qos > 0 && wanted.share.is_none();
        let topic = TopicSub {
            filter: wanted.filter.clone(),
            share: wanted.share.clone(),
            options: wanted.options,
            durable,
        };
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
        let by_log = stored.log(slot).is_some_and(|log| is_topic(&log.channel));
        match by_log {
            // Its log's entry is enough; one of QoS 0 may have stood there.
            true if !is_new => self.forget_topic(state, key, &wanted.filter, None),
            true => {}
            false => self.enter_topic(state, key, &topic, !is_new),
        }
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
        let tail = stored.subs.find_tail(&wanted.filter).filter(|_| wanted.share.is_none());
        let log = stored.log(slot).map(|log| log.channel.clone());
        let tail_log = tail.and_then(|tail| Some((tail, stored.log(tail)?.channel.clone())));
        if let Some(channel) = log {
            self.enter_log(state, key, slot, &channel);
        }
        if let Some((tail, channel)) = tail_log {
            self.leave_log(state, key, tail, &channel);
        }
    }

    /// A stored session unsubscribes.
    pub(in crate::shard::peer) fn stored_unsubscribes(
        self: &Rc<Self>,
        key: SessionKey,
        token: u32,
        list: &[Unsubscribe],
    ) {
        let mut change = Change::default();
        let mut existed = Vec::with_capacity(list.len());
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            for Unsubscribe { filter, share, feed } in list {
                if *feed {
                    self.end_feed(state, key);
                }
                let Some(session) = state.sessions.get_mut(key) else { return };
                let Some(stored) = Stored::of(session) else { return };
                let found = stored.find(filter, share.as_deref());
                let log =
                    found.and_then(|(slot, _)| Some((slot, stored.log(slot)?.channel.clone())));
                let slot = stored.plan_end(filter, share.as_deref(), &mut change);
                existed.push(slot.is_some());
                let by_log = log.as_ref().is_some_and(|(_, channel)| is_topic(channel));
                if slot.is_some() && !by_log {
                    self.forget_topic(state, key, filter, share.as_deref());
                }
                if let Some((slot, channel)) = log {
                    self.leave_log(state, key, slot, &channel);
                }
            }
            self.feed_changed(state, key);
        }
        let settling = Settling { token, told: Told::Unsubscribed(existed), retained: Vec::new() };
        self.commit_change(key, change, settling);
    }

    /// Has a change committed; the client is told then.
    pub(super) fn commit_change(
        self: &Rc<Self>,
        key: SessionKey,
        mut change: Change,
        settling: Settling,
    ) {
        // Nobody asked for it: it is not refused for want of room.
        let urgent = matches!(settling.told, Told::Nothing);
        let planned = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(key) else { return };
            let Some(stored) = Stored::of(session) else { return };
            if !settling.retained.is_empty() {
                change.owed = Some(stored.owed_unit(&settling.retained));
            }
            let planned = (stored.number(), stored.chunks(&change.slots));
            // Also of a change that no client asked for: the next one waits for it.
            stored.settling = Some(Box::new(settling));
            planned
        };
        let (number, chunks) = planned;
        // From before the commit on, so that nothing that comes after it goes unseen.
        let starts = change.starts.iter().map(|(_, channel)| channel);
        let (_, asked) = self.context.planner.durable.known(starts);
        if chunks.is_empty() {
            let nothing = Ok((Durability::None, Vec::new()));
            return self.change_settled(key, (&Change::default(), asked), 0, &nothing);
        }
        let stamp = Arc::new(AtomicU64::new(0));
        let change = Arc::new(change);
        let groups = self.context.planner.durable.groups.clone();
        let begins = Begins {
            enters: [&change.enters[..], &change.groups.logs(true)].concat(),
            units: {
                let (stamp, change, groups) = (stamp.clone(), change.clone(), groups.clone());
                Box::new(move |at| {
                    stamp.store(at, Ordering::Relaxed);
                    let mut units = units(number, chunks, &change, at);
                    units.extend(change.groups.units(&groups, number, at));
                    units
                })
            },
        };
        let told = {
            let change = change.clone();
            Box::new(move |shard: &Rc<Self>, answer: CommitAnswer| {
                if !is_done(&answer) {
                    change.groups.undo(&groups, number);
                }
                shard.change_settled(key, (&change, asked), stamp.load(Ordering::Relaxed), &answer);
            })
        };
        let reply = Reply::Shard { shard: self.context.index, told };
        if let Err(refusal) = self.context.queue.begin(begins, reply, urgent) {
            tracing::debug!(%refusal, "a subscription is not stored");
            self.change_failed(key);
        }
    }

    /// A change is committed, or is not.
    fn change_settled(
        self: &Rc<Self>,
        key: SessionKey,
        (change, asked): (&Change, Asked),
        at: Millis,
        answer: &CommitAnswer,
    ) {
        let results = match answer {
            Ok((_, results)) if is_done(answer) => results,
            _ => return self.change_failed(key),
        };
        self.leave_interest(&[&change.leaves[..], &change.groups.logs(false)].concat());
        self.joined(&change.groups, at);
        let heads = results.iter().filter_map(|done| match done {
            Done::Started { epoch, last, at } => {
                Some(Known { epoch: *epoch, last: *last, last_at: *at })
            }
            _ => None,
        });
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        stored.subs.settle(change.slots.iter().copied(), at);
        for ((slot, channel), head) in change.starts.iter().zip(heads) {
            self.context.planner.durable.learn(channel, head, asked);
            stored.started(*slot, head);
        }
        let settling = stored.settling.take();
        let retained = settling.map_or(Vec::new(), |settling| tell(session, *settling, true));
        list_dirty(session, &mut state.dirty);
        for (filter, options) in retained {
            if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
                stored.owe(&filter, options);
            }
            self.owe_retained(state, key, filter, options);
        }
        self.tail_moved(state, key);
        self.go_on_soon(state, key);
    }

    /// A change could not be stored: the client is told, and what it has stays as it is stored, which its next connection finds.
    fn change_failed(&self, key: SessionKey) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        stored.unsure = true;
        if let Some(settling) = stored.settling.take() {
            let _ = tell(session, *settling, false);
        }
        self.close_session(state, key, CloseReason::Store);
        self.context.mailbox.nudge();
    }

    /// Nobody of a session reads these logs any more, and that is committed.
    fn leave_interest(self: &Rc<Self>, logs: &[Address]) {
        for log in logs {
            self.context.trimmable.note(log);
            let (shard, log) = (self.clone(), log.clone());
            tokio::task::spawn_local(async move {
                let durable = &shard.context.planner.durable;
                if let Err(refusal) = durable.left(&shard.context.store, &log).await {
                    tracing::debug!(%refusal, "durable interest in a log is kept");
                }
            });
        }
    }
}

fn is_done(answer: &CommitAnswer) -> bool {
    let refused = |done: &Done| matches!(done, Done::Refused(_));
    answer.as_ref().is_ok_and(|(_, results)| !results.iter().any(refused))
}

/// Tells the client. Returns the retained messages that follow.
fn tell(session: &mut Session, settling: Settling, granted: bool) -> Vec<(Box<str>, SubOptions)> {
    let Session { outlet, outbox, .. } = session;
    let Some(peer) = outlet.peer() else { return Vec::new() };
    match settling.told {
        Told::Subscribed => peer.subscribed(settling.token, granted, outbox.control()),
        Told::Unsubscribed(existed) if granted => {
            peer.unsubscribed(settling.token, &existed, outbox.control());
        }
        Told::Unsubscribed(_) | Told::Nothing => {}
    }
    settling.retained
}
