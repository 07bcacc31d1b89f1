//! The owner's side of a group with a cursor: whose turn it is, what is handed to whom.
//!
//! The cursor itself, what is read ahead of it and its writing are those of any shared cursor (see `members`, `ahead`); only the
//! members differ: they may be on other shards, and the owner knows of them what they said last. Invariants: members are in
//! the team from their SUBSCRIBE, or the group's first durable one, to their end; a cursor of an earlier group of this name is
//! never used. Must not know: sessions.

use super::{FLYING_MAX, HandOut, Left, News};
use crate::attach::SharedPlan;
use crate::clock;
use crate::shard::members::SharedKey;
use crate::shard::{SessionKey, Shard, State};
use crate::shares::Member;
use clarion_core::port::store::{Move, Unit};
use clarion_core::shared_cursor::Leave;
use clarion_core::{Cursor, Message, Millis, Seq};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A member, as its group knows it.
struct TeamMember {
    id: u64,
    shard: usize,
    key: SessionKey,
    at: u32,
    /// Handed to it and not answered.
    flying: u32,
    /// Places of its window that are not taken, as far as is known.
    places: u32,
    /// It has refused something, and has not said that it has room again.
    full: bool,
    rooms: u64,
}

impl TeamMember {
    fn takes(&self) -> bool {
        !self.full && self.places > 0 && self.flying < FLYING_MAX
    }
}

/// See the module.
#[derive(Default)]
pub(in crate::shard) struct Team {
    members: Vec<TeamMember>,
    /// Whose turn it is.
    turn: usize,
    /// When the group began.
    since: Millis,
}

impl Team {
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    fn join(&mut self, member: &Member) {
        if self.members.iter().any(|known| known.id == member.id) {
            return;
        }
        let Member { shard, key, at, id, .. } = *member;
        let (flying, places, full, rooms) = (0, FLYING_MAX, false, 0);
        self.members.push(TeamMember { id, shard, key, at, flying, places, full, rooms });
    }

    fn leave(&mut self, id: u64) {
        self.members.retain(|member| member.id != id);
    }

    /// The member whose turn it is, of those that take something.
    fn pick(&mut self) -> Option<usize> {
        let count = self.members.len();
        let at = (0..count).map(|i| (self.turn + i) % count).find(|at| self.members[*at].takes());
        self.turn = at.map_or(self.turn, |at| at + 1);
        at
    }

    fn any_takes(&self) -> bool {
        self.members.iter().any(TeamMember::takes)
    }

    /// What a member says of its room.
    fn hear(&mut self, news: &News) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == news.id) else {
            return;
        };
        member.flying = member.flying.saturating_sub(news.answered);
        match news.room {
            Some((places, rooms)) => {
                (member.full, member.rooms) = (false, rooms);
                member.places = places.saturating_sub(member.flying);
            }
            None => member.full |= !news.back.is_empty(),
        }
    }
}

impl Shard {
    fn owner_of(&self, plan: &SharedPlan) -> usize {
        plan.tag() as usize % self.context.mailboxes.len()
    }

