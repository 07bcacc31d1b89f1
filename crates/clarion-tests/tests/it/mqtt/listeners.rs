//! How connections come in: first bytes, WebSocket, deadlines, limits. `tls`: the same within TLS, and certificates.

mod tls;

use clarion_tests::{
    DEADLINE, Server,
    mqtt::{
        self, Client, Filter, Options, Packet, Version, connect, id, parse, prop, publish,
        subscribe,
    },
    raw::{self, Answer, Connection},
    wait_for,
};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};
use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

const PORTS: [&str; 2] = ["mqtt", "http"];

/// A WebSocket request; lines are added, or replace those of the same name.
fn upgrade(at: SocketAddr, target: &str, lines: &[&str]) -> Vec<u8> {
    let host = format!("Host: {at}");
    let mut all = vec![
        host.as_str(),
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ];
    for line in lines {
        let name = line.split(':').next().unwrap_or_default();
        all.retain(|other| !other.starts_with(&format!("{name}:")));
        if line.contains(": ") {
            all.push(line);
        }
    }
    format!("GET {target} HTTP/1.1\r\n{}\r\n\r\n", all.join("\r\n")).into_bytes()
}

fn ask(at: SocketAddr, target: &str, lines: &[&str]) -> Answer {
    let mut connection = Connection::open(at).expect("a connection");
    connection.send(&upgrade(at, target, lines)).expect("the server reads");
    let answer = connection.head().expect("an answer");
    if answer.status == 101 {
        return answer;
    }
    let length = answer.header("content-length").and_then(|v| v.parse().ok()).expect("a body");
    let body = connection.take(length).expect("a body");
    assert_eq!(connection.rest().expect("an end"), b"", "nothing more comes");
    Answer { body, ..answer }
}

fn hello(version: Version, id: &str) -> Vec<u8> {
    connect(&Options::new(version, id))
}

/// A connection that speaks WebSocket frames.
fn framed<S: Read + Write>(stream: S, url: &str) -> WebSocket<S> {
    let mut request = url.into_client_request().expect("a URL");
    let protocol = "mqtt".parse().expect("a header");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let (socket, answer) = match tungstenite::client(request, stream) {
        Ok(done) => done,
        Err(error) => panic!("no WebSocket: {error}"),
    };
    assert_eq!(answer.headers()["sec-websocket-protocol"], "mqtt");
    socket
}

fn plain(at: SocketAddr) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(at).expect("the server accepts");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    framed(stream, &format!("ws://{at}/mqtt"))
}

/// The next packet, which is a frame of its own here.
fn packet<S: Read + Write>(socket: &mut WebSocket<S>, version: Version) -> Packet {
    match socket.read().expect("a frame") {
        Message::Binary(bytes) => parse(version, bytes[0], &bytes[2..]),
        other => panic!("no packet but {other:?}"),
    }
}

fn say<S: Read + Write>(socket: &mut WebSocket<S>, bytes: Vec<u8>) {
    socket.send(Message::Binary(bytes.into())).expect("the server reads");
}

fn code(packet: &Packet) -> u8 {
    match packet {
        Packet::Connack { code, .. } => *code,
        other => panic!("no CONNACK but {other:?}"),
    }
}

/// The connection is closed, and nothing is said.
fn silent_end(mut connection: Connection) {
    assert_eq!(connection.rest().expect("an end in time"), b"");
}

fn listener(server: &Server, names: [&'static str; 2]) -> [(&'static str, SocketAddr); 2] {
    names.map(|name| (name, server.listener(name)))
}

#[test]
fn either_port_speaks_both() {
    let server = Server::start();
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut reader = Client::connect(server.listener("mqtt"), version, "reader");
        reader.subscribe(&[("a/b", 1)]);
        for (name, at) in listener(&server, PORTS) {
            Client::connect(at, version, "writer").publish("a/b", name, 1);
            assert_eq!(reader.message().text(), name);
            let mut socket = plain(at);
            say(&mut socket, hello(version, "writer"));
            assert_eq!(code(&packet(&mut socket, version)), 0);
            let message = mqtt::Message::new("a/b", "framed");
            say(&mut socket, publish(version, &message));
            assert_eq!(reader.message().text(), "framed");
        }
    }
    // The HTTP API is where it was.
    let request = raw::request("GET", "/healthz", server.addr(), "", b"");
    assert_eq!(raw::exchange(server.addr(), &request).expect("an answer").status, 200);
}

