//! The compaction filter of `log`: what lies below a channel's written floor, or belongs to a channel that gave back
//! its name, leaves the disk when fjall rewrites the table it stands in; of what has expired only the header stays (the
//! log's totals are in it). No delete is written for any message. Bodies that fjall keeps apart from the tables leave
//! with the floor only: looking at them here would read all of them.
//!
//! What has expired is told by the smallest time of all batches since one at least a minute older than the newest (by
//! their own times): a clock that is ahead for less than a minute takes nothing from the disk that may still be read.
//!
//! Invariant: a channel record is committed with or before the first record of its log, and a floor before anything
//! below it is refused to readers; so nothing that may be read is ever dropped here.

use super::codec::{self, Body, ChannelRecord};
use super::keys;
use clarion_core::{Millis, Seq};
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use fjall::{Keyspace, Slice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Where the filter finds floors and the time. Empty until the database is open and after it closed: then everything is
/// kept.
#[derive(Default)]
pub(super) struct FloorSource {
    channels: RwLock<Option<Keyspace>>,
    /// What expired before this is blanked; 0 = nothing.
    now: AtomicU64,
    confirmed: Mutex<Confirmed>,
}

/// A time that later batches confirmed.
#[derive(Debug)]
struct Confirmed {
    /// The smallest time since `next` took the place of an older one; what `now` becomes.
    next: Millis,
    now: Millis,
}

/// A time counts when nothing older came until a batch that is later by so much.
const CONFIRMED_AFTER_MS: u64 = 60_000;

impl Default for Confirmed {
    fn default() -> Self {
        Self { next: Millis::MAX, now: 0 }
    }
}

impl Confirmed {
    fn tick(&mut self, now: Millis) -> Millis {
        if now < self.next {
            self.next = now;
            self.now = self.now.min(now);
        } else if now - self.next >= CONFIRMED_AFTER_MS {
            self.now = self.next;
            self.next = now;
        }
        self.now
    }
}

impl FloorSource {
    pub(super) fn set(&self, channels: Keyspace) {
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = Some(channels);
    }

    /// A batch has this time.
    pub(super) fn tick(&self, now: Millis) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        self.now.store(confirmed.tick(now), Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        *self.channels.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn get(&self) -> Option<Keyspace> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct LogFilterFactory(pub(super) Arc<FloorSource>);

impl Factory for LogFilterFactory {
    fn name(&self) -> &str {
        "clarion log"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let now = self.0.now.load(Ordering::Relaxed);
        Box::new(LogFilter { channels: self.0.get(), floor_of: None, now })
    }
}

struct LogFilter {
    channels: Option<Keyspace>,
    /// The floor of the channel that was looked up last; records come sorted by channel.
    floor_of: Option<(u64, Seq)>,
    now: Millis,
}

impl LogFilter {
    fn floor(&mut self, number: u64) -> Option<Seq> {
        if let Some((known, floor)) = self.floor_of
            && known == number
        {
            return Some(floor);
        }
        let value = self.channels.as_ref()?.get(number.to_be_bytes()).ok()?;
        let floor = match value {
            Some(value) => ChannelRecord::take(&value)?.floor,
            None => Seq::MAX,
        };
        self.floor_of = Some((number, floor));
        Some(floor)
    }
}

impl CompactionFilter for LogFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let gone = keys::parse_log(item.key())
            .is_some_and(|(number, seq)| self.floor(number).is_some_and(|floor| seq < floor));
        // Only an erase writes a key twice, and what it left below the floor is never read again.
        if gone {
            return Ok(Verdict::Destroy);
        }
        Ok(self.blank_expired(&item).map_or(Verdict::Keep, Verdict::ReplaceValue))
    }
}

impl LogFilter {
    /// What is left of a record whose message's life is over.
    fn blank_expired(&self, item: &ItemAccessor<'_>) -> Option<Slice> {
        if item.is_indirection() {
            return None;
        }
        let value = item.value().ok()?;
        let (header, body) = codec::record(&value)?;
        if body == Body::Erased || header.expires_at.is_none_or(|end| end > self.now) {
            return None;
        }
        let mut blank = Vec::new();
        codec::put_erased(&mut blank, &header);
        Some(blank.into())
    }
}

#[cfg(test)]
mod tests {
    use super::Confirmed;

    #[test]
    fn a_time_counts_when_a_later_batch_confirms_it() {
        let mut confirmed = Confirmed::default();
        let far = 1_000_000_000;
        let told = [
            (1_000, 0),
            (30_000, 0),
            (61_000, 1_000),
            (far, 61_000),
            (far + 59_999, 61_000),
            (62_000, 61_000),
            (122_000, 62_000),
            // One that stays ahead is believed in the end; one that goes back takes effect at once.
            (far, 122_000),
            (far + 60_000, far),
            (130_000, 130_000),
        ];
        for (now, expected) in told {
            assert_eq!(confirmed.tick(now), expected, "at {now}");
        }
    }
}
