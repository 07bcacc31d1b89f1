//! What a request says: addresses, payloads, numbers, names, JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use clarion_tests::Server;
use serde_json::{Value, json};

use super::Cases;

const OK: (u16, &str) = (200, "");
const BAD_REQUEST: (u16, &str) = (400, "bad_request");
const BAD_ADDRESS: (u16, &str) = (400, "bad_address");
const BAD_PAYLOAD: (u16, &str) = (400, "bad_payload");
const BAD_USER: (u16, &str) = (400, "bad_user");

/// Small limits, so that they are reached with little.
fn server() -> Server {
    let limits = [
        ("limits.payload_bytes", "1024"),
        ("limits.body_bytes", "128KiB"),
        ("limits.batch_messages", "10"),
        ("limits.headers_count", "4"),
        ("limits.headers_bytes", "64"),
    ];
    limits.iter().fold(Server::builder(), |server, (key, value)| server.set(key, value)).start()
}

fn x(n: usize) -> String {
    "x".repeat(n)
}

fn message(field: &str, value: impl Into<Value>) -> String {
    let mut message = json!({"address": "user:a", "text": "t"});
    message[field] = value.into();
    message.to_string()
}

#[test]
fn addresses() {
    let server = server();
    let mut cases = Cases::new(&server);
    let mut check = |address: &str, expected| cases.publish(message("address", address), expected);
    for good in [format!("user:{}", x(256)), format!("user:{}", "ü".repeat(128)), "all".into()] {
        check(&good, OK);
    }
    check(&format!("topic:{}", x(65_535)), OK);
    check(&format!("topic:{}", x(65_536)), BAD_ADDRESS);
    for kind in ["user", "group", "queue"] {
        check(&format!("{kind}:"), BAD_ADDRESS);
        check(&format!("{kind}:{}", x(257)), BAD_ADDRESS);
        check(&format!("{kind}:{}", "ü".repeat(129)), BAD_ADDRESS);
    }
    for kind in ["user", "group"] {
        check(&format!("{kind}:a\0b"), BAD_ADDRESS);
    }
    // Queues have any text as a name.
    check("queue:a\0b", OK);
    for bad in ["", ":", "user", "USER:1", "nobody:1", " user:1", "all:x", "topic:", "topic:a/+"] {
        check(bad, BAD_ADDRESS);
    }
    for reserved in ["filter:a/+", "filter:", "$dead/queue:q", "$SYS", "$", "topic:$SYS/x"] {
        check(reserved, BAD_ADDRESS);
    }
    check("group:nobody-made-it", (404, "not_found"));
    cases.publish(r#"{"text":"t"}"#, BAD_REQUEST);
    cases.publish(r#"{"address":7,"text":"t"}"#, BAD_REQUEST);
    cases.publish(r#"{"address":null,"text":"t"}"#, BAD_REQUEST);
    cases.publish(r#"{"address":"user:\ud800","text":"t"}"#, BAD_REQUEST);
    cases.publish(b"{\"address\":\"user:\xff\",\"text\":\"t\"}", BAD_REQUEST);
    cases.finish();
}

#[test]
fn payloads() {
    let server = server();
    let mut cases = Cases::new(&server);
    let too_large = (413, "payload_too_large");
    let with = |payload: &str| format!(r#"{{"address":"user:p",{payload}}}"#);
    for (bytes, expected) in [(0, OK), (1024, OK), (1025, too_large), (100_000, too_large)] {
        cases.publish(with(&format!(r#""text":"{}""#, x(bytes))), expected);
        let base64 = STANDARD.encode(vec![0xff; bytes.min(90_000)]);
        cases.publish(with(&format!(r#""base64":"{base64}""#)), expected);
        let json = x(bytes.saturating_sub(2));
        cases.publish(with(&format!(r#""json":"{json}""#)), expected);
    }
    // Two bytes each: the limit counts bytes.
    cases.publish(with(&format!(r#""text":"{}""#, "ü".repeat(512))), OK);
    cases.publish(with(&format!(r#""text":"{}x""#, "ü".repeat(512))), too_large);
    // White space is not part of the payload.
    cases.publish(with(&format!(r#""json":[ {} ]"#, " ".repeat(2000))), OK);
    cases.publish(with(r#""json":null"#), OK);
    for bad in [
        r#""kind":"k""#,
        r#""text":null"#,
        r#""text":"a","json":1"#,
        r#""text":"a","json":null"#,
        r#""text":"a","base64":"YQ==""#,
        r#""base64":"YQ==","json":{}"#,
        r#""text":"","json":1,"base64":"""#,
        r#""base64":"!!!!""#,
        r#""base64":"YQ""#,
        r#""base64":"YR==""#,
        r#""base64":"YQ==\n""#,
        r#""base64":"-_-_""#,
    ] {
        cases.publish(with(bad), BAD_PAYLOAD);
    }
    for wrong_type in [r#""text":1"#, r#""text":{}"#, r#""base64":[1,2]"#, r#""json":"#] {
        cases.publish(with(wrong_type), BAD_REQUEST);
    }
    cases.publish(with(r#""json":{a}"#), BAD_REQUEST);
    cases.publish(with(r#""json":01"#), BAD_REQUEST);
    cases.publish(with(r#""json":NaN"#), BAD_REQUEST);
    cases.publish(b"{\"address\":\"user:p\",\"text\":\"\xff\xfe\"}", BAD_REQUEST);
    cases.publish(b"{\"address\":\"user:p\",\"text\":\"\xed\xa0\x80\"}", BAD_REQUEST);
    cases.publish(b"{\"address\":\"user:p\",\"json\":\"\xc3\x28\"}", BAD_REQUEST);
    cases.finish();
}

#[test]
fn expire() {
    let server = server();
    let mut cases = Cases::new(&server);
    let with = |value: &str| format!(r#"{{"address":"user:e","text":"t","expire":{value}}}"#);
    for good in ["0", "1", "18446744073709551615", "null"] {
        cases.publish(with(good), OK);
    }
    for bad in ["-1", "-9223372036854775809", "1.5", "0.0", "1e3", "18446744073709551616", "1e300"]
    {
        cases.publish(with(bad), (400, "bad_expire"));
    }
    for not_a_number in [r#""5""#, "true", "[1]", "{}", "1e999999", "--1", "0x10"] {
        cases.publish(with(not_a_number), BAD_REQUEST);
    }
    cases.finish();
}

#[test]
fn names_keys_and_headers() {
    let server = server();
    let mut cases = Cases::new(&server);
    for field in ["kind", "content_type", "idempotency_key"] {
        cases.publish(message(field, x(256)), OK);
        for bad in [String::new(), x(257), "a\nb".into(), "a\0".into(), "\u{85}".into()] {
            cases.publish(message(field, bad), BAD_REQUEST);
        }
        cases.publish(message(field, 1), BAD_REQUEST);
    }
    let pairs = |n: usize| json!(vec![["a", "b"]; n]);
    cases.publish(message("headers", pairs(4)), OK);
    cases.publish(message("headers", pairs(5)), BAD_REQUEST);
    cases.publish(message("headers", json!([["a", x(63)]])), OK);
    cases.publish(message("headers", json!([["a", x(64)]])), BAD_REQUEST);
    for bad in [json!([["", "b"]]), json!([["a"]]), json!([["a", "b", "c"]]), json!({"a": "b"})] {
        cases.publish(message("headers", bad), BAD_REQUEST);
    }
    cases.publish(message("headers", json!([["a", 1]])), BAD_REQUEST);
    cases.finish();
}

#[test]
fn json_that_is_no_request() {
    let server = server();
    let mut cases = Cases::new(&server);
    for bad in [
        "",
        " ",
        "{",
        "}",
        "{}",
        "[]",
        "null",
        "1",
        "\"x\"",
        "tru",
        "{\"address\"",
        "\u{feff}{}",
        r#"{"address":"user:j","text":"t"} x"#,
        r#"{"address":"user:j","text":"t"}{}"#,
        r#"{"address":"user:j","text":"t",}"#,
        r#"{"address":"user:j","text":"t","text":"u"}"#,
        r#"{"address":"user:j","address":"user:k","text":"t"}"#,
        r#"{"address":"user:j","json":1,"json":1}"#,
        r#"{"address":"user:j","text":"t","colour":"red"}"#,
        r#"{"address":"user:j","text":"t","":1}"#,
        r#"{'address':'user:j','text':'t'}"#,
        r#"{"address":"user:j","text":"t" /* no */}"#,
        r#"["user:j","t",null,null,null,null,null,null,null]"#,
    ] {
        cases.publish(bad, BAD_REQUEST);
    }
    let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    cases.publish(utf16, BAD_REQUEST);
    cases.publish([0; 1000], BAD_REQUEST);
    cases.publish([0xff; 1000], BAD_REQUEST);
    cases.finish();
}

#[test]
fn deeply_nested_json() {
    let server = server();
    let mut cases = Cases::new(&server);
    let deep =
        |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let payload = |json: String| format!(r#"{{"address":"user:d","json":{json}}}"#);
    cases.publish(payload(deep("[", "]", 128)), OK);
    cases.publish(payload(deep("[", "]", 129)), BAD_PAYLOAD);
    cases.publish(payload(deep(r#"{"a":"#, "}", 129)), BAD_PAYLOAD);
    cases.publish(payload(deep("[", "]", 60_000)), BAD_PAYLOAD);
    cases.publish(payload("[".repeat(60_000)), BAD_REQUEST);
    for n in [200, 60_000] {
        cases.publish(deep("[", "]", n), BAD_REQUEST);
        cases.publish(deep(r#"{"address":"#, "}", n.min(10_000)), BAD_REQUEST);
        cases.publish(format!(r#"{{"colour":{}}}"#, deep("[", "]", n)), BAD_REQUEST);
        cases.publish(format!(r#"{{"headers":{}}}"#, deep("[", "]", n)), BAD_REQUEST);
        let batch = |inner: &str| format!(r#"{{"messages":{inner}}}"#);
        cases.post("/api/v1/publish/batch", batch(&deep("[", "]", n)), OK);
        cases.post("/api/v1/ack", format!(r#"{{"token":{}}}"#, deep("[", "]", n)), BAD_REQUEST);
    }
    cases.finish();
}

#[test]
fn batches() {
    let server = server();
    let mut cases = Cases::new(&server);
    let batch = |messages: &[Value]| json!({"messages": messages}).to_string();
    let good = json!({"address": "user:b", "text": "t"});
    let target = "/api/v1/publish/batch";
    cases.post(target, batch(&vec![good.clone(); 10]), OK);
    cases.post(target, batch(&vec![good.clone(); 11]), (413, "batch_too_long"));
    cases.post(target, batch(&vec![json!(1); 20_000]), (413, "batch_too_long"));
    cases.post(target, batch(&[]), OK);
    let longer = vec![json!({"address": "user:b", "text": x(1000)}); 200];
    cases.post(target, batch(&longer), (413, "request_too_large"));
    for bad in ["{}", "[]", r#"{"messages":{}}"#, r#"{"messages":null}"#, r#"{"messages":[}"#] {
        cases.post(target, bad, BAD_REQUEST);
    }
    cases.post(target, r#"{"messages":[],"messages":[]}"#, BAD_REQUEST);
    cases.post(target, r#"{"messages":[],"more":1}"#, BAD_REQUEST);
    cases.finish();
}

#[test]
fn a_mixed_batch_has_a_result_for_each_and_keeps_the_order() {
    let server = server();
    let at = server.addr();
    let body = json!({"messages": [
        {"address": "user:mix", "text": "one", "idempotency_key": "k"},
        {"address": "nobody:1", "text": "t"},
        {"address": "user:mix", "text": "again", "idempotency_key": "k"},
        [],
        {"address": "user:mix", "text": x(1025)},
        {"address": "user:mix", "text": "two"},
        {"address": "user:mix", "text": "t", "expire": -1},
        {"address": "group:g", "text": "t"},
        {"address": "user:mix", "text": "live", "expire": 0},
    ]});
    let body = body.to_string();
    let headers = super::JSON;
    let request =
        clarion_tests::raw::request("POST", "/api/v1/publish/batch", at, headers, body.as_bytes());
    let answer = clarion_tests::raw::exchange(at, &request).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].take();
    let name = |i: usize| results[i]["error"]["name"].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = (0..9).map(name).collect();
    assert_eq!(
        names,
        [
            "",
            "bad_address",
            "",
            "bad_request",
            "payload_too_large",
            "",
            "bad_expire",
            "not_found",
            ""
        ]
    );
    assert_eq!(results.as_array().map(Vec::len), Some(9));
    assert_eq!((&results[0]["seq"], &results[5]["seq"]), (&json!(1), &json!(2)));
    assert_eq!(results[0].get("duplicate"), None);
    assert_eq!(results[2]["duplicate"], true);
    assert_eq!(results[2]["id"], results[0]["id"]);
    assert_eq!((&results[8]["seq"], &results[8]["durability"]), (&json!(0), &json!("none")));
    super::assert_healthy(&server);
}

#[test]
fn paths_and_queries() {
    let server = server();
    let mut cases = Cases::new(&server);
    let read = |address: &str| format!("/api/v1/channels/{address}/messages");
    cases.get(&read("user%3Aa"), OK);
    cases.get(&read("user:a%2Fb"), OK);
    for bad in ["user%3A", "filter%3Aa", "%24dead%2Fqueue%3Aq", "x", "user%3Aa%00", "topic%3A%23"] {
        cases.get(&read(bad), BAD_ADDRESS);
    }
    cases.get(&read(&format!("user%3A{}", x(257))), BAD_ADDRESS);
    for not_utf8 in ["%FF", "user%3A%C3%28", "user%3A%ED%A0%80"] {
        cases.get(&read(not_utf8), BAD_REQUEST);
    }
    let numbers =
        ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "after=-1", "after=1.5"];
    let others =
        ["limit=99999999999999999999", "after=1&before=2", "colour=red", "limit=1&limit=2"];
    for bad in numbers.iter().chain(&others) {
        cases.get(&format!("{}?{bad}", read("user:a")), BAD_REQUEST);
    }
    cases.call("DELETE", &read("user:a"), "", BAD_REQUEST);
    cases.call("DELETE", &format!("{}?below=-1", read("user:a")), "", BAD_REQUEST);
    cases.call("DELETE", &format!("{}?below=0", read("filter:a")), "", BAD_ADDRESS);

    let long = x(257);
    for user in [&*long, "a%00b", "a%0Ab"] {
        cases.get(&format!("/api/v1/users/{user}/presence"), BAD_USER);
        cases.get(&format!("/api/v1/sessions?user={user}"), BAD_USER);
        cases.call("DELETE", &format!("/api/v1/users/{user}/sessions"), "", BAD_USER);
        cases.call("DELETE", &format!("/api/v1/users/u/sessions?device={user}"), "", BAD_USER);
    }
    cases.get("/api/v1/sessions?user=", BAD_USER);
    cases.get("/api/v1/users//presence", BAD_USER);
    cases.get("/api/v1/users/%FF/presence", BAD_REQUEST);
    for query in ["user=%FF", "user=%C3%28", "after=zz", "after=%FF", "limit=0", "x=1"] {
        cases.get(&format!("/api/v1/sessions?{query}"), BAD_REQUEST);
    }
    for id in ["zz", "000000000100000001", "%20", &x(5000)] {
        cases.call("DELETE", &format!("/api/v1/sessions/{id}"), "", (404, "session_not_found"));
    }
    for id in ["x", "%F0%9F%A6%80", &x(36), "0"] {
        cases.get(&format!("/api/v1/messages/{id}"), BAD_REQUEST);
        cases.call("DELETE", &format!("/api/v1/messages/{id}"), "", BAD_REQUEST);
    }
    cases.get("/api/v1/messages/0190a6b0-0000-7000-8000-000000000000", (404, "not_found"));
    cases.finish();
}

#[test]
fn stream_requests() {
    let server = server();
    let mut cases = Cases::new(&server);
    let mut check = |query: &str, expected| {
        cases.get(&format!("/api/v1/stream{query}"), expected);
    };
    let long = x(257);
    for bad in ["?user=", "?user=a%00", "?user=u&device=", "?user=u&device=%0A"] {
        check(bad, BAD_USER);
    }
    check(&format!("?user={long}"), BAD_USER);
    check(&format!("?user=u&device={long}"), BAD_USER);
    check(&format!("?address=user:{long}"), BAD_ADDRESS);
    for bad in
        ["?address=", "?address=x", "?address=filter:a/%2B", "?address=%24x", "?address=user:"]
    {
        check(bad, BAD_ADDRESS);
    }
    for bad in [
        "",
        "?",
        "?device=d",
        "?address=all&device=d",
        "?user=u&from=yesterday",
        "?user=u&from=-1",
        "?user=u&from=99999999999999999999",
        "?address=all&from=unacked",
        "?user=u&x=1",
        "?user=u&user=v",
        "?user=%FF",
        "?user=u&device=%FF",
        "?address=user:%FF",
    ] {
        check(bad, BAD_REQUEST);
    }
    check("?address=group:g", (404, "not_found"));
    check("?address=group:g&user=u&device=d", (404, "not_found"));
    let long_token = x(4000);
    for token in ["x", "AAAA", "%%%", "a b", &long_token, "\u{fc}"] {
        let header = format!("last-event-id: {token}\r\n");
        cases.call("GET", "/api/v1/stream?user=u", &header, (400, "bad_token"));
        cases.call("GET", "/api/v1/stream?address=all", &header, (400, "bad_token"));
    }
    for token in ["", "x", "AAAA", &long_token] {
        cases.post("/api/v1/ack", json!({"token": token}).to_string(), (400, "bad_token"));
    }
    for body in ["{}", r#"{"token":1}"#, r#"{"token":null}"#, r#"{"token":"x","y":1}"#] {
        cases.post("/api/v1/ack", body, BAD_REQUEST);
    }
    cases.finish();
}

#[test]
fn paths_and_methods_that_are_not_there() {
    let server = server();
    let mut cases = Cases::new(&server);
    for path in
        ["/", "/api", "/api/v1", "/api/v1/publish/", "/api/v2/publish", "//healthz", "/%2e%2e/"]
    {
        cases.get(path, (404, "not_found"));
    }
    let method = (405, "method_not_allowed");
    for (verb, path) in [
        ("POST", "/healthz"),
        ("GET", "/api/v1/publish"),
        ("DELETE", "/api/v1/publish/batch"),
        ("PUT", "/api/v1/channels/user:a/messages"),
        ("POST", "/api/v1/stream"),
        ("OPTIONS", "/api/v1/publish"),
        ("TRACE", "/readyz"),
        ("BREW", "/readyz"),
    ] {
        cases.call(verb, path, "content-length: 0\r\n", method);
    }
    let at = server.addr();
    let request = clarion_tests::raw::request("POST", "/readyz", at, "", b"");
    let answer = clarion_tests::raw::exchange(at, &request).expect("an answer");
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
    cases.finish();
}
