//! What a stored session commits while it lasts: cursors lazily, its window before the client sees what stands in it.
//!
//! Invariants: one flush of a session is under way at a time; cursors go in front of the window, since what the window leaves out
//! must be acked; a failed flush is tried again and nothing goes out for it. Must not know: how packets look.

use super::{FIRST_KEPT, FIRST_LOG, FIRST_ORPHAN, Flight, Held, Stored};
use crate::committer::{Flusher, Reply};
use crate::sessions::{delete, put};
use crate::shard::deliver::list_dirty;
use crate::shard::peer::give::Giving;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::durable::record::{self, WindowRecord};
use clarion_core::port::peer::{Out, OutState, Place};
use clarion_core::port::store::{Move, Reader, Unit};
use std::collections::HashMap;

impl Stored {
    /// The cursors that have moved, and which logs they are of.
    pub(super) fn take_moves(&mut self) -> (Vec<Move>, Vec<(u32, u16)>) {
        let dirty = std::mem::take(&mut self.dirty);
        let (mut moves, mut logs) = (Vec::with_capacity(dirty.len()), Vec::new());
        for slot in dirty {
            let Some(log) = self.log(slot) else { continue };
            // Before it has begun its cursor counts in the history that it was stored with.
            let epoch = if log.sub.epoch() == 0 { log.epoch } else { log.sub.epoch() };
            if epoch == 0 {
                self.dirty.push(slot);
                continue;
            }
            log.dirty = false;
            moves.push(Move { channel: log.channel.clone(), epoch, cursor: log.cursor.clone() });
            logs.push((slot, log.turn));
        }
        (moves, logs)
    }

    /// The window as it is stored: what is out, by the names of the logs.
    pub(super) fn window(&self, outs: &[Out]) -> WindowRecord {
        let mut window = WindowRecord::default();
        let mut known: HashMap<u32, u32> = HashMap::new();
        for out in outs {
            let Some(name) = self.log_name(out.place.log) else { continue };
            let log = *known.entry(out.place.log).or_insert_with(|| {
                window.logs.push(name.into());
                window.logs.len() as u32 - 1
            });
            window.outs.push(Out { place: Place { log, ..out.place }, ..*out });
        }
        window
    }

    pub(super) fn log_name(&self, log: u32) -> Option<&str> {
        if log >= FIRST_KEPT {
            return self.kept_name_of(log);
        }
        if log >= FIRST_ORPHAN {
            return self.orphans.get(&log).map(|name| &**name);
        }
        let slot = log.checked_sub(FIRST_LOG)?;
        Some(self.logs.get(slot as usize)?.as_ref()?.channel.as_str())
    }

    /// What the client has received counts as acked with the commit that says so.
    pub(super) fn ack_received(&mut self, outs: &[Out]) {
        for out in outs.iter().filter(|out| out.state == OutState::Released) {
            if let Some(slot) = out.place.log.checked_sub(FIRST_LOG)
                && out.place.log < FIRST_ORPHAN
            {
                self.ack(slot, out.place.seq);
            }
        }
    }

    /// The units of a flush.
    fn flush_units(&mut self, outs: &[Out]) -> Vec<Unit> {
        self.ack_received(outs);
        let number = self.number();
        let (moves, logs) = self.take_moves();
        let mut units = Vec::with_capacity(2);
        if !moves.is_empty() {
            units.push(Unit::Ack { reader: Reader::session(number), moves });
        }
        let owed = std::mem::take(&mut self.owed_dirty);
        if owed {
            units.push(self.owed_unit(&[]));
        }
        let window = std::mem::take(&mut self.window_dirty);
        let mut pins = Vec::new();
        if window {
            pins = self.kept_units(self.held.len(), outs, &mut units);
            let key = record::window_key(number);
            let record = self.window(outs);
            units.push(if record.outs.is_empty() {
                delete(key)
            } else {
                put(key, record.encode())
            });
        }
        self.commits.begin();
        let held = self.held.len();
        self.flight = Some(Flight { held, logs, window, pins, owed });
        units
    }
}

impl Shard {
    /// Flushes the windows that changed in this tick.
    pub(in crate::shard) fn flush_windows(&self) {
        let keys = std::mem::take(&mut self.state.borrow_mut().stored_now);
        for key in keys {
            self.flush_stored(key);
        }
    }

    /// Flushes the acks of stored sessions.
    pub(in crate::shard) fn flush_stored_acks(&self) {
        let keys = std::mem::take(&mut self.state.borrow_mut().stored_acks);
        for key in keys {
            self.flush_stored(key);
        }
    }

