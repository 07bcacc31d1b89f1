//! The verbs of those who take single messages of a shared cursor: next, ack, nack.
//!
//! Invariants: what is taken is under a lease until it is acked, given back, or the lease lapses; a lease of a process
//! that has ended still acks; who goes away while he waits takes nothing with him. Must not know: how a lease is shown to
//! a client.

use crate::attach::{SharedPlan, Sharing, shared_plan};
use crate::node::{Node, store_refusal};
use crate::shard::{Shard, Taken, Taker};
use clarion_core::mode::Member;
use clarion_core::port::store::{Move, StoredCursor, Unit};
use clarion_core::start::From;
use clarion_core::{Address, AddressKind, Code, Epoch, Message, Principal, Refusal, Seq, Verb};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// What somebody asks for.
#[derive(Debug, Clone)]
pub struct NextSpec {
    /// Whence.
    pub address: Address,
    /// Which reader group; `None` = the reserved one.
    pub group: Option<String>,
    /// Where a new group starts.
    pub from: Option<From>,
    /// At most so many messages, ≥ 1.
    pub count: usize,
    /// At most so many bytes, but always one message.
    pub bytes: usize,
    /// How long to wait for the first one.
    pub wait: Duration,
    /// How long the lease lasts; `None` = as configured.
    pub ack_wait: Option<Duration>,
}

/// A message under a lease.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The message.
    pub message: Arc<Message>,
    /// Which hand-out of it this is, from 1.
    pub attempt: u32,
    /// The lease.
    pub lease: Lease,
}

/// Names a hand-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The channel's history.
    pub epoch: Epoch,
    /// The message.
    pub seq: Seq,
    /// Who has it.
    pub member: Member,
}

/// Members that are requests, not sessions.
const TAKERS: Member = 1 << 63;

