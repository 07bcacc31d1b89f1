//! Devices of attached sessions: their cursors in memory, acked at once, written lazily.
//!
//! Invariant: a device stays in memory from its first session's attach until its last session ended and every ack is
//! written; so cursors read from the store while it is here never hold more than memory does.

use super::confirm::Confirms;
use super::{SessionKey, Shard, State};
use crate::ack::AckPosition;
use crate::attach::channel_tag;
use crate::committer::{Flusher, Reply};
use clarion_core::cursor_set::CursorSet;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::store::Head;
use clarion_core::port::store::{Reader, StoreError, StoredCursor, Unit};
use clarion_core::{Address, Epoch, Seq};
use std::rc::Rc;

/// See the module.
#[derive(Default)]
pub(super) struct Device {
    pub(super) set: CursorSet,
    pub(super) sessions: u32,
    /// Its cursors are in memory.
    loaded: bool,
    /// It is in the list of dirty devices.
    listed: bool,
    pub(super) confirms: Confirms,
}

impl Shard {
    /// Reads what a new session needs, then starts its subscriptions.
    pub(super) async fn load(self: Rc<Self>, key: SessionKey, acks: Vec<AckPosition>) {
        let Ok(_permit) = self.loads.acquire().await else { return };
        let (channels, number, turn) = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(key) else { return };
            let channels: Vec<_> = session.subs.iter().map(|s| s.channel.clone()).collect();
            (channels, session.number, session.turn())
        };
        let store = self.context.store.clone();
        let heads = store.heads(channels).await;
        let cursors =
            if number == 0 { Ok(Vec::new()) } else { store.cursors(Reader::device(number)).await };
        {
            let mut state = self.state.borrow_mut();
            // Another feed has begun meanwhile, or none is wanted any more.
            if state.sessions.get_mut(key).is_none_or(|session| session.turn() != turn) {
                return;
            }
        }
        self.loaded(key, number, &acks, heads, cursors);
        self.context.mailbox.nudge();
    }

    fn loaded(
        &self,
        key: SessionKey,
        number: u64,
        acks: &[AckPosition],
        heads: Result<Vec<Head>, StoreError>,
        cursors: Result<Vec<StoredCursor>, StoreError>,
    ) {
        let (heads, cursors) = match (heads, cursors) {
            (Ok(heads), Ok(cursors)) => (heads, cursors),
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "a session ends: its state could not be read");
                return self.close_one(key, CloseReason::Store);
            }
        };
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if number != 0 {
            let Some(device) = state.devices.get_mut(&number) else { return };
            let Some(session) = state.sessions.get_mut(key) else { return };
            // A device may have cursors on many channels; what no session of it reads stays in the store.
            for stored in cursors.iter().filter(|c| session.reads(&c.channel)) {
                device.set.load(&stored.channel, stored.epoch, &stored.cursor);
            }
            device.loaded = true;
            if apply(&mut device.set, acks) > 0 {
                self.context.counters.acks.add(1);
            }
            self.device_dirty(state, number);
        }
        self.begin_subscriptions(state, key, &heads);
        self.feed_began(state, key);
    }

    /// Acks for an attached device; `None` when it is not attached here. Otherwise whether a cursor moved.
    pub(crate) fn ack(&self, number: u64, positions: &[AckPosition]) -> Option<bool> {
        let mut state = self.state.borrow_mut();
        let device = state.devices.get_mut(&number).filter(|device| device.loaded)?;
        let moved = apply(&mut device.set, positions);
        self.context.counters.acks.add(moved);
        if moved > 0 {
            self.device_dirty(&mut state, number);
        }
        Some(moved > 0)
    }

    /// The highest floor on a channel among a user's attached devices; their last acks may not be written yet.
    pub(crate) fn highest_floor(&self, user: &str, channel: &Address, epoch: Epoch) -> Option<Seq> {
        let mut state = self.state.borrow_mut();
        let keys = state.users.get(user)?.clone();
        let numbers: Vec<u64> =
            keys.into_iter().filter_map(|key| Some(state.sessions.get_mut(key)?.number)).collect();
        let floor =
            |number: &u64| Some(state.devices.get(number)?.set.get(channel, epoch)?.floor());
        numbers.iter().filter_map(floor).max()
    }

    /// Whether this device is attached, or has acks that are not written yet.
    pub(crate) fn has_device(&self, number: u64) -> bool {
        self.state.borrow().devices.contains_key(&number)
    }

    /// Lists a device for the next flush of acks, if it has any.
    pub(super) fn device_dirty(&self, state: &mut State, number: u64) {
        if let Some(device) = state.devices.get_mut(&number)
            && device.set.is_dirty()
            && !device.listed
        {
            device.listed = true;
            state.dirty_devices.push(number);
            state.timers.acks_wait();
        }
    }

    /// A session of the device has ended.
    pub(super) fn device_detached(&self, state: &mut State, number: u64) {
        if let Some(device) = state.devices.get_mut(&number) {
            device.sessions -= 1;
            if device.sessions == 0 && device.set.is_clean() {
                state.devices.remove(&number);
            }
        }
    }

    /// Hands all unwritten acks to the committer.
    pub(super) fn flush_devices(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for number in std::mem::take(&mut state.dirty_devices) {
            let Some(device) = state.devices.get_mut(&number) else { continue };
            device.listed = false;
            let moves = device.set.begin_flush();
            if moves.is_empty() {
                continue;
            }
            let unit = Unit::Ack { reader: Reader::device(number), moves };
            device.confirms.flush_began();
            let who = Flusher::Device(number);
            let reply = Reply::Flush { shard: self.context.index, who };
            if self.context.queue.submit(vec![unit], reply, true).is_err() {
                device.set.end_flush(false);
                device.confirms.flush_ended(false);
            }
        }
    }

    /// Flushes are over.
    pub(super) fn flushed(&self, flushers: &[(Flusher, bool)]) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for &(who, committed) in flushers {
            match who {
                Flusher::Device(number) => self.device_flushed(state, number, committed),
                Flusher::Shared(key) => self.shared_flushed(state, key, committed),
                Flusher::Gates => self.gates_flushed(state, committed),
                Flusher::Stored(key) => self.stored_flushed(state, key, committed),
            }
        }
    }

    fn device_flushed(&self, state: &mut State, number: u64, committed: bool) {
        if !committed {
            self.context.counters.flush_failures.add(1);
        }
        let Some(device) = state.devices.get_mut(&number) else { return };
        if committed {
            // After the commit: the sweeper reads what is written.
            device.set.in_flush().for_each(|channel| self.context.trimmable.note(channel));
        }
        device.set.end_flush(committed);
        let told = device.confirms.flush_ended(committed);
        if !committed && self.closing.get() {
            // The store is gone and so is the time to wait for it: these acks may be delivered again.
            state.devices.remove(&number);
        } else if device.sessions == 0 && device.set.is_clean() {
            state.devices.remove(&number);
        } else {
            self.device_dirty(state, number);
            if !committed {
                state.timers.acks_failed();
            }
        }
        for (session, confirm) in told {
            self.confirm(state, session, confirm);
        }
    }

    fn close_one(&self, key: SessionKey, reason: CloseReason) {
        self.close_session(&mut self.state.borrow_mut(), key, reason);
    }
}

/// Acks every position whose channel is clear. Returns how many cursors moved.
fn apply(set: &mut CursorSet, positions: &[AckPosition]) -> u64 {
    let mut moved = 0;
    for position in positions {
        let candidates: Vec<_> = set
            .channels()
            .filter(|channel| channel_tag(channel) == position.tag)
            .cloned()
            .collect();
        let [channel] = &candidates[..] else { continue };
        moved += u64::from(set.ack(channel, position.epoch, position.start, position.seq));
    }
    moved
}
