//! Scenarios of the recordings that are about load: gates that do not read, that come and go, and many producers.

use super::plain::{PlainGate, Producer, count, texts};
use super::proto::Said;
use super::vectors::Scenario;
use super::{player, runtime};
use clarion_tests::grpc_bytes::GrpcClient;
use clarion_tests::{DEADLINE, Server};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A message of the recordings' stalled gates.
fn big() -> String {
    "x".repeat(60_000)
}

/// The only gate does not read and then cancels: nothing is lost, no push waits.
pub(super) fn stalled_then_gone(_: &Scenario) {
    runtime().block_on(async {
        let server = player::server("unify", 60_000);
        let producer = Producer::open(&server).await;
        let stalled = PlainGate::open(&server, "", 1).await;
        for n in 0..100 {
            producer.push("21", &format!("{n:04}{}", big()), 600).await;
        }
        drop(stalled);
        count(&server, 0).await;
        producer.push("21", "last", 600).await;
        let mut gate = PlainGate::open(&server, "", 1).await;
        let mut came = Vec::new();
        while came.len() < 101 {
            let said = gate.next().await;
            if said.channel == "21" {
                came.push(String::from_utf8_lossy(&said.text[..4]).into_owned());
            }
        }
        let right: Vec<String> =
            (0..100).map(|n| format!("{n:04}")).chain(["last".to_owned()]).collect();
        assert_eq!(came, right);
    });
}

/// A gate that does not read beside one that does: the other gets everything at once; the first one when it reads again.
pub(super) fn stalled_beside_another(scenario: &Scenario) {
    runtime().block_on(async {
        let server = player::server(scenario.mode.as_deref().expect("a mode"), 60_000);
        let producer = Producer::open(&server).await;
        let mut reading = PlainGate::open(&server, "a", 1).await;
        let mut stalled = PlainGate::open(&server, "b", 2).await;
        for n in 0..100 {
            producer.push("21", &format!("{n:05}{}", big()), 600).await;
            let said = of_channel(&mut reading, "21").await;
            assert_eq!(said.text[..5], *format!("{n:05}").as_bytes());
        }
        producer.push("22", "other", 600).await;
        assert_eq!(&*of_channel(&mut reading, "22").await.text, b"other");
        let (mut n, mut other) = (0, false);
        while n < 100 || !other {
            let said = stalled.next().await;
            match &*said.channel {
                "21" => {
                    assert_eq!(said.text[..5], *format!("{n:05}").as_bytes());
                    n += 1;
                }
                "22" => other = true,
                _ => {}
            }
        }
    });
}

async fn of_channel(gate: &mut PlainGate, channel: &str) -> Said {
    loop {
        let said = gate.next().await;
        if said.channel == channel {
            return said;
        }
    }
}

/// Reads a gate up to the text `last` and tells which numbers came, each answered.
fn drain(mut gate: PlainGate) -> JoinHandle<BTreeSet<u64>> {
    tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        loop {
            let said = of_channel(&mut gate, "21").await;
            seen.insert(said.id);
            gate.received(&said).await;
            if &*said.text == b"last" {
                return seen;
            }
        }
    })
}

/// Pushes until told to stop; all numbers that were answered.
fn produce(
    producer: &Producer,
    stop: &Arc<AtomicBool>,
    count: &Arc<AtomicUsize>,
) -> JoinHandle<Vec<u64>> {
    let (producer, stop, count) = (producer.clone(), stop.clone(), count.clone());
    tokio::spawn(async move {
        let mut ids = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            ids.push(producer.push("21", "x", 600).await);
            count.fetch_add(1, Ordering::Relaxed);
        }
        ids
    })
}

