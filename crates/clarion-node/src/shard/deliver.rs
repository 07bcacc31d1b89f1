//! Delivering: from a record to the outboxes of everyone live, and from the outboxes to the connections.
//!
//! Invariants: a frame is encoded once per record and format; what has no room is flushed once and then left to
//! catching up (stored) or dropped and counted (live).

use super::device::Device;
use super::mailbox::{Dropped, Hinted};
use super::session::{Role, Session};
use super::written::{Sent, note_sent};
use super::{SessionKey, Shard, ShardContext, State};
use crate::attach::Acks;
use crate::clock;
use crate::metrics::ShardCounters;
use bytes::Bytes;
use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::port::peer::Taking;
use clarion_core::subscription::Hint;
use clarion_core::{Address, AddressKind, Message};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes that an outlet may add to a shared frame.
const OWN_BYTES: usize = 256;

/// Frames above this are held by reference in outboxes; below it a copy is cheaper.
pub(super) const SHARE_ABOVE: usize = 16 << 10;

/// The encoded forms of one record, by outlet format.
#[derive(Default)]
pub(super) struct Frames {
    small: Vec<u8>,
    formats: Vec<(u32, FrameAt)>,
}

#[derive(Clone)]
enum FrameAt {
    /// A range of `small`.
    Small(usize, usize),
    Large(Bytes),
}

/// A record in one format.
pub(super) enum Frame<'a> {
    Small(&'a [u8]),
    Large(Bytes),
}

impl Frame<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Small(bytes) => bytes.len(),
            Self::Large(bytes) => bytes.len(),
        }
    }
}

impl Frames {
    /// Another record follows.
    pub(super) fn reset(&mut self) {
        self.small.clear();
        self.formats.clear();
    }

    /// The record in this outlet's format.
    pub(super) fn get(&mut self, outlet: &dyn Outlet, message: &Message) -> Frame<'_> {
        let format = outlet.format();
        let known = self.formats.iter().find(|(f, _)| *f == format).map(|(_, at)| at.clone());
        let at = known.unwrap_or_else(|| {
            let from = self.small.len();
            outlet.encode(message, &mut self.small);
            let at = if self.small.len() - from > SHARE_ABOVE {
                FrameAt::Large(Bytes::from(self.small.split_off(from)))
            } else {
                FrameAt::Small(from, self.small.len())
            };
            self.formats.push((format, at.clone()));
            // A large frame leaves a large buffer behind.
            self.small.shrink_to(SHARE_ABOVE);
            at
        });
        match at {
            FrameAt::Small(from, to) => Frame::Small(&self.small[from..to]),
            FrameAt::Large(bytes) => Frame::Large(bytes),
        }
    }
}

/// Puts a delivery into a session's outbox.
pub(super) fn put(session: &mut Session, given: Given<'_>, frame: Frame<'_>) {
    let Session { outlet, outbox, .. } = &mut *session;
    let frame_len = frame.len();
    outlet.before(given, frame_len, outbox.begin_message());
    match frame {
        Frame::Small(bytes) => outbox.control().extend_from_slice(bytes),
        Frame::Large(bytes) => outbox.share(bytes),
    }
    outlet.behind(given, frame_len, outbox.control());
    if session.outlet.uses_credit() {
        session.credit = session.credit.map(|credit| credit.saturating_sub(1));
    }
}

/// How a flush ended.
#[derive(PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    Blocked,
    Lost,
}

/// Writes what goes at once.
pub(super) fn flush(session: &mut Session, counters: &ShardCounters, now: u64) -> Flushed {
    if session.link.is_blocked() {
        return Flushed::Blocked;
    }
    let to_peer = matches!(session.role, Role::Peer(_));
    if to_peer {
        counters.peer_messages.add(session.outbox.take_begun());
    }
    while session.outbox.len() > 0 {
        match session.link.try_write(session.outbox.pending()) {
            Ok(written) => {
                session.outbox.wrote(written);
                session.last_write = now;
                counters.sent_bytes.add(written as u64);
                if to_peer {
                    counters.peer_bytes_out.add(written as u64);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                session.link.block();
                return Flushed::Blocked;
            }
            Err(_) => return Flushed::Lost,
        }
    }
    match session.link.finish_write() {
        Ok(()) => Flushed::All,
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            session.link.block();
            Flushed::Blocked
        }
        Err(_) => Flushed::Lost,
    }
}

/// Whether the session takes a frame of `bytes` (and what its outlet adds) now: its client has granted credit, and its
/// outbox has room, if need be after one flush.
pub(super) fn make_room(
    session: &mut Session,
    bytes: usize,
    context: &ShardContext,
    now: u64,
) -> bool {
    if session.credit == Some(0) && session.outlet.uses_credit() {
        return false;
    }
    make_outbox_room(session, bytes, context, now)
}

