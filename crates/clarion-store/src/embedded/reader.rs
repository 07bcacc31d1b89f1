//! Reads of logs and look-ups, on the readers' threads.
//!
//! Invariants: a read is clipped to the committed head and floor; a reference without a copy resolves only to a body that
//! its own channel still keeps; a range looks at a bounded number of records; a seq that a page passes over was there, or the
//! page's head says that it left.

use super::channels::Channel;
use super::codec::{self, Body};
use super::engine::{Engine, Fault};
use super::keys;
use crate::rules::PageBuilder;
use clarion_core::id::IdParts;
use clarion_core::port::store::{Find, Found, FoundState, Head, Page, ReadRange, Stored};
use clarion_core::{Address, Message, MessageId, Millis, Seq};
use fjall::{Readable, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;

/// What references of one page lead to.
#[derive(Default)]
struct Targets {
    channels: HashMap<u32, Option<Arc<Channel>>>,
    /// The last copy's: often the next one's too.
    last: Option<Address>,
}

impl Targets {
    fn address(&mut self, text: &str) -> Option<Address> {
        if self.last.as_ref().is_none_or(|last| last.as_str() != text) {
            self.last = Some(Address::parse_any(text).ok()?);
        }
        self.last.clone()
    }
}

impl Engine {
    pub(super) fn heads(&self, channels: &[Address]) -> Result<Vec<Head>, Fault> {
        let head = |address| match self.channel(address)? {
            Some(channel) => self.head_of(&channel),
            None => Ok(Head::default()),
        };
        channels.iter().map(head).collect()
    }

    pub(super) fn read(&self, now: Millis, ranges: &[ReadRange]) -> Result<Vec<Page>, Fault> {
        ranges.iter().map(|range| self.page(now, range)).collect()
    }

    fn page(&self, now: Millis, range: &ReadRange) -> Result<Page, Fault> {
        let Some(channel) = self.channel(&range.channel)? else {
            return Ok(PageBuilder::new(range, Head::default()).finish());
        };
        self.page_of(now, range, &channel, self.head_of(&channel)?)
    }

    /// The page, given the head from some time before. What was trimmed and compacted away since is missing: the page's
    /// head then says that the log begins above it, so that the reader is told a gap.
    pub(super) fn page_of(
        &self,
        now: Millis,
        range: &ReadRange,
        channel: &Channel,
        head: Head,
    ) -> Result<Page, Fault> {
        let mut page = PageBuilder::new(range, head);
        let Some((lo, hi)) = page.span() else { return Ok(page.finish()) };
        let snapshot = self.db.snapshot();
        let keys = keys::log(channel.number, lo)..=keys::log(channel.number, hi);
        let items = snapshot.range(&self.ks.log, keys);
        let items: Box<dyn Iterator<Item = fjall::Guard>> =
            if range.backwards { Box::new(items.rev()) } else { Box::new(items) };
        let mut targets = Targets::default();
        let mut above = if range.backwards { hi + 1 } else { lo };
        let mut stopped = false;
        for item in items {
            let (key, value) = item.into_inner()?;
            let (_, seq) = keys::parse_log(&key).ok_or_else(|| Fault::damaged("a log key"))?;
            let message = self.unpack(now, &snapshot, channel, seq, &value, &mut targets)?;
            // Every seq has a record until compaction takes it.
            match range.backwards {
                true if seq + 1 < above => page.lost_below(above),
                false if seq > above => page.lost_below(seq),
                _ => {}
            }
            above = if range.backwards { seq } else { seq + 1 };
            let message = message.map(|message| Message { epoch: head.epoch, ..message });
            if !page.pass(seq, message) {
                stopped = true;
                break;
            }
        }
        let missing = if range.backwards { above > lo } else { above <= hi };
        if missing && !stopped {
            page.lost_below(above.max(if range.backwards { lo } else { hi + 1 }));
        }
        Ok(page.finish())
    }

    /// The message that a record of `channel` holds or leads to, unless it is expired or erased.
    fn unpack(
        &self,
        now: Millis,
        snapshot: &Snapshot,
        channel: &Channel,
        seq: Seq,
        value: &[u8],
        targets: &mut Targets,
    ) -> Result<Option<Message>, Fault> {
        let damaged = || Fault::damaged("a log record");
        let (header, body) = codec::record(value).ok_or_else(damaged)?;
        match body {
            Body::Erased => Ok(None),
            Body::Full(packed) => {
                if header.expires_at.is_some_and(|end| end <= now) {
                    return Ok(None);
                }
                let content = packed.unpack().ok_or_else(damaged)?;
                Ok(Some(Message {
                    id: MessageId::stored(header.created_at, channel.number, seq),
                    channel: channel.address.clone(),
                    epoch: 0,
                    seq,
                    created_at: header.created_at,
                    content: content.into(),
                }))
            }
            Body::Copy(_) if header.expires_at.is_some_and(|end| end <= now) => Ok(None),
            Body::Copy(copied) => {
                let content = copied.packed.unpack().ok_or_else(damaged)?;
                Ok(Some(Message {
                    id: MessageId::stored(header.created_at, copied.number, copied.seq),
                    channel: targets.address(copied.address).ok_or_else(damaged)?,
                    epoch: 0,
                    seq,
                    created_at: header.created_at,
                    content: content.into(),
                }))
            }
            Body::Reference(number, body_seq) => {
                let target = match targets.channels.get(&number) {
                    Some(target) => target.clone(),
                    None => {
                        let target = self.channel_by_number(number)?;
                        targets.channels.insert(number, target.clone());
                        target
                    }
                };
                let kept = |c: &Arc<Channel>| c.number == number && body_seq >= c.state().first();
                let Some(target) = target.filter(kept) else { return Ok(None) };
                let Some(value) = snapshot.get(&self.ks.log, keys::log(number, body_seq))? else {
                    return Ok(None);
                };
                if let Some((_, Body::Reference(..) | Body::Copy(_))) = codec::record(&value) {
                    return Ok(None);
                }
                let message = self.unpack(now, snapshot, &target, body_seq, &value, targets)?;
                Ok(message.map(|message| Message { seq, ..message }))
            }
        }
    }

    pub(super) fn find(&self, now: Millis, what: &Find) -> Result<Option<Found>, Fault> {
        match what {
            Find::Key(address, key) => {
                let Some(channel) = self.channel(address)? else { return Ok(None) };
                let Some(first) = self.remembered(now, channel.number, key)? else {
                    return Ok(None);
                };
                self.found(now, &channel, first.stored(channel.number, true))
            }
            Find::Id(id) => {
                let Some(IdParts::Stored { channel: number, seq }) = id.parts() else {
                    return Ok(None);
                };
                let Some(channel) = self.channel_by_number(number)? else { return Ok(None) };
                let state = channel.state();
                if channel.number != number || seq == 0 || seq > state.record.last {
                    return Ok(None);
                }
                let (epoch, created_at) = (state.epoch, id.at());
                self.found(
                    now,
                    &channel,
                    Stored { id: *id, epoch, seq, created_at, duplicate: false },
                )
            }
        }
    }

    fn found(
        &self,
        now: Millis,
        channel: &Channel,
        stored: Stored,
    ) -> Result<Option<Found>, Fault> {
        let found = |state, expires_at| {
            Ok(Some(Found { channel: channel.address.clone(), stored, state, expires_at }))
        };
        if stored.seq < channel.state().first() {
            return found(FoundState::Trimmed, None);
        }
        let key = keys::log(channel.number, stored.seq);
        let Some(value) = self.db.snapshot().get(&self.ks.log, key)? else {
            return found(FoundState::Trimmed, None);
        };
        let (header, body) = codec::record(&value).ok_or_else(|| Fault::damaged("a log record"))?;
        if header.created_at != stored.created_at {
            return Ok(None);
        }
        let state = match body {
            // What has expired may have been blanked by a compaction since.
            _ if header.expires_at.is_some_and(|end| end <= now) => FoundState::Expired,
            Body::Erased => FoundState::Erased,
            Body::Full(_) | Body::Reference(..) | Body::Copy(_) => FoundState::Stored,
        };
        found(state, header.expires_at)
    }
}
