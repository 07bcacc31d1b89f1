//! How a request travels: framing, versions, hosts, bytes that are no HTTP at all.

use clarion_tests::{
    Server,
    raw::{self, Connection},
};

use super::{Cases, JSON, assert_healthy, open_stream};

const BODY: &str = r#"{"address":"user:wire","text":"t"}"#;

/// `POST /api/v1/publish` with these headers and whatever follows them.
fn publish(server: &Server, headers: &str, rest: &[u8]) -> Vec<u8> {
    let at = server.addr();
    let head = format!("POST /api/v1/publish HTTP/1.1\r\nhost: {at}\r\n{JSON}{headers}\r\n");
    [head.as_bytes(), rest].concat()
}

#[test]
fn bodies_over_the_limit() {
    let server = Server::builder()
        .set("limits.body_bytes", "64KiB")
        .set("limits.payload_bytes", "64KiB")
        .start();
    let mut cases = Cases::new(&server);
    let too_large = (413, "request_too_large");
    let padded = |n: usize| format!("{BODY}{}", " ".repeat(n - BODY.len()));
    cases.publish(padded(64 << 10), (200, ""));
    cases.publish(padded((64 << 10) + 1), too_large);
    // Larger than any buffer on the way: the answer is there all the same.
    cases.publish(padded(8 << 20), too_large);
    // Said, not sent: nothing is waited for.
    for length in ["65537", "99999999999", "9223372036854775807"] {
        let headers = format!("content-length: {length}\r\n");
        cases.raw(length, &publish(&server, &headers, b"{"), too_large);
        let headers = format!("expect: 100-continue\r\ncontent-length: {length}\r\n");
        cases.raw(length, &publish(&server, &headers, b""), too_large);
    }
    let chunked = "transfer-encoding: chunked\r\n";
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for chunks in [17, 2000] {
        let body = chunk.repeat(chunks);
        cases.raw("chunks", &publish(&server, chunked, body.as_bytes()), too_large);
    }
    let fits = format!("{}{:x}\r\n{BODY}\r\n0\r\n\r\n", chunk.repeat(15), BODY.len());
    cases.raw("chunks", &publish(&server, chunked, fits.as_bytes()), (200, ""));
    cases.finish();
}

#[test]
fn broken_framing() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    let chunked = "transfer-encoding: chunked\r\n";
    let long_extension = format!("1;{}\r\n", "x".repeat(100_000));
    for broken in [
        "zz\r\n",
        "-1\r\n",
        "\r\n",
        "1\r\nxy\r\n",
        "fffffffffffffffff\r\n",
        "1\nx\n",
        "0x10\r\n",
        "5\r\n12345\r\nnonsense",
        &long_extension,
    ] {
        let bytes = publish(&server, chunked, broken.as_bytes());
        cases.raw(broken.get(..20).unwrap_or(broken), &bytes, (400, "bad_request"));
    }
    // What comes after the last chunk is another request, and not one.
    let good = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len());
    cases.raw("chunked", &publish(&server, chunked, good.as_bytes()), (200, ""));
    for headers in [
        "content-length: -1\r\n",
        "content-length: x\r\n",
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "a b: c\r\n",
        ": c\r\n",
        "no colon\r\n",
        "a: b\0c\r\n",
    ] {
        let bytes = publish(&server, headers, BODY.as_bytes());
        cases.raw(headers, &bytes, (400, "bad_request"));
    }
    cases.finish();
}

#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let server = Server::start();
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let body = format!("{:x}\r\n{BODY}\r\n0\r\n\r\n{smuggled}", BODY.len());
    let headers = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", body.len());
    let mut connection = Connection::open(server.addr()).expect("a connection");
    connection.send(&publish(&server, &headers, body.as_bytes())).expect("sent");
    let first = connection.answer().expect("an answer");
    // Refused whole, or taken as chunks (RFC 9112 §6.3) and then closed or answered in order; never as 34 bytes.
    assert!(matches!(first.status, 200 | 400), "{first:?}");
    assert_healthy(&server);
}

#[test]
fn bodies_that_end_too_early() {
    let server = Server::start();
    for (headers, part) in [
        ("content-length: 1000\r\n", "{\"address\""),
        ("transfer-encoding: chunked\r\n", "a\r\n{\"addr"),
        ("transfer-encoding: chunked\r\n", "a"),
    ] {
        let mut connection = Connection::open(server.addr()).expect("a connection");
        connection.send(&publish(&server, headers, part.as_bytes())).expect("sent");
        connection.finish_sending().expect("half closed");
        let rest = connection.rest().expect("the end of the connection");
        let text = String::from_utf8_lossy(&rest);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
    }
    assert_healthy(&server);
}

#[test]
fn content_types_on_an_open_listener() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    let post = |content_type: &str| {
        raw::request("POST", "/api/v1/publish", server.addr(), content_type, BODY.as_bytes())
    };
    for good in ["application/json", "application/json; charset=utf-8", "Application/JSON ;x"] {
        cases.raw(good, &post(&format!("content-type: {good}\r\n")), (200, ""));
    }
    let wrong = (415, "unsupported_media_type");
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "", "\u{fc}"]
    {
        cases.raw(bad, &post(&format!("content-type: {bad}\r\n")), wrong);
    }
    cases.raw("none", &post(""), wrong);
    cases.finish();
}

