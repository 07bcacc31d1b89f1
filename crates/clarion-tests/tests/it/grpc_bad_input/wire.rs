//! How calls travel: connections that are none, too many streams, resets, long heads, networks.

use clarion_tests::{
    Server,
    grpc::{Grpc, Setup, Status},
    raw::Connection,
    wait_until,
};
use clarion_wire::proto::{
    clarion_v1::{Hello, Mode, SubscribeRequest, SubscribeResponse, subscribe_request::Request},
    message_pusher::{Message, Response},
};
use h2::Reason;

use super::assert_well;
use crate::grpc::{Stream, connect, path, publish, reads};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn what_is_no_http2() {
    let server = Server::builder().set("limits.head_timeout", "500ms").start();
    let at = server.listener("grpc");
    for bytes in [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", &[0; 500]]
    {
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(bytes).expect("sent");
        let answer = connection.rest().expect("an end");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 505 ") && text.contains("gRPC"), "{text}");
    }
    for part in [&b""[..], b"P", &PREFACE[..23]] {
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(part).expect("sent");
        assert_eq!(connection.rest().expect("an end"), b"", "{} bytes", part.len());
    }
    assert_well(&server).await;
}

#[tokio::test]
async fn frames_that_are_none_end_the_connection() {
    let server = Server::start();
    let at = server.listener("grpc");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for bytes in [
        // DATA on a stream that is not open, a frame that is too long, HEADERS that are no HPACK, nonsense.
        &[0, 0, 1, 0, 0, 0, 0, 0, 1, 7][..],
        &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff],
        &[0xff; 4096],
    ] {
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(&[PREFACE, &settings, bytes].concat()).expect("sent");
        let answer = connection.rest().expect("an end");
        assert!(answer.len() > 9, "a GOAWAY is told: {answer:?}");
    }
    assert_well(&server).await;
}

#[tokio::test]
async fn a_gate_may_be_silent_and_a_subscriber_not() {
    let server = Server::builder().set("grpc.hello_timeout", "200ms").start();
    let grpc = connect(&server).await;
    let mut gate = grpc
        .start::<Message>("/message_pusher.MessagePusher/GateStream", &[])
        .await
        .expect("a call");
    gate.headers().await.expect("headers");
    let mut silent =
        grpc.start::<SubscribeResponse>(&path("Subscribe"), &[]).await.expect("a call");
    assert_eq!(silent.end().await.code, 4);
    gate.finish();
    assert_eq!(gate.end().await.code, 0);
    drop(grpc);
    assert_well(&server).await;
}

#[tokio::test]
async fn ten_thousand_streams_on_one_connection() {
    const STREAMS: usize = 10_000;
    let server = Server::builder().set("limits.streams", "6000").start();
    let at = server.listener("grpc");
    let grpc = Grpc::open_with(at, Setup { window: 16 << 20, receive_buffer: None }).await;
    publish(&grpc, "user:before", "x").await;
    let before = server.peak_rss_kib();
    let hello = SubscribeRequest {
        request: Some(Request::Hello(Hello {
            addresses: vec!["topic:many".into()],
            ..Default::default()
        })),
    };
    let mut streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut stream =
            grpc.start::<SubscribeResponse>(&path("Subscribe"), &[]).await.expect("a call");
        stream.say(&hello);
        streams.push(stream);
    }
    let (mut served, mut refused) = (0, 0);
    for stream in &mut streams {
        match stream.next().await {
            Ok(Some(_)) => served += 1,
            Err(Status { code: 8, .. }) => refused += 1,
            other => panic!("{other:?}, the connection: {:?}", grpc.ended().await),
        }
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("{served} served, {refused} refused, +{grown} KiB");
    assert_eq!((served, refused), (6000, 4000));
    assert!(grown < 400 << 10, "{grown} KiB");
    grpc.kill().await;
    drop(streams);
    assert_well(&server).await;
}

/// HEADERS of a Subscribe call on this stream, and a reset of it (RFC 9113 §6.2, §6.4; RFC 7541).
fn call_and_reset(stream: u32) -> Vec<u8> {
    let path = path("Subscribe");
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    // :method POST, :scheme http, :path, :authority, content-type
    let block = [
        &[0x83, 0x86, 0x04][..],
        &text(&path),
        &[0x01],
        &text("t"),
        &[0x0f, 0x10],
        &text("application/grpc"),
    ]
    .concat();
    let length = u8::try_from(block.len()).expect("short");
    let id = stream.to_be_bytes();
    [&[0, 0, length, 1, 4][..], &id, &block, &[0, 0, 4, 3, 0], &id, &[0, 0, 0, 8]].concat()
}

