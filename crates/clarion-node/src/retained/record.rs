//! A retained message as a record of the store.
//!
//! Layout (version 1): version, flags, `created_at` and `expires_at` (8 bytes each, big-endian; 0 = none), the topic and the parts
//! that the flags name, each with its length (4 bytes) in front: content type, reply to, correlation, sender's user and device,
//! headers (a count, then names and values), payload last and without a length. Invariant: no input panics.

use bytes::{Buf, BufMut, Bytes};
use clarion_core::{Address, Content, Message, MessageId, Sender};
use sha2::{Digest, Sha256};
use std::sync::Arc;

const PREFIX: &[u8] = b"retained/";
const VERSION: u8 = 1;

const QOS: u8 = 0b11;
const UTF8: u8 = 1 << 2;
const CONTENT_TYPE: u8 = 1 << 3;
const REPLY_TO: u8 = 1 << 4;
const CORRELATION: u8 = 1 << 5;
const SENDER: u8 = 1 << 6;
const HEADERS: u8 = 1 << 7;

/// Longest topic that is its own key; of a longer one the key has the beginning and a hash.
const KEY_TOPIC_MAX: usize = 900;

/// The record's key.
pub(crate) fn key(topic: &str) -> Bytes {
    if topic.len() <= KEY_TOPIC_MAX {
        return [PREFIX, topic.as_bytes()].concat().into();
    }
    let mut key = [PREFIX, &topic.as_bytes()[..KEY_TOPIC_MAX]].concat();
    key.extend_from_slice(&Sha256::digest(topic.as_bytes()));
    key.into()
}

/// The record's key, of a text that begins with such a key and may go on behind a NUL.
pub(crate) fn of_name(name: &str) -> Option<Bytes> {
    let (key, _) = name.split_once('\0').unwrap_or((name, ""));
    key.as_bytes().starts_with(PREFIX).then(|| Bytes::copy_from_slice(key.as_bytes()))
}

/// What the keys of all topics begin with that a filter matches.
pub(crate) fn prefix(filter: &str) -> Bytes {
    let fixed = filter.find(['+', '#']).map_or(filter, |at| {
        // `a/#` matches `a`, too.
        filter[..at].strip_suffix('/').unwrap_or(&filter[..at])
    });
    let fixed = fixed.as_bytes();
    [PREFIX, &fixed[..fixed.len().min(KEY_TOPIC_MAX)]].concat().into()
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.put_u32(part.len() as u32);
    out.put_slice(part);
}

/// The record's value.
pub(crate) fn encode(message: &Message) -> Bytes {
    let content = &*message.content;
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    let flags = (content.qos & QOS)
        | flag(content.utf8, UTF8)
        | flag(content.content_type.is_some(), CONTENT_TYPE)
        | flag(content.reply_to.is_some(), REPLY_TO)
        | flag(content.correlation.is_some(), CORRELATION)
        | flag(content.sender.is_some(), SENDER)
        | flag(!content.headers.is_empty(), HEADERS);
    let mut out = Vec::with_capacity(32 + content.weight());
    out.put_u8(VERSION);
    out.put_u8(flags);
    out.put_u64(message.created_at);
    out.put_u64(content.expires_at.unwrap_or(0));
    put(&mut out, message.channel.id().as_bytes());
    for text in [&content.content_type, &content.reply_to].into_iter().flatten() {
        put(&mut out, text.as_bytes());
    }
    if let Some(correlation) = &content.correlation {
        put(&mut out, correlation);
    }
    if let Some(sender) = &content.sender {
        put(&mut out, sender.user.as_bytes());
        put(&mut out, sender.device.as_deref().unwrap_or_default().as_bytes());
    }
    if !content.headers.is_empty() {
        out.put_u32(content.headers.len() as u32);
        for (name, value) in &content.headers {
            put(&mut out, name.as_bytes());
            put(&mut out, value.as_bytes());
        }
    }
    out.extend_from_slice(&content.payload);
    out.into()
}

