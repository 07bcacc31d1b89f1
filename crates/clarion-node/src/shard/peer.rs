//! Sessions that talk both ways: what they say, packet by packet, and how they end.
//!
//! Invariants: a packet is handled to its end before the next one; while the store takes nothing, or the client does not read
//! its answers, it is not read either. Must not know: any protocol (that is the `Peer`).

mod begin;
mod feed;
mod give;
mod publish;
mod retained;
mod server_topics;
mod share;
mod stored;
mod subscribe;
mod wills;

pub(crate) use publish::PeerReply;
pub(super) use publish::Publishing;
pub(super) use share::{HandOut, News, Team};
pub(super) use wills::Wills;

use super::confirm::FINISH;
use super::deliver::list_dirty;
use super::link::LinkState;
use super::session::{Role, Session};
use super::{SessionKey, Shard, State};
use crate::attach::AttachPlan;
use crate::clock;
use crate::sys::Counted;
use crate::wills::OwnWill;
use clarion_core::port::layer::Opened;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::{Ask, Receipt};
use clarion_core::{Millis, Refusal};
use give::Queue;
use retained::Owed;
use share::ShareSub;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use stored::Stored;
use tokio::sync::Notify;

/// Packets that are handled before others have their turn.
const PACKETS_A_TURN: usize = 256;

/// What a talking session is beside its subscriptions to channels.
pub(super) struct PeerState {
    pub(super) client: Arc<str>,
    /// Its number among the sessions of its client id.
    turn: u64,
    /// What was said and is not handled: the beginning of a packet, or packets that must wait.
    tail: Vec<u8>,
    subs: Vec<OwnSub>,
    /// Its places in groups.
    shares: Vec<ShareSub>,
    /// One of them waits for room.
    shares_wait: bool,
    /// Deliveries that wait for a place in the window.
    queue: Option<Box<Queue>>,
    /// Publishes whose outcome is not told yet, in order.
    answers: VecDeque<(u32, Option<Result<Receipt, Refusal>>)>,
    /// How the feed would be read.
    feed: Option<Box<AttachPlan>>,
    feed_turn: u16,
    /// Its feed's heads are being read: it is not heard until they are. The SUBSCRIBE that is answered then; 0 = none.
    feed_begins: Option<u32>,
    /// Retained messages that it is still to be given.
    owed: Option<Box<Owed>>,
    /// Tells who waits for it that it may have room, or has ended.
    room: Rc<Notify>,
    /// Its session outlives the connection.
    stored: Option<Box<Stored>>,
    /// Timer ticks of silence that end it; 0 = none.
    keep_alive: u64,
    last_heard: u64,
    expires_at: Option<Millis>,
    will_delay_max_s: u32,
    without_will: bool,
    /// The record of its will.
    will: Option<Box<OwnWill>>,
    /// It ends when its acks are committed, at the latest with this timer tick.
    finish_by: Option<u64>,
    /// A publish of it waits until the store takes more.
    parked: bool,
    /// It is the reason for [`PeerState::parked`], or for its client not reading, that packets wait in `tail`.
    waiting: bool,
    /// It counts as connected.
    counted: Option<Counted>,
}

/// A subscription to a topic or filter.
struct OwnSub {
    filter: Box<str>,
    share: Option<Box<str>>,
}

impl PeerState {
    /// Whether something must happen before more of it is heard.
    fn is_held(&self) -> bool {
        self.parked
            || self.feed_begins.is_some()
            || self.stored.as_ref().is_some_and(|stored| stored.settling.is_some())
    }

    /// Whether it has subscribed to this filter, for itself.
    fn has_sub(&self, filter: &str) -> bool {
        match &self.stored {
            Some(stored) => stored.has_sub(filter),
            None => self.subs.iter().any(|sub| *sub.filter == *filter && sub.share.is_none()),
        }
    }

    /// What it is, of a session.
    pub(super) fn of(session: &mut Session) -> Option<&mut Self> {
        match &mut session.role {
            Role::Peer(state) => Some(state),
            Role::Reader | Role::Member(_) | Role::Gate(_) => None,
        }
    }
}

