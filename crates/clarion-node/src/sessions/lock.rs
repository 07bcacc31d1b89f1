//! Who has a stored session: one lock for each client id that somebody has or waits for.
//!
//! Invariant: a lock is in the table exactly while somebody has it or waits for it. Must not know: what a session is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

#[derive(Default)]
struct Lock {
    held: Arc<tokio::sync::Mutex<()>>,
    waiting: AtomicUsize,
    /// Guards, as the table counts them.
    guards: AtomicUsize,
}

/// See the module.
#[derive(Default)]
pub(crate) struct SessionLocks(Mutex<HashMap<Arc<str>, Arc<Lock>>>);

/// One has it while this lives.
pub(crate) struct SessionGuard {
    locks: Arc<SessionLocks>,
    client: Arc<str>,
    lock: Arc<Lock>,
    held: Option<OwnedMutexGuard<()>>,
}

impl SessionLocks {
    fn table(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Lock>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, in turn.
    pub(crate) async fn lock(self: &Arc<Self>, client: &Arc<str>) -> SessionGuard {
        let mut guard = self.place(client);
        guard.lock.waiting.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(guard.lock.clone());
        guard.held = Some(guard.lock.held.clone().lock_owned().await);
        guard
    }

    /// Waits for it, in turn, without asking whoever has it for it.
    pub(crate) async fn lock_quietly(self: &Arc<Self>, client: &str) -> SessionGuard {
        let mut guard = self.place(&client.into());
        guard.held = Some(guard.lock.held.clone().lock_owned().await);
        guard
    }

    /// Takes it if nobody has it.
    pub(crate) fn try_lock(self: &Arc<Self>, client: &str) -> Option<SessionGuard> {
        let mut guard = self.place(&client.into());
        guard.held = Some(guard.lock.held.clone().try_lock_owned().ok()?);
        Some(guard)
    }

    fn place(self: &Arc<Self>, client: &Arc<str>) -> SessionGuard {
        let mut table = self.table();
        let lock = table.entry(client.clone()).or_default().clone();
        lock.guards.fetch_add(1, Ordering::Relaxed);
        SessionGuard { locks: self.clone(), client: client.clone(), lock, held: None }
    }
}

/// Counted while it waits, also when it is given up.
struct Waits(Arc<Lock>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl SessionGuard {
    /// Whose it is.
    pub(crate) fn client(&self) -> &Arc<str> {
        &self.client
    }

    /// Whether somebody waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        self.lock.waiting.load(Ordering::SeqCst) > 0
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.held = None;
        let mut table = self.locks.table();
        // Nobody else has or wants it.
        if self.lock.guards.fetch_sub(1, Ordering::Relaxed) == 1 {
            table.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_has_it_and_the_next_one_gets_it() {
        let locks = Arc::new(SessionLocks::default());
        let client = Arc::from("c");
        let first = locks.lock(&client).await;
        assert!(locks.try_lock("c").is_none() && !first.is_wanted());
        let second = tokio::spawn({
            let (locks, client) = (locks.clone(), client.clone());
            async move { locks.lock(&client).await }
        });
        while !first.is_wanted() {
            tokio::task::yield_now().await;
        }
        drop(first);
        let second = second.await.unwrap();
        assert!(!second.is_wanted());
        drop(second);
        assert!(locks.table().is_empty());
        let third = locks.try_lock("c").unwrap();
        let mut quiet = Box::pin(locks.lock_quietly("c"));
        std::future::poll_fn(|context| {
            assert!(quiet.as_mut().poll(context).is_pending() && !third.is_wanted());
            std::task::Poll::Ready(())
        })
        .await;
        drop(third);
        drop(quiet.await);
        assert!(locks.table().is_empty());
    }
}
