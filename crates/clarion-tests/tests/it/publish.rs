//! Publishing, reading back, and what becomes of a message.

use crate::api::{Api, Stored, Stream, texts};
use clarion_tests::{Server, wait_for};
use serde_json::{Value, json};
use std::{collections::HashSet, thread};

#[test]
fn a_key_is_used_once_on_a_channel() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let message = |address: &str, text: &str, key: &str| json!({ "address": address, "text": text, "idempotency_key": key });
    let first = api.publish_as(&message("user:u", "1", "k"));
    assert!(!first.duplicate);
    // Whatever the body is.
    let again = api.publish_as(&message("user:u", "other", "k"));
    assert_eq!(again, Stored { duplicate: true, ..first.clone() });
    let elsewhere = api.publish_as(&message("user:v", "1", "k"));
    assert!(!elsewhere.duplicate && elsewhere.id != first.id);
    assert!(!api.publish_as(&message("user:u", "2", "k2")).duplicate);
    let batch = api.batch(&[
        message("user:u", "3", "b"),
        message("user:u", "4", "b"),
        message("user:w", "5", "b"),
        message("user:u", "6", "k"),
    ]);
    let batch: Vec<Stored> = batch.iter().map(Stored::read).collect();
    let flags: Vec<bool> = batch.iter().map(|stored| stored.duplicate).collect();
    assert_eq!(flags, [false, true, false, true]);
    assert_eq!((&batch[1].id, &batch[3].id), (&batch[0].id, &first.id));
    assert_eq!(texts(&api.read("user:u", "")), ["1", "2", "3"]);
    for clean in [true, false] {
        if clean {
            assert_eq!(server.terminate().code(), Some(0));
        } else {
            server.kill9();
        }
        server.restart();
        api = Api::of(&server);
        let again = api.publish_as(&message("user:u", "1", "k"));
        assert_eq!(again, Stored { duplicate: true, ..first.clone() }, "clean: {clean}");
    }
    for key in ["", &"k".repeat(257)] {
        let body = message("user:u", "1", key);
        assert_eq!(api.refused("POST", "/api/v1/publish", Some(&body)).1, "bad_request");
    }
    assert!(!api.publish_as(&message("user:u", "x", &"k".repeat(256))).duplicate);
}

#[test]
fn one_of_many_with_the_same_key_is_stored() {
    let server = Server::start();
    let at = server.addr();
    let mut feed = Stream::feed(&server, "u", "d");
    let publish = move |n: usize| {
        let body = json!({ "address": "user:u", "text": n.to_string(), "idempotency_key": "k" });
        (0..5).map(|_| Api::at(at).publish_as(&body)).collect::<Vec<_>>()
    };
    let threads: Vec<_> = (0..8).map(|n| thread::spawn(move || publish(n))).collect();
    let answers: Vec<Stored> =
        threads.into_iter().flat_map(|thread| thread.join().expect("a publisher")).collect();
    assert_eq!(answers.iter().filter(|stored| !stored.duplicate).count(), 1);
    let ids: HashSet<&str> = answers.iter().map(|stored| stored.id.as_str()).collect();
    assert_eq!(ids.len(), 1);
    let mut api = Api::of(&server);
    api.publish("user:u", "marker");
    feed.message();
    assert_eq!(feed.text(), "marker", "delivered once");
}

