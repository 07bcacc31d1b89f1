//! Tables and properties of numbered windows.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn place(seq: u64) -> Place {
    Place { channel: Address::user("u").unwrap(), at: Position { epoch: 1, seq } }
}

fn commit(window: &mut Window) -> Vec<u8> {
    let mut record = Vec::new();
    let mark = window.begin_commit(&mut record);
    window.committed(mark);
    record
}

#[test]
fn a_number_is_shown_after_its_commit_only() {
    let mut window = Window::new(Numbering::gap_free(10));
    assert_eq!((window.reserve(place(5)), window.reserve(place(6))), (Ok(1), Ok(2)));
    assert_eq!(window.reserve(place(5)), Ok(1), "a place keeps its number");
    let mark = window.begin_commit(&mut Vec::new());
    assert_eq!(window.reserve(place(7)), Ok(3));
    assert!(!window.is_shown(1) && window.ack(1).is_none() && window.is_dirty());
    window.committed(mark);
    assert!(window.is_shown(2) && !window.is_shown(3));
    assert_eq!(window.entries().map(|e| e.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(window.ack(3), None);
    assert_eq!(window.ack(1), Some(place(5)));
    assert_eq!(window.ack(1), None);
    assert_eq!((window.number_of(&place(5)), window.number_of(&place(7))), (None, Some(3)));
    window.begin_commit(&mut Vec::new());
    assert!(!window.is_dirty());
    window.commit_failed();
    assert!(window.is_dirty() && !window.is_shown(3));
}

#[test]
fn acked_numbers_are_not_given_again_after_a_restart() {
    let mut window = Window::new(Numbering::gap_free(10));
    for seq in 1..=3 {
        window.reserve(place(seq)).unwrap();
    }
    commit(&mut window);
    window.ack(3).unwrap();
    window.set_stage(2, 1);
    let record = commit(&mut window);
    let mut back = Window::decode(Numbering::gap_free(10), &record).unwrap();
    let rows: Vec<_> = back.entries().map(|e| (e.number, e.place.at.seq, e.stage)).collect();
    assert_eq!(rows, [(1, 1, 0), (2, 2, 1)]);
    assert_eq!(back.reserve(place(9)), Ok(4));
    back.retain(|entry| entry.stage == 1);
    assert_eq!(back.len(), 1);
}

#[test]
fn the_window_is_bounded_and_numbers_wrap_around_those_in_use() {
    let mut window = Window::new(Numbering { last: 4, wraps: true, max_unacked: 9 });
    for seq in 1..=4 {
        assert_eq!(window.reserve(place(seq)), Ok(seq));
    }
    assert_eq!(window.reserve(place(5)), Err(WindowError::Full));
    commit(&mut window);
    window.ack(3).unwrap();
    assert_eq!(window.reserve(place(6)), Ok(3));
    commit(&mut window);
    let order: Vec<u64> = window.entries().map(|e| e.number).collect();
    assert_eq!(order, [1, 2, 4, 3], "the order of reservation, not of numbers");
    let mut small = Window::new(Numbering { last: 4, wraps: true, max_unacked: 1 });
    for number in [1, 2, 3, 4, 1] {
        assert_eq!(small.reserve(place(number)), Ok(number));
        assert_eq!(small.reserve(place(99)), Err(WindowError::Full));
        commit(&mut small);
        small.ack(number).unwrap();
    }
}

#[test]
fn numbers_that_do_not_wrap_end() {
    let mut window = Window::new(Numbering { last: 2, wraps: false, max_unacked: 9 });
    assert_eq!((window.reserve(place(1)), window.reserve(place(2))), (Ok(1), Ok(2)));
    assert_eq!(window.reserve(place(3)), Err(WindowError::Exhausted));
}

#[test]
fn packet_ids_have_16_bits() {
    let mut window = Window::new(Numbering::packet_ids(1_000_000));
    for seq in 1..=65_535 {
        assert_eq!(window.reserve(place(seq)), Ok(seq));
    }
    assert_eq!(window.reserve(place(65_536)), Err(WindowError::Full));
}

proptest! {
    /// Reserve, ack, commit and lose everything since the last commit, in any order: what was shown keeps its number.
    #[test]
    fn shown_numbers_stand_for_one_place_each(
        steps in prop::collection::vec((0u8..5, 0u64..20), 1..80),
        last in 3u64..9,
        wraps: bool,
    ) {
        let numbering = Numbering { last: if wraps { last } else { 1_000 }, wraps, max_unacked: 5 };
        let mut window = Window::new(numbering);
        let mut stored = commit(&mut window);
        let mut unacked = BTreeMap::new();
        let mut used = BTreeSet::new();
        let mut seq = 0;
        for (step, n) in steps {
            match step {
                0 | 1 => {
                    seq += 1;
                    let _ = window.reserve(place(seq));
                }
                2 => {
                    stored = commit(&mut window);
                    for entry in window.entries() {
                        let old = unacked.insert(entry.number, entry.place.clone());
                        let new = old.as_ref() != Some(&entry.place);
                        prop_assert!(old.is_none() || !new, "a number in use was given again");
                        prop_assert!(wraps || !new || used.insert(entry.number), "a number came twice");
                    }
                }
                3 => {
                    let number = unacked.keys().nth(n as usize % unacked.len().max(1)).copied();
                    if let Some(number) = number {
                        prop_assert_eq!(window.ack(number), unacked.remove(&number));
                        stored = commit(&mut window);
                    }
                }
                _ => window = Window::decode(numbering, &stored).unwrap(),
            }
            prop_assert!(window.len() <= 5);
        }
        let mut record = Vec::new();
        window.encode(&mut record);
        let back = Window::decode(numbering, &record).unwrap();
        prop_assert!(back.entries().eq(window.entries()));
    }

    #[test]
    fn damaged_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut bytes = bytes;
        let _ = Window::decode(Numbering::packet_ids(10), &bytes);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        let _ = Window::decode(Numbering::packet_ids(10), &bytes);
    }
}
