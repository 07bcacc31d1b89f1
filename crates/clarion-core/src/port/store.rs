//! The Store port (design §5): logs, cursors, small records; batch-shaped and asynchronous.
//!
//! Contract, checked on every engine by the conformance suite of `clarion-store`:
//! - Units of one batch take effect in order, each atomically for its channel, reader or key. The embedded engine
//!   makes the whole batch atomic; nobody may rely on it.
//! - `commit` assigns `seq` (dense from 1 per channel) and ids. What it answered is visible to every later read, and
//!   nothing is visible that was not committed. A refused publish burns no seq.
//! - Dropping a future never cancels a commit. The port never queues beyond what it was handed.
//! - `created_at` never falls within a log: the store clamps `Batch::now`.
//! - Engines enforce `Publish::retention` by count and bytes in `commit`, by age in `sweep`; trimming is logical at
//!   once, numbers go on in an empty log.
//! - Expired and erased messages are not read; their seqs are passed (see [`Page::through`]).

mod reader;

pub use reader::Reader;

use super::BoxFuture;
use crate::{Address, Code, Content, Cursor, Epoch, Message, MessageId, Millis, Retention, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// A reference holds a copy of a body of at most this weight ([`Content::weight`]), so that a filter's log is read alone and the
/// body's own log may be trimmed; what is larger is read from where it stands.
pub const INLINE_MAX: usize = 16 << 10;

/// One publish.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub channel: Address,
    /// What. Its `idempotency_key`, if any, is remembered for 24 h on the channel.
    pub content: Arc<Content>,
    /// `filter:` channels that get a reference, after the body.
    pub refs: Vec<Address>,
    /// What the channel keeps.
    pub retention: Retention,
}

/// One channel's part of an ack. Merged, never backwards; an epoch that is not the channel's present one is ignored,
/// and a stored cursor of an older epoch is replaced. Creates the cursor when there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which channel. One that holds nothing and was never seen is created (empty) if `epoch` is 0.
    pub channel: Address,
    /// The history that the cursor counts in; 0 = the channel's present one, whatever it is.
    pub epoch: Epoch,
    /// What is acked.
    pub cursor: Cursor,
}

/// What a compare-and-set expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// No record.
    Absent,
    /// A record of this version.
    Version(u64),
}

/// What a compare-and-set does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes; the version grows by one (from 0).
    Put(Bytes),
    /// Removes.
    Delete,
}

/// One part of a batch.
#[derive(Debug, Clone)]
pub enum Unit {
    /// Append a message.
    Publish(Publish),
    /// Move cursors of one reader.
    Ack {
        /// Whose.
        reader: Reader,
        /// By channel.
        moves: Vec<Move>,
    },
    /// Begin a cursor at the log's head of this moment; one that is there stays where it is. A channel that was never seen is
    /// created, empty.
    Start {
        /// Whose.
        reader: Reader,
        /// Where.
        channel: Address,
    },
    /// Remove cursors of a reader.
    Forget {
        /// Whose.
        reader: Reader,
        /// The one on this channel; `None` = all (a reader that ended).
        channel: Option<Address>,
    },
    /// Change a small record.
    Record {
        /// Its key, ≤ 1 KiB.
        key: Bytes,
        /// What must be there.
        expect: Expect,
        /// What becomes of it.
        change: Change,
    },
    /// Forget everything below.
    Trim {
        /// Where.
        channel: Address,
        /// The first seq to keep; above the head: everything goes, numbers go on.
        below: Seq,
    },
    /// Blank one body; the seq stays.
    Erase {
        /// Where.
        channel: Address,
        /// Which.
        seq: Seq,
    },
}

/// What goes to the store at once.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The time of this batch.
    pub now: Millis,
    /// A claim that must still hold (clusters): its key and fence.
    pub fence: Option<(Bytes, u64)>,
    /// In order.
    pub units: Vec<Unit>,
}

/// How safe an answered commit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Fsynced: neither kill -9 nor power loss loses it.
    Disk,
    /// In memory of the process or of the operating system.
    Memory,
    /// Not stored.
    None,
}

impl Durability {
    /// The name that clients see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::None => "none",
        }
    }
}

/// A stored message's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: MessageId,
    /// The channel's history.
    pub epoch: Epoch,
    /// Its seq.
    pub seq: Seq,
    /// When.
    pub created_at: Millis,
    /// It was there already, under the same idempotency key.
    pub duplicate: bool,
}

/// What became of one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// Publish.
    Published(Stored),
    /// Ack, Forget.
    Acked,
    /// Start.
    Started {
        /// The channel's history.
        epoch: Epoch,
        /// Its head, below which the cursor begins (or had begun earlier).
        last: Seq,
        /// The batch's time.
        at: Millis,
    },
    /// Record; its new version (0 after a delete).
    Recorded(u64),
    /// Trim; the first seq that is kept now.
    Trimmed(Seq),
    /// Erase; whether there was a body.
    Erased(bool),
    /// This unit took no effect; the others did.
    Refused(Code),
}

/// A batch that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// How safe it is.
    pub durability: Durability,
    /// One for each unit, in order.
    pub results: Vec<Done>,
    /// Where the references of publishes stand, in order.
    pub refs: Vec<Referred>,
}

/// The place of a reference that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Referred {
    /// Which unit of the batch.
    pub unit: usize,
    /// Which of its `refs`.
    pub at: usize,
    /// The filter log's history.
    pub epoch: Epoch,
    /// The reference's seq there.
    pub seq: Seq,
}

