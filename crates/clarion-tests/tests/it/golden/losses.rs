//! What the original loses or does wrong, case by case, does not happen here (delivery; status answers are in
//! `losses_status`).

use super::plain::{PlainGate, Producer, count, first_gate, texts};
use super::proto::{PUSH, RECEIVED, RESPONSE, UNRECEIVED, answer, push};
use super::{player, runtime};
use bytes::Bytes;
use clarion_tests::grpc_bytes::GrpcClient;
use clarion_tests::{Server, wait_until};
use std::collections::BTreeSet;
use tonic::Code;

fn start(mode: &str) -> Server {
    player::server(mode, 60_000)
}

/// The next message of this channel; marks come in between.
async fn next_of(gate: &mut PlainGate, channel: &str) -> super::proto::Said {
    loop {
        let said = gate.next().await;
        if said.channel == channel {
            return said;
        }
    }
}

// 1: neither RECEIVED nor UNRECEIVED.
#[test]
fn a_gate_that_dies_with_a_message_in_hand() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        let id = producer.push("21", "in hand", 600).await;
        assert_eq!(next_of(&mut gate, "21").await.id, id);
        gate.client.break_off();
        count(&server, 0).await;
        let mut next = PlainGate::open(&server, "", 1).await;
        let again = next_of(&mut next, "21").await;
        assert_eq!((again.id, again.kind, &*again.text), (id, RESPONSE, &b"in hand"[..]));
        assert!((1..=600).contains(&again.expire), "{again:?}");
    });
}

// 1: the client application never acks; the gate lives on.
#[test]
fn a_message_that_nobody_answers_comes_with_each_request() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        producer.push("21", "a", 600).await;
        next_of(&mut gate, "21").await;
        for _ in 0..3 {
            assert_eq!(texts(&gate.all_of("21").await), ["a"]);
        }
        let said = gate.all_of("21").await.remove(0);
        gate.received(&said).await;
        assert!(gate.all_of("21").await.is_empty());
    });
}

// 2: the server dies between the push and its answer.
#[test]
fn kill_9_between_push_and_answer() {
    runtime().block_on(async {
        let mut server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        let id = producer.push("21", "kept", 600).await;
        next_of(&mut gate, "21").await;
        server.kill9();
        server.restart();
        let producer = Producer::open(&server).await;
        let mut gate = PlainGate::open(&server, "", 1).await;
        gate.request("21", 0).await;
        let came = next_of(&mut gate, "21").await;
        assert_eq!((came.id, came.kind, &*came.text), (id, RESPONSE, &b"kept"[..]));
        let later = producer.push("21", "later", 600).await;
        assert!(later > id, "{later} after {id}: a number is given out once");
        gate.received(&came).await;
        assert_eq!(texts(&gate.all_of("21").await), ["later"]);
    });
}

// 3: no gate.
#[test]
fn without_a_gate_a_push_is_answered_at_once_and_comes_to_the_next_one() {
    for mode in ["unify", "group", "every"] {
        runtime().block_on(async {
            let server = start(mode);
            let producer = Producer::open(&server).await;
            let mut ids = Vec::new();
            for n in 0..30 {
                ids.push(producer.push(&format!("c{}", n % 3), &n.to_string(), 600).await);
            }
            producer.push("c0", "live only", 0).await;
            let mut gate = PlainGate::open(&server, "a", 1).await;
            let mut came: Vec<Vec<u64>> = vec![Vec::new(); 3];
            while came.iter().flatten().count() < 30 {
                let said = gate.next().await;
                if let Some(c) = said.channel.strip_prefix('c') {
                    came[c.parse::<usize>().expect("a number")].push(said.id);
                }
            }
            for (c, of) in came.iter().enumerate() {
                let right: Vec<u64> = ids.iter().skip(c).step_by(3).copied().collect();
                assert_eq!(*of, right, "{mode}: in order, once");
            }
        });
    }
}

// 3: the very moment in which a gate comes.
#[test]
fn a_push_beside_a_gate_that_comes_is_not_forgotten() {
    runtime().block_on(async {
        let server = start("unify");
        let producer = Producer::open(&server).await;
        for n in 0..40 {
            let channel = format!("race{n}");
            let pushing = {
                let (producer, channel) = (producer.clone(), channel.clone());
                tokio::spawn(async move { producer.push(&channel, "x", 600).await })
            };
            let client = GrpcClient::open(server.listener("grpc")).await;
            let stream = client.stream(super::proto::GATE, &[]).await.expect("it opens");
            let mut gate = PlainGate { client, stream };
            let id = pushing.await.expect("it is answered");
            let said = next_of(&mut gate, &channel).await;
            assert_eq!(said.id, id);
            gate.received(&said).await;
            gate.stream.half_close();
            while gate.stream.next().await.is_ok() {}
        }
    });
}

