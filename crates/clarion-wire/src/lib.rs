//! Codecs without I/O: bytes in, values out, and back.
//!
//! Owns: the JSON form of a message, publish requests, resume and lease tokens, SSE frames, the wire protos and what is
//! generated from them, the gRPC frames of the hot path. Invariants: no input panics; sizes are checked before memory is
//! taken.
//! Must not know: sockets, runtimes, the node.

pub mod grpc;
pub mod json;
pub mod lease;
pub mod mqtt;
pub mod proto;
pub mod publish;
pub mod sse;
pub mod token;
