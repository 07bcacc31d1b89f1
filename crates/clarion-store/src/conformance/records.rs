//! Small records and claims.

use super::*;
use clarion_core::port::store::{Change, Expect, Record};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn record(key: &[u8], expect: Expect, value: &str) -> Unit {
    let change = Change::Put(Bytes::copy_from_slice(value.as_bytes()));
    Unit::Record { key: Bytes::copy_from_slice(key), expect, change }
}

fn delete(key: &[u8], expect: Expect) -> Unit {
    Unit::Record { key: Bytes::copy_from_slice(key), expect, change: Change::Delete }
}

fn scan(store: &Arc<dyn Store>, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Record> {
    let after = after.map(Bytes::copy_from_slice);
    wait(store.records(Bytes::copy_from_slice(prefix), after, limit)).unwrap()
}

/// Of many compare-and-sets on one version one wins, round after round.
pub fn one_winner_of_many(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    for round in 0..10 {
        let expect = if round == 0 { Expect::Absent } else { Expect::Version(round) };
        let results: Vec<Done> = thread::scope(|scope| {
            let store = &store;
            let all: Vec<_> = (0..16)
                .map(|n| {
                    scope.spawn(move || commit_one(store, record(b"k", expect, &n.to_string())))
                })
                .collect();
            all.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = results.iter().filter(|done| **done == Done::Recorded(round + 1)).count();
        let lost = results.iter().filter(|done| **done == Done::Refused(Code::Conflict)).count();
        assert_eq!((won, lost), (1, 15), "round {round}");
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(scan(store, b"k", None, 9)[0].version, 10);
        let refused = commit_one(store, record(b"k", Expect::Absent, "x"));
        assert_eq!(refusal(&refused), Code::Conflict);
    });
    let store = subject.store();
    assert_eq!(commit_one(&store, delete(b"k", Expect::Version(10))), Done::Recorded(0));
    assert_eq!(refusal(&commit_one(&store, delete(b"k", Expect::Version(10)))), Code::Conflict);
    drop(store);
    also_reopened(&mut subject, |store| assert_eq!(scan(store, b"", None, 9), []));
}

/// Within a batch a unit sees what those before it did; a refused one changes nothing.
pub fn units_see_those_before_them(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let results = commit(
        &store,
        vec![
            record(b"a", Expect::Absent, "1"),
            record(b"a", Expect::Absent, "refused"),
            record(b"a", Expect::Version(1), "2"),
            record(b"b", Expect::Any, "1"),
            delete(b"b", Expect::Version(1)),
            record(b"b", Expect::Absent, "again"),
            record(b"c", Expect::Version(3), "refused"),
        ],
    );
    let conflict = Done::Refused(Code::Conflict);
    assert_eq!(
        results,
        [
            Done::Recorded(1),
            conflict.clone(),
            Done::Recorded(2),
            Done::Recorded(1),
            Done::Recorded(0),
            Done::Recorded(1),
            conflict
        ]
    );
    drop(store);
    also_reopened(&mut subject, |store| {
        let found = scan(store, b"", None, 9);
        let found: Vec<(&[u8], u64, &[u8])> =
            found.iter().map(|r| (&r.key[..], r.version, &r.value[..])).collect();
        assert_eq!(found, [(&b"a"[..], 2, &b"2"[..]), (b"b", 1, b"again")]);
    });
}

/// A scan in pages finds every record that was there all the time, once, while others come and go.
pub fn scans_complete_under_writes(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let key = |n: u32| format!("p/{n:05}").into_bytes();
    commit(&store, (0..500).map(|n| record(&key(n * 2), Expect::Any, "stays")).collect());
    commit(&store, vec![record(b"o", Expect::Any, ""), record(b"q", Expect::Any, "")]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) || n < 200 {
                let odd = key((n * 7 % 500) * 2 + 1);
                commit(&store, vec![record(&odd, Expect::Any, "comes")]);
                commit(
                    &store,
                    vec![delete(&odd, Expect::Any), record(&key(0), Expect::Any, "stays")],
                );
                n += 1;
            }
        });
        for _ in 0..10 {
            let mut found = Vec::new();
            let mut after: Option<Bytes> = None;
            loop {
                let page = scan(&store, b"p/", after.as_deref(), 37);
                assert!(page.len() <= 37);
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                found.extend(page);
            }
            assert!(found.is_sorted_by(|a, b| a.key < b.key), "ascending, each once");
            assert!(found.iter().all(|r| r.key.starts_with(b"p/")));
            let stayed = found.iter().filter(|r| r.value == "stays").count();
            assert_eq!(stayed, 500);
        }
        done.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
}

