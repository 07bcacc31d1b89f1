//! What comes to a user, on which topics, and who may publish there.

use super::{device, feed, user};
use crate::{
    api::{Api, Stream},
    mqtt::versions,
};
use clarion_tests::{
    Server,
    mqtt::{Filter, Message, Options, Version, id, number, prop, text},
};
use serde_json::json;

versions! {
    what_is_published_for_a_user_comes: v31 v311 v5;
    another_users_feed_is_refused: v31 v311 v5;
    wildcards_never_match_feeds: v31 v311 v5;
    a_user_publishes_to_his_own_topic: v31 v311 v5;
    nobody_else_publishes_there: v31 v311 v5;
    clean_sessions_read_from_the_head: v31 v311 v5;
    an_unsubscribed_feed_is_over: v31 v311 v5;
    a_feed_comes_unasked_where_the_listener_says_so: v31 v311 v5;
    a_long_feed_is_caught_up_with: v311 v5;
    kicked_and_shown: v31 v311 v5;
}

fn what_is_published_for_a_user_comes(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    for qos in 0..3 {
        let mut reader = user(&server, version, "reader", "ann");
        feed(&mut reader, "ann", qos);
        api.publish("user:ann", "for her");
        api.publish("all", "for all");
        api.publish("user:bob", "for him");
        api.publish_live("user:ann", "live");
        let mut got = Vec::new();
        for _ in 0..3 {
            let message = reader.message();
            assert_eq!((&*message.topic, message.qos, message.retain), ("user/ann", qos, false));
            got.push(message.text());
        }
        // Each channel in its order, and what is live at any place.
        got.sort();
        assert_eq!(got, ["for all", "for her", "live"]);
        reader.quiet();
        reader.disconnect();
    }
}

#[test]
fn what_else_a_message_has() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut reader = user(&server, Version::V5, "reader", "ann");
    let subscription = [Filter::new("user/ann", 1)];
    reader.subscribe_as(&subscription, &[prop::subscription_id(7u32)]);
    api.publish_as(&json!({
        "address": "user:ann", "json": {"a": 1}, "expire": 1000,
        "content_type": "application/json", "headers": [["k", "1"], ["k", "2"]],
    }));
    let got = reader.message();
    assert_eq!(got.text(), r#"{"a":1}"#);
    assert_eq!(text(&got.properties, id::CONTENT_TYPE), Some("application/json"));
    assert_eq!(number(&got.properties, id::SUBSCRIPTION_ID), Some(7));
    let left = number(&got.properties, id::MESSAGE_EXPIRY).expect("it expires");
    assert!((900..=1000).contains(&left), "{left}");
    let pairs = clarion_tests::mqtt::pairs(&got.properties);
    assert_eq!(pairs.iter().filter(|(name, _)| *name == "k").count(), 2, "{pairs:?}");
}

fn refused_code(version: Version, qos: u8) -> u8 {
    match version {
        Version::V31 => qos,
        Version::V311 => 0x80,
        Version::V5 => 0x87,
    }
}

fn another_users_feed_is_refused(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut ann = user(&server, version, "ann's", "ann");
    let mut nobody = clarion_tests::mqtt::Client::connect(server.listener("mqtt"), version, "none");
    for client in [&mut ann, &mut nobody] {
        let codes = client.subscribe(&[("user/bob", 1), ("other", 1)]);
        assert_eq!(codes, [refused_code(version, 1), 1]);
    }
    api.publish("user:bob", "secret");
    ann.quiet();
    nobody.quiet();
}

fn wildcards_never_match_feeds(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut ann = user(&server, version, "ann's", "ann");
    ann.subscribe(&[("user/+", 1), ("#", 1), ("user/#", 1), ("+/ann", 1)]);
    api.publish("user:ann", "for her");
    api.publish("user:bob", "for him");
    api.publish("all", "for all");
    ann.quiet();
    // A topic below a user's is a topic like any other.
    assert!(ann.publish("user/ann/more", "a topic", 1) < 0x80);
    assert_eq!(ann.message().text(), "a topic");
    ann.quiet();
}

fn a_user_publishes_to_his_own_topic(version: Version) {
    let server = Server::start();
    let mut stream = Stream::feed(&server, "ann", "browser");
    let mut phone = user(&server, version, "phone", "ann");
    let mut tablet = user(&server, version, "tablet", "ann");
    feed(&mut tablet, "ann", 1);
    for qos in [1, 2] {
        assert_eq!(phone.publish("user/ann", format!("note {qos}"), qos), 0);
        let event = stream.message();
        assert_eq!(event.data["text"], format!("note {qos}"));
        assert_eq!(event.data["channel"], "user:ann");
        assert_eq!(event.data["seq"], qos);
        assert_eq!(tablet.message().text(), format!("note {qos}"));
    }
    // QoS 0 asks for no store, so it is live.
    phone.publish("user/ann", "live", 0);
    let event = stream.message();
    assert_eq!((&event.data["text"], event.id), (&json!("live"), None));
    assert_eq!(tablet.message().text(), "live");
}

