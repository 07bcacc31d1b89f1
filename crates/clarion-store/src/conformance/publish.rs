//! Publishes: seqs, answers, keys, contents.

use super::*;
use clarion_core::Sender;
use clarion_core::port::store::{Find, FoundState};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const WRITERS: usize = 64;

/// Seqs are dense from 1 however many write, and each writer's answers ascend.
pub fn dense_seqs_under_64_writers(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let channels: Vec<Address> = (0..4).map(|n| user(&n.to_string())).collect();
    let write = |writer: usize| {
        let mut answers = Vec::new();
        for round in 0..10 {
            let body = format!("{writer} {round}");
            let units = channels.iter().map(|c| Unit::Publish(publish_to(c, text(&body))));
            let done = commit(&store, units.collect());
            answers.push(done.iter().map(|d| stored(d).seq).collect::<Vec<Seq>>());
        }
        answers
    };
    let answers: Vec<Vec<Vec<Seq>>> = thread::scope(|scope| {
        let write = &write;
        let all: Vec<_> = (0..WRITERS).map(|w| scope.spawn(move || write(w))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (i, channel) in channels.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for writer in &answers {
            let own: Vec<Seq> = writer.iter().map(|answer| answer[i]).collect();
            assert!(own.is_sorted(), "answers in seq order per writer");
            seen.extend(own);
        }
        let total = 10 * WRITERS as u64;
        assert_eq!(seen, (1..=total).collect::<BTreeSet<Seq>>(), "dense on {channel}");
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        for (i, channel) in channels.iter().enumerate() {
            for (seq, body) in all(store, channel) {
                let body = String::from_utf8(body.to_vec()).unwrap();
                let (writer, round) = body.split_once(' ').unwrap();
                let (writer, round): (usize, usize) =
                    (writer.parse().unwrap(), round.parse().unwrap());
                assert_eq!(answers[writer][round][i], seq, "the answer was the place");
            }
        }
    });
}

/// Nothing is seen above the head, everything up to it is there, and an answer is at once visible to others.
pub fn what_is_visible_is_committed(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let channel = user("a");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            let mut looks = 0u64;
            while !done.load(Ordering::Relaxed) || looks < 100 {
                let page = page(&store, range(&channel, last + 1, Seq::MAX));
                assert!(page.head.last >= last, "the head never falls");
                let expected: Vec<Seq> = (last + 1..=page.through).collect();
                assert_eq!(seqs(&page), expected, "dense up to where it looked");
                assert!(page.through <= page.head.last);
                last = page.through;
                looks += 1;
            }
            last
        });
        for n in 1..=300 {
            let seq = put(&store, publish_to(&channel, text(n.to_string()))).seq;
            assert_eq!(seq, n);
            assert_eq!(head(&store, &channel).last, n, "answered means visible");
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() <= 300);
    });
}

/// What is refused takes no seq, whoever refuses it.
pub fn refused_commits_burn_no_seq(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let queue = Address::queue("q").unwrap();
    let bound = Retention { bytes: 1_000, overflow: Overflow::Refuse, ..unbounded() };
    let publish = |size: usize| {
        Unit::Publish(Publish { retention: bound, ..publish_to(&queue, text(vec![7; size])) })
    };
    let results = commit(&store, vec![publish(100), publish(10_000), publish(100)]);
    assert_eq!(stored(&results[0]).seq, 1);
    assert_eq!(refusal(&results[1]), Code::QueueFull);
    assert_eq!(stored(&results[2]).seq, 2, "the others of the batch go on");
    let fence = Some((Bytes::from_static(b"nobody's"), 1));
    let batch = Batch { now: NOW, fence, units: vec![publish(100)] };
    assert_eq!(wait(store.commit(batch)).unwrap_err().code(), Code::Conflict);
    let long = Content { idempotency_key: Some("k".repeat(257).into()), ..text("") };
    let refused = commit_one(&store, Unit::Publish(publish_to(&queue, long)));
    assert_eq!(refusal(&refused), Code::BadRequest);
    assert_eq!(stored(&commit_one(&store, publish(100))).seq, 3);
    drop(store);
    also_reopened(&mut subject, |store| assert_eq!(head(store, &queue).last, 3));
}

