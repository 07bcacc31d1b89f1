//! WebSocket frames, the server's side (RFC 6455), for a protocol of binary messages that does not care where one ends.
//!
//! Invariants: the bytes of a frame are passed on as they come, so nothing of a message is kept and a length is never more
//! than a number; of a control frame at most 125 bytes are. What the peer does wrong is answered by a close frame with its
//! code, and nothing is read after it. `open` answers at most as many bytes as it was given, and one close frame. Must not
//! know: the handshake (`mqtt::upgrade`), what the bytes mean.

use clarion_core::port::layer::{Layer, LayerError, Opened};

/// Frames' lengths up to here stand in the second byte.
const SHORT_MAX: usize = 125;
/// The second byte of a frame whose length follows in two bytes.
const LENGTH_16: u8 = 126;
/// The same with eight bytes.
const LENGTH_64: u8 = 127;
const MASK_BYTES: usize = 4;
const HEAD_BYTES_MAX: usize = 2 + 8 + MASK_BYTES;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Close codes (RFC 6455 §7.4.1).
const NORMAL: u16 = 1000;
const PROTOCOL_ERROR: u16 = 1002;
const UNSUPPORTED: u16 = 1003;
const INVALID_DATA: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// Why a connection cannot go on: the code of the close frame, and for people.
type Wrong = (u16, &'static str);

/// See the module.
#[derive(Debug)]
pub struct WebSocket {
    /// Longest message.
    message_bytes_max: u64,
    /// Bytes of the present message so far; its frames' announced ones count at once.
    message_bytes: u64,
    /// A message has begun and its last frame has not.
    in_message: bool,
    /// Whether a close frame was sent: nothing may follow it.
    closed: bool,
    /// The peer's close frame came: it sends nothing more.
    ended: bool,
    /// The head of the present frame, as far as it came.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Its body, once the head is whole.
    body: Option<Body>,
    /// What came of a control frame's body. Empty, without memory, between them.
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Body {
    opcode: u8,
    /// Bytes to come.
    left: u64,
    /// Turned so that its first byte is for the next one.
    mask: [u8; MASK_BYTES],
}

impl WebSocket {
    /// A connection whose handshake is done. A message with more bytes ends it.
    pub fn new(message_bytes_max: u64) -> Self {
        Self {
            message_bytes_max,
            message_bytes: 0,
            in_message: false,
            closed: false,
            ended: false,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            body: None,
            control: Vec::new(),
        }
    }

    fn run(
        &mut self,
        mut raw: &[u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<(), Wrong> {
        while !self.ended {
            match self.body {
                None if raw.is_empty() => break,
                None => raw = self.read_head(raw)?,
                // Also with nothing left: an empty frame has ended.
                Some(body) if body.left == 0 => self.end_frame(body.opcode, raw_out)?,
                Some(_) if raw.is_empty() => break,
                Some(body) => raw = self.read_body(body, raw, plain),
            }
        }
        Ok(())
    }

    /// Takes bytes of a head; checks what is there as soon as it is there.
    fn read_head<'a>(&mut self, raw: &'a [u8]) -> Result<&'a [u8], Wrong> {
        let have = usize::from(self.head_len);
        let wanted = if have < 2 { 2 } else { head_bytes(self.head[1]) };
        let (now, rest) = raw.split_at(raw.len().min(wanted - have));
        self.head[have..have + now.len()].copy_from_slice(now);
        self.head_len += now.len() as u8;
        let have = have + now.len();
        if have >= 2 {
            self.check_start()?;
        }
        if have >= 2 && have == head_bytes(self.head[1]) {
            self.end_head()?;
        }
        Ok(rest)
    }

    /// The first two bytes tell most of what can be wrong.
    fn check_start(&self) -> Result<(), Wrong> {
        let [first, second, ..] = self.head;
        let (opcode, fin) = (first & OPCODE, first & FIN != 0);
        let wrong = |what| Err((PROTOCOL_ERROR, what));
        if first & RESERVED != 0 {
            return wrong("a WebSocket frame has reserved bits");
        }
        if second & MASKED == 0 {
            return wrong("a client's WebSocket frame is not masked");
        }
        match opcode {
            CONTINUATION if !self.in_message => wrong("a WebSocket message begins in its middle"),
            TEXT | BINARY if self.in_message => wrong("a WebSocket message begins within another"),
            CONTINUATION | BINARY => Ok(()),
            TEXT => Err((UNSUPPORTED, "only binary WebSocket messages are taken")),
            CLOSE | PING | PONG if !fin => wrong("a WebSocket control frame is fragmented"),
            CLOSE | PING | PONG if usize::from(second & !MASKED) > SHORT_MAX => {
                wrong("a WebSocket control frame is too long")
            }
            CLOSE | PING | PONG => Ok(()),
            _ => wrong("a WebSocket frame has an unknown opcode"),
        }
    }

    fn end_head(&mut self) -> Result<(), Wrong> {
        let [first, second, lengths @ ..] = self.head;
        let (long, rest) = match second & !MASKED {
            LENGTH_16 => (u64::from(u16::from_be_bytes([lengths[0], lengths[1]])), &lengths[2..]),
            LENGTH_64 => {
                let [a, b, c, d, e, f, g, h, ..] = lengths;
                (u64::from_be_bytes([a, b, c, d, e, f, g, h]), &lengths[8..])
            }
            short => (u64::from(short), &lengths[..]),
        };
        let shortest = match second & !MASKED {
            LENGTH_16 => SHORT_MAX as u64 + 1,
            LENGTH_64 => u64::from(u16::MAX) + 1,
            _ => 0,
        };
        if long < shortest || long > u64::MAX >> 1 {
            return Err((PROTOCOL_ERROR, "a WebSocket frame's length is not in its shortest form"));
        }
        let opcode = first & OPCODE;
        if opcode < CLOSE {
            self.message_bytes = self.message_bytes.saturating_add(long);
            if self.message_bytes > self.message_bytes_max {
                return Err((TOO_BIG, "a WebSocket message is longer than the limit"));
            }
            self.in_message = first & FIN == 0;
        }
        let mask = [rest[0], rest[1], rest[2], rest[3]];
        self.body = Some(Body { opcode, left: long, mask });
        self.head_len = 0;
        Ok(())
    }

    fn read_body<'a>(&mut self, body: Body, raw: &'a [u8], plain: &mut Vec<u8>) -> &'a [u8] {
        let take = usize::try_from(body.left).unwrap_or(usize::MAX).min(raw.len());
        let (now, rest) = raw.split_at(take);
        let mut mask = body.mask;
        if body.opcode >= CLOSE {
            // At most 125 bytes altogether.
            unmask(now, mask, &mut self.control);
        } else if !self.closed {
            unmask(now, mask, plain);
        }
        mask.rotate_left(take % MASK_BYTES);
        self.body = Some(Body { left: body.left - take as u64, mask, ..body });
        rest
    }

    fn end_frame(&mut self, opcode: u8, raw_out: &mut Vec<u8>) -> Result<(), Wrong> {
        self.body = None;
        if opcode < CLOSE {
            if !self.in_message {
                self.message_bytes = 0;
            }
            return Ok(());
        }
        let control = std::mem::take(&mut self.control);
        match opcode {
            PING if !self.closed => push_frame(raw_out, PONG, &control),
            CLOSE => {
                self.ended = true;
                check_close(&control)?;
                if !self.closed {
                    self.closed = true;
                    push_frame(raw_out, CLOSE, control.get(..2).unwrap_or_default());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Layer for WebSocket {
    fn open(
        &mut self,
        raw: &[u8],
        plain: &mut Vec<u8>,
        raw_out: &mut Vec<u8>,
    ) -> Result<Opened, LayerError> {
        match self.run(raw, plain, raw_out) {
            Ok(()) if self.ended => Ok(Opened::End),
            Ok(()) => Ok(Opened::More),
            Err((code, what)) => {
                if !self.closed {
                    push_close(raw_out, code, what);
                }
                (self.closed, self.ended) = (true, true);
                Err(LayerError(what))
            }
        }
    }

    fn seal(&mut self, plain: &[u8], raw_out: &mut Vec<u8>) -> Result<(), LayerError> {
        if !self.closed && !plain.is_empty() {
            push_frame(raw_out, BINARY, plain);
        }
        Ok(())
    }

    fn close(&mut self, raw_out: &mut Vec<u8>) {
        if !self.closed {
            self.closed = true;
            push_close(raw_out, NORMAL, "");
        }
    }
}

/// Length of a head with this second byte.
fn head_bytes(second: u8) -> usize {
    let length = match second & !MASKED {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    2 + length + MASK_BYTES
}

/// Appends the bytes without their mask, eight at a time.
fn unmask(masked: &[u8], mask: [u8; MASK_BYTES], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(masked);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = out[start..].as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A server's frame: whole, without a mask.
fn push_frame(out: &mut Vec<u8>, opcode: u8, body: &[u8]) {
    out.push(FIN | opcode);
    if body.len() <= SHORT_MAX {
        out.push(body.len() as u8);
    } else if let Ok(length) = u16::try_from(body.len()) {
        out.push(LENGTH_16);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(LENGTH_64);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(body);
}

fn push_close(out: &mut Vec<u8>, code: u16, why: &str) {
    let mut body = code.to_be_bytes().to_vec();
    // Ours are short texts.
    body.extend_from_slice(why.as_bytes());
    push_frame(out, CLOSE, &body);
}

/// A peer's close frame: nothing, or a code that may stand there and a text (RFC 6455 §5.5.1, §7.4).
fn check_close(body: &[u8]) -> Result<(), Wrong> {
    let Some((code, why)) = body.split_first_chunk::<2>() else {
        return match body {
            [] => Ok(()),
            _ => Err((PROTOCOL_ERROR, "a WebSocket close frame has half a code")),
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1004 to 1006 are never sent; up to 1014 others are registered; 3000 and above are for libraries and applications.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err((PROTOCOL_ERROR, "a WebSocket close frame has a code that is none"));
    }
    match std::str::from_utf8(why) {
        Ok(_) => Ok(()),
        Err(_) => Err((INVALID_DATA, "a WebSocket close frame's text is not UTF-8")),
    }
}

#[cfg(test)]
mod tests;
