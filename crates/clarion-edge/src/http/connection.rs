//! One HTTP/1.1 connection: hyper, its deadlines, and the moment when a stream takes the connection over.
//!
//! Invariants: one timer per connection, re-armed lazily; a head has `head_timeout` from its first byte, an idle
//! connection `idle_timeout`; a request under way has the deadlines of its handler. A stream leaves hyper while its
//! request is pending: what a client pipelined behind it is dropped with hyper's half. When the listener stops, a
//! connection without a request under way ends at once.

use super::outlet::SseOutlet;
use super::problem::raw_response;
use super::router::App;
use crate::accept::drain;
use crate::stop::{Stop, reached};
use axum::Router;
use axum::body::Body;
use clarion_core::Code;
use clarion_node::{AttachPlan, Link};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, timeout};
use tower::Service as _;

/// How long a connection that was answered for good may take to end from its other side.
const LINGER_TIME: Duration = Duration::from_secs(5);
/// Most bytes that hyper reads ahead on a connection.
const READ_BUFFER_MAX: usize = 64 << 10;

/// A stream that takes over the connection of its request.
pub(super) struct Detach {
    pub(super) plan: AttachPlan,
    pub(super) outlet: Box<SseOutlet>,
    pub(super) place: OwnedSemaphorePermit,
}

/// What a connection's task, its socket and its requests share.
#[derive(Default)]
struct Shared {
    /// Bytes came since the last request began.
    head_began: AtomicBool,
    /// A request began at some time.
    requested: AtomicBool,
    /// Requests and streamed bodies under way.
    busy: AtomicU32,
    detach: Mutex<Option<Detach>>,
}

/// A request's way to its connection.
#[derive(Clone)]
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    /// Asks the connection's task to give the connection to this stream.
    pub(super) fn detach(&self, detach: Detach) {
        *self.0.detach.lock().unwrap_or_else(PoisonError::into_inner) = Some(detach);
    }

    /// A body that is streamed: no deadline while it lasts.
    pub(super) fn streaming(&self) -> Streaming {
        self.0.busy.fetch_add(1, Relaxed);
        Streaming(self.0.clone())
    }
}

/// While it lives the connection is busy.
pub(super) struct Streaming(Arc<Shared>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

/// The socket; notes when bytes come, and gives hyper's own refusals the body that every refusal has.
struct Socket {
    stream: TcpStream,
    /// What was read of it already.
    head: Vec<u8>,
    shared: Arc<Shared>,
}

impl Socket {
    /// Writes a refusal in place of one that hyper made of a request that it could not read.
    fn refuse_instead(&self, bytes: &[u8]) -> Option<io::Result<usize>> {
        let code = unread_request(bytes)?;
        // The connection ends with it, so its buffer has room or its peer is not reading.
        let _ = self.stream.try_write(&raw_response(code));
        Some(Ok(bytes.len()))
    }
}

/// What hyper refuses, if this is its refusal: unlike ours it has no body.
fn unread_request(bytes: &[u8]) -> Option<Code> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    if head.contains("\r\ncontent-type:") || !head.contains("\r\ncontent-length: 0") {
        return None;
    }
    match status {
        b"00" => Some(Code::BadRequest),
        b"14" | b"31" => Some(Code::HeadTooLarge),
        _ => None,
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if !self.head.is_empty() {
            let length = self.head.len().min(buffer.remaining());
            buffer.put_slice(&self.head[..length]);
            self.head.drain(..length);
            if self.head.is_empty() {
                // It may have been a long one.
                self.head = Vec::new();
            }
        }
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() == before {
            return read;
        }
        self.shared.head_began.store(true, Relaxed);
        // Something came, whatever there is of more.
        match read {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.refuse_instead(bytes) {
            Some(refused) => Poll::Ready(refused),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [slice] => self.poll_write(context, slice),
            slices => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        }
    }
}

/// The router behind one connection.
struct Routed {
    router: Router,
    shared: Arc<Shared>,
}

impl Service<Request<Incoming>> for Routed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let streaming = Handle(self.shared.clone()).streaming();
        self.shared.requested.store(true, Relaxed);
        self.shared.head_began.store(false, Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Handle(self.shared.clone()));
        let answer = self.router.clone().call(request);
        let shared = self.shared.clone();
        Box::pin(async move {
            let response = answer.await;
            // What came meanwhile was the request's body, not the next head.
            shared.head_began.store(false, Relaxed);
            drop(streaming);
            response
        })
    }
}

/// How hyper's part of a connection ended.
enum End {
    Done,
    Stream(Detach),
    Timeout { head: bool },
}