/// A batch or a read that did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing of it took effect.
    #[error("{}: {detail}", code.name())]
    Refused {
        /// Why, for clients.
        code: Code,
        /// Why, for the log.
        detail: String,
    },
    /// Nobody knows; the same batch may be sent again.
    #[error("outcome unknown: {detail}")]
    Unknown {
        /// For the log.
        detail: String,
    },
}

impl StoreError {
    /// The code for clients.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unknown { .. } => Code::StoreOutcome,
        }
    }
}

/// The state of one channel's log. A channel that was never written has epoch 0, first 1, last 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its history.
    pub epoch: Epoch,
    /// First kept seq; `last + 1` when it is empty.
    pub first: Seq,
    /// Last committed seq.
    pub last: Seq,
    /// How many messages that count as unread were ever appended.
    pub counted: u64,
    /// Bytes that it holds.
    pub bytes: u64,
    /// `created_at` of the last message; 0 when there never was one.
    pub last_at: Millis,
}

impl Default for Head {
    fn default() -> Self {
        Self { epoch: 0, first: 1, last: 0, counted: 0, bytes: 0, last_at: 0 }
    }
}

/// A part of one log to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRange {
    /// Which log.
    pub channel: Address,
    /// First seq.
    pub from: Seq,
    /// Last seq.
    pub to: Seq,
    /// From `to` downwards.
    pub backwards: bool,
    /// At most so many messages.
    pub count: usize,
    /// At most so many bytes (by [`Content::weight`]), but always one message.
    pub bytes: usize,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The log's state in the moment of the read.
    pub head: Head,
    /// In the order asked for. From a `filter:` log: seq and epoch are those of that log, id, channel and content those of
    /// the message that the reference leads to.
    pub messages: Vec<Message>,
    /// The last seq that was looked at, in the order asked for: beyond the last message when expired, erased or
    /// trimmed ones follow it; the range's end (clipped to the head) when the page is complete.
    pub through: Seq,
}

/// A stored cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCursor {
    /// Its channel.
    pub channel: Address,
    /// Whose.
    pub reader: Reader,
    /// The history it counts in.
    pub epoch: Epoch,
    /// What is acked.
    pub cursor: Cursor,
    /// When it was written last.
    pub updated_at: Millis,
    /// Earlier writes, oldest first: floor after the write and its time. Bounded; tells when a seq was covered.
    pub marks: Vec<(Seq, Millis)>,
}

impl StoredCursor {
    /// The time of the earliest known cursor write that covered `seq`, if it is acked.
    pub fn acked_at(&self, seq: Seq) -> Option<Millis> {
        if !self.cursor.is_acked(seq) {
            return None;
        }
        let mark = self.marks.iter().find(|(floor, _)| *floor >= seq);
        Some(mark.map_or(self.updated_at, |(_, at)| *at))
    }
}

/// A small record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: Bytes,
    /// Its version, from 1.
    pub version: u64,
    /// Its value.
    pub value: Bytes,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// A publish under this key, on this channel.
    Key(Address, String),
    /// A message by id.
    Id(MessageId),
}

/// What a look-up found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its channel.
    pub channel: Address,
    /// Its place and id.
    pub stored: Stored,
    /// What is left of it.
    pub state: FoundState,
    /// The end of its life, when it has one and that is still known.
    pub expires_at: Option<Millis>,
}

/// What is left of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundState {
    /// All.
    Stored,
    /// Its life is over.
    Expired,
    /// Its body was blanked.
    Erased,
    /// The channel no longer keeps it.
    Trimmed,
}

/// What a sweep may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepBudget {
    /// At most so many channels looked at.
    pub channels: usize,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Channels looked at.
    pub channels: u64,
    /// Seqs that left by age.
    pub trimmed: u64,
    /// There was more than the budget.
    pub more: bool,
}

/// What a store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Why it takes no writes; `None` = it does.
    pub failed: Option<String>,
    /// Bytes on disk, if it knows.
    pub disk_bytes: Option<u64>,
}

/// See the module.
pub trait Store: Send + Sync {
    /// Applies a batch; see the contract.
    fn commit(&self, batch: Batch) -> BoxFuture<Result<Committed, StoreError>>;
    /// The state of each channel's log, in order.
    fn heads(&self, channels: Vec<Address>) -> BoxFuture<Result<Vec<Head>, StoreError>>;
    /// Reads parts of logs, in order. `now` decides what has expired.
    fn read(&self, now: Millis, ranges: Vec<ReadRange>)
    -> BoxFuture<Result<Vec<Page>, StoreError>>;
    /// All cursors of a reader.
    fn cursors(&self, reader: Reader) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>>;
    /// The cursors of a reader on these channels, in order.
    fn cursors_on(
        &self,
        reader: Reader,
        channels: Vec<Address>,
    ) -> BoxFuture<Result<Vec<Option<StoredCursor>>, StoreError>>;
    /// All cursors on a channel.
    fn readers(&self, channel: Address) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>>;
    /// Records whose key starts with `prefix`, above `after` (exclusive), ascending, at most `limit`.
    fn records(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Record>, StoreError>>;
    /// Where a message is.
    fn find(&self, now: Millis, what: Find) -> BoxFuture<Result<Option<Found>, StoreError>>;
    /// Takes or renews a claim for `ttl_ms`; answers its fence, or `None` while somebody else holds it.
    fn claim(
        &self,
        now: Millis,
        key: Bytes,
        owner: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<Result<Option<u64>, StoreError>>;
    /// Drops what has aged out; call it again while it says `more`.
    fn sweep(&self, now: Millis, budget: SweepBudget) -> BoxFuture<Result<Swept, StoreError>>;
    /// How it is.
    fn check(&self) -> BoxFuture<Health>;
}
