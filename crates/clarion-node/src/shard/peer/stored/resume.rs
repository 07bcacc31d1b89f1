//! How a stored session begins: its subscriptions enter the lists, its logs begin where their cursors stand, and what is out since
//! an earlier connection goes again, by its numbers and in its order, before anything else.
//!
//! Must not know: how packets look.

use super::give::choose;
use super::kept::{Kept, parse_kept};
use super::{FEED, FIRST_LOG, FIRST_ORPHAN, Log, Stored};
use crate::durable::Known;
use crate::retained;
use crate::sessions::{LoadedLog, Opened};
use crate::shard::deliver::list_dirty;
use crate::shard::peer::PeerState;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use bytes::Bytes;
use clarion_core::durable::commits::{Again, WindowCommits, again};
use clarion_core::durable::inbound::Inbounds;
use clarion_core::durable::subs::{Choice, Merged, StoredSub, Subs};
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::{Out, OutState, Place, Resumed, SubOptions, Verdict};
use clarion_core::port::store::ReadRange;
use clarion_core::{Address, Cursor, Message};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

/// Heads that are read at once.
const HEADS_AT_ONCE: usize = 1000;

impl Stored {
    fn new(opened: Opened, window: u32) -> (Self, Vec<Out>) {
        let Opened { guard, record, version, crashed, subs, window: out, inbound, .. } = opened;
        let mut stored = Self {
            guard,
            record,
            version,
            subs: Subs::default(),
            logs: Vec::new(),
            turn: 0,
            tails: 0,
            kept: Kept::default(),
            orphans: HashMap::new(),
            last_orphan: FIRST_ORPHAN,
            replays: Vec::new(),
            owed_dirty: false,
            behind: VecDeque::new(),
            reading: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            qos2: 0,
            resending: false,
            doubtful: if crashed { window } else { 0 },
            inbound: Inbounds::default(),
            dirty: Vec::new(),
            window_dirty: false,
            commits: WindowCommits::default(),
            listed: false,
            flight: None,
            unsure: false,
            stuck: Vec::new(),
            settling: None,
        };
        for (id, record) in inbound {
            stored.load_inbound(id, record);
        }
        let mut slots = HashMap::new();
        for (slot, sub, loaded) in subs {
            if let Some((channel, loaded)) = loaded {
                if !out.outs.is_empty() {
                    slots.insert(channel.as_str().to_owned(), slot);
                }
                stored.set_log(slot, Some(Log::loaded(channel, &loaded)));
            }
            stored.tails += usize::from(sub.tail.is_some());
            stored.subs.put(slot, sub);
        }
        let outs = out.outs.iter().filter_map(|one| {
            // Whether there is a body shows when it is read.
            if again(one.state, crashed, true) == Again::Read {
                return None;
            }
            let name = out.logs.get(one.place.log as usize)?;
            let log = match slots.get(&**name) {
                Some(slot) => slot + FIRST_LOG,
                None if parse_kept(name).is_some() => stored.kept_log(name),
                None => stored.orphan(name),
            };
            Some(Out { place: Place { log, ..one.place }, ..*one })
        });
        let outs: Vec<Out> = outs.collect();
        stored.count_outs(&outs);
        stored.load_kept(&outs);
        stored.resending = !outs.is_empty();
        (stored, outs)
    }

    fn count_outs(&mut self, outs: &[Out]) {
        for out in outs {
            self.qos2 += usize::from(out.state != OutState::AtLeastOnce);
            let slot = out.place.log.checked_sub(FIRST_LOG);
            if let Some(log) = slot.and_then(|slot| self.log(slot)) {
                log.out += 1;
                if out.state != OutState::Released {
                    log.skip.push(out.place.seq);
                }
            }
        }
    }

    /// A log's head is known: it begins where its cursor stands.
    fn begin_log(&mut self, slot: u32, turn: u16, known: Known) {
        let Some(log) = self.log(slot).filter(|log| log.turn == turn) else { return };
        if log.epoch != known.epoch {
            // Its history is another one, or its cursor is missing: rather again than never.
            log.cursor = Cursor::default();
            log.skip = Vec::new();
        }
        log.sub.begin(known.epoch, log.cursor.next_unacked(0), known.last);
        self.queue(slot);
    }
}

impl Log {
    fn loaded(channel: Address, loaded: &LoadedLog) -> Self {
        let (epoch, cursor) = loaded.cursor().unwrap_or_default();
        let mut log = Self::new(channel, cursor, 0);
        log.epoch = epoch;
        log
    }
}

