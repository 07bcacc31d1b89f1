//! Durable interest: which topics and filters somebody reads who may come back later, and where their logs end.
//!
//! The records `durable/<address>\0<number>` are the truth, one for each channel and reader; this is their image, complete before
//! a listener accepts. A channel enters before the commit that makes somebody read it, and leaves only when nobody has entered
//! since its records were found to be gone; so it never lacks what a commit says. Invariants: as above; a head that is known is
//! that of all that is visible. Must not know: who reads.

use crate::node::store_refusal;
use crate::sessions::put;
use crate::shares::Groups;
use bytes::Bytes;
use clarion_core::port::store::{Head, Store, Unit};
use clarion_core::topic_tree::TopicTree;
use clarion_core::{Address, AddressKind, Epoch, Millis, Refusal, Seq};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) const PREFIX: &[u8] = b"durable/";

/// Records that are read at once at the start, where every one is of another channel.
const PAGE_MAX: usize = 1024;
/// Logs whose heads are known: between so many and twice as many.
const HEADS: usize = 1 << 18;

/// Longest address that stands in a key as it is; of a longer one its hash does, and the record holds the address.
const NAME_MAX: usize = 900;
/// Before a hash. No address begins with it.
const HASHED: u8 = 1;

/// Says that a reader of this number reads the channel.
pub(crate) fn entry(channel: &Address, number: u64) -> Unit {
    let text = channel.as_str().as_bytes();
    let value = if text.len() > NAME_MAX { Bytes::copy_from_slice(text) } else { Bytes::new() };
    put(key(channel, number), value)
}

/// The key of the record that says that a reader of this number reads the channel.
pub(crate) fn key(channel: &Address, number: u64) -> Bytes {
    [&prefix_of(channel), &number.to_be_bytes()[..]].concat().into()
}

/// What the keys of a channel begin with.
pub(crate) fn prefix_of(channel: &Address) -> Vec<u8> {
    let text = channel.as_str().as_bytes();
    if text.len() <= NAME_MAX {
        return [PREFIX, text, b"\0"].concat();
    }
    [PREFIX, &[HASHED], &Sha256::digest(text)[..], b"\0"].concat()
}

/// The channel and number of such a record.
pub(crate) fn parse(key: &[u8], value: &[u8]) -> Option<(Address, u64)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (name, number) = rest.split_at_checked(rest.len().checked_sub(9)?)?;
    let text = if name.first() == Some(&HASHED) { value } else { name };
    let channel = Address::parse_any(std::str::from_utf8(text).ok()?).ok()?;
    Some((channel, u64::from_be_bytes(number.get(1..)?.try_into().ok()?)))
}

/// A filter in durable use.
#[derive(Debug, Default)]
struct Filter {
    /// `None` only while it is made.
    log: Option<Address>,
    /// How often somebody has entered.
    entered: u64,
}

#[derive(Debug, Default)]
struct Interest {
    topics: HashMap<Address, u64>,
    filters: TopicTree<Filter>,
}

impl From<Head> for Known {
    fn from(Head { epoch, last, last_at, .. }: Head) -> Self {
        Self { epoch, last, last_at }
    }
}

/// Where a log ends, as far as it is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) epoch: Epoch,
    pub(crate) last: Seq,
    pub(crate) last_at: Millis,
}

/// When a head was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked(u64);

/// Two generations, so that it is bounded; `None` = a head was not read yet.
#[derive(Debug, Default)]
struct Heads {
    hot: HashMap<Address, Option<Known>>,
    cold: HashMap<Address, Option<Known>>,
    /// How often the older generation has gone.
    turn: u64,
}

impl Heads {
    /// What is known of a log, which is waited for from now on.
    fn ask(&mut self, channel: &Address) -> Option<Known> {
        if let Some(known) = self.hot.get(channel) {
            return *known;
        }
        let known = self.cold.remove(channel).flatten();
        if self.hot.len() >= HEADS {
            self.cold = std::mem::take(&mut self.hot);
            self.turn += 1;
        }
        self.hot.insert(channel.clone(), known);
        known
    }

    fn get_mut(&mut self, channel: &Address) -> Option<&mut Option<Known>> {
        match self.hot.get_mut(channel) {
            Some(known) => Some(known),
            None => self.cold.get_mut(channel),
        }
    }

