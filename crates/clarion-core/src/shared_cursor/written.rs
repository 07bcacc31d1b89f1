//! Members whose protocol has no ack: what was written to them is acked after a while, or comes back when they break.
//!
//! Invariants: acks only what was written; in doubt a message is handed out twice. Must not know: why a member has no
//! ack, what was written.

use super::settling::Run;
use super::{Leave, SharedCursor};
use crate::mode::Member;
use crate::{Millis, Seq, mutant};

/// After so long it is tried again whether the cursor has room for what is acked.
const ROOM_MS: u64 = 1_000;

impl SharedCursor {
    /// `seq`, leased to `member`, was written to it, and it has no way to ack. The lease ends, for all of its members;
    /// the seq settles: outside `max_unacked`, without a deadline, and not handed out again unless this member leaves
    /// broken. Returns whether it did: not when this member has no lease on it (any more).
    pub fn wrote(&mut self, seq: Seq, member: Member, now: Millis) -> bool {
        if !self.leases.get(&seq).is_some_and(|lease| lease.members.contains(&member)) {
            return false;
        }
        if !mutant!("written_stays_leased") {
            self.drop_lease(seq);
        }
        let settle = if mutant!("settles_at_once") { 0 } else { self.limits.settle_ms };
        self.settling.add(Some(member), (seq, seq), now.saturating_add(settle));
        let early = self.settling.take_excess();
        self.ack_written(&early, now);
        true
    }

    /// Acks what was written long enough ago. Returns whether anything was acked.
    pub fn settle(&mut self, now: Millis) -> bool {
        let due = self.settling.take_due(now);
        self.ack_written(&due, now)
    }

    /// At a clean stop: everything that was written is acked.
    pub fn settle_all(&mut self) {
        let all = self.settling.take_all();
        self.ack_written(&all, 0);
    }

    /// How many seqs were written and are not acked yet.
    pub fn settling(&self) -> u64 {
        let elsewhere = self.unacked() as u64 + self.given_back.len();
        self.cursor.unacked(self.next - 1).saturating_sub(elsewhere)
    }

    /// How many seqs came back from members that broke and were not handed out again since.
    pub fn given_back(&self) -> u64 {
        self.given_back.len()
    }

    /// A member ends: acks or gives back what was written to it. Returns the first seq of each stretch that comes back.
    pub(super) fn end_written(&mut self, member: Member, now: Millis, how: Leave) -> Vec<Seq> {
        let (due, young) = self.settling.take_owner(member, now);
        self.ack_written(&due, now);
        let whole = match how {
            Leave::Whole => !mutant!("whole_gives_back"),
            Leave::Broken => mutant!("broken_gives_nothing_back"),
        };
        if whole {
            self.ack_written(&young, now);
            return Vec::new();
        }
        let mut firsts = Vec::new();
        for (from, to) in young {
            // What of it was acked otherwise is done.
            let (mut start, mut end) = self.cursor.next_hole(from);
            while start <= to {
                let last = end.unwrap_or(to).min(to);
                self.given_back.insert(start, last);
                firsts.push(start);
                (start, end) = self.cursor.next_hole(last + 1);
            }
        }
        firsts
    }

    /// Acks these runs, which ascend. What the cursor has no room for (see [`crate::cursor::RUNS_MAX`]) goes on
    /// settling as nobody's, and is tried again.
    fn ack_written(&mut self, runs: &[Run], now: Millis) -> bool {
        let acked = self.cursor.ack_runs(runs);
        self.dirty |= acked;
        for &(from, to) in runs {
            if !self.cursor.is_acked(from) {
                self.settling.add(None, (from, to), now.saturating_add(ROOM_MS));
            }
        }
        acked
    }
}
