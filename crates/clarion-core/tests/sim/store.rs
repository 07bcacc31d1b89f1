//! The model of a store: committed state only. Slowness, failure and loss are the committer's and the world's business
//! (`commit.rs`); what is here is visible.

use crate::invariant;
use crate::world::{ALL, CHANNELS, Chan, DEAD, Dev, GROUP, QUEUE};
use clarion_core::port::store::{Head, Move};
use clarion_core::{Address, AddressKind, Cursor, Epoch, Millis, Overflow, Retention, Seq};
use std::collections::BTreeMap;

/// Whose cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reader {
    Device(Dev),
    Shared(usize),
    Gates,
}

/// A stored message: the publisher's number of it, and its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rec {
    pub(crate) id: u64,
    pub(crate) expires: Option<Millis>,
    at: Millis,
}

impl Rec {
    pub(crate) fn expired(&self, now: Millis) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// One log; trimmed records stay in `records` for the model's own questions.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) epoch: Epoch,
    pub(crate) first: Seq,
    pub(crate) records: Vec<Rec>,
}

impl Log {
    pub(crate) fn last(&self) -> Seq {
        self.records.len() as Seq
    }

    pub(crate) fn rec(&self, seq: Seq) -> Option<&Rec> {
        self.records.get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }

    pub(crate) fn head(&self) -> Head {
        Head { epoch: self.epoch, first: self.first, last: self.last(), ..Head::default() }
    }
}

/// What a read saw.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) head: Head,
    pub(crate) records: Vec<(Seq, u64)>,
    pub(crate) through: Seq,
}

#[derive(Debug, Clone)]
pub(crate) enum Unit {
    Publish { chan: Chan, id: u64, expires: Option<Millis> },
    Ack { reader: Reader, moves: Vec<Move> },
    Window { dev: Dev, bytes: Vec<u8> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Published { epoch: Epoch, seq: Seq },
    Full,
    Written,
}

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) logs: Vec<Log>,
    cursors: BTreeMap<(Reader, Chan), (Epoch, Vec<u8>)>,
    pub(crate) windows: BTreeMap<Dev, Vec<u8>>,
    keys: BTreeMap<(Chan, u64), (Epoch, Seq)>,
}

pub(crate) struct Store {
    pub(crate) state: State,
    synced: Option<State>,
    pub(crate) retention: Vec<Retention>,
    epochs: Epoch,
}

pub(crate) fn address(chan: Chan) -> Address {
    match chan {
        ALL => Ok(Address::all()),
        GROUP => Address::group("g"),
        QUEUE => Address::queue("q"),
        DEAD => Address::queue("q").map(|queue| queue.dead_list()),
        user => Address::user(&user.to_string()),
    }
    .expect("a valid name")
}

impl Store {
    pub(crate) fn new(count: u64, age_ms: u64, queue_len: u64) -> Self {
        let log = Log { epoch: 0, first: 1, records: Vec::new() };
        let retention = (0..CHANNELS).map(|chan| match address(chan).kind() {
            AddressKind::Queue => {
                let overflow = Overflow::Refuse;
                Retention { age_ms: 0, count: 0, bytes: queue_len, overflow }
            }
            AddressKind::Dead => Retention::default_of(AddressKind::Dead),
            AddressKind::User => {
                Retention { count, age_ms, ..Retention::default_of(AddressKind::User) }
            }
            kind => Retention { count, ..Retention::default_of(kind) },
        });
        Self {
            state: State {
                logs: vec![log; CHANNELS],
                cursors: BTreeMap::new(),
                windows: BTreeMap::new(),
                keys: BTreeMap::new(),
            },
            synced: None,
            retention: retention.collect(),
            epochs: 0,
        }
    }

    pub(crate) fn log(&self, chan: Chan) -> &Log {
        &self.state.logs[chan]
    }

    /// Whether this publish took effect.
    pub(crate) fn has(&self, chan: Chan, id: u64) -> bool {
        self.state.keys.contains_key(&(chan, id))
    }

    pub(crate) fn cursor(&self, reader: Reader, chan: Chan) -> Option<(Epoch, Cursor)> {
        let (epoch, bytes) = self.state.cursors.get(&(reader, chan))?;
        let cursor = Cursor::decode(bytes);
        invariant!(
            cursor.is_some(),
            "a stored cursor is read back",
            "{reader:?} on {chan}: {bytes:?}"
        );
        Some((*epoch, cursor?))
    }

    pub(crate) fn apply(&mut self, now: Millis, units: &[Unit]) -> Vec<Done> {
        units.iter().map(|unit| self.apply_one(now, unit)).collect()
    }

