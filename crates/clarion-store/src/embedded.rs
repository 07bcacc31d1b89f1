//! The engine `embedded`: a data directory of its own, on fjall.
//!
//! One thread writes, a few read, one sweeps; a call hands its work over at once and waits for the answer, so dropping
//! its future cancels nothing. Layout of the keys: `keys`; of the directory: `open`.
//!
//! Must not know: the committer that groups batches, who reads.

mod channels;
mod codec;
mod cursors;
mod engine;
mod erase;
mod filter;
mod idempotency;
mod inspect;
mod keys;
mod log;
mod open;
mod queue;
mod reader;
mod records;
mod space;
mod sweep;
mod writer;

pub use inspect::{ChannelSummary, Summary, summarize};
pub use open::{FORMAT, OpenError};

use bytes::Bytes;
use clarion_core::port::BoxFuture;
use clarion_core::port::store::{
    Batch, Committed, Find, Found, Head, Health, Page, ReadRange, Reader, Record, Store,
    StoreError, StoredCursor, SweepBudget, Swept,
};
use clarion_core::{Address, Code, Millis};
use engine::{Engine, Fault};
use queue::{Queue, Rejected};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use sweep::SweepJob;
use tokio::sync::oneshot;
use writer::{Job, Writer};

/// How safe a commit is when it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durable {
    /// After fsync.
    #[default]
    Disk,
    /// When the operating system has it. After an unclean end every channel has a new epoch.
    Memory,
}

/// What the engine `embedded` can be told. All sizes are in bytes.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// When a commit is answered.
    pub durability: Durable,
    /// Most bytes that the engine may use, its journal apart; then publishes are refused. 0 = unbounded.
    pub max_bytes: u64,
    /// Publishes are refused while the file system has less than this free, or less than what tables and compactions may
    /// still take, if that is more. 0 = never.
    pub min_free_bytes: u64,
    /// fjall's cache of blocks.
    pub cache_bytes: u64,
    /// Size at which the log's memtable is written out.
    pub log_memtable_bytes: u64,
    /// The same for every other keyspace.
    pub memtable_bytes: u64,
    /// Size of all journals together at which memtables are written out early; at least 64 MiB.
    pub journal_bytes: u64,
    /// Records from this size on are kept outside the log's tables.
    pub separate_bytes: u32,
    /// fjall's threads that write tables out and compact them.
    pub worker_threads: usize,
    /// Threads that serve reads.
    pub reader_threads: usize,
    /// Reads that may wait for a thread; beyond, they are refused.
    pub read_queue: usize,
    /// Batches that may wait for the writer; beyond, they are refused.
    pub commit_queue: usize,
    /// States of channels that are kept in memory.
    pub cached_channels: usize,
    /// Where epochs come from: `None` = the operating system's randomness, `Some` = a fixed sequence (tests).
    pub epoch_seed: Option<u64>,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            durability: Durable::Disk,
            max_bytes: 0,
            min_free_bytes: 256 * MIB,
            cache_bytes: 64 * MIB,
            log_memtable_bytes: 32 * MIB,
            memtable_bytes: 8 * MIB,
            journal_bytes: 64 * MIB,
            separate_bytes: 4096,
            worker_threads: 2,
            reader_threads: 2,
            read_queue: 1024,
            commit_queue: 64,
            cached_channels: 65_536,
            epoch_seed: None,
        }
    }
}

type Read = Box<dyn FnOnce(&Engine) + Send>;

/// See the module. Dropping it ends its threads and frees the directory; [`Self::close`] does so cleanly.
pub struct EmbeddedStore {
    jobs: Arc<Queue<Job>>,
    reads: Arc<Queue<Read>>,
    sweeps: Arc<Queue<SweepJob>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens a data directory or makes one. Blocks; a large journal takes about a second.
    pub fn open(dir: &Path, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let opened = open::open(dir, config)?;
        open::unmark_clean(dir)?;
        let engine = Arc::new(opened.engine);
        let config = &engine.config;
        let store = Self {
            jobs: Arc::new(Queue::new(config.commit_queue)),
            reads: Arc::new(Queue::new(config.read_queue)),
            sweeps: Arc::new(Queue::new(16)),
            threads: Mutex::default(),
        };
        let writer = Writer::new(engine.clone(), opened.next_number, opened.memory_flagged);
        let io = |source| OpenError::Io { dir: dir.to_path_buf(), source };
        let jobs = store.jobs.clone();
        store.spawn("store-writer", move || writer.run(&jobs)).map_err(io)?;
        for _ in 0..config.reader_threads.max(1) {
            let (engine, reads) = (engine.clone(), store.reads.clone());
            let serve = move || {
                while let Some(read) = reads.pop() {
                    read(&engine);
                }
            };
            store.spawn("store-reader", serve).map_err(io)?;
        }
        let (sweeps, jobs) = (store.sweeps.clone(), store.jobs.clone());
        store.spawn("store-sweeper", move || sweep::run(&engine, &sweeps, &jobs)).map_err(io)?;
        Ok(store)
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let handle = std::thread::Builder::new().name(name.into()).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        Ok(())
    }

