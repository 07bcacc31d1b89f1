//! Numbered windows: numbers that a protocol shows its client for what is unacked (design §1.8).
//!
//! Invariants: a number is shown only after the record that holds it was committed ([`Window::is_shown`]); a number that
//! may have been shown is never given to another place before it is acked, and never again where numbers do not wrap;
//! what is unacked is bounded. Must not know: protocols (`stage` is the dialect's own), stores, where bodies are.

use crate::cursor::{get_varint, put_varint};
use crate::{Address, Position, mutant};
use std::collections::BTreeMap;

/// Which numbers a protocol has, from 1 on, and how many may be unacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbering {
    /// The greatest number.
    pub last: u64,
    /// After the greatest comes 1 again; numbers in use are passed over. Else there are no more, and none is left out.
    pub wraps: bool,
    /// Most unacked numbers; below `last` where numbers wrap.
    pub max_unacked: usize,
}

impl Numbering {
    /// MQTT packet ids.
    pub fn packet_ids(max_unacked: usize) -> Self {
        Self { last: 65_535, wraps: true, max_unacked: max_unacked.min(65_535) }
    }

    /// 1, 2, 3, … without end and without gap.
    pub fn gap_free(max_unacked: usize) -> Self {
        Self { last: u64::MAX - 1, wraps: false, max_unacked }
    }
}

/// What a number stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which channel.
    pub channel: Address,
    /// Where in it.
    pub at: Position,
}

/// An unacked number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number.
    pub number: u64,
    /// What it stands for.
    pub place: Place,
    /// How far its delivery is, in the dialect's own terms; 0 = handed out.
    pub stage: u8,
}

/// Why there is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// As many as allowed are unacked: wait for acks.
    #[error("the window of unacked numbers is full")]
    Full,
    /// The greatest number was given out.
    #[error("there are no more numbers")]
    Exhausted,
}

/// What a commit of the record covers: everything reserved before [`Window::begin_commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// See the module.
#[derive(Debug, Clone)]
pub struct Window {
    numbering: Numbering,
    next: u64,
    /// By order of reservation, which is the order of delivery.
    entries: BTreeMap<u64, Entry>,
    numbers: BTreeMap<u64, u64>,
    places: BTreeMap<Place, u64>,
    reserved: u64,
    shown: u64,
    dirty: bool,
}

const VERSION: u8 = 1;

impl Window {
    /// An empty one that begins with 1.
    pub fn new(numbering: Numbering) -> Self {
        Self {
            numbering,
            next: 1,
            entries: BTreeMap::new(),
            numbers: BTreeMap::new(),
            places: BTreeMap::new(),
            reserved: 0,
            shown: 0,
            dirty: false,
        }
    }

    /// Gives the next number to a place; one that has a number keeps it. It may be shown once it [`Self::is_shown`].
    pub fn reserve(&mut self, place: Place) -> Result<u64, WindowError> {
        if let Some(number) = self.number_of(&place) {
            return Ok(number);
        }
        if !self.has_room() {
            return Err(WindowError::Full);
        }
        let number = self.free_number().ok_or(WindowError::Exhausted)?;
        self.next = self.after(number);
        self.insert(Entry { number, place, stage: 0 });
        self.dirty = true;
        Ok(number)
    }

