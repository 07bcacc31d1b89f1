//! Retained messages for a new subscription: read page by page, as the session takes them.
//!
//! Invariant: of a topic that changes while this reads, nothing older is given: the change comes live. Must not know: how a
//! record looks.

use super::PeerState;
use super::give::{Given, Giving, Way};
use crate::clock;
use crate::retained::{self, Reading};
use crate::shard::deliver::list_dirty;
use crate::shard::{SessionKey, Shard};
use bytes::Bytes;
use clarion_core::port::peer::SubOptions;
use clarion_core::{Message, topic};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::Notify;

/// Records that are read at once.
const PAGE: usize = 128;

impl Shard {
    /// Gives a session what is retained for its new subscriptions.
    pub(super) async fn read_retained(
        self: Rc<Self>,
        key: SessionKey,
        wanted: Vec<(Box<str>, SubOptions)>,
    ) {
        for (filter, options) in wanted {
            if self.read_filter(key, &filter, options).await.is_none() {
                return;
            }
        }
    }

    /// `None` when the session has ended, or the store does not answer.
    async fn read_filter(
        self: &Rc<Self>,
        key: SessionKey,
        filter: &str,
        options: SubOptions,
    ) -> Option<()> {
        let mut after = None;
        let mut first = true;
        let wildcard = topic::is_wildcard(filter);
        let prefix = if wildcard { retained::prefix(filter) } else { retained::key(filter) };
        loop {
            // Only what lies in this page may be told by it: the number is taken anew for each.
            let reading = self.context.retained.read(filter);
            let limit = if wildcard { PAGE } else { 1 };
            let page = self.context.store.records(prefix.clone(), after.clone(), limit).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "retained messages could not be read");
                    return None;
                }
            };
            let last = page.len() < limit || !wildcard;
            let through = page.last().map(|record| record.key.clone());
            let found = page.into_iter().map(|record| record.value);
            let messages = merge(filter, found, &reading, first);
            if !self.give_page(key, &messages, options, &reading).await? {
                continue;
            }
            first = false;
            after = through;
            if last {
                return Some(());
            }
        }
    }

    /// Whether the page was given; `false` when so much has changed meanwhile that it must be read again.
    async fn give_page(
        self: &Rc<Self>,
        key: SessionKey,
        messages: &[Arc<Message>],
        options: SubOptions,
        reading: &Reading,
    ) -> Option<bool> {
        for message in messages {
            loop {
                match reading.changed(message.channel.id()) {
                    Some(false) => {}
                    Some(true) => break,
                    None => return Some(false),
                }
                match self.give_retained(key, message, options)? {
                    None => break,
                    Some(room) => room.notified().await,
                }
            }
        }
        Some(true)
    }

    /// Outer `None` when the session has ended; inner `Some` when it has no room: told when it may have.
    #[expect(clippy::option_option, reason = "an end, done, or wait")]
    fn give_retained(
        &self,
        key: SessionKey,
        message: &Arc<Message>,
        options: SubOptions,
    ) -> Option<Option<Rc<Notify>>> {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let giving = Giving { context: &self.context, tick: state.timers.now(), now: clock::now() };
        let session = state.sessions.get_mut(key)?;
        if session.closing.is_some() {
            return None;
        }
        let ids = if options.id == 0 { &[][..] } else { &[options.id][..] };
        let qos = options.qos.min(message.content.qos);
        let way = Way { qos, retain: true, check: options.check, ids };
        let given = giving.give(session, message, way, None);
        list_dirty(session, &mut state.dirty);
        self.context.mailbox.nudge();
        if given != Given::Full {
            self.context.counters.delivered.add(u64::from(given == Given::Taken));
            if let Some(peer) = PeerState::of(session) {
                peer.room = None;
            }
            return Some(None);
        }
        Some(Some(PeerState::of(session)?.room.get_or_insert_default().clone()))
    }
}

/// What a page of records says. What was not committed when the first page was read comes with that one, whatever its place;
/// what is not when a later one is read came with the first, or comes live: no page tells what is older than that.
fn merge(
    filter: &str,
    found: impl Iterator<Item = Bytes>,
    reading: &Reading,
    first: bool,
) -> Vec<Arc<Message>> {
    let overlay = &reading.overlay;
    let changed: HashSet<&str> = overlay.iter().map(|(topic, _)| &**topic).collect();
    let mut messages: Vec<Arc<Message>> = found
        .filter_map(retained::decode)
        .filter(|message| topic::matches(filter, message.channel.id()))
        .filter(|message| !changed.contains(message.channel.id()))
        .map(Arc::new)
        .collect();
    if first {
        messages.extend(overlay.iter().filter_map(|(_, message)| message.clone()));
    }
    messages
}
