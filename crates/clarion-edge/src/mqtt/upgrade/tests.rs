//! Which requests become a WebSocket, and what the others are told.

use super::*;

const LINES: [&str; 6] = [
    "Host: 127.0.0.1:8080",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: mqtt",
];

fn rules(allow_origins: &[String]) -> Rules<'_> {
    Rules { auth_required: false, any_origin: false, allow_origins, head_bytes: 8192 }
}

/// A good request in which the line with the same name is replaced, or one is added.
fn request(target: &str, change: &str) -> String {
    let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let mut lines: Vec<&str> = LINES.to_vec();
    if !change.is_empty() {
        lines.retain(|line| name(line) != name(change));
    }
    if change.contains(": ") {
        lines.push(change);
    }
    format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"))
}

fn taken(text: &str, rules: Rules<'_>) -> String {
    match read(text.as_bytes(), rules) {
        Asked::Taken { answer, head_len } => {
            assert_eq!(head_len, text.len());
            String::from_utf8(answer).unwrap()
        }
        other => panic!("{text}: {}", show(&other)),
    }
}

fn show(asked: &Asked) -> String {
    match asked {
        Asked::Refused(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

fn refused(text: &str, rules: Rules<'_>, status: u16, name: &str) {
    let said = show(&read(text.as_bytes(), rules));
    assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{text}{said}");
    assert!(said.contains(&format!("\"name\":\"{name}\"")), "{text}{said}");
}

#[test]
fn the_specifications_example() {
    let answer = taken(&request("/mqtt", ""), rules(&[]));
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.ends_with("sec-websocket-protocol: mqtt\r\n\r\n"), "{answer}");
}

#[test]
fn it_waits_for_the_whole_head_and_leaves_what_follows() {
    let text = request("/mqtt", "");
    for length in 4..text.len() {
        assert_eq!(read(&text.as_bytes()[..length], rules(&[])), Asked::More);
    }
    let more = [text.as_bytes(), &[0x82, 0x80, 0, 0, 0, 0]].concat();
    let Asked::Taken { head_len, .. } = read(&more, rules(&[])) else { panic!("refused") };
    assert_eq!(head_len, text.len());
}

#[test]
fn subprotocols() {
    for (offered, answered) in [
        ("Sec-WebSocket-Protocol", ""),
        ("Sec-WebSocket-Protocol: mqttv3.1", "mqttv3.1"),
        ("Sec-WebSocket-Protocol: chat, mqttv3.1,mqtt", "mqttv3.1"),
        ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
    ] {
        let answer = taken(&request("/mqtt", offered), rules(&[]));
        let found = answer.split("sec-websocket-protocol: ").nth(1).unwrap_or_default();
        assert_eq!(found.trim(), answered, "{offered}");
    }
    for offered in ["chat", "MQTT", "mqttv5, stomp"] {
        let text = request("/mqtt", &format!("Sec-WebSocket-Protocol: {offered}"));
        refused(&text, rules(&[]), 400, "bad_request");
    }
}

#[test]
fn the_path_is_exact() {
    taken(&request("/mqtt?token=x", ""), rules(&[]));
    for target in ["/?", "/mqtt/", "/mqtt2", "/MQTT", "/x?/mqtt", "//mqtt", "/mqtt%3f"] {
        refused(&request(target, ""), rules(&[]), 404, "not_found");
    }
}

#[test]
fn who_drops_the_path_must_name_mqtt() {
    for offered in ["mqtt", "mqttv3.1", "chat, mqtt"] {
        let text = request("/", &format!("Sec-WebSocket-Protocol: {offered}"));
        taken(&text, rules(&[]));
        assert_eq!(is_for_mqtt(text.as_bytes()), Some(true), "{offered}");
        for length in 0..text.len() {
            assert_eq!(is_for_mqtt(&text.as_bytes()[..length]), None, "{offered}");
        }
    }
    for change in
        ["Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: chat", "Upgrade", "Upgrade: h2c"]
    {
        let text = request("/", change);
        refused(&text, rules(&[]), 404, "not_found");
        assert_eq!(is_for_mqtt(text.as_bytes()), Some(false), "{change}");
    }
    assert_eq!(is_for_mqtt(b"GET / HTTP/1.1\r\nBad Header: x\r\n"), Some(false));
}

#[test]
fn what_is_no_upgrade() {
    for (change, status, name) in [
        ("Upgrade", 426, "upgrade_required"),
        ("Upgrade: h2c", 426, "upgrade_required"),
        ("Connection: keep-alive", 426, "upgrade_required"),
        ("Sec-WebSocket-Version", 426, "upgrade_required"),
        ("Sec-WebSocket-Version: 8", 426, "upgrade_required"),
        ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13", 400, "bad_request"),
        ("Sec-WebSocket-Key", 400, "bad_request"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ", 400, "bad_request"),
        ("Sec-WebSocket-Key: c2hvcnQ=", 400, "bad_request"),
        ("Content-Length: 3", 400, "bad_request"),
        ("Transfer-Encoding: chunked", 400, "bad_request"),
        ("Host", 400, "bad_request"),
        ("Host: localhost\r\nHost: localhost", 400, "bad_request"),
        ("Bad Header: x", 400, "bad_request"),
    ] {
        refused(&request("/mqtt", change), rules(&[]), status, name);
    }
    let told = show(&read(request("/mqtt", "Sec-WebSocket-Version: 8").as_bytes(), rules(&[])));
    assert!(told.contains("\r\nsec-websocket-version: 13\r\n"), "{told}");
    assert!(told.contains("\r\nupgrade: websocket\r\n"), "{told}");
    let old = request("/mqtt", "").replace("HTTP/1.1", "HTTP/1.0");
    refused(&old, rules(&[]), 426, "upgrade_required");
}

#[test]
fn a_head_has_a_largest_size() {
    let long = request("/mqtt", &format!("X: {}", "x".repeat(8200)));
    refused(&long, rules(&[]), 431, "head_too_large");
    refused(&long[..8192], rules(&[]), 431, "head_too_large");
    let many: String = (0..70).map(|n| format!("X{n}: y\r\n")).collect();
    refused(&format!("GET /mqtt HTTP/1.1\r\n{many}\r\n"), rules(&[]), 431, "head_too_large");
}

#[test]
fn an_open_listener_takes_only_pages_of_this_machine_or_listed_ones() {
    let listed = ["https://app.example".to_owned(), "null".to_owned()];
    for origin in [
        "http://localhost:3000",
        "https://127.0.0.1",
        "http://[::1]:80",
        "https://app.example",
        "HTTPS://app.example",
        "null",
        // Of this server itself.
        "http://192.168.0.7:8080",
    ] {
        let text = request("/mqtt", &format!("Host: 192.168.0.7:8080\r\nOrigin: {origin}"));
        taken(&text, rules(&listed));
    }
    for origin in [
        "https://evil.example",
        "https://app.example:8443",
        "http://localhost.evil.example",
        "http://10.1.2.3",
        "http://192.168.0.7",
        "http://192.168.0.7:8081",
        "192.168.0.7:8080",
        "",
    ] {
        let text = request("/mqtt", &format!("Host: 192.168.0.7:8080\r\nOrigin: {origin}"));
        refused(&text, rules(&listed), 403, "origin_forbidden");
        // A certificate is shown by the browser, whatever page asks.
        let shown = Rules { auth_required: true, ..rules(&listed) };
        refused(&text, shown, 403, "origin_forbidden");
        taken(&text, Rules { any_origin: true, ..shown });
    }
    taken(&request("/mqtt", "Origin: https://evil.example"), rules(&["*".to_owned()]));
    refused(&request("/mqtt", "Origin: null"), rules(&[]), 403, "origin_forbidden");
    let named = request("/mqtt", "Host: clarion.example:8080");
    refused(&named, rules(&listed), 403, "host_forbidden");
    taken(&named, Rules { auth_required: true, ..rules(&[]) });
}