impl Shard {
    /// A session that was opened begins to be read. Returns whether its user's feed is among what it has subscribed to.
    pub(in crate::shard::peer) fn begin_stored(
        self: &Rc<Self>,
        key: SessionKey,
        opened: Opened,
        window: u32,
    ) -> bool {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return false };
        let (present, crashed) = (opened.present, opened.crashed);
        let owed = opened.owed.clone();
        let (mut stored, outs) = Stored::new(opened, window);
        let slots: Vec<u32> = stored.subs.iter().map(|(slot, _)| slot).collect();
        let name = |(_, sub): (u32, &StoredSub)| {
            let share = sub.share.clone().filter(|share| **share != *FEED);
            (sub.filter.clone(), share, sub.options)
        };
        let subs = stored.subs.iter().map(name).collect();
        let resumed = Resumed { stored: true, present, subs, outs: outs.clone() };
        let verdicts = session.outlet.peer().map_or(Vec::new(), |peer| peer.resume(resumed));
        let mut feed = false;
        for (slot, verdict) in slots.iter().zip(verdicts) {
            let Some(sub) = stored.subs.get_mut(*slot) else { continue };
            match verdict {
                Verdict::Feed => feed = true,
                Verdict::Topic { check } => sub.options.check = check,
                // Each message is checked, refused, and counts as acked.
                Verdict::Gone => sub.options.check = true,
            }
        }
        self.assure_groups(&stored);
        let owed: Vec<(Box<str>, SubOptions, Option<Bytes>)> = owed
            .filters
            .into_iter()
            .map(|(filter, options, after)| {
                let behind = stored.owe_again(&filter, options, after, crashed);
                (filter, options, behind)
            })
            .collect();
        if let Some(peer) = PeerState::of(session) {
            peer.stored = Some(Box::new(stored));
            self.context.counters.stored_attached.add(1);
        }
        for slot in slots {
            self.enter_stored(state, key, slot);
        }
        self.begin_logs(state, key);
        for (filter, options, behind) in owed {
            self.owe_retained_after(state, key, filter, options, behind);
        }
        drop(guard);
        if !outs.is_empty() {
            tokio::task::spawn_local(self.clone().resend(key, outs));
        }
        feed
    }

    /// Begins the logs that have just entered the lists: at once where their heads are known.
    fn begin_logs(self: &Rc<Self>, state: &mut State, key: SessionKey) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(stored) = Stored::of(session) else { return };
        let logs: Vec<(u32, u16, Address)> = stored
            .logs
            .iter()
            .enumerate()
            .filter_map(|(slot, log)| Some((slot, log.as_ref()?)))
            .map(|(slot, log)| (slot as u32, log.turn, log.channel.clone()))
            .collect();
        let durable = &self.context.planner.durable;
        let (known, _) = durable.known(logs.iter().map(|(_, _, channel)| channel));
        let mut unknown = Vec::new();
        for ((slot, turn, channel), known) in logs.into_iter().zip(known) {
            match known {
                Some(known) => stored.begin_log(slot, turn, known),
                None => unknown.push((slot, turn, channel)),
            }
        }
        list_dirty(session, &mut state.dirty);
        if !unknown.is_empty() {
            tokio::task::spawn_local(self.clone().load_logs(key, unknown));
        }
    }

    async fn load_logs(self: Rc<Self>, key: SessionKey, mut logs: Vec<(u32, u16, Address)>) {
        while !logs.is_empty() {
            let Ok(_turn) = self.loads.acquire().await else { return };
            let rest = logs.split_off(logs.len().min(HEADS_AT_ONCE));
            let channels: Vec<Address> =
                logs.iter().map(|(_, _, channel)| channel.clone()).collect();
            let (_, asked) = self.context.planner.durable.known(channels.iter());
            let heads = self.context.store.heads(channels).await;
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let heads = match heads {
                Ok(heads) => heads,
                Err(error) => {
                    tracing::warn!(%error, "a session ends: its logs could not be read");
                    self.close_session(state, key, CloseReason::Store);
                    return self.context.mailbox.nudge();
                }
            };
            let Some(session) = state.sessions.get_mut(key) else { return };
            let Some(stored) = Stored::of(session) else { return };
            let mut again = rest;
            for ((slot, turn, channel), head) in logs.into_iter().zip(&heads) {
                match self.context.planner.durable.learn(&channel, (*head).into(), asked) {
                    Some(known) => stored.begin_log(slot, turn, known),
                    None => again.push((slot, turn, channel)),
                }
            }
            logs = again;
            list_dirty(session, &mut state.dirty);
            drop(guard);
            self.context.mailbox.nudge();
        }
    }

    /// Sends again what is out since an earlier connection, as the window of this one lets it through.
    async fn resend(self: Rc<Self>, key: SessionKey, outs: Vec<Out>) {
        for out in &outs {
            let Ok(message) = self.read_out(key, out).await else {
                self.close_session(&mut self.state.borrow_mut(), key, CloseReason::Store);
                return self.context.mailbox.nudge();
            };
            if !self.has_place_again(key).await {
                return;
            }
            self.send_again(&mut self.state.borrow_mut(), key, out, message);
            self.context.mailbox.nudge();
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        if let Some(stored) = Stored::of(session) {
            stored.resending = false;
        }
        self.list_stored(state, key);
        self.mark_dirty(state, key);
        drop(guard);
        self.context.mailbox.nudge();
    }

    /// Waits for a place in the window and room in the outbox. `false` when the session has ended.
    async fn has_place_again(&self, key: SessionKey) -> bool {
        while self.has_room(key).await {
            let room = {
                let mut state = self.state.borrow_mut();
                let Some(session) = state.sessions.get_mut(key) else { return false };
                if session.credit != Some(0) {
                    return true;
                }
                let Some(peer) = PeerState::of(session) else { return false };
                peer.room.clone()
            };
            room.notified().await;
        }
        false
    }

    /// What is out under a number, whatever its life; `None` = it is gone.
    async fn read_out(&self, key: SessionKey, out: &Out) -> Result<Option<Message>, ()> {
        if out.state == OutState::Released {
            return Ok(None);
        }
        let name = {
            let mut state = self.state.borrow_mut();
            let stored = state.sessions.get_mut(key).and_then(Stored::of);
            stored.and_then(|stored| stored.log_name(out.place.log).map(str::to_owned))
        };
        let Some(name) = name else { return Ok(None) };
        let failed =
            |error| tracing::warn!(%error, "a session ends: what is out could not be read");
        if let Some(message) = retained::of_name(&name) {
            let found =
                self.context.store.records(message.clone(), None, 1).await.map_err(failed)?;
            let found = found.into_iter().find(|found| found.key == message);
            return Ok(found.and_then(|found| retained::decode(found.value)));
        }
        let kept = parse_kept(&name).map(|(_, channel)| channel);
        let Some(channel) = kept.or_else(|| Address::parse_any(&name).ok()) else {
            return Ok(None);
        };
        let Place { epoch, seq, .. } = out.place;
        let range = ReadRange {
            channel,
            from: seq,
            to: seq,
            backwards: false,
            count: 1,
            bytes: usize::MAX,
        };
        // At the beginning of time nothing has expired.
        let pages = self.context.store.read(0, vec![range]).await.map_err(failed)?;
        let page = pages.into_iter().next().unwrap_or_default();
        Ok(page.messages.into_iter().next().filter(|_| page.head.epoch == epoch))
    }

    fn send_again(&self, state: &mut State, key: SessionKey, out: &Out, message: Option<Message>) {
        let giving = self.giving(state);
        let Some(session) = state.sessions.get_mut(key) else { return };
        if session.closing.is_some() {
            return;
        }
        session.credit = session.credit.map(|credit| credit.saturating_sub(1));
        if out.state == OutState::Released {
            let Session { outlet, outbox, .. } = session;
            if let Some(peer) = outlet.peer() {
                peer.released(out.number, outbox.control());
            }
            return list_dirty(session, &mut state.dirty);
        }
        let qos = if out.state == OutState::AtLeastOnce { 1 } else { 2 };
        let given = message.is_some_and(|message| {
            let way = self.way_again(session, out.place, &message);
            giving.put_log(session, &message, &way, qos, (Some(out.place), Some(out.number), true))
        });
        if !given {
            self.lose(session, out);
        }
        list_dirty(session, &mut state.dirty);
        self.list_stored(state, key);
    }

    fn way_again(&self, session: &mut Session, place: Place, message: &Message) -> Merged {
        let plain = Merged { qos: 2, retain_as_published: true, check: false, ids: Vec::new() };
        let by = |options: SubOptions| Merged {
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            check: options.check,
            ids: options.ids().to_vec(),
        };
        let slot = place.log.checked_sub(FIRST_LOG).filter(|_| place.log < FIRST_ORPHAN);
        let Some(slot) = slot else {
            let kept = Stored::of(session).and_then(|stored| stored.kept_options(place));
            return kept.map_or(plain, by);
        };
        match choose(session, slot, message) {
            Choice::Give(way) => way,
            Choice::Elsewhere => {
                let sub = Stored::of(session).and_then(|stored| stored.subs.get(slot));
                sub.map_or(plain, |sub| by(sub.options))
            }
        }
    }

    /// What is out has no body any more, or may not be had: a QoS 2 number is closed, never silently used again.
    fn lose(&self, session: &mut Session, out: &Out) {
        let exactly_once = session.outlet.peer().and_then(|peer| peer.lose(out.number));
        match exactly_once {
            Some(true) => {
                if let Some(stored) = Stored::of(session) {
                    stored.commits.received(out.number);
                    stored.window_dirty = true;
                }
            }
            Some(false) => {
                session.credit = session.credit.map(|credit| credit.saturating_add(1));
                if let Some(stored) = Stored::of(session) {
                    stored.over(out.place);
                }
            }
            None => {}
        }
    }
}
