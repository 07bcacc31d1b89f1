//! Sessions: how one begins, is listed, and ends.
//!
//! Invariant: a session is in the live list of each of its channels from before their heads are read until it ends.

use super::gates::GateSession;
use super::input::Nacks;
use super::link::{LinkState, watch};
use super::live::LiveEntry;
use super::members::SharedKey;
use super::outbox::Outbox;
use super::peer::PeerState;
use super::voice::Voice;
use super::written::Written;
use super::{SessionKey, Shard, State};
use crate::attach::{Acks, Attach, Start};
use crate::clock;
use crate::config::NodeConfig;
use crate::input::InputBatch;
use crate::pipe::End;
use clarion_core::port::outlet::CloseReason;
use clarion_core::subscription::Subscription;
use clarion_core::{Address, Code, Millis, Refusal, Seq};
use std::rc::Rc;
use std::sync::Arc;

/// One channel of a session.
pub(super) struct SubEntry {
    pub(super) channel: Address,
    pub(super) start: Start,
    pub(super) sub: Subscription,
    /// Tells this subscription from an earlier one at the same place.
    pub(super) turn: u16,
    /// The device has acked everything below where this subscription began, so its tokens ack that too: an ack that a
    /// crash forgot comes back with them.
    pub(super) acked_below: bool,
}

impl SubEntry {
    /// One that enters the live list now.
    pub(super) fn entering(channel: Address, start: Start, turn: u16) -> Self {
        Self { channel, start, sub: Subscription::entering(), turn, acked_below: false }
    }

    /// The first seq that a cumulative ack of what was given covers.
    pub(super) fn given_from(&self) -> Seq {
        if self.acked_below { 1 } else { self.sub.start() }
    }
}

/// What a session is beside its subscriptions.
pub(super) enum Role {
    /// Nothing more.
    Reader,
    /// A member of a shared cursor.
    Member(SharedKey),
    /// A gate.
    Gate(Box<GateSession>),
    /// Who talks both ways.
    Peer(Box<PeerState>),
}

/// One live connection.
pub(super) struct Session {
    pub(super) key: SessionKey,
    pub(super) user: Option<Arc<str>>,
    device: Option<Arc<str>>,
    /// Number of its durable reader; 0 = none.
    pub(super) number: u64,
    pub(super) subs: Box<[SubEntry]>,
    pub(super) role: Role,
    pub(super) acks: Acks,
    /// Deliveries that the client takes before it grants more.
    pub(super) credit: Option<u32>,
    /// What is not certainly written yet, where somebody needs to know.
    pub(super) written: Option<Box<Written>>,
    /// What its client said before it was open: what it acks is not known yet.
    pub(super) early: Vec<InputBatch>,
    /// What it gave back for another time.
    pub(super) nacks: Option<Box<Nacks>>,
    pub(super) outlet: Voice,
    pub(super) outbox: Outbox,
    /// Bytes that were in its outbox when a record of a page did not fit: nothing is read before some have left.
    pub(super) full_at: usize,
    pub(super) link: Rc<LinkState>,
    since: Millis,
    /// Timer tick of the last write.
    pub(super) last_write: u64,
    pub(super) dirty: bool,
    /// Its client was told that the stream is open: what is published from then on reaches it.
    pub(super) opened: bool,
    /// Its client has nothing more to say; it ends when its acks are committed.
    pub(super) finishing: bool,
    /// It ends when its outbox is empty, at the latest with this timer tick.
    pub(super) closing: Option<u64>,
    /// Its end is one by which what was written lately may not have arrived.
    pub(super) doubtful: bool,
    /// Lists leave it out: another session stands for the same connection.
    hidden: bool,
}

/// What a list of sessions shows.
#[derive(Debug, Clone)]
pub(crate) struct SessionView {
    pub(crate) key: SessionKey,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) device: Option<Arc<str>>,
    pub(crate) dialect: &'static str,
    pub(crate) since: Millis,
}

/// What a new session begins with.
pub(super) struct Birth {
    pub(super) user: Option<Arc<str>>,
    pub(super) device: Option<Arc<str>>,
    pub(super) number: u64,
    pub(super) subs: Box<[SubEntry]>,
    pub(super) role: Role,
    pub(super) acks: Acks,
    pub(super) credit: Option<u32>,
    pub(super) outlet: Voice,
    pub(super) hidden: bool,
}

impl Session {
    fn new(key: SessionKey, birth: Birth, link: Rc<LinkState>, tick: u64) -> Self {
        let needs_written = birth.acks == Acks::ByWrite || matches!(birth.role, Role::Gate(_));
        Self {
            key,
            user: birth.user,
            device: birth.device,
            number: birth.number,
            subs: birth.subs,
            role: birth.role,
            acks: birth.acks,
            credit: birth.credit,
            written: needs_written.then(Box::default),
            early: Vec::new(),
            nacks: None,
            outlet: birth.outlet,
            outbox: Outbox::default(),
            full_at: 0,
            link,
            since: clock::now(),
            last_write: tick,
            dirty: false,
            opened: false,
            finishing: false,
            closing: None,
            doubtful: false,
            hidden: birth.hidden,
        }
    }