// 4: fetches after UNRECEIVED.
#[test]
fn what_was_stored_comes_back_as_it_was() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        let odd = ["", "hello", " { \"a\" : 1 } ", "<b>&\u{2028}", "same", "same", "\u{0}"];
        let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let all: Vec<&str> = odd.iter().copied().chain(many.iter().map(|s| &**s)).collect();
        for text in &all {
            producer.push("用户 21", text, 600).await;
            let said = next_of(&mut gate, "用户 21").await;
            gate.unreceived(&said).await;
        }
        let came = gate.all_of("用户 21").await;
        assert_eq!(texts(&came), all);
        let ids: BTreeSet<u64> = came.iter().map(|said| said.id).collect();
        assert_eq!(ids.len(), all.len());
        assert!(came.iter().all(|s| s.kind == RESPONSE && (1..=600).contains(&s.expire)));
        gate.say(answer("用户 21", came[10].id, super::proto::REQUEST)).await;
        assert_eq!(next_of(&mut gate, "用户 21").await.id, came[11].id, "strictly newer");
    });
}

// 5: login race.
#[test]
fn a_login_between_a_push_and_its_unreceived() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        for n in 0..20 {
            let channel = format!("u{n}");
            producer.push(&channel, "in flight", 600).await;
            let said = next_of(&mut gate, &channel).await;
            // The room was empty when the gate looked; the user logs in; then both reach the server.
            gate.request(&channel, 0).await;
            gate.unreceived(&said).await;
            let again = next_of(&mut gate, &channel).await;
            assert_eq!((again.id, again.kind), (said.id, RESPONSE));
            gate.received(&again).await;
            assert!(gate.all_of(&channel).await.is_empty());
        }
    });
}

// 6: unify, and the gate that gets it does not have the user.
#[test]
fn unify_with_a_gate_that_does_not_have_the_user() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut first) = first_gate(&server, "").await;
        let mut second = PlainGate::open(&server, "", 2).await;
        producer.push("21", "x", 600).await;
        let (said, by_first) = tokio::select! {
            said = next_of(&mut first, "21") => (said, true),
            said = next_of(&mut second, "21") => (said, false),
        };
        let (wrong, right) = if by_first { (&first, &mut second) } else { (&second, &mut first) };
        wrong.unreceived(&said).await;
        let came = right.all_of("21").await;
        assert_eq!(came.iter().map(|s| s.id).collect::<Vec<_>>(), [said.id]);
        right.received(&came[0]).await;
        assert!(right.all_of("21").await.is_empty());
    });
}

// 7: false copies.
#[test]
fn a_delivered_message_is_not_stored_again() {
    for mode in ["group", "every"] {
        runtime().block_on(async {
            let server = start(mode);
            let (producer, mut a) = first_gate(&server, "a").await;
            let mut b = PlainGate::open(&server, "b", 2).await;
            for late in [true, false] {
                producer.push("21", "x", 600).await;
                let (at_a, at_b) = (next_of(&mut a, "21").await, next_of(&mut b, "21").await);
                assert_eq!(at_a.id, at_b.id);
                if late {
                    b.received(&at_b).await;
                    assert!(b.all_of("21").await.is_empty());
                    a.unreceived(&at_a).await;
                } else {
                    a.unreceived(&at_a).await;
                    assert_eq!(a.all_of("21").await.len(), 1);
                    b.received(&at_b).await;
                    assert!(b.all_of("21").await.is_empty());
                }
                assert!(a.all_of("21").await.is_empty(), "{mode}: no false copy");
            }
        });
    }
}

// 7: a dead group, and the older gate of a group whose newer one left.
#[test]
fn a_dead_group_stops_nobody() {
    runtime().block_on(async {
        let server = start("group");
        let (producer, mut old) = first_gate(&server, "a").await;
        let newer = PlainGate::open(&server, "a", 2).await;
        let mut other = PlainGate::open(&server, "b", 3).await;
        drop(newer);
        count(&server, 2).await;
        producer.push("21", "to the older one", 600).await;
        assert_eq!(&*next_of(&mut old, "21").await.text, b"to the older one");
        next_of(&mut other, "21").await;
        drop(old);
        count(&server, 1).await;
        for n in 0..10 {
            producer.push("22", &n.to_string(), 600).await;
            assert_eq!(next_of(&mut other, "22").await.text, n.to_string());
        }
        let came = other.all_of("22").await;
        assert_eq!(came.len(), 10, "nobody received them: they are kept");
    });
}

// 9: live pushes and replays at once on one stream.
#[test]
fn replays_and_live_pushes_share_a_stream() {
    runtime().block_on(async {
        let server =
            Server::builder().set("node.shards", "3").arg("--speak").arg("mikudos").start();
        let (producer, mut gate) = first_gate(&server, "").await;
        for n in 0..50 {
            let channel = format!("old{n}");
            producer.push(&channel, &"o".repeat(n * 100), 600).await;
            next_of(&mut gate, &channel).await;
        }
        let pushing = {
            let producer = producer.clone();
            tokio::spawn(async move {
                for n in 0..200 {
                    producer.push(&format!("new{}", n % 7), &"n".repeat(n * 10), 600).await;
                }
            })
        };
        for n in 0..50 {
            gate.request(&format!("old{n}"), 0).await;
        }
        let (mut olds, mut news) = (BTreeSet::new(), 0);
        while olds.len() < 50 || news < 200 {
            let said = gate.next().await;
            if said.channel.starts_with("new") {
                news += 1;
            } else if said.channel.starts_with("old") && said.kind == RESPONSE {
                olds.insert(said.channel);
            }
        }
        pushing.await.expect("all are answered");
    });
}