    fn remove(&mut self, channel: &Address) {
        self.hot.remove(channel);
        self.cold.remove(channel);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    interest: RwLock<Interest>,
    /// Logs of sessions that were here lately.
    heads: Mutex<Heads>,
    /// Who shares what is stored.
    pub(crate) groups: Arc<Groups>,
    /// Of all that was committed up to this time every shard has been told.
    hinted: AtomicU64,
}

impl Durable {
    /// Every topic and filter with durable readers; `each` is told of every channel that a reader has by name.
    pub(crate) async fn load(
        store: &Arc<dyn Store>,
        mut each: impl FnMut(&Address),
    ) -> Result<Self, Refusal> {
        let durable = Self { groups: Arc::new(Groups::load(store).await?), ..Self::default() };
        let (mut after, mut limit): (Option<Bytes>, usize) = (None, 1);
        loop {
            let prefix = Bytes::from_static(PREFIX);
            let found = store.records(prefix, after.take(), limit).await.map_err(store_refusal)?;
            let mut last: Option<Address> = None;
            let mut again = 0;
            for record in &found {
                let Some((channel, _)) = parse(&record.key, &record.value) else { continue };
                if last.as_ref() == Some(&channel) {
                    again += 1;
                    continue;
                }
                each(&channel);
                durable.enter(&channel);
                last = Some(channel);
            }
            if found.len() < limit {
                return Ok(durable);
            }
            // One record of each channel is enough: the next look begins behind all of its readers, and is the longer the more
            // channels have one reader only.
            limit = if again > found.len() / 4 { 1 } else { (limit * 2).min(PAGE_MAX) };
            after = match &last {
                Some(channel) => Some([&prefix_of(channel), &[0xff; 9][..]].concat().into()),
                None => found.last().map(|record| record.key.clone()),
            };
        }
    }

    /// Somebody is about to read this channel durably.
    pub(crate) fn enter(&self, channel: &Address) {
        let mut interest = self.interest.write().unwrap_or_else(PoisonError::into_inner);
        match channel.kind() {
            AddressKind::Topic => *interest.topics.entry(channel.clone()).or_default() += 1,
            AddressKind::Filter => {
                let filter = interest.filters.entry(channel.id());
                filter.log.get_or_insert_with(|| channel.clone());
                filter.entered += 1;
            }
            _ => {}
        }
    }

    /// How often somebody has entered this channel; `None` = nobody is there.
    fn entered(&self, channel: &Address) -> Option<u64> {
        match channel.kind() {
            AddressKind::Topic => {
                let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
                interest.topics.get(channel).copied()
            }
            AddressKind::Filter => {
                let mut interest = self.interest.write().unwrap_or_else(PoisonError::into_inner);
                interest.filters.get_mut(channel.id()).map(|filter| filter.entered)
            }
            _ => None,
        }
    }

    /// A reader of this channel has gone, and that is committed: if it was the last one nobody is there any more.
    pub(crate) async fn left(
        &self,
        store: &Arc<dyn Store>,
        channel: &Address,
    ) -> Result<(), Refusal> {
        let Some(entered) = self.entered(channel) else { return Ok(()) };
        let prefix = Bytes::from(prefix_of(channel));
        if !store.records(prefix, None, 1).await.map_err(store_refusal)?.is_empty() {
            return Ok(());
        }
        let mut interest = self.interest.write().unwrap_or_else(PoisonError::into_inner);
        let gone = match channel.kind() {
            AddressKind::Topic => {
                let gone = interest.topics.get(channel) == Some(&entered);
                gone.then(|| interest.topics.remove(channel));
                gone
            }
            _ => {
                let now = interest.filters.get_mut(channel.id()).map(|filter| filter.entered);
                let gone = now == Some(entered);
                gone.then(|| interest.filters.remove(channel.id()));
                gone
            }
        };
        if gone {
            self.heads().remove(channel);
        }
        Ok(())
    }

    /// Whether a durable reader reads this topic, by its name or by a filter.
    pub(crate) fn has(&self, topic: &Address) -> bool {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        let mut has = !interest.topics.is_empty() && interest.topics.contains_key(topic);
        if !has {
            interest.filters.matches(topic.id(), |_| has = true);
        }
        has
    }

    /// Whether a durable reader reads this topic by its name.
    pub(crate) fn has_name(&self, topic: &Address) -> bool {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        interest.topics.contains_key(topic)
    }

    /// Whether a durable filter matches this topic.
    pub(crate) fn has_filter(&self, topic: &Address) -> bool {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        let mut has = false;
        interest.filters.matches(topic.id(), |_| has = true);
        has
    }

    /// The logs of all filters that match a topic.
    pub(crate) fn filters_of(&self, topic: &Address, logs: &mut Vec<Address>) {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        interest.filters.matches(topic.id(), |filter| logs.extend(filter.log.clone()));
    }

    /// How many topics and filters there are.
    pub(crate) fn len(&self) -> (usize, usize) {
        let interest = self.interest.read().unwrap_or_else(PoisonError::into_inner);
        (interest.topics.len(), interest.filters.len())
    }

    /// Every shard was told of what was committed up to this time.
    pub(crate) fn has_hinted(&self, at: Millis) {
        self.hinted.store(at, Ordering::Release);
    }

    /// All that was committed up to this time is in the mailboxes.
    pub(crate) fn hinted(&self) -> Millis {
        self.hinted.load(Ordering::Acquire)
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where these logs end; what is not known is waited for from now on: read it, then say it with [`Self::learn`].
    pub(crate) fn known<'a>(
        &self,
        channels: impl Iterator<Item = &'a Address>,
    ) -> (Vec<Option<Known>>, Asked) {
        let mut heads = self.heads();
        let asked = Asked(heads.turn);
        (channels.map(|channel| heads.ask(channel)).collect(), asked)
    }

