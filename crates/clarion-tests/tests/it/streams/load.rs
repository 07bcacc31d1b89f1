//! Streams under load: a publisher that never pauses, a reader that stops reading.

use crate::api::{Api, Event, Stream};
use clarion_tests::{
    Server,
    raw::{self, Connection},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

/// Publishes numbered messages to one address until it is told to stop; returns the last number.
fn publish_until(stop: &AtomicBool, at: SocketAddr, address: &str, first: u64) -> u64 {
    let mut api = Api::at(at);
    let mut next = first;
    while !stop.load(Relaxed) {
        api.publish_numbers(address, next, next + 19);
        next += 20;
    }
    next - 1
}

#[test]
fn catching_up_with_a_publisher_that_never_pauses() {
    // A backlog of 100 outboxes.
    let server = Server::builder()
        .set("limits.outbox_messages", "20")
        .set("limits.outbox_bytes", "8KiB")
        .set("limits.page_messages", "16")
        .start();
    let at = server.addr();
    Api::of(&server).publish_numbers("user:u", 1, 2000);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let publisher = scope.spawn(|| publish_until(&stop, at, "user:u", 2001));
        let mut late = Stream::feed(&server, "u", "late");
        let mut early = Stream::open(&server, "address=user:u&from=1", None);
        late.numbers(1, 3000);
        early.numbers(1, 3000);
        stop.store(true, Relaxed);
        let last = publisher.join().expect("the publisher");
        late.numbers(3001, last);
        early.numbers(3001, last);
    });
    let mut api = Api::of(&server);
    assert_eq!(api.metric("clarion_gaps_total"), 0);
    assert!(api.metric("clarion_behind_total") + api.metric("clarion_pages_total") > 100);
}

/// A connection that can hold little: it does not read until it is asked to.
fn narrow(at: SocketAddr) -> Connection {
    Connection::from_stream(raw::narrow(at)).expect("a socket")
}

const BIG: usize = 32 << 10;
const BIG_COUNT: u64 = 1000;

fn number(event: &Event) -> Option<u64> {
    event.data["json"]["n"].as_u64()
}

#[test]
fn a_reader_that_stops_reading_loses_nothing_and_costs_nothing() {
    let server = Server::builder()
        .set("store.memtable_bytes", "1MiB")
        .set("store.cache_bytes", "1MiB")
        .set("store.max_bytes", "1GiB")
        .start();
    let at = server.addr();
    let mut api = Api::of(&server);
    let slow = Stream::on(narrow(at), at, "user=u&device=slow", None);
    let mut slow = slow.expect("a stream");
    let padding = "x".repeat(BIG);
    let message = |n: u64, expire: Option<u64>| -> Value {
        let mut message =
            json!({ "address": "user:u", "json": { "n": n, "padding": padding.as_str() } });
        if let Some(expire) = expire {
            message["expire"] = expire.into();
        }
        message
    };
    api.publish_as(&message(0, None));
    let before = server.peak_rss_kib();
    thread::scope(|scope| {
        let others: Vec<_> = (0..2)
            .map(|n| {
                let mut other = Stream::feed(&server, "u", &format!("other{n}"));
                scope.spawn(move || {
                    for expected in 0..=BIG_COUNT {
                        assert_eq!(number(&other.message()), Some(expected));
                    }
                    other
                })
            })
            .collect();
        for n in 1..=BIG_COUNT {
            api.publish_as(&message(n, None));
        }
        let others: Vec<_> =
            others.into_iter().map(|other| other.join().expect("served")).collect();
        // A live message finds no room at the slow one; the others have read all.
        assert_eq!(api.metric("clarion_dropped_outbox_full_total"), 0);
        api.publish_as(&message(1, Some(0)));
        assert_eq!(api.metric("clarion_dropped_outbox_full_total"), 1);
        for mut other in others {
            let live = other.message();
            assert_eq!((number(&live), live.id), (Some(1), None));
        }
    });
    let grown = server.peak_rss_kib().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more while 31 MiB passed a reader that does not read");
    for expected in 0..=BIG_COUNT {
        assert_eq!(number(&slow.message()), Some(expected));
    }
}
