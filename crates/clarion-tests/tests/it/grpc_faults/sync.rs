//! Consumers of the gRPC push channel: what is written is acked, unless the connection broke.

use std::collections::BTreeSet;

use clarion_tests::{Server, grpc::Grpc, proxy::Proxy};

use super::{consume, submit, texts};
use crate::grpc::{connect, metric, no_session_is_left};

async fn consumers_are(server: &Server, count: usize) {
    clarion_tests::wait_until("the consumers", async || {
        let listed = server.client().sessions(&Default::default()).await.expect("sessions");
        listed.sessions.len() == count
    })
    .await;
}

#[tokio::test]
async fn what_a_vanished_consumer_was_written_comes_to_another() {
    for shards in ["1", "3"] {
        let server = Server::builder()
            .set("node.shards", shards)
            .set("grpc.keep_alive_interval", "200ms")
            .set("grpc.keep_alive_timeout", "200ms")
            .start();
        let producer = connect(&server).await;
        let proxy = Proxy::start(server.listener("grpc")).await;
        let behind = Grpc::open(proxy.addr()).await;
        let mut vanished = consume(&behind, "nat", &[]).await.expect("a stream");
        submit(&producer, "nat", "before", None).await.expect("submitted");
        assert_eq!(texts(&mut vanished, 1).await, ["before"]);
        proxy.swallow();
        let mut due = BTreeSet::new();
        for n in 0..20 {
            submit(&producer, "nat", &n.to_string(), None).await.expect("submitted");
            due.insert(n.to_string());
        }
        no_session_is_left(&server).await;
        let mut other = consume(&producer, "nat", &[]).await.expect("a stream");
        let mut order = Vec::new();
        while !due.is_empty() {
            let text = texts(&mut other, 1).await.remove(0);
            // What came in the same window as the break may come again.
            assert!(due.remove(&text) || text == "before", "{text}");
            order.push(text.parse::<i32>().unwrap_or(-1));
        }
        assert!(order.is_sorted(), "{order:?}");
        drop(other);
    }
}

#[tokio::test]
async fn a_killed_consumer_gives_back_and_a_cancelled_one_does_not() {
    let server = Server::start();
    let producer = connect(&server).await;
    let doomed = connect(&server).await;
    let mut first = consume(&doomed, "k", &[]).await.expect("a stream");
    for n in 0..5 {
        submit(&producer, "k", &n.to_string(), None).await.expect("submitted");
    }
    assert_eq!(texts(&mut first, 5).await, ["0", "1", "2", "3", "4"]);
    doomed.kill().await;
    let mut second = consume(&producer, "k", &[]).await.expect("a stream");
    // It was written within the last keep-alive window, so nobody knows whether it arrived.
    assert_eq!(texts(&mut second, 5).await, ["0", "1", "2", "3", "4"]);
    second.reset(h2::Reason::CANCEL);
    no_session_is_left(&server).await;
    submit(&producer, "k", "5", None).await.expect("submitted");
    let mut third = consume(&producer, "k", &[]).await.expect("a stream");
    assert_eq!(texts(&mut third, 1).await, ["5"], "who cancels had what was written");
}

#[tokio::test]
async fn a_stop_repeats_nothing_and_a_kick_loses_nothing() {
    let mut server = Server::start();
    let producer = connect(&server).await;
    let mut first = consume(&producer, "s", &[]).await.expect("a stream");
    for n in 0..50 {
        submit(&producer, "s", &n.to_string(), None).await.expect("submitted");
    }
    let mut got = texts(&mut first, 10).await;
    let session = server.client().sessions(&Default::default()).await.expect("sessions");
    server.client().end_session(&session.sessions[0].id).await.expect("kicked");
    let end = loop {
        match first.next().await {
            Ok(Some(message)) => got.push(message.message),
            Ok(None) => panic!("a kicked stream ended with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code, 14);
    let mut second = consume(&producer, "s", &[]).await.expect("a stream");
    submit(&producer, "s", "50", None).await.expect("submitted");
    let expected: Vec<String> = (0..51).map(|n| n.to_string()).collect();
    assert!(expected.starts_with(&got), "{got:?}");
    assert_eq!(
        texts(&mut second, 51).await,
        expected,
        "who is kicked may have been dead for a while"
    );
    submit(&producer, "s", "51", None).await.expect("submitted");
    assert_eq!(texts(&mut second, 1).await, ["51"]);
    assert_eq!(server.terminate().code(), Some(0));
    assert_eq!(second.end().await.code, 14);
    server.restart();
    let producer = connect(&server).await;
    let mut third = consume(&producer, "s", &[]).await.expect("a stream");
    submit(&producer, "s", "52", None).await.expect("submitted");
    assert_eq!(texts(&mut third, 1).await, ["52"], "a stop");
}

#[tokio::test]
async fn subscribers_begin_at_the_head_and_durable_ones_go_on() {
    for shards in ["1", "2"] {
        let mut server = Server::builder().set("node.shards", shards).start();
        let grpc = connect(&server).await;
        submit(&grpc, "e", "old", None).await.expect("submitted");
        let every = [("mode", "every")];
        let durable = [("mode", "every"), ("consumer", "me")];
        let mut plain = consume(&grpc, "e", &every).await.expect("a stream");
        let mut named = consume(&grpc, "e", &durable).await.expect("a stream");
        let mut shared = consume(&grpc, "e", &[]).await.expect("a stream");
        assert_eq!(texts(&mut shared, 1).await, ["old"]);
        consumers_are(&server, 3).await;
        // A subscriber is there when its cursor has been read.
        clarion_tests::wait_until("the subscribers", async || {
            metric(&server, "clarion_sessions").await == 3.0
        })
        .await;
        submit(&grpc, "e", "one", None).await.expect("submitted");
        for stream in [&mut plain, &mut named, &mut shared] {
            assert_eq!(texts(stream, 1).await, ["one"]);
        }
        named.reset(h2::Reason::CANCEL);
        consumers_are(&server, 2).await;
        submit(&grpc, "e", "two", None).await.expect("submitted");
        assert_eq!(texts(&mut shared, 1).await, ["two"]);
        assert_eq!(server.terminate().code(), Some(0));
        server.restart();
        let grpc = connect(&server).await;
        let mut named = consume(&grpc, "e", &durable).await.expect("a stream");
        assert_eq!(texts(&mut named, 1).await, ["two"], "{shards} shards");
        let mut late = consume(&grpc, "e", &every).await.expect("a stream");
        consumers_are(&server, 2).await;
        submit(&grpc, "e", "three", None).await.expect("submitted");
        assert_eq!(texts(&mut late, 1).await, ["three"]);
    }
}
