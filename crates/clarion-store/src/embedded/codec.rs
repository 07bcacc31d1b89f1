//! Stored forms of the embedded engine: log records, channel records, cursors, remembered publishes, claims.
//!
//! Every form starts with its version. Invariants: `created_at` never falls within a log; `bytes` and `counted` of a
//! record are the log's totals up to and including it, so that sizes need no scan. Damage decodes to `None`, never to
//! a panic.

use bytes::Bytes;
use clarion_core::cursor::{get_varint, put_varint};
use clarion_core::port::store::{Reader, StoredCursor};
use clarion_core::{Address, Content, Cursor, Epoch, Millis, Sender, Seq};

const VERSION: u8 = 1;

const JSON: u8 = 1;
const UTF8: u8 = 1 << 1;
const RETAIN: u8 = 1 << 2;
const COUNTED: u8 = 1 << 3;
// 1 << 4 = quiet and 1 << 5 = hidden are kept free for messages that notify nobody or show nowhere.
const ERASED: u8 = 1 << 6;
const REFERENCE: u8 = 1 << 7;

const QOS: u8 = 0b11;
const HAS_EXPIRES: u8 = 1 << 2;
const HAS_CONTENT_TYPE: u8 = 1 << 3;
const HAS_KIND: u8 = 1 << 4;
const HAS_SENDER: u8 = 1 << 5;
const HAS_DEVICE: u8 = 1 << 6;
const HAS_HEADERS: u8 = 1 << 7;

const HAS_REPLY_TO: u8 = 1;
const HAS_CORRELATION: u8 = 1 << 1;
const HAS_KEY: u8 = 1 << 2;
/// Of a reference: the message stands behind it. A reader that does not know this bit takes it for a bare reference.
const INLINE: u8 = 1 << 7;

/// What every record of a log starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) created_at: Millis,
    /// Total bytes of the log, this record included.
    pub(super) bytes: u64,
    /// What this record added to them.
    pub(super) weight: u64,
    /// Total of the messages that count as unread, this one included.
    pub(super) counted: u64,
    pub(super) expires_at: Option<Millis>,
}

impl Header {
    /// Total bytes of the log before this record.
    pub(super) fn bytes_before(&self) -> u64 {
        self.bytes.saturating_sub(self.weight)
    }
}

/// What stands behind the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    Full(Packed<'a>),
    /// Number of another channel and seq there.
    Reference(u32, Seq),
    /// The same, and what stands there.
    Copy(Copied<'a>),
    Erased,
}

/// A reference that holds its message. Both have one `created_at` and one end of life: those of the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copied<'a> {
    /// Number of the message's channel.
    pub(super) number: u32,
    /// Its seq there.
    pub(super) seq: Seq,
    /// That channel's address: by its number it may no longer be found.
    pub(super) address: &'a str,
    pub(super) packed: Packed<'a>,
}

/// A message that is not unpacked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    flags: u8,
    has: u8,
    has_more: u8,
    expires_at: Option<Millis>,
    rest: &'a [u8],
}

/// Appends a message's record.
pub(super) fn put_message(out: &mut Vec<u8>, header: &Header, content: &Content) {
    put_flags(out, content, 0, 0);
    put_header(out, header);
    put_content(out, content);
}

/// Appends the record of a reference that holds its message: `seq` of channel `number`, which is called `address`.
pub(super) fn put_copy(
    out: &mut Vec<u8>,
    header: &Header,
    (number, seq, address): (u32, Seq, &str),
    content: &Content,
) {
    put_flags(out, content, REFERENCE, INLINE);
    put_header(out, header);
    put_varint(out, u64::from(number));
    put_varint(out, seq);
    put_bytes(out, address.as_bytes());
    put_content(out, content);
}

fn put_flags(out: &mut Vec<u8>, content: &Content, flags: u8, has_more: u8) {
    let flag = |on: bool, bit: u8| if on { bit } else { 0 };
    let device = content.sender.as_ref().and_then(|s| s.device.as_deref());
    out.push(VERSION);
    out.push(
        flags
            | flag(content.json, JSON)
            | flag(content.utf8, UTF8)
            | flag(content.retain, RETAIN)
            | flag(content.counted, COUNTED),
    );
    out.push(
        content.qos & QOS
            | flag(content.expires_at.is_some(), HAS_EXPIRES)
            | flag(content.content_type.is_some(), HAS_CONTENT_TYPE)
            | flag(content.kind.is_some(), HAS_KIND)
            | flag(content.sender.is_some(), HAS_SENDER)
            | flag(device.is_some(), HAS_DEVICE)
            | flag(!content.headers.is_empty(), HAS_HEADERS),
    );
    out.push(
        has_more
            | flag(content.reply_to.is_some(), HAS_REPLY_TO)
            | flag(content.correlation.is_some(), HAS_CORRELATION)
            | flag(content.idempotency_key.is_some(), HAS_KEY),
    );
}

