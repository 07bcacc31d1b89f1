//! Coming back: tokens, acks, devices with several sessions, restarts.

use crate::api::{Api, Stream};
use clarion_tests::Server;
use serde_json::json;

#[test]
fn coming_back_with_a_token_acks_up_to_it() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 5);
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 3);
    let token = feed.token().to_owned();
    let page = api.read("user:u", "");
    let id = |n: usize| page["messages"][n - 1]["id"].as_str().expect("an id").to_owned();
    feed.numbers(4, 5);
    drop(feed);
    let mut resumed = Stream::open(&server, "user=u&device=d", Some(&token));
    resumed.numbers(4, 5);
    drop(resumed);
    api.wait_acked(&id(3), "d");
    let devices = api.status(&id(4))["devices"].clone();
    assert_eq!(devices, json!([{ "device": "d", "acked": false }]));
    // An old token moves nothing back, and what was not acked comes again.
    let mut old = Stream::open(&server, "user=u&device=d", None);
    old.numbers(4, 4);
    Stream::open(&server, "user=u&device=d", Some(&token)).numbers(4, 5);
}

#[test]
fn a_token_holds_both_channels_of_a_feed() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    for n in 1..=6 {
        api.publish(if n % 2 == 0 { "user:u" } else { "all" }, &n.to_string());
        feed.numbers(n, n);
    }
    let token = feed.token().to_owned();
    drop(feed);
    api.publish("all", "7");
    Stream::open(&server, "user=u&device=d", Some(&token)).numbers(7, 7);
}

#[test]
fn a_feed_from_latest_misses_nothing_when_it_comes_back() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish("all", "before");
    let mut feed = Stream::open(&server, "user=u&device=d&from=latest", None);
    api.publish("user:u", "1");
    feed.numbers(1, 1);
    let token = feed.token().to_owned();
    drop(feed);
    api.publish("all", "2");
    // What a browser sends by itself: the same URL, and the last id.
    Stream::open(&server, "user=u&device=d&from=latest", Some(&token)).numbers(2, 2);
}

#[test]
fn tokens_of_others_are_refused() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 1);
    let mut feed = Stream::feed(&server, "u", "a");
    feed.numbers(1, 1);
    let token = feed.token().to_owned();
    let refused = |query: &str, token: &str| {
        let refusal = Stream::try_open(server.addr(), query, Some(token)).err();
        let refusal = refusal.unwrap_or_else(|| panic!("{query} was taken"));
        (refusal.status, refusal.json()["name"].as_str().expect("a name").to_owned())
    };
    assert_eq!(refused("user=u&device=b", &token), (403, "foreign_token".into()));
    assert_eq!(refused("user=v&device=a", &token), (403, "foreign_token".into()));
    for at in [0, token.len() / 2, token.len() - 1] {
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut forged = token.clone();
        forged.replace_range(at..=at, other);
        assert_eq!(refused("user=u&device=a", &forged), (400, "bad_token".into()), "{at}");
        let body = json!({ "token": forged });
        assert_eq!(api.refused("POST", "/api/v1/ack", Some(&body)).1, "bad_token", "{at}");
    }
    let long = "A".repeat(5000);
    assert_eq!(refused("user=u&device=a", &long), (400, "bad_token".into()));
    // An empty one is none.
    Stream::open(&server, "user=u&device=a", Some("")).numbers(1, 1);
}

#[test]
fn an_ack_counts_for_a_device_that_is_away() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let third = {
        api.publish_numbers("user:u", 1, 2);
        api.publish("user:u", "3")
    };
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 3);
    let token = feed.token().to_owned();
    drop(feed);
    api.wait_gone("u");
    assert!(api.ack(&token));
    assert!(!api.ack(&token), "the second time nothing moves");
    let devices = api.status(&third.id)["devices"].clone();
    assert_eq!((&devices[0]["device"], &devices[0]["acked"]), (&json!("d"), &json!(true)));
    api.publish("user:u", "4");
    Stream::feed(&server, "u", "d").numbers(4, 4);
}

