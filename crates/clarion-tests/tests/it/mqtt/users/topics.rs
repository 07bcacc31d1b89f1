//! `topic:a/b` by HTTP and gRPC is the topic `a/b`, both ways.

use crate::{
    api::{Api, Stream},
    grpc,
    mqtt::versions,
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Version, id, pairs, prop, text},
};
use clarion_wire::proto::clarion_v1::Mode;
use serde_json::json;

versions! {
    http_reaches_subscribers: v31 v311 v5;
    publishes_reach_sse: v31 v311 v5;
    grpc_both_ways: v31 v311 v5;
}

fn client(server: &Server, version: Version, id: &str) -> Client {
    Client::connect(server.listener("mqtt"), version, id)
}

fn http_reaches_subscribers(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut exact = client(&server, version, "exact");
    let mut wild = client(&server, version, "wild");
    let mut member = client(&server, version, "member");
    exact.subscribe(&[("a/b", 1)]);
    wild.subscribe(&[("a/+", 0), ("#", 2)]);
    member.subscribe(&[("$share/g/a/b", 1)]);
    for n in 0..5 {
        let text = n.to_string();
        let stored = api.publish("topic:a/b", &text);
        assert_eq!(stored.durability, "none", "nobody durable reads it");
        assert_eq!((exact.message().topic, wild.message().text()), ("a/b".into(), text.clone()));
        assert_eq!(member.message().text(), text);
    }
    let batch: Vec<_> =
        (0..50).map(|n| json!({"address": "topic:a/b", "text": n.to_string()})).collect();
    api.batch(&batch);
    let numbers: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(exact.texts(50), numbers);
    assert_eq!(wild.texts(50), numbers);
    api.publish("topic:a", "other");
    exact.quiet();
    assert_eq!(wild.message().topic, "a");
}

fn publishes_reach_sse(version: Version) {
    let server = Server::start();
    let mut writer = client(&server, version, "writer");
    let mut stream = Stream::open(&server, "address=topic:a/b", None);
    for qos in 0..3 {
        // Read by SSE, so not a publish without readers.
        assert_eq!(writer.publish("a/b", format!("{qos}"), qos), 0);
        let event = stream.message();
        assert_eq!(
            (&event.data["text"], &event.data["channel"]),
            (&json!(qos.to_string()), &json!("topic:a/b"))
        );
    }
    writer.publish("a/b", [0xFF, 0xFE], 1);
    assert_eq!(stream.message().data["base64"], "//4=");
    writer.publish("a/c", "another topic", 1);
    writer.publish("a/b", "end", 1);
    assert_eq!(stream.text(), "end");
}

#[test]
fn properties_cross() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut both = client(&server, Version::V5, "both");
    both.subscribe(&[("from/http", 1)]);
    let mut stream = Stream::open(&server, "address=topic:from/mqtt", None);
    both.publish_as(
        Message::new("from/mqtt", "x")
            .qos(1)
            .with(prop::content_type("text/plain"))
            .with(prop::user("k", "1"))
            .with(prop::user("k", "2")),
    );
    let event = stream.message();
    assert_eq!(event.data["content_type"], "text/plain", "{}", event.data);
    assert_eq!(event.data["headers"], json!([["k", "1"], ["k", "2"]]), "{}", event.data);
    api.publish_as(&json!({
        "address": "topic:from/http", "text": "x", "content_type": "text/plain",
        "headers": [["k", "1"], ["k", "2"]],
    }));
    let got = both.message();
    assert_eq!(text(&got.properties, id::CONTENT_TYPE), Some("text/plain"));
    assert_eq!(pairs(&got.properties), [("k", "1"), ("k", "2")]);
}

fn grpc_both_ways(version: Version) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let server = Server::start();
    let mut reader = client(&server, version, "reader");
    let mut writer = client(&server, version, "writer");
    reader.subscribe(&[("g/+", 1)]);
    runtime.expect("a runtime").block_on(async {
        let grpc = grpc::connect(&server).await;
        let mut stream = grpc::Stream::open(&grpc, grpc::reads("topic:g/a", Mode::Every)).await;
        let answer = grpc::publish(&grpc, "topic:g/a", "by gRPC").await;
        assert_eq!(answer.seq, 0, "live");
        assert_eq!(stream.texts(1).await, ["by gRPC"]);
        assert_eq!(reader.message().text(), "by gRPC");
        for qos in 0..3 {
            writer.publish("g/a", format!("{qos}"), qos);
            assert_eq!(stream.texts(1).await, [qos.to_string()]);
            assert_eq!(reader.message().text(), qos.to_string());
        }
    });
}

/// A topic with a durable reader, or with history, is stored whoever publishes.
#[test]
fn stored_topics_are_acknowledged_when_they_are_stored() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = client(&server, Version::V5, "writer");
    let mut reader = client(&server, Version::V5, "reader");
    reader.subscribe(&[("kept/a", 2)]);
    drop(Stream::open(&server, "address=topic:kept/a&user=ann&device=d", None));
    for n in 1..=20 {
        assert_eq!(writer.publish("kept/a", n.to_string(), 1 + n % 2), 0);
    }
    let page = api.read("topic:kept%2Fa", "?limit=100");
    let texts = crate::api::texts(&page);
    let numbers: Vec<String> = (1..=20).map(|n| n.to_string()).collect();
    assert_eq!(texts, numbers);
    assert_eq!(reader.texts(20), numbers);
    Stream::open(&server, "address=topic:kept/a&user=ann&device=d", None).numbers(1, 20);
}
