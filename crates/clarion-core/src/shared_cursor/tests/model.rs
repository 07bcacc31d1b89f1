//! A property against a model that keeps one state per seq.

use super::*;
use proptest::prelude::*;

/// What the model knows of one seq.
#[derive(Debug, Clone, PartialEq)]
enum State {
    New,
    Leased { members: BTreeSet<Member>, until: Millis, attempts: u32 },
    Written { member: Member, at: Millis },
    Back { due: Millis, attempts: u32 },
    GivenBack,
    Dead,
    Acked,
}

/// Entries of what settles grow for so long.
const BUCKET_MS: u64 = 1_000;

struct Model {
    states: Vec<State>,
    now: Millis,
}

impl Model {
    fn end(&mut self, i: usize, due: Millis, attempts: u32) -> Ended {
        let seq = i as Seq + 1;
        if attempts >= LIMITS.max_attempts.unwrap() {
            self.states[i] = State::Dead;
            return Ended::Dead(seq);
        }
        self.states[i] = State::Back { due, attempts };
        Ended::Back(seq)
    }

    fn take_off(&mut self, i: usize, member: Member, due: Millis) -> Ended {
        if let State::Leased { members, attempts, .. } = &mut self.states[i]
            && members.remove(&member)
            && members.is_empty()
        {
            let attempts = *attempts;
            return self.end(i, due, attempts);
        }
        Ended::Nothing
    }

    fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.states.iter().filter(|state| is(state)).count()
    }

    fn unacked(&self) -> usize {
        self.count(|s| matches!(s, State::Leased { .. } | State::Back { .. } | State::Dead))
    }

    fn hand_out(&mut self, cursor: &mut SharedCursor, members: &[Member]) {
        let room = self.unacked() < LIMITS.max_unacked;
        let waits = self.count(|s| *s == State::GivenBack) >= LIMITS.max_unacked;
        let fresh = self.states.iter().position(|s| *s == State::New);
        let fresh = fresh.filter(|_| room && !waits);
        let again = self.states.iter().position(|s| match s {
            State::Back { due, .. } => *due <= self.now,
            State::GivenBack => room,
            _ => false,
        });
        let seq = cursor.upcoming(self.now);
        let i = seq.map(|seq| seq as usize - 1);
        assert!(
            i.is_none() == (fresh.is_none() && again.is_none()),
            "{seq:?} of {fresh:?}, {again:?}"
        );
        let Some(i) = i else { return };
        assert!(Some(i) == fresh || Some(i) == again, "{seq:?} is neither {fresh:?} nor {again:?}");
        let attempts = match self.states[i] {
            State::Back { attempts, .. } => attempts,
            State::GivenBack => 1,
            _ => 0,
        };
        assert!(cursor.lease(i as Seq + 1, members, self.now));
        assert_eq!(cursor.attempts_of(i as Seq + 1), attempts + 1);
        self.states[i] = State::Leased {
            members: members.iter().copied().collect(),
            until: self.now + LIMITS.ack_wait_ms.unwrap(),
            attempts: attempts + 1,
        };
    }

    fn ack(&mut self, cursor: &mut SharedCursor, seq: Seq) {
        let state = &mut self.states[seq as usize - 1];
        let expected = match state {
            State::New => Acked::Unknown,
            State::Acked => Acked::Before,
            _ => Acked::Now,
        };
        assert_eq!(cursor.ack(seq), expected, "ack of {seq}, {state:?}");
        if expected == Acked::Now {
            *state = State::Acked;
        }
    }

    fn wrote(&mut self, cursor: &mut SharedCursor, seq: Seq, member: Member) {
        let state = &mut self.states[seq as usize - 1];
        let held = matches!(state, State::Leased { members, .. } if members.contains(&member));
        assert_eq!(
            cursor.wrote(seq, member, self.now),
            held,
            "{member} was written {seq}, {state:?}"
        );
        if held {
            *state = State::Written { member, at: self.now };
        }
    }

    fn expire(&mut self, cursor: &mut SharedCursor) {
        let mut expected = Vec::new();
        for i in 0..self.states.len() {
            if let State::Leased { until, attempts, .. } = self.states[i]
                && until <= self.now
            {
                expected.push((until, i, attempts));
            }
        }
        expected.sort_unstable();
        let ended: Vec<_> =
            expected.into_iter().map(|(_, i, attempts)| self.end(i, self.now, attempts)).collect();
        assert_eq!(cursor.expire(self.now), ended);
    }

    /// What was written is acked after its time, or at most as much later as an entry grows.
    fn settle(&mut self, cursor: &mut SharedCursor) {
        let before = cursor.cursor().clone();
        assert_eq!(cursor.settle(self.now), before != *cursor.cursor());
        for (i, state) in self.states.iter_mut().enumerate() {
            let State::Written { at, .. } = *state else { continue };
            let (acked, due) = (cursor.cursor().is_acked(i as Seq + 1), at + LIMITS.settle_ms);
            assert!(!acked || due <= self.now, "{i} is acked early");
            assert!(acked || self.now < due + BUCKET_MS, "{i} is never acked");
            if acked {
                *state = State::Acked;
            }
        }
        assert!(
            cursor.wakes_at().is_none_or(|at| at > self.now || cursor.upcoming(self.now).is_some())
        );
    }

    fn leave(&mut self, cursor: &mut SharedCursor, member: Member, how: Leave) {
        let mut expected = Vec::new();
        for i in 0..self.states.len() {
            expected.push(self.take_off(i, member, self.now));
        }
        expected.retain(|e| *e != Ended::Nothing);
        let ended = cursor.leave(member, self.now, how);
        let mut before = None;
        for (i, state) in self.states.iter_mut().enumerate() {
            let State::Written { member: of, at } = *state else { continue };
            if of != member {
                continue;
            }
            let acked = cursor.cursor().is_acked(i as Seq + 1);
            let young = self.now < at + LIMITS.settle_ms;
            assert!(acked || how == Leave::Broken, "{i} is acked by a member that leaves whole");
            assert!(!acked || how == Leave::Whole || !young, "{i} is lost by one that broke");
            *state = if acked { State::Acked } else { State::GivenBack };
            if !acked {
                if before.is_none_or(|before| before + 1 != i) {
                    expected.push(Ended::Back(i as Seq + 1));
                }
                before = Some(i);
            }
        }
        assert_eq!(ended, expected);
    }

    fn trimmed(&mut self, cursor: &mut SharedCursor, first: Seq) {
        cursor.trimmed(first);
        self.states[..first as usize - 1].fill(State::Acked);
    }

    fn check(&self, cursor: &SharedCursor) {
        assert_eq!(cursor.unacked(), self.unacked());
        assert_eq!(cursor.given_back(), self.count(|s| *s == State::GivenBack) as u64);
        let written = self.count(|s| matches!(s, State::Written { .. }));
        assert_eq!(cursor.settling(), written as u64);
        for (i, state) in self.states.iter().enumerate() {
            let seq = i as Seq + 1;
            assert_eq!(cursor.cursor().is_acked(seq), *state == State::Acked, "{seq}: {state:?}");
            let leased = matches!(state, State::Leased { .. });
            assert_eq!(cursor.lease_of(seq).is_some(), leased);
            assert_eq!(cursor.attempts_of(seq) > 0, leased);
        }
        let mut stopped = cursor.clone();
        stopped.settle_all();
        for (i, state) in self.states.iter().enumerate() {
            let acked = matches!(state, State::Acked | State::Written { .. });
            assert_eq!(stopped.cursor().is_acked(i as Seq + 1), acked, "{i} at a clean stop");
        }
    }
}

