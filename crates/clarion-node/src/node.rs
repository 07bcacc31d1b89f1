//! The node: what every edge holds, and how its threads start and end.
//!
//! Owns: the shards' and the committer's threads, what they share, the node's number and secret. Must not know:
//! protocols, engines.

use crate::clients::Clients;
use crate::committer::{Begins, CommitAnswer, CommitClock, CommitQueue, Committer, Reply};
use crate::config::NodeConfig;
use crate::durable::Durable;
use crate::interest::Interest;
use crate::metrics::{CommitCounters, ShardCounters, ShardTotals, VerbCounters};
use crate::planner::Planner;
use crate::retained::Retained;
use crate::sessions::Sessions;
use crate::shard::{Job, Mail, Mailbox, Shard, ShardContext};
use crate::sys::{Connected, Sys};
use crate::{clock, sweeper, sys};
use bytes::Bytes;
use clarion_core::port::store::{
    Batch, Change, Done, Durability, Expect, Health, Store, StoreError, Unit,
};
use clarion_core::{Code, Refusal};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{Notify, Semaphore, oneshot};

/// A handle to the node; cloning is cheap.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Arc<NodeConfig>,
    store: Arc<dyn Store>,
    queue: Arc<CommitQueue>,
    pub(crate) interest: Arc<Interest>,
    mailboxes: Arc<[Arc<Mailbox>]>,
    shard_counters: Vec<Arc<ShardCounters>>,
    commit_counters: Arc<CommitCounters>,
    pub(crate) planner: Arc<Planner>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) connected: Arc<Connected>,
    pub(crate) sys: Arc<Sys>,
    pub(crate) trimmable: Arc<sweeper::Trimmable>,
    start_locks: [tokio::sync::Mutex<()>; START_LOCKS],
    next_shard: AtomicUsize,
    /// Requests that may wait for messages of shared cursors.
    pub(crate) takers: Semaphore,
    secret: [u8; 16],
    /// A task or thread of the node has ended that must not: the process should end too.
    failed: Arc<Notify>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    shards: Vec<JoinHandle<()>>,
    committer: Option<JoinHandle<()>>,
    sweeper: Option<tokio::task::JoinHandle<()>>,
    cleaner: Option<tokio::task::JoinHandle<()>>,
    sys: Option<tokio::task::JoinHandle<()>>,
}

/// First attaches that may be under way at once, at most (users share a lock by hash).
const START_LOCKS: usize = 256;

/// Record key of the secret that resume tokens are proved with.
const SECRET_KEY: &[u8] = b"secret/token";

/// A store's error as a client sees it; the detail stays in the log.
pub(crate) fn store_refusal(error: StoreError) -> Refusal {
    tracing::debug!(%error, "the store refused");
    error.code().into()
}

/// What units came to that must all succeed.
pub(crate) fn all_done(answer: CommitAnswer) -> Result<Vec<Done>, Refusal> {
    let (_, results) = answer.map_err(store_refusal)?;
    match results.iter().find_map(|done| match done {
        Done::Refused(code) => Some(*code),
        _ => None,
    }) {
        Some(code) => Err(code.into()),
        None => Ok(results),
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::new(Code::Internal, "no randomness"))?;
    Ok(bytes)
}

impl Node {
    /// Starts a node on this store: reads what must be complete before a listener accepts, then its threads.
    /// Call it inside a runtime that outlives the node.
    pub async fn start(config: NodeConfig, store: Arc<dyn Store>) -> Result<Self, Refusal> {
        let secret = load_secret(&store).await?;
        let trimmable = Arc::new(sweeper::Trimmable::default());
        let durable = Durable::load(&store, |channel| trimmable.note(channel)).await?;
        let retained = Arc::new(Retained::new(config.retained_topics));
        crate::retained::load(&retained, &store).await?;
        let sessions = Arc::new(Sessions::load(&store, durable.groups.clone()).await?);
        let clock = CommitClock::load(&store).await?;
        durable.has_hinted(clock.last());
        let config = Arc::new(config);
        let planner = Arc::new(Planner {
            config: config.clone(),
            durable: Arc::new(durable),
            number: u32::from_be_bytes(random()?),
            // Gates see its low half as numbers: a restart begins elsewhere.
            live_counter: AtomicU64::new(u64::from(u32::from_be_bytes(random()?))),
            draining: AtomicBool::new(false),
            counters: VerbCounters::default(),
        });
        let mailboxes: Arc<[Arc<Mailbox>]> =
            (0..config.shards).map(|_| Arc::new(Mailbox::new(config.mailbox_bytes))).collect();
        let node = Self {
            inner: Arc::new(Inner {
                queue: Arc::new(CommitQueue::new(&config)),
                interest: Arc::new(Interest::new(config.shards)),
                takers: Semaphore::new(config.takers),
                shard_counters: (0..config.shards).map(|_| Arc::default()).collect(),
                commit_counters: Arc::default(),
                planner,
                retained,
                clients: Arc::default(),
                sessions,
                connected: Arc::default(),
                sys: Arc::default(),
                trimmable,
                start_locks: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
                next_shard: AtomicUsize::new(0),
                failed: Arc::new(Notify::new()),
                threads: Mutex::default(),
                mailboxes,
                secret,
                store,
                config,
            }),
        };
        node.spawn_threads(clock)
            .map_err(|e| Refusal::new(Code::Internal, format!("threads: {e}")))?;
        node.load_wills().await?;
        Ok(node)
    }