fn keyed(channel: &Address, key: &str, body: &str) -> Unit {
    let content = Content { idempotency_key: Some(key.into()), ..text(body) };
    Unit::Publish(publish_to(channel, content))
}

/// The same key again appends nothing and gets the first answer: in one batch, at the same time, after reopening.
pub fn one_record_for_one_key(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (a, b) = (user("a"), user("b"));
    let units = vec![keyed(&a, "k", "1"), keyed(&a, "k", "2"), keyed(&b, "k", "3")];
    let results = commit(&store, units);
    let first = stored(&results[0]);
    assert!(!first.duplicate);
    assert_eq!(stored(&results[1]), Stored { duplicate: true, ..first });
    assert_eq!((stored(&results[2]).seq, stored(&results[2]).duplicate), (1, false));
    let answers: Vec<Stored> = thread::scope(|scope| {
        let again = |_| {
            let store = &store;
            let a = &a;
            scope.spawn(move || stored(&commit_one(store, keyed(a, "same time", "x"))))
        };
        let all: Vec<_> = (0..16).map(again).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|answer| !answer.duplicate).count(), 1, "one was first");
    assert!(answers.iter().all(|answer| (answer.seq, answer.id) == (2, answers[0].id)));
    put(&store, publish_to(&a, text("no key")));
    drop(store);
    also_reopened(&mut subject, |store| {
        let again = stored(&commit_at(store, NOW + HOUR, vec![keyed(&a, "k", "4")])[0]);
        assert_eq!(again, Stored { duplicate: true, ..first });
        assert_eq!(head(store, &a).last, 3);
        let found = wait(store.find(NOW, Find::Key(a.clone(), "k".into()))).unwrap().unwrap();
        assert_eq!((found.stored.seq, found.state), (1, FoundState::Stored));
        let none = wait(store.find(NOW, Find::Key(a.clone(), "other".into()))).unwrap();
        assert_eq!(none, None);
    });
}

/// After 24 hours a key is new again, also when sweeps and other publishes came in between.
pub fn a_key_is_forgotten_after_a_day(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    let budget = clarion_core::port::store::SweepBudget { channels: 100 };
    for (hours, seq, duplicate) in
        [(0, 1, false), (13, 1, true), (23, 1, true), (24, 2, false), (30, 2, true), (90, 3, false)]
    {
        let now = NOW + hours * HOUR;
        let answer = stored(&commit_at(&store, now, vec![keyed(&a, "k", "x")])[0]);
        assert_eq!((answer.seq, answer.duplicate), (seq, duplicate), "after {hours} h");
        while wait(store.sweep(now, budget)).unwrap().more {}
    }
}

/// A clock that goes back does not reach the log.
pub fn time_never_falls_in_a_log(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let unit = || vec![Unit::Publish(publish_to(&a, text("")))];
    let at = |store: &Arc<dyn Store>, now| stored(&commit_at(store, now, unit())[0]);
    let store = subject.store();
    assert_eq!(at(&store, NOW).created_at, NOW);
    let second = at(&store, NOW - HOUR);
    assert_eq!((second.created_at, second.id.at()), (NOW, NOW));
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(at(store, NOW - HOUR).created_at, NOW);
        assert_eq!(head(store, &a).last_at, NOW);
        let page = page(store, range(&a, 1, 9));
        assert!(page.messages.iter().all(|m| m.created_at == NOW && m.id.at() == NOW));
    });
}

