//! A gRPC client that may say anything: HTTP/2 streams with frames as they are, and connections that stop reading or die.
//!
//! Invariants: every wait has a deadline; a message is taken off its stream only when the test asks for it. Must not know:
//! services.

use crate::DEADLINE;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use std::{
    future::{Future, poll_fn},
    io,
    marker::PhantomData,
    net::SocketAddr,
    pin::Pin,
    task::Poll,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// Window of streams and connections, unless a test says otherwise.
const WINDOW: u32 = 1 << 20;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `grpc-status`; -1 when there was none, -2 when the stream was reset or its connection ended.
    pub code: i32,
    /// `grpc-message`, decoded.
    pub text: String,
    /// All headers or trailers.
    pub metadata: Box<HeaderMap>,
}

impl Status {
    fn broken(error: impl ToString) -> Self {
        Self { code: -2, text: error.to_string(), metadata: Box::default() }
    }

    fn of(metadata: HeaderMap) -> Self {
        let code = metadata.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
        let text = metadata.get("grpc-message").map(|text| percent_decoded(text.as_bytes()));
        Self { code: code.unwrap_or(-1), text: text.unwrap_or_default(), metadata: metadata.into() }
    }

    /// One of its metadata.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.metadata.get(name)?.to_str().ok()
    }
}

fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A message with what stands in front of it on a stream.
pub fn framed(message: &impl Message) -> Bytes {
    frame(0, &message.encode_to_vec())
}

/// A frame of these bytes with this flag.
pub fn frame(flag: u8, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(body.len() + 5);
    bytes.put_u8(flag);
    bytes.put_u32(u32::try_from(body.len()).expect("a short message"));
    bytes.put_slice(body);
    bytes.freeze()
}

