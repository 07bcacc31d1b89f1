use super::*;
use clarion_core::Address;

fn moved(floor: Seq) -> Move {
    Move { channel: Address::all(), epoch: 7, cursor: Cursor::at(floor) }
}

#[test]
fn recent_marks_are_exact_and_old_ones_are_of_the_right_order() {
    let reader = Reader::shared("r");
    let mut stored: Option<StoredCursor> = None;
    let end = 10_000;
    for at in 1..=end {
        stored = merge_move(stored.as_ref(), &reader, &moved(at), 7, at).or(stored);
    }
    let cursor = stored.unwrap();
    assert!(cursor.marks.len() <= MARKS_MAX);
    assert_eq!(cursor.acked_at(end), Some(end));
    assert_eq!(cursor.acked_at(end - 1), Some(end - 1));
    for seq in [10, 100, 1_000, 9_000] {
        let at = cursor.acked_at(seq).unwrap();
        assert!(at >= seq, "never earlier than it was");
        assert!(at < end, "seq {seq} is told apart from the last write");
    }
    assert_eq!(cursor.acked_at(end + 1), None);
}

#[test]
fn a_move_of_another_epoch_is_ignored_and_replaces_what_is_older() {
    let reader = Reader::device(1);
    let old = merge_move(None, &reader, &moved(9), 7, 1).unwrap();
    assert_eq!(merge_move(Some(&old), &reader, &moved(9), 7, 2), None, "nothing new");
    assert_eq!(merge_move(Some(&old), &reader, &moved(99), 8, 2), None, "not the present epoch");
    let now = Move { epoch: 8, ..moved(2) };
    let new = merge_move(Some(&old), &reader, &now, 8, 2).unwrap();
    assert_eq!((new.epoch, new.cursor.floor(), new.marks.len()), (8, 2, 0));
}

fn head(first: Seq, last: Seq) -> Head {
    Head { epoch: 1, first, last, ..Head::default() }
}

fn range(from: Seq, to: Seq, backwards: bool) -> ReadRange {
    ReadRange { channel: Address::all(), from, to, backwards, count: 10, bytes: 1_000 }
}

#[test]
fn where_an_empty_page_ends() {
    let through = |r: &ReadRange, h| PageBuilder::new(r, h).finish().through;
    assert_eq!(through(&range(5, 10, false), head(1, 4)), 4, "above the head");
    assert_eq!(through(&range(1, 3, false), head(10, 20)), 3, "below the floor");
    assert_eq!(through(&range(1, 3, true), head(10, 20)), 1);
    assert_eq!(through(&range(1, 9, false), head(1, 0)), 0, "nothing was ever written");
    assert_eq!(through(&range(0, 9, true), head(1, 0)), 0);
    assert!(PageBuilder::new(&range(4, 2, false), head(1, 9)).span().is_none());
}

#[test]
fn a_page_looks_at_a_bounded_number_of_records() {
    let mut page = PageBuilder::new(&range(1, 1_000_000, false), head(1, 1_000_000));
    let mut seq = 0;
    while page.pass(seq + 1, None) {
        seq += 1;
    }
    assert_eq!(page.finish().through, LOOKED_AT_MAX as u64);
}
