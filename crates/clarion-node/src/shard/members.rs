//! Shared cursors at work: their members on this shard, and the hand-out of messages under leases (design §1.6).
//!
//! Owns: for each shared cursor that is in use, its state in memory, its members and those who wait for single messages,
//! and the messages read ahead for it. Invariants: all members of a cursor are on the cursor's one shard; it is in the
//! live list before its head is read; it leaves memory only when nothing of it is unacked or unwritten. Must not know:
//! protocols, how a lease token looks.

use super::confirm::{Confirms, Unwritten};
use super::deliver::{list_dirty, make_room, put};
use super::session::{Role, Session};
use super::slab::SessionKey;
use super::takers::Taker;
use super::written::{Sent, note_sent};
use super::{Shard, State};
use crate::attach::{Acks, SharedPlan};
use crate::clock;
use crate::committer::{Flusher, Reply};
use crate::pipe::End;
use clarion_core::mode::Member;
use clarion_core::port::outlet::{CloseReason, Given};
use clarion_core::port::store::{Move, StoreError, Unit};
use clarion_core::shared_cursor::{Ended, Leave, Limits, SharedCursor};
use clarion_core::{Epoch, Message, Millis, Seq};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// A shared cursor's place on its shard.
pub(super) type SharedKey = SessionKey;

/// Deliveries to one member without acks that are not certainly written; more wait for it or go to others.
const UNWRITTEN_MAX: usize = 128;

/// See the module.
pub(super) struct Shared {
    pub(super) plan: SharedPlan,
    /// `None` until it is read from the store.
    pub(super) cursor: Option<SharedCursor>,
    members: Vec<SessionKey>,
    /// Whose turn it is.
    turn: usize,
    pub(super) takers: VecDeque<Taker>,
    /// What was read or hinted; `None` = nothing is there (expired, erased).
    pub(super) known: BTreeMap<Seq, Option<Arc<Message>>>,
    reading: bool,
    /// The last commit that was hinted while the cursor was not in memory.
    hinted: Option<(Epoch, Seq)>,
    confirms: Confirms,
    /// It is in the list of those that may hand out.
    ready: bool,
    listed: bool,
    armed: Option<Millis>,
}

/// The member that a session is.
pub(super) fn member_of(key: SessionKey) -> Member {
    u64::from(key.index) << 32 | u64::from(key.generation)
}

impl Shared {
    fn new(plan: SharedPlan) -> Self {
        Self {
            plan,
            cursor: None,
            members: Vec::new(),
            turn: 0,
            takers: VecDeque::new(),
            known: BTreeMap::new(),
            reading: false,
            hinted: None,
            confirms: Confirms::default(),
            ready: false,
            listed: false,
            armed: None,
        }
    }

    fn is_unused(&self) -> bool {
        let idle = self.cursor.as_ref().is_none_or(SharedCursor::is_idle);
        self.members.is_empty()
            && self.takers.is_empty()
            && !self.reading
            && idle
            && self.confirms.is_empty()
    }

    fn unwritten(&self) -> Unwritten {
        match &self.cursor {
            Some(cursor) if cursor.is_dirty() => Unwritten::Dirty,
            Some(cursor) if cursor.is_flushing() => Unwritten::UnderWay,
            _ => Unwritten::Nothing,
        }
    }
}

/// What picks of members look at, apart from the members themselves.
struct Load {
    /// Most leases of one member whose client does not count credit.
    share: usize,
}

fn takes(session: &Session, held: usize, load: &Load) -> bool {
    let counted = session.credit.map_or(held < load.share, |credit| credit > 0);
    let written = session.written.as_ref().is_none_or(|w| w.waiting() < UNWRITTEN_MAX);
    if !written {
        session.link.want_passed();
    }
    session.opened && session.closing.is_none() && !session.finishing && counted && written
}

