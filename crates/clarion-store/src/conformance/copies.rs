//! References that hold a copy of their message.

use super::*;
use clarion_core::port::store::INLINE_MAX;
use clarion_core::port::store::{Committed, Referred};
use clarion_core::{MessageId, Sender};

fn topic(name: &str) -> Address {
    Address::topic(name).unwrap()
}

fn filter(text: &str) -> Address {
    Address::parse_any(&format!("filter:{text}")).unwrap()
}

fn referred(channel: &Address, content: Content, refs: &[&Address]) -> Publish {
    let refs = refs.iter().map(|address| (*address).clone()).collect();
    Publish { refs, ..publish_to(channel, content) }
}

fn committed(store: &Arc<dyn Store>, units: Vec<Unit>) -> Committed {
    wait(store.commit(Batch { now: NOW, fence: None, units })).unwrap()
}

fn trim(channel: &Address) -> Unit {
    Unit::Trim { channel: channel.clone(), below: Seq::MAX }
}

fn erase(channel: &Address, seq: Seq) -> Unit {
    Unit::Erase { channel: channel.clone(), seq }
}

/// A content that has everything.
fn rich() -> Content {
    Content {
        json: true,
        utf8: true,
        retain: true,
        qos: 2,
        content_type: Some("a/b".into()),
        kind: Some("k".into()),
        sender: Some(Sender { user: "u".into(), device: Some("d".into()) }),
        headers: vec![("a".into(), "1".into()), ("a".into(), "".into())],
        reply_to: Some("r".into()),
        correlation: Some(Bytes::from_static(b"\0c")),
        expires_at: Some(NOW + HOUR),
        idempotency_key: Some("key".into()),
        ..text("{}")
    }
}

/// The answer tells where each reference stands; what was refused or a repetition appended none.
pub fn references_tell_their_places(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let (t, one, all) = (topic("a/b"), filter("a/+"), filter("#"));
    let put = |refs: &[&Address]| Unit::Publish(referred(&t, text("x"), refs));
    let keyed = || {
        let content = Content { idempotency_key: Some("k".into()), ..text("x") };
        Unit::Publish(referred(&t, content, &[&one, &all]))
    };
    let key = "k".repeat(300).into();
    let bad = Content { idempotency_key: Some(key), ..text("x") };
    let bad = Unit::Publish(referred(&t, bad, &[&all]));
    let bound = Retention { bytes: 1, overflow: Overflow::Refuse, ..unbounded() };
    let no_room = Publish { retention: bound, ..referred(&topic("a/c"), text("x"), &[&one]) };
    let units = vec![
        put(&[&all]),
        ack(&Reader::device(1), &t, 0),
        bad,
        put(&[]),
        keyed(),
        keyed(),
        Unit::Publish(no_room),
        put(&[&all, &one]),
    ];
    let Committed { results, refs, .. } = committed(&store, units);
    let epochs = [&one, &all].map(|filter| head(&store, filter).epoch);
    let at = |unit, at, of: usize, seq| Referred { unit, at, epoch: epochs[of], seq };
    let expected = [at(0, 0, 1, 1), at(4, 0, 0, 1), at(4, 1, 1, 2), at(7, 0, 1, 3), at(7, 1, 0, 2)];
    assert_eq!(refs, expected);
    assert_eq!(refusal(&results[6]), Code::QueueFull);
    assert_eq!(committed(&store, vec![keyed()]).refs, []);
    assert_eq!(committed(&store, vec![put(&[&one])]).refs, [at(0, 0, 0, 3)]);
    let many = committed(&store, (0..1_000).map(|_| keyed()).collect());
    assert!(many.results.iter().all(|done| stored(done).duplicate));
    assert_eq!((many.refs, head(&store, &all).last), (Vec::new(), 3));
}

