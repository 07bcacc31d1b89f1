//! A session's connection: the socket, or the pipe to whoever writes the response, and the task that watches it.
//!
//! Invariants: writing is tried by the shard's flush; the task only waits for the end, for writability after a write would
//! have blocked, and for what a peer says. What a stream client sends on a socket after its request is read and dropped.
//! Must not know: frames.

mod duplex;

use super::{SessionKey, Shard};
use crate::attach::{Guard, Link};
use crate::pipe::{End, PipeWriter};
use duplex::Duplex;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

/// What carries the bytes.
enum Wire {
    Tcp(TcpStream),
    Pipe(PipeWriter),
    /// A socket on which both talk.
    Duplex(Duplex),
}

/// Shared by the session and its task, on one thread.
pub(super) struct LinkState {
    wire: Wire,
    wake: Notify,
    blocked: Cell<bool>,
    /// Somebody waits until everything is passed on.
    wants_passed: Cell<bool>,
    ended: Cell<bool>,
    /// The client is not read for now.
    paused: Cell<bool>,
    /// The last read filled the buffer.
    more: Cell<bool>,
    /// After the end the peer is still read, so that it can read the last words.
    lingers: Cell<bool>,
    _guard: Guard,
}

impl LinkState {
    pub(super) fn new(link: Link, guard: Guard) -> io::Result<Rc<Self>> {
        let wire = match link {
            Link::Tcp(stream, None) => {
                stream.set_nonblocking(true)?;
                Wire::Tcp(TcpStream::from_std(stream)?)
            }
            Link::Tcp(..) => return Err(io::Error::other("a stream of this kind has no layers")),
            Link::Pipe(writer) => Wire::Pipe(writer),
        };
        Ok(Self::with(wire, guard))
    }

    /// A connection on which both talk, and its end that is read.
    pub(super) fn duplex(link: Link, guard: Guard) -> io::Result<(Rc<Self>, OwnedReadHalf)> {
        let Link::Tcp(stream, layer) = link else {
            return Err(io::Error::other("who talks has a socket"));
        };
        stream.set_nonblocking(true)?;
        let (reader, writer) = TcpStream::from_std(stream)?.into_split();
        Ok((Self::with(Wire::Duplex(Duplex::new(writer, layer)), guard), reader))
    }

    fn with(wire: Wire, guard: Guard) -> Rc<Self> {
        Rc::new(Self {
            wire,
            wake: Notify::new(),
            blocked: Cell::new(false),
            wants_passed: Cell::new(false),
            ended: Cell::new(false),
            paused: Cell::new(false),
            more: Cell::new(false),
            lingers: Cell::new(false),
            _guard: guard,
        })
    }

    /// Writes what goes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.wire {
            Wire::Tcp(stream) => stream.try_write(bytes),
            Wire::Pipe(writer) => writer.try_write(bytes),
            Wire::Duplex(duplex) => duplex.try_write(bytes),
        }
    }

    /// Writes what a layer answered by itself, as far as it goes; the next flush writes the rest.
    pub(super) fn write_held(&self) {
        if let Wire::Duplex(duplex) = &self.wire {
            // A connection that has ended shows when it is read.
            let _ = duplex.write_held();
        }
    }

    /// Everything plain was given: writes what a layer holds back, its last words too if it is to close; an error of kind
    /// `WouldBlock` when not all of it goes.
    pub(super) fn finish_write(&self) -> io::Result<()> {
        match &self.wire {
            Wire::Tcp(_) | Wire::Pipe(_) => Ok(()),
            Wire::Duplex(duplex) => duplex.finish(),
        }
    }

    /// The layer's last words follow what waits.
    pub(super) fn close_layer(&self) {
        if let Wire::Duplex(duplex) = &self.wire {
            duplex.close();
        }
    }

    /// Whether a layer holds bytes back.
    pub(super) fn holds(&self) -> bool {
        self.as_duplex().is_some_and(Duplex::holds)
    }

    /// Where both talk.
    pub(super) fn as_duplex(&self) -> Option<&Duplex> {
        match &self.wire {
            Wire::Duplex(duplex) => Some(duplex),
            Wire::Tcp(_) | Wire::Pipe(_) => None,
        }
    }

    /// Stops reading the client, or goes on.
    pub(super) fn pause(&self, paused: bool) {
        if self.paused.replace(paused) != paused {
            self.wake.notify_one();
        }
    }

    /// The server has ended it and told the client why.
    pub(super) fn linger(&self) {
        self.lingers.set(true);
    }

    /// Bytes that have certainly left, of those that were written; what a socket took has.
    pub(super) fn passed(&self, written: u64) -> u64 {
        match &self.wire {
            Wire::Tcp(_) | Wire::Duplex(_) => written,
            Wire::Pipe(writer) => writer.passed(),
        }
    }

    /// Whether everything that was written has left.
    pub(super) fn all_passed(&self) -> bool {
        match &self.wire {
            Wire::Tcp(_) | Wire::Duplex(_) => true,
            Wire::Pipe(writer) => writer.all_passed(),
        }
    }

    /// The shard is to look again when everything that was written has left.
    pub(super) fn want_passed(&self) {
        if let Wire::Pipe(writer) = &self.wire
            && !self.wants_passed.replace(true)
        {
            writer.want_passed();
        }
    }

    /// How the connection ended.
    pub(super) fn how_ended(&self) -> End {
        match &self.wire {
            Wire::Tcp(_) | Wire::Duplex(_) => End::Broken,
            Wire::Pipe(writer) => writer.ended().unwrap_or(End::Whole),
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

pub(super) use duplex::watch as watch_duplex;

/// Watches a connection until it or its session ends.
pub(super) async fn watch(shard: Rc<Shard>, key: SessionKey, link: Rc<LinkState>) {
    while !link.ended.get() {
        let gone = match &link.wire {
            Wire::Tcp(stream) => watch_tcp(&shard, key, &link, stream).await,
            Wire::Pipe(writer) => watch_pipe(&shard, key, &link, writer).await,
            // See `duplex::watch`.
            Wire::Duplex(_) => return,
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

async fn watch_pipe(
    shard: &Rc<Shard>,
    key: SessionKey,
    link: &LinkState,
    writer: &PipeWriter,
) -> bool {
    tokio::select! {
        biased;
        () = link.wake.notified() => {}
        () = writer.changed() => {}
    }
    if writer.ended().is_some() {
        return true;
    }
    if link.blocked.get() && writer.has_room() {
        shard.writable(key);
    }
    if link.wants_passed.replace(false) {
        shard.passed(key);
    }
    false
}
