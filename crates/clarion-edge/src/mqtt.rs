//! The dialect MQTT: 3.1, 3.1.1 and 5, as it is, within TLS, within WebSocket frames.
//!
//! The way of a connection: `accept` → `connection` (first bytes, TLS, WebSocket, CONNECT, identity) → its shard, which has
//! a `peer` answer packet by packet. On an HTTP listener `http` looks at the first bytes and hands on what is MQTT's. Must
//! not know: how anything is matched or stored; other dialects.

mod config;
mod connection;
mod identity;
mod peer;
mod refuse;
mod sniff;
mod upgrade;
mod wire;

pub use config::MqttConfig;
pub use peer::{
    ConnectRefusal, Hello, MqttPeer, MqttPeerConfig, PeerCounters, PeerSetup, SessionTerms,
    TemplateError, UserTopics, check_connect,
};
pub(crate) use sniff::First;
pub use sniff::Over;

use crate::accept::Serve;
use crate::auth::Authenticator;
use crate::stop::{Stop, reached};
use crate::trust::AllowFrom;
use clarion_core::Code;
use clarion_node::{Guard, Node};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

/// What the connections of a listener share.
pub struct App {
    node: Node,
    auth: Authenticator,
    config: MqttConfig,
}

impl App {
    /// Ready for [`serve`], or for an HTTP listener that speaks MQTT too.
    pub fn new(node: Node, auth: Authenticator, config: MqttConfig) -> Arc<Self> {
        Arc::new(Self { node, auth, config })
    }

    /// What a connection to an HTTP listener speaks; `head` holds what was read to tell.
    pub(crate) async fn look(&self, stream: &TcpStream, head: &mut Vec<u8>) -> First {
        sniff::look(stream, self.config.over, self.config.head_bytes, head).await
    }

    /// Serves a connection of which `head` was read, until its shard has it. A stop ends it: who has not got so far has
    /// lost nothing.
    pub(crate) async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        begun: (Vec<u8>, Instant),
        place: Guard,
        stop: watch::Receiver<Stop>,
    ) {
        tokio::select! {
            () = connection::run(&self, stream, begun, place) => {}
            () = reached(stop, Stop::Finish) => {}
        }
    }
}

/// A listener that speaks nothing but MQTT.
struct Mqtt(Arc<App>);

impl Serve for Mqtt {
    fn name(&self) -> &str {
        &self.0.config.name
    }

    fn allow_from(&self) -> Option<&AllowFrom> {
        self.0.config.allow_from.as_ref()
    }

    fn connections(&self) -> usize {
        self.0.config.connections
    }

    /// Nothing: before CONNECT nobody knows in which version's words, and reading it is what the limit is against.
    fn refusal(&self, _: Code) -> Vec<u8> {
        Vec::new()
    }

    async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: watch::Receiver<Stop>,
    ) {
        let begun = (Vec::new(), Instant::now());
        self.0.clone().run(stream, begun, Box::new(place), stop).await;
    }
}

/// Serves a listener until it is told to stop. Sessions live on in their shards.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Arc<App>,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    crate::accept::serve(listener, Arc::new(Mqtt(app)), stop).await
}
