//! The Layer port: what stands between a session's bytes and its socket, TLS and WebSocket frames.
//!
//! A shard reads raw bytes into its one buffer and has the layer make plain ones of them; it hands plain bytes of the
//! outbox to the layer, which seals them, and writes what comes out. Invariants: nothing is allocated for a length that
//! a peer merely announces; an idle layer holds as little as its protocol allows. Must not know: sockets, sessions.

use std::fmt;

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerError(pub &'static str);

impl fmt::Display for LayerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for LayerError {}

/// What came of raw bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The connection goes on.
    More,
    /// The peer said in this layer that it is over (a TLS close_notify, a WebSocket close frame); what was made plain before
    /// that counts.
    End,
}

/// See the module.
pub trait Layer: Send {
    /// Takes all raw bytes; appends the plain ones to `plain`, and what this layer answers by itself (a pong, a TLS alert, a
    /// close frame) to `raw_out`. After an error the connection is closed once `raw_out` is written.
    fn open(
        &mut self,
        raw: &[u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Opened, LayerError>;

    /// Seals plain bytes: appends what goes to the socket. All of `plain` is taken.
    fn seal(&mut self, plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerError>;

    /// The server ends the connection: appends this layer's last words (a close frame, close_notify).
    fn close(&mut self, raw_out: &mut Vec<u8>);
}
