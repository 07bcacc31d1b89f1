//! Who sends it: bearer keys, rights, tokens, networks.

use std::net::{IpAddr, SocketAddr};

use clarion_tests::{
    Server,
    raw::{self, Answer, Connection},
};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{JSON, assert_alive, assert_problem, open_stream};

fn hex_sha256(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A server that asks for keys: the key of each principal is its name.
fn server() -> Server {
    let key = |name: &str, allow: &str, users: &str| {
        format!("{{name: {name}, sha256: {}, allow: [{allow}]{users}}}", hex_sha256(name))
    };
    let keys = [
        key("admin", "publish, subscribe, read, admin", ""),
        key("writer", "publish", ""),
        key("reader", "subscribe, read", ""),
        key("alice", "publish, subscribe, read, admin", ", users: [alice]"),
    ];
    Server::builder()
        .set("listeners.http.auth", "required")
        .set("auth.keys", &format!("[{}]", keys.join(", ")))
        .start()
}

fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}\r\n")
}

fn call(at: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let headers = format!("{headers}connection: close\r\n");
    raw::exchange(at, &raw::request(method, target, at, &headers, body.as_bytes()))
        .expect("an answer")
}

fn publish(at: SocketAddr, key: &str, address: &str) -> Answer {
    let body = json!({"address": address, "text": "t"}).to_string();
    call(at, "POST", "/api/v1/publish", &bearer(key), &body)
}

fn name(answer: &Answer) -> (u16, String) {
    (answer.status, super::problem(answer))
}

const FORBIDDEN: (u16, &str) = (403, "forbidden");

fn assert_name(answer: &Answer, expected: (u16, &str)) {
    assert_eq!(name(answer), (expected.0, expected.1.to_owned()), "{answer:?}");
}

#[test]
fn missing_and_wrong_keys() {
    let server = server();
    let at = server.addr();
    let read = "/api/v1/channels/user:a/messages";
    let long = format!("authorization: Bearer {}\r\n", "x".repeat(5000));
    for headers in [
        "",
        "authorization: \r\n",
        "authorization: Bearer\r\n",
        "authorization: Bearer \r\n",
        "authorization: Bearer wrong\r\n",
        "authorization: Bearer Admin\r\n",
        "authorization: Basic YWRtaW46YWRtaW4=\r\n",
        "authorization: admin\r\n",
        "authorization: Bearer \u{fc}\r\n",
        &long,
    ] {
        for (method, target) in [
            ("GET", read),
            ("DELETE", "/api/v1/channels/user:a/messages?below=1"),
            ("GET", "/api/v1/stream?user=a"),
            ("GET", "/api/v1/sessions"),
            ("GET", "/api/v1/users/a/presence"),
            ("DELETE", "/api/v1/users/a/sessions"),
            ("GET", "/metrics"),
            ("POST", "/api/v1/publish"),
            ("POST", "/api/v1/publish/batch"),
            ("POST", "/api/v1/ack"),
            ("GET", "/api/v1/queues/jobs/next"),
            ("POST", "/api/v1/queues/jobs/ack"),
            ("POST", "/api/v1/channels/user:a/groups/g/nack"),
            ("GET", "/api/v1/retained"),
            ("DELETE", "/api/v1/retained?topic=a"),
            ("DELETE", "/api/v1/retained/a"),
            ("GET", "/api/v1/stored-sessions"),
            ("GET", "/api/v1/stored-sessions/a"),
            ("DELETE", "/api/v1/stored-sessions/a"),
            ("POST", "/api/v1/stored-sessions/a/move"),
            ("GET", "/api/v1/channels/user:a/dead"),
            ("POST", "/api/v1/channels/user:a/dead/put-back"),
        ] {
            let answer = call(at, method, target, headers, "");
            assert_eq!(
                name(&answer),
                (401, "unauthenticated".into()),
                "{method} {target} {headers}"
            );
            assert!(answer.header("www-authenticate").is_some(), "{answer:?}");
        }
    }
    assert_eq!(call(at, "GET", read, &bearer("admin"), "").status, 200);
    assert_eq!(call(at, "GET", read, "authorization: bEARER   admin  \r\n", "").status, 200);
    assert_alive(at, &bearer("admin"));
    let stderr = server.stderr();
    assert!(!stderr.contains("panicked") && !stderr.contains("wrong"), "{stderr}");
}

#[test]
fn retained_messages_are_for_administrators_of_everything() {
    let server = server();
    let at = server.addr();
    for (key, method, target) in [
        ("reader", "GET", "/api/v1/retained"),
        ("reader", "DELETE", "/api/v1/retained?topic=a"),
        ("writer", "DELETE", "/api/v1/retained/a"),
        // Topics are nobody's: who administers one user does not administer them.
        ("alice", "GET", "/api/v1/retained?filter=a"),
        ("alice", "DELETE", "/api/v1/retained/a"),
    ] {
        assert_name(&call(at, method, target, &bearer(key), ""), FORBIDDEN);
    }
    assert_eq!(call(at, "GET", "/api/v1/retained", &bearer("admin"), "").status, 200);
    let missing = call(at, "DELETE", "/api/v1/retained/a", &bearer("admin"), "");
    assert_name(&missing, (404, "not_found"));
}

