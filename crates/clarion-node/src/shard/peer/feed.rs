//! A peer's feed: the same subscriptions and cursors by which any transport reads a user's channels.
//!
//! Invariant: a session has one feed at most. Must not know: on which topic it comes.

use super::PeerState;
use crate::attach::{Acks, Start};
use crate::shard::session::{Session, SubEntry};
use crate::shard::{SessionKey, Shard, State};
use std::rc::Rc;

impl Shard {
    /// A peer's user's feed is attached, or goes on with other options. Returns whether its heads are read first: what is
    /// published after that comes, so the client is told no earlier, and not heard until then. `token` names the SUBSCRIBE; 0 =
    /// none, the connection is not open yet.
    pub(super) fn begin_feed(self: &Rc<Self>, key: SessionKey, token: u32) -> bool {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return false };
        if !session.subs.is_empty() {
            set_acks(session);
            return false;
        }
        let Some(peer) = PeerState::of(session) else { return false };
        let turn = peer.feed_turn;
        let Some(plan) = &peer.feed else { return false };
        let number = plan.reader.number;
        let entries = plan.channels.iter();
        let subs: Vec<SubEntry> = entries
            .map(|(channel, start)| {
                // Whoever subscribes again goes on: what it has acked it does not get again.
                let start = if number == 0 { Start::Latest } else { *start };
                SubEntry::entering(channel.clone(), start, turn)
            })
            .collect();
        session.subs = subs.into();
        session.number = number;
        set_acks(session);
        session.link.pause(true);
        if let Some(peer) = PeerState::of(session) {
            peer.feed_begins = Some(token);
            peer.waiting = true;
        }
        self.enter_subs(state, key);
        drop(guard);
        tokio::task::spawn_local(self.clone().load(key, Vec::new()));
        true
    }

    /// A peer's feed has begun: its client is told, and heard again.
    pub(in crate::shard) fn feed_began(&self, state: &mut State, key: SessionKey) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let begins = PeerState::of(session).and_then(|peer| peer.feed_begins.take());
        let Some(token) = begins else { return };
        let Session { outlet, outbox, .. } = session;
        if let Some(peer) = outlet.peer().filter(|_| token != 0) {
            peer.subscribed(token, true, outbox.control());
        }
        self.mark_dirty(state, key);
        self.go_on_soon(state, key);
    }

    /// The feed of a peer may come with another QoS now.
    pub(super) fn feed_changed(&self, state: &mut State, key: SessionKey) {
        if let Some(session) = state.sessions.get_mut(key)
            && !session.subs.is_empty()
        {
            set_acks(session);
        }
    }

    /// A peer's feed ends. Returns whether there was one.
    pub(super) fn end_feed(&self, state: &mut State, key: SessionKey) -> bool {
        let Some(session) = state.sessions.get_mut(key) else { return false };
        let subs = std::mem::take(&mut session.subs);
        let number = std::mem::take(&mut session.number);
        session.written = None;
        if let Some(peer) = PeerState::of(session) {
            peer.feed_turn = peer.feed_turn.wrapping_add(1);
        }
        self.leave_subs(state, key, &subs);
        if number != 0 {
            self.device_detached(state, number);
        }
        !subs.is_empty()
    }
}

/// With QoS 0 nothing is acked: what is written counts as acked, after a while.
fn set_acks(session: &mut Session) {
    let numbered = session.outlet.uses_credit();
    session.acks = if numbered { Acks::Singly } else { Acks::ByWrite };
    if !numbered && session.number != 0 {
        session.written.get_or_insert_default();
    }
}
