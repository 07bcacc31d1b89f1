//! A publish request, in JSON (design §9) or typed, checked and turned into what the node takes.
//!
//! Invariants: exactly one payload form; every limit is checked here, with the code of the refusal; JSON payloads are
//! validated, compacted and no deeper than the limit. Must not know: HTTP.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use clarion_core::{Address, Code, Content, Refusal};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Bounds of a publish.
#[derive(Debug, Clone, Copy)]
pub struct PublishLimits {
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// Number of headers.
    pub headers_count: usize,
    /// Bytes of all header names and values.
    pub headers_bytes: usize,
    /// Depth of a JSON payload.
    pub json_depth: usize,
}

/// Bytes of `kind`, `content_type` and `idempotency_key`.
pub const TEXT_BYTES_MAX: usize = 256;

/// The request as it comes. Field by field as in the HTTP API.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest<'a> {
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    json: Option<&'a RawValue>,
    #[serde(borrow, default)]
    base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    headers: Option<Headers>,
    #[serde(default)]
    expire: Option<serde_json::Number>,
    #[serde(borrow, default)]
    idempotency_key: Option<Cow<'a, str>>,
}

/// `null` is a JSON payload too, not an absent one.
fn present<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}

/// Pairs in order.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Headers(Pairs);

type Pairs = Vec<(Box<str>, Box<str>)>;

/// How long a message lives, as the request says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpireField {
    /// Not given.
    Absent,
    /// 0: only for those who are there.
    Live,
    /// Seconds, at least 1.
    Seconds(u64),
}

/// A checked request.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// Where to.
    pub address: Address,
    /// What.
    pub content: Content,
    /// How long.
    pub expire: ExpireField,
}

impl PublishRequest<'_> {
    /// Checks everything and builds the content.
    pub fn check(self, limits: &PublishLimits) -> Result<Checked, Refusal> {
        let address = Address::parse(&self.address)?;
        let expire = check_expire(self.expire.as_ref())?;
        let (payload, json) = check_payload(self.text, self.json, self.base64, limits)?;
        let content = Content {
            payload,
            json,
            counted: true,
            content_type: check_text("content_type", self.content_type)?,
            kind: check_text("kind", self.kind)?,
            headers: check_headers(self.headers, limits)?,
            idempotency_key: check_text("idempotency_key", self.idempotency_key)?,
            ..Content::default()
        };
        Ok(Checked { address, content, expire })
    }
}

/// A publish whose fields a typed protocol has parsed already; empty texts are absent.
#[derive(Debug, Default)]
pub struct TypedPublish<'a> {
    /// Where to.
    pub address: &'a str,
    /// The body.
    pub payload: Bytes,
    /// The body is JSON.
    pub json: bool,
    /// Media type of the body.
    pub content_type: &'a str,
    /// The application's name for this event.
    pub kind: &'a str,
    /// In order.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Seconds; `None` = as long as the channel keeps it.
    pub expire: Option<i64>,
    /// The same key again returns the first answer.
    pub idempotency_key: &'a str,
}

impl TypedPublish<'_> {
    /// Checks everything and builds the content.
    pub fn check(self, limits: &PublishLimits) -> Result<Checked, Refusal> {
        let text = |name, value: &str| {
            let value = (!value.is_empty()).then(|| Cow::Owned(value.to_owned()));
            check_text(name, value)
        };
        if self.payload.len() > limits.payload_bytes {
            return Err(too_large(self.payload.len(), limits));
        }
        let payload = if self.json {
            let json: &RawValue = serde_json::from_slice(&self.payload)
                .map_err(|error| Refusal::new(Code::BadPayload, format!("json: {error}")))?;
            compact(json.get(), limits.json_depth)?.into()
        } else {
            self.payload
        };
        let content = Content {
            payload,
            json: self.json,
            counted: true,
            content_type: text("content_type", self.content_type)?,
            kind: text("kind", self.kind)?,
            headers: check_headers(Some(Headers(self.headers)), limits)?,
            idempotency_key: text("idempotency_key", self.idempotency_key)?,
            ..Content::default()
        };
        let expire = match self.expire {
            None => ExpireField::Absent,
            Some(seconds) => check_seconds(u64::try_from(seconds).ok())?,
        };
        Ok(Checked { address: Address::parse(self.address)?, content, expire })
    }
}