/// The same, whatever its client has granted.
pub(super) fn make_outbox_room(
    session: &mut Session,
    bytes: usize,
    context: &ShardContext,
    now: u64,
) -> bool {
    let (config, need) = (&context.config, bytes + OWN_BYTES);
    let fits = |s: &Session| s.outbox.has_room(need, config.outbox_bytes, config.outbox_messages);
    if !fits(session) {
        flush(session, &context.counters, now);
    }
    fits(session)
}

/// Whether what the session's device has not acked leaves room in its window, for readers that ack singly.
pub(super) fn window_open(
    session: &Session,
    at: usize,
    devices: &HashMap<u64, Device>,
    context: &ShardContext,
) -> bool {
    if session.acks != Acks::Singly || session.number == 0 {
        return true;
    }
    let entry = &session.subs[at];
    let device = devices.get(&session.number);
    let cursor = device.and_then(|d| d.set.get(&entry.channel, entry.sub.epoch()));
    cursor.is_none_or(|cursor| {
        // What lies below where this stream was told to start is not given, so it does not fill the window.
        let below = cursor.floor().max(entry.sub.start().saturating_sub(1));
        entry.sub.next().saturating_sub(below) <= context.config.max_unacked_device
    })
}

/// Lists a session for the end of the tick.
pub(super) fn list_dirty(session: &mut Session, dirty: &mut Vec<SessionKey>) {
    if !session.dirty {
        session.dirty = true;
        dirty.push(session.key);
    }
}

