//! The recordings as they lie in `vectors/`. Must not know: what is right.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

/// One recorded run against one fresh server.
#[derive(Debug, Deserialize)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) mode: Option<String>,
    pub(super) steps: Vec<Step>,
}

/// One thing that an actor did or saw.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    #[serde(default)]
    pub(super) at_ms: u64,
    #[serde(default)]
    pub(super) actor: String,
    #[serde(default)]
    pub(super) rpc: String,
    pub(super) path: Option<String>,
    pub(super) call: Option<u32>,
    pub(super) event: Option<String>,
    pub(super) send: Option<Value>,
    pub(super) recv: Option<Value>,
    pub(super) hex: Option<String>,
    pub(super) status: Option<StatusSeen>,
    pub(super) bug: Option<String>,
    pub(super) metadata: Option<Value>,
    pub(super) note: Option<String>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) grpc_encoding: Option<String>,
}

/// How a call or a stream ended.
#[derive(Debug, Deserialize)]
pub(super) struct StatusSeen {
    pub(super) number: i32,
    #[serde(default)]
    pub(super) details: String,
    pub(super) made_by: Option<String>,
}

impl Step {
    /// The step's bytes as they were on the wire, where they are recorded.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        self.hex.as_deref().map(|hex| Bytes::from(unhex(hex)))
    }

    /// The metadata, in order.
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        match &self.metadata {
            Some(Value::Object(map)) => {
                map.iter().map(|(name, value)| (name.clone(), text(value))).collect()
            }
            Some(Value::Array(pairs)) => {
                pairs.iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Bytes from their hex digits.
pub(super) fn unhex(hex: &str) -> Vec<u8> {
    let digit = |d: u8| char::from(d).to_digit(16).expect("a hex digit") as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(200).map(|byte| format!("{byte:02x}")).collect()
}

/// A text of a recording: itself, or described by its length.
pub(super) fn text(of: &Value, name: &str) -> String {
    if let Some(text) = of[name].as_str() {
        return text.to_owned();
    }
    if let Some(repeat) = of[format!("{name}_repeat")].as_array() {
        let times = repeat[1].as_u64().expect("a number") as usize;
        return repeat[0].as_str().expect("a text").repeat(times);
    }
    match of[format!("{name}_bytes")].as_u64() {
        // A JSON string of that length.
        Some(length) => format!("\"{}\"", "x".repeat(length as usize - 2)),
        None => String::new(),
    }
}

/// A recording, by its path below `vectors/`.
pub(super) fn read(file: &str) -> Vec<Scenario> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All recordings.
pub(super) const FILES: [&str; 7] = [
    "mikudos/golden_unify.json",
    "mikudos/golden_group.json",
    "mikudos/golden_every.json",
    "mikudos/golden_status.json",
    "mikudos/golden_errors.json",
    "mikudos/golden_storage.json",
    "message-sync/golden.json",
];
