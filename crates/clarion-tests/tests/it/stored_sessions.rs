//! Stored sessions as administrators see them: listed, shown, deleted and moved over HTTP, gRPC and by the command line.
//!
//! `moves`: what a moved cursor gives · `told`: who has acked a message, and what is counted.

mod moves;
mod told;

use crate::{
    api::Api,
    grpc::{connect, path},
};
use clarion_client::encode_component;
use clarion_tests::{
    Command, Server,
    grpc::Status,
    mqtt::{Client, Filter, Message, Options, Packet, Version, prop},
    wait_for,
};
use clarion_wire::proto::clarion_v1::{
    DeleteSessionRequest, DeleteSessionResponse, From, InspectSessionRequest,
    InspectSessionResponse, MoveCursorRequest, MoveCursorResponse, StoredSessionsRequest,
    StoredSessionsResponse,
};
use serde_json::{Value, json};

const SESSIONS: &str = "/api/v1/stored-sessions";
const V5: Version = Version::V5;

/// A client whose session ends with its connection.
fn client(server: &Server, id: &str) -> Client {
    Client::connect(server.listener("mqtt"), V5, id)
}

/// A CONNECT that goes on with a session, which is kept.
fn durable(id: &str) -> Options {
    Options::new(V5, id).clean(false).with(prop::session_expiry(1000_u32))
}

/// A connection of a durable session, which is there or not.
#[track_caller]
fn kept(server: &Server, id: &str, present: bool) -> Client {
    let client = durable(id).connect(server.listener("mqtt"));
    assert_eq!(client.connack().present, present, "{id}");
    client
}

/// A durable session that subscribed this and is away.
fn away(server: &Server, id: &str, filters: &[(&str, u8)]) {
    let mut client = kept(server, id, false);
    let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
    assert_eq!(client.subscribe(filters), granted);
    client.disconnect();
}

/// Everything in the list, page by page.
fn listed(api: &mut Api, query: &str) -> Vec<Value> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.ok("GET", &format!("{SESSIONS}?{query}{after}"), None);
        found.extend(page["sessions"].as_array().expect("sessions").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encode_component(next)),
            None => return found,
        }
    }
}

fn ids(sessions: &[Value]) -> Vec<&str> {
    sessions.iter().map(|session| session["client_id"].as_str().expect("an id")).collect()
}

fn show(api: &mut Api, id: &str) -> Value {
    api.ok("GET", &format!("{SESSIONS}/{id}"), None)
}

/// Waits until the end of a session's connection is stored.
fn wait_ended(api: &mut Api, id: &str) {
    wait_for("its end", || show(api, id)["session"]["ended_at"].is_u64());
}

/// The subscription to a filter, of what `show` said.
fn sub<'a>(shown: &'a Value, filter: &str) -> &'a Value {
    let subs = shown["subscriptions"].as_array().expect("subscriptions");
    subs.iter().find(|sub| sub["filter"] == filter).unwrap_or_else(|| panic!("{filter}: {shown}"))
}

fn missing() -> (u16, String, bool) {
    (404, "not_found".into(), false)
}

#[test]
fn they_are_listed_with_what_they_are() {
    let server = Server::start();
    let mut api = Api::of(&server);
    assert_eq!(api.ok("GET", SESSIONS, None), json!({ "sessions": [], "next": null }));
    away(&server, "a/ä b", &[("t/1", 1), ("t/+", 2), ("t/2", 0)]);
    let mut there = durable("b").user("ann").connect(server.listener("mqtt"));
    there.subscribe(&[("t/#", 1)]);
    let forever = Options::new(V5, "c").clean(false).with(prop::session_expiry(u32::MAX));
    let forever = forever.connect(server.listener("mqtt"));
    forever.disconnect();
    let _clean = client(&server, "clean");
    wait_ended(&mut api, "a%2F%C3%A4%20b");
    let all = listed(&mut api, "limit=100");
    assert_eq!(ids(&all), ["a/ä b", "b", "c"], "in the order of client ids");
    let [away, there, forever] = &all[..] else { unreachable!("three") };
    assert_eq!((&away["attached"], &away["subscriptions"]), (&json!(false), &json!(3)));
    assert_eq!((&away["expiry_s"], &away["user"]), (&json!(1000), &Value::Null));
    let number = |of: &Value, name: &str| of[name].as_u64().unwrap_or_else(|| panic!("{of}"));
    assert!(number(away, "created_at") <= number(away, "ended_at"), "{away}");
    assert_eq!(number(away, "expires_at"), number(away, "ended_at") + 1_000_000);
    assert_eq!((&there["attached"], &there["user"]), (&json!(true), &json!("ann")));
    assert!(there.get("ended_at").is_none() && there.get("expires_at").is_none(), "{there}");
    assert_eq!((&forever["attached"], &forever["subscriptions"]), (&json!(false), &json!(0)));
    assert_eq!(ids(&listed(&mut api, "limit=1")), ["a/ä b", "b", "c"]);
    assert_eq!(ids(&listed(&mut api, "user=ann")), ["b"]);
    assert_eq!(listed(&mut api, "user=bob").len(), 0);
    for bad in ["limit=0", "limit=1001", "limit=x", "who=u"] {
        let refused = api.refused("GET", &format!("{SESSIONS}?{bad}"), None);
        assert_eq!(refused, (400, "bad_request".into(), false), "{bad}");
    }
}

