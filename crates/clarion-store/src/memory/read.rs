//! Heads, pages and look-ups.

use super::Inner;
use super::log::{Body, Entry, Log};
use crate::rules::PageBuilder;
use clarion_core::id::IdParts;
use clarion_core::port::store::{Find, Found, FoundState, Head, Page, ReadRange, Stored};
use clarion_core::{Address, Content, Message, MessageId, Millis, Seq};
use std::sync::Arc;

impl Inner {
    pub(super) fn head(&self, channel: &Address) -> Head {
        self.logs.get(channel).map(Log::head).unwrap_or_default()
    }

    pub(super) fn page(&self, now: Millis, range: &ReadRange) -> Page {
        let mut page = PageBuilder::new(range, self.head(&range.channel));
        let (Some((lo, hi)), Some(log)) = (page.span(), self.logs.get(&range.channel)) else {
            return page.finish();
        };
        let mut seq = if range.backwards { hi } else { lo };
        for _ in lo..=hi {
            let message = self.message(now, &range.channel, log, seq);
            if !page.pass(seq, message) {
                break;
            }
            seq = if range.backwards { seq - 1 } else { seq + 1 };
        }
        page.finish()
    }

    /// The message at `seq` of `log`, unless it is expired or erased.
    fn message(&self, now: Millis, channel: &Address, log: &Log, seq: Seq) -> Option<Message> {
        let entry = log.entry(seq)?;
        if let Body::Copy(of, content) = &entry.body {
            let (number, body_seq, channel) = &**of;
            return (!content.expired(now)).then(|| Message {
                id: MessageId::stored(entry.created_at, *number, *body_seq),
                channel: channel.clone(),
                epoch: log.epoch,
                seq,
                created_at: entry.created_at,
                content: content.clone(),
            });
        }
        let (number, body_seq, body) = match &entry.body {
            Body::Reference(number, body_seq) => {
                (*number, *body_seq, self.body(*number, *body_seq)?)
            }
            _ => (log.number, seq, (channel, entry)),
        };
        let (channel, entry) = body;
        let content = full(entry)?;
        (!content.expired(now)).then(|| Message {
            id: MessageId::stored(entry.created_at, number, body_seq),
            channel: channel.clone(),
            epoch: log.epoch,
            seq,
            created_at: entry.created_at,
            content: content.clone(),
        })
    }

    fn body(&self, number: u32, seq: Seq) -> Option<(&Address, &Entry)> {
        let channel = self.names.get(&number)?;
        Some((channel, self.logs.get(channel)?.entry(seq)?))
    }

    pub(super) fn find(&self, now: Millis, what: &Find) -> Option<Found> {
        let (channel, stored) = match what {
            Find::Key(channel, key) => (channel.clone(), self.remembered(now, channel, key)?),
            Find::Id(id) => self.by_id(*id)?,
        };
        let log = self.logs.get(&channel)?;
        let entry = log.entry(stored.seq);
        let expires_at = entry.and_then(|e| e.expires_at);
        let state = match entry {
            None => FoundState::Trimmed,
            Some(entry) if matches!(entry.body, Body::Erased) => FoundState::Erased,
            Some(_) if expires_at.is_some_and(|end| end <= now) => FoundState::Expired,
            Some(_) => FoundState::Stored,
        };
        Some(Found { channel, stored, state, expires_at })
    }

    fn by_id(&self, id: MessageId) -> Option<(Address, Stored)> {
        let IdParts::Stored { channel: number, seq } = id.parts()? else { return None };
        let channel = self.names.get(&number)?;
        let log = self.logs.get(channel)?;
        if seq == 0 || seq > log.last() {
            return None;
        }
        if log.entry(seq).is_some_and(|e| e.created_at != id.at()) {
            return None;
        }
        let stored = Stored { id, epoch: log.epoch, seq, created_at: id.at(), duplicate: false };
        Some((channel.clone(), stored))
    }
}

fn full(entry: &Entry) -> Option<&Arc<Content>> {
    match &entry.body {
        Body::Full(content) => Some(content),
        Body::Reference(..) | Body::Copy(..) | Body::Erased => None,
    }
}