    fn apply_one(&mut self, now: Millis, unit: &Unit) -> Done {
        match unit {
            Unit::Publish { chan, id, expires } => self.publish(now, *chan, *id, *expires),
            Unit::Ack { reader, moves } => {
                for one in moves {
                    self.ack(*reader, one);
                }
                self.trim_queue();
                Done::Written
            }
            Unit::Window { dev, bytes } => {
                self.state.windows.insert(*dev, bytes.clone());
                Done::Written
            }
        }
    }

    fn publish(&mut self, now: Millis, chan: Chan, id: u64, expires: Option<Millis>) -> Done {
        if let Some(&(epoch, seq)) = self.state.keys.get(&(chan, id)) {
            return Done::Published { epoch, seq };
        }
        let retention = self.retention[chan];
        let log = &mut self.state.logs[chan];
        let kept = log.last() + 1 - log.first;
        if !retention.has_room(kept, 1) {
            return Done::Full;
        }
        create(log, &mut self.epochs);
        log.records.push(Rec { id, expires, at: now });
        log.first = log.first.max(retention.first_by_count(log.last()));
        let expected = if retention.count == 0 { kept + 1 } else { retention.count.min(kept + 1) };
        let left = log.last() + 1 - log.first;
        invariant!(left == expected, "retention by count", "{left} kept of {kept} and one more");
        let place = (log.epoch, log.last());
        self.state.keys.insert((chan, id), place);
        Done::Published { epoch: place.0, seq: place.1 }
    }

    fn ack(&mut self, reader: Reader, one: &Move) {
        let chan = (0..CHANNELS).find(|chan| address(*chan) == one.channel).expect("a channel");
        let log = &mut self.state.logs[chan];
        if one.epoch == 0 {
            create(log, &mut self.epochs);
        }
        if one.epoch != 0 && one.epoch != log.epoch {
            return;
        }
        let epoch = log.epoch;
        let mut cursor = one.cursor.clone();
        if let Some((old_epoch, old)) = self.cursor(reader, chan)
            && old_epoch == epoch
        {
            cursor.merge(&old);
            invariant!(
                cursor.floor() >= old.floor() && cursor.unacked(1 << 20) <= old.unacked(1 << 20),
                "stored cursors never go backwards",
                "{reader:?} on {chan}: {old:?} became {cursor:?}"
            );
        }
        let mut bytes = Vec::new();
        cursor.encode(&mut bytes);
        self.state.cursors.insert((reader, chan), (epoch, bytes));
    }

    /// A queue is trimmed below what every shared cursor has acked.
    fn trim_queue(&mut self) {
        let floors = (0..crate::queue::SHARED).map(|i| {
            let cursor = self.cursor(Reader::Shared(i), QUEUE);
            cursor
                .filter(|(epoch, _)| *epoch == self.log(QUEUE).epoch)
                .map_or(0, |(_, c)| c.floor())
        });
        let floor = floors.min().unwrap_or(0);
        let log = &mut self.state.logs[QUEUE];
        log.first = log.first.max(floor + 1);
    }

    /// Drops what is over age, or what an administrator trims.
    pub(crate) fn sweep(&mut self, now: Millis) {
        for (chan, log) in self.state.logs.iter_mut().enumerate() {
            let oldest = self.retention[chan].oldest_allowed(now);
            while log.first <= log.last() && log.records[log.first as usize - 1].at < oldest {
                log.first += 1;
            }
        }
    }

    pub(crate) fn trim(&mut self, chan: Chan, below: Seq) {
        let log = &mut self.state.logs[chan];
        log.first = log.first.max(below.min(log.last() + 1));
    }

    pub(crate) fn page(&self, now: Millis, chan: Chan, from: Seq, count: usize) -> Page {
        let log = self.log(chan);
        let mut page = Page { head: log.head(), records: Vec::new(), through: log.last() };
        for seq in from.max(log.first)..=log.last() {
            let rec = log.rec(seq).expect("a seq up to the last");
            if rec.expired(now) {
                continue;
            }
            page.records.push((seq, rec.id));
            if page.records.len() == count {
                page.through = seq;
                break;
            }
        }
        page
    }

    /// What is here now survives a loss.
    pub(crate) fn sync(&mut self) {
        self.synced = Some(self.state.clone());
    }

    /// What was not synced is lost: every log has another history.
    pub(crate) fn lose(&mut self) {
        let Some(synced) = self.synced.clone() else { return };
        let before = std::mem::replace(&mut self.state, synced);
        for (log, before) in self.state.logs.iter_mut().zip(before.logs) {
            if before.epoch != 0 {
                self.epochs += 1;
                log.epoch = self.epochs;
            }
        }
        for ((chan, _), place) in &mut self.state.keys {
            place.0 = self.state.logs[*chan].epoch;
        }
    }
}

fn create(log: &mut Log, epochs: &mut Epoch) {
    if log.epoch == 0 {
        *epochs += 1;
        log.epoch = *epochs;
    }
}