impl Shard {
    /// A committed record: to every live subscription that expects it.
    pub(super) fn deliver_stored(self: &Rc<Self>, hinted: &Hinted) {
        let Hinted { via, message } = hinted;
        if let Some(log) = via {
            let mut guard = self.state.borrow_mut();
            self.tell_shared(&mut guard, log, message);
            return self.deliver_log(&mut guard, log, message);
        }
        if message.channel.kind() == AddressKind::User {
            self.gate_record(message);
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        self.deliver_record(state, message);
        self.deliver_log(state, &message.channel, message);
        self.deliver_topic(state, message);
    }

    /// A record of a log, to those who share it.
    fn tell_shared(&self, state: &mut State, log: &Address, message: &Arc<Message>) {
        let list = state.live.get(log).filter(|live| !live.shared.is_empty());
        for key in list.map_or(Vec::new(), |live| live.shared.clone()) {
            self.shared_record(state, key, message);
        }
    }

    fn deliver_record(self: &Rc<Self>, state: &mut State, message: &Arc<Message>) {
        self.tell_shared(state, &message.channel, message);
        let Some(list) = state.live.get(&message.channel).filter(|live| !live.subs.is_empty())
        else {
            return;
        };
        state.frames.reset();
        let (counters, now) = (&self.context.counters, state.timers.now());
        let time = clock::now();
        let mut delivered = 0;
        let mut not_taken = Vec::new();
        for entry in &list.subs {
            let Some(session) = state.sessions.at_mut(entry.session) else { continue };
            let at = usize::from(entry.sub);
            if session.closing.is_some() {
                continue;
            }
            let entry_sub = entry.sub;
            if !session.subs[at].sub.is_live() {
                session.subs[at].sub.hint(message.epoch, message.seq, false, false);
                continue;
            }
            let frame = state.frames.get(&*session.outlet, message);
            let room = window_open(session, at, &state.devices, &self.context)
                && make_room(session, frame.len(), &self.context, now);
            let entry = &mut session.subs[at];
            match entry.sub.hint(message.epoch, message.seq, false, room) {
                Hint::Deliver => {
                    let start = entry.given_from();
                    let given = Given { message, start, attempt: 1, replayed: false, now: time };
                    match session.outlet.takes(given, frame.len()) {
                        Taking::Yes => {}
                        not => {
                            not_taken.push((session.key, not));
                            continue;
                        }
                    }
                    put(session, given, frame);
                    note_sent(session, Sent::Sub(entry_sub, message.seq), &mut state.writing);
                    delivered += 1;
                }
                Hint::Behind => counters.behind.add(1),
                Hint::Ignore => continue,
            }
            list_dirty(session, &mut state.dirty);
        }
        counters.delivered.add(delivered);
        for (key, taking) in not_taken {
            self.not_taken(state, key, taking, message);
        }
    }

    /// A live message: to everyone who has room.
    pub(super) fn deliver_live(self: &Rc<Self>, message: &Arc<Message>) -> u64 {
        let to_gates =
            if message.channel.kind() == AddressKind::User { self.gate_live(message) } else { 0 };
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        to_gates + self.deliver_now(state, message) + self.deliver_topic(state, message)
    }

    fn deliver_now(self: &Rc<Self>, state: &mut State, message: &Arc<Message>) -> u64 {
        let Some(list) = state.live.get(&message.channel) else { return 0 };
        state.frames.reset();
        let mut to_members = 0;
        for key in list.shared.clone() {
            to_members += self.hand_out_live(state, key, message);
        }
        let Some(list) = state.live.get(&message.channel) else { return to_members };
        let (counters, now) = (&self.context.counters, state.timers.now());
        let (mut delivered, mut dropped, mut over) = (0, 0, Vec::new());
        let time = clock::now();
        for entry in &list.subs {
            let Some(session) = state.sessions.at_mut(entry.session) else { continue };
            if session.closing.is_some() || !session.opened {
                continue;
            }
            let frame = state.frames.get(&*session.outlet, message);
            if !make_room(session, frame.len(), &self.context, now) {
                dropped += 1;
                continue;
            }
            let given = Given { message, start: 0, attempt: 1, replayed: false, now: time };
            match session.outlet.takes(given, frame.len()) {
                Taking::Yes => {}
                Taking::Passed => continue,
                Taking::End => {
                    over.push(session.key);
                    continue;
                }
            }
            put(session, given, frame);
            list_dirty(session, &mut state.dirty);
            delivered += 1;
        }
        counters.delivered.add(delivered);
        counters.dropped_outbox.add(dropped);
        for key in over {
            self.close_session(state, key, CloseReason::Forbidden);
        }
        to_members + delivered
    }

    /// A channel has grown up to here, and its records did not fit into the mailbox.
    pub(super) fn raise_head(&self, channel: &Address, dropped: Dropped) {
        let Dropped { epoch, first, last: seq } = dropped;
        if channel.kind() == AddressKind::User {
            self.gate_head(channel, epoch, (first, seq));
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(live) = state.live.get(channel) else { return };
        for key in live.shared.clone() {
            self.shared_head(state, key, epoch, seq);
        }
        self.raise_logs(state, channel, epoch, seq);
        let Some(live) = state.live.get(channel) else { return };
        for entry in &live.subs {
            let Some(session) = state.sessions.at_mut(entry.session) else { continue };
            let sub = &mut session.subs[usize::from(entry.sub)].sub;
            if sub.hint(epoch, seq, false, false) == Hint::Behind {
                self.context.counters.behind.add(1);
                list_dirty(session, &mut state.dirty);
            }
        }
    }

    /// The session has bytes to write, or a subscription that is behind; the end of the tick sees to it.
    pub(super) fn mark_dirty(&self, state: &mut State, key: SessionKey) {
        if let Some(session) = state.sessions.get_mut(key) {
            list_dirty(session, &mut state.dirty);
        }
    }

    /// The end of a tick: one write for each session that has something.
    pub(super) fn flush_dirty(&self) {
        let mut guard = self.state.borrow_mut();
        let mut dirty = std::mem::take(&mut guard.dirty);
        for key in dirty.drain(..) {
            self.flush_session(&mut guard, key);
        }
        // The vector's memory serves the next tick, unless a burst made it huge.
        if guard.dirty.is_empty() && dirty.capacity() <= 1 << 16 {
            guard.dirty = dirty;
        }
        drop(guard);
        self.begin_pages_soon();
    }

    /// The connection takes bytes again.
    pub(super) fn writable(&self, key: SessionKey) {
        let mut state = self.state.borrow_mut();
        if let Some(session) = state.sessions.get_mut(key) {
            session.link.unblock();
            self.flush_session(&mut state, key);
        }
        drop(state);
        self.begin_pages_soon();
    }

    pub(super) fn flush_session(&self, state: &mut State, key: SessionKey) {
        let now = state.timers.now();
        let Some(session) = state.sessions.get_mut(key) else { return };
        session.dirty = false;
        let flushed = flush(session, &self.context.counters, now);
        let mut over = flushed == Flushed::All && session.closing.is_some();
        if over && session.written.is_some() && !session.link.all_passed() {
            // What is on its way counts as written only when it has left: else it would come again.
            session.link.want_passed();
            over = false;
        }
        if over || flushed == Flushed::Lost {
            return self.remove(state, key);
        }
        match session.role {
            Role::Reader => self.ask_pages(state, key),
            Role::Member(shared) => self.shared_ready(state, shared),
            Role::Gate(_) => self.gate_ready(state, key),
            Role::Peer(_) => self.peer_flushed(state, key),
        }
    }
}
