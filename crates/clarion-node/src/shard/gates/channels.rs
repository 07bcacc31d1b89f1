//! The cursors `*` of users' channels in memory: read when they are needed, written lazily, forgotten within bounds.
//!
//! Invariant: what is forgotten is only who was handed what; acks are written first. Must not know: how pushes are picked.

use crate::committer::{Flusher, Reply};
use crate::gate::GateInput;
use crate::shard::{Shard, State};
use clarion_core::gate_channel::GateChannel;
use clarion_core::port::store::{Head, Move, Reader, StoreError, StoredCursor, Unit};
use clarion_core::{Address, Cursor, Seq};
use std::collections::HashSet;
use std::rc::Rc;

/// Channels whose acks go with one flush.
const FLUSH_MAX: usize = 4096;

impl Shard {
    pub(in crate::shard) fn load_soon(&self, state: &mut State, channel: &Address) {
        if let Some(entry) = state.gates.channels.get_mut(channel)
            && !std::mem::replace(&mut entry.loading, true)
        {
            state.gates.loading += 1;
            state.gates.to_load.push(channel.clone());
            self.context.mailbox.nudge();
        }
    }

    /// Begins the reads of cursors that are needed.
    pub(in crate::shard) fn begin_gate_loads(self: &Rc<Self>) {
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
        self.hear_gates();
        self.context.mailbox.nudge();
    }

    pub(super) fn gate_channel_loaded(
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
        // One that loads stays in memory.
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        entry.loading = false;
        state.gates.loading -= 1;
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
        let weight: usize = hinted.iter().map(|(message, _)| message.content.weight()).sum();
        state.gates.hinted_bytes -= weight;
        let missed = entry.missed.take().map(|first| (first.max(unacked), head.last));
        if let Some(range) = missed {
            self.owe_to_picked(state, channel, range);
        }
        self.owe_all(state, channel, &parked);
        self.answer_parked(state, channel, &parked);
        for (message, waiter) in hinted {
            self.remember(state, channel, message, waiter);
        }
        let Some(entry) = state.gates.channels.get_mut(channel) else { return };
        for (key, input) in std::mem::take(&mut entry.inputs) {
            self.gate_input(state, key, input);
        }
    }

    /// Tries again what could not be read.
    pub(in crate::shard) fn retry_gate_loads(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for channel in std::mem::take(&mut state.gates.retry) {
            self.load_soon(state, &channel);
        }
    }

    /// Keeps what is remembered within its bounds: first what nobody needs goes, then hand-outs are forgotten; their
    /// messages stay unacked and come with a REQUEST.
    pub(super) fn bound_gates(&self, state: &mut State) {
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

    /// Lists a channel for the next flush of acks, if it has any.
    pub(in crate::shard) fn gate_dirty(&self, state: &mut State, channel: &Address) {
        if let Some(entry) = state.gates.channels.get_mut(channel)
            && entry.state.as_ref().is_some_and(GateChannel::is_dirty)
            && !std::mem::replace(&mut entry.listed, true)
        {
            state.gates.dirty.push(channel.clone());
            state.timers.acks_wait();
        }
    }

    /// Hands the moves of gates' cursors to the committer.
    pub(in crate::shard) fn flush_gates(&self) {
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
        let going: HashSet<&Address> = gates.in_flush.iter().collect();
        let (now, later) =
            std::mem::take(&mut gates.removals).into_iter().partition(|(of, _)| going.contains(of));
        (gates.removals_now, gates.removals) = (now, later);
        let unit = Unit::Ack { reader: Reader::shared("*"), moves };
        let reply = Reply::Flush { shard: self.context.index, who: Flusher::Gates };
        if self.context.queue.submit(vec![unit], reply, true).is_err() {
            self.gates_flushed(state, false);
        }
    }

    /// The flush is over.
    pub(in crate::shard) fn gates_flushed(&self, state: &mut State, committed: bool) {
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
            for (_, reply) in gates.removals_now.drain(..) {
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