proptest! {
    #[test]
    fn it_is_one_state_per_seq(
        steps in prop::collection::vec((0u8..14, 1u64..=12, 0u64..4, 0u64..60), 1..150),
    ) {
        let mut cursor = cursor(12);
        let mut model = Model { states: vec![State::New; 12], now: 0 };
        for (step, seq, member, ms) in steps {
            match step {
                0..=2 => model.hand_out(&mut cursor, &[member]),
                3 => model.hand_out(&mut cursor, &[member, member + 1]),
                4 => model.ack(&mut cursor, seq),
                5 => {
                    let due = model.now + if ms > 30 { ms } else { 0 };
                    let expected = model.take_off(seq as usize - 1, member, due);
                    let got = cursor.nack(seq, member, model.now, due - model.now);
                    prop_assert_eq!(got, expected);
                }
                6 if ms < 20 => model.leave(&mut cursor, member, Leave::Whole),
                6 => model.leave(&mut cursor, member, Leave::Broken),
                7 => {
                    for seq in 1..=12 {
                        model.wrote(&mut cursor, seq, member);
                    }
                }
                8 => model.wrote(&mut cursor, seq, member),
                9 if ms < 5 => model.trimmed(&mut cursor, seq / 2 + 1),
                _ => {
                    model.now += if ms % 7 == 0 { 20 * ms } else { ms };
                    model.expire(&mut cursor);
                    model.settle(&mut cursor);
                }
            }
            model.check(&cursor);
        }
    }
}
