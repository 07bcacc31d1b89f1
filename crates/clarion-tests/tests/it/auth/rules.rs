//! Access rules: what is allowed over HTTP is allowed over gRPC, and nothing else is.

use super::{basic, bearer, clarion, folder, get, http, keys, outcome, publish, reload, text};
use crate::grpc::{Stream, feed, path};
use clarion_tests::{Server, grpc::Grpc};
use clarion_wire::proto::clarion_v1::{
    Hello, Mode, SubscribeRequest, SubscribeResponse, subscribe_request,
};
use std::{fs, path::Path};

const RULES: &str = "
- {deny: [publish, subscribe], on: 'topic:secret/#'}
- {allow: [publish, subscribe], on: ['topic:home/%u/#', 'user:%u']}
- {allow: [subscribe], on: 'topic:news/+'}
- {allow: [publish], on: 'queue:jobs/+', who: user:alice}
- {allow: [publish, subscribe], on: '#', who: 'key:app'}
- {allow: [subscribe], on: all}
";

fn start(dir: &Path, rules: &str) -> Server {
    let (passwords, file) = (dir.join("passwords"), dir.join("rules.yaml"));
    for user in ["alice", "bob", "a/b"] {
        clarion(&["passwd", text(&passwords), user, "-b", user]);
    }
    fs::write(&file, rules).unwrap();
    Server::builder()
        .set("listeners.http.auth", "required")
        .set("listeners.grpc.auth", "required")
        .set("auth.password_file", text(&passwords))
        .set("auth.keys", &keys(&["app", "other"]))
        .set("auth.acl_file", text(&file))
        .set("topics.stored", "['#']")
        .start()
}

/// How a gRPC stream of this address begins: `ok`, or the refusal's name.
async fn subscribe(server: &Server, auth: &str, address: &str) -> String {
    let grpc = Grpc::open(server.listener("grpc")).await;
    let metadata = [("authorization", auth)];
    let mut call = grpc.start::<SubscribeResponse>(&path("Subscribe"), &metadata).await.unwrap();
    let hello =
        Hello { addresses: vec![address.into()], mode: Mode::Every.into(), ..Hello::default() };
    let request = Some(subscribe_request::Request::Hello(hello));
    call.say(&SubscribeRequest { request });
    match call.next().await {
        Ok(Some(_)) => "ok".into(),
        Ok(None) => "an end".into(),
        Err(status) => status.get("clarion-name").unwrap_or(&status.text).to_owned(),
    }
}

