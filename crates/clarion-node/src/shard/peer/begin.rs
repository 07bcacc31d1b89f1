//! How a talking session begins: it takes its client id, then its connection.
//!
//! Invariant: nothing has begun, and the connection goes back, when the client id is somebody else's. Must not know: any
//! protocol.

use super::PeerState;
use crate::attach::{Acks, Guard, Link, SessionRef};
use crate::clients::{Coming, Entered, Foreign, Leaving};
use crate::peer::{AttachPeer, NotAttached, PeerPlan};
use crate::shard::link::{LinkState, watch_duplex};
use crate::shard::session::{Birth, Role, not_taken};
use crate::shard::voice::Voice;
use crate::shard::{SessionKey, Shard, timers};
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::Peer;
use clarion_core::{Code, Refusal};
use std::collections::VecDeque;
use std::rc::Rc;
use tokio::net::tcp::OwnedReadHalf;

impl PeerState {
    fn new(plan: &mut PeerPlan, turn: u64) -> Self {
        Self {
            client: plan.client_id.clone(),
            turn,
            tail: Vec::new(),
            subs: Vec::new(),
            shares: Vec::new(),
            shares_wait: false,
            queue: None,
            answers: VecDeque::new(),
            feed: plan.feed.take().map(Box::new),
            feed_turn: 0,
            feed_begins: None,
            owed: None,
            room: Rc::default(),
            stored: None,
            // What was heard within a tick counts from its beginning.
            keep_alive: plan.keep_alive.map_or(0, |time| timers::ticks(time) + 1),
            last_heard: 0,
            expires_at: plan.expires_at,
            will_delay_max_s: plan.will_delay_max_s,
            without_will: false,
            will: None,
            finish_by: None,
            parked: false,
            waiting: false,
            counted: None,
        }
    }
}

impl Shard {
    /// A new session that talks; an older one of its client id ends.
    pub(in crate::shard) fn attach_peer(
        self: &Rc<Self>,
        attach: AttachPeer,
    ) -> Result<SessionKey, NotAttached> {
        let AttachPeer { mut plan, peer, link, leftover, guard, opened, will } = attach;
        let turn = match self.has_place().and_then(|()| self.enter_client(&plan)) {
            Ok(turn) => turn,
            Err(refusal) => return Err(NotAttached { refusal, link: Some(link) }),
        };
        let state = PeerState { will, ..PeerState::new(&mut plan, turn) };
        let begun = self.begin_peer(&plan, state, peer, link, guard);
        let (key, link, reader) = begun.map_err(|refusal| {
            // A will is none of a session that did not begin.
            let leaving = Leaving { will: None, shard: None, now: 0 };
            self.context.clients.leave(&plan.client_id, turn, leaving);
            NotAttached { refusal, link: None }
        })?;
        let feed = match opened {
            Some(opened) => self.begin_stored(key, *opened, plan.window) || plan.auto_feed,
            None => plan.auto_feed,
        };
        self.open_peer(key, !feed);
        let this = SessionRef { shard: self.context.index, key };
        let still = self.context.clients.begun(&plan.client_id, turn, this);
        if still && self.is_wanted(key) {
            // The next one with its client id waits for it since before it could be found.
            self.close_peer(key, CloseReason::TakenOver);
        } else if still {
            if feed {
                self.begin_feed(key, 0);
            }
            if !leftover.is_empty() {
                self.hear_plain(key, &leftover);
            }
        } else {
            // Another one has entered on another shard since this one did.
            self.take_over(this);
        }
        tokio::task::spawn_local(watch_duplex(self.clone(), key, link, reader));
        self.context.mailbox.nudge();
        Ok(key)
    }

    fn is_wanted(&self, key: SessionKey) -> bool {
        let mut state = self.state.borrow_mut();
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return false };
        peer.stored.as_ref().is_some_and(|stored| stored.is_wanted())
            || peer.will.as_ref().is_some_and(|own| own.guard.is_wanted())
    }

    /// Takes the client id, before anything begins that could not be undone. Returns the session's turn.
    fn enter_client(&self, plan: &PeerPlan) -> Result<u64, Refusal> {
        let PeerPlan { exclusive, clean, .. } = *plan;
        let coming = Coming { owner: plan.owner.clone(), exclusive, clean };
        let entered = self.context.clients.enter(&plan.client_id, coming);
        let Entered { turn, before } = entered
            .map_err(|Foreign| Refusal::new(Code::BadUser, "another user has this client id"))?;
        if let Some(before) = before {
            self.take_over(before);
        }
        Ok(turn)
    }

    fn begin_peer(
        &self,
        plan: &PeerPlan,
        state: PeerState,
        peer: Box<dyn Peer>,
        link: Link,
        guard: Guard,
    ) -> Result<(SessionKey, Rc<LinkState>, OwnedReadHalf), Refusal> {
        let (link, reader) = LinkState::duplex(link, guard).map_err(not_taken)?;
        let birth = Birth {
            user: plan.user.clone(),
            device: Some(plan.client_id.clone()),
            number: 0,
            subs: Box::default(),
            role: Role::Peer(Box::new(state)),
            acks: Acks::Singly,
            credit: Some(plan.window),
            outlet: Voice::Peer(peer),
            hidden: false,
        };
        let key = self.begin_session(birth, link.clone())?;
        Ok((key, link, reader))
    }

    /// Its client is told that it is in, `now` or when its feed has begun; its silence counts from here.
    fn open_peer(&self, key: SessionKey, now: bool) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let tick = state.timers.now();
        if let Some(session) = state.sessions.get_mut(key) {
            if now {
                session.open();
            }
            if let Some(peer) = PeerState::of(session) {
                peer.last_heard = tick;
                peer.counted = Some(self.context.connected.enter());
                let first = peer.next_look(tick);
                if first < state.timers.heartbeat_at(tick) {
                    state.timers.arm(key, first);
                }
            }
        }
        self.mark_dirty(state, key);
    }

    /// Ends a session whose client id is another's now.
    fn take_over(&self, before: SessionRef) {
        let SessionRef { shard, key } = before;
        if shard == self.context.index {
            self.close_session(&mut self.state.borrow_mut(), key, CloseReason::TakenOver);
        } else {
            self.context.post_job(shard, move |shard| {
                shard.close_session(&mut shard.state.borrow_mut(), key, CloseReason::TakenOver);
                shard.context.mailbox.nudge();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn silence_does_not_count_while_nobody_listens() {
        let mut plan = PeerPlan {
            client_id: "c".into(),
            user: None,
            owner: None,
            exclusive: false,
            clean: true,
            expiry_s: 0,
            feed: None,
            auto_feed: false,
            keep_alive: Some(Duration::from_secs(1)),
            window: 1,
            will_delay_max_s: 0,
            expires_at: None,
        };
        let mut peer = PeerState::new(&mut plan, 1);
        assert!(!peer.is_silent(4) && peer.is_silent(5));
        peer.parked = true;
        assert!(!peer.is_silent(5));
        (peer.parked, peer.waiting) = (false, true);
        assert!(!peer.is_silent(20));
        peer.waiting = false;
        assert_eq!(peer.next_look(20), 25);
        assert!(!peer.is_silent(24) && peer.is_silent(25));
    }
}
