//! Idempotency keys: what a repeated publish finds.
//!
//! Invariant: a key is remembered in the same batch as its message, so one is never there without the other.

use super::codec::Remembered;
use super::engine::Fault;
use super::keys;
use super::writer::Writer;
use clarion_core::MessageId;
use clarion_core::port::store::Stored;
use fjall::OwnedWriteBatch;

/// A channel's number and the text of the key.
pub(super) type Key = (u32, Box<str>);

impl Remembered {
    /// As the answer to a repetition.
    pub(super) fn stored(&self, number: u32, duplicate: bool) -> Stored {
        Stored {
            id: MessageId::stored(self.created_at, number, self.seq),
            epoch: self.epoch,
            seq: self.seq,
            created_at: self.created_at,
            duplicate,
        }
    }
}

impl Writer {
    /// The first publish under this key on a touched channel.
    pub(super) fn recall(&self, index: usize, key: &str) -> Result<Option<Stored>, Fault> {
        let number = self.plan.touched[index].channel.number;
        if !self.plan.remembered.is_empty()
            && let Some(first) = self.plan.remembered.get(&(number, key.into()))
        {
            return Ok(Some(Stored { duplicate: true, ..*first }));
        }
        if self.plan.touched[index].fresh {
            return Ok(None);
        }
        let found = self.engine.remembered(self.plan.now, number, key)?;
        Ok(found.map(|first| first.stored(number, true)))
    }

    pub(super) fn write_remembered(&mut self, out: &mut OwnedWriteBatch) -> Result<(), Fault> {
        if self.plan.remembered.is_empty() {
            return Ok(());
        }
        let space = self.engine.remember_in(self.plan.now)?;
        for ((number, text), stored) in &self.plan.remembered {
            let value =
                Remembered { epoch: stored.epoch, seq: stored.seq, created_at: stored.created_at };
            self.scratch.clear();
            value.put(&mut self.scratch);
            out.insert(&space, keys::idempotency(*number, text), self.scratch.as_slice());
        }
        Ok(())
    }
}