fn put_content(out: &mut Vec<u8>, content: &Content) {
    let device = content.sender.as_ref().and_then(|s| s.device.as_deref());
    let sender = content.sender.as_ref().map(|s| &*s.user);
    for text in [content.content_type.as_deref(), content.kind.as_deref(), sender, device] {
        put_optional(out, text.map(str::as_bytes));
    }
    if !content.headers.is_empty() {
        put_varint(out, content.headers.len() as u64);
        for (name, value) in &content.headers {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
    put_optional(out, content.reply_to.as_deref().map(str::as_bytes));
    put_optional(out, content.correlation.as_deref());
    put_optional(out, content.idempotency_key.as_deref().map(str::as_bytes));
    out.extend_from_slice(&content.payload);
}

/// Appends a reference's record.
pub(super) fn put_reference(out: &mut Vec<u8>, header: &Header, number: u32, seq: Seq) {
    out.extend_from_slice(&[VERSION, REFERENCE, 0, 0]);
    put_header(out, &Header { expires_at: None, ..*header });
    put_varint(out, u64::from(number));
    put_varint(out, seq);
}

/// Appends what is left of an erased record.
pub(super) fn put_erased(out: &mut Vec<u8>, header: &Header) {
    let has = if header.expires_at.is_some() { HAS_EXPIRES } else { 0 };
    out.extend_from_slice(&[VERSION, ERASED, has, 0]);
    put_header(out, header);
}

fn put_header(out: &mut Vec<u8>, header: &Header) {
    put_varint(out, header.created_at);
    put_varint(out, header.bytes);
    put_varint(out, header.weight);
    put_varint(out, header.counted);
    if let Some(end) = header.expires_at {
        put_varint(out, end);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

/// Reads a record of a log.
pub(super) fn record(bytes: &[u8]) -> Option<(Header, Body<'_>)> {
    let (&[version, flags, has, has_more], mut rest) = bytes.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let mut next = || get_varint(&mut rest);
    let (created_at, bytes, weight, counted) = (next()?, next()?, next()?, next()?);
    let expires_at = if has & HAS_EXPIRES != 0 { Some(next()?) } else { None };
    let header = Header { created_at, bytes, weight, counted, expires_at };
    let body = if flags & ERASED != 0 {
        Body::Erased
    } else if flags & REFERENCE != 0 {
        let (number, seq) = (u32::try_from(next()?).ok()?, next()?);
        if has_more & INLINE == 0 {
            Body::Reference(number, seq)
        } else {
            let address = std::str::from_utf8(take_bytes(&mut rest)?).ok()?;
            let packed = Packed { flags, has, has_more, expires_at, rest };
            Body::Copy(Copied { number, seq, address, packed })
        }
    } else {
        Body::Full(Packed { flags, has, has_more, expires_at, rest })
    };
    Some((header, body))
}

impl Packed<'_> {
    /// The message.
    pub(super) fn unpack(&self) -> Option<Content> {
        let mut rest = self.rest;
        let (has, more) = (self.has, self.has_more);
        let content_type = take_text(&mut rest, has & HAS_CONTENT_TYPE)?;
        let kind = take_text(&mut rest, has & HAS_KIND)?;
        let user = take_text(&mut rest, has & HAS_SENDER)?;
        let device = take_text(&mut rest, has & HAS_DEVICE)?;
        let mut headers = Vec::new();
        if has & HAS_HEADERS != 0 {
            // Grows as headers are really there: a damaged count reserves nothing.
            for _ in 0..get_varint(&mut rest)? {
                headers.push((take_text(&mut rest, 1)??, take_text(&mut rest, 1)??));
            }
        }
        let reply_to = take_text(&mut rest, more & HAS_REPLY_TO)?;
        let correlation = match more & HAS_CORRELATION {
            0 => None,
            _ => Some(Bytes::copy_from_slice(take_bytes(&mut rest)?)),
        };
        let idempotency_key = take_text(&mut rest, more & HAS_KEY)?;
        Some(Content {
            payload: Bytes::copy_from_slice(rest),
            json: self.flags & JSON != 0,
            utf8: self.flags & UTF8 != 0,
            retain: self.flags & RETAIN != 0,
            qos: has & QOS,
            counted: self.flags & COUNTED != 0,
            content_type,
            kind,
            sender: user.map(|user| Sender { user, device }),
            headers,
            reply_to,
            correlation,
            expires_at: self.expires_at,
            idempotency_key,
            ..Content::default()
        })
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(get_varint(rest)?).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}

/// `Some(None)` when the field is not there.
#[expect(clippy::option_option, reason = "the outer one says damage, the inner one absence")]
fn take_text(rest: &mut &[u8], has: u8) -> Option<Option<Box<str>>> {
    if has == 0 {
        return Some(None);
    }
    Some(Some(std::str::from_utf8(take_bytes(rest)?).ok()?.into()))
}

/// What is kept of a channel besides its log. `last` and the totals are those of the moment when it was written: the
/// log's last record, if it is younger, has the present ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ChannelRecord {
    /// Drawn when the channel was created; never 0.
    pub(super) base_epoch: Epoch,
    /// The first seq that is kept, as far as it was written down.
    pub(super) floor: Seq,
    /// Total bytes of the log before the floor.
    pub(super) floor_bytes: u64,
    pub(super) last: Seq,
    pub(super) bytes: u64,
    pub(super) counted: u64,
    pub(super) last_at: Millis,
    /// Bounds given with the last publish that changed them.
    pub(super) age_ms: u64,
    pub(super) count: u64,
    /// When the sweeper looks at it next, in hours.
    pub(super) due: u32,
}

impl ChannelRecord {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        let numbers = [
            u64::from(self.base_epoch),
            self.floor,
            self.floor_bytes,
            self.last,
            self.bytes,
            self.counted,
            self.last_at,
            self.age_ms,
            self.count,
            u64::from(self.due),
        ];
        numbers.into_iter().for_each(|n| put_varint(out, n));
    }

    pub(super) fn take(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut next = || get_varint(&mut rest);
        Some(Self {
            base_epoch: u32::try_from(next()?).ok()?,
            floor: next()?,
            floor_bytes: next()?,
            last: next()?,
            bytes: next()?,
            counted: next()?,
            last_at: next()?,
            age_ms: next()?,
            count: next()?,
            due: u32::try_from(next()?).ok()?,
        })
    }
}

/// Appends a cursor.
pub(super) fn put_cursor(out: &mut Vec<u8>, stored: &StoredCursor) {
    out.push(VERSION);
    put_varint(out, u64::from(stored.epoch));
    put_varint(out, stored.updated_at);
    put_varint(out, stored.marks.len() as u64);
    for (seq, at) in &stored.marks {
        put_varint(out, *seq);
        put_varint(out, *at);
    }
    stored.cursor.encode(out);
}

/// Reads a cursor.
pub(super) fn cursor(bytes: &[u8], channel: Address, reader: Reader) -> Option<StoredCursor> {
    let mut rest = bytes.strip_prefix(&[VERSION])?;
    let mut next = || get_varint(&mut rest);
    let epoch = u32::try_from(next()?).ok()?;
    let updated_at = next()?;
    let mut marks = Vec::new();
    for _ in 0..next()? {
        marks.push((next()?, next()?));
    }
    Some(StoredCursor { channel, reader, epoch, cursor: Cursor::decode(rest)?, updated_at, marks })
}

/// A publish under an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) epoch: Epoch,
    pub(super) seq: Seq,
    pub(super) created_at: Millis,
}

impl Remembered {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        [u64::from(self.epoch), self.seq, self.created_at].iter().for_each(|n| put_varint(out, *n));
    }

    pub(super) fn take(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut next = || get_varint(&mut rest);
        Some(Self { epoch: u32::try_from(next()?).ok()?, seq: next()?, created_at: next()? })
    }
}

/// A claim on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) fence: u64,
    pub(super) until: Millis,
    pub(super) owner: Bytes,
}

impl Claim {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.fence);
        put_varint(out, self.until);
        out.extend_from_slice(&self.owner);
    }

    pub(super) fn take(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let (fence, until) = (get_varint(&mut rest)?, get_varint(&mut rest)?);
        Some(Self { fence, until, owner: Bytes::copy_from_slice(rest) })
    }
}

#[cfg(test)]
mod tests;