/// What a read comes to: by page, by event stream and by gRPC stream the same.
async fn read(server: &Server, auth: &str, address: &str) -> String {
    let page =
        get(server, auth, &format!("/api/v1/channels/{}/messages", address.replace('/', "%2F")));
    let query = format!("address={address}&from=earliest");
    let request =
        format!("GET /api/v1/stream?{query} HTTP/1.1\r\nhost: x\r\nauthorization: {auth}\r\n\r\n");
    let mut stream = clarion_tests::raw::Connection::open(server.addr()).unwrap();
    stream.send(request.as_bytes()).unwrap();
    let head = stream.until(b"\r\n").unwrap();
    let allowed = head.starts_with(b"HTTP/1.1 200");
    assert_eq!(page == "ok", allowed, "{address}: {page}, {}", String::from_utf8_lossy(&head));
    assert_eq!(page, subscribe(server, auth, address).await, "{address}");
    page
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_hold_over_both() {
    let dir = folder();
    let server = start(dir.path(), RULES);
    let (alice, bob, app, other) =
        (basic("alice", "alice"), basic("bob", "bob"), bearer("app"), bearer("other"));
    let check = |auth: &str, address: &str, expected: &str| {
        let (server, auth) = (&server, auth.to_owned());
        // A runtime of its own within: not on this one's thread.
        let found = tokio::task::block_in_place(|| {
            std::thread::scope(|s| s.spawn(|| publish(server, &auth, address)).join().unwrap())
        });
        assert_eq!(found, expected, "{auth} {address}");
    };
    for (auth, address, expected) in [
        (&alice, "user:alice", "ok"),
        (&alice, "user:bob", "forbidden"),
        (&alice, "topic:home/alice/door", "ok"),
        (&alice, "topic:home/bob/door", "forbidden"),
        (&alice, "topic:news/1", "forbidden"),
        (&alice, "topic:secret/x", "forbidden"),
        (&alice, "queue:jobs/1", "ok"),
        (&alice, "queue:jobs/1/2", "forbidden"),
        (&alice, "all", "forbidden"),
        (&bob, "queue:jobs/1", "forbidden"),
        (&app, "user:bob", "ok"),
        (&app, "topic:news/1", "ok"),
        (&app, "topic:secret/x", "forbidden"),
        (&app, "all", "ok"),
        (&other, "topic:news/1", "forbidden"),
        (&other, "user:bob", "forbidden"),
    ] {
        check(auth, address, expected);
    }
    // A name with a slash opens no levels.
    let slash = basic("a/b", "a/b");
    check(&slash, "user:a/b", "ok");
    check(&slash, "topic:home/a/b", "forbidden");
    check(&slash, "topic:home/a/b/x", "forbidden");
    for (auth, address, expected) in [
        (&alice, "topic:news/1", "ok"),
        (&alice, "topic:home/alice/door", "ok"),
        (&alice, "topic:home/bob/door", "forbidden"),
        (&alice, "topic:secret/x", "forbidden"),
        (&alice, "user:alice", "ok"),
        (&alice, "user:bob", "forbidden"),
        (&alice, "all", "ok"),
        (&app, "user:bob", "ok"),
        (&other, "topic:news/1", "ok"),
        (&other, "user:bob", "forbidden"),
    ] {
        let found = read(&server, auth, address).await;
        assert_eq!(found, expected, "{auth} {address}");
    }
    for (auth, expected) in [(&alice, "forbidden"), (&app, "ok")] {
        let next = "/api/v1/queues/jobs%2F1/next";
        assert_eq!(get(&server, auth, next), expected);
        let nothing = r#"{"leases": []}"#;
        let acked = http(&server, auth, "POST", "/api/v1/queues/jobs%2F1/ack", nothing);
        assert_eq!(outcome(&acked) == "forbidden", expected == "forbidden");
        assert_eq!(get(&server, auth, "/api/v1/channels/queue:jobs%2F1/dead"), expected);
    }
    assert!(!server.stderr().contains("panicked"));
}

#[test]
fn rules_change_at_once_and_a_broken_file_changes_nothing() {
    let dir = folder();
    let server = start(dir.path(), RULES);
    let file = dir.path().join("rules.yaml");
    let alice = basic("alice", "alice");
    assert_eq!(publish(&server, &alice, "topic:news/1"), "forbidden");
    fs::write(&file, "- {allow: [publish], on: 'topic:news/#'}").unwrap();
    assert_eq!(publish(&server, &alice, "topic:news/1"), "forbidden");
    reload(&server, 1, true);
    assert_eq!(publish(&server, &alice, "topic:news/1"), "ok");
    assert_eq!(publish(&server, &alice, "user:alice"), "forbidden");
    fs::write(&file, "- {allow: [publish], on: 'topic:#/a'}\n- {allow: [eat], on: all}").unwrap();
    reload(&server, 1, false);
    assert_eq!(publish(&server, &alice, "topic:news/1"), "ok");
    let stderr = server.stderr();
    for told in ["auth.acl_file[0].on[0]: ", "auth.acl_file[1].allow[0]: expected one of publish"] {
        assert!(stderr.contains(told), "{stderr}");
    }
    // Without any rule there is the default.
    fs::write(&file, "").unwrap();
    reload(&server, 2, true);
    assert_eq!(publish(&server, &alice, "user:alice"), "forbidden");
}

#[test]
fn listeners_without_auth_are_under_the_rules_too() {
    let rules = "[{allow: [publish], on: 'topic:open/#', who: anonymous}, \
                 {allow: [subscribe], on: 'user:%u'}]";
    let server = Server::builder().set("auth.acl", rules).start();
    assert_eq!(publish(&server, "", "topic:open/x"), "ok");
    assert_eq!(publish(&server, "", "topic:shut/x"), "forbidden");
    assert_eq!(publish(&server, "", "user:u"), "forbidden");
    // The name that a client gives is taken.
    for query in ["address=user:v&user=u&device=d", "address=all&user=u&device=d", "address=user:u"]
    {
        assert_eq!(get(&server, "", &format!("/api/v1/stream?{query}")), "forbidden", "{query}");
    }
    // The rule for the user's own channel decides about his feed, by whatever names that is asked for.
    let at = server.addr();
    let request = format!("GET /api/v1/stream?user=u HTTP/1.1\r\nhost: {at}\r\n\r\n");
    let mut stream = clarion_tests::raw::Connection::open(at).unwrap();
    stream.send(request.as_bytes()).unwrap();
    assert!(stream.until(b"\r\n").unwrap().starts_with(b"HTTP/1.1 200"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let grpc = Grpc::open(server.listener("grpc")).await;
        for (addresses, expected) in [
            (&["user:u", "all"][..], None),
            (&["all"], Some("forbidden")),
            (&["user:u", "all", "topic:open/x"], Some("forbidden")),
            (&["user:v", "all"], Some("forbidden")),
        ] {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            let hello = Hello { addresses, mode: Mode::Every.into(), ..feed("u", "d") };
            let refused = Stream::try_open(&grpc, hello).await.err();
            let name = refused.as_ref().and_then(|status| status.get("clarion-name"));
            assert_eq!(name, expected);
        }
    });
}
