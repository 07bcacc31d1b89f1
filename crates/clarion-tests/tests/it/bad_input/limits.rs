//! How long a client may take, and how many may come.

use std::{
    io::{ErrorKind, Read, Write},
    time::Duration,
};

use clarion_tests::{
    Server,
    raw::{self, Connection},
    wait_for,
};

use super::{JSON, assert_healthy, assert_problem, open_stream};

/// Sends a byte whenever nothing came for a moment, until something comes; returns all of it.
fn drip(connection: &Connection, mut byte: impl FnMut() -> u8) -> Vec<u8> {
    let mut stream = connection.stream();
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    let (mut got, mut part) = (Vec::new(), [0; 1024]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => return got,
            Ok(n) => got.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                // The server may have closed in this moment; the next read tells.
                let _ = stream.write_all(&[byte()]);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !got.is_empty() => {
                return got;
            }
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&got)),
        }
    }
}

fn assert_timeout(answer: &[u8]) {
    let text = String::from_utf8_lossy(answer);
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!(text.contains("\"request_timeout\"") && text.contains("connection: close"), "{text}");
}

#[test]
fn a_head_that_never_ends_is_cut() {
    let server = Server::builder().set("limits.head_timeout", "400ms").start();
    let connection = Connection::open(server.addr()).expect("a connection");
    let mut head = b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ".iter().copied();
    assert_timeout(&drip(&connection, || head.next().unwrap_or(b'x')));

    // Also the second one on a connection that is in use.
    let mut connection = Connection::open(server.addr()).expect("a connection");
    connection.send(&raw::request("GET", "/healthz", server.addr(), "", b"")).expect("sent");
    assert_eq!(connection.answer().expect("an answer").status, 200);
    let mut head = b"GET /healthz HTTP/1.1\r\n".iter().copied();
    assert_timeout(&drip(&connection, || head.next().unwrap_or(b'x')));

    // Who says nothing at all is told nothing.
    let mut silent = Connection::open(server.addr()).expect("a connection");
    assert_eq!(silent.rest().expect("the end"), b"");
    assert_healthy(&server);
}

#[test]
fn a_body_that_stalls_is_cut() {
    let server = Server::builder().set("limits.body_timeout", "300ms").start();
    let at = server.addr();
    for (headers, part) in [
        ("content-length: 100\r\n", "{"),
        ("content-length: 100\r\n", ""),
        ("transfer-encoding: chunked\r\n", "5\r\n{"),
        ("transfer-encoding: chunked\r\n", ""),
    ] {
        let mut connection = Connection::open(at).expect("a connection");
        let head = format!("POST /api/v1/publish HTTP/1.1\r\nhost: {at}\r\n{JSON}{headers}\r\n");
        connection.send(head.as_bytes()).expect("sent");
        connection.send(part.as_bytes()).expect("sent");
        assert_problem(&connection.answer().expect("an answer"), 408, "request_timeout");
        assert_eq!(connection.rest().expect("the end"), b"");
    }
    // A body that drips is under way all the time, and still cut.
    let connection = Connection::open(at).expect("a connection");
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nhost: {at}\r\n{JSON}content-length: 9999\r\n\r\n"
    );
    connection.stream().write_all(head.as_bytes()).expect("sent");
    let got = drip(&connection, || b' ');
    assert!(got.starts_with(b"HTTP/1.1 408 "), "{:?}", String::from_utf8_lossy(&got));
    assert_healthy(&server);
}

