//! Gates that die in the middle of a push, or stop reading.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clarion_tests::{
    Server,
    grpc::{Grpc, Setup},
    wait_until,
};
use clarion_wire::proto::message_pusher::{InfoRequest, InfoResponse, MessageType, Response};

use super::{answer, gate, push, received};
use crate::grpc::{connect, metric};

async fn gates_are(grpc: &Grpc, count: u64) {
    let path = "/message_pusher.MessagePusher/StateInfo";
    wait_until("the gates", async || {
        let info: InfoResponse = grpc.call(path, &InfoRequest {}).await.expect("an answer");
        info.gates == count
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_gate_did_not_answer_comes_to_a_new_one() {
    for shards in [1, 3] {
        let server = Server::builder().set("node.shards", &shards.to_string()).start();
        let producer = connect(&server).await;
        let killed = connect(&server).await;
        let mut first = gate(&killed, "g").await;
        gates_are(&producer, 1).await;
        let mut due = BTreeSet::new();
        for n in 0..60 {
            push(&producer, &format!("u{}", n % 10), &n.to_string(), 600).await;
            due.insert(n.to_string());
        }
        for _ in 0..20 {
            let message = first.message_of().await;
            received(&mut first, &message);
            assert!(due.remove(&message.msg), "{message:?}");
        }
        // Its answers have been read when a later one has its effect.
        wait_until("the acks", async || metric(&server, "clarion_acks_total").await >= 20.0).await;
        killed.kill().await;
        gates_are(&producer, 0).await;
        let mut second = gate(&producer, "g").await;
        let mut last = BTreeMap::new();
        while !due.is_empty() {
            let message = second.message_of().await;
            assert!(due.remove(&message.msg), "{message:?} was answered, or came twice");
            let before = last.insert(message.channel_id.clone(), message.msg_id);
            assert!(before < Some(message.msg_id), "{message:?} after {before:?}");
            received(&mut second, &message);
        }
        second.finish();
        assert_eq!(second.end().await.code, 0);
        gates_are(&producer, 0).await;
    }
}

#[tokio::test]
async fn a_gate_that_does_not_read_costs_nobody_and_gets_what_it_is_owed() {
    const CHANNELS: usize = 8;
    const EACH: usize = 300;
    let server = Server::builder()
        .set("mikudos.mode", "every")
        .set("grpc.keep_alive_interval", "1h")
        .start();
    let producer = connect(&server).await;
    let at = server.listener("grpc");
    let setup = Setup { window: 1 << 20, receive_buffer: Some(4096) };
    let stopped = Grpc::open_with(at, setup).await;
    let mut slow = gate(&stopped, "slow").await;
    let mut quick = gate(&producer, "quick").await;
    gates_are(&producer, 2).await;
    stopped.read(false);
    let before = server.peak_rss_kib();
    // 24 MB.
    let padding = "x".repeat(10_000);
    for n in 0..EACH {
        for channel in 0..CHANNELS {
            push(&producer, &format!("c{channel}"), &format!("{n} {padding}"), 600).await;
            let message = quick.message_of().await;
            assert!(message.msg.starts_with(&format!("{n} ")), "the other gate waits for nobody");
        }
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("24 MB past a gate that does not read: +{grown} KiB");
    stopped.read(true);
    let mut next = BTreeMap::<String, usize>::new();
    for _ in 0..CHANNELS * EACH {
        let message = slow.message_of().await;
        let n = next.entry(message.channel_id.clone()).or_default();
        assert!(message.msg.starts_with(&format!("{n} ")), "{} {n}", &message.msg[..20]);
        assert_eq!(message.msg_id, *n as i64 + 1);
        *n += 1;
        received(&mut slow, &message);
    }
    assert_eq!(next.len(), CHANNELS);
    assert!(grown < 120 << 10, "{grown} KiB");
}

#[tokio::test]
async fn what_a_gate_is_owed_beyond_the_limit_is_counted_and_comes_with_a_request() {
    const CHANNELS: usize = 3;
    const EACH: usize = 300;
    let server = Server::builder()
        .set("mikudos.parked_channels", "1")
        .set("node.shards", "1")
        .set("grpc.keep_alive_interval", "1h")
        .start();
    let producer = connect(&server).await;
    let setup = Setup { window: 1 << 20, receive_buffer: Some(4096) };
    let stopped = Grpc::open_with(server.listener("grpc"), setup).await;
    let mut slow = gate(&stopped, "slow").await;
    gates_are(&producer, 1).await;
    stopped.read(false);
    // More than an outbox and the sockets hold, to each of more users than it may be owed.
    let padding = "x".repeat(10_000);
    for n in 0..CHANNELS * EACH {
        push(&producer, &format!("c{}", n % CHANNELS), &padding, 600).await;
    }
    let refused = async || metric(&server, "clarion_gate_owed_too_much_total").await;
    wait_until("the limit", async || refused().await >= 1.0).await;
    stopped.read(true);
    let channels: Vec<String> = (0..CHANNELS).map(|n| format!("c{n}")).collect();
    let all = channels.iter().flat_map(|of| (1..=EACH as i64).map(move |n| (of.clone(), n)));
    let mut due: BTreeSet<(String, i64)> = all.collect();
    while let Some((channel_id, _)) = due.first().cloned() {
        // Silence means that there was no room for the REQUEST: it asks again.
        slow.say(&Response { channel_id, ..Response::default() });
        let silence = Duration::from_millis(300);
        while let Ok(message) = tokio::time::timeout(silence, slow.message_of()).await {
            due.remove(&(message.channel_id.clone(), message.msg_id));
            received(&mut slow, &message);
        }
    }
}

#[tokio::test]
async fn what_nobody_received_comes_with_a_request() {
    let server = Server::builder().set("node.shards", "2").start();
    let producer = connect(&server).await;
    let mut one = gate(&producer, "g").await;
    gates_are(&producer, 1).await;
    for n in 0..3 {
        push(&producer, "away", &n.to_string(), 600).await;
        let message = one.message_of().await;
        one.say(&answer(&message, MessageType::Unreceived));
    }
    let request = Response { channel_id: "away".into(), ..Default::default() };
    one.say(&request);
    for n in 0..3 {
        let message = one.message_of().await;
        assert_eq!((message.msg.as_str(), message.msg_id), (n.to_string().as_str(), n + 1));
        assert_eq!(message.message_type, i32::from(MessageType::Response), "it comes again");
    }
    one.say(&Response { msg_id: 1, ..request.clone() });
    for n in 1..3 {
        let message = one.message_of().await;
        assert_eq!(message.msg, n.to_string());
        received(&mut one, &message);
    }
    // Nothing but the first is left.
    one.say(&request);
    assert_eq!(one.message_of().await.msg, "0");
    one.finish();
    assert_eq!(one.end().await.code, 0);
}

#[tokio::test]
async fn requests_that_overtake_a_replay_ack_nothing() {
    // Several pages of the store.
    const COUNT: i64 = 400;
    let server = Server::start();
    let producer = connect(&server).await;
    for n in 0..COUNT {
        push(&producer, "u", &n.to_string(), 600).await;
    }
    for _ in 0..3 {
        let connection = connect(&server).await;
        let mut asking = gate(&connection, "").await;
        let mut due: BTreeSet<i64> = (1..=COUNT).collect();
        // A gate sends one for each login, and users log in again while the first one is being answered.
        while !due.is_empty() {
            asking.say(&Response { channel_id: "u".into(), ..Response::default() });
            for _ in 0..40 {
                let message = asking.message_of().await;
                due.remove(&message.msg_id);
                if due.is_empty() {
                    break;
                }
            }
        }
        connection.kill().await;
        gates_are(&producer, 0).await;
    }
}

#[tokio::test]
async fn readers_on_other_shards_do_not_double_a_push() {
    let server = Server::builder().set("node.shards", "3").start();
    let producer = connect(&server).await;
    let gates = connect(&server).await;
    let mut only = gate(&gates, "").await;
    gates_are(&producer, 1).await;
    let url = format!("{}/api/v1/stream?address=user:u", server.url());
    let readers: Vec<_> =
        (0..6).map(|_| clarion_tests::Command::start("curl", ["-sS", "-N", &url])).collect();
    wait_until("the readers", async || metric(&server, "clarion_sessions").await >= 7.0).await;
    for n in 0..20 {
        let expire = if n % 2 == 0 { 600 } else { 0 };
        push(&producer, "u", &n.to_string(), expire).await;
        assert_eq!(only.message_of().await.msg, n.to_string(), "once, and in order");
    }
    drop(readers);
}
