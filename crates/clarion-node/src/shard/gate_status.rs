//! Who waits for what gates answer to a push.
//!
//! Invariants: RECEIVED ends a wait, UNRECEIVED only when it is the last answer that is due; nobody waits for a gate that
//! has gone. Must not know: frames, the store.

use super::members::member_of;
use super::{SessionKey, Shard, State};
use crate::gate::{Echo, GateAnswer};
use clarion_core::mode::Member;
use clarion_core::{Address, Content, Seq};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Who waits for the answer to a push.
pub(super) type Waiter = oneshot::Sender<GateAnswer>;

/// Who waits for a live push.
pub(super) struct LiveWaiter {
    pub(super) waiter: Waiter,
    pub(super) left: Vec<Member>,
}

impl Shard {
    /// The hand-out of this content is watched.
    pub(crate) fn watch_push(&self, content: Arc<Content>, waiter: Waiter) {
        let mut state = self.state.borrow_mut();
        state.gates.watched.insert(Arc::as_ptr(&content) as usize, (content, waiter));
    }

    /// A watched publish is over. Without a hint it found no gate, or the mailbox had no room for its record.
    pub(crate) fn watched_push_done(
        self: &Rc<Self>,
        channel: &Address,
        content: &Arc<Content>,
        seq: Seq,
    ) {
        let waiter = {
            let mut state = self.state.borrow_mut();
            let waiter = take_watch(&mut state, content);
            let Some(waiter) = waiter else { return };
            if !state.gates.list.is_empty() && seq != 0 {
                let entry = state.gates.channels.entry(channel.clone()).or_default();
                entry.waiters.push((seq, waiter));
                None
            } else {
                Some(waiter)
            }
        };
        if let Some(waiter) = waiter {
            tell(waiter, false, Echo::default());
        }
        if seq != 0 {
            self.park(channel, seq);
        }
    }
}

/// The watch on a push, if there is one.
pub(super) fn take_watch(state: &mut State, content: &Arc<Content>) -> Option<Waiter> {
    if state.gates.watched.is_empty() {
        return None;
    }
    state.gates.watched.remove(&(Arc::as_ptr(content) as usize)).map(|(_, waiter)| waiter)
}

pub(super) fn tell(waiter: Waiter, received: bool, echo: Echo) {
    // The producer may have given up.
    drop(waiter.send(GateAnswer { received, echo }));
}

/// Tells all who wait for the answer to this message.
pub(super) fn answer(waiters: &mut Vec<(Seq, Waiter)>, seq: Seq, received: bool, echo: &Echo) {
    if waiters.is_empty() {
        return;
    }
    for (_, waiter) in waiters.extract_if(.., |(of, _)| *of == seq) {
        tell(waiter, received, echo.clone());
    }
    waiters.retain(|(_, waiter)| !waiter.is_closed());
}

pub(super) fn live_answered(
    state: &mut State,
    key: SessionKey,
    of: (Address, u32),
    received: bool,
    echo: &Echo,
) {
    let Some(waiting) = state.gates.live_waiters.get_mut(&of) else { return };
    let member = member_of(key);
    match waiting.left.iter().position(|left| *left == member) {
        Some(at) => drop(waiting.left.swap_remove(at)),
        // On another stream of the same gate than it went out on.
        None => drop(waiting.left.pop()),
    }
    if (received || waiting.left.is_empty())
        && let Some(waiting) = state.gates.live_waiters.remove(&of)
    {
        tell(waiting.waiter, received, echo.clone());
    }
}