impl Shard {
    /// Bytes of a connection. Returns whether it has ended.
    pub(super) fn peer_said(self: &Rc<Self>, key: SessionKey, raw: &[u8]) -> bool {
        let link = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(key) else { return false };
            session.link.clone()
        };
        let Some(duplex) = link.as_duplex() else { return true };
        let mut plain = self.plain.take();
        let gone = match duplex.open(raw, &mut plain) {
            None => {
                self.hear_plain(key, raw);
                false
            }
            Some(opened) => {
                if !plain.is_empty() {
                    self.hear_plain(key, &plain);
                }
                self.layer_said(key, &link, opened.map_err(|error| error.0))
            }
        };
        plain.clear();
        // The buffer serves the next one, unless it was a huge one.
        if plain.capacity() <= 1 << 17 {
            self.plain.replace(plain);
        }
        self.context.mailbox.nudge();
        gone
    }

    fn layer_said(
        &self,
        key: SessionKey,
        link: &LinkState,
        opened: Result<Opened, &'static str>,
    ) -> bool {
        // What the session says because of what it heard follows with the next flush.
        link.write_held();
        match opened {
            Ok(Opened::More) => {
                self.mark_dirty(&mut self.state.borrow_mut(), key);
                false
            }
            Ok(Opened::End) => true,
            Err(error) => {
                tracing::debug!(error, "a connection ends: its layer is broken");
                true
            }
        }
    }

    /// Plain bytes of a connection.
    fn hear_plain(self: &Rc<Self>, key: SessionKey, bytes: &[u8]) {
        self.context.counters.peer_bytes_in.add(bytes.len() as u64);
        let tail = {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let tick = state.timers.now();
            let Some(session) = state.sessions.get_mut(key) else { return };
            let Some(peer) = PeerState::of(session) else { return };
            peer.last_heard = tick;
            if peer.waiting {
                return peer.tail.extend_from_slice(bytes);
            }
            if !peer.tail.is_empty() {
                peer.tail.extend_from_slice(bytes);
            }
            std::mem::take(&mut peer.tail)
        };
        if tail.is_empty() {
            let heard = self.hear_packets(key, bytes);
            if heard < bytes.len() {
                self.keep_tail(key, bytes[heard..].to_vec(), 0);
            }
        } else {
            let heard = self.hear_packets(key, &tail);
            self.keep_tail(key, tail, heard);
        }
    }

    /// What of `tail` was not heard waits.
    fn keep_tail(&self, key: SessionKey, mut tail: Vec<u8>, heard: usize) {
        let mut state = self.state.borrow_mut();
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        tail.drain(..heard);
        // Growing again costs a copy: memory is given back when most of it is unused.
        if tail.capacity() > 4 * tail.len().max(4096) {
            tail.shrink_to(2 * tail.len());
        }
        peer.tail = if tail.is_empty() { Vec::new() } else { tail };
    }

    /// Handles packets. Returns how many bytes they had.
    fn hear_packets(self: &Rc<Self>, key: SessionKey, bytes: &[u8]) -> usize {
        let now = clock::now();
        let mut at = 0;
        let mut packets = 0;
        while at < bytes.len() {
            let ask = {
                let mut guard = self.state.borrow_mut();
                let state = &mut *guard;
                let Some(session) = state.sessions.get_mut(key) else { return bytes.len() };
                if session.closing.is_some() || session.finishing {
                    return bytes.len();
                }
                let full = session.outbox.len() > 2 * self.context.config.outbox_bytes;
                let Some(peer) = PeerState::of(session) else { return bytes.len() };
                if full || peer.is_held() || packets >= PACKETS_A_TURN {
                    peer.waiting = true;
                    session.link.pause(true);
                    if packets >= PACKETS_A_TURN && !full {
                        self.go_on_soon(state, key);
                    }
                    return at;
                }
                let Session { outlet, outbox, .. } = session;
                let Some(peer) = outlet.peer() else { return bytes.len() };
                let before = outbox.len();
                let heard = peer.hear(&bytes[at..], now, outbox.control());
                if outbox.len() > before {
                    list_dirty(session, &mut state.dirty);
                }
                at += heard.consumed;
                packets += 1;
                self.context.counters.peer_packets.add(u64::from(heard.consumed > 0));
                heard.ask
            };
            match ask {
                Ask::More => break,
                Ask::Nothing => {}
                Ask::Publish(publish) => {
                    self.context.counters.peer_publishes.add(1);
                    self.peer_publishes(key, *publish);
                }
                // Each filter is as much work as a packet.
                Ask::Subscribe { token, list } => {
                    packets += list.len();
                    self.peer_subscribes(key, token, list);
                }
                Ask::Unsubscribe { token, list } => {
                    packets += list.len();
                    self.peer_unsubscribes(key, token, &list);
                }
                Ask::Freed { acked, exactly_once } => self.peer_freed(key, acked, exactly_once),
                Ask::Received { number } => self.peer_received(key, number),
                Ask::Complete { number } => self.peer_completes(key, number),
                Ask::End { will } => {
                    self.peer_ends(key, will);
                    return bytes.len();
                }
            }
        }
        at
    }

    /// What waits in its tail is heard with the next tick.
    fn go_on_soon(&self, state: &mut State, key: SessionKey) {
        state.peers_waiting.push(key);
        self.context.mailbox.nudge();
    }

    /// Sessions whose packets wait go on, as far as they may.
    pub(super) fn hear_waiting(self: &Rc<Self>) {
        // Taken in a statement of its own: the state is not borrowed any more when they go on.
        let waiting = std::mem::take(&mut self.state.borrow_mut().peers_waiting);
        for key in waiting {
            self.go_on(key);
        }
    }

    /// A session whose packets wait goes on, if it may.
    fn go_on(self: &Rc<Self>, key: SessionKey) {
        let tail = {
            let mut state = self.state.borrow_mut();
            let tick = state.timers.now();
            let Some(session) = state.sessions.get_mut(key) else { return };
            let full = session.outbox.len() > self.context.config.outbox_bytes;
            let link = session.link.clone();
            let Some(peer) = PeerState::of(session) else { return };
            if !peer.waiting || peer.is_held() || full {
                return;
            }
            peer.waiting = false;
            // What it said meanwhile is read from here on.
            peer.last_heard = tick;
            link.pause(false);
            std::mem::take(&mut peer.tail)
        };
        let heard = self.hear_packets(key, &tail);
        self.keep_tail(key, tail, heard);
    }

    /// Its outbox has been written as far as it went.
    pub(super) fn peer_flushed(&self, state: &mut State, key: SessionKey) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let drained = session.outbox.len() <= self.context.config.outbox_bytes;
        let has_subs = !session.subs.is_empty();
        let Some(peer) = PeerState::of(session) else { return };
        if drained && peer.waiting && !peer.is_held() {
            self.go_on_soon(state, key);
        }
        self.drain_queue(state, key);
        if has_subs {
            self.ask_pages(state, key);
        }
        self.ask_log_pages(state, key);
        self.shares_go_on(state, key);
    }

    /// A peer has ended its connection, or has been told why it ends. Who ends in order finds all that he acked committed.
    fn peer_ends(&self, key: SessionKey, will: bool) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let deadline = state.timers.after_seconds(5);
        let Some(session) = state.sessions.get_mut(key) else { return };
        if let Some(peer) = PeerState::of(session) {
            peer.without_will = !will;
            peer.finish_by = Some(deadline);
        }
        if !will && session.closing.is_none() && self.stores_first(state, key) {
            return;
        }
        let Some(session) = state.sessions.get_mut(key) else { return };
        let unwritten = state.devices.get(&session.number).is_some_and(|d| !d.set.is_clean());
        if !will && unwritten {
            session.finishing = true;
            let subs = std::mem::take(&mut session.subs);
            self.leave_subs(state, key, &subs);
            self.confirm_own(state, key, FINISH);
        } else {
            session.closing = Some(deadline);
            session.link.close_layer();
        }
        state.timers.arm(key, deadline);
        self.mark_dirty(state, key);
    }

    /// A timer of a peer fires: whether it ends, and when to look again.
    pub(super) fn look_at_peer(&self, state: &mut State, key: SessionKey) -> Option<u64> {
        let now = state.timers.now();
        let peer = state.sessions.get_mut(key).and_then(PeerState::of)?;
        let reason = if peer.expires_at.is_some_and(|at| at <= clock::now()) {
            CloseReason::Expired
        } else if peer.finish_by.is_some_and(|at| at <= now) {
            CloseReason::Finished
        } else if peer.is_silent(now) {
            CloseReason::KeepAlive
        } else {
            return Some(peer.next_look(now));
        };
        self.close_session(state, key, reason);
        None
    }
}

impl PeerState {
    /// Whether its client has been silent for too long. While the server does not hear it, it is not.
    fn is_silent(&mut self, now: u64) -> bool {
        if self.is_held() || self.waiting {
            self.last_heard = now;
        }
        self.keep_alive > 0 && now - self.last_heard >= self.keep_alive
    }

    /// The timer tick of the next look at its silence and its credentials.
    fn next_look(&self, now: u64) -> u64 {
        let silence = match self.keep_alive {
            0 => u64::MAX,
            ticks => self.last_heard + ticks,
        };
        let expiry = match self.expires_at {
            None => u64::MAX,
            Some(at) => now + at.saturating_sub(clock::now()) / super::timers::TICK_MS + 1,
        };
        silence.min(expiry)
    }
}
