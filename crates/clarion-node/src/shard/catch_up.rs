//! Catching up: pages from the store for subscriptions that are behind, as their outboxes drain.

use super::deliver::{make_room, put, window_open};
use super::session::{Session, SubEntry};
use super::written::{Sent, note_sent};
use super::{SessionKey, Shard, State};
use crate::attach::Start;
use crate::clock;
use clarion_core::catch_up::PageKey;
use clarion_core::port::outlet::{CloseReason, Given};
use clarion_core::port::peer::Taking;
use clarion_core::port::store::{Head, Page, ReadRange, StoreError};
use clarion_core::subscription::{Gap, GapReason, Offer};
use clarion_core::{Cursor, Message, Seq};
use std::rc::Rc;
use std::sync::Arc;

/// A subscription that waits for a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) key: SessionKey,
    /// Which of its subscriptions to channels, or, of a stored session, which of its logs.
    pub(super) sub: u32,
    pub(super) turn: u16,
    pub(super) log: bool,
}

/// The subscription of a waiter, if it is still there.
fn entry_of<'a>(session: &'a mut Session, waiter: &Waiter) -> Option<&'a mut SubEntry> {
    session.subs.get_mut(waiter.sub as usize).filter(|entry| entry.turn == waiter.turn)
}

impl Shard {
    /// Asks for the pages that this session's subscriptions need, if its outbox is at most half full.
    pub(super) fn ask_pages(&self, state: &mut State, key: SessionKey) {
        let config = &self.context.config;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let half = session.may_read(config);
        let spent = session.credit == Some(0) && session.outlet.uses_credit();
        if !half || session.closing.is_some() || spent {
            return;
        }
        for i in 0..session.subs.len() {
            if session.subs[i].sub.wants_page()
                && window_open(session, i, &state.devices, &self.context)
            {
                let entry = &mut session.subs[i];
                entry.sub.page_began();
                let waiter = Waiter { key, sub: i as u32, turn: entry.turn, log: false };
                state.catch_up.ask(&entry.channel, entry.sub.next(), waiter);
            }
        }
    }

    /// Wakes the loop if pages wait to be read, or a member of a shared cursor may take more: for what happens after, or
    /// outside, that part of a tick.
    pub(super) fn begin_pages_soon(&self) {
        let state = self.state.borrow();
        if state.catch_up.has_waiting() || !state.ready.is_empty() {
            self.context.mailbox.nudge();
        }
    }

    /// Begins the reads that may begin.
    pub(super) fn begin_pages(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        while let Some(key) = state.catch_up.begin() {
            tokio::task::spawn_local(self.clone().read_page(key));
        }
    }

    async fn read_page(self: Rc<Self>, key: PageKey) {
        let config = &self.context.config;
        let range = ReadRange {
            channel: key.channel.clone(),
            from: key.from,
            to: Seq::MAX,
            backwards: false,
            count: config.page_messages,
            bytes: config.page_bytes.min(config.outbox_bytes),
        };
        let result = self.context.store.read(clock::now(), vec![range]).await;
        self.context.counters.pages.add(1);
        self.page_done(&key, result);
        self.context.mailbox.nudge();
    }

    fn page_done(&self, key: &PageKey, result: Result<Vec<Page>, StoreError>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let waiters = state.catch_up.end(key);
        let page = match result.map(|mut pages| pages.pop()) {
            Ok(Some(page)) => page,
            Ok(None) => Page::default(),
            Err(error) => {
                tracing::debug!(%error, channel = %key.channel, "a page could not be read");
                for waiter in waiters {
                    if waiter.log {
                        self.log_page_failed(state, &waiter);
                    } else if let Some(session) = state.sessions.get_mut(waiter.key)
                        && let Some(entry) = entry_of(session, &waiter)
                    {
                        entry.sub.page_failed();
                        state.retry.push(waiter.key);
                    }
                }
                return;
            }
        };
        let mut reading: Vec<Waiter> = Vec::with_capacity(waiters.len());
        for waiter in waiters {
            if self.open_page(state, waiter, &page) {
                reading.push(waiter);
            }
        }
        let (last, through) = (page.head.last, page.through);
        for message in page.messages {
            state.frames.reset();
            let message = Arc::new(message);
            reading.retain(|waiter| match waiter.log {
                true => self.log_offer(state, waiter, &message, last),
                false => self.offer(state, *waiter, &message, last),
            });
        }
        for waiter in reading {
            if waiter.log {
                self.log_page_closed(state, &waiter, Some(through), last);
            } else {
                self.close_page(state, waiter, Some(through), last);
            }
        }
    }

    /// Tells what is lost; `false` when the session has ended.
    fn open_page(&self, state: &mut State, waiter: Waiter, page: &Page) -> bool {
        if waiter.log {
            return self.log_page_opened(state, &waiter, page);
        }
        let Some(session) = state.sessions.get_mut(waiter.key) else { return false };
        let Some(entry) = entry_of(session, &waiter) else { return false };
        if let Some(gap) = entry.sub.page_opened(page.head.epoch, page.head.first) {
            let (channel, number) = (entry.channel.clone(), session.number);
            session.outlet.gap(&channel, page.head.epoch, gap, session.outbox.control());
            self.context.counters.gaps.add(1);
            if gap.reason == GapReason::Epoch
                && let Some(device) = state.devices.get_mut(&number)
            {
                device.set.restart(&channel, page.head.epoch, page.head.first);
                self.device_dirty(state, number);
            }
        }
        true
    }

