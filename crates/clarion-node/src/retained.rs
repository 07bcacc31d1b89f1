//! Retained messages: the last one of each topic that was published to be kept for later subscribers.
//!
//! They are small records of the store (`retained/<topic>`). Here is what the store does not know: the *overlay*, changes
//! that are handed in and not committed, and a number for each change. Who reads notes the number first, while he is in the
//! live lists already: what changes later comes to him live, so his read leaves it out; what changed before is in the overlay
//! or in the store.
//!
//! Invariants: changes of a topic are handed to the committer in the order of their numbers (under the lock); a topic with a
//! retained message is in `hashes` (some without may be, too). In memory are one hash a topic and what is not committed.
//! Must not know: sessions.

mod admin;
mod record;

pub use admin::RetainedPage;
pub(crate) use record::{decode, encode, key, of_name, prefix};

use crate::clock;
use crate::node::{Node, store_refusal};
use bytes::Bytes;
use clarion_core::port::store::{Change as StoreChange, Expect, Store, Unit};
use clarion_core::{Message, Refusal, topic};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Topics of whose changes reads under way are told; above it they look each topic up again.
const RECENT_MAX: usize = 1 << 16;
/// Records that the sweeper looks at in a round.
const SWEEP_RECORDS: usize = 1000;

/// A change that is not committed.
struct Change {
    number: u64,
    /// `None` = the topic has none any more.
    message: Option<Arc<Message>>,
    /// It brought the topic's hash.
    brought_hash: bool,
}

#[derive(Default)]
struct Inner {
    hashes: HashSet<u64>,
    overlay: HashMap<Box<str>, Change>,
    number: u64,
    /// Reads under way, by the number that they began with.
    reads: BTreeMap<u64, usize>,
    /// The last change of each topic's hash since the first of them began.
    recent: HashMap<u64, u64>,
    /// Changes up to this one may not be in `recent` any more.
    forgotten: u64,
}

/// See the module.
pub(crate) struct Retained {
    inner: Mutex<Inner>,
    hasher: RandomState,
    topics_max: usize,
}

/// Why a message is not retained.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused<E> {
    /// There are as many as there may be.
    Full,
    /// The committer did not take it.
    Committer(E),
}

/// A read under way; ends when it is dropped.
pub(crate) struct Reading {
    of: Arc<Retained>,
    number: u64,
    /// What is not committed, of the topics that are read.
    pub(crate) overlay: Vec<(Box<str>, Option<Arc<Message>>)>,
}

