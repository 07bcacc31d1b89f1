//! What a channel keeps: by age, count and bytes, never by its slowest cursor.
//!
//! Pure policy; a store applies it. `first_kept` is the one place that turns a policy and a log's totals into a floor.

use crate::{AddressKind, Millis, Seq, mutant};

/// What happens when the log is over its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest go.
    TrimOldest,
    /// New ones are refused, retryable; nothing unacked is ever trimmed.
    Refuse,
}

/// Bounds of one channel's log. 0 = unbounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Oldest age in milliseconds.
    pub age_ms: u64,
    /// Most messages.
    pub count: u64,
    /// Most bytes.
    pub bytes: u64,
    /// What happens above `bytes`.
    pub overflow: Overflow,
}

const DAY_MS: u64 = 24 * 3_600 * 1_000;
const MIB: u64 = 1 << 20;

impl Retention {
    /// The defaults of design §1.3.
    pub const fn default_of(kind: AddressKind) -> Self {
        let overflow = Overflow::TrimOldest;
        match kind {
            AddressKind::User => {
                Self { age_ms: 30 * DAY_MS, count: 10_000, bytes: 64 * MIB, overflow }
            }
            AddressKind::Group | AddressKind::All | AddressKind::Topic | AddressKind::Filter => {
                Self { age_ms: 30 * DAY_MS, count: 100_000, bytes: 256 * MIB, overflow }
            }
            AddressKind::Queue | AddressKind::Dead => {
                Self { age_ms: 0, count: 0, bytes: 1024 * MIB, overflow: Overflow::Refuse }
            }
        }
    }

    /// The first seq that `count` lets stay in a log that ends with `last`.
    pub fn first_by_count(&self, last: Seq) -> Seq {
        let off = if mutant!("first_by_count_off_by_one") { 2 } else { 1 };
        if self.count == 0 { 1 } else { last.saturating_sub(self.count) + off }
    }

    /// Messages created before this are over age.
    pub fn oldest_allowed(&self, now: Millis) -> Millis {
        if self.age_ms == 0 { 0 } else { now.saturating_sub(self.age_ms) }
    }

    /// Whether `bytes` more fit into a log that holds `held`.
    pub fn has_room(&self, held: u64, bytes: u64) -> bool {
        self.bytes == 0
            || self.overflow == Overflow::TrimOldest
            || held.saturating_add(bytes) <= self.bytes
    }

    /// Whether a log of this size must give up its oldest.
    pub fn over_bytes(&self, held: u64) -> bool {
        self.bytes != 0 && self.overflow == Overflow::TrimOldest && held > self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_age_and_bytes() {
        let user = Retention::default_of(AddressKind::User);
        assert_eq!(user.first_by_count(10_000), 1);
        assert_eq!(user.first_by_count(10_001), 2);
        assert_eq!(user.oldest_allowed(40 * DAY_MS), 10 * DAY_MS);
        assert!(user.over_bytes(64 * MIB + 1) && !user.over_bytes(64 * MIB));
        assert!(user.has_room(u64::MAX, 1), "a log that trims always has room");
        let queue = Retention::default_of(AddressKind::Queue);
        assert_eq!((queue.first_by_count(u64::MAX), queue.oldest_allowed(9)), (1, 0));
        assert!(queue.has_room(1023 * MIB, MIB) && !queue.has_room(1023 * MIB, MIB + 1));
        assert!(!queue.over_bytes(u64::MAX));
    }
}
