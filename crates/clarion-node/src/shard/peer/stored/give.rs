//! What a stored session is given of its logs: hints while it is live, QoS 2 in two steps.
//!
//! Invariants: a message goes through one of a session's subscriptions and counts as acked in the logs of the others; what has no
//! room is read later. Must not know: how packets look.

use super::{Held, Log, Stored, place_of};
use crate::clock;
use crate::shard::deliver::{SHARE_ABOVE, list_dirty, make_outbox_room};
use crate::shard::live::LogEntry;
use crate::shard::peer::PeerState;
use crate::shard::peer::give::Giving;
use crate::shard::session::Session;
use crate::shard::{Shard, State};
use clarion_core::durable::subs::{Choice, Merged};
use clarion_core::port::peer::{Delivery, Gave, Place};
use clarion_core::subscription::Hint;
use clarion_core::{Address, Epoch, Message, Millis, Seq};
use std::sync::Arc;

/// What became of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done with: given, or counts as acked.
    Done,
    /// There is no room.
    Full,
}

/// How a message goes out through a log's subscription.
pub(super) fn choose(session: &mut Session, slot: u32, message: &Message) -> Choice {
    let Some(peer) = PeerState::of(session) else { return Choice::Elsewhere };
    let own = is_own(peer, message);
    let Some(stored) = &peer.stored else { return Choice::Elsewhere };
    stored.subs.choose(slot, message.channel.id(), message.created_at, own)
}

/// The same for what was read from the store, which may be ahead of what was told here; `None` = that is to be waited for.
pub(super) fn choose_told(
    session: &mut Session,
    slot: u32,
    message: &Message,
    told: Millis,
) -> Option<Choice> {
    let Some(peer) = PeerState::of(session) else { return Some(Choice::Elsewhere) };
    let own = is_own(peer, message);
    let Some(stored) = &peer.stored else { return Some(Choice::Elsewhere) };
    stored.subs.choose_told(slot, message.channel.id(), message.created_at, own, told)
}

fn is_own(peer: &PeerState, message: &Message) -> bool {
    let sender = message.content.sender.as_ref();
    sender.and_then(|sender| sender.device.as_deref()) == Some(&*peer.client)
}

impl Giving<'_> {
    /// Whether a delivery of this QoS has room.
    pub(in crate::shard::peer) fn has_log_room(
        &self,
        session: &mut Session,
        qos: u8,
        size: usize,
    ) -> bool {
        if qos > 0 && session.credit == Some(0) {
            return false;
        }
        let bytes_max = self.context.config.outbox_bytes;
        let Some(stored) = Stored::of(session) else { return false };
        if stored.resending {
            return false;
        }
        if qos == 2 && stored.is_full(size, bytes_max) {
            return false;
        }
        // What is held goes into the outbox, too.
        let held = if qos == 2 { stored.held_bytes } else { 0 };
        make_outbox_room(session, held + size, self.context, self.tick)
    }

    /// Gives what has room. Returns whether it went out, or will.
    pub(super) fn give_log(
        &self,
        session: &mut Session,
        slot: u32,
        message: &Arc<Message>,
        way: Merged,
    ) -> bool {
        let place = place_of(slot, message);
        let qos = way.qos.min(message.content.qos);
        let given = if qos == 2 {
            self.hold(session, place, message, way)
        } else {
            let dup = qos == 1 && takes_doubt(session, message, self.started);
            self.put_log(session, message, &way, qos, (Some(place), None, dup))
        };
        let Some(stored) = Stored::of(session) else { return false };
        match stored.log(slot) {
            Some(log) if given && qos > 0 => log.out += 1,
            // Without a number nobody acks it.
            _ => stored.ack(slot, message.seq),
        }
        given
    }

    /// Holds a QoS 2 delivery until its number is committed.
    pub(in crate::shard::peer) fn hold(
        &self,
        session: &mut Session,
        place: Place,
        message: &Arc<Message>,
        way: Merged,
    ) -> bool {
        let Some(number) = session.outlet.peer().and_then(|peer| peer.hold(place)) else {
            return false;
        };
        session.credit = session.credit.map(|credit| credit.saturating_sub(1));
        let Some(stored) = Stored::of(session) else { return false };
        stored.qos2 += 1;
        stored.held_bytes += message.content.payload.len();
        stored.window_dirty = true;
        stored.commits.held(number);
        stored.held.push_back(Held { number, place, message: message.clone(), way });
        true
    }

    /// Puts a delivery into the outbox, with its place, its number if it has one, and whether it may have been sent before.
    pub(in crate::shard::peer) fn put_log(
        &self,
        session: &mut Session,
        message: &Message,
        way: &Merged,
        qos: u8,
        (place, number, dup): (Option<Place>, Option<u16>, bool),
    ) -> bool {
        let Session { outlet, outbox, credit, .. } = session;
        let Some(peer) = outlet.peer() else { return false };
        let delivery = Delivery {
            message,
            qos,
            retain: way.retain_as_published && message.content.retain,
            ids: &way.ids,
            check: way.check,
            place: place.filter(|_| qos > 0),
            number,
            dup,
            now: self.now,
        };
        if peer.give(delivery, outbox.control()) == Gave::Passed {
            return false;
        }
        let payload = &message.content.payload;
        if payload.len() > SHARE_ABOVE {
            outbox.begin_message();
            outbox.share(payload.clone());
        } else {
            outbox.begin_message().extend_from_slice(payload);
        }
        if qos > 0 && number.is_none() {
            *credit = credit.map(|credit| credit.saturating_sub(1));
        }
        true
    }
}

