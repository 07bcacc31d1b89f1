//! The acks of gates, on their way to the store.
//!
//! Invariants: one flush at a time; a removal is answered when it is committed. Must not know: gates.

use super::{Shard, State};
use crate::committer::{Flusher, Reply};
use clarion_core::port::store::{Move, Reader, Unit};

/// Channels whose acks go with one flush.
const FLUSH_MAX: usize = 4096;

impl Shard {
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
}
