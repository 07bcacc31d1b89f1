//! The subscriptions of one session that outlives its connections, and the choice among those that overlap.
//!
//! Each subscription of QoS ≥ 1 reads a log of its own: `topic:…` of an exact filter, `filter:…` of one with wildcards. So a
//! message that several of them match is read several times, each at its own time, before and after subscriptions came, went
//! and changed. [`Subs::choose`] is asked each time and lets it through once.
//!
//! Invariants:
//! - Of all subscriptions that a message was published to one *wins*, by what they were at its stamp, never by what they have
//!   become since: so it is the same one whenever it is asked. What a log gives up (`Elsewhere`) the winner's log gives.
//! - In doubt twice, never zero.
//! - For one subscription, and for any number without wildcards, a choice looks nothing up.
//!
//! A message's stamp is ≥ a subscription's `since` exactly if it came after it: stamps never fall, and the batch of a SUBSCRIBE
//! or UNSUBSCRIBE has one above all before. Must not know: who reads, who acks, stored forms.
//!
//! # Tails
//! An UNSUBSCRIBE with something unread behind it makes the subscription a *tail* ([`StoredSub::end`]): it keeps its slot and its
//! cursor and reads its log up to [`Tail::until`] in [`Tail::epoch`] (another epoch: nothing is left of it). With `all` it gives
//! whatever it wins, as one does whose QoS became 0 (a live subscription takes its filter over, in a slot of its own); else only
//! what another own subscription matches as well, since that one has left it to the tail. `find` does not see tails. The same
//! filter subscribed to again takes its tail back ([`StoredSub::revive`]): there is one cursor for a log.
//!
//! A tail says of older messages who wins. So it may go only when *every* log of the session that overlaps with it is read past
//! its stamp, and that is committed: see [`Subs::spent`]. If it goes earlier, what it gave may come twice.

use crate::port::peer::SubOptions;
use crate::topic_tree::TopicTree;
use crate::{Address, Epoch, Millis, Seq, topic};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Above so many there is an index.
const SCANNED: usize = 8;
/// The index goes when no more than these are left.
const SCANNED_AGAIN: usize = 4;
/// Slots lie below; what says otherwise is damaged.
const SLOTS_MAX: usize = 1 << 20;
/// So many changes of QoS are told apart while messages of before may be unread; what is older is in doubt.
const RANKS_MAX: usize = 32;

const RANK_QOS: u8 = 3;
const RANK_NO_LOCAL: u8 = 4;
const RANK_DOUBT: u8 = 8;

/// One subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSub {
    /// What it matches, without `$share/<group>/`.
    pub filter: Box<str>,
    /// The group of a shared one. It takes no part in any choice.
    pub share: Option<Box<str>>,
    /// How it is now.
    pub options: SubOptions,
    /// Stamp of its SUBSCRIBE.
    pub since: Millis,
    /// What it was earlier, each valid for messages with a stamp below (ascending): QoS in two bits, 0 = none at that time;
    /// then No Local; then "in doubt". See [`Self::set_options`].
    pub ranks: Vec<(Millis, u8)>,
    /// It has ended and still gives what was published before.
    pub tail: Option<Tail>,
}

/// What is left of a subscription that ended; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Stamp of its end: it has nothing of this stamp or above.
    pub at: Millis,
    /// The history of its log at its end.
    pub epoch: Epoch,
    /// The head of its log at its end: nothing above is its own.
    pub until: Seq,
    /// It gives all that it wins; else only what another own subscription matches.
    pub all: bool,
}

/// What it was at some stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank(u8);

impl Rank {
    fn of(options: SubOptions) -> Self {
        Self(options.qos & RANK_QOS | if options.no_local { RANK_NO_LOCAL } else { 0 })
    }

    fn qos(self) -> u8 {
        self.0 & RANK_QOS
    }

    /// Whether it is for a message.
    fn takes(self, own: bool) -> bool {
        self.qos() > 0 && !(own && self.0 & RANK_NO_LOCAL != 0)
    }

    fn in_doubt(self) -> bool {
        self.0 & RANK_DOUBT != 0
    }
}

impl StoredSub {
    /// A new one.
    pub fn new(filter: &str, share: Option<&str>, options: SubOptions, since: Millis) -> Self {
        let share = share.map(Into::into);
        Self { filter: filter.into(), share, options, since, ranks: Vec::new(), tail: None }
    }

    /// The log that it reads; `None` for what is none, as `$SYS/…`: nothing is stored there.
    pub fn channel(&self) -> Option<Address> {
        log_of(&self.filter)
    }

    /// Whether it reads a log by itself.
    pub fn is_durable(&self) -> bool {
        self.share.is_none() && (self.options.qos > 0 || self.tail.is_some())
    }

