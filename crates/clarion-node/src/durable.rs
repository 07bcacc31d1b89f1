//! Durable interest: which topics and filters somebody reads who may come back later, and where their logs end.
//!
//! The records `durable/<address>\0<number>` are the truth, one for each channel and reader; this is their image, complete before
//! a listener accepts. A channel enters before the commit that makes somebody read it, and leaves only when nobody has entered
//! since its records were found to be gone; so it never lacks what a commit says. Invariants: as above; `heads` are never ahead
//! of what is visible. Must not know: who reads.

use crate::node::store_refusal;
use crate::shares::Groups;
use bytes::Bytes;
use clarion_core::port::store::{Head, Store};
use clarion_core::topic_tree::TopicTree;
use clarion_core::{Address, AddressKind, Epoch, Millis, Refusal, Seq};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub(crate) const PREFIX: &[u8] = b"durable/";

/// The record that says that a reader of this number reads the channel.
pub(crate) fn key(channel: &Address, number: u64) -> Bytes {
    [&prefix_of(channel), &number.to_be_bytes()[..]].concat().into()
}

/// What the keys of a channel begin with.
pub(crate) fn prefix_of(channel: &Address) -> Vec<u8> {
    [PREFIX, channel.as_str().as_bytes(), b"\0"].concat()
}

/// The channel and number of such a key.
pub(crate) fn parse_key(key: &[u8]) -> Option<(Address, u64)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (text, number) = rest.split_at_checked(rest.len().checked_sub(9)?)?;
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

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Durable {
    interest: RwLock<Interest>,
    /// Logs of sessions that were here since the start; `None` = its head was not read yet.
    heads: Mutex<HashMap<Address, Option<Known>>>,
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
        let mut after: Option<Bytes> = None;
        loop {
            // One record of each channel is enough: the next look begins behind all of its readers.
            let prefix = Bytes::from_static(PREFIX);
            let found = store.records(prefix, after, 1).await.map_err(store_refusal)?;
            let Some(record) = found.first() else { return Ok(durable) };
            match parse_key(&record.key) {
                Some((channel, _)) => {
                    each(&channel);
                    durable.enter(&channel);
                    let behind = [&prefix_of(&channel), &[0xff; 9][..]].concat();
                    after = Some(behind.into());
                }
                None => after = Some(record.key.clone()),
            }
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

    fn heads(&self) -> MutexGuard<'_, HashMap<Address, Option<Known>>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where these logs end; what is not known is waited for from now on: read it, then say it with [`Self::learn`].
    pub(crate) fn known<'a>(
        &self,
        channels: impl Iterator<Item = &'a Address>,
    ) -> Vec<Option<Known>> {
        let mut heads = self.heads();
        channels
            .map(|channel| match heads.get(channel) {
                Some(known) => *known,
                None => {
                    heads.insert(channel.clone(), None);
                    None
                }
            })
            .collect()
    }

    /// The head of a log was read.
    pub(crate) fn learn(&self, channel: &Address, known: Known) {
        raise(self.heads().entry(channel.clone()).or_default(), known);
    }

    /// These logs have grown: called when it is visible, before anybody is told.
    pub(crate) fn grew<'a>(&self, logs: impl Iterator<Item = (&'a Address, Known)>) {
        let mut heads = self.heads();
        if heads.is_empty() {
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

    fn filter(text: &str) -> Address {
        Address::parse_any(&format!("filter:{text}")).unwrap()
    }

    #[test]
    fn keys_round_trip() {
        for channel in [Address::topic("a/\u{fc}").unwrap(), filter("a/+/#")] {
            for number in [1, u64::MAX, 0x0000_ff00_0000_0000] {
                assert_eq!(parse_key(&key(&channel, number)), Some((channel.clone(), number)));
            }
        }
        assert_eq!(parse_key(b"durable/x"), None);
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
        assert_eq!(durable.known([&log].into_iter()), [None], "nobody had asked");
        durable.grew([(&log, known(5))].into_iter());
        durable.learn(&log, known(4));
        assert_eq!(durable.known([&log].into_iter()), [Some(known(5))], "the read was older");
    }
}
