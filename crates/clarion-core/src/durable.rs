//! Sessions of a protocol that talks both ways which outlive their connections: what they subscribed to, through which of
//! their subscriptions a message goes, and the forms in which they are stored (design §1.7, §1.8).
//!
//! Must not know: the protocol, stores, who commits.

pub mod commits;
pub mod inbound;
pub mod record;
pub mod subs;
