//! Five kills of the server under load: producers try again under the same key, consumers drop what they have seen, and
//! each message is there exactly once.

use std::collections::BTreeSet;

use clarion_tests::{
    Server,
    grpc::{Grpc, Setup},
};
use clarion_wire::proto::clarion_v1::{Mode, PublishRequest, PublishResponse, subscribe_response};
use std::net::SocketAddr;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{consume, submit};
use crate::grpc::{Stream, message, path, reads, seq, text};

const MESSAGES: usize = 1500;
const KILLS: usize = 5;

/// A connection, as soon as the server is there.
async fn connected(at: SocketAddr) -> Grpc {
    loop {
        if let Ok(grpc) = Grpc::try_open(at, Setup::default()).await {
            return grpc;
        }
        tokio::task::yield_now().await;
    }
}

/// Publishes numbers, each until it is answered.
async fn produce(at: SocketAddr, native: bool) {
    let mut grpc = connected(at).await;
    for n in 0..MESSAGES {
        let (text, key) = (n.to_string(), format!("key-{n}"));
        loop {
            let sent = if native {
                let request =
                    PublishRequest { idempotency_key: key.clone(), ..message("queue:load", &text) };
                grpc.call::<PublishResponse>(&path("Publish"), &request).await.map(drop)
            } else {
                submit(&grpc, "load", &text, Some(&key)).await
            };
            match sent {
                Ok(()) => break,
                Err(_) => grpc = connected(at).await,
            }
        }
    }
}

/// Consumes, comes back when the server does, and tells every text.
async fn consume_all(at: SocketAddr, native: bool, told: mpsc::Sender<String>) {
    loop {
        let grpc = connected(at).await;
        if native {
            let Ok(mut stream) = Stream::try_open(&grpc, reads("queue:load", Mode::Unify)).await
            else {
                continue;
            };
            while let Ok(Some(response)) = stream.0.next().await {
                let Some(subscribe_response::Response::Delivery(delivery)) = response.response
                else {
                    break;
                };
                // Handled first, acked then.
                if told.send(text(&delivery)).await.is_err() {
                    return;
                }
                stream.ack_each(&[seq(&delivery)], 0);
            }
        } else {
            let Ok(mut stream) = consume(&grpc, "load", &[]).await else { continue };
            while let Ok(Some(reply)) = stream.next().await {
                if told.send(reply.message).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn kills_under_load(native: bool) {
    let mut server = Server::builder().set("node.shards", "2").start();
    let at = server.listener("grpc");
    let (told, mut heard) = mpsc::channel(64);
    let consumers: Vec<JoinHandle<()>> =
        (0..3).map(|_| tokio::spawn(consume_all(at, native, told.clone()))).collect();
    let producer = tokio::spawn(produce(at, native));
    let (mut seen, mut repeated) = (BTreeSet::new(), 0);
    let mut kills = 0;
    while seen.len() < MESSAGES {
        let text = heard.recv().await.expect("consumers live");
        repeated += usize::from(!seen.insert(text.parse::<usize>().expect("a number")));
        if kills < KILLS && seen.len() > (kills + 1) * MESSAGES / (KILLS + 2) {
            kills += 1;
            server.restart();
        }
    }
    assert_eq!(kills, KILLS);
    // While nobody reads what is told, it waits.
    let mut producer = producer;
    loop {
        tokio::select! {
            done = &mut producer => break done.expect("it produced all"),
            again = heard.recv() => repeated += usize::from(again.is_some()),
        }
    }
    consumers.iter().for_each(JoinHandle::abort);
    assert!(seen.into_iter().eq(0..MESSAGES));
    // The log holds each once, whatever was sent again.
    let mut after = 0;
    let mut stored = Vec::new();
    loop {
        let range = clarion_client::ReadRange {
            after: Some(after),
            limit: Some(1000),
            ..Default::default()
        };
        let page = server.client().messages("queue:load", range).await.expect("a page");
        let Some(last) = page.messages.last() else { break };
        after = last.seq;
        stored.extend(page.messages.into_iter().filter_map(|message| message.text));
    }
    let distinct: BTreeSet<&String> = stored.iter().collect();
    assert_eq!(distinct.len(), stored.len(), "a key was stored twice");
    println!("{KILLS} kills, {MESSAGES} messages, {repeated} repeated");
}

#[tokio::test]
async fn each_message_once_over_five_kills_on_the_native_api() {
    kills_under_load(true).await;
}

#[tokio::test]
async fn each_message_once_over_five_kills_on_the_push_channel() {
    kills_under_load(false).await;
}
