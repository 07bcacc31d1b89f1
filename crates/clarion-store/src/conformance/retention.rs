//! What a log gives up, and how.

use super::*;

/// Trimmed is gone at once, totals fall with it, and the numbers go on, also in a log that became empty.
pub fn trimming_is_logical_at_once(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let store = subject.store();
    put_many(&store, &a, 10);
    let epoch = head(&store, &a).epoch;
    let trim = |below| Unit::Trim { channel: a.clone(), below };
    assert_eq!(commit_one(&store, trim(4)), Done::Trimmed(4));
    assert_eq!(commit_one(&store, trim(2)), Done::Trimmed(4), "never backwards");
    drop(store);
    also_reopened(&mut subject, |store| {
        let head = head(store, &a);
        assert_eq!((head.first, head.last, head.counted), (4, 10, 10));
        assert_eq!(head.bytes, 7 * text("0").weight() as u64);
        assert_eq!(seqs(&page(store, range(&a, 1, 5))), [4, 5]);
    });
    let store = subject.store();
    assert_eq!(commit_one(&store, trim(99)), Done::Trimmed(11), "above the head: everything");
    drop(store);
    also_reopened(&mut subject, |store| {
        let head = head(store, &a);
        assert_eq!((head.epoch, head.first, head.last, head.bytes), (epoch, 11, 10, 0));
        assert_eq!((head.counted, head.last_at), (10, NOW));
        assert_eq!(all(store, &a), []);
    });
    let store = subject.store();
    let units = vec![Unit::Publish(publish_to(&a, text("x"))), trim(12)];
    let results = commit_at(&store, NOW - HOUR, units);
    let next = stored(&results[0]);
    assert_eq!((next.seq, next.epoch, next.created_at), (11, epoch, NOW));
    assert_eq!(results[1], Done::Trimmed(12), "what the batch itself appended goes too");
    assert_eq!(commit_one(&store, Unit::Trim { channel: user("b"), below: 9 }), Done::Trimmed(1));
    assert_eq!(head(&store, &user("b")), Head::default(), "trimming makes no channel");
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!((head(store, &a).first, head(store, &a).last), (12, 11));
    });
}

/// No more messages than the bound are ever seen, whatever is still on disk, also after reopening.
pub fn bounds_by_count(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let publish = |count, n: u64| {
        let retention = Retention { count, ..unbounded() };
        Unit::Publish(Publish { retention, ..publish_to(&a, text(n.to_string())) })
    };
    let store = subject.store();
    let check = |store: &Arc<dyn Store>, first, last| {
        let head = head(store, &a);
        assert_eq!((head.first, head.last), (first, last));
        let bodies = all(store, &a);
        let expected: Vec<(Seq, Bytes)> =
            (first..=last).map(|n| (n, Bytes::from(n.to_string()))).collect();
        assert_eq!(bodies, expected);
        let weight: usize = bodies.iter().map(|(_, body)| text(body).weight()).sum();
        assert_eq!(head.bytes, weight as u64);
    };
    for n in 1..=30 {
        commit_one(&store, publish(10, n));
        check(&store, n.saturating_sub(9).max(1), n);
    }
    commit(&store, (31..=500).map(|n| publish(10, n)).collect());
    check(&store, 491, 500);
    drop(store);
    also_reopened(&mut subject, |store| check(store, 491, 500));
    let store = subject.store();
    commit_one(&store, publish(20, 501));
    check(&store, 491, 501);
    drop(store);
    also_reopened(&mut subject, |store| check(store, 491, 501));
}

/// A log over its bytes gives up its oldest, one batch at a time, and not much more than it must.
pub fn bounds_by_bytes(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let bound = 100_000;
    let weight = text(vec![0; 936]).weight() as u64;
    let publish = || {
        let retention = Retention { bytes: bound, ..unbounded() };
        Unit::Publish(Publish { retention, ..publish_to(&a, text(vec![0; 936])) })
    };
    let check = |store: &Arc<dyn Store>, last: Seq| {
        let head = head(store, &a);
        assert_eq!(head.last, last);
        assert!(head.bytes <= bound, "{} bytes", head.bytes);
        let fit = bound / weight;
        assert!(head.bytes >= last.min(fit - fit / 32 - 1) * weight, "{} bytes", head.bytes);
        assert_eq!(head.bytes, all(store, &a).len() as u64 * weight, "the total is what is there");
    };
    let store = subject.store();
    let mut last = 0;
    for batch in [1, 50, 48, 1, 1, 1, 7, 300, 1] {
        commit(&store, (0..batch).map(|_| publish()).collect());
        last += batch;
        check(&store, last);
    }
    drop(store);
    also_reopened(&mut subject, |store| check(store, last));
    let store = subject.store();
    let huge = Retention { bytes: bound, ..unbounded() };
    put(&store, Publish { retention: huge, ..publish_to(&a, text(vec![0; 200_000])) });
    assert_eq!(head(&store, &a).bytes, 0, "alone over the bound: nothing can stay");
    assert_eq!(stored(&commit_one(&store, publish())).seq, last + 2);
}

/// A queue at its bound refuses, retryable, gives nothing up, and takes again once it was trimmed.
pub fn a_queue_refuses_and_keeps(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let queue = Address::queue("q").unwrap();
    let retention = Retention { bytes: 1_000, overflow: Overflow::Refuse, ..unbounded() };
    let publish = || Unit::Publish(Publish { retention, ..publish_to(&queue, text(vec![0; 136])) });
    let store = subject.store();
    let results = commit(&store, (0..7).map(|_| publish()).collect());
    assert!(results[..5].iter().all(|done| matches!(done, Done::Published(_))));
    for done in &results[5..] {
        assert_eq!(refusal(done), Code::QueueFull);
        assert!(refusal(done).retryable());
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(refusal(&commit_one(store, publish())), Code::QueueFull);
        assert_eq!((head(store, &queue).first, head(store, &queue).last), (1, 5));
    });
    let store = subject.store();
    let trim = Unit::Trim { channel: queue.clone(), below: 3 };
    let results = commit(&store, vec![trim, publish(), publish(), publish()]);
    assert_eq!((stored(&results[1]).seq, stored(&results[2]).seq), (6, 7));
    assert_eq!(refusal(&results[3]), Code::QueueFull);
}
