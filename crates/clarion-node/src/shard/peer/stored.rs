//! A peer's session that outlives its connection, while it is attached: its cursors, its window, what waits to be committed.
//!
//! A subscription with granted QoS 1 or 2 is a cursor on one log (a topic's, or a filter's), read live or catching up like any
//! other; since a client id has one session, its cursors are here and nobody else's. Invariants (design §1.8): a QoS 2 number goes
//! out, and PUBREL after it, only when that is committed; cursors and window are written by one submission, so that no ack is
//! ahead of the window; at the end of the connection all of it is written once more, with what QoS 1 has out. Must not know:
//! any protocol.

mod end;
mod flush;
mod give;
mod inbound;
mod kept;
mod lists;
mod pages;
mod replay;
mod resume;
mod subscribe;
mod tails;
mod view;

pub(in crate::shard) use inbound::Once;
pub(super) use kept::kept_name;
pub(in crate::shard) use subscribe::Settling;

use super::PeerState;
use crate::sessions::SessionGuard;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::durable::commits::WindowCommits;
use clarion_core::durable::inbound::Inbounds;
use clarion_core::durable::record::SessionRecord;
use clarion_core::durable::subs::{Merged, StoredSub, Subs};
use clarion_core::port::peer::{Place, SubOptions};
use clarion_core::subscription::Subscription;
use clarion_core::{Address, Cursor, Epoch, Message, Seq};
use kept::Kept;
use replay::Replay;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The number of the first log of a subscription (see [`Place::log`]): below are those of the feed.
pub(super) const FIRST_LOG: u32 = 2;
/// The number of the first log that only what is out stands in.
const FIRST_ORPHAN: u32 = 1 << 24;
/// The number of the first log that the session has by a group: above are those of the groups themselves.
const FIRST_KEPT: u32 = 1 << 30;
/// Where others have a group, a subscription to a user's topic has this: it is his feed, which a device's cursors read.
const FEED: &str = "";
/// QoS 2 deliveries of one session that are not over (design §1.8).
const QOS2_MAX: usize = 256;
/// Pages of one session under way.
const READING_MAX: u32 = 4;

/// One subscription's log.
pub(in crate::shard) struct Log {
    pub(in crate::shard) channel: Address,
    pub(in crate::shard) sub: Subscription,
    cursor: Cursor,
    /// The history that its cursor counts in until the log begins; 0 = it has none.
    epoch: Epoch,
    /// Acked since it was written.
    dirty: bool,
    /// It is among those that wait for a page.
    queued: bool,
    /// Tells it from an earlier one at the same place.
    turn: u16,
    /// What is out of it and not acked.
    out: u32,
    /// What of it is out since an earlier connection: it is sent again by its number.
    skip: Vec<Seq>,
}

impl Log {
    fn new(channel: Address, cursor: Cursor, turn: u16) -> Self {
        Self {
            channel,
            sub: Subscription::entering(),
            cursor,
            epoch: 0,
            dirty: false,
            queued: false,
            turn,
            out: 0,
            skip: Vec::new(),
        }
    }

    /// Whether it is not given any more, whoever acked it.
    fn is_done(&self, seq: Seq) -> bool {
        self.cursor.is_acked(seq) || self.skip.contains(&seq)
    }

    /// Whether nothing of it is to be given or acked.
    fn is_settled(&self) -> bool {
        self.sub.is_live() && self.out == 0 && self.cursor.floor() + 1 >= self.sub.next()
    }
}

/// A QoS 2 delivery whose number is being committed.
struct Held {
    number: u16,
    place: Place,
    message: Arc<Message>,
    way: Merged,
}

/// See the module.
pub(in crate::shard) struct Stored {
    guard: Arc<SessionGuard>,
    record: SessionRecord,
    version: u64,
    subs: Subs,
    /// By the slots of `subs`.
    logs: Vec<Option<Box<Log>>>,
    turn: u16,
    /// Unsubscribed, but not at their end.
    tails: usize,
    kept: Kept,
    /// Logs, and keys of retained messages, that only what is out stands in.
    orphans: HashMap<u32, Box<str>>,
    last_orphan: u32,
    /// Retained messages that are given, in order.
    replays: Vec<Replay>,
    owed_dirty: bool,
    /// Logs that are behind, in the order in which they get a page.
    behind: VecDeque<u32>,
    reading: u32,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// QoS 2 deliveries that are not over.
    qos2: usize,
    /// What is out since an earlier connection is being sent again: nothing else is given.
    resending: bool,
    /// QoS 1 deliveries that may have been sent before a crash: so many of what comes first.
    doubtful: u32,
    /// The client's own QoS 2 publishes.
    inbound: Inbounds,
    /// Logs with unwritten acks.
    dirty: Vec<u32>,
    window_dirty: bool,
    /// What waits for the window to be committed.
    commits: WindowCommits,
    /// It is in a list of those that write.
    listed: bool,
    flight: Option<Flight>,
    /// What is here and what is stored may differ: a change was refused.
    unsure: bool,
    /// Logs that wait until a QoS 2 delivery is over, or has gone out.
    stuck: Vec<u32>,
    /// A SUBSCRIBE or UNSUBSCRIBE is being committed: nothing more is heard.
    pub(super) settling: Option<Box<Settling>>,
}