fn nobody_else_publishes_there(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut bob = user(&server, version, "bob's", "bob");
    feed(&mut bob, "bob", 1);
    let mut ann = user(&server, version, "ann's", "ann");
    let mut nobody = clarion_tests::mqtt::Client::connect(server.listener("mqtt"), version, "none");
    for client in [&mut ann, &mut nobody] {
        for qos in 0..3 {
            let reason = client.publish("user/bob", "unwanted", qos);
            let expected = if version == Version::V5 && qos > 0 { 0x87 } else { 0 };
            assert_eq!(reason, expected, "QoS {qos}");
        }
        client.quiet();
        // As a will neither.
    }
    let will = Message::new("user/bob", "unwanted").qos(1);
    let options = Options::new(version, "dying").user("ann").will(will, &[]);
    let (dying, _) = options.attempt(server.listener("mqtt"));
    dying.vanish();
    api.publish("user:bob", "wanted");
    assert_eq!(bob.message().text(), "wanted");
    bob.quiet();
    let page = api.read("user:bob", "");
    assert_eq!(page["messages"].as_array().expect("messages").len(), 1, "{page}");
}

fn clean_sessions_read_from_the_head(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 5);
    // As mqtt.js does: another id at each connect.
    for n in 6..9 {
        let mut reader = user(&server, version, &format!("mqttjs_{n}"), "ann");
        feed(&mut reader, "ann", 1);
        reader.quiet();
        api.publish_numbers("user:ann", n, n);
        assert_eq!(reader.unacked().text(), n.to_string());
        reader.vanish();
    }
    // None of them is a device.
    let page = api.read("user:ann", "?limit=1");
    let status = api.status(page["messages"][0]["id"].as_str().expect("an id"));
    assert_eq!(status["devices"].as_array().map_or(0, Vec::len), 0, "{status}");
}

fn an_unsubscribed_feed_is_over(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut reader = user(&server, version, "reader", "ann");
    feed(&mut reader, "ann", 1);
    api.publish("user:ann", "one");
    assert_eq!(reader.message().text(), "one");
    let codes = reader.unsubscribe(&["user/ann"]);
    assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
    api.publish("user:ann", "two");
    reader.quiet();
}

fn a_feed_comes_unasked_where_the_listener_says_so(version: Version) {
    let server = Server::builder().set("listeners.mqtt.auto_subscribe", "true").start();
    let mut api = Api::of(&server);
    let mut reader = user(&server, version, "reader", "ann");
    let mut nobody = clarion_tests::mqtt::Client::connect(server.listener("mqtt"), version, "none");
    reader.quiet();
    api.publish("user:ann", "unasked");
    let got = reader.message();
    assert_eq!((&*got.topic, got.qos, got.text().as_str()), ("user/ann", 1, "unasked"));
    // Asking for it as well gives nothing twice.
    feed(&mut reader, "ann", 2);
    api.publish("user:ann", "once");
    let got = reader.message();
    assert_eq!((got.qos, got.text().as_str()), (2, "once"));
    reader.quiet();
    nobody.quiet();
}

/// Ten times what waits in memory, through a small window, while more is published.
fn a_long_feed_is_caught_up_with(version: Version) {
    const COUNT: u64 = 3000;
    let server = Server::builder().set("mqtt.max_inflight", "20").start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, COUNT);
    let mut reader = device(&server, version, "phone", "ann");
    feed(&mut reader, "ann", 1);
    let more = std::thread::spawn(move || {
        api.publish_numbers("user:ann", COUNT + 1, COUNT + 1000);
    });
    for n in 1..=COUNT + 1000 {
        let got = reader.message();
        assert_eq!(got.text(), n.to_string());
    }
    more.join().expect("published");
    reader.quiet();
}

fn kicked_and_shown(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut reader = user(&server, version, "reader", "ann");
    feed(&mut reader, "ann", 1);
    let presence = api.ok("GET", "/api/v1/users/ann/presence", None);
    assert_eq!(presence["online"], true, "{presence}");
    assert_eq!(presence["sessions"][0]["dialect"], "mqtt", "{presence}");
    let session = presence["sessions"][0]["id"].as_str().expect("an id").to_owned();
    api.ok("DELETE", &format!("/api/v1/sessions/{session}"), None);
    // 0x98: administrative action.
    assert_eq!(reader.ended(), (version == Version::V5).then_some(0x98));
    api.wait_gone("ann");
}

#[test]
fn user_topics_are_configured() {
    let server =
        Server::builder().set("mqtt.user_topics", "['inbox/{user}/new', '{user}']").start();
    let mut api = Api::of(&server);
    let mut reader = user(&server, Version::V5, "reader", "ann");
    // The first of those that are subscribed, in the order of the list.
    assert_eq!(reader.subscribe(&[("ann", 1)]), [1]);
    api.publish("user:ann", "one");
    assert_eq!(reader.message().topic, "ann");
    assert_eq!(reader.subscribe(&[("inbox/ann/new", 1)]), [1]);
    api.publish("user:ann", "two");
    assert_eq!(reader.message().topic, "inbox/ann/new");
    reader.quiet();
    assert_eq!(reader.unsubscribe(&["inbox/ann/new"]), [0]);
    api.publish("user:ann", "three");
    assert_eq!(reader.message().topic, "ann");
    // Another's: every topic of one level is a user's now.
    assert_eq!(reader.subscribe(&[("bob", 1), ("inbox/bob/new", 1), ("a/b", 1)]), [0x87, 0x87, 1]);
}
