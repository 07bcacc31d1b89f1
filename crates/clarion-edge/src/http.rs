//! The native HTTP listener: publish, read, streams, sessions, operations.
//!
//! The way of a request: `accept` → `connection` (hyper, deadlines) → `router` → a handler → a verb of the node. A
//! stream's connection leaves hyper once its request is accepted and belongs to a shard from then on.

mod accept;
mod auth;
mod body;
mod channels;
mod config;
mod connection;
mod messages;
mod ops;
mod outlet;
mod problem;
mod proto;
mod publish;
mod query;
mod router;
mod sessions;
mod stop;
mod stream;

pub use accept::serve;
pub use clarion_wire::publish::PublishLimits;
pub use config::{AllowFrom, ApiKey, HttpConfig};
pub use router::{App, openapi_json};
pub use stop::Stop;