/// A small message is read whole from a filter's log when its own log no longer keeps it.
pub fn copies_outlive_bodies(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (t, other, f) = (topic("a/b"), topic("a/c"), filter("a/#"));
    put_many(&store, &filter("a/#"), 2);
    let first = put(&store, referred(&t, rich(), &[&f]));
    let second = put(&store, referred(&other, text("2"), &[&f]));
    commit(&store, vec![trim(&t), trim(&other)]);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!((all(store, &t), all(store, &other)), (Vec::new(), Vec::new()));
        let page = page(store, range(&f, 3, 99));
        let found: Vec<(Seq, MessageId, &Address, Millis)> =
            page.messages.iter().map(|m| (m.seq, m.id, &m.channel, m.created_at)).collect();
        assert_eq!(found, [(3, first.id, &t, NOW), (4, second.id, &other, NOW)]);
        assert_eq!(*page.messages[0].content, rich());
        assert!(page.messages.iter().all(|m| m.epoch == page.head.epoch));
        let backwards = ReadRange { backwards: true, count: 1, ..range(&f, 1, 99) };
        assert_eq!(seqs(&super::page(store, backwards)), [4]);
        let later = read_at(store, NOW + HOUR, range(&f, 3, 99));
        assert_eq!((seqs(&later), later.through), (vec![4], 4), "its life is over here too");
    });
}

/// Up to a weight a reference counts what its copy does, above it hardly anything; both within the publish's bounds.
pub fn references_weigh_what_they_hold(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (t, f, bounded) = (topic("t"), filter("#"), filter("+"));
    let overhead = text("").weight();
    let most = text(vec![1; INLINE_MAX - overhead]);
    let more = text(vec![2; INLINE_MAX - overhead + 1]);
    let huge = text(vec![3; 1 << 20]);
    put(&store, referred(&t, most.clone(), &[&f]));
    let of_copy = (INLINE_MAX + t.as_str().len()) as u64;
    assert_eq!(head(&store, &f).bytes, of_copy);
    put(&store, referred(&t, more.clone(), &[&f]));
    put(&store, referred(&t, huge.clone(), &[&f]));
    assert!(head(&store, &f).bytes <= of_copy + 2 * 100);
    drop(store);
    also_reopened(&mut subject, |store| {
        let page = page(store, range(&f, 1, 9));
        let found: Vec<&Content> = page.messages.iter().map(|m| &*m.content).collect();
        assert_eq!(found, [&most, &more, &huge]);
    });
    let store = subject.store();
    commit(&store, vec![trim(&t)]);
    assert_eq!(seqs(&page(&store, range(&f, 1, 9))), [1], "a large one is read from its log");
    let bytes = 10 * of_copy;
    for (bound, most) in
        [(Retention { count: 5, ..unbounded() }, 5), (Retention { bytes, ..unbounded() }, 10)]
    {
        for _ in 0..30 {
            put(&store, Publish { retention: bound, ..referred(&t, most_of(), &[&bounded]) });
        }
        let held = head(&store, &bounded);
        assert!((1..=most).contains(&(held.last + 1 - held.first)), "{held:?}");
        assert!(held.bytes <= bytes);
    }
}

fn most_of() -> Content {
    text(vec![1; INLINE_MAX - text("").weight()])
}