    /// Tells the client that the stream is open, once.
    pub(super) fn open(&mut self) {
        if !std::mem::replace(&mut self.opened, true) {
            self.outlet.open(self.outbox.control());
        }
    }

    /// What its end says of what was written to it.
    pub(super) fn how_it_ends(&self) -> End {
        if self.doubtful { End::Broken } else { self.link.how_ended() }
    }

    /// Tells its present subscriptions to channels from earlier ones; `None` = there are none.
    pub(super) fn turn(&self) -> Option<u16> {
        self.subs.first().map(|entry| entry.turn)
    }

    /// Whether pages may be asked for: its outbox is at most half full, and has drained since a record did not fit.
    pub(super) fn may_read(&mut self, config: &NodeConfig) -> bool {
        if self.full_at > 0 && self.outbox.len() >= self.full_at {
            return false;
        }
        self.full_at = 0;
        self.outbox.has_room(
            config.outbox_bytes / 2,
            config.outbox_bytes,
            config.outbox_messages.div_ceil(2),
        )
    }

    /// Whether one of its subscriptions is on this channel.
    pub(super) fn reads(&self, channel: &Address) -> bool {
        self.subs.iter().any(|entry| entry.channel == *channel)
    }

    fn view(&self, key: SessionKey) -> SessionView {
        SessionView {
            key,
            user: self.user.clone(),
            device: self.device.clone(),
            dialect: self.outlet.dialect(),
            since: self.since,
        }
    }
}

impl Shard {
    /// A new session: enters the live lists, then loads its heads and cursors.
    pub(super) fn attach(self: &Rc<Self>, attach: Attach) -> Result<SessionKey, Refusal> {
        let Attach { plan, outlet, link, guard } = attach;
        let channels = plan.channels.into_iter();
        let subs = channels.map(|(channel, start)| SubEntry::entering(channel, start, 0));
        let birth = Birth {
            user: plan.user,
            device: plan.device,
            number: plan.reader.number,
            subs: subs.collect(),
            role: Role::Reader,
            acks: plan.acks,
            credit: plan.credit,
            outlet: Voice::Outlet(outlet),
            hidden: false,
        };
        let link = LinkState::new(link, guard).map_err(not_taken)?;
        let key = self.begin_session(birth, link.clone())?;
        tokio::task::spawn_local(watch(self.clone(), key, link));
        match plan.shared {
            Some(shared) => self.join(key, shared),
            None => {
                tokio::task::spawn_local(self.clone().load(key, plan.resumed));
            }
        }
        Ok(key)
    }

    /// Whether a new session may begin.
    pub(super) fn has_place(&self) -> Result<(), Refusal> {
        if self.closing.get() {
            return Err(Code::ShuttingDown.into());
        }
        if self.state.borrow().sessions.len() >= self.context.config.max_sessions {
            return Err(Code::TooManyStreams.into());
        }
        Ok(())
    }

    /// Puts a new session into the lists; whoever calls it has its connection watched.
    pub(super) fn begin_session(
        &self,
        birth: Birth,
        link: Rc<LinkState>,
    ) -> Result<SessionKey, Refusal> {
        self.has_place()?;
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let (tick, hidden) = (state.timers.now(), birth.hidden);
        let key = state.sessions.insert(|key| Session::new(key, birth, link, tick));
        self.enter(state, key);
        let heartbeat = state.timers.heartbeat_at(tick);
        state.timers.arm(key, heartbeat);
        state.hidden += usize::from(hidden);
        self.context.counters.sessions.set((state.sessions.len() - state.hidden) as u64);
        Ok(key)
    }

    fn enter(&self, state: &mut State, key: SessionKey) {
        self.enter_subs(state, key);
        let Some(session) = state.sessions.get_mut(key) else { return };
        if let Some(user) = session.user.clone() {
            state.users.entry(user).or_default().push(key);
        }
    }

    /// Puts a session's subscriptions to channels into the lists, and its device.
    pub(super) fn enter_subs(&self, state: &mut State, key: SessionKey) {
        let Some(session) = state.sessions.get_mut(key) else { return };
        for (i, sub) in session.subs.iter().enumerate() {
            let entry = LiveEntry { session: key.index, sub: i as u16 };
            let live = state.live.entry(&sub.channel, &self.context);
            live.subs.push(entry);
        }
        if session.number != 0 {
            state.devices.entry(session.number).or_default().sessions += 1;
        }
    }

    /// Takes subscriptions to channels out of the lists.
    pub(super) fn leave_subs(&self, state: &mut State, key: SessionKey, subs: &[SubEntry]) {
        for (i, sub) in subs.iter().enumerate() {
            let entry = LiveEntry { session: key.index, sub: i as u16 };
            if let Some(live) = state.live.get_mut(&sub.channel) {
                if let Some(at) = live.subs.iter().position(|e| *e == entry) {
                    live.subs.swap_remove(at);
                }
                state.live.tidy(&sub.channel, &self.context);
            }
        }
    }

