//! One stored session as administrators see it: its subscriptions, how far each is read, and its window.
//!
//! Invariants: while it is attached its shard says what it is, since that is ahead of what is written; what is read for one answer
//! is bounded. Must not know: any protocol.

use super::admin::StoredSession;
use crate::attach::SessionRef;
use crate::clock;
use crate::node::{Node, store_refusal};
use clarion_core::durable::record::{self, InboundRecord, OwedRecord, SessionRecord, WindowRecord};
use clarion_core::durable::subs::{PENDING, StoredSub, Tail};
use clarion_core::port::peer::{Out, OutState};
use clarion_core::port::store::{Head, ReadRange, Reader};
use clarion_core::{Address, Cursor, Epoch, Millis, Principal, Refusal, Seq};

/// Messages that are read at once to know their age: each may be as large as a message can be.
const AGES_AT_ONCE: usize = 16;

/// A stored session and what hangs at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDetails {
    /// What a list tells of it.
    pub session: StoredSession,
    /// QoS 1 deliveries that are out.
    pub in_flight_qos1: usize,
    /// QoS 2 deliveries that are not over.
    pub in_flight_qos2: usize,
    /// QoS 2 publishes of its client that are not over.
    pub inbound_qos2: usize,
    /// Filters whose retained messages it has not been given in full.
    pub retained_owed: usize,
    /// Some of its subscriptions, by their place.
    pub subscriptions: Vec<SubscriptionDetails>,
    /// The place to go on at, if there are more.
    pub next: Option<u32>,
}

/// A subscription of a stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionDetails {
    /// What it is now, or was when it ended.
    pub sub: StoredSub,
    /// Where it is read; `None` = nowhere: QoS 0, a group's, a user's feed.
    pub cursor: Option<CursorDetails>,
}

/// How far a subscription's log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CursorDetails {
    /// The log's history.
    pub epoch: Epoch,
    /// All acked up to here.
    pub acked: Seq,
    /// The log's last seq, or the last one that is for a subscription that has ended.
    pub head: Seq,
    /// Seqs up to there that are kept and not acked.
    pub backlog: u64,
    /// Seqs that the log kept no longer before they were acked.
    pub lost: u64,
    /// Age of the oldest message that is not acked, if it still lives.
    pub lag_ms: Option<u64>,
}

/// A subscription by its slot, with the history that its cursor counts in and the cursor, if it has one.
type ViewedSub = (u32, StoredSub, Option<(Epoch, Cursor)>);

/// A session's own state, from its shard or from the store.
#[derive(Default)]
pub(crate) struct SessionView {
    pub(crate) subscriptions: usize,
    /// By slot.
    pub(crate) subs: Vec<ViewedSub>,
    pub(crate) next: Option<u32>,
    qos1: usize,
    qos2: usize,
    pub(crate) inbound: usize,
    pub(crate) retained_owed: usize,
}

impl SessionView {
    pub(crate) fn count_outs(&mut self, outs: &[Out]) {
        self.qos1 = outs.iter().filter(|out| out.state == OutState::AtLeastOnce).count();
        self.qos2 = outs.len() - self.qos1;
    }
}

/// The log that a subscription has a cursor of its own on.
pub(super) fn cursor_log(sub: &StoredSub) -> Option<Address> {
    sub.channel().filter(|_| sub.is_durable())
}

/// What a cursor says of its log. `settled`: everything stamped below counts as acked.
pub(super) fn position(
    head: &Head,
    cursor: Option<(Epoch, Cursor)>,
    settled: Option<Millis>,
) -> Cursor {
    if settled.is_some_and(|settled| head.last_at < settled) {
        return Cursor::at(head.last);
    }
    // Of another history, or missing: rather again than never.
    cursor.filter(|(epoch, _)| *epoch == head.epoch).map_or_else(Cursor::default, |(_, own)| own)
}

impl CursorDetails {
    fn of(head: &Head, cursor: &Cursor, until: Seq) -> Self {
        let until = until.min(head.last);
        let lost = cursor.unacked(head.first.saturating_sub(1).min(until));
        Self {
            epoch: head.epoch,
            acked: cursor.floor().min(head.last),
            head: until,
            backlog: cursor.unacked(until).saturating_sub(lost),
            lost,
            lag_ms: None,
        }
    }
}

