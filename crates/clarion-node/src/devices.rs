//! Durable readers: the records of devices and of what keeps a topic stored.
//!
//! Owns the record keys `device/<user>\0<name>`, `number/<number>` and `durable/<address>\0<number>`. Invariants: a
//! device's record and the starts of its cursors are one commit, answered before its stream; a number is never used
//! twice, so what a forgotten device left behind is nobody's. Must not know: sessions.

use crate::attach::{Resume, user_tag};
use crate::node::{Node, random, store_refusal};
use crate::{clock, durable};
use bytes::Bytes;
use clarion_core::port::store::{Change, Expect, Head, Move, Reader, Record, StoredCursor, Unit};
use clarion_core::start::{From, floor_of_new};
use clarion_core::{Address, AddressKind, Code, Cursor, Millis, Refusal};

const DAY_MS: u64 = 24 * 3600 * 1000;
const RECORD_VERSION: u8 = 1;

/// A durable reader of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceRecord {
    pub(crate) number: u64,
    created_at: Millis,
    /// When somebody attached it, to the day.
    pub(crate) seen_at: Millis,
    /// It has cursors on the user's feed.
    feed: bool,
}

impl DeviceRecord {
    fn encode(&self) -> Bytes {
        let numbers = [self.number, self.created_at, self.seen_at];
        let mut bytes = vec![RECORD_VERSION, u8::from(self.feed)];
        bytes.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
        bytes.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, flags], rest) = bytes.split_first_chunk()?;
        let (numbers, _) = rest.as_chunks::<8>();
        match (version, numbers) {
            (RECORD_VERSION, [number, created_at, seen_at]) => Some(Self {
                number: u64::from_be_bytes(*number),
                created_at: u64::from_be_bytes(*created_at),
                seen_at: u64::from_be_bytes(*seen_at),
                feed: flags & 1 == 1,
            }),
            _ => None,
        }
    }
}

/// What a durable reader reads: the user's feed, or channels by name.
#[derive(Debug, Clone)]
pub(crate) enum Reads {
    /// `user:U` and `all`.
    Feed(Vec<Address>),
    /// Channels, named.
    Channels(Vec<Address>),
}

impl Reads {
    pub(crate) fn channels(&self) -> &[Address] {
        match self {
            Self::Feed(channels) | Self::Channels(channels) => channels,
        }
    }
}

const DEVICE_PREFIX: &[u8] = b"device/";

fn device_key(user: &str, device: &str) -> Bytes {
    [DEVICE_PREFIX, user.as_bytes(), b"\0", device.as_bytes()].concat().into()
}

/// Whose device a number is: it holds the user, 0 and the name.
pub(crate) fn number_key(number: u64) -> Bytes {
    [b"number/", &number.to_be_bytes()[..]].concat().into()
}

/// Notes that a reader of this number reads the channel by name.
pub(crate) fn durable_record(channel: &Address, number: u64) -> Unit {
    durable::entry(channel, number)
}

fn put(key: Bytes, expect: Expect, value: Bytes) -> Unit {
    Unit::Record { key, expect, change: Change::Put(value) }
}

fn delete(key: Bytes) -> Unit {
    Unit::Record { key, expect: Expect::Any, change: Change::Delete }
}

impl Node {
    pub(crate) async fn record(&self, key: &Bytes) -> Result<Option<Record>, Refusal> {
        let found = self.store().records(key.clone(), None, 1).await.map_err(store_refusal)?;
        Ok(found.into_iter().find(|record| record.key == *key))
    }

    /// What a device comes back with. Nothing, when its old self was forgotten meanwhile: it begins anew. Fails with
    /// `foreign_token` when another device was given it.
    pub(crate) async fn check_resume(
        &self,
        user: &str,
        device: &str,
        resume: Resume,
    ) -> Result<Resume, Refusal> {
        if resume.number == 0 {
            return Err(Refusal::new(Code::BadToken, "the token belongs to another stream"));
        }
        let known = self.device_record(user, device).await?;
        if known.is_some_and(|(record, _)| record.number == resume.number) {
            return Ok(resume);
        }
        match self.record(&number_key(resume.number)).await? {
            Some(_) => Err(Refusal::new(Code::ForeignToken, "the token belongs to another device")),
            None => Ok(Resume::default()),
        }
    }

    /// A device's record and the version of it.
    async fn device_record(
        &self,
        user: &str,
        device: &str,
    ) -> Result<Option<(DeviceRecord, u64)>, Refusal> {
        let Some(found) = self.record(&device_key(user, device)).await? else { return Ok(None) };
        let damaged = || Refusal::new(Code::Internal, "the device's record is damaged");
        let record = DeviceRecord::decode(&found.value).ok_or_else(damaged)?;
        Ok(Some((record, found.version)))
    }

