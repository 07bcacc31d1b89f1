//! The Outlet port: how a dialect writes to one connection. The node knows frames, not protocols.
//!
//! Per record a shard asks for one frame per `format`, which all sessions share; each session's outlet adds what is its
//! own before and behind it (a packet id, a resume token, a chunk's size). Outlets live on one shard: not `Send`-bound
//! beyond their way there.

use crate::subscription::Gap;
use crate::{Address, Epoch, Message, Seq};

/// What is being given to a session, beside the message.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The message.
    pub message: &'a Message,
    /// First seq that a cumulative ack of this delivery covers, up to its own: what this subscription gave, and what
    /// its device had acked before. 0 when live.
    pub start: Seq,
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
}

impl CloseReason {
    /// The name that clients see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kicked => "kicked",
            Self::Shutdown => "shutdown",
            Self::Store => "store",
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
    fn behind(&self, out: &mut Vec<u8>);
    /// What goes first, before any delivery.
    fn open(&mut self, out: &mut Vec<u8>);
    /// Messages are missing. `epoch` is the channel's present one.
    fn gap(&mut self, channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>);
    /// Nothing was sent for a while.
    fn heartbeat(&mut self, out: &mut Vec<u8>);
    /// The end.
    fn close(&mut self, reason: CloseReason, retry_ms: u64, out: &mut Vec<u8>);
}
