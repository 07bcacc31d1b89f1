//! Listeners and dialects: they decode a wire form, call the node's verbs, and encode what comes out.
//!
//! Invariants: every queue and every wait has a bound; a refused client gets its protocol's own answer. Must not know:
//! drivers (no store is named here) and other dialects.

mod accept;
pub mod auth;
mod bodies;
pub mod grpc;
pub mod http;
pub mod layer;
mod message_sync;
mod mikudos;
pub mod mqtt;
mod stop;
pub mod tls;
mod trust;

pub use stop::Stop;
pub use trust::AllowFrom;
