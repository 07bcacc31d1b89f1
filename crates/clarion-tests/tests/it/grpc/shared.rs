//! Consumers of one cursor: each message to one of them, again when its lease ends without an ack, and to the dead list
//! when that happens too often. Parts run with several shards, so that cursors lie on others than their streams' first.

use std::collections::{BTreeMap, BTreeSet};

use clarion_tests::{Builder, Server, grpc::Grpc};
use clarion_wire::proto::clarion_v1::{
    DeadRequest, Delivery, Hello, HistoryResponse, Mode, PutBackRequest, PutBackResponse,
};
use tokio::sync::mpsc;

use super::{
    Stream, connect, in_group, no_session_is_left, numbers, path, publish, publish_all, reads, seq,
    text,
};

fn builder(shards: usize) -> Builder {
    Server::builder().set("node.shards", &shards.to_string())
}

/// A consumer that acks what it gets and tells of it, on a connection of its own.
async fn consumer(
    server: &Server,
    hello: Hello,
    name: usize,
    told: mpsc::Sender<(usize, Delivery)>,
) {
    let grpc = connect(server).await;
    let mut stream = Stream::open(&grpc, hello).await;
    tokio::spawn(async move {
        let _connection = grpc;
        while let Ok(Some(response)) = stream.0.next().await {
            let Some(clarion_wire::proto::clarion_v1::subscribe_response::Response::Delivery(
                delivery,
            )) = response.response
            else {
                return;
            };
            stream.ack_each(&[seq(&delivery)], 0);
            if told.send((name, delivery)).await.is_err() {
                return;
            }
        }
    });
}

async fn each_message_goes_to_one(shards: usize) {
    const COUNT: usize = 3000;
    let server = builder(shards).start();
    let (told, mut heard) = mpsc::channel(COUNT);
    for name in 0..3 {
        consumer(&server, reads("queue:jobs", Mode::Unify), name, told.clone()).await;
    }
    let producer = connect(&server).await;
    publish_all(&producer, "queue:jobs", &numbers(COUNT)).await;
    let mut seen = BTreeSet::new();
    let mut counts = BTreeMap::<usize, usize>::new();
    while seen.len() < COUNT {
        let (name, delivery) = heard.recv().await.expect("consumers live");
        assert_eq!(delivery.attempt, 1);
        assert!(seen.insert(seq(&delivery)), "{delivery:?} came twice");
        *counts.entry(name).or_default() += 1;
    }
    assert_eq!(counts.len(), 3, "all have their share: {counts:?}");
    drop(heard);
    // A delivery ends each consumer.
    publish_all(&producer, "queue:jobs", &numbers(30)).await;
    no_session_is_left(&server).await;
}

#[tokio::test]
async fn each_message_goes_to_one_consumer() {
    each_message_goes_to_one(1).await;
}

#[tokio::test]
async fn each_message_goes_to_one_consumer_on_three_shards() {
    each_message_goes_to_one(3).await;
}

#[tokio::test]
async fn a_slow_machine_is_no_excuse_for_waiting_a_tick() {
    // More than outbox and pipe hold many times over: each time there is room, more must come at once.
    let server = builder(1)
        .set("limits.outbox_bytes", "16KiB")
        .set("grpc.send_buffer_bytes", "4KiB")
        .set("cursors.max_unacked", "20000")
        .start();
    let grpc = connect(&server).await;
    let texts: Vec<String> = (0..8000).map(|n| format!("{n}-{}", "x".repeat(500))).collect();
    publish_all(&grpc, "queue:big", &texts).await;
    let mut stream = Stream::open(&grpc, reads("queue:big", Mode::Unify)).await;
    // Four million bytes through 20 KiB: two hundred fills. With a timer tick for each it would take a minute.
    let got = tokio::time::timeout(clarion_tests::DEADLINE, stream.texts(texts.len())).await;
    assert!(got.expect("it does not wait for ticks") == texts);
}