/// What is being written.
struct Flight {
    /// So many of those that are held.
    held: usize,
    logs: Vec<(u32, u16)>,
    window: bool,
    /// Logs whose hold changes.
    pins: Vec<Address>,
    owed: bool,
}

impl Stored {
    /// What a session has stored, of a session.
    pub(in crate::shard) fn of(session: &mut Session) -> Option<&mut Self> {
        PeerState::of(session)?.stored.as_deref_mut()
    }

    /// Whether another connection waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.guard.is_wanted()
    }

    /// Its number.
    pub(in crate::shard) fn number(&self) -> u64 {
        self.record.number
    }

    /// Its subscriptions, by slot.
    pub(super) fn subs(&self) -> impl Iterator<Item = (u32, &StoredSub)> {
        self.subs.iter()
    }

    /// Who has its client id.
    pub(super) fn owner(&self) -> Option<Arc<str>> {
        self.record.owner.as_deref().map(Into::into)
    }

    fn log(&mut self, slot: u32) -> Option<&mut Log> {
        self.logs.get_mut(slot as usize)?.as_deref_mut()
    }

    fn set_log(&mut self, slot: u32, log: Option<Log>) {
        let slot = slot as usize;
        if slot >= self.logs.len() {
            self.logs.resize_with(slot + 1, || None);
        }
        self.logs[slot] = log.map(Box::new);
    }

    /// A seq of a log counts as acked.
    fn ack(&mut self, slot: u32, seq: Seq) {
        if let Some(log) = self.log(slot)
            && log.cursor.ack(seq)
            && !std::mem::replace(&mut log.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// What was out is over; it counts as acked.
    fn over(&mut self, place: Place) {
        if place.log >= FIRST_KEPT {
            return;
        }
        if place.log >= FIRST_ORPHAN {
            return self.step_over(place.log);
        }
        let Some(slot) = place.log.checked_sub(FIRST_LOG) else { return };
        if let Some(log) = self.log(slot) {
            log.out = log.out.saturating_sub(1);
            log.skip.retain(|seq| *seq != place.seq);
            if log.sub.epoch() == place.epoch || log.sub.epoch() == 0 {
                self.ack(slot, place.seq);
            }
            self.pass(slot);
        }
    }

    /// Of a log of which nothing is out all that was looked at counts as acked: what was left out has expired or was erased.
    fn pass(&mut self, slot: u32) {
        if let Some(log) = self.log(slot)
            && log.out == 0
            && log.skip.is_empty()
            && log.cursor.ack_to(log.sub.next().saturating_sub(1))
            && !std::mem::replace(&mut log.dirty, true)
        {
            self.dirty.push(slot);
        }
    }

    /// The number of a log that only what is out stands in.
    fn orphan(&mut self, name: &str) -> u32 {
        loop {
            let next = self.last_orphan + 1;
            self.last_orphan = if next < FIRST_KEPT { next } else { FIRST_ORPHAN };
            if !self.orphans.contains_key(&self.last_orphan) {
                self.orphans.insert(self.last_orphan, name.into());
                return self.last_orphan;
            }
        }
    }

    /// A log is behind: it gets a page in its turn.
    fn queue(&mut self, slot: u32) {
        let stuck = self.stuck.contains(&slot);
        if let Some(log) = self.log(slot)
            && !stuck
            && log.sub.wants_page()
            && !std::mem::replace(&mut log.queued, true)
        {
            self.behind.push_back(slot);
        }
    }

    /// Whether something is to be written, sooner or later.
    fn has_unwritten(&self) -> bool {
        !self.dirty.is_empty() || self.window_dirty || self.owed_dirty
    }

    /// How a subscription wants its messages.
    pub(super) fn options(&self, slot: u32) -> Option<SubOptions> {
        self.subs.get(slot).map(|sub| sub.options)
    }

    /// Whether it has subscribed to this filter, for itself.
    pub(super) fn has_sub(&self, filter: &str) -> bool {
        self.subs.find(filter, None).is_some()
    }

    /// Whether a QoS 2 delivery of this size must wait until another one is over, or has gone out.
    fn is_full(&self, size: usize, bytes_max: usize) -> bool {
        self.qos2 >= QOS2_MAX || self.held_bytes > 0 && self.held_bytes + size > bytes_max
    }

    /// A QoS 2 delivery is over, or has gone out: logs that waited for that go on.
    fn unstick(&mut self) {
        for slot in std::mem::take(&mut self.stuck) {
            self.queue(slot);
        }
    }

    /// Whether a durable subscription gives the stored messages of this topic.
    pub(in crate::shard) fn has_durable(&self, topic: &str) -> bool {
        self.subs.has_durable(topic)
    }
}

/// A log's number as peers know it.
fn place_of(slot: u32, message: &Message) -> Place {
    Place { log: slot + FIRST_LOG, epoch: message.epoch, seq: message.seq }
}

impl Shard {
    /// What a stored session has to write is listed: cursors are written soon, a window with this tick.
    pub(super) fn list_stored(&self, state: &mut State, key: SessionKey) {
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
        if stored.flight.is_some() {
            return;
        }
        if stored.commits.wants() {
            if !state.stored_now.contains(&key) {
                state.stored_now.push(key);
                self.context.mailbox.nudge();
            }
        } else if stored.has_unwritten() && !std::mem::replace(&mut stored.listed, true) {
            state.stored_acks.push(key);
            state.timers.acks_wait();
        }
    }
}
