//! A pipe: the bytes of a stream on their way from its shard to whoever writes the response (hyper).
//!
//! Owns: a bounded buffer between two threads, and the knowledge of how much of it was certainly passed on. Invariants:
//! the shard never waits; the reader is woken when bytes come, the shard's task when there is room after a write that
//! found none, and when the reader has gone. Must not know: what the bytes mean.

use bytes::{Bytes, BytesMut};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// Most bytes that are handed to the reader at once.
const PART_MAX: usize = 32 << 10;

/// How a stream's reader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its client ended the stream: what was passed on has reached it as far as anybody can know.
    Whole,
    /// Its connection broke or timed out: what was passed on lately may never have arrived.
    Broken,
}

struct Inner {
    buffer: BytesMut,
    reader: Option<Waker>,
    /// The shard was refused and waits for room.
    wants_room: bool,
    /// The shard waits until everything is passed on.
    wants_passed: bool,
    /// Bytes that were handed over.
    handed: u64,
    /// Nothing more is written.
    finished: bool,
    ended: Option<End>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Bytes that were handed to the reader, and behind which it came back for more.
    passed: AtomicU64,
    changed: Notify,
    capacity: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The shard's end.
pub struct PipeWriter(Arc<Shared>);

/// The edge's end. Dropping it ends the stream as [`End::Whole`], unless [`PipeReader::end`] said otherwise.
pub struct PipeReader(Arc<Shared>);

/// A pipe that holds up to `capacity` bytes.
pub fn pipe(capacity: usize) -> (PipeWriter, PipeReader) {
    let inner = Inner {
        buffer: BytesMut::new(),
        reader: None,
        wants_room: false,
        wants_passed: false,
        handed: 0,
        finished: false,
        ended: None,
    };
    let shared = Arc::new(Shared {
        inner: Mutex::new(inner),
        passed: AtomicU64::new(0),
        changed: Notify::new(),
        capacity,
    });
    (PipeWriter(shared.clone()), PipeReader(shared))
}

impl PipeWriter {
    /// Writes what goes at once; `WouldBlock` when it is full, `BrokenPipe` when the reader has gone.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock();
        if inner.ended.is_some() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let room = self.0.capacity.saturating_sub(inner.buffer.len());
        if room == 0 {
            inner.wants_room = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        let part = &bytes[..bytes.len().min(room)];
        inner.buffer.extend_from_slice(part);
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(part.len())
    }

    /// Bytes that were certainly passed on: the reader came back for more behind them, which it does when the client's
    /// flow control has taken them.
    pub(crate) fn passed(&self) -> u64 {
        self.0.passed.load(Ordering::Acquire)
    }

    /// Whether everything that was written is passed on, or nobody takes it any more.
    pub(crate) fn all_passed(&self) -> bool {
        let inner = self.0.lock();
        inner.ended.is_some() || (inner.buffer.is_empty() && self.passed() == inner.handed)
    }

    /// Asks to be told when everything that was written is passed on.
    pub(crate) fn want_passed(&self) {
        let mut inner = self.0.lock();
        if inner.buffer.is_empty() && self.passed() == inner.handed {
            self.0.changed.notify_one();
        } else {
            inner.wants_passed = true;
        }
    }

    /// How the reader ended, once it has.
    pub(crate) fn ended(&self) -> Option<End> {
        self.0.lock().ended
    }

    /// Whether a write would take something.
    pub(crate) fn has_room(&self) -> bool {
        self.0.lock().buffer.len() < self.0.capacity
    }

    /// Waits until there may be room again, or the reader has gone.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.finished = true;
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl PipeReader {
    /// The next bytes; `None` when nothing more comes.
    pub fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut inner = self.0.lock();
        // Whoever asks again has passed on what it was given before.
        self.0.passed.store(inner.handed, Ordering::Release);
        if inner.buffer.is_empty() {
            if std::mem::take(&mut inner.wants_passed) {
                self.0.changed.notify_one();
            }
            if inner.finished {
                return Poll::Ready(None);
            }
            if !inner.reader.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
                inner.reader = Some(context.waker().clone());
            }
            return Poll::Pending;
        }
        let part = if inner.buffer.len() <= PART_MAX {
            // The whole buffer goes, memory and all: an idle pipe holds none.
            std::mem::take(&mut inner.buffer)
        } else {
            inner.buffer.split_to(PART_MAX)
        };
        let wanted = std::mem::take(&mut inner.wants_room);
        inner.handed += part.len() as u64;
        drop(inner);
        if wanted {
            self.0.changed.notify_one();
        }
        Poll::Ready(Some(part.freeze()))
    }

    /// Waits for the next bytes.
    pub async fn part(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|context| self.poll_part(context)).await
    }

    /// Ends the stream from this side; the first end counts.
    pub fn end(&self, how: End) {
        let mut inner = self.0.lock();
        if inner.ended.is_none() {
            inner.ended = Some(how);
            inner.buffer = BytesMut::new();
            drop(inner);
            self.0.changed.notify_one();
        }
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.end(End::Whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_bounded_and_tells_when_there_is_room() {
        let (writer, mut reader) = pipe(10);
        assert_eq!(writer.try_write(b"0123456789abc").unwrap(), 10);
        assert_eq!(writer.try_write(b"abc").unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(reader.part().await.unwrap(), "0123456789");
        writer.changed().await;
        assert!(writer.has_room());
        assert_eq!(writer.try_write(b"abc").unwrap(), 3);
        drop(writer);
        assert_eq!(reader.part().await.unwrap(), "abc");
        assert_eq!(reader.part().await, None);
    }

    #[tokio::test]
    async fn what_was_handed_over_counts_as_passed_when_more_is_asked_for() {
        let (writer, mut reader) = pipe(100);
        writer.try_write(b"0123").unwrap();
        reader.part().await.unwrap();
        assert_eq!(writer.passed(), 0);
        let more = tokio::time::timeout(std::time::Duration::ZERO, reader.part()).await;
        assert!(more.is_err(), "nothing is there");
        assert_eq!(writer.passed(), 4);
    }

    #[tokio::test]
    async fn the_first_end_counts() {
        let (writer, reader) = pipe(100);
        reader.end(End::Broken);
        drop(reader);
        writer.changed().await;
        assert_eq!(writer.ended(), Some(End::Broken));
        assert_eq!(writer.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
}