#[test]
fn one_is_shown_with_its_subscriptions_and_how_far_they_are_read() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut session = kept(&server, "s", false);
    session.subscribe_as(
        &[Filter::new("a/1", 1).no_local(), Filter::new("a/+", 2).as_published()],
        &[prop::subscription_id(7_u32)],
    );
    session.subscribe(&[("live", 0), ("$share/g/b", 1)]);
    let shown = show(&mut api, "s");
    assert_eq!((&shown["session"]["attached"], &shown["next"]), (&json!(true), &Value::Null));
    assert_eq!(shown["session"]["subscriptions"], 4);
    assert_eq!(shown["in_flight"], json!({ "qos1": 0, "qos2": 0 }));
    let exact = sub(&shown, "a/1");
    assert_eq!(
        (&exact["qos"], &exact["no_local"], &exact["id"]),
        (&json!(1), &json!(true), &json!(7))
    );
    assert_eq!((&exact["channel"], &exact["feed"]), (&json!("topic:a/1"), &json!(false)));
    assert!(exact["since"].as_u64().is_some() && exact["cursor"]["backlog"] == 0, "{exact}");
    let wild = sub(&shown, "a/+");
    assert_eq!(
        (&wild["channel"], &wild["retain_as_published"]),
        (&json!("filter:a/+"), &json!(true))
    );
    let live = sub(&shown, "live");
    assert!(live.get("channel").is_none() && live.get("cursor").is_none(), "{live}");
    let shared = sub(&shown, "b");
    assert_eq!(shared["share"], "g");
    // In flight: two that are not acked, of another filter.
    let mut writer = client(&server, "writer");
    for n in 0..3 {
        assert_eq!(writer.publish("a/2", n.to_string(), 1), 0);
    }
    assert_eq!(writer.publish("a/2", "two", 2), 0);
    let acked = session.unacked();
    session.ack(4, acked.id, 0);
    session.unacked();
    session.unacked();
    let exactly_once = session.unacked();
    assert_eq!(exactly_once.qos, 2);
    let in_flight = json!({ "qos1": 2, "qos2": 1 });
    wait_for("the ack", || show(&mut api, "s")["in_flight"] == in_flight);
    let shown = show(&mut api, "s");
    let cursor = &sub(&shown, "a/+")["cursor"];
    assert_eq!(
        (&cursor["acked"], &cursor["head"], &cursor["backlog"]),
        (&json!(1), &json!(4), &json!(3))
    );
    assert!(cursor["lag_ms"].is_u64() && cursor["lost"] == 0, "{cursor}");
    session.disconnect();
    wait_ended(&mut api, "s");
    for crashed in [false, true] {
        let shown = show(&mut api, "s");
        assert_eq!(shown["in_flight"], in_flight, "as the end of the connection left it");
        assert_eq!(sub(&shown, "a/+")["cursor"]["backlog"], 3, "{shown}");
        assert_eq!(sub(&shown, "a/1")["cursor"]["backlog"], 0, "{shown}");
        if !crashed {
            server.kill9();
            server.restart();
            api = Api::of(&server);
        }
    }
    for refused in ["x", &"x".repeat(1000)] {
        assert_eq!(api.refused("GET", &format!("{SESSIONS}/{refused}"), None), missing());
    }
}

#[test]
fn many_subscriptions_come_in_pages() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut session = kept(&server, "s", false);
    let filters: Vec<String> = (0..250).map(|n| format!("f/{n}")).collect();
    let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    session.subscribe(&filters);
    session.unsubscribe(&["f/7", "f/100"]);
    for attached in [true, false] {
        let (mut found, mut from) = (Vec::new(), json!(0));
        while let Some(place) = from.as_u64() {
            let page = api.ok("GET", &format!("{SESSIONS}/s?limit=100&from={place}"), None);
            assert_eq!(page["session"]["attached"], attached);
            assert_eq!(page["session"]["subscriptions"], 248);
            let subs = page["subscriptions"].as_array().expect("subscriptions");
            assert!(subs.len() <= 100);
            // What is left of those that were unsubscribed may be there, and says so.
            let current = subs.iter().filter(|sub| sub.get("tail").is_none());
            found.extend(current.map(|sub| sub["filter"].to_string()));
            from = page["next"].clone();
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 248);
        if attached {
            session.send(&[0xE0, 0]);
            session.rest();
            wait_ended(&mut api, "s");
        }
    }
}

