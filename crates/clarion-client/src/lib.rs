//! Clarion's Rust client: the native HTTP API and its event streams.
//!
//! Owns: the typed calls of the HTTP API, one small pool of keep-alive connections, the reader of Server-Sent Events and
//! its way back after a lost connection. Used by the command line, the bench and the tests; it depends on nothing of the
//! server, so what it understands is what any other client can rely on.
//!
//! Invariants: every buffer is bounded; a refusal keeps the server's code, name and detail; a call whose outcome is not
//! known says so ([`ClientError::Broken`]) and is never sent a second time.
//!
//! Must not know: the domain's types, the store, the node.

mod api;
mod error;
mod http;
mod shared;
pub mod sse;
mod stream;
mod types;
mod url;

pub use api::{
    Client, LogEnd, MoveTo, ReadRange, RetainedQuery, SessionsQuery, StoredSessionsQuery,
};
pub use error::{ClientError, Problem};
pub use shared::{Leased, NextQuery, Shared};
pub use sse::Event;
pub use stream::{EventStream, StreamItem, StreamQuery};
pub use types::{
    CloseEvent, Delivery, DeviceStatus, GapEvent, MessageStatus, Page, Presence, Publish,
    Published, RetainedPage, Sender, Session, SessionStatus, Sessions, StoredSession,
    StoredSessions,
};
pub use url::{BaseUrl, UrlError, encode_component};
