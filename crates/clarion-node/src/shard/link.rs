//! A session's connection: the socket, or the body of a response that hyper writes, and the task that watches it.
//!
//! Invariants: writing is tried by the shard's flush; the task only waits for the end, or for writability after a
//! write would have blocked. What a stream client sends after its request is read and dropped. Must not know: frames.

use super::{SessionKey, Shard};
use crate::attach::{Guard, Link};
use bytes::Bytes;
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

/// Most bytes of one part of a response's body.
const BODY_PART_MAX: usize = 64 << 10;

/// What carries the bytes.
enum Wire {
    Tcp(TcpStream),
    Body(mpsc::Sender<Bytes>),
}

/// Shared by the session and its task, on one thread.
pub(super) struct LinkState {
    wire: Wire,
    wake: Notify,
    blocked: Cell<bool>,
    ended: Cell<bool>,
    _guard: Guard,
}

impl LinkState {
    pub(super) fn new(link: Link, guard: Guard) -> io::Result<Rc<Self>> {
        let wire = match link {
            Link::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Wire::Tcp(TcpStream::from_std(stream)?)
            }
            Link::Body(sender) => Wire::Body(sender),
        };
        Ok(Rc::new(Self {
            wire,
            wake: Notify::new(),
            blocked: Cell::new(false),
            ended: Cell::new(false),
            _guard: guard,
        }))
    }

    /// Writes what goes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.wire {
            Wire::Tcp(stream) => stream.try_write(bytes),
            Wire::Body(sender) => match sender.try_reserve() {
                Ok(permit) => {
                    let part = &bytes[..bytes.len().min(BODY_PART_MAX)];
                    permit.send(Bytes::copy_from_slice(part));
                    Ok(part.len())
                }
                Err(mpsc::error::TrySendError::Full(())) => Err(ErrorKind::WouldBlock.into()),
                Err(mpsc::error::TrySendError::Closed(())) => Err(ErrorKind::BrokenPipe.into()),
            },
        }
    }

    /// A write would have blocked: the task waits for writability.
    pub(super) fn block(&self) {
        if !self.blocked.replace(true) {
            self.wake.notify_one();
        }
    }

    pub(super) fn unblock(&self) {
        self.blocked.set(false);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get()
    }

    /// The session is over; the task ends and the connection closes.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.wake.notify_one();
    }
}

/// Watches a connection until it or its session ends.
pub(super) async fn watch(shard: Rc<Shard>, key: SessionKey, link: Rc<LinkState>) {
    while !link.ended.get() {
        let gone = match &link.wire {
            Wire::Tcp(stream) => watch_tcp(&shard, key, &link, stream).await,
            Wire::Body(sender) => watch_body(&shard, key, &link, sender).await,
        };
        if gone {
            shard.connection_lost(key);
            return;
        }
    }
}

async fn watch_tcp(
    shard: &Rc<Shard>,
    key: SessionKey,
    link: &LinkState,
    stream: &TcpStream,
) -> bool {
    let interest = if link.blocked.get() {
        Interest::READABLE | Interest::WRITABLE
    } else {
        Interest::READABLE
    };
    let ready = tokio::select! {
        biased;
        () = link.wake.notified() => return false,
        ready = stream.ready(interest) => ready,
    };
    let Ok(ready) = ready else { return true };
    if ready.is_readable() && shard.drop_input(stream) {
        return true;
    }
    if ready.is_writable() && link.blocked.get() {
        shard.writable(key);
    }
    false
}

async fn watch_body(
    shard: &Rc<Shard>,
    key: SessionKey,
    link: &LinkState,
    sender: &mpsc::Sender<Bytes>,
) -> bool {
    tokio::select! {
        biased;
        () = link.wake.notified() => false,
        () = sender.closed() => true,
        permit = sender.reserve(), if link.blocked.get() => {
            drop(permit);
            shard.writable(key);
            false
        }
    }
}
