//! Retained messages as administrators see them: listed and deleted over HTTP, gRPC and by the command line.

use crate::{
    api::Api,
    faults::shim::{Shim, Word},
    grpc::{connect, path},
};
use clarion_tests::{
    Command, Server,
    grpc::{Status, framed},
    mqtt::{Client, Message, Packet, Version, prop, publish},
};
use clarion_wire::proto::clarion_v1::{
    DeleteRetainedRequest, DeleteRetainedResponse, RetainedRequest, RetainedResponse,
};
use serde_json::{Value, json};

const EIO: u64 = 5;
const RETAINED: &str = "/api/v1/retained";
/// A topic by which the end of others is known.
const END: &str = "end/of/retained";

fn mqtt(server: &Server, id: &str) -> Client {
    Client::connect(server.listener("mqtt"), Version::V5, id)
}

fn retain(client: &mut Client, topic: &str, payload: impl AsRef<[u8]>) {
    assert!(client.publish_as(Message::new(topic, payload).qos(1).retained()) < 0x80, "{topic}");
}

/// Many, with few waits: each is acknowledged.
fn retain_all<'a>(client: &mut Client, all: impl Iterator<Item = (String, &'a str)>) {
    let all: Vec<_> = all.collect();
    for part in all.chunks(500) {
        for (topic, payload) in part {
            let id = client.next_id();
            let message = Message { id, ..Message::new(topic, payload).qos(1).retained() };
            client.send(&publish(Version::V5, &message));
        }
        for _ in part {
            let answer = client.packet();
            assert!(matches!(answer, Packet::Ack { kind: 4, reason: 0..0x80, .. }), "{answer:?}");
        }
    }
}

/// Everything that a filter finds, page by page; how many pages.
fn listed(api: &mut Api, query: &str) -> (Vec<Value>, usize) {
    let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = api.ok("GET", &format!("{RETAINED}?{query}{after}"), None);
        found.extend(page["messages"].as_array().expect("messages").iter().cloned());
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return (found, pages),
        }
    }
}

fn topics(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|m| m["topic"].as_str().expect("a topic")).collect()
}

/// What a new subscriber is given at once: the payloads.
fn given(server: &Server, filter: &str) -> Vec<String> {
    retain(&mut mqtt(server, "ends"), END, "end");
    let mut reader = mqtt(server, "looks");
    // What the second filter gives comes after what the first one gives.
    reader.subscribe(&[(filter, 1), (END, 0)]);
    let mut found = Vec::new();
    loop {
        let got = reader.message();
        assert!(got.retain, "{got:?}");
        if got.topic == END {
            return found;
        }
        found.push(got.text());
    }
}

#[test]
fn they_are_listed_with_all_they_have() {
    let server = Server::start();
    let mut api = Api::of(&server);
    assert_eq!(api.ok("GET", RETAINED, None), json!({ "messages": [], "next": null }));
    let mut writer = mqtt(&server, "writer");
    let rich = Message::new("a/b c", "täxt")
        .qos(2)
        .retained()
        .with(prop::content_type("text/plain"))
        .with(prop::message_expiry(1000_u32))
        .with(prop::user("k", "1"))
        .with(prop::user("k", "2"));
    assert!(writer.publish_as(rich) < 0x80);
    retain(&mut writer, "a/bytes", [0xff, 0]);
    let (found, _) = listed(&mut api, "filter=a/%23");
    assert_eq!(topics(&found), ["a/b c", "a/bytes"], "in the order of topics");
    let [first, second] = &found[..] else { unreachable!("two") };
    assert_eq!((&first["text"], &first["qos"]), (&json!("täxt"), &json!(2)));
    assert_eq!(first["content_type"], "text/plain");
    assert_eq!(first["headers"], json!([["k", "1"], ["k", "2"]]));
    assert_eq!(first["sender"]["device"], "writer");
    let created = first["created_at"].as_u64().expect("a time");
    let expires = first["expires_at"].as_u64().expect("a time");
    assert!((999_000..=1_001_000).contains(&(expires - created)), "{first}");
    assert_eq!((&second["base64"], &second["qos"]), (&json!("/wA="), &json!(1)));
    assert!(second.get("text").is_none() && second.get("expires_at").is_none());
    // It replaces, it does not add.
    retain(&mut writer, "a/bytes", "new");
    let (found, _) = listed(&mut api, "filter=a/bytes");
    assert_eq!((found.len(), &found[0]["text"]), (1, &json!("new")));
}

