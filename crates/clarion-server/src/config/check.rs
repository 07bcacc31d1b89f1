//! What one value alone cannot tell: contradictions between keys, and listeners that would trust strangers.
//!
//! A check is left out where one of its values is broken already: it would report a default.

use super::{
    listeners::{AuthMode, Dialect, Listener, ListenerName},
    reader::Reader,
    sections::Config,
};

/// Checks everything; problems go to the reader.
pub(crate) fn check(config: &Config, reader: &mut Reader<'_>) {
    check_sizes(config, reader);
    let open: Vec<&Listener> = config.listeners.iter().filter(|l| l.is_open()).collect();
    if open.is_empty() && !reader.is_broken("listeners") {
        reader.problem("listeners", "no listener speaks anything, so nobody could connect");
    }
    for (index, listener) in open.iter().enumerate() {
        check_trust(config, listener, reader);
        check_port(listener, &open[..index], reader);
        let over = format!("listeners.{}.mqtt_over", listener.name);
        let closed = listener.mqtt.as_ref().is_some_and(|habits| habits.over.is_empty());
        if closed && listener.speaks(Dialect::Mqtt) && !reader.is_broken(&over) {
            reader.problem(&over, "is empty, but the listener speaks mqtt");
        }
    }
}

/// Pairs of which the first may not be larger than the second.
fn check_sizes(config: &Config, reader: &mut Reader<'_>) {
    let (limits, grpc) = (&config.limits, &config.grpc);
    let payload = ("limits.payload_bytes", limits.payload_bytes as u64);
    let body = ("limits.body_bytes", limits.body_bytes as u64);
    let mqtt = &config.mqtt;
    let pairs = [
        (
            ("mqtt.max_packet_bytes", mqtt.max_packet_bytes.into()),
            ("mqtt.websocket_message_bytes", mqtt.websocket_message_bytes),
        ),
        (payload, body),
        (body, ("limits.bodies_bytes", limits.bodies_bytes as u64)),
        (payload, ("limits.commit_queue_bytes", limits.commit_queue_bytes as u64)),
        (payload, ("limits.live_queue_bytes", limits.live_queue_bytes as u64)),
        (
            ("limits.batch_messages", limits.batch_messages as u64),
            ("limits.commit_queue_messages", limits.commit_queue_messages as u64),
        ),
        (
            ("grpc.stream_window_bytes", grpc.stream_window_bytes.into()),
            ("grpc.connection_window_bytes", grpc.connection_window_bytes.into()),
        ),
    ];
    for ((small, small_value), (large, large_value)) in pairs {
        if small_value > large_value && !reader.is_broken(small) && !reader.is_broken(large) {
            reader.problem(small, format!("{small_value} is above {large}, {large_value}"));
        }
    }
}

fn check_trust(config: &Config, listener: &Listener, reader: &mut Reader<'_>) {
    let path = format!("listeners.{}", listener.name);
    if reader.is_broken(&path) {
        return;
    }
    let auth_required = listener.auth == AuthMode::Required;
    let has_proof = !config.auth.keys.is_empty()
        || config.auth.password_file.is_some()
        || config.jwt.has_keys()
        || listener.tls.user_from_cert;
    if auth_required && !has_proof && !reader.is_broken("auth") {
        let text = "required, but nothing proves who somebody is, so nobody could come in: set auth.keys, \
                    auth.password_file or a key of auth.jwt";
        reader.problem(&format!("{path}.auth"), text);
    }
    for (key, text) in listener.tls.contradictions() {
        reader.problem(&format!("{path}.tls.{key}"), text);
    }
    if listener.name == ListenerName::Mqtts && !listener.tls.is_on() {
        let text = format!("has no certificate: set {path}.tls.cert and {path}.tls.key");
        reader.problem(&path, text);
    }
    if listener.is_beyond_loopback() && !auth_required && listener.allow_from.is_empty() {
        let bind = listener.bind;
        reader.problem(
            &format!("{path}.bind"),
            format!(
                "{bind} can be reached from other machines, and whoever reaches it would be trusted: set \
                 {path}.auth to required (with auth.keys, auth.password_file or auth.jwt), or {path}.allow_from to the address ranges of those \
                 whom you trust"
            ),
        );
    }
}

fn check_port(listener: &Listener, earlier: &[&Listener], reader: &mut Reader<'_>) {
    let path = format!("listeners.{}.bind", listener.name);
    let bind = listener.bind;
    let same = earlier.iter().find(|other| other.bind == bind && bind.port() != 0);
    if let Some(same) = same.filter(|_| !reader.is_broken(&path)) {
        reader.problem(&path, format!("{bind} is the bind of listeners.{} too", same.name));
    }
}
