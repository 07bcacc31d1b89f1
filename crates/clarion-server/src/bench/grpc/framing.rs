//! The five bytes in front of each gRPC message: written, and taken off again.
//!
//! Invariants: the messages do not depend on how the bytes were cut; an unfinished one has at most [`MESSAGE_MAX`] bytes.
//! Must not know: HTTP/2.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use clarion_wire::grpc::FRAME_HEAD_BYTES;
use prost::Message;

/// Largest message.
const MESSAGE_MAX: usize = 16 << 20;

/// Appends a message with its head.
pub(super) fn put_frame(out: &mut BytesMut, message: &impl Message) {
    let length = message.encoded_len();
    out.reserve(FRAME_HEAD_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // There is room for it.
    let _ = message.encode(out);
}

/// Cuts a stream's bytes into messages.
#[derive(Debug, Default)]
pub(super) struct Frames {
    tail: Vec<u8>,
}

impl Frames {
    /// Hands out each message that these bytes complete, mostly without copying it.
    pub(super) fn feed(&mut self, data: &[u8], message: &mut impl FnMut(&[u8])) -> io::Result<()> {
        if self.tail.is_empty() {
            let used = whole(data, message)?;
            self.tail.extend_from_slice(&data[used..]);
            return Ok(());
        }
        self.tail.extend_from_slice(data);
        let used = whole(&self.tail, message)?;
        self.tail.drain(..used);
        Ok(())
    }

    /// The one message of a unary answer.
    pub(super) fn only(mut answer: Bytes) -> io::Result<Bytes> {
        match head(&answer)? {
            Some(length) if answer.len() == FRAME_HEAD_BYTES + length => {
                answer.advance(FRAME_HEAD_BYTES);
                Ok(answer)
            }
            _ => Err(odd("the answer is not one message")),
        }
    }
}

fn odd(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The length that a message's head says, once the head is there.
fn head(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some([flag, length @ ..]) = bytes.first_chunk::<FRAME_HEAD_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    match (*flag, length) {
        (0, 0..=MESSAGE_MAX) => Ok(Some(length)),
        (0, _) => Err(odd("a message is too long")),
        _ => Err(odd("a message is compressed")),
    }
}

/// Hands out the whole messages in front; returns how many bytes they had.
fn whole(bytes: &[u8], message: &mut impl FnMut(&[u8])) -> io::Result<usize> {
    let mut used = 0;
    while let Some(length) = head(&bytes[used..])? {
        let start = used + FRAME_HEAD_BYTES;
        let Some(found) = bytes.get(start..start + length) else { break };
        message(found);
        used = start + length;
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_wire::proto::push::MessageReply;

    fn framed(texts: &[&str]) -> BytesMut {
        let mut out = BytesMut::new();
        for text in texts {
            put_frame(&mut out, &MessageReply { message: (*text).to_owned() });
        }
        out
    }

    #[test]
    fn messages_do_not_depend_on_the_cuts() {
        let bytes = framed(&["one", "", "three"]);
        for (a, b) in (0..=bytes.len()).flat_map(|a| (a..=bytes.len()).map(move |b| (a, b))) {
            let mut found = Vec::new();
            let mut frames = Frames::default();
            for part in [&bytes[..a], &bytes[a..b], &bytes[b..]] {
                let mut take = |message: &[u8]| {
                    found.push(MessageReply::decode(message).unwrap().message);
                };
                frames.feed(part, &mut take).unwrap();
            }
            assert_eq!(found, ["one", "", "three"], "{a} {b}");
            assert!(frames.tail.is_empty());
        }
    }

    #[test]
    fn odd_heads_are_refused() {
        let mut frames = Frames::default();
        frames.feed(&[1, 0, 0, 0, 0], &mut |_| {}).unwrap_err();
        Frames::default().feed(&[0, 255, 0, 0, 0], &mut |_| {}).unwrap_err();
        assert_eq!(Frames::only(framed(&["x"]).freeze()).unwrap()[..], [10, 1, b'x']);
        for odd in [framed(&[]), framed(&["a", "b"])] {
            Frames::only(odd.freeze()).unwrap_err();
        }
        let mut cut = framed(&["abc"]);
        cut.truncate(7);
        Frames::only(cut.freeze()).unwrap_err();
    }
}