impl Retained {
    /// For so many topics at most.
    pub(crate) fn new(topics_max: usize) -> Self {
        Self { inner: Mutex::default(), hasher: RandomState::new(), topics_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, topic: &str) -> u64 {
        self.hasher.hash_one(topic)
    }

    /// At the start: this topic has one in the store.
    pub(crate) fn found(&self, topic: &str) {
        let hash = self.hash(topic);
        self.lock().hashes.insert(hash);
    }

    /// How many topics have one, about.
    pub(crate) fn len(&self) -> usize {
        self.lock().hashes.len()
    }

    /// Whether a filter may find any.
    pub(crate) fn may_have(&self, filter: &str) -> bool {
        let inner = self.lock();
        if topic::is_wildcard(filter) {
            !inner.hashes.is_empty()
        } else {
            !inner.hashes.is_empty() && inner.hashes.contains(&self.hash(filter))
        }
    }

    /// Changes a topic's message; `submit` hands the change to the committer and is told its number.
    pub(crate) fn change<E>(
        &self,
        topic: &str,
        message: Option<Arc<Message>>,
        submit: impl FnOnce(u64) -> Result<(), E>,
    ) -> Result<(), Refused<E>> {
        let hash = self.hash(topic);
        let mut guard = self.lock();
        let inner = &mut *guard;
        if message.is_some()
            && inner.hashes.len() >= self.topics_max
            && !inner.hashes.contains(&hash)
        {
            return Err(Refused::Full);
        }
        let number = inner.number + 1;
        submit(number).map_err(Refused::Committer)?;
        inner.number = number;
        let brought_hash = message.is_some() && inner.hashes.insert(hash);
        inner.overlay.insert(topic.into(), Change { number, message, brought_hash });
        if !inner.reads.is_empty() {
            if inner.recent.len() >= RECENT_MAX {
                inner.recent.clear();
                inner.forgotten = number - 1;
            }
            inner.recent.insert(hash, number);
        }
        Ok(())
    }

    /// The committer is done with a change.
    pub(crate) fn committed(&self, topic: &str, number: u64, ok: bool) {
        let hash = self.hash(topic);
        let mut inner = self.lock();
        if let Some(change) = inner.overlay.get(topic)
            && change.number == number
        {
            let gone = if ok { change.message.is_none() } else { change.brought_hash };
            inner.overlay.remove(topic);
            if gone {
                inner.hashes.remove(&hash);
            }
        }
    }

    /// Begins to read what a filter matches. Whoever is to get what comes later is in the live lists already.
    pub(crate) fn read(self: &Arc<Self>, filter: &str) -> Reading {
        let mut inner = self.lock();
        let number = inner.number;
        *inner.reads.entry(number).or_default() += 1;
        let changes = inner.overlay.iter().filter(|(topic, _)| topic::matches(filter, topic));
        let overlay =
            changes.map(|(topic, change)| (topic.clone(), change.message.clone())).collect();
        drop(inner);
        Reading { of: self.clone(), number, overlay }
    }
}

impl Reading {
    /// Whether this topic changed since the read began: then it comes live. `None` when nobody knows any more.
    pub(crate) fn changed(&self, topic: &str) -> Option<bool> {
        let hash = self.of.hash(topic);
        let inner = self.of.lock();
        if inner.forgotten > self.number {
            return None;
        }
        Some(inner.recent.get(&hash).is_some_and(|number| *number > self.number))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut guard = self.of.lock();
        let inner = &mut *guard;
        if let Some(count) = inner.reads.get_mut(&self.number) {
            *count -= 1;
            if *count == 0 {
                inner.reads.remove(&self.number);
            }
        }
        if inner.reads.is_empty() {
            inner.recent = HashMap::new();
        }
    }
}

impl Retained {
    /// The store has no record of this topic any more, since its life was over; unless it changed meanwhile.
    fn expired(&self, topic: &str, reading: &Reading) {
        let hash = self.hash(topic);
        let unchanged = reading.changed(topic) == Some(false);
        let mut inner = self.lock();
        if unchanged && !inner.overlay.contains_key(topic) {
            inner.hashes.remove(&hash);
        }
    }
}

/// Removes records whose life is over. Looks at some above `after`; returns where to go on.
pub(crate) async fn sweep(node: &Node, after: Option<Bytes>) -> Result<Option<Bytes>, Refusal> {
    let retained = &node.inner.retained;
    let reading = retained.read("#");
    let page =
        node.store().records(prefix(""), after, SWEEP_RECORDS).await.map_err(store_refusal)?;
    let next = (page.len() == SWEEP_RECORDS).then(|| page.last().map(|r| r.key.clone())).flatten();
    let now = clock::now();
    for record in page {
        let Some(message) = decode(record.value).filter(|m| m.content.expired(now)) else {
            continue;
        };
        // A newer one has another version and stays.
        let expect = Expect::Version(record.version);
        let unit = Unit::Record { key: record.key, expect, change: StoreChange::Delete };
        match node.commit(vec![unit]).await {
            Ok(_) => retained.expired(message.channel.id(), &reading),
            Err(refusal) => tracing::debug!(%refusal, "a retained message has changed meanwhile"),
        }
    }
    Ok(next)
}

/// Notes every topic that has one, before a listener accepts.
pub(crate) async fn load(retained: &Retained, store: &Arc<dyn Store>) -> Result<(), Refusal> {
    const PAGE: usize = 1000;
    let mut after = None;
    loop {
        let page = store.records(prefix(""), after, PAGE).await.map_err(store_refusal)?;
        for message in page.iter().filter_map(|record| decode(record.value.clone())) {
            retained.found(message.channel.id());
        }
        if page.len() < PAGE {
            return Ok(());
        }
        after = page.last().map(|record| record.key.clone());
    }
}

#[cfg(test)]
mod tests;