/// The gate's connection breaks under load, five times: every answered push is seen by a gate, or comes with a REQUEST.
pub(super) fn gates_die_under_load(_: &Scenario) {
    runtime().block_on(async {
        let server = player::server("unify", 60_000);
        let producer = Producer::open(&server).await;
        let (stop, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut gate = PlainGate::open(&server, "", 1).await;
        let pushing = produce(&producer, &stop, &pushed);
        let mut seen = BTreeSet::new();
        for round in 1..=5 {
            let mut got = 0;
            while got < 40 {
                // Seen and not answered, then the connection breaks.
                let said = of_channel(&mut gate, "21").await;
                got += 1;
                if got % 2 == 0 {
                    seen.insert(said.id);
                    gate.received(&said).await;
                }
            }
            gate.client.break_off();
            drop(gate);
            gate = PlainGate::open(&server, "", 1).await;
            assert!(pushed.load(Ordering::Relaxed) > 0, "round {round}");
        }
        stop.store(true, Ordering::Relaxed);
        let ids = pushing.await.expect("the producer goes on");
        gate.request("21", 0).await;
        while !ids.iter().all(|id| seen.contains(id)) {
            seen.insert(of_channel(&mut gate, "21").await.id);
        }
    });
}

/// 8 producers at once: each reply names its own message, once.
pub(super) fn parallel_ids(_: &Scenario) {
    const PRODUCERS: usize = 8;
    const EACH: usize = 250;
    runtime().block_on(async {
        let server = player::server("unify", 60_000);
        let mut gate = PlainGate::open(&server, "", 1).await;
        let producing: Vec<_> = (0..PRODUCERS).map(|p| produce_named(&server, p, EACH)).collect();
        let mut at_gate = BTreeMap::new();
        let mut in_order = [0; PRODUCERS];
        while at_gate.len() < PRODUCERS * EACH {
            let said = of_channel(&mut gate, "21").await;
            let text = texts(std::slice::from_ref(&said)).remove(0);
            let (p, n) = text.split_once(':').expect("it names its producer");
            let (p, n): (usize, usize) = (p.parse().expect("p"), n.parse().expect("n"));
            assert_eq!(n, in_order[p], "each producer sees its own in order");
            in_order[p] += 1;
            assert!(at_gate.insert(said.id, text).is_none(), "{} twice", said.id);
        }
        for replies in producing {
            for (id, text) in replies.await.expect("its pushes are answered") {
                assert_eq!(at_gate.remove(&id), Some(text), "the reply names its own message");
            }
        }
        assert!(at_gate.is_empty());
    });
}

/// The numbers and texts of what a producer pushed.
type Replies = Vec<(u64, String)>;

fn produce_named(server: &Server, p: usize, each: usize) -> JoinHandle<Replies> {
    let at = server.listener("grpc");
    tokio::spawn(async move {
        let producer = Producer(GrpcClient::open(at).await);
        let mut replies = Vec::new();
        for n in 0..each {
            let text = format!("{p}:{n}");
            replies.push((producer.push("21", &text, 600).await, text));
        }
        replies
    })
}

/// Gates come and go while producers push: the server lives, every push is answered, and one that stays gets all.
pub(super) fn churn(_: &Scenario) {
    runtime().block_on(async {
        let mut server = player::server("every", 60_000);
        let producer = Producer::open(&server).await;
        let steady = PlainGate::open(&server, "", 1).await;
        let (stop, pushed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let drained = drain(steady);
        let pushing = [produce(&producer, &stop, &pushed), produce(&producer, &stop, &pushed)];
        for round in 0..60 {
            let client = GrpcClient::open(server.listener("grpc")).await;
            let stream = client.stream(super::proto::GATE, &[]).await;
            let mut stream = stream.expect("the stream opens");
            timeout(DEADLINE, stream.next()).await.expect("a push comes").expect("it goes on");
            if round % 2 == 0 {
                client.break_off();
            }
        }
        stop.store(true, Ordering::Relaxed);
        let mut ids = BTreeSet::new();
        for pushing in pushing {
            ids.extend(pushing.await.expect("the producer goes on"));
        }
        ids.insert(producer.push("21", "last", 600).await);
        let seen = drained.await.expect("the gate goes on");
        let missing = ids.difference(&seen).count();
        assert!(missing == 0 && ids.len() > 60, "{missing} of {} did not come", ids.len());
        assert!(server.is_running());
    });
}