#[test]
fn pages_go_on_where_they_ended_and_filters_pass_over_the_rest() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = mqtt(&server, "writer");
    let mut expected: Vec<String> = (0..40).map(|n| format!("p/{n:02}/x")).collect();
    // Topics that are longer than a key, and longer than a request's head.
    expected.extend((0..3).map(|n| format!("q/{}{n}", "x".repeat(30_000))));
    for topic in &expected {
        retain(&mut writer, topic, "1");
        retain(&mut writer, &format!("other/{topic}"), "1");
    }
    for (limit, pages) in [(7, 7), (43, 1), (100, 1), (1, 43)] {
        let (found, count) = listed(&mut api, &format!("filter=%2B/%23&limit={limit}"));
        let mut all = topics(&found);
        all.retain(|topic| !topic.starts_with("other/"));
        assert_eq!(all.len(), 43, "limit {limit}");
        assert!(count >= pages, "limit {limit}: {count} pages");
        all.sort_unstable();
        assert_eq!(all, expected, "limit {limit}: each once");
    }
    let (found, pages) = listed(&mut api, "filter=p/%2B/x&limit=40");
    assert_eq!((found.len(), pages), (40, 1), "there is no page behind the last one");
    let (found, _) = listed(&mut api, "filter=p/07/%23");
    assert_eq!(topics(&found), ["p/07/x"]);
    assert_eq!(listed(&mut api, "filter=p").0.len(), 0);
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "filter=",
        "filter=a%23",
        "filter=$share/g/a",
        "after=x",
        "who=u",
    ] {
        let refused = api.refused("GET", &format!("{RETAINED}?{bad}"), None);
        assert_eq!(refused, (400, "bad_request".into(), false), "{bad}");
    }
}

#[test]
fn large_ones_make_pages_short_and_never_empty() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = mqtt(&server, "writer");
    let large = "x".repeat(1 << 20);
    for n in 0..20 {
        retain(&mut writer, &format!("large/{n:02}"), &large);
    }
    let before = server.peak_rss_kib();
    let (found, pages) = listed(&mut api, "limit=1000");
    assert_eq!(found.len(), 20);
    assert!((3..=5).contains(&pages), "{pages} pages of at most 8 MiB");
    let grown = server.peak_rss_kib().saturating_sub(before);
    assert!(grown < 100 << 10, "{grown} KiB for pages of 8 MiB");
}

#[test]
fn a_delete_is_for_those_who_come_later() {
    let mut server = Server::builder().set("node.shards", "2").start();
    let mut api = Api::of(&server);
    let mut writer = mqtt(&server, "writer");
    for topic in ["d/1", "d/2", "d/3", "d/ä b"] {
        retain(&mut writer, topic, topic);
    }
    let mut live = mqtt(&server, "live");
    live.subscribe(&[("d/#", 1)]);
    assert_eq!(live.texts(4), ["d/1", "d/2", "d/3", "d/ä b"]);
    let missing = (404, "not_found".to_owned(), false);
    // By path, and by query.
    for target in ["/d%2F1", "?topic=d/2", "/d%2F%C3%A4%20b"] {
        let target = format!("{RETAINED}{target}");
        assert_eq!(api.call("DELETE", &target, None).status, 204, "{target}");
        assert_eq!(api.refused("DELETE", &target, None), missing, "{target}");
    }
    assert_eq!(topics(&listed(&mut api, "filter=d/%23").0), ["d/3"]);
    live.quiet();
    assert_eq!(given(&server, "d/#"), ["d/3"]);
    // What is published after it is kept as before, and reaches who is there.
    retain(&mut writer, "d/1", "again");
    assert_eq!(live.message().text(), "again");
    assert_eq!(given(&server, "d/1"), ["again"]);
    assert_eq!(api.call("DELETE", &format!("{RETAINED}/d%2F1"), None).status, 204);
    assert_eq!(given(&server, "d/1"), [""; 0]);
    server.kill9();
    server.restart();
    assert_eq!(given(&server, "d/#"), ["d/3"], "a delete that was answered is stored");
    let mut api = Api::of(&server);
    for bad in ["?topic=a/%23", "?topic=%2B", "?topic=", "?topic=$SYS/broker/version", "/a%00b"] {
        let target = format!("{RETAINED}{bad}");
        assert_eq!(api.refused("DELETE", &target, None), (400, "bad_address".into(), false));
    }
    for bad in ["", "?topic=a&topic=b", "?who=u"] {
        let target = format!("{RETAINED}{bad}");
        assert_eq!(api.refused("DELETE", &target, None), (400, "bad_request".into(), false));
    }
    assert_eq!(api.refused("DELETE", &format!("{RETAINED}/no%2Fsuch"), None), missing);
    // That one, and the one by which the end is known.
    assert_eq!(api.metric("clarion_retained_messages"), 2);
}

