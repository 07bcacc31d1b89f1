//! How subscriptions come, change and go, by SUBSCRIBE and UNSUBSCRIBE.

use super::{PENDING, StoredSub, Subs, Tail, log_of};
use crate::port::peer::SubOptions;
use crate::{Epoch, Millis, Seq, mutant, topic};

/// What a SUBSCRIBE comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribing {
    /// It did not exist. `starts`: a cursor of it begins at its log's head.
    New {
        /// It has a log.
        starts: bool,
    },
    /// It did not exist, but its tail does: that goes on, with its cursor.
    Revived,
    /// It goes on with other options, and with its cursor if it has one.
    Changed,
    /// From QoS 0: a cursor of it, if it has a log, begins at its head; or goes on, if it has a tail.
    Raised,
    /// To QoS 0: what it has not read yet becomes a tail.
    Lowered,
}

impl Subs {
    /// What [`Self::subscribe`] will do.
    pub fn subscribing(&self, filter: &str, share: Option<&str>, qos: u8) -> Subscribing {
        let has_tail = share.is_none() && self.find_tail(filter).is_some();
        let old = self.find(filter, share).and_then(|slot| self.get(slot));
        match old {
            _ if share.is_some() => match old {
                None => Subscribing::New { starts: false },
                Some(_) => Subscribing::Changed,
            },
            None if qos > 0 && has_tail => Subscribing::Revived,
            None => Subscribing::New { starts: qos > 0 && log_of(filter).is_some() },
            Some(old) if old.options.qos == 0 && qos > 0 => Subscribing::Raised,
            Some(old) if old.options.qos > 0 && qos == 0 => Subscribing::Lowered,
            Some(_) => Subscribing::Changed,
        }
    }

    /// A SUBSCRIBE of this stamp; `head` = epoch and last seq of its log there. Returns its slot, and that of a tail which it left,
    /// or the one that is free now because it took its tail back: both changed.
    pub fn subscribe(
        &mut self,
        filter: &str,
        share: Option<&str>,
        options: SubOptions,
        at: Millis,
        head: (Epoch, Seq),
    ) -> (u32, Option<u32>) {
        self.pending |= at == PENDING;
        let what = self.subscribing(filter, share, options.qos);
        let old = self.find(filter, share);
        let tail = self.find_tail(filter).filter(|_| share.is_none());
        match (what, old, tail) {
            (Subscribing::Revived, _, Some(tail)) => {
                self.revive(tail, options, at);
                (tail, None)
            }
            (Subscribing::Raised, Some(old), Some(tail)) => {
                self.remove(old);
                self.revive(tail, options, at);
                (tail, Some(old))
            }
            (Subscribing::Lowered, Some(old), _) => {
                let log = self.get(old).and_then(StoredSub::channel);
                if log.is_none() {
                    self.change(old, options, at);
                    return (old, None);
                }
                self.end(old, Tail { at, epoch: head.0, until: head.1, all: true });
                let live = self.insert(StoredSub::new(filter, None, options, at));
                (live, Some(old))
            }
            (_, Some(old), _) => {
                self.change(old, options, at);
                (old, None)
            }
            (_, None, _) => (self.insert(StoredSub::new(filter, share, options, at)), None),
        }
    }

    fn change(&mut self, slot: u32, options: SubOptions, at: Millis) {
        if let Some(sub) = self.get_mut(slot) {
            sub.set_options(options, at);
        }
    }

    fn revive(&mut self, slot: u32, options: SubOptions, at: Millis) {
        if let Some(sub) = self.get_mut(slot) {
            sub.revive(options, at);
        }
    }

    fn end(&mut self, slot: u32, tail: Tail) {
        if let Some(sub) = self.get_mut(slot) {
            sub.end(tail);
        }
    }

    /// An UNSUBSCRIBE of this stamp; `head` as for [`Self::subscribe`]. Returns the slot that changed; it is free if nothing
    /// remains. `None`: there was none.
    pub fn unsubscribe(
        &mut self,
        filter: &str,
        share: Option<&str>,
        at: Millis,
        head: (Epoch, Seq),
    ) -> Option<u32> {
        let slot = self.find(filter, share)?;
        self.pending |= at == PENDING;
        let sub = self.get(slot)?;
        // Alone it leaves nothing: there is no other one for whose sake it would give anything.
        let remains = sub.is_durable() && sub.channel().is_some() && self.has_others(slot, filter);
        if remains {
            self.end(slot, Tail { at, epoch: head.0, until: head.1, all: false });
        } else {
            self.remove(slot);
        }
        Some(slot)
    }

    /// The changes of these slots were made before their stamp was known ([`PENDING`]): it is this one.
    pub fn settle(&mut self, slots: impl IntoIterator<Item = u32>, at: Millis) {
        self.pending = false;
        for slot in slots {
            if let Some(sub) = self.get_mut(slot) {
                sub.settle(at);
            }
        }
    }

    /// Whether another one with a log may match something of this filter.
    fn has_others(&self, slot: u32, filter: &str) -> bool {
        if topic::is_wildcard(filter) {
            return self.unshared > 1;
        }
        let mut has = false;
        self.matching(filter, |other, sub| has |= other != slot && sub.is_durable());
        has
    }

    /// The tails that may go. `read` says of a slot below which stamp everything in its log is read and committed as acked.
    pub fn spent(&self, read: impl Fn(u32) -> Millis) -> Vec<u32> {
        if self.iter().all(|(_, sub)| sub.is_current()) {
            return Vec::new();
        }
        let logs = self.iter().filter(|(_, sub)| sub.is_durable() && sub.channel().is_some());
        let least = logs.map(|(slot, _)| read(slot)).min();
        let least = least.filter(|_| !mutant!("tail_spent_early")).unwrap_or(Millis::MAX);
        let past = |sub: &StoredSub| sub.tail.is_some_and(|tail| tail.at <= least);
        self.iter().filter(|(_, sub)| past(sub)).map(|(slot, _)| slot).collect()
    }
}