/// Keys may hold any byte; prefixes and `after` go by bytes.
pub fn keys_of_every_byte(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let mut keys: Vec<Vec<u8>> = (0..=255).map(|byte| vec![b'k', byte]).collect();
    keys.extend([vec![b'k'], vec![0xff; 1024], vec![0], vec![0xff, 0xff]]);
    commit(&store, keys.iter().map(|key| record(key, Expect::Absent, "v")).collect());
    keys.sort();
    drop(store);
    also_reopened(&mut subject, |store| {
        let listed = |found: Vec<Record>| -> Vec<Vec<u8>> {
            found.into_iter().map(|r| r.key.to_vec()).collect()
        };
        assert_eq!(listed(scan(store, b"", None, 999)), keys);
        let with_k: Vec<Vec<u8>> = keys.iter().filter(|k| k[0] == b'k').cloned().collect();
        assert_eq!(listed(scan(store, b"k", None, 999)), with_k);
        assert_eq!(listed(scan(store, b"k", Some(b"k\xfe"), 999)), [b"k\xff".to_vec()]);
        assert_eq!(listed(scan(store, b"k", Some(b"a"), 1)), [b"k".to_vec()], "below the prefix");
        assert_eq!(listed(scan(store, b"k", Some(b"z"), 9)), Vec::<Vec<u8>>::new());
        assert_eq!(listed(scan(store, b"\xff\xff", None, 999)).len(), 2);
    });
}

/// A claim has one holder; whoever takes it over gets a higher fence and the old one is worth nothing.
pub fn an_old_fence_is_refused(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let key = Bytes::from_static(b"shard 1");
    let claim = |store: &Arc<dyn Store>, now, owner: &'static str| {
        wait(store.claim(now, key.clone(), owner.into(), 1_000)).unwrap()
    };
    let a = user("a");
    let commit_with = |store: &Arc<dyn Store>, now, fence| {
        let units = vec![Unit::Publish(publish_to(&a, text("")))];
        let batch = Batch { now, fence: Some((key.clone(), fence)), units };
        wait(store.commit(batch)).map_err(|e| e.code())
    };
    assert_eq!(claim(&store, NOW, "one"), Some(1));
    assert_eq!(claim(&store, NOW + 500, "two"), None, "it is held");
    assert_eq!(claim(&store, NOW + 900, "one"), Some(1), "renewed");
    assert_eq!(commit_with(&store, NOW + 1_500, 1).unwrap().results.len(), 1);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(claim(store, NOW + 1_800, "two"), None, "still held");
    });
    let store = subject.store();
    assert_eq!(commit_with(&store, NOW + 1_900, 1).unwrap_err(), Code::Conflict, "ran out");
    assert_eq!(claim(&store, NOW + 1_900, "two"), Some(2));
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(commit_with(store, NOW + 2_000, 1).unwrap_err(), Code::Conflict);
        assert!(commit_with(store, NOW + 2_000, 2).is_ok());
    });
    let store = subject.store();
    let seqs: Vec<Seq> = all(&store, &a).into_iter().map(|(seq, _)| seq).collect();
    assert!(seqs == [1, 2] || seqs == [1, 2, 3], "no seq was burnt: {seqs:?}");
}
