//! Subscribe: what is read, from where, under which credit and window, and how streams end.

use clarion_client::{Delivery as HttpDelivery, StreamItem, StreamQuery};
use clarion_tests::{Server, wait_until};
use clarion_wire::proto::clarion_v1::{
    From, Hello, KickRequest, KickResponse, Mode, SubscribeResponse, subscribe_request::Request,
    subscribe_response::Response,
};
use rustix::process::Signal;

use super::{
    Stream, connect, feed, message, no_session_is_left, numbers, path, publish, publish_all, reads,
    seq, text,
};

#[tokio::test]
async fn a_feed_is_read_with_and_without_a_device() {
    for shards in ["1", "3"] {
        let server = Server::builder().set("node.shards", shards).start();
        let grpc = connect(&server).await;
        publish(&grpc, "user:f", "before").await;
        let mut default = Stream::open(&grpc, feed("f", "")).await;
        let mut named = Stream::open(&grpc, feed("f", "phone")).await;
        assert_eq!(default.texts(1).await, ["before"]);
        // A second device begins where the user is: nothing is acked yet.
        assert_eq!(named.texts(1).await, ["before"]);
        for (address, sent) in [("all", "to all"), ("user:f", "to f"), ("user:g", "to g")] {
            publish(&grpc, address, sent).await;
        }
        for stream in [&mut default, &mut named] {
            let mut texts = stream.texts(2).await;
            texts.sort();
            assert_eq!(texts, ["to all", "to f"]);
        }
        default.ack("user:f", 1, 2, 1);
        default.stored(1).await;
        assert_eq!(default.finish().await.code, 0);
        let mut again = Stream::open(&grpc, feed("f", "default")).await;
        publish(&grpc, "user:f", "later").await;
        let mut texts = again.texts(2).await;
        texts.sort();
        assert_eq!(texts, ["later", "to all"], "what was acked does not come");
        drop((again, named));
        no_session_is_left(&server).await;
    }
}

#[tokio::test]
async fn several_addresses_and_plain_ones() {
    let server = Server::builder().set("node.shards", "2").start();
    let grpc = connect(&server).await;
    let addresses = ["topic:a", "queue:b", "user:c", "all"].map(str::to_owned).to_vec();
    for sent in ["1", "2"] {
        for address in &addresses {
            publish(&grpc, address, sent).await;
        }
    }
    let hello = Hello { addresses: addresses.clone(), ..Default::default() };
    let mut latest = Stream::open(&grpc, hello.clone()).await;
    let mut earliest =
        Stream::open(&grpc, Hello { from: From::Earliest.into(), ..hello.clone() }).await;
    let mut device =
        Stream::open(&grpc, Hello { user: "c".into(), device: "d".into(), ..hello.clone() }).await;
    for address in &addresses {
        publish(&grpc, address, "3").await;
    }
    let mut got: Vec<(String, String)> = Vec::new();
    for _ in 0..addresses.len() {
        let delivery = latest.delivery().await;
        let channel = delivery.message.as_ref().expect("a message").channel.clone();
        got.push((channel, text(&delivery)));
    }
    got.sort();
    let mut expected: Vec<_> = addresses.iter().map(|a| (a.clone(), "3".to_owned())).collect();
    expected.sort();
    assert_eq!(got, expected);
    // Topics keep nothing without a durable reader.
    assert_eq!(earliest.texts(10).await.len(), 10);
    // A device begins at what is kept of a queue and its own channel, elsewhere at the head.
    let mut texts = device.texts(8).await;
    texts.sort();
    assert_eq!(texts, ["1", "1", "2", "2", "3", "3", "3", "3"]);
}

#[tokio::test]
async fn a_stream_begins_where_it_says() {
    let server = Server::start();
    let grpc = connect(&server).await;
    publish_all(&grpc, "user:w", &numbers(10)).await;
    let plain = reads("user:w", Mode::Every);
    let device = Hello { user: "w".into(), device: "d".into(), ..plain.clone() };
    for (round, hello) in [plain, device].into_iter().enumerate() {
        let earliest = Hello { from: From::Earliest.into(), ..hello.clone() };
        assert_eq!(Stream::open(&grpc, earliest).await.texts(10).await, numbers(10));
        let middle = Hello { from: From::Seq.into(), seq: 8, ..hello.clone() };
        let mut middle = Stream::open(&grpc, middle).await;
        assert_eq!(middle.texts(3).await, ["7", "8", "9"]);
        middle.texts(round).await;
        let mut latest = Stream::open(&grpc, Hello { from: From::Latest.into(), ..hello }).await;
        publish(&grpc, "user:w", "new").await;
        assert_eq!(latest.texts(1).await, ["new"]);
        assert_eq!(middle.texts(1).await, ["new"]);
    }
}

