//! Wiring: the configuration's sections become the plain configurations of node and edge.
//!
//! Must not know: how any of them works.

use crate::config::{
    Config,
    listeners::{AuthMode, Dialect, Listener},
    sections::MikudosMode,
};
use clarion_edge::http::{HttpConfig, PublishLimits};
use clarion_edge::{AllowFrom, ApiKey};
use clarion_node::NodeConfig;
use clarion_node::config::RetentionTable;
use std::{sync::Arc, time::Duration};

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
    HttpConfig {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        keys: keys(config),
        allow_from: allow_from(listener),
        publish: publish_limits(config),
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

/// What a gRPC listener is told; see the configuration reference for each limit.
#[derive(Clone)]
#[allow(dead_code, reason = "read by the gRPC server")]
pub(crate) struct GrpcSettings {
    /// The listener's name.
    pub(crate) name: String,
    /// Whether calls need a key.
    pub(crate) auth_required: bool,
    /// The keys.
    pub(crate) keys: Vec<ApiKey>,
    /// Whence connections are taken; `None` = from everywhere.
    pub(crate) allow_from: Option<AllowFrom>,
    /// The native services, with reflection and health.
    pub(crate) speaks_grpc: bool,
    /// The services of mikudos.
    pub(crate) speaks_mikudos: bool,
    /// The service of message-sync.
    pub(crate) speaks_message_sync: bool,
    /// Bounds of one publish.
    pub(crate) publish: PublishLimits,
    /// Messages in a batch.
    pub(crate) batch_messages: usize,
    /// Bytes of a request message.
    pub(crate) request_bytes: usize,
    /// Connections at once.
    pub(crate) connections: usize,
    /// Streams at once that read.
    pub(crate) streams: usize,
    /// HTTP/2 streams at once on one connection.
    pub(crate) connection_streams: u32,
    /// Bytes that a client may send ahead on a stream.
    pub(crate) stream_window_bytes: u32,
    /// The same on a connection.
    pub(crate) connection_window_bytes: u32,
    /// Silence before a ping.
    pub(crate) keep_alive_interval: Duration,
    /// Time for the ping's answer.
    pub(crate) keep_alive_timeout: Duration,
    /// Time for a connection's first bytes.
    pub(crate) head_timeout: Duration,
    /// Time for a stream's hello.
    pub(crate) hello_timeout: Duration,
    /// Bytes that wait in a stream beyond its outbox.
    pub(crate) send_buffer_bytes: usize,
    /// What streams that end are told to wait before they come back.
    pub(crate) retry_ms: u64,
    /// The dialect mikudos.
    pub(crate) mikudos: MikudosSettings,
}

/// How the dialect mikudos behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "read by the gRPC server")]
pub(crate) struct MikudosSettings {
    /// Which gates get a push.
    pub(crate) mode: MikudosMode,
    /// Life of a push without `expire`; `None` = it is live.
    pub(crate) default_expire: Option<Duration>,
    /// Longest wait for the gates' answer.
    pub(crate) status_timeout: Duration,
    /// Channels that a shard remembers for the next gate.
    pub(crate) parked_channels: usize,
    /// Unanswered messages that a shard remembers.
    pub(crate) pending_messages: usize,
}

/// What a gRPC listener is told.
pub(crate) fn grpc_config(config: &Config, listener: &Listener) -> GrpcSettings {
    let (limits, grpc, mikudos) = (&config.limits, &config.grpc, &config.mikudos);
    let default_expire = Some(mikudos.default_expire).filter(|expire| !expire.is_zero());
    GrpcSettings {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        keys: keys(config),
        allow_from: allow_from(listener),
        speaks_grpc: listener.speaks(Dialect::Grpc),
        speaks_mikudos: listener.speaks(Dialect::Mikudos),
        speaks_message_sync: listener.speaks(Dialect::MessageSync),
        publish: publish_limits(config),
        batch_messages: limits.batch_messages,
        request_bytes: grpc.request_bytes,
        connections: limits.connections,
        streams: limits.streams,
        connection_streams: grpc.connection_streams,
        stream_window_bytes: grpc.stream_window_bytes,
        connection_window_bytes: grpc.connection_window_bytes,
        keep_alive_interval: grpc.keep_alive_interval,
        keep_alive_timeout: grpc.keep_alive_timeout,
        head_timeout: limits.head_timeout,
        hello_timeout: grpc.hello_timeout,
        send_buffer_bytes: grpc.send_buffer_bytes,
        retry_ms: millis(config.sse.retry),
        mikudos: MikudosSettings {
            mode: mikudos.mode,
            default_expire,
            status_timeout: mikudos.status_timeout,
            parked_channels: mikudos.parked_channels,
            pending_messages: mikudos.pending_messages,
        },
    }
}

fn keys(config: &Config) -> Vec<ApiKey> {
    let keys = config.auth.keys.iter();
    keys.map(|key| ApiKey { sha256: key.sha256, principal: key.principal() }).collect()
}

fn publish_limits(config: &Config) -> PublishLimits {
    let limits = &config.limits;
    PublishLimits {
        payload_bytes: limits.payload_bytes,
        headers_count: limits.headers_count,
        headers_bytes: limits.headers_bytes,
        json_depth: limits.json_depth,
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, listeners::ListenerName};

    fn settings(name: ListenerName, sets: &[&str], speak: &[&str]) -> GrpcSettings {
        let sets = sets.iter().map(ToString::to_string).collect();
        let speak = speak.iter().map(ToString::to_string).collect();
        let config = Config::load(&Sources { sets, speak, ..Sources::default() }).unwrap();
        let listener = config.listeners.iter().find(|listener| listener.name == name).unwrap();
        grpc_config(&config, listener)
    }

    #[test]
    fn a_grpc_listener_is_told_what_it_speaks() {
        let check = |name, speak: &[&str], expected| {
            let told = settings(name, &[], speak);
            let found = (told.speaks_grpc, told.speaks_mikudos, told.speaks_message_sync);
            assert_eq!((told.name.as_str(), found), (name.name(), expected));
        };
        check(ListenerName::Grpc, &[], (true, true, true));
        check(ListenerName::MessageSync, &["message-sync"], (false, false, true));
    }

    #[test]
    fn no_default_expire_is_none() {
        let told = settings(ListenerName::Grpc, &[], &[]);
        assert_eq!(told.mikudos.default_expire, None);
        assert_eq!((told.request_bytes, told.mikudos.mode), (4_194_304, MikudosMode::Unify));
        let told = settings(ListenerName::Grpc, &["mikudos.default_expire=1h"], &[]);
        assert_eq!(told.mikudos.default_expire, Some(Duration::from_secs(3600)));
    }
}
