//! Durable readers at the edges of their lives: whose cursors count, what a queue gives back, what a forgotten device
//! comes back to, what slow and stuck clients cost.

use crate::api::{Api, Stream};
use clarion_tests::{
    Server,
    raw::{self, Connection},
    wait_for,
};
use serde_json::json;
use std::net::SocketAddr;

#[test]
fn nobody_else_moves_where_a_users_devices_start() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:victim", 1, 3);
    let foreign = "address=user:victim&user=auditor&device=x&from=latest";
    let refused = Stream::try_open(server.addr(), foreign, None).err().expect("a refusal");
    assert_eq!((refused.status, refused.json()["name"].as_str()), (403, Some("forbidden")));
    Stream::feed(&server, "victim", "phone").numbers(1, 3);
}

fn job() -> serde_json::Value {
    json!({ "address": "queue:q", "text": "x".repeat(50_000) })
}

fn fill(api: &mut Api) -> u64 {
    let message = job();
    (1..).find(|_| api.call("POST", "/api/v1/publish", Some(&message)).status == 503).unwrap_or(0)
        - 1
}

#[test]
fn a_full_queue_takes_messages_again_when_all_is_acked_also_after_a_restart() {
    let mut server = Server::builder()
        .set("retention.queue.bytes", "1MiB")
        .set("store.sweep_interval", "1h")
        .start();
    let mut api = Api::of(&server);
    let count = fill(&mut api);
    assert!(count > 10);
    let mut consumer = Stream::open(&server, "address=queue:q&user=u&device=d", None);
    let events: Vec<_> = (0..count).map(|_| consumer.message()).collect();
    let last = events.last().and_then(|event| event.id.clone()).expect("a token");
    assert!(api.ack(&last));
    drop(consumer);
    assert!(server.terminate().success());
    server.reconfigure(|builder| builder.set("store.sweep_interval", "50ms"));
    server.restart();
    let mut api = Api::of(&server);
    let message = job();
    wait_for("room in the queue", || {
        api.call("POST", "/api/v1/publish", Some(&message)).status == 200
    });
    assert_eq!(api.read("queue:q", "")["first"], count + 1);
}

#[test]
fn a_forgotten_device_begins_anew_and_another_devices_token_makes_nothing() {
    let server = Server::builder().set("limits.max_devices", "2").start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 2);
    let mut first = Stream::feed(&server, "u", "d1");
    let token = first.message().id.expect("a token");
    drop(first);
    api.wait_gone("u");
    for device in ["d2", "d3"] {
        drop(Stream::feed(&server, "u", device));
        api.wait_gone("u");
    }
    // Its floor is that of the user's furthest device.
    let mut again = Stream::open(&server, "user=u&device=d1", Some(&token));
    again.numbers(1, 2);
    let id = api.publish("user:u", "3").id;
    let theirs = again.message().id.expect("a token");
    let refused = Stream::try_open(server.addr(), "user=u&device=new", Some(&theirs));
    assert_eq!(refused.err().map(|answer| answer.status), Some(403));
    let devices = api.status(&id)["devices"].clone();
    assert!(
        devices.as_array().is_some_and(|d| d.iter().all(|d| d["device"] != "new")),
        "{devices}"
    );
}

#[test]
fn a_device_that_is_attached_is_not_forgotten_for_its_age() {
    let server = Server::builder()
        .set("limits.device_age", "2s")
        .set("store.sweep_interval", "50ms")
        .start();
    let mut api = Api::of(&server);
    let mut stream = Stream::feed(&server, "u", "d");
    let attached = std::time::Instant::now();
    api.publish("user:u", "1");
    let mut token = stream.message().id.expect("a token");
    let mut number = 1;
    wait_for("more than the age of a device", || {
        number += 1;
        api.publish("user:u", &number.to_string());
        token = stream.message().id.expect("a token");
        attached.elapsed().as_secs() >= 4
    });
    drop(stream);
    api.wait_gone("u");
    let id = api.publish("user:u", "next").id;
    let mut stream = Stream::open(&server, "user=u&device=d", Some(&token));
    assert_eq!(stream.message().data["text"], "next");
    assert_eq!(api.status(&id)["devices"][0]["device"], "d");
}

#[test]
fn a_device_reads_a_bounded_number_of_channels() {
    let server = Server::builder().set("limits.max_cursors", "3").start();
    let open = |topic: u32| {
        let query = format!("address=topic:t{topic}&user=u&device=d");
        Stream::try_open(server.addr(), &query, None).map(drop)
    };
    for topic in 1..=3 {
        assert!(open(topic).is_ok());
    }
    let refused = open(4).expect_err("a refusal");
    assert_eq!((refused.status, refused.json()["name"].as_str()), (409, Some("too_many_cursors")));
    assert!(open(2).is_ok(), "what it reads already it may read again");
}

/// A connection that can hold little: it does not read until it is asked to.
fn narrow(at: SocketAddr) -> Connection {
    Connection::from_stream(raw::narrow(at)).expect("a socket")
}

#[test]
fn a_large_message_waits_once_for_many_slow_readers() {
    let server = Server::start();
    let at = server.addr();
    let mut api = Api::of(&server);
    let open = |_| Stream::on(narrow(at), at, "address=all", None).expect("a stream");
    let mut slow: Vec<Stream> = (0..200).map(open).collect();
    let before = server.rss_kib();
    let text = "0123456789".repeat(100_000);
    api.publish("all", &text);
    api.publish("all", "behind it");
    wait_for("the deliveries", || api.metric("clarion_deliveries_total") >= 200);
    let grown = server.peak_rss_kib().saturating_sub(before);
    assert!(grown < 60 << 10, "200 readers of 1 MB took {grown} KiB");
    // Through so small a window a megabyte takes its time: a few stand for all.
    for stream in slow.iter_mut().take(5) {
        assert!(stream.message().data["text"] == text.as_str());
        assert_eq!(stream.message().data["text"], "behind it");
    }
}

#[test]
fn a_stream_whose_client_takes_nothing_ends_and_loses_nothing() {
    let server =
        Server::builder().set("limits.write_timeout", "1s").set("sse.heartbeat", "250ms").start();
    let at = server.addr();
    let mut api = Api::of(&server);
    let stuck = Stream::on(narrow(at), at, "user=u&device=d", None).expect("a stream");
    let text = "x".repeat(900_000);
    for _ in 0..8 {
        api.publish("user:u", &text);
    }
    api.wait_gone("u");
    drop(stuck);
    let mut again = Stream::feed(&server, "u", "d");
    for seq in 1..=8 {
        assert_eq!(again.message().data["seq"], seq);
    }
}

#[test]
fn a_device_that_reads_its_users_channel_by_name_goes_on_there_in_the_feed() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 5);
    let mut named = Stream::open(&server, "address=user:u&user=u&device=d", None);
    named.numbers(1, 2);
    let token = named.token().to_owned();
    assert!(api.ack(&token));
    drop(named);
    api.wait_gone("u");
    let mut other = Stream::open(&server, "user=u&device=other&from=earliest", None);
    other.numbers(1, 5);
    let token = other.token().to_owned();
    assert!(api.ack(&token));
    Stream::feed(&server, "u", "d").numbers(3, 5);
}