#[tokio::test]
async fn no_more_comes_than_credit_allows() {
    for hello in [feed("c", "d"), reads("user:c", Mode::Every), reads("queue:c", Mode::Unify)] {
        let server = Server::start();
        let grpc = connect(&server).await;
        let address = hello.addresses.first().cloned().unwrap_or("user:c".into());
        publish_all(&grpc, &address, &numbers(5)).await;
        let from = if hello.mode == i32::from(Mode::Every) && hello.user.is_empty() {
            From::Earliest
        } else {
            From::Unacked
        };
        let hello = Hello { credit: Some(3), from: from.into(), ..hello };
        let mut stream = Stream::open(&grpc, hello.clone()).await;
        assert_eq!(stream.texts(3).await, numbers(3));
        publish_all(&grpc, &address, &["live".to_owned()]).await;
        assert!(asked(&mut stream, 1).await.is_empty(), "{hello:?}");
        if hello.addresses != ["user:c"] {
            // Given back, it waits for credit like the others.
            stream.nack(&address, 2, 0);
            assert!(asked(&mut stream, 2).await.is_empty(), "{hello:?}");
            stream.credit(1);
            let delivery = stream.delivery().await;
            let again = (text(&delivery) == "1").then_some(2);
            assert_eq!(again.unwrap_or(1), delivery.attempt);
            stream.credit(3);
        } else {
            stream.credit(3);
        }
        stream.texts(3).await;
        assert!(asked(&mut stream, 3).await.is_empty(), "{hello:?}");
        // Credit that was granted before there was something is not lost.
        stream.credit(2);
        publish_all(&grpc, &address, &["x".to_owned(), "y".to_owned(), "z".to_owned()]).await;
        assert_eq!(stream.texts(2).await, ["x", "y"]);
        assert!(asked(&mut stream, 4).await.is_empty(), "{hello:?}");
    }
}

/// Asks for a confirmation; what comes before it.
async fn asked(
    stream: &mut Stream,
    confirm: u64,
) -> Vec<clarion_wire::proto::clarion_v1::Delivery> {
    let ack = clarion_wire::proto::clarion_v1::Ack { ranges: Vec::new(), confirm };
    stream.say(Request::Ack(ack));
    stream.stored(confirm).await
}

#[tokio::test]
async fn a_window_bounds_what_a_device_has_not_acked() {
    let server = Server::builder().set("cursors.max_unacked_device", "4").start();
    let grpc = connect(&server).await;
    publish_all(&grpc, "user:w", &numbers(10)).await;
    let mut stream = Stream::open(&grpc, feed("w", "d")).await;
    assert_eq!(stream.texts(4).await, numbers(4));
    assert!(asked(&mut stream, 1).await.is_empty());
    stream.ack("user:w", 0, 2, 2);
    assert!(stream.stored(2).await.is_empty(), "the first one is a hole in front of the window");
    stream.ack("user:w", 1, 3, 0);
    assert_eq!(stream.texts(3).await, ["4", "5", "6"]);
    assert!(asked(&mut stream, 3).await.is_empty());
    assert_eq!(stream.finish().await.code, 0);
    // Where it is told to begin counts, not what it never asked for.
    let latest = Hello { from: From::Latest.into(), ..feed("w", "d") };
    let mut stream = Stream::open(&grpc, latest).await;
    publish(&grpc, "user:w", "new").await;
    assert_eq!(stream.texts(1).await, ["new"]);
}

#[tokio::test]
async fn what_is_gone_is_told_as_a_gap() {
    let server = Server::start();
    let grpc = connect(&server).await;
    publish_all(&grpc, "user:g", &numbers(10)).await;
    let mut stream = Stream::open(&grpc, Hello { credit: Some(2), ..feed("g", "d") }).await;
    assert_eq!(stream.texts(2).await, ["0", "1"]);
    stream.ack("user:g", 1, 2, 1);
    stream.stored(1).await;
    assert_eq!(stream.finish().await.code, 0);
    server.client().trim("user:g", 7).await.expect("trimmed");
    let mut stream = Stream::open(&grpc, feed("g", "d")).await;
    match stream.response().await {
        Response::Gap(gap) => {
            assert_eq!((gap.channel.as_str(), gap.from, gap.to), ("user:g", 3, 6));
            assert_eq!(gap.reason, "retention");
        }
        other => panic!("no gap: {other:?}"),
    }
    assert_eq!(stream.texts(4).await, ["6", "7", "8", "9"]);
}

#[tokio::test]
async fn who_is_kicked_is_told_and_may_come_back() {
    let server = Server::builder().set("node.shards", "2").start();
    let grpc = connect(&server).await;
    let mut by_user = Stream::open(&grpc, feed("k", "d")).await;
    let kick = KickRequest { user: "k".into(), ..Default::default() };
    let answer: KickResponse = grpc.call(&path("Kick"), &kick).await.expect("kicked");
    assert_eq!(answer.kicked, 1);
    let close = by_user.closed().await;
    assert_eq!((close.reason.as_str(), close.retry_ms), ("kicked", 2000));
    let status = by_user.0.end().await;
    assert_eq!((status.code, status.get("grpc-retry-pushback-ms")), (14, Some("2000")));
    let mut back = Stream::open(&grpc, feed("k", "d")).await;
    let session = server.client().sessions(&Default::default()).await.expect("sessions");
    let session = session.sessions[0].id.clone();
    let kick = KickRequest { session, ..Default::default() };
    let _: KickResponse = grpc.call(&path("Kick"), &kick).await.expect("kicked");
    assert_eq!(back.closed().await.reason, "kicked");
    assert_eq!(back.0.end().await.code, 14);
    no_session_is_left(&server).await;
}