    fn is_current(&self) -> bool {
        self.tail.is_none()
    }

    /// It is subscribed to again, at this stamp, and keeps its cursor: messages before it stay ranked as they were. From QoS 0 on
    /// it begins anew, at the head. To QoS 0: see [`Subs::subscribe`].
    pub fn set_options(&mut self, options: SubOptions, at: Millis) {
        let (old, new) = (Rank::of(self.options), Rank::of(options));
        self.options = options;
        if old.qos() == 0 {
            self.since = at;
            self.ranks = Vec::new();
        } else if old != new && self.share.is_none() {
            self.push_rank(at, old);
        }
    }

    fn push_rank(&mut self, at: Millis, rank: Rank) {
        if self.ranks.last().is_some_and(|(until, _)| *until >= at) {
            // Nothing lies between two changes of one stamp.
            return;
        }
        if self.ranks.len() >= RANKS_MAX {
            self.ranks.remove(0);
            if let Some((_, oldest)) = self.ranks.first_mut() {
                *oldest = RANK_QOS | RANK_DOUBT;
            }
        }
        self.ranks.push((at, rank.0));
    }

    /// It ends, at this stamp, with its log's head there.
    pub fn end(&mut self, tail: Tail) {
        self.tail = Some(tail);
    }

    /// A tail is subscribed to again, at this stamp: it goes on with its cursor. What was published in between is not its own.
    pub fn revive(&mut self, options: SubOptions, at: Millis) {
        let old = Rank::of(self.options);
        if let Some(tail) = self.tail.take() {
            self.push_rank(tail.at, old);
            self.push_rank(at, Rank(0));
        }
        self.options = options;
    }

    /// Every log of the session is read up to this stamp, and that is committed: what it was before is of no use any more.
    pub fn forget_ranks(&mut self, below: Millis) {
        self.ranks.retain(|(until, _)| *until > below);
    }

    fn rank(&self, at: Millis) -> Rank {
        let earlier = self.ranks.iter().find(|(until, _)| *until > at);
        earlier.map_or_else(|| Rank::of(self.options), |(_, rank)| Rank(*rank))
    }

    /// What it was for a message that it did not bring itself; `None` = not there, or not for it.
    fn stood(&self, at: Millis, own: bool) -> Option<Rank> {
        let there = self.since <= at && self.tail.is_none_or(|tail| at < tail.at);
        let rank = self.rank(at);
        (there && rank.takes(own)).then_some(rank)
    }
}

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
    /// From QoS 0: a cursor of it begins at its log's head; or goes on, if it has a tail.
    Raised,
    /// To QoS 0: what it has not read yet becomes a tail.
    Lowered,
}

/// The log of a filter; `None` for what is none.
pub fn log_of(filter: &str) -> Option<Address> {
    if filter.starts_with('$') {
        return None;
    }
    if topic::is_wildcard(filter) {
        Address::parse_any(&["filter:", filter].concat()).ok()
    } else {
        Address::topic(filter).ok()
    }
}

/// How a message goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Through the subscription whose log was read.
    Give(Merged),
    /// Through another one, or not at all: it counts as acked here.
    Elsewhere,
}

/// What the matching subscriptions want together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Granted QoS; a message comes with at most its own.
    pub qos: u8,
    /// One of them wants the retain flag as it was published.
    pub retain_as_published: bool,
    /// None of them is allowed as a whole.
    pub check: bool,
    /// Subscription identifiers of all of them, those of QoS 0 too.
    pub ids: Vec<u32>,
}

impl Merged {
    fn add(&mut self, options: SubOptions) {
        self.retain_as_published |= options.retain_as_published;
        self.check &= options.check;
        if options.id != 0 && !self.ids.contains(&options.id) {
            self.ids.push(options.id);
        }
    }
}

