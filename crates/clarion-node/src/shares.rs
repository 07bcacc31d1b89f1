//! `$share/<group>/<filter>` of live sessions: one member of each group gets a message, in turn. What is stored for a group that
//! has members who may come back later is not picked for here: see [`Groups`].
//!
//! Invariant: a member is in its groups exactly while its session has the subscription. Must not know: how a message
//! reaches a member.

mod groups;

pub(crate) use groups::Groups;

use crate::attach::SharedPlan;
use crate::shard::{Mailbox, SessionKey};
use clarion_core::Message;
use clarion_core::durable::subs::{StoredSub, log_of};
use clarion_core::port::peer::SubOptions;
use clarion_core::port::store::Reader;
use clarion_core::topic_tree::TopicTree;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A session in a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) shard: usize,
    pub(crate) key: SessionKey,
    pub(crate) options: SubOptions,
    /// Which of its session's shared subscriptions it is.
    pub(crate) at: u32,
    /// Its number, never used before.
    pub(crate) id: u64,
}

/// Names a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShareName {
    pub(crate) filter: Box<str>,
    pub(crate) group: Box<str>,
    /// The cursor that it has while members may come back later; `None` = nothing of what it matches is ever stored.
    pub(crate) plan: Option<Arc<SharedPlan>>,
}

/// Longest filter and group, together, of which members may come back later.
const KEPT_MAX: usize = 900;

impl ShareName {
    pub(crate) fn new(filter: &str, group: &str) -> Self {
        let plan = |channel| Arc::new(SharedPlan { channel, reader: Reader::share(group) });
        // Longer names have no room in the keys of records.
        let log = log_of(filter).filter(|log| log.as_str().len() + group.len() <= KEPT_MAX);
        Self { filter: filter.into(), group: group.into(), plan: log.map(plan) }
    }

    /// The group that a stored subscription keeps; `None` = it keeps none.
    pub(crate) fn of(sub: &StoredSub) -> Option<Self> {
        // The empty one is that of a user's feed.
        let group =
            sub.share.as_deref().filter(|group| !group.is_empty() && sub.options.qos > 0)?;
        Some(Self::new(&sub.filter, group)).filter(|name| name.plan.is_some())
    }
}

/// The members of one group on one filter.
#[derive(Debug)]
struct Group {
    name: Arc<ShareName>,
    members: Vec<Member>,
    turn: AtomicUsize,
}

impl Group {
    fn pick(&self) -> Picked {
        let count = self.members.len();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % count.max(1);
        let members = self.members.iter().cycle().skip(first).take(count.min(ASKED_MAX));
        Picked { name: self.name.clone(), members: members.copied().collect() }
    }
}

/// A group's choice: its members, beginning with the one whose turn it is. The first that takes the message has it.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) name: Arc<ShareName>,
    pub(crate) members: Vec<Member>,
}

impl Picked {
    /// Hands a message to the member whose turn it is.
    pub(crate) fn post(self, mailboxes: &[Arc<Mailbox>], message: Arc<Message>) {
        if let Some(first) = self.members.first() {
            mailboxes[first.shard].post_share(message, self);
        }
    }
}

/// Members that are asked, one after the other.
const ASKED_MAX: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    groups: TopicTree<Vec<Group>>,
}

impl Shares {
    /// A session subscribes, or does so again with other options. Returns whether it is new.
    pub(crate) fn join(&mut self, filter: &str, name: &str, member: Member) -> bool {
        let groups = self.groups.entry(filter);
        let at = groups.iter().position(|group| *group.name.group == *name).unwrap_or_else(|| {
            let turn = AtomicUsize::new(0);
            let name = Arc::new(ShareName::new(filter, name));
            groups.push(Group { name, members: Vec::new(), turn });
            groups.len() - 1
        });
        let members = &mut groups[at].members;
        match members.iter_mut().find(|m| (m.shard, m.key) == (member.shard, member.key)) {
            Some(known) => {
                *known = member;
                false
            }
            None => {
                members.push(member);
                true
            }
        }
    }

    /// A session unsubscribes, or ends.
    pub(crate) fn leave(&mut self, filter: &str, name: &str, (shard, key): (usize, SessionKey)) {
        let Some(groups) = self.groups.get_mut(filter) else { return };
        for group in groups.iter_mut().filter(|group| *group.name.group == *name) {
            group.members.retain(|member| (member.shard, member.key) != (shard, key));
        }
        groups.retain(|group| !group.members.is_empty());
        if groups.is_empty() {
            self.groups.remove(filter);
        }
    }

    /// All members of a group.
    pub(crate) fn members(&mut self, name: &ShareName) -> Vec<Member> {
        let groups = self.groups.get_mut(&name.filter).map(|groups| groups.iter());
        let mut named = groups.into_iter().flatten().filter(|group| *group.name == *name);
        named.next().map_or(Vec::new(), |group| group.members.clone())
    }

    /// Whether a group's filter matches.
    pub(crate) fn has_any(&self, topic: &str) -> bool {
        let mut any = false;
        self.groups.matches(topic, |_| any = true);
        any
    }

    /// Of each group whose filter matches, the members in the order in which they are asked.
    pub(crate) fn pick(&self, topic: &str) -> Vec<Picked> {
        let mut picked = Vec::new();
        self.groups.matches(topic, |groups| picked.extend(groups.iter().map(Group::pick)));
        picked
    }

    /// The members of one group, in the order in which they are asked.
    pub(crate) fn pick_of(&mut self, name: &ShareName) -> Option<Picked> {
        let groups = self.groups.get_mut(&name.filter)?;
        groups.iter().find(|group| *group.name == *name).map(Group::pick)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clarion_core::{Address, Content, MessageId};

    pub(crate) fn message() -> Arc<Message> {
        let content = Arc::new(Content::default());
        let channel = Address::topic("a").unwrap();
        let id = MessageId::live(1, 1, 1);
        Arc::new(Message { id, channel, epoch: 1, seq: 1, created_at: 1, content })
    }

    fn member(index: u32) -> Member {
        Member {
            shard: 0,
            key: SessionKey { index, generation: 1 },
            options: SubOptions::default(),
            at: 0,
            id: u64::from(index),
        }
    }

    fn picks(shares: &Shares, topic: &str) -> Vec<Vec<u32>> {
        let picked = shares.pick(topic).into_iter();
        picked.map(|p| p.members.iter().map(|m| m.key.index).collect()).collect()
    }

    #[test]
    fn members_take_turns() {
        let mut shares = Shares::default();
        assert!(shares.join("a/+", "g", member(1)));
        assert!(shares.join("a/+", "g", member(2)));
        assert!(!shares.join("a/+", "g", member(2)), "again");
        assert!(shares.join("a/+", "h", member(3)));
        assert_eq!(picks(&shares, "a/b"), [vec![1, 2], vec![3]]);
        assert_eq!(picks(&shares, "a/b"), [vec![2, 1], vec![3]]);
        assert!(picks(&shares, "b").is_empty());
        shares.leave("a/+", "g", (0, member(1).key));
        shares.leave("a/+", "h", (1, member(3).key));
        assert_eq!(picks(&shares, "a/b"), [vec![2], vec![3]]);
        shares.leave("a/+", "g", (0, member(2).key));
        shares.leave("a/+", "h", (0, member(3).key));
        assert!(shares.groups.is_empty());
    }
}
