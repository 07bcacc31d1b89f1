//! What those say who share the work of queues and groups: numbers, names, leases, dead lists.

use clarion_tests::{Server, raw};
use serde_json::json;

use super::Cases;

const OK: (u16, &str) = (200, "");
const BAD_REQUEST: (u16, &str) = (400, "bad_request");
const BAD_ADDRESS: (u16, &str) = (400, "bad_address");
const BAD_USER: (u16, &str) = (400, "bad_user");
const BAD_TOKEN: (u16, &str) = (400, "bad_token");
const NOT_FOUND: (u16, &str) = (404, "not_found");
const TOO_LONG: (u16, &str) = (413, "batch_too_long");

const QUEUE: &str = "/api/v1/queues/jobs";
const GROUP: &str = "/api/v1/channels/all/groups/g";
const DEAD: &str = "/api/v1/channels/queue:jobs/dead";

/// The status of an answer to HEAD, which has no body whatever its length is said to be.
fn head(server: &Server, target: &str) -> u16 {
    let mut connection = raw::Connection::open(server.addr()).expect("the server accepts");
    let request = raw::request("HEAD", target, server.addr(), "", b"");
    connection.send(&request).expect("the server reads");
    connection.head().expect("an answer").status
}

#[test]
fn how_to_take() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    for place in [QUEUE, GROUP] {
        let mut check = |query: &str, expected| {
            cases.get(&format!("{place}/next?{query}"), expected);
        };
        for good in [
            "wait=0",
            "wait=0.001",
            "wait=1e-3",
            "wait=-0",
            "count=1",
            "count=100",
            "ack_wait=1",
            "ack_wait=86400",
            "ack_wait=1.5&count=2&wait=0",
        ] {
            check(good, OK);
        }
        for bad in [
            "wait=-1",
            "wait=-0.001",
            "wait=60.001",
            "wait=61",
            "wait=1e9",
            "wait=NaN",
            "wait=inf",
            "wait=-inf",
            "wait=",
            "wait=x",
            "wait=1s",
            "wait=0x1",
            "wait=1,5",
            "wait=1e999",
        ] {
            check(bad, BAD_REQUEST);
        }
        for bad in [
            "count=0",
            "count=101",
            "count=-1",
            "count=1.5",
            "count=",
            "count=x",
            "count=1e1",
            "count=99999999999999999999",
        ] {
            check(bad, BAD_REQUEST);
        }
        for bad in ["0", "0.999", "86400.1", "-1", "NaN", "inf", "", "x"] {
            check(&format!("ack_wait={bad}"), BAD_REQUEST);
        }
        for bad in ["waits=1", "wait=1&wait=1", "wait=%FF", "from=unacked", "from=x", "from=-1"] {
            check(bad, BAD_REQUEST);
        }
        assert_eq!(head(&server, &format!("{place}/next")), 405, "it would take and show nothing");
    }
    // A queue's consumers have one place in it.
    cases.get(&format!("{QUEUE}/next?from=earliest"), BAD_REQUEST);
    cases.get(&format!("{GROUP}/next?from=99999999999999999999"), BAD_REQUEST);
    cases.finish();
}

#[test]
fn names() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    let (long, longest) = ("x".repeat(257), "x".repeat(256));
    let group = |address: &str, name: &str| format!("/api/v1/channels/{address}/groups/{name}");
    let empty = json!({ "leases": [] }).to_string();
    let mut check = |place: String, expected: (u16, &str)| {
        cases.get(&format!("{place}/next"), expected);
        for verb in ["ack", "nack"] {
            cases.post(&format!("{place}/{verb}"), &empty, expected);
        }
    };
    check(format!("/api/v1/queues/{longest}"), OK);
    check(format!("/api/v1/queues/{long}"), BAD_ADDRESS);
    check("/api/v1/queues/%FF".to_owned(), BAD_REQUEST);
    check("/api/v1/queues/".to_owned(), BAD_ADDRESS);
    check(group("all", &longest), OK);
    check(group("topic:a%2Fb", "%C3%BC"), OK);
    for bad in [&*long, "%2A", "a%0Ab", "a%00"] {
        check(group("all", bad), BAD_USER);
    }
    for bad in ["x", "filter:a%2F%2B", "%24dead%2Fqueue:jobs", "topic:a%2F%23", "user:"] {
        check(group(bad, "g"), BAD_ADDRESS);
    }
    check(group("group:nobody-made-it", "g"), NOT_FOUND);
    check(group("all", "%FF"), BAD_REQUEST);
    // Nobody has taken anything by these names.
    for place in ["/api/v1/queues/never", &group("all", "never"), &group("topic:never", "g")] {
        for verb in ["ack", "nack"] {
            cases.post(&format!("{place}/{verb}"), &empty, NOT_FOUND);
        }
    }
    cases.finish();
}

