//! Which pages to read next for the subscriptions that are behind (design §8).
//!
//! Invariants: at most `bound` reads are under way; first asked, first read; subscriptions at one position share a
//! read. Must not know: stores, sessions; a waiter is whatever key the caller uses.

use crate::{Address, Seq, mutant};
use std::collections::{HashMap, VecDeque};

/// A read: a channel from a seq on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageKey {
    /// Which log.
    pub channel: Address,
    /// The first seq.
    pub from: Seq,
}

/// See the module. `W` names a waiting subscription.
#[derive(Debug)]
pub struct CatchUp<W> {
    bound: usize,
    waiting: VecDeque<PageKey>,
    waiters: HashMap<PageKey, Vec<W>>,
    under_way: usize,
}

impl<W> CatchUp<W> {
    /// At most `bound` reads under way.
    pub fn new(bound: usize) -> Self {
        Self {
            bound: bound.max(1),
            waiting: VecDeque::new(),
            waiters: HashMap::new(),
            under_way: 0,
        }
    }

    /// A subscription wants the page that starts here. Joins a read that is waiting or under way.
    pub fn ask(&mut self, channel: &Address, from: Seq, waiter: W) {
        let key = PageKey { channel: channel.clone(), from };
        let waiters = self.waiters.entry(key.clone()).or_insert_with(|| {
            self.waiting.push_back(key);
            Vec::new()
        });
        waiters.push(waiter);
    }

    /// The next read to begin, if one may.
    pub fn begin(&mut self) -> Option<PageKey> {
        if self.under_way >= self.bound && !mutant!("reads_unbounded") {
            return None;
        }
        let key = self.waiting.pop_front()?;
        self.under_way += 1;
        Some(key)
    }

    /// A read that was begun is over: who waited for it.
    pub fn end(&mut self, key: &PageKey) -> Vec<W> {
        self.under_way -= 1;
        self.waiters.remove(key).unwrap_or_default()
    }

    /// Whether a read waits to begin and may.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.under_way < self.bound
    }

    /// Reads under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_shared_bounded_and_in_order() {
        let (a, b) = (Address::user("a").unwrap(), Address::user("b").unwrap());
        let mut catch_up = CatchUp::new(1);
        catch_up.ask(&a, 1, 'x');
        catch_up.ask(&b, 1, 'y');
        catch_up.ask(&a, 1, 'z');
        let first = catch_up.begin().unwrap();
        assert_eq!(first.channel, a);
        assert_eq!(catch_up.begin(), None);
        catch_up.ask(&a, 1, 'w');
        assert_eq!(catch_up.end(&first), ['x', 'z', 'w']);
        let second = catch_up.begin().unwrap();
        assert_eq!(second.channel, b);
        catch_up.ask(&a, 1, 'v');
        assert_eq!(catch_up.end(&second), ['y']);
        assert_eq!(catch_up.begin().map(|key| key.channel), Some(a));
    }
}
