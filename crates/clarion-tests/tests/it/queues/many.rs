//! Many consumers at once: each message goes to one of them.

use super::{JOBS, Taken, ack, next, one, taken, wait_first, wait_takers, waiting};
use crate::api::Api;
use clarion_tests::Server;
use std::{collections::BTreeSet, thread};

const CONSUMERS: u64 = 4;
const MESSAGES: u64 = 1000;

/// Takes one after the other until it is told to end; the numbers that it got.
fn consume(server: &Server) -> Vec<u64> {
    let mut api = Api::of(server);
    let mut numbers = Vec::new();
    loop {
        let taken = one(&mut api, JOBS);
        assert_eq!((taken.attempt, ack(&mut api, JOBS, [&taken])), (1, 1));
        if taken.text == "end" {
            return numbers;
        }
        numbers.push(taken.number());
    }
}

#[test]
fn consumers_share_a_queue_and_each_message_goes_to_one() {
    let server = Server::builder().set("store.sweep_interval", "50ms").start();
    let got: Vec<Vec<u64>> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(|| consume(&server))).collect();
        let mut api = Api::of(&server);
        for from in (1..=MESSAGES).step_by(50) {
            api.publish_numbers("queue:jobs", from, from + 49);
        }
        for _ in 0..CONSUMERS {
            api.publish("queue:jobs", "end");
        }
        consumers.into_iter().map(|consumer| consumer.join().expect("a consumer")).collect()
    });
    for numbers in &got {
        assert!(numbers.is_sorted(), "first hand-outs are in order");
    }
    let all: BTreeSet<u64> = got.iter().flatten().copied().collect();
    assert_eq!(got.iter().map(Vec::len).sum::<usize>() as u64, MESSAGES, "none twice");
    assert_eq!(all, (1..=MESSAGES).collect());
    // What all have acked is not kept.
    wait_first(&mut Api::of(&server), "queue:jobs", MESSAGES + CONSUMERS + 1);
}

#[test]
fn two_hundred_wait_and_each_gets_one() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut connections: Vec<_> = (0..200).map(|_| waiting(&server, JOBS)).collect();
    wait_takers(&mut api, 200);
    api.publish_numbers("queue:jobs", 1, 200);
    let got: Vec<Taken> = connections
        .iter_mut()
        .flat_map(|connection| taken(&connection.answer().expect("an answer").json()))
        .collect();
    let numbers: BTreeSet<u64> = got.iter().map(Taken::number).collect();
    assert_eq!((got.len(), numbers), (200, (1..=200).collect()));
    assert!(got.iter().all(|taken| taken.attempt == 1));
    let leases: BTreeSet<&str> = got.iter().map(|taken| taken.lease.as_str()).collect();
    assert_eq!(leases.len(), 200, "each has its own");
    assert_eq!(next(&mut api, JOBS, "wait=0"), []);
    assert_eq!(ack(&mut api, JOBS, &got), 200);
}

#[test]
fn no_more_is_out_than_the_window_holds() {
    let server = Server::builder().set("cursors.max_unacked", "5").start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 9);
    let first = next(&mut api, JOBS, "count=100");
    assert_eq!(first.len(), 5);
    assert_eq!(next(&mut api, JOBS, "count=100"), []);
    let mut waiting = waiting(&server, JOBS);
    wait_takers(&mut api, 1);
    assert_eq!(ack(&mut api, JOBS, &first[1..3]), 2);
    let sixth = taken(&waiting.answer().expect("an answer").json());
    assert_eq!(sixth[0].number(), 6);
    assert_eq!(next(&mut api, JOBS, "count=100").len(), 1);
}
