//! The end of a talking session: its subscriptions go, and its will is published, at once or after its delay.
//!
//! Invariants: a will is published at most once, and not when its client took it back; what waits stands in the table of
//! client ids and in its record; a shard that ends leaves it there for the next start. Must not know: any protocol.

use super::give::Queue;
use super::{PeerState, Stored};
use crate::clients::{Fate, Leaving};
use crate::clock;
use crate::committer::Reply;
use crate::sessions::{delete, put};
use crate::shard::session::{Role, Session};
use crate::shard::{Shard, State};
use crate::wills::{DueWill, Hold, Kept, WillRecord};
use clarion_core::durable::record::will_key;
use clarion_core::port::peer::Will;
use clarion_core::port::store::Unit;
use std::rc::Rc;

/// What sessions that have ended leave to be done.
#[derive(Default)]
pub(in crate::shard) struct Wills {
    due: Vec<DueWill>,
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
        // Whoever waits for room sees that the session has ended.
        peer.room.notify_waiters();
        // What it published and was not taken yet is unacked: its client sends it again.
        state.publishing.forget(key);
        if let Some(queue) = peer.queue.take() {
            state.wills.queues.push(*queue);
        }
        let mut last = outlet.peer();
        let will = last.as_mut().filter(|_| !peer.without_will);
        let will = will.and_then(|of| of.will(clock::now()));
        let stored = peer.stored.take();
        let unit = self.will_unit(state, peer, stored.as_deref(), will);
        match (stored, last) {
            (Some(mut stored), Some(of)) => {
                let (mut outs, expiry_s) = (of.outs(true), of.expiry_s());
                let shares = std::mem::take(&mut peer.shares);
                let kept = Some((&mut *stored, &mut outs)).filter(|_| expiry_s > 0);
                self.end_shares(state, shares, kept);
                self.leave_stored(state, key, &stored);
                self.end_stored((stored, &outs, expiry_s), unit, None);
            }
            _ => self.write_will(unit, peer.will.take().map(|own| own.guard as Hold)),
        }
        self.end_shares(state, std::mem::take(&mut peer.shares), None);
        peer.owed = None;
        self.context.mailbox.nudge();
    }

    /// What becomes of the will of a session that has ended. Returns the change of its record that is committed with that end.
    fn will_unit(
        &self,
        state: &mut State,
        peer: &mut PeerState,
        stored: Option<&Stored>,
        will: Option<Will>,
    ) -> Option<Unit> {
        let will = will.map(|Will { publish, delay_s }| {
            // Only what is kept by a session waits.
            let delay_max_s = stored.map_or(0, |_| peer.will_delay_max_s);
            let delay_s = delay_s.min(delay_max_s);
            let owner = stored.and_then(Stored::owner);
            let due = Some(clock::now() + u64::from(delay_s) * 1000);
            WillRecord { publish, delay_s, expiry_s: peer.will_delay_max_s, owner, due }
        });
        let waits = will.as_ref().filter(|will| will.delay_s > 0).map(WillRecord::encode);
        let clients = &self.context.clients;
        let shard = (!self.closing.get()).then_some(self.context.index);
        let leaving = Leaving { will, shard, now: clients.now() };
        match clients.leave(&peer.client, peer.turn, leaving) {
            Fate::Over => peer.will.as_ref().map(|own| delete(own.key.clone())),
            Fate::Waits => will_key(&peer.client).zip(waits).map(|(key, value)| put(key, value)),
            Fate::Due(publish) => {
                let kept = peer.will.take().map(|own| own.kept());
                state.wills.due.push(DueWill { publish: *publish, kept });
                None
            }
        }
    }

    /// Writes what has become of a will's record; `hold` is kept until then.
    fn write_will(&self, unit: Option<Unit>, hold: Option<Hold>) {
        let Some(unit) = unit else { return };
        let told = Box::new(move |_: &Rc<Self>, answer: crate::committer::CommitAnswer| {
            if let Err(error) = answer {
                tracing::debug!(%error, "what became of a will is not stored");
            }
            drop(hold);
        });
        let reply = Reply::Shard { shard: self.context.index, told };
        if let Err(refusal) = self.context.queue.submit(vec![unit], reply, true) {
            tracing::debug!(%refusal, "what became of a will is not stored");
        }
    }

    /// A will was published, or cannot be: its record goes.
    pub(super) fn will_is_over(&self, kept: Option<Kept>) {
        if let Some(Kept { key, hold }) = kept {
            self.write_will(Some(delete(key)), Some(hold));
        }
    }

    /// A will that waited is published.
    pub(crate) fn will_is_due(&self, will: DueWill) {
        self.state.borrow_mut().wills.due.push(will);
        self.context.mailbox.nudge();
    }

    /// Does what ended sessions left, and publishes the wills whose time has come.
    pub(in crate::shard) fn run_wills(self: &Rc<Self>) {
        let (due, queues, look) = {
            let mut state = self.state.borrow_mut();
            let tick = state.timers.now();
            let Wills { due, queues, looked } = &mut state.wills;
            let look = std::mem::replace(looked, tick) != tick;
            (std::mem::take(due), std::mem::take(queues), look)
        };
        for will in due {
            self.publish_for_nobody(will);
        }
        if look {
            let (clients, sessions) = (&self.context.clients, &self.context.sessions);
            let hold = |client: &str| sessions.try_hold(client);
            for will in clients.take_due(self.context.index, clients.now(), hold) {
                self.publish_for_nobody(will);
            }
        }
        for queue in queues {
            self.share_again(queue);
        }
    }
}
