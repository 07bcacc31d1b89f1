//! A shard's mailbox: what other threads hand to it.
//!
//! Owns: a locked vector, drained by swap; one wake only if it was empty. Invariants: entries are handled in the order
//! posted; records beyond the byte bound are kept as heads only (channel → last position), so memory is bounded
//! whatever the speed of publishers, and the readers catch up from the store. Must not know: sessions.

use super::{PeerReply, SessionKey, Shard};
use crate::attach::Attach;
use crate::committer::{CommitAnswer, Flusher};
use crate::gate::GateBatch;
use crate::input::InputBatch;
use crate::peer::{AttachPeer, NotAttached};
use crate::shares::Picked;
use clarion_core::{Address, Epoch, Message, Refusal, Seq};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};

/// Something that runs on the shard's thread.
pub(crate) type Job = Box<dyn FnOnce(&Rc<Shard>) + Send>;

/// One entry.
pub(crate) enum Mail {
    /// Committed records, in commit order.
    Records(Vec<Hinted>),
    /// Live messages and who waits for their delivery.
    Live(Vec<Arc<Message>>, Arc<LiveDone>),
    /// Whose flush of acks is over, and whether it was committed.
    Flushed(Vec<(Flusher, bool)>),
    /// A new session.
    Attach(Box<Attach>, oneshot::Sender<Result<SessionKey, Refusal>>),
    /// What a stream's client said.
    Inputs(SessionKey, InputBatch),
    /// What a gate said of channels of this shard.
    Gate(SessionKey, GateBatch),
    /// A new session that talks.
    AttachPeer(Box<AttachPeer>, oneshot::Sender<Result<SessionKey, NotAttached>>),
    /// What became of publishes of peers.
    Published(Vec<PeerReply>, CommitAnswer),
    /// A message for a member of a group.
    Share(Arc<Message>, Picked),
    /// Anything rare.
    Job(Job),
}

/// A committed record.
#[derive(Debug, Clone)]
pub(crate) struct Hinted {
    /// The filter's log that it was referred from; epoch and seq are that log's then.
    pub(crate) via: Option<Address>,
    pub(crate) message: Arc<Message>,
}

impl Hinted {
    /// The log in which it stands.
    pub(crate) fn log(&self) -> &Address {
        self.via.as_ref().unwrap_or(&self.message.channel)
    }
}

/// Tells a publisher that every interested shard has taken its live messages.
pub(crate) struct LiveDone {
    left: AtomicUsize,
    /// Deliveries so far.
    delivered: AtomicU64,
    publisher: Mutex<Option<oneshot::Sender<u64>>>,
}

impl LiveDone {
    pub(crate) fn new(shards: usize, publisher: oneshot::Sender<u64>) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(shards),
            delivered: AtomicU64::new(0),
            publisher: Mutex::new(Some(publisher)),
        })
    }

    /// One shard is done, after so many deliveries.
    pub(crate) fn done(&self, delivered: u64) {
        self.delivered.fetch_add(delivered, Ordering::AcqRel);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(publisher) =
                self.publisher.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            // The publisher may have gone.
            let _ = publisher.send(self.delivered.load(Ordering::Acquire));
        }
    }
}

/// Records of one channel that did not fit: its history, the first and the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) epoch: Epoch,
    pub(crate) first: Seq,
    pub(crate) last: Seq,
}

/// What did not fit, by channel.
pub(crate) type Heads = HashMap<Address, Dropped>;

#[derive(Default)]
struct Inner {
    mails: Vec<Mail>,
    heads: Heads,
    record_bytes: usize,
    live_bytes: usize,
    closed: bool,
}

/// See the module.
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
    notify: Notify,
    bytes_max: usize,
    dropped: AtomicU64,
}

impl Mailbox {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            notify: Notify::new(),
            bytes_max,
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts an entry; `false` when the shard has ended (the entry is dropped).
    pub(crate) fn post(&self, mail: Mail) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        let idle = inner.mails.is_empty() && inner.heads.is_empty();
        inner.mails.push(mail);
        drop(inner);
        if idle {
            self.notify.notify_one();
        }
        true
    }

    /// Posts live messages; above the bound they are dropped and counted, and `false` comes back.
    pub(crate) fn post_live(&self, messages: Vec<Arc<Message>>, done: Arc<LiveDone>) -> bool {
        let bytes: usize = messages.iter().map(|m| m.content.weight()).sum();
        let mut inner = self.lock();
        if inner.closed || (inner.live_bytes > 0 && inner.live_bytes + bytes > self.bytes_max) {
            self.dropped.fetch_add(messages.len() as u64, Ordering::Relaxed);
            return false;
        }
        inner.live_bytes += bytes;
        let idle = inner.mails.is_empty() && inner.heads.is_empty();
        inner.mails.push(Mail::Live(messages, done));
        drop(inner);
        if idle {
            self.notify.notify_one();
        }
        true
    }

    /// Posts a message for a member of a group, bounded like live ones.
    pub(crate) fn post_share(&self, message: Arc<Message>, picked: Picked) {
        let bytes = message.content.weight();
        let mut inner = self.lock();
        if inner.closed || (inner.live_bytes > 0 && inner.live_bytes + bytes > self.bytes_max) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner.live_bytes += bytes;
        let idle = inner.mails.is_empty() && inner.heads.is_empty();
        inner.mails.push(Mail::Share(message, picked));
        drop(inner);
        if idle {
            self.notify.notify_one();
        }
    }

    /// Live messages that were dropped since the mailbox was full.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn post_flushed(&self, flushers: Vec<(Flusher, bool)>) {
        self.post(Mail::Flushed(flushers));
    }

    /// Posts committed records, or, over the bound, what their heads are now.
    pub(crate) fn post_records(&self, records: Vec<Hinted>) {
        let bytes: usize = records.iter().map(|r| r.message.content.weight()).sum();
        let mut inner = self.lock();
        let idle = inner.mails.is_empty() && inner.heads.is_empty();
        // Once some did not fit, later ones stand behind them.
        let full = inner.record_bytes > 0 && inner.record_bytes + bytes > self.bytes_max;
        if full || !inner.heads.is_empty() {
            for record in records {
                let (epoch, seq) = (record.message.epoch, record.message.seq);
                let one = Dropped { epoch, first: seq, last: seq };
                let dropped = inner.heads.entry(record.log().clone()).or_insert(one);
                if dropped.epoch == epoch {
                    dropped.last = seq;
                } else {
                    *dropped = one;
                }
            }
        } else {
            inner.record_bytes += bytes;
            inner.mails.push(Mail::Records(records));
        }
        drop(inner);
        if idle {
            self.notify.notify_one();
        }
    }

    /// Waits until something is here or somebody calls [`Self::nudge`].
    pub(crate) async fn arrived(&self) {
        self.notify.notified().await;
    }

    /// Wakes the shard's loop from its own thread.
    pub(crate) fn nudge(&self) {
        self.notify.notify_one();
    }

    /// Takes everything: `mails` is swapped in empty.
    pub(crate) fn drain(&self, mails: &mut Vec<Mail>) -> Heads {
        debug_assert!(mails.is_empty());
        let mut inner = self.lock();
        std::mem::swap(&mut inner.mails, mails);
        inner.record_bytes = 0;
        inner.live_bytes = 0;
        std::mem::take(&mut inner.heads)
    }

    /// Nothing is taken any more.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.mails.clear();
        inner.heads.clear();
    }
}
