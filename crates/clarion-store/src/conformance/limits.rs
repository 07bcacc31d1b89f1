//! Bounds of the whole engine and of single inputs.

use super::*;
use clarion_core::port::store::{Change, Expect, SweepBudget};

/// A full engine refuses publishes, retryable; reads, acks and records go on; trimming makes room.
pub fn a_full_engine_refuses_publishes_only(factory: &dyn Factory) {
    let mut subject = factory.bounded(4 << 20);
    let a = user("a");
    let publish = || Unit::Publish(publish_to(&a, text(vec![0x5a; 60_000])));
    let store = subject.store();
    let mut taken = 0;
    let refused = loop {
        match commit_one(&store, publish()) {
            Done::Published(stored) => {
                taken += 1;
                assert_eq!(stored.seq, taken);
            }
            other => break refusal(&other),
        }
        assert!(taken < 500, "the bound is never reached");
    };
    assert_eq!(refused, Code::StoreFull);
    assert!(refused.retryable());
    assert!(taken > 10, "the bound is much too low: {taken}");
    let reader = Reader::device(1);
    assert_eq!(commit_one(&store, ack(&reader, &a, 2)), Done::Acked);
    let change = Change::Put(Bytes::from_static(b"v"));
    let record = Unit::Record { key: Bytes::from_static(b"k"), expect: Expect::Absent, change };
    assert_eq!(commit_one(&store, record), Done::Recorded(1));
    assert_eq!(wait(store.check()).failed, None, "full is not failed");
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(all(store, &a).len() as u64, taken, "all that was answered is there");
        assert_eq!(refusal(&commit_one(store, publish())), Code::StoreFull);
    });
    let store = subject.store();
    commit_one(&store, Unit::Trim { channel: a.clone(), below: taken + 1 });
    // The second sweep is answered after the first one has cleared up behind itself.
    for _ in 0..2 {
        wait(store.sweep(NOW, SweepBudget { channels: 10 })).unwrap();
    }
    assert_eq!(stored(&commit_one(&store, publish())).seq, taken + 1);
}

/// Keys above their limits are refused and change nothing.
pub fn oversized_keys_are_refused(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    let long = Bytes::from(vec![1; 1025]);
    let record = Unit::Record {
        key: long.clone(),
        expect: Expect::Any,
        change: Change::Put(Bytes::from_static(b"v")),
    };
    assert_eq!(refusal(&commit_one(&store, record)), Code::BadRequest);
    let reader = Reader::from_bytes(long.clone());
    assert_eq!(refusal(&commit_one(&store, ack(&reader, &a, 0))), Code::BadRequest);
    assert_eq!(wait(store.cursors(reader)).unwrap(), []);
    assert_eq!(head(&store, &a).epoch, 0);
    let claim = wait(store.claim(NOW, long, Bytes::new(), 1));
    assert_eq!(claim.unwrap_err().code(), Code::BadRequest);
    let huge = Change::Put(Bytes::from(vec![0; (4 << 20) + 1]));
    let record = Unit::Record { key: Bytes::from_static(b"k"), expect: Expect::Any, change: huge };
    assert_eq!(refusal(&commit_one(&store, record)), Code::PayloadTooLarge);
    assert_eq!(wait(store.records(Bytes::new(), None, 9)).unwrap(), []);
}
