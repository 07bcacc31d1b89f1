//! How many stored sessions there are.
//!
//! The store does not know; those that an earlier run left are counted once, page by page, while others are made and end.
//! Invariant: a session counts once, whether it is found, made or both, and not when it has ended. Must not know: the store.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
pub(super) struct Count(Mutex<State>);

enum State {
    /// The numbers that are there, as far as they are known, and those that have ended since the start.
    Counting {
        there: HashSet<u64>,
        ended: HashSet<u64>,
    },
    Counted(usize),
}

impl Default for Count {
    fn default() -> Self {
        Self(Mutex::new(State::Counting { there: HashSet::new(), ended: HashSet::new() }))
    }
}

impl Count {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One was made.
    pub(super) fn born(&self, number: u64) {
        match &mut *self.state() {
            State::Counting { there, ended } => {
                if !ended.contains(&number) {
                    there.insert(number);
                }
            }
            State::Counted(count) => *count += 1,
        }
    }

    /// One has ended.
    pub(super) fn gone(&self, number: u64) {
        match &mut *self.state() {
            State::Counting { there, ended } => {
                there.remove(&number);
                ended.insert(number);
            }
            State::Counted(count) => *count = count.saturating_sub(1),
        }
    }

    /// These were found in the store.
    pub(super) fn found(&self, numbers: impl Iterator<Item = u64>) {
        if let State::Counting { there, ended } = &mut *self.state() {
            there.extend(numbers.filter(|number| !ended.contains(number)));
        }
    }

    /// All that were there have been found.
    pub(super) fn all_found(&self) {
        let mut state = self.state();
        if let State::Counting { there, .. } = &*state {
            *state = State::Counted(there.len());
        }
    }

    /// How many; `None` until all have been found.
    pub(super) fn get(&self) -> Option<usize> {
        match &*self.state() {
            State::Counting { .. } => None,
            State::Counted(count) => Some(*count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counts_once_while_they_are_found() {
        let count = Count::default();
        count.found([1, 2, 3].into_iter());
        count.born(10);
        count.gone(2);
        count.gone(7);
        // Found after it was made; found after it ended, by a read from before; ended before it could be found.
        count.found([10, 7, 8].into_iter());
        assert_eq!(count.get(), None);
        count.all_found();
        assert_eq!(count.get(), Some(4), "1, 3, 8 and 10");
        count.born(11);
        count.gone(1);
        count.gone(8);
        count.all_found();
        assert_eq!(count.get(), Some(3));
    }
}
