//! A gRPC connection's socket: it notes when the connection breaks.
//!
//! Invariant: a stream that its client has cancelled before the connection ended is dropped before the end is noted: an
//! end is held back for a moment, in which what came before it is handled. Must not know: HTTP/2.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long an end is held back.
const HELD_BACK: Duration = Duration::from_millis(20);

/// Whether a connection has broken: it ended, or timed out, under open streams.
#[derive(Debug, Clone)]
pub(crate) struct Broken(Arc<State>);

#[derive(Debug)]
struct State {
    ended: AtomicBool,
    since: Instant,
    /// Milliseconds of `since` at which the peer was heard last.
    heard: AtomicU64,
    patience: Duration,
}

impl Broken {
    /// A connection whose peer was just heard. A stream that ends when nothing was heard for `patience` was not cancelled
    /// by its client: that would have been heard.
    pub(super) fn new(patience: Duration) -> Self {
        let (ended, heard) = (AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(State { ended, since: Instant::now(), heard, patience }))
    }

    /// It has.
    pub(super) fn set(&self) {
        self.0.ended.store(true, Ordering::SeqCst);
    }

    /// The peer is there.
    fn heard(&self) {
        self.0.heard.store(self.0.since.elapsed().as_millis() as u64, Ordering::SeqCst);
    }

    /// Whether it has.
    pub(super) fn get(&self) -> bool {
        let heard = Duration::from_millis(self.0.heard.load(Ordering::SeqCst));
        let silent = self.0.since.elapsed().saturating_sub(heard);
        self.0.ended.load(Ordering::SeqCst) || silent >= self.0.patience
    }
}

/// See the module.
pub(super) struct Socket {
    stream: TcpStream,
    /// What was read already, and is to be read again.
    before: &'static [u8],
    broken: Broken,
    end: Option<(Pin<Box<Sleep>>, io::Result<()>)>,
}

impl Socket {
    /// A socket from which `before` was read already.
    pub(super) fn new(stream: TcpStream, before: &'static [u8], broken: Broken) -> Self {
        Self { stream, before, broken, end: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.before.is_empty() {
            let (now, later) = this.before.split_at(this.before.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.before = later;
            return Poll::Ready(Ok(()));
        }
        if this.end.is_none() {
            let before = buffer.filled().len();
            let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
            if read.is_ok() && buffer.filled().len() > before {
                this.broken.heard();
                return Poll::Ready(Ok(()));
            }
            let sleep = Box::pin(sleep_until(Instant::now() + HELD_BACK));
            this.end = Some((sleep, read));
        }
        let Some((sleep, _)) = &mut this.end else { return Poll::Ready(Ok(())) };
        std::task::ready!(sleep.as_mut().poll(context));
        this.broken.set();
        Poll::Ready(this.end.take().map_or(Ok(()), |(_, read)| read))
    }
}

impl Socket {
    /// Notes a failed write before the streams can learn of it.
    fn noted<T>(&self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Err(_))) {
            self.broken.set();
        }
        written
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }
}
