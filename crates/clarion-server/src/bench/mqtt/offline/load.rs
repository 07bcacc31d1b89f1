//! Who publishes what, where, in which order, and who is to get it: all of it follows from the arguments.
//!
//! Sessions with the same filter are a group. Messages go to the groups in turn, within a group to its topics in turn, and each
//! publisher gets its share of every topic. A lane is what one publisher publishes to one topic: there the order is kept.
//! Must not know: MQTT.

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// How the topics begin.
    pub(super) prefix: String,
    pub(super) wildcard: bool,
    pub(super) sessions: u32,
    /// As many as sessions, or one.
    pub(super) groups: u32,
    /// Of a group.
    pub(super) topics: u32,
    pub(super) publishers: u32,
    /// To each group.
    pub(super) messages: u32,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) group: u32,
    /// Of the group.
    pub(super) topic: u32,
    pub(super) publisher: u32,
    /// In its lane.
    pub(super) number: u32,
}

impl Load {
    pub(super) fn group_of(&self, session: u32) -> u32 {
        if self.groups == 1 { 0 } else { session }
    }

    pub(super) fn filter(&self, group: u32) -> String {
        let end = if self.wildcard { "/#" } else { "/0" };
        format!("{}/{group}{end}", self.prefix)
    }

    pub(super) fn put_topic(&self, out: &mut String, message: Message) {
        out.clear();
        out.push_str(&self.prefix);
        for level in [message.group, message.topic] {
            out.push('/');
            out.push_str(&level.to_string());
        }
    }

    /// Lanes of a group.
    pub(super) fn lanes(&self) -> u32 {
        self.topics.saturating_mul(self.publishers)
    }

    /// Whether each lane of all groups has a number of its own.
    pub(super) fn lanes_are_numbers(&self) -> bool {
        let lanes = u64::from(self.topics) * u64::from(self.publishers);
        lanes.saturating_mul(u64::from(self.groups)) <= u64::from(u32::MAX)
    }

    /// A message's lane among those of all groups.
    pub(super) fn lane(&self, message: Message) -> u32 {
        message.group * self.lanes() + message.topic * self.publishers + message.publisher
    }

    /// How many are published.
    pub(super) fn published(&self) -> u64 {
        u64::from(self.groups) * u64::from(self.messages)
    }

    /// The message at this place in the order of all.
    pub(super) fn message(&self, place: u64) -> Message {
        let group = (place % u64::from(self.groups)) as u32;
        let turn = (place / u64::from(self.groups)) as u32;
        let (topic, round) = (turn % self.topics, turn / self.topics);
        let publisher = (round % self.publishers + group % self.publishers) % self.publishers;
        Message { group, topic, publisher, number: round / self.publishers }
    }

    /// How many messages each lane of a group has.
    pub(super) fn lengths(&self, group: u32) -> Vec<u32> {
        let mut lengths = vec![0; self.lanes() as usize];
        for topic in 0..self.topics {
            let rounds = (self.messages + self.topics - 1 - topic) / self.topics;
            for publisher in 0..self.publishers {
                let first =
                    (publisher + self.publishers - group % self.publishers) % self.publishers;
                let later = rounds.saturating_sub(first).div_ceil(self.publishers);
                lengths[(topic * self.publishers + publisher) as usize] = later;
            }
        }
        lengths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(groups: u32, topics: u32, publishers: u32, messages: u32) -> Load {
        let (prefix, wildcard, sessions) = ("b/7".into(), topics > 1, groups.max(3));
        Load { prefix, wildcard, sessions, groups, topics, publishers, messages }
    }

    #[test]
    fn each_lane_is_numbered_without_gaps_and_as_long_as_it_is_said() {
        for (groups, topics, publishers, messages) in
            [(1, 1, 1, 5), (5, 1, 4, 7), (1, 3, 4, 50), (4, 3, 2, 11), (3, 7, 5, 4), (2, 1, 9, 3)]
        {
            let load = load(groups, topics, publishers, messages);
            let mut lanes = vec![0; (groups * load.lanes()) as usize];
            for message in (0..load.published()).map(|place| load.message(place)) {
                let next = &mut lanes[load.lane(message) as usize];
                assert_eq!(message.number, *next, "{load:?} {message:?}");
                *next += 1;
            }
            let said: Vec<u32> = (0..groups).flat_map(|group| load.lengths(group)).collect();
            assert_eq!(said, lanes, "{load:?}");
        }
    }

    #[test]
    fn topics_match_their_groups_filter() {
        let mut topic = String::new();
        let message = Message { group: 4, topic: 2, publisher: 0, number: 0 };
        let wildcard = load(5, 3, 1, 1);
        wildcard.put_topic(&mut topic, message);
        assert_eq!((wildcard.filter(4).as_str(), topic.as_str()), ("b/7/4/#", "b/7/4/2"));
        let exact = load(1, 1, 1, 1);
        exact.put_topic(&mut topic, Message { group: 0, topic: 0, ..message });
        assert_eq!((exact.filter(exact.group_of(2)), topic), ("b/7/0/0".into(), "b/7/0/0".into()));
    }

    #[test]
    fn too_many_lanes_are_noticed() {
        assert!(load(1_000_000, 1, 4, 1).lanes_are_numbers());
        assert!(!load(1_000_000, 1000, 1_000_000, 1).lanes_are_numbers());
    }
}
