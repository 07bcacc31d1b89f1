//! What a CONNECT finds: its stored session, read and noted as attached before anything of it begins.
//!
//! Invariants: the client id's older connection has ended, and its end is committed, before anything is read; that the session is
//! attached, and its will, are committed before its client is told. Must not know: any protocol, where sessions live.

use super::{SessionGuard, end_units, has_expired, put};
use crate::attach::SessionRef;
use crate::clients::Waiting;
use crate::clock;
use crate::durable::Known;
use crate::node::{Node, random, store_refusal};
use crate::peer::PeerPlan;
use crate::wills::{OwnWill, Testament};
use bytes::Bytes;
use clarion_core::durable::record::{self, InboundRecord, OwedRecord, SessionRecord, WindowRecord};
use clarion_core::durable::subs::StoredSub;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::peer::Will;
use clarion_core::port::store::{Change, Done, Expect, Reader, Record, StoredCursor, Unit};
use clarion_core::{Address, Code, Cursor, Refusal};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Records that are read at once.
const PAGE: usize = 1000;

/// Where a subscription's log was read up to.
#[derive(Debug, Clone)]
pub(crate) enum LoadedLog {
    /// Everything up to here is acked.
    Settled(Known),
    /// By its cursor; `None` = there is none.
    Cursor(Option<Box<StoredCursor>>),
}

/// A subscription by its slot, with the log that it reads, if any.
pub(crate) type LoadedSub = (u32, StoredSub, Option<(Address, LoadedLog)>);

/// A stored session that was opened.
pub(crate) struct Opened {
    pub(crate) guard: Arc<SessionGuard>,
    pub(crate) record: SessionRecord,
    pub(crate) version: u64,
    /// Its record as it is without this connection.
    pub(crate) before: SessionRecord,
    /// It was there.
    pub(crate) present: bool,
    /// The server ended without it since it was attached last.
    pub(crate) crashed: bool,
    /// By slot, with the log of each that has one.
    pub(crate) subs: Vec<LoadedSub>,
    pub(crate) window: WindowRecord,
    pub(crate) owed: OwedRecord,
    pub(crate) inbound: HashMap<u16, InboundRecord>,
}

/// What a CONNECT begins with.
#[derive(Default)]
pub(crate) struct Opening {
    /// Its stored session.
    pub(crate) session: Option<Box<Opened>>,
    /// The record of its will.
    pub(crate) will: Option<Box<OwnWill>>,
    /// The will that it took back.
    pub(crate) back: Option<Waiting>,
    /// With it, until it has begun, whatever is done about wills can be undone.
    pub(crate) guard: Option<Arc<SessionGuard>>,
}

impl Node {
    /// A session's record and its version.
    pub(crate) async fn session_record(
        &self,
        client: &str,
    ) -> Result<Option<(SessionRecord, u64)>, Refusal> {
        let Some(key) = record::session_key(client) else { return Ok(None) };
        let found = self.store().records(key.clone(), None, 1).await.map_err(store_refusal)?;
        let Some(found) = found.into_iter().find(|found| found.key == key) else { return Ok(None) };
        let damaged = || Refusal::new(Code::Internal, "a session's record is damaged");
        Ok(Some((SessionRecord::decode(&found.value).ok_or_else(damaged)?, found.version)))
    }

    /// Waits until nobody has the client id's stored session; an older connection of it ends.
    pub(crate) async fn hold_session(
        &self,
        client: &Arc<str>,
        reason: CloseReason,
    ) -> SessionGuard {
        let waiting = self.inner.sessions.locks.lock(client);
        tokio::pin!(waiting);
        // It waits from here on, so that one who gets in before it knows that it must go.
        if let std::task::Poll::Ready(guard) = futures_poll(waiting.as_mut()).await {
            return guard;
        }
        if let Some(SessionRef { shard, key }) = self.inner.clients.holder(client) {
            self.post_job(shard, move |shard| shard.close_peer(key, reason));
        }
        waiting.await
    }

