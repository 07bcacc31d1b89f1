//! The native HTTP listener: publish, read, streams, sessions, operations.
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
mod router;
mod sessions;
mod stream;
mod taking;

pub use clarion_wire::publish::PublishLimits;
pub use config::HttpConfig;
pub use router::{App, openapi_json};

use crate::accept::Serve;
use crate::stop::Stop;
use crate::trust::AllowFrom;
use clarion_core::Code;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// An HTTP listener.
struct Http {
    app: Arc<App>,
    router: axum::Router,
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
        problem::raw_response(code)
    }

    async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: watch::Receiver<Stop>,
    ) {
        connection::run(self.app.clone(), self.router.clone(), stream, place, stop).await;
    }
}

/// Serves a listener until it is told to finish and every request under way is answered, or is told to cut them.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Arc<App>,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let router = router::router(app.clone());
    crate::accept::serve(listener, Arc::new(Http { app, router }), stop).await
}
