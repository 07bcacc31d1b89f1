//! A stream's inputs on its shard.
//!
//! Invariant: an input of a session that has ended does nothing. Must not know: where inputs come from.

use super::confirm::{FINISH, Unwritten};
use super::deliver::put;
use super::members::{SharedKey, member_of};
use super::session::{Role, Session};
use super::written::{Sent, note_sent};
use super::{SessionKey, Shard, State};
use crate::clock;
use crate::input::{Input, InputBatch};
use clarion_core::port::outlet::{CloseReason, Given};
use clarion_core::port::store::ReadRange;
use clarion_core::{Address, Epoch, Message, Seq};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Messages of one stream that wait to be given again.
const AGAIN_MAX: usize = 1024;

/// What one session gave back.
#[derive(Default)]
pub(super) struct Nacks {
    /// Messages that wait for their time, or for credit.
    waiting: usize,
    /// Those that wait for their time; they end with the session.
    tasks: JoinSet<()>,
    /// Those that wait for credit.
    held: Vec<Again>,
    /// How often those that came again were given; the oldest are forgotten.
    attempts: BTreeMap<(u16, Seq), u32>,
}

impl Nacks {
    fn count(&mut self, what: (u16, Seq), attempt: u32) {
        self.attempts.insert(what, attempt);
        if self.attempts.len() > AGAIN_MAX {
            self.attempts.pop_first();
        }
    }
}

/// A message that was given back and comes again.
struct Again {
    session: SessionKey,
    sub: u16,
    epoch: Epoch,
    seq: Seq,
    attempt: u32,
}

/// The session ends with the confirmation of its acks.
fn finishing(state: &mut State, key: SessionKey) {
    if let Some(session) = state.sessions.get_mut(key) {
        session.finishing = true;
    }
}

/// The subscription that an input means.
fn sub_of(session: &Session, channel: Option<&Address>) -> Option<usize> {
    match channel {
        Some(channel) => session.subs.iter().position(|entry| entry.channel == *channel),
        None if session.subs.len() == 1 => Some(0),
        None => None,
    }
}

