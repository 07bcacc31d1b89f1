//! What gates are owed: after a REQUEST, after a new gate came, or since there was no room when it was pushed.
//!
//! Invariants: a page acks only what it was read for and did not hold; a channel's messages are given in order; what is owed is a range of seqs, never messages, so a gate that
//! does not read costs a bounded memory; a gate has one read under way. Must not know: how a gate's frames look.

use crate::clock;
use crate::shard::deliver::{list_dirty, make_room, put};
use crate::shard::members::member_of;
use crate::shard::session::Role;
use crate::shard::written::{Sent, note_sent};
use crate::shard::{SessionKey, Shard, State};
use clarion_core::gate_channel::GateChannel;
use clarion_core::port::outlet::Given;
use clarion_core::port::store::{Page, ReadRange, StoreError};
use clarion_core::{Address, Seq};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Messages of one channel that a REQUEST left out and that are remembered.
const SKIPPED_MAX: usize = 1024;
/// Channels that are read at once for one gate.
const CHANNELS_A_READ: usize = 32;

/// A range of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    next: Seq,
    until: Seq,
    /// Only what nobody else may still answer.
    parked_only: bool,
}

/// What one gate is owed.
#[derive(Default)]
pub(super) struct Owing {
    queue: VecDeque<Address>,
    ranges: HashMap<Address, Range>,
    reading: bool,
    listed: bool,
}

impl Owing {
    /// Whether something of this channel is owed: newer messages wait behind it.
    pub(in crate::shard) fn owes(&self, channel: &Address) -> bool {
        !self.ranges.is_empty() && self.ranges.contains_key(channel)
    }

    fn add(&mut self, channel: &Address, range: Range) {
        match self.ranges.get_mut(channel) {
            Some(known) => {
                known.next = known.next.min(range.next);
                known.until = known.until.max(range.until);
                known.parked_only &= range.parked_only;
            }
            None => {
                self.ranges.insert(channel.clone(), range);
                self.queue.push_back(channel.clone());
            }
        }
    }

    /// Everything up to `through` of this channel was given or passed over.
    fn passed(&mut self, channel: &Address, through: Seq) {
        if let Some(range) = self.ranges.get_mut(channel) {
            range.next = range.next.max(through + 1);
            if range.next > range.until {
                self.ranges.remove(channel);
                // What is read stands near the front.
                let at = self.queue.iter().position(|queued| queued == channel);
                at.and_then(|at| self.queue.remove(at));
            }
        }
    }
}

impl Shard {
    /// Owes a gate a range of a channel.
    pub(in crate::shard) fn owe(
        &self,
        state: &mut State,
        key: SessionKey,
        channel: &Address,
        (next, until): (Seq, Seq),
        parked_only: bool,
    ) {
        let bound = self.context.config.gate_channels;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Role::Gate(gate) = &mut session.role else { return };
        if next > until {
            return;
        }
        // Beyond the bound it comes with a later REQUEST.
        if gate.owing.ranges.len() >= bound && !gate.owing.owes(channel) {
            self.context.counters.gate_owed_too_much.add(1);
            return;
        }
        gate.owing.add(channel, Range { next, until, parked_only });
        self.gate_ready(state, key);
    }

    /// A new gate gets what nobody is left to answer, or was silent about.
    pub(in crate::shard) fn owe_parked(&self, state: &mut State, key: SessionKey) {
        let silent = self.silent_before();
        let mut owed = Vec::new();
        for (channel, entry) in &state.gates.channels {
            let Some(of) = &entry.state else { continue };
            let parked = of.parked(0, silent);
            if let (Some(first), Some(last)) = (parked.first(), parked.last()) {
                owed.push((channel.clone(), (*first, *last)));
            }
        }
        for (channel, range) in owed {
            self.owe(state, key, &channel, range, true);
        }
    }

