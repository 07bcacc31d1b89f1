//! TLS, the server's side, by rustls.
//!
//! Invariants: what the peer sends is taken record by record and passed on at once; between records nothing but the keys
//! and one small buffer is kept (rustls keeps the buffer of the longest record until it reads again, so it is made to
//! believe that it does). Must not know: certificates' origin, what a name means.

use clarion_core::port::layer::{Layer, LayerError, Opened};
use rustls::ServerConnection;
use std::io::{self, BufRead, Read, Write};

/// See the module.
#[derive(Debug)]
pub struct Tls {
    connection: Box<ServerConnection>,
    /// The peer said that nothing follows.
    ended: bool,
}

/// A reader that never has anything.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Tls {
    /// A connection at its first byte: `open` does the handshake too.
    pub fn new(connection: ServerConnection) -> Self {
        Self { connection: Box::new(connection), ended: false }
    }

    /// Whether the handshake is done.
    pub fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// The common name of the certificate that the peer showed and that was verified, if it has one.
    pub fn common_name(&self) -> Option<String> {
        crate::tls::common_name(self.connection.peer_certificates()?.first()?)
    }

    /// Appends what rustls wants to say.
    fn flush(&mut self, raw_out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A vector takes everything.
            if self.connection.write_tls(raw_out).is_err() {
                break;
            }
        }
    }

    /// Moves what is plain to `plain`.
    fn drain(&mut self, plain: &mut Vec<u8>) {
        let mut reader = self.connection.reader();
        // An error means: nothing for now, or the end, which the state tells.
        while let Ok(chunk) = reader.fill_buf() {
            let length = chunk.len();
            if length == 0 {
                break;
            }
            plain.extend_from_slice(chunk);
            reader.consume(length);
        }
    }
}

impl Layer for Tls {
    fn open(
        &mut self,
        mut raw: &[u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Opened, LayerError> {
        while !raw.is_empty() && !self.ended {
            let taken = self.connection.read_tls(&mut raw);
            if !matches!(taken, Ok(taken) if taken > 0) {
                return Err(LayerError("a TLS record is longer than it may be"));
            }
            let processed = self.connection.process_new_packets();
            self.drain(plain);
            self.flush(raw_out);
            let state = processed.map_err(|_| LayerError("the TLS connection is broken"))?;
            self.ended = state.peer_has_closed();
        }
        // Gives back the buffer of a long record. The error is `Nothing`'s.
        let _ = self.connection.read_tls(&mut Nothing);
        Ok(if self.ended { Opened::End } else { Opened::More })
    }

    fn seal(&mut self, mut plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerError> {
        while !plain.is_empty() {
            match self.connection.writer().write(plain) {
                Ok(taken) if taken > 0 => plain = &plain[taken..],
                _ => return Err(LayerError("the TLS connection takes nothing")),
            }
            self.flush(raw_out);
        }
        Ok(())
    }

    fn close(&mut self, raw_out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.flush(raw_out);
    }
}

#[cfg(test)]
mod tests;