    /// Takes a session out of everything. Its connection closes when the task lets go of it.
    pub(super) fn remove(&self, state: &mut State, key: SessionKey) {
        self.end_written(state, key);
        let Some(mut session) = state.sessions.remove(key) else { return };
        self.leave_subs(state, key, &session.subs);
        if let Some(user) = &session.user
            && let Some(keys) = state.users.get_mut(user)
        {
            keys.retain(|k| *k != key);
            if keys.is_empty() {
                state.users.remove(user);
            }
        }
        if session.number != 0 {
            self.device_detached(state, session.number);
        }
        let how = session.how_it_ends();
        if matches!(session.role, Role::Peer(_)) {
            self.peer_ended(state, &mut session);
        }
        session.link.end();
        match session.role {
            Role::Reader | Role::Peer(_) => {}
            Role::Member(shared) => self.leave(state, shared, key, how),
            Role::Gate(gate) => self.gate_left(state, &gate),
        }
        state.hidden -= usize::from(session.hidden);
        self.context.counters.sessions.set((state.sessions.len() - state.hidden) as u64);
    }

    /// The peer has gone.
    pub(super) fn connection_lost(&self, key: SessionKey) {
        let mut state = self.state.borrow_mut();
        let Some(session) = state.sessions.get_mut(key) else { return };
        // Who said so before he went has still to find his acks committed.
        let finishes = session.finishing && session.closing.is_none();
        if !(finishes && matches!(session.role, Role::Peer(_))) {
            self.remove(&mut state, key);
        }
        self.context.mailbox.nudge();
    }

    /// Ends a session from here: says why, then closes when that is written.
    pub(super) fn close_session(&self, state: &mut State, key: SessionKey, reason: CloseReason) {
        let deadline = state.timers.after_seconds(5);
        let Some(session) = state.sessions.get_mut(key) else { return };
        if session.closing.is_some() {
            return;
        }
        session.closing = Some(deadline);
        // Whom an administrator sends away may long have been dead.
        session.doubtful = matches!(reason, CloseReason::Kicked | CloseReason::TooSlow);
        session.open();
        session.outlet.close(reason, self.context.config.retry_ms, session.outbox.control());
        session.link.close_layer();
        state.timers.arm(key, deadline);
        self.mark_dirty(state, key);
    }

    /// Ends a talking session at once: somebody waits for what it leaves, so that it has one write for its last words.
    pub(crate) fn close_peer(&self, key: SessionKey, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        self.close_session(&mut state, key, reason);
        self.flush_session(&mut state, key);
        self.remove(&mut state, key);
        self.context.mailbox.nudge();
    }

    /// Ends every session.
    pub(super) fn close_all(&self, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        for key in state.sessions.keys() {
            self.close_session(&mut state, key, reason);
        }
    }

    /// Ends one session. Returns whether it was there.
    pub(crate) fn kick(&self, key: SessionKey) -> bool {
        let mut state = self.state.borrow_mut();
        let there = state.sessions.get_mut(key).is_some();
        self.close_session(&mut state, key, CloseReason::Kicked);
        self.context.mailbox.nudge();
        there
    }

    /// Ends the sessions of a user, or of one device. Returns how many.
    pub(crate) fn kick_user(&self, user: &str, device: Option<&str>) -> usize {
        let keys: Vec<SessionKey> = self
            .user_sessions(user)
            .into_iter()
            .filter(|view| device.is_none() || view.device.as_deref() == device)
            .map(|view| view.key)
            .collect();
        keys.iter().filter(|key| self.kick(**key)).count()
    }

    /// The sessions of a user.
    pub(crate) fn user_sessions(&self, user: &str) -> Vec<SessionView> {
        let mut state = self.state.borrow_mut();
        let keys = state.users.get(user).cloned().unwrap_or_default();
        keys.into_iter().filter_map(|key| Some(state.sessions.get_mut(key)?.view(key))).collect()
    }

    /// Sessions above a place, at most `limit`.
    pub(crate) fn list_sessions(
        &self,
        after: Option<SessionKey>,
        limit: usize,
    ) -> Vec<SessionView> {
        let state = self.state.borrow();
        let above = |key: &SessionKey| after.is_none_or(|after| *key > after);
        state
            .sessions
            .iter()
            .filter(|(key, session)| above(key) && !session.hidden)
            .take(limit)
            .map(|(key, session)| session.view(key))
            .collect()
    }
}

/// What a client is told whose connection could not be taken.
pub(super) fn not_taken(error: std::io::Error) -> Refusal {
    tracing::debug!(%error, "a connection could not be taken over");
    Refusal::new(Code::Overloaded, "the connection could not be taken over")
}
