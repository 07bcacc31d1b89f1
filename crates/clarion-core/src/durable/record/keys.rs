//! Keys of what is stored for sessions.

use bytes::Bytes;

/// Longest client id that can have a stored session, in bytes.
pub const CLIENT_ID_MAX: usize = 900;

/// Before the client ids of all sessions.
pub const SESSIONS: &[u8] = b"session/";
/// Before the numbers of sessions that ended and have something left to remove.
pub const GONE: &[u8] = b"gone/";
/// Before the client ids of all stored wills.
pub const WILLS: &[u8] = b"will/";
const CLIENTS: &[u8] = b"client/";
const SUBS: &[u8] = b"subs/";
const WINDOW: &[u8] = b"window/";
const OWED: &[u8] = b"owed/";
const INBOUND: &[u8] = b"inbound/";

fn numbered(prefix: &[u8], number: u64, rest: &[u8]) -> Bytes {
    [prefix, &number.to_be_bytes(), rest].concat().into()
}

fn of_client(prefix: &[u8], client_id: &str) -> Option<Bytes> {
    let fits = (1..=CLIENT_ID_MAX).contains(&client_id.len());
    fits.then(|| [prefix, client_id.as_bytes()].concat().into())
}

/// A session by its client id; `None` = such a client id can have none.
pub fn session_key(client_id: &str) -> Option<Bytes> {
    of_client(SESSIONS, client_id)
}

/// The client id of [`session_key`].
pub fn parse_session_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(SESSIONS)?).ok().filter(|id| !id.is_empty())
}

/// Whose session a number is: it holds the client id.
pub fn client_key(number: u64) -> Bytes {
    numbered(CLIENTS, number, &[])
}

/// A will by its client id; `None` = such a client id can have none.
pub fn will_key(client_id: &str) -> Option<Bytes> {
    of_client(WILLS, client_id)
}

/// The client id of [`will_key`].
pub fn parse_will_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(WILLS)?).ok().filter(|id| !id.is_empty())
}

/// Before all chunks of a session.
pub fn chunks_prefix(number: u64) -> Bytes {
    numbered(SUBS, number, &[])
}

/// A chunk of subscriptions: slots from `chunk` × [`super::CHUNK`] on.
pub fn chunk_key(number: u64, chunk: u32) -> Bytes {
    numbered(SUBS, number, &chunk.to_be_bytes())
}

/// Session and chunk of [`chunk_key`].
pub fn parse_chunk_key(key: &[u8]) -> Option<(u64, u32)> {
    let (number, chunk) = key.strip_prefix(SUBS)?.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), u32::from_be_bytes(chunk.try_into().ok()?)))
}

/// What is out.
pub fn window_key(number: u64) -> Bytes {
    numbered(WINDOW, number, &[])
}

/// Retained messages that are to come.
pub fn owed_key(number: u64) -> Bytes {
    numbered(OWED, number, &[])
}

/// Before all QoS 2 publishes of a session that are under way.
pub fn inbounds_prefix(number: u64) -> Bytes {
    numbered(INBOUND, number, &[])
}

/// A QoS 2 publish of the client, by its packet id.
pub fn inbound_key(number: u64, packet_id: u16) -> Bytes {
    numbered(INBOUND, number, &packet_id.to_be_bytes())
}

/// Session and packet id of [`inbound_key`].
pub fn parse_inbound_key(key: &[u8]) -> Option<(u64, u16)> {
    let (number, id) = key.strip_prefix(INBOUND)?.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), u16::from_be_bytes(id.try_into().ok()?)))
}

/// A session that ended: what hangs at its number is to be removed.
pub fn gone_key(number: u64) -> Bytes {
    numbered(GONE, number, &[])
}

/// The number of [`gone_key`].
pub fn parse_gone_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(GONE)?.try_into().ok()?))
}
