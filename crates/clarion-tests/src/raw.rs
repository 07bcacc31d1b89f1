//! A socket that may send anything, and a reader of HTTP answers that expects nothing. Invariant: every read has a deadline.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpStream},
};

use rustix::net::{self, AddressFamily, SocketType, sockopt};

use crate::DEADLINE;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, its coding taken off.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; panics when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{} is no JSON ({e}): {:?}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

/// Sends bytes on a new connection and reads one answer.
pub fn exchange(at: SocketAddr, request: &[u8]) -> io::Result<Answer> {
    let mut connection = Connection::open(at)?;
    connection.send(request)?;
    connection.answer()
}

/// A request with a body and the headers that every request has.
pub fn request(method: &str, target: &str, at: SocketAddr, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {at}\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A socket that holds little of what it does not read.
///
/// # Panics
///
/// When nobody accepts.
pub fn narrow(at: SocketAddr) -> TcpStream {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 4 << 10).expect("a buffer size");
    net::connect(&socket, &at).expect("the server accepts");
    socket.into()
}

impl Connection {
    /// Connects.
    pub fn open(at: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&at, DEADLINE)?;
        Self::from_stream(stream)
    }

    /// Takes a socket that is connected already.
    pub fn from_stream(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: Vec::new() })
    }

    /// Connects from an address of this machine.
    pub fn open_from(source: IpAddr, at: SocketAddr) -> io::Result<Self> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket(family, SocketType::STREAM, None)?;
        net::bind(&socket, &SocketAddr::new(source, 0))?;
        net::connect(&socket, &at)?;
        Self::from_stream(socket.into())
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends nothing more, still reads.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads one answer whole.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let chunked = answer.header("transfer-encoding").is_some_and(|v| v.contains("chunked"));
        let length = answer.header("content-length").and_then(|v| v.parse().ok());
        answer.body = match (chunked, length) {
            // It has no end; who wants it reads on.
            _ if answer.header("content-type") == Some("text/event-stream") => Vec::new(),
            (true, _) => self.chunks()?,
            (false, Some(length)) => self.take(length)?,
            (false, None) if matches!(answer.status, 204 | 304) => Vec::new(),
            (false, None) => self.rest()?,
        };
        Ok(answer)
    }

    /// Reads the head of an answer; the body is read by [`Self::until`] or [`Self::rest`].
    pub fn head(&mut self) -> io::Result<Answer> {
        let head = self.until(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head:?}")))?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Ok(Answer { status, headers: lines.filter_map(header).collect(), body: Vec::new() })
    }

    /// Reads one chunk of a chunked body; the last one is empty.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.until(b"\r\n")?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        Ok(chunk)
    }

    /// Reads up to and including this mark.
    pub fn until(&mut self, mark: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.input.windows(mark.len()).position(|w| w == mark) {
                return Ok(self.input.drain(..at + mark.len()).collect());
            }
            self.read_more()?;
        }
    }

    /// Reads to the end of the connection.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        match self.stream.read_to_end(&mut self.input) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(std::mem::take(&mut self.input)),
        }
    }

    /// Reads so many bytes.
    pub fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.input.len() < length {
            self.read_more()?;
        }
        Ok(self.input.drain(..length).collect())
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut part = [0; 16 << 10];
        match self.stream.read(&mut part)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.input.extend_from_slice(&part[..n]);
                Ok(())
            }
        }
    }
}
