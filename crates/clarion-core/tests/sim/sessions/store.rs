//! The store, in the shapes of the port: logs of bodies and of references, cursors, records. A batch takes effect at once.

use super::oracle::Entitled;
use super::{BodyId, Cid, Msg};
use bytes::Bytes;
use clarion_core::durable::record::{
    self, SESSIONS, SessionRecord, WindowRecord, decode_chunk, parse_chunk_key, parse_session_key,
};
use clarion_core::durable::subs::Subs;
use clarion_core::{Address, Cursor, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Body {
    pub(crate) msg: Msg,
    pub(crate) at: Millis,
    pub(crate) erased: bool,
    /// Where it stands: its own log, then references.
    pub(crate) places: Vec<(Address, Seq)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append { key: u64, msg: Msg, refs: Vec<Address>, entitled: Entitled },
    Start { number: u64, channel: Address },
    Ack { number: u64, moves: Vec<(Address, Cursor)> },
    Forget { number: u64, channel: Address },
    Put(Bytes, Bytes),
    Delete(Bytes),
    Erase(BodyId),
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) bodies: Vec<Body>,
    pub(crate) logs: BTreeMap<Address, Vec<BodyId>>,
    pub(crate) cursors: BTreeMap<(u64, Address), Cursor>,
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    /// Appended under these keys.
    pub(crate) keys: BTreeMap<u64, BodyId>,
    /// Batches that took effect.
    pub(crate) applied: BTreeSet<u64>,
    pub(crate) last_at: Millis,
}

impl Store {
    pub(crate) fn last(&self, channel: &Address) -> Seq {
        self.logs.get(channel).map_or(0, |log| log.len() as Seq)
    }

    pub(crate) fn body_at(&self, channel: &Address, seq: Seq) -> Option<BodyId> {
        self.logs.get(channel)?.get(seq as usize - 1).copied()
    }

    /// Returns the body that was appended, or had been under this key.
    pub(crate) fn apply(&mut self, op: &Op, at: Millis) -> Option<(BodyId, bool)> {
        match op {
            Op::Append { key, msg, refs, .. } => {
                if let Some(body) = self.keys.get(key) {
                    return Some((*body, false));
                }
                let body = self.bodies.len();
                let mut places = Vec::new();
                for channel in [&super::topic_log(msg.topic)].into_iter().chain(refs) {
                    let log = self.logs.entry(channel.clone()).or_default();
                    log.push(body);
                    places.push((channel.clone(), log.len() as Seq));
                }
                self.bodies.push(Body { msg: *msg, at, erased: false, places });
                self.keys.insert(*key, body);
                return Some((body, true));
            }
            Op::Start { number, channel } => {
                let last = self.last(channel);
                let cursor = self.cursors.entry((*number, channel.clone()));
                cursor.or_insert_with(|| Cursor::at(last));
            }
            Op::Ack { number, moves } => {
                for (channel, cursor) in moves {
                    self.cursors.entry((*number, channel.clone())).or_default().merge(cursor);
                }
            }
            Op::Forget { number, channel } => {
                self.cursors.remove(&(*number, channel.clone()));
            }
            Op::Put(key, value) => {
                self.records.insert(key.clone(), value.clone());
            }
            Op::Delete(key) => {
                self.records.remove(key);
            }
            Op::Erase(body) => self.bodies[*body].erased = true,
        }
        None
    }

    pub(crate) fn session(&self, cid: Cid) -> Option<SessionRecord> {
        let value = self.records.get(&session_key(cid));
        value.map(|value| SessionRecord::decode(value).expect("what was encoded"))
    }

    pub(crate) fn number_of(&self, cid: Cid) -> Option<u64> {
        self.session(cid).map(|session| session.number)
    }

    pub(crate) fn window(&self, number: u64) -> WindowRecord {
        let value = self.records.get(&record::window_key(number));
        value.map_or_else(WindowRecord::default, |value| {
            WindowRecord::decode(value).expect("what was encoded")
        })
    }

    pub(crate) fn with_prefix(&self, prefix: &[u8]) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        let from = Bytes::copy_from_slice(prefix);
        let prefix = from.clone();
        self.records.range(from..).take_while(move |(key, _)| key.starts_with(&prefix))
    }

    pub(crate) fn subs(&self, number: u64) -> Subs {
        let mut subs = Subs::default();
        for (key, value) in self.with_prefix(&record::chunks_prefix(number)) {
            let (_, chunk) = parse_chunk_key(key).expect("a chunk's key");
            for (place, sub) in decode_chunk(value).expect("what was encoded") {
                subs.put(chunk * record::CHUNK as u32 + u32::from(place), sub);
            }
        }
        subs
    }

    /// The numbers of all sessions.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let sessions = self.with_prefix(SESSIONS);
        let number = |(key, value): (&Bytes, &Bytes)| {
            parse_session_key(key).expect("a session's key");
            SessionRecord::decode(value).expect("what was encoded").number
        };
        sessions.map(number).collect()
    }
}

pub(crate) fn session_key(cid: Cid) -> Bytes {
    record::session_key(&format!("client-{cid}")).expect("short enough")
}
