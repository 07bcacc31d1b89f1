//! Acks, nacks and confirmations of a reader of its own.

use clarion_tests::Server;
use clarion_wire::proto::clarion_v1::{Ack, AckRange, Hello, Mode, subscribe_request::Request};

use super::{Stream, connect, feed, numbers, publish, publish_all, reads, seq, text};

#[tokio::test]
async fn acks_of_single_messages_ranges_and_everything_below() {
    let mut server = Server::builder().set("node.shards", "2").start();
    let grpc = connect(&server).await;
    publish_all(&grpc, "user:a", &numbers(20)).await;
    let mut stream = Stream::open(&grpc, feed("a", "d")).await;
    stream.texts(20).await;
    let range = |from, to| AckRange { channel: "user:a".into(), epoch: 0, from, to };
    let ranges = vec![range(1, 3), range(0, 5), range(7, 9), range(20, 20), range(15, 1000)];
    stream.say(Request::Ack(Ack { ranges, confirm: 3 }));
    stream.stored(3).await;
    server.restart();
    let grpc = connect(&server).await;
    let mut stream = Stream::open(&grpc, feed("a", "d")).await;
    let mut left = Vec::new();
    for _ in 0..7 {
        left.push(seq(&stream.delivery().await));
    }
    assert_eq!(left, [4, 6, 10, 11, 12, 13, 14]);
    // Of another history, of a channel that it does not read, of what was never given: nothing.
    let odd = [(7_u32, "user:a", 4, 4), (0, "user:b", 4, 4), (0, "all", 1, 5), (0, "", 1, 14)];
    for (epoch, channel, from, to) in odd {
        let range = AckRange { channel: channel.into(), epoch, from, to };
        stream.say(Request::Ack(Ack { ranges: vec![range], confirm: 0 }));
    }
    assert_eq!(stream.finish().await.code, 0);
    let mut stream = Stream::open(&grpc, feed("a", "d")).await;
    assert_eq!(seq(&stream.delivery().await), 4);
}

#[tokio::test]
async fn a_half_close_waits_for_what_was_asked_before_it() {
    for hello in [feed("h", "d"), reads("queue:h", Mode::Unify)] {
        let mut server = Server::start();
        let grpc = connect(&server).await;
        let address = hello.addresses.first().cloned().unwrap_or("user:h".into());
        publish_all(&grpc, &address, &numbers(3)).await;
        let mut stream = Stream::open(&grpc, hello.clone()).await;
        stream.texts(3).await;
        stream.ack(&address, 0, 1, 0);
        stream.ack(&address, 0, 2, 5);
        stream.0.finish();
        stream.stored(5).await;
        assert_eq!(stream.0.end().await.code, 0);
        let mut stream = Stream::open(&grpc, hello.clone()).await;
        assert_eq!(seq(&stream.delivery().await), 3);
        // Also without a question: OK says that what was acked is committed.
        stream.ack(&address, 0, 3, 0);
        assert_eq!(stream.finish().await.code, 0);
        server.restart();
        let grpc = connect(&server).await;
        let mut stream = Stream::open(&grpc, hello).await;
        publish(&grpc, &address, "new").await;
        assert_eq!(text(&stream.delivery().await), "new");
    }
}

#[tokio::test]
async fn what_is_given_back_comes_again_with_a_growing_attempt() {
    for hello in [feed("n", "d"), reads("queue:n", Mode::Unify)] {
        let server = Server::start();
        let grpc = connect(&server).await;
        let address = hello.addresses.first().cloned().unwrap_or("user:n".into());
        publish(&grpc, &address, "a").await;
        let feed = hello.addresses.is_empty();
        let mut stream = Stream::open(&grpc, hello).await;
        for attempt in 1..=5 {
            let delivery = stream.delivery().await;
            assert_eq!((text(&delivery).as_str(), delivery.attempt), ("a", attempt));
            stream.nack(if feed { "user:n" } else { "" }, 1, attempt * 10);
        }
        assert_eq!(stream.delivery().await.attempt, 6);
        stream.ack(&address, 0, 1, 1);
        assert!(stream.stored(1).await.is_empty());
        // What is acked does not come again, nor what was never given.
        for seq in [1, 99, 0] {
            stream.nack(&address, seq, 0);
        }
        publish(&grpc, &address, "b").await;
        assert_eq!(text(&stream.delivery().await), "b");
    }
}

#[tokio::test]
async fn readers_without_a_cursor_may_ask_for_confirmations_all_the_same() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let mut stream = Stream::open(&grpc, reads("topic:plain", Mode::Every)).await;
    stream.ack("topic:plain", 1, 5, 4);
    stream.stored(4).await;
    let hello = Hello { addresses: vec!["topic:plain".into()], ..Default::default() };
    assert_eq!(Stream::open(&grpc, hello).await.finish().await.code, 0);
    assert_eq!(stream.finish().await.code, 0);
}
