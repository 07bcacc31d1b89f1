//! Shared work over HTTP: consumers of queues and reader groups, their leases, dead lists, and what a crash leaves.

mod crash;
mod dead;
mod groups;
mod leases;
mod many;

use crate::api::Api;
use clarion_tests::{
    Server,
    raw::{Connection, request},
    wait_for,
};
use serde_json::{Value, json};

/// A queue as consumers see it.
const JOBS: &str = "/api/v1/queues/jobs";

/// A message that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    seq: u64,
    text: String,
    attempt: u64,
    lease: String,
}

impl Taken {
    fn read(message: &Value) -> Self {
        let number = |name: &str| message[name].as_u64().unwrap_or_else(|| panic!("{message}"));
        let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("{message}"));
        Self {
            seq: number("seq"),
            text: text("text").to_owned(),
            attempt: number("attempt"),
            lease: text("lease").to_owned(),
        }
    }

    fn number(&self) -> u64 {
        self.text.parse().expect("a number")
    }
}

fn taken(answer: &Value) -> Vec<Taken> {
    answer["messages"].as_array().expect("messages").iter().map(Taken::read).collect()
}

/// Takes from a queue or group.
fn next(api: &mut Api, place: &str, query: &str) -> Vec<Taken> {
    taken(&api.ok("GET", &format!("{place}/next?{query}"), None))
}

/// Takes the one message that is there, or comes.
fn one(api: &mut Api, place: &str) -> Taken {
    let mut taken = next(api, place, "wait=20");
    assert_eq!(taken.len(), 1, "{taken:?}");
    taken.remove(0)
}

fn ack<'a>(api: &mut Api, place: &str, taken: impl IntoIterator<Item = &'a Taken>) -> u64 {
    let leases: Vec<&str> = taken.into_iter().map(|taken| taken.lease.as_str()).collect();
    let answer = api.ok("POST", &format!("{place}/ack"), Some(&json!({ "leases": leases })));
    answer["acked"].as_u64().expect("a number")
}

fn nack(api: &mut Api, place: &str, taken: &Taken, delay: f64) -> u64 {
    let body = json!({ "leases": [taken.lease], "delay": delay });
    let answer = api.ok("POST", &format!("{place}/nack"), Some(&body));
    answer["returned"].as_u64().expect("a number")
}

/// A request that waits for a message; its answer is read later.
fn waiting(server: &Server, place: &str) -> Connection {
    let at = server.addr();
    let mut connection = Connection::open(at).expect("the server accepts");
    let target = format!("{place}/next?wait=20");
    connection.send(&request("GET", &target, at, "", b"")).expect("the server reads");
    connection
}

/// Waits until so many requests wait for messages.
fn wait_takers(api: &mut Api, count: u64) {
    wait_for("requests that wait", || api.metric("clarion_queue_takers") == count);
}

/// Waits until a channel keeps nothing below this seq: what was acked below it is on disk.
fn wait_first(api: &mut Api, address: &str, first: u64) {
    wait_for("what was acked to be trimmed", || api.read(address, "")["first"] == first);
}