#[test]
fn publishes_and_deletes_of_one_topic_take_effect_in_their_order() {
    let server = Server::builder().set("node.shards", "2").start();
    let mut api = Api::of(&server);
    let mut writer = mqtt(&server, "writer");
    for round in 0..50 {
        retain(&mut writer, "o/1", format!("{round}"));
        assert_eq!(api.call("DELETE", &format!("{RETAINED}?topic=o/1"), None).status, 204);
        let mut reader = mqtt(&server, "reader");
        reader.subscribe(&[("o/1", 1)]);
        retain(&mut writer, "o/1", format!("{round}+"));
        let got = reader.message();
        assert_eq!((got.text(), got.retain), (format!("{round}+"), false), "live, and only that");
        reader.quiet();
        let mut later = mqtt(&server, "later");
        later.subscribe(&[("o/1", 1)]);
        let got = later.message();
        assert_eq!((got.text(), got.retain), (format!("{round}+"), true));
        reader.disconnect();
    }
}

#[test]
fn who_is_still_being_given_others_does_not_get_a_deleted_one() {
    const COUNT: usize = 2000;
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut writer = mqtt(&server, "writer");
    let payload = "x".repeat(8000);
    retain_all(&mut writer, (0..COUNT).map(|n| (format!("m/{n:04}"), &*payload)));
    let mut reader = mqtt(&server, "reader");
    reader.subscribe(&[("m/#", 0)]);
    // It has read a few of 16 MiB; the last ones cannot have left the server.
    for n in 0..10 {
        assert_eq!(reader.message().topic, format!("m/{n:04}"));
    }
    for n in [COUNT - 1, COUNT - 2] {
        let target = format!("{RETAINED}?topic=m/{n:04}");
        assert_eq!(api.call("DELETE", &target, None).status, 204);
    }
    for n in 10..COUNT - 2 {
        assert_eq!(reader.message().topic, format!("m/{n:04}"));
    }
    reader.quiet();
    retain(&mut writer, "m/end", "end");
    let got = reader.message();
    assert_eq!((got.topic.as_str(), got.retain), ("m/end", false));
}

#[test]
fn a_delete_that_could_not_be_stored_deletes_nothing() {
    let shim = Shim::new();
    let mut server = shim.start();
    let mut writer = mqtt(&server, "writer");
    retain(&mut writer, "f/1", "kept");
    shim.set(Word::SyncErrno, EIO);
    shim.set(Word::SyncFails, 1);
    let mut api = Api::of(&server);
    let refused = api.refused("DELETE", &format!("{RETAINED}?topic=f/1"), None);
    assert_eq!((refused.0, refused.2), (503, true), "{refused:?}");
    let mut reader = mqtt(&server, "reader");
    reader.subscribe(&[("f/1", 0)]);
    assert_eq!(reader.message().text(), "kept");
    shim.set(Word::SyncFails, 0);
    server.kill9();
    server.restart();
    // Nobody knows whether a write that failed is on the disk; what it says is the same for all.
    let mut api = Api::of(&server);
    let kept = listed(&mut api, "filter=f/1").0.len();
    let mut reader = mqtt(&server, "reader");
    reader.subscribe(&[("f/1", 0)]);
    if kept == 1 {
        assert_eq!(reader.message().text(), "kept");
    }
    reader.quiet();
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
    let mut writer = mqtt(&server, "writer");
    for n in 0..5 {
        retain(&mut writer, &format!("g/{n}"), [0xff, n]);
    }
    let (list, delete) = (path("Retained"), path("DeleteRetained"));
    let mut ask = RetainedRequest { limit: 2, ..Default::default() };
    let mut found = Vec::new();
    loop {
        let page: RetainedResponse = grpc.call(&list, &ask).await.expect("a page");
        assert!(page.messages.len() <= 2);
        found.extend(page.messages);
        ask.after = page.next;
        if ask.after.is_empty() {
            break;
        }
    }
    assert_eq!(found.len(), 5);
    for (n, message) in found.iter().enumerate() {
        assert_eq!((message.topic.as_str(), message.qos), (format!("g/{n}").as_str(), 1));
        assert_eq!(message.payload, [0xff, n as u8][..]);
        assert_eq!(message.sender.as_ref().expect("a sender").device, "writer");
        assert!(message.created_at > 1_600_000_000_000 && message.expires_at.is_none());
    }
    let of = |filter: &str| RetainedRequest { filter: filter.into(), ..Default::default() };
    let exact: RetainedResponse = grpc.call(&list, &of("g/3")).await.expect("a page");
    assert_eq!((exact.messages.len(), exact.next.as_str()), (1, ""));
    let topic = |topic: &str| DeleteRetainedRequest { topic: topic.into() };
    let DeleteRetainedResponse {} = grpc.call(&delete, &topic("g/3")).await.expect("deleted");
    let gone: RetainedResponse = grpc.call(&list, &of("g/3")).await.expect("a page");
    assert_eq!(gone, RetainedResponse::default());
    let again = grpc.call::<DeleteRetainedResponse>(&delete, &topic("g/3")).await;
    assert_refused(again, 5, "not_found");
    for bad in ["", "g/#", "$SYS/x"] {
        let answer = grpc.call::<DeleteRetainedResponse>(&delete, &topic(bad)).await;
        assert_refused(answer, 3, "bad_address");
    }
    for bad in [
        of("a#"),
        of("$share/g/a"),
        RetainedRequest { limit: 1001, ..of("") },
        RetainedRequest { after: "x".into(), ..of("") },
    ] {
        let answer = grpc.call::<RetainedResponse>(&list, &bad).await;
        assert_refused(answer, 3, "bad_request");
    }
}

