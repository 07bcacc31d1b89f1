//! Server-sent events as bytes (WHATWG HTML §9.2).
//!
//! Invariant: what is written never holds a line break inside a field, so a payload cannot forge an event. Must not
//! know: connections.

use crate::json::{write_message, write_string};
use clarion_core::subscription::Gap;
use clarion_core::{Address, Epoch, Message};
use std::io::Write;

/// A comment that keeps a quiet stream alive.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Appends `retry:`, the time that a client waits before it comes back.
pub fn retry(ms: u64, out: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = write!(out, "retry: {ms}\n\n");
}

/// Appends a message event without its `id:` line, which comes before it.
pub fn message(message: &Message, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: message\ndata: ");
    write_message(message, out);
    out.extend_from_slice(b"\n\n");
}

/// Appends a gap event: `{channel, epoch, from, to, reason}`; `to` is null when nobody knows.
pub fn gap(channel: &Address, epoch: Epoch, gap: Gap, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: gap\ndata: {\"channel\":");
    write_string(channel.as_str(), out);
    let _ = write!(out, ",\"epoch\":{epoch},\"from\":{}", gap.from);
    match gap.to {
        to if to >= gap.from => drop(write!(out, ",\"to\":{to}")),
        _ => out.extend_from_slice(b",\"to\":null"),
    }
    let _ = write!(out, ",\"reason\":\"{}\"}}\n\n", gap.reason.name());
}

/// Appends a close event: `{reason, retry_ms}`.
pub fn close(reason: &str, retry_ms: u64, out: &mut Vec<u8>) {
    let _ =
        write!(out, "event: close\ndata: {{\"reason\":\"{reason}\",\"retry_ms\":{retry_ms}}}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use clarion_core::subscription::GapReason;
    use clarion_core::{Content, MessageId};
    use std::sync::Arc;

    #[test]
    fn a_payload_cannot_forge_an_event() {
        let payload = Bytes::from_static(b"\n\nevent: close\r\ndata: x\r\r");
        let mut out = Vec::new();
        message(
            &Message {
                id: MessageId::live(1, 1, 1),
                channel: Address::all(),
                epoch: 0,
                seq: 0,
                created_at: 1,
                content: Arc::new(Content { payload, ..Content::default() }),
            },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 3);
        assert!(!text.contains('\r') && text.ends_with("\n\n"));
    }

    #[test]
    fn control_events() {
        let mut out = Vec::new();
        gap(&Address::all(), 3, Gap { from: 1, to: 2, reason: GapReason::Retention }, &mut out);
        gap(&Address::all(), 3, Gap { from: 9, to: 0, reason: GapReason::Epoch }, &mut out);
        close("kicked", 2000, &mut out);
        retry(5, &mut out);
        let expected = concat!(
            "event: gap\ndata: {\"channel\":\"all\",\"epoch\":3,\"from\":1,\"to\":2,\"reason\":\"retention\"}\n\n",
            "event: gap\ndata: {\"channel\":\"all\",\"epoch\":3,\"from\":9,\"to\":null,\"reason\":\"epoch\"}\n\n",
            "event: close\ndata: {\"reason\":\"kicked\",\"retry_ms\":2000}\n\nretry: 5\n\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
