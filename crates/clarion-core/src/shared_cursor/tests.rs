//! Tables of leases.

use super::*;

mod model;
mod written;

const LIMITS: Limits = Limits {
    max_unacked: 4,
    ack_wait_ms: Some(100),
    max_attempts: Some(3),
    settle_ms: 200,
    oldest_first: false,
};

fn cursor(head: Seq) -> SharedCursor {
    SharedCursor::new(1, Cursor::default(), head, LIMITS)
}

/// Hands out the next one to one member.
fn hand_out(cursor: &mut SharedCursor, member: Member, now: Millis) -> Option<Seq> {
    let seq = cursor.upcoming(now)?;
    assert!(cursor.lease(seq, &[member], now));
    Some(seq)
}

#[test]
fn new_ones_go_out_in_order_within_the_window() {
    let mut cursor = cursor(9);
    let out: Vec<_> = (0..6).map(|_| hand_out(&mut cursor, 1, 0)).collect();
    assert_eq!(out, [Some(1), Some(2), Some(3), Some(4), None, None]);
    assert!(!cursor.lease(5, &[1], 0) && !cursor.lease(2, &[2], 0) && !cursor.lease(9, &[1], 0));
    assert_eq!((cursor.unacked(), cursor.held_by(1)), (4, 4));
    assert_eq!(cursor.ack(2), Acked::Now);
    assert_eq!(cursor.ack(2), Acked::Before);
    assert_eq!(cursor.ack(5), Acked::Unknown, "never handed out");
    assert_eq!(hand_out(&mut cursor, 2, 0), Some(5));
    assert_eq!(cursor.cursor().runs(), [(2, 2)]);
    assert!(!cursor.lease(6, &[], 0), "nobody to give it to");
}

#[test]
fn what_comes_back_takes_turns_with_new_ones() {
    let mut cursor = cursor(9);
    for _ in 0..3 {
        hand_out(&mut cursor, 1, 0);
    }
    assert_eq!(cursor.nack(1, 1, 0, 0), Ended::Back(1));
    assert_eq!(cursor.nack(2, 1, 0, 0), Ended::Back(2));
    assert_eq!(cursor.nack(3, 2, 0, 0), Ended::Nothing, "not its lease");
    let out: Vec<_> = (0..4).map(|_| hand_out(&mut cursor, 2, 0)).collect();
    assert_eq!(out, [Some(1), Some(4), Some(2), None]);
    assert_eq!((1..=5).map(|seq| cursor.attempts_of(seq)).collect::<Vec<_>>(), [2, 2, 1, 1, 0]);
}

#[test]
fn what_comes_back_goes_first_where_the_order_of_first_hand_outs_holds() {
    let limits = Limits { oldest_first: true, max_attempts: None, ..LIMITS };
    let mut cursor = SharedCursor::new(1, Cursor::default(), 9, limits);
    for _ in 0..3 {
        hand_out(&mut cursor, 1, 0);
    }
    cursor.ack(2);
    let back = cursor.leave(1, 0, Leave::Whole);
    assert_eq!(back, [Ended::Back(1), Ended::Back(3)]);
    let out: Vec<_> = (0..3).map(|_| hand_out(&mut cursor, 2, 0)).collect();
    assert_eq!(out, [Some(1), Some(3), Some(4)]);
}

#[test]
fn leases_lapse_and_a_delayed_nack_waits() {
    let mut cursor = cursor(2);
    hand_out(&mut cursor, 1, 10);
    hand_out(&mut cursor, 1, 20);
    assert_eq!(cursor.wakes_at(), Some(110));
    assert!(cursor.expire(109).is_empty());
    assert_eq!(cursor.expire(110), [Ended::Back(1)]);
    assert_eq!(cursor.nack(2, 1, 115, 50), Ended::Back(2));
    assert_eq!(cursor.wakes_at(), Some(165));
    assert_eq!(hand_out(&mut cursor, 2, 115), Some(1));
    assert_eq!(cursor.upcoming(164), None);
    assert!(!cursor.lease(2, &[1], 164), "not its turn yet");
    assert_eq!(hand_out(&mut cursor, 2, 165), Some(2));
    assert_eq!(cursor.nack(1, 1, 166, 0), Ended::Nothing, "the late nack of a former holder");
    assert_eq!(cursor.ack(1), Acked::Now, "anybody's ack counts");
}

#[test]
fn a_set_of_members_holds_one_lease_together() {
    let mut cursor = cursor(2);
    let seq = cursor.upcoming(0).unwrap();
    assert!(cursor.lease(seq, &[3, 1, 3], 0));
    assert_eq!(cursor.nack(1, 1, 0, 0), Ended::Nothing, "3 still has it");
    assert_eq!(cursor.nack(1, 1, 0, 0), Ended::Nothing);
    assert_eq!(cursor.leave(3, 0, Leave::Whole), [Ended::Back(1)]);
    assert_eq!((cursor.held_by(1), cursor.held_by(3)), (0, 0));
    assert!(cursor.lease(1, &[1, 3], 0));
    assert_eq!(cursor.ack(1), Acked::Now);
    for member in [1, 3] {
        assert!(cursor.leave(member, 0, Leave::Broken).is_empty());
    }
}

