//! The verbs about stored sessions: list them, delete one, move a cursor of one.
//!
//! Invariants: who changes a session has it to himself, so an attached one is closed first and its end is committed; the change is
//! brought to its end whether or not the asker still waits; what one list reads is bounded. Must not know: any protocol.

use super::inspect::{cursor_log, position};
use super::{SessionGuard, delete, end_units, put};
use crate::clock;
use crate::node::{Node, store_refusal};
use bytes::Bytes;
use clarion_core::durable::record::{self, SessionRecord, WindowRecord};
use clarion_core::durable::subs::StoredSub;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::OutState;
use clarion_core::port::store::{Change, Expect, Head, Move, Reader, Unit};
use clarion_core::start::From;
use clarion_core::{Address, Code, Cursor, Epoch, Millis, Principal, Refusal, Seq};
use std::time::Duration;

/// Sessions that are read at once.
const PAGE: usize = 256;
/// Records that one request looks at, of sessions and of their subscriptions, so that one that matches little ends too.
const LOOKED_MAX: usize = 10_000;

/// The end of a connection is committed within this time, or its session counts as attached.
const ENDING: Duration = Duration::from_secs(2);

/// A stored session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Whose.
    pub client_id: String,
    /// Its user, if it has one.
    pub user: Option<String>,
    /// Its client is connected.
    pub attached: bool,
    /// When it was made.
    pub created_at: Millis,
    /// When its last connection ended; `None` = it is attached, or the server ended before it could note that.
    pub ended_at: Option<Millis>,
    /// Seconds that it lives without a connection; `u32::MAX` = for ever.
    pub expiry_s: u32,
    /// When it ends if nobody comes.
    pub expires_at: Option<Millis>,
    /// Subscriptions that it has.
    pub subscriptions: usize,
}

/// Part of the list of stored sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSessionPage {
    /// In the order of their client ids' bytes; may be fewer than asked for, even none, while there are more.
    pub sessions: Vec<StoredSession>,
    /// Where to go on, if there may be more.
    pub next: Option<String>,
}

/// A cursor was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorMoved {
    /// The log's history.
    pub epoch: Epoch,
    /// Everything up to here counts as acked.
    pub acked: Seq,
    /// The log's last seq.
    pub head: Seq,
}

pub(super) fn no_session() -> Refusal {
    Refusal::new(Code::NotFound, "this client id has no stored session")
}

impl Node {
    /// Whether a session has ended, though it may not be swept yet.
    pub(super) fn has_expired(&self, client: &str, session: &SessionRecord) -> bool {
        !self.has_client(client, session)
            && super::has_expired(session, self.inner.sessions.started, clock::now())
    }

    /// Whether a session's client is connected. A record without an end is also what a crash leaves.
    fn has_client(&self, client: &str, session: &SessionRecord) -> bool {
        session.ended_at.is_none() && self.inner.clients.holder(client).is_some()
    }

    /// What is told of a session.
    pub(super) fn told(
        &self,
        client: &str,
        session: &SessionRecord,
        subscriptions: usize,
    ) -> StoredSession {
        let attached = self.has_client(client, session);
        let lives = u64::from(session.expiry_s) * 1000;
        // Of one that the server ended without, its time counts from the start.
        let began = session.ended_at.or((!attached).then_some(self.inner.sessions.started));
        let ends = began.filter(|_| session.expiry_s != u32::MAX);
        StoredSession {
            client_id: client.to_owned(),
            user: session.user.as_deref().map(str::to_owned),
            attached,
            created_at: session.created_at,
            ended_at: session.ended_at,
            expiry_s: session.expiry_s,
            expires_at: ends.map(|ended| ended.saturating_add(lives)),
            subscriptions,
        }
    }

