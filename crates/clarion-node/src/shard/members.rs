//! Shared cursors at work: their members on this shard, and the hand-out of messages under leases (design §1.6).
//!
//! Owns: for each shared cursor that is in use, its state in memory, its members and those who wait for single messages.
//! Invariants: all members of a cursor are on the cursor's one shard; it leaves memory only when nothing of it is unacked
//! or unwritten. Must not know: protocols, how a lease token looks, how the channel is read (that is `ahead`).

use super::confirm::{Confirms, Unwritten};
use super::deliver::{list_dirty, make_room, put};
use super::peer::Team;
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
use clarion_core::port::outlet::Given;
use clarion_core::port::store::{Move, Unit};
use clarion_core::shared_cursor::{Acked, Ended, Leave, SharedCursor};
use clarion_core::{Epoch, Message, Millis, Seq};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// A shared cursor's place on its shard.
pub(super) type SharedKey = SessionKey;

/// Rounds that a shared cursor may rest.
const RESTS_MAX: u8 = 60;

/// Deliveries to one member without acks that are not certainly written; more wait for it or go to others.
const UNWRITTEN_MAX: usize = 128;

/// See the module.
pub(super) struct Shared {
    pub(super) plan: SharedPlan,
    /// `None` until it is read from the store.
    pub(super) cursor: Option<SharedCursor>,
    /// Its state is being read.
    pub(super) loading: bool,
    pub(super) members: Vec<SessionKey>,
    /// The members of one of `$share`, instead.
    pub(super) team: Option<Team>,
    /// Whose turn it is.
    turn: usize,
    pub(super) takers: VecDeque<Taker>,
    /// What was read or hinted; `None` = nothing is there (expired, erased).
    pub(super) known: BTreeMap<Seq, Option<Arc<Message>>>,
    pub(super) reading: bool,
    /// The last commit that was hinted while the cursor was not in memory.
    pub(super) hinted: Option<(Epoch, Seq)>,
    /// Acks that came while it was being read.
    pub(super) early: Vec<(Epoch, Seq)>,
    /// The log says already that its dead list takes nothing.
    pub(super) told_full: bool,
    /// Rounds in which nobody used it and nothing was on its way.
    rested: u8,
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
    pub(super) fn new(plan: SharedPlan) -> Self {
        Self {
            team: plan.reader.is_share().then(Team::default),
            plan,
            cursor: None,
            loading: false,
            members: Vec::new(),
            turn: 0,
            takers: VecDeque::new(),
            known: BTreeMap::new(),
            reading: false,
            hinted: None,
            early: Vec::new(),
            told_full: false,
            rested: 0,
            confirms: Confirms::default(),
            ready: false,
            listed: false,
            armed: None,
        }
    }

    /// Whether somebody waits for messages.
    pub(super) fn is_wanted(&self) -> bool {
        let team = self.team.as_ref().is_some_and(|team| !team.is_empty());
        !self.members.is_empty() || !self.takers.is_empty() || team
    }

    fn is_unused(&self) -> bool {
        let idle = self.cursor.as_ref().is_none_or(SharedCursor::is_idle);
        !self.is_wanted() && !self.reading && idle && self.confirms.is_empty()
    }

