//! What the integration tests stand on: real server processes, real command lines, raw sockets.
//!
//! Owns: building the binary once, starting and ending servers ([`Server`]), client commands ([`Command`]), connections
//! that may send anything ([`raw`], [`grpc`]), gRPC clients of bytes ([`grpc_bytes`]), a network that loses bytes
//! ([`proxy`]), and waiting ([`wait_for`]). Invariants: no server outlives its test; a wait has a deadline and says what it waited for; the data of a test that passed is removed, that of one that failed is kept and
//! its path printed. Must not know: the server's insides.

#![allow(
    clippy::unwrap_in_result,
    reason = "the harness panics when the machine fails; its results are about the server"
)]

mod binary;
mod command;
pub mod grpc;
pub mod grpc_bytes;
pub mod mqtt;
pub mod proxy;
pub mod raw;
mod server;
mod wait;

pub use binary::{binary, target_dir};
pub use command::Command;
pub use server::{Builder, FailedStart, Server};
pub use wait::{DEADLINE, wait_for, wait_until};
