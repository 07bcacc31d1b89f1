//! The gRPC listener: HTTP/2 connections, the table of services, the native API; the dialects that speak gRPC have rooms
//! of their own.
//!
//! The way of a call: `accept` → `connection` (hyper, keep-alive, limits) → `route` (by path) → a handler of `native` or of
//! a dialect → a verb of the node. A stream's responses are frames that a shard wrote into a pipe; its requests are read
//! by a task of its own. Invariants: response headers go at once; every refusal is a status from the one code table.

mod call;
mod config;
mod connection;
mod describe;
mod native;
mod outlet;
mod response;
mod route;
mod socket;
mod status;
mod stored_sessions;
mod subscribe;

pub(crate) use call::{Call, Requests, principal, requests, unary};
pub use config::{GrpcConfig, MikudosConfig, Speaks};
pub(crate) use outlet::ended;
pub(crate) use response::{Ending, GrpcBody, streaming};
pub(crate) use route::{App, Unknown};
pub(crate) use status::refused;

use crate::accept::Serve;
use crate::stop::Stop;
use crate::trust::AllowFrom;
use clarion_core::Code;
use clarion_node::Node;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// A gRPC listener.
struct Grpc {
    app: Arc<App>,
}

impl Serve for Grpc {
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
        connection::goodbye(code)
    }

    async fn run(
        self: Arc<Self>,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
        stop: watch::Receiver<Stop>,
    ) {
        connection::run(self.app.clone(), stream, stop).await;
        drop(place);
    }
}

/// Serves a listener until it is told to finish and every call under way has ended, or is told to cut them.
pub async fn serve(
    listener: std::net::TcpListener,
    node: Node,
    config: GrpcConfig,
    stop: watch::Receiver<Stop>,
) -> io::Result<()> {
    let app = App::new(node, config).await.map_err(io::Error::other)?;
    crate::accept::serve(listener, Arc::new(Grpc { app }), stop).await
}
