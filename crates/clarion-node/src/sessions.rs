//! Stored sessions of peers: what outlives a connection, by client id.
//!
//! A session's record `session/<client id>` names its number, and all else hangs at that: cursors, subscriptions, window, what is
//! retained and still owed, publishes under way. So a clean start, the expiry and a deletion are one compare-and-set, which
//! also writes `gone/<number>`; the cleaner removes the rest. Invariants: one holder at a time has a client id's stored session, and
//! gives it back when the end of its connection is committed; a number is never used twice. Must not know: any protocol.

mod admin;
mod clean;
mod count;
mod inspect;
mod lock;
mod open;

pub use admin::{CursorMoved, StoredSession, StoredSessionPage};
pub use inspect::{CursorDetails, SessionDetails, SubscriptionDetails};

pub(crate) use clean::run as clean;
pub(crate) use inspect::SessionView;
pub(crate) use lock::{SessionGuard, SessionLocks};
pub(crate) use open::{LoadedLog, Opened, Opening};

use crate::clock;
use crate::node::{Node, store_refusal};
use crate::shares::Groups;
use crate::wills::Hold;
use bytes::Bytes;
use clarion_core::durable::record::{self, SessionRecord};
use clarion_core::port::store::{Change, Expect, Store, Unit};
use clarion_core::{Millis, Refusal};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Sessions that are looked at, and that end, at once.
const A_PAGE: usize = 1000;
const AT_ONCE: usize = 64;
/// Pages of one round of the sweeper, beside those where sessions ended.
const A_ROUND: usize = 20;

/// What the node knows of stored sessions without asking the store.
#[derive(Default)]
pub(crate) struct Sessions {
    locks: Arc<SessionLocks>,
    groups: Arc<Groups>,
    /// There is, or was, one.
    any: AtomicBool,
    /// Numbers whose session has ended and whose rest is to be removed.
    gone: Mutex<Vec<u64>>,
    note: Notify,
    count: count::Count,
    started: Millis,
    /// Sessions that ended by their expiry, since the start.
    pub(crate) expired: AtomicU64,
    turns: Turns,
}

/// Sessions that are read at once: when all come at the same time the rest waits here, not in the store's queue, which refuses
/// what does not fit.
const READ_AT_ONCE: usize = 128;

struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(READ_AT_ONCE))
    }
}

impl Sessions {
    /// Complete before a listener accepts.
    pub(crate) async fn load(store: &Arc<dyn Store>, groups: Arc<Groups>) -> Result<Self, Refusal> {
        let prefix = Bytes::from_static(record::SESSIONS);
        let found = store.records(prefix, None, 1).await.map_err(store_refusal)?;
        let any = AtomicBool::new(!found.is_empty());
        Ok(Self { any, groups, started: clock::now(), ..Self::default() })
    }

    /// Has a client id's session, and its will, while it is kept; `None` when somebody else has.
    pub(crate) fn try_hold(&self, client: &str) -> Option<Hold> {
        self.locks.try_lock(client).map(|guard| Arc::new(guard) as Hold)
    }

