//! A cursor: what one reader has acked of one channel, as a floor and runs above it.
//!
//! Invariants: every seq ≤ `floor` is acked; `runs` are sorted, disjoint, not adjacent to each other nor to the floor;
//! merging is commutative, associative and idempotent and never goes backwards. Must not know: who the reader is.

use crate::{Seq, mutant};

/// Seqs have 42 bits (see [`crate::MessageId`]); what lies above is damage.
const SEQ_END: Seq = 1 << 43;

/// Most runs a cursor holds above its floor (one ack in two of a window of 65,535).
pub const RUNS_MAX: usize = 32_768;

/// Acked: everything up to the floor, and the runs (inclusive) above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    floor: Seq,
    runs: Vec<(Seq, Seq)>,
}

impl Cursor {
    /// Everything up to `floor` is acked, nothing above.
    pub fn at(floor: Seq) -> Self {
        Self { floor, runs: Vec::new() }
    }

    /// All acked up to here.
    pub fn floor(&self) -> Seq {
        self.floor
    }

    /// Acked runs above the floor, inclusive, ascending.
    pub fn runs(&self) -> &[(Seq, Seq)] {
        &self.runs
    }

    /// The last seq that is acked.
    pub fn top(&self) -> Seq {
        self.runs.last().map_or(self.floor, |&(_, to)| to)
    }

    /// Whether this seq is acked.
    pub fn is_acked(&self, seq: Seq) -> bool {
        seq <= self.floor || {
            let i = self.runs.partition_point(|&(_, to)| to < seq);
            self.runs.get(i).is_some_and(|&(from, _)| from <= seq)
        }
    }

    /// The first seq ≥ `from` that is not acked.
    pub fn next_unacked(&self, from: Seq) -> Seq {
        let from = from.max(self.floor + 1);
        let i = self.runs.partition_point(|&(_, to)| to < from);
        match self.runs.get(i) {
            Some(&(start, to)) if start <= from => to + 1,
            _ => from,
        }
    }

    /// How many seqs up to `head` are not acked.
    pub fn unacked(&self, head: Seq) -> u64 {
        let above: u64 = self
            .runs
            .iter()
            .take_while(|&&(from, _)| from <= head)
            .map(|&(from, to)| to.min(head) - from + 1)
            .sum();
        head.saturating_sub(self.floor) - above
    }

    /// Acks one seq. Returns whether anything changed.
    pub fn ack(&mut self, seq: Seq) -> bool {
        self.ack_run(seq, seq)
    }

    /// Acks everything up to `seq`. Returns whether anything changed.
    pub fn ack_to(&mut self, seq: Seq) -> bool {
        if mutant!("ack_merged_backwards") {
            let changed = seq != self.floor;
            *self = Self::at(seq);
            return changed;
        }
        seq > self.floor && {
            self.floor = seq;
            self.settle();
            true
        }
    }

    /// Acks `from..=to`. Returns whether anything changed. A run that would exceed [`RUNS_MAX`] is not taken: it
    /// stays unacked, so it may be delivered again, never lost.
    pub fn ack_run(&mut self, from: Seq, to: Seq) -> bool {
        let from = from.max(1);
        if to < from || to <= self.floor {
            return false;
        }
        if from <= self.floor + 1 {
            return self.ack_to(to);
        }
        // The runs that touch from..=to: those that end at from-1 or later and start at to+1 or earlier.
        let first = self.runs.partition_point(|&(_, end)| end + 1 < from);
        let behind = self.runs.partition_point(|&(start, _)| start <= to + 1);
        if first == behind {
            if self.runs.len() >= RUNS_MAX {
                return false;
            }
            self.runs.insert(first, (from, to));
            return true;
        }
        let merged = (from.min(self.runs[first].0), to.max(self.runs[behind - 1].1));
        let changed = behind - first > 1 || merged != self.runs[first];
        self.runs.drain(first + 1..behind);
        self.runs[first] = merged;
        changed
    }

