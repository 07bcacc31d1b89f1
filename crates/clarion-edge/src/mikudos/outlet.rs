//! The outlet of a gate: frames of `message_pusher.Message`.

use crate::grpc::{Ending, ended};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::subscription::Gap;
use clarion_core::{Address, Epoch, Message, Millis};
use clarion_node::gate_id;
use clarion_wire::grpc;
use clarion_wire::proto::message_pusher::MessageType;
use std::borrow::Cow;

/// Longest message that a gate's gRPC library takes by default.
const MESSAGE_MAX: usize = 4 << 20;

/// See the module.
pub(super) struct GateOutlet {
    pub(super) ending: Ending,
    /// How long a user's channel keeps what has no end of its own; 0 = for ever.
    pub(super) age_ms: u64,
}

/// The text of a payload: gates' messages are protobuf strings, so what is no UTF-8 goes as base64.
pub(crate) fn text(payload: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(payload) {
        Ok(text) => Cow::Borrowed(text.as_bytes()),
        Err(_) => Cow::Owned(STANDARD.encode(payload).into_bytes()),
    }
}

impl GateOutlet {
    /// The seconds that a gate is told: as the publisher gave them when the push is new, what is left of them when it
    /// comes again.
    fn expire(&self, given: &Given<'_>) -> i32 {
        let content = &given.message.content;
        if !given.replayed
            && let Some(asked) = content.asked_s
        {
            return i32::try_from(asked).unwrap_or(if asked < 0 { i32::MIN } else { i32::MAX });
        }
        if given.message.is_live() {
            return 0;
        }
        let kept = (self.age_ms > 0).then(|| given.message.created_at.saturating_add(self.age_ms));
        let left = |end: Millis| end.saturating_sub(given.now).div_ceil(1000).max(1);
        let end = content.expires_at.or(kept);
        end.map_or(i32::MAX, |end| i32::try_from(left(end)).unwrap_or(i32::MAX))
    }

    /// What stands behind the shared part: nothing where it would make the message too long for a gate.
    fn tail(&self, given: &Given<'_>, frame_len: usize) -> Option<(i32, i32)> {
        let kind = if given.replayed { MessageType::Response } else { MessageType::Request };
        let tail = (self.expire(given), kind.into());
        (frame_len + grpc::gate_message_tail_len(tail.0, tail.1) <= MESSAGE_MAX).then_some(tail)
    }
}

impl Outlet for GateOutlet {
    fn format(&self) -> u32 {
        2
    }

    fn dialect(&self) -> &'static str {
        "mikudos"
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        let id = gate_id(message.id, message.seq);
        grpc::gate_message(&text(&message.content.payload), message.channel.id(), id, out);
    }

    fn before(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>) {
        let tail = self.tail(&given, frame_len);
        let tail_len = tail.map_or(0, |(expire, kind)| grpc::gate_message_tail_len(expire, kind));
        grpc::begin_frame(frame_len + tail_len, out);
    }

    fn behind(&mut self, given: Given<'_>, frame_len: usize, out: &mut Vec<u8>) {
        if let Some((expire, kind)) = self.tail(&given, frame_len) {
            grpc::gate_message_tail(expire, kind, out);
        }
    }

    // A gate's protocol has no opening, no gaps and no heartbeat of its own.
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn gap(&mut self, _channel: &Address, _epoch: Epoch, _gap: Gap, _out: &mut Vec<u8>) {}

    fn heartbeat(&mut self, _out: &mut Vec<u8>) {}

    fn close(&mut self, reason: CloseReason, retry_ms: u64, _out: &mut Vec<u8>) {
        self.ending.set(ended(reason, retry_ms));
    }
}
