//! The client's side of a WebSocket, without I/O: the upgrade, then frames around a stream of bytes.
//!
//! Invariants: what is unwrapped stays where it came in (no copy but downwards); a server's frame is never gathered, its
//! payload is handed on as it comes. Must not know: what the bytes are.

use std::io;

/// Longest head of the answer to the upgrade.
const HEAD_MAX: usize = 8192;
/// Any key does: the answer to it is not checked.
const KEY: &str = "Y2xhcmlvbiBiZW5jaCBtcQ==";
/// Every frame's mask: not zero, so that the server has its work.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x99];

const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct WebSocket {
    open: bool,
    /// The answer to the upgrade, or a frame's header, as far as it is there.
    head: Vec<u8>,
    /// Bytes of the frame under way that have not come yet.
    left: u64,
    opcode: u8,
    /// A ping's payload.
    ping: Vec<u8>,
}

impl WebSocket {
    /// The request.
    pub(super) fn upgrade(host: &str, subprotocol: &str) -> String {
        format!(
            "GET /mqtt HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-key: {KEY}\r\nsec-websocket-version: 13\r\nsec-websocket-protocol: {subprotocol}\r\n\r\n"
        )
    }

    /// Whether the server has agreed.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Appends one frame that holds the bytes.
    pub(super) fn wrap(&self, bytes: &[u8], out: &mut Vec<u8>) {
        put_frame(BINARY, bytes, out);
    }

    /// Takes what came and leaves of it the payload, at the start of `bytes`: answers how much that is. What has to be
    /// sent for it is appended to `out`.
    pub(super) fn unwrap(&mut self, bytes: &mut [u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut at = if self.open { 0 } else { self.take_answer(bytes)? };
        let mut kept = 0;
        while at < bytes.len() {
            if self.left == 0 {
                at += self.take_header(&bytes[at..])?;
                if self.left > 0 || !self.head.is_empty() {
                    continue;
                }
            }
            let here = (bytes.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
            match self.opcode {
                PING => self.ping.extend_from_slice(&bytes[at..at + here]),
                PONG => {}
                _ => {
                    bytes.copy_within(at..at + here, kept);
                    kept += here;
                }
            }
            at += here;
            self.left -= here as u64;
            if self.left == 0 && self.opcode == PING {
                put_frame(PONG, &self.ping, out);
                self.ping.clear();
            }
        }
        Ok(kept)
    }

    /// Takes the answer to the upgrade; how many bytes of it were here.
    fn take_answer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.head, b"\r\n\r\n") else {
            return if self.head.len() > HEAD_MAX {
                Err(odd("the answer to the WebSocket upgrade has no end"))
            } else {
                Ok(bytes.len())
            };
        };
        if !self.head.starts_with(b"HTTP/1.1 101") {
            let line = self.head.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let text = format!("no WebSocket: {}", line.escape_ascii());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.open = true;
        self.head.clear();
        Ok(end + 4 - before)
    }

    /// Takes a frame's header; how many bytes of it were here. It is whole when `head` is empty afterwards.
    fn take_header(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            self.head.push(*byte);
            taken += 1;
            let [first, second, length @ ..] = &self.head[..] else { continue };
            let long = match second {
                0x80.. => return Err(odd("the server masks its frames")),
                126 => 2,
                127 => 8,
                _ => 0,
            };
            if length.len() < long {
                continue;
            }
            let mut number = [0; 8];
            number[8 - long..].copy_from_slice(length);
            self.left = if long == 0 { u64::from(*second) } else { u64::from_be_bytes(number) };
            self.opcode = first & 0x0f;
            self.head.clear();
            if self.opcode == CLOSE {
                return Err(odd("the server closed the WebSocket"));
            }
            if self.opcode >= CLOSE && self.left > 125 {
                return Err(odd("a control frame of more than 125 bytes"));
            }
            break;
        }
        Ok(taken)
    }
}

fn put_frame(opcode: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match bytes.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        middle @ 126..0x1_0000 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(bytes.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn odd(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests;
