use super::*;
use crate::conformance::*;
use clarion_core::port::store::{Done, Publish, Unit};
use clarion_core::{Content, Retention};
use std::path::PathBuf;
use tempfile::TempDir;

mod copies;

struct Embedded;

struct Directory {
    dir: TempDir,
    config: EmbeddedConfig,
    store: Option<Arc<EmbeddedStore>>,
}

impl Directory {
    fn new(config: EmbeddedConfig) -> Self {
        let mut new = Self { dir: TempDir::new().unwrap(), config, store: None };
        new.open();
        new
    }

    fn open(&mut self) {
        let store = EmbeddedStore::open(self.dir.path(), self.config.clone()).unwrap();
        self.store = Some(Arc::new(store));
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }
}

impl Subject for Directory {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("it is open")
    }

    fn reopen(&mut self) -> bool {
        let store = self.store.take().and_then(Arc::into_inner);
        drop(store.expect("somebody still holds the store"));
        self.open();
        true
    }
}

impl Factory for Embedded {
    fn fresh(&self) -> Box<dyn Subject> {
        Box::new(Directory::new(EmbeddedConfig::default()))
    }

    fn bounded(&self, max_bytes: u64) -> Box<dyn Subject> {
        Box::new(Directory::new(EmbeddedConfig { max_bytes, ..EmbeddedConfig::default() }))
    }
}

crate::conformance!(Embedded);

impl EmbeddedStore {
    /// How often a channel's state was not in the cache.
    fn loads(&self) -> BoxFuture<Result<u64, StoreError>> {
        self.read_with(|engine| Ok(engine.loads.load(std::sync::atomic::Ordering::Relaxed)))
    }

    /// Writes tables out and compacts the log.
    fn compact(&self) -> BoxFuture<Result<(), StoreError>> {
        self.read_with(|engine| {
            engine.ks.log.rotate_memtable_and_wait()?;
            Ok(engine.ks.log.major_compact()?)
        })
    }

    /// Records of logs that are physically there.
    fn physical_records(&self) -> BoxFuture<Result<usize, StoreError>> {
        self.read_with(|engine| Ok(engine.ks.log.len()?))
    }
}

/// A store in a fresh directory.
fn fresh(config: EmbeddedConfig) -> Directory {
    Directory::new(config)
}

fn bounded_publish(channel: &Address, count: u64) -> Unit {
    let retention = Retention { count, ..unbounded() };
    Unit::Publish(Publish { retention, ..publish_to(channel, text("x")) })
}

#[test]
fn compaction_drops_what_was_trimmed_and_nothing_else() {
    let mut directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let (kept, trimmed, counted, gone) =
        (user("kept"), user("trimmed"), user("counted"), user("gone"));
    put_many(&store, &kept, 100);
    put_many(&store, &trimmed, 100);
    let large = Unit::Publish(publish_to(&gone, text(vec![7; 100_000])));
    commit(&store, vec![large.clone(), large]);
    commit(&store, (0..1_000).map(|_| bounded_publish(&counted, 100)).collect());
    commit_one(&store, Unit::Trim { channel: trimmed.clone(), below: 91 });
    commit_one(&store, Unit::Trim { channel: gone.clone(), below: 9 });
    wait(embedded.sweep(NOW + 60 * HOUR, SweepBudget { channels: 99 })).unwrap();
    assert_eq!(head(&store, &gone).epoch, 0, "it gave back its name");
    let channels = embedded.read_with(|engine| Ok(engine.ks.channels.len()?));
    assert_eq!(wait(channels).unwrap(), 3, "and its record");
    assert_eq!(wait(embedded.physical_records()).unwrap(), 1_202);
    wait(embedded.compact()).unwrap();
    let physical = wait(embedded.physical_records()).unwrap();
    assert_eq!(physical, 100 + 10 + 100, "what is below a written floor or without a name");
    assert_eq!(all(&store, &kept).len(), 100);
    assert_eq!(all(&store, &trimmed).len(), 10);
    assert_eq!(all(&store, &counted).len(), 100);
    let first = put(&store, publish_to(&gone, text("new")));
    assert_eq!(first.seq, 1);
    drop((store, embedded));
    directory.reopen();
    let store = directory.store();
    assert_eq!((all(&store, &kept).len(), all(&store, &counted).len()), (100, 100));
    assert_eq!(all(&store, &gone), [(1, Bytes::from("new"))]);
}

#[test]
fn an_erased_body_leaves_the_disk_with_the_next_compaction() {
    let directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let secret = b"a secret that must not stay".repeat(400);
    put(&store, publish_to(&user("a"), text(&secret)));
    put(&store, publish_to(&user("a"), text("other")));
    wait(embedded.compact()).unwrap();
    commit_one(&store, Unit::Erase { channel: user("a"), seq: 1 });
    wait(embedded.compact()).unwrap();
    assert_eq!(seqs(&page(&store, range(&user("a"), 1, 9))), [2]);
    assert_eq!(wait(embedded.physical_records()).unwrap(), 2);
}