#[test]
fn what_is_switched_off_is_not_spoken() {
    let server = Server::builder()
        .set("listeners.mqtt.mqtt_over", "[tcp]")
        .set("listeners.http.mqtt_over", "[websocket]")
        .start();
    let (mqtt, http) = (server.listener("mqtt"), server.addr());
    Client::connect(mqtt, Version::V311, "a");
    let mut connection = Connection::open(mqtt).expect("a connection");
    connection.send(&upgrade(mqtt, "/mqtt", &[])).expect("the server reads");
    silent_end(connection);
    assert_eq!(ask(http, "/mqtt", &[]).status, 101);
    let mut connection = Connection::open(http).expect("a connection");
    connection.send(&hello(Version::V311, "a")).expect("the server reads");
    assert_eq!(connection.answer().expect("an answer in HTTP").status, 400);

    let server = Server::builder().set("listeners.http.speaks", "[http]").start();
    let answer = raw::exchange(server.addr(), &upgrade(server.addr(), "/mqtt", &[]));
    assert_eq!(answer.expect("an answer in HTTP").status, 404);
}

#[test]
fn requests_that_are_no_upgrades_are_told_why() {
    let server = Server::builder().set("mqtt.allow_origins", "[https://app.example]").start();
    for (name, at) in listener(&server, PORTS) {
        for (lines, status, problem) in [
            (&["Upgrade"][..], 426, "upgrade_required"),
            (&["Connection: close"], 426, "upgrade_required"),
            (&["Sec-WebSocket-Version: 12"], 426, "upgrade_required"),
            (&["Sec-WebSocket-Key"], 400, "bad_request"),
            (&["Sec-WebSocket-Key: x"], 400, "bad_request"),
            (&["Sec-WebSocket-Protocol: chat"], 400, "bad_request"),
            (&["Host: clarion.example"], 403, "host_forbidden"),
            (&["Origin: https://evil.example"], 403, "origin_forbidden"),
            (&["Origin: null"], 403, "origin_forbidden"),
            (&["Origin: http://10.1.2.3"], 403, "origin_forbidden"),
            (&["Origin: http://192.168.0.7:8080"], 403, "origin_forbidden"),
        ] {
            let answer = ask(at, "/mqtt", lines);
            assert_eq!(answer.status, status, "{name} {lines:?}");
            assert_eq!(answer.json()["name"], problem, "{name} {lines:?}");
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        }
        let long = format!("X: {}", "x".repeat(20_000));
        assert_eq!(ask(at, "/mqtt", &[&long]).status, 431, "{name}");
        for lines in [
            &["Origin: https://app.example"][..],
            &["Origin: http://localhost:1234"],
            &["Origin: http://127.0.0.1:1"],
            &["Host: 10.1.2.3:80", "Origin: http://10.1.2.3:80"],
            &["Sec-WebSocket-Protocol: mqttv3.1"],
        ] {
            assert_eq!(ask(at, "/mqtt?x=1", lines).status, 101, "{name} {lines:?}");
        }
    }
    assert_eq!(ask(server.listener("mqtt"), "/api/v1/stream", &[]).status, 404);
}

