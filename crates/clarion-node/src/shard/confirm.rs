//! Confirmations of acks: who is told when what he acked is committed.
//!
//! Invariant: a confirmation is given after a flush that began after its acks, or at once when nothing was unwritten.

use super::SessionKey;

/// The number of a confirmation that no client asks for: the session ends with it.
pub(super) const FINISH: u64 = 0;

/// Confirmations that wait for flushes of one cursor or set of cursors.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    /// For the next flush.
    next: Vec<(SessionKey, u64)>,
    /// For the one under way.
    now: Vec<(SessionKey, u64)>,
}

/// What a confirmation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwritten {
    /// Nothing: all is committed.
    Nothing,
    /// The flush under way.
    UnderWay,
    /// A flush that has not begun.
    Dirty,
}

impl Confirms {
    /// Asks for one. Returns whether it can be given at once.
    pub(super) fn ask(&mut self, key: SessionKey, number: u64, unwritten: Unwritten) -> bool {
        match unwritten {
            Unwritten::Nothing => return true,
            Unwritten::UnderWay => self.now.push((key, number)),
            Unwritten::Dirty => self.next.push((key, number)),
        }
        false
    }

    /// A flush begins.
    pub(super) fn flush_began(&mut self) {
        self.now.append(&mut self.next);
    }

    /// The flush is over; returns whom to tell.
    pub(super) fn flush_ended(&mut self, committed: bool) -> Vec<(SessionKey, u64)> {
        if committed {
            return std::mem::take(&mut self.now);
        }
        let later = std::mem::take(&mut self.next);
        self.next = std::mem::take(&mut self.now);
        self.next.extend(later);
        Vec::new()
    }

    /// Whether somebody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.next.is_empty() && self.now.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_flush_confirms_nothing_and_the_next_one_all() {
        let key = SessionKey { index: 1, generation: 1 };
        let mut confirms = Confirms::default();
        assert!(confirms.ask(key, 1, Unwritten::Nothing));
        assert!(!confirms.ask(key, 2, Unwritten::Dirty));
        confirms.flush_began();
        assert!(
            !confirms.ask(key, 3, Unwritten::Dirty) && !confirms.ask(key, 4, Unwritten::UnderWay)
        );
        assert!(confirms.flush_ended(false).is_empty() && !confirms.is_empty());
        confirms.flush_began();
        let numbers: Vec<u64> = confirms.flush_ended(true).iter().map(|(_, n)| *n).collect();
        assert_eq!(numbers, [2, 4, 3]);
        assert!(confirms.is_empty());
    }
}
