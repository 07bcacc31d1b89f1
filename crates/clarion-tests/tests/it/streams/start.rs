//! Where a stream starts: feeds, devices, single channels.

use crate::api::{Api, Stream};
use clarion_tests::Server;
use serde_json::json;

#[test]
fn a_feed_is_the_users_channel_and_all() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut feed = Stream::open(&server, "user=u", None);
    for address in ["user:v", "user:u", "all", "user:u"] {
        api.publish(address, address);
    }
    // The two channels keep their own order; between them there is none.
    let mut seen: Vec<_> = (0..3).map(|_| feed.message().data).collect();
    seen.sort_by_key(|data| (data["channel"].to_string(), data["seq"].as_u64()));
    let seen: Vec<_> = seen.iter().map(|d| (d["channel"].clone(), d["seq"].clone())).collect();
    let expected = [("all", 1), ("user:u", 1), ("user:u", 2)];
    assert_eq!(seen, expected.map(|(channel, seq)| (json!(channel), json!(seq))));
    let presence = api.ok("GET", "/api/v1/users/u/presence", None);
    assert_eq!(presence["sessions"][0]["device"], "default", "{presence}");
}

#[test]
fn a_new_device_starts_at_the_highest_floor_of_its_user() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 5);
    let mut first = Stream::feed(&server, "u", "first");
    first.numbers(1, 3);
    let third = first.token().to_owned();
    first.numbers(4, 5);
    let mut second = Stream::feed(&server, "u", "second");
    second.numbers(1, 2);
    let ids = api.read("user:u", "");
    let id = |n: usize| ids["messages"][n - 1]["id"].as_str().expect("an id").to_owned();
    assert!(api.ack(&third) && api.ack(second.token()));
    api.wait_acked(&id(3), "first");
    api.wait_acked(&id(2), "second");
    Stream::feed(&server, "u", "third").numbers(4, 5);
}

#[test]
fn all_is_read_from_its_head_by_a_new_device() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish("all", "before");
    let mut feed = Stream::feed(&server, "u", "d");
    api.publish("all", "after");
    assert_eq!(feed.text(), "after");
    drop(feed);
    api.publish("all", "away");
    let mut feed = Stream::feed(&server, "u", "d");
    assert_eq!(feed.texts(2), ["after", "away"], "nothing was acked");
}

#[test]
fn a_reader_may_say_where_it_starts() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 5);
    let mut feed = Stream::feed(&server, "u", "old");
    feed.numbers(1, 3);
    let id = feed.message().data["id"].as_str().expect("an id").to_owned();
    assert!(api.ack(feed.token()));
    api.wait_acked(&id, "old");
    let open = |device: &str, from: &str| {
        Stream::open(&server, &format!("user=u&device={device}&from={from}"), None)
    };
    open("a", "earliest").numbers(1, 5);
    open("b", "unacked").numbers(5, 5);
    open("c", "3").numbers(3, 5);
    let mut latest = open("e", "latest");
    let mut beyond = open("f", "6");
    let mut old = open("old", "unacked");
    api.publish_numbers("user:u", 6, 6);
    latest.numbers(6, 6);
    beyond.numbers(6, 6);
    old.numbers(5, 6);
    // Where a device began is stored with its first attach.
    drop(latest);
    Stream::feed(&server, "u", "e").numbers(6, 6);
    Stream::feed(&server, "u", "c").numbers(3, 6);
    for bad in ["-1", "middle", "", "18446744073709551616"] {
        let target = format!("/api/v1/stream?user=u&from={bad}");
        assert_eq!(api.refused("GET", &target, None), (400, "bad_request".into(), false));
    }
}

#[test]
fn a_stream_of_one_channel_stores_nothing_and_its_token_is_a_position() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 3);
    let mut stream = Stream::open(&server, "address=user:u", None);
    api.publish_numbers("user:u", 4, 5);
    stream.numbers(4, 4);
    let token = stream.token().to_owned();
    stream.numbers(5, 5);
    drop(stream);
    let last = api.publish("user:u", "6");
    Stream::open(&server, "address=user:u", Some(&token)).numbers(5, 6);
    // What a URL says about the start is for the first time.
    Stream::open(&server, "address=user:u&from=earliest", Some(&token)).numbers(5, 6);
    Stream::open(&server, "address=user:u&from=earliest", None).numbers(1, 6);
    Stream::open(&server, "address=user:u&from=3", None).numbers(3, 6);
    assert_eq!(api.status(&last.id)["devices"], json!([]), "nobody durable has read it");
    let body = json!({ "token": token });
    assert_eq!(
        api.refused("POST", "/api/v1/ack", Some(&body)),
        (400, "bad_token".into(), false),
        "there is nothing to ack"
    );
    for other in ["address=user:v", "user=u", "address=user:u&user=u&device=d"] {
        let Err(refusal) = Stream::try_open(server.addr(), other, Some(&token)) else { continue };
        assert!(matches!(refusal.status, 400 | 403), "{other}: {refusal:?}");
    }
    assert_eq!(
        api.refused("GET", "/api/v1/stream?address=user:u&from=unacked", None).1,
        "bad_request"
    );
}

