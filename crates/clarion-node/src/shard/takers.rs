//! Those who ask for single messages of a shared cursor (HTTP): they wait, get some under a lease, and are gone.
//!
//! Invariants: takers are served in the order in which they came, before members; one that has gone gets no lease. Must
//! not know: how a lease is shown.

use super::confirm::FINISH;
use super::deliver::list_dirty;
use super::members::SharedKey;
use super::{Shard, State};
use crate::attach::SharedPlan;
use crate::clock;
use clarion_core::mode::Member;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::store::ReadRange;
use clarion_core::{Message, Seq};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages under a lease.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    pub(crate) message: Arc<Message>,
    pub(crate) attempt: u32,
}

/// One who waits.
pub(crate) struct Taker {
    pub(crate) member: Member,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
    pub(crate) ack_wait_ms: u64,
    pub(crate) reply: oneshot::Sender<Vec<Handed>>,
}

impl Shard {
    /// Somebody asks for messages.
    pub(crate) fn take(self: &Rc<Self>, plan: SharedPlan, taker: Taker) {
        let key = self.shared_of(plan);
        let mut state = self.state.borrow_mut();
        if let Some(shared) = state.shared.get_mut(key) {
            shared.takers.push_back(taker);
        }
        self.shared_ready(&mut state, key);
    }

    /// Somebody asked, and waits no more.
    pub(crate) fn taker_left(&self, plan: &SharedPlan) {
        let mut state = self.state.borrow_mut();
        if let Some(key) = state.shared_by_plan.get(plan).copied() {
            self.shared_ready(&mut state, key);
        }
    }

    /// Whether this shared cursor is in memory.
    pub(crate) fn has_shared(&self, plan: &SharedPlan) -> bool {
        self.state.borrow().shared_by_plan.contains_key(plan)
    }

    /// Gives what is there to those who wait.
    pub(super) fn serve_takers(&self, state: &mut State, key: SharedKey) {
        loop {
            let Some(shared) = state.shared.get_mut(key) else { return };
            shared.takers.retain(|taker| !taker.reply.is_closed());
            let Some(taker) = shared.takers.pop_front() else { return };
            match self.hand_to(state, key, &taker) {
                handed if !handed.is_empty() => {
                    self.context.counters.delivered.add(handed.len() as u64);
                    if taker.reply.send(handed).is_err() {
                        self.taker_gone(state, key, taker.member);
                    }
                }
                _ => {
                    if let Some(shared) = state.shared.get_mut(key) {
                        shared.takers.push_front(taker);
                    }
                    return;
                }
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

    fn taker_gone(&self, state: &mut State, key: SharedKey, member: Member) {
        let now = self.mono();
        let Some(shared) = state.shared.get_mut(key) else { return };
        let Some(cursor) = &mut shared.cursor else { return };
        let ended = cursor.leave(member, now, clarion_core::shared_cursor::Leave::Whole);
        self.leases_ended(state, key, &ended);
    }

    /// Acks leases, whoever holds them. `None` when the cursor is not in memory.
    pub(crate) fn ack_leases(&self, plan: &SharedPlan, leases: &[(u32, Seq)]) -> Option<u64> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let key = *state.shared_by_plan.get(plan)?;
        state.shared.get_mut(key)?.cursor.as_ref()?;
        let before = self.context.counters.acks.get();
        for (epoch, seq) in leases {
            self.ack_shared(state, key, *epoch, (*seq, *seq));
        }
        Some(self.context.counters.acks.get() - before)
    }

    /// Gives leases back. Returns how many there were.
    pub(crate) fn nack_leases(
        &self,
        plan: &SharedPlan,
        leases: &[(u32, Seq, Member)],
        delay_ms: u64,
    ) -> usize {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(key) = state.shared_by_plan.get(plan).copied() else { return 0 };
        let nack = |&&(epoch, seq, member): &&(u32, Seq, Member)| {
            self.nack_shared(state, key, member, (epoch, seq), delay_ms)
        };
        leases.iter().filter(nack).count()
    }

    /// Begins the page reads that shared cursors asked for.
    pub(super) fn begin_shared_reads(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        for (key, seq) in std::mem::take(&mut state.shared_reads) {
            let Some(shared) = state.shared.get_mut(key) else { continue };
            let range = ReadRange {
                channel: shared.plan.channel.clone(),
                from: seq,
                to: Seq::MAX,
                backwards: false,
                count: self.context.config.page_messages,
                bytes: self.context.config.page_bytes,
            };
            let shard = self.clone();
            tokio::task::spawn_local(async move {
                let pages = shard.context.store.read(clock::now(), vec![range]).await;
                shard.context.counters.pages.add(1);
                let page = pages.map(|mut pages| pages.pop().unwrap_or_default());
                shard.shared_page(&mut shard.state.borrow_mut(), key, seq, page);
                shard.context.mailbox.nudge();
            });
        }
    }

    /// Tells a session that its acks are committed; number 0 ends it.
    pub(super) fn confirm(&self, state: &mut State, key: super::SessionKey, number: u64) {
        if number == FINISH {
            return self.close_session(state, key, CloseReason::Finished);
        }
        if let Some(session) = state.sessions.get_mut(key) {
            session.outlet.acks_stored(number, session.outbox.control());
            list_dirty(session, &mut state.dirty);
        }
    }
}
