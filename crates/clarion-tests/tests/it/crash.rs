//! Crash rounds: publishers and readers at work, SIGKILL, restart, everything is looked at again.
//!
//! What must hold after each: every acknowledged publish is delivered, at the place that its answer named, in order, once
//! per place; a reader goes on where its acks ended, and no message is delivered to it again whose ack is older than
//! `ack_flush` + 1 s at the kill. A round in which no publish was unanswered at the kill does not count.

mod ledger;
mod load;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use clarion_client::{Client, StreamQuery};
use clarion_tests::Server;
use ledger::{Ledger, Tag};
use load::{Progress, publish_until_killed, read_until_killed};
use tokio::{task::JoinSet, time::timeout};

/// Rounds that count.
const ROUNDS: u32 = 20;
/// Acknowledged publishes of all rounds together.
const ACKNOWLEDGED: u64 = 100_000;
const USERS: usize = 48;
/// The first so many users have a reader during the load; the others are away.
const READERS: usize = 12;
/// Messages per request of each publisher; 1 = the single publish.
const BATCHES: [usize; 8] = [1, 1, 1, 4, 8, 16, 32, 50];
/// `ack_flush` + 1 s.
const OLD: Duration = Duration::from_millis(1100);
const DEADLINE: Duration = Duration::from_secs(60);

fn user(user: usize) -> String {
    format!("crash-{user}")
}

/// A small generator (xorshift); good enough to pick users and moments.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[derive(Default)]
struct Totals {
    acknowledged: u64,
    unanswered: u64,
    delivered: u64,
    repeated: u64,
    old_acks: u64,
}

struct World {
    random: Random,
    ledger: Ledger,
    numbers: Vec<u64>,
    round: u32,
    last_ack: Instant,
    totals: Totals,
}

/// One line, past the capture of the test's output.
fn tell(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_acked_comes_again() {
    let seed = RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}");
    let mut server = Server::start();
    let mut world = World {
        random: Random(seed),
        ledger: Ledger::new(USERS, READERS),
        numbers: vec![0; BATCHES.len()],
        round: 0,
        last_ack: Instant::now(),
        totals: Totals::default(),
    };
    let mut counted = 0;
    while counted < ROUNDS || world.totals.acknowledged < ACKNOWLEDGED {
        world.round += 1;
        assert!(world.round < 3 * ROUNDS, "{counted} rounds of {} count", world.round - 1);
        let unanswered = world.load_and_kill(&mut server).await;
        server.restart();
        world.look(&server.client()).await;
        counted += u32::from(unanswered > 0);
    }
    world.look_from_the_start(&server.client()).await;
    let totals = &world.totals;
    assert!(totals.old_acks > 0, "no ack was old enough at any kill to be looked at");
    tell(&format!(
        "crash rounds: {counted} of {}; acknowledged {}, unanswered at the kill {}, delivered {}, repeated {}; \
         lost 0; {} seqs with old acks, none of them again",
        world.round,
        totals.acknowledged,
        totals.unanswered,
        totals.delivered,
        totals.repeated,
        totals.old_acks
    ));
}

