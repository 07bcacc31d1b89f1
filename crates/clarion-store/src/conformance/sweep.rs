//! The sweeper's share.

use super::*;
use clarion_core::port::store::{Find, FoundState, SweepBudget, Swept};

const DAY: Millis = 24 * HOUR;

fn sweep(store: &Arc<dyn Store>, now: Millis, channels: usize) -> Swept {
    wait(store.sweep(now, SweepBudget { channels })).unwrap()
}

/// Sweeps until there is nothing more; returns the seqs that left.
fn sweep_all(store: &Arc<dyn Store>, now: Millis, channels: usize) -> u64 {
    let mut trimmed = 0;
    for _ in 0..1_000 {
        let swept = sweep(store, now, channels);
        assert!(swept.channels <= channels as u64, "within the budget");
        trimmed += swept.trimmed;
        if !swept.more {
            return trimmed;
        }
        assert!(swept.channels > 0, "a sweep with more to do does something");
    }
    panic!("the sweeps come to no end");
}

/// What is over age leaves in as many sweeps as the budget takes, and only that.
pub fn age_is_swept_within_the_budget(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let retention = Retention { age_ms: 10 * DAY, ..unbounded() };
    let channels: Vec<Address> = (0..25).map(|n| user(&n.to_string())).collect();
    let publish = |now, body: &str| {
        let units = channels
            .iter()
            .map(|channel| Unit::Publish(Publish { retention, ..publish_to(channel, text(body)) }));
        commit_at(&store, now, units.collect());
    };
    publish(NOW, "0");
    publish(NOW + DAY, "1");
    publish(NOW + DAY + 1, "2");
    publish(NOW + 8 * DAY, "3");
    let kept = Address::queue("kept").unwrap();
    put(&store, publish_to(&kept, text("no age")));
    assert_eq!(sweep_all(&store, NOW + 9 * DAY, 4), 0, "nothing is old enough");
    // The sweeper may come up to an hour late, never early.
    let now = NOW + 11 * DAY;
    assert_eq!(sweep_all(&store, now + 1 + HOUR, 4), 75);
    for channel in &channels {
        assert_eq!((head(&store, channel).first, head(&store, channel).last), (4, 4));
        assert_eq!(head(&store, channel).bytes, text("3").weight() as u64);
    }
    assert_eq!(sweep_all(&store, NOW + 17 * DAY, 7), 0);
    drop(store);
    also_reopened(&mut subject, |store| {
        for channel in &channels {
            assert_eq!(all(store, channel), [(4, Bytes::from("3"))]);
        }
    });
    let store = subject.store();
    assert_eq!(sweep_all(&store, NOW + 18 * DAY + 2 * HOUR, 1), 25);
    assert_eq!(all(&store, &kept).len(), 1, "without an age nothing ages");
    for channel in &channels {
        assert_eq!(all(&store, channel), []);
    }
}

/// Exactly at its age a message still stays.
pub fn age_is_counted_to_the_millisecond(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    let retention = Retention { age_ms: 10 * DAY, ..unbounded() };
    let publish = |now| {
        let publish = Publish { retention, ..publish_to(&a, text("")) };
        stored(&commit_at(&store, now, vec![Unit::Publish(publish)])[0]);
    };
    let hour = NOW.next_multiple_of(HOUR);
    for at in [hour, hour + HOUR - 1, hour + HOUR, hour + HOUR + 1] {
        publish(at);
    }
    assert_eq!(sweep_all(&store, hour + 10 * DAY + HOUR, 9), 2);
    assert_eq!(head(&store, &a).first, 3);
}