/// An erased message shows nowhere, whatever its own log still keeps and whenever it came.
pub fn an_erased_message_shows_nowhere(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (x, y) = (topic("a/x"), topic("a/y"));
    let filters = [filter("#"), filter("a/+"), filter("a/x"), filter("b/#")];
    let [all_of, one, exact, ..] = &filters;
    put(&store, referred(&topic("b/x"), text("b"), &[&filters[3]]));
    // Times fall, so that each log has had another one: what is appended together has one time all the same.
    let times = [NOW + 50, NOW + 10, NOW + 90, NOW, NOW + 20, NOW + 91, NOW + 5];
    for (n, at) in times.into_iter().cycle().take(70).enumerate() {
        let n = n as u64;
        let channel = if n.is_multiple_of(2) { &x } else { &y };
        let refs: &[&Address] = match n % 4 {
            0 => &[all_of, one, exact],
            1 => &[one],
            2 => &[exact, all_of],
            _ => &[all_of],
        };
        let unit = Unit::Publish(referred(channel, text(n.to_string()), refs));
        stored(&commit_at(&store, at + n * 3, vec![unit])[0]);
    }
    let bodies = |store: &Arc<dyn Store>, of: &Address| -> Vec<Bytes> {
        all(store, of).into_iter().map(|(_, body)| body).collect()
    };
    let before = filters.clone().map(|filter| bodies(&store, &filter));
    // Every third of both: some kept, some trimmed before.
    let below = 12;
    let units = [&x, &y].map(|channel| Unit::Trim { channel: channel.clone(), below });
    commit(&store, units.into());
    let gone: Vec<u64> = (0..70).filter(|n| n % 3 == 0).collect();
    let erasing = |n: &u64| erase(if n.is_multiple_of(2) { &x } else { &y }, n / 2 + 1);
    for (unit, again) in gone.iter().map(erasing).zip(gone.iter().map(erasing)) {
        assert_eq!(commit_one(&store, unit), Done::Erased(true));
        assert_eq!(commit_one(&store, again), Done::Erased(false));
    }
    assert_eq!(commit_one(&store, erase(&x, 99)), Done::Erased(false));
    assert_eq!(commit_one(&store, erase(&x, 0)), Done::Erased(false));
    drop(store);
    also_reopened(&mut subject, |store| {
        let is_gone = |body: &Bytes| gone.iter().any(|n| *body == n.to_string());
        for (filter, before) in filters.iter().zip(&before) {
            let left: Vec<Bytes> = before.iter().filter(|b| !is_gone(b)).cloned().collect();
            assert_eq!(bodies(store, filter), left, "{filter:?}");
        }
        assert!(bodies(store, &x).iter().all(|body| !is_gone(body)));
    });
}

/// A batch erases what it published itself, and a long name is no hiding place.
pub fn an_erasure_sees_its_own_batch(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let level = "l".repeat(600);
    let (t, long, short) = (topic(&level), filter(&format!("{level}/#")), filter("#"));
    let publish = |n: u64| Unit::Publish(referred(&t, text(n.to_string()), &[&long, &short]));
    let units = vec![publish(1), publish(2), erase(&t, 1), erase(&t, 1), publish(3)];
    let results = commit(&store, units);
    assert_eq!(results[2..4], [Done::Erased(true), Done::Erased(false)]);
    let results =
        commit(&store, vec![publish(4), trim(&t), erase(&t, 3), erase(&t, 4), erase(&t, 4)]);
    assert_eq!(results[2..], [Done::Erased(true), Done::Erased(true), Done::Erased(false)]);
    drop(store);
    also_reopened(&mut subject, |store| {
        for filter in [&long, &short] {
            assert_eq!(all(store, filter), [(2, Bytes::from("2"))]);
            assert_eq!(head(store, filter).last, 4);
        }
    });
}

/// A log that refuses what is over its bytes makes the whole publish refused, and nothing of it is left anywhere.
pub fn a_full_filter_refuses_the_publish(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (t, u, f, g) = (topic("t"), topic("u"), filter("#"), filter("+"));
    let retention = Retention { bytes: 1_000, overflow: Overflow::Refuse, ..unbounded() };
    let publish = |channel: &Address| {
        let publish = referred(channel, text(vec![0; 236]), &[&g, &f]);
        Unit::Publish(Publish { retention, ..publish })
    };
    let Committed { results, refs, .. } =
        committed(&store, vec![publish(&t), publish(&u), publish(&t), publish(&u)]);
    assert_eq!((refusal(&results[3]), refs.len()), (Code::QueueFull, 6));
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!([&t, &u, &f, &g].map(|channel| head(store, channel).last), [2, 1, 3, 3]);
    });
}
