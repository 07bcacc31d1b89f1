//! Channels by name: their numbers, their states, and a bounded cache of both.
//!
//! Invariants: a cached state is the committed one, never ahead of what readers may see; only the writer changes
//! states and only after its commit, and what it writes to stands in the cache meanwhile. What somebody holds is not
//! evicted, so there is one `Channel` per name at a time.
//! A state that is not cached is loaded from a name, a channel record and the log's last record: no scan.

use super::codec::{self, ChannelRecord};
use super::engine::{Engine, Fault};
use super::keys;
use clarion_core::port::store::Head;
use clarion_core::{Address, Epoch, Seq};
use fjall::{Readable, Snapshot};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The channel record as it would be written now.
    pub(super) record: ChannelRecord,
    /// The present history: the record's base plus the store's generation.
    pub(super) epoch: Epoch,
}

impl State {
    pub(super) fn new(record: ChannelRecord, generation: u32) -> Self {
        let epoch = record.base_epoch.wrapping_add(generation);
        // 0 means "never written", so that one value is skipped; its neighbours in time differ from this one.
        Self { record, epoch: if epoch == 0 { 1 << 31 } else { epoch } }
    }

    /// The first seq that is kept: below the floor nothing is, nor below what the bound by count allows.
    pub(super) fn first(&self) -> Seq {
        let ChannelRecord { floor, last, count, .. } = self.record;
        if count == 0 { floor } else { floor.max(last.saturating_sub(count) + 1) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first() > self.record.last
    }

    /// The head, given the total bytes before `first`.
    pub(super) fn head(&self, bytes_before_first: u64) -> Head {
        Head {
            epoch: self.epoch,
            first: self.first(),
            last: self.record.last,
            counted: self.record.counted,
            bytes: self.record.bytes.saturating_sub(bytes_before_first),
            last_at: self.record.last_at,
        }
    }
}

/// One channel.
pub(super) struct Channel {
    pub(super) address: Address,
    pub(super) number: u32,
    state: Mutex<State>,
    /// The writer's own: in which batch it touched this channel last, and as which.
    touched_in: AtomicU64,
    touched_as: AtomicU32,
}

impl Channel {
    pub(super) fn new(address: Address, number: u32, state: State) -> Self {
        Self {
            address,
            number,
            state: Mutex::new(state),
            touched_in: AtomicU64::new(0),
            touched_as: AtomicU32::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> State {
        *self.lock()
    }

    pub(super) fn set_state(&self, state: State) {
        *self.lock() = state;
    }

    pub(super) fn touched(&self, batch: u64) -> Option<usize> {
        let in_this = self.touched_in.load(Ordering::Relaxed) == batch;
        in_this.then(|| self.touched_as.load(Ordering::Relaxed) as usize)
    }

    pub(super) fn touch(&self, batch: u64, index: usize) {
        self.touched_as.store(index as u32, Ordering::Relaxed);
        self.touched_in.store(batch, Ordering::Relaxed);
    }
}

/// The cache: two generations of at most half the capacity each.
pub(super) struct Channels {
    maps: Mutex<Maps>,
    half: usize,
}

#[derive(Default)]
struct Maps {
    hot: HashMap<Address, Arc<Channel>>,
    cold: HashMap<Address, Arc<Channel>>,
    /// Grows when a channel may have left the cache. A load that began before may be stale and is not kept.
    departures: u64,
}

impl Channels {
    pub(super) fn new(capacity: usize) -> Self {
        Self { maps: Mutex::default(), half: (capacity / 2).max(8) }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, address: &Address) -> Option<Arc<Channel>> {
        let mut maps = self.lock();
        if let Some(channel) = maps.hot.get(address) {
            return Some(channel.clone());
        }
        let channel = maps.cold.remove(address)?;
        self.put(&mut maps, channel.clone());
        Some(channel)
    }

    fn put(&self, maps: &mut Maps, channel: Arc<Channel>) {
        if maps.hot.len() >= self.half {
            let old = std::mem::take(&mut maps.hot);
            let evicted = std::mem::replace(&mut maps.cold, old);
            maps.hot = evicted.into_iter().filter(|(_, c)| Arc::strong_count(c) > 1).collect();
            maps.departures += 1;
        }
        maps.hot.insert(channel.address.clone(), channel);
    }

    /// To be read before the snapshot that a load uses.
    fn departures(&self) -> u64 {
        self.lock().departures
    }

    /// Keeps what was loaded, unless somebody was faster or it may be stale: `departures` is what it was before the
    /// load; `None` = the writer's own load, which cannot be stale and must be kept, because what it commits has to
    /// show in the one `Channel` that others find. Returns the one to use.
    fn keep(&self, loaded: Channel, departures: Option<u64>) -> Arc<Channel> {
        let mut maps = self.lock();
        let present = maps.hot.get(&loaded.address).or_else(|| maps.cold.get(&loaded.address));
        if let Some(present) = present {
            return present.clone();
        }
        let loaded = Arc::new(loaded);
        if departures.is_none_or(|before| before == maps.departures) {
            self.put(&mut maps, loaded.clone());
        }
        loaded
    }

    /// Keeps what the writer just committed. A reader may have loaded it meanwhile: then that one gets the state.
    pub(super) fn publish_new(&self, channel: &Arc<Channel>) {
        let mut maps = self.lock();
        let present = maps.hot.get(&channel.address).or_else(|| maps.cold.get(&channel.address));
        match present {
            Some(present) => present.set_state(channel.state()),
            None => self.put(&mut maps, channel.clone()),
        }
    }

    pub(super) fn forget(&self, address: &Address) {
        let mut maps = self.lock();
        maps.hot.remove(address);
        maps.cold.remove(address);
        maps.departures += 1;
    }
}

impl Engine {
    /// The channel of this name, if there is one.
    pub(super) fn channel(&self, address: &Address) -> Result<Option<Arc<Channel>>, Fault> {
        match self.channels.get(address) {
            Some(channel) => Ok(Some(channel)),
            None => self.load_channel(address, Some(self.channels.departures())),
        }
    }

    /// The same for the writer.
    pub(super) fn channel_to_write(
        &self,
        address: &Address,
    ) -> Result<Option<Arc<Channel>>, Fault> {
        match self.channels.get(address) {
            Some(channel) => Ok(Some(channel)),
            None => self.load_channel(address, None),
        }
    }

    fn load_channel(
        &self,
        address: &Address,
        departures: Option<u64>,
    ) -> Result<Option<Arc<Channel>>, Fault> {
        let snapshot = self.db.snapshot();
        let Some(number) = self.number(&snapshot, address)? else { return Ok(None) };
        let state = self.load(&snapshot, number)?;
        let channel = Channel::new(address.clone(), number, state);
        Ok(Some(self.channels.keep(channel, departures)))
    }

    /// The number of a channel in this moment of the store.
    pub(super) fn number(
        &self,
        snapshot: &Snapshot,
        address: &Address,
    ) -> Result<Option<u32>, Fault> {
        let Some(value) = snapshot.get(&self.ks.names, keys::name(address))? else {
            return Ok(None);
        };
        keys::trailing_number(&value).ok_or_else(|| Fault::damaged("a name")).map(Some)
    }

    /// The name of a channel.
    pub(super) fn address(&self, number: u32) -> Result<Option<Address>, Fault> {
        self.address_in(&self.db.snapshot(), number)
    }

    /// The same in this moment of the store.
    pub(super) fn address_in(
        &self,
        snapshot: &Snapshot,
        number: u32,
    ) -> Result<Option<Address>, Fault> {
        let Some(value) = snapshot.get(&self.ks.names, keys::address(number))? else {
            return Ok(None);
        };
        let text = value.split_first().and_then(|(_, text)| std::str::from_utf8(text).ok());
        let address = text.and_then(|text| Address::parse_any(text).ok());
        Ok(Some(address.ok_or_else(|| Fault::damaged("an address"))?))
    }

    /// The channel of this number, if it still has a name.
    pub(super) fn channel_by_number(&self, number: u32) -> Result<Option<Arc<Channel>>, Fault> {
        match self.address(number)? {
            Some(address) => self.channel(&address),
            None => Ok(None),
        }
    }

    fn load(&self, snapshot: &Snapshot, number: u32) -> Result<State, Fault> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let value = snapshot.get(&self.ks.channels, keys::channel(number))?;
        let mut record = value
            .and_then(|value| ChannelRecord::take(&value))
            .ok_or_else(|| Fault::damaged("a channel record"))?;
        let range = keys::log(number, record.last + 1)..=keys::log(number, Seq::MAX);
        if let Some(last) = snapshot.range(&self.ks.log, range).next_back() {
            let (key, value) = last.into_inner()?;
            let seq = keys::parse_log(&key).map(|(_, seq)| seq);
            let header = codec::record(&value).map(|(header, _)| header);
            let (Some(seq), Some(header)) = (seq, header) else {
                return Err(Fault::damaged("a log record"));
            };
            record.last = seq;
            record.bytes = header.bytes;
            record.counted = header.counted;
            record.last_at = header.created_at;
        }
        Ok(State::new(record, self.generation))
    }

    /// Total bytes of the log before `seq`, which lies at or above the floor of `state` and among what is committed.
    pub(super) fn bytes_before(&self, number: u32, state: &State, seq: Seq) -> Result<u64, Fault> {
        let record = &state.record;
        if seq <= record.floor {
            return Ok(record.floor_bytes);
        }
        if seq > record.last {
            return Ok(record.bytes);
        }
        // A record may be missing only after a loss of history; the next one knows the total too.
        let range = keys::log(number, seq)..=keys::log(number, record.last);
        match self.db.snapshot().range(&self.ks.log, range).next() {
            None => Ok(record.bytes),
            Some(found) => {
                let (_, value) = found.into_inner()?;
                let (header, _) =
                    codec::record(&value).ok_or_else(|| Fault::damaged("a log record"))?;
                Ok(header.bytes_before())
            }
        }
    }

    /// The channel's head.
    pub(super) fn head_of(&self, channel: &Channel) -> Result<Head, Fault> {
        let state = channel.state();
        Ok(state.head(self.bytes_before(channel.number, &state, state.first())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(n: usize) -> Channel {
        let address = Address::user(&n.to_string()).unwrap();
        Channel::new(address, n as u32, State::new(ChannelRecord::default(), 1))
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_held() {
        let cache = Channels::new(16);
        let held = cache.keep(channel(0), None);
        for n in 1..1_000 {
            cache.keep(channel(n), Some(cache.departures()));
            let maps = cache.lock();
            assert!(maps.hot.len() + maps.cold.len() <= 17, "{}", maps.hot.len());
        }
        assert!(Arc::ptr_eq(&cache.get(&held.address).unwrap(), &held));
        assert!(cache.get(&channel(1).address).is_none());
    }

    #[test]
    fn a_load_that_began_before_a_departure_is_not_kept() {
        let cache = Channels::new(16);
        let before = cache.departures();
        cache.forget(&channel(7).address);
        let loaded = cache.keep(channel(7), Some(before));
        assert!(cache.get(&loaded.address).is_none());
        let own = cache.keep(channel(7), None);
        assert!(Arc::ptr_eq(&cache.get(&own.address).unwrap(), &own), "the writer's own is");
    }

    #[test]
    fn an_epoch_is_never_0_and_changes_with_each_generation() {
        let record = ChannelRecord { base_epoch: u32::MAX - 1, ..ChannelRecord::default() };
        let epochs: Vec<Epoch> = (0..4).map(|g| State::new(record, g).epoch).collect();
        assert_eq!(epochs, [u32::MAX - 1, u32::MAX, 1 << 31, 1]);
    }
}
