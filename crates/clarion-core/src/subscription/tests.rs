//! Tables: a subscription driven by hints and pages, and what came out.

use super::*;

fn live(next: Seq) -> Subscription {
    let mut sub = Subscription::entering();
    sub.begin(1, next, next - 1);
    assert!(sub.is_live());
    sub
}

#[test]
fn live_hints_deliver_in_order_and_repeat_nothing() {
    let mut sub = live(5);
    assert_eq!(sub.hint(1, 5, false, true), Hint::Deliver);
    assert_eq!(sub.hint(1, 5, false, true), Hint::Ignore);
    assert_eq!(sub.hint(1, 6, true, true), Hint::Ignore, "acked elsewhere");
    assert_eq!(sub.hint(1, 7, false, true), Hint::Deliver);
    assert_eq!(sub.next(), 8);
}

#[test]
fn a_missing_seq_or_a_full_outbox_or_another_epoch_means_catching_up() {
    let cases: [(&str, Epoch, Seq, bool); 3] =
        [("missing", 1, 6, true), ("full", 1, 5, false), ("epoch", 2, 1, true)];
    for (name, epoch, seq, room) in cases {
        let mut sub = live(5);
        assert_eq!(sub.hint(epoch, seq, false, room), Hint::Behind, "{name}");
        assert!(sub.wants_page(), "{name}");
        assert_eq!(sub.next(), 5, "{name}");
    }
}

#[test]
fn hints_while_entering_or_reading_only_raise_the_head() {
    let mut sub = Subscription::entering();
    assert_eq!(sub.hint(1, 8, false, true), Hint::Ignore);
    sub.begin(1, 3, 7);
    assert!(sub.wants_page());
    sub.page_began();
    assert_eq!(sub.hint(1, 9, false, true), Hint::Ignore);
    assert_eq!(sub.page_opened(1, 1), None);
    for seq in 3..=8 {
        assert_eq!(sub.offer(seq, false, true), Offer::Deliver);
    }
    sub.page_ended(Some(8), 8);
    assert!(sub.wants_page(), "9 was hinted and not read");
    sub.page_began();
    sub.page_opened(1, 1);
    assert_eq!(sub.offer(9, false, true), Offer::Deliver);
    sub.page_ended(Some(9), 9);
    assert!(sub.is_live());
}

#[test]
fn trimmed_and_lost_histories_are_told() {
    let mut sub = Subscription::entering();
    sub.begin(1, 3, 9);
    sub.page_began();
    let gap = Gap { from: 3, to: 6, reason: GapReason::Retention };
    assert_eq!(sub.page_opened(1, 7), Some(gap));
    assert_eq!((sub.next(), sub.start()), (7, 3), "a cumulative ack covers what is gone");
    sub.page_failed();
    sub.page_began();
    let gap = sub.page_opened(2, 4).unwrap();
    assert_eq!((gap.from, gap.reason), (7, GapReason::Epoch));
    assert_eq!((sub.epoch(), sub.next(), sub.start()), (2, 4, 4));
}

#[test]
fn holes_at_the_end_of_a_page_are_passed() {
    let mut sub = Subscription::entering();
    sub.begin(1, 1, 9);
    sub.page_began();
    sub.page_opened(1, 1);
    assert_eq!(sub.offer(2, false, true), Offer::Deliver);
    assert_eq!(sub.offer(4, false, false), Offer::Stop);
    sub.page_ended(None, 9);
    assert_eq!(sub.next(), 3);
    sub.page_began();
    sub.page_opened(1, 1);
    assert_eq!(sub.offer(4, true, false), Offer::Skip);
    sub.page_ended(Some(9), 9);
    assert!(sub.is_live());
    assert_eq!(sub.next(), 10);
}

#[test]
fn a_channel_that_comes_into_being_is_no_lost_history() {
    for first_hint in [1, 2] {
        let mut sub = Subscription::entering();
        sub.begin(0, 1, 0);
        assert!(sub.is_live());
        let hint = sub.hint(9, first_hint, false, true);
        if first_hint == 1 {
            assert_eq!(hint, Hint::Deliver);
        } else {
            assert_eq!(hint, Hint::Behind);
            sub.page_began();
            assert_eq!(sub.page_opened(9, 1), None);
        }
        assert_eq!(sub.epoch(), 9);
    }
}

#[test]
fn a_hint_of_another_history_is_not_forgotten_while_older_pages_arrive() {
    let mut sub = live(5);
    sub.hint(1, 6, false, true);
    sub.page_began();
    assert_eq!(sub.hint(2, 3, false, true), Hint::Ignore);
    assert_eq!(sub.page_opened(1, 1), None, "the page was read before");
    sub.offer(5, false, true);
    sub.offer(6, false, true);
    sub.page_ended(Some(6), 6);
    assert!(sub.wants_page(), "the other history was not looked at");
    sub.page_began();
    assert_eq!(sub.page_opened(2, 1).map(|gap| gap.reason), Some(GapReason::Epoch));
    assert_eq!(sub.offer(7, false, true), Offer::Stop, "read from a place of the old history");
    sub.page_ended(Some(9), 2);
    assert_eq!((sub.next(), sub.head()), (1, 3), "3 was hinted, the page did not know it yet");
    assert!(sub.wants_page());
}

#[test]
fn a_late_hint_of_a_history_that_is_gone_costs_a_few_pages() {
    let mut sub = live(5);
    assert_eq!(sub.hint(9, 1, false, true), Hint::Behind);
    let mut pages = 0;
    while !sub.is_live() {
        sub.page_began();
        assert_eq!(sub.page_opened(1, 1), None);
        sub.page_ended(Some(4), 4);
        pages += 1;
        assert!(pages < 9);
    }
    assert_eq!(sub.next(), 5);
    sub = Subscription::entering();
    sub.hint(2, 1, false, true);
    sub.begin(1, 5, 4);
    assert!(sub.wants_page(), "the head was read before the other history was hinted");
}
