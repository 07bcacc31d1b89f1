//! Leases: how long they hold, who may end them, what comes back and when.

use super::{JOBS, ack, nack, next, one, wait_takers, waiting};
use crate::api::Api;
use clarion_tests::Server;
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_waiting_request_wakes_when_a_message_comes() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut waiting = waiting(&server, JOBS);
    wait_takers(&mut api, 1);
    api.publish("queue:jobs", "wake up");
    let answer = waiting.answer().expect("an answer");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let message = answer.json()["messages"][0].take();
    assert_eq!((&message["text"], &message["attempt"]), (&json!("wake up"), &json!(1)));
    wait_takers(&mut api, 0);
    for query in ["", "wait=0", "wait=0.01", "wait=1e-3&count=100"] {
        assert_eq!(next(&mut api, JOBS, query), [], "{query}");
    }
}

#[test]
fn what_is_there_is_handed_out_without_waiting_up_to_the_count() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 300);
    let mut numbers = Vec::new();
    loop {
        let taken = next(&mut api, JOBS, "count=70");
        assert!(taken.len() <= 70);
        if taken.is_empty() {
            break;
        }
        numbers.extend(taken.iter().map(super::Taken::number));
        assert_eq!(ack(&mut api, JOBS, &taken), taken.len() as u64);
    }
    assert_eq!(numbers, (1..=300).collect::<Vec<_>>());
}

#[test]
fn an_answer_is_bounded_in_bytes_but_never_empty_for_it() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let text = "x".repeat(900_000);
    for _ in 0..4 {
        api.publish("queue:jobs", &text);
    }
    let mut counts = Vec::new();
    while counts.iter().sum::<usize>() < 4 {
        let taken = next(&mut api, JOBS, "wait=20&count=100");
        counts.push(taken.len());
    }
    assert!(counts.iter().all(|count| (1..=2).contains(count)), "{counts:?}");
}

#[test]
fn a_lease_that_lapses_is_somebody_elses_and_counts() {
    let server = Server::builder().set("cursors.ack_wait", "50ms").start();
    let mut api = Api::of(&server);
    api.publish("queue:jobs", "1");
    let taken: Vec<_> = (1..=4).map(|_| one(&mut api, JOBS)).collect();
    let attempts: Vec<u64> = taken.iter().map(|taken| taken.attempt).collect();
    assert_eq!(attempts, [1, 2, 3, 4]);
    assert!(taken.iter().all(|again| again.seq == 1));
    assert!(api.metric("clarion_handed_back_total") >= 3);
    assert_eq!(nack(&mut api, JOBS, &taken[0], 0.0), 0, "that lease is over");
    // Whose work was done late did it all the same.
    assert_eq!(ack(&mut api, JOBS, &taken[..1]), 1);
    assert_eq!(ack(&mut api, JOBS, &taken), 0);
    assert_eq!(next(&mut api, JOBS, "wait=0.2"), []);
}

#[test]
fn a_consumer_says_how_long_its_lease_lasts() {
    let server = Server::builder().set("cursors.ack_wait", "50ms").start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 2);
    let long = next(&mut api, JOBS, "ack_wait=3600");
    let short = next(&mut api, JOBS, "ack_wait=1");
    // The second one comes back twice while the first one does not.
    for attempt in [2, 3] {
        let again = one(&mut api, JOBS);
        assert_eq!((again.seq, again.attempt), (short[0].seq, attempt));
    }
    assert_eq!(nack(&mut api, JOBS, &long[0], 0.0), 1);
}

#[test]
fn what_is_given_back_comes_at_once_or_after_its_delay() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 2);
    let first = one(&mut api, JOBS);
    assert_eq!(nack(&mut api, JOBS, &first, 0.0), 1);
    let again = next(&mut api, JOBS, "wait=0");
    assert_eq!((again[0].seq, again[0].attempt), (first.seq, 2));
    assert_eq!(nack(&mut api, JOBS, &first, 0.0), 0, "somebody else has it");
    assert_eq!(nack(&mut api, JOBS, &again[0], 3600.0), 1);
    assert_eq!(nack(&mut api, JOBS, &again[0], 0.0), 0, "it was given back");
    let second = one(&mut api, JOBS);
    assert_eq!((second.seq, second.attempt), (2, 1));
    assert_eq!(next(&mut api, JOBS, "wait=0.1"), [], "one is out, one is delayed");
    assert_eq!(nack(&mut api, JOBS, &second, 0.3), 1);
    let second = one(&mut api, JOBS);
    assert_eq!((second.seq, second.attempt), (2, 2));
    assert_eq!(ack(&mut api, JOBS, [&second, &again[0]]), 2, "also what is delayed");
}

#[test]
fn what_expired_or_was_erased_is_not_handed_out() {
    let server = Server::builder().set("cursors.ack_wait", "50ms").start();
    let mut api = Api::of(&server);
    let id = api.publish("queue:jobs", "erased").id;
    let short = json!({ "address": "queue:jobs", "text": "expired", "expire": 1 });
    let expires = api.publish_as(&short).id;
    api.publish("queue:jobs", "kept");
    api.ok("DELETE", &format!("/api/v1/messages/{id}"), None);
    clarion_tests::wait_for("the end of a message", || api.status(&expires)["state"] == "expired");
    for attempt in 1..=2 {
        let taken = one(&mut api, JOBS);
        assert_eq!((taken.text.as_str(), taken.attempt), ("kept", attempt));
    }
}

#[test]
fn who_goes_away_while_waiting_takes_nothing_with_him() {
    let server = Server::builder().set("limits.queue_takers", "1").start();
    let mut api = Api::of(&server);
    let gone = waiting(&server, JOBS);
    wait_takers(&mut api, 1);
    let refused = api.refused("GET", &format!("{JOBS}/next"), None);
    assert_eq!(refused, (503, "overloaded".to_owned(), true));
    drop(gone);
    wait_takers(&mut api, 0);
    api.publish("queue:jobs", "1");
    let taken = next(&mut api, JOBS, "wait=0");
    assert_eq!((taken.len(), taken[0].attempt), (1, 1));
}

#[test]
fn at_the_stop_those_who_wait_are_told() {
    let mut server = Server::builder().set("limits.shutdown_timeout", "1h").start();
    let mut api = Api::of(&server);
    let group = "/api/v1/channels/all/groups/g";
    let places = [JOBS, JOBS, JOBS, group, "/api/v1/queues/other"];
    let mut connections = places.map(|place| waiting(&server, place));
    wait_takers(&mut api, 5);
    server.signal(Signal::TERM);
    for connection in &mut connections {
        let answer = connection.answer().expect("an answer");
        let problem = answer.json();
        assert_eq!((answer.status, problem["name"].as_str()), (503, Some("shutting_down")));
        assert_eq!((&problem["retry"], answer.header("retry-after")), (&json!(true), Some("1")));
    }
    assert_eq!(server.wait().code(), Some(0));
}