    /// Finishes what was handed over, syncs it, notes that the end was clean, and frees the directory. Blocks. Every
    /// later call is refused.
    pub fn close(&self) -> Result<(), StoreError> {
        let (answer, answered) = mpsc::sync_channel(1);
        if !self.jobs.push_last(Job::Close(answer)) {
            return Ok(());
        }
        let closed = answered.recv().unwrap_or_else(|_| Err(ended()));
        self.join();
        closed
    }

    fn join(&self) {
        // The sweeper needs the writer to finish its work, and finds its queue closed otherwise.
        self.sweeps.close();
        self.jobs.close();
        self.reads.close();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A thread that panicked has already been noticed by those who waited for it.
            let _ = thread.join();
        }
    }

    fn read_with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, Fault> + Send + 'static,
    ) -> BoxFuture<Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let pushed = self.reads.push(Box::new(move |engine| {
            let work = std::panic::AssertUnwindSafe(|| work(engine));
            if let Ok(result) = std::panic::catch_unwind(work) {
                let _ = answer.send(result.map_err(StoreError::from));
            }
        }));
        Box::pin(async move {
            pushed.map_err(rejected)?;
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.join();
    }
}

fn rejected(why: Rejected) -> StoreError {
    let (code, detail) = match why {
        Rejected::Full => (Code::Overloaded, "more work is waiting for the store than it takes in"),
        Rejected::Closed => (Code::ShuttingDown, "the store is closed"),
    };
    StoreError::Refused { code, detail: detail.into() }
}

fn ended() -> StoreError {
    let detail = "the store's thread ended on an internal error".into();
    StoreError::Refused { code: Code::StoreUnavailable, detail }
}

impl Store for EmbeddedStore {
    fn commit(&self, batch: Batch) -> BoxFuture<Result<Committed, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let pushed = self.jobs.push(Job::Commit(batch, answer));
        Box::pin(async move {
            pushed.map_err(rejected)?;
            let unknown = || StoreError::Unknown { detail: "the writer ended in between".into() };
            answered.await.unwrap_or_else(|_| Err(unknown()))
        })
    }

    fn heads(&self, channels: Vec<Address>) -> BoxFuture<Result<Vec<Head>, StoreError>> {
        self.read_with(move |engine| engine.heads(&channels))
    }

    fn read(
        &self,
        now: Millis,
        ranges: Vec<ReadRange>,
    ) -> BoxFuture<Result<Vec<Page>, StoreError>> {
        self.read_with(move |engine| engine.read(now, &ranges))
    }

    fn cursors(&self, reader: Reader) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        self.read_with(move |engine| engine.cursors_of(&reader))
    }

    fn cursors_on(
        &self,
        reader: Reader,
        channels: Vec<Address>,
    ) -> BoxFuture<Result<Vec<Option<StoredCursor>>, StoreError>> {
        self.read_with(move |engine| engine.cursors_on(&reader, &channels))
    }

    fn readers(&self, channel: Address) -> BoxFuture<Result<Vec<StoredCursor>, StoreError>> {
        self.read_with(move |engine| engine.readers_of(&channel))
    }

    fn records(
        &self,
        prefix: Bytes,
        after: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<Record>, StoreError>> {
        self.read_with(move |engine| engine.scan(&prefix, after.as_ref(), limit))
    }

    fn find(&self, now: Millis, what: Find) -> BoxFuture<Result<Option<Found>, StoreError>> {
        self.read_with(move |engine| engine.find(now, &what))
    }

    fn claim(
        &self,
        now: Millis,
        key: Bytes,
        owner: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<Result<Option<u64>, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let pushed = self.jobs.push(Job::Claim { now, key, owner, ttl_ms, answer });
        Box::pin(async move {
            pushed.map_err(rejected)?;
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn sweep(&self, now: Millis, budget: SweepBudget) -> BoxFuture<Result<Swept, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let pushed = self.sweeps.push(SweepJob { now, budget, answer });
        Box::pin(async move {
            pushed.map_err(rejected)?;
            answered.await.unwrap_or_else(|_| Err(ended()))
        })
    }

    fn check(&self) -> BoxFuture<Health> {
        let health = self.read_with(|engine| {
            Ok(Health { failed: engine.probe(), disk_bytes: engine.db.disk_space().ok() })
        });
        Box::pin(async move {
            health
                .await
                .unwrap_or_else(|e| Health { failed: Some(e.to_string()), disk_bytes: None })
        })
    }
}

#[cfg(test)]
mod tests;
