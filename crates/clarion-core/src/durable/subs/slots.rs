//! Where the subscriptions of a session are kept: numbered slots, found by filter and by topic.
//!
//! Invariants: free slots are used again before new ones; few subscriptions are scanned, many have an index, which holds no
//! filter twice but those with wildcards. Must not know: what a choice is.

use super::StoredSub;
use crate::{topic, topic_tree::TopicTree};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Above so many there is an index.
pub(super) const SCANNED: usize = 8;
/// The index goes when no more than these are left.
const SCANNED_AGAIN: usize = 4;
/// Slots lie below; what says otherwise is damaged.
const SLOTS_MAX: usize = 1 << 20;

#[derive(Debug, Clone)]
struct Slot {
    sub: StoredSub,
    /// The next one whose filter has the same hash.
    next: u32,
}

const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Index {
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
    pub(super) wild: usize,
    /// How many take part.
    pub(super) unshared: usize,
    /// How many of them have a filter that another one has: a tail and its successor.
    pub(super) twins: usize,
    /// A change has no stamp yet.
    pub(super) pending: bool,
    pub(super) index: Option<Box<Index>>,
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
            *self = Self { pending: self.pending, ..Self::default() };
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
    pub(super) fn matching<'a>(&'a self, topic: &str, mut visit: impl FnMut(u32, &'a StoredSub)) {
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
}
