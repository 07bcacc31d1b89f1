//! Dead messages: handed out too often, they move to their channel's dead list.
//!
//! Invariant: a message is acked on its cursor only in the commit that put it into the dead list, or after it; when
//! that fails it is tried again. Must not know: how a dead list is read.

use super::members::SharedKey;
use super::{Shard, State};
use crate::clock;
use crate::committer::Reply;
use crate::dead::dead_content;
use clarion_core::port::store::{Done, Move, Publish, ReadRange, Unit};
use clarion_core::{AddressKind, Cursor, Seq};
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
        let (plan, epoch) = {
            let mut state = self.state.borrow_mut();
            let Some(shared) = state.shared.get_mut(key) else { return true };
            let Some(cursor) = &shared.cursor else { return true };
            (shared.plan.clone(), cursor.epoch())
        };
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
        let mut units = Vec::new();
        if let Some(message) = message.filter(|message| message.epoch == epoch) {
            let attempts = self.context.config.max_attempts;
            units.push(Unit::Publish(Publish {
                channel: plan.channel.dead_list(),
                content: Arc::new(dead_content(&message, &plan.reader, attempts)),
                refs: Vec::new(),
                retention: self.context.config.retention.of(AddressKind::Dead),
            }));
        }
        // The ack merges what is acked with this one; the floor stays where the stored cursor has it.
        let mut cursor = Cursor::default();
        cursor.ack_run(seq, seq);
        units.push(Unit::Ack {
            reader: plan.reader.clone(),
            moves: vec![Move { channel: plan.channel.clone(), epoch, cursor }],
        });
        let buries = units.len() > 1;
        let (sender, answer) = oneshot::channel();
        if self.context.queue.submit(units, Reply::Task(sender), true).is_err() {
            return false;
        }
        let Ok(Ok((_, results))) = answer.await else { return false };
        if results.iter().any(|done| matches!(done, Done::Refused(_))) {
            tracing::warn!(channel = ?plan.channel, "a dead list takes nothing");
            return false;
        }
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        if let Some(cursor) = state.shared.get_mut(key).and_then(|shared| shared.cursor.as_mut()) {
            cursor.ack(seq);
        }
        self.context.counters.died.add(u64::from(buries));
        self.shared_ready(state, key);
        true
    }
}