impl Node {
    /// A stored session with its subscriptions from place `from` on, at most `limit`. Fails with `not_found` when there is none.
    pub async fn inspect_session(
        &self,
        principal: &Principal,
        client: &str,
        from: u32,
        limit: usize,
    ) -> Result<SessionDetails, Refusal> {
        Self::check_admin(principal, None)?;
        let (session, _) = self.stored_session(client).await?;
        let (view, settled) = match self.view_attached(client, session.number, from, limit).await? {
            Some(view) => (view, None),
            None => (self.view_stored(session.number, from, limit).await?, session.settled),
        };
        let SessionView { subscriptions, subs, next, qos1, qos2, inbound, retained_owed } = view;
        let told = self.told(client, &session, subscriptions);
        Ok(SessionDetails {
            session: told,
            in_flight_qos1: qos1,
            in_flight_qos2: qos2,
            inbound_qos2: inbound,
            retained_owed,
            subscriptions: self.with_cursors(subs, settled).await?,
            next,
        })
    }

    async fn view_attached(
        &self,
        client: &str,
        number: u64,
        from: u32,
        limit: usize,
    ) -> Result<Option<SessionView>, Refusal> {
        let Some(SessionRef { shard, key }) = self.inner.clients.holder(client) else {
            return Ok(None);
        };
        self.on_shard(shard, move |shard| shard.view_stored(key, number, from, limit)).await
    }

    async fn view_stored(
        &self,
        number: u64,
        from: u32,
        limit: usize,
    ) -> Result<SessionView, Refusal> {
        let mut view = SessionView::default();
        self.each_sub(number, |slot, sub| {
            view.subscriptions += usize::from(sub.tail.is_none());
            if slot >= from && view.subs.len() < limit {
                view.subs.push((slot, sub, None));
            } else if slot >= from && view.next.is_none() {
                view.next = Some(slot);
            }
        })
        .await?;
        let logs: Vec<Option<Address>> =
            view.subs.iter().map(|(_, sub, _)| cursor_log(sub)).collect();
        let reader = Reader::session(number);
        let asked: Vec<Address> = logs.iter().flatten().cloned().collect();
        let cursors = self.store().cursors_on(reader, asked).await.map_err(store_refusal)?;
        let those = view.subs.iter_mut().zip(&logs).filter(|(_, log)| log.is_some());
        for (((_, _, place), _), cursor) in those.zip(cursors) {
            *place = cursor.map(|cursor| (cursor.epoch, cursor.cursor));
        }
        for found in self.all_records(record::window_key(number)).await? {
            view.count_outs(&WindowRecord::decode(&found.value).unwrap_or_default().outs);
        }
        for found in self.all_records(record::owed_key(number)).await? {
            view.retained_owed = OwedRecord::decode(&found.value).unwrap_or_default().filters.len();
        }
        let inbound = self.all_records(record::inbounds_prefix(number)).await?;
        let inbound = inbound.iter().filter(|found| InboundRecord::decode(&found.value).is_some());
        view.inbound = inbound.count();
        Ok(view)
    }

    async fn with_cursors(
        &self,
        subs: Vec<ViewedSub>,
        settled: Option<Millis>,
    ) -> Result<Vec<SubscriptionDetails>, Refusal> {
        let logs: Vec<Option<Address>> = subs.iter().map(|(_, sub, _)| cursor_log(sub)).collect();
        let asked = logs.iter().flatten().cloned().collect();
        let heads = self.store().heads(asked).await.map_err(store_refusal)?;
        let mut heads = heads.into_iter();
        let (mut all, mut oldest) = (Vec::with_capacity(subs.len()), Vec::new());
        for ((_, sub, cursor), log) in subs.into_iter().zip(logs) {
            let mut details = SubscriptionDetails { sub, cursor: None };
            if let Some((channel, head)) = log.and_then(|log| Some((log, heads.next()?))) {
                let cursor = position(&head, cursor, settled);
                let until = match details.sub.tail {
                    Some(tail) if tail.epoch == head.epoch => tail.until,
                    Some(_) => 0,
                    None => head.last,
                };
                let own = CursorDetails::of(&head, &cursor, until);
                if own.backlog > 0 {
                    let from = cursor.next_unacked(head.first);
                    oldest.push((all.len(), age_range(channel, from, own.head)));
                }
                details.cursor = Some(own);
            }
            all.push(details);
        }
        for part in oldest.chunks(AGES_AT_ONCE) {
            let now = clock::now();
            let ranges = part.iter().map(|(_, range)| range.clone()).collect();
            let pages = self.store().read(now, ranges).await.map_err(store_refusal)?;
            for ((at, _), page) in part.iter().zip(pages) {
                let age = page.messages.first().map(|m| now.saturating_sub(m.created_at));
                if let Some(cursor) = &mut all[*at].cursor {
                    cursor.lag_ms = age;
                }
            }
        }
        Ok(all)
    }

