//! gRPC clients whose messages are bytes: what is sent is exactly what a test says, and what came is exactly what it
//! sees. Invariants: one connection each, with windows of 64 KiB; a connection can be broken off. Must not know: what the
//! bytes mean.

use std::{
    future::Future,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BufMut, Bytes};
use hyper::{Request, Response, body::Incoming, client::conn::http2, http::uri::PathAndQuery};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, task::AbortHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request as Call, Status, Streaming,
    body::Body,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// What HTTP/2 clients grant unless they are told otherwise.
const WINDOW_BYTES: u32 = 65_535;
/// Messages that may wait to be sent on a stream.
const SENDING_MAX: usize = 4096;

/// Messages are bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}

/// One HTTP/2 connection as tonic wants it.
#[derive(Debug, Clone)]
struct Sender(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A client with a connection of its own.
#[derive(Debug, Clone)]
pub struct GrpcClient {
    grpc: Grpc<Sender>,
    driver: AbortHandle,
    /// The same socket: streams keep the connection's own task alive.
    socket: Arc<std::net::TcpStream>,
}

/// A stream of messages both ways; dropping it cancels the call.
#[derive(Debug)]
pub struct GrpcStream {
    /// What is sent; `None` after a half-close.
    sender: Option<mpsc::Sender<Bytes>>,
    received: Streaming<Bytes>,
}

/// What a stream's sending half does once its receiving half is read elsewhere.
#[derive(Debug)]
pub struct StreamSender(Option<mpsc::Sender<Bytes>>);

impl StreamSender {
    /// Sends a message; `false` when the stream has ended.
    pub async fn send(&self, message: Bytes) -> bool {
        let Some(sender) = &self.0 else { return false };
        sender.send(message).await.is_ok()
    }

    /// Sends nothing more.
    pub fn half_close(&mut self) {
        self.0 = None;
    }
}

impl GrpcClient {
    /// Connects.
    pub async fn open(at: SocketAddr) -> Self {
        let socket = TcpStream::connect(at).await.expect("the listener accepts");
        socket.set_nodelay(true).expect("a socket");
        let socket = socket.into_std().expect("a socket");
        let twin = Arc::new(socket.try_clone().expect("a socket"));
        let socket = TcpStream::from_std(socket).expect("a socket");
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(WINDOW_BYTES);
        builder.initial_connection_window_size(WINDOW_BYTES);
        let (sender, connection) =
            builder.handshake(TokioIo::new(socket)).await.expect("it speaks HTTP/2");
        let driver = tokio::spawn(async move {
            // How a connection ends is seen by its calls.
            let _ = connection.await;
        });
        let origin = format!("http://{at}").parse().expect("an address makes a URI");
        let grpc = Grpc::with_origin(Sender(sender), origin);
        Self { grpc, driver: driver.abort_handle(), socket: twin }
    }

    /// The same connection, taking messages of any size if so wanted; else those of up to 4 MiB, as most clients do.
    #[must_use]
    pub fn unlimited_if(self, unlimited: bool) -> Self {
        let max = if unlimited { usize::MAX } else { 4 << 20 };
        Self { grpc: self.grpc.max_decoding_message_size(max), ..self }
    }

    /// The same connection, its messages compressed.
    #[must_use]
    pub fn gzip(self) -> Self {
        Self { grpc: self.grpc.send_compressed(CompressionEncoding::Gzip), ..self }
    }

    /// Ends the connection without a word, as a process that dies.
    pub fn break_off(&self) {
        // It may be broken already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// A status as gRPC clients report it: what a broken connection ends is UNAVAILABLE.
    fn told(&self, status: Status) -> Status {
        let transport = std::error::Error::source(&status).is_some();
        if transport || (self.driver.is_finished() && status.code() == Code::Unknown) {
            return Status::unavailable(format!("{status}"));
        }
        status
    }

    /// A call with one message and one answer.
    pub async fn unary(&self, path: &str, message: Bytes) -> Result<Bytes, Status> {
        self.unary_with(path, message, &[]).await
    }

    /// The same with metadata.
    pub async fn unary_with(
        &self,
        path: &str,
        message: Bytes,
        metadata: &[(String, String)],
    ) -> Result<Bytes, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let answer = grpc.unary(call(message, metadata), path_of(path), Raw).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.told(status))
    }

    /// A stream both ways.
    pub async fn stream(
        &self,
        path: &str,
        metadata: &[(String, String)],
    ) -> Result<GrpcStream, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let (sender, receiver) = mpsc::channel(SENDING_MAX);
        let request = call(ReceiverStream::new(receiver), metadata);
        let response = grpc.streaming(request, path_of(path), Raw).await;
        let received = response.map_err(|status| self.told(status))?.into_inner();
        Ok(GrpcStream { sender: Some(sender), received })
    }

    /// A stream that answers one message.
    pub async fn server_stream(
        &self,
        path: &str,
        message: Bytes,
        metadata: &[(String, String)],
    ) -> Result<GrpcStream, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let response = grpc.server_streaming(call(message, metadata), path_of(path), Raw).await;
        let received = response.map_err(|status| self.told(status))?.into_inner();
        Ok(GrpcStream { sender: None, received })
    }
}

impl GrpcStream {
    /// Sends a message; `false` when the stream has ended.
    pub async fn send(&self, message: Bytes) -> bool {
        let Some(sender) = &self.sender else { return false };
        sender.send(message).await.is_ok()
    }

    /// Sends nothing more.
    pub fn half_close(&mut self) {
        self.sender = None;
    }

    /// The next message; the status when the stream has ended.
    pub async fn next(&mut self) -> Result<Bytes, Status> {
        match self.received.message().await {
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(Status::ok("")),
            Err(status) if std::error::Error::source(&status).is_some() => {
                Err(Status::unavailable(format!("{status}")))
            }
            Err(status) => Err(status),
        }
    }

    /// The two halves apart; what is left of this one reads.
    #[must_use]
    pub fn split(mut self) -> (StreamSender, Self) {
        (StreamSender(self.sender.take()), self)
    }
}

fn path_of(path: &str) -> PathAndQuery {
    path.parse().expect("a path")
}

fn call<T>(message: T, metadata: &[(String, String)]) -> Call<T> {
    let mut call = Call::new(message);
    for (name, value) in metadata {
        let name: tonic::metadata::AsciiMetadataKey = name.parse().expect("a metadata key");
        call.metadata_mut().append(name, value.parse().expect("a metadata value"));
    }
    call
}