fn bad(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

fn check_text(name: &str, value: Option<Cow<'_, str>>) -> Result<Option<Box<str>>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    if value.is_empty() || value.len() > TEXT_BYTES_MAX {
        return Err(bad(format!(
            "{name} must have 1 to {TEXT_BYTES_MAX} bytes, it has {}",
            value.len()
        )));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(format!("{name} has a control character")));
    }
    Ok(Some(value.into()))
}

fn check_headers(headers: Option<Headers>, limits: &PublishLimits) -> Result<Pairs, Refusal> {
    let Some(Headers(headers)) = headers else { return Ok(Vec::new()) };
    if headers.len() > limits.headers_count {
        return Err(bad(format!(
            "{} headers, the limit is {}",
            headers.len(),
            limits.headers_count
        )));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits.headers_bytes {
        return Err(bad(format!(
            "{bytes} bytes of headers, the limit is {}",
            limits.headers_bytes
        )));
    }
    if headers.iter().any(|(name, _)| name.is_empty()) {
        return Err(bad("a header's name is empty"));
    }
    Ok(headers)
}

fn check_expire(expire: Option<&serde_json::Number>) -> Result<ExpireField, Refusal> {
    let Some(number) = expire else { return Ok(ExpireField::Absent) };
    check_seconds(number.as_u64())
}

fn check_seconds(seconds: Option<u64>) -> Result<ExpireField, Refusal> {
    match seconds {
        Some(0) => Ok(ExpireField::Live),
        Some(seconds) => Ok(ExpireField::Seconds(seconds)),
        None => Err(Refusal::new(
            Code::BadExpire,
            "expire is whole seconds: 0 = only for those who are there, absent = as long as the channel keeps it",
        )),
    }
}

fn check_payload(
    text: Option<Cow<'_, str>>,
    json: Option<&RawValue>,
    base64: Option<Cow<'_, str>>,
    limits: &PublishLimits,
) -> Result<(Bytes, bool), Refusal> {
    let (payload, json) = match (text, json, base64) {
        (Some(text), None, None) => (text.into_owned().into_bytes(), false),
        (None, Some(json), None) => (compact(json.get(), limits.json_depth)?, true),
        (None, None, Some(base64)) => {
            // Three bytes for four characters: refused before memory is taken for what it holds.
            let least = (base64.len() / 4).saturating_sub(1) * 3;
            if least > limits.payload_bytes {
                return Err(too_large(least, limits));
            }
            let decoded = STANDARD.decode(&*base64);
            let wrong = |e| Refusal::new(Code::BadPayload, format!("base64: {e}"));
            (decoded.map_err(wrong)?, false)
        }
        (None, None, None) => {
            return Err(Refusal::new(Code::BadPayload, "give one of text, json and base64"));
        }
        _ => return Err(Refusal::new(Code::BadPayload, "give only one of text, json and base64")),
    };
    if payload.len() > limits.payload_bytes {
        return Err(too_large(payload.len(), limits));
    }
    Ok((payload.into(), json))
}

fn too_large(bytes: usize, limits: &PublishLimits) -> Refusal {
    let limit = limits.payload_bytes;
    Refusal::new(
        Code::PayloadTooLarge,
        format!("the payload has {bytes} bytes, the limit is {limit}"),
    )
}

/// Valid JSON without white space between its tokens, if it is no deeper than `depth_max`.
fn compact(json: &str, depth_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(json.len());
    let (mut in_string, mut escaped, mut depth) = (false, false, 0usize);
    for byte in json.bytes() {
        if in_string {
            out.push(byte);
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > depth_max {
                    let detail = format!("the JSON payload is nested deeper than {depth_max}");
                    return Err(Refusal::new(Code::BadPayload, detail));
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        out.push(byte);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
