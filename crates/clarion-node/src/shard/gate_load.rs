//! The state of a user's gate cursor: read from the store when it is first needed; and what no gate was given meanwhile.
//!
//! Invariants: a channel is read once at a time; what came while it was read is handed out, or owed, afterwards. Must not
//! know: frames.

use super::members::member_of;
use super::{SessionKey, Shard, State};
use crate::gate::GateInput;
use clarion_core::gate_channel::{GateChannel, Outcome};
use clarion_core::mode::Member;
use clarion_core::port::store::{Head, Reader, StoreError, StoredCursor};
use clarion_core::{Address, Cursor, Epoch, Seq};
use std::rc::Rc;

/// Seqs of one channel that wait while its cursor is read.
const PARKED_MAX: usize = 4096;

impl Shard {
    /// A user's channel has grown up to here, and its records did not fit into the mailbox: the gates are owed them.
    pub(super) fn gate_head(&self, channel: &Address, epoch: Epoch, seq: Seq) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let nobody = state.gates.list.is_empty() && !self.context.interest.has_gates();
        if nobody && !state.gates.channels.contains_key(channel) {
            return;
        }
        let entry = state.gates.channels.entry(channel.clone()).or_default();
        match &mut entry.state {
            Some(of) if of.epoch() == epoch => {
                let first = of.head() + 1;
                of.raise_head(epoch, seq);
                self.owe_to_picked(state, channel, (first, seq));
            }
            _ => {
                entry.state = None;
                entry.missed = true;
                self.load_soon(state, channel);
            }
        }
        self.bound_gates(state);
    }

    /// Owes a range that no gate was given to those that are picked for it.
    fn owe_to_picked(&self, state: &mut State, channel: &Address, range: (Seq, Seq)) {
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
            entry.parked.truncate(PARKED_MAX);
            self.load_soon(state, channel);
        }
        self.owe_all(state, channel, &[seq]);
        self.bound_gates(state);
    }

    /// Gates that came meanwhile have looked before these were parked.
    fn owe_all(&self, state: &mut State, channel: &Address, parked: &[Seq]) {
        let (Some(first), Some(last)) = (parked.iter().min(), parked.iter().max()) else { return };
        let gates: Vec<SessionKey> = state.gates.list.iter().map(|gate| gate.key).collect();
        for key in gates {
            self.owe(state, key, channel, (*first, *last), true);
        }
    }

    pub(super) fn load_soon(&self, state: &mut State, channel: &Address) {
        if let Some(entry) = state.gates.channels.get_mut(channel)
            && !std::mem::replace(&mut entry.loading, true)
        {
            state.gates.to_load.push(channel.clone());
            self.context.mailbox.nudge();
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
        let parked = std::mem::take(&mut entry.parked);
        for seq in &parked {
            of.hand_out(*seq, &[], 0);
        }
        state.gates.pending += of.pending();
        let unacked = of.cursor().next_unacked(head.first);
        entry.state = Some(of);
        let hinted = std::mem::take(&mut entry.hinted);
        let missed = std::mem::take(&mut entry.missed).then_some((unacked, head.last));
        if let Some(range) = missed {
            self.owe_to_picked(state, channel, range);
        }
        self.owe_all(state, channel, &parked);
        for (message, waiter) in hinted {
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