// 9: more commits at once than a shard's mailbox may hold.
#[test]
fn a_burst_comes_whole_without_a_request() {
    for mode in ["unify", "every"] {
        runtime().block_on(async {
            let server = Server::builder().set("limits.live_queue_bytes", "1MiB");
            let server = server.set("mikudos.mode", mode).arg("--speak").arg("mikudos").start();
            let (producer, mut gate) = first_gate(&server, "").await;
            let text = "x".repeat(100_000);
            let pushing: Vec<_> = (0..200)
                .map(|n| {
                    let (producer, text) = (producer.clone(), text.clone());
                    let channel = format!("c{}", n % 10);
                    tokio::spawn(async move {
                        (channel.clone(), producer.push(&channel, &text, 600).await)
                    })
                })
                .collect();
            let mut came = BTreeSet::new();
            while came.len() < 200 {
                let said = gate.next().await;
                if said.channel.starts_with('c') {
                    came.insert((said.channel, said.id));
                }
            }
            for push in pushing {
                assert!(came.contains(&push.await.expect("it is answered")), "{mode}");
            }
        });
    }
}

// 10: a store that takes no more is no secret.
#[test]
fn a_push_that_is_not_stored_is_not_answered_as_stored() {
    runtime().block_on(async {
        let server = Server::builder().set("store.max_bytes", "16MiB");
        let server = server.arg("--speak").arg("mikudos").start();
        let producer = Producer::open(&server).await;
        let big = "x".repeat(1 << 20);
        let mut kept = 0;
        let refused = loop {
            match producer.0.unary(PUSH, push("21", &big, 600)).await {
                Ok(_) => kept += 1,
                Err(status) => break status,
            }
            assert!(kept < 200, "the store is full at some time");
        };
        let codes = [Code::ResourceExhausted, Code::Unavailable];
        assert!(codes.contains(&refused.code()), "{refused}");
        let mut gate = PlainGate::open(&server, "", 1).await;
        for _ in 0..kept {
            let said = next_of(&mut gate, "21").await;
            assert_eq!(said.text.len(), big.len());
        }
    });
}

// 11: the state is told.
#[test]
fn config_and_state_are_told() {
    runtime().block_on(async {
        let server = start("group");
        let (producer, _gate) = first_gate(&server, "a").await;
        let config = "/message_pusher.MessagePusher/GetConfig";
        let told = producer.0.unary(config, Bytes::new()).await.expect("it is told");
        let text = String::from_utf8_lossy(&told).into_owned();
        assert!(text.contains("mode") && text.contains("group"), "{text}");
        let health = producer.0.unary("/grpc.health.v1.Health/Check", Bytes::new()).await;
        assert_eq!(health.expect("it is served"), Bytes::from_static(&[8, 1]));
    });
}

// 12: repeated answers, also from another stream.
#[test]
fn answers_may_be_repeated_and_come_from_another_stream() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        let other = PlainGate::on(gate.client.clone(), &server, "", 2).await;
        for n in 0..10 {
            let channel = format!("u{n}");
            let id = producer.push(&channel, "x", 600).await;
            for kind in [UNRECEIVED, UNRECEIVED, RECEIVED, RECEIVED, UNRECEIVED, RECEIVED] {
                // It is the other stream's in half of the cases; the numbers decide.
                gate.say(answer(&channel, id, kind)).await;
                other.say(answer(&channel, id, kind)).await;
            }
            wait_until("the ack", async || gate_has_none(&mut gate, &channel).await).await;
            assert!(!producer.remove(&channel, id).await, "it was acked");
            gate.unreceived_id(&channel, id).await;
            assert!(gate.all_of(&channel).await.is_empty(), "it stays acked");
        }
    });
}

async fn gate_has_none(gate: &mut PlainGate, channel: &str) -> bool {
    gate.all_of(channel).await.is_empty()
}

impl PlainGate {
    async fn unreceived_id(&self, channel: &str, id: u64) {
        self.say(answer(channel, id, UNRECEIVED)).await;
    }
}

// 12: what was never given out is no message.
#[test]
fn forged_answers_do_nothing() {
    runtime().block_on(async {
        let server = start("unify");
        let (producer, mut gate) = first_gate(&server, "").await;
        for id in [1, 2, 1 << 31, u64::from(u32::MAX)] {
            gate.say(answer("nobody", id, RECEIVED)).await;
            gate.say(answer("nobody", id, UNRECEIVED)).await;
        }
        assert!(gate.all_of("nobody").await.is_empty());
        producer.push("nobody", "x", 600).await;
        next_of(&mut gate, "nobody").await;
        assert_eq!(gate.all_of("nobody").await.len(), 1, "an early ack acks nothing");
    });
}
