//! Bad input: each kind with the exact answer that it gets, and a healthy server behind it.
//!
//! `fields`: what a request says · `taking`: what those say who share work · `wire`: how it travels · `limits`: how long
//! and how many · `trust`: who sends it · `burst`: ten thousand at once.

pub(crate) mod burst;
mod fields;
mod limits;
mod taking;
mod trust;
mod wire;

use std::net::SocketAddr;

use clarion_tests::{
    Server,
    raw::{self, Answer, Connection},
};

const JSON: &str = "content-type: application/json\r\n";

/// Requests and what they should have been answered; all that differ are told at once.
struct Cases<'a> {
    server: &'a Server,
    complaints: Vec<String>,
    count: usize,
}

impl<'a> Cases<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, complaints: Vec::new(), count: 0 }
    }

    fn note(&mut self, what: &str, answer: &Answer, expected: (u16, &str)) {
        self.count += 1;
        let (status, name) = expected;
        if (answer.status, problem(answer).as_str()) != expected {
            let body: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
            let got = answer.status;
            self.complaints.push(format!("{what}: expected {status} {name:?}, got {got} {body}"));
        }
    }

    /// Any bytes on a connection of their own.
    fn raw(&mut self, what: &str, bytes: &[u8], expected: (u16, &str)) -> Option<Answer> {
        match raw::exchange(self.server.addr(), bytes) {
            Ok(answer) => {
                self.note(what, &answer, expected);
                Some(answer)
            }
            Err(error) => {
                self.complaints.push(format!("{what}: expected {expected:?}, got {error}"));
                None
            }
        }
    }

    fn get(&mut self, target: &str, expected: (u16, &str)) {
        self.call("GET", target, "", expected);
    }

    fn call(&mut self, method: &str, target: &str, headers: &str, expected: (u16, &str)) {
        let at = self.server.addr();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n{headers}\r\n"
        );
        let what: String = format!("{method} {target}").chars().take(120).collect();
        self.raw(&what, request.as_bytes(), expected);
    }

    /// A body for `POST /api/v1/publish`.
    fn publish(&mut self, body: impl AsRef<[u8]>, expected: (u16, &str)) {
        self.post("/api/v1/publish", body, expected);
    }

    fn post(&mut self, target: &str, body: impl AsRef<[u8]>, expected: (u16, &str)) {
        let body = body.as_ref();
        let what: String = String::from_utf8_lossy(body).chars().take(120).collect();
        self.raw(&what, &raw::request("POST", target, self.server.addr(), JSON, body), expected);
    }

    /// Fails if anything was answered differently, or the server is not as well as before.
    fn finish(self) {
        assert!(self.count > 0, "nothing was asked");
        assert!(self.complaints.is_empty(), "\n{}\n", self.complaints.join("\n"));
        assert_healthy(self.server);
    }
}

/// The name of the problem that an answer tells; empty when it tells none.
fn problem(answer: &Answer) -> String {
    if answer.header("content-type") != Some("application/problem+json") {
        return String::new();
    }
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{body}");
    assert!(body["code"].is_u64() && body["retry"].is_boolean(), "{body}");
    body["name"].as_str().expect("a name").to_owned()
}

fn assert_problem(answer: &Answer, status: u16, name: &str) {
    assert_eq!((answer.status, problem(answer).as_str()), (status, name), "{answer:?}");
}

/// It answers, it stores, it has what it stored, and nothing in it panicked.
pub(crate) fn assert_healthy(server: &Server) {
    assert_alive(server.addr(), "");
    let stderr = server.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

fn assert_alive(at: SocketAddr, headers: &str) {
    let get = |target: &str| {
        let request = raw::request("GET", target, at, headers, b"");
        raw::exchange(at, &request).expect("an answer")
    };
    assert_eq!(get("/healthz").status, 200);
    assert_eq!(get("/readyz").status, 200);
    let body = br#"{"address":"user:health","text":"well"}"#;
    let request = raw::request("POST", "/api/v1/publish", at, &format!("{JSON}{headers}"), body);
    let published = raw::exchange(at, &request).expect("an answer");
    assert_eq!(published.status, 200, "{published:?}");
    let seq = published.json()["seq"].as_u64().expect("a seq");
    let page = get(&format!("/api/v1/channels/user%3Ahealth/messages?after={}", seq - 1));
    assert_eq!(page.json()["messages"][0]["text"], "well", "{page:?}");
}

/// Opens a stream and reads its head and its first line.
fn open_stream(at: SocketAddr, query: &str, headers: &str) -> Connection {
    let mut stream = Connection::open(at).expect("a connection");
    let request = format!("GET /api/v1/stream?{query} HTTP/1.1\r\nhost: {at}\r\n{headers}\r\n");
    stream.send(request.as_bytes()).expect("sent");
    let head = stream.head().expect("a head");
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    stream.until(b"\n\n").expect("the first lines");
    stream
}
