//! A push on its way to gates: picked, put into outboxes or owed, parked when there is none; and who waits for its answer.
//!
//! Invariant: a stored push is handed out, owed, parked, or waits for its channel's cursor; a watched one is answered
//! whatever becomes of it. Must not know: how a gate's frames look.

use super::{Gates, LiveWaiter, WAITING_MAX, Waiter, answer, tell};
use crate::attach::user_tag;
use crate::clock;
use crate::gate::{Echo, gate_id};
use crate::shard::deliver::{Frames, list_dirty, make_room, put};
use crate::shard::members::member_of;
use crate::shard::session::{Role, Session};
use crate::shard::slab::Slab;
use crate::shard::written::{Sent, note_sent};
use crate::shard::{SessionKey, Shard, State};
use clarion_core::gate_channel::Outcome;
use clarion_core::mode::Member;
use clarion_core::port::outlet::Given;
use clarion_core::{Address, Content, Epoch, Message, Seq};
use std::rc::Rc;
use std::sync::Arc;

/// Watched pushes above which those that nobody waits for any more are looked for.
const WATCHED_MAX: usize = 1024;

impl Shard {
    /// A commit of a user's channel.
    pub(in crate::shard) fn gate_record(self: &Rc<Self>, message: &Arc<Message>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if !self.is_home_of(&message.channel) {
            return;
        }
        let waiter = take_watch(state, &message.content);
        // A gate may stand on other shards already and be on its way to this one.
        let told = !state.gates.list.is_empty() || self.context.interest.has_gates();
        if !told && !state.gates.channels.contains_key(&message.channel) && waiter.is_none() {
            return;
        }
        self.remember(state, &message.channel, message.clone(), waiter);
    }

    /// Whether a user's channel is this shard's: gates stand on all, and each channel comes to them from one.
    fn is_home_of(&self, channel: &Address) -> bool {
        user_tag(channel.id()) as usize % self.context.config.shards == self.context.index
    }

    /// Hands a commit out, or keeps it until its channel's cursor is read.
    pub(super) fn remember(
        &self,
        state: &mut State,
        channel: &Address,
        message: Arc<Message>,
        waiter: Option<Waiter>,
    ) {
        let entry = state.gates.channels.entry(channel.clone()).or_default();
        match &mut entry.state {
            Some(of) if of.epoch() == message.epoch => {
                of.raise_head(message.epoch, message.seq);
                self.hand_to_gates(state, &message, waiter);
            }
            _ => {
                let weight = message.content.weight();
                if entry.hinted.len() < WAITING_MAX
                    && state.gates.hinted_bytes + weight <= self.context.config.mailbox_bytes
                {
                    state.gates.hinted_bytes += weight;
                    entry.hinted.push((message, waiter));
                } else {
                    entry.waiters.extend(waiter.map(|waiter| (message.seq, waiter)));
                    entry.missed(message.seq);
                }
                // Another history, if there was one: what was handed out of the old one is void.
                let old = entry.state.take().map_or(0, |of| of.pending());
                state.gates.pending -= old;
                self.load_soon(state, channel);
            }
        }
    }

