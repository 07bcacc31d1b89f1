//! What the peers of a listener are told at its start: plain, validated values. See the configuration reference for each.

use super::topics::UserTopics;
use clarion_wire::mqtt::Profile;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug)]
pub struct MqttPeerConfig {
    /// What is decoded. Its largest packet is announced to clients of 5.
    pub profile: Profile,
    /// Largest payload.
    pub payload_bytes: usize,
    /// User properties of one packet.
    pub headers_count: usize,
    /// Bytes of their names and values.
    pub headers_bytes: usize,
    /// Which topics belong to users.
    pub user_topics: UserTopics,
    /// QoS 1 and 2 messages that a client of 5 may have unanswered. At least 1.
    pub receive_maximum: u16,
    /// Numbered deliveries to one client that it has not acked. At least 1.
    pub max_inflight: u16,
    /// Topic aliases that a client may set.
    pub topic_aliases: u16,
    /// Bytes of the topics behind them, of one client.
    pub topic_alias_bytes: usize,
    /// Topic aliases that are used towards a client, if it takes as many.
    pub topic_aliases_out: u16,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Seconds that the session of a client below 5 without a clean session is to outlive the connection.
    pub session_expiry_3x_s: u32,
    /// Levels of a topic or filter.
    pub topic_levels: usize,
    /// What a SUBSCRIBE that access rules forbid is answered in 5.
    pub subscribe_denied_code: u8,
    /// Where clients go when this server stops (Server Reference of 5).
    pub server_reference: Option<Box<str>>,
    /// They are to stay there.
    pub server_moved: bool,
    /// What a client of 5 that asks for it is told to put in front of its response topics.
    pub response_information: Option<Box<str>>,
    /// What happened to messages that nobody is told of.
    pub counters: PeerCounters,
}

impl MqttPeerConfig {
    /// Whether a user has a topic on which a feed can come unasked: not if his name has `/`, `+` or `#` in it.
    pub fn has_user_topic(&self, user: &str) -> bool {
        self.user_topics.first_of(user).is_some()
    }
}

/// Messages that went nowhere without the client being told. Rare, so that sharing them costs nothing.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Publishes that were refused where the protocol has no refusal: QoS 0, 3.x, wills.
    pub refused: AtomicU64,
    /// Deliveries that access rules forbid.
    pub forbidden: AtomicU64,
    /// Deliveries larger than their client takes.
    pub too_large: AtomicU64,
}

impl PeerCounters {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