#[test]
fn stored_sessions_are_for_administrators_of_everything() {
    let server = server();
    let at = server.addr();
    let body = r#"{"filter": "a", "to": 1}"#;
    // Whoever administers one user only does not administer them.
    for key in ["reader", "writer", "alice"] {
        for (method, target, body) in [
            ("GET", "/api/v1/stored-sessions", ""),
            ("GET", "/api/v1/stored-sessions?user=alice", ""),
            ("GET", "/api/v1/stored-sessions/a", ""),
            ("DELETE", "/api/v1/stored-sessions/a", ""),
            ("POST", "/api/v1/stored-sessions/a/move", body),
        ] {
            assert_name(&call(at, method, target, &bearer(key), body), FORBIDDEN);
        }
    }
    assert_eq!(call(at, "GET", "/api/v1/stored-sessions", &bearer("admin"), "").status, 200);
    let missing = call(at, "DELETE", "/api/v1/stored-sessions/a", &bearer("admin"), "");
    assert_name(&missing, (404, "not_found"));
}

#[test]
fn rights_end_where_they_were_given() {
    let server = server();
    let at = server.addr();
    assert_eq!(publish(at, "writer", "user:alice").status, 200);
    assert_eq!(publish(at, "alice", "user:alice").status, 200);
    for (key, address) in [("reader", "user:alice"), ("alice", "user:bob"), ("alice", "all")] {
        assert_name(&publish(at, key, address), FORBIDDEN);
    }
    for (key, method, target) in [
        ("writer", "GET", "/api/v1/channels/user:alice/messages"),
        ("writer", "GET", "/api/v1/stream?user=alice"),
        ("writer", "GET", "/metrics"),
        ("writer", "GET", "/api/v1/users/alice/presence"),
        ("reader", "DELETE", "/api/v1/channels/user:alice/messages?below=2"),
        ("reader", "DELETE", "/api/v1/users/alice/sessions"),
        ("reader", "DELETE", "/api/v1/sessions/000000000000000000"),
        ("alice", "GET", "/api/v1/channels/user:bob/messages"),
        ("alice", "GET", "/api/v1/channels/all/messages"),
        ("alice", "GET", "/api/v1/stream?user=bob"),
        ("alice", "GET", "/api/v1/stream?address=user:bob"),
        ("alice", "GET", "/api/v1/stream?address=user:bob&user=alice"),
        ("alice", "GET", "/api/v1/stream?address=user:bob&user=alice&device=d"),
        ("alice", "GET", "/api/v1/stream?address=queue:jobs&user=alice&device=d"),
        ("alice", "GET", "/api/v1/sessions"),
        ("alice", "GET", "/api/v1/sessions?user=bob"),
        ("alice", "GET", "/api/v1/users/bob/presence"),
        ("alice", "DELETE", "/api/v1/users/bob/sessions"),
        ("alice", "DELETE", "/api/v1/channels/user:bob/messages?below=2"),
        ("writer", "GET", "/api/v1/queues/jobs/next"),
        ("alice", "GET", "/api/v1/queues/jobs/next"),
        ("alice", "GET", "/api/v1/channels/user:bob/groups/g/next"),
        ("alice", "GET", "/api/v1/channels/all/groups/g/next"),
        ("writer", "GET", "/api/v1/channels/queue:jobs/dead"),
        ("alice", "GET", "/api/v1/channels/queue:jobs/dead"),
    ] {
        let answer = call(at, method, target, &bearer(key), "");
        assert_eq!(name(&answer), (403, "forbidden".into()), "{key} {method} {target}");
    }
    let (none, no_seq) = (json!({ "leases": [] }).to_string(), json!({ "seqs": [] }).to_string());
    for (key, target, body) in [
        ("writer", "/api/v1/queues/jobs/ack", &none),
        ("alice", "/api/v1/queues/jobs/nack", &none),
        ("alice", "/api/v1/channels/user:bob/groups/g/ack", &none),
        ("reader", "/api/v1/channels/queue:jobs/dead/put-back", &no_seq),
        ("alice", "/api/v1/channels/user:bob/dead/put-back", &no_seq),
    ] {
        assert_name(&call(at, "POST", target, &bearer(key), body), FORBIDDEN);
    }
    // What a restricted key may not read, it does not learn of by id either.
    let published = publish(at, "admin", "user:bob").json();
    let id = published["id"].as_str().expect("an id");
    let target = format!("/api/v1/messages/{id}");
    assert_name(&call(at, "GET", &target, &bearer("alice"), ""), FORBIDDEN);
    assert_name(&call(at, "DELETE", &target, &bearer("alice"), ""), FORBIDDEN);
    // In a batch each message is judged by itself.
    let body = json!({"messages": [
        {"address": "user:alice", "text": "t"}, {"address": "user:bob", "text": "t"},
    ]});
    let batch =
        call(at, "POST", "/api/v1/publish/batch", &bearer("alice"), &body.to_string()).json();
    assert_eq!(batch["results"][0]["durability"], "disk", "{batch}");
    assert_eq!(batch["results"][1]["error"]["name"], "forbidden", "{batch}");
    for target in [
        "/api/v1/channels/user:alice/messages",
        "/api/v1/users/alice/presence",
        "/api/v1/channels/user:alice/groups/g/next",
        "/api/v1/channels/user:alice/dead",
    ] {
        assert_eq!(call(at, "GET", target, &bearer("alice"), "").status, 200);
    }
    assert_alive(at, &bearer("admin"));
    assert!(!server.stderr().contains("panicked"));
}

