//! Publishing connections: HTTP/1.1 by hand, so that the load costs less than what it loads.
//!
//! Invariants: requests are answered in order; an answer has a `content-length` and at most [`ANSWER_MAX`] bytes.
//! Must not know: what is published.

use std::{io, net::SocketAddr};

use clarion_client::BaseUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::BenchError;

/// Largest answer: a batch of 1,000.
const ANSWER_MAX: usize = 4 << 20;

/// The header lines that every request has.
#[derive(Debug)]
pub(super) struct HeadLines(String);

impl HeadLines {
    pub(super) fn new(url: &BaseUrl, key: Option<&str>) -> Self {
        let mut lines = format!("host: {}\r\n", url.authority());
        if let Some(key) = key {
            lines.push_str(&format!("authorization: Bearer {key}\r\n"));
        }
        Self(lines)
    }

    /// A whole GET request.
    pub(super) fn get(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\n{}accept: text/event-stream\r\n\r\n", self.0)
    }

    /// A POST request up to where the length stands.
    fn post(&self, path: &str) -> String {
        let lines = &self.0;
        format!("POST {path} HTTP/1.1\r\n{lines}content-type: application/json\r\ncontent-length: ")
    }
}

/// A keep-alive connection that posts to one path.
#[derive(Debug)]
pub(super) struct Poster {
    stream: TcpStream,
    head: String,
    out: Vec<u8>,
    input: Vec<u8>,
    start: usize,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) body: &'a [u8],
}

impl Answer<'_> {
    /// A refusal that trying again would not change ends the run.
    pub(super) fn fatal(&self) -> Result<(), BenchError> {
        if (400..500).contains(&self.status) {
            let body = String::from_utf8_lossy(self.body).into_owned();
            return Err(BenchError::Refused { status: self.status, body });
        }
        Ok(())
    }
}

impl Poster {
    pub(super) async fn connect(
        at: SocketAddr,
        lines: &HeadLines,
        path: &str,
    ) -> Result<Self, BenchError> {
        let stream = connect(at).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, head: lines.post(path), out: Vec::new(), input: Vec::new(), start: 0 })
    }

    /// Adds a request to what the next flush sends.
    pub(super) fn push(&mut self, body: &[u8]) {
        self.out.extend_from_slice(self.head.as_bytes());
        self.out.extend_from_slice(body.len().to_string().as_bytes());
        self.out.extend_from_slice(b"\r\n\r\n");
        self.out.extend_from_slice(body);
    }

    /// Sends what was pushed.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// The next answer.
    pub(super) async fn answer(&mut self) -> io::Result<Answer<'_>> {
        loop {
            if let Some((status, body)) = parse(&self.input[self.start..])? {
                let body = body.start + self.start..body.end + self.start;
                self.start = body.end;
                return Ok(Answer { status, body: &self.input[body] });
            }
            self.input.drain(..self.start);
            self.start = 0;
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// One request and its answer.
    pub(super) async fn exchange(&mut self, body: &[u8]) -> io::Result<Answer<'_>> {
        self.push(body);
        self.flush().await?;
        self.answer().await
    }
}

/// A connection; the likely reason for a failure under many is said.
pub(super) async fn connect(at: SocketAddr) -> Result<TcpStream, BenchError> {
    TcpStream::connect(at).await.map_err(|cause| match cause.raw_os_error() {
        Some(code) if code == rustix::io::Errno::MFILE.raw_os_error() => {
            BenchError::Other("too many open files: raise `ulimit -n`".into())
        }
        _ => BenchError::Unreachable { at: at.to_string(), cause },
    })
}

/// Status and place of the body, once all of an answer is there.
fn parse(input: &[u8]) -> io::Result<Option<(u16, std::ops::Range<usize>)>> {
    let odd = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
    let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") else {
        return if input.len() > 64 << 10 {
            odd("the answer's head is too large")
        } else {
            Ok(None)
        };
    };
    let Ok(head) = std::str::from_utf8(&input[..end]) else {
        return odd("the answer's head is no text");
    };
    let Some(status) = head.get(9..12).and_then(|s| s.parse().ok()) else {
        return odd("no status");
    };
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let Some(length) = length.or((status == 204).then_some(0)).filter(|n| *n <= ANSWER_MAX) else {
        return odd("no content-length, or a huge one");
    };
    let body = end + 4..end + 4 + length;
    Ok((input.len() >= body.end).then_some((status, body)))
}

#[cfg(test)]
mod tests;