#[tokio::test]
async fn over_grpc_they_are_for_administrators_too() {
    // SHA-256 of "reader".
    let hash = "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30";
    let server = Server::builder()
        .set("listeners.grpc.auth", "required")
        .set("auth.keys", &format!("[{{name: reader, sha256: {hash}, allow: [read, publish]}}]"))
        .start();
    let grpc = connect(&server).await;
    let list = framed(&RetainedRequest::default());
    let delete = framed(&DeleteRetainedRequest { topic: "a".into() });
    for (metadata, code, name) in
        [(&[][..], 16, "unauthenticated"), (&[("authorization", "Bearer reader")], 7, "forbidden")]
    {
        let (at, bytes) = (path("Retained"), list.clone());
        let answer = grpc.call_with::<RetainedResponse>(&at, metadata, bytes).await;
        assert_refused(answer, code, name);
        let (at, bytes) = (path("DeleteRetained"), delete.clone());
        let answer = grpc.call_with::<DeleteRetainedResponse>(&at, metadata, bytes).await;
        assert_refused(answer, code, name);
    }
}

/// Runs `clarion retained` with these arguments: exit code, standard output, standard error.
fn clarion(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let url = server.url();
    let output = Command::clarion([&["retained"], args, &["--url", &url]].concat());
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_lists_and_deletes() {
    let mut server = Server::start();
    let mut writer = mqtt(&server, "writer");
    retain_all(&mut writer, (0..1100).map(|n| (format!("c/{n:04}"), "x")));
    let lines = |args: &[&str]| {
        let (code, out, errors) = clarion(&server, args);
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{args:?}");
        let parse = |line: &str| serde_json::from_str::<Value>(line).expect("a JSON line");
        out.lines().map(parse).collect::<Vec<Value>>()
    };
    let all = lines(&["list"]);
    assert_eq!(all.len(), 1100, "more than a page");
    assert_eq!((&all[7]["topic"], &all[7]["text"]), (&json!("c/0007"), &json!("x")));
    assert_eq!(topics(&lines(&["list", "--limit", "2"])), ["c/0000", "c/0001"]);
    assert_eq!(topics(&lines(&["list", "+/0042"])), ["c/0042"]);
    assert!(lines(&["list", "nothing/#"]).is_empty());
    let deleted = lines(&["delete", "c/0042", "c/0043"]);
    assert_eq!(topics(&deleted), ["c/0042", "c/0043"]);
    assert!(deleted.iter().all(|line| line["deleted"] == true));
    assert!(lines(&["list", "c/0042"]).is_empty());
    for (args, status, text) in [
        (&["delete", "c/0042"][..], 1, "not_found (1200)"),
        (&["delete", "c/#"], 1, "bad_address (1001)"),
        (&["list", "c#"], 1, "bad_request (1000)"),
    ] {
        let (code, out, errors) = clarion(&server, args);
        assert_eq!((code, out.as_str(), errors.lines().count()), (Some(status), "", 1), "{args:?}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
    assert_eq!(clarion(&server, &["delete"]).0, Some(64));
    assert_eq!(clarion(&server, &[]).0, Some(64));
    server.kill9();
    assert_eq!(clarion(&server, &["list"]).0, Some(69), "not reachable");
}
