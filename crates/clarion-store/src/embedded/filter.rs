//! The compaction filter of `log`: what lies below a channel's written floor, or belongs to a channel that gave back
//! its name, leaves the disk when fjall rewrites the table it stands in. No delete is written for any message.
//!
//! Invariant: a channel record is committed with or before the first record of its log, and a floor before anything
//! below it is refused to readers; so nothing that may be read is ever dropped here.

use super::codec::ChannelRecord;
use super::keys;
use clarion_core::Seq;
use fjall::Keyspace;
use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};
use std::sync::{Arc, PoisonError, RwLock};

/// Where the filter finds floors. Empty until the database is open and after it closed: then everything is kept.
#[derive(Default)]
pub(super) struct FloorSource(RwLock<Option<Keyspace>>);

impl FloorSource {
    pub(super) fn set(&self, channels: Keyspace) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(channels);
    }

    pub(super) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn get(&self) -> Option<Keyspace> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

pub(super) struct LogFilterFactory(pub(super) Arc<FloorSource>);

impl Factory for LogFilterFactory {
    fn name(&self) -> &str {
        "clarion log"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(LogFilter { channels: self.0.get(), floor_of: None })
    }
}

struct LogFilter {
    channels: Option<Keyspace>,
    /// The floor of the channel that was looked up last; records come sorted by channel.
    floor_of: Option<(u64, Seq)>,
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
        Ok(if gone { Verdict::Destroy } else { Verdict::Keep })
    }
}
