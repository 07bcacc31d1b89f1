//! `$SYS/…` for new subscriptions: the last values, which are in memory and not in the store.
//!
//! Invariant: a value is looked up when it is given, so it is never older than one that came live before. Must not know:
//! who makes them.

use super::retained::Step;
use crate::shard::{SessionKey, Shard};
use clarion_core::Address;
use clarion_core::port::peer::SubOptions;

/// The channel on whose live list a filter without wildcards stands. `None`: nothing is ever published to it.
pub(super) fn live_topic(filter: &str) -> Option<Address> {
    Address::topic(filter).or_else(|_| Address::server_topic(filter)).ok()
}

impl Shard {
    /// Gives a session what the server last told.
    pub(super) async fn give_server_topics(
        &self,
        key: SessionKey,
        filter: &str,
        options: SubOptions,
    ) {
        for topic in self.context.sys.matching(filter) {
            while let Some(message) = self.context.sys.get(&topic) {
                match self.give_retained(key, filter, &message, (options, false)) {
                    Step::Done => break,
                    Step::Over => return,
                    Step::Wait(room) => room.notified().await,
                }
            }
        }
    }
}
