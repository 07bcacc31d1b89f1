//! The HTTP API and its streams over plain sockets: what the tests of one server share.
//!
//! Owns: calls that answer with JSON, a reader of server-sent events that keeps every line's meaning. Invariants: every
//! read has a deadline; nothing is retried. Must not know: the client library, which has tests of its own.

use clarion_tests::{
    DEADLINE, Server,
    raw::{Answer, Connection, request},
    wait_for,
};
use serde_json::{Value, json};
use std::{io::ErrorKind, net::SocketAddr, time::Instant};

/// Calls over one keep-alive connection.
pub(crate) struct Api {
    at: SocketAddr,
    connection: Option<Connection>,
}

/// What a publish was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) durability: String,
    pub(crate) duplicate: bool,
}

impl Stored {
    pub(crate) fn read(answer: &Value) -> Self {
        let number = |name: &str| answer[name].as_u64().unwrap_or_else(|| panic!("{answer}"));
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}"));
        Self {
            id: text("id").to_owned(),
            seq: number("seq"),
            epoch: number("epoch"),
            durability: text("durability").to_owned(),
            duplicate: answer["duplicate"].as_bool().unwrap_or(false),
        }
    }
}

impl Api {
    pub(crate) fn of(server: &Server) -> Self {
        Self::at(server.addr())
    }

    pub(crate) fn at(at: SocketAddr) -> Self {
        Self { at, connection: None }
    }

    /// One request, one answer, whatever it is.
    pub(crate) fn call(&mut self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let json = "content-type: application/json\r\n";
        let (headers, bytes) = match body {
            Some(body) => (json, body.to_string().into_bytes()),
            None => ("", Vec::new()),
        };
        let bytes = request(method, target, self.at, headers, &bytes);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.at).expect("the server accepts"),
        };
        connection.send(&bytes).expect("the server reads");
        let answer = connection.answer().expect("the server answers");
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        answer
    }

    /// A request that must succeed.
    pub(crate) fn ok(&mut self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let answer = self.call(method, target, body);
        assert!(
            matches!(answer.status, 200 | 204),
            "{method} {target}: {} {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        if answer.status == 204 { Value::Null } else { answer.json() }
    }

    /// A request that must be refused: its status, name and whether it can succeed later.
    pub(crate) fn refused(
        &mut self,
        method: &str,
        target: &str,
        body: Option<&Value>,
    ) -> (u16, String, bool) {
        let answer = self.call(method, target, body);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        let problem = answer.json();
        assert_eq!(problem["status"].as_u64(), Some(answer.status.into()), "{problem}");
        let name = problem["name"].as_str().expect("a refusal has a name").to_owned();
        (answer.status, name, problem["retry"].as_bool().expect("a refusal says it"))
    }

    pub(crate) fn publish_as(&mut self, message: &Value) -> Stored {
        Stored::read(&self.ok("POST", "/api/v1/publish", Some(message)))
    }

    pub(crate) fn publish(&mut self, address: &str, text: &str) -> Stored {
        self.publish_as(&json!({ "address": address, "text": text }))
    }

    /// Publishes to those who are there only.
    pub(crate) fn publish_live(&mut self, address: &str, text: &str) -> Stored {
        self.publish_as(&json!({ "address": address, "text": text, "expire": 0 }))
    }

    pub(crate) fn batch(&mut self, messages: &[Value]) -> Vec<Value> {
        let answer =
            self.ok("POST", "/api/v1/publish/batch", Some(&json!({ "messages": messages })));
        answer["results"].as_array().expect("results").clone()
    }

    /// Publishes texts `from..=to` to one address.
    pub(crate) fn publish_numbers(&mut self, address: &str, from: u64, to: u64) {
        for first in (from..=to).step_by(500) {
            let numbers = first..=to.min(first + 499);
            let message = |n: u64| json!({ "address": address, "text": n.to_string() });
            let results = self.batch(&numbers.map(message).collect::<Vec<_>>());
            assert!(results.iter().all(|r| r["error"].is_null()), "{results:?}");
        }
    }

    pub(crate) fn ack(&mut self, token: &str) -> bool {
        let answer = self.ok("POST", "/api/v1/ack", Some(&json!({ "token": token })));
        answer["moved"].as_bool().expect("an ack's answer")
    }

    pub(crate) fn status(&mut self, id: &str) -> Value {
        self.ok("GET", &format!("/api/v1/messages/{id}"), None)
    }

    /// A page of a channel.
    pub(crate) fn read(&mut self, address: &str, query: &str) -> Value {
        self.ok("GET", &format!("/api/v1/channels/{address}/messages{query}"), None)
    }

    /// One number of `/metrics`.
    pub(crate) fn metric(&mut self, name: &str) -> u64 {
        let answer = self.call("GET", "/metrics", None);
        let text = String::from_utf8(answer.body).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.trim().parse().expect("a whole number")
    }

    /// Waits until nobody of this user is connected.
    pub(crate) fn wait_gone(&mut self, user: &str) {
        wait_for("the end of the user's sessions", || {
            self.ok("GET", &format!("/api/v1/users/{user}/presence"), None)["online"] == false
        });
    }

    /// Waits until a device's ack of a message is stored.
    pub(crate) fn wait_acked(&mut self, id: &str, device: &str) {
        wait_for("the stored ack", || {
            let status = self.status(id);
            let devices = status["devices"].as_array().expect("devices");
            devices.iter().any(|d| d["device"] == device && d["acked"] == true)
        });
    }
}