    /// Offers one record; `false` when this waiter takes no more of the page.
    fn offer(&self, state: &mut State, waiter: Waiter, message: &Message, last: Seq) -> bool {
        let Some(session) = state.sessions.get_mut(waiter.key) else { return false };
        let number = session.number;
        let Some(entry) = entry_of(session, &waiter) else { return false };
        let acked = number != 0
            && state
                .devices
                .get(&number)
                .is_some_and(|d| d.set.is_acked(&entry.channel, message.epoch, message.seq));
        let frame = state.frames.get(&*session.outlet, message);
        let at = waiter.sub as usize;
        let room = acked
            || window_open(session, at, &state.devices, &self.context)
                && make_room(session, frame.len(), &self.context, state.timers.now());
        let entry = &mut session.subs[at];
        match entry.sub.offer(message.seq, acked, room) {
            Offer::Deliver => {
                let start = entry.given_from();
                let now = clock::now();
                let given = Given { message, start, attempt: 1, replayed: true, now };
                match session.outlet.takes(given, frame.len()) {
                    Taking::Yes => {}
                    taking => {
                        self.not_taken(state, waiter.key, taking, message);
                        return taking == Taking::Passed;
                    }
                }
                put(session, given, frame);
                note_sent(session, Sent::Sub(at as u16, message.seq), &mut state.writing);
                self.context.counters.delivered.add(1);
                true
            }
            Offer::Skip => true,
            Offer::Stop => {
                session.full_at = session.outbox.len();
                self.close_page(state, waiter, None, last);
                false
            }
        }
    }

    /// A message that a client cannot have counts as acked; who may have none any more ends.
    pub(super) fn not_taken(
        &self,
        state: &mut State,
        key: SessionKey,
        taking: Taking,
        message: &Message,
    ) {
        if taking == Taking::End {
            return self.close_session(state, key, CloseReason::Forbidden);
        }
        let place = (message.epoch, message.seq, message.seq);
        self.ack_own(state, key, Some(&message.channel), place);
    }

    fn close_page(&self, state: &mut State, waiter: Waiter, through: Option<Seq>, last: Seq) {
        if let Some(session) = state.sessions.get_mut(waiter.key)
            && let Some(entry) = entry_of(session, &waiter)
        {
            entry.sub.page_ended(through, last);
            self.mark_dirty(state, waiter.key);
        }
    }

    /// Starts a session's subscriptions: heads are known, its device's cursors are in memory.
    pub(super) fn begin_subscriptions(&self, state: &mut State, key: SessionKey, heads: &[Head]) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        // Not before: a client that was told may publish at once, and that must lie behind the heads read here.
        session.open();
        let mut device = state.devices.get_mut(&session.number);
        let mut restarted = false;
        let mut missing = Vec::new();
        for (entry, head) in session.subs.iter_mut().zip(heads) {
            let mut lost = None;
            let mut other_history = |next: Seq| {
                lost = Some(Gap { from: next, to: 0, reason: GapReason::Epoch });
                head.first
            };
            let next = match entry.start {
                Start::Earliest => head.first,
                Start::Latest => head.last + 1,
                Start::Seq(seq) => seq.max(1),
                Start::After(epoch, seq) if epoch == head.epoch => seq + 1,
                Start::After(_, seq) => other_history(seq + 1),
                Start::Cursor => {
                    let set = device.as_deref().map(|d| &d.set);
                    match set.and_then(|set| set.get(&entry.channel, head.epoch)) {
                        Some(cursor) => {
                            entry.acked_below = true;
                            cursor.next_unacked(0)
                        }
                        None if set.is_some_and(|s| s.channels().any(|c| *c == entry.channel)) => {
                            entry.acked_below = true;
                            other_history(1)
                        }
                        // Its record went, or its history changed, between the look-up and here: rather again than
                        // never.
                        None => {
                            entry.acked_below = true;
                            missing.push((entry.channel.clone(), head.epoch, head.first));
                            head.first
                        }
                    }
                }
            };
            if let Some(gap) = lost {
                session.outlet.gap(&entry.channel, head.epoch, gap, session.outbox.control());
                self.context.counters.gaps.add(1);
                if let Some(device) = device.as_deref_mut() {
                    device.set.restart(&entry.channel, head.epoch, head.first);
                    restarted = true;
                }
            }
            entry.sub.begin(head.epoch, next, head.last);
        }
        let number = session.number;
        if let Some(device) = state.devices.get_mut(&number) {
            for (channel, epoch, first) in &missing {
                device.set.load(channel, *epoch, &Cursor::at(first.saturating_sub(1)));
            }
        }
        if restarted {
            self.device_dirty(state, number);
        }
        self.mark_dirty(state, key);
    }
}