fn part(value: &mut Bytes) -> Option<Bytes> {
    let len = value.try_get_u32().ok()? as usize;
    (len <= value.len()).then(|| value.split_to(len))
}

fn text(value: &mut Bytes) -> Option<Box<str>> {
    Some(std::str::from_utf8(&part(value)?).ok()?.into())
}

/// The message of a record; `None` when it is damaged or of a later version.
pub(crate) fn decode(value: Bytes) -> Option<Message> {
    let mut value = value;
    if value.try_get_u8().ok()? != VERSION {
        return None;
    }
    let flags = value.try_get_u8().ok()?;
    let created_at = value.try_get_u64().ok()?;
    let expires_at = Some(value.try_get_u64().ok()?).filter(|at| *at != 0);
    let topic = text(&mut value)?;
    let has = |flag: u8| flags & flag != 0;
    let mut content = Content {
        qos: flags & QOS,
        utf8: has(UTF8),
        retain: true,
        expires_at,
        ..Content::default()
    };
    if has(CONTENT_TYPE) {
        content.content_type = Some(text(&mut value)?);
    }
    if has(REPLY_TO) {
        content.reply_to = Some(text(&mut value)?);
    }
    if has(CORRELATION) {
        content.correlation = Some(part(&mut value)?);
    }
    if has(SENDER) {
        let (user, device) = (text(&mut value)?, text(&mut value)?);
        content.sender = Some(Sender { user, device: Some(device).filter(|d| !d.is_empty()) });
    }
    if has(HEADERS) {
        let count = value.try_get_u32().ok()?;
        for _ in 0..count {
            let pair = (text(&mut value)?, text(&mut value)?);
            content.headers.push(pair);
        }
    }
    content.payload = value;
    Some(Message {
        id: MessageId::live(created_at, 0, 0),
        channel: Address::topic(&topic).ok()?,
        epoch: 0,
        seq: 0,
        created_at,
        content: Arc::new(content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(content: Content) -> Message {
        Message {
            id: MessageId::live(7, 0, 0),
            channel: Address::topic("a/b").unwrap(),
            epoch: 0,
            seq: 0,
            created_at: 7,
            content: Arc::new(content),
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let text = |t: &str| Some(Box::from(t));
        let full = Content {
            payload: Bytes::from_static(b"payload"),
            utf8: true,
            retain: true,
            qos: 2,
            content_type: text("text/plain"),
            reply_to: text("r"),
            correlation: Some(Bytes::from_static(b"\0\x01")),
            sender: Some(Sender { user: "u".into(), device: Some("d".into()) }),
            headers: vec![("a".into(), "".into()), ("a".into(), "b".into())],
            expires_at: Some(99),
            ..Content::default()
        };
        for content in [full, Content { retain: true, ..Content::default() }] {
            let message = message(content);
            let value = encode(&message);
            assert_eq!(decode(value.clone()), Some(message.clone()));
            for cut in 0..value.len() {
                // A shorter one is damaged, or has less of a payload.
                let cut = decode(value.slice(..cut));
                assert!(cut.is_none_or(|m| m.content.payload.len() < 7));
            }
        }
        assert_eq!(decode(Bytes::from_static(b"\x02")), None);
    }

    #[test]
    fn keys_are_bounded_and_stand_below_the_prefixes_of_filters() {
        let long = "x/".repeat(30_000);
        let other = format!("{}y", &long[1..]);
        assert!(key(&long).len() < 1024 && key(&long) != key(&format!("x{other}")));
        for (filter, topic) in
            [("a/#", "a"), ("a/+", "a/b"), ("#", "x"), ("a", "a"), (&*format!("{long}#"), &*long)]
        {
            assert!(key(topic).starts_with(&prefix(filter)), "{filter:.9} {topic:.9}");
        }
    }
}
