//! Clients that stop speaking, or that vanish.

use crate::{api::Api, bad_input::assert_healthy, mqtt::versions};
use clarion_tests::{
    DEADLINE, Server,
    mqtt::{Client, Filter, Message, Options, Packet, Version, connect, id, subscribe, text},
    proxy::Proxy,
    wait_for,
};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

versions! {
    a_vanished_client_is_noticed: v31 v311 v5;
    those_who_come_and_go_leave_nothing: v31 v311 v5;
}

/// Waits for the end of a connection, whatever comes before it (an HTTP refusal may).
fn ends(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("not the end: {error}"),
    }
    began.elapsed()
}

#[test]
fn connect_has_a_deadline() {
    let server = Server::builder().set("mqtt.connect_timeout", "500ms").start();
    for at in [server.listener("mqtt"), server.addr()] {
        let connect = connect(&Options::new(Version::V311, "late"));
        let silent = TcpStream::connect(at).expect("accepted");
        let mut half = TcpStream::connect(at).expect("accepted");
        half.write_all(&connect[..9]).expect("sent");
        let mut upgrade = TcpStream::connect(at).expect("accepted");
        upgrade.write_all(b"GET /mqtt HTTP/1.1\r\nhost: x\r\n").expect("sent");
        let mut in_time = Client::open(at, Version::V311);
        in_time.handshake(&Options::new(Version::V311, "in time"));
        // The HTTP listener's own deadline is another one; what has begun as MQTT has this one everywhere.
        let mut waiting = vec![half];
        if at == server.listener("mqtt") {
            waiting.extend([silent, upgrade]);
        }
        for stream in waiting {
            let after = ends(stream);
            assert!(after < DEADLINE / 3, "{after:?}");
        }
        in_time.quiet();
    }
    assert_healthy(&server);
}

/// One byte now and then does not stretch it.
#[test]
fn a_trickle_does_not_stretch_the_deadline() {
    let server = Server::builder().set("mqtt.connect_timeout", "500ms").start();
    let connect = connect(&Options::new(Version::V5, &"x".repeat(200)));
    let mut stream = TcpStream::connect(server.listener("mqtt")).expect("accepted");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let began = Instant::now();
    for byte in connect.chunks(1) {
        let _ = stream.write_all(byte);
        match stream.read(&mut [0; 16]) {
            Ok(0) => break,
            Ok(_) => panic!("it was answered"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(_) => {}
        }
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// A network that forgets the connection: nobody is told.
fn a_vanished_client_is_noticed(version: Version) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let server = Server::start();
    let at = server.listener("mqtt");
    let mut watcher = Client::connect(at, version, "watcher");
    watcher.subscribe(&[("will", 1)]);
    let proxy = runtime.block_on(Proxy::start(at));
    let will = Message::new("will", "vanished").qos(1);
    let mut vanishes =
        Options::new(version, "vanishes").keep_alive(1).will(will, &[]).connect(proxy.addr());
    vanishes.subscribe(&[("flood", 1)]);
    proxy.swallow();
    let began = Instant::now();
    watcher.publish("flood", "into the void", 1);
    assert_eq!(watcher.message().text(), "vanished");
    assert!(began.elapsed() < DEADLINE / 3, "{:?}", began.elapsed());
    drop(vanishes);
    drop(runtime);
}

fn those_who_come_and_go_leave_nothing(version: Version) {
    let server = Server::start();
    let at = server.listener("mqtt");
    for n in 0..300 {
        let mut client = Client::open(at, version);
        let options = Options::new(version, &format!("goes {}", n % 7));
        match n % 5 {
            // Before CONNECT, after half of it, without reading CONNACK, in the middle of a packet, subscribed.
            0 => {}
            1 => client.send(&connect(&options)[..5]),
            2 => client.send(&connect(&options)),
            3 => {
                client.handshake(&options);
                client.try_send(&[0x30, 0x7F, 0, 1]);
            }
            _ => {
                client.handshake(&options);
                // Another of this id may come at once.
                client.try_send(&subscribe(version, 1, &[Filter::new("a/#", 1)], &[]));
            }
        }
        if n % 2 == 0 { client.reset() } else { client.vanish() }
    }
    let mut api = Api::of(&server);
    wait_for("the end of all sessions", || {
        let listed = api.ok("GET", "/api/v1/sessions", None);
        listed["sessions"].as_array().is_some_and(Vec::is_empty)
    });
    assert_healthy(&server);
}

/// A DISCONNECT arrives although the client is still sending: the server shuts its side and reads on for a while.
#[test]
fn a_reason_arrives_though_more_is_being_sent() {
    let server = Server::start();
    for _ in 0..20 {
        let mut client = Client::connect(server.listener("mqtt"), Version::V5, "client");
        client.send(&[0x30, 0x03, 0, 0, 0]);
        for _ in 0..50 {
            client.try_send(&[0xC0, 0].repeat(10_000));
        }
        let packets = client.rest();
        assert!(matches!(packets[..], [Packet::Disconnect { reason: 0x82, .. }]), "{packets:?}");
    }
}

/// And not for ever.
#[test]
fn who_never_closes_is_closed() {
    let server = Server::start();
    let mut client = Client::connect(server.listener("mqtt"), Version::V5, "client");
    client.send(&[0x30, 0x03, 0, 0, 0]);
    assert_eq!(client.ended(), Some(0x82));
    let began = Instant::now();
    wait_for("the end of draining", || {
        let mut stream = client.stream();
        stream.write_all(&[0; 100]).is_err()
    });
    let after = began.elapsed();
    println!("drained for {after:?}");
    assert!(after < Duration::from_secs(10), "{after:?}");
}

/// A clean stop tells those who can be told, and publishes no will that it would not publish at a DISCONNECT.
#[test]
fn a_stop_is_told() {
    let mut server = Server::start();
    let at = server.listener("mqtt");
    let mut clients: Vec<(Version, Client)> = Vec::new();
    for version in Version::ALL {
        clients.push((version, Client::connect(at, version, &format!("{version:?}"))));
    }
    assert_eq!(server.terminate().code(), Some(0));
    for (version, client) in &mut clients {
        assert_eq!(client.ended(), (*version == Version::V5).then_some(0x8B), "{version:?}");
    }
}

/// On a stop, clients of 5 are told where to go.
#[test]
fn a_stop_tells_where_to_go() {
    let mut server = Server::builder().set("mqtt.server_reference", "other.example:1883").start();
    let mut client = Client::connect(server.listener("mqtt"), Version::V5, "client");
    assert_eq!(server.terminate().code(), Some(0));
    match client.packet() {
        Packet::Disconnect { reason: 0x9C | 0x9D, properties } => {
            let reference = text(&properties, id::SERVER_REFERENCE);
            assert_eq!(reference, Some("other.example:1883"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.maybe_packet(), None);
}
