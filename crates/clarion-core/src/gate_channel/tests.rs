//! Tables, and a property against a model that keeps one state per seq.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn channel(head: Seq) -> GateChannel {
    GateChannel::new(1, Cursor::default(), head)
}

#[test]
fn numbers_begin_anew_after_two_to_the_31_less_one() {
    for (seq, number) in [
        (1, 1),
        (2, 2),
        (STORED_IDS - 1, LIVE_IDS - 2),
        (STORED_IDS, LIVE_IDS - 1),
        (STORED_IDS + 1, 1),
        (2 * STORED_IDS + 7, 7),
    ] {
        assert_eq!(msg_id(seq), number, "of {seq}");
    }
}

#[test]
fn a_number_means_the_newest_seq_that_has_it() {
    for (head, number, seq) in [
        (0, 1, None),
        (5, 0, None),
        (5, 5, Some(5)),
        (5, 6, None),
        (5, LIVE_IDS, None),
        (5, u32::MAX, None),
        (STORED_IDS, LIVE_IDS - 1, Some(STORED_IDS)),
        (STORED_IDS + 3, 3, Some(STORED_IDS + 3)),
        (STORED_IDS + 3, 4, Some(4)),
        (3 * STORED_IDS, 9, Some(2 * STORED_IDS + 9)),
    ] {
        assert_eq!(channel(head).seq_of(number), seq, "{number} of a channel up to {head}");
    }
}

#[test]
fn the_first_received_acks_for_all() {
    let mut channel = channel(3);
    channel.hand_out(1, &[7, 8], 0);
    assert_eq!(channel.outcome(1), Outcome::Waiting);
    assert!(channel.waits_for(1, 7) && !channel.waits_for(1, 9) && !channel.waits_for(2, 7));
    assert!(!channel.unreceived(1, 7), "8 may still answer");
    assert!(channel.waits_for(1, 8) && !channel.waits_for(1, 7));
    assert_eq!(channel.received(1), Acked::Now);
    assert_eq!(channel.received(1), Acked::Before);
    assert!(!channel.unreceived(1, 8), "too late");
    assert_eq!((channel.outcome(1), channel.pending()), (Outcome::Received, 0));
    channel.hand_out(1, &[7], 9);
    assert_eq!(channel.pending(), 0, "it is acked");
    assert_eq!(channel.received(2), Acked::Now, "handed out before a restart, or removed");
    assert_eq!((channel.received(4), channel.received(0)), (Acked::Unknown, Acked::Unknown));
}

#[test]
fn the_whole_set_parks() {
    let mut channel = channel(9);
    channel.hand_out(4, &[1, 2], 10);
    assert!(!channel.unreceived(4, 2));
    assert!(!channel.parked(0, 10).contains(&4));
    assert!(channel.unreceived(4, 2), "on another stream than it went out on: 1 is taken off");
    assert!(!channel.unreceived(4, 1), "beyond the set");
    assert_eq!((channel.outcome(4), channel.parked(0, 0)), (Outcome::Unreceived, vec![4]));
    channel.hand_out(6, &[], 11);
    channel.hand_out(8, &[5], 12);
    assert_eq!(channel.parked(0, 0), [4, 6]);
    assert_eq!(channel.parked(4, 12), [6]);
    assert_eq!(channel.parked(4, 13), [6, 8], "8 is silent");
    assert!(channel.parked(Seq::MAX, 99).is_empty());
    channel.hand_out(4, &[3], 20);
    assert_eq!((channel.outcome(4), channel.parked(0, 13)), (Outcome::Waiting, vec![6, 8]));
}

#[test]
fn gates_that_left_are_not_waited_for() {
    let mut channel = channel(9);
    channel.hand_out(1, &[1], 0);
    channel.hand_out(2, &[1, 2], 0);
    channel.hand_out(3, &[2], 0);
    channel.hand_out(3, &[1], 0);
    assert_eq!(channel.gate_left(1), [1]);
    assert_eq!(channel.gate_left(1), []);
    assert_eq!(channel.gate_left(2), [2, 3]);
    assert_eq!(channel.pending(), 3);
    channel.forget_hand_outs();
    assert_eq!((channel.pending(), channel.outcome(1)), (0, Outcome::Unreceived));
    assert!(channel.is_idle() && channel.received(1) == Acked::Now && !channel.is_idle());
}

