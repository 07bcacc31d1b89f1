//! Numbers and ids: milliseconds, seqs, epochs, positions, message ids.
//!
//! Owns the bit layout of a message id. Must not know: where a time or a channel's number comes from.

use std::{fmt, str::FromStr};

/// Milliseconds since the Unix epoch. Never orders anything; `seq` does.
pub type Millis = u64;
/// Dense number of a message in its channel, from 1; 0 = not stored.
pub type Seq = u64;
/// Which history of a channel a seq belongs to; changes only when history was lost.
pub type Epoch = u32;

/// Where a message stands in its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position {
    /// The history.
    pub epoch: Epoch,
    /// The place in it.
    pub seq: Seq,
}

/// A UUIDv8 (RFC 9562 §5.8): 48 bits of milliseconds, then 31 bits of channel number and 42 bits of seq, or, for a
/// live message, 31 bits of node and 42 bits of a counter; one bit tells which. Ids sort by time.
///
/// ```text
/// millis:48 | version=8:4 | live:1 number_high:11 | variant=2:2 | number_low:20 seq:42
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u128);

/// What an id says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdParts {
    /// A stored message: number of its channel in the store, its seq.
    Stored {
        /// The store's number of the channel.
        channel: u32,
        /// The seq.
        seq: Seq,
    },
    /// A live one.
    Live {
        /// The node that took it.
        node: u32,
        /// That node's counter.
        counter: u64,
    },
}

const SEQ_BITS: u32 = 42;
const SEQ_MASK: u128 = (1 << SEQ_BITS) - 1;
const NUMBER_MASK: u32 = (1 << 31) - 1;

impl MessageId {
    /// The id of a stored message. `channel` < 2^31, `seq` < 2^42.
    pub fn stored(at: Millis, channel: u32, seq: Seq) -> Self {
        Self::pack(at, false, channel, seq)
    }

    /// The id of a live message.
    pub fn live(at: Millis, node: u32, counter: u64) -> Self {
        Self::pack(at, true, node, counter)
    }

    fn pack(at: Millis, live: bool, number: u32, low: u64) -> Self {
        let number = number & NUMBER_MASK;
        let high = (u128::from(at) & 0xffff_ffff_ffff) << 80;
        let a = (u128::from(live) << 11 | u128::from(number >> 20)) << 64;
        let b = u128::from(number & 0xf_ffff) << SEQ_BITS | (u128::from(low) & SEQ_MASK);
        Self(high | 8 << 76 | a | 2 << 62 | b)
    }

    /// When it was taken.
    pub fn at(self) -> Millis {
        (self.0 >> 80) as u64
    }

    /// What it names; `None` when it is no id of ours.
    pub fn parts(self) -> Option<IdParts> {
        if (self.0 >> 76) & 0xf != 8 || (self.0 >> 62) & 3 != 2 {
            return None;
        }
        let number = ((self.0 >> 64) as u32 & 0x7ff) << 20 | (self.0 >> SEQ_BITS) as u32 & 0xf_ffff;
        let low = (self.0 & SEQ_MASK) as u64;
        Some(if (self.0 >> 75) & 1 == 1 {
            IdParts::Live { node: number, counter: low }
        } else {
            IdParts::Stored { channel: number, seq: low }
        })
    }

    /// The 16 bytes, network order.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From 16 bytes, network order.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; 36];
        let mut at = 0;
        for (i, byte) in self.to_bytes().iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                at += 1;
            }
            text[at] = HEX[usize::from(byte >> 4)];
            text[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no UUID in the 8-4-4-4-12 form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message id: expected a UUID")]
pub struct IdError;

impl FromStr for MessageId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() != 36 {
            return Err(IdError);
        }
        let mut value: u128 = 0;
        for (i, c) in text.bytes().enumerate() {
            if matches!(i, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(IdError);
                }
                continue;
            }
            let digit = char::from(c).to_digit(16).ok_or(IdError)?;
            value = value << 4 | u128::from(digit);
        }
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_back_its_parts_and_its_text() {
        for (channel, seq) in [(1, 1), (NUMBER_MASK, (1 << 42) - 1), (0xf_ffff, 7), (0x10_0000, 8)]
        {
            let id = MessageId::stored(1_790_000_000_123, channel, seq);
            assert_eq!(id.parts(), Some(IdParts::Stored { channel, seq }));
            assert_eq!(id.at(), 1_790_000_000_123);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().as_bytes()[14], b'8', "version 8");
            let live = MessageId::live(5, channel, seq);
            assert_eq!(live.parts(), Some(IdParts::Live { node: channel, counter: seq }));
        }
    }

    #[test]
    fn ids_sort_by_time_and_foreign_ids_have_no_parts() {
        assert!(MessageId::stored(1, 9, 9) < MessageId::stored(2, 1, 1));
        let v4: MessageId = "6f1c2b4e-3d55-4a37-9a0e-1f2d3c4b5a69".parse().unwrap();
        assert_eq!(v4.parts(), None);
        for bad in
            ["", "x", "6f1c2b4e-3d55-4a37-9a0e-1f2d3c4b5a6", "6f1c2b4e_3d55-4a37-9a0e-1f2d3c4b5a69"]
        {
            assert_eq!(bad.parse::<MessageId>(), Err(IdError));
        }
    }
}
