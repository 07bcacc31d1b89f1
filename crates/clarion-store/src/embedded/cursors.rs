//! Stored cursors: the writer's merges and the readers' look-ups.
//!
//! Invariants: a cursor is written once per batch, whole; the index from channel to reader is written only when a
//! cursor is created and removed only with it.

use super::codec;
use super::engine::{Engine, Fault};
use super::keys;
use super::writer::Writer;
use crate::rules;
use bytes::Bytes;
use clarion_core::Address;
use clarion_core::port::store::{Move, Reader, StoredCursor};
use fjall::{OwnedWriteBatch, Readable};

/// What a batch makes of one cursor.
pub(super) struct CursorChange {
    number: u32,
    reader: Reader,
    /// `None` = removed.
    cursor: Option<StoredCursor>,
    /// Whether it was stored before the batch.
    stored: bool,
    written: bool,
}

impl Writer {
    pub(super) fn ack(&mut self, reader: &Reader, moves: &[Move]) -> Result<(), Fault> {
        rules::check_key(reader.as_bytes())?;
        for of in moves {
            self.ack_one(reader, of)?;
        }
        Ok(())
    }

    fn ack_one(&mut self, reader: &Reader, of: &Move) -> Result<(), Fault> {
        let Some(index) = self.touch(&of.channel, of.epoch == 0)? else { return Ok(()) };
        let (number, epoch) = {
            let touched = &self.plan.touched[index];
            (touched.channel.number, touched.state.epoch)
        };
        let key = keys::cursor(reader.as_bytes(), number);
        let now = self.plan.now;
        if let Some(change) = self.plan.cursors.get_mut(&key) {
            if let Some(new) = rules::merge_move(change.cursor.as_ref(), reader, of, epoch, now) {
                change.cursor = Some(new);
                change.written = true;
            }
            return Ok(());
        }
        let stored = match self.engine.db.snapshot().get(&self.engine.ks.cursors, &key)? {
            None => None,
            Some(value) => Some(
                codec::cursor(&value, of.channel.clone(), reader.clone())
                    .ok_or_else(|| Fault::damaged("a cursor"))?,
            ),
        };
        let new = rules::merge_move(stored.as_ref(), reader, of, epoch, now);
        let change = CursorChange {
            number,
            reader: reader.clone(),
            stored: stored.is_some(),
            written: new.is_some(),
            cursor: new.or(stored),
        };
        self.plan.cursors.insert(key, change);
        Ok(())
    }

    pub(super) fn forget(&mut self, reader: &Reader) -> Result<(), Fault> {
        rules::check_key(reader.as_bytes())?;
        let prefix = keys::cursors_of(reader.as_bytes());
        for (_, change) in self
            .plan
            .cursors
            .range_mut(prefix.clone()..)
            .take_while(|(k, _)| k.starts_with(&prefix))
        {
            change.cursor = None;
            change.written = true;
        }
        for item in self.engine.db.snapshot().prefix(&self.engine.ks.cursors, &prefix) {
            let key = item.key()?;
            let number =
                keys::trailing_number(&key).ok_or_else(|| Fault::damaged("a cursor's key"))?;
            self.plan.cursors.entry(key.to_vec()).or_insert_with(|| CursorChange {
                number,
                reader: reader.clone(),
                cursor: None,
                stored: true,
                written: true,
            });
        }
        Ok(())
    }

    pub(super) fn write_cursors(&mut self, out: &mut OwnedWriteBatch) {
        let space = &self.engine.ks.cursors;
        for (key, change) in &self.plan.cursors {
            let index = || keys::reader_of(change.number, change.reader.as_bytes());
            match &change.cursor {
                _ if !change.written => {}
                None if change.stored => {
                    out.remove(space, key.as_slice());
                    out.remove(space, index());
                }
                None => {}
                Some(cursor) => {
                    self.scratch.clear();
                    codec::put_cursor(&mut self.scratch, cursor);
                    out.insert(space, key.as_slice(), self.scratch.as_slice());
                    if !change.stored {
                        out.insert(space, index(), []);
                    }
                }
            }
        }
    }

    /// Whether a channel has any cursor, apart from what the present batch does.
    pub(super) fn has_readers(&self, number: u32) -> Result<bool, Fault> {
        let prefix = keys::readers_of(number);
        match self.engine.db.snapshot().prefix(&self.engine.ks.cursors, prefix).next() {
            None => Ok(false),
            Some(item) => item.key().map(|_| true).map_err(Fault::from),
        }
    }
}

impl Engine {
    pub(super) fn cursors_of(&self, reader: &Reader) -> Result<Vec<StoredCursor>, Fault> {
        if rules::check_key(reader.as_bytes()).is_err() {
            return Ok(Vec::new());
        }
        let prefix = keys::cursors_of(reader.as_bytes());
        let mut found = Vec::new();
        for item in self.db.snapshot().prefix(&self.ks.cursors, prefix) {
            let (key, value) = item.into_inner()?;
            let number = keys::trailing_number(&key);
            // Without an address the channel has just given back its name, which it does only without cursors.
            let Some(channel) = number.map(|n| self.address(n)).transpose()?.flatten() else {
                continue;
            };
            let cursor = codec::cursor(&value, channel, reader.clone());
            found.push(cursor.ok_or_else(|| Fault::damaged("a cursor"))?);
        }
        Ok(found)
    }

    pub(super) fn readers_of(&self, channel: &Address) -> Result<Vec<StoredCursor>, Fault> {
        let Some(known) = self.channel(channel)? else { return Ok(Vec::new()) };
        let snapshot = self.db.snapshot();
        let prefix = keys::readers_of(known.number);
        let mut found = Vec::new();
        for item in snapshot.prefix(&self.ks.cursors, prefix) {
            let key = item.key()?;
            let reader = Reader::from_bytes(Bytes::copy_from_slice(&key[prefix.len()..]));
            let cursor = keys::cursor(reader.as_bytes(), known.number);
            let Some(value) = snapshot.get(&self.ks.cursors, cursor)? else { continue };
            let cursor = codec::cursor(&value, channel.clone(), reader);
            found.push(cursor.ok_or_else(|| Fault::damaged("a cursor"))?);
        }
        Ok(found)
    }
}