#[test]
fn trimmed_and_lost_histories_begin_anew() {
    let mut channel = channel(9);
    for seq in 1..=9 {
        channel.hand_out(seq, &[1], 0);
    }
    channel.trimmed(4);
    assert_eq!((channel.pending(), channel.outcome(3)), (6, Outcome::Received));
    channel.trimmed(21);
    assert_eq!((channel.head(), channel.pending(), channel.cursor().floor()), (20, 0, 20));
    assert!(channel.begin_flush().is_some());
    channel.restart(1, 1, 1);
    assert_eq!(channel.head(), 20, "it is this history");
    channel.restart(2, 5, 6);
    assert_eq!((channel.epoch(), channel.outcome(5)), (2, Outcome::Unreceived));
    assert!(!channel.raise_head(1, 99) && !channel.raise_head(2, 6) && channel.raise_head(2, 7));
    assert_eq!(channel.begin_flush(), None, "the write of the old history is under way");
    channel.end_flush(true);
    assert_eq!(channel.begin_flush(), Some(Cursor::at(4)));
}

#[test]
fn who_got_it_twice_answers_twice() {
    let mut channel = channel(1);
    channel.hand_out(1, &[1, 2], 0);
    channel.hand_out(1, &[1], 0);
    assert!(!channel.unreceived(1, 1) && channel.waits_for(1, 1));
    assert!(!channel.unreceived(1, 1) && !channel.waits_for(1, 1));
    assert_eq!(channel.outcome(1), Outcome::Waiting, "the other one is silent so far");
    assert!(channel.unreceived(1, 2));
    channel.hand_out(1, &[1], 0);
    channel.hand_out(1, &[1], 0);
    assert_eq!(channel.gate_left(1), [1], "with all that it owes");
}

#[test]
fn a_failed_flush_is_repeated() {
    let mut channel = channel(3);
    assert_eq!(channel.begin_flush(), None);
    channel.received(1);
    assert_eq!(channel.begin_flush(), Some(Cursor::at(1)));
    channel.received(2);
    assert!(channel.begin_flush().is_none() && !channel.is_idle());
    channel.end_flush(false);
    assert_eq!(channel.begin_flush(), Some(Cursor::at(2)));
    channel.end_flush(true);
    assert!(channel.is_idle());
}

/// What the model knows of one seq.
#[derive(Debug, Clone, Default)]
struct State {
    acked: bool,
    /// How many answers each still owes.
    out: Option<(BTreeMap<Member, u32>, Millis)>,
    /// Who got it, in that order.
    order: Vec<Member>,
}

const SEQS: Seq = 8;

#[derive(Default)]
struct Model {
    states: BTreeMap<Seq, State>,
    stored: BTreeSet<Seq>,
    in_flush: BTreeSet<Seq>,
}

impl Model {
    fn hand_out(&mut self, seq: Seq, gates: &[Member], now: Millis) {
        let state = self.states.entry(seq).or_default();
        if state.acked {
            return;
        }
        let (waiting, at) = state.out.get_or_insert((BTreeMap::new(), now));
        for gate in gates {
            *at = now;
            let due = waiting.entry(*gate).or_default();
            if *due == 0 {
                state.order.push(*gate);
            }
            *due += 1;
        }
    }

    /// One answer, or with `leaves` all of them.
    fn take_off(&mut self, seq: Seq, from: Member, leaves: bool) -> bool {
        let Some(state) = self.states.get_mut(&seq) else { return false };
        let Some((waiting, _)) = &mut state.out else { return false };
        let first = state.order.first().copied().filter(|_| !leaves);
        let Some(who) = Some(from).filter(|f| waiting.contains_key(f)).or(first) else {
            return false;
        };
        let due = waiting.get_mut(&who).expect("it is waited for");
        *due -= 1;
        if *due == 0 || leaves {
            waiting.remove(&who);
            state.order.retain(|gate| *gate != who);
        }
        waiting.is_empty()
    }