#[test]
fn hosts() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    let get = |host: &str, version: &str| format!("GET /readyz HTTP/{version}\r\n{host}\r\n");
    let mut check = |host: &str, version: &str, expected| {
        cases.raw(&format!("{host:?} {version}"), get(host, version).as_bytes(), expected);
    };
    for host in ["127.0.0.1", "localhost:80", "[::1]:8080", "10.0.0.1:1"] {
        check(&format!("host: {host}\r\n"), "1.1", (200, ""));
        check(&format!("host: {host}\r\n"), "1.0", (200, ""));
    }
    for host in ["example.com", "localhost.example.com", "127.0.0.1.nip.io", "", "a b", "\u{fc}"] {
        check(&format!("host: {host}\r\n"), "1.1", (403, "host_forbidden"));
        check(&format!("host: {host}\r\n"), "1.0", (403, "host_forbidden"));
    }
    // RFC 9112 §3.2: exactly one in HTTP/1.1; HTTP/1.0 knows none.
    check("", "1.1", (400, "bad_request"));
    check("host: 127.0.0.1\r\nhost: 127.0.0.1\r\n", "1.1", (400, "bad_request"));
    check("host: 127.0.0.1\r\nhost: example.com\r\n", "1.1", (400, "bad_request"));
    check("", "1.0", (200, ""));
    cases.finish();
}

#[test]
fn bytes_that_are_no_http() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0xde, 0xad, 0xbe, 0xef];
    let bad = (400, "bad_request");
    cases.raw("TLS", &[&hello[..], &[7; 500]].concat(), bad);
    cases.raw("nul", &[0; 4096], bad);
    cases.raw("ff", &[0xff; 4096], bad);
    cases.raw("a word", b"HELO example.com\r\n\r\n", bad);
    // Nothing that this listener speaks would be understood by such a client.
    let mut http2 = Connection::open(server.addr()).expect("a connection");
    http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
    assert_eq!(http2.rest().expect("the end"), b"");
    cases.raw("HTTP/9.9", b"GET /healthz HTTP/9.9\r\nhost: 127.0.0.1\r\n\r\n", bad);
    cases.raw("no version", b"GET /healthz\r\n\r\n", bad);
    cases.raw("\\xff in the path", b"GET /\xff HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", bad);
    cases.raw("two spaces", b"GET  /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", bad);
    cases.raw("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", (404, "not_found"));
    cases.finish();
    // Where the listener does not speak it.
    let server = Server::builder().set("listeners.http.speaks", "[http]").start();
    let mut cases = Cases::new(&server);
    cases.raw("MQTT", b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc", bad);
    cases.finish();
}

#[test]
fn oversized_heads() {
    let server = Server::builder().set("limits.head_bytes", "8KiB").start();
    let mut cases = Cases::new(&server);
    let too_large = (431, "head_too_large");
    let head = |headers: &str| format!("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n");
    cases.raw("7 KiB", head(&format!("a: {}\r\n", "x".repeat(7 << 10))).as_bytes(), (200, ""));
    cases.raw("one header", head(&format!("a: {}\r\n", "x".repeat(9 << 10))).as_bytes(), too_large);
    cases.raw("1 MiB", head(&format!("a: {}\r\n", "x".repeat(1 << 20))).as_bytes(), too_large);
    cases.raw("many headers", head(&"a: b\r\n".repeat(150)).as_bytes(), too_large);
    let target = format!("GET /{} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", "x".repeat(20_000));
    cases.raw("a long target", target.as_bytes(), too_large);
    cases.raw("no end", &vec![b'x'; 100_000], too_large);
    cases.finish();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    let at = server.addr();
    let mut connection = Connection::open(at).expect("a connection");
    let publish = |text: &str| {
        let body = format!(r#"{{"address":"user:pipe","text":"{text}"}}"#);
        raw::request("POST", "/api/v1/publish", at, JSON, body.as_bytes())
    };
    let mut requests = Vec::new();
    for n in 0..50 {
        requests.extend(publish(&n.to_string()));
        requests.extend(raw::request("GET", "/nowhere", at, "", b""));
    }
    connection.send(&requests).expect("sent");
    for n in 1..=50 {
        let published = connection.answer().expect("an answer");
        assert_eq!(published.json()["seq"], n, "{published:?}");
        assert_eq!(connection.answer().expect("an answer").status, 404);
    }
    assert_healthy(&server);
}

#[test]
fn old_clients_are_answered_and_closed() {
    let server = Server::start();
    let mut connection = Connection::open(server.addr()).expect("a connection");
    connection.send(b"GET /healthz HTTP/1.0\r\n\r\n").expect("sent");
    assert_eq!(connection.answer().expect("an answer").status, 200);
    assert_eq!(connection.rest().expect("the end"), b"");
    assert_healthy(&server);
}

#[test]
fn a_stream_with_a_body_or_with_requests_behind_it() {
    let server = Server::start();
    let at = server.addr();
    let get = "GET /api/v1/stream?address=topic:odd HTTP/1.1\r\nhost: 127.0.0.1\r\n";
    let pipelined = raw::request("GET", "/healthz", at, "", b"");
    let behind = [format!("{get}\r\n").as_bytes(), &pipelined].concat();
    let requests = [
        format!("{get}content-length: 4\r\n\r\nbody").into_bytes(),
        format!("{get}content-length: 4\r\n\r\n").into_bytes(),
        format!("{get}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n").into_bytes(),
        behind,
    ];
    let mut streams = Vec::new();
    for request in &requests {
        let mut stream = Connection::open(at).expect("a connection");
        stream.send(request).expect("sent");
        let head = stream.head().expect("a head");
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        stream.until(b"retry: ").expect("the first line");
        streams.push(stream);
    }
    streams.push(open_stream(at, "address=topic:odd", ""));
    let body = br#"{"address":"topic:odd","text":"for all of them"}"#;
    let publish = raw::request("POST", "/api/v1/publish", at, JSON, body);
    assert_eq!(raw::exchange(at, &publish).expect("an answer").status, 200);
    for stream in &mut streams {
        stream.until(b"for all of them").expect("the message");
    }
    assert_healthy(&server);
}
