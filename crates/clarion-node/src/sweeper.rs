//! The sweeper: lets the store drop what has aged out, forgets devices that nobody uses, and trims what every reader of
//! a queue, or of a topic without configured history, has acked.
//!
//! Invariant: bounded steps with the runtime's other work in between; an error is tried again with the next round.

use crate::clock;
use crate::node::{Node, store_refusal};
use clarion_core::port::store::{SweepBudget, Unit};
use clarion_core::{Address, AddressKind, Refusal};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use tokio::time::MissedTickBehavior;

/// Channels that one step looks at.
const CHANNELS_A_STEP: usize = 256;
/// Devices that one round looks at.
const DEVICES_A_ROUND: usize = 500;

/// Channels that may wait for a trim by their cursors; what does not fit is noted again with its next ack, or when it
/// is full.
const TRIMMABLE_MAX: usize = 100_000;

/// Channels to look at with the next round: their cursors moved, or they are full, and they keep nothing below their
/// cursors. At the start, every such channel that a device reads.
#[derive(Default)]
pub(crate) struct Trimmable(Mutex<HashSet<Address>>);

impl Trimmable {
    /// A cursor of this channel moved or went.
    pub(crate) fn note(&self, channel: &Address) {
        if matches!(channel.kind(), AddressKind::Queue | AddressKind::Topic | AddressKind::Filter) {
            let mut channels = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if channels.len() < TRIMMABLE_MAX {
                channels.insert(channel.clone());
            }
        }
    }

    fn take(&self) -> HashSet<Address> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
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
            rounds.tick().await;
            sweep_store(&node).await;
            for channel in node.inner.trimmable.take() {
                if let Err(error) = trim_acked(&node, &channel).await {
                    tracing::debug!(%error, "trimming by cursors");
                    node.inner.trimmable.note(&channel);
                }
            }
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

/// Trims a channel below what its cursors still need. A queue that nobody has read yet keeps everything; a topic that
/// nobody reads durably any more keeps nothing.
async fn trim_acked(node: &Node, channel: &Address) -> Result<(), Refusal> {
    if node.inner.planner.keeps_history(channel) {
        return Ok(());
    }
    let heads = node.store().heads(vec![channel.clone()]).await.map_err(store_refusal)?;
    let Some(head) = heads.first() else { return Ok(()) };
    let cursors = node.store().readers(channel.clone()).await.map_err(store_refusal)?;
    let floors = cursors.iter().filter(|c| c.epoch == head.epoch).map(|c| c.cursor.floor());
    let below = match floors.min() {
        Some(floor) => floor + 1,
        None if channel.kind() != AddressKind::Queue => head.last + 1,
        None => return Ok(()),
    };
    if below > head.first {
        node.commit(vec![Unit::Trim { channel: channel.clone(), below }]).await?;
    }
    Ok(())
}
