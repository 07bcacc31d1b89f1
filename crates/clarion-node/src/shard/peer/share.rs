//! Members of groups with a cursor (`$share`, see [`crate::shares::Groups`]), on the shard of their session: what they are handed and
//! what becomes of it.
//!
//! The cursor and the turns of its members are with the shard that owns it ([`team`]); it hands out, under leases, and is told:
//! what is acked, what found no room, that there is room again, that a member left. All that is gathered and told once a tick;
//! on one shard nothing is posted. QoS 0 is acked when written, QoS 1 by its PUBACK, QoS 2 when it is its session's for good: in
//! a stored session when that is committed, else when written. Invariants: a member refuses what was handed to it
//! before it said that it has room again, so that its order holds; what is neither acked nor refused is under a lease that
//! ends with the connection. Must not know: how packets look.

mod change;
mod team;

pub(super) use change::Joining;
pub(in crate::shard) use team::Team;

use super::PeerState;
use super::give::Giving;
use super::stored::{Stored, kept_name};
use crate::attach::SharedPlan;
use crate::shard::deliver::{list_dirty, make_outbox_room};
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard, State};
use crate::shares::{Member, ShareName};
use clarion_core::durable::subs::Merged;
use clarion_core::port::peer::{Out, Place, SubOptions};
use clarion_core::{Epoch, Message, Seq};
use std::rc::Rc;
use std::sync::Arc;

/// The number of the first log that a session shares (see [`Place::log`]): below are those of its own.
pub(super) const FIRST_SHARE: u32 = 1 << 31;
/// Messages that are handed to a member and not answered yet, at most.
const FLYING_MAX: u32 = 32;

/// A subscription of a session to a group.
pub(super) struct ShareSub {
    name: Arc<ShareName>,
    plan: Arc<SharedPlan>,
    options: SubOptions,
    /// See [`Member::id`].
    id: u64,
    /// It is subscribed to; else only what is out of it is left.
    current: bool,
    /// QoS 1 deliveries that are out.
    out: u32,
    /// How often it had room again.
    rooms: u64,
    /// It has refused something since: what needs how much room.
    refused: Option<(u8, usize)>,
    /// It last said that its window has no place.
    spent: bool,
    /// The log of a stored session in which its QoS 2 deliveries stand.
    kept: Option<u32>,
}

/// Messages for a member.
pub(crate) struct HandOut {
    plan: Arc<SharedPlan>,
    key: SessionKey,
    at: u32,
    id: u64,
    rooms: u64,
    messages: Vec<Arc<Message>>,
}

/// How a member leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It takes nothing new; what is out may still be acked.
    Finishing,
    /// Its connection has ended.
    Ended,
}

/// What the owner of a cursor is told of a member.
pub(crate) struct News {
    plan: Arc<SharedPlan>,
    id: u64,
    /// It comes, in front of all else that is said.
    join: Option<Member>,
    acked: Vec<(Epoch, Seq)>,
    /// It had no room for these.
    back: Vec<Arc<Message>>,
    /// So many that were handed to it are answered.
    answered: u32,
    /// Places in its window, and how often it had room again.
    room: Option<(u32, u64)>,
    /// It leaves, behind all else.
    left: Option<Left>,
}

impl News {
    fn new(plan: &Arc<SharedPlan>, id: u64) -> Self {
        let (acked, back) = (Vec::new(), Vec::new());
        let (plan, join) = (plan.clone(), None);
        Self { plan, id, join, acked, back, answered: 0, room: None, left: None }
    }
}

/// What became of a message that was handed to a member.
enum Took {
    /// It is out: an ack or the end of the connection will follow.
    Out,
    /// It counts as acked.
    Acked,
    Full,
}

/// What is said of a member is gathered.
fn news<'a>(list: &'a mut Vec<News>, plan: &Arc<SharedPlan>, id: u64) -> &'a mut News {
    let known = list.iter().rposition(|news| news.id == id);
    let at = known.filter(|at| list[*at].left.is_none()).unwrap_or_else(|| {
        list.push(News::new(plan, id));
        list.len() - 1
    });
    &mut list[at]
}

/// A QoS 2 delivery that is its session's for good: it counts as acked in its group.
pub(super) struct ForGood {
    plan: Arc<SharedPlan>,
    id: u64,
    place: Place,
}

