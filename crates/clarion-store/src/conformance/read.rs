//! Pages: their bounds, what they pass, where they end.

use super::*;

/// Count and bytes bound a page; what it did not reach, the next one has.
pub fn pages_are_bounded(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let store = subject.store();
    put_many(&store, &a, 10);
    drop(store);
    let weight = text("0").weight();
    also_reopened(&mut subject, |store| {
        let three = page(store, ReadRange { count: 3, ..range(&a, 2, 9) });
        assert_eq!((seqs(&three), three.through), (vec![2, 3, 4], 4));
        let two = page(store, ReadRange { bytes: 2 * weight + 1, ..range(&a, 2, 9) });
        assert_eq!((seqs(&two), two.through), (vec![2, 3], 3));
        let whole = page(store, range(&a, 8, 99));
        assert_eq!((seqs(&whole), whole.through), (vec![8, 9, 10], 10), "clipped to the head");
        assert_eq!((whole.head.first, whole.head.last), (1, 10));
        let none = page(store, range(&a, 11, 99));
        assert_eq!((seqs(&none), none.through), (vec![], 10));
        let empty = page(store, ReadRange { count: 0, ..range(&a, 4, 9) });
        assert_eq!((seqs(&empty), empty.through), (vec![], 3));
        let upside_down = page(store, range(&a, 9, 2));
        assert_eq!(seqs(&upside_down), []);
        let unknown = page(store, range(&user("b"), 1, 9));
        assert_eq!((unknown.head, unknown.through), (Head::default(), 0));
    });
}

/// A message larger than the byte bound still comes, alone.
pub fn an_oversized_message_comes_alone(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    put(&store, publish_to(&a, text("small")));
    put(&store, publish_to(&a, text(vec![1; 100_000])));
    put(&store, publish_to(&a, text("small")));
    let bytes = 1_000;
    let page = |from| page(&store, ReadRange { bytes, ..range(&a, from, 9) });
    assert_eq!((seqs(&page(1)), page(1).through), (vec![1], 1));
    assert_eq!((seqs(&page(2)), page(2).through), (vec![2], 2));
    assert_eq!((seqs(&page(3)), page(3).through), (vec![3], 3));
}

/// Expired, erased and trimmed seqs are passed and counted as looked at.
pub fn holes_are_passed(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let store = subject.store();
    for n in 1..=10u64 {
        let expires_at = [4, 5, 9, 10].contains(&n).then_some(NOW + HOUR);
        put(&store, publish_to(&a, Content { expires_at, ..text(n.to_string()) }));
    }
    let erase = |seq| Unit::Erase { channel: a.clone(), seq };
    assert_eq!(commit_one(&store, erase(6)), Done::Erased(true));
    assert_eq!(commit_one(&store, erase(6)), Done::Erased(false), "once");
    assert_eq!(commit_one(&store, erase(11)), Done::Erased(false), "above the head");
    commit_one(&store, Unit::Trim { channel: a.clone(), below: 3 });
    assert_eq!(commit_one(&store, erase(2)), Done::Erased(false), "below the floor");
    drop(store);
    also_reopened(&mut subject, |store| {
        let before = page(store, range(&a, 1, 99));
        assert_eq!(seqs(&before), [3, 4, 5, 7, 8, 9, 10]);
        let read = |range| read_at(store, NOW + HOUR, range);
        let after = read(range(&a, 1, 99));
        assert_eq!((seqs(&after), after.through), (vec![3, 7, 8], 10), "the end counts as seen");
        assert_eq!(after.head.first, 3);
        let one = read(ReadRange { count: 1, ..range(&a, 4, 99) });
        assert_eq!((seqs(&one), one.through), (vec![7], 7));
        let none = read(range(&a, 4, 6));
        assert_eq!((seqs(&none), none.through), (vec![], 6));
        let trimmed = read(range(&a, 1, 2));
        assert_eq!((seqs(&trimmed), trimmed.through), (vec![], 2));
    });
    let store = subject.store();
    let erase_own = vec![Unit::Publish(publish_to(&a, text("secret"))), erase(11), erase(11)];
    let results = commit(&store, erase_own);
    assert_eq!(results[1..], [Done::Erased(true), Done::Erased(false)]);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(seqs(&page(store, range(&a, 10, 99))), [10]);
        assert_eq!(head(store, &a).last, 11, "the seq stays");
    });
    let store = subject.store();
    // A long run of nothing is passed in bounded steps.
    let b = user("b");
    let gone = Content { expires_at: Some(NOW + 1), ..text("") };
    for _ in 0..6 {
        let units = (0..1_000).map(|_| Unit::Publish(publish_to(&b, gone.clone())));
        commit(&store, units.collect());
    }
    put(&store, publish_to(&b, text("at last")));
    let mut from = 1;
    let mut pages = 0;
    let found = loop {
        let page = read_at(&store, NOW + HOUR, ReadRange { count: 9, ..range(&b, from, 9_999) });
        pages += 1;
        assert!(page.through >= from, "each page gets on");
        from = page.through + 1;
        if !page.messages.is_empty() || page.through >= page.head.last {
            break seqs(&page);
        }
    };
    assert_eq!(found, [6_001]);
    assert!(pages > 1, "one page does not look at everything");
}

/// The same bounds from the end.
pub fn reading_backwards(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let store = subject.store();
    put_many(&store, &a, 10);
    commit(
        &store,
        vec![
            Unit::Trim { channel: a.clone(), below: 4 },
            Unit::Erase { channel: a.clone(), seq: 8 },
        ],
    );
    drop(store);
    also_reopened(&mut subject, |store| {
        let back = |from, to, count| {
            let page = page(store, ReadRange { backwards: true, count, ..range(&a, from, to) });
            (seqs(&page), page.through)
        };
        assert_eq!(back(1, 99, 3), (vec![10, 9, 7], 7));
        assert_eq!(back(1, 6, 9), (vec![6, 5, 4], 1), "what is trimmed was looked at");
        assert_eq!(back(5, 6, 9), (vec![6, 5], 5));
        assert_eq!(back(8, 8, 9), (vec![], 8));
        assert_eq!(back(1, 3, 9), (vec![], 1));
    });
}

/// Each range of a call has its own bounds and its own page, in order.
pub fn several_ranges_at_once(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let (a, b) = (user("a"), user("b"));
    put_many(&store, &a, 5);
    put_many(&store, &b, 5);
    let ranges = vec![
        ReadRange { count: 2, ..range(&b, 1, 9) },
        range(&user("c"), 1, 9),
        range(&a, 4, 9),
        ReadRange { count: 1, ..range(&b, 3, 9) },
    ];
    let pages = wait(store.read(NOW, ranges)).unwrap();
    let found: Vec<Vec<Seq>> = pages.iter().map(seqs).collect();
    assert_eq!(found, [vec![1, 2], vec![], vec![4, 5], vec![3]]);
    let heads = wait(store.heads(vec![b.clone(), user("c"), a, b])).unwrap();
    assert_eq!(heads.iter().map(|h| h.last).collect::<Vec<_>>(), [5, 0, 5, 5]);
}
