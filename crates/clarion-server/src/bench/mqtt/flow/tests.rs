use super::*;

fn group(under_way: &[u32], first: u32) -> Group {
    Group {
        topic: "t".into(),
        allowed: 9,
        sent: first + under_way.len() as u32,
        under_way: under_way.iter().copied().collect(),
        first,
    }
}

#[test]
fn a_message_is_under_way_until_every_reader_has_it() {
    let mut group = group(&[2, 2, 2], 4);
    group.settle(4, 1);
    assert_eq!((group.first, group.under_way.len()), (4, 3));
    // One reader is ahead: the oldest message is still on its way to the other.
    group.settle(5, 1);
    group.settle(6, 1);
    assert_eq!((group.first, group.under_way.len()), (4, 3));
    // The other one lost the fourth and the fifth.
    group.settle(6, 3);
    assert_eq!((group.first, group.under_way.len()), (7, 0));
}

#[test]
fn what_nobody_published_settles_nothing() {
    let mut group = group(&[1], 4);
    group.settle(1, 2);
    group.settle(9, 3);
    assert_eq!((group.first, group.under_way.len()), (4, 1));
    group.settle(4, 1);
    assert_eq!((group.first, group.under_way.len()), (5, 0));
}

#[test]
fn each_group_has_one_publisher_and_its_readers() {
    let flow =
        |groups, readers| Flow { name: "x", groups, readers, messages: 1, pace: Pace::InFlight(1) };
    let pairs = flow(3, 1);
    let reads = |flow: &Flow| (0..flow.clients()).map(|n| flow.reads(n)).collect::<Vec<_>>();
    assert_eq!(reads(&pairs), [false, true, false, true, false, true]);
    assert_eq!((pairs.publisher_of(2), pairs.group_of(5)), (4, 2));
    assert_eq!(reads(&flow(1, 3)), [false, true, true, true]);
}