/// An empty channel without readers is forgotten after a while; when it returns its history is a new one.
pub fn empty_channels_give_back_their_names(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let (gone, read, full) = (user("gone"), user("read"), user("full"));
    let reader = Reader::device(1);
    let store = subject.store();
    let first = put(&store, publish_to(&gone, text("")));
    put(&store, publish_to(&read, text("")));
    put(&store, publish_to(&full, text("")));
    let trim = |channel: &Address| Unit::Trim { channel: channel.clone(), below: 9 };
    commit(&store, vec![trim(&gone), trim(&read), ack(&reader, &read, 1)]);
    let epochs = [&gone, &read, &full].map(|channel| head(&store, channel).epoch);
    sweep_all(&store, NOW + 2 * HOUR, 2);
    assert_eq!(head(&store, &gone).last, 1, "not yet: keys of idempotency live on");
    let later = NOW + 30 * HOUR;
    sweep_all(&store, later, 2);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(head(store, &gone), Head::default());
        assert_eq!(wait(store.find(NOW, Find::Id(first.id))).unwrap(), None);
        assert_eq!((head(store, &read).epoch, head(store, &read).last), (epochs[1], 1));
        assert_eq!(all(store, &full).len(), 1);
    });
    let store = subject.store();
    let again =
        stored(&commit_at(&store, later, vec![Unit::Publish(publish_to(&gone, text("new")))])[0]);
    assert_eq!(again.seq, 1);
    assert_ne!(again.epoch, epochs[0], "a new history");
    assert_ne!(again.id, first.id);
    commit_at(&store, later, vec![Unit::Forget { reader: reader.clone(), channel: None }]);
    sweep_all(&store, later + 30 * HOUR, 2);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(head(store, &read), Head::default(), "nobody reads it any more");
        assert_eq!(all(store, &gone), [(1, Bytes::from("new"))], "nothing old shows through");
        let found = wait(store.find(later, Find::Id(again.id))).unwrap().unwrap();
        assert_eq!(found.state, FoundState::Stored);
    });
}

/// Topics that were used once, beside a reader of everything: their names come back, their messages stay readable.
pub fn names_of_one_off_topics_come_back(factory: &dyn Factory) {
    const TOPICS: u64 = 5_000;
    let mut subject = factory.fresh();
    let store = subject.store();
    let all_of = Address::parse_any("filter:#").unwrap();
    let reader = Reader::session(1);
    let topic = |n: u64| Address::topic(&format!("one-off/{n}")).unwrap();
    commit_one(&store, Unit::Start { reader: reader.clone(), channel: all_of.clone() });
    let mut ids = Vec::new();
    for first in (0..TOPICS).step_by(500) {
        let publish = |n: u64| {
            let publish = publish_to(&topic(n), text(n.to_string()));
            Unit::Publish(Publish { refs: vec![all_of.clone()], ..publish })
        };
        let results = commit(&store, (first..first + 500).map(publish).collect());
        ids.extend(results.iter().map(|done| stored(done).id));
        let trim = |n: u64| Unit::Trim { channel: topic(n), below: Seq::MAX };
        commit(&store, (first..first + 500).map(trim).collect());
    }
    assert_eq!(head(&store, &topic(7)).last, 1);
    sweep_all(&store, NOW + 26 * HOUR, 100);
    drop(store);
    also_reopened(&mut subject, |store| {
        let heads = wait(store.heads((0..TOPICS).map(topic).collect())).unwrap();
        assert!(heads.iter().all(|head| *head == Head::default()), "every name came back");
        assert_eq!(head(store, &all_of).last, TOPICS);
        let mut seen = 0;
        while seen < TOPICS {
            let page =
                page(store, ReadRange { count: 1_000, ..range(&all_of, seen + 1, Seq::MAX) });
            for message in &page.messages {
                assert_eq!((&message.channel, message.id), (&topic(seen), ids[seen as usize]));
                assert_eq!(message.content.payload, seen.to_string());
                seen += 1;
            }
            assert_eq!(page.through, seen, "none is passed over");
        }
        let cursors = wait(store.cursors_on(reader.clone(), vec![all_of.clone()])).unwrap();
        assert_eq!(cursors[0].as_ref().unwrap().cursor.floor(), 0);
    });
    let store = subject.store();
    let again = stored(&commit_one(&store, Unit::Publish(publish_to(&topic(0), text("")))));
    assert_eq!(again.seq, 1);
    assert!(!ids.contains(&again.id));
}
