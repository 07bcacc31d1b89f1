//! Latencies in buckets whose width grows with the value: 1/128 of it, so a percentile is exact to 0.8 %.
//! Must not know: what was measured.

use std::time::Duration;

/// Values below this are counted exactly, in microseconds.
const EXACT: u64 = 256;
/// Buckets per doubling above it.
const PER_DOUBLING: u64 = EXACT / 2;
/// Doublings above it: up to 2^40 µs, 12 days.
const DOUBLINGS: u64 = 32;

/// See the module.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        let buckets = EXACT + DOUBLINGS * PER_DOUBLING;
        Self { counts: vec![0; buckets as usize], total: 0, max: 0 }
    }

    pub(super) fn record(&mut self, value: Duration) {
        self.record_micros(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn record_micros(&mut self, micros: u64) {
        let last = self.counts.len() - 1;
        self.counts[bucket(micros).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(micros);
    }

    /// The value in milliseconds below or at which this share of the values lies; 0 when there are none.
    pub(super) fn percentile_ms(&self, share: f64) -> f64 {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(i).min(self.max) as f64 / 1000.0;
            }
        }
        self.max_ms()
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.max as f64 / 1000.0
    }
}

fn bucket(micros: u64) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    // The top bit says which doubling, the seven bits below it which bucket.
    let doubling = u64::from(63 - micros.leading_zeros()) - 7;
    let within = (micros >> doubling) - PER_DOUBLING;
    (EXACT + (doubling - 1) * PER_DOUBLING + within) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let doubling = (bucket - EXACT) / PER_DOUBLING + 1;
    let within = (bucket - EXACT) % PER_DOUBLING + PER_DOUBLING;
    ((within + 1) << doubling) - 1
}

#[cfg(test)]
mod tests;
