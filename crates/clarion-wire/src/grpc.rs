//! gRPC frames and protobuf bytes that are written once for many readers, straight from the domain's types.
//!
//! Invariants: what is written decodes with the generated messages of [`crate::proto`] to the same values; fields
//! ascend, apart from [`delivery_head`], and those with their default value are left out, as proto3 has it; nothing is
//! allocated but the room in `out`. Must not know: streams, and whether a text is UTF-8 (whoever calls does).

use clarion_core::subscription::Gap;
use clarion_core::{Address, Content, Epoch, Message, MessageId, Sender};
use std::io::Write;

/// Bytes in front of each message of a gRPC stream: a flag and the length.
pub const FRAME_HEAD_BYTES: usize = 5;
/// Wire type of numbers.
pub const VARINT: u32 = 0;
/// Wire type of texts, bytes and nested messages.
pub const LEN: u32 = 2;

/// A message id as text.
const ID_BYTES: usize = 36;

// Fields of clarion.v1.SubscribeResponse.
const WELCOME: u32 = 1;
const DELIVERY: u32 = 2;
const ACK_STORED: u32 = 3;
const GAP: u32 = 4;
const CLOSE: u32 = 5;

/// What fields are written to: bytes, or only their count. A message inside another one stands behind its length, so
/// its fields are gone through twice, and the two cannot differ.
trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn varint(&mut self, mut value: u64) {
        let (mut bytes, mut at) = ([0; 10], 0);
        while value > 0x7f {
            bytes[at] = value as u8 | 0x80;
            value >>= 7;
            at += 1;
        }
        bytes[at] = value as u8;
        self.put(&bytes[..=at]);
    }

    fn id(&mut self, id: MessageId);

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    /// A number that is left out when it is 0.
    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, VARINT);
            self.varint(value);
        }
    }

    /// An int32 or an enum: negative ones have the ten bytes of their 64-bit form.
    fn int32(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value) as u64);
    }

    /// A text or bytes; written also when they are empty.
    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, LEN);
        self.varint(bytes.len() as u64);
        self.put(bytes);
    }

    /// A text or bytes that are left out when they are empty.
    fn present(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(field, bytes);
        }
    }

    fn text(&mut self, field: u32, text: Option<&str>) {
        self.present(field, text.unwrap_or_default().as_bytes());
    }

    fn nested(&mut self, field: u32, fields: &impl Fields) {
        self.tag(field, LEN);
        self.varint(length(fields) as u64);
        fields.write(self);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn id(&mut self, id: MessageId) {
        // Writing to a Vec does not fail.
        let _ = write!(self, "{id}");
    }
}

/// Counts.
struct Length(usize);

impl Sink for Length {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }

    fn id(&mut self, _: MessageId) {
        self.0 += ID_BYTES;
    }
}

/// The fields of one message.
trait Fields {
    fn write<S: Sink + ?Sized>(&self, out: &mut S);
}

fn length(fields: &impl Fields) -> usize {
    let mut length = Length(0);
    fields.write(&mut length);
    length.0
}

struct Header<'a>(&'a str, &'a str);

impl Fields for Header<'_> {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.text(1, Some(self.0));
        out.text(2, Some(self.1));
    }
}

impl Fields for Sender {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.text(1, Some(&self.user));
        out.text(2, self.device.as_deref());
    }
}

impl Fields for Message {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        let Content { payload, json, content_type, kind, sender, headers, .. } = &*self.content;
        out.tag(1, LEN);
        out.varint(ID_BYTES as u64);
        out.id(self.id);
        out.text(2, Some(self.channel.as_str()));
        out.number(3, self.seq);
        out.number(4, self.epoch.into());
        out.present(5, payload);
        out.number(6, (*json).into());
        out.text(7, content_type.as_deref());
        out.text(8, kind.as_deref());
        for (name, value) in headers {
            out.nested(9, &Header(name, value));
        }
        if let Some(sender) = sender {
            out.nested(10, sender);
        }
        out.number(11, self.created_at);
        if let Some(expires_at) = self.content.expires_at {
            // Whether it is there says something, so 0 is written too.
            out.tag(12, VARINT);
            out.varint(expires_at);
        }
        out.text(13, self.content.reply_to.as_deref());
        out.present(14, self.content.correlation.as_deref().unwrap_or_default());
    }
}

/// A SubscribeResponse that holds this one.
struct Response<T>(u32, T);

impl<T: Fields> Fields for Response<T> {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.nested(self.0, &self.1);
    }
}

struct Welcome;

impl Fields for Welcome {
    fn write<S: Sink + ?Sized>(&self, _: &mut S) {}
}

struct AckStored(u64);

impl Fields for AckStored {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.number(1, self.0);
    }
}