/// The texts of a page.
pub(crate) fn texts(page: &Value) -> Vec<String> {
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|m| m["text"].as_str().expect("a text").to_owned()).collect()
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Value,
    pub(crate) id: Option<String>,
}

/// A stream of server-sent events.
pub(crate) struct Stream {
    connection: Connection,
    body: Vec<u8>,
    token: Option<String>,
}

impl Stream {
    /// A user's feed, as one device.
    pub(crate) fn feed(server: &Server, user: &str, device: &str) -> Self {
        Self::open(server, &format!("user={user}&device={device}"), None)
    }

    /// A stream that must be answered.
    pub(crate) fn open(server: &Server, query: &str, token: Option<&str>) -> Self {
        Self::try_open(server.addr(), query, token).unwrap_or_else(|answer| {
            panic!("{query}: {} {}", answer.status, String::from_utf8_lossy(&answer.body))
        })
    }

    /// A stream, or the refusal.
    pub(crate) fn try_open(
        at: SocketAddr,
        query: &str,
        token: Option<&str>,
    ) -> Result<Self, Answer> {
        let connection = Connection::open(at).expect("the server accepts");
        Self::on(connection, at, query, token)
    }

    /// A stream on this connection.
    pub(crate) fn on(
        mut connection: Connection,
        at: SocketAddr,
        query: &str,
        token: Option<&str>,
    ) -> Result<Self, Answer> {
        let token_line = token.map_or_else(String::new, |t| format!("last-event-id: {t}\r\n"));
        let head = format!("GET /api/v1/stream?{query} HTTP/1.1\r\nhost: {at}\r\n{token_line}\r\n");
        connection.send(head.as_bytes()).expect("the server reads");
        let mut answer = connection.head().expect("the server answers");
        if answer.status != 200 {
            let length = answer.header("content-length").and_then(|v| v.parse().ok());
            while answer.body.len() < length.expect("a refusal has a length") {
                answer.body.extend(connection.until(b"}").expect("a refusal has a body"));
            }
            return Err(answer);
        }
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
        Ok(Self { connection, body: Vec::new(), token: None })
    }

    /// The id of the last event that had one.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().expect("an event came before")
    }

    /// The next part of the body that ends with an empty line; `None` at the end of the body or the connection.
    fn block(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.body.windows(2).position(|two| two == b"\n\n") {
                return Some(self.body.drain(..end + 2).collect());
            }
            match self.connection.chunk() {
                Ok(chunk) if chunk.is_empty() => return None,
                Ok(chunk) => self.body.extend(chunk),
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("no event: {e}"),
            }
        }
    }

    /// The next event, or the stream's end; comments and `retry` are passed over.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let block = self.block()?;
            // Heartbeats alone would keep a read going for ever.
            assert!(Instant::now() < deadline, "no event within {DEADLINE:?}");
            let block = String::from_utf8(block).expect("events are UTF-8");
            let (mut name, mut data, mut id) = (None, None, None);
            for line in block.lines() {
                match line.split_once(": ").unwrap_or((line, "")) {
                    ("event", value) => name = Some(value.to_owned()),
                    ("id", value) => id = Some(value.to_owned()),
                    ("data", value) => data = Some(serde_json::from_str(value).expect("JSON")),
                    ("retry", value) => assert!(value.parse::<u64>().is_ok(), "{block:?}"),
                    (":" | "", "") => {}
                    _ => panic!("not an event: {block:?}"),
                }
            }
            if let Some(data) = data {
                if let Some(id) = &id {
                    assert!(id.len() <= 200, "{id} has {} bytes", id.len());
                    self.token = Some(id.clone());
                }
                return Some(Event { name: name.expect("events are named"), data, id });
            }
        }
    }

    /// Reads a heartbeat; anything else fails.
    pub(crate) fn heartbeat(&mut self) {
        assert_eq!(self.block().expect("the stream goes on"), b":\n\n");
    }

    pub(crate) fn event(&mut self) -> Event {
        self.next().expect("the stream goes on")
    }

    /// The next event, which is a message.
    pub(crate) fn message(&mut self) -> Event {
        let event = self.event();
        assert_eq!(event.name, "message", "{event:?}");
        event
    }

    /// The text of the next event, which is a message.
    pub(crate) fn text(&mut self) -> String {
        self.message().data["text"].as_str().expect("a text").to_owned()
    }

    /// The next messages' texts.
    pub(crate) fn texts(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.text()).collect()
    }

    /// Reads numbers `from..=to` in order, nothing between them.
    pub(crate) fn numbers(&mut self, from: u64, to: u64) {
        for expected in from..=to {
            assert_eq!(self.text(), expected.to_string());
        }
    }

    /// The next event, which is a control event of this name.
    pub(crate) fn control(&mut self, name: &str) -> Value {
        let event = self.event();
        assert_eq!((event.name.as_str(), &event.id), (name, &None), "{event:?}");
        event.data
    }

    /// Reads the close event and the end; returns the reason.
    pub(crate) fn closed(&mut self) -> String {
        let close = self.control("close");
        assert!(close["retry_ms"].is_u64(), "{close}");
        assert_eq!(self.next(), None, "a close event is the last");
        close["reason"].as_str().expect("a reason").to_owned()
    }
}