#[test]
fn a_deleted_one_is_gone_with_all_it_had() {
    let mut server = Server::builder().set("node.shards", "2").start();
    let mut api = Api::of(&server);
    away(&server, "away", &[("d/1", 1), ("d/+", 1)]);
    let mut there = kept(&server, "there", false);
    there.subscribe(&[("d/+", 1)]);
    let mut writer = client(&server, "writer");
    for n in 0..5 {
        assert_eq!(writer.publish("d/1", n.to_string(), 1), 0);
    }
    assert_eq!(api.call("DELETE", &format!("{SESSIONS}/there"), None).status, 204);
    let told: Vec<_> = there.rest();
    let last = told.last().expect("a DISCONNECT");
    assert!(matches!(last, Packet::Disconnect { reason: 0x98, .. }), "{last:?}");
    assert_eq!(api.call("DELETE", &format!("{SESSIONS}/away"), None).status, 204);
    for id in ["there", "away", "never"] {
        for (method, target, body) in [
            ("DELETE", format!("{SESSIONS}/{id}"), None),
            ("GET", format!("{SESSIONS}/{id}"), None),
            ("POST", format!("{SESSIONS}/{id}/move"), Some(json!({ "filter": "d/1", "to": 1 }))),
        ] {
            assert_eq!(api.refused(method, &target, body.as_ref()), missing(), "{target}");
        }
    }
    assert_eq!(listed(&mut api, "limit=9").len(), 0);
    server.kill9();
    server.restart();
    for id in ["there", "away"] {
        let mut again = kept(&server, id, false);
        again.quiet();
        again.disconnect();
    }
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: i32, name: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code, status.get("clarion-name")), (code, Some(name)), "{status:?}");
}

#[tokio::test]
async fn the_same_over_grpc() {
    let server = Server::start();
    let grpc = connect(&server).await;
    for n in 0..3 {
        away(&server, &format!("s{n}"), &[("g/1", 1), ("g/#", 1), ("live", 0)]);
    }
    let mut writer = client(&server, "writer");
    for n in 0..4 {
        assert_eq!(writer.publish("g/1", n.to_string(), 1), 0);
    }
    let mut ask = StoredSessionsRequest { limit: 2, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page: StoredSessionsResponse =
            grpc.call(&path("StoredSessions"), &ask).await.expect("a page");
        assert!(page.sessions.len() <= 2);
        found.extend(page.sessions);
        ask.after = page.next;
        if ask.after.is_empty() {
            break;
        }
    }
    assert_eq!(found.iter().map(|s| s.client_id.as_str()).collect::<Vec<_>>(), ["s0", "s1", "s2"]);
    assert!(found.iter().all(|s| s.subscriptions == 3 && !s.attached && s.expiry_s == 1000));
    let of = |id: &str| InspectSessionRequest { client_id: id.into(), ..Default::default() };
    let inspect = path("InspectSession");
    let shown: InspectSessionResponse = grpc.call(&inspect, &of("s1")).await.expect("details");
    assert_eq!((shown.subscriptions.len(), shown.next), (3, None));
    let wild = shown.subscriptions.iter().find(|sub| sub.filter == "g/#").expect("the filter");
    let cursor = wild.cursor.expect("a cursor");
    assert_eq!((cursor.acked, cursor.head, cursor.backlog), (0, 4, 4));
    assert_eq!((wild.channel.as_str(), cursor.lag_ms.is_some()), ("filter:g/#", true));
    let to = |to: From, seq: u64, filter: &str| MoveCursorRequest {
        client_id: "s1".into(),
        filter: filter.into(),
        to: to.into(),
        seq,
        force: false,
    };
    let move_cursor = path("MoveCursor");
    let moved: MoveCursorResponse =
        grpc.call(&move_cursor, &to(From::Seq, 3, "g/1")).await.expect("moved");
    assert_eq!((moved.acked, moved.head), (2, 4));
    for (bad, code, name) in [
        (to(From::Seq, 0, "g/1"), 3, "bad_request"),
        (to(From::Seq, 6, "g/1"), 3, "bad_request"),
        (to(From::Unacked, 0, "g/1"), 3, "bad_request"),
        (to(From::Latest, 0, "live"), 3, "bad_request"),
        (to(From::Latest, 0, "other"), 5, "not_found"),
    ] {
        let answer = grpc.call::<MoveCursorResponse>(&move_cursor, &bad).await;
        assert_refused(answer, code, name);
    }
    let delete = |id: &str| DeleteSessionRequest { client_id: id.into() };
    let ended = path("DeleteSession");
    let DeleteSessionResponse {} = grpc.call(&ended, &delete("s1")).await.expect("ended");
    assert_refused(grpc.call::<DeleteSessionResponse>(&ended, &delete("s1")).await, 5, "not_found");
    assert_refused(grpc.call::<InspectSessionResponse>(&inspect, &of("s1")).await, 5, "not_found");
    let bad = StoredSessionsRequest { limit: 1001, ..Default::default() };
    let answer = grpc.call::<StoredSessionsResponse>(&path("StoredSessions"), &bad).await;
    assert_refused(answer, 3, "bad_request");
}