impl Giving<'_> {
    /// Whether a session takes a message of a group now.
    fn has_share_room(&self, session: &mut Session, (qos, size): (u8, usize)) -> bool {
        let is_open = session.opened && session.closing.is_none() && !session.finishing;
        let Some(peer) = PeerState::of(session).filter(|_| is_open) else { return false };
        if peer.stored.is_some() {
            return self.has_log_room(session, qos, size);
        }
        // Others wait for a place since before it.
        let waits = qos > 0 && (peer.queue.is_some() || session.credit == Some(0));
        !waits && make_outbox_room(session, size, self.context, self.tick)
    }

    /// Gives a member a message of its group.
    fn give_share(&self, session: &mut Session, at: u32, message: &Arc<Message>) -> Took {
        let Some(sub) = PeerState::of(session).and_then(|peer| peer.shares.get_mut(at as usize))
        else {
            return Took::Full;
        };
        let options = sub.options;
        let qos = options.qos.min(message.content.qos);
        let need = (qos, message.content.payload.len());
        if sub.refused.is_some() || !self.has_share_room(session, need) {
            if let Some(sub) = ShareSub::of(session, at) {
                sub.refused.get_or_insert(need);
            }
            return Took::Full;
        }
        let way = Merged {
            qos,
            retain_as_published: options.retain_as_published,
            check: options.check,
            ids: options.ids().to_vec(),
        };
        let place = Place { log: FIRST_SHARE + at, epoch: message.epoch, seq: message.seq };
        if qos == 2
            && let Some(log) = keep(session, at)
        {
            let held = self.hold(session, Place { log, ..place }, message, way);
            return out(session, at, held);
        }
        // Of a session that ends with its connection QoS 2 is nobody else's from here on.
        let place = (qos == 1).then_some(place);
        if !self.put_log(session, message, &way, qos, (place, None, false)) {
            return Took::Acked;
        }
        self.context.counters.delivered.add(1);
        if qos == 1 { out(session, at, true) } else { Took::Acked }
    }
}

/// A delivery is out, or had no place.
fn out(session: &mut Session, at: u32, given: bool) -> Took {
    match ShareSub::of(session, at) {
        Some(sub) if given => {
            sub.out += 1;
            Took::Out
        }
        _ => Took::Full,
    }
}

/// The log in which a stored session keeps QoS 2 deliveries of a group.
fn keep(session: &mut Session, at: u32) -> Option<u32> {
    let peer = PeerState::of(session)?;
    let (stored, sub) = (peer.stored.as_mut()?, peer.shares.get_mut(at as usize)?);
    let name = || kept_name(&sub.name.group, &sub.plan.channel);
    Some(*sub.kept.get_or_insert_with(|| stored.kept_log(&name())))
}

impl ShareSub {
    fn of(session: &mut Session, at: u32) -> Option<&mut Self> {
        PeerState::of(session)?.shares.get_mut(at as usize)
    }

    /// A delivery that stands in this place is its session's for good.
    pub(super) fn for_good(shares: &mut [Self], place: Place) -> Option<ForGood> {
        let sub = shares.iter_mut().find(|sub| sub.kept == Some(place.log))?;
        sub.out = sub.out.saturating_sub(1);
        Some(ForGood { plan: sub.plan.clone(), id: sub.id, place })
    }

    /// Places that are free for it in its session's window, as far as it matters.
    fn places(&self, credit: Option<u32>) -> u32 {
        if self.options.qos == 0 {
            FLYING_MAX
        } else {
            credit.unwrap_or(FLYING_MAX).min(FLYING_MAX)
        }
    }

    fn member(&self, shard: usize, key: SessionKey, at: u32) -> Member {
        Member { shard, key, options: self.options, at, id: self.id }
    }
}