    /// Opens the stored session of a CONNECT, if it has or wants one, and stores its will. Fails with `bad_user` when it is
    /// somebody else's.
    pub(crate) async fn open_session(
        &self,
        plan: &PeerPlan,
        will: Option<Will>,
    ) -> Result<Opening, Refusal> {
        let (sessions, clients) = (&self.inner.sessions, &self.inner.clients);
        let any = sessions.any.load(Ordering::Relaxed) || clients.any_waits();
        if plan.expiry_s == 0 && will.is_none() && !any {
            return Ok(Opening::default());
        }
        let foreign = || Refusal::new(Code::BadUser, "another user has this client id");
        if !clients.may_enter(&plan.client_id, &plan.owner, plan.exclusive) {
            return Err(foreign());
        }
        let Some(key) = record::session_key(&plan.client_id) else {
            return if plan.expiry_s == 0 {
                Ok(Opening::default())
            } else {
                Err(Refusal::new(Code::BadUser, "the client id is too long for a session"))
            };
        };
        let guard = Arc::new(self.hold_session(&plan.client_id, CloseReason::TakenOver).await);
        let turn = sessions.turn().await;
        let mut found = self.session_record(&plan.client_id).await?;
        drop(turn);
        let mut discarded = None;
        if let Some((old, version)) = &found {
            let other = old.owner.as_deref() != plan.owner.as_deref();
            let expired = has_expired(old, sessions.started, clock::now());
            if other && plan.exclusive && !expired {
                return Err(foreign());
            }
            if other || plan.clean || expired {
                discarded = Some((old.number, *version));
                found = None;
            }
        }
        let Testament { unit, own, back } =
            self.meet_wills(plan, &guard, will, found.is_some()).await;
        let held = (own.is_some() || back).then(|| guard.clone());
        let mut opening = Opening { will: own, guard: held, ..Opening::default() };
        if found.is_some() || plan.expiry_s > 0 {
            sessions.any.store(true, Ordering::Relaxed);
            let opened = self.attach_session(plan, guard, key, found, discarded, unit).await?;
            opening.session = Some(Box::new(opened));
        } else {
            let ends = discarded.map(|(number, version)| end_units(key, version, number));
            let units: Vec<Unit> = ends.into_iter().flatten().chain(unit).collect();
            if !units.is_empty() {
                self.commit(units).await?;
            }
            if let Some((number, _)) = discarded {
                sessions.is_gone(number);
            }
        }
        opening.back = clients.take_waiting(&plan.client_id).filter(|_| back);
        Ok(opening)
    }

    async fn attach_session(
        &self,
        plan: &PeerPlan,
        guard: Arc<SessionGuard>,
        key: Bytes,
        found: Option<(SessionRecord, u64)>,
        discarded: Option<(u64, u64)>,
        will: Option<Unit>,
    ) -> Result<Opened, Refusal> {
        let present = found.is_some();
        let now = clock::now();
        let crashed = found.as_ref().is_some_and(|(old, _)| old.ended_at.is_none());
        let settled = found.as_ref().and_then(|(old, _)| old.settled);
        let (number, created_at) = match &found {
            Some((old, _)) => (old.number, old.created_at),
            None => (u64::from_be_bytes(random()?).max(1), now),
        };
        let session = SessionRecord {
            number,
            owner: plan.owner.as_deref().map(Into::into),
            user: plan.user.as_deref().map(Into::into),
            expiry_s: plan.expiry_s,
            created_at,
            ended_at: None,
            settled: None,
        };
        let before = match &found {
            Some((old, _)) => SessionRecord { ended_at: old.ended_at.or(Some(now)), ..old.clone() },
            None => SessionRecord { ended_at: Some(now), ..session.clone() },
        };
        let mut opened = Opened {
            guard,
            before,
            version: 0,
            present,
            crashed,
            subs: Vec::new(),
            window: WindowRecord::default(),
            owed: OwedRecord::default(),
            inbound: HashMap::new(),
            record: session,
        };
        if present {
            self.load_session(&mut opened, settled).await?;
        }
        let expect = match (&found, discarded) {
            (Some((_, version)), _) => Expect::Version(*version),
            (None, Some((_, version))) => Expect::Version(version),
            (None, None) => Expect::Absent,
        };
        let change = Change::Put(opened.record.encode());
        let mut units = vec![Unit::Record { key, expect, change }];
        if let Some((old, _)) = discarded {
            units.push(put(record::gone_key(old), Bytes::new()));
        }
        if !present {
            let client = Bytes::copy_from_slice(plan.client_id.as_bytes());
            units.push(put(record::client_key(number), client));
        }
        units.extend(will);
        if let Some(Done::Recorded(version)) = self.commit(units).await?.first() {
            opened.version = *version;
        }
        if !present {
            self.inner.sessions.born(number);
        }
        if let Some((old, _)) = discarded {
            self.inner.sessions.is_gone(old);
        }
        Ok(opened)
    }