    fn received(&mut self, seq: Seq) -> Acked {
        let state = self.states.entry(seq).or_default();
        if state.acked {
            return Acked::Before;
        }
        *state = State { acked: true, ..State::default() };
        Acked::Now
    }

    fn parked(&self, above: Seq, before: Millis) -> Vec<Seq> {
        let parked = self.states.iter().filter(|(seq, state)| {
            let out = state.out.as_ref();
            **seq > above && out.is_some_and(|(waiting, at)| waiting.is_empty() || *at < before)
        });
        parked.map(|(seq, _)| *seq).collect()
    }

    fn acked(&self) -> BTreeSet<Seq> {
        self.states.iter().filter(|(_, s)| s.acked).map(|(seq, _)| *seq).collect()
    }

    fn check(&self, channel: &GateChannel) {
        for seq in 1..=SEQS {
            let state = self.states.get(&seq).cloned().unwrap_or_default();
            let expected = match &state.out {
                _ if state.acked => Outcome::Received,
                Some((waiting, _)) if !waiting.is_empty() => Outcome::Waiting,
                _ => Outcome::Unreceived,
            };
            assert_eq!(channel.outcome(seq), expected, "of {seq}: {state:?}");
        }
        let pending = self.states.values().filter(|state| state.out.is_some()).count();
        assert_eq!(channel.pending(), pending);
        let clean = self.stored == self.acked();
        assert!(clean || channel.is_dirty() || !self.in_flush.is_empty(), "acks wait for a write");
    }
}

proptest! {
    #[test]
    fn it_is_one_state_per_seq(
        steps in prop::collection::vec((0u8..12, 1..=SEQS, 0u64..4, 0u64..40), 1..150),
    ) {
        let mut channel = channel(SEQS);
        let mut model = Model::default();
        let mut now = 0;
        for (step, seq, gate, ms) in steps {
            match step {
                0..=2 => {
                    let gates = [gate, gate + 1];
                    let gates = &gates[..(ms % 3) as usize];
                    channel.hand_out(seq, gates, now);
                    model.hand_out(seq, gates, now);
                }
                3 | 4 => prop_assert_eq!(channel.received(seq), model.received(seq)),
                5 | 6 => {
                    prop_assert_eq!(channel.unreceived(seq, gate), model.take_off(seq, gate, false));
                }
                7 => {
                    let left: Vec<_> =
                        (1..=SEQS).filter(|seq| model.take_off(*seq, gate, true)).collect();
                    prop_assert_eq!(channel.gate_left(gate), left);
                }
                8 => now += ms,
                9 => {
                    let flush = channel.begin_flush();
                    if let Some(cursor) = flush {
                        model.in_flush = (1..=SEQS).filter(|seq| cursor.is_acked(*seq)).collect();
                        prop_assert_eq!(&model.in_flush, &model.acked());
                    }
                }
                10 => {
                    channel.end_flush(ms % 2 == 0);
                    let flushed = std::mem::take(&mut model.in_flush);
                    if ms % 2 == 0 {
                        model.stored.extend(flushed);
                    }
                }
                _ if ms < 4 => {
                    channel.forget_hand_outs();
                    for state in model.states.values_mut() {
                        (state.out, state.order) = (None, Vec::new());
                    }
                }
                _ => {}
            }
            model.check(&channel);
            let before = now.saturating_sub(ms);
            prop_assert_eq!(channel.parked(gate, before), model.parked(gate, before));
        }
    }

    #[test]
    fn a_number_leads_back_to_its_seq(head in 1u64..1 << 42, back in 0u64..STORED_IDS) {
        let seq = head.saturating_sub(back).max(1);
        prop_assert_eq!(channel(head).seq_of(msg_id(seq)), Some(seq));
    }
}