    /// A user's channel has grown up to here, and its records did not fit into the mailbox: the gates are owed them.
    pub(in crate::shard) fn gate_head(
        &self,
        channel: &Address,
        epoch: Epoch,
        (first, last): (Seq, Seq),
    ) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let nobody = state.gates.list.is_empty() && !self.context.interest.has_gates();
        let unused = nobody && !state.gates.channels.contains_key(channel);
        if unused || !self.is_home_of(channel) {
            return;
        }
        let entry = state.gates.channels.entry(channel.clone()).or_default();
        match &mut entry.state {
            Some(of) if of.epoch() == epoch => {
                of.raise_head(epoch, last);
                self.owe_to_picked(state, channel, (first, last));
            }
            _ => {
                let old = entry.state.take().map_or(0, |of| of.pending());
                entry.missed(first);
                state.gates.pending -= old;
                self.load_soon(state, channel);
            }
        }
        self.bound_gates(state);
    }

    /// Owes a range that no gate was given to those that are picked for it.
    pub(super) fn owe_to_picked(&self, state: &mut State, channel: &Address, range: (Seq, Seq)) {
        state.gates.turn = state.gates.turn.wrapping_add(1);
        let random = state.gates.turn;
        let (_, picked) = state.gates.pick(self.context.config.gate_mode, random, |_| false);
        let members: Vec<Member> = picked.iter().map(|key| member_of(*key)).collect();
        let now = self.mono();
        let entry = state.gates.channels.get_mut(channel);
        if let Some(of) = entry.and_then(|entry| entry.state.as_mut()) {
            let before = of.pending();
            (range.0..=range.1).for_each(|seq| of.hand_out(seq, &members, now));
            state.gates.pending += of.pending() - before;
        }
        for key in picked {
            self.owe(state, key, channel, range, false);
        }
    }

    /// A stored push to the gates that are there.
    pub(super) fn hand_to_gates(
        &self,
        state: &mut State,
        message: &Arc<Message>,
        waiter: Option<Waiter>,
    ) {
        let (given, owed) = self.give_to_gates(state, message);
        for key in &owed {
            self.owe(state, *key, &message.channel, (message.seq, message.seq), false);
        }
        let members: Vec<Member> = given.iter().chain(&owed).map(|key| member_of(*key)).collect();
        let now = self.mono();
        let Some(entry) = state.gates.channels.get_mut(&message.channel) else { return };
        let Some(of) = &mut entry.state else { return };
        let before = of.pending();
        of.hand_out(message.seq, &members, now);
        state.gates.pending += of.pending() - before;
        match waiter {
            Some(waiter) if members.is_empty() => tell(waiter, false, Echo::default()),
            Some(waiter) => entry.waiters.push((message.seq, waiter)),
            None => {}
        }
        self.bound_gates(state);
    }

    /// Puts a push into the outboxes of the gates that get it; returns them, and those without room.
    pub(super) fn give_to_gates(
        &self,
        state: &mut State,
        message: &Arc<Message>,
    ) -> (Vec<SessionKey>, Vec<SessionKey>) {
        let State { gates, sessions, frames, dirty, writing, timers, .. } = state;
        frames.reset();
        gates.turn = gates.turn.wrapping_add(1);
        let (tick, random) = (timers.now(), gates.turn);
        if self.is_too_long(gates, sessions, frames, message) {
            self.context.counters.gate_too_long.add(1);
            return (Vec::new(), Vec::new());
        }
        let (given, owed) = gates.pick(self.context.config.gate_mode, random, |key| {
            let Some(session) = sessions.get_mut(key) else { return false };
            let Role::Gate(gate) = &session.role else { return false };
            if session.closing.is_some() || gate.owing.owes(&message.channel) {
                return false;
            }
            let frame = frames.get(&*session.outlet, message);
            make_room(session, frame.len(), &self.context, tick)
        });
        let now = clock::now();
        for key in &given {
            let Some(session) = sessions.get_mut(*key) else { continue };
            let frame = frames.get(&*session.outlet, message);
            let start = message.seq;
            put(session, Given { message, start, attempt: 1, replayed: false, now }, frame);
            note_sent(session, Sent::Gate(message.channel.clone(), message.seq), writing);
            list_dirty(session, dirty);
        }
        self.context.counters.delivered.add(given.len() as u64);
        (given, owed)
    }

    /// Whether no gate would take the message: its stream would end by it, again and again.
    pub(super) fn is_too_long(
        &self,
        gates: &Gates,
        sessions: &mut Slab<Session>,
        frames: &mut Frames,
        message: &Message,
    ) -> bool {
        let max = self.context.config.gate_message_bytes;
        if message.content.payload.len() + message.channel.id().len() + 32 < max {
            return false;
        }
        let first = gates.list.first().and_then(|gate| sessions.get_mut(gate.key));
        first.is_some_and(|session| frames.get(&*session.outlet, message).len() > max)
    }

    /// A live push. Returns to how many gates it went.
    pub(in crate::shard) fn gate_live(&self, message: &Arc<Message>) -> u64 {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if !self.is_home_of(&message.channel) {
            return 0;
        }
        let waiter = take_watch(state, &message.content);
        let (given, dropped) = self.give_to_gates(state, message);
        self.context.counters.dropped_outbox.add(dropped.len() as u64);
        match waiter {
            Some(waiter) if given.is_empty() => tell(waiter, false, Echo::default()),
            Some(waiter) => {
                let left = given.iter().map(|key| member_of(*key)).collect();
                let key = (message.channel.clone(), gate_id(message.id, 0));
                state.gates.live_waiters.retain(|_, of| !of.waiter.is_closed());
                state.gates.live_waiters.insert(key, LiveWaiter { waiter, left });
            }
            None => {}
        }
        given.len() as u64
    }

    /// A stored push found no gate: the next one that comes gets it.
    pub(crate) fn park(self: &Rc<Self>, channel: &Address, seq: Seq) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let entry = state.gates.channels.entry(channel.clone()).or_default();
        if let Some(of) = &mut entry.state {
            of.raise_head(of.epoch(), seq);
            let (before, now) = (of.pending(), self.mono());
            if of.outcome(seq) != Outcome::Received {
                of.hand_out(seq, &[], now);
            }
            state.gates.pending += of.pending() - before;
            self.owe_all(state, channel, &[seq]);
            self.answer_parked(state, channel, &[seq]);
        } else {
            if entry.parked.len() < WAITING_MAX {
                entry.parked.push(seq);
            } else {
                entry.missed(seq);
            }
            self.load_soon(state, channel);
        }
        self.bound_gates(state);
    }

    /// Tells those who wait for these: what was received before is received; without a gate nobody will.
    pub(super) fn answer_parked(&self, state: &mut State, channel: &Address, parked: &[Seq]) {
        let nobody = state.gates.list.is_empty();
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        let Some(of) = &entry.state else { return };
        for seq in parked {
            match of.outcome(*seq) {
                Outcome::Received => answer(&mut entry.waiters, *seq, true, &Echo::default()),
                _ if nobody => answer(&mut entry.waiters, *seq, false, &Echo::default()),
                _ => {}
            }
        }
    }

    /// Gates that came meanwhile have looked before these were parked.
    pub(super) fn owe_all(&self, state: &mut State, channel: &Address, parked: &[Seq]) {
        let (Some(first), Some(last)) = (parked.iter().min(), parked.iter().max()) else { return };
        let gates: Vec<SessionKey> = state.gates.list.iter().map(|gate| gate.key).collect();
        for key in gates {
            self.owe(state, key, channel, (*first, *last), true);
        }
    }

    /// The hand-out of this content is watched.
    pub(crate) fn watch_push(&self, content: Arc<Content>, waiter: Waiter) {
        let mut state = self.state.borrow_mut();
        if state.gates.watched.len() >= WATCHED_MAX {
            // Of producers that have given up.
            state.gates.watched.retain(|_, (_, waiter)| !waiter.is_closed());
        }
        state.gates.watched.insert(Arc::as_ptr(&content) as usize, (content, waiter));
    }

    /// A watched publish is over. Without a hint it found no gate, or the mailbox had no room for its record.
    pub(crate) fn watched_push_done(
        self: &Rc<Self>,
        channel: &Address,
        content: &Arc<Content>,
        seq: Seq,
    ) {
        {
            let mut state = self.state.borrow_mut();
            let Some(waiter) = take_watch(&mut state, content) else { return };
            if seq == 0 {
                return tell(waiter, false, Echo::default());
            }
            let entry = state.gates.channels.entry(channel.clone()).or_default();
            entry.waiters.push((seq, waiter));
        }
        // It may be a repetition of one that was received long ago: the cursor knows.
        self.park(channel, seq);
    }
}

/// The watch on a push, if there is one.
fn take_watch(state: &mut State, content: &Arc<Content>) -> Option<Waiter> {
    if state.gates.watched.is_empty() {
        return None;
    }
    state.gates.watched.remove(&(Arc::as_ptr(content) as usize)).map(|(_, waiter)| waiter)
}