#[test]
fn what_is_published_after_a_stream_is_open_reaches_it() {
    let server = Server::start();
    let mut api = Api::of(&server);
    for round in 0..200 {
        let mut latest = Stream::open(&server, "address=user:u", None);
        api.publish("user:u", &round.to_string());
        assert_eq!(latest.text(), round.to_string());
    }
}

#[test]
fn a_durable_reader_makes_its_topic_stored() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    assert_eq!(api.publish("topic:news", "nobody").durability, "none");
    let query = "address=topic:news&user=u&device=d";
    let mut reader = Stream::open(&server, query, None);
    assert_eq!(api.publish("topic:news", "1").durability, "disk");
    assert_eq!(api.publish("topic:olds", "x").durability, "none", "another topic");
    reader.numbers(1, 1);
    drop(reader);
    assert_eq!(api.publish("topic:news", "2").durability, "disk", "it is away, not gone");
    server.restart();
    let mut api = Api::of(&server);
    assert_eq!(api.publish("topic:news", "3").durability, "disk", "known after a restart");
    let mut reader = Stream::open(&server, query, None);
    reader.numbers(1, 3);
    assert!(api.ack(reader.token()));
    drop(reader);
    api.publish("topic:news", "4");
    Stream::open(&server, query, None).numbers(4, 4);
}

#[test]
fn configured_topics_are_stored_without_readers() {
    let server = Server::builder().set("topics.stored", "kept/+").start();
    let mut api = Api::of(&server);
    assert_eq!(api.publish("topic:kept/a", "1").durability, "disk");
    assert_eq!(api.publish("topic:kept/a/b", "1").durability, "none");
    Stream::open(&server, "address=topic:kept/a&from=earliest", None).numbers(1, 1);
}

#[test]
fn queues_start_at_the_earliest_kept_and_groups_must_exist() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:q", 1, 3);
    let query = "address=queue:q&user=u&device=d";
    let mut reader = Stream::open(&server, query, None);
    reader.numbers(1, 2);
    assert!(api.ack(reader.token()));
    drop(reader);
    Stream::open(&server, query, None).numbers(3, 3);
    let refused = |api: &mut Api, query: &str| {
        let (status, name, _) = api.refused("GET", &format!("/api/v1/stream?{query}"), None);
        (status, name)
    };
    assert_eq!(refused(&mut api, "address=group:g"), (404, "not_found".into()));
    assert_eq!(refused(&mut api, "address=filter:a"), (400, "bad_address".into()));
    assert_eq!(refused(&mut api, "address=all&device=d"), (400, "bad_request".into()));
    assert_eq!(refused(&mut api, ""), (400, "bad_request".into()));
    assert_eq!(refused(&mut api, "user="), (400, "bad_user".into()));
    assert_eq!(refused(&mut api, "user=u&device="), (400, "bad_user".into()));
    assert_eq!(refused(&mut api, "user=u&devise=d"), (400, "bad_request".into()));
}

#[test]
fn a_device_of_one_channel_can_read_the_feed_too() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 2);
    api.publish("all", "before");
    let mut topic = Stream::open(&server, "address=topic:t&user=u&device=d", None);
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 2);
    assert!(api.ack(feed.token()), "its cursor begins with its first attach to the feed");
    drop(feed);
    api.publish("topic:t", "topic");
    assert_eq!(topic.text(), "topic");
    api.publish_numbers("user:u", 3, 3);
    Stream::feed(&server, "u", "d").numbers(3, 3);
}

#[test]
fn a_device_may_come_before_the_first_message() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    let first = api.publish("user:u", "1");
    feed.numbers(1, 1);
    assert!(api.ack(feed.token()));
    api.wait_acked(&first.id, "d");
    api.publish_numbers("user:u", 2, 2);
    feed.numbers(2, 2);
    drop(feed);
    Stream::feed(&server, "u", "d").numbers(2, 2);
    server.restart();
    Stream::feed(&server, "u", "d").numbers(2, 2);
}