impl World {
    /// One round up to the kill; how many publishes were unanswered then.
    async fn load_and_kill(&mut self, server: &mut Server) -> u64 {
        let client = server.client();
        let progress = Arc::new(Progress::default());
        let mut readers = JoinSet::new();
        for reader in 0..READERS {
            readers.spawn(read_until_killed(client.clone(), reader));
        }
        let mut publishers = JoinSet::new();
        for (publisher, batch) in BATCHES.into_iter().enumerate() {
            let random = Random(self.random.below(u64::MAX) | 1);
            let (client, progress) = (client.clone(), Arc::clone(&progress));
            let number = self.numbers[publisher];
            publishers
                .spawn(publish_until_killed(client, progress, random, publisher, batch, number));
        }
        let target = 4000 + self.random.below(4000);
        // The load of every fourth round goes on until the acks from before it are old.
        let old = if self.round.is_multiple_of(4) { OLD } else { Duration::ZERO };
        let reached = async {
            while progress.acknowledged() < target || self.last_ack.elapsed() < old {
                progress.changed().await;
            }
        };
        timeout(DEADLINE, reached).await.expect("the load makes progress");
        server.kill9();
        let killed = Instant::now();

        let mut unanswered = 0;
        while let Some(done) = publishers.join_next().await {
            let log = done.unwrap();
            self.numbers[log.publisher] = log.next_number;
            self.totals.acknowledged += log.acknowledged.len() as u64;
            unanswered += log.unanswered.len() as u64;
            self.ledger.published(log.acknowledged, log.unanswered);
        }
        while let Some(done) = readers.join_next().await {
            let log = done.unwrap();
            self.ledger.read(log.reader, &log.delivered);
            self.ledger.acked(log.reader, &log.acks, log.last_sent);
        }
        self.totals.old_acks += self.ledger.killed(killed, OLD);
        self.totals.unanswered += unanswered;
        println!(
            "round {}: killed at {} acknowledged, {unanswered} unanswered",
            self.round,
            progress.acknowledged()
        );
        unanswered
    }

    /// After the restart: everybody reads up to a mark that is published now.
    async fn look(&mut self, client: &Client) {
        let marks = self.mark(client).await;
        let mut reading = JoinSet::new();
        for (i, mark) in marks.into_iter().enumerate() {
            let query = if i < READERS {
                StreamQuery::feed(user(i), "reader")
            } else {
                let from = Some((self.ledger.read_to(i) + 1).to_string());
                StreamQuery { from, ..StreamQuery::address(format!("user:{}", user(i))) }
            };
            let client = client.clone();
            reading.spawn(async move {
                let delivered = load::read_to(&client, query, mark).await;
                // Some ack all, some only part, so that the next crash finds cursors in many places.
                let last = delivered.len() - 1;
                let upto = if i % 2 == 0 { last } else { last / 2 };
                let (seq, _, token) = &delivered[upto];
                let ack = match token {
                    Some(token) if i < READERS => {
                        client.ack(token).await.unwrap();
                        Some((Instant::now(), *seq))
                    }
                    _ => None,
                };
                (i, delivered, ack)
            });
        }
        while let Some(done) = reading.join_next().await {
            let (i, delivered, ack) = done.unwrap();
            let delivered: Vec<(u64, Tag)> =
                delivered.iter().map(|(seq, tag, _)| (*seq, *tag)).collect();
            if i < READERS {
                self.ledger.resumed(i, delivered[0].0);
            }
            self.ledger.read(i, &delivered);
            if let Some(ack) = ack {
                self.ledger.acked(i, &[ack], ack.1);
                self.last_ack = ack.0;
            }
        }
        self.ledger.settle();
        (self.totals.delivered, self.totals.repeated) = self.ledger.counts();
    }

    async fn mark(&mut self, client: &Client) -> Vec<u64> {
        let tag = Tag { publisher: BATCHES.len(), number: self.round.into() };
        let messages: Vec<_> = (0..USERS).map(|i| load::message(i, tag)).collect();
        let answers = client.publish_batch(&messages).await.unwrap();
        let marks: Vec<u64> = answers.into_iter().map(|answer| answer.unwrap().seq).collect();
        let published = marks.iter().enumerate().map(|(i, seq)| (i, *seq, tag)).collect();
        self.ledger.published(published, Vec::new());
        marks
    }

    /// At the end a new device of each user who was away gets everything, from the first message on.
    async fn look_from_the_start(&self, client: &Client) {
        for i in READERS..USERS {
            let last = self.ledger.read_to(i);
            let delivered = load::read_to(client, StreamQuery::feed(user(i), "late"), last).await;
            let delivered = delivered.iter().map(|(seq, tag, _)| (*seq, *tag)).collect();
            self.ledger.check_whole(i, delivered);
        }
    }
}
