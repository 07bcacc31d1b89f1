//! The end of a talking session: its subscriptions go, and its will is published, at once or after its delay.
//!
//! Invariant: a will is published at most once, and not when its client took it back. Must not know: any protocol.

use super::give::Queue;
use crate::attach::SessionRef;
use crate::clients::Left;
use crate::clock;
use crate::shard::session::{Role, Session};
use crate::shard::{Shard, State};
use clarion_core::port::peer::{PeerPublish, Will};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What sessions that have ended leave to be done.
#[derive(Default)]
pub(in crate::shard) struct Wills {
    due: Vec<PeerPublish>,
    delayed: Vec<(Arc<str>, Will)>,
    queues: Vec<Queue>,
}

impl Wills {
    /// Whether nothing is to be done.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.delayed.is_empty() && self.queues.is_empty()
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
        if let Some(owed) = peer.owed.take() {
            // Whoever waits for room sees that the session has ended.
            owed.room.notify_one();
        }
        // What it published and was not taken yet is unacked: its client sends it again.
        state.publishing.forget(key);
        if let Some(queue) = peer.queue.take() {
            state.wills.queues.push(*queue);
        }
        let this = SessionRef { shard: self.context.index, key };
        let left = self.context.clients.leave(&peer.client, this);
        let will = if peer.without_will { None } else { outlet.peer() }
            .and_then(|of| of.will(clock::now()));
        if let Some(mut will) = will {
            will.delay_s = will.delay_s.min(peer.will_delay_max_s);
            match left {
                _ if will.delay_s == 0 => state.wills.due.push(will.publish),
                // The session that it waits for has gone with its client's new beginning.
                Left::TakenOver { clean: true } => state.wills.due.push(will.publish),
                Left::TakenOver { clean: false } => {}
                Left::Free => state.wills.delayed.push((peer.client.clone(), will)),
            }
        }
        self.context.mailbox.nudge();
    }

    /// Does what ended sessions left.
    pub(in crate::shard) fn run_wills(self: &Rc<Self>) {
        let Wills { due, delayed, queues } = std::mem::take(&mut self.state.borrow_mut().wills);
        for publish in due {
            self.publish_for_nobody(publish);
        }
        for (client, will) in delayed {
            if self.closing.get() {
                self.publish_for_nobody(will.publish);
                continue;
            }
            let (number, told) = self.context.clients.will_waits(&client);
            tokio::task::spawn_local(self.clone().wait_for_will(client, (number, told), will));
        }
        for queue in queues {
            self.share_again(queue);
        }
    }

    async fn wait_for_will(
        self: Rc<Self>,
        client: Arc<str>,
        (number, told): (u64, oneshot::Receiver<()>),
        will: Will,
    ) {
        let time = Duration::from_secs(u64::from(will.delay_s));
        match tokio::time::timeout(time, told).await {
            // Its client is back.
            Ok(Err(_)) => return,
            Ok(Ok(())) => {}
            Err(_) => self.context.clients.will_is_due(&client, number),
        }
        self.publish_for_nobody(will.publish);
        self.context.mailbox.nudge();
    }
}