#[test]
fn a_batch_keeps_the_order_and_answers_item_by_item() {
    let server = Server::builder().set("limits.payload_bytes", "1KiB").start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    let messages = [
        json!({ "address": "user:u", "text": "1" }),
        json!({ "address": "nobody", "text": "x" }),
        json!({ "address": "user:v", "text": "x" }),
        json!({ "address": "user:u", "text": "y".repeat(1025) }),
        json!({ "address": "user:u", "text": "2", "json": 2 }),
        json!({ "address": "user:u", "text": "3", "expire": -1 }),
        json!({ "address": "user:u", "text": "live", "expire": 0 }),
        json!({ "address": "group:g", "text": "x" }),
        json!({ "address": "user:u", "txt": "x" }),
        json!(7),
        json!({ "address": "user:u", "text": "2" }),
    ];
    let results = api.batch(&messages);
    let names: Vec<&str> =
        results.iter().map(|r| r["error"]["name"].as_str().unwrap_or("ok")).collect();
    let expected = [
        "ok",
        "bad_address",
        "ok",
        "payload_too_large",
        "bad_payload",
        "bad_expire",
        "ok",
        "not_found",
        "bad_request",
        "bad_request",
        "ok",
    ];
    assert_eq!(names, expected);
    for error in results.iter().map(|r| &r["error"]).filter(|e| !e.is_null()) {
        assert!(error["code"].is_u64() && error["detail"].is_string(), "{error}");
        assert_eq!(error["retry"], false);
    }
    assert_eq!((&results[0]["seq"], &results[10]["seq"]), (&json!(1), &json!(2)));
    assert_eq!(results[6]["durability"], "none");
    let mut seen = feed.texts(3);
    seen.retain(|text| text != "live");
    assert_eq!(seen, ["1", "2"], "those of one channel keep their order");
    let long: Vec<Value> = (0..1001).map(|_| json!({ "address": "user:u", "text": "" })).collect();
    let body = json!({ "messages": long });
    let refused = api.refused("POST", "/api/v1/publish/batch", Some(&body));
    assert_eq!(refused, (413, "batch_too_long".into(), false));
    assert_eq!(api.batch(&[]), Vec::<Value>::new());
    api.publish_numbers("queue:q", 1, 500);
    let page = api.read("queue:q", "?limit=500");
    assert_eq!(texts(&page), (1..=500).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_is_stored_and_what_is_live() {
    let server = Server::start();
    let mut api = Api::of(&server);
    for address in ["user:u", "queue:q", "all"] {
        let stored = api.publish(address, "x");
        assert_eq!((stored.durability.as_str(), stored.seq), ("disk", 1), "{address}");
        assert_ne!(stored.epoch, 0);
        let live = api.publish_live(address, "x");
        assert_eq!((live.durability.as_str(), live.seq, live.epoch), ("none", 0, 0), "{address}");
    }
    let topic = api.publish("topic:t", "x");
    assert_eq!((topic.durability.as_str(), topic.seq), ("none", 0));
    let mut live = Stream::open(&server, "address=topic:t", None);
    assert_eq!(api.publish("topic:t", "y").durability, "none", "a plain reader needs no store");
    assert_eq!(live.text(), "y");
    let group = json!({ "address": "group:g", "text": "x" });
    assert_eq!(api.refused("POST", "/api/v1/publish", Some(&group)).0, 404);
    assert_eq!(api.metric("clarion_publishes_stored_total"), 3);
    assert_eq!(api.metric("clarion_publishes_live_total"), 5);
    assert_eq!(api.metric("clarion_publishes_refused_total"), 1);
}

#[test]
fn expire_is_clamped_to_the_channels_age() {
    let server = Server::builder().set("retention.user.age", "1h").start();
    let mut api = Api::of(&server);
    let mut expires = |address: &str, expire: Value| {
        let message = json!({ "address": address, "text": "x", "expire": expire });
        let stored = api.publish_as(&message);
        let status = api.status(&stored.id);
        let at = status["expires_at"].as_u64()?;
        Some(at - status["created_at"].as_u64().expect("a time"))
    };
    // From the publish on; its message was created when it was stored, a little later.
    for seconds in [60, 3599] {
        let ms = expires("user:u", json!(seconds)).expect("it expires");
        assert!((1000 * (seconds - 30)..=1000 * seconds).contains(&ms), "{seconds} s: {ms} ms");
    }
    // As long as the channel keeps it: that is no property of the message.
    assert_eq!(expires("user:u", json!(3601)), None);
    assert_eq!(expires("user:u", json!(u64::MAX)), None);
    // A queue keeps without end.
    assert!(expires("queue:q", json!(4_000_000_000_u64)).is_some());
    for bad in [json!(-1), json!(1.5), json!("1"), json!(1e30)] {
        let body = json!({ "address": "user:u", "text": "x", "expire": bad });
        let (status, name, _) = api.refused("POST", "/api/v1/publish", Some(&body));
        assert_eq!(status, 400, "{bad}");
        assert!(matches!(name.as_str(), "bad_expire" | "bad_request"), "{bad}: {name}");
    }
}

#[test]
fn everything_comes_out_as_it_went_in() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut feed = Stream::feed(&server, "u", "d");
    let headers = json!([["a", "1"], ["b", ""], ["a", "2"], ["\u{e9}", "\n\"\u{1f600}"]]);
    let forms = [
        (json!({ "text": "line\nline\r\n\u{2028}\u{0}" }), "text"),
        (json!({ "text": "" }), "text"),
        (json!({ "json": { "b": [1, 2.50, null], "a": "\u{e9}" } }), "json"),
        (json!({ "json": null }), "json"),
        (json!({ "json": "text" }), "json"),
        (json!({ "base64": "AAH/" }), "base64"),
    ];
    for (form, name) in &forms {
        let mut message = form.clone();
        message["address"] = "user:u".into();
        message["kind"] = "order.paid".into();
        message["content_type"] = "text/plain; charset=utf-8".into();
        message["headers"] = headers.clone();
        let stored = api.publish_as(&message);
        let given = feed.message().data;
        assert_eq!(given[name], form[name], "{given}");
        let others = ["text", "json", "base64"].iter().filter(|other| *other != name);
        for other in others {
            assert!(given.get(*other).is_none(), "{given}");
        }
        assert_eq!(given["headers"], headers);
        assert_eq!((&given["kind"], &given["id"]), (&json!("order.paid"), &json!(stored.id)));
        assert_eq!(given["content_type"], "text/plain; charset=utf-8");
        assert_eq!(given["epoch"], stored.epoch);
        let page = api.read("user:u", &format!("?after={}", stored.seq - 1));
        assert_eq!(page["messages"][0], given, "a read gives what a stream gives");
    }
    // Base64 that holds text comes out as text.
    api.publish_as(&json!({ "address": "user:u", "base64": "aGk=" }));
    assert_eq!(feed.text(), "hi");
    let plain = api.publish("user:u", "x");
    let given = feed.message().data;
    for absent in ["headers", "kind", "content_type", "sender", "expires_at"] {
        assert!(given.get(absent).is_none(), "{given}");
    }
    let state = api.status(&plain.id);
    assert_eq!(state["created_at"], given["created_at"]);
    // White space of JSON is not kept, numbers are as they were written.
    let raw = br#"{"address":"user:u","json":{ "n" : 1.00, "big": 123456789012345678901 }}"#;
    let at = server.addr();
    let json = "content-type: application/json\r\n";
    let request = clarion_tests::raw::request("POST", "/api/v1/publish", at, json, raw);
    let answer = clarion_tests::raw::exchange(at, &request).expect("an answer");
    assert_eq!(answer.status, 200);
    let target = format!("/api/v1/channels/user:u/messages?after={}", plain.seq);
    let body = api.call("GET", &target, None).body;
    let body = String::from_utf8(body).expect("text");
    assert!(body.contains(r#""json":{"n":1.00,"big":123456789012345678901}"#), "{body}");
}

#[test]
fn the_status_of_a_message() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let stored = api.publish("user:u", "1");
    let nobody = api.status(&stored.id);
    assert_eq!((&nobody["state"], &nobody["devices"]), (&json!("stored"), &json!([])));
    assert_eq!((&nobody["channel"], &nobody["seq"]), (&json!("user:u"), &json!(1)));
    assert_eq!((&nobody["id"], &nobody["epoch"]), (&json!(stored.id), &json!(stored.epoch)));
    let mut reader = Stream::feed(&server, "u", "reader");
    let _other = Stream::feed(&server, "u", "other");
    reader.numbers(1, 1);
    assert!(api.ack(reader.token()));
    api.wait_acked(&stored.id, "reader");
    let status = api.status(&stored.id);
    let mut devices = status["devices"].as_array().expect("devices").clone();
    devices.sort_by_key(|d| d["device"].to_string());
    assert_eq!(devices[0], json!({ "device": "other", "acked": false }));
    assert_eq!((&devices[1]["device"], &devices[1]["acked"]), (&json!("reader"), &json!(true)));
    let acked_at = devices[1]["acked_at"].as_u64().expect("the time of the write");
    assert!(acked_at >= status["created_at"].as_u64().expect("a time"), "{status}");
    // A later write keeps the time that covered it.
    let second = api.publish("user:u", "2");
    reader.numbers(2, 2);
    assert!(api.ack(reader.token()));
    api.wait_acked(&second.id, "reader");
    let of_reader = |status: &Value| {
        let devices = status["devices"].as_array().expect("devices");
        devices.iter().find(|d| d["device"] == "reader").expect("the device").clone()
    };
    assert_eq!(of_reader(&api.status(&stored.id))["acked"], true);
    let in_queue = api.publish("queue:q", "x");
    assert_eq!(api.status(&in_queue.id)["devices"], json!([]));
    api.ok("DELETE", "/api/v1/channels/user:u/messages?below=2", None);
    assert_eq!(api.status(&stored.id)["state"], "trimmed");
    let unknown = "/api/v1/messages/00000000-0000-8000-8000-000000000000";
    for (target, expected) in [(unknown, 404), ("/api/v1/messages/x", 400)] {
        assert_eq!(api.refused("GET", target, None).0, expected, "{target}");
        assert_eq!(api.refused("DELETE", target, None).0, expected, "{target}");
    }
}

#[test]
fn a_channel_is_read_in_pages_both_ways() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let empty = api.read("user:u", "");
    assert_eq!(
        (&empty["last"], &empty["next"], &empty["epoch"]),
        (&json!(0), &Value::Null, &json!(0))
    );
    api.publish_numbers("user:u", 1, 25);
    let (mut seen, mut query) = (Vec::new(), "?limit=10".to_owned());
    loop {
        let page = api.read("user:u", &query);
        assert_eq!(
            (&page["address"], &page["first"], &page["last"]),
            (&json!("user:u"), &json!(1), &json!(25))
        );
        seen.extend(texts(&page));
        let Some(next) = page["next"].as_u64() else { break };
        query = format!("?limit=10&after={next}");
    }
    assert_eq!(seen, (1..=25).map(|n| n.to_string()).collect::<Vec<_>>());
    let (mut back, mut before) = (Vec::new(), 26);
    loop {
        let page = api.read("user:u", &format!("?limit=10&before={before}"));
        back.extend(texts(&page));
        let Some(next) = page["next"].as_u64() else { break };
        before = next;
    }
    assert_eq!(back, (1..=25).rev().map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(texts(&api.read("user:u", "?after=23")), ["24", "25"]);
    assert_eq!(texts(&api.read("user:u", "?after=25")), [""; 0]);
    assert_eq!(texts(&api.read("user:u", "?after=18446744073709551615")), [""; 0]);
    assert_eq!(texts(&api.read("user:u", "?before=1")), [""; 0]);
    assert_eq!(texts(&api.read("user:u", "?before=0")), [""; 0]);
    assert_eq!(texts(&api.read("user%3Au", "?before=18446744073709551615&limit=1")), ["25"]);
    for bad in ["limit=0", "limit=1001", "after=1&before=2", "after=-1", "since=1"] {
        let target = format!("/api/v1/channels/user:u/messages?{bad}");
        assert_eq!(api.refused("GET", &target, None).1, "bad_request", "{bad}");
    }
    assert_eq!(api.refused("GET", "/api/v1/channels/x/messages", None).1, "bad_address");
}

#[test]
fn a_trim_forgets_what_lies_below() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 10);
    let trim = |api: &mut Api, below: u64| {
        let target = format!("/api/v1/channels/user:u/messages?below={below}");
        api.ok("DELETE", &target, None)["first"].as_u64().expect("a number")
    };
    assert_eq!(trim(&mut api, 4), 4);
    assert_eq!(trim(&mut api, 2), 4, "nothing comes back");
    assert_eq!(texts(&api.read("user:u", "?limit=2")), ["4", "5"]);
    let before = api.read("user:u", "?before=6");
    assert_eq!((texts(&before), &before["next"]), (vec!["5".into(), "4".into()], &Value::Null));
    assert_eq!(trim(&mut api, 1000), 11, "at most everything");
    assert_eq!(api.publish("user:u", "11").seq, 11, "numbers go on");
    server.restart();
    let mut api = Api::of(&server);
    assert_eq!(texts(&api.read("user:u", "")), ["11"]);
    assert_eq!(api.refused("DELETE", "/api/v1/channels/user:u/messages", None).0, 400);
}