#[derive(Debug, Clone)]
struct Slot {
    sub: StoredSub,
    /// The next one whose filter has the same hash.
    next: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Index {
    hash: RandomState,
    /// The first slot of each hash of a filter.
    first: HashMap<u64, u32>,
    /// Those with wildcards that are not shared.
    wild: TopicTree<Vec<u32>>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Subs {
    slots: Vec<Option<Slot>>,
    /// Slots that were free once.
    free: Vec<u32>,
    len: usize,
    /// How many with wildcards take part in choices.
    wild: usize,
    /// How many take part.
    unshared: usize,
    /// How many of them have a filter that another one has: a tail and its successor.
    twins: usize,
    index: Option<Box<Index>>,
}

impl Subs {
    /// How many there are, tails included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The one in a slot.
    pub fn get(&self, slot: u32) -> Option<&StoredSub> {
        self.slots.get(slot as usize)?.as_ref().map(|slot| &slot.sub)
    }

    /// The one in a slot. Its filter and group stay what they are.
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut StoredSub> {
        self.slots.get_mut(slot as usize)?.as_mut().map(|slot| &mut slot.sub)
    }

    /// All, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &StoredSub)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(i, slot)| Some((i as u32, &slot.as_ref()?.sub)))
    }

    /// The one of this filter and group that has not ended.
    pub fn find(&self, filter: &str, share: Option<&str>) -> Option<u32> {
        self.of_filter(filter)
            .find(|(_, sub)| sub.share.as_deref() == share && sub.is_current())
            .map(|(slot, _)| slot)
    }

    /// The tail of this filter.
    pub fn find_tail(&self, filter: &str) -> Option<u32> {
        let mut those = self.of_filter(filter);
        those.find(|(_, sub)| sub.share.is_none() && !sub.is_current()).map(|(slot, _)| slot)
    }

    /// All of a filter, shared ones too.
    fn of_filter<'a>(&'a self, filter: &'a str) -> impl Iterator<Item = (u32, &'a StoredSub)> {
        let mut chain = NONE;
        let mut scan = 0..0;
        match &self.index {
            Some(index) => {
                let first = index.first.get(&index.hash.hash_one(filter));
                chain = first.copied().unwrap_or(NONE);
            }
            None => scan = 0..self.slots.len() as u32,
        }
        let slots = std::iter::from_fn(move || {
            if chain == NONE {
                return scan.next();
            }
            let slot = chain;
            chain = self.slots.get(slot as usize)?.as_ref()?.next;
            Some(slot)
        });
        let those = slots.filter_map(|slot| Some((slot, self.get(slot)?)));
        those.filter(move |(_, sub)| *sub.filter == *filter)
    }

    /// Puts one into a free slot.
    pub fn insert(&mut self, sub: StoredSub) -> u32 {
        let mut slot = self.slots.len() as u32;
        while let Some(free) = self.free.pop() {
            if self.slots.get(free as usize).is_some_and(Option::is_none) {
                slot = free;
                break;
            }
        }
        self.put(slot, sub);
        slot
    }

    /// Puts one into its slot, as it was stored. A slot beyond all bounds is not taken.
    pub fn put(&mut self, slot: u32, sub: StoredSub) {
        let at = slot as usize;
        if at >= SLOTS_MAX {
            return;
        }
        self.remove(slot);
        if self.slots.is_empty() {
            self.slots.reserve_exact(1);
        }
        while self.slots.len() <= at {
            if self.slots.len() < at {
                self.free.push(self.slots.len() as u32);
            }
            self.slots.push(None);
        }
        self.len += 1;
        self.count(&sub, 1);
        self.slots[at] = Some(Slot { sub, next: NONE });
        if self.index.is_some() {
            self.enter(slot);
        } else if self.len > SCANNED {
            self.index = Some(Box::default());
            (0..self.slots.len() as u32).for_each(|slot| self.enter(slot));
        }
    }

    /// Takes one out.
    pub fn remove(&mut self, slot: u32) -> Option<StoredSub> {
        self.leave(slot);
        let Slot { sub, .. } = self.slots.get_mut(slot as usize)?.take()?;
        self.len -= 1;
        self.count(&sub, -1);
        while self.slots.pop_if(|last| last.is_none()).is_some() {}
        if (slot as usize) < self.slots.len() {
            self.free.push(slot);
        }
        if self.len <= SCANNED_AGAIN {
            self.index = None;
        }
        if self.len == 0 {
            *self = Self::default();
        }
        Some(sub)
    }

    /// `sub` comes or goes; it is in no slot.
    fn count(&mut self, sub: &StoredSub, by: isize) {
        if sub.share.is_some() {
            return;
        }
        let others = self.of_filter(&sub.filter).filter(|(_, other)| other.share.is_none()).count();
        let add = |n: &mut usize| *n = n.saturating_add_signed(by);
        add(&mut self.unshared);
        if topic::is_wildcard(&sub.filter) {
            add(&mut self.wild);
        }
        if others > 0 {
            add(&mut self.twins);
        }
    }

    /// Into the index.
    fn enter(&mut self, slot: u32) {
        let Some(index) = &mut self.index else { return };
        let Some(Some(Slot { sub, next })) = self.slots.get_mut(slot as usize) else { return };
        let first = index.first.entry(index.hash.hash_one(&*sub.filter)).or_insert(NONE);
        *next = std::mem::replace(first, slot);
        if sub.share.is_none() && topic::is_wildcard(&sub.filter) {
            index.wild.entry(&sub.filter).push(slot);
        }
    }

