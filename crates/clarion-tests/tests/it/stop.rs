//! The stop by signal: whom it waits for, for how long, and that the store is closed whatever clients do.

use std::net::SocketAddr;

use clarion_tests::{
    Builder, Server,
    raw::{self, Connection},
    wait_for,
};
use rustix::process::Signal;

const JSON: &str = "content-type: application/json\r\n";

fn open(at: SocketAddr, bytes: &[u8]) -> Connection {
    let mut connection = Connection::open(at).expect("a connection");
    connection.send(bytes).expect("sent");
    connection
}

/// A connection that was answered and is used no more.
fn idle(at: SocketAddr) -> Connection {
    let mut connection = open(at, &raw::request("GET", "/healthz", at, "", b""));
    assert_eq!(connection.answer().expect("an answer").status, 200);
    connection
}

/// A request whose handler waits for the rest of the body.
fn partial_body(at: SocketAddr) -> Connection {
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nhost: {at}\r\n{JSON}expect: 100-continue\r\n\
         content-length: 100\r\n\r\n"
    );
    let mut connection = open(at, head.as_bytes());
    assert_eq!(connection.head().expect("go on").status, 100);
    connection.send(b"{").expect("sent");
    connection
}

/// The heads of a first and a second request that never end.
fn partial_heads(at: SocketAddr) -> [Connection; 2] {
    const PART: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: ";
    let mut second = idle(at);
    second.send(PART).expect("sent");
    [open(at, PART), second]
}

fn publish(server: &Server, text: &str) {
    let at = server.addr();
    let body = format!(r#"{{"address":"user:stop","text":"{text}"}}"#);
    let request = raw::request("POST", "/api/v1/publish", at, JSON, body.as_bytes());
    let answer = raw::exchange(at, &request).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
}

const CHANNEL: &str = "/api/v1/channels/user%3Astop/messages";

fn epoch(server: &Server) -> u64 {
    let at = server.addr();
    let request = raw::request("GET", &format!("{CHANNEL}?limit=1"), at, "", b"");
    let page = raw::exchange(at, &request).expect("an answer").json();
    page["epoch"].as_u64().filter(|epoch| *epoch > 0).unwrap_or_else(|| panic!("{page}"))
}

/// Only a stop that closes the store keeps the epoch.
fn builder() -> Builder {
    Server::builder().set("store.durability", "memory").set("limits.body_timeout", "1h")
}

#[test]
fn who_has_no_request_under_way_is_not_waited_for() {
    let mut server = builder()
        .set("limits.shutdown_timeout", "1h")
        .set("limits.head_timeout", "1h")
        .set("limits.idle_timeout", "1h")
        .start();
    let at = server.addr();
    publish(&server, "kept");
    let before = epoch(&server);
    let open = (idle(at), partial_heads(at), open(at, b""));
    assert_eq!(server.terminate().code(), Some(0));
    drop(open);
    server.restart();
    assert_eq!(epoch(&server), before);
    publish(&server, "lost, for all that the server knows");
    server.kill9();
    server.restart();
    assert_ne!(epoch(&server), before, "the epoch tells a clean stop from others");
}

#[test]
fn slow_clients_do_not_keep_the_store_from_being_closed() {
    let mut server = builder().set("limits.shutdown_timeout", "5s").start();
    let at = server.addr();
    let text = "x".repeat(900_000);
    for _ in 0..10 {
        publish(&server, &text);
    }
    let before = epoch(&server);
    // It reads the head, which comes with more than the sockets' buffers hold.
    let mut unread = open(at, &raw::request("GET", CHANNEL, at, "", b""));
    assert_eq!(unread.head().expect("a head").status, 200);
    let open = (partial_heads(at), partial_body(at), unread);
    assert_eq!(server.terminate().code(), Some(0));
    drop(open);
    assert!(!server.stderr().contains("not closed"), "{}", server.stderr());
    server.restart();
    assert_eq!(epoch(&server), before);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = builder().set("limits.shutdown_timeout", "1h").start();
    let at = server.addr();
    let _waited_for = partial_body(at);
    server.signal(Signal::TERM);
    wait_for("the listener's end", || Connection::open(at).is_err());
    assert!(server.is_running(), "a request is under way");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.stderr().contains("a second signal"), "{}", server.stderr());
}

#[test]
fn a_request_under_way_is_answered() {
    let mut server = builder().set("limits.shutdown_timeout", "1h").start();
    let at = server.addr();
    let body = r#"{"address":"user:stop","text":"late"}"#;
    let mut connection = partial_body(at);
    server.signal(Signal::TERM);
    wait_for("the listener's end", || Connection::open(at).is_err());
    connection.send(format!("{:99}", &body[1..]).as_bytes()).expect("sent");
    let answer = connection.answer().expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.wait().code(), Some(0));
    server.restart();
    assert_eq!(epoch(&server), answer.json()["epoch"].as_u64().expect("an epoch"));
}