/// After a crash nobody knows what was sent: as many as may have been out are marked so.
fn takes_doubt(session: &mut Session, message: &Message, started: u64) -> bool {
    let Some(stored) = Stored::of(session) else { return false };
    if stored.doubtful == 0 || message.created_at >= started {
        return false;
    }
    stored.doubtful -= 1;
    true
}

impl Shard {
    pub(in crate::shard::peer) fn giving(&self, state: &State) -> Giving<'_> {
        Giving {
            context: &self.context,
            tick: state.timers.now(),
            now: clock::now(),
            started: self.started,
        }
    }

    /// A committed record: to every stored session that reads its log.
    pub(in crate::shard) fn deliver_log(
        &self,
        state: &mut State,
        log: &Address,
        message: &Arc<Message>,
    ) {
        if state.live.get(log).is_none_or(|live| live.logs.is_empty()) {
            return;
        }
        let giving = self.giving(state);
        let State { live, sessions, dirty, stored_touched, .. } = state;
        let Some(live) = live.get(log) else { return };
        let (mut delivered, mut behind) = (0, 0);
        for &LogEntry { session, slot } in &live.logs {
            let Some(session) = sessions.at_mut(session) else { continue };
            if session.closing.is_some() {
                continue;
            }
            match hint(&giving, session, slot, message) {
                Some(Hint::Deliver) => delivered += 1,
                Some(Hint::Behind) => behind += 1,
                _ => {}
            }
            list_dirty(session, dirty);
            let key = session.key;
            if let Some(stored) = Stored::of(session)
                && (stored.commits.wants() || stored.has_unwritten() && !stored.listed)
            {
                stored_touched.push(key);
            }
        }
        self.context.counters.delivered.add(delivered);
        self.context.counters.behind.add(behind);
        for key in std::mem::take(&mut state.stored_touched) {
            self.list_stored(state, key);
        }
    }

    /// A log has grown up to here, and its records did not fit into the mailbox.
    pub(in crate::shard) fn raise_logs(
        &self,
        state: &mut State,
        log: &Address,
        epoch: Epoch,
        seq: Seq,
    ) {
        let State { live, sessions, dirty, .. } = state;
        let Some(live) = live.get(log) else { return };
        for entry in &live.logs {
            let Some(session) = sessions.at_mut(entry.session) else { continue };
            if let Some(stored) = Stored::of(session)
                && let Some(log) = stored.log(entry.slot)
                && log.sub.hint(epoch, seq, false, false) == Hint::Behind
            {
                stored.queue(entry.slot);
                list_dirty(session, dirty);
            }
        }
    }
}

/// One session is told of a record of one of its logs.
fn hint(
    giving: &Giving<'_>,
    session: &mut Session,
    slot: u32,
    message: &Arc<Message>,
) -> Option<Hint> {
    let log: &mut Log = Stored::of(session)?.log(slot)?;
    let (epoch, seq) = (message.epoch, message.seq);
    if !log.sub.is_live() {
        return Some(log.sub.hint(epoch, seq, false, false));
    }
    let done = log.is_done(seq);
    let way = if done { Choice::Elsewhere } else { choose(session, slot, message) };
    let room = match &way {
        Choice::Elsewhere => true,
        Choice::Give(way) => {
            let qos = way.qos.min(message.content.qos);
            giving.has_log_room(session, qos, message.content.payload.len())
        }
    };
    let stored = Stored::of(session)?;
    let hint = stored.log(slot)?.sub.hint(epoch, seq, false, room);
    match (hint, way) {
        (Hint::Deliver, Choice::Give(way)) => {
            let out = giving.give_log(session, slot, message, way);
            Some(if out { Hint::Deliver } else { Hint::Ignore })
        }
        (Hint::Deliver, Choice::Elsewhere) => {
            stored.ack(slot, seq);
            Some(Hint::Ignore)
        }
        (Hint::Behind, _) => {
            stored.queue(slot);
            Some(Hint::Behind)
        }
        (Hint::Ignore, _) => Some(Hint::Ignore),
    }
}
