//! Stored cursors: the writer's merges and the readers' look-ups.
//!
//! Invariants: a cursor is written once per batch, whole; the index from channel to reader is written only when a
//! cursor is created and removed only with it.

use super::channels::State;
use super::codec;
use super::engine::{Engine, Fault};
use super::keys;
use super::writer::{Touched, Writer};
use crate::rules;
use bytes::Bytes;
use clarion_core::Address;
use clarion_core::port::store::{Done, Move, Reader, StoredCursor};
use fjall::{OwnedWriteBatch, Readable};
use std::collections::btree_map::Entry;

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
        let epoch = self.plan.touched[index].state.epoch;
        let now = self.plan.now;
        let change = self.cursor_change(index, reader)?;
        if let Some(new) = rules::merge_move(change.cursor.as_ref(), reader, of, epoch, now) {
            change.cursor = Some(new);
            change.written = true;
        }
        Ok(())
    }

    /// What the batch makes of this reader's cursor on a touched channel; loads it first if need be.
    fn cursor_change(&mut self, index: usize, reader: &Reader) -> Result<&mut CursorChange, Fault> {
        let Touched { channel, fresh, .. } = &self.plan.touched[index];
        let number = channel.number;
        match self.plan.cursors.entry(keys::cursor(reader.as_bytes(), number)) {
            Entry::Occupied(change) => Ok(change.into_mut()),
            Entry::Vacant(place) => {
                let value = match fresh {
                    true => None,
                    false => self.engine.db.snapshot().get(&self.engine.ks.cursors, place.key())?,
                };
                let cursor = value.map(|value| {
                    codec::cursor(&value, channel.address.clone(), reader.clone())
                        .ok_or_else(|| Fault::damaged("a cursor"))
                });
                let cursor = cursor.transpose()?;
                let stored = cursor.is_some();
                let reader = reader.clone();
                Ok(place.insert(CursorChange { number, reader, cursor, stored, written: false }))
            }
        }
    }

    /// Begins a cursor at the head that the batch has made so far.
    pub(super) fn start(&mut self, reader: &Reader, channel: &Address) -> Result<Done, Fault> {
        rules::check_key(reader.as_bytes())?;
        let index = self.touch_or_create(channel)?;
        let State { record, epoch } = self.plan.touched[index].state;
        let (head, at) = ((epoch, record.last), self.plan.now);
        let change = self.cursor_change(index, reader)?;
        if let Some(new) = rules::start(change.cursor.as_ref(), reader, channel, head, at) {
            change.cursor = Some(new);
            change.written = true;
        }
        Ok(Done::Started { epoch, last: record.last, at })
    }

    pub(super) fn forget(
        &mut self,
        reader: &Reader,
        channel: Option<&Address>,
    ) -> Result<(), Fault> {
        rules::check_key(reader.as_bytes())?;
        let Some(channel) = channel else { return self.forget_all(reader) };
        let Some(index) = self.touch(channel, false)? else { return Ok(()) };
        let change = self.cursor_change(index, reader)?;
        change.cursor = None;
        change.written = true;
        Ok(())
    }

    fn forget_all(&mut self, reader: &Reader) -> Result<(), Fault> {
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
        let snapshot = self.db.snapshot();
        for item in snapshot.prefix(&self.ks.cursors, prefix) {
            let (key, value) = item.into_inner()?;
            let number = keys::trailing_number(&key);
            let channel = number.map(|number| self.address_in(&snapshot, number)).transpose()?;
            // A channel gives back its name only without cursors, and its last cursor may just have gone.
            let Some(channel) = channel.flatten() else { continue };
            let cursor = codec::cursor(&value, channel, reader.clone());
            found.push(cursor.ok_or_else(|| Fault::damaged("a cursor"))?);
        }
        Ok(found)
    }

    /// The cursors of a reader on these channels, in order. The channels' states are not loaded for it.
    pub(super) fn cursors_on(
        &self,
        reader: &Reader,
        channels: &[Address],
    ) -> Result<Vec<Option<StoredCursor>>, Fault> {
        if rules::check_key(reader.as_bytes()).is_err() {
            return Ok(vec![None; channels.len()]);
        }
        let known: Vec<Option<u32>> =
            channels.iter().map(|c| self.channels.get(c).map(|known| known.number)).collect();
        // Taken after the numbers: what a cached channel was committed with is in it.
        let snapshot = self.db.snapshot();
        let cursor_on = |(channel, known): (&Address, Option<u32>)| {
            let number = match known {
                Some(number) => Some(number),
                None => self.number(&snapshot, channel)?,
            };
            let Some(number) = number else { return Ok(None) };
            let key = keys::cursor(reader.as_bytes(), number);
            let Some(value) = snapshot.get(&self.ks.cursors, key)? else { return Ok(None) };
            let cursor = codec::cursor(&value, channel.clone(), reader.clone());
            cursor.ok_or_else(|| Fault::damaged("a cursor")).map(Some)
        };
        channels.iter().zip(known).map(cursor_on).collect()
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
