//! The native HTTP listener: publish, read, streams, sessions, operations.
//!
//! A listener that speaks MQTT too looks at a connection's first bytes, and hands MQTT and its WebSocket
//! requests on.
//!
//! The way of a request: `accept` → `connection` (hyper, deadlines) → `router` → a handler → a verb of the node. A
//! stream's connection leaves hyper once its request is accepted and belongs to a shard from then on.

mod auth;
mod body;
mod channels;
mod config;
mod connection;
mod dead;
mod groups;
mod messages;
mod ops;
mod outlet;
mod problem;
mod proto;
mod publish;
mod query;
mod queues;
mod retained;
mod router;
mod sessions;
mod stored_sessions;
mod stream;
mod taking;

pub(crate) use auth::{is_ip_or_localhost, is_this_machine};
pub use clarion_wire::publish::PublishLimits;
pub use config::{HttpConfig, OtherCounter};
pub(crate) use problem::{raw_refusal, raw_response};
pub use router::{App, openapi_json};

use crate::accept::Serve;
use crate::mqtt::{self, First};
use crate::stop::{Stop, reached};
use crate::trust::AllowFrom;
use clarion_core::Code;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout};

/// An HTTP listener.
struct Http {
    app: Arc<App>,
    router: axum::Router,
    /// What it speaks besides.
    mqtt: Option<Arc<mqtt::App>>,
}

impl Http {
    /// What a connection speaks. One that does not say so in time is HTTP's, which says what it was too slow for.
    async fn look(&self, mqtt: &mqtt::App, stream: &TcpStream, head: &mut Vec<u8>) -> First {
        let looked = mqtt.look(stream, head);
        timeout(self.app.config.head_timeout, looked).await.unwrap_or(First::Other)
    }
}

impl Serve for Http {
    fn name(&self) -> &str {
        &self.app.config.name
    }

    fn allow_from(&self) -> Option<&AllowFrom> {
        self.app.config.allow_from.as_ref()
    }

    fn connections(&self) -> usize {
        self.app.config.connections
    }

    fn refusal(&self, code: Code) -> Vec<u8> {
        raw_response(code)
    }

    async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: watch::Receiver<Stop>,
    ) {
        let (at, mut head) = (Instant::now(), Vec::new());
        if let Some(mqtt) = &self.mqtt {
            let first = tokio::select! {
                first = self.look(mqtt, &stream, &mut head) => first,
                () = reached(stop.clone(), Stop::Finish) => return,
            };
            if matches!(first, First::Mqtt | First::WebSocket) {
                return mqtt.clone().run(stream, (head, at), Box::new(place), stop).await;
            }
        }
        let begun = connection::Begun { stream, head, at };
        connection::run(self.app.clone(), self.router.clone(), begun, place, stop).await;
    }
}

/// Serves a listener until it is told to finish and every request under way is answered, or is told to cut them. With
/// `mqtt` it speaks MQTT too.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Arc<App>,
    mqtt: Option<Arc<mqtt::App>>,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let router = router::router(app.clone());
    crate::accept::serve(listener, Arc::new(Http { app, router, mqtt }), stop).await
}
