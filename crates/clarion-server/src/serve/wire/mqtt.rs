//! What the listeners that speak MQTT are told.

use super::allow_from;
use crate::config::{
    Config,
    listeners::{AuthMode, Listener, Transport},
};
use clarion_edge::mqtt::{MqttConfig, MqttPeerConfig, Over, PeerCounters, UserTopics};
use clarion_edge::tls::TlsConfig;
use clarion_wire::mqtt::Profile;
use std::{sync::Arc, time::Duration};

/// What the peers of all listeners are told.
pub(crate) fn mqtt_peers(config: &Config) -> Arc<MqttPeerConfig> {
    let (limits, mqtt) = (&config.limits, &config.mqtt);
    // Each was parsed when it was read.
    let user_topics = UserTopics::parse(mqtt.user_topics.iter().map(String::as_str));
    Arc::new(MqttPeerConfig {
        profile: Profile { packet_bytes_max: mqtt.max_packet_bytes, free_topics: false },
        payload_bytes: limits.payload_bytes,
        headers_count: limits.headers_count,
        headers_bytes: limits.headers_bytes,
        user_topics: user_topics.unwrap_or_default(),
        receive_maximum: mqtt.receive_maximum,
        max_inflight: mqtt.max_inflight,
        topic_aliases: mqtt.topic_aliases,
        topic_alias_bytes: mqtt.topic_alias_bytes,
        topic_aliases_out: mqtt.topic_aliases_out,
        subscriptions: mqtt.subscriptions_max,
        session_expiry_3x_s: mqtt.session_expiry_3x.map_or(u32::MAX, seconds),
        topic_levels: mqtt.topic_levels_max,
        subscribe_denied_code: mqtt.subscribe_denied_code,
        server_reference: mqtt.server_reference.as_deref().map(Into::into),
        server_moved: false,
        response_information: mqtt.response_information.as_deref().map(Into::into),
        counters: PeerCounters::default(),
    })
}

/// What a listener that speaks MQTT is told.
pub(crate) fn mqtt_config(
    config: &Config,
    listener: &Listener,
    tls: Option<TlsConfig>,
    peers: Arc<MqttPeerConfig>,
) -> MqttConfig {
    let (limits, mqtt) = (&config.limits, &config.mqtt);
    let over = |wanted| {
        let habits = listener.mqtt.as_ref();
        habits.is_some_and(|habits| habits.over.contains(&wanted))
    };
    MqttConfig {
        name: listener.name.name().to_owned(),
        auth_required: listener.auth == AuthMode::Required,
        allow_from: allow_from(listener),
        connections: limits.connections,
        user_from_cert: listener.tls.user_from_cert,
        tls,
        over: Over { tcp: over(Transport::Tcp), websocket: over(Transport::WebSocket) },
        allow_origins: mqtt.allow_origins.clone(),
        head_bytes: limits.head_bytes,
        websocket_message_bytes: mqtt.websocket_message_bytes,
        connect_timeout: mqtt.connect_timeout,
        connect_bytes: mqtt.connect_bytes.min(mqtt.max_packet_bytes),
        client_id_bytes: mqtt.client_id_bytes,
        max_keep_alive_s: u16::try_from(mqtt.max_keep_alive.as_millis().div_ceil(1000))
            .unwrap_or(u16::MAX),
        session_expiry_max_s: seconds(mqtt.max_session_expiry),
        auto_subscribe: listener.mqtt.as_ref().is_some_and(|habits| habits.auto_subscribe),
        peer: peers,
    }
}

fn seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}
