//! Counters: plain cells, one set per thread that writes them, summed when somebody looks.
//!
//! Invariant: a cell has one writer, so adding is a load and a store, no locked instruction. Must not know: how they
//! are shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning thread may.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Sets; only the owning thread may.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Takes away; only the owning thread may.
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(by), Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one shard counts.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardCounters {
    /// Sessions that are attached.
    pub sessions: Cell,
    /// Messages put into outboxes.
    pub delivered: Cell,
    /// Bytes written to connections.
    pub sent_bytes: Cell,
    /// Live messages dropped since an outbox was full.
    pub dropped_outbox: Cell,
    /// Times that a subscription fell behind.
    pub behind: Cell,
    /// Pages read for catching up.
    pub pages: Cell,
    /// Acks that moved a cursor.
    pub acks: Cell,
    /// Cursor flushes that failed.
    pub flush_failures: Cell,
    /// Gaps that were told.
    pub gaps: Cell,
    /// Bytes that wait in outboxes.
    pub outbox_bytes: Cell,
    /// Messages of shared cursors that came back: given back, lapsed, or their member ended.
    pub handed_back: Cell,
    /// Messages that went to a dead list.
    pub died: Cell,
    /// Gates that are attached.
    pub gates: Cell,
    /// Hand-outs to gates that are remembered until they are answered.
    pub gate_pending: Cell,
    /// Messages that no gate would take for their length.
    pub gate_too_long: Cell,
    /// What gates were owed of further channels than the limit.
    pub gate_owed_too_much: Cell,
    /// Answers of gates that name nothing that was given out.
    pub gate_unknown: Cell,
    /// Packets of talking sessions.
    pub peer_packets: Cell,
    /// Messages that they handed in.
    pub peer_publishes: Cell,
    /// Bytes that they said, without what lies between them and the socket.
    pub peer_bytes_in: Cell,
    /// Bytes that were written for them, likewise.
    pub peer_bytes_out: Cell,
    /// Messages that were written for them.
    pub peer_messages: Cell,
    /// Messages for them that found no room.
    pub peer_dropped: Cell,
    /// Their subscriptions, feeds aside.
    pub peer_subscriptions: Cell,
    /// Those of them whose session is stored.
    pub stored_attached: Cell,
}

/// What the committer counts.
#[derive(Debug, Default)]
pub struct CommitCounters {
    /// Commits that began.
    pub commits: Cell,
    /// Units in them.
    pub units: Cell,
    /// Commits that failed.
    pub failures: Cell,
}

impl CommitCounters {
    pub(crate) fn batch(&self, units: usize) {
        self.commits.add(1);
        self.units.add(units as u64);
    }

    pub(crate) fn failed(&self) {
        self.failures.add(1);
    }
}

/// What the verbs count, from any thread.
#[derive(Debug, Default)]
pub struct VerbCounters {
    /// Publishes answered as stored.
    pub stored: AtomicU64,
    /// Publishes answered as live.
    pub live: AtomicU64,
    /// Publishes refused.
    pub refused: AtomicU64,
    /// Pushes to gates.
    pub pushed: AtomicU64,
    /// Pushes that were stored.
    pub pushed_stored: AtomicU64,
    /// Pushes without a life that nobody was there for.
    pub expire_zero: AtomicU64,
}

impl VerbCounters {
    pub(crate) fn count(cell: &AtomicU64, by: usize) {
        if by > 0 {
            cell.fetch_add(by as u64, Relaxed);
        }
    }
}

/// The sum over all shards.
#[derive(Debug, Default, Clone, Copy)]
pub struct ShardTotals {
    /// See [`ShardCounters`].
    pub sessions: u64,
    /// See [`ShardCounters`].
    pub delivered: u64,
    /// See [`ShardCounters`].
    pub sent_bytes: u64,
    /// See [`ShardCounters`].
    pub dropped_outbox: u64,
    /// See [`ShardCounters`].
    pub behind: u64,
    /// See [`ShardCounters`].
    pub pages: u64,
    /// See [`ShardCounters`].
    pub acks: u64,
    /// See [`ShardCounters`].
    pub flush_failures: u64,
    /// See [`ShardCounters`].
    pub gaps: u64,
    /// See [`ShardCounters`].
    pub outbox_bytes: u64,
    /// See [`ShardCounters`].
    pub handed_back: u64,
    /// See [`ShardCounters`].
    pub died: u64,
    /// See [`ShardCounters`]. A gate stands on every shard and counts once.
    pub gates: u64,
    /// See [`ShardCounters`].
    pub gate_pending: u64,
    /// See [`ShardCounters`].
    pub gate_unknown: u64,
    /// See [`ShardCounters`].
    pub gate_too_long: u64,
    /// See [`ShardCounters`].
    pub gate_owed_too_much: u64,
    /// See [`ShardCounters`].
    pub peer_packets: u64,
    /// See [`ShardCounters`].
    pub peer_publishes: u64,
    /// See [`ShardCounters`].
    pub peer_bytes_in: u64,
    /// See [`ShardCounters`].
    pub peer_bytes_out: u64,
    /// See [`ShardCounters`].
    pub peer_messages: u64,
    /// See [`ShardCounters`].
    pub peer_dropped: u64,
    /// See [`ShardCounters`].
    pub peer_subscriptions: u64,
    /// See [`ShardCounters`].
    pub stored_attached: u64,
}

impl ShardTotals {
    /// Adds up.
    pub fn sum<'a>(shards: impl Iterator<Item = &'a ShardCounters>) -> Self {
        shards.fold(Self::default(), |sum, shard| Self {
            sessions: sum.sessions + shard.sessions.get(),
            delivered: sum.delivered + shard.delivered.get(),
            sent_bytes: sum.sent_bytes + shard.sent_bytes.get(),
            dropped_outbox: sum.dropped_outbox + shard.dropped_outbox.get(),
            behind: sum.behind + shard.behind.get(),
            pages: sum.pages + shard.pages.get(),
            acks: sum.acks + shard.acks.get(),
            flush_failures: sum.flush_failures + shard.flush_failures.get(),
            gaps: sum.gaps + shard.gaps.get(),
            outbox_bytes: sum.outbox_bytes + shard.outbox_bytes.get(),
            handed_back: sum.handed_back + shard.handed_back.get(),
            died: sum.died + shard.died.get(),
            gates: sum.gates.max(shard.gates.get()),
            gate_pending: sum.gate_pending + shard.gate_pending.get(),
            gate_too_long: sum.gate_too_long + shard.gate_too_long.get(),
            gate_owed_too_much: sum.gate_owed_too_much + shard.gate_owed_too_much.get(),
            gate_unknown: sum.gate_unknown + shard.gate_unknown.get(),
            peer_packets: sum.peer_packets + shard.peer_packets.get(),
            peer_publishes: sum.peer_publishes + shard.peer_publishes.get(),
            peer_bytes_in: sum.peer_bytes_in + shard.peer_bytes_in.get(),
            peer_bytes_out: sum.peer_bytes_out + shard.peer_bytes_out.get(),
            peer_messages: sum.peer_messages + shard.peer_messages.get(),
            peer_dropped: sum.peer_dropped + shard.peer_dropped.get(),
            peer_subscriptions: sum.peer_subscriptions + shard.peer_subscriptions.get(),
            stored_attached: sum.stored_attached + shard.stored_attached.get(),
        })
    }
}
