//! Reading streams: a socket, and a scanner that hands out each event's bytes without copying most of them. One buffer
//! serves all streams of the thread, so ten thousand of them cost little.
//!
//! Invariants: the events do not depend on how the bytes were cut; an unfinished event has at most [`EVENT_MAX`] bytes.
//! It reads what Clarion writes (events end with two line feeds), which the client's own parser does not rely on.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpSocket, TcpStream},
};

use super::{
    BenchError,
    http::{HeadLines, connect},
};

/// Largest event.
const EVENT_MAX: usize = 16 << 20;
/// The shared buffer.
const READ_BYTES: usize = 64 << 10;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// One stream whose head was read.
#[derive(Debug)]
pub(super) struct SseConn {
    stream: TcpStream,
    scanner: Scanner,
    early: Vec<u8>,
}

impl SseConn {
    /// Asks for a stream and waits until the server took it.
    pub(super) async fn open(
        at: SocketAddr,
        lines: &HeadLines,
        target: &str,
    ) -> Result<Self, BenchError> {
        Self::start(connect(at).await?, lines, target).await
    }

    /// The same with a receive buffer that the kernel keeps small.
    pub(super) async fn open_small(
        at: SocketAddr,
        lines: &HeadLines,
        target: &str,
        receive_buffer: u32,
    ) -> Result<Self, BenchError> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_recv_buffer_size(receive_buffer)?;
        Self::start(socket.connect(at).await?, lines, target).await
    }

    async fn start(
        mut stream: TcpStream,
        lines: &HeadLines,
        target: &str,
    ) -> Result<Self, BenchError> {
        stream.write_all(lines.get(target).as_bytes()).await?;
        let mut head = Vec::with_capacity(512);
        let end = loop {
            if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
                break end;
            }
            if head.len() > 64 << 10 || stream.read_buf(&mut head).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        let early = head.split_off(end + 4);
        let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let status = text.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
        if status != 200 {
            let body = String::from_utf8_lossy(&early).into_owned();
            return Err(BenchError::Refused { status, body });
        }
        let chunked =
            text.lines().any(|l| l.starts_with("transfer-encoding:") && l.contains("chunked"));
        Ok(Self { stream, scanner: Scanner::new(chunked), early })
    }

    /// Waits for bytes and hands out the events that they complete; there may be none.
    pub(super) async fn pump(&mut self, event: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            return self.scanner.feed(&early, event);
        }
        poll_fn(|cx| self.poll_pump(cx, event)).await
    }

    fn poll_pump(
        &mut self,
        cx: &mut Context<'_>,
        event: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        SHARED.with_borrow_mut(|shared| {
            let mut buffer = ReadBuf::new(shared);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(self.scanner.feed(buffer.filled(), event))
        })
    }
}

/// The `id` of an event, if it has one.
pub(super) fn id_of(event: &[u8]) -> Option<&[u8]> {
    let line = event.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"id:"))?;
    Some(line.strip_prefix(b" ").unwrap_or(line))
}

/// Cuts a body into events, taking off the chunked coding if there is one.
#[derive(Debug)]
struct Scanner {
    chunked: Option<Chunk>,
    tail: Vec<u8>,
}

/// Where in the chunked coding it stands.
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Size(usize),
    Extension(usize),
    Data(usize),
}

impl Scanner {
    fn new(chunked: bool) -> Self {
        Self { chunked: chunked.then_some(Chunk::Size(0)), tail: Vec::new() }
    }

    fn feed(&mut self, mut bytes: &[u8], event: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let Some(mut chunk) = self.chunked else { return self.body(bytes, event) };
        while let Some((&first, rest)) = bytes.split_first() {
            match chunk {
                // The line end before a size belongs to the chunk before.
                Chunk::Size(n) => {
                    bytes = rest;
                    chunk = match (char::from(first).to_digit(16), first) {
                        (Some(digit), _) if n < EVENT_MAX => Chunk::Size(n << 4 | digit as usize),
                        (None, b'\n') if n > 0 => Chunk::Data(n),
                        (None, b'\r' | b'\n') => Chunk::Size(n),
                        (None, b';') => Chunk::Extension(n),
                        _ => {
                            return Err(io::Error::new(
                                io::ErrorKind::InvalidData,
                                "no chunk size",
                            ));
                        }
                    };
                }
                Chunk::Extension(n) => {
                    bytes = rest;
                    chunk = if first == b'\n' { Chunk::Data(n) } else { chunk };
                }
                Chunk::Data(n) => {
                    let (data, rest) = bytes.split_at(n.min(bytes.len()));
                    bytes = rest;
                    self.body(data, event)?;
                    chunk =
                        if data.len() == n { Chunk::Size(0) } else { Chunk::Data(n - data.len()) };
                }
            }
        }
        self.chunked = Some(chunk);
        Ok(())
    }

    fn body(&mut self, mut bytes: &[u8], event: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if !self.tail.is_empty() {
            if self.tail.ends_with(b"\n") && bytes.first() == Some(&b'\n') {
                self.tail.pop();
                bytes = &bytes[1..];
            } else if let Some(end) = end_of_event(bytes) {
                self.tail.extend_from_slice(&bytes[..end]);
                bytes = &bytes[end + 2..];
            } else {
                return self.keep(bytes);
            }
            event(&self.tail);
            self.tail.clear();
        }
        while let Some(end) = end_of_event(bytes) {
            event(&bytes[..end]);
            bytes = &bytes[end + 2..];
        }
        self.keep(bytes)
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.tail.len() + bytes.len() > EVENT_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an event is too large"));
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }
}

/// Where the two line feeds stand that end the first event.
fn end_of_event(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find(|i| bytes.get(i + 1) == Some(&b'\n'))
}

#[cfg(test)]
mod tests;