/// Browsers' mqtt.js makes `ws://host:port/` of `mqtt://host:port/mqtt`.
#[test]
fn the_path_may_be_dropped_by_who_names_mqtt() {
    let server = Server::start();
    for (name, at) in listener(&server, PORTS) {
        for protocol in ["mqtt", "mqttv3.1"] {
            let mut connection = Connection::open(at).expect("a connection");
            let request = upgrade(at, "/", &[&format!("Sec-WebSocket-Protocol: {protocol}")]);
            for byte in &request {
                connection.send(&[*byte]).expect("the server reads");
            }
            let answer = connection.head().expect("an answer");
            assert_eq!(answer.status, 101, "{name}");
            assert_eq!(answer.header("sec-websocket-protocol"), Some(protocol), "{name}");
        }
        let stream = TcpStream::connect(at).expect("the server accepts");
        let mut socket = framed(stream, &format!("ws://{at}/"));
        say(&mut socket, hello(Version::V5, "root"));
        assert_eq!(code(&packet(&mut socket, Version::V5)), 0);
        assert_eq!(ask(at, "/", &["Origin: https://evil.example"]).status, 403, "{name}");
    }
    let at = server.listener("mqtt");
    for lines in [&["Sec-WebSocket-Protocol"][..], &["Sec-WebSocket-Protocol: chat"], &["Upgrade"]]
    {
        assert_eq!(ask(at, "/", lines).status, 404, "{lines:?}");
    }
    // What else is asked for there is HTTP's as before.
    let at = server.addr();
    let chat = upgrade(at, "/", &["Sec-WebSocket-Protocol: chat"]);
    let api = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: {at}\r\n\r\n").into_bytes();
    for first in [api("/"), chat] {
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(&first[..20]).expect("the server reads");
        connection.send(&[&first[20..], &api("/healthz")].concat()).expect("the server reads");
        assert_eq!(connection.answer().expect("an answer").status, 404);
        assert_eq!(connection.answer().expect("an answer").status, 200);
        connection.send(&api("/")).expect("the server reads");
        assert_eq!(connection.answer().expect("an answer").status, 404);
    }
    let long = format!("X: {}", "x".repeat(20_000));
    let answer = raw::exchange(at, &upgrade(at, "/", &[&long]));
    assert_eq!(answer.expect("an answer").status, 431);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let server = Server::start();
    for (name, at) in listener(&server, PORTS) {
        let mut connection = Connection::open(at).expect("a connection");
        for byte in upgrade(at, "/mqtt", &[]) {
            connection.send(&[byte]).expect("the server reads");
        }
        assert_eq!(connection.head().expect("an answer").status, 101, "{name}");
        let mut client = Client::open(at, Version::V5);
        for byte in hello(Version::V5, "slow") {
            client.send(&[byte]);
        }
        assert_eq!(code(&client.packet()), 0, "{name}");
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {at}\r\n\r\n");
        if name == "http" {
            let mut connection = Connection::open(at).expect("a connection");
            for byte in request.bytes() {
                connection.send(&[byte]).expect("the server reads");
            }
            assert_eq!(connection.answer().expect("an answer").status, 200);
        }
    }
}

#[test]
fn a_connect_has_a_deadline() {
    let server = Server::builder()
        .set("mqtt.connect_timeout", "300ms")
        .set("limits.head_timeout", "300ms")
        .start();
    for (name, at) in listener(&server, PORTS) {
        silent_end(Connection::open(at).expect("a connection"));
        for sent in [&hello(Version::V5, "half")[..5], &[0x10], &hello(Version::V311, "half")[..9]]
        {
            let mut connection = Connection::open(at).expect("a connection");
            connection.send(sent).expect("the server reads");
            silent_end(connection);
        }
        let request = upgrade(at, "/mqtt", &[]);
        for length in [3, 9, 30] {
            let mut connection = Connection::open(at).expect("a connection");
            connection.send(&request[..length]).expect("the server reads");
            let rest = connection.rest().expect("an end in time");
            let told = rest.starts_with(b"HTTP/1.1 408 ");
            // What is no request yet on the MQTT port is nothing that deserves an answer.
            assert!(told || (name == "mqtt" && length == 3 && rest.is_empty()), "{name} {length}");
        }
        let mut connection = Connection::open(at).expect("a connection");
        connection.send(&request).expect("the server reads");
        assert_eq!(connection.head().expect("an answer").status, 101);
        // A close frame with 1000, and the end.
        assert_eq!(connection.rest().expect("an end in time"), [0x88, 2, 3, 232], "{name}");
        Client::connect(at, Version::V5, "in time").quiet();
    }
}

