//! Wiring: the configuration's sections become the plain configurations of node and edge.
//!
//! Must not know: how any of them works.

mod mqtt;

pub(crate) use mqtt::{mqtt_config, mqtt_peers};

use crate::config::{
    Config,
    listeners::{AuthMode, Dialect, Listener},
    sections::{MikudosMode, StoreKind},
};
use crate::credentials::Loaded;
use clarion_core::AclCell;
use clarion_core::mode::Mode;
use clarion_edge::AllowFrom;
use clarion_edge::auth::{AuthConfig, Authenticator};
use clarion_edge::grpc::{GrpcConfig, MikudosConfig, Speaks};
use clarion_edge::http::{HttpConfig, OtherCounter, PublishLimits};
use clarion_edge::mqtt::{MqttPeerConfig, PeerCounters};
use clarion_node::NodeConfig;
use clarion_node::config::RetentionTable;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Timers of connections may be late.
const SETTLE_SLACK: Duration = Duration::from_secs(2);

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
        ack_wait: config.cursors.ack_wait,
        max_attempts: config.cursors.max_attempts,
        max_unacked: config.cursors.max_unacked,
        max_unacked_device: config.cursors.max_unacked_device as u64,
        // A vanished client shows when its ping is not answered.
        settle: config.grpc.keep_alive_interval + config.grpc.keep_alive_timeout + SETTLE_SLACK,
        takers: limits.queue_takers,
        gate_mode: gate_mode(config),
        gate_message_bytes: 4 << 20,
        gate_patience: config.mikudos.status_timeout,
        gate_channels: config.mikudos.parked_channels,
        gate_pending: config.mikudos.pending_messages,
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
        peer_queue_messages: config.mqtt.queue_messages,
        peer_queue_bytes: config.mqtt.queue_bytes,
        store_qos0: config.mqtt.store_qos0,
        retained_topics: config.mqtt.retained_messages,
        will_grace: config.mqtt.will_grace,
        sys_interval: config.mqtt.sys_interval,
    }
}

/// What an HTTP listener is told.
pub(crate) fn http_config(
    config: &Config,
    listener: &Listener,
    auth: &Authenticator,
    peers: &Arc<MqttPeerConfig>,
) -> HttpConfig {
    let limits = &config.limits;
    HttpConfig {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        auth: auth.clone(),
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
        counters: peer_counters(peers),
        retry_ms: millis(config.sse.retry),
    }
}

/// What happened to messages of MQTT clients that nobody was told of.
fn peer_counters(peers: &Arc<MqttPeerConfig>) -> Vec<OtherCounter> {
    let counter = |name, help, of: fn(&PeerCounters) -> &AtomicU64| {
        let peers = peers.clone();
        OtherCounter { name, help, value: Arc::new(move || of(&peers.counters).load(Relaxed)) }
    };
    vec![
        counter("mqtt_publishes_refused", "MQTT publishes refused without an answer", |c| {
            &c.refused
        }),
        counter("mqtt_deliveries_forbidden", "MQTT deliveries that access rules forbid", |c| {
            &c.forbidden
        }),
        counter("mqtt_deliveries_too_large", "MQTT deliveries larger than the client takes", |c| {
            &c.too_large
        }),
    ]
}

