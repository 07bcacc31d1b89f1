//! Protobuf by hand, so that a wrong byte of the server is not read the same wrong way. Invariant: what is put into
//! canonical form keeps its bytes. Must not know: the server's own types.

use bytes::{BufMut, Bytes};

/// Types of messages.
pub(super) const REQUEST: u64 = 0;
pub(super) const RESPONSE: u64 = 1;
pub(super) const RECEIVED: u64 = 2;
pub(super) const UNRECEIVED: u64 = 3;

pub(super) const PUSH: &str = "/message_pusher.MessagePusher/PushToChannel";
pub(super) const PUSH_WITH_STATUS: &str = "/message_pusher.MessagePusher/PushToChannelWithStatus";
pub(super) const REMOVE: &str = "/message_pusher.MessagePusher/DeliverRemoveMessage";
pub(super) const STATE: &str = "/message_pusher.MessagePusher/StateInfo";
pub(super) const GATE: &str = "/message_pusher.MessagePusher/GateStream";

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u64),
    Text(Bytes),
    /// Wire type 1 or 5 and its bytes.
    Fixed(u64, Bytes),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// The fields of a message, in their order.
pub(super) fn fields(bytes: &[u8]) -> Vec<(u32, Value)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest).expect("a tag");
        let length = match tag & 7 {
            0 => {
                let value = varint(&mut rest).expect("a value");
                found.push(((tag >> 3) as u32, Value::Number(value)));
                continue;
            }
            1 => 8,
            2 => varint(&mut rest).expect("a length"),
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (value, behind) = rest.split_at_checked(length as usize).expect("a whole field");
        rest = behind;
        let value = Bytes::copy_from_slice(value);
        let value = if tag & 7 == 2 { Value::Text(value) } else { Value::Fixed(tag & 7, value) };
        found.push(((tag >> 3) as u32, value));
    }
    found
}

/// A message of these fields, as they are.
pub(super) fn message(fields: &[(u32, Value)]) -> Bytes {
    let mut out = Vec::new();
    for (number, value) in fields {
        match value {
            Value::Number(n) => {
                put_varint(u64::from(*number) << 3, &mut out);
                put_varint(*n, &mut out);
            }
            Value::Text(text) => {
                put_varint(u64::from(*number) << 3 | 2, &mut out);
                put_varint(text.len() as u64, &mut out);
                out.extend_from_slice(text);
            }
            Value::Fixed(wire, bytes) => {
                put_varint(u64::from(*number) << 3 | wire, &mut out);
                out.extend_from_slice(bytes);
            }
        }
    }
    out.into()
}

/// The same message with another number in this field; 0 = the field is left out, as proto3 does.
pub(super) fn with_number(bytes: &[u8], field: u32, number: u64) -> Bytes {
    let mut all = fields(bytes);
    match all.iter().position(|(n, _)| *n == field) {
        Some(at) if number == 0 => drop(all.remove(at)),
        Some(at) => all[at].1 = Value::Number(number),
        None if number == 0 => {}
        None => {
            let at = all.iter().position(|(n, _)| *n > field).unwrap_or(all.len());
            all.insert(at, (field, Value::Number(number)));
        }
    }
    message(&all)
}

fn number(all: &[(u32, Value)], field: u32) -> u64 {
    let found = all.iter().rev().find_map(|(n, value)| match value {
        Value::Number(number) if *n == field => Some(*number),
        _ => None,
    });
    found.unwrap_or(0)
}