    /// The number of this device; its record and the starts of its cursors on what it reads are committed.
    pub(crate) async fn ensure_device(
        &self,
        user: &str,
        device: &str,
        from: Option<From>,
        reads: &Reads,
    ) -> Result<u64, Refusal> {
        if let Some((record, version)) = self.device_record(user, device).await?
            && self.has_started(&record, reads).await?
        {
            // Only its age depends on this: a stream is served while the store takes no writes.
            if let Err(error) = self.seen(user, device, record, version).await {
                tracing::debug!(%error, "a device's last use was not noted");
            }
            return Ok(record.number);
        }
        // One start at a time: of two that were computed at once the higher floor would win for both, and ack what
        // the other has not delivered.
        let _start = self.start_lock(user).lock().await;
        match self.device_record(user, device).await? {
            Some((record, _)) if self.has_started(&record, reads).await? => Ok(record.number),
            Some((record, version)) => {
                let expect = Expect::Version(version);
                self.start_device(user, device, record, expect, from, reads).await
            }
            None => {
                self.make_place(user).await?;
                let (number, now) = (u64::from_be_bytes(random()?).max(1), clock::now());
                let record = DeviceRecord { number, created_at: now, seen_at: now, feed: false };
                self.start_device(user, device, record, Expect::Absent, from, reads).await
            }
        }
    }