    /// Goes through a session's stored subscriptions, by slot; those of damaged records are left out.
    pub(super) async fn each_sub(
        &self,
        number: u64,
        mut each: impl FnMut(u32, StoredSub),
    ) -> Result<usize, Refusal> {
        let chunks = self.all_records(record::chunks_prefix(number)).await?;
        for chunk in &chunks {
            let at = record::parse_chunk_key(&chunk.key).map(|(_, at)| at);
            let Some((at, own)) = at.zip(record::decode_chunk(&chunk.value)) else { continue };
            for (place, sub) in own {
                each(at * record::CHUNK as u32 + u32::from(place), sub);
            }
        }
        Ok(chunks.len())
    }

    /// A session's record and its version, which must be there.
    pub(super) async fn stored_session(
        &self,
        client: &str,
    ) -> Result<(SessionRecord, u64), Refusal> {
        let found = self.session_record(client).await?;
        let found = found.filter(|(session, _)| !self.has_expired(client, session));
        found.ok_or_else(super::admin::no_session)
    }
}

/// One message, the first that lives.
fn age_range(channel: Address, from: Seq, to: Seq) -> ReadRange {
    ReadRange { channel, from, to, backwards: false, count: 1, bytes: 1 }
}

impl SubscriptionDetails {
    /// When it was made; `None` = it is being made.
    pub fn since(&self) -> Option<Millis> {
        Some(self.sub.since).filter(|since| *since != PENDING)
    }

    /// How it ended, if it has, and when; `None` = that is being stored.
    pub fn tail(&self) -> Option<(Option<Millis>, Tail)> {
        let tail = self.sub.tail?;
        Some((Some(tail.at).filter(|at| *at != PENDING), tail))
    }

    /// The log that it reads by itself.
    pub fn channel(&self) -> Option<Address> {
        cursor_log(&self.sub)
    }

    /// Whether it is to a topic that stands for the user's feed, which a device's cursors read.
    pub fn is_feed(&self) -> bool {
        self.sub.share.as_deref() == Some("")
    }

    /// The group of a shared one.
    pub fn share(&self) -> Option<&str> {
        self.sub.share.as_deref().filter(|share| !share.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Head = Head { epoch: 3, first: 11, last: 30, counted: 0, bytes: 0, last_at: 500 };

    #[test]
    fn what_a_cursor_says_of_its_log() {
        let mut cursor = Cursor::at(4);
        cursor.ack(12);
        let of = |until| CursorDetails::of(&LOG, &cursor, until);
        let own = of(30);
        assert_eq!((own.acked, own.head, own.backlog, own.lost), (4, 30, 19, 6));
        let tail = of(12);
        assert_eq!((tail.head, tail.backlog, tail.lost), (12, 1, 6));
        assert_eq!((of(0).backlog, of(0).lost), (0, 0));
        let ahead = CursorDetails::of(&LOG, &Cursor::at(30), 30);
        assert_eq!((ahead.backlog, ahead.lost), (0, 0));
    }

    #[test]
    fn what_is_settled_is_acked_and_another_history_is_not() {
        let own = Some((3, Cursor::at(7)));
        assert_eq!(position(&LOG, own.clone(), None).floor(), 7);
        assert_eq!(position(&LOG, own.clone(), Some(500)).floor(), 7, "it has grown since");
        assert_eq!(position(&LOG, own, Some(501)).floor(), 30);
        assert_eq!(position(&LOG, Some((2, Cursor::at(7))), None).floor(), 0);
        assert_eq!(position(&LOG, None, None).floor(), 0);
    }
}