    /// Whether a new place gets a number now.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.numbering.max_unacked
            && (!self.numbering.wraps || (self.entries.len() as u64) < self.numbering.last)
    }

    /// The first free number from `next` on. At most as many are in use as there are entries, so it ends.
    fn free_number(&self) -> Option<u64> {
        let mut number = self.next;
        if !self.numbering.wraps {
            return (number <= self.numbering.last).then_some(number);
        }
        while self.numbers.contains_key(&number) {
            number = self.after(number);
        }
        Some(number)
    }

    fn after(&self, number: u64) -> u64 {
        if self.numbering.wraps && number >= self.numbering.last { 1 } else { number + 1 }
    }

    fn insert(&mut self, entry: Entry) {
        self.numbers.insert(entry.number, self.reserved);
        self.places.insert(entry.place.clone(), self.reserved);
        self.entries.insert(self.reserved, entry);
        self.reserved += 1;
    }

    /// The number of a place, if it is unacked.
    pub fn number_of(&self, place: &Place) -> Option<u64> {
        self.places.get(place).and_then(|order| self.entries.get(order)).map(|e| e.number)
    }

    /// Whether the client may see (or has seen) this unacked number: a committed record holds it.
    pub fn is_shown(&self, number: u64) -> bool {
        self.numbers.get(&number).is_some_and(|order| *order < self.shown)
    }

    /// What is unacked, in the order of reservation: what a session that comes back is given again, each once it
    /// [`Self::is_shown`].
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many are unacked, shown or not.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is unacked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a shown number.
    pub fn get(&self, number: u64) -> Option<&Entry> {
        let order = self.numbers.get(&number).filter(|order| **order < self.shown)?;
        self.entries.get(order)
    }

    /// Notes how far a shown number is. Returns whether there is one.
    pub fn set_stage(&mut self, number: u64, stage: u8) -> bool {
        let order = self.numbers.get(&number).filter(|order| **order < self.shown);
        let Some(entry) = order.and_then(|order| self.entries.get_mut(order)) else {
            return false;
        };
        self.dirty |= entry.stage != stage;
        entry.stage = stage;
        true
    }

    /// The client acks a shown number: what it stood for. `None` when it never was or is acked already.
    pub fn ack(&mut self, number: u64) -> Option<Place> {
        let order = *self.numbers.get(&number).filter(|order| **order < self.shown)?;
        self.remove(order).map(|entry| entry.place)
    }

    /// Drops what the caller knows to be done with (acked in the stored cursor, erased, of a lost history).
    pub fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let gone: Vec<u64> =
            self.entries.iter().filter(|(_, e)| !keep(e)).map(|(order, _)| *order).collect();
        for order in gone {
            self.remove(order);
        }
    }

    fn remove(&mut self, order: u64) -> Option<Entry> {
        let entry = self.entries.remove(&order)?;
        self.numbers.remove(&entry.number);
        self.places.remove(&entry.place);
        self.dirty = true;
        Some(entry)
    }

    /// Whether the record differs from the last one that was begun to be written.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Appends the record to commit. Its end is told by [`Self::committed`] or [`Self::commit_failed`].
    pub fn begin_commit(&mut self, out: &mut Vec<u8>) -> Mark {
        self.encode(out);
        self.dirty = false;
        Mark(self.reserved)
    }

    /// The record of this mark is committed: what was reserved before it may be shown.
    pub fn committed(&mut self, mark: Mark) {
        let until = if mutant!("window_shown_before_commit") { self.reserved } else { mark.0 };
        self.shown = self.shown.max(until);
    }

    /// The record was not committed, or nobody knows: write it again.
    pub fn commit_failed(&mut self) {
        self.dirty = true;
    }

    /// Appends the stored form: next number, channels, entries in the order of reservation.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut channels: Vec<&Address> = Vec::new();
        let mut rows = Vec::new();
        for entry in self.entries.values() {
            let index = channels.iter().position(|c| **c == entry.place.channel);
            let index = index.unwrap_or_else(|| {
                channels.push(&entry.place.channel);
                channels.len() - 1
            });
            put_varint(&mut rows, index as u64);
            put_varint(&mut rows, u64::from(entry.place.at.epoch));
            put_varint(&mut rows, entry.place.at.seq);
            put_varint(&mut rows, entry.number);
            rows.push(entry.stage);
        }
        out.push(VERSION);
        put_varint(out, self.next);
        put_varint(out, channels.len() as u64);
        for channel in channels {
            put_varint(out, channel.as_str().len() as u64);
            out.extend_from_slice(channel.as_str().as_bytes());
        }
        out.extend_from_slice(&rows);
    }

    /// Reads what [`Self::encode`] wrote; everything in it counts as shown. `None` when it is damaged or of a newer
    /// version. More entries than `numbering` allows now are kept: they end by acks.
    pub fn decode(numbering: Numbering, bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let mut window = Self::new(numbering);
        let next = get_varint(&mut rest).filter(|next| *next > 0 && *next < u64::MAX)?;
        let channels = get_channels(&mut rest)?;
        while !rest.is_empty() {
            let index = usize::try_from(get_varint(&mut rest)?).ok()?;
            let channel = channels.get(index)?.clone();
            let epoch = u32::try_from(get_varint(&mut rest)?).ok()?;
            let at = Position { epoch, seq: get_varint(&mut rest)? };
            let number = get_varint(&mut rest).filter(|n| *n > 0 && *n <= numbering.last)?;
            let (&stage, behind) = rest.split_first()?;
            rest = behind;
            let place = Place { channel, at };
            if window.numbers.contains_key(&number) || window.places.contains_key(&place) {
                return None;
            }
            window.insert(Entry { number, place, stage });
        }
        window.next = if numbering.wraps && next > numbering.last { 1 } else { next };
        if mutant!("window_number_reused") {
            let used = window.numbers.last_key_value().map_or(0, |(number, _)| *number);
            window.next = window.after(used);
        }
        window.shown = window.reserved;
        Some(window)
    }
}

fn get_channels(rest: &mut &[u8]) -> Option<Vec<Address>> {
    let count = get_varint(rest)?;
    let mut channels = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(get_varint(rest)?).ok()?;
        let (text, behind) = rest.split_at_checked(len)?;
        *rest = behind;
        channels.push(Address::parse_any(std::str::from_utf8(text).ok()?).ok()?);
    }
    Some(channels)
}

#[cfg(test)]
mod tests;
