//! The HTTP request with which MQTT over WebSocket begins (RFC 6455 §4.2, MQTT 5 §6).
//!
//! Invariants: one request, one answer; a head has a largest size; who is refused is told why, from the one code table. Where
//! a browser is let in by where it runs or by what it shows unasked, a page must be of this machine or of this server, unless
//! its origin is listed: else any page that somebody looks at could speak for him. For the same reason `Host` must be an IP
//! address or `localhost` on an open listener. Must not know: frames, how a head is read.

use crate::http::{is_ip_or_localhost, is_this_machine, raw_refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clarion_core::{Code, Refusal};
use sha1::{Digest, Sha1};

/// Where it is.
const PATH: &str = "/mqtt";
/// Where clients ask that drop the path: taken of those alone that name MQTT.
const ROOT: &str = "/";
/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;
const VERSION: &str = "13";
/// The names of MQTT as a WebSocket subprotocol, also of clients from before it was standardized.
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
const HEADERS_MAX: usize = 64;

/// Whom to take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// Clients prove who they are.
    pub(super) auth_required: bool,
    /// They do so by what a page has to be told, so it does not matter which page they are.
    pub(super) any_origin: bool,
    /// Origins that are taken besides; `*` = all.
    pub(super) allow_origins: &'a [String],
    /// Longest head.
    pub(super) head_bytes: usize,
}

/// What came of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The head is not whole.
    More,
    /// Taken: the answer, and where the frames begin.
    Taken { answer: Vec<u8>, head_len: usize },
    /// Not taken: the whole answer.
    Refused(Vec<u8>),
}

/// Reads a request that begins with `GET `.
pub(super) fn read(bytes: &[u8], rules: Rules<'_>) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let head_len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_len)) if head_len <= rules.head_bytes => head_len,
        Ok(httparse::Status::Partial) if bytes.len() < rules.head_bytes => return Asked::More,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return Asked::Refused(raw_refusal(&Code::HeadTooLarge.into(), ""));
        }
        Err(error) => {
            let refusal = Refusal::new(Code::BadRequest, error.to_string());
            return Asked::Refused(raw_refusal(&refusal, ""));
        }
    };
    match answer(&Request { inner: &request }, rules) {
        Ok(answer) => Asked::Taken { answer, head_len },
        Err(refusal) => Asked::Refused(raw_refusal(&refusal, more_headers(refusal.code))),
    }
}

/// Whether a request at `/` that begins like this asks for MQTT over WebSocket; `None` while its head is not whole.
pub(super) fn is_for_mqtt(bytes: &[u8]) -> Option<bool> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => None,
        Ok(httparse::Status::Complete(_)) => Some(Request { inner: &request }.names_mqtt()),
        Err(_) => Some(false),
    }
}

/// What a refusal must say besides (RFC 9110 §15.5.22, RFC 6455 §4.4).
fn more_headers(code: Code) -> &'static str {
    match code {
        Code::UpgradeRequired => "upgrade: websocket\r\nsec-websocket-version: 13\r\n",
        _ => "",
    }
}

struct Request<'a> {
    inner: &'a httparse::Request<'a, 'a>,
}

impl<'a> Request<'a> {
    /// The values of a header; those that are no text are empty ones.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        let named = self.inner.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
        named.map(|header| str::from_utf8(header.value).unwrap_or_default().trim())
    }

    /// The only value of a header; `Err` when there are several.
    fn one(&self, name: &'static str) -> Result<Option<&'a str>, Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(bad(format!("{name} stands there twice"))),
        }
    }

    /// The items of a header that is a list.
    fn items(&self, name: &'static str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|list| list.split(',')).map(str::trim).filter(|i| !i.is_empty())
    }

    fn has(&self, name: &'static str, item: &str) -> bool {
        self.items(name).any(|found| found.eq_ignore_ascii_case(item))
    }

    /// A WebSocket is asked for, and it is said that it is for MQTT.
    fn names_mqtt(&self) -> bool {
        self.has("upgrade", "websocket") && self.protocol().is_some()
    }

    /// The first subprotocol that is offered and known. The names are compared as they are (RFC 6455 §4.2.2).
    fn protocol(&self) -> Option<&'static str> {
        let mut offered = self.items("sec-websocket-protocol");
        offered.find_map(|item| PROTOCOLS.into_iter().find(|known| *known == item))
    }
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

fn answer(request: &Request<'_>, rules: Rules<'_>) -> Result<Vec<u8>, Refusal> {
    let host =
        request.one("host")?.ok_or_else(|| bad("an HTTP/1.1 request has exactly one Host"))?;
    if !rules.auth_required && !is_ip_or_localhost(host) {
        return Err(Code::HostForbidden.into());
    }
    let path = request.inner.path.unwrap_or_default();
    let is_there = path.split('?').next() == Some(PATH) || path == ROOT && request.names_mqtt();
    if !is_there {
        return Err(Code::NotFound.into());
    }
    // In HTTP/1.0 a connection cannot be upgraded.
    let asks = request.has("upgrade", "websocket") && request.has("connection", "upgrade");
    if request.inner.version != Some(1) || !asks {
        return Err(Code::UpgradeRequired.into());
    }
    if request.one("sec-websocket-version")? != Some(VERSION) {
        let detail = "sec-websocket-version must be 13";
        return Err(Refusal::new(Code::UpgradeRequired, detail));
    }
    if request.items("content-length").any(|length| length != "0")
        || request.all("transfer-encoding").next().is_some()
    {
        return Err(bad("an upgrade has no body"));
    }
    let key = request.one("sec-websocket-key")?.unwrap_or_default();
    if STANDARD.decode(key).map(|key| key.len()) != Ok(KEY_BYTES) {
        return Err(bad("sec-websocket-key must be 16 bytes in base64"));
    }
    let origin = request.one("origin")?;
    if !rules.any_origin && !origin.is_none_or(|o| is_taken(o, host, rules.allow_origins)) {
        return Err(Code::OriginForbidden.into());
    }
    Ok(switch(key, protocol(request)?))
}

/// Whether a page of this origin may come in to this host. One from another machine's address is a stranger like any other.
fn is_taken(origin: &str, host: &str, allowed: &[String]) -> bool {
    if allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let page = origin.split_once("://").map(|(_, page)| page);
    page.is_some_and(|page| is_this_machine(page) || page.eq_ignore_ascii_case(host))
}

/// The subprotocol to answer: the first that is offered and known. Who offers none gets none.
fn protocol(request: &Request<'_>) -> Result<Option<&'static str>, Refusal> {
    if request.items("sec-websocket-protocol").next().is_none() {
        return Ok(None);
    }
    let known = request.protocol();
    known.map(Some).ok_or_else(|| bad("no offered subprotocol is mqtt or mqttv3.1"))
}

fn switch(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let proof = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {}\r\n",
        STANDARD.encode(proof)
    );
    if let Some(protocol) = protocol {
        answer.push_str("sec-websocket-protocol: ");
        answer.push_str(protocol);
        answer.push_str("\r\n");
    }
    answer.push_str("\r\n");
    answer.into_bytes()
}

#[cfg(test)]
mod tests;
