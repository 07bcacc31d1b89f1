//! Whom a listener lets connect, by address.
//!
//! Must not know: who proves what (see `auth`).

use std::net::IpAddr;
use std::sync::Arc;

/// Whether connections from an address are taken.
pub type AllowFrom = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;
