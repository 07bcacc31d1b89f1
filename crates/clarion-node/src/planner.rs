//! The plan of a publish: stored or live (design §1.2), and what it is then.
//!
//! Shared by all who publish: the verbs and the shards. Must not know: who is told of a message, how it is stored.

use crate::config::NodeConfig;
use crate::durable::Durable;
use crate::metrics::VerbCounters;
use crate::publish::{Draft, Expire};
use clarion_core::port::store::Publish;
use clarion_core::{
    Address, AddressKind, Code, Content, Message, MessageId, Principal, Refusal, Verb, topic,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// See the module.
pub(crate) struct Planner {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) durable: Arc<Durable>,
    pub(crate) number: u32,
    pub(crate) live_counter: AtomicU64,
    pub(crate) draining: AtomicBool,
    pub(crate) counters: VerbCounters,
}

/// What becomes of a publish.
pub(crate) enum Plan {
    Stored(Publish),
    Live(Arc<Message>),
}

impl Planner {
    /// Whether the node still takes work.
    pub(crate) fn check_taking(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::Relaxed) { Err(Code::ShuttingDown.into()) } else { Ok(()) }
    }

    pub(crate) fn plan(
        &self,
        principal: &Principal,
        draft: Draft,
        now: u64,
    ) -> Result<Plan, Refusal> {
        self.check_taking()?;
        let Draft { address, mut content, expire } = draft;
        if !principal.allows(Verb::Publish, &address) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not publish there"));
        }
        if address.kind() == AddressKind::Group {
            return Err(Refusal::new(Code::NotFound, "there is no such group"));
        }
        let retention = self.config.retention.of(address.kind());
        if expire == Expire::Live || !self.is_stored(&address) {
            return Ok(Plan::Live(self.live(address, content, now)));
        }
        if let Expire::Seconds(seconds) = expire {
            let ms = seconds.saturating_mul(1000);
            // An expire beyond the channel's age is the channel's age, which needs no mark of its own.
            let within = retention.age_ms == 0 || ms < retention.age_ms;
            content.expires_at = within.then(|| now.saturating_add(ms));
        }
        Ok(Plan::Stored(Publish {
            channel: address,
            content: Arc::new(content),
            refs: Vec::new(),
            retention,
        }))
    }

    /// Whether somebody may need a message of this channel later.
    pub(crate) fn is_stored(&self, address: &Address) -> bool {
        if address.kind() != AddressKind::Topic {
            return true;
        }
        self.durable.has(address) || self.keeps_history(address)
    }

    /// Whether the configuration gives this channel a history that does not depend on its readers.
    pub(crate) fn keeps_history(&self, address: &Address) -> bool {
        match address.kind() {
            AddressKind::Topic => {
                let mut stored = self.config.stored_topics.iter();
                stored.any(|filter| topic::matches(filter, address.id()))
            }
            AddressKind::Queue | AddressKind::Dead => false,
            _ => true,
        }
    }

    /// A live message.
    pub(crate) fn live(&self, channel: Address, content: Content, now: u64) -> Arc<Message> {
        let counter = self.live_counter.fetch_add(1, Ordering::Relaxed);
        let id = MessageId::live(now, self.number, counter);
        let content = Arc::new(content);
        Arc::new(Message { id, channel, epoch: 0, seq: 0, created_at: now, content })
    }
}
