//! Stored forms of sessions: small records, and their keys.
//!
//! Invariants: the first byte is a version; what is damaged or of a later version is `None`, and allocates no more than it is
//! long. Keys sort numbers as numbers. Must not know: who writes and reads them.

use super::subs::{StoredSub, Tail};
use crate::cursor::{get_varint, put_varint};
use crate::port::peer::{Out, OutState, Place, SubOptions};
use crate::{Epoch, Millis};
use bytes::Bytes;

mod keys;
pub use keys::*;

const VERSION: u8 = 1;

/// Subscriptions in one record.
pub const CHUNK: usize = 64;

/// A session. Everything else of it hangs at its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its incarnation: another one after a clean start or its expiry.
    pub number: u64,
    /// Who may have it.
    pub owner: Option<Box<str>>,
    /// Whose feed it may read.
    pub user: Option<Box<str>>,
    /// So long it lives without a connection.
    pub expiry_s: u32,
    /// When it was made.
    pub created_at: Millis,
    /// When its last connection ended; `None` = it has one.
    pub ended_at: Option<Millis>,
    /// At its end everything stamped below was acked.
    pub settled: Option<Millis>,
}

/// What is out at the end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WindowRecord {
    /// Addresses as text, or `retained/<topic>`.
    pub logs: Vec<Box<str>>,
    /// In the order of sending; `place.log` is a place in `logs`.
    pub outs: Vec<Out>,
}

/// Retained messages that are still to come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwedRecord {
    /// Of which filters, how, and the last key that was acked.
    pub filters: Vec<(Box<str>, SubOptions, Option<Vec<u8>>)>,
}

/// A QoS 2 publish of the client that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundRecord {
    /// By which it is appended once.
    pub key: u64,
    /// Since when.
    pub at: Millis,
}

/// Takes values off the front of a record.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn begin(bytes: &'a [u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then_some(Self(rest))
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u64> {
        get_varint(&mut self.0)
    }

    fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<Box<str>> {
        Some(std::str::from_utf8(self.bytes()?).ok()?.into())
    }

    fn optional<T>(&mut self, get: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(get(self)?)),
            _ => None,
        }
    }

    /// As many as there are said to be; each takes at least a byte, so a wrong count ends with the bytes.
    fn many<T>(&mut self, mut get: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count: usize = self.small()?;
        let mut all = Vec::with_capacity(count.min(self.0.len() / 8));
        for _ in 0..count {
            all.push(get(self)?);
        }
        Some(all)
    }

    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

impl SessionRecord {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.number.to_be_bytes());
        put_optional(&mut out, self.owner.as_deref(), put_text);
        put_optional(&mut out, self.user.as_deref(), put_text);
        put_varint(&mut out, u64::from(self.expiry_s));
        put_varint(&mut out, self.created_at);
        put_optional(&mut out, self.ended_at, put_varint);
        put_optional(&mut out, self.settled, put_varint);
        out.into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading::begin(bytes)?;
        let (number, rest) = reading.0.split_first_chunk()?;
        reading.0 = rest;
        let record = Self {
            number: u64::from_be_bytes(*number),
            owner: reading.optional(Reading::text)?,
            user: reading.optional(Reading::text)?,
            expiry_s: reading.small()?,
            created_at: reading.number()?,
            ended_at: reading.optional(Reading::number)?,
            settled: reading.optional(Reading::number)?,
        };
        reading.end(record)
    }
}

const NO_LOCAL: u8 = 4;
const AS_PUBLISHED: u8 = 8;
const CHECK: u8 = 16;

fn put_options(out: &mut Vec<u8>, options: &SubOptions) {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(
        options.qos & 3
            | flag(options.no_local, NO_LOCAL)
            | flag(options.retain_as_published, AS_PUBLISHED)
            | flag(options.check, CHECK),
    );
    put_varint(out, u64::from(options.id));
}

fn get_options(reading: &mut Reading<'_>) -> Option<SubOptions> {
    let flags = reading.byte()?;
    let qos = flags & 3;
    if qos == 3 || flags > (CHECK | AS_PUBLISHED | NO_LOCAL | 3) {
        return None;
    }
    Some(SubOptions {
        qos,
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & AS_PUBLISHED != 0,
        check: flags & CHECK != 0,
        id: reading.small()?,
    })
}

/// The stored form of the subscriptions of one chunk, each with its place there (slot modulo [`CHUNK`]).
pub fn encode_chunk(subs: &[(u8, &StoredSub)]) -> Bytes {
    let mut out = vec![VERSION];
    put_varint(&mut out, subs.len() as u64);
    for (place, sub) in subs {
        out.push(*place);
        put_text(&mut out, &sub.filter);
        put_optional(&mut out, sub.share.as_deref(), put_text);
        put_options(&mut out, &sub.options);
        put_varint(&mut out, sub.since);
        put_varint(&mut out, sub.ranks.len() as u64);
        for (until, rank) in &sub.ranks {
            put_varint(&mut out, *until);
            out.push(*rank);
        }
        put_optional(&mut out, sub.tail, put_tail);
    }
    out.into()
}