    fn spawn_threads(&self, clock: CommitClock) -> std::io::Result<()> {
        let inner = &self.inner;
        let mut threads = Threads::default();
        let committer = Committer {
            queue: inner.queue.clone(),
            store: inner.store.clone(),
            interest: inner.interest.clone(),
            mailboxes: inner.mailboxes.clone(),
            counters: inner.commit_counters.clone(),
            durable: inner.planner.durable.clone(),
            trimmable: inner.trimmable.clone(),
            clock,
            runtime: tokio::runtime::Handle::current(),
        };
        threads.committer = Some(self.supervised("committer".into(), move || committer.run())?);
        for (index, mailbox) in inner.mailboxes.iter().enumerate() {
            let context = ShardContext {
                index,
                config: inner.config.clone(),
                store: inner.store.clone(),
                interest: inner.interest.clone(),
                mailbox: mailbox.clone(),
                counters: inner.shard_counters[index].clone(),
                queue: inner.queue.clone(),
                trimmable: inner.trimmable.clone(),
                planner: inner.planner.clone(),
                retained: inner.retained.clone(),
                clients: inner.clients.clone(),
                sessions: inner.sessions.clone(),
                connected: inner.connected.clone(),
                sys: inner.sys.clone(),
                mailboxes: inner.mailboxes.clone(),
            };
            threads
                .shards
                .push(self.supervised(format!("shard-{index}"), move || Shard::run(context))?);
        }
        threads.sweeper = Some(sweeper::spawn(self.clone()));
        threads.cleaner = Some(tokio::spawn(crate::sessions::clean(self.clone())));
        threads.sys = sys::spawn(self.clone());
        *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner) = threads;
        Ok(())
    }

    /// A thread whose end by error or panic is told to [`Self::failed`].
    fn supervised(
        &self,
        name: String,
        body: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let failed = self.inner.failed.clone();
        std::thread::Builder::new().name(name.clone()).spawn(move || {
            let alarm = Alarm { failed, armed: true, name };
            match body() {
                Ok(()) => alarm.disarm(),
                Err(error) => tracing::error!(%error, "a thread of the node failed"),
            }
        })
    }

    /// Resolves when a thread of the node has died; the process must end.
    pub async fn failed(&self) {
        self.inner.failed.notified().await;
    }

    /// The key that resume tokens are proved with.
    pub fn secret(&self) -> [u8; 16] {
        self.inner.secret
    }

    /// The configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// How the store is.
    pub async fn store_health(&self) -> Health {
        self.inner.store.check().await
    }

    /// Sums of all shards.
    pub fn shard_totals(&self) -> ShardTotals {
        ShardTotals::sum(self.inner.shard_counters.iter().map(|c| &**c))
    }

    /// Live messages dropped since a shard's mailbox was full.
    pub fn dropped_live(&self) -> u64 {
        self.mailboxes().iter().map(|mailbox| mailbox.dropped()).sum()
    }

    /// What the committer counted.
    pub fn commit_counters(&self) -> &CommitCounters {
        &self.inner.commit_counters
    }

    /// What the verbs counted.
    pub fn verb_counters(&self) -> &VerbCounters {
        &self.inner.planner.counters
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    pub(crate) fn mailbox(&self, shard: usize) -> &Arc<Mailbox> {
        &self.inner.mailboxes[shard]
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.inner.mailboxes
    }

    /// Runs something on a shard and waits for its answer.
    pub(crate) async fn on_shard<T: Send + 'static>(
        &self,
        shard: usize,
        body: impl FnOnce(&Rc<Shard>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (sender, answer) = oneshot::channel();
        let job: Job = Box::new(move |shard| {
            // The asker may have gone.
            let _ = sender.send(body(shard));
        });
        self.mailbox(shard).post(Mail::Job(job));
        answer.await.map_err(|_| Code::ShuttingDown.into())
    }

    /// Runs something on a shard; nothing, when it has ended.
    pub(crate) fn post_job(&self, shard: usize, body: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        self.mailbox(shard).post(Mail::Job(Box::new(body)));
    }

    pub(crate) fn shard_of_tag(&self, tag: u32) -> usize {
        tag as usize % self.inner.mailboxes.len()
    }

    /// Serializes the starts of a user's cursors.
    pub(crate) fn start_lock(&self, user: &str) -> &tokio::sync::Mutex<()> {
        &self.inner.start_locks[crate::attach::user_tag(user) as usize % START_LOCKS]
    }

    pub(crate) fn any_shard(&self) -> usize {
        self.inner.next_shard.fetch_add(1, Ordering::Relaxed) % self.inner.mailboxes.len()
    }

    /// Fails when the node is going down.
    pub fn check_ready(&self) -> Result<(), Refusal> {
        self.check_taking()
    }

    /// Whether the node still takes work.
    pub(crate) fn check_taking(&self) -> Result<(), Refusal> {
        self.inner.planner.check_taking()
    }

    /// Hands units to the committer and waits for what became of them.
    pub(crate) async fn submit(&self, units: Vec<Unit>) -> Result<CommitAnswer, Refusal> {
        let answer = self.hand_in(units)?;
        answer.await.map_err(|_| Refusal::new(Code::StoreOutcome, "the committer ended"))
    }

    /// Hands units to the committer; what becomes of them comes later.
    pub(crate) fn hand_in(
        &self,
        units: Vec<Unit>,
    ) -> Result<oneshot::Receiver<CommitAnswer>, Refusal> {
        let (sender, answer) = oneshot::channel();
        self.inner.queue.submit(units, Reply::Task(sender), false)?;
        Ok(answer)
    }

    /// Commits units that must all succeed.
    pub(crate) async fn commit(&self, units: Vec<Unit>) -> Result<Vec<Done>, Refusal> {
        all_done(self.submit(units).await?)
    }

    /// Commits units that are made in the committer, and must all succeed.
    pub(crate) async fn commit_begins(&self, begins: Begins) -> Result<Vec<Done>, Refusal> {
        let (sender, answer) = oneshot::channel();
        self.inner.queue.begin(begins, Reply::Task(sender), false)?;
        let ended = |_| Refusal::new(Code::StoreOutcome, "the committer ended");
        all_done(answer.await.map_err(ended)?)
    }

    /// For measurements of the committer alone: commits units as the verbs do.
    pub async fn commit_raw(&self, units: Vec<Unit>) -> Result<(Durability, Vec<Done>), Refusal> {
        self.submit(units).await?.map_err(store_refusal)
    }

    /// Begins the end: every session is told and closed, none is taken any more; publishes still are.
    pub fn close_sessions(&self) {
        for mailbox in self.mailboxes() {
            mailbox.post(Mail::Job(Box::new(Shard::shut_down)));
        }
    }

    /// Ends the node: sessions are told and closed, acks written, the committer finishes what it has.
    /// Blocks until the threads have ended: call it where blocking is allowed.
    pub fn shut_down(&self) {
        let threads =
            std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for task in [threads.sweeper, threads.cleaner, threads.sys].into_iter().flatten() {
            task.abort();
        }
        self.close_sessions();
        let join = |thread: JoinHandle<()>| {
            if thread.join().is_err() {
                tracing::error!("a thread of the node panicked");
            }
        };
        threads.shards.into_iter().for_each(join);
        // Not before: a session that is closed here may leave a will, which is published until its shard has ended.
        self.inner.planner.draining.store(true, Ordering::Relaxed);
        self.inner.queue.close();
        threads.committer.into_iter().for_each(join);
    }
}

/// Sounds when it is dropped armed: by an error or a panic.
struct Alarm {
    failed: Arc<Notify>,
    armed: bool,
    name: String,
}

impl Alarm {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.armed {
            tracing::error!(thread = self.name, "a thread of the node died");
            self.failed.notify_one();
        }
    }
}

/// The secret of this store, made with its first start.
async fn load_secret(store: &Arc<dyn Store>) -> Result<[u8; 16], Refusal> {
    let key = Bytes::from_static(SECRET_KEY);
    for _ in 0..2 {
        let found = store.records(key.clone(), None, 1).await.map_err(store_refusal)?;
        if let Some(record) = found.first().filter(|record| record.key == key) {
            return record.value[..].try_into().map_err(|_| {
                Refusal::new(Code::Internal, "the token secret in the store is damaged")
            });
        }
        let change = Change::Put(Bytes::copy_from_slice(&random::<16>()?));
        let units = vec![Unit::Record { key: key.clone(), expect: Expect::Absent, change }];
        // Whoever comes second reads what the first one wrote.
        store
            .commit(Batch { now: clock::now(), fence: None, units })
            .await
            .map_err(store_refusal)?;
    }
    Err(Refusal::new(Code::Internal, "the token secret could not be stored"))
}