    /// Out of the index.
    fn leave(&mut self, slot: u32) {
        let Some(index) = &mut self.index else { return };
        let Some(Some(Slot { sub, next })) = self.slots.get(slot as usize) else { return };
        let (hash, behind) = (index.hash.hash_one(&*sub.filter), *next);
        if let Some(slots) = index.wild.get_mut(&sub.filter).filter(|_| sub.share.is_none()) {
            slots.retain(|other| *other != slot);
            if slots.is_empty() {
                index.wild.remove(&sub.filter);
            }
        }
        let Some(first) = index.first.get_mut(&hash) else { return };
        if *first == slot {
            *first = behind;
            if behind == NONE {
                index.first.remove(&hash);
            }
            return;
        }
        let mut at = *first;
        while let Some(Some(before)) = self.slots.get_mut(at as usize) {
            if before.next == slot {
                before.next = behind;
                return;
            }
            at = before.next;
        }
    }

    /// Visits those that match a topic and are not shared.
    fn matching<'a>(&'a self, topic: &str, mut visit: impl FnMut(u32, &'a StoredSub)) {
        let Some(index) = &self.index else {
            for (slot, sub) in self.iter() {
                if sub.share.is_none() && topic::matches(&sub.filter, topic) {
                    visit(slot, sub);
                }
            }
            return;
        };
        if self.unshared > self.wild {
            let first = index.first.get(&index.hash.hash_one(topic));
            let mut chain = first.copied().unwrap_or(NONE);
            while let Some(Some(Slot { sub, next })) = self.slots.get(chain as usize) {
                if sub.share.is_none() && *sub.filter == *topic {
                    visit(chain, sub);
                }
                chain = *next;
            }
        }
        index.wild.matches(topic, |slots| {
            for &slot in slots {
                if let Some(sub) = self.get(slot) {
                    visit(slot, sub);
                }
            }
        });
    }

    /// How the message that was read through `slot` goes out. `at` = its stamp; `own`: this client id published it.
    pub fn choose(&self, slot: u32, topic: &str, at: Millis, own: bool) -> Choice {
        let Some(this) = self.get(slot) else { return Choice::Elsewhere };
        // What is in its log came after it, whatever `since` says: somebody may have moved its cursor back.
        let rank = this.rank(at);
        if !rank.takes(own) || this.tail.is_some_and(|tail| at >= tail.at) {
            return Choice::Elsewhere;
        }
        let mut merged = Merged {
            qos: this.options.qos,
            retain_as_published: false,
            check: true,
            ids: Vec::new(),
        };
        merged.add(this.options);
        let ended = this.tail.filter(|tail| !tail.all).is_some();
        let alone = self.unshared == 1 || self.wild == 0 && self.twins == 0;
        if alone {
            return if ended { Choice::Elsewhere } else { Choice::Give(merged) };
        }
        let (mut wins, mut doubt, mut wanted) = (true, rank.in_doubt(), !ended);
        self.matching(topic, |other, sub| {
            if other == slot {
                return;
            }
            if sub.is_current() && !(own && sub.options.no_local) {
                merged.add(sub.options);
            }
            let Some(others) = sub.stood(at, own) else { return };
            doubt |= others.in_doubt();
            wanted |= sub.tail.is_none_or(|tail| tail.all);
            let better = others.qos().cmp(&rank.qos());
            wins &= better.then((this.since, slot).cmp(&(sub.since, other))).is_lt();
        });
        if wanted && (wins || doubt) { Choice::Give(merged) } else { Choice::Elsewhere }
    }

    /// Whether one of QoS ≥ 1 matches that has not ended: the session reads what is stored on this topic from a log.
    pub fn has_durable(&self, topic: &str) -> bool {
        let mut has = false;
        self.matching(topic, |_, sub| has |= sub.is_current() && sub.options.qos > 0);
        has
    }

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
        let sub = self.get(slot)?;
        // Alone it leaves nothing: there is no other one for whose sake it would give anything.
        let remains = sub.is_durable() && self.unshared > 1 && sub.channel().is_some();
        if remains {
            self.end(slot, Tail { at, epoch: head.0, until: head.1, all: false });
        } else {
            self.remove(slot);
        }
        Some(slot)
    }

    /// The tails that may go. `read` says of a slot below which stamp everything in its log is read and committed as acked.
    pub fn spent(&self, read: impl Fn(u32) -> Millis) -> Vec<u32> {
        if self.iter().all(|(_, sub)| sub.is_current()) {
            return Vec::new();
        }
        let logs = self.iter().filter(|(_, sub)| sub.is_durable() && sub.channel().is_some());
        let least = logs.map(|(slot, _)| read(slot)).min().unwrap_or(Millis::MAX);
        let past = |sub: &StoredSub| sub.tail.is_some_and(|tail| tail.at <= least);
        self.iter().filter(|(_, sub)| past(sub)).map(|(slot, _)| slot).collect()
    }
}

#[cfg(test)]
mod tests;
