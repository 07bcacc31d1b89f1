//! Wiring: the configuration's sections become the plain configurations of node and edge.
//!
//! Must not know: how any of them works.

use crate::config::{
    Config,
    listeners::{AuthMode, Listener},
};
use clarion_edge::http::{AllowFrom, ApiKey, HttpConfig, PublishLimits};
use clarion_node::NodeConfig;
use clarion_node::config::RetentionTable;
use std::sync::Arc;

/// What the node is told.
pub(crate) fn node_config(config: &Config, cores: usize) -> NodeConfig {
    let (limits, retention) = (&config.limits, &config.retention);
    NodeConfig {
        shards: config.node.threads(cores).0,
        outbox_bytes: limits.outbox_bytes,
        outbox_messages: limits.outbox_messages,
        catch_up_reads: limits.catch_up_reads,
        page_messages: limits.page_messages,
        page_bytes: limits.page_bytes,
        commit_queue_messages: limits.commit_queue_messages,
        commit_queue_bytes: limits.commit_queue_bytes,
        commit_batch_messages: limits.commit_batch_messages,
        commit_batch_bytes: limits.commit_batch_bytes,
        mailbox_bytes: limits.live_queue_bytes,
        ack_flush: config.cursors.ack_flush,
        max_devices: limits.max_devices,
        max_cursors: limits.max_cursors,
        write_timeout: limits.write_timeout,
        device_age: limits.device_age,
        max_sessions: limits.streams,
        heartbeat: config.sse.heartbeat,
        retry_ms: millis(config.sse.retry),
        sweep_interval: config.store.sweep_interval,
        retention: RetentionTable {
            user: retention.user,
            group: retention.group,
            all: retention.all,
            topic: retention.topic,
            queue: retention.queue,
        },
        stored_topics: config.topics.stored.clone(),
    }
}

/// What an HTTP listener is told.
pub(crate) fn http_config(config: &Config, listener: &Listener) -> HttpConfig {
    let limits = &config.limits;
    let keys = config.auth.keys.iter();
    HttpConfig {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        keys: keys.map(|key| ApiKey { sha256: key.sha256, principal: key.principal() }).collect(),
        allow_from: allow_from(listener),
        publish: PublishLimits {
            payload_bytes: limits.payload_bytes,
            headers_count: limits.headers_count,
            headers_bytes: limits.headers_bytes,
            json_depth: limits.json_depth,
        },
        body_bytes: limits.body_bytes,
        bodies_bytes: limits.bodies_bytes,
        batch_messages: limits.batch_messages,
        head_bytes: limits.head_bytes,
        head_timeout: limits.head_timeout,
        body_timeout: limits.body_timeout,
        idle_timeout: limits.idle_timeout,
        connections: limits.connections,
        streams: limits.streams,
        retry_ms: millis(config.sse.retry),
    }
}

fn allow_from(listener: &Listener) -> Option<AllowFrom> {
    let networks = listener.allow_from.clone();
    (!networks.is_empty()).then(|| {
        let allow: AllowFrom =
            Arc::new(move |ip| networks.iter().any(|network| network.contains(ip)));
        allow
    })
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
