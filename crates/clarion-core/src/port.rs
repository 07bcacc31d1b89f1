//! The ports: what the shell needs from the world, in the domain's words.
//!
//! Must not know: any engine, runtime or protocol.

pub mod layer;
pub mod outlet;
pub mod peer;
pub mod store;

use std::{future::Future, pin::Pin};

/// A boxed future; one for a batch, never one for a message.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;