impl Shard {
    fn news<'a>(&self, state: &'a mut State, plan: &Arc<SharedPlan>, id: u64) -> &'a mut News {
        self.context.mailbox.nudge();
        news(&mut state.share_news, plan, id)
    }

    /// Hands out what groups have, gives it to members here, and tells owners what became of it.
    pub(in crate::shard) fn run_shares(self: &Rc<Self>) {
        loop {
            self.hand_out_ready();
            let handed = std::mem::take(&mut self.state.borrow_mut().share_handed);
            for hand_out in handed {
                self.take_share(hand_out);
            }
            self.tell_owners();
            let state = self.state.borrow();
            if state.ready.is_empty() && state.share_handed.is_empty() {
                return;
            }
        }
    }

    /// A member is handed messages.
    pub(in crate::shard) fn take_share(&self, handed: HandOut) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let giving = self.giving(state);
        let HandOut { plan, key, at, id, rooms, messages } = handed;
        let mut answer = News { answered: messages.len() as u32, ..News::new(&plan, id) };
        let there = |session: &mut Session| ShareSub::of(session, at).is_some_and(|s| s.id == id);
        if !state.sessions.get_mut(key).is_some_and(there) {
            // It has left, before the owner heard that it was there.
            self.news(state, &plan, id).left = Some(Left::Ended);
            return;
        }
        let Some(session) = state.sessions.get_mut(key) else { return };
        let Some(sub) = ShareSub::of(session, at) else { return };
        // What was sent before it had room again goes back: others stand in front of it now.
        let late = rooms != sub.rooms || !sub.current;
        if !sub.current {
            answer.left = Some(Left::Finishing);
        }
        for message in messages {
            let took = if late { Took::Full } else { giving.give_share(session, at, &message) };
            match took {
                Took::Out => {}
                Took::Acked => answer.acked.push((message.epoch, message.seq)),
                Took::Full => answer.back.push(message),
            }
        }
        let credit = session.credit;
        if let Some(sub) = ShareSub::of(session, at) {
            let places = sub.places(credit);
            sub.spent = places == 0;
            answer.room = sub.refused.is_none().then_some((places, sub.rooms));
            let waits = sub.spent || sub.refused.is_some();
            if let Some(peer) = PeerState::of(session) {
                peer.shares_wait |= waits;
            }
        }
        list_dirty(session, &mut state.dirty);
        self.list_stored(state, key);
        self.tell(state, answer);
    }

    /// What is told of a member joins what was said of it before.
    fn tell(&self, state: &mut State, answer: News) {
        let News { plan, id, acked, back, answered, room, left, .. } = answer;
        let news = self.news(state, &plan, id);
        news.acked.extend(acked);
        news.back.extend(back);
        news.answered += answered;
        news.room = room;
        news.left = left;
    }

    /// What sessions have for good counts as acked.
    pub(super) fn tell_for_good(&self, state: &mut State, all: Vec<ForGood>) {
        for ForGood { plan, id, place } in all {
            self.news(state, &plan, id).acked.push((place.epoch, place.seq));
        }
    }

    /// A place in a window is free that a message of a group had.
    pub(super) fn share_freed(&self, state: &mut State, key: SessionKey, place: Place) {
        let Some(at) = place.log.checked_sub(FIRST_SHARE) else { return };
        let Some(session) = state.sessions.get_mut(key) else { return };
        let credit = session.credit;
        let Some(sub) = ShareSub::of(session, at) else { return };
        let places = sub.places(credit);
        sub.out = sub.out.saturating_sub(1);
        let room = sub.refused.is_none().then_some((places, sub.rooms));
        sub.spent &= room.is_none();
        let (plan, id) = (sub.plan.clone(), sub.id);
        let news = self.news(state, &plan, id);
        news.acked.push((place.epoch, place.seq));
        news.room = room.or(news.room);
    }

    /// A session may have room again for what its groups have.
    pub(super) fn shares_go_on(&self, state: &mut State, key: SessionKey) {
        let giving = self.giving(state);
        let State { sessions, share_news, .. } = state;
        let Some(session) = sessions.get_mut(key) else { return };
        let Some(peer) = PeerState::of(session).filter(|peer| peer.shares_wait) else { return };
        let count = peer.shares.len() as u32;
        let (mut waits, mut told) = (false, false);
        for at in 0..count {
            let credit = session.credit;
            let Some(sub) = ShareSub::of(session, at) else { continue };
            let need = match (sub.refused, sub.spent) {
                _ if !sub.current => continue,
                (Some(need), _) => need,
                (None, true) => (1, 0),
                (None, false) => continue,
            };
            if !giving.has_share_room(session, need) {
                waits = true;
                continue;
            }
            let Some(sub) = ShareSub::of(session, at) else { continue };
            let places = sub.places(credit);
            sub.rooms += u64::from(sub.refused.take().is_some());
            sub.spent = false;
            news(share_news, &sub.plan, sub.id).room = Some((places.max(1), sub.rooms));
            told = true;
        }
        if let Some(peer) = PeerState::of(session) {
            peer.shares_wait = waits;
        }
        if told {
            self.context.mailbox.nudge();
        }
    }

    /// A session has ended: its members leave their groups. What it has for good, if it is stored and goes on, is added to what
    /// is out.
    pub(super) fn end_shares(
        &self,
        state: &mut State,
        mut shares: Vec<ShareSub>,
        stored: Option<(&mut Stored, &mut Vec<Out>)>,
    ) {
        if let Some((stored, outs)) = stored {
            let all = stored.kept_at_end(&mut shares, outs);
            self.tell_for_good(state, all);
        }
        for sub in shares {
            self.news(state, &sub.plan, sub.id).left = Some(Left::Ended);
        }
    }
}
