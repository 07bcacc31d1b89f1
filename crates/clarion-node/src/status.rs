//! What became of a message: what is left of it, and which readers have acked it.
//!
//! A user's message stands in his channel only. One on a topic may be read by filters too: each filter's log holds a reference
//! with its own seq, which is found by halving, since a message and its references have one time and times never fall within a
//! log. Invariant: the work for one answer is bounded; what it leaves out is told. Must not know: sessions.

use crate::devices::number_key;
use crate::node::{Node, store_refusal};
use bytes::Bytes;
use clarion_core::durable::record::{self, SessionRecord};
use clarion_core::port::store::{Found, FoundState, Head, Page, ReadRange, Reader, StoredCursor};
use clarion_core::{
    Address, AddressKind, Code, Epoch, MessageId, Millis, Principal, Refusal, Seq, Verb,
};
use std::collections::BTreeMap;
use std::collections::HashMap;

/// Filters that are looked through for one answer.
const FILTERS_MAX: usize = 64;
/// Readers of a topic that one answer names.
const READERS_MAX: usize = 1000;
/// Messages of one time that are looked at to find one, by pages of so many and so many bytes.
const SAME_TIME_MAX: usize = 10_000;
const PAGE: usize = 64;
const PAGE_BYTES: usize = 1 << 20;
/// Pages that may be without any message, where many were erased.
const EMPTY_MAX: usize = 100;

/// What became of a message.
#[derive(Debug, Clone)]
pub struct MessageStatus {
    /// Where it is and what is left.
    pub found: Found,
    /// For a user's message, each of his devices; for one on a topic, each device that reads the topic.
    pub devices: Vec<DeviceAck>,
    /// For one on a topic, each stored session that reads it, by its name or by a filter.
    pub sessions: Vec<SessionAck>,
    /// There are more readers than were looked at.
    pub more: bool,
}

/// Whether a device has acked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceAck {
    /// Whose it is.
    pub user: String,
    /// Its name.
    pub device: String,
    /// Whether it has.
    pub acked: bool,
    /// The time of the cursor write that covered it.
    pub acked_at: Option<Millis>,
}

/// Whether a stored session has acked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAck {
    /// Whose.
    pub client_id: String,
    /// Its user, if it has one.
    pub user: Option<String>,
    /// Whether it has, on each of its subscriptions that the message is for.
    pub acked: bool,
    /// The time of the cursor write that covered it last.
    pub acked_at: Option<Millis>,
}

/// Acks of one message by reader.
#[derive(Default)]
struct Acks {
    by_reader: BTreeMap<Reader, (bool, Option<Millis>)>,
    more: bool,
}

impl Acks {
    fn add(&mut self, cursors: Vec<StoredCursor>, epoch: Epoch, seq: Seq) {
        for cursor in cursors {
            let own = Some(&cursor).filter(|cursor| cursor.epoch == epoch);
            let acked = own.is_some_and(|own| own.cursor.is_acked(seq));
            let at = own.and_then(|own| own.acked_at(seq));
            if self.by_reader.len() >= READERS_MAX && !self.by_reader.contains_key(&cursor.reader) {
                self.more = true;
                continue;
            }
            let known = self.by_reader.entry(cursor.reader).or_insert((true, None));
            // Of several subscriptions each must have it; the last one says when.
            known.0 &= acked;
            known.1 = if known.0 { known.1.max(at) } else { None };
        }
    }
}

