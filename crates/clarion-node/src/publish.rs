//! The verb publish: planned as stored or live (design §1.2), then appended or handed to the live readers.

use crate::clock;
use crate::metrics::VerbCounters;
use crate::node::{Node, store_refusal};
use crate::planner::Plan;
use crate::shard::LiveDone;
use clarion_core::port::store::{Done, Durability, Stored, Unit};
use clarion_core::{
    Address, AddressKind, Code, Content, Epoch, Message, MessageId, Principal, Refusal, Seq,
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// How long a message lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expire {
    /// As long as the channel keeps it.
    #[default]
    Never,
    /// Only for those who are there now.
    Live,
    /// So many seconds, clamped to the channel's age.
    Seconds(u64),
}

/// What a publisher hands in. `content.expires_at` is set by the node.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where to.
    pub address: Address,
    /// What.
    pub content: Content,
    /// How long.
    pub expire: Expire,
}

/// What a publisher is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The message's id.
    pub id: MessageId,
    /// 0 when live.
    pub epoch: Epoch,
    /// 0 when live.
    pub seq: Seq,
    /// How safe it is.
    pub durability: Durability,
    /// It was there already under this idempotency key.
    pub duplicate: bool,
}

impl Answer {
    pub(crate) fn stored(stored: &Stored, durability: Durability) -> Self {
        let Stored { id, epoch, seq, duplicate, .. } = *stored;
        Self { id, epoch, seq, durability, duplicate }
    }
}

/// What was planned for one draft.
enum Planned {
    Refused(Refusal),
    /// The next unit of the submission.
    Stored,
    Live(Answer),
}

impl Node {
    /// Publishes one message.
    pub async fn publish(&self, principal: &Principal, draft: Draft) -> Result<Answer, Refusal> {
        let mut answers = self.publish_many(principal, vec![draft]).await;
        answers.pop().unwrap_or_else(|| Err(Code::Internal.into()))
    }

    /// Publishes several; messages of one channel keep their order. One answer each, in order; no atomicity.
    pub async fn publish_many(
        &self,
        principal: &Principal,
        drafts: Vec<Draft>,
    ) -> Vec<Result<Answer, Refusal>> {
        let now = clock::now();
        let mut planned = Vec::with_capacity(drafts.len());
        let mut units = Vec::with_capacity(drafts.len());
        let mut live = Vec::new();
        let mut queues = Vec::new();
        for mut draft in drafts {
            // What is handed in without a QoS is as good as QoS 1, unless it is only for those who are there.
            draft.content.qos = u8::from(draft.expire != Expire::Live);
            planned.push(match self.inner.planner.plan(principal, draft, now) {
                Ok(Plan::Stored(publish)) => {
                    if publish.channel.kind() == AddressKind::Queue {
                        queues.push((units.len(), publish.channel.clone()));
                    }
                    units.push(Unit::Publish(publish));
                    Planned::Stored
                }
                Ok(Plan::Live(message)) => {
                    let answer = Answer {
                        id: message.id,
                        epoch: 0,
                        seq: 0,
                        durability: Durability::None,
                        duplicate: false,
                    };
                    live.push(message);
                    Planned::Live(answer)
                }
                Err(refusal) => Planned::Refused(refusal),
            });
        }
        // The live ones are under way before the store is waited for.
        let delivered = (!live.is_empty()).then(|| self.post_live(live));
        let stored = if units.is_empty() { Ok(Vec::new()) } else { self.append(units).await };
        if let Some(delivered) = delivered {
            delivered.await;
        }
        self.note_full(&queues, &stored);
        self.answer(planned, stored)
    }

    /// Hands live messages to every shard with readers; resolves when their outboxes have taken or counted them, to the
    /// number of deliveries.
    pub(crate) fn post_live(
        &self,
        messages: Vec<Arc<Message>>,
    ) -> impl Future<Output = u64> + use<> {
        let shards = self.mailboxes().len();
        let mut parts: Vec<Vec<Arc<Message>>> = vec![Vec::new(); shards];
        let interest = self.inner.interest.read();
        for message in messages {
            let set = interest.shards(&message.channel);
            for (shard, part) in parts.iter_mut().enumerate() {
                if set >> shard & 1 == 1 {
                    part.push(message.clone());
                }
            }
            for picked in interest.pick(&message.channel) {
                picked.post(self.mailboxes(), message.clone());
            }
        }
        drop(interest);
        let interested = parts.iter().filter(|part| !part.is_empty()).count();
        let (sender, taken) = oneshot::channel();
        if interested > 0 {
            let done = LiveDone::new(interested, sender);
            for (mailbox, part) in self.mailboxes().iter().zip(parts) {
                if !part.is_empty() && !mailbox.post_live(part, done.clone()) {
                    // Dropped and counted, so the publisher waits for nobody here.
                    done.done(0);
                }
            }
        } else {
            drop(sender);
        }
        async move {
            // An error means that a shard has ended: its readers are gone.
            taken.await.unwrap_or(0)
        }
    }

    /// A queue that is full may hold what everybody has acked: the sweeper looks at it.
    fn note_full(
        &self,
        queues: &[(usize, Address)],
        stored: &Result<Vec<Result<Answer, Refusal>>, Refusal>,
    ) {
        let Ok(stored) = stored else { return };
        for (at, channel) in queues {
            if matches!(stored.get(*at), Some(Err(refusal)) if refusal.code == Code::QueueFull) {
                self.inner.trimmable.note(channel);
            }
        }
    }

    async fn append(&self, units: Vec<Unit>) -> Result<Vec<Result<Answer, Refusal>>, Refusal> {
        let (durability, results) = self.submit(units).await?.map_err(store_refusal)?;
        let answers = results.iter().map(|done| match done {
            Done::Published(stored) => Ok(Answer::stored(stored, durability)),
            Done::Refused(code) => Err((*code).into()),
            _ => Err(Refusal::new(Code::Internal, "the store answered something else")),
        });
        Ok(answers.collect())
    }

    fn answer(
        &self,
        planned: Vec<Planned>,
        stored: Result<Vec<Result<Answer, Refusal>>, Refusal>,
    ) -> Vec<Result<Answer, Refusal>> {
        let mut stored = stored.map(Vec::into_iter);
        let (mut kept, mut live, mut refused) = (0, 0, 0);
        let answers = planned.into_iter().map(|planned| {
            let answer = match planned {
                Planned::Refused(refusal) => Err(refusal),
                Planned::Live(answer) => Ok(answer),
                Planned::Stored => match &mut stored {
                    Ok(answers) => answers.next().unwrap_or_else(|| Err(Code::Internal.into())),
                    Err(refusal) => Err(refusal.clone()),
                },
            };
            match &answer {
                Ok(answer) if answer.durability == Durability::None => live += 1,
                Ok(_) => kept += 1,
                Err(_) => refused += 1,
            }
            answer
        });
        let answers = answers.collect();
        let counters = &self.inner.planner.counters;
        VerbCounters::count(&counters.stored, kept);
        VerbCounters::count(&counters.live, live);
        VerbCounters::count(&counters.refused, refused);
        answers
    }
}
