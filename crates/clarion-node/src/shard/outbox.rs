//! A session's outbox: bytes that wait for its connection, bounded in bytes and messages. Large frames are held by
//! reference, so a frame that waits in many outboxes is in memory once.
//!
//! Invariants: one message is always taken when it is empty; an empty outbox keeps at most [`IDLE_CAPACITY`] bytes of
//! memory. Must not know: what the bytes mean.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// What an empty outbox may keep allocated.
const IDLE_CAPACITY: usize = 256;

/// Written bytes are cut off the front when they are more than this, and half of the whole.
const COMPACT_AFTER: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    own: Vec<u8>,
    /// Bytes of `own` that were written already.
    written: usize,
    /// Large frames, each with the place in `own` that it stands before.
    shared: VecDeque<(usize, Bytes)>,
    shared_bytes: usize,
    messages: u32,
    /// Messages since somebody last asked.
    begun: u32,
    /// Bytes that were ever written off.
    left: u64,
}

impl Outbox {
    /// Whether a frame of this size may be added.
    pub(crate) fn has_room(&self, frame: usize, bytes_max: usize, messages_max: usize) -> bool {
        let held = self.len();
        held == 0 || (held + frame <= bytes_max && (self.messages as usize) < messages_max)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.own.len() - self.written + self.shared_bytes
    }

    /// Bytes that were ever added: where the next ones stand in the stream.
    pub(crate) fn added(&self) -> u64 {
        self.left + self.len() as u64
    }

    /// Bytes that were ever written.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Where a message's own bytes go.
    pub(crate) fn begin_message(&mut self) -> &mut Vec<u8> {
        self.messages += 1;
        self.begun = self.begun.wrapping_add(1);
        &mut self.own
    }

    /// How many messages were added since this was last asked.
    pub(crate) fn take_begun(&mut self) -> u64 {
        std::mem::take(&mut self.begun).into()
    }

    /// Where control bytes go; they do not count as a message.
    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Adds a frame that many outboxes hold, without a copy.
    pub(crate) fn share(&mut self, frame: Bytes) {
        self.shared_bytes += frame.len();
        self.shared.push_back((self.own.len(), frame));
    }

    /// What goes next; empty when nothing waits.
    pub(crate) fn pending(&self) -> &[u8] {
        match self.shared.front() {
            Some((at, frame)) if *at == self.written => frame,
            Some((at, _)) => &self.own[self.written..*at],
            None => &self.own[self.written..],
        }
    }

    /// So many bytes of [`Self::pending`] were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.left += bytes as u64;
        match self.shared.front_mut() {
            Some((at, frame)) if *at == self.written => {
                frame.advance(bytes);
                self.shared_bytes -= bytes;
                if frame.is_empty() {
                    self.shared.pop_front();
                }
            }
            _ => self.written += bytes,
        }
        if self.len() == 0 {
            self.written = 0;
            self.messages = 0;
            if self.own.capacity() > IDLE_CAPACITY {
                self.own = Vec::new();
            } else {
                self.own.clear();
            }
        } else if self.written > self.own.len() / 2 && self.written > COMPACT_AFTER {
            self.own.drain(..self.written);
            for (at, _) in &mut self.shared {
                *at -= self.written;
            }
            self.written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_always_takes_one() {
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(1 << 20, 100, 2), "alone, whatever its size");
        outbox.begin_message().extend_from_slice(&[0; 60]);
        assert!(outbox.has_room(40, 100, 2) && !outbox.has_room(41, 100, 2));
        assert!(!outbox.has_room(1, 100, 1));
        outbox.wrote(30);
        assert_eq!((outbox.len(), outbox.pending().len()), (30, 30));
        outbox.wrote(30);
        assert!(outbox.has_room(1 << 20, 100, 1));
    }

    #[test]
    fn an_empty_one_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.begin_message().extend_from_slice(&[0; 100_000]);
        outbox.wrote(60_000);
        assert_eq!(outbox.len(), 40_000);
        assert!(outbox.own.len() < 50_000, "what was written is not kept");
        outbox.wrote(40_000);
        assert_eq!(outbox.own.capacity(), 0);
    }

    #[test]
    fn shared_frames_come_at_their_place() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for n in 0..40u8 {
            outbox.begin_message().extend_from_slice(&[n; 700]);
            outbox.share(Bytes::from(vec![n + 100; 900]));
            outbox.control().push(n);
            expected.extend_from_slice(&[n; 700]);
            expected.extend_from_slice(&[n + 100; 900]);
            expected.push(n);
        }
        let mut written = Vec::new();
        while outbox.len() > 0 {
            let part = outbox.pending();
            let take = part.len().min(333);
            written.extend_from_slice(&part[..take]);
            outbox.wrote(take);
            assert_eq!(written.len() + outbox.len(), expected.len());
        }
        assert!(written == expected);
        assert!(outbox.pending().is_empty());
    }
}
