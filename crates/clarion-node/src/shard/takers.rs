//! Those who ask for single messages of a shared cursor (HTTP): they wait, get some under a lease, and are gone.
//!
//! Invariants: takers are served in the order in which they came, before members; one that has gone keeps no lease; each
//! is answered, at the latest when the shard ends. Must not know: how a lease is shown.

use super::confirm::FINISH;
use super::members::{Shared, SharedKey};
use super::{Shard, State};
use crate::attach::SharedPlan;
use crate::clock;
use clarion_core::mode::Member;
use clarion_core::port::outlet::CloseReason;
use clarion_core::shared_cursor::{Acked, Leave};
use clarion_core::{Code, Message, Refusal, Seq};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages under a lease.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) message: Arc<Message>,
    pub(crate) attempt: u32,
}

/// What a taker is told.
pub(crate) type Taken = Result<Vec<Handed>, Refusal>;

/// One who waits.
pub(crate) struct Taker {
    pub(crate) member: Member,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
    pub(crate) ack_wait_ms: u64,
    /// It waits for a message; else it takes what is there, or nothing.
    pub(crate) patient: bool,
    pub(crate) reply: oneshot::Sender<Taken>,
}

impl Taker {
    pub(super) fn refuse(self, code: Code) {
        // It may have gone.
        let _ = self.reply.send(Err(code.into()));
    }
}

impl Shared {
    /// Answers those who do not wait.
    fn answer_hurried(&mut self, answer: impl Fn() -> Taken) {
        if self.takers.iter().all(|taker| taker.patient) {
            return;
        }
        let all = std::mem::take(&mut self.takers);
        let (patient, hurried): (VecDeque<_>, _) = all.into_iter().partition(|t| t.patient);
        self.takers = patient;
        for taker in hurried {
            let _ = taker.reply.send(answer());
        }
    }

    /// What they ask for cannot be read now.
    pub(super) fn refuse_hurried(&mut self, code: Code) {
        self.answer_hurried(|| Err(code.into()));
    }
}

impl Shard {
    /// Somebody asks for messages.
    pub(crate) fn take(self: &Rc<Self>, plan: SharedPlan, taker: Taker) {
        if self.closing.get() {
            return taker.refuse(Code::ShuttingDown);
        }
        let key = self.shared_of(plan);
        let mut state = self.state.borrow_mut();
        if let Some(shared) = state.shared.get_mut(key) {
            shared.takers.push_back(taker);
        }
        self.shared_ready(&mut state, key);
    }

