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
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
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

/// A stream's status: the first that is set counts.
#[derive(Clone, Default)]
pub(crate) struct Ending(Arc<Mutex<Option<Status>>>);

impl Ending {
    /// Ends the stream with this, once its pipe is empty.
    pub(crate) fn set(&self, status: Status) {
        let mut ending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ending.get_or_insert(status);
    }

    fn trailers(&self) -> HeaderMap {
        let mut ending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = ending.take().unwrap_or_else(|| Status::unavailable("the stream was ended"));
        let mut trailers = HeaderMap::new();
        match status.add_header(&mut trailers) {
            Ok(()) => trailers,
            Err(_) => ok_trailers(),
        }
    }
}

/// A stream's body: what comes out of its pipes, frame by frame, then its status.
pub(crate) struct GrpcBody {
    pipes: Pipes,
    ending: Ending,
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
        let ending = Ending::default();
        let body = Self {
            pipes: Pipes { pipes, at: 0, frame: FrameState::default() },
            ending: ending.clone(),
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
        match std::task::ready!(self.pipes.poll_part(context)) {
            Some(part) => Poll::Ready(Some(Ok(Frame::data(part)))),
            None => {
                self.ended = true;
                Poll::Ready(Some(Ok(Frame::trailers(self.ending.trailers()))))
            }
        }
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

    #[test]
    fn the_first_status_counts() {
        let ending = Ending::default();
        ending.set(Status::resource_exhausted("a"));
        ending.set(Status::ok(""));
        assert_eq!(ending.trailers().get("grpc-status").unwrap(), "8");
    }
}
