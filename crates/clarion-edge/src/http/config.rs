//! What an HTTP listener is told at its start: plain, validated values.

use crate::auth::Authenticator;
use crate::trust::AllowFrom;
use clarion_wire::publish::PublishLimits;
use std::sync::Arc;
use std::time::Duration;

/// See the configuration reference for each limit.
#[derive(Clone)]
pub struct HttpConfig {
    /// The listener's name.
    pub name: String,
    /// Whether requests need a proof of identity.
    pub auth_required: bool,
    /// What proves an identity.
    pub auth: Authenticator,
    /// Whence connections are taken; `None` = from everywhere.
    pub allow_from: Option<AllowFrom>,
    /// Bounds of one publish.
    pub publish: PublishLimits,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of the bodies of all requests under way.
    pub bodies_bytes: usize,
    /// Messages in a batch.
    pub batch_messages: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Time for a request's head, from its first byte.
    pub head_timeout: Duration,
    /// Time for a request's body.
    pub body_timeout: Duration,
    /// Time that a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Connections at once.
    pub connections: usize,
    /// Streams at once.
    pub streams: usize,
    /// What others count, for `/metrics`.
    pub counters: Vec<OtherCounter>,
    /// What SSE clients are told to wait before they come back.
    pub retry_ms: u64,
}

/// A counter that somebody else keeps.
#[derive(Clone)]
pub struct OtherCounter {
    /// Its name, without prefix and suffix.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// Its present value.
    pub value: Arc<dyn Fn() -> u64 + Send + Sync>,
}