#[test]
fn bodies_that_stall_leave_a_bounded_trace() {
    let server = Server::builder()
        .set("limits.body_bytes", "1MiB")
        .set("limits.bodies_bytes", "2MiB")
        .set("limits.body_timeout", "1h")
        .start();
    let at = server.addr();
    let publish = |bytes: usize| {
        let text = "x".repeat(bytes);
        let body = format!(r#"{{"address":"user:body","text":"{text}"}}"#);
        let request = raw::request("POST", "/api/v1/publish", at, JSON, body.as_bytes());
        raw::exchange(at, &request).expect("an answer")
    };
    assert_eq!(publish(500_000).status, 200);
    // Two fit; those that come too many are refused, and so is a whole one once two are held.
    let mut request = raw::request("POST", "/api/v1/publish", at, JSON, &[b' '; 1_000_000]);
    request.pop();
    let (mut stalled, mut refused) = (Vec::new(), None);
    wait_for("bodies that take all the room", || {
        assert!(stalled.len() < 100, "the room for bodies has no end");
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(&request).expect("sent");
        stalled.push(connection);
        refused = Some(publish(500_000)).filter(|answer| answer.status != 200);
        refused.is_some()
    });
    let refused = refused.expect("waited for");
    assert_problem(&refused, 503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    drop(stalled);
    wait_for("the room of bodies that have gone", || publish(500_000).status == 200);
    assert_eq!(publish(1_000_000).status, 200, "all of it is back");
    assert_healthy(&server);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::builder()
        .set("limits.head_timeout", "200ms")
        .set("limits.idle_timeout", "600ms")
        .start();
    let at = server.addr();
    let mut connection = Connection::open(at).expect("a connection");
    let body = r#"{"address":"user:idle","text":"t"}"#;
    let length = body.len();
    let head = format!(
        "POST /api/v1/publish HTTP/1.1\r\nhost: {at}\r\n{JSON}expect: 100-continue\r\n\
         content-length: {length}\r\n\r\n"
    );
    connection.send(head.as_bytes()).expect("sent");
    // The body comes on its own, as most clients send it; it is no head of another request.
    assert_eq!(connection.head().expect("go on").status, 100);
    connection.send(body.as_bytes()).expect("sent");
    assert_eq!(connection.answer().expect("an answer").status, 200);
    let rest = connection.rest().expect("the end");
    assert_eq!(String::from_utf8_lossy(&rest), "");
    assert_healthy(&server);
}

#[test]
fn connections_over_the_limit_are_told() {
    let server =
        Server::builder().set("limits.connections", "3").set("limits.streams", "2").start();
    let at = server.addr();
    let mut kept: Vec<Connection> = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(&raw::request("GET", "/healthz", at, "", b"")).expect("sent");
        assert_eq!(connection.answer().expect("an answer").status, 200);
        kept.push(connection);
    }
    for _ in 0..5 {
        let mut refused = Connection::open(at).expect("a connection");
        assert_problem(&refused.answer().expect("an answer"), 503, "too_many_connections");
        assert_eq!(refused.rest().expect("the end"), b"");
    }
    let request = raw::request("GET", "/healthz", at, "", b"");
    let refused = raw::exchange(at, &request).expect("an answer");
    assert_problem(&refused, 503, "too_many_connections");
    // A stream keeps the place of its connection.
    let mut stream = kept.pop().expect("three");
    stream
        .send(b"GET /api/v1/stream?address=all HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        .expect("sent");
    assert_eq!(stream.head().expect("a head").status, 200);
    let refused = raw::exchange(at, &request).expect("an answer");
    assert_problem(&refused, 503, "too_many_connections");
    // All places come back.
    drop((kept, stream));
    wait_for("the places", || {
        let open = || {
            let mut connection = Connection::open(at)?;
            connection.send(&request)?;
            connection.answer().map(|answer| (connection, answer.status))
        };
        let all: Vec<_> = (0..3).map(|_| open().expect("an answer")).collect();
        all.iter().all(|(_, status)| *status == 200)
    });
    wait_for("a place", || raw::exchange(at, &request).is_ok_and(|answer| answer.status == 200));
    assert!(!server.stderr().contains("panicked"));
}

#[test]
fn streams_over_the_limit_are_refused() {
    let server = Server::builder().set("limits.streams", "2").start();
    let at = server.addr();
    let request =
        raw::request("GET", "/api/v1/stream?address=all", at, "connection: close\r\n", b"");
    let first = open_stream(at, "address=all", "");
    let second = open_stream(at, "user=u", "");
    let refused = raw::exchange(at, &request).expect("an answer");
    assert_problem(&refused, 503, "too_many_streams");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_healthy(&server);
    drop(first);
    wait_for("the place of a stream that has gone", || {
        let mut third = Connection::open(at).expect("a connection");
        third.send(&request).expect("sent");
        third.head().expect("a head").status == 200
    });
    drop(second);
    assert_healthy(&server);
}
