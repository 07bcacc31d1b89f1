//! `$share/<group>/<filter>` of live sessions: one member of each group gets a message, in turn.
//!
//! Invariant: a member is in its groups exactly while its session has the subscription. Must not know: how a message
//! reaches a member.

use crate::shard::{Mailbox, SessionKey};
use clarion_core::Message;
use clarion_core::port::peer::SubOptions;
use clarion_core::topic_tree::TopicTree;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A session in a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    pub(crate) shard: usize,
    pub(crate) key: SessionKey,
    pub(crate) options: SubOptions,
}

/// Names a group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ShareName {
    pub(crate) filter: Box<str>,
    pub(crate) group: Box<str>,
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
            let name = Arc::new(ShareName { filter: filter.into(), group: name.into() });
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
mod tests {
    use super::*;

    fn member(index: u32) -> Member {
        Member {
            shard: 0,
            key: SessionKey { index, generation: 1 },
            options: SubOptions::default(),
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
