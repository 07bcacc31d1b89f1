//! The verbs of gates and of those who push through them: attach, answer, push, push and wait, remove (design §3,
//! mikudos).
//!
//! A gate is an external connection server that serves many users over one stream. It stands on every shard, so that
//! each shard hands the commits of its users' channels to it without asking another; its answers go to the shard of
//! their channel. Must not know: how a gate's frames look.

use crate::attach::{Guard, user_tag};
use crate::metrics::VerbCounters;
use crate::node::{Node, store_refusal};
use crate::pipe::PipeWriter;
use crate::planner::Plan;
use crate::publish::{Answer, Draft};
use crate::shard::{Mail, SessionKey};
use bytes::Bytes;
use clarion_core::gate_channel::{LIVE_IDS, msg_id};
use clarion_core::id::IdParts;
use clarion_core::port::outlet::Outlet;
use clarion_core::port::store::{Done, Durability, Unit};
use clarion_core::{Address, Code, Content, Message, MessageId, Principal, Refusal, Seq, Verb};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Batches of one gate's answers that may wait for a shard.
const BATCHES_MAX: usize = 8;

/// What a gate says of one channel.
#[derive(Debug)]
pub enum GateInput {
    /// It has a client of this user now: everything unacked above this number comes again.
    Request {
        /// The user's channel.
        channel: Address,
        /// 0 = everything.
        above: u32,
    },
    /// A client has it.
    Received {
        /// The user's channel.
        channel: Address,
        /// The number that the gate was given.
        msg_id: u32,
        /// What the gate says with it.
        echo: Echo,
    },
    /// It has no client of this user.
    Unreceived {
        /// The user's channel.
        channel: Address,
        /// The number that the gate was given.
        msg_id: u32,
        /// What the gate says with it.
        echo: Echo,
    },
    /// Not from a gate: the message counts as received; answered when that is committed.
    Remove {
        /// The user's channel.
        channel: Address,
        /// The number that gates were given.
        msg_id: u32,
        /// Whether it was unacked before.
        reply: oneshot::Sender<bool>,
    },
}

impl GateInput {
    pub(crate) fn channel(&self) -> &Address {
        match self {
            Self::Request { channel, .. }
            | Self::Received { channel, .. }
            | Self::Unreceived { channel, .. }
            | Self::Remove { channel, .. } => channel,
        }
    }
}

/// What a gate says with an answer; who waits for the answer gets it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Echo {
    /// The text, as the gate's client may have changed it.
    pub text: Bytes,
    /// Its seconds.
    pub expire: i32,
}

/// What became of a push that somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateAnswer {
    /// A client has it; else no gate has a client of this user.
    pub received: bool,
    /// What the answering gate said; nothing when there was none.
    pub echo: Echo,
}

/// A gate's inputs on their way.
pub(crate) struct GateBatch {
    pub(crate) inputs: Vec<GateInput>,
    pub(crate) _room: Option<OwnedSemaphorePermit>,
}

/// A new gate on one shard.
pub(crate) struct GateBirth {
    pub(crate) group: Arc<str>,
    pub(crate) outlet: Box<dyn Outlet>,
    pub(crate) pipe: PipeWriter,
    pub(crate) guard: Guard,
    pub(crate) first: bool,
}

/// The way of a gate's answers to the shards.
pub struct GateInputs {
    node: Node,
    sessions: Vec<SessionKey>,
    room: Arc<Semaphore>,
}

/// A push's answer and the number that gates were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The answer.
    pub answer: Answer,
    /// The number.
    pub msg_id: u32,
    /// How many sessions a live push went to; 0 when it was stored.
    pub delivered: u64,
}

/// The number of a message as gates see it.
pub fn gate_id(id: MessageId, seq: Seq) -> u32 {
    match id.parts() {
        Some(IdParts::Live { counter, .. }) => LIVE_IDS | (counter as u32 & (LIVE_IDS - 1)),
        _ => msg_id(seq),
    }
}

impl Node {
    /// How many shards there are: a gate brings a pipe for each.
    pub fn shards(&self) -> usize {
        self.mailboxes().len()
    }