#[tokio::test]
async fn rapid_resets_end_the_connection_and_nothing_else() {
    let server = Server::start();
    let other = connect(&server).await;
    let mut stream = Stream::open(&other, reads("topic:well", Mode::Every)).await;
    let mut connection = Connection::open(server.listener("grpc")).expect("a connection");
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let resets = (0..5000).flat_map(|n| call_and_reset(2 * n + 1));
    let bytes: Vec<u8> = PREFACE.iter().copied().chain(settings).chain(resets).collect();
    // The connection may end under it.
    let _ = connection.send(&bytes);
    let answer = connection.rest().unwrap_or_default();
    // GOAWAY with ENHANCE_YOUR_CALM, unless the end of the connection took it along.
    let calm = answer.windows(4).any(|code| code == [0, 0, 0, 0x0b]);
    assert!(calm || answer.is_empty(), "{answer:?}");
    publish(&other, "topic:well", "x").await;
    assert_eq!(stream.texts(1).await, ["x"]);
    drop((stream, other));
    assert_well(&server).await;
}

#[tokio::test]
async fn a_head_of_a_mebibyte() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let long = "x".repeat(1 << 20);
    let started = grpc.start::<SubscribeResponse>(&path("Subscribe"), &[("a", &long)]).await;
    if let Ok(mut stream) = started {
        let status = stream.end().await;
        println!("{status:?}");
        assert!(status.code < 0, "{status:?}");
    }
    drop(grpc);
    assert_well(&server).await;
}

/// The reason of a GOAWAY.
async fn goodbye(server: &Server) -> (Option<Reason>, String) {
    let grpc = connect(server).await;
    let error = grpc.ended().await.expect_err("it is sent away");
    (error.reason(), error.to_string())
}

#[tokio::test]
async fn connections_beyond_the_limit_and_from_elsewhere() {
    let server =
        Server::builder().set("limits.connections", "2").set("limits.streams", "2").start();
    let first = connect(&server).await;
    let second = connect(&server).await;
    for grpc in [&first, &second] {
        publish(grpc, "user:c", "x").await;
    }
    let (reason, text) = goodbye(&server).await;
    assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM), "{text}");
    assert!(text.contains("too_many_connections"), "{text}");
    first.kill().await;
    wait_until("room", async || {
        let Ok(grpc) = Grpc::try_open(server.listener("grpc"), Setup::default()).await else {
            return false;
        };
        let request = crate::grpc::message("user:c", "x");
        let answer: Result<clarion_wire::proto::clarion_v1::PublishResponse, Status> =
            grpc.call(&path("Publish"), &request).await;
        answer.is_ok()
    })
    .await;
    drop(second);
    let server = Server::builder().set("listeners.grpc.allow_from", "[10.9.8.0/24]").start();
    let (_, text) = goodbye(&server).await;
    assert!(text.contains("network_forbidden"), "{text}");
    assert_well(&server).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_ended() {
    let server = Server::builder().set("limits.body_timeout", "300ms").start();
    let grpc = connect(&server).await;
    let mut call = grpc
        .start::<Response>("/message_pusher.MessagePusher/PushToChannel", &[])
        .await
        .expect("a call");
    call.say_bytes(bytes::Bytes::from_static(&[0, 0, 0, 0, 9]));
    let status = call.end().await;
    assert_eq!((status.code, status.get("clarion-name")), (4, Some("request_timeout")));
    drop(grpc);
    assert_well(&server).await;
}

#[tokio::test]
async fn a_flood_of_small_requests_is_slowed_down_and_not_ended() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let hello = Hello { credit: Some(0), ..reads("queue:flood", Mode::Unify) };
    let mut stream = Stream::open(&grpc, hello).await;
    for _ in 0..200_000 {
        stream.credit(1);
    }
    stream.ack_each(&[], 1);
    stream.stored(1).await;
    publish(&grpc, "queue:flood", "x").await;
    assert_eq!(stream.texts(1).await, ["x"]);
    assert_eq!(stream.finish().await.code, 0);
    drop(grpc);
    assert_well(&server).await;
}

#[tokio::test]
async fn refusals_do_not_add_up_to_the_end_of_a_connection() {
    let server = Server::builder().set("limits.streams", "1").start();
    let grpc = connect(&server).await;
    let first = Stream::open(&grpc, reads("topic:t", Mode::Every)).await;
    let hello = SubscribeRequest { request: Some(Request::Hello(Hello::default())) };
    for _ in 0..200 {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let path = path("Subscribe");
            let mut stream = grpc.start::<SubscribeResponse>(&path, &[]).await.expect("a call");
            stream.say(&hello);
            streams.push(stream);
        }
        for stream in &mut streams {
            assert_eq!(stream.end().await.get("clarion-name"), Some("too_many_streams"));
        }
    }
    assert_eq!(first.finish().await.code, 0);
    drop(grpc);
    assert_well(&server).await;
}
