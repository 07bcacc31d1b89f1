//! Ten thousand connections at once, held by a process of their own.

use crate::{
    bad_input::{assert_healthy, burst},
    clients::crate_dir,
};
use clarion_tests::{
    Command, Server,
    mqtt::{Client, Version},
    wait_for,
};

const CONNECTIONS: usize = 10_000;
/// With the server's own 30 MiB.
const PEAK_KIB_MAX: u64 = 150 << 10;

#[test]
fn ten_thousand_connections_cost_little_and_end_at_once() {
    let _alone = burst::alone();
    burst::raise_descriptors();
    let server = Server::start();
    let at = server.listener("mqtt");
    let before = server.peak_rss_kib();
    let script = crate_dir().join("tests/it/mqtt/faults/burst.py");
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let args =
        [script.to_str().expect("a path"), &host, &port, &CONNECTIONS.to_string(), "127.0.98"];
    let mut crowd = Command::start_listening("python3", args);
    assert_eq!(crowd.line(), "open");
    let open = server.rss_kib();
    assert_eq!(crowd.line(), "delivered");
    let peak = server.peak_rss_kib();
    println!(
        "{CONNECTIONS} connections: {} KiB more, peak {peak} KiB, {before} KiB before",
        open - before.min(open)
    );
    assert!(peak < PEAK_KIB_MAX, "{peak} KiB");
    // Among them one more is served as ever.
    let mut other = Client::connect(at, Version::V5, "other");
    other.quiet();
    crowd.say("close");
    assert_eq!(crowd.line(), "closed");
    let mut api = crate::api::Api::of(&server);
    wait_for("the end of all others", || {
        api.ok("GET", "/api/v1/sessions?limit=10", None)["sessions"]
            .as_array()
            .is_some_and(|sessions| sessions.len() == 1)
    });
    other.quiet();
    assert_healthy(&server);
}