impl Node {
    /// What became of a message. Who is one user is told of his own readers only.
    pub async fn message_status(
        &self,
        principal: &Principal,
        id: MessageId,
    ) -> Result<MessageStatus, Refusal> {
        if !principal.may(Verb::Read) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not read this"));
        }
        let found = self.find_message(id).await?;
        Self::check_read(principal, &found.channel)?;
        let mut status =
            MessageStatus { found, devices: Vec::new(), sessions: Vec::new(), more: false };
        match status.found.channel.kind() {
            AddressKind::User => status.devices = self.user_acks(&status.found).await?,
            AddressKind::Topic => self.topic_acks(principal, &mut status).await?,
            _ => {}
        }
        Ok(status)
    }

    async fn user_acks(&self, found: &Found) -> Result<Vec<DeviceAck>, Refusal> {
        let cursors = self.store().readers(found.channel.clone()).await.map_err(store_refusal)?;
        let by_reader: HashMap<Reader, _> =
            cursors.into_iter().map(|c| (c.reader.clone(), c)).collect();
        let user = found.channel.id();
        let devices = self.devices(user, self.inner.config.max_devices).await?;
        let ack = |(device, record): (String, crate::devices::DeviceRecord)| {
            let cursor = by_reader.get(&Reader::device(record.number));
            let current = cursor.filter(|c| c.epoch == found.stored.epoch);
            let acked = current.is_some_and(|c| c.cursor.is_acked(found.stored.seq));
            let acked_at = current.and_then(|c| c.acked_at(found.stored.seq));
            DeviceAck { user: user.to_owned(), device, acked, acked_at }
        };
        Ok(devices.into_iter().map(ack).collect())
    }

    async fn topic_acks(
        &self,
        principal: &Principal,
        status: &mut MessageStatus,
    ) -> Result<(), Refusal> {
        let (topic, stored) = (status.found.channel.clone(), status.found.stored);
        let mut acks = Acks::default();
        let cursors = self.store().readers(topic.clone()).await.map_err(store_refusal)?;
        acks.add(cursors, stored.epoch, stored.seq);
        // Of an erased message there are no copies.
        if status.found.state != FoundState::Erased {
            let mut filters = Vec::new();
            self.inner.planner.durable.filters_of(&topic, &mut filters);
            acks.more |= filters.len() > FILTERS_MAX;
            filters.truncate(FILTERS_MAX);
            for filter in filters {
                let place = self.find_reference(&filter, stored.id, stored.created_at).await?;
                if let Some((epoch, seq)) = place {
                    let cursors = self.store().readers(filter).await.map_err(store_refusal)?;
                    acks.add(cursors, epoch, seq);
                }
            }
        }
        status.more = acks.more;
        let only = principal.user().filter(|_| principal.is_one_user());
        let own = |user: Option<&str>| only.is_none_or(|only| user == Some(&**only));
        for (reader, (acked, acked_at)) in acks.by_reader {
            if let Some(number) = reader.device_number() {
                let owner = self.record(&number_key(number)).await?;
                if let Some((user, device)) = owner.and_then(|record| owner_of(&record.value))
                    && own(Some(&user))
                {
                    status.devices.push(DeviceAck { user, device, acked, acked_at });
                }
            } else if let Some(number) = reader.session_number()
                && let Some((client_id, session)) = self.session_of(number).await?
                && own(session.user.as_deref())
            {
                let user = session.user.map(Into::into);
                status.sessions.push(SessionAck { client_id, user, acked, acked_at });
            }
        }
        status.devices.sort_by(|a, b| (&a.user, &a.device).cmp(&(&b.user, &b.device)));
        status.sessions.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        Ok(())
    }

    /// The stored session of a number, if it is its client id's present one.
    async fn session_of(&self, number: u64) -> Result<Option<(String, SessionRecord)>, Refusal> {
        let Some(found) = self.record(&record::client_key(number)).await? else { return Ok(None) };
        let Ok(client) = String::from_utf8(found.value.into()) else { return Ok(None) };
        let session = self.session_record(&client).await?;
        let session = session.map(|(session, _)| session).filter(|own| own.number == number);
        Ok(session.map(|session| (client, session)))
    }

    /// Where a filter's log refers to a message of this time.
    async fn find_reference(
        &self,
        filter: &Address,
        id: MessageId,
        at: Millis,
    ) -> Result<Option<(Epoch, Seq)>, Refusal> {
        let heads = self.store().heads(vec![filter.clone()]).await.map_err(store_refusal)?;
        let Head { first, last, .. } = heads.into_iter().next().unwrap_or_default();
        // Everything below `low` is older; at `high` and above nothing is.
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.first_in(filter, middle, high - 1).await? {
                Some((seq, _, created_at)) if created_at < at => low = seq + 1,
                _ => high = middle,
            }
        }
        for _ in 0..SAME_TIME_MAX / PAGE {
            let page = self.read_log(filter, low, last, PAGE).await?;
            for message in &page.messages {
                if message.created_at > at {
                    return Ok(None);
                }
                if message.id == id {
                    return Ok(Some((message.epoch, message.seq)));
                }
            }
            if page.through < low || page.through >= last {
                return Ok(None);
            }
            low = page.through + 1;
        }
        Ok(None)
    }

    /// The first message of a part of a log: its place, id and time.
    async fn first_in(
        &self,
        log: &Address,
        mut from: Seq,
        to: Seq,
    ) -> Result<Option<(Seq, MessageId, Millis)>, Refusal> {
        for _ in 0..EMPTY_MAX {
            let page = self.read_log(log, from, to, 1).await?;
            if let Some(message) = page.messages.first() {
                return Ok(Some((message.seq, message.id, message.created_at)));
            }
            if page.through < from || page.through >= to {
                break;
            }
            from = page.through + 1;
        }
        Ok(None)
    }

    async fn read_log(
        &self,
        log: &Address,
        from: Seq,
        to: Seq,
        count: usize,
    ) -> Result<Page, Refusal> {
        let range = ReadRange {
            channel: log.clone(),
            from,
            to,
            backwards: false,
            count,
            bytes: PAGE_BYTES,
        };
        // At the beginning of time nothing has expired.
        let pages = self.store().read(0, vec![range]).await.map_err(store_refusal)?;
        Ok(pages.into_iter().next().unwrap_or_default())
    }
}

/// User and name of a device, as its number's record holds them.
fn owner_of(value: &Bytes) -> Option<(String, String)> {
    let (user, device) = std::str::from_utf8(value).ok()?.split_once('\0')?;
    Some((user.to_owned(), device.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::Cursor;

    fn cursor(reader: u64, epoch: Epoch, floor: Seq, at: Millis) -> StoredCursor {
        StoredCursor {
            channel: Address::topic("t").unwrap(),
            reader: Reader::session(reader),
            epoch,
            cursor: Cursor::at(floor),
            updated_at: at,
            marks: Vec::new(),
        }
    }

    #[test]
    fn every_cursor_of_a_session_must_have_acked() {
        let mut acks = Acks::default();
        acks.add(vec![cursor(1, 7, 5, 10), cursor(2, 7, 5, 11), cursor(3, 6, 9, 12)], 7, 5);
        acks.add(vec![cursor(1, 8, 3, 20), cursor(2, 8, 2, 21)], 8, 3);
        let told: Vec<_> = acks.by_reader.into_values().collect();
        assert_eq!(told, [(true, Some(20)), (false, None), (false, None)]);
        assert!(!acks.more);
    }

    #[test]
    fn more_readers_than_are_named_are_told() {
        let mut acks = Acks::default();
        acks.add((0..READERS_MAX as u64 + 1).map(|n| cursor(n, 1, 1, 1)).collect(), 1, 1);
        assert_eq!((acks.by_reader.len(), acks.more), (READERS_MAX, true));
    }
}