#[test]
fn all_sessions_of_a_device_get_everything_and_share_its_acks() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut one = Stream::feed(&server, "u", "d");
    let mut two = Stream::feed(&server, "u", "d");
    api.publish_numbers("user:u", 1, 20);
    one.numbers(1, 20);
    two.numbers(1, 10);
    assert!(api.ack(one.token()));
    two.numbers(11, 20);
    assert!(!api.ack(two.token()), "the other session has acked it");
    api.publish_numbers("user:u", 21, 22);
    let mut three = Stream::feed(&server, "u", "d");
    three.numbers(21, 22);
    one.numbers(21, 22);
    two.numbers(21, 22);
}

#[test]
fn what_was_acked_is_not_given_again() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut last = String::new();
    let restarts: [fn(&mut Server); 3] = [
        |_| (),
        |server| {
            assert_eq!(server.terminate().code(), Some(0));
            server.restart();
        },
        |server| {
            server.kill9();
            server.restart();
        },
    ];
    for (round, restart) in (0..).zip(restarts) {
        let from = round * 10 + 1;
        api.publish_numbers("user:u", from, from + 8);
        let mut feed = Stream::feed(&server, "u", "d");
        if round > 0 {
            assert_eq!(feed.text(), last);
        }
        feed.numbers(from, from + 8);
        assert!(api.ack(feed.token()));
        let unacked = (from + 9).to_string();
        let id = api.publish("user:u", &unacked).id;
        assert_eq!(feed.text(), unacked);
        if round == 2 {
            // What a kill may forget is not stored yet; what is stored, the status says.
            let page = api.read("user:u", &format!("?after={}&limit=1", from + 7));
            api.wait_acked(page["messages"][0]["id"].as_str().expect("an id"), "d");
        }
        drop(feed);
        restart(&mut server);
        api = Api::of(&server);
        assert_eq!(Stream::feed(&server, "u", "d").text(), unacked, "round {round}");
        assert_eq!(api.status(&id)["devices"][0]["acked"], false);
        last = unacked;
    }
}

#[test]
fn a_clean_stop_stores_every_ack() {
    // Much later than the test takes: only the stop can have stored them.
    let mut server = Server::builder().set("cursors.ack_flush", "1m").start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 3);
    let mut feed = Stream::feed(&server, "u", "d");
    feed.numbers(1, 2);
    assert!(api.ack(feed.token()));
    assert_eq!(server.terminate().code(), Some(0));
    server.restart();
    Stream::feed(&server, "u", "d").numbers(3, 3);
}

#[test]
fn users_of_every_shard_get_what_is_theirs() {
    let mut server = Server::builder().set("node.shards", "3").start();
    let mut api = Api::of(&server);
    let users: Vec<String> = (0..60).map(|n| format!("u{n}")).collect();
    let mut feeds: Vec<Stream> =
        users.iter().map(|user| Stream::feed(&server, user, "d")).collect();
    for user in &users {
        api.publish_live(&format!("user:{user}"), &format!("live {user}"));
        api.publish(&format!("user:{user}"), &format!("stored {user}"));
    }
    api.publish("all", "everyone");
    for (user, feed) in users.iter().zip(&mut feeds) {
        let mut seen = feed.texts(3);
        seen.sort();
        assert_eq!(seen, ["everyone".to_owned(), format!("live {user}"), format!("stored {user}")]);
        assert!(api.ack(feed.token()));
    }
    let mut tokens = feeds.iter().map(|feed| feed.token().to_owned()).collect::<Vec<_>>();
    drop(feeds);
    server.reconfigure(|builder| builder.set("node.shards", "2"));
    assert_eq!(server.terminate().code(), Some(0));
    server.restart();
    let mut api = Api::of(&server);
    for (user, token) in users.iter().zip(tokens.drain(..)) {
        api.publish(&format!("user:{user}"), "next");
        let mut feed = Stream::open(&server, &format!("user={user}&device=d"), Some(&token));
        assert_eq!(feed.text(), "next", "{user}: what was acked stays so with fewer shards");
    }
}
