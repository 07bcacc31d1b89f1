//! What a shared cursor knows of its channel: its own state as stored, the head, and the messages read ahead for it.
//!
//! Invariants: a cursor is in the live list before its head is read; what is kept in memory of a channel is at most what
//! may still be handed out. Must not know: members, takers, leases.

use super::members::{Shared, SharedKey};
use super::{Shard, State};
use crate::attach::SharedPlan;
use crate::clock;
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::store::{Head, Page, ReadRange, StoreError, StoredCursor};
use clarion_core::shared_cursor::{Limits, SharedCursor};
use clarion_core::{Cursor, Epoch, Message, Seq};
use std::rc::Rc;
use std::sync::Arc;

/// A larger message that was just published is not kept for its hand-out but read again: hints are bounded by number.
const HINT_BYTES_MAX: usize = 16 << 10;

/// What a load reads.
type Loaded = Result<(Vec<Head>, Vec<Option<StoredCursor>>), StoreError>;

impl Shard {
    /// The cursor of this plan; it enters the live list, then its state is read.
    pub(super) fn shared_of(self: &Rc<Self>, plan: SharedPlan) -> SharedKey {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let key = match state.shared_by_plan.get(&plan) {
            Some(key) => *key,
            None => {
                let key = state.shared.insert(|_| Shared::new(plan.clone()));
                state.live.entry(&plan.channel, &self.context).shared.push(key);
                state.shared_by_plan.insert(plan, key);
                key
            }
        };
        // A load that failed is tried again with the next one who comes.
        self.load_again(state, key);
        key
    }

    async fn load_shared(self: Rc<Self>, key: SharedKey) {
        let Ok(_permit) = self.loads.acquire().await else { return };
        let plan = {
            let mut state = self.state.borrow_mut();
            let Some(shared) = state.shared.get_mut(key) else { return };
            shared.plan.clone()
        };
        let store = self.context.store.clone();
        let heads = store.heads(vec![plan.channel.clone()]).await;
        let cursors = store.cursors_on(plan.reader.clone(), vec![plan.channel.clone()]).await;
        let loaded = heads.and_then(|heads| Ok((heads, cursors?)));
        self.shared_loaded(key, &plan, loaded);
        self.context.mailbox.nudge();
    }