#[test]
fn a_full_queue_refuses_and_trims_nothing() {
    let server = Server::builder()
        .set("retention.queue.bytes", "64KiB")
        .set("store.sweep_interval", "50ms")
        .start();
    let mut api = Api::of(&server);
    let query = "address=queue:q&user=u&device=d";
    let mut reader = Stream::open(&server, query, None);
    let text = "x".repeat(4096);
    let body = json!({ "address": "queue:q", "text": text });
    let mut taken = 0;
    let refused = loop {
        let answer = api.call("POST", "/api/v1/publish", Some(&body));
        if answer.status != 200 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            break answer;
        }
        taken += 1;
        assert!(taken < 20, "80 KiB are in a queue of 64 KiB");
    };
    let problem = refused.json();
    assert_eq!(
        (refused.status, &problem["name"], &problem["retry"]),
        (503, &json!("queue_full"), &json!(true))
    );
    assert!(taken >= 10, "{taken} of 4 KiB fit");
    let page = api.read("queue:q", "?limit=1000");
    assert_eq!((page["first"].as_u64(), texts(&page).len()), (Some(1), taken));
    // Other channels are open.
    api.publish("queue:other", "x");
    // What every reader has acked makes place.
    reader.texts(taken);
    assert!(api.ack(reader.token()));
    wait_for("place in the queue", || {
        api.call("POST", "/api/v1/publish", Some(&body)).status == 200
    });
    assert_eq!(reader.text(), text);
}

