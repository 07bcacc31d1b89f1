//! Tables of members that cannot ack.

use super::*;
use crate::cursor::RUNS_MAX;

/// As [`hand_out`], and it is written.
fn write(cursor: &mut SharedCursor, member: Member, now: Millis) -> Option<Seq> {
    let seq = hand_out(cursor, member, now)?;
    assert!(cursor.wrote(seq, member, now));
    Some(seq)
}

/// Everything that is handed out now, to one member.
fn drain(cursor: &mut SharedCursor, member: Member, now: Millis) -> Vec<Seq> {
    std::iter::from_fn(|| hand_out(cursor, member, now)).collect()
}

#[test]
fn what_was_written_settles() {
    let mut cursor = cursor(9);
    for now in 0..6 {
        write(&mut cursor, 1, now);
    }
    assert_eq!((cursor.unacked(), cursor.settling(), cursor.held_by(1)), (0, 6, 0));
    assert!(!cursor.wrote(1, 1, 0), "its lease has ended");
    hand_out(&mut cursor, 2, 6);
    assert!(!cursor.wrote(7, 1, 6), "it is with somebody else");
    assert!(cursor.expire(105).is_empty() && !cursor.settle(204));
    assert_eq!(cursor.nack(3, 1, 50, 0), Ended::Nothing);
    assert!(cursor.settle(205) && cursor.is_dirty());
    assert_eq!((cursor.cursor(), cursor.settling()), (&Cursor::at(6), 0));
    assert!(!cursor.settle(999));
}

#[test]
fn an_entry_grows_for_a_second() {
    let mut cursor = cursor(9);
    for now in [0, 400, 999, 1_000] {
        write(&mut cursor, 1, now);
    }
    assert_eq!(cursor.wakes_at(), Some(200));
    assert!(!cursor.settle(1_198), "the oldest entry grew");
    assert_eq!(cursor.wakes_at(), Some(1_199));
    assert!(cursor.settle(1_199));
    assert_eq!((cursor.cursor().floor(), cursor.wakes_at()), (3, Some(1_200)));
    assert!(cursor.settle(1_200) && cursor.wakes_at().is_none());
}

#[test]
fn who_leaves_whole_acks() {
    let mut cursor = cursor(9);
    write(&mut cursor, 1, 0);
    write(&mut cursor, 2, 0);
    write(&mut cursor, 1, 0);
    hand_out(&mut cursor, 1, 0);
    assert_eq!(cursor.leave(1, 1, Leave::Whole), [Ended::Back(4)], "only its lease comes back");
    assert_eq!((cursor.cursor().floor(), cursor.cursor().runs()), (1, &[(3, 3)][..]));
    assert_eq!(cursor.settling(), 1);
}

#[test]
fn who_breaks_gives_back() {
    let mut cursor = cursor(12);
    for (member, now) in [(1, 0), (1, 10), (2, 20), (1, 1_050), (1, 1_060), (1, 1_070)] {
        write(&mut cursor, member, now);
    }
    assert_eq!(cursor.ack(5), Acked::Now, "an ack of what settles");
    hand_out(&mut cursor, 1, 1_080);
    let ended = cursor.leave(1, 1_100, Leave::Broken);
    assert_eq!(ended, [7, 4, 6].map(Ended::Back));
    assert_eq!(cursor.cursor().floor(), 2, "what was written long ago is acked");
    assert_eq!((cursor.given_back(), cursor.settling(), cursor.unacked()), (2, 1, 1));
    assert_eq!(drain(&mut cursor, 2, 1_100), [4, 8, 6, 7], "in turns with new ones");
    assert_eq!([cursor.attempts_of(4), cursor.attempts_of(8)], [2, 1]);
    assert!(cursor.settle(2_000) && cursor.cursor().is_acked(3));
}

