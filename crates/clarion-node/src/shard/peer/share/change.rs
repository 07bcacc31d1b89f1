//! How sessions come to groups and leave them.
//!
//! A session is a member from its SUBSCRIBE on; it is in the team of a group with a cursor from then on, or from when the
//! group gets one. Which stored sessions make a group have one is changed in the committer, with their subscriptions.

use super::{Left, ShareSub};
use crate::shard::peer::PeerState;
use crate::shard::peer::stored::Stored;
use crate::shard::{SessionKey, Shard, State};
use crate::shares::{Groups, Member, ShareName};
use clarion_core::Millis;
use clarion_core::port::peer::SubOptions;
use clarion_core::port::store::Unit;
use std::rc::Rc;
use std::sync::Arc;

/// Groups that a stored session comes to (`true`), or leaves, in order.
#[derive(Default)]
pub(in crate::shard::peer) struct Joining(Vec<(Arc<ShareName>, bool)>);

impl Joining {
    /// A subscription of a stored session was granted one QoS and is granted another now.
    pub(in crate::shard::peer) fn plan(&mut self, filter: &str, group: &str, old: u8, new: u8) {
        let name = ShareName::new(filter, group);
        if (old > 0) != (new > 0) && name.plan.is_some() {
            self.0.push((Arc::new(name), new > 0));
        }
    }

    /// The logs that are read from now on.
    pub(in crate::shard::peer) fn logs(&self, joins: bool) -> Vec<clarion_core::Address> {
        let plans =
            self.0.iter().filter(|one| one.1 == joins).filter_map(|one| one.0.plan.as_ref());
        plans.map(|plan| plan.channel.clone()).collect()
    }

    /// Its units; run in the committer.
    pub(in crate::shard::peer) fn units(
        &self,
        groups: &Groups,
        number: u64,
        at: Millis,
    ) -> Vec<Unit> {
        let units = |(name, joins): &(Arc<ShareName>, bool)| match joins {
            true => groups.begin(name, number, at),
            false => groups.end(name, number),
        };
        self.0.iter().flat_map(units).collect()
    }

    /// They could not be committed.
    pub(in crate::shard::peer) fn undo(&self, groups: &Groups, number: u64) {
        for (name, _) in self.0.iter().filter(|one| one.1) {
            name.plan.iter().for_each(|plan| groups.leave(plan, number));
        }
    }
}

impl ShareSub {
    /// A place for a subscription among those of its session.
    fn place(shares: &mut Vec<Self>, name: ShareName, groups: &Groups) -> Option<usize> {
        let plan = name.plan.clone()?;
        if let Some(at) = shares.iter().position(|sub| *sub.name == name) {
            return Some(at);
        }
        let new = Self {
            name: Arc::new(name),
            plan,
            options: SubOptions::default(),
            id: groups.next_member(),
            current: false,
            out: 0,
            rooms: 0,
            refused: None,
            spent: false,
            kept: None,
        };
        // One of which nothing is out is of no more use; its id is told as having ended before.
        let free = shares.iter().position(|sub| !sub.current && sub.out == 0);
        match free {
            Some(at) => shares[at] = new,
            None => shares.push(new),
        }
        free.or(Some(shares.len() - 1))
    }
}

impl Shard {
    /// A session subscribes to a group, or does so again with other options.
    pub(in crate::shard::peer) fn enter_share(
        &self,
        state: &mut State,
        key: SessionKey,
        (filter, group): (&str, &str),
        options: SubOptions,
    ) {
        let groups = &self.context.planner.durable.groups;
        let shard = self.context.index;
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        let at = ShareSub::place(&mut peer.shares, ShareName::new(filter, group), groups);
        let Some(sub) = at.and_then(|at| peer.shares.get_mut(at)) else {
            // Nothing is ever published there, but it may be unsubscribed from.
            let member = Member { shard, key, options, at: 0, id: groups.next_member() };
            self.context.interest.shares(|shares| shares.join(filter, group, member));
            return;
        };
        (sub.options, sub.current) = (options, true);
        let member = sub.member(shard, key, at.unwrap_or_default() as u32);
        let (plan, id) = (sub.plan.clone(), sub.id);
        // First here: whoever makes the group durable now finds it there, or it finds the group durable.
        self.context.interest.shares(|shares| shares.join(filter, group, member));
        if groups.since(&plan).is_some() {
            self.news(state, &plan, id).join = Some(member);
        }
    }

    /// A session unsubscribes from a group; of one that has ended see [`Shard::end_shares`].
    pub(in crate::shard::peer) fn leave_share(
        &self,
        state: &mut State,
        key: SessionKey,
        (filter, group): (&str, &str),
    ) {
        let index = self.context.index;
        self.context.interest.shares(|shares| shares.leave(filter, group, (index, key)));
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        let named = |sub: &&mut ShareSub| *sub.name.filter == *filter && *sub.name.group == *group;
        let Some(sub) = peer.shares.iter_mut().find(named) else { return };
        sub.current = false;
        // What is on its way to it is not taken, also if it comes again.
        sub.rooms += 1;
        let (plan, id) = (sub.plan.clone(), sub.id);
        let left = if sub.out > 0 { Left::Finishing } else { Left::Ended };
        self.news(state, &plan, id).left = Some(left);
    }

    /// A stored session that comes back is a member where its subscriptions say so, whatever became of its last change.
    pub(in crate::shard::peer) fn assure_groups(&self, stored: &Stored) {
        let groups = &self.context.planner.durable.groups;
        for name in stored.subs().filter_map(|(_, sub)| ShareName::of(sub)) {
            if let Some(plan) = &name.plan {
                groups.enter(plan, stored.number(), 0);
            }
        }
    }

    /// A change of groups is committed, with this stamp.
    pub(in crate::shard::peer) fn joined(self: &Rc<Self>, joining: &Joining, at: Millis) {
        for (name, _) in &joining.0 {
            let Some(plan) = &name.plan else { continue };
            let members = self.context.interest.shares(|shares| shares.members(name));
            self.post_team_changes(plan, members, Some(at));
        }
    }
}