/// What a gRPC listener is told.
pub(crate) fn grpc_config(
    config: &Config,
    listener: &Listener,
    port: u16,
    auth: &Authenticator,
) -> GrpcConfig {
    let (limits, grpc, mikudos) = (&config.limits, &config.grpc, &config.mikudos);
    GrpcConfig {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        auth: auth.clone(),
        allow_from: allow_from(listener),
        speaks: Speaks {
            grpc: listener.speaks(Dialect::Grpc),
            mikudos: listener.speaks(Dialect::Mikudos),
            message_sync: listener.speaks(Dialect::MessageSync),
        },
        publish: publish_limits(config),
        batch_messages: limits.batch_messages,
        request_bytes: grpc.request_bytes,
        bodies_bytes: limits.bodies_bytes,
        connections: limits.connections,
        streams: limits.streams,
        connection_streams: grpc.connection_streams,
        stream_window_bytes: grpc.stream_window_bytes,
        connection_window_bytes: grpc.connection_window_bytes,
        head_bytes: u32::try_from(limits.head_bytes).unwrap_or(u32::MAX),
        keep_alive_interval: grpc.keep_alive_interval,
        keep_alive_timeout: grpc.keep_alive_timeout,
        head_timeout: limits.head_timeout,
        body_timeout: limits.body_timeout,
        hello_timeout: grpc.hello_timeout,
        send_buffer_bytes: grpc.send_buffer_bytes,
        retry_ms: millis(config.sse.retry),
        mikudos: MikudosConfig {
            mode: gate_mode(config),
            default_expire: Some(mikudos.default_expire).filter(|expire| !expire.is_zero()),
            status_timeout: mikudos.status_timeout,
            shown: shown(config, port),
        },
    }
}

fn gate_mode(config: &Config) -> Mode {
    match config.mikudos.mode {
        MikudosMode::Unify => Mode::Unify,
        MikudosMode::Group => Mode::Group,
        MikudosMode::Every => Mode::Every,
    }
}

/// What mikudos clients may see of the configuration, under the original's names where it has them: no secret.
fn shown(config: &Config, port: u16) -> Vec<(String, String)> {
    let kind = match config.store.kind {
        StoreKind::Embedded => "embedded",
        StoreKind::Memory => "memory",
    };
    let seconds = |span: Duration| span.as_secs_f64().to_string();
    [
        ("port", port.to_string()),
        ("mode", gate_mode(config).name().to_owned()),
        ("storageType", kind.to_owned()),
        ("defaultExpire", seconds(config.mikudos.default_expire)),
        ("statusTimeout", seconds(config.mikudos.status_timeout)),
        ("maxMessageBytes", config.grpc.request_bytes.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What proves identities on all listeners.
pub(crate) fn authenticator(
    config: &Config,
    loaded: Loaded,
    cores: usize,
) -> Result<Authenticator, String> {
    let auth = &config.auth;
    let checks = if auth.password_checks == 0 { 2 * cores } else { auth.password_checks };
    Authenticator::new(AuthConfig {
        credentials: loaded.credentials,
        acl: loaded.acl.map(AclCell::new),
        password_checks: checks,
        password_queue: auth.password_queue,
        cache_entries: auth.cache_entries,
        cache_time: auth.cache_time,
    })
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

    fn told(name: ListenerName, sets: &[&str], speak: &[&str]) -> GrpcConfig {
        let sets = sets.iter().map(ToString::to_string).collect();
        let speak = speak.iter().map(ToString::to_string).collect();
        let config = Config::load(&Sources { sets, speak, ..Sources::default() }).unwrap();
        let listener = config.listeners.iter().find(|listener| listener.name == name).unwrap();
        grpc_config(
            &config,
            listener,
            1,
            &authenticator(&config, crate::credentials::load_all(&config).unwrap(), 1).unwrap(),
        )
    }

    #[test]
    fn a_grpc_listener_is_told_what_it_speaks() {
        let check = |name, speak: &[&str], expected| {
            let told = told(name, &[], speak);
            assert_eq!((told.name.as_str(), told.speaks), (name.name(), expected));
        };
        let all = Speaks { grpc: true, mikudos: true, message_sync: true };
        check(ListenerName::Grpc, &[], all);
        let one = Speaks { message_sync: true, ..Speaks::default() };
        check(ListenerName::MessageSync, &["message-sync"], one);
    }

    #[test]
    fn no_default_expire_is_none() {
        let none = told(ListenerName::Grpc, &[], &[]);
        assert_eq!(none.mikudos.default_expire, None);
        assert_eq!((none.request_bytes, none.mikudos.mode), (4_194_304, Mode::Unify));
        let hour = told(ListenerName::Grpc, &["mikudos.default_expire=1h"], &[]);
        assert_eq!(hour.mikudos.default_expire, Some(Duration::from_secs(3600)));
    }
}
