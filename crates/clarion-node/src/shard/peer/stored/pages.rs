//! Logs of stored sessions that are behind: pages from the store, in turn, as the window and the outbox let them through.

use super::give::{Step, choose_told};
use super::{READING_MAX, Stored};
use crate::shard::catch_up::Waiter;
use crate::shard::deliver::list_dirty;
use crate::shard::peer::PeerState;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use clarion_core::durable::subs::Choice;
use clarion_core::port::store::Page;
use clarion_core::subscription::Offer;
use clarion_core::{Cursor, Message, Seq};
use std::sync::Arc;

impl Stored {
    fn waits(&mut self, waiter: &Waiter) -> bool {
        self.log(waiter.sub).is_some_and(|log| log.turn == waiter.turn)
    }
}

/// The stored part of a waiter's session, if its log is still there.
fn stored_of<'a>(session: &'a mut Session, waiter: &Waiter) -> Option<&'a mut Stored> {
    let stored = Stored::of(session)?;
    if stored.waits(waiter) { Some(stored) } else { None }
}

/// A page ended early, and the next one is not asked for at once.
fn stored_page_over(session: &mut Session, waiter: &Waiter, last: Seq) {
    let Some(stored) = Stored::of(session) else { return };
    stored.reading = stored.reading.saturating_sub(1);
    if let Some(log) = stored.log(waiter.sub) {
        log.sub.page_ended(None, last);
    }
    stored.queue(waiter.sub);
}

impl Shard {
    /// Asks for pages of the logs that are behind, in their turn.
    pub(in crate::shard) fn ask_log_pages(&self, state: &mut State, key: SessionKey) {
        let config = &self.context.config;
        let Some(session) = state.sessions.get_mut(key) else { return };
        if !session.may_read(config) || session.closing.is_some() || session.credit == Some(0) {
            return;
        }
        let Some(stored) = Stored::of(session) else { return };
        while !stored.resending && stored.reading < READING_MAX {
            let Some(slot) = stored.behind.pop_front() else { return };
            let Some(log) = stored.log(slot) else { continue };
            log.queued = false;
            if !log.sub.wants_page() {
                continue;
            }
            log.sub.page_began();
            let waiter = Waiter { key, sub: slot, turn: log.turn, log: true };
            state.catch_up.ask(&log.channel, log.sub.next(), waiter);
            stored.reading += 1;
        }
    }

    /// A page could not be read: it is asked for again.
    pub(in crate::shard) fn log_page_failed(&self, state: &mut State, waiter: &Waiter) {
        let Some(session) = state.sessions.get_mut(waiter.key) else { return };
        if let Some(stored) = Stored::of(session) {
            stored.reading = stored.reading.saturating_sub(1);
        }
        let Some(stored) = stored_of(session, waiter) else { return };
        if let Some(log) = stored.log(waiter.sub) {
            log.sub.page_failed();
        }
        stored.queue(waiter.sub);
        state.retry.push(waiter.key);
    }

    /// A page is here. What the log has lost counts as acked.
    pub(in crate::shard) fn log_page_opened(
        &self,
        state: &mut State,
        waiter: &Waiter,
        page: &Page,
    ) -> bool {
        let Some(session) = state.sessions.get_mut(waiter.key) else { return false };
        let Some(stored) = stored_of(session, waiter) else {
            if let Some(stored) = Stored::of(session) {
                stored.reading = stored.reading.saturating_sub(1);
            }
            return false;
        };
        let Some(log) = stored.log(waiter.sub) else { return false };
        let before = log.sub.epoch();
        let (epoch, first) = (page.head.epoch, page.head.first);
        let Some(_gap) = log.sub.page_opened(epoch, first) else { return true };
        if before != epoch {
            log.cursor = Cursor::at(first.saturating_sub(1));
            log.skip = Vec::new();
        } else {
            log.cursor.ack_to(first.saturating_sub(1));
        }
        if !std::mem::replace(&mut log.dirty, true) {
            stored.dirty.push(waiter.sub);
        }
        self.context.counters.gaps.add(1);
        true
    }

    /// Offers one record; `false` when this log takes no more of the page.
    pub(in crate::shard) fn log_offer(
        &self,
        state: &mut State,
        waiter: &Waiter,
        message: &Arc<Message>,
        last: Seq,
    ) -> bool {
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(waiter.key) else { return false };
        let slot = waiter.sub;
        let Some(stored) = stored_of(session, waiter) else { return false };
        let ends = stored.subs.get(slot).and_then(|sub| sub.tail.as_ref());
        if ends.is_some_and(|tail| tail.epoch == message.epoch && message.seq > tail.until) {
            self.log_page_closed(state, waiter, None, last);
            return false;
        }
        let Some(log) = stored.log(slot) else { return false };
        let done = log.is_done(message.seq);
        let way = if done {
            Some(Choice::Elsewhere)
        } else {
            choose_told(session, slot, message, self.seen.get())
        };
        let Some(way) = way else {
            // On which side of a change it lies is told soon: it is read again then, at the latest with the next timer tick.
            stored_page_over(session, waiter, last);
            state.retry.push(waiter.key);
            return false;
        };
        let room = match &way {
            Choice::Elsewhere => true,
            Choice::Give(way) => {
                let (qos, size) = (way.qos.min(message.content.qos), message.content.payload.len());
                let room = giving.has_log_room(session, qos, size);
                let bytes_max = self.context.config.outbox_bytes;
                if let Some(stored) = Stored::of(session)
                    && qos == 2
                    && stored.is_full(size, bytes_max)
                {
                    stored.stuck.push(slot);
                }
                room
            }
        };
        let Some(log) = Stored::of(session).and_then(|stored| stored.log(slot)) else {
            return false;
        };
        let step = match (log.sub.offer(message.seq, done, room), way) {
            (Offer::Deliver, Choice::Give(way)) => {
                if giving.give_log(session, slot, message, way) {
                    self.context.counters.delivered.add(1);
                }
                Step::Done
            }
            (Offer::Deliver, Choice::Elsewhere) => {
                if let Some(stored) = Stored::of(session) {
                    stored.ack(slot, message.seq);
                }
                Step::Done
            }
            (Offer::Skip, _) => Step::Done,
            (Offer::Stop, _) => Step::Full,
        };
        if step == Step::Full {
            session.full_at = session.outbox.len();
            self.log_page_closed(state, waiter, None, last);
        }
        step == Step::Done
    }

    /// A page is done: everything up to `through` was looked at; `None` = it ended early.
    pub(in crate::shard) fn log_page_closed(
        &self,
        state: &mut State,
        waiter: &Waiter,
        through: Option<Seq>,
        last: Seq,
    ) {
        let State { sessions, dirty, .. } = state;
        let Some(session) = sessions.get_mut(waiter.key) else { return };
        if let Some(stored) = Stored::of(session) {
            stored.reading = stored.reading.saturating_sub(1);
        }
        let Some(stored) = stored_of(session, waiter) else { return };
        let Some(log) = stored.log(waiter.sub) else { return };
        log.sub.page_ended(through, last);
        stored.pass(waiter.sub);
        stored.queue(waiter.sub);
        list_dirty(session, dirty);
        self.list_stored(state, waiter.key);
        self.tail_moved(state, waiter.key);
    }
}

impl PeerState {
    /// Whether a log of its is behind.
    pub(in crate::shard::peer) fn has_log_behind(&self) -> bool {
        self.stored.as_ref().is_some_and(|stored| !stored.behind.is_empty())
    }
}
