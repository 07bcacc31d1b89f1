//! The sweeper: lets the store drop what has aged out, and forgets devices that nobody uses.
//!
//! Invariant: bounded steps with the runtime's other work in between; an error is tried again with the next round.

use crate::clock;
use crate::node::Node;
use clarion_core::port::store::SweepBudget;
use tokio::time::MissedTickBehavior;

/// Channels that one step looks at.
const CHANNELS_A_STEP: usize = 256;
/// Devices that one round looks at.
const DEVICES_A_ROUND: usize = 500;

/// Starts it.
pub(crate) fn spawn(node: Node) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut rounds = tokio::time::interval(node.config().sweep_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        rounds.tick().await;
        let mut devices_after = None;
        loop {
            rounds.tick().await;
            sweep_store(&node).await;
            match node.sweep_devices(devices_after.take(), DEVICES_A_ROUND).await {
                Ok(next) => devices_after = next,
                Err(error) => tracing::debug!(%error, "sweeping devices"),
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
