//! The end of a talking session: its subscriptions go, and its will is published, at once or after its delay.
//!
//! Invariants: a will is published at most once, and not when its client took it back; what waits stands in the table of
//! client ids and nowhere else, and nothing waits on a shard that ends. Must not know: any protocol.

use super::give::Queue;
use crate::clock;
use crate::shard::session::{Role, Session};
use crate::shard::{Shard, State};
use clarion_core::port::peer::PeerPublish;
use std::rc::Rc;

/// What sessions that have ended leave to be done.
#[derive(Default)]
pub(in crate::shard) struct Wills {
    pub(super) due: Vec<PeerPublish>,
    queues: Vec<Queue>,
    /// The timer tick of the last look at those that wait.
    looked: u64,
}

impl Wills {
    /// Whether nothing is to be done.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.queues.is_empty()
    }
}

impl Shard {
    /// A talking session is taken out of everything.
    pub(in crate::shard) fn peer_ended(&self, state: &mut State, session: &mut Session) {
        let key = session.key;
        if session.closing.is_some() {
            session.link.linger();
        }
        let Session { outlet, role, .. } = session;
        let Role::Peer(peer) = role else { return };
        self.forget_subs(state, key, peer);
        self.leave_stored(state, key, peer);
        // Whoever waits for room sees that the session has ended.
        peer.room.notify_waiters();
        // What it published and was not taken yet is unacked: its client sends it again.
        state.publishing.forget(key);
        if let Some(queue) = peer.queue.take() {
            state.wills.queues.push(*queue);
        }
        let mut will = if peer.without_will { None } else { outlet.peer() }
            .and_then(|of| of.will(clock::now()));
        if let Some(will) = &mut will {
            will.delay_s = will.delay_s.min(peer.will_delay_max_s);
        }
        if let Some(of) = outlet.peer() {
            let (mut outs, expiry_s) = (of.outs(true), of.expiry_s());
            if expiry_s > 0 {
                self.keep_at_end(state, peer, &mut outs);
            }
            self.end_stored(peer, &outs, expiry_s);
        }
        self.end_shares(state, peer);
        peer.owed = None;
        let clients = &self.context.clients;
        let shard = (!self.closing.get()).then_some(self.context.index);
        let due = clients.leave(&peer.client, peer.turn, will, shard, clients.now());
        state.wills.due.extend(due);
        self.context.mailbox.nudge();
    }

    /// Does what ended sessions left, and publishes the wills whose time has come: all, when the shard ends.
    pub(in crate::shard) fn run_wills(self: &Rc<Self>) {
        let (due, queues, look) = {
            let mut state = self.state.borrow_mut();
            let tick = state.timers.now();
            let Wills { due, queues, looked } = &mut state.wills;
            let look = std::mem::replace(looked, tick) != tick;
            (std::mem::take(due), std::mem::take(queues), look)
        };
        for publish in due {
            self.publish_for_nobody(publish);
        }
        let clients = &self.context.clients;
        let until = if self.closing.get() { Some(u64::MAX) } else { look.then(|| clients.now()) };
        for publish in until.map_or(Vec::new(), |until| clients.take_due(self.context.index, until))
        {
            self.publish_for_nobody(publish);
        }
        for queue in queues {
            self.share_again(queue);
        }
    }
}
