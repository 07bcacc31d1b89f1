//! Retained messages for a stored session: which filters are owed and how far each is acked, so that it goes on after a
//! reconnect and after a restart.
//!
//! Invariants: what is owed of a filter is committed with its SUBSCRIBE; its progress is the last key in order of the keys below
//! which all is acked, and is committed in front of the window that leaves them out. Must not know: how records look.

use super::{FIRST_ORPHAN, Stored};
use crate::retained;
use crate::shard::Shard;
use crate::shard::peer::give::Giving;
use crate::shard::session::Session;
use bytes::Bytes;
use clarion_core::Message;
use clarion_core::durable::record::{self, OwedRecord};
use clarion_core::durable::subs::Merged;
use clarion_core::port::peer::{Out, OutState, Place, SubOptions};
use clarion_core::port::store::Unit;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What is retained for one filter and not acked yet.
pub(super) struct Replay {
    filter: Box<str>,
    options: SubOptions,
    /// All up to this key is acked.
    after: Option<Vec<u8>>,
    /// What was given in the order of the keys, from there on, and whether it is over.
    given: VecDeque<Step>,
    /// What is out since an earlier connection, by key, as in [`Step::log`].
    resumed: HashMap<Bytes, u32>,
    /// It goes on since an earlier connection.
    again: bool,
    /// All was given.
    is_read: bool,
}

/// The name of an orphan is the message's key and the filter that it came by, with this in between; twice when it did not come
/// in the order of the keys.
pub(super) const BEHIND_KEY: char = '\0';

struct Step {
    key: Bytes,
    /// The orphan that it stands in; 0 = nobody acks it.
    log: u32,
}

impl Replay {
    fn new(filter: &str, options: SubOptions, after: Option<Vec<u8>>) -> Self {
        Self {
            filter: filter.into(),
            options,
            after,
            given: VecDeque::new(),
            resumed: HashMap::new(),
            again: false,
            is_read: false,
        }
    }

    /// What is over in front counts. Returns whether anything did.
    fn advance(&mut self) -> bool {
        let mut moved = false;
        while self.given.front().is_some_and(|step| step.log == 0) {
            self.after = self.given.pop_front().map(|step| step.key.to_vec());
            moved = true;
        }
        moved
    }
}

impl Stored {
    /// What is retained for a filter is owed from now on.
    pub(super) fn owe(&mut self, filter: &str, options: SubOptions) {
        self.replays.retain(|replay| *replay.filter != *filter);
        self.replays.push(Replay::new(filter, options, None));
    }

    /// What is retained for a filter is owed since an earlier connection, behind a key; what is out comes by its number. Returns
    /// behind which key reading goes on: after an orderly end all that was given in order and is not over is out.
    pub(super) fn owe_again(
        &mut self,
        filter: &str,
        options: SubOptions,
        after: Option<Vec<u8>>,
        crashed: bool,
    ) -> Option<Bytes> {
        let mut replay = Replay::new(filter, options, after);
        replay.again = true;
        for (log, name) in &self.orphans {
            let Some((key, of)) = name.split_once(BEHIND_KEY) else { continue };
            let key = Bytes::copy_from_slice(key.as_bytes());
            if of == filter && !crashed {
                replay.given.push_back(Step { key: key.clone(), log: *log });
            }
            if of.trim_start_matches(BEHIND_KEY) == filter {
                replay.resumed.insert(key, *log);
            }
        }
        replay.given.make_contiguous().sort_by(|a, b| a.key.cmp(&b.key));
        let last = replay.given.back().map(|step| step.key.clone());
        let behind = last.or_else(|| replay.after.clone().map(Bytes::from));
        self.replays.push(replay);
        behind
    }

    /// The record of what is owed, with these filters more.
    pub(super) fn owed_unit(&self, more: &[(Box<str>, SubOptions)]) -> Unit {
        let new = |filter: &str| more.iter().any(|(other, _)| **other == *filter);
        let kept = self.replays.iter().filter(|replay| !new(&replay.filter));
        let mut filters: Vec<_> = kept
            .map(|replay| (replay.filter.clone(), replay.options, replay.after.clone()))
            .collect();
        filters.extend(more.iter().map(|(filter, options)| (filter.clone(), *options, None)));
        let key = record::owed_key(self.number());
        match filters.is_empty() {
            true => crate::sessions::delete(key),
            false => crate::sessions::put(key, OwedRecord { filters }.encode()),
        }
    }

