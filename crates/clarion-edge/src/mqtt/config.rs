//! What a listener is told of MQTT at its start: plain, validated values.

use super::peer::MqttPeerConfig;
use super::sniff::Over;
use crate::tls::TlsConfig;
use crate::trust::AllowFrom;
use std::sync::Arc;
use std::time::Duration;

/// See the configuration reference for each limit.
#[derive(Clone)]
pub struct MqttConfig {
    /// The listener's name.
    pub name: String,
    /// Whether clients prove who they are.
    pub auth_required: bool,
    /// Whence connections are taken; `None` = from everywhere.
    pub allow_from: Option<AllowFrom>,
    /// Connections at once.
    pub connections: usize,
    /// TLS, if the listener has it.
    pub tls: Option<TlsConfig>,
    /// The common name of a client's certificate is the user; no other proof is asked for then.
    pub user_from_cert: bool,
    /// How MQTT comes in.
    pub over: Over,
    /// Origins of web pages that are taken where pages are not all alike.
    pub allow_origins: Vec<String>,
    /// Bytes of a WebSocket request's head.
    pub head_bytes: usize,
    /// Bytes of a WebSocket message.
    pub websocket_message_bytes: u64,
    /// Time from a connection's start to the end of its CONNECT.
    pub connect_timeout: Duration,
    /// Bytes of a CONNECT.
    pub connect_bytes: u32,
    /// Bytes of a client id.
    pub client_id_bytes: usize,
    /// Longest keep-alive, in seconds; 0 = what the client says.
    pub max_keep_alive_s: u16,
    /// Longest session expiry, in seconds.
    pub session_expiry_max_s: u32,
    /// A session with a user gets his feed unasked.
    pub auto_subscribe: bool,
    /// What its peers are told.
    pub peer: Arc<MqttPeerConfig>,
}
