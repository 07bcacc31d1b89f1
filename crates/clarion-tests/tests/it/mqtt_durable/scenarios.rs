//! What the specifications say of sessions that outlive their connections.
//!
//! `sessions`: present or not, clean start, expiry, take-over · `queueing`: what waits for a session that is away ·
//! `redelivery`: what was under way · `subscribing`: what SUBSCRIBE and UNSUBSCRIBE do to what waits · `offline`: what happens
//! to messages meanwhile · `access`: rules that change meanwhile · `limits` · `wills` · `restarts`: the same over SIGTERM
//! and SIGKILL.

mod access;
mod limits;
mod offline;
mod queueing;
mod redelivery;
mod restarts;
mod sessions;
mod subscribing;
mod wills;
