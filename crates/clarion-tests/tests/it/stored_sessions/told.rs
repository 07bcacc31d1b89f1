//! What is told of messages and of numbers: who has acked a message, whatever its transport; how many sessions there are; a
//! message of a topic that is erased everywhere.

use super::{
    Api, Message, Options, SESSIONS, Server, V5, Value, away, client, durable, json, kept,
    publish_all, read_all, wait_for,
};
use crate::{
    api::Stream,
    grpc::{self, connect},
};
use clarion_tests::mqtt::prop;

fn of<'a>(status: &'a Value, list: &str, name: &str, is: &str) -> &'a Value {
    let all = status[list].as_array().unwrap_or_else(|| panic!("{status}"));
    all.iter().find(|one| one[name] == is).unwrap_or_else(|| panic!("{is}: {status}"))
}

/// The names of those who have acked a message.
fn acked(status: &Value) -> Vec<String> {
    let name =
        |one: &Value| one["client_id"].as_str().or(one["device"].as_str()).map(str::to_owned);
    let all = [&status["devices"], &status["sessions"]].into_iter().filter_map(Value::as_array);
    let mut names: Vec<String> =
        all.flatten().filter(|one| one["acked"] == true).filter_map(name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn of_one_user_each_transport_acks_for_itself() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut phone = durable("phone").user("ann").connect(server.listener("mqtt"));
    assert_eq!(phone.subscribe(&[("user/ann", 1)]), [1]);
    let mut browser = Stream::feed(&server, "ann", "browser");
    let grpc = connect(&server).await;
    let mut backend = grpc::Stream::open(&grpc, grpc::feed("ann", "backend")).await;
    let message = api.publish("user:ann", "hello");
    assert_eq!((browser.text().as_str(), backend.texts(1).await), ("hello", vec!["hello".into()]));
    let got = phone.unacked();
    assert_eq!(got.text(), "hello");
    let status = api.status(&message.id);
    assert_eq!(status["devices"].as_array().map(Vec::len), Some(3), "{status}");
    assert_eq!(acked(&status), [""; 0]);
    phone.ack(4, got.id, 0);
    api.wait_acked(&message.id, "phone");
    assert_eq!(acked(&api.status(&message.id)), ["phone"]);
    assert!(api.ack(browser.token()));
    api.wait_acked(&message.id, "browser");
    assert_eq!(acked(&api.status(&message.id)), ["browser", "phone"]);
    backend.ack("user:ann", message.seq, message.seq, 1);
    backend.stored(1).await;
    let status = api.status(&message.id);
    assert_eq!(acked(&status), ["backend", "browser", "phone"]);
    assert!(of(&status, "devices", "device", "phone")["acked_at"].is_u64(), "{status}");
}

#[test]
fn of_a_topic_exact_and_wildcard_sessions_and_devices_are_told() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut exact = kept(&server, "exact", false);
    exact.subscribe(&[("t/1", 1)]);
    let mut wild = durable("wild").user("ann").connect(server.listener("mqtt"));
    // Beside what it matches, one that it does not.
    wild.subscribe(&[("t/+", 1), ("other/#", 1)]);
    away(&server, "away", &[("#", 1)]);
    let query = "address=topic:t/1&user=bob&device=desk";
    let mut desk = Stream::open(&server, query, None);
    // Many of one time around it.
    let mut writer = client(&server, "writer");
    publish_all(&mut writer, "t/2", 0..100);
    let before: Vec<Value> =
        (0..300).map(|n| json!({ "address": format!("topic:t/{}", n + 3), "text": "x" })).collect();
    api.batch(&before);
    let message = api.publish("topic:t/1", "wanted");
    api.batch(&before);
    let got = exact.unacked();
    assert_eq!(got.text(), "wanted");
    assert_eq!(desk.text(), "wanted");
    let status = api.status(&message.id);
    assert_eq!(status["more"], false);
    let sessions = status["sessions"].as_array().expect("sessions");
    assert_eq!(sessions.len(), 3, "{status}");
    let desk_is = of(&status, "devices", "device", "desk");
    assert_eq!(*desk_is, json!({ "user": "bob", "device": "desk", "acked": false }));
    assert_eq!(of(&status, "sessions", "client_id", "wild")["user"], "ann");
    assert_eq!(acked(&status), [""; 0]);
    exact.ack(4, got.id, 0);
    wait_for("the ack", || acked(&api.status(&message.id)) == ["exact"]);
    assert!(api.ack(desk.token()));
    wait_for("the ack", || acked(&api.status(&message.id)) == ["desk", "exact"]);
    while wild.message().text() != "wanted" {}
    wait_for("the ack", || acked(&api.status(&message.id)) == ["desk", "exact", "wild"]);
    let status = api.status(&message.id);
    assert!(of(&status, "sessions", "client_id", "wild")["acked_at"].is_u64(), "{status}");
    exact.disconnect();
    wild.disconnect();
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    assert_eq!(acked(&api.status(&message.id)), ["desk", "exact", "wild"]);
    // Who has ended is told no more.
    assert_eq!(api.call("DELETE", &format!("{SESSIONS}/wild"), None).status, 204);
    assert_eq!(acked(&api.status(&message.id)), ["desk", "exact"]);
}