#[test]
fn what_is_nothing_is_closed() {
    let server = Server::start();
    for bytes in [&b"POST /mqtt HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00", b"\0", b"\x20\x02\0\0"]
    {
        let mut connection = Connection::open(server.listener("mqtt")).expect("a connection");
        connection.send(bytes).expect("the server reads");
        silent_end(connection);
    }
}

#[test]
fn a_connect_has_a_largest_size() {
    let server = Server::builder().set("mqtt.connect_bytes", "1KiB").start();
    let at = server.listener("mqtt");
    for (version, answer) in [(Version::V5, Some(0x95)), (Version::V311, None)] {
        let mut client = Client::open(at, version);
        client.send(&connect(&Options::new(version, "long").user(&"u".repeat(2000))));
        assert_eq!(client.maybe_packet().as_ref().map(code), answer);
        assert_eq!(client.maybe_packet(), None);
        // All that it may be is not waited for.
        let mut client = Client::open(at, version);
        client.send(&[0x10, 0xff, 0xff, 0xff, 0x7f]);
        assert_eq!(client.maybe_packet(), None);
    }
}

#[test]
fn client_ids() {
    let server = Server::builder().set("mqtt.client_id_bytes", "30").start();
    let at = server.listener("mqtt");
    let attempt = |version, id: &str, clean| Options::new(version, id).clean(clean).attempt(at).1;
    let long = "x".repeat(31);
    for (version, refused) in [(Version::V31, 2), (Version::V311, 2), (Version::V5, 0x85)] {
        assert_eq!(attempt(version, &long, true).code, refused);
        assert_eq!(attempt(version, &long[..30], true).code, 0);
    }
    assert_eq!(attempt(Version::V31, "", true).code, 2);
    assert_eq!(attempt(Version::V311, "", false).code, 2);
    assert_eq!(attempt(Version::V311, "", true).code, 0);
    let assigned = |clean| {
        attempt(Version::V5, "", clean).text(id::ASSIGNED_CLIENT_ID).expect("an id").to_owned()
    };
    let (one, other) = (assigned(true), assigned(false));
    assert!(one != other && one.len() == 22, "{one} {other}");
    assert_eq!(attempt(Version::V5, "given", true).text(id::ASSIGNED_CLIENT_ID), None);
}

#[test]
fn a_keep_alive_may_have_a_longest() {
    let server = Server::builder().set("mqtt.max_keep_alive", "20s").start();
    let at = server.listener("mqtt");
    let told = |asked| {
        let (_, connack) = Options::new(Version::V5, "a").keep_alive(asked).attempt(at);
        connack.number(id::SERVER_KEEP_ALIVE)
    };
    assert_eq!([told(0), told(60), told(20), told(5)], [Some(20), Some(20), None, None]);
}

#[test]
fn above_the_limit_and_from_elsewhere_nothing_is_said() {
    let server = Server::builder().set("limits.connections", "1").start();
    let at = server.listener("mqtt");
    let mut first = Client::connect(at, Version::V5, "first");
    silent_end(Connection::open(at).expect("a connection"));
    first.quiet();
    first.disconnect();
    wait_for("its place", || {
        let mut client = Client::open(at, Version::V5);
        client.try_send(&hello(Version::V5, "second"));
        client.maybe_packet().is_some()
    });
    let server = Server::builder().set("listeners.mqtt.allow_from", "10.0.0.0/8").start();
    silent_end(Connection::open(server.listener("mqtt")).expect("a connection"));
}

#[test]
fn a_stop_does_not_wait_for_those_who_are_not_in() {
    let mut server = Server::start();
    let begun: Vec<Connection> = listener(&server, PORTS)
        .into_iter()
        .flat_map(|(_, at)| {
            [&hello(Version::V5, "half")[..5], &upgrade(at, "/mqtt", &[])[..30]].map(|bytes| {
                let mut connection = Connection::open(at).expect("a connection");
                connection.send(bytes).expect("the server reads");
                connection
            })
        })
        .collect();
    assert!(server.terminate().success());
    drop(begun);
}

