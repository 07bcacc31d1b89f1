//! Stored sessions of peers: what outlives a connection, by client id.
//!
//! A session's record `session/<client id>` names its number, and all else hangs at that: cursors, subscriptions, window, what is
//! retained and still owed, publishes under way. So a clean start, the expiry and a deletion are one compare-and-set, which
//! also writes `gone/<number>`; the cleaner removes the rest. Invariants: one holder at a time has a client id's stored session, and
//! gives it back when the end of its connection is committed; a number is never used twice. Must not know: any protocol.

mod clean;
mod lock;
mod open;

pub(crate) use clean::run as clean;
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
use tokio::sync::Notify;

/// Sessions that one round of the sweeper looks at.
const A_ROUND: usize = 1000;

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
    started: Millis,
    /// Sessions that ended by their expiry, since the start.
    pub(crate) expired: AtomicU64,
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

    /// That a session has ended is committed.
    pub(crate) fn is_gone(&self, number: u64) {
        self.groups.is_gone(number);
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        self.note.notify_one();
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
        let prefix = Bytes::from_static(record::SESSIONS);
        let page = self.store().records(prefix, after, A_ROUND).await.map_err(store_refusal)?;
        for found in &page {
            let expired = SessionRecord::decode(&found.value)
                .is_some_and(|record| has_expired(&record, sessions.started, clock::now()));
            if expired && let Some(client) = record::parse_session_key(&found.key) {
                self.expire_session(&client).await?;
            }
        }
        Ok(if page.len() < A_ROUND { None } else { page.last().map(|r| r.key.clone()) })
    }

    async fn expire_session(&self, client: &str) -> Result<(), Refusal> {
        // Whoever has it decides about it.
        let Some(_guard) = self.inner.sessions.locks.try_lock(client) else { return Ok(()) };
        let Some((session, version)) = self.session_record(client).await? else { return Ok(()) };
        if has_expired(&session, self.inner.sessions.started, clock::now())
            && let Some(key) = record::session_key(client)
        {
            self.commit(end_units(key, version, session.number)).await?;
            self.inner.sessions.expired.fetch_add(1, Ordering::Relaxed);
            self.inner.sessions.is_gone(session.number);
        }
        Ok(())
    }
}
