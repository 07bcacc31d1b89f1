//! What gates answer: RECEIVED acks for all, UNRECEIVED of the whole set parks, REQUEST brings what is unacked.
//!
//! Invariant: an answer of something that was never given out does nothing and is counted. Must not know: how a gate's
//! frames look.

use super::{WAITING_MAX, answer, tell};
use crate::gate::{Echo, GateBatch, GateInput};
use crate::shard::members::member_of;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::Address;
use clarion_core::gate_channel::LIVE_IDS;
use clarion_core::shared_cursor::Acked;

/// Cursors that may be read, or wait for it, before gates have to wait.
const LOADING_MAX: usize = 1024;

impl Shard {
    /// What a gate says, or somebody who removes a message. While many cursors are being read it waits, and with it who
    /// says more.
    pub(in crate::shard) fn gate_says(&self, key: SessionKey, batch: GateBatch) {
        self.state.borrow_mut().gates.inbox.push_back((key, batch));
        self.hear_gates();
    }

    /// Handles what gates said, as far as there is room.
    pub(super) fn hear_gates(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        while state.gates.loading < LOADING_MAX
            && let Some((key, batch)) = state.gates.inbox.pop_front()
        {
            for input in batch.inputs {
                self.gate_input(state, key, input);
            }
            self.bound_gates(state);
        }
    }

    pub(super) fn gate_input(&self, state: &mut State, key: SessionKey, input: GateInput) {
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
                        state.gates.removals.push((channel, reply));
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
    pub(super) fn received(
        &self,
        state: &mut State,
        channel: &Address,
        msg_id: u32,
        echo: &Echo,
    ) -> Acked {
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
        entry.skipped.retain(|(_, skipped)| *skipped != seq);
        if acked == Acked::Now {
            self.context.counters.acks.add(1);
            self.gate_dirty(state, channel);
        }
        acked
    }

    pub(super) fn unreceived(
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
        // It had passed this gate's REQUEST on its way, and was left out for that.
        if let Some(at) = entry.skipped.iter().position(|skipped| *skipped == (key, seq)) {
            entry.skipped.swap_remove(at);
            self.owe(state, key, channel, (seq, seq), false);
        }
    }
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