    /// A gate of this group takes its place on every shard. `pipes` has one for each, in their order; `outlet` makes an
    /// outlet for each.
    pub async fn attach_gate(
        &self,
        principal: &Principal,
        group: &str,
        pipes: Vec<PipeWriter>,
        mut outlet: impl FnMut() -> Box<dyn Outlet>,
        guard: Guard,
    ) -> Result<GateInputs, Refusal> {
        // It reads the messages of every user: access rules, which tell addresses apart, do not bind it.
        if !principal.may_for(Verb::Subscribe, None) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not be a gate"));
        }
        self.check_taking()?;
        let group: Arc<str> = group.into();
        let mut guard = Some(guard);
        let mut sessions = Vec::with_capacity(pipes.len());
        for (shard, pipe) in pipes.into_iter().enumerate() {
            let birth = GateBirth {
                group: group.clone(),
                outlet: outlet(),
                pipe,
                guard: guard.take().unwrap_or_else(|| Box::new(())),
                first: shard == 0,
            };
            sessions.push(self.on_shard(shard, move |s| s.attach_gate(birth)).await??);
        }
        Ok(GateInputs { node: self.clone(), sessions, room: Arc::new(Semaphore::new(BATCHES_MAX)) })
    }

    fn gate_shard(&self, channel: &Address) -> usize {
        self.shard_of_tag(user_tag(channel.id()))
    }

    /// Publishes to a user for gates. Stored ones that find no gate are remembered for the next one that comes.
    pub async fn push(&self, principal: &Principal, draft: Draft) -> Result<Pushed, Refusal> {
        let counters = &self.inner.planner.counters;
        VerbCounters::count(&counters.pushed, 1);
        match self.inner.planner.plan(principal, draft, crate::clock::now())? {
            Plan::Live(message) => Ok(self.push_live(message).await),
            Plan::Stored(publish) => {
                let channel = publish.channel.clone();
                // Whether gates were told with the commit, nobody can say who did not see the same ones all along.
                let before = self.inner.interest.gates_seen();
                let pushed = self.push_stored(Unit::Publish(publish)).await?;
                if before == 0 || before != self.inner.interest.gates_seen() {
                    let shard = self.gate_shard(&channel);
                    self.post_job(shard, move |s| s.park(&channel, pushed.answer.seq));
                }
                Ok(pushed)
            }
        }
    }

    async fn push_live(&self, message: Arc<Message>) -> Pushed {
        let (id, counters) = (message.id, &self.inner.planner.counters);
        let delivered = self.post_live(vec![message]).await;
        VerbCounters::count(&counters.live, 1);
        if delivered == 0 {
            VerbCounters::count(&counters.expire_zero, 1);
        }
        let answer =
            Answer { id, epoch: 0, seq: 0, durability: Durability::None, duplicate: false };
        Pushed { answer, msg_id: gate_id(id, 0), delivered }
    }

    async fn push_stored(&self, unit: Unit) -> Result<Pushed, Refusal> {
        let counters = &self.inner.planner.counters;
        let (durability, results) = self.submit(vec![unit]).await?.map_err(store_refusal)?;
        match results.first() {
            Some(Done::Published(stored)) => {
                VerbCounters::count(&counters.stored, 1);
                VerbCounters::count(&counters.pushed_stored, 1);
                let answer = Answer::stored(stored, durability);
                Ok(Pushed { answer, msg_id: gate_id(stored.id, stored.seq), delivered: 0 })
            }
            Some(Done::Refused(code)) => {
                VerbCounters::count(&counters.refused, 1);
                Err((*code).into())
            }
            _ => Err(Code::Internal.into()),
        }
    }

    /// Pushes and waits for what the gates answer: the first RECEIVED, or UNRECEIVED of all that were given it. `None`
    /// when nobody answered in time.
    pub async fn push_with_status(
        &self,
        principal: &Principal,
        draft: Draft,
        patience: Duration,
    ) -> Result<(Pushed, Option<GateAnswer>), Refusal> {
        VerbCounters::count(&self.inner.planner.counters.pushed, 1);
        let (sender, answer) = oneshot::channel();
        let pushed = match self.inner.planner.plan(principal, draft, crate::clock::now())? {
            Plan::Live(message) => {
                self.watch(&message.channel, message.content.clone(), sender);
                let (channel, content) = (message.channel.clone(), message.content.clone());
                let pushed = self.push_live(message).await;
                self.unwatch(&channel, content, 0);
                pushed
            }
            Plan::Stored(publish) => {
                let (channel, content) = (publish.channel.clone(), publish.content.clone());
                // Before the commit: its hint must find it.
                self.watch(&channel, content.clone(), sender);
                let pushed = self.push_stored(Unit::Publish(publish)).await;
                let seq = pushed.as_ref().map_or(0, |pushed| pushed.answer.seq);
                self.unwatch(&channel, content, seq);
                pushed?
            }
        };
        let answered = tokio::time::timeout(patience, answer).await;
        Ok((pushed, answered.ok().and_then(Result::ok)))
    }

    /// The hand-out of this content is watched: its shard hears of it before the hint.
    fn watch(&self, channel: &Address, content: Arc<Content>, sender: oneshot::Sender<GateAnswer>) {
        self.post_job(self.gate_shard(channel), move |s| s.watch_push(content, sender));
    }

    /// The publish is over: who still waits without a hand-out is given one, or told that there is no gate.
    fn unwatch(&self, channel: &Address, content: Arc<Content>, seq: Seq) {
        let (shard, channel) = (self.gate_shard(channel), channel.clone());
        self.post_job(shard, move |s| s.watched_push_done(&channel, &content, seq));
    }

    /// Counts a message as received, whoever got it. Returns whether it was not before; committed when answered.
    pub async fn remove(
        &self,
        principal: &Principal,
        channel: Address,
        msg_id: u32,
    ) -> Result<bool, Refusal> {
        if !principal.allows(Verb::Subscribe, &channel) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not ack there"));
        }
        self.check_taking()?;
        let (reply, removed) = oneshot::channel();
        let shard = self.gate_shard(&channel);
        let inputs = vec![GateInput::Remove { channel, msg_id, reply }];
        let nobody = SessionKey { index: u32::MAX, generation: 0 };
        self.mailbox(shard).post(Mail::Gate(nobody, GateBatch { inputs, _room: None }));
        removed.await.map_err(|_| Code::StoreUnavailable.into())
    }
}

impl GateInputs {
    /// Hands a gate's answers to the shards of their channels, once there is room; `false` when a shard has ended.
    pub async fn send(&self, inputs: Vec<GateInput>) -> bool {
        let mut parts: Vec<Vec<GateInput>> = self.sessions.iter().map(|_| Vec::new()).collect();
        for input in inputs {
            parts[self.node.gate_shard(input.channel())].push(input);
        }
        let mut all = true;
        for (shard, inputs) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            let Ok(room) = self.room.clone().acquire_owned().await else { return false };
            let batch = GateBatch { inputs, _room: Some(room) };
            all &= self.node.mailbox(shard).post(Mail::Gate(self.sessions[shard], batch));
        }
        all
    }

    /// The gate has half-closed: its stream ends in order.
    pub async fn finish(&self) {
        for (shard, key) in self.sessions.iter().copied().enumerate() {
            // A shard that has ended has no session left to finish.
            let _ = self.node.on_shard(shard, move |s| s.finish(key)).await;
        }
    }
}
