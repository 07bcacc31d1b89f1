//! The JSON form of a message (design §9): what SSE carries as `data:` and a read of a channel answers.
//!
//! Invariant: one line, valid JSON, whatever the payload; `json` only for payloads that were validated as such, else
//! `text` if they are UTF-8, else `base64`.

use base64::{Engine, engine::general_purpose::STANDARD};
use clarion_core::Message;
use std::io::Write;

/// Appends the object.
pub fn write_message(message: &Message, out: &mut Vec<u8>) {
    let content = &*message.content;
    // Writing to a Vec does not fail.
    let _ = write!(out, "{{\"id\":\"{}\",\"channel\":", message.id);
    write_string(message.channel.as_str(), out);
    let _ = write!(out, ",\"seq\":{},\"epoch\":{}", message.seq, message.epoch);
    write_payload(&content.payload, content.json, out);
    write_rest(message, out);
}

/// Appends a retained message: its topic and QoS instead of its place in a channel.
pub fn write_retained(message: &Message, out: &mut Vec<u8>) {
    let content = &*message.content;
    out.extend_from_slice(b"{\"topic\":");
    write_string(message.channel.id(), out);
    write_payload(&content.payload, content.json, out);
    // Writing to a Vec does not fail.
    let _ = write!(out, ",\"qos\":{}", content.qos);
    write_rest(message, out);
}

/// What every form has behind the payload.
fn write_rest(message: &Message, out: &mut Vec<u8>) {
    let content = &*message.content;
    write_field("content_type", content.content_type.as_deref(), out);
    write_field("kind", content.kind.as_deref(), out);
    if !content.headers.is_empty() {
        out.extend_from_slice(b",\"headers\":[");
        for (i, (name, value)) in content.headers.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"[" } else { b",[" });
            write_string(name, out);
            out.push(b',');
            write_string(value, out);
            out.push(b']');
        }
        out.push(b']');
    }
    if let Some(sender) = &content.sender {
        out.extend_from_slice(b",\"sender\":{\"user\":");
        write_string(&sender.user, out);
        write_field("device", sender.device.as_deref(), out);
        out.push(b'}');
    }
    let _ = write!(out, ",\"created_at\":{}", message.created_at);
    if let Some(expires_at) = content.expires_at {
        let _ = write!(out, ",\"expires_at\":{expires_at}");
    }
    out.push(b'}');
}

/// Appends a message that was handed out: the object with which hand-out it is, and the lease.
pub fn write_leased(message: &Message, attempt: u32, lease: &str, out: &mut Vec<u8>) {
    write_message(message, out);
    out.pop();
    let _ = write!(out, ",\"attempt\":{attempt},\"lease\":\"{lease}\"}}");
}

fn write_payload(payload: &[u8], json: bool, out: &mut Vec<u8>) {
    if json {
        out.extend_from_slice(b",\"json\":");
        out.extend_from_slice(payload);
    } else if let Ok(text) = std::str::from_utf8(payload) {
        out.extend_from_slice(b",\"text\":");
        write_string(text, out);
    } else {
        out.extend_from_slice(b",\"base64\":\"");
        let at = out.len();
        out.resize(at + payload.len().div_ceil(3) * 4, 0);
        let written = STANDARD.encode_slice(payload, &mut out[at..]).unwrap_or(0);
        out.truncate(at + written);
        out.push(b'"');
    }
}

fn write_field(name: &str, value: Option<&str>, out: &mut Vec<u8>) {
    if let Some(value) = value {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        write_string(value, out);
    }
}

/// Appends a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    // Serializing a str to a Vec does not fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use clarion_core::{Address, Content, MessageId, Sender};
    use std::sync::Arc;

    fn form(content: Content) -> String {
        let message = Message {
            id: MessageId::stored(5, 1, 2),
            channel: Address::user("a\"b").unwrap(),
            epoch: 9,
            seq: 2,
            created_at: 5,
            content: Arc::new(content),
        };
        let mut out = Vec::new();
        write_message(&message, &mut out);
        let parsed: serde_json::Value = serde_json::from_slice(&out).expect("valid JSON");
        assert_eq!(parsed["channel"], "user:a\"b");
        assert!(!out.contains(&b'\n'));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn payloads_have_one_of_three_forms() {
        let text = form(Content {
            payload: Bytes::from_static(b"a\n\"\x01\xe2\x80\xa8"),
            ..Content::default()
        });
        assert!(text.contains(r#","text":"a\n\"\u0001"#), "{text}");
        let json =
            form(Content { payload: Bytes::from_static(b"[1]"), json: true, ..Content::default() });
        assert!(json.contains(r#","json":[1],"#), "{json}");
        let binary =
            form(Content { payload: Bytes::from_static(b"\xff\x00"), ..Content::default() });
        assert!(binary.contains(r#","base64":"/wA=","#), "{binary}");
        let empty = form(Content::default());
        assert!(empty.contains(r#","text":"","#), "{empty}");
    }

    #[test]
    fn a_retained_message_has_a_topic_and_no_place() {
        let message = Message {
            id: MessageId::live(5, 1, 2),
            channel: Address::topic("a/\"b").unwrap(),
            epoch: 0,
            seq: 0,
            created_at: 5,
            content: Arc::new(Content { qos: 1, payload: "x".into(), ..Content::default() }),
        };
        let mut out = Vec::new();
        write_retained(&message, &mut out);
        let expected = r#"{"topic":"a/\"b","text":"x","qos":1,"created_at":5}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_message_that_was_handed_out_says_so() {
        let message = Message {
            id: MessageId::stored(5, 1, 2),
            channel: Address::queue("q").unwrap(),
            epoch: 9,
            seq: 2,
            created_at: 5,
            content: Arc::default(),
        };
        let (mut plain, mut leased) = (Vec::new(), Vec::new());
        write_message(&message, &mut plain);
        write_leased(&message, 3, "AB_-", &mut leased);
        let plain = String::from_utf8(plain).unwrap();
        let expected =
            plain.replace("\"created_at\":5}", r#""created_at":5,"attempt":3,"lease":"AB_-"}"#);
        assert_eq!(String::from_utf8(leased).unwrap(), expected);
    }

    #[test]
    fn optional_fields_appear_when_they_are_there() {
        let all = form(Content {
            kind: Some("k".into()),
            content_type: Some("text/plain".into()),
            headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
            sender: Some(Sender { user: "u".into(), device: Some("d".into()) }),
            expires_at: Some(77),
            ..Content::default()
        });
        let expected = concat!(
            r#","content_type":"text/plain","kind":"k","headers":[["a","1"],["a","2"]],"#,
            r#""sender":{"user":"u","device":"d"},"created_at":5,"expires_at":77}"#
        );
        assert!(all.ends_with(expected), "{all}");
    }
}
