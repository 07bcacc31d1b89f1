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

/// The head of a stream whose connection left hyper. Its body ends with the connection.
const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
    x-accel-buffering: no\r\nconnection: close\r\n\r\n";

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
    /// Write the response's head too.
    raw: bool,
}

impl SseOutlet {
    pub(super) fn new(secret: Arc<Secret>, owner: TokenOwner, retry_ms: u64, raw: bool) -> Self {
        Self { secret, owner, positions: Vec::new(), retry_ms, raw }
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

    fn deliver(&mut self, given: Given<'_>, frame: &[u8], out: &mut Vec<u8>) {
        if !given.message.is_live() {
            self.moved(&given);
            let ReaderRef { number, user_tag } = self.owner.reader;
            out.extend_from_slice(b"id: ");
            let positions = self.positions.iter().copied();
            token::encode(&self.secret, number, user_tag, self.owner.principal_tag, positions, out);
            out.push(b'\n');
        }
        out.extend_from_slice(frame);
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        if self.raw {
            out.extend_from_slice(HEAD);
        }
        sse::retry(self.retry_ms, out);
    }

    fn gap(&mut self, channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
        sse::gap(channel, epoch, gap, out);
    }

    fn heartbeat(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(sse::HEARTBEAT);
    }

    fn close(&mut self, reason: CloseReason, retry_ms: u64, out: &mut Vec<u8>) {
        sse::close(reason.name(), retry_ms, out);
    }
}