struct GapIn<'a>(&'a Address, Epoch, Gap);

impl Fields for GapIn<'_> {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        let Self(channel, epoch, gap) = self;
        out.text(1, Some(channel.as_str()));
        out.number(2, (*epoch).into());
        out.number(3, gap.from);
        out.number(4, gap.to);
        out.text(5, Some(gap.reason.name()));
    }
}

struct Close<'a>(&'a str, u64);

impl Fields for Close<'_> {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.text(1, Some(self.0));
        out.number(2, self.1);
    }
}

/// What a delivery has in front of its message.
struct Attempt(u32);

impl Fields for Attempt {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.number(2, self.0.into());
    }
}

struct GateTail(i32, i32);

impl Fields for GateTail {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.int32(5, self.0);
        out.int32(7, self.1);
    }
}

struct MessageReply<'a>(&'a [u8]);

impl Fields for MessageReply<'_> {
    fn write<S: Sink + ?Sized>(&self, out: &mut S) {
        out.present(1, self.0);
    }
}

fn frame(fields: &impl Fields, out: &mut Vec<u8>) {
    begin_frame(length(fields), out);
    fields.write(out);
}

/// Bytes of a varint: 1 to 10.
pub fn varint_len(value: u64) -> usize {
    // One byte for each seven bits that are used.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a varint.
pub fn put_varint(value: u64, out: &mut Vec<u8>) {
    out.varint(value);
}

/// Appends what stands in front of a field's value.
pub fn put_tag(field: u32, wire_type: u32, out: &mut Vec<u8>) {
    out.tag(field, wire_type);
}

/// Appends a field of text, bytes or a nested message; also when it is empty.
pub fn put_bytes_field(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    out.bytes(field, bytes);
}

/// Appends what stands in front of a message of this length on a gRPC stream: not compressed.
pub fn begin_frame(len: usize, out: &mut Vec<u8>) {
    // The limits of payloads lie far below 4 GiB.
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    out.push(0);
    out.extend_from_slice(&len.to_be_bytes());
}

/// Appends a `clarion.v1.Message`, without anything in front.
pub fn message(message: &Message, out: &mut Vec<u8>) {
    message.write(out);
}

/// Appends all of a delivery's frame that stands in front of its message: with the `message_len` bytes of [`message`]
/// behind it, it is a whole SubscribeResponse. So the message can be encoded once and lie elsewhere.
pub fn delivery_head(attempt: u32, message_len: usize, out: &mut Vec<u8>) {
    let attempt = Attempt(attempt);
    // The tags here have one byte.
    let delivery = length(&attempt) + 1 + varint_len(message_len as u64) + message_len;
    begin_frame(1 + varint_len(delivery as u64) + delivery, out);
    out.tag(DELIVERY, LEN);
    out.varint(delivery as u64);
    attempt.write(out);
    out.tag(1, LEN);
    out.varint(message_len as u64);
}

/// Appends the frame that says that a stream is open.
pub fn welcome(out: &mut Vec<u8>) {
    frame(&Response(WELCOME, Welcome), out);
}

/// Appends the frame that says that acks are committed.
pub fn ack_stored(confirm: u64, out: &mut Vec<u8>) {
    frame(&Response(ACK_STORED, AckStored(confirm)), out);
}

/// Appends the frame of a gap; its `to` is below `from` when nobody knows.
pub fn gap(channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
    frame(&Response(GAP, GapIn(channel, epoch, gap)), out);
}

/// Appends the frame that says that the server ends the stream.
pub fn close(reason: &str, retry_ms: u64, out: &mut Vec<u8>) {
    frame(&Response(CLOSE, Close(reason, retry_ms)), out);
}

/// Appends the part of a `message_pusher.Message` that all hand-outs of it share; [`gate_message_tail`] is the rest.
pub fn gate_message(msg: &[u8], channel_id: &str, msg_id: u32, out: &mut Vec<u8>) {
    out.present(2, msg);
    out.text(3, Some(channel_id));
    out.number(4, msg_id.into());
}

/// Appends the part of a `message_pusher.Message` that changes with time: the seconds that are left, and the type.
pub fn gate_message_tail(expire: i32, message_type: i32, out: &mut Vec<u8>) {
    GateTail(expire, message_type).write(out);
}

/// Bytes of [`gate_message_tail`].
pub fn gate_message_tail_len(expire: i32, message_type: i32) -> usize {
    length(&GateTail(expire, message_type))
}

/// Appends the frame of a `MessageReply` of push.proto.
pub fn message_reply(message: &[u8], out: &mut Vec<u8>) {
    frame(&MessageReply(message), out);
}

#[cfg(test)]
mod tests;
