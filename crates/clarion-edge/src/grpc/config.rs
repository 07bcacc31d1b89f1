//! What a gRPC listener is told at its start: plain, validated values.

use crate::auth::Authenticator;
use crate::trust::AllowFrom;
use clarion_core::mode::Mode;
use clarion_wire::publish::PublishLimits;
use std::time::Duration;

/// Which services a listener has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speaks {
    /// `clarion.v1`.
    pub grpc: bool,
    /// `message_pusher` and `message_deliver`.
    pub mikudos: bool,
    /// `MessageSync`.
    pub message_sync: bool,
}

/// See the configuration reference for each limit.
#[derive(Clone)]
pub struct GrpcConfig {
    /// The listener's name.
    pub name: String,
    /// Whether calls need a proof of identity.
    pub auth_required: bool,
    /// What proves an identity.
    pub auth: Authenticator,
    /// Whence connections are taken; `None` = from everywhere.
    pub allow_from: Option<AllowFrom>,
    /// Its services.
    pub speaks: Speaks,
    /// Bounds of one publish.
    pub publish: PublishLimits,
    /// Messages in a batch.
    pub batch_messages: usize,
    /// Bytes of a request message.
    pub request_bytes: usize,
    /// Bytes of all unary requests under way.
    pub bodies_bytes: usize,
    /// Connections at once.
    pub connections: usize,
    /// Streams at once that read.
    pub streams: usize,
    /// HTTP/2 streams at once on one connection.
    pub connection_streams: u32,
    /// Bytes that a client may send ahead on a stream.
    pub stream_window_bytes: u32,
    /// The same on a connection.
    pub connection_window_bytes: u32,
    /// Bytes of a request's header list.
    pub head_bytes: u32,
    /// Silence before a ping.
    pub keep_alive_interval: Duration,
    /// Time for the ping's answer.
    pub keep_alive_timeout: Duration,
    /// Time for a connection's first bytes.
    pub head_timeout: Duration,
    /// Time for a unary request's message.
    pub body_timeout: Duration,
    /// Time for a stream's hello.
    pub hello_timeout: Duration,
    /// Bytes that wait in a stream beyond its outbox.
    pub send_buffer_bytes: usize,
    /// What streams that end are told to wait before they come back.
    pub retry_ms: u64,
    /// The dialect mikudos.
    pub mikudos: MikudosConfig,
}

/// How the dialect mikudos behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MikudosConfig {
    /// Which gates get a push.
    pub mode: Mode,
    /// Life of a push without `expire`; `None` = it is live.
    pub default_expire: Option<Duration>,
    /// Longest wait for the gates' answer.
    pub status_timeout: Duration,
    /// What GetConfig shows: keys and values, no secret.
    pub shown: Vec<(String, String)>,
}
