//! Tables, and properties against a model that is a plain set of seqs.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[track_caller]
fn check(acks: &[(Seq, Seq)], floor: Seq, runs: &[(Seq, Seq)]) {
    let mut cursor = Cursor::default();
    for &(from, to) in acks {
        cursor.ack_run(from, to);
    }
    assert_eq!((cursor.floor(), cursor.runs()), (floor, runs));
}

#[test]
fn runs_join_and_the_floor_swallows_them() {
    check(&[], 0, &[]);
    check(&[(1, 1), (2, 2)], 2, &[]);
    check(&[(2, 2)], 0, &[(2, 2)]);
    check(&[(2, 2), (1, 1)], 2, &[]);
    check(&[(5, 6), (9, 9), (7, 8)], 0, &[(5, 9)]);
    check(&[(5, 6), (9, 9), (3, 20)], 0, &[(3, 20)]);
    check(&[(5, 6), (9, 9), (1, 4)], 6, &[(9, 9)]);
    check(&[(3, 2)], 0, &[]);
    check(&[(0, 0)], 0, &[]);
    check(&[(0, 1)], 1, &[]);
}

#[test]
fn an_ack_says_whether_it_changed_something() {
    let mut cursor = Cursor::at(10);
    assert!(!cursor.ack_to(10) && !cursor.ack(3));
    assert!(cursor.ack_run(20, 30) && !cursor.ack_run(22, 25) && cursor.ack_run(25, 31));
    assert_eq!(cursor.next_unacked(0), 11);
    assert_eq!(cursor.next_unacked(20), 32);
    assert_eq!(cursor.unacked(40), 30 - 12);
    assert_eq!(cursor.unacked(25), 15 - 6);
    assert_eq!(cursor.unacked(5), 0);
}

#[test]
fn the_shorter_form_is_stored() {
    let mut sparse = Cursor::at(1 << 40);
    sparse.ack_run((1 << 40) + 1_000_000, (1 << 40) + 2_000_000);
    let mut out = Vec::new();
    sparse.encode(&mut out);
    assert!(out.len() < 20, "{}", out.len());
    let mut dense = Cursor::at(7);
    for seq in (9..8_000).step_by(2) {
        dense.ack(seq);
    }
    out.clear();
    dense.encode(&mut out);
    assert!(out.len() < 1_010, "{}", out.len());
    assert_eq!(Cursor::decode(&out), Some(dense));
}

#[test]
fn runs_are_bounded_and_what_is_not_taken_stays_unacked() {
    let mut cursor = Cursor::default();
    for i in 1..=RUNS_MAX as u64 + 5 {
        cursor.ack(i * 2);
    }
    assert_eq!(cursor.runs().len(), RUNS_MAX);
    assert!(!cursor.is_acked((RUNS_MAX as u64 + 1) * 2));
}

#[test]
fn many_runs_at_once_are_bounded_too() {
    let runs: Vec<_> = (1..=RUNS_MAX as u64 + 5).map(|i| (i * 2, i * 2)).collect();
    let mut cursor = Cursor::default();
    assert!(cursor.ack_runs(&runs));
    assert_eq!((cursor.runs().len(), cursor.top()), (RUNS_MAX, 2 * RUNS_MAX as u64));
    assert!(cursor.ack_runs(&[(1, 1), (3, 3)]), "where they join others there is room");
    assert_eq!(cursor.floor(), 4);
}

#[test]
fn holes_lie_between_acks() {
    let mut cursor = Cursor::at(3);
    assert_eq!(cursor.next_hole(0), (4, None));
    cursor.ack_run(6, 7);
    assert_eq!(cursor.next_hole(0), (4, Some(5)));
    assert_eq!(cursor.next_hole(5), (5, Some(5)));
    assert_eq!(cursor.next_hole(6), (8, None));
}

fn acks() -> impl Strategy<Value = Vec<(Seq, Seq)>> {
    prop::collection::vec((0u64..60, 0u64..8).prop_map(|(from, len)| (from, from + len)), 0..30)
}

fn cursor_of(acks: &[(Seq, Seq)]) -> Cursor {
    let mut cursor = Cursor::default();
    for &(from, to) in acks {
        cursor.ack_run(from, to);
    }
    cursor
}

proptest! {
    #[test]
    fn a_cursor_is_the_set_of_its_acks(acks in acks()) {
        let cursor = cursor_of(&acks);
        let model: BTreeSet<Seq> = acks.iter().flat_map(|&(from, to)| from.max(1)..=to).collect();
        for seq in 1..80 {
            prop_assert_eq!(cursor.is_acked(seq), model.contains(&seq), "seq {}", seq);
            let next = (seq..).find(|s| !model.contains(s)).unwrap();
            prop_assert_eq!(cursor.next_unacked(seq), next);
            let unacked = (1..=seq).filter(|s| !model.contains(s)).count() as u64;
            prop_assert_eq!(cursor.unacked(seq), unacked);
        }
        for pair in cursor.runs().windows(2) {
            prop_assert!(pair[0].1 + 1 < pair[1].0);
        }
        prop_assert!(cursor.runs().first().is_none_or(|r| r.0 > cursor.floor() + 1));
    }

    #[test]
    fn many_runs_at_once_are_the_same_as_one_by_one(first in acks(), mut then in acks()) {
        then.sort_unstable();
        let mut cursor = cursor_of(&first);
        let mut single = cursor.clone();
        let mut changed = false;
        for &(from, to) in &then {
            changed |= single.ack_run(from, to);
        }
        prop_assert_eq!(cursor.ack_runs(&then), changed);
        prop_assert_eq!(cursor, single);
    }

    #[test]
    fn merging_is_union_in_any_order(a in acks(), b in acks(), floor in 0u64..40) {
        let (mut left, mut right) = (cursor_of(&a), cursor_of(&b));
        right.ack_to(floor);
        let (old_left, old_right) = (left.clone(), right.clone());
        left.merge(&old_right);
        right.merge(&old_left);
        prop_assert_eq!(&left, &right);
        prop_assert!(!left.merge(&old_right), "merging again changes nothing");
        for seq in 1..80 {
            prop_assert_eq!(left.is_acked(seq), old_left.is_acked(seq) || old_right.is_acked(seq));
        }
    }

    #[test]
    fn stored_form_round_trips(acks in acks(), floor in 0u64..1 << 42) {
        let mut cursor = Cursor::at(floor);
        for (from, to) in acks {
            cursor.ack_run(floor + from, floor + to);
        }
        let mut out = Vec::new();
        cursor.encode(&mut out);
        prop_assert_eq!(Cursor::decode(&out), Some(cursor));
    }

    #[test]
    fn damaged_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(cursor) = Cursor::decode(&bytes) {
            for pair in cursor.runs().windows(2) {
                prop_assert!(pair[0].1 + 1 < pair[1].0);
            }
        }
    }
}