impl Node {
    fn shared_for(
        &self,
        principal: &Principal,
        address: Address,
        group: Option<String>,
    ) -> Result<SharedPlan, Refusal> {
        if !principal.allows(Verb::Subscribe, &address) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not read this"));
        }
        if address.kind() == AddressKind::Group {
            return Err(Refusal::new(Code::NotFound, "there is no such group"));
        }
        self.check_taking()?;
        shared_plan(address, &group.map_or(Sharing::Unify, Sharing::Group))
    }

    /// The next messages of a shared cursor, under a lease; empty when none came in time.
    pub async fn next(
        &self,
        principal: &Principal,
        spec: NextSpec,
    ) -> Result<Vec<Leased>, Refusal> {
        let plan = self.shared_for(principal, spec.address, spec.group)?;
        let _place = self.inner.takers.try_acquire().map_err(|_| {
            Refusal::new(Code::Overloaded, "as many requests wait for messages as may")
        })?;
        let shard = self.shard_of_tag(plan.tag());
        let known = plan.clone();
        if !self.on_shard(shard, move |s| s.has_shared(&known)).await? {
            self.ensure_shared(&plan, spec.from).await?;
        }
        let member = TAKERS | self.inner.planner.live_counter.fetch_add(1, Ordering::Relaxed);
        let ack_wait = spec.ack_wait.unwrap_or(self.config().ack_wait);
        let (reply, taken) = oneshot::channel();
        let taker = Taker {
            member,
            count: spec.count,
            bytes: spec.bytes,
            ack_wait_ms: ack_wait.as_millis() as u64,
            patient: !spec.wait.is_zero(),
            reply,
        };
        let asked = plan.clone();
        self.post_job(shard, move |s: &Rc<Shard>| s.take(asked, taker));
        let waiting = Waiting { node: self, shard, plan, member, taken, answered: false };
        let handed = waiting.wait(spec.wait).await?;
        let leased = handed.into_iter().map(|handed| {
            let (epoch, seq) = (handed.message.epoch, handed.message.seq);
            let lease = Lease { epoch, seq, member };
            Leased { message: handed.message, attempt: handed.attempt, lease }
        });
        Ok(leased.collect())
    }

    /// Requests that wait for messages.
    pub fn takers_waiting(&self) -> u64 {
        (self.config().takers - self.inner.takers.available_permits()) as u64
    }

    /// Acks leases. Returns how many were not acked before; a cursor that nobody uses now has it committed first. Fails
    /// with `not_found` when there is no such cursor.
    pub async fn ack_leases(
        &self,
        principal: &Principal,
        address: Address,
        group: Option<String>,
        leases: &[Lease],
    ) -> Result<u64, Refusal> {
        let plan = self.shared_for(principal, address, group)?;
        let places: Vec<(Epoch, Seq)> = leases.iter().map(|l| (l.epoch, l.seq)).collect();
        let (asked, acked) = (plan.clone(), places.clone());
        let shard = self.shard_of_tag(plan.tag());
        if let Some(moved) = self.on_shard(shard, move |s| s.ack_leases(&asked, &acked)).await? {
            return Ok(moved);
        }
        let moved = self.ack_stored_leases(&plan, &places).await?;
        self.post_job(shard, move |s| s.acked_meanwhile(&plan, places));
        Ok(moved)
    }

    async fn stored_shared(&self, plan: &SharedPlan) -> Result<StoredCursor, Refusal> {
        let readers = self.store().readers(plan.channel.clone()).await.map_err(store_refusal)?;
        let stored = readers.into_iter().find(|stored| stored.reader == plan.reader);
        stored
            .ok_or_else(|| Refusal::new(Code::NotFound, "nobody takes messages here by this name"))
    }

    async fn ack_stored_leases(
        &self,
        plan: &SharedPlan,
        places: &[(Epoch, Seq)],
    ) -> Result<u64, Refusal> {
        let StoredCursor { epoch, mut cursor, .. } = self.stored_shared(plan).await?;
        let heads = self.store().heads(vec![plan.channel.clone()]).await.map_err(store_refusal)?;
        let last = heads.first().map_or(0, |head| head.last);
        let due = places.iter().filter(|(of, seq)| *of == epoch && *seq <= last);
        let moved = due.filter(|(_, seq)| cursor.ack(*seq)).count();
        if moved > 0 {
            let moves = vec![Move { channel: plan.channel.clone(), epoch, cursor }];
            self.commit(vec![Unit::Ack { reader: plan.reader.clone(), moves }]).await?;
            self.inner.trimmable.note(&plan.channel);
        }
        Ok(moved as u64)
    }

    /// Gives leases back: their messages are handed out again after the delay. Returns how many there were. Fails with
    /// `not_found` when there is no such cursor.
    pub async fn nack_leases(
        &self,
        principal: &Principal,
        address: Address,
        group: Option<String>,
        leases: &[Lease],
        delay: Duration,
    ) -> Result<usize, Refusal> {
        let plan = self.shared_for(principal, address, group)?;
        let places: Vec<_> = leases.iter().map(|l| (l.epoch, l.seq, l.member)).collect();
        let (shard, delay) = (self.shard_of_tag(plan.tag()), delay.as_millis() as u64);
        let asked = plan.clone();
        let nacked = self.on_shard(shard, move |s| s.nack_leases(&asked, &places, delay)).await?;
        match nacked {
            Some(nacked) => Ok(nacked),
            None => self.stored_shared(&plan).await.map(|_| 0),
        }
    }
}

/// A taker's answer on its way; dropped before it came, the shard takes back what it holds.
struct Waiting<'a> {
    node: &'a Node,
    shard: usize,
    plan: SharedPlan,
    member: Member,
    taken: oneshot::Receiver<Taken>,
    answered: bool,
}

impl Waiting<'_> {
    async fn wait(mut self, wait: Duration) -> Taken {
        let mut taken = tokio::time::timeout(wait, &mut self.taken).await.ok();
        if taken.is_none() {
            let (plan, member) = (self.plan.clone(), self.member);
            self.node.post_job(self.shard, move |s| s.hurry(&plan, member));
            taken = Some((&mut self.taken).await);
        }
        self.answered = true;
        // Without an answer the shard has ended.
        taken.and_then(Result::ok).unwrap_or_else(|| Err(Code::ShuttingDown.into()))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            let (plan, member) = (self.plan.clone(), self.member);
            self.node.post_job(self.shard, move |s| s.taker_gone(&plan, member));
        }
    }
}