    /// A session that was noted as attached is not, after all.
    pub(crate) async fn undo_session(&self, client: &str, version: u64, before: &SessionRecord) {
        let Some(key) = record::session_key(client) else { return };
        let expect = Expect::Version(version);
        let unit = Unit::Record { key, expect, change: Change::Put(before.encode()) };
        if let Err(refusal) = self.commit(vec![unit]).await {
            tracing::debug!(%refusal, "a session stays noted as attached");
        }
    }

    async fn load_session(&self, opened: &mut Opened, settled: Option<u64>) -> Result<(), Refusal> {
        let _turn = self.inner.sessions.turn().await;
        let number = opened.record.number;
        let mut subs = Vec::new();
        for chunk in self.all_records(record::chunks_prefix(number)).await? {
            let damaged = || Refusal::new(Code::Internal, "a session's subscriptions are damaged");
            let (_, at) = record::parse_chunk_key(&chunk.key).ok_or_else(damaged)?;
            let own = record::decode_chunk(&chunk.value).ok_or_else(damaged)?;
            let slot = |place: u8| at * record::CHUNK as u32 + u32::from(place);
            subs.extend(own.into_iter().map(|(place, sub)| (slot(place), sub)));
        }
        opened.subs = self.load_logs(number, subs, settled).await?;
        if settled.is_some() {
            // Nothing was out, owed or under way at its end.
            return Ok(());
        }
        for found in self.all_records(record::window_key(number)).await? {
            opened.window = WindowRecord::decode(&found.value).unwrap_or_default();
        }
        for found in self.all_records(record::owed_key(number)).await? {
            opened.owed = OwedRecord::decode(&found.value).unwrap_or_default();
        }
        for found in self.all_records(record::inbounds_prefix(number)).await? {
            let id = record::parse_inbound_key(&found.key);
            if let (Some((_, id)), Some(inbound)) = (id, InboundRecord::decode(&found.value)) {
                opened.inbound.insert(id, inbound);
            }
        }
        Ok(())
    }

    pub(super) async fn all_records(&self, prefix: Bytes) -> Result<Vec<Record>, Refusal> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map(|record| record.key.clone());
            let page =
                self.store().records(prefix.clone(), after, PAGE).await.map_err(store_refusal)?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// How far each subscription's log was read: of those that have not grown since all was acked nothing needs to be read.
    async fn load_logs(
        &self,
        number: u64,
        subs: Vec<(u32, StoredSub)>,
        settled: Option<u64>,
    ) -> Result<Vec<LoadedSub>, Refusal> {
        let channels: Vec<Option<Address>> =
            subs.iter().map(|(_, sub)| sub.channel().filter(|_| sub.is_durable())).collect();
        let known = self.inner.planner.durable.known(channels.iter().flatten()).0;
        let mut known = known.into_iter();
        let mut asked = Vec::new();
        let mut logs: Vec<Option<LoadedLog>> = Vec::with_capacity(subs.len());
        for channel in &channels {
            let Some(channel) = channel else {
                logs.push(None);
                continue;
            };
            logs.push(match (known.next().flatten(), settled) {
                (Some(known), Some(settled)) if known.last_at < settled => {
                    Some(LoadedLog::Settled(known))
                }
                _ => {
                    asked.push(channel.clone());
                    Some(LoadedLog::Cursor(None))
                }
            });
        }
        if !asked.is_empty() {
            let reader = Reader::session(number);
            let cursors = self.store().cursors_on(reader, asked).await.map_err(store_refusal)?;
            let places = logs.iter_mut().flatten();
            let places = places.filter(|log| matches!(log, LoadedLog::Cursor(_)));
            for (place, cursor) in places.zip(cursors) {
                *place = LoadedLog::Cursor(cursor.map(Box::new));
            }
        }
        let logs = channels.into_iter().zip(logs).map(|(channel, log)| channel.zip(log));
        Ok(subs.into_iter().zip(logs).map(|((slot, sub), log)| (slot, sub, log)).collect())
    }
}

/// Polls once.
async fn futures_poll<T>(
    mut future: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> std::task::Poll<T> {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
}

impl LoadedLog {
    /// The history that it counts in, and what is acked there.
    pub(crate) fn cursor(&self) -> Option<(u32, Cursor)> {
        match self {
            Self::Settled(known) => Some((known.epoch, Cursor::at(known.last))),
            Self::Cursor(stored) => stored.as_ref().map(|s| (s.epoch, s.cursor.clone())),
        }
    }
}