impl Shard {
    /// A session becomes a member.
    pub(super) fn join(self: &Rc<Self>, key: SessionKey, plan: SharedPlan) {
        let shared = self.shared_of(plan);
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(session) = state.sessions.get_mut(key) {
            session.role = Role::Member(shared);
        }
        if let Some(of) = state.shared.get_mut(shared) {
            of.members.push(key);
            if of.cursor.is_some() {
                self.open_member(state, key);
            }
        }
        self.shared_ready(state, shared);
        self.context.mailbox.nudge();
    }

    fn open_member(&self, state: &mut State, key: SessionKey) {
        if let Some(session) = state.sessions.get_mut(key) {
            session.open();
        }
        self.mark_dirty(state, key);
    }

    /// The cursor of this plan; it enters the live list, then its state is read.
    pub(super) fn shared_of(self: &Rc<Self>, plan: SharedPlan) -> SharedKey {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(key) = state.shared_by_plan.get(&plan) {
            return *key;
        }
        let key = state.shared.insert(|_| Shared::new(plan.clone()));
        state.live.entry(&plan.channel, &self.context).shared.push(key);
        state.shared_by_plan.insert(plan, key);
        drop(guard);
        tokio::task::spawn_local(self.clone().load_shared(key));
        key
    }

    async fn load_shared(self: Rc<Self>, key: SharedKey) {
        let Ok(_permit) = self.loads.acquire().await else { return };
        let plan = {
            let mut state = self.state.borrow_mut();
            let Some(shared) = state.shared.get_mut(key) else { return };
            shared.plan.clone()
        };
        let store = self.context.store.clone();
        let heads = store.heads(vec![plan.channel.clone()]).await;
        let readers = store.readers(plan.channel.clone()).await;
        let loaded = heads.and_then(|heads| Ok((heads, readers?)));
        self.shared_loaded(key, &plan, loaded);
        self.context.mailbox.nudge();
    }