/// Everything that a message may carry comes back; names may be as long and as odd as the domain allows.
pub fn odd_contents_and_names(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let every_byte: Vec<u8> = (0..=255).collect();
    let full = Content {
        payload: every_byte.clone().into(),
        json: true,
        utf8: true,
        retain: true,
        qos: 2,
        counted: false,
        content_type: Some("a/b".into()),
        kind: Some("".into()),
        sender: Some(Sender { user: "ü".into(), device: Some("d".into()) }),
        headers: vec![("a".into(), "1".into()), ("a".into(), "\u{10ffff}".into())],
        reply_to: Some("r".into()),
        correlation: Some(every_byte.into()),
        expires_at: Some(NOW + HOUR),
        idempotency_key: Some("k".repeat(256).into()),
        asked_s: None,
    };
    let channels = [
        user(&"x".repeat(256)),
        Address::topic(&"t".repeat(65_535)).unwrap(),
        Address::topic(&format!("{}u", "t".repeat(65_534))).unwrap(),
        Address::queue("+#/\u{200b} 💬").unwrap(),
        Address::queue("q").unwrap().dead_list(),
        Address::all(),
    ];
    let contents = [full, text(""), text(vec![0xa5; 1 << 20]), text(vec![0; 4095])];
    for channel in &channels {
        for content in &contents {
            put(&store, publish_to(channel, content.clone()));
        }
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        for channel in &channels {
            let page = page(store, range(channel, 1, 9));
            let found: Vec<&Content> = page.messages.iter().map(|m| &*m.content).collect();
            assert!(found == contents.iter().collect::<Vec<_>>(), "what came back differs");
            assert!(page.messages.iter().all(|m| &m.channel == channel));
            let weight: usize = contents.iter().map(Content::weight).sum();
            assert_eq!((page.head.bytes, page.head.counted), (weight as u64, 3));
        }
    });
}

/// A commit whose future nobody waits for takes effect.
pub fn dropped_futures_cancel_nothing(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    for n in 0..20 {
        let units = vec![Unit::Publish(publish_to(&a, text(n.to_string())))];
        drop(store.commit(Batch { now: NOW, fence: None, units }));
        drop(store.read(NOW, vec![range(&a, 1, 9)]));
    }
    assert_eq!(put(&store, publish_to(&a, text("20"))).seq, 21);
    drop(store);
    also_reopened(&mut subject, |store| assert_eq!(all(store, &a).len(), 21));
}

/// An id names its message, whatever became of it; others name nothing.
pub fn ids_lead_to_positions(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    put(&store, publish_to(&user("other"), text("")));
    let ending = Content { expires_at: Some(NOW + HOUR), ..text("") };
    let ids: Vec<Stored> = [text("0"), ending, text("2"), text("3")]
        .into_iter()
        .map(|content| put(&store, publish_to(&a, content)))
        .collect();
    let last = ids[3].id;
    commit_one(&store, Unit::Erase { channel: a.clone(), seq: 3 });
    commit_one(&store, Unit::Trim { channel: a.clone(), below: 2 });
    drop(store);
    also_reopened(&mut subject, |store| {
        let find = |id| wait(store.find(NOW + HOUR, Find::Id(id))).unwrap();
        let expected =
            [FoundState::Trimmed, FoundState::Expired, FoundState::Erased, FoundState::Stored];
        for (stored, state) in ids.iter().zip(expected) {
            let found = find(stored.id).unwrap();
            assert_eq!((&found.channel, found.stored, found.state), (&a, *stored, state));
        }
        assert_eq!(find(ids[1].id).unwrap().expires_at, Some(NOW + HOUR));
        let before = wait(store.find(NOW, Find::Id(ids[1].id))).unwrap().unwrap();
        assert_eq!(before.state, FoundState::Stored, "not expired yet");
        let mut bytes = last.to_bytes();
        bytes[15] += 1;
        assert_eq!(find(clarion_core::MessageId::from_bytes(bytes)), None, "above the head");
        bytes = last.to_bytes();
        bytes[5] ^= 1;
        assert_eq!(find(clarion_core::MessageId::from_bytes(bytes)), None, "another time");
        assert_eq!(find(clarion_core::MessageId::stored(NOW, 77_777, 1)), None, "no channel");
        assert_eq!(find(clarion_core::MessageId::live(NOW, 1, 1)), None, "live");
    });
}
