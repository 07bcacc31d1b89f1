//! PushToChannelWithStatus gives the true answer, whatever the order in which gates say it.

use super::plain::{PlainGate, Producer, count, first_gate};
use super::proto::{PUSH_WITH_STATUS, RECEIVED, Said, UNRECEIVED, push};
use super::{player, runtime};
use clarion_tests::Server;
use std::collections::HashMap;
use tonic::{Code, Status};

async fn said(call: tokio::task::JoinHandle<Result<Said, Status>>) -> Result<Said, Status> {
    call.await.expect("a call does not panic")
}

async fn next_of(gate: &mut PlainGate, channel: &str) -> Said {
    loop {
        let said = gate.next().await;
        if said.channel == channel {
            return said;
        }
    }
}

#[test]
fn unreceived_first_and_then_received() {
    for (mode, expire) in [("group", 600), ("every", 600), ("group", 0), ("every", 0)] {
        runtime().block_on(async {
            let server = player::server(mode, 60_000);
            let producer = Producer::open(&server).await;
            let mut a = PlainGate::open(&server, "a", 1).await;
            let mut b = PlainGate::open(&server, "b", 2).await;
            let call = producer.push_with_status("21", "x", expire);
            let (at_a, at_b) = (next_of(&mut a, "21").await, next_of(&mut b, "21").await);
            a.unreceived(&at_a).await;
            // A second time is not the other gate's answer.
            a.unreceived(&Said { id: at_a.id + 7, ..at_a.clone() }).await;
            b.received(&at_b).await;
            let answer = said(call).await.expect("it was received");
            assert_eq!((answer.id, answer.kind), (at_a.id, RECEIVED), "{mode} {expire}");
            assert_eq!((answer.text, answer.expire), (at_b.text, expire));
            let call = producer.push_with_status("21", "y", expire);
            let (at_a, at_b) = (next_of(&mut a, "21").await, next_of(&mut b, "21").await);
            b.unreceived(&at_b).await;
            a.unreceived(&at_a).await;
            let answer = said(call).await.expect("all have said it");
            assert_eq!((answer.id, answer.kind), (at_a.id, UNRECEIVED), "{mode} {expire}");
        });
    }
}

#[test]
fn fifty_at_once_answered_out_of_order() {
    for expire in [600, 0] {
        runtime().block_on(async {
            let server = player::server("unify", 60_000);
            let producer = Producer::open(&server).await;
            let mut gate = PlainGate::open(&server, "", 1).await;
            let calls: Vec<_> =
                (0..50).map(|n| producer.push_with_status("21", &n.to_string(), expire)).collect();
            let mut came = HashMap::new();
            while came.len() < 50 {
                let said = next_of(&mut gate, "21").await;
                let text = String::from_utf8_lossy(&said.text).into_owned();
                came.insert(text.parse::<usize>().expect("a number"), said);
            }
            // 0, 49, 1, 48, …
            let order = (0..25).flat_map(|n| [n, 49 - n]);
            for n in order {
                gate.reply(&came[&n], if n % 3 == 0 { UNRECEIVED } else { RECEIVED }).await;
            }
            for (n, call) in calls.into_iter().enumerate() {
                let answer = said(call).await.unwrap_or_else(|e| panic!("{n} of {expire}: {e}"));
                let kind = if n % 3 == 0 { UNRECEIVED } else { RECEIVED };
                assert_eq!((answer.id, answer.kind), (came[&n].id, kind), "{n}");
                assert_eq!(answer.text, n.to_string());
            }
        });
    }
}

#[test]
fn without_a_gate_it_is_unreceived_at_once_and_kept() {
    runtime().block_on(async {
        for mode in ["unify", "group", "every"] {
            let server = player::server(mode, 3_600_000);
            let producer = Producer::open(&server).await;
            let answer = said(producer.push_with_status("21", "x", 600)).await.expect("at once");
            assert_eq!((answer.kind, &*answer.channel), (UNRECEIVED, "21"));
            let live = said(producer.push_with_status("21", "y", 0)).await.expect("at once");
            assert_eq!(live.kind, UNRECEIVED);
            let mut gate = PlainGate::open(&server, "a", 1).await;
            let came = next_of(&mut gate, "21").await;
            assert_eq!((came.id, &*came.text), (answer.id, &b"x"[..]));
        }
    });
}

#[test]
fn a_gate_that_goes_is_an_answer() {
    runtime().block_on(async {
        let server = player::server("unify", 3_600_000);
        let producer = Producer::open(&server).await;
        for expire in [600, 0] {
            let mut gate = PlainGate::open(&server, "", 1).await;
            let call = producer.push_with_status("21", "x", expire);
            next_of(&mut gate, "21").await;
            gate.client.break_off();
            let answer = said(call).await.expect("nobody is left to answer");
            assert_eq!(answer.kind, UNRECEIVED, "expire {expire}");
            count(&server, 0).await;
        }
    });
}

#[test]
fn silence_is_a_time_out_and_late_answers_count() {
    runtime().block_on(async {
        let server: Server = player::server("unify", 300);
        let (producer, mut gate) = first_gate(&server, "").await;
        let call = producer.push_with_status("21", "x", 600);
        let came = next_of(&mut gate, "21").await;
        let status = said(call).await.expect_err("nobody answers");
        assert_eq!((status.code(), status.message()), (Code::Unknown, "time out"));
        assert_eq!(gate.all_of("21").await.len(), 1, "it is kept");
        for _ in 0..3 {
            gate.received(&came).await;
        }
        assert!(gate.all_of("21").await.is_empty());
    });
}

#[test]
fn a_producer_that_gives_up_disturbs_nobody() {
    runtime().block_on(async {
        let server = player::server("unify", 3_600_000);
        let (producer, mut gate) = first_gate(&server, "").await;
        let client = producer.0.clone();
        let call =
            tokio::spawn(async move { client.unary(PUSH_WITH_STATUS, push("21", "x", 600)).await });
        let came = next_of(&mut gate, "21").await;
        call.abort();
        gate.received(&came).await;
        assert!(gate.all_of("21").await.is_empty());
        let call = producer.push_with_status("21", "y", 600);
        let came = next_of(&mut gate, "21").await;
        gate.received(&came).await;
        assert_eq!(said(call).await.expect("it was received").id, came.id);
    });
}
