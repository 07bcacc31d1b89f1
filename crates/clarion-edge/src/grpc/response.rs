//! Responses: one message, or frames that shards write into pipes; and the status behind them.
//!
//! Invariants: a stream's headers go at once; its status is the first that was set, whoever set it; when the client's
//! side ends, the pipes learn whether the connection broke. Must not know: what a frame says.

use super::socket::Broken;
use bytes::{BufMut, Bytes, BytesMut};
use clarion_node::{End, PipeReader};
use clarion_wire::grpc::FRAME_HEAD_BYTES;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The trailers of a call that went well.
fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(STATUS, HeaderValue::from_static("0"));
    trailers
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The answer to a unary call.
pub(super) fn one_message(message: &impl Message) -> Response<Body> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(FRAME_HEAD_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    // There is room for it.
    let _ = message.encode(&mut bytes);
    response(Body::new(One { message: Some(bytes.freeze()), ended: false }))
}

/// One frame, then the trailers.
struct One {
    message: Option<Bytes>,
    ended: bool,
}

impl HttpBody for One {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
    }
}

/// A stream's status: the first that is set counts. The body waits for it while anybody may still set it, since a pipe
/// can end a moment before.
pub(crate) struct Ending(Arc<EndingShared>);

struct EndingShared {
    inner: Mutex<EndingInner>,
}

struct EndingInner {
    status: Option<Status>,
    /// Handles that may set it.
    holders: usize,
    body: Option<Waker>,
}

impl EndingShared {
    fn lock(&self) -> MutexGuard<'_, EndingInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trailers, once the status is set or nobody is left to set it.
    fn poll_trailers(&self, context: &Context<'_>) -> Poll<HeaderMap> {
        let mut inner = self.lock();
        let status = match inner.status.take() {
            Some(status) => status,
            None if inner.holders == 0 => Status::unavailable("the stream was ended"),
            None => {
                inner.body = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        let mut trailers = HeaderMap::new();
        Poll::Ready(match status.add_header(&mut trailers) {
            Ok(()) => trailers,
            Err(_) => ok_trailers(),
        })
    }
}

impl Ending {
    fn new() -> Self {
        let inner = EndingInner { status: None, holders: 1, body: None };
        Self(Arc::new(EndingShared { inner: Mutex::new(inner) }))
    }

    /// Ends the stream with this, once its pipe has ended.
    pub(crate) fn set(&self, status: Status) {
        let mut inner = self.0.lock();
        inner.status.get_or_insert(status);
        let body = inner.body.take();
        drop(inner);
        if let Some(body) = body {
            body.wake();
        }
    }
}

impl Clone for Ending {
    fn clone(&self) -> Self {
        self.0.lock().holders += 1;
        Self(self.0.clone())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.holders -= 1;
        let body = if inner.holders == 0 { inner.body.take() } else { None };
        drop(inner);
        if let Some(body) = body {
            body.wake();
        }
    }
}

/// A stream's body: what comes out of its pipes, frame by frame, then its status.
pub(crate) struct GrpcBody {
    pipes: Pipes,
    /// The pipes have ended; only the status is missing.
    drained: bool,
    ending: Arc<EndingShared>,
    broken: Broken,
    ended: bool,
    /// Tells whoever reads the requests that the response has ended.
    _alive: oneshot::Sender<()>,
}

impl GrpcBody {
    /// A body of these pipes; the receiver resolves (with an error) when it has ended.
    pub(crate) fn new(
        pipes: Vec<PipeReader>,
        broken: Broken,
    ) -> (Self, Ending, oneshot::Receiver<()>) {
        let (alive, gone) = oneshot::channel();
        let ending = Ending::new();
        let body = Self {
            pipes: Pipes { pipes, at: 0, frame: FrameState::default() },
            drained: false,
            ending: ending.0.clone(),
            broken,
            ended: false,
            _alive: alive,
        };
        (body, ending, gone)
    }
}

impl HttpBody for GrpcBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.drained {
            match std::task::ready!(self.pipes.poll_part(context)) {
                Some(part) => return Poll::Ready(Some(Ok(Frame::data(part)))),
                None => self.drained = true,
            }
        }
        let trailers = std::task::ready!(self.ending.poll_trailers(context));
        self.ended = true;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Drop for GrpcBody {
    fn drop(&mut self) {
        let how = if self.broken.get() && !self.ended { End::Broken } else { End::Whole };
        self.pipes.pipes.iter().for_each(|pipe| pipe.end(how));
    }
}

/// One pipe for each shard that writes into the stream; the parts of one are never put into a frame of another.
struct Pipes {
    pipes: Vec<PipeReader>,
    at: usize,
    frame: FrameState,
}

impl Pipes {
    /// The next part; `None` when one of the pipes has ended.
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let count = self.pipes.len();
        let tried = if self.frame.is_between() { count } else { 1 };
        for i in 0..tried {
            let at = (self.at + i) % count;
            if let Poll::Ready(part) = self.pipes[at].poll_part(context) {
                if let Some(part) = part.as_ref().filter(|_| count > 1) {
                    self.frame.pass(part);
                    self.at = if self.frame.is_between() { (at + 1) % count } else { at };
                }
                return Poll::Ready(part);
            }
        }
        Poll::Pending
    }
}

/// Where in a frame a stream of bytes is.
#[derive(Debug, Default)]
struct FrameState {
    head: [u8; FRAME_HEAD_BYTES],
    head_seen: usize,
    body_left: usize,
}

impl FrameState {
    fn is_between(&self) -> bool {
        self.head_seen == 0 && self.body_left == 0
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let passed = self.body_left.min(bytes.len());
                self.body_left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let taken = (FRAME_HEAD_BYTES - self.head_seen).min(bytes.len());
            self.head[self.head_seen..self.head_seen + taken].copy_from_slice(&bytes[..taken]);
            self.head_seen += taken;
            bytes = &bytes[taken..];
            if self.head_seen == FRAME_HEAD_BYTES {
                let [_, length @ ..] = self.head;
                self.body_left = u32::from_be_bytes(length) as usize;
                self.head_seen = 0;
            }
        }
    }
}

/// The response of a stream; its headers go at once.
pub(crate) fn streaming(body: GrpcBody) -> Response<Body> {
    response(Body::new(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_followed_over_parts() {
        let frame = [&[0, 0, 0, 0, 3][..], b"abc"].concat();
        let two = [frame.clone(), frame].concat();
        for cut in 0..=two.len() {
            let mut state = FrameState::default();
            state.pass(&two[..cut]);
            assert_eq!(state.is_between(), cut % 8 == 0, "{cut}");
            state.pass(&two[cut..]);
            assert!(state.is_between());
        }
    }

    #[tokio::test]
    async fn the_first_status_counts_and_is_waited_for() {
        let ending = Ending::new();
        let (shared, setter) = (ending.0.clone(), ending.clone());
        let trailers = tokio::spawn(std::future::poll_fn(move |cx| shared.poll_trailers(cx)));
        drop(ending);
        tokio::task::yield_now().await;
        setter.set(Status::resource_exhausted("a"));
        setter.set(Status::ok(""));
        assert_eq!(trailers.await.unwrap().get("grpc-status").unwrap(), "8");
    }

    #[tokio::test]
    async fn a_stream_whose_status_nobody_sets_says_so() {
        let ending = Ending::new();
        let shared = ending.0.clone();
        let trailers = tokio::spawn(std::future::poll_fn(move |cx| shared.poll_trailers(cx)));
        tokio::task::yield_now().await;
        drop(ending);
        assert_eq!(trailers.await.unwrap().get("grpc-status").unwrap(), "14");
    }
}
