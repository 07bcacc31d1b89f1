//! Gates on this shard (design §3, mikudos): who is there. How pushes come to them is in `push`, what they answer in
//! `answers`, what they are owed in `replay`, the cursors in `channels`.
//!
//! Owns: the list of gates, and for each user's channel that is in use the state of its cursor `*`. Invariants: a
//! message that was stored is acked on that cursor or comes again with a REQUEST or a new gate; what is remembered of
//! hand-outs is bounded, and forgetting it loses nothing. Must not know: how a gate's frames look.

mod answers;
mod channels;
mod push;
mod replay;

use super::link::{LinkState, watch};
use super::members::member_of;
use super::session::{Birth, Role};
use super::voice::Voice;
use super::{SessionKey, Shard, State};
use crate::attach::{Acks, Link};
use crate::gate::{Echo, GateAnswer, GateBatch, GateBirth, GateInput};
use clarion_core::gate_channel::GateChannel;
use clarion_core::mode::{Candidate, Member, Mode, pick};
use clarion_core::port::outlet::CloseReason;
use clarion_core::{Address, Code, Content, Message, Refusal, Seq};
use replay::Owing;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages and answers of one channel that wait while its cursor is read.
const WAITING_MAX: usize = 4096;

/// Who waits for the answer to a push.
type Waiter = oneshot::Sender<GateAnswer>;

/// A gate in the list.
struct GateEntry {
    key: SessionKey,
    group: Arc<str>,
    /// The order in which gates came.
    rank: u64,
}

/// What a gate's session has beside its outbox.
pub(super) struct GateSession {
    key: Option<SessionKey>,
    owing: Owing,
}

/// One user's channel.
#[derive(Default)]
pub(super) struct GateEntryChannel {
    /// `None` until it is read from the store.
    pub(super) state: Option<GateChannel>,
    loading: bool,
    /// Commits that came meanwhile.
    hinted: Vec<(Arc<Message>, Option<Waiter>)>,
    /// Answers that came meanwhile.
    inputs: Vec<(SessionKey, GateInput)>,
    waiters: Vec<(Seq, Waiter)>,
    /// What a REQUEST left out since it was on its way: should it bounce, it had passed the REQUEST.
    skipped: Vec<(SessionKey, Seq)>,
    /// Seqs that found no gate meanwhile.
    parked: Vec<Seq>,
    /// Commits came whose records did not.
    missed: Option<Seq>,
    listed: bool,
}

/// Who waits for a live push.
struct LiveWaiter {
    waiter: Waiter,
    left: Vec<Member>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Gates {
    list: Vec<GateEntry>,
    next_rank: u64,
    pub(super) channels: HashMap<Address, GateEntryChannel>,
    /// Hand-outs that are remembered, over all channels.
    pub(super) pending: usize,
    /// Pushes on their way whose hand-out somebody watches, by the place of their content in memory.
    watched: HashMap<usize, (Arc<Content>, Waiter)>,
    live_waiters: HashMap<(Address, u32), LiveWaiter>,
    dirty: Vec<Address>,
    in_flush: Vec<Address>,
    /// Removals to be answered after the next flush, and after the one under way.
    removals: Vec<(Address, oneshot::Sender<bool>)>,
    removals_now: Vec<(Address, oneshot::Sender<bool>)>,
    /// Bytes of the commits that wait for cursors.
    hinted_bytes: usize,
    to_load: Vec<Address>,
    /// Cursors that are being read, or are about to be.
    loading: usize,
    /// What gates said, until there is room for the cursors that it needs; each gate has a few batches here at most.
    inbox: VecDeque<(SessionKey, GateBatch)>,
    /// Channels whose cursor could not be read.
    retry: Vec<Address>,
    /// Gates that may take what they are owed.
    pub(super) ready: Vec<SessionKey>,
    turn: u64,
}

impl Gates {
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.in_flush.is_empty()
    }

    /// The gates that get a push, in two parts: those that have room, and those that are owed it.
    pub(super) fn pick(
        &self,
        mode: Mode,
        random: u64,
        mut has_room: impl FnMut(SessionKey) -> bool,
    ) -> (Vec<SessionKey>, Vec<SessionKey>) {
        let candidate = |gate: &GateEntry| (gate.key, gate.group.clone(), gate.rank);
        let (with, without): (Vec<_>, Vec<_>) =
            self.list.iter().map(candidate).partition(|(key, ..)| has_room(*key));
        let choose = |from: &[(SessionKey, Arc<str>, u64)]| {
            let candidates: Vec<Candidate<'_>> = from
                .iter()
                .map(|(key, group, rank)| Candidate { member: member_of(*key), group, rank: *rank })
                .collect();
            let members = pick(mode, &candidates, random);
            from.iter()
                .filter(|(key, ..)| members.contains(&member_of(*key)))
                .cloned()
                .collect::<Vec<_>>()
        };
        let given = choose(&with);
        let owed: Vec<_> = choose(&without)
            .into_iter()
            .filter(|(_, group, _)| match mode {
                Mode::Every => true,
                Mode::Group => given.iter().all(|(_, had, _)| had != group),
                Mode::Unify => given.is_empty(),
            })
            .collect();
        let keys = |gates: Vec<(SessionKey, Arc<str>, u64)>| {
            gates.into_iter().map(|(key, ..)| key).collect()
        };
        (keys(given), keys(owed))
    }
}