    fn shared_loaded(&self, key: SharedKey, plan: &SharedPlan, loaded: Loaded) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(shared) = state.shared.get_mut(key) else { return };
        shared.loading = false;
        let (heads, cursors) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::warn!(%error, channel = ?plan.channel, "a shared cursor could not be read");
                for taker in shared.takers.drain(..) {
                    taker.refuse(error.code());
                }
                if shared.team.is_some() {
                    state.shared_retry.push(key);
                }
                for member in shared.members.clone() {
                    self.close_session(state, member, CloseReason::Store);
                }
                return self.shared_ready(state, key);
            }
        };
        let head = heads.first().copied().unwrap_or_default();
        let stored = cursors.into_iter().next().flatten();
        if shared.team.is_some() && stored.is_none() {
            // It is being committed that it begins; who is told of that comes again.
            return;
        }
        let stored = stored.filter(|stored| stored.epoch == head.epoch);
        // Without a cursor in this history everything kept is new.
        let cursor =
            stored.map_or_else(|| Cursor::at(head.first.saturating_sub(1)), |stored| stored.cursor);
        let limits = self.shared_limits(shared.team.is_some());
        let mut cursor = SharedCursor::new(head.epoch, cursor, head.last, limits);
        if let Some((epoch, seq)) = shared.hinted {
            cursor.raise_head(epoch, seq);
        }
        for (epoch, seq) in shared.early.drain(..) {
            if epoch == cursor.epoch() {
                cursor.ack_early(seq);
            }
        }
        shared.cursor = Some(cursor);
        for member in shared.members.clone() {
            self.open_member(state, member);
        }
        self.shared_ready(state, key);
    }

    /// `team`: as `$share` has it.
    fn shared_limits(&self, team: bool) -> Limits {
        let config = &self.context.config;
        Limits {
            max_unacked: config.max_unacked,
            ack_wait_ms: (!team).then_some(config.ack_wait.as_millis() as u64),
            max_attempts: (config.max_attempts > 0 && !team).then_some(config.max_attempts),
            settle_ms: config.settle.as_millis() as u64,
            oldest_first: team,
        }
    }

    /// A commit of the channel.
    pub(super) fn shared_record(&self, state: &mut State, key: SharedKey, message: &Arc<Message>) {
        let ahead = self.context.config.page_messages as u64;
        let Some(shared) = state.shared.get_mut(key) else { return };
        let wanted = shared.is_wanted();
        match &mut shared.cursor {
            None => shared.hinted = Some((message.epoch, message.seq)),
            Some(cursor) if cursor.epoch() == message.epoch || cursor.epoch() == 0 => {
                if cursor.epoch() == 0 {
                    cursor.restart(message.epoch, 1, message.seq);
                }
                cursor.raise_head(message.epoch, message.seq);
                let near = message.seq.saturating_sub(cursor.next()) < ahead;
                let small = message.content.weight() <= HINT_BYTES_MAX;
                if wanted && near && small && cursor.may_come(message.seq) {
                    shared.known.insert(message.seq, Some(message.clone()));
                }
            }
            // Another history: a page tells what it is.
            Some(_) => shared.known.clear(),
        }
        let other = shared.cursor.as_ref().is_some_and(|cursor| cursor.epoch() != message.epoch);
        if other {
            self.read_shared(state, key, 1);
        }
        self.shared_ready(state, key);
    }

    /// The channel has grown up to here, and its records did not fit into the mailbox.
    pub(super) fn shared_head(&self, state: &mut State, key: SharedKey, epoch: Epoch, seq: Seq) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        match &mut shared.cursor {
            Some(cursor) => drop(cursor.raise_head(epoch, seq)),
            None => shared.hinted = Some((epoch, seq)),
        }
        self.shared_ready(state, key);
    }

    /// Asks for the page that begins with `seq`.
    pub(super) fn read_shared(&self, state: &mut State, key: SharedKey, seq: Seq) {
        if let Some(shared) = state.shared.get_mut(key)
            && !std::mem::replace(&mut shared.reading, true)
        {
            state.shared_reads.push((key, seq));
        }
    }

    /// Begins the page reads that were asked for.
    pub(super) fn begin_shared_reads(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        for (key, seq) in std::mem::take(&mut state.shared_reads) {
            let Some(shared) = state.shared.get_mut(key) else { continue };
            let range = ReadRange {
                channel: shared.plan.channel.clone(),
                from: seq,
                to: Seq::MAX,
                backwards: false,
                count: self.context.config.page_messages,
                bytes: self.context.config.page_bytes,
            };
            let shard = self.clone();
            tokio::task::spawn_local(async move {
                let pages = shard.context.store.read(clock::now(), vec![range]).await;
                shard.context.counters.pages.add(1);
                let page = pages.map(|mut pages| pages.pop().unwrap_or_default());
                shard.shared_page(&mut shard.state.borrow_mut(), key, seq, page);
                shard.context.mailbox.nudge();
            });
        }
    }

    /// A page is here.
    fn shared_page(
        &self,
        state: &mut State,
        key: SharedKey,
        seq: Seq,
        page: Result<Page, StoreError>,
    ) {
        let Some(shared) = state.shared.get_mut(key) else { return };
        shared.reading = false;
        let Some(cursor) = &mut shared.cursor else { return };
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, channel = ?shared.plan.channel, "a page could not be read");
                shared.refuse_hurried(error.code());
                return state.shared_retry.push(key);
            }
        };
        if page.head.epoch != cursor.epoch() {
            cursor.restart(page.head.epoch, page.head.first, page.head.last);
            shared.known.clear();
        } else {
            cursor.raise_head(page.head.epoch, page.head.last);
            cursor.trimmed(page.head.first);
            // Also what was acked, or handed out and acked, since it was read for somebody.
            shared.known.retain(|seq, _| cursor.may_come(*seq));
            let first = page.head.first.max(seq);
            for seq in (first..=page.through).filter(|seq| cursor.may_come(*seq)) {
                shared.known.entry(seq).or_insert(None);
            }
            for message in page.messages {
                if cursor.may_come(message.seq) {
                    shared.known.insert(message.seq, Some(Arc::new(message)));
                }
            }
        }
        self.shared_ready(state, key);
    }

    /// Reads a cursor that could not be read, if it is not being read.
    fn load_again(self: &Rc<Self>, state: &mut State, key: SharedKey) {
        if let Some(shared) = state.shared.get_mut(key)
            && shared.cursor.is_none()
            && !std::mem::replace(&mut shared.loading, true)
        {
            tokio::task::spawn_local(self.clone().load_shared(key));
        }
    }

    /// Tries again what could not be read.
    pub(super) fn retry_shared(self: &Rc<Self>) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        for key in std::mem::take(&mut state.shared_retry) {
            self.load_again(state, key);
            self.shared_ready(state, key);
        }
    }
}
