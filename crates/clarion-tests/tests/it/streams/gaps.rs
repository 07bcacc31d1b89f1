//! What is missing is told or passed over: trimmed, aged out, expired, erased, another history.

use crate::api::{Api, Stream, texts};
use clarion_tests::{Server, wait_for};
use serde_json::json;

#[test]
fn who_falls_below_a_trim_is_told() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 10);
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 2);
    assert!(api.ack(feed.token()));
    drop(feed);
    api.wait_gone("u");
    let trimmed = api.ok("DELETE", "/api/v1/channels/user:u/messages?below=6", None);
    assert_eq!(trimmed, json!({ "first": 6 }));
    let mut feed = Stream::feed(&server, "u", "d");
    let gap = feed.control("gap");
    let epoch = api.read("user:u", "")["epoch"].clone();
    let expected =
        json!({ "channel": "user:u", "epoch": epoch, "from": 3, "to": 5, "reason": "retention" });
    assert_eq!(gap, expected);
    feed.numbers(6, 10);
    assert!(api.ack(feed.token()));
    api.publish_numbers("user:u", 11, 11);
    feed.numbers(11, 11);
    drop(feed);
    Stream::feed(&server, "u", "d").numbers(11, 11);
}

#[test]
fn a_channel_keeps_so_many_messages() {
    let server = Server::builder().set("retention.user.count", "5").start();
    let mut api = Api::of(&server);
    let mut early = Stream::feed(&server, "u", "early");
    api.publish_numbers("user:u", 1, 3);
    early.numbers(1, 3);
    assert!(api.ack(early.token()));
    drop(early);
    api.publish_numbers("user:u", 4, 20);
    let page = api.read("user:u", "");
    assert_eq!((page["first"].as_u64(), page["last"].as_u64()), (Some(16), Some(20)));
    assert_eq!(texts(&page), ["16", "17", "18", "19", "20"]);
    let mut early = Stream::feed(&server, "u", "early");
    let gap = early.control("gap");
    assert_eq!((&gap["from"], &gap["to"]), (&json!(4), &json!(15)), "{gap}");
    assert_eq!(gap["reason"], "retention");
    early.numbers(16, 20);
    // A plain reader that asks for what is gone is told as well.
    let mut plain = Stream::open(&server, "address=user:u&from=2", None);
    assert_eq!(plain.control("gap")["to"], 15);
    plain.numbers(16, 20);
    // The earliest kept is no gap.
    Stream::open(&server, "address=user:u&from=earliest", None).numbers(16, 20);
}

#[test]
fn what_has_expired_is_passed_over() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let first = api.publish("user:u", "1");
    let expiring = api.publish_as(&json!({ "address": "user:u", "text": "expiring", "expire": 1 }));
    api.publish("user:u", "2");
    let state = api.status(&expiring.id);
    let ms = state["expires_at"].as_u64().zip(state["created_at"].as_u64());
    assert!(ms.is_some_and(|(at, created)| at <= created + 1000), "{state}");
    wait_for("the expiry", || api.status(&expiring.id)["state"] == "expired");
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 2);
    assert_eq!(texts(&api.read("user:u", "")), ["1", "2"]);
    assert_eq!(api.status(&first.id)["state"], "stored");
    // Passed over counts as acked.
    assert!(api.ack(feed.token()));
    let devices = |api: &mut Api| api.status(&expiring.id)["devices"][0]["acked"].clone();
    wait_for("the stored ack", || devices(&mut api) == true);
}

#[test]
fn what_was_erased_is_passed_over() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish("user:u", "1");
    let erased = api.publish("user:u", "erased");
    api.publish("user:u", "2");
    let target = format!("/api/v1/messages/{}", erased.id);
    api.ok("DELETE", &target, None);
    assert_eq!(api.status(&erased.id)["state"], "erased");
    assert_eq!(api.refused("DELETE", &target, None), (404, "not_found".into(), false));
    Stream::feed(&server, "u", "d").numbers(1, 2);
    let page = api.read("user:u", "");
    assert_eq!(texts(&page), ["1", "2"]);
    assert_eq!(page["messages"][1]["seq"], 3, "the seq stays");
}

#[test]
fn a_history_that_was_lost_is_told() {
    let mut server = Server::builder().set("store.durability", "memory").start();
    let mut api = Api::of(&server);
    let before = api.publish("user:u", "1");
    assert_eq!(before.durability, "memory");
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 1);
    let token = feed.token().to_owned();
    let mut plain = Stream::open(&server, "address=user:u&from=earliest", None);
    plain.numbers(1, 1);
    let position = plain.token().to_owned();
    drop((feed, plain));
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    let after = api.publish("user:u", "2");
    assert_ne!(after.epoch, before.epoch, "an unclean start begins another history");
    for (query, token) in [("user=u&device=d", &token), ("address=user:u", &position)] {
        let mut resumed = Stream::open(&server, query, Some(token));
        let (mut gaps, mut seen) = (Vec::new(), Vec::new());
        while seen.last().is_none_or(|text| text != "2") {
            let event = resumed.event();
            match event.name.as_str() {
                "gap" if event.data["channel"] == "user:u" => gaps.push(event.data),
                // Of the other channel of the feed.
                "gap" => assert_eq!(event.data["reason"], "epoch", "{event:?}"),
                _ => seen.push(event.data["text"].as_str().expect("a text").to_owned()),
            }
        }
        assert_eq!((gaps.len(), &gaps[0]["reason"]), (1, &json!("epoch")), "{gaps:?}");
        assert_eq!(gaps[0]["epoch"].as_u64(), Some(after.epoch), "{gaps:?}");
        assert_eq!(gaps[0]["to"], json!(null), "nobody knows: {gaps:?}");
        // It goes on from the earliest message kept, whatever the token said.
        assert!(seen == ["1", "2"] || seen == ["2"], "{seen:?}");
    }
    // A clean stop is no loss.
    let mut feed = Stream::feed(&server, "u", "d");
    let _ = feed.text();
    drop(feed);
    assert_eq!(server.terminate().code(), Some(0));
    server.restart();
    assert_eq!(Api::of(&server).publish("user:u", "3").epoch, after.epoch);
}
