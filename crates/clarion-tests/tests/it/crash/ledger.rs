//! What was published, delivered and acked, and what that allows. Every check is an assertion. Must not know: the network.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

/// What a message says of itself: who published it, as his how manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag {
    pub(super) publisher: usize,
    pub(super) number: u64,
}

#[derive(Default)]
pub(super) struct Ledger {
    users: Vec<User>,
    readers: Vec<Reader>,
}

#[derive(Default)]
struct User {
    acknowledged: BTreeMap<u64, Tag>,
    unanswered: HashSet<Tag>,
    delivered: BTreeMap<u64, Tag>,
    deliveries: u64,
    repeated: u64,
}

/// A reader's cursor as the client may believe it.
#[derive(Default)]
struct Reader {
    /// Answered acks, with the time of the answer.
    acks: Vec<(Instant, u64)>,
    /// The highest ack that was sent, answered or not.
    sent: u64,
    /// Acked before the last kill so long ago, or proven by a resume: must not come again.
    settled: u64,
}

impl Ledger {
    pub(super) fn new(users: usize, readers: usize) -> Self {
        Self {
            users: (0..users).map(|_| User::default()).collect(),
            readers: (0..readers).map(|_| Reader::default()).collect(),
        }
    }

    pub(super) fn published(
        &mut self,
        acknowledged: Vec<(usize, u64, Tag)>,
        unanswered: Vec<(usize, Tag)>,
    ) {
        for (user, seq, tag) in acknowledged {
            let before = self.users[user].acknowledged.insert(seq, tag);
            assert_eq!(before, None, "user {user}: two publishes were answered with seq {seq}");
        }
        for (user, tag) in unanswered {
            self.users[user].unanswered.insert(tag);
        }
    }

    /// What one session delivered, in its order.
    pub(super) fn read(&mut self, user: usize, session: &[(u64, Tag)]) {
        for pair in session.windows(2) {
            assert_eq!(pair[1].0, pair[0].0 + 1, "user {user}: a hole or a step back in a session");
        }
        let user = &mut self.users[user];
        for (seq, tag) in session {
            user.deliveries += 1;
            if let Some(before) = user.delivered.insert(*seq, *tag) {
                assert_eq!(before, *tag, "seq {seq} held another message before");
                user.repeated += 1;
            }
        }
    }

    pub(super) fn acked(&mut self, reader: usize, answered: &[(Instant, u64)], sent: u64) {
        let reader = &mut self.readers[reader];
        reader.acks.extend(answered);
        reader.sent = reader.sent.max(sent);
    }

    /// At a kill: acks that are old enough must hold. How many seqs that adds to those that must.
    pub(super) fn killed(&mut self, at: Instant, old: Duration) -> u64 {
        let mut added = 0;
        for reader in &mut self.readers {
            let is_old = |answered: &Instant| at.saturating_duration_since(*answered) >= old;
            let acks = reader.acks.iter();
            let seq = acks.filter(|(answered, _)| is_old(answered)).map(|(_, seq)| *seq).max();
            added += seq.unwrap_or(0).saturating_sub(reader.settled);
            reader.settled = reader.settled.max(seq.unwrap_or(0));
        }
        added
    }

    /// After a restart a reader goes on with this seq.
    pub(super) fn resumed(&mut self, index: usize, first: u64) {
        let reader = &mut self.readers[index];
        let settled = reader.settled;
        assert!(
            first > settled,
            "reader {index}: got {first} again, acked up to {settled} long before the kill"
        );
        let sent = reader.sent;
        assert!(first <= sent + 1, "reader {index}: goes on at {first}, acked only up to {sent}");
        // What lies below was stored; what lies above was lost with the crash, as it may be.
        reader.settled = first - 1;
        reader.acks.clear();
        reader.sent = first - 1;
    }

    /// After everybody has read up to the present end: all of it adds up.
    pub(super) fn settle(&self) {
        for (i, user) in self.users.iter().enumerate() {
            let last = user.delivered.last_key_value().map_or(0, |(seq, _)| *seq);
            assert_eq!(user.delivered.len() as u64, last, "user {i}: seqs are dense from 1");
            for (seq, tag) in &user.acknowledged {
                let got = user.delivered.get(seq);
                assert_eq!(got, Some(tag), "user {i}: acknowledged at {seq}");
            }
            let mut newest: HashMap<usize, u64> = HashMap::new();
            for (seq, tag) in &user.delivered {
                let known = user.acknowledged.contains_key(seq) || user.unanswered.contains(tag);
                assert!(known, "user {i}: {tag:?} at {seq} was refused or never sent");
                let before = newest.insert(tag.publisher, tag.number);
                assert!(before < Some(tag.number), "user {i}: {tag:?} at {seq} after {before:?}");
            }
        }
    }

    /// A session that got a user's whole log.
    pub(super) fn check_whole(&self, user: usize, session: Vec<(u64, Tag)>) {
        let all: Vec<(u64, Tag)> =
            self.users[user].delivered.iter().map(|(s, t)| (*s, *t)).collect();
        assert_eq!(session.len(), all.len(), "user {user}");
        assert!(session == all, "user {user}: the log reads otherwise than before");
    }

    /// The last seq that a user was delivered.
    pub(super) fn read_to(&self, user: usize) -> u64 {
        self.users[user].delivered.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// Deliveries and repetitions so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let sum = |of: fn(&User) -> u64| self.users.iter().map(of).sum();
        (sum(|user| user.deliveries), sum(|user| user.repeated))
    }
}
