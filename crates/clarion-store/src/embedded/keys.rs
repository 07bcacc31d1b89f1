//! Keys of the embedded engine's keyspaces.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `log` | number u64 ‖ seq u64 | a record, see `codec` |
//! | `channels` | number u64 | a channel record, see `codec` |
//! | `names` | `n` ‖ tenant ‖ form ‖ text or its SHA-256 | number u64 |
//! | `names` | `a` ‖ number u64 | tenant ‖ text |
//! | `cursors` | `c` ‖ length u16 ‖ reader ‖ number u64 | a cursor, see `codec` |
//! | `cursors` | `r` ‖ number u64 ‖ reader | nothing |
//! | `records` | the record's key | version u64 ‖ value |
//! | `due` | hour u32 ‖ number u64 | nothing |
//! | `meta` | `g`, `m`, `n`, `c` ‖ key | generation, memory flag, next number, claim |
//! | `idem-N` | number u64 ‖ text | a remembered publish, see `codec` |
//!
//! All numbers are big-endian, so that keys sort by number and seq.

use clarion_core::{Address, AddressKind, Seq};
use sha2::{Digest, Sha256};

/// The only tenant there is so far.
pub(super) const TENANT: u8 = 0;
/// Longer names are kept by their hash: keys end at 65,535 bytes and short ones are faster.
const NAME_BYTES_MAX: usize = 512;
const FORM_TEXT: u8 = 0;
const FORM_HASH: u8 = 1;

pub(super) const CLOSED: &[u8] = b"c";
pub(super) const GENERATION: &[u8] = b"g";
pub(super) const MEMORY: &[u8] = b"m";
pub(super) const NEXT_NUMBER: &[u8] = b"n";

pub(super) fn log(number: u32, seq: Seq) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&u64::from(number).to_be_bytes());
    key[8..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The number and seq of a key of `log`.
pub(super) fn parse_log(key: &[u8]) -> Option<(u64, Seq)> {
    let (number, seq) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), u64::from_be_bytes(seq.try_into().ok()?)))
}

pub(super) fn channel(number: u32) -> [u8; 8] {
    u64::from(number).to_be_bytes()
}

pub(super) fn name(address: &Address) -> Vec<u8> {
    let text = address.as_str().as_bytes();
    let mut key = Vec::with_capacity(3 + text.len().min(NAME_BYTES_MAX));
    key.extend_from_slice(&[b'n', TENANT]);
    if text.len() <= NAME_BYTES_MAX {
        key.push(FORM_TEXT);
        key.extend_from_slice(text);
    } else {
        key.push(FORM_HASH);
        key.extend_from_slice(&Sha256::digest(text));
    }
    key
}

/// What the names of all filters start with, apart from long ones.
pub(super) fn filter_names() -> Vec<u8> {
    [&[b'n', TENANT, FORM_TEXT], AddressKind::Filter.prefix().as_bytes()].concat()
}

/// What the names that are kept by their hash start with.
pub(super) fn long_names() -> [u8; 3] {
    [b'n', TENANT, FORM_HASH]
}

/// The text of a name that is kept as text.
pub(super) fn name_text(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(&[b'n', TENANT, FORM_TEXT])?).ok()
}

pub(super) fn address(number: u32) -> [u8; 9] {
    let mut key = [b'a'; 9];
    key[1..].copy_from_slice(&channel(number));
    key
}

/// What all cursors of a reader start with.
pub(super) fn cursors_of(reader: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(11 + reader.len());
    key.push(b'c');
    key.extend_from_slice(&(reader.len() as u16).to_be_bytes());
    key.extend_from_slice(reader);
    key
}

pub(super) fn cursor(reader: &[u8], number: u32) -> Vec<u8> {
    let mut key = cursors_of(reader);
    key.extend_from_slice(&channel(number));
    key
}

/// The number at the end of a key of a cursor or of `due`.
pub(super) fn trailing_number(key: &[u8]) -> Option<u32> {
    let number = u64::from_be_bytes(*key.last_chunk()?);
    u32::try_from(number).ok()
}

/// What all readers of a channel start with.
pub(super) fn readers_of(number: u32) -> [u8; 9] {
    let mut key = [b'r'; 9];
    key[1..].copy_from_slice(&channel(number));
    key
}

pub(super) fn reader_of(number: u32, reader: &[u8]) -> Vec<u8> {
    [&readers_of(number), reader].concat()
}

pub(super) fn due(hour: u32, number: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&hour.to_be_bytes());
    key[4..].copy_from_slice(&channel(number));
    key
}

pub(super) fn due_hour(key: &[u8]) -> Option<u32> {
    key.first_chunk().map(|hour| u32::from_be_bytes(*hour))
}

pub(super) fn claim(key: &[u8]) -> Vec<u8> {
    [b"c", key].concat()
}

pub(super) fn idempotency(number: u32, text: &str) -> Vec<u8> {
    [&channel(number), text.as_bytes()].concat()
}
