//! A socket on which both talk, with the layer in between: what is read goes to the session, what is written is sealed.
//!
//! Invariant: sealed bytes that wait are at most those of one write. Must not know: what the plain bytes mean.

use super::LinkState;
use crate::shard::{SessionKey, Shard};
use clarion_core::port::layer::{Layer, LayerError, Opened};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// Plain bytes that are sealed at once.
const SEAL_BYTES: usize = 16 << 10;
/// What may wait sealed; a client that makes the layer say more (a flood of pings) without reading it is cut off.
const HELD_BYTES_MAX: usize = 128 << 10;
/// How long a client may take to read the last words.
const LINGER_TIME: Duration = Duration::from_secs(5);

/// See the module.
pub(in crate::shard) struct Duplex {
    writer: OwnedWriteHalf,
    sealing: Option<RefCell<Sealing>>,
}

struct Sealing {
    layer: Box<dyn Layer>,
    /// The layer's last words follow what waits.
    closing: bool,
    /// Sealed bytes that are not written, from `at` on.
    out: Vec<u8>,
    at: usize,
}

impl Sealing {
    /// Writes what waits.
    fn finish(&mut self, writer: &OwnedWriteHalf) -> io::Result<()> {
        while self.at < self.out.len() {
            match writer.try_write(&self.out[self.at..]) {
                Ok(written) => self.at += written,
                Err(error) => {
                    self.out.drain(..self.at);
                    self.at = 0;
                    return Err(error);
                }
            }
        }
        self.at = 0;
        // What one burst took is not kept.
        self.out = Vec::new();
        Ok(())
    }
}

impl Duplex {
    pub(super) fn new(writer: OwnedWriteHalf, layer: Option<Box<dyn Layer>>) -> Self {
        let sealing =
            |layer| RefCell::new(Sealing { layer, closing: false, out: Vec::new(), at: 0 });
        Self { writer, sealing: layer.map(sealing) }
    }

    pub(super) fn try_write(&self, plain: &[u8]) -> io::Result<usize> {
        let Some(sealing) = &self.sealing else { return self.writer.try_write(plain) };
        let mut sealing = sealing.borrow_mut();
        sealing.finish(&self.writer)?;
        let part = &plain[..plain.len().min(SEAL_BYTES)];
        let Sealing { layer, out, .. } = &mut *sealing;
        layer.seal(part, out).map_err(|error: LayerError| io::Error::other(error))?;
        Ok(part.len())
    }

    /// Called when all plain bytes are sealed.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some(sealing) = &self.sealing else { return Ok(()) };
        let mut sealing = sealing.borrow_mut();
        if std::mem::take(&mut sealing.closing) {
            let Sealing { layer, out, .. } = &mut *sealing;
            layer.close(out);
        }
        sealing.finish(&self.writer)
    }

    /// Writes what the layer answered by itself.
    pub(super) fn write_held(&self) -> io::Result<()> {
        match &self.sealing {
            None => Ok(()),
            Some(sealing) => sealing.borrow_mut().finish(&self.writer),
        }
    }

    /// The layer closes once everything before it is sealed: nothing can follow its last words.
    pub(super) fn close(&self) {
        if let Some(sealing) = &self.sealing {
            sealing.borrow_mut().closing = true;
        }
    }

    /// Makes plain bytes of raw ones; `None` without a layer.
    pub(in crate::shard) fn open(
        &self,
        raw: &[u8],
        plain: &mut Vec<u8>,
    ) -> Option<Result<Opened, LayerError>> {
        let sealing = self.sealing.as_ref()?;
        let Sealing { layer, out, at, .. } = &mut *sealing.borrow_mut();
        let opened = layer.open(raw, plain, out);
        if out.len() - *at > HELD_BYTES_MAX {
            return Some(Err(LayerError("the client reads nothing of what it is answered")));
        }
        Some(opened)
    }

    /// Whether sealed bytes wait.
    pub(super) fn holds(&self) -> bool {
        self.sealing.as_ref().is_some_and(|sealing| !sealing.borrow().out.is_empty())
    }
}

/// Watches a connection on which both talk, until it or its session ends.
pub(in crate::shard) async fn watch(
    shard: Rc<Shard>,
    key: SessionKey,
    link: Rc<LinkState>,
    mut reader: OwnedReadHalf,
) {
    let Some(duplex) = link.as_duplex() else { return };
    while !link.ended.get() {
        let gone = tokio::select! {
            biased;
            () = link.wake.notified() => false,
            writable = duplex.writer.writable(), if link.blocked.get() => {
                shard.writable(key);
                writable.is_err()
            }
            gone = poll_fn(|context| read(&shard, key, &link, &mut reader, context)),
                if !link.paused.get() => gone,
        };
        if gone {
            return shard.connection_lost(key);
        }
        if link.more.replace(false) {
            // There may be more at once: others have their turn first.
            tokio::task::yield_now().await;
        }
    }
    if link.lingers.get() {
        // The peer may have gone; then there is nothing to read either.
        let _ = rustix::net::shutdown(duplex.writer.as_ref(), rustix::net::Shutdown::Write);
        let drained = poll_fn(|context| drain(&shard, &mut reader, context));
        // Whoever takes longer than this is cut off.
        let _ = timeout(LINGER_TIME, drained).await;
    }
}

/// Reads once into the shard's buffer. Whether the connection has ended.
fn read(
    shard: &Rc<Shard>,
    key: SessionKey,
    link: &LinkState,
    reader: &mut OwnedReadHalf,
    context: &mut Context<'_>,
) -> Poll<bool> {
    let mut buffer = shard.input.borrow_mut();
    let mut bytes = ReadBuf::new(&mut buffer);
    match ready!(Pin::new(reader).poll_read(context, &mut bytes)) {
        Ok(()) if bytes.filled().is_empty() => Poll::Ready(true),
        Ok(()) => {
            link.more.set(bytes.remaining() == 0);
            Poll::Ready(shard.peer_said(key, bytes.filled()))
        }
        Err(error) => Poll::Ready(error.kind() != ErrorKind::Interrupted),
    }
}

/// Reads and drops until the peer has gone.
fn drain(shard: &Shard, reader: &mut OwnedReadHalf, context: &mut Context<'_>) -> Poll<()> {
    let mut buffer = shard.input.borrow_mut();
    loop {
        let mut bytes = ReadBuf::new(&mut buffer);
        match ready!(Pin::new(&mut *reader).poll_read(context, &mut bytes)) {
            Ok(()) if !bytes.filled().is_empty() => {}
            _ => return Poll::Ready(()),
        }
    }
}
