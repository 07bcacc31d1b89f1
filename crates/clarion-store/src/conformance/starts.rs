//! Cursors that begin at a log's head, end one by one, and are asked for by channel.

use super::*;
use clarion_core::port::store::StoredCursor;
use std::thread;

fn start(reader: &Reader, channel: &Address) -> Unit {
    Unit::Start { reader: reader.clone(), channel: channel.clone() }
}

fn forget(reader: &Reader, channel: &Address) -> Unit {
    Unit::Forget { reader: reader.clone(), channel: Some(channel.clone()) }
}

fn publish(channel: &Address) -> Unit {
    Unit::Publish(publish_to(channel, text("x")))
}

/// The head that a start was answered with.
fn started(done: &Done) -> Seq {
    match done {
        Done::Started { last, .. } => *last,
        other => panic!("not started: {other:?}"),
    }
}

fn cursors_on(
    store: &Arc<dyn Store>,
    reader: &Reader,
    channels: &[&Address],
) -> Vec<Option<StoredCursor>> {
    let channels = channels.iter().map(|channel| (*channel).clone()).collect();
    wait(store.cursors_on(reader.clone(), channels)).unwrap()
}

fn floors(store: &Arc<dyn Store>, reader: &Reader, channels: &[&Address]) -> Vec<Option<Seq>> {
    let cursors = cursors_on(store, reader, channels);
    cursors.into_iter().map(|cursor| Some(cursor?.cursor.floor())).collect()
}

/// A cursor begins behind all that stands before its start, in the same batch too; one that is there stays.
pub fn starts_begin_at_the_head(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let (a, new) = (Address::topic("a").unwrap(), Address::topic("new").unwrap());
    let (one, two) = (Reader::session(1), Reader::session(2));
    put_many(&store, &a, 3);
    let units = vec![
        publish(&a),
        start(&one, &a),
        publish(&a),
        start(&two, &a),
        start(&one, &a),
        start(&one, &new),
        publish(&new),
    ];
    let results = commit_at(&store, NOW + 5, units);
    let epoch = head(&store, &a).epoch;
    assert_eq!(results[1], Done::Started { epoch, last: 4, at: NOW + 5 });
    assert_eq!([started(&results[3]), started(&results[4]), started(&results[5])], [5, 5, 0]);
    let made = head(&store, &new);
    assert!(made.epoch != 0 && made.last == 1, "the channel was made");
    assert_eq!(stored(&results[6]).epoch, made.epoch);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(floors(store, &one, &[&a, &new]), [Some(4), Some(0)]);
        assert_eq!(floors(store, &two, &[&new, &a]), [None, Some(5)]);
        let cursor = cursors_on(store, &one, &[&a]).remove(0).unwrap();
        assert_eq!((&cursor.channel, &cursor.reader, cursor.epoch), (&a, &one, epoch));
        assert_eq!((cursor.updated_at, cursor.cursor.is_acked(4)), (NOW + 5, true));
        assert_eq!(wait(store.readers(a.clone())).unwrap().len(), 2);
    });
    let store = subject.store();
    let results = commit(&store, vec![ack(&one, &a, 5), start(&one, &a), publish(&a)]);
    assert_eq!(started(&results[1]), 5);
    commit(&store, vec![start(&two, &a)]);
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(floors(store, &one, &[&a]), [Some(5)]);
        assert_eq!(floors(store, &two, &[&a]), [Some(5)], "a second start moves nothing");
    });
    let nobody = Reader::from_bytes(vec![0; 2_000].into());
    let store = subject.store();
    assert_eq!(refusal(&commit_one(&store, start(&nobody, &a))), Code::BadRequest);
    assert_eq!(floors(&store, &nobody, &[&a, &a]), [None, None]);
}

