//! Resume tokens: what a reader was given, as one opaque text of at most 200 bytes (design §9).
//!
//! Layout before base64url: version 1 · reader u64 · user tag u32 · principal tag u32 · count u8 · positions (channel
//! tag u32, epoch u32, varint start, varint seq − start) · checkpoint varint (0: none) · SipHash-2-4 of all that, 8
//! bytes. Positions that do not fit are left out, oldest first: what a token cannot hold may repeat, is never skipped.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clarion_core::cursor::{get_varint, put_varint};
use clarion_core::{Epoch, Seq};
use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// Longest token text, in bytes.
pub const TOKEN_BYTES_MAX: usize = 200;
/// Positions in a token.
pub const POSITIONS_MAX: usize = 8;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 8;
/// 200 characters of base64 hold 150 bytes; the checkpoint takes one.
const POSITIONS_END: usize = 150 - MAC_BYTES - 1;

/// A key that tokens are proved with.
pub type Secret = [u8; 16];

/// What was given of one channel: `start..=seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPosition {
    /// The channel's tag.
    pub tag: u32,
    /// Its history.
    pub epoch: Epoch,
    /// First seq given.
    pub start: Seq,
    /// Last seq given.
    pub seq: Seq,
}

/// A decoded token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Number of the durable reader; 0 = none.
    pub reader: u64,
    /// Tag of its user.
    pub user_tag: u32,
    /// Tag of the principal that it was given to.
    pub principal_tag: u32,
    /// Most recent first.
    pub positions: Vec<TokenPosition>,
}

/// The text was not made by this server, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token was not made by this server")]
pub struct TokenError;

fn mac(secret: &Secret, bytes: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = SipHasher24::new_with_key(secret);
    hasher.write(bytes);
    hasher.finish().to_be_bytes()
}

/// Appends a token's text. `positions`: most recent first.
pub fn encode(
    secret: &Secret,
    reader: u64,
    user_tag: u32,
    principal_tag: u32,
    positions: impl Iterator<Item = TokenPosition>,
    out: &mut Vec<u8>,
) {
    let mut raw = Vec::with_capacity(152);
    raw.push(VERSION);
    raw.extend_from_slice(&reader.to_be_bytes());
    raw.extend_from_slice(&user_tag.to_be_bytes());
    raw.extend_from_slice(&principal_tag.to_be_bytes());
    let count_at = raw.len();
    raw.push(0);
    for position in positions.take(POSITIONS_MAX) {
        let before = raw.len();
        raw.extend_from_slice(&position.tag.to_be_bytes());
        raw.extend_from_slice(&position.epoch.to_be_bytes());
        put_varint(&mut raw, position.start);
        put_varint(&mut raw, position.seq.saturating_sub(position.start));
        if raw.len() > POSITIONS_END {
            raw.truncate(before);
            break;
        }
        raw[count_at] += 1;
    }
    raw.push(0);
    let mac = mac(secret, &raw);
    raw.extend_from_slice(&mac);
    let at = out.len();
    out.resize(at + raw.len().div_ceil(3) * 4, 0);
    let written = URL_SAFE_NO_PAD.encode_slice(&raw, &mut out[at..]).unwrap_or(0);
    out.truncate(at + written);
}

/// Reads and proves a token.
pub fn decode(secret: &Secret, text: &str) -> Result<Token, TokenError> {
    if text.len() > TOKEN_BYTES_MAX {
        return Err(TokenError);
    }
    let raw = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError)?;
    let (body, proof) = raw.split_last_chunk::<MAC_BYTES>().ok_or(TokenError)?;
    // Compared as one number, without a branch per byte.
    if u64::from_be_bytes(*proof) != u64::from_be_bytes(mac(secret, body)) {
        return Err(TokenError);
    }
    parse(body).ok_or(TokenError)
}

fn parse(mut body: &[u8]) -> Option<Token> {
    let version = take::<1>(&mut body)?[0];
    let reader = u64::from_be_bytes(take(&mut body)?);
    let user_tag = u32::from_be_bytes(take(&mut body)?);
    let principal_tag = u32::from_be_bytes(take(&mut body)?);
    let count = usize::from(take::<1>(&mut body)?[0]);
    if version != VERSION || count > POSITIONS_MAX {
        return None;
    }
    let mut positions = Vec::with_capacity(count);
    for _ in 0..count {
        let tag = u32::from_be_bytes(take(&mut body)?);
        let epoch = u32::from_be_bytes(take(&mut body)?);
        let start = get_varint(&mut body)?;
        let seq = start.checked_add(get_varint(&mut body)?)?;
        positions.push(TokenPosition { tag, epoch, start, seq });
    }
    Some(Token { reader, user_tag, principal_tag, positions })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests;
