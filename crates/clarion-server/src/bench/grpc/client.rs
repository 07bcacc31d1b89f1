//! Connections that speak gRPC over HTTP/2: h2 itself, without a channel, a codec or a task per call on top.
//!
//! Invariants: a call's answer is whole or an error; what a stream has read is given back to its window at once.
//! Must not know: which methods there are.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::{HeaderMap, Request, Response};
use prost::Message;

use super::{
    super::{BenchError, http::connect},
    framing::{Frames, put_frame},
};

/// What the server may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Largest unary answer.
const ANSWER_MAX: usize = 16 << 20;

/// A method, as every request for it begins.
#[derive(Debug, Clone)]
pub(super) struct Method(Request<()>);

impl Method {
    /// `path` is `/package.Service/Method`.
    pub(super) fn new(authority: &str, path: &str, key: Option<&str>) -> Result<Self, BenchError> {
        let mut request = Request::post(format!("http://{authority}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.body(());
        Ok(Self(request.map_err(|e| BenchError::Other(format!("the address or key: {e}")))?))
    }

    /// The same with metadata.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Result<Self, BenchError> {
        let value =
            value.parse().map_err(|_| BenchError::Other(format!("`{value}`: no metadata")))?;
        self.0.headers_mut().insert(name, value);
        Ok(self)
    }
}

/// One end of a connection; its clones share it.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    send: SendRequest<Bytes>,
    out: BytesMut,
}

impl Connection {
    pub(super) async fn open(at: SocketAddr) -> Result<Self, BenchError> {
        let stream = connect(at).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false);
        let (send, connection) = builder.handshake(stream).await.map_err(broken)?;
        // It drives all streams; how it ended, each of them learns.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self { send, out: BytesMut::new() })
    }

    /// Several of them.
    pub(super) async fn open_many(at: SocketAddr, count: u64) -> Result<Vec<Self>, BenchError> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Self::open(at).await?);
        }
        Ok(connections)
    }

    async fn begin(
        &mut self,
        method: &Method,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), BenchError> {
        poll_fn(|context| self.send.poll_ready(context)).await.map_err(broken)?;
        self.send.send_request(method.0.clone(), false).map_err(broken)
    }

    /// One unary call.
    pub(super) async fn call(
        &mut self,
        method: &Method,
        message: &impl Message,
    ) -> Result<Bytes, BenchError> {
        let (response, mut out) = self.begin(method).await?;
        put_frame(&mut self.out, message);
        out.send_data(self.out.split().freeze(), true).map_err(broken)?;
        let mut body = started(response.await.map_err(broken)?)?;
        let mut answer = Bytes::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(broken)?;
            let _ = body.flow_control().release_capacity(data.len());
            if answer.is_empty() {
                answer = data;
            } else if answer.len() + data.len() > ANSWER_MAX {
                return Err(odd("the answer is too long"));
            } else {
                answer = [answer, data].concat().into();
            }
        }
        let trailers = body.trailers().await.map_err(broken)?;
        told(trailers.as_ref())?;
        Frames::only(answer).map_err(Into::into)
    }

    /// Opens a stream with a first message; waits for the response's head.
    pub(super) async fn stream(
        &mut self,
        method: &Method,
        first: Option<&impl Message>,
        half_close: bool,
    ) -> Result<(Say, Hear), BenchError> {
        let (response, stream) = self.begin(method).await?;
        let mut say = Say { stream, out: BytesMut::new() };
        if let Some(first) = first {
            put_frame(&mut say.out, first);
            say.stream.send_data(say.out.split().freeze(), half_close).map_err(broken)?;
        }
        let body = started(response.await.map_err(broken)?)?;
        Ok((say, Hear { body, frames: Frames::default() }))
    }
}

/// The client's half of a stream.
#[derive(Debug)]
pub(super) struct Say {
    stream: SendStream<Bytes>,
    out: BytesMut,
}

impl Say {
    /// Adds a message to what the next flush sends.
    pub(super) fn push(&mut self, message: &impl Message) {
        put_frame(&mut self.out, message);
    }

    /// Hands what was pushed to the connection.
    pub(super) fn flush(&mut self) -> Result<(), BenchError> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.send_data(self.out.split().freeze(), false).map_err(broken)
    }
}

/// The server's half of a stream.
#[derive(Debug)]
pub(super) struct Hear {
    body: RecvStream,
    frames: Frames,
}

impl Hear {
    /// Waits for data and hands out each message that is whole; there may be none. `false` = the stream ended well.
    pub(super) async fn pump(
        &mut self,
        message: &mut impl FnMut(&[u8]),
    ) -> Result<bool, BenchError> {
        if poll_fn(|context| self.poll_pump(context, message)).await? {
            return Ok(true);
        }
        let trailers = self.body.trailers().await.map_err(broken)?;
        told(trailers.as_ref()).map(|()| false)
    }

    /// All data that is there; waits only while there is none.
    fn poll_pump(
        &mut self,
        context: &mut Context<'_>,
        message: &mut impl FnMut(&[u8]),
    ) -> Poll<Result<bool, BenchError>> {
        let mut taken = false;
        loop {
            let data = match self.body.poll_data(context) {
                Poll::Pending if taken => return Poll::Ready(Ok(true)),
                other => ready!(other),
            };
            let Some(data) = data else { return Poll::Ready(Ok(taken)) };
            let data = data.map_err(broken)?;
            let _ = self.body.flow_control().release_capacity(data.len());
            self.frames.feed(&data, message)?;
            taken = true;
        }
    }
}

fn broken(error: h2::Error) -> BenchError {
    match error.into_io() {
        Some(error) => error.into(),
        None => odd("the HTTP/2 connection or stream was ended"),
    }
}

fn odd(text: &'static str) -> BenchError {
    io::Error::new(io::ErrorKind::InvalidData, text).into()
}

/// The body of a response that is none of trailers only.
fn started(response: Response<RecvStream>) -> Result<RecvStream, BenchError> {
    if response.status() != http::StatusCode::OK {
        let status = response.status().as_u16();
        return Err(BenchError::Refused { status, body: "no gRPC".into() });
    }
    if response.headers().contains_key("grpc-status") {
        told(Some(response.headers()))?;
    }
    Ok(response.into_body())
}

/// What a call's trailers say of it.
fn told(trailers: Option<&HeaderMap>) -> Result<(), BenchError> {
    let value = |name| trailers.and_then(|trailers| trailers.get(name)?.to_str().ok());
    match value("grpc-status") {
        Some("0") => Ok(()),
        Some(code) => Err(BenchError::Grpc {
            code: code.parse().unwrap_or(2),
            detail: value("grpc-message").unwrap_or_default().to_owned(),
        }),
        None => Err(odd("the call ended without a status")),
    }
}

#[cfg(test)]
mod tests;