#[tokio::test]
async fn what_a_killed_consumer_held_comes_to_others() {
    for shards in [1, 2] {
        let server = builder(shards).start();
        let producer = connect(&server).await;
        publish_all(&producer, "queue:kill", &numbers(10)).await;
        let killed = connect(&server).await;
        let hello = Hello { credit: Some(7), ..reads("queue:kill", Mode::Unify) };
        let mut first = Stream::open(&killed, hello).await;
        assert_eq!(first.texts(7).await, numbers(7));
        first.ack_each(&[1, 3], 1);
        first.stored(1).await;
        killed.kill().await;
        let mut second = Stream::open(&producer, reads("queue:kill", Mode::Unify)).await;
        let mut attempts = BTreeMap::new();
        for _ in 0..8 {
            let delivery = second.delivery().await;
            assert_eq!(attempts.insert(seq(&delivery), delivery.attempt), None, "{delivery:?}");
        }
        let expected: BTreeMap<u64, u32> =
            [(2, 2), (4, 2), (5, 2), (6, 2), (7, 2), (8, 1), (9, 1), (10, 1)].into();
        assert_eq!(attempts, expected, "{shards} shards");
        assert_eq!(second.finish().await.code, 0);
        no_session_is_left(&server).await;
    }
}

#[tokio::test]
async fn a_lease_lapses() {
    let server = builder(1).set("cursors.ack_wait", "1s").start();
    let grpc = connect(&server).await;
    publish(&grpc, "queue:lapse", "a").await;
    let hello = Hello { credit: Some(1), ..reads("queue:lapse", Mode::Unify) };
    let mut silent = Stream::open(&grpc, hello).await;
    assert_eq!(silent.delivery().await.attempt, 1);
    let mut other = Stream::open(&grpc, reads("queue:lapse", Mode::Unify)).await;
    let again = other.delivery().await;
    assert_eq!((text(&again).as_str(), again.attempt), ("a", 2));
    // The late ack of the first one counts for all.
    silent.ack_each(&[1], 1);
    silent.stored(1).await;
    publish(&grpc, "queue:lapse", "b").await;
    assert_eq!(text(&other.delivery().await), "b");
}

#[tokio::test]
async fn a_message_that_nobody_handles_dies_and_can_be_put_back() {
    for shards in [1, 3] {
        let server = builder(shards).set("cursors.max_attempts", "3").start();
        let grpc = connect(&server).await;
        publish_all(&grpc, "queue:die", &["bad".to_owned(), "good".to_owned()]).await;
        let mut stream = Stream::open(&grpc, reads("queue:die", Mode::Unify)).await;
        let (mut bad, mut good) = (0, 0);
        while bad < 3 || good < 1 {
            let delivery = stream.delivery().await;
            if text(&delivery) == "bad" {
                bad += 1;
                assert_eq!(delivery.attempt, bad);
                stream.nack("", seq(&delivery), 0);
            } else {
                good += 1;
                stream.ack_each(&[seq(&delivery)], 0);
            }
        }
        let ask = DeadRequest { address: "queue:die".into(), ..Default::default() };
        let mut dead = HistoryResponse::default();
        clarion_tests::wait_until("the dead list", async || {
            dead = grpc.call(&path("Dead"), &ask).await.expect("the list");
            !dead.messages.is_empty()
        })
        .await;
        let [message] = &dead.messages[..] else { panic!("{dead:?}") };
        assert_eq!(message.payload, "bad");
        let header = |name: &str| {
            message.headers.iter().find(|header| header.name == name).map(|h| h.value.as_str())
        };
        assert_eq!(header("clarion-dead-seq"), Some("1"));
        assert_eq!(header("clarion-dead-attempts"), Some("3"));
        assert_eq!(header("clarion-dead-group"), Some("*"));
        let back = PutBackRequest { address: "queue:die".into(), seqs: vec![message.seq, 99] };
        let answer: PutBackResponse = grpc.call(&path("PutBack"), &back).await.expect("put back");
        assert_eq!(answer.put_back, 1);
        let again = stream.delivery().await;
        assert_eq!((text(&again).as_str(), again.attempt, seq(&again)), ("bad", 1, 3));
        let headers = &again.message.as_ref().expect("a message").headers;
        assert!(headers.is_empty(), "{headers:?}");
        let dead: HistoryResponse = grpc.call(&path("Dead"), &ask).await.expect("the list");
        assert!(dead.messages.is_empty(), "{dead:?}");
        let answer: PutBackResponse = grpc.call(&path("PutBack"), &back).await.expect("put back");
        assert_eq!(answer.put_back, 0, "a second time there is nothing");
    }
}

