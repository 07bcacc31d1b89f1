//! What was put into an outbox and is not certainly written: for protocols without acks, and to know what a gate still
//! has to come.
//!
//! Invariants: entries stand in the order of their bytes; what was certainly written to a durable reader counts as acked
//! after the time in which a broken connection shows, or when its stream ends whole. Must not know: frames.

use super::session::{Role, Session};
use super::{SessionKey, Shard, State};
use crate::attach::Acks;
use crate::pipe::End;
use clarion_core::{Address, Millis, Seq};
use std::collections::VecDeque;

/// One delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    /// Of this subscription.
    Sub(u16, Seq),
    /// Of the shared cursor that the session is a member of.
    Lease(Seq),
    /// To a gate.
    Gate(Address, Seq),
}

/// See the module.
#[derive(Default)]
pub(super) struct Written {
    /// Where in the stream each delivery ends.
    waiting: VecDeque<(u64, Sent)>,
    /// Written to a durable reader: when, which subscription, up to where. One entry a second and subscription.
    settling: VecDeque<(Millis, u16, Seq)>,
    listed: bool,
}

impl Written {
    /// Deliveries that are not certainly written.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Seqs of a channel that are on their way to this gate.
    pub(super) fn on_the_way(&self, channel: &Address) -> Vec<Seq> {
        let of_channel = self.waiting.iter().filter_map(|(_, sent)| match sent {
            Sent::Gate(c, seq) if c == channel => Some(*seq),
            _ => None,
        });
        of_channel.collect()
    }

    fn settles(&mut self, now: Millis, sub: u16, seq: Seq) {
        // Named by its end: what was written last in it must have its whole time, too.
        let second = now / 1000 * 1000 + 1000;
        let same = self.settling.iter_mut().rev().find(|(at, s, _)| *s == sub && *at == second);
        match same {
            Some((_, _, up_to)) => *up_to = seq,
            None => self.settling.push_back((second, sub, seq)),
        }
    }
}

/// Notes that a delivery was just put into the session's outbox.
pub(super) fn note_sent(session: &mut Session, sent: Sent, list: &mut Vec<SessionKey>) {
    // Who acks singly says so himself.
    if matches!(sent, Sent::Sub(..)) && session.acks != Acks::ByWrite {
        return;
    }
    let end = session.outbox.added();
    if let Some(written) = &mut session.written {
        written.waiting.push_back((end, sent));
        if !std::mem::replace(&mut written.listed, true) {
            list.push(session.key);
        }
    }
}

impl Shard {
    /// Looks how far every listed session's bytes have come.
    pub(super) fn check_all_written(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.writing) {
            self.check_written(state, key);
            let Some(written) = state.sessions.get_mut(key).and_then(|s| s.written.as_mut()) else {
                continue;
            };
            written.listed = !written.waiting.is_empty() || !written.settling.is_empty();
            if written.listed {
                state.writing.push(key);
            }
        }
    }

    /// Looks how far a session's bytes have come.
    pub(super) fn check_written(&self, state: &mut State, key: SessionKey) {
        let now = self.mono();
        let Some(session) = state.sessions.get_mut(key) else { return };
        let passed = session.link.passed(session.outbox.left());
        let Some(written) = &mut session.written else { return };
        let mut leases = Vec::new();
        while let Some((_, sent)) = written.waiting.pop_front_if(|(end, _)| *end <= passed) {
            match sent {
                Sent::Sub(sub, seq) => written.settles(now, sub, seq),
                Sent::Lease(seq) => leases.push(seq),
                Sent::Gate(..) => {}
            }
        }
        let settled = now.saturating_sub(self.context.config.settle.as_millis() as u64);
        self.settle_subs(state, key, settled);
        if !leases.is_empty() {
            self.leases_written(state, key, &leases);
        }
    }

    /// The session is about to end.
    pub(super) fn end_written(&self, state: &mut State, key: SessionKey) {
        self.check_written(state, key);
        let Some(session) = state.sessions.get_mut(key) else { return };
        if session.how_it_ends() == End::Whole {
            self.settle_subs(state, key, Millis::MAX);
        }
    }

    /// Acks what was written to a durable reader up to then.
    fn settle_subs(&self, state: &mut State, key: SessionKey, up_to: Millis) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(written) = &mut session.written else { return };
        let mut acked = false;
        while let Some((_, sub, seq)) = written.settling.pop_front_if(|(at, _, _)| *at <= up_to) {
            let Some(entry) = session.subs.get(usize::from(sub)) else { continue };
            let Some(device) = state.devices.get_mut(&session.number) else { continue };
            let (epoch, from) = (entry.sub.epoch(), entry.given_from());
            acked |= device.set.ack(&entry.channel, epoch, from, seq);
        }
        if acked {
            let number = session.number;
            self.context.counters.acks.add(1);
            self.device_dirty(state, number);
        }
    }

    /// Bytes of this session have left its pipe.
    pub(super) fn passed(&self, key: SessionKey) {
        let mut state = self.state.borrow_mut();
        self.check_written(&mut state, key);
        if let Some(Role::Member(shared)) = state.sessions.get_mut(key).map(|s| &s.role) {
            let shared = *shared;
            self.shared_ready(&mut state, shared);
        }
        // One that is closing waits for this.
        self.mark_dirty(&mut state, key);
        drop(state);
        self.context.mailbox.nudge();
    }
}
