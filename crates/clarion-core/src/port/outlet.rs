//! The Outlet port: how a dialect writes to one connection. The node knows frames, not protocols.
//!
//! Per record a shard asks for one frame per `format`, which all sessions share; each session's outlet adds what is its
//! own before and behind it (a packet id, a resume token, a chunk's size). Outlets live on one shard: not `Send`-bound
//! beyond their way there.

use crate::subscription::Gap;
use crate::{Address, Epoch, Message, Millis, Seq};

/// What is being given to a session, beside the message.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The message.
    pub message: &'a Message,
    /// First seq that a cumulative ack of this delivery covers, up to its own: what this subscription gave, and what
    /// its device had acked before. 0 when live.
    pub start: Seq,
    /// Which hand-out of this message it is, from 1; always 1 where nothing is handed out again.
    pub attempt: u32,
    /// It was read from the log, not handed on as it was committed.
    pub replayed: bool,
    /// The present time, for what is told relative to it.
    pub now: Millis,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// An administrator ended it.
    Kicked,
    /// The node is going down.
    Shutdown,
    /// The store failed under it.
    Store,
    /// Its client has ended it and was given what it asked for.
    Finished,
    /// Its client took nothing for too long.
    TooSlow,
    /// More messages were given back and wait for another time than may.
    TooManyNacks,
    /// Another connection took its client id.
    TakenOver,
    /// Its client was silent for longer than it had said.
    KeepAlive,
    /// What it proved its identity with is no longer valid.
    Expired,
    /// It may not read any more what it reads.
    Forbidden,
}

impl CloseReason {
    /// The name that clients see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Shutdown => "shutdown",
            Self::Store => "store",
            Self::Finished => "finished",
            Self::TooSlow => "too_slow",
            Self::TooManyNacks => "too_many_nacks",
            Self::TakenOver => "taken_over",
            Self::KeepAlive => "keep_alive",
            Self::Expired => "expired",
            Self::Forbidden => "forbidden",
        }
    }
}

/// See the module. Every method appends bytes to `out`.
pub trait Outlet: Send {
    /// Outlets that answer alike share frames.
    fn format(&self) -> u32;
    /// The name of the dialect, for sessions lists and metrics.
    fn dialect(&self) -> &'static str;
    /// The shared part of a delivery.
    fn encode(&self, message: &Message, out: &mut Vec<u8>);
    /// What of a delivery goes before the shared frame of `frame_len` bytes.
    fn before(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>);
    /// What of it goes behind.
    fn behind(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>);
    /// What goes first, before any delivery.
    fn open(&mut self, out: &mut Vec<u8>);
    /// Messages are missing. `epoch` is the channel's present one.
    fn gap(&mut self, channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>);
    /// The acks that the client asked a confirmation for, under this number of its own, are committed.
    fn acks_stored(&mut self, _confirm: u64, _out: &mut Vec<u8>) {}
    /// Nothing was sent for a while. Writes nothing where the transport has a heartbeat of its own.
    fn heartbeat(&mut self, out: &mut Vec<u8>);
    /// The end.
    fn close(&mut self, reason: CloseReason, retry_ms: u64, out: &mut Vec<u8>);
}