#[test]
fn what_expired_leaves_the_disk_with_the_next_compaction_and_keeps_its_place() {
    let mut directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    for n in 0..1_000u32 {
        // Nothing that compresses.
        let body: Vec<u8> =
            (0..1_000).map(|i| ((n * 1_000 + i).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut publish = publish_to(&user("a"), text(&body));
        Arc::make_mut(&mut publish.content).expires_at = Some(NOW + 10);
        put(&store, publish);
    }
    wait(embedded.compact()).unwrap();
    let full = wait(embedded.read_with(|engine| Ok(engine.ks.log.disk_space()))).unwrap();
    for n in 1..=3 {
        let late = Unit::Publish(publish_to(&user("a"), text("b")));
        stored(&commit_at(&store, NOW + n * 60_000, vec![late])[0]);
    }
    wait(embedded.compact()).unwrap();
    let blank = wait(embedded.read_with(|engine| Ok(engine.ks.log.disk_space()))).unwrap();
    assert!(blank < full / 10, "{full} bytes became {blank}");
    drop((store, embedded));
    directory.reopen();
    let store = directory.store();
    assert_eq!(head(&store, &user("a")).last, 1_003);
    let page = wait(store.read(NOW + 20, vec![range(&user("a"), 1, 2_000)])).unwrap().remove(0);
    assert_eq!(seqs(&page), [1_001, 1_002, 1_003]);
    assert_eq!(page.head.first, 1, "what was blanked is no gap");
}

#[test]
fn one_batch_with_a_clock_far_ahead_blanks_nothing() {
    let directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let mut publish = publish_to(&user("a"), text("kept"));
    Arc::make_mut(&mut publish.content).expires_at = Some(NOW + 10 * HOUR);
    put(&store, publish);
    let ahead = Unit::Publish(publish_to(&user("b"), text("x")));
    commit_at(&store, NOW + 1_000 * HOUR, vec![ahead]);
    wait(embedded.compact()).unwrap();
    assert_eq!(all(&store, &user("a")), [(1, Bytes::from("kept"))]);
}

#[test]
fn a_page_tells_what_left_after_its_head_was_read() {
    for backwards in [false, true] {
        let directory = fresh(EmbeddedConfig::default());
        let embedded = directory.store.clone().unwrap();
        let store = directory.store();
        put_many(&store, &user("a"), 10);
        let before = head(&store, &user("a"));
        let page = |before: Head| {
            let range = ReadRange { backwards, ..range(&user("a"), 1, 100) };
            let page = embedded.read_with(move |engine| {
                let channel = engine.channel(&user("a"))?.expect("it is there");
                engine.page_of(NOW, &range, &channel, before)
            });
            wait(page).unwrap()
        };
        assert_eq!(page(before).head, before);
        commit_one(&store, Unit::Trim { channel: user("a"), below: 8 });
        wait(embedded.compact()).unwrap();
        let found = page(before);
        assert_eq!((found.head.first, found.head.last), (8, 10));
        assert_eq!(found.messages.len(), 3);
        commit_one(&store, Unit::Trim { channel: user("a"), below: 11 });
        wait(embedded.compact()).unwrap();
        let found = page(before);
        assert_eq!((found.head.first, found.head.last), (11, 10));
        assert!(found.messages.is_empty());
    }
}

#[test]
fn heads_of_a_few_among_many_cost_a_few_loads() {
    let mut directory = fresh(EmbeddedConfig::default());
    let store = directory.store();
    let channels: Vec<Address> = (0..1_000).map(|n| user(&n.to_string())).collect();
    for _ in 0..100 {
        let units = channels.iter().map(|c| Unit::Publish(publish_to(c, text("x"))));
        commit(&store, units.collect());
    }
    drop(store);
    directory.reopen();
    let embedded = directory.store.clone().unwrap();
    assert_eq!(wait(embedded.loads()).unwrap(), 0, "opening loads nothing");
    for _ in 0..2 {
        let heads = wait(embedded.heads(channels[500..510].to_vec())).unwrap();
        assert!(heads.iter().all(|head| (head.first, head.last) == (1, 100)));
        assert_eq!(wait(embedded.loads()).unwrap(), 10);
    }
}

#[test]
fn a_small_cache_changes_nothing_but_the_cost() {
    let config = EmbeddedConfig { cached_channels: 16, ..EmbeddedConfig::default() };
    let directory = fresh(config);
    let store = directory.store();
    let channels: Vec<Address> = (0..100).map(|n| user(&n.to_string())).collect();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for round in 0..150 {
                let heads = wait(store.heads(channels.clone())).unwrap();
                assert!(heads.iter().all(|head| head.last <= 20), "round {round}");
            }
        });
        for n in 1..=20 {
            let units = channels.iter().map(|c| Unit::Publish(publish_to(c, text("x"))));
            for done in commit(&store, units.collect()) {
                assert_eq!(stored(&done).seq, n, "no stale state is ever written on");
            }
        }
        reader.join().unwrap();
    });
    assert!(wait(store.heads(channels.clone())).unwrap().iter().all(|head| head.last == 20));
}