    /// Members have come to a group, or it has begun or ended. `fresh`: with this stamp it may have begun anew.
    pub(crate) fn team_changes(
        self: &Rc<Self>,
        plan: &Arc<SharedPlan>,
        members: &[Member],
        fresh: Option<Millis>,
    ) {
        let since = self.context.planner.durable.groups.since(plan);
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            if let Some(key) = state.shared_by_plan.get(&**plan).copied() {
                let known = state.shared.get_mut(key).and_then(|shared| shared.team.as_ref());
                let same = since.is_some() && known.is_some_and(|t| Some(t.since) == since);
                if !same || since == fresh {
                    self.forget_shared(state, key);
                }
            }
        }
        let Some(since) = since.filter(|_| !members.is_empty() && !self.closing.get()) else {
            return;
        };
        let key = self.shared_of((**plan).clone());
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(team) = state.shared.get_mut(key).and_then(|shared| shared.team.as_mut()) {
            team.since = since;
            members.iter().for_each(|member| team.join(member));
        }
        self.shared_ready(state, key);
        self.context.mailbox.nudge();
    }

    /// The same on the shard that owns the cursor.
    pub(super) fn post_team_changes(
        self: &Rc<Self>,
        plan: &Arc<SharedPlan>,
        members: Vec<Member>,
        fresh: Option<Millis>,
    ) {
        let (owner, plan) = (self.owner_of(plan), plan.clone());
        self.context.post_job(owner, move |shard| shard.team_changes(&plan, &members, fresh));
    }

    /// Hands out what the members of a group have room for.
    pub(in crate::shard) fn hand_out_team(&self, state: &mut State, key: SharedKey) {
        let mut handed: Vec<Vec<Arc<Message>>> = Vec::new();
        while let Some((at, message)) = self.next_for_team(state, key) {
            if handed.len() <= at {
                handed.resize_with(at + 1, Vec::new);
            }
            handed[at].push(message);
        }
        if handed.is_empty() {
            return;
        }
        let State { shared, share_handed, .. } = state;
        let Some(shared) = shared.get_mut(key) else { return };
        let plan = Arc::new(shared.plan.clone());
        let Some(team) = &shared.team else { return };
        let mut away: HashMap<usize, Vec<HandOut>> = HashMap::new();
        for (member, messages) in team.members.iter().zip(handed) {
            if messages.is_empty() {
                continue;
            }
            let TeamMember { id, shard, key, at, rooms, .. } = *member;
            let hand_out = HandOut { plan: plan.clone(), key, at, id, rooms, messages };
            if shard == self.context.index {
                share_handed.push(hand_out);
            } else {
                away.entry(shard).or_default().push(hand_out);
            }
        }
        for (shard, handed) in away {
            let take = |shard: &Rc<Self>| {
                handed.into_iter().for_each(|hand_out| shard.take_share(hand_out));
                shard.context.mailbox.nudge();
            };
            self.context.post_job(shard, take);
        }
    }

    /// The next message and the member that gets it.
    fn next_for_team(&self, state: &mut State, key: SharedKey) -> Option<(usize, Arc<Message>)> {
        let now = self.mono();
        loop {
            let shared = state.shared.get_mut(key)?;
            let since = self.context.planner.durable.groups.since(&shared.plan);
            let team = shared.team.as_mut().filter(|team| Some(team.since) == since)?;
            let cursor = shared.cursor.as_mut().filter(|_| team.any_takes())?;
            let seq = cursor.upcoming(now)?;
            let message = match shared.known.get(&seq) {
                None => {
                    self.read_shared(state, key, seq);
                    return None;
                }
                Some(Some(message)) if !message.content.expired(clock::now()) => message.clone(),
                Some(_) => {
                    shared.known.remove(&seq);
                    cursor.skip(seq);
                    continue;
                }
            };
            let at = team.pick()?;
            let member = &mut team.members[at];
            if !cursor.lease(seq, &[member.id], now) {
                return None;
            }
            member.flying += 1;
            member.places = member.places.saturating_sub(1);
            shared.known.remove(&seq);
            return Some((at, message));
        }
    }

    /// Tells the owners of cursors what members have to say.
    pub(super) fn tell_owners(self: &Rc<Self>) {
        let list = std::mem::take(&mut self.state.borrow_mut().share_news);
        let mut away: HashMap<usize, Vec<News>> = HashMap::new();
        for news in list {
            let owner = self.owner_of(&news.plan);
            if owner == self.context.index {
                self.team_hears(news);
            } else {
                away.entry(owner).or_default().push(news);
            }
        }
        for (owner, list) in away {
            if self.closing.get() {
                // The owner may have ended before.
                self.write_acks(&list);
            }
            self.context.post_job(owner, move |shard| {
                list.into_iter().for_each(|news| shard.team_hears(news));
            });
        }
    }

    /// Has acks committed without their owner; they are merged.
    fn write_acks(&self, list: &[News]) {
        let unit = |news: &News| {
            let epoch = news.acked.last()?.0;
            let mut cursor = Cursor::default();
            news.acked.iter().filter(|acked| acked.0 == epoch).for_each(|acked| {
                cursor.ack(acked.1);
            });
            let moves = vec![Move { channel: news.plan.channel.clone(), epoch, cursor }];
            Some(Unit::Ack { reader: news.plan.reader.clone(), moves })
        };
        let units: Vec<Unit> = list.iter().filter_map(unit).collect();
        if units.is_empty() {
            return;
        }
        let shard = self.context.index;
        let reply = crate::committer::Reply::Shard { shard, told: Box::new(|_, _| {}) };
        if let Err(refusal) = self.context.queue.submit(units, reply, true) {
            tracing::debug!(%refusal, "acks are not written");
        }
    }

    fn team_hears(self: &Rc<Self>, news: News) {
        if let Some(member) = news.join {
            self.team_changes(&news.plan, &[member], None);
        }
        let now = self.mono();
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(key) = state.shared_by_plan.get(&*news.plan).copied() else { return };
        let Some(shared) = state.shared.get_mut(key) else { return };
        if let Some(team) = &mut shared.team {
            team.hear(&news);
            if news.left.is_some() {
                team.leave(news.id);
            }
        }
        if let Some(cursor) = &mut shared.cursor {
            let epoch = cursor.epoch();
            for acked in news.acked.iter().filter(|acked| acked.0 == epoch) {
                cursor.ack(acked.1);
            }
            for message in news.back.into_iter().filter(|message| message.epoch == epoch) {
                let seq: Seq = message.seq;
                cursor.nack(seq, news.id, now, 0);
                if cursor.may_come(seq) {
                    shared.known.insert(seq, Some(message));
                }
            }
            if news.left == Some(Left::Ended) {
                let back = cursor.leave(news.id, now, Leave::Whole);
                self.context.counters.handed_back.add(back.len() as u64);
            }
        }
        self.context.counters.acks.add(news.acked.len() as u64);
        self.shared_ready(state, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::port::peer::SubOptions;

    fn member(id: u64) -> Member {
        let key = SessionKey { index: id as u32, generation: 1 };
        Member { shard: 0, key, options: SubOptions::default(), at: 0, id }
    }

    fn plan() -> Arc<SharedPlan> {
        crate::shares::ShareName::new("a", "g").plan.unwrap()
    }

    #[test]
    fn members_take_turns_as_they_have_room() {
        let mut team = Team::default();
        [1, 2, 1].iter().for_each(|id| team.join(&member(*id)));
        let picks: Vec<_> = (0..4).map(|_| team.pick()).collect();
        assert_eq!(picks, [Some(0), Some(1), Some(0), Some(1)]);
        team.members[1].places = 0;
        assert_eq!((team.pick(), team.pick()), (Some(0), Some(0)));
        team.leave(1);
        assert_eq!(team.pick(), None);
        team.hear(&News { room: Some((3, 0)), ..News::new(&plan(), 2) });
        assert_eq!((team.pick(), team.members[0].places), (Some(0), 3));
    }

    #[test]
    fn who_refused_gets_nothing_before_it_has_room_again() {
        let mut team = Team::default();
        team.join(&member(1));
        (team.members[0].flying, team.members[0].places) = (3, 29);
        let message = crate::shares::tests::message();
        let back = vec![message.clone()];
        team.hear(&News { back, answered: 2, ..News::new(&plan(), 1) });
        assert_eq!((team.pick(), team.members[0].flying), (None, 1));
        // One that was sent before is refused, too, though it has room again by now.
        team.hear(&News { room: Some((5, 1)), ..News::new(&plan(), 1) });
        assert_eq!((team.members[0].full, team.members[0].places), (false, 4));
        let late = News { back: vec![message], answered: 1, ..News::new(&plan(), 1) };
        team.hear(&News { room: Some((5, 1)), ..late });
        let member = &team.members[0];
        assert_eq!((member.full, member.flying, member.places, member.rooms), (false, 0, 5, 1));
    }
}
