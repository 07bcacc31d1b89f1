//! What stands between a connection's bytes and its socket: TLS, WebSocket frames, and both.
//!
//! Layers are plain state machines: bytes in, bytes out. The edge drives them while a connection is being let in, the shard
//! for the rest of its life. Must not know: sockets, MQTT.

mod stack;
mod tls;
mod websocket;

pub use stack::Stack;
pub use tls::Tls;
pub use websocket::WebSocket;