#[test]
fn a_full_store_refuses_publishes_and_goes_on_reading() {
    let server = Server::builder().set("store.max_bytes", "100MiB").start();
    let mut api = Api::of(&server);
    api.publish("user:u", "first");
    // What compresses to nothing would never fill it.
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(33 + (state >> 33) as u8 % 90)
    });
    let text: String = noise.filter(|c| !matches!(c, '"' | '\\')).take(1_000_000).collect();
    let messages: Vec<Value> = (0..7).map(|_| json!({ "address": "all", "text": text })).collect();
    let mut error = Value::Null;
    for _ in 0..40 {
        let results = api.batch(&messages);
        if let Some(refused) = results.iter().find(|r| !r["error"].is_null()) {
            error = refused["error"].clone();
            break;
        }
    }
    assert_eq!((&error["name"], &error["retry"]), (&json!("store_full"), &json!(true)));
    let body = json!({ "address": "user:u", "text": "more" });
    let refused = api.refused("POST", "/api/v1/publish", Some(&body));
    assert_eq!(refused, (507, "store_full".into(), true));
    assert_eq!(texts(&api.read("user:u", "")), ["first"]);
    assert_eq!(api.publish_live("user:u", "live").durability, "none");
    let mut feed = Stream::feed(&server, "u", "d");
    assert_eq!(feed.text(), "first", "a reader is served, and may ack");
    assert!(api.ack(feed.token()));
}
