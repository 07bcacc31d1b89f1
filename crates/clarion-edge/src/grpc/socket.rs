//! A gRPC connection's socket: it notes when the connection breaks.
//!
//! Invariant: a stream that its client has cancelled before the connection ended is dropped before the end is noted: an
//! end is held back for a moment, in which what came before it is handled. Must not know: HTTP/2.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// How long an end is held back.
const HELD_BACK: Duration = Duration::from_millis(20);

/// Whether a connection has broken: it ended, or timed out, under open streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken(Arc<AtomicBool>);

impl Broken {
    /// It has.
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it has.
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// See the module.
pub(super) struct Socket {
    stream: TcpStream,
    /// What was read already.
    head: &'static [u8],
    broken: Broken,
    end: Option<(Pin<Box<Sleep>>, io::Result<()>)>,
}

impl Socket {
    /// A socket of which `head` was read already.
    pub(super) fn new(stream: TcpStream, head: &'static [u8], broken: Broken) -> Self {
        Self { stream, head, broken, end: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.head.is_empty() {
            let (now, later) = this.head.split_at(this.head.len().min(buffer.remaining()));
            buffer.put_slice(now);
            this.head = later;
            return Poll::Ready(Ok(()));
        }
        if this.end.is_none() {
            let before = buffer.filled().len();
            let read = std::task::ready!(Pin::new(&mut this.stream).poll_read(context, buffer));
            if read.is_ok() && buffer.filled().len() > before {
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

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}
