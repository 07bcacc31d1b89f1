//! The committer on a store whose commits the test finishes by hand.

use super::*;
use bytes::Bytes;
use clarion_core::port::BoxFuture;
use clarion_core::port::store::{
    Find, Found, Head, Health, Page, Publish, ReadRange, Reader, Record, Stored, StoredCursor,
    SweepBudget, Swept,
};
use clarion_core::{AddressKind, Millis, Retention};
use std::sync::mpsc;
use std::thread::JoinHandle;

type Answering = oneshot::Sender<Result<Committed, StoreError>>;

/// Hands every commit to the test.
struct ByHand(Mutex<mpsc::Sender<(Batch, Answering)>>);

fn unused<T: Send + 'static>() -> BoxFuture<T> {
    Box::pin(std::future::pending())
}

impl Store for ByHand {
    fn commit(&self, batch: Batch) -> BoxFuture<Result<Committed, StoreError>> {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().unwrap().send((batch, sender)).unwrap();
        Box::pin(async move { receiver.await.unwrap() })
    }
    fn heads(&self, _: Vec<Address>) -> BoxFuture<Result<Vec<Head>, StoreError>> {
        unused()
    }
    fn read(&self, _: Millis, _: Vec<ReadRange>) -> BoxFuture<Result<Vec<Page>, StoreError>> {
        unused()
    }
    fn cursors(&self, _: Reader) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        unused()
    }
    fn cursors_on(
        &self,
        _: Reader,
        _: Vec<Address>,
    ) -> BoxFuture<Result<Vec<Option<StoredCursor>>, StoreError>> {
        unused()
    }
    fn readers(&self, _: Address) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        unused()
    }
    fn records(
        &self,
        _: Bytes,
        _: Option<Bytes>,
        _: usize,
    ) -> BoxFuture<Result<Vec<Record>, StoreError>> {
        unused()
    }
    fn find(&self, _: Millis, _: Find) -> BoxFuture<Result<Option<Found>, StoreError>> {
        unused()
    }
    fn claim(
        &self,
        _: Millis,
        _: Bytes,
        _: Bytes,
        _: u64,
    ) -> BoxFuture<Result<Option<u64>, StoreError>> {
        unused()
    }
    fn sweep(&self, _: Millis, _: SweepBudget) -> BoxFuture<Result<Swept, StoreError>> {
        unused()
    }
    fn check(&self) -> BoxFuture<Health> {
        unused()
    }
}

struct Fixture {
    queue: Arc<CommitQueue>,
    interest: Arc<Interest>,
    mailbox: Arc<Mailbox>,
    commits: mpsc::Receiver<(Batch, Answering)>,
    thread: JoinHandle<()>,
    _runtime: tokio::runtime::Runtime,
}

