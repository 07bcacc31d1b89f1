//! A moved cursor: what comes again, what comes no more, and when it may not be moved.

use super::{
    Api, SESSIONS, Server, Value, all_of, away, client, json, kept, publish_all, read_all, show,
    sub, wait_ended,
};
use clarion_tests::mqtt::Packet;

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Where a session's cursor on a filter is moved to.
fn moved(api: &mut Api, id: &str, filter: &str, to: Value) -> Value {
    let body = json!({ "filter": filter, "to": to });
    api.ok("POST", &format!("{SESSIONS}/{id}/move"), Some(&body))
}

#[test]
fn forward_and_backward_over_exact_topics_and_filters() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = client(&server, "writer");
    // The other one keeps the log from being trimmed by cursors.
    for id in ["s", "keeps"] {
        away(&server, id, &[("m/1", 1)]);
        away(&server, &format!("{id}-wild"), &[("m/+", 1)]);
    }
    publish_all(&mut writer, "m/1", 0..10);
    let epoch = sub(&show(&mut api, "s"), "m/1")["cursor"]["epoch"].clone();
    assert_eq!(
        moved(&mut api, "s", "m/1", json!(4)),
        json!({ "epoch": epoch, "acked": 3, "head": 10 })
    );
    assert_eq!(moved(&mut api, "s-wild", "m/+", json!(7))["acked"], 6);
    // A move outlives a crash.
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    assert_eq!(read_all(&server, "s", "m/1"), texts(3..10));
    assert_eq!(read_all(&server, "s-wild", "m/1"), texts(6..10), "up to the mark of the other");
    // Back, also of one that had settled.
    assert_eq!(moved(&mut api, "s", "m/1", json!("earliest"))["acked"], 0);
    assert_eq!(sub(&show(&mut api, "s"), "m/1")["cursor"]["backlog"], 12);
    let mut session = kept(&server, "s", true);
    assert_eq!(session.texts(10), texts(0..10));
    assert_eq!(session.texts(2), ["mark", "mark"]);
    session.disconnect();
    assert_eq!(moved(&mut api, "s", "m/1", json!("latest"))["acked"], 12);
    assert_eq!(read_all(&server, "s", "m/1"), texts(0..0));
}

#[test]
fn what_is_out_of_a_moved_log_is_dropped_from_the_window_and_other_logs_stay() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = client(&server, "writer");
    let mut session = kept(&server, "s", false);
    session.subscribe(&[("w/1", 1), ("w/2", 1), ("w/3", 2)]);
    publish_all(&mut writer, "w/1", 0..3);
    for _ in 0..3 {
        session.unacked();
    }
    publish_all(&mut writer, "w/2", 10..11);
    let at_least_once = session.unacked();
    assert_eq!(writer.publish("w/3", "20", 2), 0);
    let exactly_once = session.unacked();
    session.disconnect();
    wait_ended(&mut api, "s");
    assert_eq!(show(&mut api, "s")["in_flight"], json!({ "qos1": 4, "qos2": 1 }));
    assert_eq!(moved(&mut api, "s", "w/1", json!(2))["acked"], 1);
    // QoS 2 stays: its client may have it.
    assert_eq!(moved(&mut api, "s", "w/3", json!("latest"))["acked"], 1);
    assert_eq!(show(&mut api, "s")["in_flight"], json!({ "qos1": 1, "qos2": 1 }));
    let mut session = kept(&server, "s", true);
    let again = session.message();
    assert_eq!((again.id, again.dup, again.text().as_str()), (at_least_once.id, true, "10"));
    let again = session.message();
    assert_eq!((again.id, again.dup, again.text().as_str()), (exactly_once.id, true, "20"));
    assert_eq!(all_of(&server, &mut session, "w/1"), texts(1..3));
}

#[test]
fn an_attached_session_is_moved_only_by_force() {
    let server = Server::builder().set("node.shards", "2").start();
    let mut api = Api::of(&server);
    let mut writer = client(&server, "writer");
    away(&server, "keeps", &[("f/1", 1)]);
    let mut session = kept(&server, "s", false);
    session.subscribe(&[("f/1", 1)]);
    publish_all(&mut writer, "f/1", 0..3);
    assert_eq!(session.texts(3), texts(0..3));
    let target = format!("{SESSIONS}/s/move");
    let body = json!({ "filter": "f/1", "to": "earliest" });
    let refused = api.refused("POST", &target, Some(&body));
    assert_eq!(refused, (409, "conflict".into(), true));
    session.quiet();
    let body = json!({ "filter": "f/1", "to": 2, "force": true });
    assert_eq!(api.ok("POST", &target, Some(&body))["acked"], 1);
    assert!(matches!(session.packet(), Packet::Disconnect { reason: 0x98, .. }));
    assert_eq!(session.maybe_packet(), None);
    assert_eq!(read_all(&server, "s", "f/1"), texts(1..3));
    wait_ended(&mut api, "s");
}

#[test]
fn what_cannot_be_moved() {
    let server = Server::start();
    let mut api = Api::of(&server);
    away(&server, "s", &[("r/1", 1), ("live", 0), ("$share/g/r/2", 1)]);
    let mut writer = client(&server, "writer");
    publish_all(&mut writer, "r/1", 0..2);
    let target = format!("{SESSIONS}/s/move");
    for (body, status, name) in [
        (json!({ "filter": "r/1", "to": 0 }), 400, "bad_request"),
        (json!({ "filter": "r/1", "to": 4 }), 400, "bad_request"),
        (json!({ "filter": "r/1", "to": "unacked" }), 400, "bad_request"),
        (json!({ "filter": "r/1", "to": -1 }), 400, "bad_request"),
        (json!({ "filter": "r/1" }), 400, "bad_request"),
        (json!({ "filter": "r/1", "to": 1, "who": 1 }), 400, "bad_request"),
        (json!({ "filter": "live", "to": 1 }), 400, "bad_request"),
        (json!({ "filter": "r/2", "to": 1 }), 404, "not_found"),
        (json!({ "filter": "r/#", "to": 1 }), 404, "not_found"),
    ] {
        let refused = api.refused("POST", &target, Some(&body));
        assert_eq!((refused.0, refused.1.as_str()), (status, name), "{body}");
    }
    assert_eq!(read_all(&server, "s", "r/1"), texts(0..2), "nothing has moved");
}
