//! The imperative shell: shards with their sessions, the committer, catch-up, the verbs that every edge calls.
//!
//! The way of a publish: [`Node::publish`] → `committer` → store → `shard` (mailbox → live lists → outbox) → outlet.
//! The way of an attach: [`Node::prepare`] → [`Node::attach`] → `shard` (subscription: catching up ↔ live) → store.
//!
//! Invariants: what is answered as stored was committed; hints of a channel reach a shard in commit order; a shard's
//! data is touched by its own thread only. Must not know: protocols (they come as `Outlet`s), drivers (they come as a
//! `Store`).

mod ack;
mod admin;
mod attach;
mod clients;
pub mod clock;
mod committer;
pub mod config;
mod dead;
mod devices;
mod durable;
mod gate;
mod history;
mod input;
mod interest;
pub mod metrics;
mod node;
mod peer;
mod pipe;
mod planner;
mod publish;
mod queue;
mod retained;
mod sessions;
mod shard;
mod shared;
mod shares;
mod status;
mod sweeper;
mod sys;
mod wills;

pub use ack::AckPosition;
pub use admin::{Presence, SessionInfo, SessionPage};
pub use attach::{
    Acks, AttachPlan, Guard, Link, ReaderRef, Resume, SessionRef, Sharing, StreamSpec, channel_tag,
    user_tag,
};
pub use config::NodeConfig;
pub use gate::{Echo, GateAnswer, GateInput, GateInputs, Pushed, gate_id};
pub use history::HistoryPage;
pub use input::{Input, Inputs};
pub use node::Node;
pub use peer::{NotAttached, PeerPlan};
pub use pipe::{End, PipeReader, PipeWriter, pipe};
pub use publish::{Answer, Draft, Expire};
pub use queue::{Lease, Leased, NextSpec};
pub use retained::RetainedPage;
pub use sessions::{
    CursorDetails, CursorMoved, SessionDetails, SessionNumbers, StoredSession, StoredSessionPage,
    SubscriptionDetails,
};
pub use status::{DeviceAck, MessageStatus, SessionAck};