#[test]
fn what_was_given_back_never_dies_of_it_and_comes_before_more_new_ones() {
    let mut cursor = cursor(90);
    for round in 0..50 {
        for _ in 0..6 {
            write(&mut cursor, round, 0);
        }
        let ended = cursor.leave(round, 0, Leave::Broken);
        assert!(ended.iter().all(|end| matches!(end, Ended::Back(_))), "{ended:?}");
    }
    assert!(cursor.given_back() <= 10, "members that break do not pile it up: {cursor:?}");
    cursor.trimmed(3);
    assert!(hand_out(&mut cursor, 1, 0) >= Some(3));
    cursor.restart(2, 5, 6);
    assert_eq!((cursor.given_back(), drain(&mut cursor, 1, 0)), (0, vec![5, 6]));
}

#[test]
fn too_much_is_acked_early_the_oldest_first() {
    let mut cursor = cursor(99);
    cursor.settling.most = 8;
    for i in 0..20 {
        write(&mut cursor, i % 2, i);
    }
    let early = cursor.cursor().floor();
    assert!((10..=12).contains(&early), "{early} of 20");
    assert_eq!(cursor.settling(), 20 - early);
    let young: Vec<_> = (early + 1..=20).filter(|seq| seq % 2 == 1).collect();
    cursor.leave(0, 20, Leave::Broken);
    assert_eq!(cursor.given_back(), young.len() as u64, "{young:?}");
}

#[test]
fn a_clean_stop_acks_what_was_written() {
    let mut cursor = cursor(9);
    for member in [1, 2, 1] {
        write(&mut cursor, member, 0);
    }
    hand_out(&mut cursor, 1, 0);
    cursor.settle_all();
    assert_eq!((cursor.begin_flush(), cursor.settling()), (Some(Cursor::at(3)), 0));
    assert!(cursor.leave(1, 0, Leave::Broken) == [Ended::Back(4)]);
}

/// Two members in turns for longer than a cursor has room for runs, then one of them leaves.
fn in_turns(count: Seq) -> SharedCursor {
    let limits = Limits { max_unacked: 10, ..LIMITS };
    let mut cursor = SharedCursor::new(1, Cursor::default(), count, limits);
    for i in 0..count {
        write(&mut cursor, i % 2, 0);
    }
    cursor
}

#[test]
fn what_the_cursor_has_no_room_for_is_acked_later() {
    let count = 2 * RUNS_MAX as Seq + 20;
    let mut cursor = in_turns(count);
    assert!(cursor.leave(1, 0, Leave::Whole).is_empty());
    assert_eq!(cursor.cursor().runs().len(), RUNS_MAX);
    assert_eq!(cursor.settling(), count / 2 + 10, "ten found no room");
    assert_eq!(cursor.upcoming(0), None, "and are not handed out again");
    assert!(cursor.settle(200));
    assert!(cursor.settle(1_000) && cursor.wakes_at().is_none());
    assert_eq!((cursor.cursor(), cursor.settling()), (&Cursor::at(count), 0));
}

#[test]
fn acks_that_the_cursor_has_no_room_for_are_kept() {
    let mut cursor = in_turns(2 * RUNS_MAX as Seq);
    cursor.leave(1, 0, Leave::Whole);
    cursor.raise_head(1, Seq::MAX / 2);
    let behind: Vec<_> = (0..4).filter_map(|_| hand_out(&mut cursor, 7, 0)).collect();
    assert_eq!(cursor.ack(behind[1]), Acked::Now);
    assert_eq!((cursor.unacked(), cursor.wakes_at()), (3, Some(0)));
    let skipped = cursor.upcoming(0).unwrap();
    cursor.skip(skipped);
    assert_eq!(cursor.upcoming(0), Some(skipped + 1));
    assert!(!cursor.settle(0) && cursor.wakes_at() == Some(100));
    assert!(cursor.settle(1_000) | cursor.settle(2_000));
    assert!(cursor.cursor().is_acked(behind[1]) && cursor.cursor().is_acked(skipped));
}

#[test]
fn a_settling_time_of_messages_comes_back_at_once() {
    let mut cursor = in_turns(60_000);
    let ended = cursor.leave(0, 0, Leave::Broken);
    assert_eq!((ended.len(), cursor.given_back()), (30_000, 30_000));
    assert_eq!(cursor.leave(1, 0, Leave::Broken).len(), 30_000);
    assert_eq!(cursor.given_back(), 60_000);
    assert_eq!(drain(&mut cursor, 2, 0), (1..=10).collect::<Vec<_>>());
}