#[test]
fn websocket_rules() {
    let server = Server::start();
    let at = server.listener("mqtt");
    let begun = || {
        let mut socket = plain(at);
        say(&mut socket, hello(Version::V5, "frames"));
        assert_eq!(code(&packet(&mut socket, Version::V5)), 0);
        socket
    };
    let closed = |mut socket: WebSocket<TcpStream>| loop {
        match socket.read().expect("a close frame") {
            Message::Close(frame) => break frame.map(|frame| frame.code),
            _ => continue,
        }
    };
    // Packets need no frames of their own.
    let mut socket = begun();
    let filters = [Filter::new("x", 0)];
    let both = [subscribe(Version::V5, 1, &filters, &[]), vec![0xc0, 0]].concat();
    let (one, other) = both.split_at(5);
    say(&mut socket, one.to_vec());
    say(&mut socket, Vec::new());
    say(&mut socket, other.to_vec());
    let mut came = Vec::new();
    while came.len() < 6 + 2 {
        came.extend_from_slice(&socket.read().expect("a frame").into_data());
    }
    assert_eq!(came, [0x90, 4, 0, 1, 0, 0, 0xd0, 0]);
    socket.send(Message::Ping(b"x".to_vec().into())).expect("the server reads");
    assert_eq!(socket.read().expect("a frame"), Message::Pong(b"x".to_vec().into()));
    // The client closes.
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    socket.close(Some(frame)).expect("the server reads");
    assert_eq!(closed(socket), Some(CloseCode::Normal));
    // The server closes, with its protocol's word first.
    let mut socket = begun();
    say(&mut socket, hello(Version::V5, "again"));
    assert!(matches!(packet(&mut socket, Version::V5), Packet::Disconnect { reason: 0x82, .. }));
    assert_eq!(closed(socket), Some(CloseCode::Normal));
    let mut socket = begun();
    socket.send(Message::text("no")).expect("the server reads");
    assert_eq!(closed(socket), Some(CloseCode::Unsupported));
    // Before CONNECT the rules are the same.
    let mut socket = plain(at);
    socket.send(Message::text("no")).expect("the server reads");
    assert_eq!(closed(socket), Some(CloseCode::Unsupported));
    let mut socket = plain(at);
    say(&mut socket, connect(&Options::new(Version::V31, "")));
    assert_eq!(code(&packet(&mut socket, Version::V31)), 2);
    assert_eq!(closed(socket), Some(CloseCode::Normal));
}

#[test]
fn a_session_may_get_its_feed_unasked() {
    let server = Server::builder().set("listeners.mqtt.auto_subscribe", "true").start();
    let at = server.listener("mqtt");
    let (mut alice, _) = Options::new(Version::V5, "a").user("alice").attempt(at);
    let (mut nobody, _) = Options::new(Version::V5, "n").attempt(at);
    let mut writer = Options::new(Version::V5, "w").user("alice").connect(at);
    writer.publish("user/alice", "hello", 1);
    let message = alice.message();
    assert_eq!(
        (message.topic.as_str(), message.text().as_str(), message.qos),
        ("user/alice", "hello", 1)
    );
    nobody.quiet();
}

#[test]
fn what_the_server_tells_of_itself() {
    let server = Server::builder()
        .set("mqtt.receive_maximum", "7")
        .set("mqtt.max_packet_bytes", "100KiB")
        .set("mqtt.topic_aliases", "3")
        .set("mqtt.max_session_expiry", "1h")
        .set("mqtt.response_information", "replies/")
        .start();
    let (_, connack) = Options::new(Version::V5, "a")
        .with(prop::session_expiry(7200u32))
        .with(prop::request_response_info(1))
        .attempt(server.listener("mqtt"));
    let numbers =
        [id::RECEIVE_MAXIMUM, id::MAXIMUM_PACKET_SIZE, id::TOPIC_ALIAS_MAXIMUM, id::SESSION_EXPIRY]
            .map(|id| connack.number(id));
    assert_eq!(numbers, [Some(7), Some(100 << 10), Some(3), Some(3600)]);
    assert_eq!(connack.text(id::RESPONSE_INFO), Some("replies/"));
}