    /// Acks these runs (inclusive, ascending) in one pass over both lists, where single acks would move the list for
    /// each. Returns whether anything changed. The bound is that of [`Self::ack_run`].
    pub fn ack_runs(&mut self, runs: &[(Seq, Seq)]) -> bool {
        match *runs {
            [] => return false,
            [(from, to)] => return self.ack_run(from, to),
            _ => {}
        }
        let mut all = [&self.runs, runs].concat();
        // Two ascending lists one after the other: a stable sort merges them.
        all.sort();
        let mut merged = Self::at(self.floor);
        for (from, to) in all {
            match merged.runs.last_mut() {
                _ if from > to => {}
                None if from <= merged.floor + 1 => merged.floor = merged.floor.max(to),
                Some(last) if from <= last.1 + 1 => last.1 = last.1.max(to),
                _ => merged.runs.push((from, to)),
            }
        }
        if merged.runs.len() <= RUNS_MAX {
            let changed = merged != *self;
            *self = merged;
            return changed;
        }
        let mut changed = false;
        for &(from, to) in runs {
            changed |= self.ack_run(from, to);
        }
        changed
    }

    /// The first stretch of unacked seqs at or above `from`: where it begins, and where it ends if something above is
    /// acked.
    pub fn next_hole(&self, from: Seq) -> (Seq, Option<Seq>) {
        let start = self.next_unacked(from);
        let i = self.runs.partition_point(|&(from, _)| from < start);
        (start, self.runs.get(i).map(|&(from, _)| from - 1))
    }

    /// Takes over everything that `other` has acked. Returns whether anything changed.
    pub fn merge(&mut self, other: &Self) -> bool {
        self.ack_to(other.floor) | self.ack_runs(&other.runs)
    }

    /// Runs that the floor reached or touches become part of it.
    fn settle(&mut self) {
        let mut swallowed = 0;
        for &(from, to) in &self.runs {
            if from > self.floor + 1 {
                break;
            }
            self.floor = self.floor.max(to);
            swallowed += 1;
        }
        self.runs.drain(..swallowed);
    }

    /// Appends the stored form: floor, then runs or a bitmap over the window, whichever is shorter.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.floor);
        let mut runs = Vec::new();
        let mut last = self.floor;
        for &(from, to) in &self.runs {
            put_varint(&mut runs, from - last);
            put_varint(&mut runs, to - from);
            last = to;
        }
        let window = self.top() - self.floor;
        if runs.len() as u64 > window.div_ceil(8) {
            let mut bits = vec![0u8; window.div_ceil(8) as usize];
            for &(from, to) in &self.runs {
                for seq in from..=to {
                    let bit = seq - self.floor - 1;
                    bits[(bit / 8) as usize] |= 1 << (bit % 8);
                }
            }
            out.push(FORM_BITMAP);
            out.extend_from_slice(&bits);
        } else {
            out.push(FORM_RUNS);
            out.extend_from_slice(&runs);
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` when it is damaged.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut cursor = Self::at(get_varint(&mut bytes).filter(|floor| *floor < SEQ_END)?);
        let (form, mut rest) = bytes.split_first()?;
        match *form {
            FORM_RUNS => {
                let mut last = cursor.floor;
                while !rest.is_empty() {
                    let from = last.checked_add(get_varint(&mut rest)?)?;
                    let to = from.checked_add(get_varint(&mut rest)?)?;
                    // Adjacent runs are never written, so a step of 0 or 1 is damage.
                    if from <= last + 1 || to >= SEQ_END {
                        return None;
                    }
                    cursor.runs.push((from, to));
                    last = to;
                }
            }
            FORM_BITMAP => {
                let floor = cursor.floor;
                for (i, byte) in rest.iter().enumerate() {
                    for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                        cursor.ack(floor.checked_add(1 + 8 * i as u64 + bit)?);
                    }
                }
            }
            _ => return None,
        }
        Some(cursor)
    }
}

const FORM_RUNS: u8 = 0;
const FORM_BITMAP: u8 = 1;

/// Appends a LEB128 number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 number off the front; `None` when it is cut short or above u64.
pub fn get_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if shift == 63 && part > 1 {
            return None;
        }
        value |= part << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
