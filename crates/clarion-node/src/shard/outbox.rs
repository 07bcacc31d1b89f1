//! A session's outbox: bytes that wait for its connection, bounded in bytes and messages.
//!
//! Invariants: one message is always taken when it is empty; an empty outbox keeps at most [`IDLE_CAPACITY`] bytes of
//! memory. Must not know: what the bytes mean.

/// What an empty outbox may keep allocated.
const IDLE_CAPACITY: usize = 256;

/// Written bytes are cut off the front when they are more than this, and half of the whole.
const COMPACT_AFTER: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    /// What was written already.
    written: usize,
    messages: u32,
}

impl Outbox {
    /// Whether a frame of this size may be added.
    pub(crate) fn has_room(&self, frame: usize, bytes_max: usize, messages_max: usize) -> bool {
        let held = self.len();
        held == 0 || (held + frame <= bytes_max && (self.messages as usize) < messages_max)
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Where a message's bytes go.
    pub(crate) fn begin_message(&mut self) -> &mut Vec<u8> {
        self.messages += 1;
        &mut self.bytes
    }

    /// Where control bytes go; they do not count as a message.
    pub(crate) fn control(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What waits.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So many bytes of [`Self::pending`] were written.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.bytes.len() {
            self.written = 0;
            self.messages = 0;
            if self.bytes.capacity() > IDLE_CAPACITY {
                self.bytes = Vec::new();
            } else {
                self.bytes.clear();
            }
        } else if self.written > self.bytes.len() / 2 && self.written > COMPACT_AFTER {
            self.bytes.drain(..self.written);
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
        assert!(outbox.bytes.len() < 50_000, "what was written is not kept");
        outbox.wrote(40_000);
        assert_eq!(outbox.bytes.capacity(), 0);
    }
}
