//! Reference logs: `filter:` channels that lead to messages of others.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn filter(text: &str) -> Address {
    Address::parse_any(&format!("filter:{text}")).unwrap()
}

fn referred(channel: &Address, body: &str, refs: &[&Address]) -> Publish {
    let refs = refs.iter().map(|address| (*address).clone()).collect();
    Publish { refs, ..publish_to(channel, text(body)) }
}

/// A read of a reference log gives the messages, with the log's own seqs and the body's channel and id.
pub fn references_lead_to_bodies(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let (t, u) = (Address::topic("a/b/c").unwrap(), Address::topic("a/x/c").unwrap());
    let (one, all) = (filter("a/+/c"), filter("a/#"));
    let store = subject.store();
    put(&store, publish_to(&t, text("before")));
    let first = put(&store, referred(&t, "1", &[&one, &all]));
    let second = put(&store, referred(&u, "2", &[&all]));
    let third = put(&store, referred(&t, "3", &[&one, &all]));
    let again = Content { idempotency_key: Some("k".into()), ..text("4") };
    for _ in 0..2 {
        let refs = vec![one.clone()];
        put(&store, Publish { refs, ..publish_to(&u, again.clone()) });
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        let page = page(store, range(&all, 1, 99));
        let found: Vec<_> = page.messages.iter().map(|m| (m.seq, m.id, &m.channel)).collect();
        assert_eq!(found, [(1, first.id, &t), (2, second.id, &u), (3, third.id, &t)]);
        assert!(page.messages.iter().all(|m| m.epoch == page.head.epoch));
        assert_eq!(page.messages[2].content.payload, "3");
        let bodies: Vec<Bytes> = super::all(store, &one).into_iter().map(|(_, b)| b).collect();
        assert_eq!(bodies, ["1", "3", "4"], "a repeated publish appends no reference");
    });
}

/// A body that is erased or expired is not read through a reference either, nor a large one that was trimmed.
pub fn references_do_not_outlive_bodies(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let t = Address::topic("t").unwrap();
    let f = filter("#");
    let store = subject.store();
    for n in 1..=4u64 {
        let body = if n == 1 { vec![0; 20_000] } else { Vec::new() };
        let content = Content { expires_at: (n == 3).then_some(NOW + HOUR), ..text(body) };
        let refs = vec![f.clone()];
        put(&store, Publish { refs, ..publish_to(&t, content) });
    }
    commit_one(&store, Unit::Trim { channel: t.clone(), below: 2 });
    commit_one(&store, Unit::Erase { channel: t.clone(), seq: 2 });
    drop(store);
    also_reopened(&mut subject, |store| {
        let page = read_at(store, NOW + HOUR, range(&f, 1, 99));
        assert_eq!((seqs(&page), page.through), (vec![4], 4));
        assert_eq!(page.head.first, 1, "the references themselves are still there");
    });
}

/// Whoever follows a reference log finds every message that its head promises.
pub fn no_reference_before_its_body(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let f = filter("#");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) || last < 200 {
                let page = page(&store, range(&f, last + 1, Seq::MAX));
                let expected: Vec<Seq> = (last + 1..=page.through).collect();
                assert_eq!(seqs(&page), expected, "every reference leads to its body");
                last = page.through;
            }
        });
        for n in 0..200 {
            let topic = Address::topic(&format!("t/{}", n % 7)).unwrap();
            put(&store, referred(&topic, "x", &[&f]));
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