/// The one timer of a connection.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
    /// When the present state began.
    since: Instant,
    state: Option<bool>,
}

impl Deadline {
    /// Whether the present state (`None`: a request under way; `Some(true)`: a head arrives; `Some(false)`: idle) has
    /// lasted too long.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        state: Option<bool>,
        limits: [Duration; 2],
    ) -> bool {
        if state != self.state {
            self.state = state;
            self.since = Instant::now();
        }
        let Some(head) = state else { return false };
        let due = self.since + limits[usize::from(head)];
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
        while self.sleep.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return true;
            }
            self.sleep.as_mut().reset(due);
        }
        false
    }
}

/// A connection, and what was read of it to tell what it speaks.
pub(super) struct Begun {
    pub(super) stream: TcpStream,
    pub(super) head: Vec<u8>,
    /// When it was accepted.
    pub(super) at: Instant,
}

/// Serves a connection to its end.
pub(super) async fn run(
    app: Arc<App>,
    router: Router,
    begun: Begun,
    place: OwnedSemaphorePermit,
    shutdown: watch::Receiver<Stop>,
) {
    let Begun { stream, head, at } = begun;
    let shared = Arc::new(Shared::default());
    let limits = [app.config.idle_timeout, app.config.head_timeout];
    let socket = TokioIo::new(Socket { stream, head, shared: shared.clone() });
    let connection = http1::Builder::new()
        .max_header_size(app.config.head_bytes)
        .max_buf_size(READ_BUFFER_MAX.max(app.config.head_bytes))
        .half_close(false)
        .serve_connection(socket, Routed { router, shared: shared.clone() });
    let mut connection = Box::new(connection);
    let mut deadline = Deadline {
        sleep: Box::pin(tokio::time::sleep_until(at + limits[1])),
        since: at,
        state: Some(true),
    };
    let mut stopping = pin!(reached(shutdown, Stop::Finish));
    let mut stopped = false;
    let end = poll_fn(|context| {
        if !stopped && stopping.as_mut().poll(context).is_ready() {
            stopped = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
        // Hyper tells the peer what was wrong with its request; there is nothing to add.
        if Pin::new(&mut *connection).poll(context).is_ready() {
            return Poll::Ready(End::Done);
        }
        if let Some(detach) = shared.detach.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Poll::Ready(End::Stream(detach));
        }
        let busy = shared.busy.load(Relaxed) > 0;
        let first_request = !shared.requested.load(Relaxed);
        // Hyper ends one that is idle after an answer and, once its answer is sent, one that is not; it would wait for
        // a first head.
        if stopped && first_request {
            return Poll::Ready(End::Done);
        }
        // A new connection owes its first head at once.
        let state = (!busy).then(|| first_request || shared.head_began.load(Relaxed));
        if deadline.poll(context, state, limits) {
            return Poll::Ready(End::Timeout { head: shared.head_began.load(Relaxed) });
        }
        Poll::Pending
    })
    .await;
    match end {
        End::Timeout { head: false } => {}
        // A peer that still sends what was refused could not read why if the socket were closed with bytes unread.
        End::Done if !stopped => {
            let stream = connection.into_parts().io.into_inner().stream;
            tokio::select! {
                _ = timeout(LINGER_TIME, drain(&stream)) => {}
                () = stopping => {}
            }
        }
        End::Done => {}
        End::Timeout { head: true } => {
            let stream = connection.into_parts().io.into_inner().stream;
            // The socket's buffer is empty: nothing was answered since the head began.
            let _ = stream.try_write(&raw_response(Code::RequestTimeout));
        }
        End::Stream(detach) => {
            let stream = connection.into_parts().io.into_inner().stream;
            let Detach { plan, outlet, place: stream_place } = detach;
            give_to_shard(&app, plan, outlet, stream, (place, stream_place)).await;
        }
    }
}

async fn give_to_shard(
    app: &App,
    plan: AttachPlan,
    outlet: Box<SseOutlet>,
    stream: TcpStream,
    places: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) {
    let (stream, spare) = match stream.into_std().and_then(|s| Ok((s.try_clone()?, s))) {
        Ok(pair) => pair,
        Err(error) => return tracing::debug!(%error, "a stream's connection could not be taken"),
    };
    if let Err(refusal) =
        app.node.attach(plan, outlet, Link::Tcp(stream, None), Box::new(places)).await
    {
        // The shard wrote nothing: the client still waits for a head.
        let _ = io::Write::write(&mut &spare, &raw_response(refusal.code));
    }
}