    /// A taker has waited long enough: it is told what is there, if only nothing.
    pub(crate) fn hurry(&self, plan: &SharedPlan, member: Member) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(key) = state.shared_by_plan.get(plan).copied() else { return };
        let Some(shared) = state.shared.get_mut(key) else { return };
        if let Some(taker) = shared.takers.iter_mut().find(|taker| taker.member == member) {
            taker.patient = false;
        }
        self.shared_ready(state, key);
    }

    /// A taker has gone, without its answer: what it was handed meanwhile comes back.
    pub(crate) fn taker_gone(&self, plan: &SharedPlan, member: Member) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(key) = state.shared_by_plan.get(plan).copied() else { return };
        let Some(shared) = state.shared.get_mut(key) else { return };
        if let Some(at) = shared.takers.iter().position(|taker| taker.member == member) {
            shared.takers.remove(at);
        }
        self.give_back(state, key, member);
    }

    /// Ends a member's leases.
    fn give_back(&self, state: &mut State, key: SharedKey, member: Member) {
        let now = self.mono();
        let cursor = state.shared.get_mut(key).and_then(|shared| shared.cursor.as_mut());
        let ended = cursor.map(|cursor| cursor.leave(member, now, Leave::Whole));
        self.leases_ended(state, key, &ended.unwrap_or_default());
    }

    /// Whether this shared cursor is in memory.
    pub(crate) fn has_shared(&self, plan: &SharedPlan) -> bool {
        self.state.borrow().shared_by_plan.contains_key(plan)
    }

    /// Gives what is there to those who wait.
    pub(super) fn serve_takers(&self, state: &mut State, key: SharedKey) {
        loop {
            let Some(shared) = state.shared.get_mut(key) else { return };
            let Some(taker) = shared.takers.pop_front() else { return };
            if taker.reply.is_closed() {
                continue;
            }
            let handed = self.hand_to(state, key, &taker);
            let Some(shared) = state.shared.get_mut(key) else { return };
            if handed.is_empty() {
                shared.takers.push_front(taker);
                // While a page is under way nobody knows that nothing is there.
                if shared.cursor.is_some() && !shared.reading {
                    shared.answer_hurried(|| Ok(Vec::new()));
                }
                return;
            }
            self.context.counters.delivered.add(handed.len() as u64);
            let member = taker.member;
            if taker.reply.send(Ok(handed)).is_err() {
                self.give_back(state, key, member);
            }
        }
    }

    /// Leases what is known and due to a taker, up to his bounds.
    fn hand_to(&self, state: &mut State, key: SharedKey, taker: &Taker) -> Vec<Handed> {
        let now = self.mono();
        let mut handed: Vec<Handed> = Vec::new();
        let mut bytes = 0;
        while handed.len() < taker.count {
            let Some(shared) = state.shared.get_mut(key) else { break };
            let Some(cursor) = &mut shared.cursor else { break };
            let Some(seq) = cursor.upcoming(now) else { break };
            let message = match shared.known.get(&seq) {
                None => {
                    self.read_shared(state, key, seq);
                    break;
                }
                Some(Some(message)) if !message.content.expired(clock::now()) => message.clone(),
                Some(_) => {
                    shared.known.remove(&seq);
                    cursor.skip(seq);
                    continue;
                }
            };
            bytes += message.content.weight();
            if bytes > taker.bytes && !handed.is_empty() {
                break;
            }
            if !cursor.lease_for(seq, &[taker.member], now, Some(taker.ack_wait_ms)) {
                break;
            }
            shared.known.remove(&seq);
            handed.push(Handed { message, attempt: cursor.attempts_of(seq) });
        }
        handed
    }

    /// Acks leases, whoever holds them. `None` when the cursor is not in memory.
    pub(crate) fn ack_leases(&self, plan: &SharedPlan, leases: &[(u32, Seq)]) -> Option<u64> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let key = *state.shared_by_plan.get(plan)?;
        let cursor = state.shared.get_mut(key)?.cursor.as_mut()?;
        let due = leases.iter().filter(|(epoch, _)| *epoch == cursor.epoch());
        let due: Vec<Seq> = due.map(|(_, seq)| *seq).collect();
        let moved = due.iter().filter(|seq| cursor.ack_early(**seq) == Acked::Now).count() as u64;
        self.context.counters.acks.add(moved);
        self.shared_ready(state, key);
        Some(moved)
    }

    /// These acks were committed while the cursor was not in memory. If somebody loads it meanwhile, what he read may
    /// lack them.
    pub(crate) fn acked_meanwhile(&self, plan: &SharedPlan, leases: Vec<(u32, Seq)>) {
        if self.ack_leases(plan, &leases).is_some() {
            return;
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(key) = state.shared_by_plan.get(plan).copied() else { return };
        if let Some(shared) = state.shared.get_mut(key)
            && shared.loading
        {
            shared.early.extend(leases);
        }
    }

    /// Gives leases back. Returns how many there were; `None` when the cursor is not in memory.
    pub(crate) fn nack_leases(
        &self,
        plan: &SharedPlan,
        leases: &[(u32, Seq, Member)],
        delay_ms: u64,
    ) -> Option<usize> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let key = state.shared_by_plan.get(plan).copied()?;
        let nack = |&&(epoch, seq, member): &&(u32, Seq, Member)| {
            self.nack_shared(state, key, member, (epoch, seq), delay_ms)
        };
        Some(leases.iter().filter(nack).count())
    }

    /// Nobody waits for single messages any more.
    pub(super) fn stop_takers(&self) {
        let mut guard = self.state.borrow_mut();
        for key in guard.shared.keys() {
            if let Some(shared) = guard.shared.get_mut(key) {
                for taker in shared.takers.drain(..) {
                    taker.refuse(Code::ShuttingDown);
                }
                if let Some(cursor) = &mut shared.cursor {
                    cursor.settle_all();
                }
            }
            self.shared_settled(&mut guard, key);
        }
    }

    /// Tells a session that its acks are committed; number 0 ends it.
    pub(super) fn confirm(&self, state: &mut State, key: super::SessionKey, number: u64) {
        if number == FINISH {
            return self.close_session(state, key, CloseReason::Finished);
        }
        if let Some(session) = state.sessions.get_mut(key) {
            session.outlet.acks_stored(number, session.outbox.control());
            super::deliver::list_dirty(session, &mut state.dirty);
        }
    }
}
