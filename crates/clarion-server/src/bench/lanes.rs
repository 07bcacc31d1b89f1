//! What one stream has got of each publisher's numbered messages: lost, repeated, out of order.
//!
//! Invariant: a number that is skipped counts as missing until it comes after all. Must not know: how messages travel.

use super::meter::Faults;

/// One stream's account.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    next: u32,
    missing: Vec<(u32, u32)>,
    repeated: u64,
    reordered: u64,
}

impl Lanes {
    pub(super) fn new(lanes: usize) -> Self {
        Self { lanes: vec![Lane::default(); lanes] }
    }

    /// Takes a message into account. Answers how many messages of this lane are settled by it for the first time: itself,
    /// and those that it shows to be missing; 0 for a repetition.
    pub(super) fn take(&mut self, lane: u32, number: u32) -> u64 {
        let Some(lane) = self.lanes.get_mut(lane as usize) else { return 0 };
        if number >= lane.next {
            let skipped = number - lane.next;
            if skipped > 0 {
                lane.missing.push((lane.next, number - 1));
            }
            lane.next = number + 1;
            return u64::from(skipped) + 1;
        }
        match lane.missing.iter().position(|(from, to)| (*from..=*to).contains(&number)) {
            None => lane.repeated += 1,
            Some(i) => {
                lane.reordered += 1;
                let (from, to) = lane.missing.swap_remove(i);
                lane.missing.extend(
                    [(from, number.wrapping_sub(1)), (number + 1, to)].into_iter().filter(
                        |(a, b)| (from..=to).contains(a) && (from..=to).contains(b) && a <= b,
                    ),
                );
            }
        }
        0
    }

    /// The sums, once `sent` messages of each lane were published.
    pub(super) fn faults(&self, sent: &[u32]) -> Faults {
        let mut faults = Faults::default();
        for (lane, sent) in self.lanes.iter().zip(sent) {
            let skipped: u64 = lane.missing.iter().map(|(from, to)| u64::from(to - from) + 1).sum();
            faults.lost += skipped + u64::from(sent.saturating_sub(lane.next));
            faults.repeated += lane.repeated;
            faults.reordered += lane.reordered;
        }
        faults
    }
}

#[cfg(test)]
mod tests;
