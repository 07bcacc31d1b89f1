//! Gates on this shard: the hand-out of users' messages to them, and their answers (design §3, mikudos).
//!
//! Owns: the list of gates, and for each user's channel that is in use the state of its cursor `*`. Invariants: a
//! message that was stored is acked on that cursor or comes again with a REQUEST or a new gate; what is remembered of
//! hand-outs is bounded, and forgetting it loses nothing. Must not know: how a gate's frames look.

use super::deliver::Frames;
use super::deliver::{list_dirty, make_room, put};
use super::gate_replay::Owing;
use super::link::LinkState;
use super::members::member_of;
use super::session::{Birth, Role, Session};
use super::slab::Slab;
use super::written::{Sent, note_sent};
use super::{SessionKey, Shard, State};
use crate::attach::{Acks, Link};
use crate::clock;
use crate::committer::{Flusher, Reply};
use crate::gate::{Echo, GateAnswer, GateBirth, GateInput, gate_id};
use clarion_core::gate_channel::{GateChannel, LIVE_IDS, Outcome};
use clarion_core::mode::{Candidate, Member, Mode, pick};
use clarion_core::port::outlet::{CloseReason, Given};
use clarion_core::port::store::{Head, Move, Reader, StoreError, StoredCursor, Unit};
use clarion_core::shared_cursor::Acked;
use clarion_core::{Address, Code, Content, Cursor, Message, Refusal, Seq};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages and answers of one channel that wait while its cursor is read.
const WAITING_MAX: usize = 4096;
/// Channels whose acks go with one flush.
const FLUSH_MAX: usize = 4096;

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
    pub(super) owing: Owing,
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
    /// Seqs that found no gate meanwhile.
    parked: Vec<Seq>,
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
    removals: Vec<oneshot::Sender<bool>>,
    removals_now: Vec<oneshot::Sender<bool>>,
    to_load: Vec<Address>,
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
    fn pick(
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
            outlet,
            hidden: !first,
        };
        let key = self.begin_session(birth, link)?;
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

    /// A commit of a user's channel.
    pub(super) fn gate_record(self: &Rc<Self>, message: &Arc<Message>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let waiter = take_watch(state, &message.content);
        // A gate that stands on another shard already is about to come to this one.
        let none = state.gates.list.is_empty() && !self.context.interest.has_gates();
        if none && !state.gates.channels.contains_key(&message.channel) {
            if let Some(waiter) = waiter {
                tell(waiter, false, Echo::default());
                self.remember(state, &message.channel, message.clone(), None);
            }
            return;
        }
        self.remember(state, &message.channel, message.clone(), waiter);
    }

    /// Hands a commit out, or keeps it until its channel's cursor is read.
    fn remember(
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
                if entry.hinted.len() < WAITING_MAX {
                    entry.hinted.push((message, waiter));
                }
                entry.state = None;
                self.load_soon(state, channel);
            }
        }
    }

    fn load_soon(&self, state: &mut State, channel: &Address) {
        if let Some(entry) = state.gates.channels.get_mut(channel)
            && !std::mem::replace(&mut entry.loading, true)
        {
            state.gates.to_load.push(channel.clone());
            self.context.mailbox.nudge();
        }
    }

    /// A stored push to the gates that are there.
    fn hand_to_gates(&self, state: &mut State, message: &Arc<Message>, waiter: Option<Waiter>) {
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
    fn give_to_gates(
        &self,
        state: &mut State,
        message: &Arc<Message>,
    ) -> (Vec<SessionKey>, Vec<SessionKey>) {
        let State { gates, sessions, frames, dirty, writing, timers, .. } = state;
        frames.reset();
        gates.turn = gates.turn.wrapping_add(1);
        let (tick, random) = (timers.now(), gates.turn);
        if self.is_too_long(gates, sessions, frames, message) {
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
    fn is_too_long(
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
    pub(super) fn gate_live(&self, message: &Arc<Message>) -> u64 {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
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
        } else {
            entry.parked.push(seq);
            entry.parked.truncate(WAITING_MAX);
            self.load_soon(state, channel);
        }
        // A gate that came meanwhile has looked before this was here.
        let gates: Vec<SessionKey> = state.gates.list.iter().map(|gate| gate.key).collect();
        for key in gates {
            self.owe(state, key, channel, (seq, seq), true);
        }
        self.bound_gates(state);
    }

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

    /// What a gate says, or somebody who removes a message.
    pub(super) fn handle_gate(self: &Rc<Self>, key: SessionKey, inputs: Vec<GateInput>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for input in inputs {
            self.gate_input(state, key, input);
        }
        self.bound_gates(state);
    }

    fn gate_input(&self, state: &mut State, key: SessionKey, input: GateInput) {
        if let GateInput::Received { channel, msg_id, echo }
        | GateInput::Unreceived { channel, msg_id, echo } = &input
            && *msg_id >= LIVE_IDS
        {
            let received = matches!(input, GateInput::Received { .. });
            return live_answered(state, key, (channel.clone(), *msg_id), received, echo);
        }
        let entry = state.gates.channels.entry(input.channel().clone()).or_default();
        if entry.state.is_none() {
            let channel = input.channel().clone();
            if entry.inputs.len() < WAITING_MAX {
                entry.inputs.push((key, input));
            } else {
                self.context.counters.gate_unknown.add(1);
            }
            return self.load_soon(state, &channel);
        }
        match input {
            GateInput::Request { channel, above } => self.request(state, key, &channel, above),
            GateInput::Received { channel, msg_id, echo } => {
                self.received(state, &channel, msg_id, &echo);
            }
            GateInput::Unreceived { channel, msg_id, echo } => {
                self.unreceived(state, key, &channel, msg_id, &echo);
            }
            GateInput::Remove { channel, msg_id, reply } => {
                match self.received(state, &channel, msg_id, &Echo::default()) {
                    Acked::Now => {
                        state.gates.removals.push(reply);
                        state.timers.acks_now();
                    }
                    Acked::Before | Acked::Unknown => {
                        // The asker may have gone.
                        let _ = reply.send(false);
                    }
                }
            }
        }
    }

    /// The first RECEIVED acks for all.
    fn received(&self, state: &mut State, channel: &Address, msg_id: u32, echo: &Echo) -> Acked {
        let Some(entry) = state.gates.channels.get_mut(channel) else { return Acked::Unknown };
        let Some(of) = &mut entry.state else { return Acked::Unknown };
        let Some(seq) = of.seq_of(msg_id) else {
            self.context.counters.gate_unknown.add(1);
            return Acked::Unknown;
        };
        let before = of.pending();
        let acked = of.received(seq);
        state.gates.pending -= before - of.pending();
        answer(&mut entry.waiters, seq, true, echo);
        if acked == Acked::Now {
            self.context.counters.acks.add(1);
            if !std::mem::replace(&mut entry.listed, true) {
                state.gates.dirty.push(channel.clone());
                state.timers.acks_wait();
            }
        }
        acked
    }

    fn unreceived(
        &self,
        state: &mut State,
        key: SessionKey,
        channel: &Address,
        msg_id: u32,
        echo: &Echo,
    ) {
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        let Some(of) = &mut entry.state else { return };
        let Some(seq) = of.seq_of(msg_id) else { return self.context.counters.gate_unknown.add(1) };
        if of.unreceived(seq, member_of(key)) {
            answer(&mut entry.waiters, seq, false, echo);
        }
    }

    /// Begins the reads of cursors that are needed.
    pub(super) fn begin_gate_loads(self: &Rc<Self>) {
        let to_load = std::mem::take(&mut self.state.borrow_mut().gates.to_load);
        for channel in to_load {
            tokio::task::spawn_local(self.clone().load_gate_channel(channel));
        }
    }

    async fn load_gate_channel(self: Rc<Self>, channel: Address) {
        let Ok(_permit) = self.loads.acquire().await else { return };
        let store = &self.context.store;
        let heads = store.heads(vec![channel.clone()]).await;
        let readers = store.readers(channel.clone()).await;
        let loaded = heads.and_then(|heads| Ok((heads, readers?)));
        self.gate_channel_loaded(&channel, loaded);
        self.context.mailbox.nudge();
    }

    fn gate_channel_loaded(
        self: &Rc<Self>,
        channel: &Address,
        loaded: Result<(Vec<Head>, Vec<StoredCursor>), StoreError>,
    ) {
        let attached = loaded.as_ref().ok().and_then(|(heads, _)| {
            let epoch = heads.first()?.epoch;
            self.highest_floor(channel.id(), channel, epoch)
        });
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        entry.loading = false;
        let (heads, readers) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::debug!(%error, ?channel, "a channel's cursor could not be read");
                // With the next answer, push or tick; what removals wait for is unknown.
                entry.inputs.retain(|(_, input)| !matches!(input, GateInput::Remove { .. }));
                state.gates.retry.push(channel.clone());
                return;
            }
        };
        let head = heads.first().copied().unwrap_or_default();
        let cursor = gate_cursor(&head, &readers, attached);
        let mut of = GateChannel::new(head.epoch, cursor, head.last);
        of.trimmed(head.first);
        for seq in std::mem::take(&mut entry.parked) {
            of.hand_out(seq, &[], 0);
        }
        state.gates.pending += of.pending();
        entry.state = Some(of);
        for (message, waiter) in std::mem::take(&mut entry.hinted) {
            self.remember(state, channel, message, waiter);
        }
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        for (key, input) in std::mem::take(&mut entry.inputs) {
            self.gate_input(state, key, input);
        }
    }

    /// Tries again what could not be read.
    pub(super) fn retry_gate_loads(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for channel in std::mem::take(&mut state.gates.retry) {
            self.load_soon(state, &channel);
        }
    }

    /// Keeps what is remembered within its bounds: first what nobody needs goes, then hand-outs are forgotten; their
    /// messages stay unacked and come with a REQUEST.
    fn bound_gates(&self, state: &mut State) {
        let config = &self.context.config;
        let gates = &mut state.gates;
        if gates.channels.len() <= config.gate_channels && gates.pending <= config.gate_pending {
            return;
        }
        gates.channels.retain(|_, entry| !entry.is_idle());
        let (channels, pending) = (config.gate_channels / 2, config.gate_pending / 2);
        if gates.channels.len() <= channels && gates.pending <= pending {
            return;
        }
        for entry in gates.channels.values_mut() {
            if let Some(of) = &mut entry.state {
                of.forget_hand_outs();
            }
            entry.waiters.retain(|(_, waiter)| !waiter.is_closed());
        }
        gates.pending = 0;
        gates.channels.retain(|_, entry| !entry.is_idle());
    }

    /// Hands the moves of gates' cursors to the committer.
    pub(super) fn flush_gates(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let gates = &mut state.gates;
        if gates.dirty.is_empty() || !gates.in_flush.is_empty() {
            return;
        }
        let count = gates.dirty.len().min(FLUSH_MAX);
        gates.in_flush = gates.dirty.drain(..count).collect();
        let mut moves = Vec::with_capacity(count);
        for channel in &gates.in_flush {
            let Some(entry) = gates.channels.get_mut(channel) else { continue };
            entry.listed = false;
            let Some(of) = &mut entry.state else { continue };
            let epoch = of.epoch();
            if let Some(cursor) = of.begin_flush() {
                moves.push(Move { channel: channel.clone(), epoch, cursor });
            }
        }
        gates.removals_now.append(&mut gates.removals);
        let unit = Unit::Ack { reader: Reader::shared("*"), moves };
        let reply = Reply::Flush { shard: self.context.index, who: Flusher::Gates };
        if self.context.queue.submit(vec![unit], reply, true).is_err() {
            self.gates_flushed(state, false);
        }
    }

    /// The flush is over.
    pub(super) fn gates_flushed(&self, state: &mut State, committed: bool) {
        let gates = &mut state.gates;
        for channel in std::mem::take(&mut gates.in_flush) {
            let Some(entry) = gates.channels.get_mut(&channel) else { continue };
            let Some(of) = &mut entry.state else { continue };
            of.end_flush(committed);
            let again = of.is_dirty() && !self.closing.get();
            if again && !std::mem::replace(&mut entry.listed, true) {
                gates.dirty.push(channel);
            }
        }
        if committed {
            for reply in gates.removals_now.drain(..) {
                // The asker may have gone.
                let _ = reply.send(true);
            }
        } else {
            self.context.counters.flush_failures.add(1);
            gates.removals_now.clear();
        }
        if self.closing.get() && !committed {
            gates.dirty.clear();
        }
        if !gates.dirty.is_empty() {
            if committed { state.timers.acks_wait() } else { state.timers.acks_failed() }
        }
    }

    /// Numbers that are measured now and then.
    pub(super) fn measure_gates(&self, state: &State) {
        self.context.counters.gate_pending.set(state.gates.pending as u64);
    }
}

impl GateEntryChannel {
    fn is_idle(&self) -> bool {
        self.state.as_ref().is_some_and(GateChannel::is_idle)
            && self.waiters.is_empty()
            && !self.loading
            && !self.listed
    }
}

/// Where the gates' cursor stands: as stored, else at the highest floor among the user's own, else at what is kept.
fn gate_cursor(head: &Head, readers: &[StoredCursor], attached: Option<Seq>) -> Cursor {
    let present = || readers.iter().filter(|stored| stored.epoch == head.epoch);
    let star = Reader::shared("*");
    if let Some(stored) = present().find(|stored| stored.reader == star) {
        return stored.cursor.clone();
    }
    let highest = present().map(|stored| stored.cursor.floor()).chain(attached).max();
    Cursor::at(highest.unwrap_or(0).max(head.first.saturating_sub(1)).min(head.last))
}

/// The watch on a push, if there is one.
fn take_watch(state: &mut State, content: &Arc<Content>) -> Option<Waiter> {
    if state.gates.watched.is_empty() {
        return None;
    }
    state.gates.watched.remove(&(Arc::as_ptr(content) as usize)).map(|(_, waiter)| waiter)
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

fn live_answered(
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
