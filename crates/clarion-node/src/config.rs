//! What a node is told at its start: plain, validated values.

use clarion_core::mode::Mode;
use clarion_core::{AddressKind, Retention};
use std::time::Duration;

/// See the configuration reference for each field; the server's table fills this.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Shards, ≥ 1 and ≤ 64.
    pub shards: usize,
    /// Bytes that one session's outbox holds.
    pub outbox_bytes: usize,
    /// Messages that one session's outbox holds.
    pub outbox_messages: usize,
    /// Pages under way per shard.
    pub catch_up_reads: usize,
    /// Messages in a page.
    pub page_messages: usize,
    /// Bytes in a page.
    pub page_bytes: usize,
    /// Units that wait for the committer.
    pub commit_queue_messages: usize,
    /// Bytes that wait for the committer.
    pub commit_queue_bytes: usize,
    /// Units in one commit.
    pub commit_batch_messages: usize,
    /// Bytes in one commit.
    pub commit_batch_bytes: usize,
    /// Bytes of records that wait in one shard's mailbox.
    pub mailbox_bytes: usize,
    /// Longest time that an ack stays in memory only.
    pub ack_flush: Duration,
    /// How long a lease of a shared cursor lasts.
    pub ack_wait: Duration,
    /// After so many hand-outs a message of a shared cursor goes to the dead list; 0 = never.
    pub max_attempts: u32,
    /// Messages of a shared cursor that are handed out and not acked.
    pub max_unacked: usize,
    /// Seqs between what a device that acks singly has acked without a hole, and what it is given.
    pub max_unacked_device: u64,
    /// Time in which a broken connection shows: what was written to a reader without acks counts as acked after it.
    pub settle: Duration,
    /// Requests that wait for messages of shared cursors at once.
    pub takers: usize,
    /// How gates share users' channels.
    pub gate_mode: Mode,
    /// Longest message that a gate takes; a longer one is kept, but not handed to gates.
    pub gate_message_bytes: usize,
    /// Hand-outs to gates that were not answered for so long are given to a new gate.
    pub gate_patience: Duration,
    /// Users' channels that are remembered for gates, in each shard.
    pub gate_channels: usize,
    /// Hand-outs to gates that are remembered until they are answered, in each shard.
    pub gate_pending: usize,
    /// Devices of one user.
    pub max_devices: usize,
    /// Channels that one device has cursors on.
    pub max_cursors: usize,
    /// A stream whose client takes nothing for so long, while something waits, ends.
    pub write_timeout: Duration,
    /// A device that nobody attached for so long is forgotten.
    pub device_age: Duration,
    /// Sessions on this node.
    pub max_sessions: usize,
    /// Silence before a heartbeat.
    pub heartbeat: Duration,
    /// What a closed session is told to wait.
    pub retry_ms: u64,
    /// Time between sweeps.
    pub sweep_interval: Duration,
    /// What channels keep.
    pub retention: RetentionTable,
    /// Topics with history: names or filters with `+` and `#`.
    pub stored_topics: Vec<String>,
    /// Deliveries of one peer that wait for a place in its window.
    pub peer_queue_messages: usize,
    /// Bytes of their messages.
    pub peer_queue_bytes: usize,
    /// What peers publish with QoS 0 is stored where others are.
    pub store_qos0: bool,
    /// Topics that may have a retained message.
    pub retained_topics: usize,
    /// Wills of peers wait at least so long after a start.
    pub will_grace: Duration,
    /// Time between what the node tells of itself on `$SYS/…`; 0 = it tells nothing.
    pub sys_interval: Duration,
}

/// Retention by kind of address.
#[derive(Debug, Clone, Copy)]
pub struct RetentionTable {
    /// `user:`
    pub user: Retention,
    /// `group:`
    pub group: Retention,
    /// `all`
    pub all: Retention,
    /// `topic:` and `filter:`
    pub topic: Retention,
    /// `queue:` and dead lists
    pub queue: Retention,
}

impl RetentionTable {
    /// The row for a kind.
    pub fn of(&self, kind: AddressKind) -> Retention {
        match kind {
            AddressKind::User => self.user,
            AddressKind::Group => self.group,
            AddressKind::All => self.all,
            AddressKind::Topic | AddressKind::Filter => self.topic,
            AddressKind::Queue | AddressKind::Dead => self.queue,
        }
    }
}

impl Default for RetentionTable {
    fn default() -> Self {
        Self {
            user: Retention::default_of(AddressKind::User),
            group: Retention::default_of(AddressKind::Group),
            all: Retention::default_of(AddressKind::All),
            topic: Retention::default_of(AddressKind::Topic),
            queue: Retention::default_of(AddressKind::Queue),
        }
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            shards: 1,
            outbox_bytes: 64 << 10,
            outbox_messages: 1024,
            catch_up_reads: 64,
            page_messages: 128,
            page_bytes: 256 << 10,
            commit_queue_messages: 65_536,
            commit_queue_bytes: 64 << 20,
            commit_batch_messages: 4096,
            commit_batch_bytes: 8 << 20,
            mailbox_bytes: 16 << 20,
            ack_flush: Duration::from_millis(100),
            ack_wait: Duration::from_secs(30),
            max_attempts: 10,
            max_unacked: 1000,
            max_unacked_device: 65_535,
            settle: Duration::from_secs(30),
            takers: 10_000,
            gate_mode: Mode::Unify,
            gate_message_bytes: 4 << 20,
            gate_patience: Duration::from_secs(5),
            gate_channels: 100_000,
            gate_pending: 100_000,
            max_devices: 100,
            max_cursors: 1000,
            write_timeout: Duration::from_secs(300),
            device_age: Duration::from_secs(90 * 24 * 3600),
            max_sessions: 18_000,
            heartbeat: Duration::from_secs(15),
            retry_ms: 2000,
            sweep_interval: Duration::from_secs(60),
            retention: RetentionTable::default(),
            stored_topics: Vec::new(),
            peer_queue_messages: 1000,
            peer_queue_bytes: 1 << 20,
            store_qos0: false,
            retained_topics: 1_000_000,
            will_grace: Duration::from_secs(5),
            sys_interval: Duration::ZERO,
        }
    }
}