    fn shared_loaded(
        &self,
        key: SharedKey,
        plan: &SharedPlan,
        loaded: Result<
            (Vec<clarion_core::port::store::Head>, Vec<clarion_core::port::store::StoredCursor>),
            StoreError,
        >,
    ) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(shared) = state.shared.get_mut(key) else { return };
        let (heads, readers) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, channel = ?plan.channel, "a shared cursor could not be read");
                shared.takers.clear();
                for member in shared.members.clone() {
                    self.close_session(state, member, CloseReason::Store);
                }
                return;
            }
        };
        let head = heads.first().copied().unwrap_or_default();
        let stored = readers.into_iter().find(|s| s.reader == plan.reader && s.epoch == head.epoch);
        // Without a cursor in this history everything kept is new.
        let cursor = stored.map_or_else(
            || clarion_core::Cursor::at(head.first.saturating_sub(1)),
            |stored| stored.cursor,
        );
        let mut cursor = SharedCursor::new(head.epoch, cursor, head.last, self.shared_limits());
        if let Some((epoch, seq)) = shared.hinted {
            cursor.raise_head(epoch, seq);
        }
        shared.cursor = Some(cursor);
        for member in shared.members.clone() {
            self.open_member(state, member);
        }
        self.shared_ready(state, key);
    }

    fn shared_limits(&self) -> Limits {
        let config = &self.context.config;
        Limits {
            max_unacked: config.max_unacked,
            ack_wait_ms: Some(config.ack_wait.as_millis() as u64),
            max_attempts: (config.max_attempts > 0).then_some(config.max_attempts),
            settle_ms: config.settle.as_millis() as u64,
        }
    }

    /// A commit of the channel.
    pub(super) fn shared_record(&self, state: &mut State, key: SharedKey, message: &Arc<Message>) {
        let ahead = self.context.config.page_messages as u64;
        let Some(shared) = state.shared.get_mut(key) else { return };
        match &mut shared.cursor {
            None => shared.hinted = Some((message.epoch, message.seq)),
            Some(cursor) if cursor.epoch() == message.epoch || cursor.epoch() == 0 => {
                if cursor.epoch() == 0 {
                    cursor.restart(message.epoch, 1, message.seq);
                }
                cursor.raise_head(message.epoch, message.seq);
                if message.seq.saturating_sub(cursor.next()) < ahead {
                    shared.known.insert(message.seq, Some(message.clone()));
                }
            }
            // Another history: a page tells what it is.
            Some(_) => shared.known.clear(),
        }
        let other = shared.cursor.as_ref().is_some_and(|cursor| cursor.epoch() != message.epoch);
        if other {
            self.read_shared(state, key, 1);
        }
        self.shared_ready(state, key);
    }

    /// Lists a shared cursor for the end of the tick.
    pub(super) fn shared_ready(&self, state: &mut State, key: SharedKey) {
        if let Some(shared) = state.shared.get_mut(key)
            && !std::mem::replace(&mut shared.ready, true)
        {
            state.ready.push(key);
        }
    }

    /// Hands out what can be handed out.
    pub(super) fn hand_out_ready(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.ready) {
            if let Some(shared) = state.shared.get_mut(key) {
                shared.ready = false;
            }
            self.serve_takers(state, key);
            while self.hand_out_one(state, key) {}
            self.shared_settled(state, key);
        }
    }

    /// Hands the next message to one member. Returns whether there may be more.
    fn hand_out_one(&self, state: &mut State, key: SharedKey) -> bool {
        let now = self.mono();
        let State { shared, sessions, frames, dirty, writing, timers, .. } = state;
        let Some(shared) = shared.get_mut(key) else { return false };
        let Some(cursor) = &mut shared.cursor else { return false };
        if shared.members.is_empty() {
            return false;
        }
        let Some(seq) = cursor.upcoming(now) else { return false };
        let message = match shared.known.get(&seq) {
            None => {
                self.read_shared(state, key, seq);
                return false;
            }
            Some(Some(message)) if !message.content.expired(clock::now()) => message.clone(),
            Some(_) => {
                shared.known.remove(&seq);
                cursor.skip(seq);
                return true;
            }
        };
        let load =
            Load { share: self.context.config.max_unacked.div_ceil(shared.members.len()).max(1) };
        frames.reset();
        let count = shared.members.len();
        for i in 0..count {
            let at = (shared.turn + i) % count;
            let member = shared.members[at];
            let Some(session) = sessions.get_mut(member) else { continue };
            if !takes(session, cursor.held_by(member_of(member)), &load) {
                continue;
            }
            let frame = frames.get(&*session.outlet, &message);
            if !make_room(session, frame.len(), &self.context, timers.now()) {
                continue;
            }
            // What is written is settled, not acked: a reader that is slow to take it loses no lease meanwhile.
            let wait = (session.acks != Acks::ByWrite).then_some(self.context.config.ack_wait);
            let wait = wait.map(|wait| wait.as_millis() as u64);
            if !cursor.lease_for(seq, &[member_of(member)], now, wait) {
                return false;
            }
            shared.turn = at + 1;
            shared.known.remove(&seq);
            let attempt = cursor.attempts_of(seq);
            let given = Given {
                message: &message,
                start: seq,
                attempt,
                replayed: attempt > 1,
                now: clock::now(),
            };
            put(session, given, frame);
            note_sent(session, Sent::Lease(seq), writing);
            list_dirty(session, dirty);
            self.context.counters.delivered.add(1);
            return true;
        }
        false
    }

    /// After anything that moved a shared cursor: its acks are listed, its next deadline armed; one that nobody uses
    /// leaves memory.
    pub(super) fn shared_settled(&self, state: &mut State, key: SharedKey) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        if shared.is_unused() {
            let shared = state.shared.remove(key);
            if let Some(Shared { plan, .. }) = shared {
                state.shared_by_plan.remove(&plan);
                if let Some(live) = state.live.get_mut(&plan.channel) {
                    live.shared.retain(|k| *k != key);
                }
                state.live.tidy(&plan.channel, &self.context);
            }
            return;
        }
        let Some(cursor) = &shared.cursor else { return };
        if cursor.is_dirty() && !std::mem::replace(&mut shared.listed, true) {
            state.dirty_shared.push(key);
            state.timers.acks_wait();
        }
        if let Some(at) = cursor.wakes_at()
            && shared.armed.is_none_or(|armed| at < armed)
        {
            shared.armed = Some(at);
            state.due.push(std::cmp::Reverse((at, key)));
        }
    }

    /// Leases that lapse and delays that end now.
    pub(super) fn run_shared_timers(self: &Rc<Self>) {
        let now = self.mono();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        while let Some(std::cmp::Reverse((at, key))) = state.due.peek().copied() {
            if at > now {
                return;
            }
            state.due.pop();
            let Some(shared) = state.shared.get_mut(key) else { continue };
            shared.armed = None;
            let Some(cursor) = &mut shared.cursor else { continue };
            cursor.settle(now);
            let ended = cursor.expire(now);
            self.leases_ended(state, key, &ended);
        }
    }

    /// What became of leases that ended without an ack.
    pub(super) fn leases_ended(&self, state: &mut State, key: SharedKey, ended: &[Ended]) {
        for end in ended {
            match end {
                Ended::Dead(seq) => self.bury(state, key, *seq),
                Ended::Back(_) => self.context.counters.handed_back.add(1),
                Ended::Nothing => {}
            }
        }
        self.shared_ready(state, key);
    }

    /// These deliveries to a member without acks were certainly written.
    pub(super) fn leases_written(&self, state: &mut State, key: SessionKey, seqs: &[Seq]) {
        let now = self.mono();
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Role::Member(shared_key) = session.role else { return };
        let Some(shared) = state.shared.get_mut(shared_key) else { return };
        if let Some(cursor) = &mut shared.cursor {
            for seq in seqs {
                cursor.wrote(*seq, member_of(key), now);
            }
        }
        self.shared_ready(state, shared_key);
    }

    /// A member has ended.
    pub(super) fn leave(&self, state: &mut State, key: SharedKey, session: SessionKey, how: End) {
        let now = self.mono();
        let Some(shared) = state.shared.get_mut(key) else { return };
        shared.members.retain(|member| *member != session);
        let how = match how {
            End::Whole => Leave::Whole,
            End::Broken => Leave::Broken,
        };
        let ended = match &mut shared.cursor {
            Some(cursor) => cursor.leave(member_of(session), now, how),
            None => Vec::new(),
        };
        self.leases_ended(state, key, &ended);
    }

    /// A member acks.
    pub(super) fn ack_shared(
        &self,
        state: &mut State,
        key: SharedKey,
        epoch: Epoch,
        seqs: (Seq, Seq),
    ) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        let Some(cursor) = &mut shared.cursor else { return };
        if epoch != 0 && epoch != cursor.epoch() {
            return;
        }
        let (from, to) = (seqs.0.max(1), seqs.1.min(cursor.next().saturating_sub(1)));
        let mut moved = 0;
        // From one unacked seq to the next: a range may reach over any number of acked ones.
        let mut seq = cursor.cursor().next_unacked(from);
        while seq <= to {
            moved += u64::from(cursor.ack(seq) == clarion_core::shared_cursor::Acked::Now);
            seq = cursor.cursor().next_unacked(seq + 1);
        }
        self.context.counters.acks.add(moved);
        self.shared_ready(state, key);
    }

    /// A member gives a message back.
    pub(super) fn nack_shared(
        &self,
        state: &mut State,
        key: SharedKey,
        member: Member,
        (epoch, seq): (Epoch, Seq),
        delay_ms: u64,
    ) -> bool {
        let now = self.mono();
        let Some(shared) = state.shared.get_mut(key) else { return false };
        let Some(cursor) = &mut shared.cursor else { return false };
        if epoch != 0 && epoch != cursor.epoch() {
            return false;
        }
        let ended = cursor.nack(seq, member, now, delay_ms);
        self.leases_ended(state, key, &[ended]);
        ended != Ended::Nothing
    }

    /// A member wants to know when what it acked is committed.
    pub(super) fn confirm_shared(
        &self,
        state: &mut State,
        key: SharedKey,
        session: SessionKey,
        number: u64,
    ) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        let unwritten = shared.unwritten();
        if shared.confirms.ask(session, number, unwritten) {
            return self.confirm(state, session, number);
        }
        self.shared_settled(state, key);
        state.timers.acks_now();
    }

    /// Hands the moves of all shared cursors to the committer.
    pub(super) fn flush_shared(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.dirty_shared) {
            let Some(shared) = state.shared.get_mut(key) else { continue };
            shared.listed = false;
            let Some(cursor) = &mut shared.cursor else { continue };
            let epoch = cursor.epoch();
            let Some(moved) = cursor.begin_flush() else { continue };
            shared.confirms.flush_began();
            let moves = vec![Move { channel: shared.plan.channel.clone(), epoch, cursor: moved }];
            let unit = Unit::Ack { reader: shared.plan.reader.clone(), moves };
            let reply = Reply::Flush { shard: self.context.index, who: Flusher::Shared(key) };
            if self.context.queue.submit(vec![unit], reply, true).is_err() {
                cursor.end_flush(false);
                shared.confirms.flush_ended(false);
            }
        }
    }

    /// A flush is over.
    pub(super) fn shared_flushed(&self, state: &mut State, key: SharedKey, committed: bool) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        if let Some(cursor) = &mut shared.cursor {
            cursor.end_flush(committed);
        }
        let told = shared.confirms.flush_ended(committed);
        if committed {
            self.context.trimmable.note(&shared.plan.channel);
        } else {
            self.context.counters.flush_failures.add(1);
            if self.closing.get() {
                // The store is gone and so is the time to wait for it: these acks may be delivered again.
                shared.cursor = None;
            }
            state.timers.acks_failed();
        }
        for (session, number) in told {
            self.confirm(state, session, number);
        }
        self.shared_ready(state, key);
    }

    /// The channel has grown up to here, and its records did not fit into the mailbox.
    pub(super) fn shared_head(&self, state: &mut State, key: SharedKey, epoch: Epoch, seq: Seq) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        match &mut shared.cursor {
            Some(cursor) => drop(cursor.raise_head(epoch, seq)),
            None => shared.hinted = Some((epoch, seq)),
        }
        self.shared_ready(state, key);
    }

    /// Tries again what could not be read.
    pub(super) fn retry_shared(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.shared_retry) {
            self.shared_ready(state, key);
        }
    }

    /// Nobody waits for single messages any more.
    pub(super) fn stop_takers(&self) {
        let mut guard = self.state.borrow_mut();
        for key in guard.shared.keys() {
            if let Some(shared) = guard.shared.get_mut(key) {
                shared.takers.clear();
                if let Some(cursor) = &mut shared.cursor {
                    cursor.settle_all();
                }
            }
            self.shared_settled(&mut guard, key);
        }
    }

    /// Asks for the page that begins with `seq`.
    pub(super) fn read_shared(&self, state: &mut State, key: SharedKey, seq: Seq) {
        if let Some(shared) = state.shared.get_mut(key)
            && !std::mem::replace(&mut shared.reading, true)
        {
            state.shared_reads.push((key, seq));
        }
    }

    /// A page is here.
    pub(super) fn shared_page(
        &self,
        state: &mut State,
        key: SharedKey,
        seq: Seq,
        page: Result<clarion_core::port::store::Page, StoreError>,
    ) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        shared.reading = false;
        let Some(cursor) = &mut shared.cursor else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, channel = ?shared.plan.channel, "a page could not be read");
                return state.shared_retry.push(key);
            }
        };
        if page.head.epoch != cursor.epoch() {
            cursor.restart(page.head.epoch, page.head.first, page.head.last);
            shared.known.clear();
        } else {
            cursor.raise_head(page.head.epoch, page.head.last);
            cursor.trimmed(page.head.first);
            let first = page.head.first.max(seq);
            shared.known.retain(|seq, _| *seq >= page.head.first);
            for seq in first..=page.through {
                shared.known.entry(seq).or_insert(None);
            }
            for message in page.messages {
                shared.known.insert(message.seq, Some(Arc::new(message)));
            }
        }
        self.shared_ready(state, key);
    }
}
