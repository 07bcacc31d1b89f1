//! Acks and the cursors that they make.

use super::*;
use clarion_core::port::store::StoredCursor;

fn cursor_on(store: &Arc<dyn Store>, reader: &Reader, channel: &Address) -> Option<StoredCursor> {
    let all = wait(store.cursors(reader.clone())).unwrap();
    all.into_iter().find(|c| &c.channel == channel)
}

/// Acks in any order, repeated, in one batch or many, end in the same cursor.
pub fn acks_merge_in_any_order(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let a = user("a");
    put_many(&store, &a, 200);
    let epoch = head(&store, &a).epoch;
    let mut expected = Vec::new();
    for seed in 0..40u64 {
        let mut draws = seed;
        let mut draw = |n: u64| {
            draws += 1;
            crate::random::mix(seed << 32 | draws) % n
        };
        let mut moves: Vec<Cursor> = (0..8)
            .map(|_| {
                let mut cursor = Cursor::at(draw(40));
                let from = draw(190) + 1;
                cursor.ack_run(from, from + draw(8));
                cursor
            })
            .collect();
        let mut merged = Cursor::default();
        moves.iter().for_each(|cursor| {
            merged.merge(cursor);
        });
        moves.extend(moves.clone());
        for i in (1..moves.len()).rev() {
            moves.swap(i, draw(i as u64 + 1) as usize);
        }
        let reader = Reader::device(seed);
        let units = moves.into_iter().map(|cursor| Unit::Ack {
            reader: reader.clone(),
            moves: vec![Move { channel: a.clone(), epoch, cursor }],
        });
        let mut units: Vec<Unit> = units.collect();
        while !units.is_empty() {
            let at = units.len() - (draw(units.len() as u64) as usize + 1);
            for done in commit(&store, units.split_off(at)) {
                assert_eq!(done, Done::Acked);
            }
        }
        expected.push((reader, merged));
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        for (reader, merged) in &expected {
            let found = cursor_on(store, reader, &a).unwrap();
            assert_eq!((&found.cursor, found.epoch), (merged, epoch));
        }
    });
}

/// Cursors are found by reader and by channel; forgetting a reader removes all of its.
pub fn cursors_are_listed_both_ways(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (a, b) = (user("a"), user("b"));
    put_many(&store, &a, 3);
    let (one, two) = (Reader::device(1), Reader::shared("two"));
    commit(&store, vec![ack(&one, &a, 1), ack(&one, &b, 0), ack(&two, &a, 2), ack(&one, &a, 3)]);
    let listed = |store: &Arc<dyn Store>, reader: &Reader| {
        let cursors = wait(store.cursors(reader.clone())).unwrap();
        let mut found: Vec<(Address, Seq)> =
            cursors.into_iter().map(|c| (c.channel, c.cursor.floor())).collect();
        found.sort();
        found
    };
    let on = |store: &Arc<dyn Store>, channel: &Address| {
        let cursors = wait(store.readers(channel.clone())).unwrap();
        let mut found: Vec<(Reader, Seq)> =
            cursors.into_iter().map(|c| (c.reader, c.cursor.floor())).collect();
        found.sort();
        found
    };
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(listed(store, &one), [(a.clone(), 3), (b.clone(), 0)]);
        assert_eq!(listed(store, &Reader::device(9)), []);
        assert_eq!(on(store, &a), [(one.clone(), 3), (two.clone(), 2)]);
        assert_eq!(on(store, &b), [(one.clone(), 0)]);
    });
    let store = subject.store();
    // In one batch: what was just written is forgotten too, and what comes after begins anew.
    let forget = Unit::Forget { reader: one.clone(), channel: None };
    let again = vec![ack(&one, &user("c"), 0), forget, ack(&one, &b, 1)];
    commit(&store, again);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(listed(store, &one), [(b.clone(), 1)]);
        assert_eq!(on(store, &a), [(two.clone(), 2)]);
        assert_eq!(on(store, &user("c")), []);
    });
}

/// Acks of another history are ignored; epoch 0 means the present one and makes the channel if need be.
pub fn epochs_guard_cursors(factory: &dyn Factory) {
    let subject = factory.fresh();
    let store = subject.store();
    let (a, b) = (user("a"), user("b"));
    let reader = Reader::device(1);
    let of = |channel: &Address, epoch, floor| Unit::Ack {
        reader: reader.clone(),
        moves: vec![Move { channel: channel.clone(), epoch, cursor: Cursor::at(floor) }],
    };
    assert_eq!(commit_one(&store, of(&a, 77, 5)), Done::Acked);
    assert_eq!(head(&store, &a).epoch, 0, "nothing was made");
    commit_one(&store, of(&b, 0, 0));
    let made = head(&store, &b);
    assert!(made.epoch != 0 && (made.first, made.last) == (1, 0));
    put_many(&store, &b, 3);
    assert_eq!(head(&store, &b).epoch, made.epoch, "the history goes on");
    commit_one(&store, of(&b, made.epoch.wrapping_add(1), 3));
    assert_eq!(cursor_on(&store, &reader, &b).unwrap().cursor.floor(), 0);
    commit_one(&store, of(&b, made.epoch, 2));
    commit_one(&store, of(&b, made.epoch, 1));
    assert_eq!(cursor_on(&store, &reader, &b).unwrap().cursor.floor(), 2, "never backwards");
}

/// Readers whose names begin alike, or hold any byte, are different readers.
pub fn readers_of_every_byte_do_not_mix(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let mut names: Vec<Vec<u8>> = (0..=255).map(|byte| vec![b'g', byte]).collect();
    names.extend([b"g".to_vec(), b"ggg".to_vec(), b"gggg".to_vec(), vec![0xff; 1024], vec![]]);
    let readers: Vec<Reader> = names.into_iter().map(|n| Reader::from_bytes(n.into())).collect();
    let store = subject.store();
    put_many(&store, &a, 300);
    let units = readers.iter().zip(1..).map(|(reader, floor)| ack(reader, &a, floor));
    commit(&store, units.collect());
    drop(store);
    also_reopened(&mut subject, |store| {
        for (reader, floor) in readers.iter().zip(1..) {
            let found = wait(store.cursors(reader.clone())).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!((&found[0].reader, found[0].cursor.floor()), (reader, floor));
        }
        assert_eq!(wait(store.readers(a.clone())).unwrap().len(), readers.len());
    });
}

/// The write that covered a seq is remembered by its time.
pub fn the_time_of_an_ack_is_kept(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let a = user("a");
    let reader = Reader::device(1);
    let store = subject.store();
    put_many(&store, &a, 9);
    for (floor, at) in [(2, 10), (5, 20), (5, 30), (7, 40)] {
        commit_at(&store, NOW + at, vec![ack(&reader, &a, floor)]);
    }
    drop(store);
    also_reopened(&mut subject, |store| {
        let cursor = cursor_on(store, &reader, &a).unwrap();
        for (seq, at) in [(1, 10), (2, 10), (3, 20), (5, 20), (6, 40), (7, 40)] {
            assert_eq!(cursor.acked_at(seq), Some(NOW + at), "seq {seq}");
        }
        assert_eq!(cursor.acked_at(8), None);
        assert_eq!(cursor.updated_at, NOW + 40, "an ack of nothing new is no write");
    });
}