fn start(config: &NodeConfig) -> Fixture {
    let (sender, commits) = mpsc::channel();
    let queue = Arc::new(CommitQueue::new(config));
    let (interest, mailbox) = (Arc::new(Interest::new(1)), Arc::new(Mailbox::new(1 << 20)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let committer = Committer {
        queue: queue.clone(),
        store: Arc::new(ByHand(Mutex::new(sender))),
        interest: interest.clone(),
        mailboxes: [mailbox.clone()].into(),
        counters: Arc::default(),
        durable: Arc::default(),
        trimmable: Arc::default(),
        clock: CommitClock::default(),
        runtime: runtime.handle().clone(),
    };
    let thread = std::thread::spawn(|| committer.run().unwrap());
    Fixture { queue, interest, mailbox, commits, thread, _runtime: runtime }
}

fn channel() -> Address {
    Address::user("u").unwrap()
}

fn publish(text: &'static str) -> Unit {
    let content = Content { payload: Bytes::from_static(text.as_bytes()), ..Content::default() };
    Unit::Publish(Publish {
        channel: channel(),
        content: Arc::new(content),
        refs: Vec::new(),
        retention: Retention::default_of(AddressKind::User),
    })
}

impl Fixture {
    fn submit(&self, units: Vec<Unit>) -> oneshot::Receiver<CommitAnswer> {
        let (sender, answer) = oneshot::channel();
        self.queue.submit(units, Reply::Task(sender), false).unwrap();
        answer
    }

    fn end(self) {
        self.queue.close();
        // Nobody answers the last commit, of the time.
        drop(self.commits);
        self.thread.join().unwrap();
    }
}

/// What a store would answer: seqs from `first`.
fn done(batch: &Batch, first: u64) -> Result<Committed, StoreError> {
    let results = (first..).take(batch.units.len()).map(|seq| {
        Done::Published(Stored {
            id: clarion_core::MessageId::stored(1, 1, seq),
            epoch: 1,
            seq,
            created_at: 1,
            duplicate: false,
        })
    });
    let results = results.collect();
    Ok(Committed { durability: Durability::Disk, results, refs: Vec::new() })
}

fn seqs(answer: CommitAnswer) -> Vec<u64> {
    let (_, results) = answer.unwrap();
    let seq = |done: &Done| match done {
        Done::Published(stored) => stored.seq,
        other => panic!("{other:?}"),
    };
    results.iter().map(seq).collect()
}

#[test]
fn what_gathers_during_a_commit_is_one_batch_and_everybody_gets_his_part() {
    let fixture = start(&NodeConfig::default());
    let first = fixture.submit(vec![publish("a")]);
    let (batch, answer) = fixture.commits.recv().unwrap();
    let second = fixture.submit(vec![publish("b"), publish("c")]);
    let third = fixture.submit(vec![publish("d")]);
    answer.send(done(&batch, 1)).unwrap();
    let (batch, answer) = fixture.commits.recv().unwrap();
    assert_eq!(batch.units.len(), 3);
    answer.send(done(&batch, 2)).unwrap();
    assert_eq!(seqs(first.blocking_recv().unwrap()), [1]);
    assert_eq!(seqs(second.blocking_recv().unwrap()), [2, 3]);
    assert_eq!(seqs(third.blocking_recv().unwrap()), [4]);
    fixture.end();
}

#[test]
fn shards_hear_of_a_commit_before_its_publisher_even_when_they_came_during_it() {
    let fixture = start(&NodeConfig::default());
    let answered = fixture.submit(vec![publish("a")]);
    let (batch, answer) = fixture.commits.recv().unwrap();
    // A reader enters while the commit runs.
    fixture.interest.enter(&channel(), 0);
    answer.send(done(&batch, 1)).unwrap();
    assert_eq!(seqs(answered.blocking_recv().unwrap()), [1]);
    let mut mails = Vec::new();
    fixture.mailbox.drain(&mut mails);
    match &mails[..] {
        [Mail::Records(records)] => assert_eq!(records[0].message.seq, 1),
        _ => panic!("{} mails", mails.len()),
    }
    fixture.end();
}

#[test]
fn a_failed_commit_fails_all_of_it_and_hints_nobody() {
    let fixture = start(&NodeConfig::default());
    fixture.interest.enter(&channel(), 0);
    let answered = fixture.submit(vec![publish("a")]);
    let (_, answer) = fixture.commits.recv().unwrap();
    answer.send(Err(StoreError::Unknown { detail: "time".into() })).unwrap();
    assert!(answered.blocking_recv().unwrap().is_err());
    let mut mails = Vec::new();
    fixture.mailbox.drain(&mut mails);
    assert!(mails.is_empty());
    fixture.end();
}

#[test]
fn the_queue_is_bounded_and_a_batch_too_but_never_splits_a_submission() {
    let config =
        NodeConfig { commit_queue_messages: 5, commit_batch_messages: 3, ..NodeConfig::default() };
    let fixture = start(&config);
    let _first = fixture.submit(vec![publish("a")]);
    let (batch, answer) = fixture.commits.recv().unwrap();
    let _second = fixture.submit(vec![publish("b"), publish("c")]);
    let _third = fixture.submit(vec![publish("d"), publish("e")]);
    let (sender, _receiver) = oneshot::channel();
    let refused =
        fixture.queue.submit(vec![publish("f"), publish("g")], Reply::Task(sender), false);
    assert_eq!(refused.map_err(|r| r.code), Err(Code::Overloaded));
    answer.send(done(&batch, 1)).unwrap();
    for first in [2, 4] {
        let (batch, answer) = fixture.commits.recv().unwrap();
        assert_eq!(batch.units.len(), 2, "three would fit, but not a part of a submission");
        answer.send(done(&batch, first)).unwrap();
    }
    fixture.end();
}