    /// The head of a log was read after it was asked for: where the log ends now. `None` = so much was asked for meanwhile that it
    /// may have grown unseen; ask again.
    pub(crate) fn learn(&self, channel: &Address, known: Known, asked: Asked) -> Option<Known> {
        let mut heads = self.heads();
        if heads.turn > asked.0 + 1 {
            return None;
        }
        let place = heads.get_mut(channel)?;
        raise(place, known);
        *place
    }

    /// These logs have grown: called when it is visible, before anybody is told.
    pub(crate) fn grew<'a>(&self, logs: impl Iterator<Item = (&'a Address, Known)>) {
        let mut heads = self.heads();
        if heads.hot.is_empty() && heads.cold.is_empty() {
            return;
        }
        for (channel, known) in logs {
            if let Some(place) = heads.get_mut(channel) {
                raise(place, known);
            }
        }
    }
}

fn raise(place: &mut Option<Known>, new: Known) {
    match place {
        Some(old) if old.epoch == new.epoch => {
            old.last = old.last.max(new.last);
            old.last_at = old.last_at.max(new.last_at);
        }
        _ => *place = Some(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::port::store::Batch;
    use clarion_core::port::store::Change;
    use clarion_store::memory::{MemoryConfig, MemoryStore};

    fn filter(text: &str) -> Address {
        Address::parse_any(&format!("filter:{text}")).unwrap()
    }

    #[test]
    fn keys_round_trip() {
        let long = filter(&"x/".repeat(30_000));
        for channel in [Address::topic("a/\u{fc}").unwrap(), filter("a/+/#"), long] {
            for number in [1, u64::MAX, 0x0000_ff00_0000_0000] {
                let Unit::Record { key, change: Change::Put(value), .. } = entry(&channel, number)
                else {
                    panic!("a record is written");
                };
                assert!(key.len() <= 1024 && key.starts_with(&prefix_of(&channel)));
                assert_eq!(parse(&key, &value), Some((channel.clone(), number)));
            }
        }
        assert_eq!(parse(b"durable/x", b""), None);
    }

    #[test]
    fn topics_and_filters_are_found() {
        let (durable, topic) = (Durable::default(), Address::topic("a/b").unwrap());
        assert!(!durable.has(&topic));
        durable.enter(&filter("a/+"));
        durable.enter(&filter("#"));
        durable.enter(&Address::topic("c").unwrap());
        let mut logs = Vec::new();
        durable.filters_of(&topic, &mut logs);
        logs.sort();
        assert_eq!(logs, [filter("#"), filter("a/+")]);
        assert!(durable.has(&topic) && durable.has_filter(&topic));
        assert_eq!(durable.len(), (1, 2));
    }

    #[test]
    fn a_head_is_known_once_it_was_read_and_then_grows() {
        let (durable, log) = (Durable::default(), filter("#"));
        let known = |last| Known { epoch: 1, last, last_at: last };
        durable.grew([(&log, known(3))].into_iter());
        let (heads, asked) = durable.known([&log].into_iter());
        assert_eq!(heads, [None], "nobody had asked");
        durable.grew([(&log, known(5))].into_iter());
        assert_eq!(durable.learn(&log, known(4), asked), Some(known(5)), "the read was older");
        assert_eq!(durable.known([&log].into_iter()).0, [Some(known(5))]);
    }

    #[test]
    fn heads_are_bounded_and_what_may_have_grown_unseen_is_not_learned() {
        let (durable, log) = (Durable::default(), filter("#"));
        let known = Known { epoch: 1, last: 3, last_at: 3 };
        let asked = durable.known([&log].into_iter()).1;
        let others = |from: usize| (from..from + HEADS).map(|n| filter(&format!("{n}")));
        others(0).for_each(|other| drop(durable.known([&other].into_iter())));
        assert_eq!(durable.learn(&log, known, asked), Some(known), "it is waited for still");
        others(HEADS).for_each(|other| drop(durable.known([&other].into_iter())));
        assert_eq!(durable.learn(&log, known, asked), None);
        let heads = durable.heads();
        assert!(heads.hot.len() + heads.cold.len() <= 2 * HEADS);
    }

    #[tokio::test]
    async fn every_channel_is_found_at_the_start_however_many_read_it() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(MemoryConfig::default()));
        let topic = |n: u64| Address::topic(&format!("t/{n}")).unwrap();
        let wide = |n: u64| filter(&format!("f/{n}/#"));
        let one = (0..3000).map(|n| key(&topic(n), n + 1));
        let many = (0..20).flat_map(|n| (1..=n * 7 + 1).map(move |reader| key(&wide(n), reader)));
        let empty = |key| put(key, Bytes::new());
        let units: Vec<_> = one.chain(many).map(empty).collect();
        store.commit(Batch { now: 1, fence: None, units }).await.unwrap();
        let mut told = 0;
        let durable = Durable::load(&store, |_| told += 1).await.unwrap();
        assert_eq!((durable.len(), told), ((3000, 20), 3020));
    }
}