    /// Whether nobody waits for anything, and only what came back keeps it in memory.
    fn is_resting(&self) -> bool {
        let at_rest = self.cursor.as_ref().is_some_and(SharedCursor::is_resting);
        !self.is_wanted() && !self.reading && self.confirms.is_empty() && at_rest
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

/// A member that cannot ack makes room by what leaves its pipe: the shard is told, not left to find it at a tick.
fn tell_when_written(session: &Session) {
    if session.written.as_ref().is_some_and(|written| written.waiting() > 0) {
        session.link.want_passed();
    }
}

fn takes(session: &Session, held: usize, load: &Load) -> bool {
    let counted = session.credit.map_or(held < load.share, |credit| credit > 0);
    let written = session.written.as_ref().is_none_or(|w| w.waiting() < UNWRITTEN_MAX);
    if !written || !counted {
        tell_when_written(session);
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

    pub(super) fn open_member(&self, state: &mut State, key: SessionKey) {
        if let Some(session) = state.sessions.get_mut(key) {
            session.open();
        }
        self.mark_dirty(state, key);
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
            self.hand_out_team(state, key);
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
        let Some(seq) = cursor.upcoming(now) else {
            if cursor.unacked() >= self.context.config.max_unacked {
                for member in &shared.members {
                    if let Some(session) = sessions.get_mut(*member) {
                        tell_when_written(session);
                    }
                }
            }
            return false;
        };
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

    /// A live message goes to one member that has room, under no lease. Returns to how many it went.
    pub(super) fn hand_out_live(
        &self,
        state: &mut State,
        key: SharedKey,
        message: &Arc<Message>,
    ) -> u64 {
        let State { shared, sessions, frames, dirty, timers, .. } = state;
        let Some(shared) = shared.get_mut(key) else { return 0 };
        let count = shared.members.len();
        for i in 0..count {
            let at = (shared.turn + i) % count;
            let Some(session) = sessions.get_mut(shared.members[at]) else { continue };
            let frame = frames.get(&*session.outlet, message);
            if !session.opened
                || session.closing.is_some()
                || !make_room(session, frame.len(), &self.context, timers.now())
            {
                continue;
            }
            shared.turn = at + 1;
            let now = clock::now();
            put(session, Given { message, start: 0, attempt: 1, replayed: false, now }, frame);
            list_dirty(session, dirty);
            return 1;
        }
        self.context.counters.dropped_outbox.add(u64::from(count > 0));
        0
    }

    pub(super) fn forget_shared(&self, state: &mut State, key: SharedKey) {
        let Some(Shared { plan, .. }) = state.shared.remove(key) else { return };
        state.shared_by_plan.remove(&plan);
        if let Some(live) = state.live.get_mut(&plan.channel) {
            live.shared.retain(|k| *k != key);
        }
        state.live.tidy(&plan.channel, &self.context);
    }

    /// A round in which shared cursors that nobody has used for long leave memory, though something came back to them.
    pub(super) fn rest_shared(&self) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in state.shared.keys() {
            let Some(shared) = state.shared.get_mut(key) else { continue };
            shared.rested = if shared.is_resting() { shared.rested + 1 } else { 0 };
            if shared.rested > RESTS_MAX {
                self.forget_shared(state, key);
            }
        }
    }

    /// After anything that moved a shared cursor: its acks are listed, its next deadline armed; one that nobody uses
    /// leaves memory.
    pub(super) fn shared_settled(&self, state: &mut State, key: SharedKey) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        if shared.is_unused() {
            return self.forget_shared(state, key);
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

    /// A member acks: one message whoever has it (the first ack counts), of a range what it holds itself.
    pub(super) fn ack_shared(
        &self,
        state: &mut State,
        key: SharedKey,
        member: Member,
        epoch: Epoch,
        (from, to): (Seq, Seq),
    ) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        let Some(cursor) = &mut shared.cursor else { return };
        if epoch != 0 && epoch != cursor.epoch() {
            return;
        }
        let mut moved = 0;
        if from == to {
            // With the history named, also what was handed out before a restart.
            let acked = if epoch == 0 { cursor.ack(to) } else { cursor.ack_early(to) };
            moved += u64::from(acked == Acked::Now);
        } else {
            let last = to.min(cursor.next().saturating_sub(1));
            // From one unacked seq to the next: a range may reach over any number of acked ones.
            let mut seq = cursor.cursor().next_unacked(from.max(1));
            while seq <= last {
                if cursor.lease_of(seq).is_some_and(|lease| lease.members.contains(&member)) {
                    moved += u64::from(cursor.ack(seq) == Acked::Now);
                }
                seq = cursor.cursor().next_unacked(seq + 1);
            }
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
}
