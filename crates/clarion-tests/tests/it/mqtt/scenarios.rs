//! What the specifications say, one test for each version that says it.
//!
//! `basic`: publish and subscribe · `connecting`: client ids, take-over, keep-alive, ends · `wills` · `retained` ·
//! `subscriptions`: options and identifiers, overlap · `shared` · `flow`: windows and sizes · `aliases` · `properties`: what
//! travels with a message.

mod aliases;
mod basic;
mod connecting;
mod flow;
mod properties;
mod retained;
mod shared;
mod subscriptions;
mod wills;
