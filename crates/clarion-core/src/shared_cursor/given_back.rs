//! What came back from members that broke: a set of seqs as runs, since a whole settling time of messages may come back
//! at once. All of them may be handed out again now, and count as handed out once.
//!
//! Invariants: runs are disjoint and not adjacent. Must not know: leases, time.

use crate::Seq;
use std::collections::BTreeMap;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenBack {
    /// First → last seq of each run.
    runs: BTreeMap<Seq, Seq>,
    len: u64,
}

impl GivenBack {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn first(&self) -> Option<Seq> {
        self.runs.first_key_value().map(|(from, _)| *from)
    }

    /// The run that this seq is in.
    fn run_of(&self, seq: Seq) -> Option<(Seq, Seq)> {
        let (from, to) = self.runs.range(..=seq).next_back()?;
        (*to >= seq).then_some((*from, *to))
    }

    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.run_of(seq).is_some()
    }

    pub(super) fn insert(&mut self, mut from: Seq, mut to: Seq) {
        while let Some((&start, &end)) = self.runs.range(..=to + 1).next_back()
            && end + 1 >= from
        {
            self.take(start, end);
            (from, to) = (from.min(start), to.max(end));
        }
        self.put(from, to);
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, seq: Seq) -> bool {
        let Some((from, to)) = self.run_of(seq) else { return false };
        self.take(from, to);
        self.put(from, seq - 1);
        self.put(seq + 1, to);
        true
    }

    /// Removes everything below `first`.
    pub(super) fn cut_below(&mut self, first: Seq) {
        while let Some((&from, &to)) = self.runs.first_key_value()
            && from < first
        {
            self.take(from, to);
            self.put(from.max(first), to);
        }
    }

    fn take(&mut self, from: Seq, to: Seq) {
        self.runs.remove(&from);
        self.len -= to - from + 1;
    }

    /// An empty run is none.
    fn put(&mut self, from: Seq, to: Seq) {
        if from <= to {
            self.runs.insert(from, to);
            self.len += to - from + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((0u8..4, 1u64..40, 0u64..5), 1..60)) {
            let (mut set, mut model) = (GivenBack::default(), BTreeSet::new());
            for (step, seq, more) in steps {
                match step {
                    0 | 1 => {
                        set.insert(seq, seq + more);
                        model.extend(seq..=seq + more);
                    }
                    2 => prop_assert_eq!(set.remove(seq), model.remove(&seq)),
                    _ => {
                        set.cut_below(seq / 4);
                        model = model.split_off(&(seq / 4));
                    }
                }
                prop_assert_eq!((set.len(), set.first()), (model.len() as u64, model.first().copied()));
                for seq in 1..50 {
                    prop_assert_eq!(set.contains(seq), model.contains(&seq));
                }
                let runs: Vec<_> = set.runs.iter().collect();
                prop_assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < *pair[1].0));
            }
        }
    }
}