impl Shard {
    /// A client says something. Before its session is open that waits, bounded by how much may be on its way.
    pub(super) fn hear(self: &Rc<Self>, key: SessionKey, batch: InputBatch) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        if !session.opened {
            if session.early.is_empty() {
                state.early.push(key);
            }
            session.early.push(batch);
            return;
        }
        drop(guard);
        self.handle_inputs(key, batch.inputs);
    }

    /// Sessions that have opened are heard.
    pub(super) fn hear_early(self: &Rc<Self>) {
        let early = std::mem::take(&mut self.state.borrow_mut().early);
        for key in early {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let Some(session) = state.sessions.get_mut(key) else { continue };
            if !session.opened {
                state.early.push(key);
                continue;
            }
            let batches = std::mem::take(&mut session.early);
            drop(guard);
            for batch in batches {
                self.handle_inputs(key, batch.inputs);
            }
        }
    }

    fn handle_inputs(self: &Rc<Self>, key: SessionKey, inputs: Vec<Input>) {
        for input in inputs {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let Some(session) = state.sessions.get_mut(key) else { return };
            match session.role {
                Role::Member(shared) => self.member_says(state, key, shared, input),
                _ => self.reader_says(state, key, input),
            }
        }
    }

    fn member_says(
        self: &Rc<Self>,
        state: &mut State,
        key: SessionKey,
        shared: SharedKey,
        input: Input,
    ) {
        let foreign = |channel: &Option<Address>, state: &mut State| {
            let own = state.shared.get_mut(shared).map(|of| of.plan.channel.clone());
            channel.is_some() && *channel != own
        };
        match input {
            Input::Credit(more) => self.grant(state, key, more),
            Input::Ack { channel, epoch, from, to } => {
                if !foreign(&channel, state) {
                    let from = if from == 0 { to } else { from };
                    self.ack_shared(state, shared, member_of(key), epoch, (from, to));
                }
            }
            Input::Nack { channel, epoch, seq, delay_ms } => {
                if !foreign(&channel, state) {
                    self.nack_shared(state, shared, member_of(key), (epoch, seq), delay_ms);
                }
            }
            // The edge knows no such confirmation.
            Input::Confirm(FINISH) => {}
            Input::Confirm(number) => self.confirm_shared(state, shared, key, number),
            Input::Finish => {
                finishing(state, key);
                self.confirm_shared(state, shared, key, FINISH);
            }
        }
    }

    fn reader_says(self: &Rc<Self>, state: &mut State, key: SessionKey, input: Input) {
        match input {
            Input::Credit(more) => self.grant(state, key, more),
            Input::Ack { channel, epoch, from, to } => {
                let from = if from == 0 { to } else { from };
                self.ack_own(state, key, channel.as_ref(), (epoch, from, to));
            }
            Input::Nack { channel, epoch, seq, delay_ms } => {
                let session = state.sessions.get_mut(key);
                let again = session.and_then(|of| nacked(of, key, channel.as_ref(), epoch, seq));
                if let Some(again) = again {
                    self.give_again_later(state, again, delay_ms);
                }
            }
            Input::Confirm(FINISH) => {}
            Input::Confirm(number) => self.confirm_own(state, key, number),
            Input::Finish => {
                finishing(state, key);
                self.confirm_own(state, key, FINISH);
            }
        }
    }

    fn grant(self: &Rc<Self>, state: &mut State, key: SessionKey, more: u32) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        session.credit = session.credit.map(|credit| credit.saturating_add(more));
        if let Some(nacks) = &mut session.nacks {
            for again in std::mem::take(&mut nacks.held) {
                nacks.tasks.spawn_local(self.clone().give_again(again, Instant::now()));
            }
        }
        if let Role::Member(shared) = session.role {
            self.shared_ready(state, shared);
        }
        self.mark_dirty(state, key);
    }

    pub(super) fn ack_own(
        &self,
        state: &mut State,
        key: SessionKey,
        channel: Option<&Address>,
        (epoch, from, to): (Epoch, Seq, Seq),
    ) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(at) = sub_of(session, channel) else { return };
        let (entry, number) = (&session.subs[at], session.number);
        let epoch = if epoch == 0 { entry.sub.epoch() } else { epoch };
        // What was never given cannot be acked.
        let to = to.min(entry.sub.next().saturating_sub(1));
        let Some(device) = state.devices.get_mut(&number) else { return };
        if !device.set.ack(&entry.channel, epoch, from, to) {
            return;
        }
        self.context.counters.acks.add(1);
        self.device_dirty(state, number);
        // The window of every session of this device may have moved.
        let user = state.sessions.get_mut(key).and_then(|session| session.user.clone());
        let keys = user.and_then(|user| state.users.get(&user).cloned()).unwrap_or_default();
        for key in keys {
            self.mark_dirty(state, key);
        }
    }

    pub(super) fn confirm_own(&self, state: &mut State, key: SessionKey, number: u64) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let at_once = match state.devices.get_mut(&session.number) {
            None => true,
            Some(device) => {
                let unwritten = match (device.set.is_dirty(), device.set.is_clean()) {
                    (true, _) => Unwritten::Dirty,
                    (false, false) => Unwritten::UnderWay,
                    (false, true) => Unwritten::Nothing,
                };
                device.confirms.ask(key, number, unwritten)
            }
        };
        if at_once {
            self.confirm(state, key, number);
        } else {
            state.timers.acks_now();
        }
    }

    fn give_again_later(self: &Rc<Self>, state: &mut State, again: Again, delay_ms: u64) {
        let Some(session) = state.sessions.get_mut(again.session) else { return };
        let nacks = session.nacks.get_or_insert_default();
        if nacks.waiting >= AGAIN_MAX {
            return self.close_session(state, again.session, CloseReason::TooManyNacks);
        }
        nacks.waiting += 1;
        while nacks.tasks.try_join_next().is_some() {}
        let at = Instant::now() + Duration::from_millis(delay_ms);
        nacks.tasks.spawn_local(self.clone().give_again(again, at));
    }

    async fn give_again(self: Rc<Self>, again: Again, at: Instant) {
        tokio::time::sleep_until(at).await;
        let channel = {
            let mut state = self.state.borrow_mut();
            let Some(session) = state.sessions.get_mut(again.session) else { return };
            session.subs[usize::from(again.sub)].channel.clone()
        };
        let range = ReadRange {
            channel,
            from: again.seq,
            to: again.seq,
            backwards: false,
            count: 1,
            bytes: usize::MAX,
        };
        let read = self.context.store.read(clock::now(), vec![range]).await;
        let message = read.ok().and_then(|pages| pages.into_iter().next());
        let message = message.and_then(|page| page.messages.into_iter().next());
        self.gave_again(again, message.as_ref());
        self.context.mailbox.nudge();
    }

    /// Gives a message again, whatever room its outbox has: as many as may come again are bounded. Without credit it
    /// waits for that.
    fn gave_again(&self, again: Again, message: Option<&Message>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(again.session) else { return };
        let nacks = session.nacks.get_or_insert_default();
        if session.credit == Some(0) {
            return nacks.held.push(again);
        }
        nacks.waiting -= 1;
        let Some(message) = message.filter(|message| message.epoch == again.epoch) else { return };
        let acked = state.devices.get(&session.number).is_some_and(|device| {
            device.set.is_acked(&message.channel, message.epoch, message.seq)
        });
        if acked || session.closing.is_some() {
            return;
        }
        nacks.count((again.sub, again.seq), again.attempt);
        state.frames.reset();
        let frame = state.frames.get(&*session.outlet, message);
        let start = session.subs[usize::from(again.sub)].given_from();
        let given =
            Given { message, start, attempt: again.attempt, replayed: true, now: clock::now() };
        put(session, given, frame);
        note_sent(session, Sent::Sub(again.sub, again.seq), &mut state.writing);
        self.context.counters.delivered.add(1);
        self.mark_dirty(state, again.session);
    }
}

/// What a nack of a session's own subscription means; `None` when it was never given.
fn nacked(
    session: &Session,
    key: SessionKey,
    channel: Option<&Address>,
    epoch: Epoch,
    seq: Seq,
) -> Option<Again> {
    let at = sub_of(session, channel)?;
    let entry = &session.subs[at];
    let epoch = if epoch == 0 { entry.sub.epoch() } else { epoch };
    let given = epoch == entry.sub.epoch() && (entry.sub.start()..entry.sub.next()).contains(&seq);
    let known = session.nacks.as_ref().and_then(|nacks| nacks.attempts.get(&(at as u16, seq)));
    let before = known.copied().unwrap_or(1);
    given.then_some(Again { session: key, sub: at as u16, epoch, seq, attempt: before + 1 })
}