    /// An orphan is over: the replay that it is of goes on.
    pub(super) fn step_over(&mut self, log: u32) {
        self.orphans.remove(&log);
        for replay in &mut self.replays {
            let given = replay.given.iter_mut().map(|step| &mut step.log);
            let logs = given.chain(replay.resumed.values_mut());
            logs.filter(|other| **other == log).for_each(|over| *over = 0);
        }
        self.advance_replays();
    }

    fn advance_replays(&mut self) {
        for replay in &mut self.replays {
            self.owed_dirty |= replay.advance();
        }
        let before = self.replays.len();
        self.replays.retain(|replay| !replay.is_read || !replay.given.is_empty());
        self.owed_dirty |= self.replays.len() < before;
    }

    /// All that is retained for a filter was given.
    pub(super) fn has_replayed(&mut self, filter: &str) {
        for replay in self.replays.iter_mut().filter(|replay| *replay.filter == *filter) {
            replay.is_read = true;
        }
        self.advance_replays();
    }

    /// Of a retained message that is out since an earlier connection, or was: see [`Step::log`].
    fn resumed(&self, filter: &str, key: &Bytes) -> Option<u32> {
        let replay = self.replays.iter().find(|replay| *replay.filter == *filter)?;
        replay.resumed.get(key).copied()
    }

    /// What is retained and held is out at the end, too: else nobody would know that it was to be given.
    pub(super) fn held_replays(&self) -> impl Iterator<Item = Out> {
        let replayed = self.held.iter().filter(|held| self.orphans.contains_key(&held.place.log));
        replayed.map(|held| Out {
            number: held.number,
            state: OutState::ExactlyOnce,
            place: held.place,
        })
    }

    /// Whether a message of a replay may have been sent before a crash.
    fn is_doubtful(&mut self, filter: &str) -> bool {
        let again = self.replays.iter().any(|replay| replay.again && *replay.filter == *filter);
        let doubtful = again && self.doubtful > 0;
        self.doubtful -= u32::from(doubtful);
        doubtful
    }

    /// A message of a replay is given, or was; `log` as in [`Step`].
    fn stepped(&mut self, filter: &str, step: Step) {
        if let Some(replay) = self.replays.iter_mut().find(|replay| *replay.filter == *filter) {
            replay.given.push_back(step);
        }
        self.advance_replays();
    }
}

impl Giving<'_> {
    /// Gives a stored session a retained message. `None` when there is no room, else whether it went out. `in_order`: it comes in
    /// the order of the keys.
    pub(in crate::shard::peer) fn give_replayed(
        &self,
        session: &mut Session,
        message: &Arc<Message>,
        (filter, options): (&str, SubOptions),
        in_order: bool,
    ) -> Option<bool> {
        let qos = options.qos.min(message.content.qos);
        if !self.has_log_room(session, qos, message.content.payload.len()) {
            return None;
        }
        let key = retained::key(message.channel.id());
        let way = Merged {
            qos: options.qos,
            retain_as_published: true,
            check: options.check,
            ids: options.ids().to_vec(),
        };
        let stored = Stored::of(session)?;
        if let Some(log) = stored.resumed(filter, &key) {
            stored.stepped(filter, Step { key, log });
            return Some(false);
        }
        // A name is text; a key of a topic that is too long for one is none.
        let name = std::str::from_utf8(&key).ok().filter(|_| qos > 0);
        let between = if in_order { "\0" } else { "\0\0" };
        let log = name.map_or(0, |name| stored.orphan(&[name, between, filter].concat()));
        let dup = qos == 1 && stored.is_doubtful(filter);
        let place = Place { log, epoch: 0, seq: 0 };
        let given = match (qos, log) {
            (2, FIRST_ORPHAN..) => self.hold(session, place, message, way),
            _ => {
                let place = (log != 0).then_some(place);
                self.put_log(session, message, &way, qos.min(1), (place, None, dup))
            }
        };
        let stored = Stored::of(session)?;
        if !given {
            stored.orphans.remove(&log);
        }
        if in_order {
            stored.stepped(filter, Step { key, log: if given { log } else { 0 } });
        }
        Some(given)
    }
}

impl Shard {
    /// All that is retained for a filter was given to a session.
    pub(in crate::shard::peer) fn replayed(&self, key: crate::shard::SessionKey, filter: &str) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
            stored.has_replayed(filter);
            self.list_stored(state, key);
        }
    }
}
