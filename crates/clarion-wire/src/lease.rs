//! Lease tokens: a message that was handed out, as one opaque text (design §9).
//!
//! Layout before base64url: version 1 · epoch u32 · member u64 · seq varint · SipHash-2-4 of all that and of the channel
//! and the group that it was handed out by, 8 bytes. So a damaged one, or one of another queue, is told from a lease.
//! Must not know: whether the lease still holds.

use crate::token::{Secret, TokenError};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clarion_core::cursor::{get_varint, put_varint};
use clarion_core::{Address, Epoch, Seq};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// Longest lease text, in bytes.
pub const LEASE_BYTES_MAX: usize = 40;

/// Not that of a resume token.
const VERSION: u8 = 2;
const MAC_BYTES: usize = 8;

/// Which cursor hands out.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    /// Of which channel.
    pub channel: &'a Address,
    /// Of which reader group; `None` = the one that a queue has.
    pub group: Option<&'a str>,
}

/// One hand-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The channel's history.
    pub epoch: Epoch,
    /// Who has it.
    pub member: u64,
    /// The message.
    pub seq: Seq,
}

fn mac(secret: &Secret, cursor: Cursor<'_>, bytes: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(bytes);
    hasher.write(cursor.channel.as_str().as_bytes());
    // No name of a group has this byte, and only the last part is of any length.
    hasher.write(&[0, u8::from(cursor.group.is_some())]);
    hasher.write(cursor.group.unwrap_or_default().as_bytes());
    hasher.finish().to_be_bytes()
}

/// A lease's text.
pub fn encode(secret: &Secret, cursor: Cursor<'_>, lease: Lease) -> String {
    let mut raw = Vec::with_capacity(LEASE_BYTES_MAX);
    raw.push(VERSION);
    raw.extend_from_slice(&lease.epoch.to_be_bytes());
    raw.extend_from_slice(&lease.member.to_be_bytes());
    put_varint(&mut raw, lease.seq);
    let mac = mac(secret, cursor, &raw);
    raw.extend_from_slice(&mac);
    URL_SAFE_NO_PAD.encode(raw)
}

/// Reads and proves a lease that was handed out by this cursor.
pub fn decode(secret: &Secret, cursor: Cursor<'_>, text: &str) -> Result<Lease, TokenError> {
    if text.len() > LEASE_BYTES_MAX {
        return Err(TokenError);
    }
    let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError)?;
    let (body, proof) = raw.split_last_chunk::<MAC_BYTES>().ok_or(TokenError)?;
    if u64::from_be_bytes(*proof) != u64::from_be_bytes(mac(secret, cursor, body)) {
        return Err(TokenError);
    }
    parse(body).ok_or(TokenError)
}

fn parse(body: &[u8]) -> Option<Lease> {
    let (version, body) = body.split_first()?;
    let (epoch, body) = body.split_first_chunk()?;
    let (member, mut body) = body.split_first_chunk()?;
    let seq = get_varint(&mut body)?;
    let (epoch, member) = (Epoch::from_be_bytes(*epoch), u64::from_be_bytes(*member));
    (*version == VERSION && body.is_empty()).then_some(Lease { epoch, member, seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: Secret = [7; 16];

    fn queue() -> Address {
        Address::queue("jobs").unwrap()
    }

    proptest! {
        #[test]
        fn a_lease_comes_back_and_a_changed_one_does_not(
            epoch in any::<u32>(), member in any::<u64>(), seq in 1u64..1 << 42,
            at in 0usize..22, bit in 0u32..8,
        ) {
            let channel = queue();
            let cursor = Cursor { channel: &channel, group: None };
            let lease = Lease { epoch, member, seq };
            let text = encode(&SECRET, cursor, lease);
            prop_assert!(text.len() <= LEASE_BYTES_MAX, "{}", text.len());
            prop_assert_eq!(decode(&SECRET, cursor, &text), Ok(lease));
            let mut raw = URL_SAFE_NO_PAD.decode(&text).unwrap();
            raw[at] ^= 1 << bit;
            prop_assert_eq!(
                decode(&SECRET, cursor, &URL_SAFE_NO_PAD.encode(&raw)), Err(TokenError)
            );
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let channel = queue();
            let cursor = Cursor { channel: &channel, group: Some("g") };
            prop_assert_eq!(decode(&SECRET, cursor, &text), Err(TokenError));
        }
    }

    #[test]
    fn a_lease_is_of_one_cursor() {
        let (channel, other) = (queue(), Address::queue("job").unwrap());
        let lease = Lease { epoch: 1, member: 2, seq: 3 };
        let all = [
            Cursor { channel: &channel, group: None },
            Cursor { channel: &channel, group: Some("s") },
            Cursor { channel: &other, group: None },
            Cursor { channel: &other, group: Some("s") },
        ];
        for (i, of) in all.into_iter().enumerate() {
            let text = encode(&SECRET, of, lease);
            for (j, cursor) in all.into_iter().enumerate() {
                assert_eq!(decode(&SECRET, cursor, &text).is_ok(), i == j, "{of:?} {cursor:?}");
            }
            assert_eq!(decode(&[8; 16], of, &text), Err(TokenError));
        }
    }
}