impl Shard {
    /// A gate takes its place.
    pub(crate) fn attach_gate(self: &Rc<Self>, birth: GateBirth) -> Result<SessionKey, Refusal> {
        let GateBirth { group, outlet, pipe, guard, first } = birth;
        let link = LinkState::new(Link::Pipe(pipe), guard)
            .map_err(|_| Refusal::new(Code::Overloaded, "the stream could not be taken over"))?;
        let gate = GateSession { key: None, owing: Owing::default() };
        let birth = Birth {
            user: None,
            device: None,
            number: 0,
            subs: Box::default(),
            role: Role::Gate(Box::new(gate)),
            acks: Acks::UpTo,
            credit: None,
            outlet: Voice::Outlet(outlet),
            hidden: !first,
        };
        let key = self.begin_session(birth, link.clone())?;
        tokio::task::spawn_local(watch(self.clone(), key, link));
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(session) = state.sessions.get_mut(key) {
            session.open();
            if let Role::Gate(gate) = &mut session.role {
                gate.key = Some(key);
            }
        }
        if state.gates.list.is_empty() {
            self.context.interest.gates_came();
        }
        let rank = state.gates.next_rank;
        state.gates.next_rank += 1;
        state.gates.list.push(GateEntry { key, group, rank });
        self.context.counters.gates.set(state.gates.list.len() as u64);
        self.owe_parked(state, key);
        self.mark_dirty(state, key);
        self.context.mailbox.nudge();
        Ok(key)
    }

    /// A gate has gone: what only it might have answered is parked.
    pub(super) fn gate_left(&self, state: &mut State, gate: &GateSession) {
        let Some(key) = gate.key else { return };
        state.gates.list.retain(|entry| entry.key != key);
        if state.gates.list.is_empty() {
            self.context.interest.gates_went();
        }
        self.context.counters.gates.set(state.gates.list.len() as u64);
        for entry in state.gates.channels.values_mut() {
            entry.skipped.retain(|(gate, _)| *gate != key);
            let Some(of) = &mut entry.state else { continue };
            let parked = of.gate_left(member_of(key));
            for seq in parked {
                answer(&mut entry.waiters, seq, false, &Echo::default());
            }
        }
        let member = member_of(key);
        for of in state.gates.live_waiters.values_mut() {
            of.left.retain(|left| *left != member);
        }
        let over = state.gates.live_waiters.extract_if(|_, of| of.left.is_empty());
        for (_, of) in over {
            tell(of.waiter, false, Echo::default());
        }
    }

    /// A gate has half-closed: its stream ends in order.
    pub(crate) fn finish(&self, key: SessionKey) {
        self.close_session(&mut self.state.borrow_mut(), key, CloseReason::Finished);
        self.context.mailbox.nudge();
    }

    /// Numbers that are measured now and then.
    pub(super) fn measure_gates(&self, state: &State) {
        self.context.counters.gate_pending.set(state.gates.pending as u64);
    }
}

impl GateEntryChannel {
    /// From here on commits were not kept while the cursor is read: gates are owed them after it.
    fn missed(&mut self, seq: Seq) {
        self.missed = Some(self.missed.map_or(seq, |first| first.min(seq)));
    }

    fn is_idle(&self) -> bool {
        self.state.as_ref().is_some_and(GateChannel::is_idle)
            && self.waiters.iter().all(|(_, waiter)| waiter.is_closed())
            && !self.loading
            && !self.listed
    }
}

fn tell(waiter: Waiter, received: bool, echo: Echo) {
    // The producer may have given up.
    drop(waiter.send(GateAnswer { received, echo }));
}

/// Tells all who wait for the answer to this message.
fn answer(waiters: &mut Vec<(Seq, Waiter)>, seq: Seq, received: bool, echo: &Echo) {
    if waiters.is_empty() {
        return;
    }
    for (_, waiter) in waiters.extract_if(.., |(of, _)| *of == seq) {
        tell(waiter, received, echo.clone());
    }
    waiters.retain(|(_, waiter)| !waiter.is_closed());
}