fn text(all: &[(u32, Value)], field: u32) -> Bytes {
    let found = all.iter().rev().find_map(|(n, value)| match value {
        Value::Text(text) if *n == field => Some(text.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

/// Any of the protocol's messages that carry a text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Said {
    pub(super) id: u64,
    pub(super) channel: String,
    pub(super) text: Bytes,
    pub(super) expire: i32,
    pub(super) kind: u64,
}

fn utf8(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("a channel is UTF-8")
}

impl Said {
    /// A `Message`, as gates get it.
    pub(super) fn to_gate(bytes: &[u8]) -> Self {
        let all = fields(bytes);
        Self {
            id: number(&all, 4),
            channel: utf8(&text(&all, 3)),
            text: text(&all, 2),
            expire: number(&all, 5) as i32,
            kind: number(&all, 7),
        }
    }

    /// A `Response`, as gates send it and producers get it.
    pub(super) fn response(bytes: &[u8]) -> Self {
        let all = fields(bytes);
        Self {
            id: number(&all, 1),
            channel: utf8(&text(&all, 2)),
            text: text(&all, 3),
            expire: number(&all, 4) as i32,
            kind: number(&all, 7),
        }
    }

    /// A `PushMessage`; decoding as the last of a repeated field says.
    pub(super) fn push(bytes: &[u8]) -> Self {
        let all = fields(bytes);
        Self {
            channel: utf8(&text(&all, 3)),
            text: text(&all, 2),
            expire: number(&all, 5) as i32,
            ..Self::default()
        }
    }

    /// As a `Response`.
    pub(super) fn as_response(&self) -> Bytes {
        let numbers = [self.id, i64::from(self.expire) as u64, self.kind].map(Value::Number);
        let [id, expire, kind] = numbers;
        let all = [
            (1, id),
            (2, Value::Text(self.channel.clone().into())),
            (3, Value::Text(self.text.clone())),
            (4, expire),
            (7, kind),
        ];
        message(&without_defaults(all))
    }

    /// As a `PushMessage`.
    pub(super) fn as_push(&self) -> Bytes {
        let all = [
            (2, Value::Text(self.text.clone())),
            (3, Value::Text(self.channel.clone().into())),
            (5, Value::Number(i64::from(self.expire) as u64)),
        ];
        message(&without_defaults(all))
    }
}

fn without_defaults<const N: usize>(all: [(u32, Value); N]) -> Vec<(u32, Value)> {
    let is_default = |value: &Value| match value {
        Value::Number(n) => *n == 0,
        Value::Text(text) => text.is_empty(),
        Value::Fixed(..) => false,
    };
    all.into_iter().filter(|(_, value)| !is_default(value)).collect()
}

/// A push's bytes.
pub(super) fn push(channel: &str, text: &str, expire: i32) -> Bytes {
    let text = Bytes::copy_from_slice(text.as_bytes());
    Said { channel: channel.into(), text, expire, ..Said::default() }.as_push()
}

/// A gate's answer or question, without an echo.
pub(super) fn answer(channel: &str, id: u64, kind: u64) -> Bytes {
    Said { channel: channel.into(), id, kind, ..Said::default() }.as_response()
}

/// `DeliverRemoveRequest`.
pub(super) fn removal(channel: &str, id: i64) -> Bytes {
    let all = [(1, Value::Text(channel.to_owned().into())), (2, Value::Number(id as u64))];
    message(&without_defaults(all))
}

/// The number in this field of a message.
pub(super) fn number_in(bytes: &[u8], field: u32) -> u64 {
    number(&fields(bytes), field)
}

/// The text in this field of a message.
pub(super) fn text_in(bytes: &[u8], field: u32) -> String {
    utf8(&text(&fields(bytes), field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::vectors::unhex;

    #[test]
    fn numbers_change_and_all_else_stays() {
        let bytes = unhex("12077b2261223a317d1a023231200728d804");
        assert_eq!(with_number(&bytes, 4, 7), bytes);
        assert_eq!(with_number(&bytes, 4, 0), unhex("12077b2261223a317d1a02323128d804"));
        assert_eq!(with_number(&with_number(&bytes, 4, 0), 4, 7), bytes);
        assert_eq!(push("21", "{\"a\":1}", 600), unhex("12077b2261223a317d1a02323128d804"));
        let said = Said::to_gate(&bytes);
        assert_eq!((said.id, said.expire, said.kind, &*said.channel), (7, 600, 0, "21"));
        let answer = Said { kind: UNRECEIVED, ..said };
        assert_eq!(answer.as_response(), unhex("0807120232311a077b2261223a317d20d8043803"));
        assert_eq!(Said::push(&push("a", "b", -1)).expire, -1);
    }
}