    fn flush_stored(&self, key: SessionKey) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let outs = session.outlet.peer().map_or(Vec::new(), |peer| peer.outs(false));
        let Some(stored) = Stored::of(session) else { return };
        stored.listed = false;
        if stored.flight.is_some() {
            return;
        }
        let units = stored.flush_units(&outs);
        let who = Flusher::Stored(key);
        if units.is_empty() {
            return self.stored_flushed(state, key, true);
        }
        let reply = Reply::Flush { shard: self.context.index, who };
        if self.context.queue.submit(units, reply, true).is_err() {
            self.stored_flushed(state, key, false);
        }
    }

    /// A flush is over: what waited for it goes out.
    pub(in crate::shard) fn stored_flushed(
        &self,
        state: &mut State,
        key: SessionKey,
        committed: bool,
    ) {
        if !committed {
            self.context.counters.flush_failures.add(1);
        }
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        let Some(flight) = stored.flight.take() else { return };
        let allowed = stored.commits.end(committed);
        if !committed {
            stored.fly_again(flight);
            if !std::mem::replace(&mut stored.listed, true) {
                state.stored_acks.push(key);
            }
            state.timers.acks_failed();
            return;
        }
        for (slot, turn) in &flight.logs {
            if let Some(log) = stored.log(*slot).filter(|log| log.turn == *turn) {
                self.context.trimmable.note(&log.channel);
            }
        }
        self.pins_moved(&flight);
        let held: Vec<Held> =
            stored.held.drain(..allowed.send.len().min(stored.held.len())).collect();
        let kept = Stored::kept_committed(session, &held, session.closing.is_none());
        if session.closing.is_none() {
            for one in held {
                self.give_held(&giving, session, one);
            }
            if let Some(stored) = Stored::of(session) {
                stored.unstick();
            }
            let Session { outlet, outbox, .. } = &mut *session;
            if let Some(peer) = outlet.peer() {
                for number in allowed.release {
                    peer.released(number, outbox.control());
                }
            }
        }
        list_dirty(session, &mut state.dirty);
        self.tell_for_good(state, kept);
        self.context.mailbox.nudge();
        self.list_stored(state, key);
        self.tail_moved(state, key);
    }

    /// A held delivery is committed and goes out.
    fn give_held(&self, giving: &Giving<'_>, session: &mut Session, held: Held) {
        let Held { number, place, message, way } = held;
        if let Some(stored) = Stored::of(session) {
            stored.held_bytes = stored.held_bytes.saturating_sub(message.content.payload.len());
        }
        if giving.put_log(session, &message, &way, 2, (Some(place), Some(number), false)) {
            return;
        }
        // The client may not, or cannot, have it.
        if let Some(peer) = session.outlet.peer() {
            peer.drop_held(number);
        }
        session.credit = session.credit.map(|credit| credit.saturating_add(1));
        if let Some(stored) = Stored::of(session) {
            stored.qos2 = stored.qos2.saturating_sub(1);
            stored.window_dirty = true;
            stored.commits.freed(place);
            stored.over(place);
        }
    }

    /// The client has received a QoS 2 delivery.
    pub(in crate::shard::peer) fn peer_received(&self, key: SessionKey, number: u16) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
        stored.commits.received(number);
        stored.window_dirty = true;
        self.list_stored(state, key);
    }

    /// A delivery of a log is over.
    pub(in crate::shard::peer) fn log_freed(
        &self,
        state: &mut State,
        key: SessionKey,
        place: Place,
        exactly_once: bool,
    ) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        if exactly_once {
            stored.qos2 = stored.qos2.saturating_sub(1);
            stored.window_dirty = true;
            stored.commits.freed(place);
            stored.unstick();
        }
        stored.over(place);
        self.context.counters.acks.add(1);
        list_dirty(session, &mut state.dirty);
        self.list_stored(state, key);
        self.tail_moved(state, key);
    }
}

impl Stored {
    /// What a failed flush was to write is unwritten again.
    pub(super) fn fly_again(&mut self, flight: Flight) {
        for (slot, turn) in flight.logs {
            if let Some(log) = self.log(slot).filter(|log| log.turn == turn)
                && !std::mem::replace(&mut log.dirty, true)
            {
                self.dirty.push(slot);
            }
        }
        self.window_dirty |= flight.window;
        self.doubt_pins(flight.pins);
        self.owed_dirty |= flight.owed;
    }
}