#[test]
fn leases() {
    let server = Server::start();
    let at = server.addr();
    let publish = json!({ "address": "queue:jobs", "text": "t" }).to_string();
    let request = raw::request("POST", "/api/v1/publish", at, super::JSON, publish.as_bytes());
    assert_eq!(raw::exchange(at, &request).expect("an answer").status, 200);
    let request = raw::request("GET", &format!("{QUEUE}/next?wait=20"), at, "", b"");
    let taken = raw::exchange(at, &request).expect("an answer").json();
    let lease = taken["messages"][0]["lease"].as_str().expect("a lease").to_owned();
    let mut cases = Cases::new(&server);
    let body = |leases: &[&str]| json!({ "leases": leases }).to_string();
    // Changed anywhere, cut or grown; also beside a good one, which then is not acked either.
    let flipped = |at: usize| {
        let mut bytes = lease.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).expect("ASCII")
    };
    let mut damaged: Vec<String> = (0..lease.len()).map(flipped).collect();
    damaged.extend((0..lease.len()).map(|end| lease[..end].to_owned()));
    damaged.extend([format!("{lease}A"), format!("{lease}="), " ".into(), "x".repeat(5000)]);
    for damaged in &damaged {
        for verb in ["ack", "nack"] {
            cases.post(&format!("{QUEUE}/{verb}"), body(&[&lease, damaged]), BAD_TOKEN);
        }
    }
    cases.post("/api/v1/queues/other/ack", body(&[&lease]), BAD_TOKEN);
    cases.post("/api/v1/channels/queue:jobs/groups/g/ack", body(&[&lease]), BAD_TOKEN);
    cases.post("/api/v1/ack", json!({ "token": lease }).to_string(), BAD_TOKEN);
    for place in [QUEUE, GROUP] {
        for verb in ["ack", "nack"] {
            let target = format!("{place}/{verb}");
            for bad in [
                "",
                "[]",
                "{}",
                r#"{"leases":null}"#,
                r#"{"leases":"x"}"#,
                r#"{"leases":{}}"#,
                r#"{"leases":[1]}"#,
                r#"{"leases":[null]}"#,
                r#"{"leases":[],"leases":[]}"#,
                r#"{"leases":[],"more":1}"#,
                r#"{"leases":["#,
            ] {
                cases.post(&target, bad, BAD_REQUEST);
            }
            cases.post(&target, body(&vec!["x"; 1001]), TOO_LONG);
            cases.post(&target, body(&vec![""; 100_000]), TOO_LONG);
        }
    }
    for delay in ["-1", "86400.1", "1e999", "\"1\"", "true", "[]"] {
        let body = format!(r#"{{"leases":[],"delay":{delay}}}"#);
        cases.post(&format!("{QUEUE}/nack"), body, BAD_REQUEST);
    }
    cases.post(&format!("{QUEUE}/ack"), r#"{"leases":[],"delay":1}"#, BAD_REQUEST);
    cases.finish();
    let request =
        raw::request("POST", &format!("{QUEUE}/ack"), at, super::JSON, body(&[&lease]).as_bytes());
    assert_eq!(raw::exchange(at, &request).expect("an answer").json(), json!({ "acked": 1 }));
}

#[test]
fn dead_lists() {
    let server = Server::start();
    let mut cases = Cases::new(&server);
    cases.get(DEAD, OK);
    cases.get(&format!("{DEAD}?after=7&limit=1000"), OK);
    for bad in ["limit=0", "limit=1001", "limit=x", "after=-1", "after=1.5", "before=1", "x=1"] {
        cases.get(&format!("{DEAD}?{bad}"), BAD_REQUEST);
    }
    let put_back = format!("{DEAD}/put-back");
    cases.post(&put_back, r#"{"seqs":[]}"#, OK);
    cases.post(&put_back, r#"{"seqs":[0,1,1,18446744073709551615]}"#, OK);
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"seqs":1}"#,
        r#"{"seqs":[-1]}"#,
        r#"{"seqs":[1.5]}"#,
        r#"{"seqs":["1"]}"#,
        r#"{"seqs":[18446744073709551616]}"#,
        r#"{"seqs":[],"x":1}"#,
    ] {
        cases.post(&put_back, bad, BAD_REQUEST);
    }
    cases.post(&put_back, json!({ "seqs": vec![1; 1001] }).to_string(), TOO_LONG);
    cases.post(&put_back, json!({ "seqs": vec![1; 100_000] }).to_string(), TOO_LONG);
    for bad in ["x", "%24dead%2Fqueue:jobs", "filter:a", "queue:"] {
        cases.get(&format!("/api/v1/channels/{bad}/dead"), BAD_ADDRESS);
        let target = format!("/api/v1/channels/{bad}/dead/put-back");
        cases.post(&target, r#"{"seqs":[1]}"#, BAD_ADDRESS);
    }
    cases.finish();
}