#[tokio::test]
async fn a_killed_server_gives_leases_again_and_stored_acks_not() {
    for shards in [1, 2] {
        let mut server = builder(shards).start();
        let grpc = connect(&server).await;
        publish_all(&grpc, "queue:crash", &numbers(20)).await;
        let mut stream = Stream::open(&grpc, reads("queue:crash", Mode::Unify)).await;
        stream.texts(20).await;
        stream.ack("queue:crash", 1, 8, 0);
        stream.ack_each(&[12, 15], 7);
        stream.stored(7).await;
        server.restart();
        let grpc = connect(&server).await;
        let mut stream = Stream::open(&grpc, reads("queue:crash", Mode::Unify)).await;
        let mut again = Vec::new();
        for _ in 0..10 {
            let delivery = stream.delivery().await;
            assert_eq!(delivery.attempt, 1, "a restart lapses leases");
            again.push(seq(&delivery));
        }
        assert_eq!(again, [9, 10, 11, 13, 14, 16, 17, 18, 19, 20]);
        publish(&grpc, "queue:crash", "new").await;
        assert_eq!(text(&stream.delivery().await), "new");
    }
}

#[tokio::test]
async fn two_groups_each_get_all() {
    for shards in [1, 3] {
        let server = builder(shards).start();
        let grpc = connect(&server).await;
        let mut streams = Vec::new();
        for group in ["a", "a", "b"] {
            streams.push(Stream::open(&grpc, in_group("topic:news", group)).await);
        }
        let mut every = Stream::open(&grpc, reads("topic:news", Mode::Every)).await;
        publish_all(&grpc, "topic:news", &numbers(100)).await;
        assert_eq!(every.texts(100).await, numbers(100));
        assert_eq!(streams[2].texts(100).await, numbers(100));
        let (mut first, second) = (streams[0].texts(50).await, streams[1].texts(50).await);
        first.extend(second);
        let both: BTreeSet<String> = first.into_iter().collect();
        assert_eq!(both.len(), 100, "{shards} shards");
    }
}

#[tokio::test]
async fn acks_and_nacks_of_another_channel_do_nothing() {
    let server = builder(1).start();
    let grpc = connect(&server).await;
    publish(&grpc, "queue:mine", "m").await;
    let mut stream = Stream::open(&grpc, reads("queue:mine", Mode::Unify)).await;
    assert_eq!(stream.texts(1).await, ["m"]);
    stream.ack("queue:other", 1, 1, 1);
    stream.stored(1).await;
    assert_eq!(stream.finish().await.code, 0);
    let mut stream = Stream::open(&grpc, reads("queue:mine", Mode::Unify)).await;
    let again = stream.delivery().await;
    assert_eq!((seq(&again), again.attempt), (1, 2));
    stream.ack("queue:mine", 0, 1, 2);
    stream.stored(2).await;
}

#[tokio::test]
async fn a_window_of_leases_bounds_what_is_out() {
    let server = builder(1).set("cursors.max_unacked", "5").start();
    let grpc: Grpc = connect(&server).await;
    publish_all(&grpc, "queue:window", &numbers(12)).await;
    let mut stream = Stream::open(&grpc, reads("queue:window", Mode::Unify)).await;
    assert_eq!(stream.texts(5).await, numbers(5));
    // The confirmation is the next thing that comes: nothing was handed out beyond the window.
    stream.say(clarion_wire::proto::clarion_v1::subscribe_request::Request::Ack(
        clarion_wire::proto::clarion_v1::Ack { ranges: Vec::new(), confirm: 1 },
    ));
    assert!(stream.stored(1).await.is_empty());
    stream.ack_each(&[2, 4], 2);
    let mut got: Vec<u64> = stream.stored(2).await.iter().map(seq).collect();
    while got.len() < 2 {
        got.push(seq(&stream.delivery().await));
    }
    assert_eq!(got, [6, 7]);
}