#[test]
fn too_many_attempts_kill() {
    let mut cursor = cursor(1);
    for attempt in 1..=3 {
        assert_eq!(hand_out(&mut cursor, 1, 0), Some(1), "attempt {attempt}");
        let ended = cursor.nack(1, 1, 0, 0);
        assert_eq!(ended, if attempt == 3 { Ended::Dead(1) } else { Ended::Back(1) });
    }
    assert_eq!((cursor.upcoming(0), cursor.unacked()), (None, 1));
    assert_eq!(cursor.ack(1), Acked::Now);
    assert_eq!((cursor.cursor().floor(), cursor.unacked()), (1, 0));
}

#[test]
fn skipped_trimmed_and_lost_seqs_are_passed() {
    let mut cursor = cursor(9);
    cursor.skip(1);
    cursor.skip(7);
    assert_eq!(cursor.cursor(), &Cursor::at(1), "7 was not upcoming");
    for _ in 0..4 {
        hand_out(&mut cursor, 1, 0);
    }
    cursor.nack(2, 1, 0, 0);
    cursor.skip(2);
    cursor.trimmed(4);
    assert_eq!((cursor.cursor().floor(), cursor.unacked()), (3, 2));
    cursor.trimmed(8);
    assert_eq!(hand_out(&mut cursor, 1, 0), Some(8));
    assert!(cursor.begin_flush().is_some());
    cursor.restart(2, 5, 6);
    assert_eq!((cursor.epoch(), hand_out(&mut cursor, 1, 0)), (2, Some(5)));
    assert!(cursor.is_dirty() && !cursor.raise_head(1, 99) && cursor.raise_head(2, 7));
}

#[test]
fn a_stored_cursor_goes_on_where_it_was() {
    let mut stored = Cursor::at(3);
    stored.ack_run(5, 6);
    let mut cursor = SharedCursor::new(1, stored, 8, LIMITS);
    let out: Vec<_> = (0..4).map(|_| hand_out(&mut cursor, 1, 0)).collect();
    assert_eq!(out, [Some(4), Some(7), Some(8), None]);
}

#[test]
fn a_failed_flush_is_repeated() {
    let mut cursor = cursor(3);
    assert_eq!(cursor.begin_flush(), None);
    hand_out(&mut cursor, 1, 0);
    cursor.ack(1);
    assert_eq!(cursor.begin_flush(), Some(Cursor::at(1)));
    hand_out(&mut cursor, 1, 0);
    cursor.ack(2);
    assert_eq!(cursor.begin_flush(), None, "one at a time");
    cursor.end_flush(false);
    assert_eq!(cursor.begin_flush(), Some(Cursor::at(2)));
    cursor.end_flush(true);
    assert!(!cursor.is_dirty());
}

#[test]
fn the_write_of_a_lost_history_is_not_taken_for_a_later_one() {
    let mut cursor = cursor(3);
    hand_out(&mut cursor, 1, 0);
    cursor.ack(1);
    assert!(cursor.begin_flush().is_some());
    cursor.restart(2, 1, 1);
    assert_eq!(cursor.begin_flush(), None, "one at a time");
    cursor.end_flush(true);
    assert_eq!(cursor.begin_flush(), Some(Cursor::at(0)));
}

#[test]
fn an_ack_by_a_lease_from_before_a_restart_is_taken() {
    let mut stored = Cursor::at(1);
    stored.ack_run(3, 3);
    let mut cursor = SharedCursor::new(1, stored, 20, LIMITS);
    assert_eq!(hand_out(&mut cursor, 1, 0), Some(2));
    assert!(!cursor.may_come(2) && !cursor.may_come(3) && cursor.may_come(4));
    assert_eq!((cursor.ack(5), cursor.ack_early(5)), (Acked::Unknown, Acked::Now));
    assert_eq!((cursor.ack_early(5), cursor.ack_early(3)), (Acked::Before, Acked::Before));
    assert_eq!(cursor.ack_early(10), Acked::Unknown, "4, 6, 7, 8 and 9 lie before it");
    assert_eq!(cursor.ack_early(21), Acked::Unknown, "above the head");
    assert!(cursor.is_dirty() && !cursor.may_come(5));
    let out: Vec<_> = (0..3).map(|_| hand_out(&mut cursor, 1, 0)).collect();
    assert_eq!(out, [Some(4), Some(6), Some(7)]);
    assert_eq!(cursor.nack(6, 1, 0, 0), Ended::Back(6));
    assert!(cursor.may_come(6));
    assert_eq!(cursor.ack_early(6), Acked::Now);
    assert_eq!((cursor.unacked(), cursor.settling()), (3, 0));
}