#[test]
fn of_many_filters_some_are_looked_through() {
    let server = Server::start();
    let mut api = Api::of(&server);
    for n in 0..70 {
        // Filters that differ and match the same topic: by where their wildcards are.
        let levels: Vec<&str> =
            (0..7).map(|bit| if n >> bit & 1 == 1 { "+" } else { "x" }).collect();
        away(&server, &format!("s{n}"), &[(&format!("{}/+", levels.join("/")), 1)]);
    }
    let message = api.publish("topic:x/x/x/x/x/x/x/1", "to all");
    let status = api.status(&message.id);
    assert_eq!(status["more"], true, "{status}");
    assert_eq!(status["sessions"].as_array().map(Vec::len), Some(64), "{status}");
}

#[test]
fn a_trimmed_message_of_a_topic_is_erased_from_the_logs_of_filters() {
    let server = Server::builder().set("store.sweep_interval", "100ms").start();
    let mut api = Api::of(&server);
    away(&server, "wild", &[("e/+", 1)]);
    let secret = api.publish("topic:e/1", "secret");
    api.publish("topic:e/1", "other");
    // Nobody reads the topic by its name.
    wait_for("the trim", || {
        let answer = api.call("GET", &format!("/api/v1/messages/{}", secret.id), None);
        answer.status == 200 && answer.json()["state"] == "trimmed"
    });
    let target = format!("/api/v1/messages/{}", secret.id);
    let status = api.status(&secret.id);
    assert_eq!(of(&status, "sessions", "client_id", "wild")["acked"], false);
    assert_eq!(api.call("DELETE", &target, None).status, 204);
    let gone = (404, "not_found".to_owned(), false);
    assert_eq!(api.refused("DELETE", &target, None), gone, "there is nothing left of it");
    assert_eq!(read_all(&server, "wild", "e/1"), ["other"]);
    // Of other kinds of channels nothing has copies.
    let stored = api.publish("user:u", "1");
    api.ok("DELETE", "/api/v1/channels/user:u/messages?below=2", None);
    let target = format!("/api/v1/messages/{}", stored.id);
    assert_eq!(api.refused("DELETE", &target, None), gone);
}

#[test]
fn sessions_topics_and_filters_are_counted() {
    let mut server = Server::builder().set("store.sweep_interval", "100ms").start();
    away(&server, "one", &[("c/1", 1), ("c/+", 1), ("c/#", 1)]);
    away(&server, "two", &[("c/1", 1)]);
    let short = Options::new(V5, "short").clean(false).with(prop::session_expiry(1_u32));
    short.connect(server.listener("mqtt")).disconnect();
    let mut api = Api::of(&server);
    wait_for("the expiry", || api.metric("clarion_stored_sessions_expired_total") == 1);
    for restarted in [false, true] {
        if restarted {
            server.kill9();
            server.restart();
            api = Api::of(&server);
            wait_for("the count", || {
                let text = api.call("GET", "/metrics", None).body;
                String::from_utf8_lossy(&text).contains("clarion_stored_sessions ")
            });
        }
        assert_eq!(api.metric("clarion_stored_sessions"), 2);
        assert_eq!(api.metric("clarion_stored_sessions_attached"), 0);
        assert_eq!(api.metric("clarion_durable_topics"), 1);
        assert_eq!(api.metric("clarion_durable_filters"), 2);
    }
    let mut one = kept(&server, "one", true);
    one.ping();
    assert_eq!(api.metric("clarion_stored_sessions_attached"), 1);
    let mut writer = client(&server, "writer");
    assert_eq!(writer.publish_as(Message::new("c/1", "x").qos(1)), 0);
    assert_eq!(api.call("DELETE", &format!("{SESSIONS}/one"), None).status, 204);
    assert_eq!(api.metric("clarion_stored_sessions"), 1);
    assert_eq!(api.metric("clarion_stored_sessions_attached"), 0);
    wait_for("the clean-up", || api.metric("clarion_durable_filters") == 0);
    assert_eq!(api.metric("clarion_durable_topics"), 1);
}