/// The token of the first message of a new stream.
fn first_token(at: SocketAddr, query: &str, headers: &str) -> String {
    let mut stream = open_stream(at, query, headers);
    let id = stream.until(b"\nevent: message").expect("a message");
    let id = String::from_utf8(id).expect("text");
    let line = id.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    line.trim().to_owned()
}

#[test]
fn tokens_work_for_whom_they_were_made() {
    let server = server();
    let at = server.addr();
    assert_eq!(publish(at, "admin", "user:alice").status, 200);
    let admin = bearer("admin");
    let token = first_token(at, "user=alice&device=phone", &admin);
    let ack = |token: &str, key: &str| {
        let body = json!({ "token": token }).to_string();
        call(at, "POST", "/api/v1/ack", &bearer(key), &body)
    };
    let resume = |query: &str, key: &str, token: &str| {
        let headers = format!("{}last-event-id: {token}\r\n", bearer(key));
        call(at, "GET", &format!("/api/v1/stream?{query}"), &headers, "")
    };
    let foreign = (403, "foreign_token");
    // Another principal, who may subscribe as that user all the same.
    assert_name(&ack(&token, "reader"), foreign);
    assert_name(&ack(&token, "alice"), foreign);
    assert_name(&resume("user=alice&device=phone", "alice", &token), foreign);
    // Another device, another user.
    assert_name(&resume("user=alice&device=tablet", "admin", &token), foreign);
    assert_name(&resume("user=bob&device=phone", "admin", &token), foreign);
    assert_name(&resume("user=alice", "admin", &token), foreign);
    // One that is changed anywhere, cut or grown.
    let flipped = |at: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let mut forged: Vec<String> = (0..token.len()).map(flipped).collect();
    forged.extend((0..token.len()).map(|end| token[..end].to_owned()));
    forged.push(format!("{token}A"));
    forged.push(format!("{token}="));
    for forged in &forged {
        assert_eq!(name(&ack(forged, "admin")), (400, "bad_token".into()), "{forged}");
    }
    for forged in forged.iter().filter(|token| !token.is_empty()).step_by(7) {
        let answer = resume("user=alice&device=phone", "admin", forged);
        assert_eq!(name(&answer), (400, "bad_token".into()), "{forged}");
    }
    // A stream without a reader: its token is a position of that channel and nothing else.
    let plain = first_token(at, "address=user:alice&from=earliest", &admin);
    assert_name(&ack(&plain, "admin"), (400, "bad_token"));
    assert_name(&resume("address=user:bob", "admin", &plain), (400, "bad_token"));
    assert_eq!(ack(&token, "admin").json()["moved"], true);
    assert_eq!(ack(&token, "admin").json()["moved"], false);
    assert_alive(at, &admin);
    assert!(!server.stderr().contains("panicked"));
}

#[test]
fn networks_that_are_not_allowed_are_told() {
    let server = Server::builder().set("listeners.http.allow_from", "127.99.0.0/16").start();
    let at = server.addr();
    for _ in 0..3 {
        let mut refused = Connection::open(at).expect("a connection");
        assert_problem(&refused.answer().expect("an answer"), 403, "network_forbidden");
        assert_eq!(refused.rest().expect("the end"), b"");
    }
    let request = raw::request("GET", "/healthz", at, "", b"");
    let from = |source: [u8; 4]| {
        let mut connection = Connection::open_from(IpAddr::from(source), at).expect("a connection");
        connection.send(&request).expect("sent");
        connection.answer().expect("an answer")
    };
    assert_eq!(from([127, 99, 3, 4]).status, 200);
    assert_problem(&from([127, 98, 3, 4]), 403, "network_forbidden");
    assert_eq!(from([127, 99, 0, 1]).status, 200);
    assert!(!server.stderr().contains("panicked"));
    // The headers that a proxy would set change nothing.
    let headers = "x-forwarded-for: 127.99.0.1\r\nforwarded: for=127.99.0.1\r\n";
    let answer = raw::exchange(at, &raw::request("POST", "/healthz", at, headers, JSON.as_bytes()));
    assert_problem(&answer.expect("an answer"), 403, "network_forbidden");
}