    async fn has_started(&self, record: &DeviceRecord, reads: &Reads) -> Result<bool, Refusal> {
        match reads {
            Reads::Feed(_) => Ok(record.feed),
            Reads::Channels(channels) => {
                for channel in channels {
                    if self.record(&durable::key(channel, record.number)).await?.is_none() {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Commits a device's record and the starts of its cursors, in one batch.
    async fn start_device(
        &self,
        user: &str,
        device: &str,
        record: DeviceRecord,
        expect: Expect,
        from: Option<From>,
        reads: &Reads,
    ) -> Result<u64, Refusal> {
        let number = record.number;
        let cursors = self.store().cursors(Reader::device(number)).await.map_err(store_refusal)?;
        let new = reads.channels().iter().filter(|c| !cursors.iter().any(|had| had.channel == **c));
        let bounded = matches!(reads, Reads::Channels(_));
        if bounded && cursors.len() + new.count() > self.inner.config.max_cursors {
            return Err(Code::TooManyCursors.into());
        }
        let feed = record.feed || matches!(reads, Reads::Feed(_));
        let owner = [user.as_bytes(), b"\0", device.as_bytes()].concat();
        let mut units = vec![
            put(device_key(user, device), expect, DeviceRecord { feed, ..record }.encode()),
            put(number_key(number), Expect::Any, owner.into()),
            self.starts(number, from, reads, &cursors).await?,
        ];
        let named = if bounded { reads.channels() } else { &[] };
        units.extend(named.iter().map(|channel| durable_record(channel, number)));
        named.iter().for_each(|channel| self.inner.planner.durable.enter(channel));
        self.commit(units).await?;
        Ok(number)
    }

    /// Notes that somebody uses a device, now and then.
    async fn seen(
        &self,
        user: &str,
        device: &str,
        record: DeviceRecord,
        version: u64,
    ) -> Result<(), Refusal> {
        let now = clock::now();
        let often = DAY_MS.min(self.inner.config.device_age.as_millis() as u64 / 4);
        if now.saturating_sub(record.seen_at) < often {
            return Ok(());
        }
        let value = DeviceRecord { seen_at: now, ..record }.encode();
        // Not if somebody forgot it meanwhile: that would bring back a record without cursors.
        let expect = Expect::Version(version);
        self.commit(vec![put(device_key(user, device), expect, value)]).await.map(|_| ())
    }

    /// Where new cursors start (design §1.3), as one unit. A channel that the device has a cursor on already (a user's
    /// own channel can be read as such and in the feed) goes on where that is.
    async fn starts(
        &self,
        number: u64,
        from: Option<From>,
        reads: &Reads,
        cursors: &[StoredCursor],
    ) -> Result<Unit, Refusal> {
        let channels = reads.channels();
        let heads = self.store().heads(channels.to_vec()).await.map_err(store_refusal)?;
        let mut moves = Vec::with_capacity(channels.len());
        for (channel, head) in channels.iter().zip(&heads) {
            if cursors.iter().any(|c| c.channel == *channel && c.epoch == head.epoch) {
                continue;
            }
            let highest = match channel.kind() {
                AddressKind::User => self.highest_floor(channel, head).await?,
                _ => None,
            };
            // A seq counts in the reader's own channel; the rest of a feed starts by its own rule.
            let own = matches!(reads, Reads::Channels(_)) || channel.kind() != AddressKind::All;
            let from = match from {
                Some(From::Seq(_)) if !own => From::default(),
                from => from.unwrap_or_default(),
            };
            let floor = floor_of_new(channel.kind(), from, head, highest);
            let cursor = Cursor::at(floor);
            moves.push(Move { channel: channel.clone(), epoch: head.epoch, cursor });
        }
        Ok(Unit::Ack { reader: Reader::device(number), moves })
    }

    /// The highest floor among the cursors on a user's channel, in its present history: they are all his.
    pub(crate) async fn highest_floor(
        &self,
        channel: &Address,
        head: &Head,
    ) -> Result<Option<u64>, Refusal> {
        let (user, asked, epoch) = (channel.id().to_owned(), channel.clone(), head.epoch);
        let shard = self.shard_of_tag(user_tag(&user));
        let attached = self.on_shard(shard, move |s| s.highest_floor(&user, &asked, epoch)).await?;
        let readers = self.store().readers(channel.clone()).await.map_err(store_refusal)?;
        let stored = readers.iter().filter(|r| r.epoch == epoch).map(|r| r.cursor.floor());
        Ok(stored.chain(attached).max())
    }

    /// The devices of a user, by name, at most `limit`.
    pub(crate) async fn devices(
        &self,
        user: &str,
        limit: usize,
    ) -> Result<Vec<(String, DeviceRecord)>, Refusal> {
        let prefix = device_key(user, "");
        let records =
            self.store().records(prefix.clone(), None, limit).await.map_err(store_refusal)?;
        let parse = |record: &Record| {
            let name = std::str::from_utf8(record.key.get(prefix.len()..)?).ok()?;
            Some((name.to_owned(), DeviceRecord::decode(&record.value)?))
        };
        Ok(records.iter().filter_map(parse).collect())
    }

    /// Forgets the oldest unattached device when the user has as many as he may.
    async fn make_place(&self, user: &str) -> Result<(), Refusal> {
        let max = self.inner.config.max_devices;
        let mut devices = self.devices(user, max + 1).await?;
        if devices.len() < max {
            return Ok(());
        }
        devices.sort_by_key(|(_, record)| record.seen_at);
        for (name, record) in devices {
            if self.forget_device(user, &name, record).await? {
                return Ok(());
            }
        }
        Err(Refusal::new(Code::TooManyStreams, "the user has as many attached devices as he may"))
    }

    /// Forgets a device that is not attached. Returns whether it did.
    pub(crate) async fn forget_device(
        &self,
        user: &str,
        device: &str,
        record: DeviceRecord,
    ) -> Result<bool, Refusal> {
        if self.is_attached(user, record.number).await? {
            return Ok(false);
        }
        let reader = Reader::device(record.number);
        let cursors = self.store().cursors(reader.clone()).await.map_err(store_refusal)?;
        let mut units = vec![delete(device_key(user, device)), delete(number_key(record.number))];
        units.extend(cursors.iter().map(|c| delete(durable::key(&c.channel, record.number))));
        units.push(Unit::Forget { reader, channel: None });
        self.commit(units).await?;
        for cursor in &cursors {
            self.inner.trimmable.note(&cursor.channel);
            self.inner.planner.durable.left(self.store(), &cursor.channel).await?;
        }
        Ok(true)
    }

    async fn is_attached(&self, user: &str, number: u64) -> Result<bool, Refusal> {
        self.on_shard(self.shard_of_tag(user_tag(user)), move |s| s.has_device(number)).await
    }

    /// Forgets devices that nobody attached for the configured time. Looks at `limit` records above `after`; returns
    /// where to go on.
    pub(crate) async fn sweep_devices(
        &self,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<Option<Bytes>, Refusal> {
        let prefix = Bytes::from_static(DEVICE_PREFIX);
        let page = self.store().records(prefix, after, limit).await.map_err(store_refusal)?;
        let oldest = clock::now().saturating_sub(self.inner.config.device_age.as_millis() as u64);
        for record in &page {
            let Some(device) = DeviceRecord::decode(&record.value) else { continue };
            let names = record.key.get(DEVICE_PREFIX.len()..).unwrap_or_default();
            let mut parts = names.splitn(2, |byte| *byte == 0).map(std::str::from_utf8);
            if let (Some(Ok(user)), Some(Ok(name))) = (parts.next(), parts.next()) {
                self.sweep_device(user, name, device, record.version, oldest).await?;
            }
        }
        Ok(if page.len() < limit { None } else { page.last().map(|r| r.key.clone()) })
    }

    /// One that is attached is in use, however long ago it was attached.
    async fn sweep_device(
        &self,
        user: &str,
        name: &str,
        record: DeviceRecord,
        version: u64,
        oldest: Millis,
    ) -> Result<(), Refusal> {
        if self.is_attached(user, record.number).await? {
            // A conflict means that somebody else has just noted it.
            let _ = self.seen(user, name, record, version).await;
        } else if record.seen_at < oldest {
            let _start = self.start_lock(user).lock().await;
            self.forget_device(user, name, record).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_keys_round_trip() {
        let record = DeviceRecord { number: 7, created_at: 1, seen_at: u64::MAX, feed: true };
        assert_eq!(DeviceRecord::decode(&record.encode()), Some(record));
        for damaged in [&b""[..], b"\x01", b"\x02\0aaaaaaaabbbbbbbbcccccccc"] {
            assert_eq!(DeviceRecord::decode(damaged), None);
        }
    }
}