    /// Stored sessions, or those of one user, above client id `after`, at most `limit`.
    pub async fn list_stored_sessions(
        &self,
        principal: &Principal,
        user: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<StoredSessionPage, Refusal> {
        Self::check_admin(principal, None)?;
        let mut after: Option<Bytes> =
            after.map(|after| [record::SESSIONS, after.as_bytes()].concat().into());
        let place = |after: &Option<Bytes>| {
            let key = after.as_deref().unwrap_or_default();
            record::parse_session_key(key).map(str::to_owned)
        };
        let (mut sessions, mut looked) = (Vec::new(), 0);
        loop {
            let prefix = Bytes::from_static(record::SESSIONS);
            let page = self.store().records(prefix, after.clone(), PAGE).await;
            let page = page.map_err(store_refusal)?;
            let ended = page.len() < PAGE;
            for found in page {
                let session = SessionRecord::decode(&found.value)
                    .filter(|session| user.is_none_or(|own| session.user.as_deref() == Some(own)))
                    .zip(record::parse_session_key(&found.key))
                    .filter(|(session, client)| !self.has_expired(client, session));
                if let Some((session, client)) = session {
                    if sessions.len() >= limit || looked >= LOOKED_MAX {
                        return Ok(StoredSessionPage { sessions, next: place(&after) });
                    }
                    let mut count = 0;
                    let own = |_, sub: StoredSub| count += usize::from(sub.tail.is_none());
                    looked += self.each_sub(session.number, own).await?;
                    sessions.push(self.told(client, &session, count));
                }
                (after, looked) = (Some(found.key), looked + 1);
            }
            if ended {
                return Ok(StoredSessionPage { sessions, next: None });
            }
            if looked >= LOOKED_MAX {
                return Ok(StoredSessionPage { sessions, next: place(&after) });
            }
        }
    }

    /// Ends a stored session and all that hangs at it; its connection is closed first. Fails with `not_found` when there is none.
    pub async fn delete_session(&self, principal: &Principal, client: &str) -> Result<(), Refusal> {
        Self::check_admin(principal, None)?;
        self.check_taking()?;
        self.stored_session(client).await?;
        let guard = self.hold_session(&client.into(), CloseReason::Kicked).await;
        let (node, client) = (self.clone(), client.to_owned());
        to_the_end(guard, async move {
            // It may have ended with its connection.
            let Some((session, version)) = node.session_record(&client).await? else {
                return Ok(());
            };
            let key = record::session_key(&client).ok_or_else(no_session)?;
            node.commit(end_units(key, version, session.number)).await?;
            node.inner.sessions.is_gone(session.number);
            Ok(())
        })
        .await
    }

    /// Moves the cursor of a session's subscription: what lies below counts as acked, what lies above does not. Fails with
    /// `conflict` while the session is attached, unless it may be closed (`force`), and with `not_found` when there is no
    /// such session or subscription.
    pub async fn move_session_cursor(
        &self,
        principal: &Principal,
        client: &str,
        filter: &str,
        to: From,
        force: bool,
    ) -> Result<CursorMoved, Refusal> {
        Self::check_admin(principal, None)?;
        self.check_taking()?;
        self.stored_session(client).await?;
        let guard = if force {
            self.hold_session(&client.into(), CloseReason::Kicked).await
        } else {
            self.hold_unattached(client).await?
        };
        let (node, client, filter) = (self.clone(), client.to_owned(), filter.to_owned());
        to_the_end(guard, async move { node.move_held(&client, &filter, to).await }).await
    }

    /// Has a session that is not attached. Its last connection may have ended so lately that this is not committed yet.
    async fn hold_unattached(&self, client: &str) -> Result<SessionGuard, Refusal> {
        let (clients, locks) = (&self.inner.clients, &self.inner.sessions.locks);
        if clients.holder(client).is_none()
            && let Ok(guard) = tokio::time::timeout(ENDING, locks.lock_quietly(client)).await
        {
            return Ok(guard);
        }
        Err(Refusal::new(Code::Conflict, "the session is attached; it is closed with 'force'"))
    }

    /// The same of a session that nobody else has.
    async fn move_held(
        &self,
        client: &str,
        filter: &str,
        to: From,
    ) -> Result<CursorMoved, Refusal> {
        let (session, version) = self.stored_session(client).await?;
        let number = session.number;
        let log = self.log_to_move(number, filter).await?;
        let logs = vec![log.clone()];
        let heads = self.store().heads(logs.clone()).await.map_err(store_refusal)?;
        let head = heads.into_iter().next().unwrap_or_default();
        let reader = Reader::session(number);
        let cursors = self.store().cursors_on(reader.clone(), logs).await.map_err(store_refusal)?;
        let own = cursors.into_iter().flatten().next().map(|own| (own.epoch, own.cursor));
        let now = position(&head, own, session.settled);
        let floor = floor_of(to, &head)?;
        let mut units = Vec::with_capacity(4);
        if floor < now.top() {
            units.push(Unit::Forget { reader: reader.clone(), channel: Some(log.clone()) });
        }
        let cursor = Cursor::at(floor);
        let moves = vec![Move { channel: log.clone(), epoch: head.epoch, cursor }];
        units.push(Unit::Ack { reader, moves });
        let key = record::session_key(client).ok_or_else(no_session)?;
        // No longer settled: else its next connection would not look where its cursors stand.
        let value = SessionRecord { settled: None, ..session }.encode();
        units.push(Unit::Record {
            key,
            expect: Expect::Version(version),
            change: Change::Put(value),
        });
        units.extend(self.window_without(number, &log).await?);
        self.commit(units).await?;
        self.inner.trimmable.note(&log);
        Ok(CursorMoved { epoch: head.epoch, acked: floor, head: head.last })
    }

    /// The log of a session's subscription.
    async fn log_to_move(&self, number: u64, filter: &str) -> Result<Address, Refusal> {
        let mut found = None;
        self.each_sub(number, |_, sub| {
            if *sub.filter == *filter && sub.share.is_none() && sub.tail.is_none() {
                found = Some(sub);
            }
        })
        .await?;
        let none = || Refusal::new(Code::NotFound, "the session has no such subscription");
        let without = || Refusal::new(Code::BadRequest, "a subscription of QoS 0 has no cursor");
        cursor_log(&found.ok_or_else(none)?).ok_or_else(without)
    }

    /// Takes what QoS 1 has out of a log from the window, if anything: its cursor alone says what comes again.
    async fn window_without(&self, number: u64, log: &Address) -> Result<Option<Unit>, Refusal> {
        let key = record::window_key(number);
        let found = self.all_records(key.clone()).await?;
        let window = found.first().and_then(|found| WindowRecord::decode(&found.value));
        let Some(mut window) = window else { return Ok(None) };
        let at = window.logs.iter().position(|name| **name == *log.as_str());
        let before = window.outs.len();
        window
            .outs
            .retain(|out| out.state != OutState::AtLeastOnce || at != Some(out.place.log as usize));
        Ok(match window.outs.len() {
            kept if kept == before => None,
            0 => Some(delete(key)),
            _ => Some(put(key, window.encode())),
        })
    }
}

/// Where a cursor is moved to.
fn floor_of(to: From, head: &Head) -> Result<Seq, Refusal> {
    let earliest = head.first.saturating_sub(1);
    match to {
        From::Earliest => Ok(earliest),
        From::Latest => Ok(head.last),
        From::Seq(seq) if (1..=head.last + 1).contains(&seq) => Ok((seq - 1).max(earliest)),
        From::Seq(_) => {
            let detail = format!("to: the next seq must be 1 to {}", head.last + 1);
            Err(Refusal::new(Code::BadRequest, detail))
        }
        From::Unacked => Err(Refusal::new(Code::BadRequest, "to: earliest, latest or a seq")),
    }
}

/// Runs what changes a session, and has it until that is done, although the asker may go away.
async fn to_the_end<T: Send + 'static>(
    guard: SessionGuard,
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let task = tokio::spawn(async move {
        let done = change.await;
        drop(guard);
        done
    });
    task.await.map_err(|_| Refusal::from(Code::StoreOutcome))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_to_what_is_kept() {
        let head = Head { epoch: 1, first: 5, last: 9, ..Head::default() };
        for (to, floor) in [
            (From::Earliest, 4),
            (From::Latest, 9),
            (From::Seq(1), 4),
            (From::Seq(7), 6),
            (From::Seq(10), 9),
        ] {
            assert_eq!(floor_of(to, &head), Ok(floor), "{to:?}");
        }
        for bad in [From::Seq(0), From::Seq(11), From::Unacked] {
            assert!(floor_of(bad, &head).is_err(), "{bad:?}");
        }
        assert_eq!(floor_of(From::Seq(1), &Head::default()), Ok(0));
    }
}
