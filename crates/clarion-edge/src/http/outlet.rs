//! The SSE outlet: how a shard writes to an SSE connection.
//!
//! Owns the positions that this stream's resume tokens name. Invariant: a token never names more than was put before
//! or with its event.

use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::subscription::Gap;
use clarion_core::{Address, Epoch, Message};
use clarion_node::{ReaderRef, channel_tag};
use clarion_wire::sse;
use clarion_wire::token::{self, POSITIONS_MAX, Secret, TokenPosition};
use std::sync::Arc;

/// The head of a stream whose connection left hyper.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    x-accel-buffering: no\r\nconnection: close\r\n";
/// Place for a chunk's size.
const CHUNK_HEAD: &[u8] = b"00000000\r\n";
/// Ends a chunked body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// How a stream's bytes become an HTTP body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Hyper sees to it.
    Hyper,
    /// One chunk for each event: clients that read a body without chunks wait for a buffer to fill.
    Chunked,
    /// The connection's end is the body's end, for HTTP/1.0.
    UntilClose,
}

impl Framing {
    /// Begins a part of the body; returns where it begins.
    fn begin(self, out: &mut Vec<u8>) -> usize {
        let at = out.len();
        if self == Self::Chunked {
            out.extend_from_slice(CHUNK_HEAD);
        }
        at
    }

    /// Says how long the part is that began at `at`: what was written since and `more` bytes that follow.
    fn size(self, at: usize, more: usize, out: &mut [u8]) {
        if self != Self::Chunked {
            return;
        }
        let mut size = out.len() - at - CHUNK_HEAD.len() + more;
        for digit in out[at..at + 8].iter_mut().rev() {
            *digit = b"0123456789abcdef"[size & 15];
            size >>= 4;
        }
    }

    /// Ends a part.
    fn end(self, out: &mut Vec<u8>) {
        if self == Self::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// What `write` appends, as a part of the body.
    fn part(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.begin(out);
        write(out);
        self.size(at, 0, out);
        self.end(out);
    }
}

/// What the tokens of a stream name beside positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenOwner {
    pub(super) reader: ReaderRef,
    pub(super) principal_tag: u32,
}

/// See the module.
pub(super) struct SseOutlet {
    secret: Arc<Secret>,
    owner: TokenOwner,
    /// Most recent first; grows with the channels that moved.
    positions: Vec<TokenPosition>,
    retry_ms: u64,
    framing: Framing,
}

impl SseOutlet {
    pub(super) fn new(
        secret: Arc<Secret>,
        owner: TokenOwner,
        retry_ms: u64,
        framing: Framing,
    ) -> Self {
        Self { secret, owner, positions: Vec::new(), retry_ms, framing }
    }

    /// Notes a delivery; its position is the most recent now.
    fn moved(&mut self, given: &Given<'_>) {
        let message = given.message;
        // One channel carries most of a stream's messages, and then it stands first.
        if let Some(first) = self.positions.first_mut()
            && first.seq + 1 == message.seq
            && first.epoch == message.epoch
            && first.start == given.start
            && first.tag == channel_tag(&message.channel)
        {
            first.seq = message.seq;
            return;
        }
        let tag = channel_tag(&message.channel);
        self.positions.retain(|position| position.tag != tag);
        self.positions.truncate(POSITIONS_MAX - 1);
        let (epoch, start, seq) = (message.epoch, given.start, message.seq);
        self.positions.insert(0, TokenPosition { tag, epoch, start, seq });
    }
}

impl Outlet for SseOutlet {
    fn format(&self) -> u32 {
        0
    }

    fn dialect(&self) -> &'static str {
        "sse"
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        sse::message(message, out);
    }

    fn before(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>) {
        let chunk = self.framing.begin(out);
        if !given.message.is_live() {
            self.moved(&given);
            let TokenOwner { reader: ReaderRef { number, user_tag }, principal_tag } = self.owner;
            out.extend_from_slice(b"id: ");
            let positions = self.positions.iter().copied();
            token::encode(&self.secret, number, user_tag, principal_tag, positions, out);
            out.push(b'\n');
        }
        self.framing.size(chunk, frame_len, out);
    }

    fn behind(&mut self, _given: Given<'_>, _frame_len: usize, out: &mut Vec<u8>) {
        self.framing.end(out);
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        match self.framing {
            Framing::Hyper => {}
            Framing::Chunked => {
                out.extend_from_slice(HEAD);
                out.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            }
            Framing::UntilClose => {
                out.extend_from_slice(HEAD);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.framing.part(out, |out| sse::retry(self.retry_ms, out));
    }

    fn gap(&mut self, channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
        self.framing.part(out, |out| sse::gap(channel, epoch, gap, out));
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        self.framing.part(out, |out| out.extend_from_slice(sse::HEARTBEAT));
    }

    fn close(&mut self, reason: CloseReason, retry_ms: u64, out: &mut Vec<u8>) {
        self.framing.part(out, |out| sse::close(reason.name(), retry_ms, out));
        if self.framing == Framing::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }
}
