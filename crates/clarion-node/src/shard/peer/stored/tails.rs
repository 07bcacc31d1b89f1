//! What is left of subscriptions that have ended: it goes when nothing depends on it any more (see `core/durable/subs.rs`).
//!
//! Invariant: a tail goes only when every log of the session is read past its stamp, and that is committed.

use super::Stored;
use super::subscribe::{Change, Settling, Told};
use crate::shard::{SessionKey, Shard, State};
use clarion_core::durable::subs::PENDING;
use std::rc::Rc;

impl Shard {
    /// Of a log something was read or acked: tails that are of no more use go.
    pub(super) fn tail_moved(&self, state: &mut State, key: SessionKey) {
        let seen = self.seen.get();
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
        if stored.tails == 0 || stored.settling.is_some() || stored.flight.is_some() {
            return;
        }
        let read = |slot: u32| match stored.logs.get(slot as usize) {
            Some(Some(log)) if log.is_settled() && !log.dirty => {
                let tail = stored.subs.get(slot).is_some_and(|sub| sub.tail.is_some());
                if tail { PENDING - 1 } else { seen }
            }
            Some(Some(_)) => 0,
            _ => PENDING - 1,
        };
        let spent = stored.subs.spent(read);
        if !spent.is_empty() {
            state.tails_spent.push((key, spent));
            self.context.mailbox.nudge();
        }
    }

    /// Tails that are of no more use are removed.
    pub(in crate::shard) fn drop_tails(self: &Rc<Self>) {
        let spent = std::mem::take(&mut self.state.borrow_mut().tails_spent);
        for (key, slots) in spent {
            let mut change = Change::default();
            {
                let mut state = self.state.borrow_mut();
                let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else {
                    continue;
                };
                if stored.settling.is_some() {
                    continue;
                }
                for slot in slots {
                    if stored.subs.get(slot).is_none_or(|sub| sub.tail.is_none()) {
                        continue;
                    }
                    stored.subs.remove(slot);
                    change.slots.insert(slot);
                    if let Some(log) = stored.logs.get_mut(slot as usize).and_then(Option::take) {
                        change.leaves.push(log.channel);
                    }
                }
                stored.count_tails();
            }
            if !change.slots.is_empty() {
                let settling = Settling { token: 0, told: Told::Nothing, retained: Vec::new() };
                self.commit_change(key, change, settling);
            }
        }
    }
}