/// Among writers a start is a point in the one order of the log: what its batch published before is below, what it
/// published after is above.
pub fn starts_among_writers(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let a = Address::topic("a").unwrap();
    let started: Vec<(Reader, Seq)> = thread::scope(|scope| {
        let writers =
            [(); 2].map(|()| scope.spawn(|| (0..60).for_each(|_| put_many(&store, &a, 3))));
        let starts = (0..40).map(|n| {
            let reader = Reader::session(n);
            let results = commit(&store, vec![publish(&a), start(&reader, &a), publish(&a)]);
            let (before, after) = (stored(&results[0]).seq, stored(&results[2]).seq);
            assert_eq!((started(&results[1]), after), (before, before + 1));
            (reader, before)
        });
        let starts = starts.collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        starts
    });
    drop(store);
    also_reopened(&mut subject, |store| {
        for (reader, floor) in &started {
            assert_eq!(floors(store, reader, &[&a]), [Some(*floor)]);
        }
    });
}

/// One cursor of a reader ends and the others stay; a start after it begins anew.
pub fn one_cursor_is_forgotten(factory: &dyn Factory) {
    let mut subject = factory.fresh();
    let store = subject.store();
    let [a, b, c, never] = ["a", "b", "c", "never"].map(|name| Address::topic(name).unwrap());
    let (one, two) = (Reader::session(1), Reader::session(2));
    put_many(&store, &a, 2);
    let starts = [(&one, &a), (&one, &b), (&one, &c), (&two, &a)];
    commit(&store, starts.iter().map(|(reader, channel)| start(reader, channel)).collect());
    let results = commit(&store, vec![forget(&one, &a), forget(&two, &b), forget(&one, &never)]);
    assert_eq!(results, [Done::Acked, Done::Acked, Done::Acked]);
    assert_eq!(head(&store, &never).epoch, 0, "forgetting makes no channel");
    drop(store);
    also_reopened(&mut subject, |store| {
        let found = floors(store, &one, &[&c, &a, &never, &b, &c]);
        assert_eq!(found, [Some(0), None, None, Some(0), Some(0)], "in the order asked for");
        assert_eq!(floors(store, &two, &[&a]), [Some(2)]);
        let mut own: Vec<Address> =
            wait(store.cursors(one.clone())).unwrap().into_iter().map(|c| c.channel).collect();
        own.sort();
        assert_eq!(own, [b.clone(), c.clone()]);
        let readers: Vec<Reader> =
            wait(store.readers(a.clone())).unwrap().into_iter().map(|c| c.reader).collect();
        assert_eq!(readers, std::slice::from_ref(&two));
    });
    let store = subject.store();
    let units = vec![
        start(&one, &a),
        publish(&a),
        forget(&one, &a),
        start(&one, &a),
        start(&one, &never),
        forget(&one, &never),
        forget(&two, &a),
        forget(&two, &a),
        Unit::Forget { reader: one.clone(), channel: None },
        start(&one, &b),
    ];
    let results = commit(&store, units);
    assert_eq!((started(&results[0]), started(&results[3])), (2, 3));
    drop(store);
    also_reopened(&mut subject, |store| {
        assert_eq!(floors(store, &one, &[&a, &b, &c, &never]), [None, Some(0), None, None]);
        assert_eq!(wait(store.readers(a.clone())).unwrap(), []);
        assert_eq!(wait(store.readers(never.clone())).unwrap(), []);
    });
}

/// A cursor that counts in an older history is replaced. `lose` gives every channel another history.
pub fn start_replaces_a_cursor_of_another_history(
    store: Arc<dyn Store>,
    lose: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
) {
    let a = Address::topic("a").unwrap();
    let reader = Reader::session(1);
    put_many(&store, &a, 3);
    commit(&store, vec![start(&reader, &a), ack(&reader, &a, 3), publish(&a)]);
    let before = head(&store, &a).epoch;
    let store = &lose(store);
    let epoch = head(store, &a).epoch;
    assert_ne!(epoch, before);
    assert_eq!(cursors_on(store, &reader, &[&a])[0].as_ref().unwrap().epoch, before);
    assert_eq!(commit_one(store, start(&reader, &a)), Done::Started { epoch, last: 4, at: NOW });
    let cursor = cursors_on(store, &reader, &[&a]).remove(0).unwrap();
    assert_eq!((cursor.epoch, cursor.cursor), (epoch, Cursor::at(4)));
}
