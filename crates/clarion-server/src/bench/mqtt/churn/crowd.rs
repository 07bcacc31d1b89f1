//! The sessions of a churn as the bench knows them, and what they subscribe.
//!
//! A session's own topics and the filters that it shares with others follow from its number and its version; with a new version it
//! has other filters in some places. Invariant: distinct topics and filters are as many as was asked for, however often versions change.
//! Must not know: connections.

use super::Population;

/// How much earlier or later than it was asked for a session may end, in seconds.
const EARLY: u32 = 1;
const LATE: u32 = 15;

/// What the broker should have of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    Session,
    /// A session until this second, then nothing.
    Until(u32),
    /// A connection failed: either.
    Unknown,
}

impl Kept {
    /// Whether a CONNECT in this second must find it.
    pub(super) fn must_be(self, second: u32) -> bool {
        match self {
            Self::Session => true,
            Self::Until(end) => second + EARLY < end,
            Self::Nothing | Self::Unknown => false,
        }
    }

    /// Whether one that began in this second may find it.
    pub(super) fn may_be(self, second: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Until(end) => second <= end + LATE,
            Self::Session | Self::Unknown => true,
        }
    }
}

/// One session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) kept: Kept,
    /// A visit is under way.
    pub(super) busy: bool,
    version: u8,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Crowd {
    prefix: String,
    size: Population,
    known: Vec<Known>,
    pub(super) random: Random,
}

impl Crowd {
    pub(super) fn new(prefix: &str, size: Population) -> Self {
        let known = Known { kept: Kept::Nothing, busy: false, version: 0 };
        let known = vec![known; size.sessions as usize];
        Self { prefix: prefix.into(), size, known, random: Random(1) }
    }

    pub(super) fn len(&self) -> u32 {
        self.size.sessions
    }

    pub(super) fn known(&mut self, session: u32) -> &mut Known {
        &mut self.known[session as usize]
    }

    /// All that a session subscribes.
    pub(super) fn filters(&self, session: u32) -> Vec<String> {
        (0..self.size.subscriptions).map(|place| self.filter(session, place)).collect()
    }

    /// What it ends, or begins, when its version changes: a third.
    pub(super) fn passing(&self, session: u32) -> Vec<String> {
        let places = (0..self.size.subscriptions).filter(|place| passes(*place));
        places.map(|place| self.filter(session, place)).collect()
    }

    /// The next version of a session.
    pub(super) fn change(&mut self, session: u32) {
        let known = self.known(session);
        known.version = known.version.wrapping_add(1);
    }

    fn filter(&self, session: u32, place: u32) -> String {
        if place < self.size.own() {
            return self.own_topic(session, place);
        }
        let version = self.known.get(session as usize).map_or(0, |known| known.version);
        let version = if passes(place) { u64::from(version) } else { 0 };
        let mixed = mix(u64::from(session) << 32 | u64::from(place) << 8 | version);
        let shared = mixed % u64::from(self.size.filters);
        let end = if shared.is_multiple_of(2) { "#" } else { "+" };
        format!("{}/s/{shared}/{end}", self.prefix)
    }

    fn own_topic(&self, session: u32, place: u32) -> String {
        format!("{}/o/{session:x}/{place}", self.prefix)
    }

    /// A topic that sessions read: in turn one's own and one of those for a shared filter.
    pub(super) fn topic(&mut self, message: u64) -> String {
        let own = self.size.own();
        if own > 0 && message.is_multiple_of(2) {
            let session = self.random.below(self.size.sessions);
            let place = self.random.below(own);
            return self.own_topic(session, place);
        }
        let shared = self.random.below(self.size.filters);
        format!("{}/s/{shared}/{}", self.prefix, self.random.below(4))
    }
}

fn passes(place: u32) -> bool {
    place.is_multiple_of(3)
}

/// The same each time: a run can be repeated.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    /// Below this.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) % u64::from(end.max(1))) as u32
    }

    pub(super) fn shuffle(&mut self, numbers: &mut [u32]) {
        for place in (1..numbers.len()).rev() {
            let other = self.below(place as u32 + 1) as usize;
            numbers.swap(place, other);
        }
    }
}

/// Splitmix64's.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_new_version_changes_a_third_and_no_filter_is_new() {
        let size = Population { sessions: 50, subscriptions: 10, own: Some(5), filters: 7 };
        let mut crowd = Crowd::new("b/1", size);
        let mut shared = HashSet::new();
        for _ in 0..9 {
            for session in 0..50 {
                let (before, passing) = (crowd.filters(session), crowd.passing(session));
                shared.extend(before.iter().filter(|filter| filter.contains("/s/")).cloned());
                crowd.change(session);
                let after = crowd.filters(session);
                let gone = before.iter().zip(&after).filter(|(old, new)| old != new);
                assert!(gone.map(|(old, _)| old).all(|old| passing.contains(old)));
                assert_eq!(passing.len(), 4);
                assert_eq!(after[0], passing[0], "an own topic");
            }
        }
        assert_eq!(shared.len(), 7);
    }

    #[test]
    fn a_session_ends_about_when_it_should() {
        let kept = Kept::Until(100);
        assert!(kept.must_be(90) && !kept.must_be(100));
        assert!(kept.may_be(100) && !kept.may_be(200));
        assert!(!Kept::Nothing.may_be(0) && Kept::Session.must_be(7));
        assert!(Kept::Unknown.may_be(7) && !Kept::Unknown.must_be(7));
    }

    #[test]
    fn everybody_is_in_a_shuffled_order() {
        let mut numbers: Vec<u32> = (0..100).collect();
        Random(3).shuffle(&mut numbers);
        assert!(!numbers.is_sorted());
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..100));
    }
}