fn clarion(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let url = server.url();
    let output = Command::clarion([&["sessions"], args, &["--url", &url]].concat());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_lists_shows_moves_and_deletes() {
    let mut server = Server::start();
    for n in 0..12 {
        away(&server, &format!("c/{n:02}"), &[("t", 1)]);
    }
    let mut there = durable("there").user("ann").connect(server.listener("mqtt"));
    there.subscribe(&[("t", 1)]);
    let mut writer = client(&server, "writer");
    assert_eq!(writer.publish("t", "x", 1), 0);
    let lines = |args: &[&str]| {
        let (code, out, errors) = clarion(&server, args);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{args:?}");
        let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a JSON line");
        out.lines().map(parse).collect::<Vec<Value>>()
    };
    assert_eq!(lines(&["list"]).len(), 13);
    assert_eq!(ids(&lines(&["list", "--limit", "2"])), ["c/00", "c/01"]);
    assert_eq!(ids(&lines(&["list", "--user", "ann"])), ["there"]);
    let shown = lines(&["show", "c/05"]);
    assert_eq!((shown.len(), &shown[0]["session"]["client_id"]), (2, &json!("c/05")));
    assert_eq!((&shown[1]["filter"], &shown[1]["cursor"]["backlog"]), (&json!("t"), &json!(1)));
    let moved = lines(&["move", "c/05", "t", "latest"]);
    assert_eq!((&moved[0]["acked"], &moved[0]["head"]), (&json!(1), &json!(1)));
    assert_eq!(lines(&["move", "there", "t", "earliest", "--force"])[0]["acked"], 0);
    let deleted = lines(&["delete", "c/05", "c/06"]);
    assert_eq!(ids(&deleted), ["c/05", "c/06"]);
    assert!(deleted.iter().all(|line| line["deleted"] == true));
    for (args, text) in [
        (&["delete", "c/05"][..], "not_found (1200)"),
        (&["show", "c/05"], "not_found (1200)"),
        (&["move", "c/07", "other", "latest"], "not_found (1200)"),
        (&["move", "c/07", "t", "9"], "bad_request (1000)"),
    ] {
        let (code, out, errors) = clarion(&server, args);
        assert_eq!((code, out.as_str(), errors.lines().count()), (Some(1), "", 1), "{args:?}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
    for args in [&[][..], &["delete"], &["move", "c/07", "t"], &["move", "c/07", "t", "0"]] {
        assert_eq!(clarion(&server, args).0, Some(64), "{args:?}");
    }
    server.kill9();
    assert_eq!(clarion(&server, &["list"]).0, Some(69), "not reachable");
}

/// Publishes these texts to a topic.
fn publish_all(writer: &mut Client, topic: &str, range: std::ops::Range<u32>) {
    for n in range {
        assert_eq!(writer.publish_as(Message::new(topic, n.to_string()).qos(1)), 0);
    }
}

/// What comes to a session until a mark that is published now.
fn all_of(server: &Server, session: &mut Client, topic: &str) -> Vec<String> {
    let mut writer = client(server, "marker");
    assert_eq!(writer.publish(topic, "mark", 1), 0);
    let mut found = Vec::new();
    loop {
        match session.message().text() {
            mark if mark == "mark" => return found,
            text => found.push(text),
        }
    }
}

/// The session comes back and is read to its end.
fn read_all(server: &Server, id: &str, topic: &str) -> Vec<String> {
    let mut session = kept(server, id, true);
    let found = all_of(server, &mut session, topic);
    session.disconnect();
    found
}