#[test]
fn too_little_free_disk_refuses_publishes_and_heals() {
    let config = EmbeddedConfig { min_free_bytes: u64::MAX, ..EmbeddedConfig::default() };
    let mut directory = fresh(config);
    let store = directory.store();
    let publish = || Unit::Publish(publish_to(&user("a"), text("x")));
    let results = commit(&store, vec![publish(), ack(&Reader::device(1), &user("b"), 0)]);
    assert_eq!(results, [Done::Refused(Code::StoreFull), Done::Acked]);
    assert_eq!(wait(store.check()).failed, None, "that is not a failure");
    assert_eq!(head(&store, &user("a")).epoch, 0, "the channel was not made");
    drop(store);
    directory.config.min_free_bytes = 1;
    directory.reopen();
    assert_eq!(stored(&commit_one(&directory.store(), publish())).seq, 1);
}

#[test]
fn full_queues_refuse_and_never_block() {
    let config = EmbeddedConfig { reader_threads: 1, read_queue: 2, ..EmbeddedConfig::default() };
    let directory = fresh(config);
    let embedded = directory.store.clone().unwrap();
    let (started, starts) = mpsc::sync_channel(0);
    let (go, goes) = mpsc::sync_channel::<()>(0);
    let held = embedded.read_with(move |_| {
        started.send(()).unwrap();
        goes.recv().unwrap();
        Ok(())
    });
    starts.recv().unwrap();
    let waiting = [embedded.heads(vec![user("a")]), embedded.heads(vec![user("a")])];
    let refused = wait(embedded.heads(vec![user("a")])).unwrap_err();
    assert_eq!(refused.code(), Code::Overloaded);
    go.send(()).unwrap();
    wait(held).unwrap();
    for heads in waiting {
        assert_eq!(wait(heads).unwrap(), [Head::default()]);
    }
}

#[test]
fn a_latched_one_takes_no_writes_and_reads_go_on() {
    let mut directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    put_many(&store, &user("a"), 3);
    wait(embedded.read_with(|engine| {
        engine.latch("the disk".into());
        Ok(())
    }))
    .unwrap();
    let unit = Unit::Publish(publish_to(&user("a"), text("x")));
    let batch = Batch { now: NOW, fence: None, units: vec![unit] };
    assert_eq!(wait(store.commit(batch)).unwrap_err().code(), Code::StoreUnavailable);
    let claim = wait(store.claim(NOW, Bytes::from("k"), Bytes::new(), 1));
    assert_eq!(claim.unwrap_err().code(), Code::StoreUnavailable);
    let swept = wait(store.sweep(NOW, SweepBudget { channels: 1 }));
    assert_eq!(swept.unwrap_err().code(), Code::StoreUnavailable);
    assert_eq!(wait(store.check()).failed.as_deref(), Some("the disk"));
    assert_eq!(all(&store, &user("a")).len(), 3);
    assert!(embedded.close().is_err(), "that is no clean end");
    drop((store, embedded));
    directory.reopen();
    put_many(&directory.store(), &user("a"), 1);
}

#[test]
fn remembered_keys_leave_in_whole_keyspaces() {
    let directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let spaces = || {
        let count = embedded.read_with(|engine| {
            let names = engine.db.list_keyspace_names();
            Ok(names.iter().filter(|name| name.starts_with(engine::IDEMPOTENCY_PREFIX)).count())
        });
        wait(count).unwrap()
    };
    for half_day in 0..10 {
        let now = NOW + half_day * 12 * HOUR;
        let key = Some(format!("{half_day}").into());
        let content = Content { idempotency_key: key, ..text("x") };
        let unit = Unit::Publish(publish_to(&user("a"), content));
        stored(&commit_at(&store, now, vec![unit])[0]);
        wait(store.sweep(now, SweepBudget { channels: 9 })).unwrap();
        assert!(spaces() <= 3, "after {half_day} half days");
    }
    assert_eq!(spaces(), 3);
}

#[test]
fn a_summary_tells_what_is_there_and_respects_the_lock() {
    let mut directory = fresh(EmbeddedConfig::default());
    let store = directory.store();
    for n in 0..5 {
        put_many(&store, &user(&n.to_string()), n + 1);
        commit_one(&store, ack(&Reader::device(n), &user("0"), 0));
    }
    let path = directory.path();
    assert!(matches!(summarize(&path, 0, 9), Err(OpenError::Locked { .. })));
    drop(store);
    drop(directory.store.take());
    let summary = summarize(&path, 0, 3).unwrap();
    assert_eq!((summary.format, summary.generation), (FORMAT, 0));
    assert_eq!((summary.channels, summary.cursors, summary.records), (5, 5, 0));
    assert!(summary.disk_bytes > 0);
    let listed: Vec<(&str, u64, u64)> =
        summary.page.iter().map(|c| (c.address.as_str(), c.head.last, c.cursors)).collect();
    assert_eq!(listed, [("user:0", 1, 5), ("user:1", 2, 0), ("user:2", 3, 0)]);
    let rest = summarize(&path, summary.next.unwrap(), 3).unwrap();
    assert_eq!((rest.page.len(), rest.next), (2, None));
    assert!(summarize(&path.join("nothing"), 0, 9).is_err());
}