    /// Hand-outs before this moment that nobody answered count as parked.
    fn silent_before(&self) -> u64 {
        self.mono().saturating_sub(self.context.config.gate_patience.as_millis() as u64)
    }

    /// A gate asks for everything unacked above a number.
    pub(in crate::shard) fn request(
        &self,
        state: &mut State,
        key: SessionKey,
        channel: &Address,
        above: u32,
    ) {
        let Some(of) = state.gates.channels.get(channel).and_then(|entry| entry.state.as_ref())
        else {
            return;
        };
        let after = match above {
            0 => Some(0),
            above => of.seq_of(above),
        };
        // Above a number that was never given out there is nothing.
        let Some(after) = after else { return };
        let range = (of.cursor().next_unacked(after + 1), of.head());
        self.owe(state, key, channel, range, false);
    }

    /// Lists a gate that may take what it is owed.
    pub(in crate::shard) fn gate_ready(&self, state: &mut State, key: SessionKey) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Role::Gate(gate) = &mut session.role else { return };
        if !gate.owing.ranges.is_empty() && !std::mem::replace(&mut gate.owing.listed, true) {
            state.gates.ready.push(key);
            self.context.mailbox.nudge();
        }
    }

    /// Begins reads for gates that are owed something and have room.
    pub(in crate::shard) fn begin_replays(self: &Rc<Self>) {
        self.begin_gate_loads();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.gates.ready) {
            let config = &self.context.config;
            let Some(session) = state.sessions.get_mut(key) else { continue };
            let half = session.outbox.has_room(
                config.outbox_bytes / 2,
                config.outbox_bytes,
                config.outbox_messages.div_ceil(2),
            );
            let closing = session.closing.is_some();
            let Role::Gate(gate) = &mut session.role else { continue };
            gate.owing.listed = false;
            if gate.owing.reading || !half || closing {
                continue;
            }
            let ranges = self.ranges_of(&gate.owing);
            if !ranges.is_empty() {
                gate.owing.reading = true;
                tokio::task::spawn_local(self.clone().read_owed(key, ranges));
            }
        }
    }

    fn ranges_of(&self, owing: &Owing) -> Vec<ReadRange> {
        let config = &self.context.config;
        let count = owing.queue.len().min(CHANNELS_A_READ);
        let bytes = config.page_bytes.min(config.outbox_bytes) / count.max(1);
        let channels = owing.queue.iter().take(count);
        channels
            .filter_map(|channel| {
                let range = owing.ranges.get(channel)?;
                Some(ReadRange {
                    channel: channel.clone(),
                    from: range.next,
                    to: range.until,
                    backwards: false,
                    count: config.page_messages,
                    bytes,
                })
            })
            .collect()
    }

    async fn read_owed(self: Rc<Self>, key: SessionKey, ranges: Vec<ReadRange>) {
        let read: Vec<(Address, Seq)> =
            ranges.iter().map(|range| (range.channel.clone(), range.from)).collect();
        let pages = self.context.store.read(clock::now(), ranges).await;
        self.context.counters.pages.add(1);
        self.owed_read(key, read, pages);
        self.context.mailbox.nudge();
    }

    fn owed_read(
        &self,
        key: SessionKey,
        read: Vec<(Address, Seq)>,
        pages: Result<Vec<Page>, StoreError>,
    ) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Role::Gate(gate) = &mut session.role else { return };
        gate.owing.reading = false;
        let pages = match pages {
            Ok(pages) => pages,
            Err(error) => {
                tracing::debug!(%error, "what a gate is owed could not be read");
                state.retry.push(key);
                return;
            }
        };
        for ((channel, from), page) in read.iter().zip(&pages) {
            if !self.give_owed(state, key, channel, (*from, page)) {
                break;
            }
        }
        self.mark_dirty(state, key);
    }

    /// Gives a gate a page of a channel. Returns whether it may take more.
    fn give_owed(
        &self,
        state: &mut State,
        key: SessionKey,
        channel: &Address,
        (from, page): (Seq, &Page),
    ) -> bool {
        // What has left is not on the way any more: the gate may ask for it again.
        self.check_written(state, key);
        let (mono, now, silent) = (self.mono(), clock::now(), self.silent_before());
        let State { gates, sessions, frames, dirty, writing, timers, .. } = state;
        let Some(session) = sessions.get_mut(key) else { return false };
        let entry = gates.channels.get_mut(channel);
        let known = entry.and_then(|entry| Some((entry.state.as_mut()?, &mut entry.skipped)));
        let on_the_way =
            session.written.as_ref().map(|w| w.on_the_way(channel)).unwrap_or_default();
        let Role::Gate(gate) = &mut session.role else { return false };
        let Some(range) = gate.owing.ranges.get(channel).copied() else { return true };
        if range.next != from {
            // More was owed while this was read: the page says nothing of what lies before it.
            return true;
        }
        let Some((of, skipped)) = known else {
            // Forgotten meanwhile: it comes when the cursor is read again.
            state.gates.channels.entry(channel.clone()).or_default();
            self.load_soon(state, channel);
            return true;
        };
        if of.epoch() != page.head.epoch {
            // What was owed is of a history that is gone.
            gate.owing.passed(channel, range.until);
            return true;
        }
        let parked = if range.parked_only { of.parked(0, silent) } else { Vec::new() };
        let through = looked_through(&range, page);
        for message in &page.messages {
            // What this gate has answered has arrived, whatever is known of its bytes.
            let coming =
                on_the_way.contains(&message.seq) && of.waits_for(message.seq, member_of(key));
            if coming && !range.parked_only && skipped.len() < SKIPPED_MAX {
                skipped.push((key, message.seq));
            }
            let skip = of.cursor().is_acked(message.seq)
                || coming
                || (range.parked_only && parked.binary_search(&message.seq).is_err());
            if skip {
                continue;
            }
            frames.reset();
            let frame = frames.get(&*session.outlet, message);
            if frame.len() > self.context.config.gate_message_bytes {
                continue;
            }
            if !make_room(session, frame.len(), &self.context, timers.now()) {
                let Role::Gate(gate) = &mut session.role else { return false };
                gate.owing.passed(channel, message.seq - 1);
                return false;
            }
            let start = message.seq;
            put(session, Given { message, start, attempt: 1, replayed: true, now }, frame);
            note_sent(session, Sent::Gate(channel.clone(), message.seq), writing);
            let before = of.pending();
            of.hand_out(message.seq, &[member_of(key)], mono);
            gates.pending += of.pending() - before;
            list_dirty(session, dirty);
            self.context.counters.delivered.add(1);
        }
        let Role::Gate(gate) = &mut session.role else { return false };
        gate.owing.passed(channel, through);
        state.gates.pending -=
            ack_what_is_gone(of, page, (range.next, through.min(range.until).min(page.head.last)));
        self.gate_dirty(state, channel);
        true
    }
}

/// Up to where a page tells what there is of a range.
fn looked_through(range: &Range, page: &Page) -> Seq {
    let through = page.through.max(range.next.saturating_sub(1));
    if !page.messages.is_empty() || page.through >= range.next {
        return through;
    }
    // Trimmed, or nothing is there any more.
    if page.head.first > range.until || page.head.last < range.next {
        return range.until;
    }
    page.head.first.saturating_sub(1).max(through)
}

/// What has expired, or was erased or trimmed, counts as acked. Returns how many hand-outs of it were remembered.
fn ack_what_is_gone(of: &mut GateChannel, page: &Page, (from, to): (Seq, Seq)) -> usize {
    let there: HashSet<Seq> = page.messages.iter().map(|message| message.seq).collect();
    let before = of.pending();
    for seq in (from..=to).filter(|seq| !there.contains(seq)) {
        of.received(seq);
    }
    before - of.pending()
}