#[tokio::test]
async fn a_stop_tells_every_stream_and_ends_every_connection() {
    let mut server = Server::builder().set("node.shards", "2").start();
    let grpc = connect(&server).await;
    let mut streams = vec![Stream::open(&grpc, feed("s", "d")).await];
    streams.push(Stream::open(&grpc, reads("queue:s", Mode::Unify)).await);
    let silent = grpc.start::<SubscribeResponse>(&path("Subscribe"), &[]).await.expect("a call");
    server.signal(Signal::TERM);
    for stream in &mut streams {
        assert_eq!(stream.closed().await.reason, "shutdown");
        let status = stream.0.end().await;
        assert_eq!((status.code, status.get("grpc-retry-pushback-ms")), (14, Some("2000")));
    }
    // It has not even said hello.
    let mut silent = silent;
    assert_eq!(silent.end().await.code, 14);
    drop((streams, silent));
    grpc.ended().await.expect("GOAWAY without error");
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn what_one_protocol_acked_no_other_gives() {
    let server = Server::start();
    let grpc = connect(&server).await;
    publish_all(&grpc, "user:x", &numbers(6)).await;
    let client = server.client();
    let mut sse = client.stream(StreamQuery::feed("x", "d"));
    let mut token = None;
    while token.is_none() {
        if let StreamItem::Event(event) = sse.next().await.expect("an item") {
            let delivery: HttpDelivery = serde_json::from_str(&event.data).expect("a delivery");
            token = event.id.filter(|_| delivery.seq == 2);
        }
    }
    assert!(client.ack(&token.expect("a token")).await.expect("acked"));
    drop(sse);
    let mut stream = Stream::open(&grpc, feed("x", "d")).await;
    assert_eq!(stream.texts(4).await, ["2", "3", "4", "5"]);
    stream.ack_each(&[], 0);
    stream.ack("user:x", 4, 5, 1);
    stream.stored(1).await;
    assert_eq!(stream.finish().await.code, 0);
    let mut sse = client.stream(StreamQuery::feed("x", "d"));
    let mut seqs = Vec::new();
    while seqs.len() < 2 {
        if let StreamItem::Event(event) = sse.next().await.expect("an item") {
            let delivery: HttpDelivery = serde_json::from_str(&event.data).expect("a delivery");
            seqs.push(delivery.seq);
        }
    }
    assert_eq!(seqs, [3, 6]);
}

#[tokio::test]
async fn catching_up_while_a_publisher_never_pauses() {
    for credit in [None, Some(100)] {
        let server = Server::builder()
            .set("limits.outbox_messages", "50")
            .set("limits.page_messages", "20")
            .start();
        let grpc = connect(&server).await;
        publish_all(&grpc, "user:c", &numbers(1000)).await;
        let publisher = connect(&server).await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let publishing = tokio::spawn(async move {
            let mut sent = 1000;
            while stopped.try_recv().is_err() {
                let batch: Vec<String> = (sent..sent + 10).map(|n| n.to_string()).collect();
                publish_all(&publisher, "user:c", &batch).await;
                sent += 10;
            }
            sent
        });
        let mut stream = Stream::open(&grpc, Hello { credit, ..feed("c", "d") }).await;
        let mut next = 0;
        let mut read = async |count: usize| {
            for _ in 0..count {
                let delivery = stream.delivery().await;
                assert_eq!(text(&delivery), next.to_string());
                next += 1;
                stream.ack("user:c", 0, seq(&delivery), 0);
                stream.credit(1);
            }
        };
        read(1500).await;
        stop.send(()).expect("it publishes");
        let sent = publishing.await.expect("it published");
        read(sent - 1500).await;
        stream.ack("user:c", 0, sent as u64, 1);
        assert!(stream.stored(1).await.is_empty(), "nothing came twice");
    }
}

#[tokio::test]
async fn live_messages_come_without_a_place() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let mut stream = Stream::open(&grpc, feed("l", "d")).await;
    let request = clarion_wire::proto::clarion_v1::PublishRequest {
        expire: Some(0),
        ..message("user:l", "now")
    };
    let answer: clarion_wire::proto::clarion_v1::PublishResponse =
        grpc.call(&path("Publish"), &request).await.expect("published");
    assert_eq!((answer.seq, answer.epoch, answer.durability), (0, 0, 0));
    let delivery = stream.delivery().await;
    assert_eq!((text(&delivery).as_str(), seq(&delivery)), ("now", 0));
    let id = delivery.message.expect("a message").id;
    assert_eq!(id, answer.id);
    wait_until("presence", async || server.client().presence("l").await.expect("presence").online)
        .await;
}
