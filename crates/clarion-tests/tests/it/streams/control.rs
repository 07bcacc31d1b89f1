//! Heartbeats, ends, live messages, the bound on streams.

use crate::api::{Api, Stream};
use clarion_tests::{
    Server,
    raw::{Connection, request},
    wait_for,
};
use serde_json::json;

#[test]
fn a_quiet_stream_has_heartbeats() {
    let server = Server::builder().set("sse.heartbeat", "250ms").start();
    let mut connection = Connection::open(server.addr()).expect("the server accepts");
    let head = request("GET", "/api/v1/stream?user=u", server.addr(), "", b"");
    connection.send(&head).expect("the server reads");
    let head = connection.head().expect("an answer");
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    let retry = connection.chunk().expect("the time to come back after");
    assert_eq!(retry, b"retry: 2000\n\n");
    for _ in 0..2 {
        assert_eq!(connection.chunk().expect("a heartbeat"), b":\n\n");
    }
}

#[test]
fn heartbeats_stand_between_events() {
    let server = Server::builder().set("sse.heartbeat", "250ms").set("sse.retry", "5s").start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    api.publish_numbers("user:u", 1, 1);
    feed.numbers(1, 1);
    feed.heartbeat();
    api.publish_numbers("user:u", 2, 2);
    feed.numbers(2, 2);
}

#[test]
fn a_live_message_has_no_id_and_no_seq() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    let live = api.publish_live("user:u", "live");
    assert_eq!((live.durability.as_str(), live.seq, live.epoch), ("none", 0, 0));
    let event = feed.message();
    assert_eq!(event.id, None, "nothing to resume from");
    assert_eq!((&event.data["seq"], &event.data["id"]), (&json!(0), &json!(live.id)));
    api.publish("user:u", "stored");
    let event = feed.message();
    assert!(event.id.is_some());
    assert_eq!(event.data["seq"], 1, "a live message takes no seq");
    drop(feed);
    api.publish_live("user:u", "nobody");
    assert_eq!(Stream::feed(&server, "u", "d").text(), "stored");
    let target = format!("/api/v1/messages/{}", live.id);
    assert_eq!(api.refused("GET", &target, None), (404, "not_stored".into(), false));
}

#[test]
fn a_stop_tells_every_stream() {
    let mut server = Server::builder().set("node.shards", "2").start();
    let mut streams: Vec<Stream> =
        (0..8).map(|n| Stream::feed(&server, &format!("u{n}"), "d")).collect();
    streams.push(Stream::open(&server, "address=topic:t", None));
    let status = server.terminate();
    assert_eq!(status.code(), Some(0), "{status}");
    for mut stream in streams {
        assert_eq!(stream.closed(), "shutdown");
    }
}

#[test]
fn streams_of_a_listener_are_bounded() {
    let server = Server::builder().set("limits.streams", "2").start();
    let mut api = Api::of(&server);
    let first = Stream::feed(&server, "u", "a");
    let mut second = Stream::open(&server, "address=user:u", None);
    for query in ["user=u&device=c", "address=user:u"] {
        let (status, name, retry) = api.refused("GET", &format!("/api/v1/stream?{query}"), None);
        assert_eq!((status, name.as_str(), retry), (503, "too_many_streams", true));
    }
    api.publish("user:u", "others are served");
    assert_eq!(second.text(), "others are served");
    drop(first);
    let mut freed = None;
    wait_for("a place", || {
        freed = Stream::try_open(server.addr(), "user=u&device=c", None).ok();
        freed.is_some()
    });
    assert_eq!(freed.expect("waited for").text(), "others are served");
}

#[test]
fn a_stream_on_a_reused_connection_and_one_whose_request_has_a_body() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let at = server.addr();
    let mut reused = Connection::open(at).expect("the server accepts");
    reused.send(&request("GET", "/healthz", at, "", b"")).expect("the server reads");
    assert_eq!(reused.answer().expect("an answer").status, 200);
    let mut reused = Stream::on(reused, at, "user=u&device=a", None).expect("a stream");
    // Through the other way: such a request keeps its connection with the HTTP server, in chunks.
    let mut chunked = Connection::open(at).expect("the server accepts");
    chunked
        .send(&request("GET", "/api/v1/stream?user=u&device=b", at, "", b"body"))
        .expect("the server reads");
    let head = chunked.head().expect("an answer");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    api.publish("user:u", "to both");
    assert_eq!(reused.text(), "to both");
    let event = chunked.until(b"to both").expect("the event");
    assert!(String::from_utf8_lossy(&event).contains("event: message\ndata: "));
}

#[test]
fn a_client_of_http_1_0_reads_to_the_end() {
    let mut server = Server::start();
    let mut connection = Connection::open(server.addr()).expect("the server accepts");
    connection.send(b"GET /api/v1/stream?user=u HTTP/1.0\r\n\r\n").expect("the server reads");
    let head = connection.head().expect("an answer");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    assert_eq!(server.terminate().code(), Some(0));
    let body = connection.rest().expect("the body");
    let close =
        "retry: 2000\n\nevent: close\ndata: {\"reason\":\"shutdown\",\"retry_ms\":2000}\n\n";
    assert_eq!(String::from_utf8_lossy(&body), close);
}

#[test]
fn a_head_request_is_no_stream() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut connection = Connection::open(server.addr()).expect("the server accepts");
    let head =
        request("HEAD", "/api/v1/stream?user=u", server.addr(), "connection: close\r\n", b"");
    connection.send(&head).expect("the server reads");
    assert_eq!(connection.head().expect("an answer").status, 405);
    assert_eq!(connection.rest().expect("the end"), b"");
    assert_eq!(api.ok("GET", "/api/v1/users/u/presence", None)["online"], false);
}
