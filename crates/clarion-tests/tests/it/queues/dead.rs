//! Dead lists: what is given up on is kept, read, put back, and never lost on its way.

use super::{JOBS, Taken, ack, nack, next, one, wait_first};
use crate::api::{Api, texts};
use clarion_tests::{Server, wait_for};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const DEAD: &str = "/api/v1/channels/queue:jobs/dead";

fn dead(api: &mut Api, query: &str) -> Value {
    api.ok("GET", &format!("{DEAD}{query}"), None)
}

fn put_back(api: &mut Api, seqs: &[u64]) -> u64 {
    let answer = api.ok("POST", &format!("{DEAD}/put-back"), Some(&json!({ "seqs": seqs })));
    answer["put_back"].as_u64().expect("a number")
}

/// Waits until so many lie on the dead list.
fn wait_dead(api: &mut Api, count: usize) -> Value {
    let mut page = Value::Null;
    wait_for("dead messages", || {
        page = dead(api, "?limit=1000");
        page["messages"].as_array().is_some_and(|messages| messages.len() == count)
    });
    page
}

/// The header of this name, which there is once.
fn header<'a>(message: &'a Value, name: &str) -> Option<&'a str> {
    let headers = message["headers"].as_array()?;
    let mut found = headers.iter().filter(|header| header[0] == name);
    let value = found.next()?[1].as_str();
    assert!(found.next().is_none(), "{name} twice: {message}");
    value
}

#[test]
fn what_is_handed_out_too_often_dies_is_read_put_back_and_consumed() {
    let server = Server::builder()
        .set("cursors.max_attempts", "2")
        .set("store.sweep_interval", "50ms")
        .start();
    let mut api = Api::of(&server);
    assert_eq!(dead(&mut api, "")["messages"], json!([]));
    let job =
        json!({ "address": "queue:jobs", "text": "7", "kind": "job", "headers": [["a", "b"]] });
    let published = api.publish_as(&job);
    api.publish("queue:jobs", "8");
    // One dies of being given back, the other of silence.
    for attempt in 1..=2 {
        let taken = next(&mut api, JOBS, "wait=20&count=1&ack_wait=1");
        assert_eq!((taken[0].number(), taken[0].attempt), (7, attempt));
        assert_eq!(nack(&mut api, JOBS, &taken[0], 0.0), 1);
    }
    let silent: Vec<Taken> =
        (0..2).flat_map(|_| next(&mut api, JOBS, "wait=20&ack_wait=1")).collect();
    assert_eq!(
        silent.iter().map(|t| (t.number(), t.attempt)).collect::<Vec<_>>(),
        [(8, 1), (8, 2)]
    );
    let page = wait_dead(&mut api, 2);
    assert_eq!(
        (&page["address"], texts(&page)),
        (&json!("queue:jobs"), vec!["7".into(), "8".into()])
    );
    let message = &page["messages"][0];
    assert_eq!((&message["kind"], header(message, "a")), (&json!("job"), Some("b")));
    let facts = ["group", "id", "epoch", "seq", "attempts"]
        .map(|name| header(message, &format!("clarion-dead-{name}")).expect("a header").to_owned());
    assert_eq!(facts, ["*", &published.id, &published.epoch.to_string(), "1", "2"]);
    let at = header(message, "clarion-dead-at").and_then(|at| at.parse::<u64>().ok());
    assert!(at > Some(1 << 40) && at <= message["created_at"].as_u64(), "{message}");
    wait_for("the count of the dead", || api.metric("clarion_dead_letters_total") == 2);
    assert_eq!(texts(&dead(&mut api, "?after=1")), ["8"]);
    assert_eq!(dead(&mut api, "?limit=1")["next"], 1);
    // They have left the queue, also on disk.
    assert_eq!(next(&mut api, JOBS, "wait=0"), []);
    wait_first(&mut api, "queue:jobs", 3);

    assert_eq!(put_back(&mut api, &[1, 1, 99]), 1);
    assert_eq!(put_back(&mut api, &[1]), 0, "it is not on the list any more");
    let page = dead(&mut api, "");
    assert_eq!(
        (texts(&page), &page["first"]),
        (vec!["8".to_owned()], &json!(2)),
        "the list is trimmed"
    );
    let again = one(&mut api, JOBS);
    assert_eq!((again.number(), again.attempt, again.seq), (7, 1, 3));
    let message = api.read("queue:jobs", "")["messages"][0].take();
    assert_eq!(message["headers"], json!([["a", "b"]]), "it is as it was published");
    assert_eq!(ack(&mut api, JOBS, [&again]), 1);
    assert_eq!(put_back(&mut api, &[2]), 1);
    assert_eq!(one(&mut api, JOBS).number(), 8);
    let page = dead(&mut api, "");
    assert_eq!(
        (&page["messages"], &page["first"], &page["last"]),
        (&json!([]), &json!(3), &json!(2))
    );
}

