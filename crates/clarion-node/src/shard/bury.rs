//! Dead messages: handed out too often, they move to their channel's dead list.
//!
//! Invariant: a message is acked on its cursor only after the commit that put it into the dead list; when that fails it
//! is tried again. Must not know: how a dead list is read.

use super::members::SharedKey;
use super::{Shard, State};
use crate::attach::SharedPlan;
use crate::clock;
use crate::committer::Reply;
use crate::dead::dead_content;
use clarion_core::port::store::{Done, Publish, ReadRange, Unit};
use clarion_core::shared_cursor::SharedCursor;
use clarion_core::{AddressKind, Code, Epoch, Message, Seq};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Pause before a burial that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

impl Shard {
    /// Notes a message that must go to the dead list.
    pub(super) fn bury(&self, state: &mut State, key: SharedKey, seq: Seq) {
        state.dying.push((key, seq));
        self.context.mailbox.nudge();
    }

    /// Begins the burials that were noted.
    pub(super) fn begin_burials(self: &Rc<Self>) {
        let dying = std::mem::take(&mut self.state.borrow_mut().dying);
        for (key, seq) in dying {
            tokio::task::spawn_local(self.clone().bury_until_done(key, seq));
        }
    }

    async fn bury_until_done(self: Rc<Self>, key: SharedKey, seq: Seq) {
        while !self.bury_once(key, seq).await {
            if self.closing.get() {
                return;
            }
            tokio::time::sleep_until(tokio::time::Instant::now() + AGAIN).await;
        }
        self.context.mailbox.nudge();
    }

    /// Returns whether nothing is left to do.
    async fn bury_once(self: &Rc<Self>, key: SharedKey, seq: Seq) -> bool {
        // Many may die at once, and each is a whole message in memory.
        let Ok(_permit) = self.loads.acquire().await else { return true };
        let Some((plan, epoch)) = self.dying(key, seq) else { return true };
        let range = ReadRange {
            channel: plan.channel.clone(),
            from: seq,
            to: seq,
            backwards: false,
            count: 1,
            bytes: usize::MAX,
        };
        let Ok(pages) = self.context.store.read(clock::now(), vec![range]).await else {
            return false;
        };
        let message = pages.into_iter().next().and_then(|page| page.messages.into_iter().next());
        let message = message.filter(|message| message.epoch == epoch);
        // Without one nothing is left of it: it expired or was erased.
        let buries = message.is_some();
        if let Some(message) = message
            && let Err(refused) = self.put_into_dead_list(&plan, &message).await
        {
            self.not_buried(key, &plan, refused);
            return false;
        }
        self.buried(key, epoch, seq, buries);
        true
    }

    /// What a message that dies belongs to; `None` when it was acked meanwhile, or its cursor or history is gone.
    fn dying(&self, key: SharedKey, seq: Seq) -> Option<(SharedPlan, Epoch)> {
        let mut state = self.state.borrow_mut();
        let shared = state.shared.get_mut(key)?;
        // One that may come is of another history than the one that dies.
        let dies = |cursor: &&SharedCursor| !cursor.cursor().is_acked(seq) && !cursor.may_come(seq);
        let cursor = shared.cursor.as_ref().filter(dies)?;
        Some((shared.plan.clone(), cursor.epoch()))
    }

    /// Fails with the refusal, if there is one: then nothing was stored.
    async fn put_into_dead_list(
        &self,
        plan: &SharedPlan,
        message: &Message,
    ) -> Result<(), Option<Code>> {
        let attempts = self.context.config.max_attempts;
        let publish = Publish {
            channel: plan.channel.dead_list(),
            content: Arc::new(dead_content(message, &plan.reader, attempts)),
            refs: Vec::new(),
            retention: self.context.config.retention.of(AddressKind::Dead),
        };
        let (sender, answer) = oneshot::channel();
        let units = vec![Unit::Publish(publish)];
        self.context.queue.submit(units, Reply::Task(sender), true).map_err(|r| Some(r.code))?;
        match answer.await {
            Ok(Ok((_, results))) => match results.first() {
                Some(Done::Published(_)) => Ok(()),
                Some(Done::Refused(code)) => Err(Some(*code)),
                _ => Err(None),
            },
            Ok(Err(error)) => Err(Some(error.code())),
            Err(_) => Err(None),
        }
    }

    fn not_buried(&self, key: SharedKey, plan: &SharedPlan, refused: Option<Code>) {
        let mut state = self.state.borrow_mut();
        let Some(shared) = state.shared.get_mut(key) else { return };
        // Once, not for each message and try.
        if !std::mem::replace(&mut shared.told_full, true) {
            let reason = refused.map_or("no answer", Code::name);
            tracing::warn!(channel = ?plan.channel, reason, "a dead list takes nothing");
        }
    }

    fn buried(&self, key: SharedKey, epoch: Epoch, seq: Seq, buries: bool) {
        self.context.counters.died.add(u64::from(buries));
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(shared) = state.shared.get_mut(key) else { return };
        shared.told_full = false;
        if let Some(cursor) = shared.cursor.as_mut().filter(|cursor| cursor.epoch() == epoch) {
            cursor.ack(seq);
        }
        self.shared_ready(state, key);
    }
}