fn put_tail(out: &mut Vec<u8>, tail: Tail) {
    put_varint(out, tail.at);
    put_varint(out, u64::from(tail.epoch));
    put_varint(out, tail.until);
    out.push(u8::from(tail.all));
}

fn get_tail(reading: &mut Reading<'_>) -> Option<Tail> {
    Some(Tail {
        at: reading.number()?,
        epoch: reading.small::<Epoch>()?,
        until: reading.number()?,
        all: reading.optional(|_| Some(()))?.is_some(),
    })
}

/// Reads what [`encode_chunk`] wrote.
pub fn decode_chunk(bytes: &[u8]) -> Option<Vec<(u8, StoredSub)>> {
    let mut reading = Reading::begin(bytes)?;
    let subs = reading.many(|reading| {
        let place = reading.byte().filter(|place| usize::from(*place) < CHUNK)?;
        let sub = StoredSub {
            filter: reading.text().filter(|filter| !filter.is_empty())?,
            share: reading.optional(Reading::text)?,
            options: get_options(reading)?,
            since: reading.number()?,
            ranks: reading.many(|reading| Some((reading.number()?, reading.byte()?)))?,
            tail: reading.optional(get_tail)?,
        };
        Some((place, sub))
    })?;
    reading.end(subs)
}

impl WindowRecord {
    /// Of what is out; `name` = address of a log of the session, or what else it reads from.
    pub fn new(mut outs: Vec<Out>, mut name: impl FnMut(u32) -> Box<str>) -> Self {
        let mut numbers: Vec<u32> = Vec::new();
        for Out { place, .. } in &mut outs {
            let known = numbers.iter().position(|log| *log == place.log);
            let at = known.unwrap_or_else(|| {
                numbers.push(place.log);
                numbers.len() - 1
            });
            place.log = at as u32;
        }
        Self { logs: numbers.into_iter().map(&mut name).collect(), outs }
    }

    /// What was out, with the logs as the session numbers them now.
    pub fn into_outs(self, number: impl FnMut(&str) -> u32) -> Vec<Out> {
        let numbers: Vec<u32> = self.logs.iter().map(|log| &**log).map(number).collect();
        let outs = self.outs.into_iter();
        let out = |Out { place, .. }: &mut Out| {
            numbers.get(place.log as usize).is_some_and(|log| {
                place.log = *log;
                true
            })
        };
        outs.filter_map(|mut one| out(&mut one).then_some(one)).collect()
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.logs.len() as u64);
        self.logs.iter().for_each(|log| put_text(&mut out, log));
        put_varint(&mut out, self.outs.len() as u64);
        for Out { number, state, place } in &self.outs {
            out.extend_from_slice(&number.to_be_bytes());
            out.push(match state {
                OutState::AtLeastOnce => 0,
                OutState::ExactlyOnce => 1,
                OutState::Released => 2,
            });
            put_varint(&mut out, u64::from(place.log));
            put_varint(&mut out, u64::from(place.epoch));
            put_varint(&mut out, place.seq);
        }
        out.into()
    }

    /// Reads what [`Self::encode`] wrote. What refers to no log of it, or a number twice, is damage.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading::begin(bytes)?;
        let logs = reading.many(Reading::text)?;
        let outs = reading.many(|reading| {
            let (number, rest) = reading.0.split_first_chunk()?;
            reading.0 = rest;
            let state = match reading.byte()? {
                0 => OutState::AtLeastOnce,
                1 => OutState::ExactlyOnce,
                2 => OutState::Released,
                _ => return None,
            };
            let log: u32 = reading.small()?;
            logs.get(log as usize)?;
            let place = Place { log, epoch: reading.small()?, seq: reading.number()? };
            Some(Out {
                number: Some(u16::from_be_bytes(*number)).filter(|n| *n > 0)?,
                state,
                place,
            })
        })?;
        let mut numbers: Vec<u16> = outs.iter().map(|out| out.number).collect();
        numbers.sort_unstable();
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return None;
        }
        reading.end(Self { logs, outs })
    }
}

impl OwedRecord {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.filters.len() as u64);
        for (filter, options, last) in &self.filters {
            put_text(&mut out, filter);
            put_options(&mut out, options);
            put_optional(&mut out, last.as_deref(), put_bytes);
        }
        out.into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading::begin(bytes)?;
        let filters = reading.many(|reading| {
            let (filter, options) = (reading.text()?, get_options(reading)?);
            let last = reading.optional(|reading| Some(reading.bytes()?.to_vec()))?;
            Some((filter, options, last))
        })?;
        reading.end(Self { filters })
    }
}

impl InboundRecord {
    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.key.to_be_bytes());
        put_varint(&mut out, self.at);
        out.into()
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reading = Reading::begin(bytes)?;
        let (key, rest) = reading.0.split_first_chunk()?;
        reading.0 = rest;
        let record = Self { key: u64::from_be_bytes(*key), at: reading.number()? };
        reading.end(record)
    }
}

#[cfg(test)]
mod tests;