    /// Waits until a session may be read; held as long as that lasts, and while nothing else is waited for.
    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.0.acquire().await.ok()
    }

    /// That a session has ended is committed.
    pub(crate) fn is_gone(&self, number: u64) {
        self.groups.is_gone(number);
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        self.count.gone(number);
        self.note.notify_one();
    }

    /// A session was made.
    fn born(&self, number: u64) {
        self.count.born(number);
    }

    /// How many there are; `None` = those that an earlier run left are not counted yet.
    pub(crate) fn count(&self) -> Option<usize> {
        self.count.get()
    }

    fn take_gone(&self) -> Vec<u64> {
        std::mem::take(&mut *self.gone.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a session that nobody holds has ended; `started` = when the node did.
pub(crate) fn has_expired(record: &SessionRecord, started: Millis, now: Millis) -> bool {
    // One that says it is attached was so when the server died.
    let ended = record.ended_at.unwrap_or(started);
    record.expiry_s != u32::MAX && ended.saturating_add(u64::from(record.expiry_s) * 1000) <= now
}

/// By which a session ends: its record goes if it is still this one, and what it leaves is noted.
pub(crate) fn end_units(key: Bytes, version: u64, number: u64) -> Vec<Unit> {
    vec![
        Unit::Record { key, expect: Expect::Version(version), change: Change::Delete },
        Unit::Record {
            key: record::gone_key(number),
            expect: Expect::Any,
            change: Change::Put(Bytes::new()),
        },
    ]
}

/// Writes a record whatever was there.
pub(crate) fn put(key: Bytes, value: Bytes) -> Unit {
    Unit::Record { key, expect: Expect::Any, change: Change::Put(value) }
}

/// Removes a record.
pub(crate) fn delete(key: Bytes) -> Unit {
    Unit::Record { key, expect: Expect::Any, change: Change::Delete }
}

impl Node {
    /// Ends sessions whose time is over. Looks at some above `after`; returns where to go on.
    pub(crate) async fn sweep_sessions(
        &self,
        after: Option<Bytes>,
    ) -> Result<Option<Bytes>, Refusal> {
        let sessions = &self.inner.sessions;
        if !sessions.any.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (mut after, mut left) = (after, A_ROUND);
        while left > 0 {
            let prefix = Bytes::from_static(record::SESSIONS);
            let page = self.store().records(prefix, after, A_PAGE).await.map_err(store_refusal)?;
            let now = clock::now();
            let over = page.iter().filter(|found| {
                SessionRecord::decode(&found.value)
                    .is_some_and(|record| has_expired(&record, sessions.started, now))
            });
            let over: Vec<_> =
                over.filter_map(|found| record::parse_session_key(&found.key)).collect();
            for clients in over.chunks(AT_ONCE) {
                self.expire_sessions(clients).await?;
            }
            if page.len() < A_PAGE {
                return Ok(None);
            }
            left -= usize::from(over.is_empty());
            after = page.last().map(|found| found.key.clone());
        }
        Ok(after)
    }

    async fn expire_sessions<C: AsRef<str>>(&self, clients: &[C]) -> Result<(), Refusal> {
        let sessions = &self.inner.sessions;
        let (mut guards, mut units, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for client in clients.iter().map(AsRef::as_ref) {
            // Whoever has it decides about it.
            let Some(guard) = sessions.locks.try_lock(client) else { continue };
            let Some((session, version)) = self.session_record(client).await? else { continue };
            if has_expired(&session, sessions.started, clock::now())
                && let Some(key) = record::session_key(client)
            {
                units.extend(end_units(key, version, session.number));
                numbers.push(session.number);
                guards.push(guard);
            }
        }
        if numbers.is_empty() {
            return Ok(());
        }
        self.commit(units).await?;
        sessions.expired.fetch_add(numbers.len() as u64, Ordering::Relaxed);
        numbers.into_iter().for_each(|number| sessions.is_gone(number));
        Ok(())
    }

    /// Counts what an earlier run left, once.
    pub(crate) async fn count_sessions(&self) -> Result<(), Refusal> {
        let sessions = &self.inner.sessions;
        let mut after = None;
        while sessions.any.load(Ordering::Relaxed) {
            let prefix = Bytes::from_static(record::SESSIONS);
            let page = self.store().records(prefix, after, A_PAGE).await.map_err(store_refusal)?;
            let numbers = page.iter().filter_map(|found| SessionRecord::decode(&found.value));
            sessions.count.found(numbers.map(|session| session.number));
            if page.len() < A_PAGE {
                break;
            }
            after = page.last().map(|found| found.key.clone());
            tokio::task::yield_now().await;
        }
        sessions.count.all_found();
        Ok(())
    }
}

/// Numbers about stored sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SessionNumbers {
    /// How many there are; `None` = not counted yet.
    pub stored: Option<u64>,
    /// Those of them that are attached.
    pub attached: u64,
    /// How many ended by their expiry, since the start.
    pub expired: u64,
    /// Topics that somebody reads durably by their names.
    pub topics: u64,
    /// Filters that somebody reads durably.
    pub filters: u64,
}

impl Node {
    /// Numbers about stored sessions.
    pub fn session_numbers(&self) -> SessionNumbers {
        let sessions = &self.inner.sessions;
        let (topics, filters) = self.inner.planner.durable.len();
        SessionNumbers {
            stored: sessions.count().map(|count| count as u64),
            attached: self.shard_totals().stored_attached,
            expired: sessions.expired.load(Ordering::Relaxed),
            topics: topics as u64,
            filters: filters as u64,
        }
    }
}
