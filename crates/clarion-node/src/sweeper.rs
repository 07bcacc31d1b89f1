//! The sweeper: lets the store drop what has aged out, forgets devices that nobody uses, and trims what every reader of
//! a queue, or of a topic without configured history, has acked.
//!
//! Invariant: bounded steps with the runtime's other work in between; an error is tried again with the next round.

use crate::clock;
use crate::node::{Node, store_refusal};
use clarion_core::port::store::{Head, INLINE_MAX, ReadRange, SweepBudget, Unit};
use clarion_core::{Address, AddressKind, Refusal, Seq};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

/// Channels that one step looks at.
const CHANNELS_A_STEP: usize = 256;
/// Channels that are trimmed with one commit.
const CHANNELS_A_TRIM: usize = 64;
/// Devices that one round looks at.
const DEVICES_A_ROUND: usize = 500;

/// Channels that may wait for a trim by their cursors; what does not fit is noted again with its next ack, or when it
/// is full.
const TRIMMABLE_MAX: usize = 100_000;
/// With so many nobody waits for the next round.
const TRIMMABLE_MANY: usize = TRIMMABLE_MAX / 4;

/// Channels to look at with the next round: their cursors moved, or they are full, and they keep nothing below their
/// cursors. At the start, every such channel that a device reads.
#[derive(Default)]
pub(crate) struct Trimmable {
    channels: Mutex<HashSet<Address>>,
    many: Notify,
}

impl Trimmable {
    /// A cursor of this channel moved or went.
    pub(crate) fn note(&self, channel: &Address) {
        if matches!(channel.kind(), AddressKind::Queue | AddressKind::Topic | AddressKind::Filter) {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            if channels.len() < TRIMMABLE_MAX && !channels.contains(channel) {
                channels.insert(channel.clone());
                if channels.len() == TRIMMABLE_MANY {
                    self.many.notify_one();
                }
            }
        }
    }

    /// They could not be trimmed: with the next round.
    fn put_back(&self, part: &[Address]) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let room = TRIMMABLE_MAX.saturating_sub(channels.len());
        channels.extend(part.iter().take(room).cloned());
    }

    fn take(&self) -> HashSet<Address> {
        std::mem::take(&mut *self.channels.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Starts it.
pub(crate) fn spawn(node: Node) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut rounds = tokio::time::interval(node.config().sweep_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds.tick().await;
        let mut devices_after = None;
        let mut retained_after = None;
        let mut sessions_after = None;
        loop {
            if node.inner.sessions.count().is_none()
                && let Err(error) = node.count_sessions().await
            {
                tracing::debug!(%error, "counting sessions");
            }
            tokio::select! {
                _ = rounds.tick() => {}
                () = node.inner.trimmable.many.notified() => {
                    trim_all(&node).await;
                    continue;
                }
            }
            sweep_store(&node).await;
            trim_all(&node).await;
            match node.sweep_devices(devices_after.take(), DEVICES_A_ROUND).await {
                Ok(next) => devices_after = next,
                Err(error) => tracing::debug!(%error, "sweeping devices"),
            }
            match node.sweep_sessions(sessions_after.take()).await {
                Ok(next) => sessions_after = next,
                Err(error) => tracing::debug!(%error, "sweeping sessions"),
            }
            match crate::retained::sweep(&node, retained_after.take()).await {
                Ok(next) => retained_after = next,
                Err(error) => tracing::debug!(%error, "sweeping retained messages"),
            }
        }
    })
}

async fn sweep_store(node: &Node) {
    loop {
        let budget = SweepBudget { channels: CHANNELS_A_STEP };
        match node.store().sweep(clock::now(), budget).await {
            Ok(swept) if swept.more => tokio::task::yield_now().await,
            Ok(_) => return,
            Err(error) => return tracing::warn!(%error, "sweeping the store"),
        }
    }
}

/// Trims what was noted.
async fn trim_all(node: &Node) {
    let channels: Vec<Address> = node.inner.trimmable.take().into_iter().collect();
    for part in channels.chunks(CHANNELS_A_TRIM) {
        if let Err(error) = trim_acked(node, part).await {
            tracing::debug!(%error, "trimming by cursors");
            node.inner.trimmable.put_back(part);
        }
    }
}

/// Trims channels below what their cursors still need. A queue that nobody has read yet keeps everything; a topic or filter
/// that nobody reads durably any more keeps nothing.
async fn trim_acked(node: &Node, channels: &[Address]) -> Result<(), Refusal> {
    let planner = &node.inner.planner;
    let channels: Vec<Address> =
        channels.iter().filter(|channel| !planner.keeps_history(channel)).cloned().collect();
    let heads = node.store().heads(channels.clone()).await.map_err(store_refusal)?;
    let mut units = Vec::new();
    for (channel, head) in channels.iter().zip(heads) {
        if head.first > head.last {
            continue;
        }
        let floor = match channel.kind() {
            AddressKind::Topic if !planner.durable.has_name(channel) => None,
            _ => floor_of(node, channel, &head).await?,
        };
        let below = match floor {
            Some(floor) => floor + 1,
            None if channel.kind() != AddressKind::Queue => head.last + 1,
            None => continue,
        };
        let below = referred(node, channel, &head, below).await?;
        if below > head.first {
            units.push(Unit::Trim { channel: channel.clone(), below });
        }
    }
    if !units.is_empty() {
        node.commit(units).await?;
    }
    Ok(())
}

/// The lowest floor of a channel's cursors.
async fn floor_of(node: &Node, channel: &Address, head: &Head) -> Result<Option<Seq>, Refusal> {
    let cursors = node.store().readers(channel.clone()).await.map_err(store_refusal)?;
    let floors = cursors.iter().filter(|c| c.epoch == head.epoch).map(|c| c.cursor.floor());
    Ok(floors.min())
}

/// Where a topic is trimmed that filters refer to: not above a body that is too large for references to hold it.
async fn referred(node: &Node, topic: &Address, head: &Head, below: Seq) -> Result<Seq, Refusal> {
    let small = head.bytes <= INLINE_MAX as u64;
    if topic.kind() != AddressKind::Topic || small || !node.inner.planner.durable.has_filter(topic)
    {
        return Ok(below);
    }
    let mut from = head.first;
    while from < below {
        let range = ReadRange {
            channel: topic.clone(),
            from,
            to: below - 1,
            backwards: false,
            count: 1000,
            bytes: node.config().page_bytes,
        };
        let pages = node.store().read(clock::now(), vec![range]).await.map_err(store_refusal)?;
        let Some(page) = pages.into_iter().next() else { break };
        let large = page.messages.iter().find(|message| message.content.weight() > INLINE_MAX);
        if let Some(large) = large {
            return Ok(large.seq);
        }
        if page.through < from {
            break;
        }
        from = page.through + 1;
    }
    Ok(below)
}