#[test]
fn what_died_and_was_put_back_dies_again_as_another() {
    let server = Server::builder().set("cursors.max_attempts", "1").start();
    let mut api = Api::of(&server);
    api.publish("queue:jobs", "1");
    for death in 1..=3 {
        let taken = one(&mut api, JOBS);
        assert_eq!((taken.seq, nack(&mut api, JOBS, &taken, 3600.0)), (death, 1));
        let page = wait_dead(&mut api, 1);
        let message = &page["messages"][0];
        assert_eq!(header(message, "clarion-dead-seq"), Some(&*death.to_string()));
        let seq = message["seq"].as_u64().expect("a seq");
        assert_eq!(put_back(&mut api, &[seq]), 1);
    }
}

#[test]
fn a_group_of_long_name_has_its_dead_in_the_channels_list() {
    let server = Server::builder().set("cursors.max_attempts", "1").start();
    let mut api = Api::of(&server);
    let name = "ü".repeat(128);
    let place = format!("/api/v1/channels/queue:jobs/groups/{}", "%C3%BC".repeat(128));
    api.publish_numbers("queue:jobs", 1, 3);
    for taken in next(&mut api, &place, "count=3") {
        assert_eq!(nack(&mut api, &place, &taken, 0.0), 1);
    }
    let page = wait_dead(&mut api, 3);
    assert_eq!(header(&page["messages"][2], "clarion-dead-group"), Some(&*name));
    // The consumers of the queue are not concerned.
    assert_eq!(next(&mut api, JOBS, "count=9").len(), 3);
}

#[test]
fn what_a_full_queue_does_not_take_back_stays_on_the_list() {
    let server = Server::builder()
        .set("retention.queue.bytes", "1MiB")
        .set("cursors.max_attempts", "1")
        .set("store.sweep_interval", "50ms")
        .start();
    let mut api = Api::of(&server);
    let job = json!({ "address": "queue:jobs", "text": format!("{:<50000}", 1) });
    api.publish_as(&job);
    assert_eq!(kill_all(&mut api), [1]);
    wait_dead(&mut api, 1);
    while api.call("POST", "/api/v1/publish", Some(&job)).status == 200 {}
    let body = json!({ "seqs": [1] });
    let refused = api.refused("POST", &format!("{DEAD}/put-back"), Some(&body));
    assert_eq!(refused, (503, "queue_full".to_owned(), true));
    assert_eq!(dead(&mut api, "")["messages"][0]["seq"], 1);
    let taken = next(&mut api, JOBS, "count=100");
    ack(&mut api, JOBS, &taken);
    wait_for("room in the queue", || {
        api.call("POST", &format!("{DEAD}/put-back"), Some(&body)).status == 200
    });
    assert_eq!(number(&one(&mut api, JOBS).text), 1);
    assert_eq!(dead(&mut api, "")["messages"], json!([]));
}

/// Takes everything and gives it back for the last time; the numbers.
fn kill_all(api: &mut Api) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let taken = next(api, JOBS, "count=100");
        if taken.is_empty() {
            return numbers;
        }
        for taken in &taken {
            assert_eq!(nack(api, JOBS, taken, 0.0), 1);
            numbers.push(number(&taken.text));
        }
    }
}

fn number(text: &str) -> u64 {
    text.trim_end().parse().expect("a number")
}

#[test]
fn what_a_full_dead_list_refuses_stays_in_the_queue_over_a_restart() {
    let mut server = Server::builder()
        .set("retention.queue.bytes", "1MiB")
        .set("cursors.max_attempts", "1")
        .set("store.sweep_interval", "50ms")
        .start();
    let mut api = Api::of(&server);
    let mut killed = BTreeSet::new();
    let mut published = 0;
    wait_for("a full dead list", || {
        let text = format!("{:<50000}", published + 1);
        let job = json!({ "address": "queue:jobs", "text": text });
        // It is full too, until what died is trimmed from it.
        if api.call("POST", "/api/v1/publish", Some(&job)).status == 200 {
            published += 1;
        }
        killed.extend(kill_all(&mut api));
        server.stderr().contains("a dead list takes nothing")
    });
    assert_eq!(killed, (1..=published).collect());
    // A clean stop writes every ack; there must be none of what was refused.
    assert!(server.terminate().success());
    server.restart();
    let mut api = Api::of(&server);
    let dead = dead(&mut api, "?limit=1000");
    let dead: Vec<u64> = texts(&dead).iter().map(|text| number(text)).collect();
    let mut found: BTreeSet<u64> = dead.iter().copied().collect();
    assert_eq!(found.len(), dead.len(), "none is buried twice");
    assert!(dead.len() > 10 && (dead.len() as u64) < published, "{dead:?}");
    loop {
        let taken = next(&mut api, JOBS, "count=100");
        if taken.is_empty() {
            break;
        }
        found.extend(taken.iter().map(|taken| number(&taken.text)));
        ack(&mut api, JOBS, &taken);
    }
    assert_eq!(found, (1..=published).collect(), "each is in the list or comes again");
}