/// How a connection is made.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Window of each stream and of the connection.
    pub window: u32,
    /// SO_RCVBUF.
    pub receive_buffer: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { window: WINDOW, receive_buffer: None }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Grpc {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<Result<(), h2::Error>>,
    reads: watch::Sender<bool>,
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Grpc {
    /// Connects.
    pub async fn open(at: SocketAddr) -> Self {
        Self::open_with(at, Setup::default()).await
    }

    /// Connects, with windows and buffers of its own.
    pub async fn open_with(at: SocketAddr, setup: Setup) -> Self {
        Self::try_open(at, setup).await.expect("a connection")
    }

    /// The same, of a server that may be away.
    pub async fn try_open(at: SocketAddr, setup: Setup) -> io::Result<Self> {
        let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = setup.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = timeout(DEADLINE, socket.connect(at)).await??;
        stream.set_nodelay(true)?;
        Self::over(stream, setup).await.map_err(io::Error::other)
    }

    async fn over(stream: TcpStream, setup: Setup) -> Result<Self, h2::Error> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(setup.window).initial_connection_window_size(setup.window);
        builder.max_frame_size(64 << 10).max_header_list_size(1 << 20);
        builder.initial_max_send_streams(100_000);
        let (sender, connection) = builder.handshake(stream).await?;
        let (reads, may_read) = watch::channel(true);
        let driver = tokio::spawn(drive(connection, may_read));
        Ok(Self { sender, driver, reads })
    }

    /// Stops reading the socket, or goes on.
    pub fn read(&self, on: bool) {
        self.reads.send_replace(on);
    }

    /// Ends without a word, as a process that is killed.
    pub async fn kill(mut self) {
        self.driver.abort();
        // The socket is closed when the task has gone.
        let _ = (&mut self.driver).await;
    }

    /// Waits for the end of the connection.
    pub async fn ended(mut self) -> Result<(), h2::Error> {
        let ended = timeout(DEADLINE, &mut self.driver).await.expect("the connection's end");
        ended.expect("not aborted")
    }

    /// Calls a unary method.
    pub async fn call<A: Message + Default>(
        &self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, Status> {
        self.call_with(path, &[], framed(request)).await
    }

    /// The same with metadata, and whatever bytes.
    pub async fn call_with<A: Message + Default>(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
        bytes: Bytes,
    ) -> Result<A, Status> {
        let mut call = self.start::<A>(path, metadata).await?;
        call.say_bytes(bytes);
        call.finish();
        let answer = call.next().await?;
        let answer = answer.ok_or_else(|| call.status.clone().expect("it has ended"))?;
        match call.next().await? {
            None => Ok(answer),
            Some(_) => panic!("{path} was answered twice"),
        }
    }

    /// Starts a call; nothing is said yet.
    pub async fn start<A>(
        &self,
        path: &str,
        metadata: &[(&str, &str)],
    ) -> Result<Streaming<A>, Status> {
        let mut request = Request::post(format!("http://test{path}"));
        if !metadata.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc").header("te", "trailers");
        }
        for (name, value) in metadata {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(Status::broken)?;
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(Status::broken)?;
        let ready = timeout(DEADLINE, self.sender.clone().ready()).await.expect("room for a call");
        let mut sender = ready.map_err(Status::broken)?;
        let (response, send) = sender.send_request(request, false).map_err(Status::broken)?;
        Ok(Streaming {
            send,
            response: Some(response),
            body: None,
            headers: HeaderMap::new(),
            buffer: BytesMut::new(),
            status: None,
            of: PhantomData,
        })
    }
}

/// Runs a connection; does not read while that is forbidden.
async fn drive(
    mut connection: h2::client::Connection<TcpStream, Bytes>,
    mut may_read: watch::Receiver<bool>,
) -> Result<(), h2::Error> {
    loop {
        let on = *may_read.borrow_and_update();
        let ended =
            poll_fn(
                |context| {
                    if on { Pin::new(&mut connection).poll(context) } else { Poll::Pending }
                },
            );
        tokio::select! {
            ended = ended => return ended,
            changed = may_read.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A call under way.
#[derive(Debug)]
pub struct Streaming<A> {
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
    headers: HeaderMap,
    buffer: BytesMut,
    status: Option<Status>,
    of: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Streaming<A> {
    /// Says a message.
    pub fn say(&mut self, message: &impl Message) {
        self.say_bytes(framed(message));
    }

    /// Says any bytes. What cannot be sent any more is lost: the stream's end tells.
    pub fn say_bytes(&mut self, bytes: Bytes) {
        let _ = self.send.send_data(bytes, false);
    }

    /// Half-closes.
    pub fn finish(&mut self) {
        let _ = self.send.send_data(Bytes::new(), true);
    }

    /// Resets the stream.
    pub fn reset(mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// The response's headers, once they are there.
    pub async fn headers(&mut self) -> Result<&HeaderMap, Status> {
        if let Some(response) = self.response.take() {
            let response = timeout(DEADLINE, response).await.expect("a response's headers");
            let (parts, body) = response.map_err(Status::broken)?.into_parts();
            if parts.status != 200 {
                let text = parts.status.to_string();
                return Err(Status { code: -1, text, metadata: parts.headers.into() });
            }
            (self.headers, self.body) = (parts.headers, Some(body));
        }
        Ok(&self.headers)
    }

    /// The next message; `None` when the call has ended with OK.
    pub async fn next(&mut self) -> Result<Option<A>, Status> {
        let next = timeout(DEADLINE, self.message()).await;
        next.unwrap_or_else(|_| panic!("nothing came; {} bytes of a message", self.buffer.len()))
    }

    /// The next message; panics at an end.
    pub async fn message_of(&mut self) -> A {
        self.next().await.expect("no end yet").expect("no OK yet")
    }

    /// The end; panics when a message comes before it.
    pub async fn end(&mut self) -> Status {
        match self.next().await {
            Ok(None) => self.status.clone().expect("it has ended"),
            Ok(Some(_)) => panic!("another message came, not the end"),
            Err(status) => status,
        }
    }

    async fn message(&mut self) -> Result<Option<A>, Status> {
        self.headers().await?;
        loop {
            if let Some(head) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.buffer.len() >= length + 5 {
                    self.buffer.advance(5);
                    let body = self.buffer.split_to(length);
                    return Ok(Some(A::decode(body).map_err(Status::broken)?));
                }
            }
            let body = self.body.as_mut().expect("headers came");
            match body.data().await {
                Some(Ok(part)) => {
                    // The connection may have gone; the next part tells.
                    let _ = body.flow_control().release_capacity(part.len());
                    self.buffer.extend_from_slice(&part);
                }
                Some(Err(error)) => return Err(Status::broken(error)),
                None => return self.over().await,
            }
        }
    }

    async fn over(&mut self) -> Result<Option<A>, Status> {
        assert!(self.buffer.is_empty(), "a message was cut: {:?}", self.buffer);
        let body = self.body.as_mut().expect("headers came");
        let trailers = body.trailers().await.map_err(Status::broken)?;
        let status = Status::of(trailers.unwrap_or_else(|| self.headers.clone()));
        self.status = Some(status.clone());
        if status.code == 0 { Ok(None) } else { Err(status) }
    }
}
