//! mqtt.js in Node: TCP, TLS and WebSocket, on the port of each kind and on the other one.

use crate::{
    clients::{crate_dir, run},
    mqtt::broker::Broker,
};
use clarion_tests::mqtt::Version;
use std::path::Path;

fn node(broker: &Broker, urls: &[String], trusted: &str) {
    let script = crate_dir().join("tests/it/mqtt/clients/mqttjs.mjs");
    let modules = crate_dir().join("js/node_modules");
    assert!(
        modules.join("mqtt").exists(),
        "the package mqtt is absent: run ./test.sh, or npm --prefix crates/clarion-tests/js ci"
    );
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    for url in urls {
        for version in Version::ALL {
            let level = version.level().to_string();
            let args = [path(&script), url.clone(), level, trusted.to_owned(), path(&modules)];
            let out = run(Path::new("node"), &args.each_ref().map(String::as_str));
            assert!(out.starts_with("mqtt.js "), "{url}: {out}");
            print!("{out}");
        }
    }
    broker.client(Version::V5, "after").quiet();
}

#[test]
fn node_over_tcp() {
    let broker = Broker::start();
    let urls = [broker.at(), broker.http()].map(|at| format!("mqtt://{at}/mqtt"));
    node(&broker, &urls, "-");
}

#[test]
fn node_over_websocket() {
    let broker = Broker::start();
    let urls = [broker.at(), broker.http()].map(|at| format!("ws://{at}/mqtt"));
    node(&broker, &urls, "-");
}

#[test]
fn node_over_tls() {
    let broker = Broker::with_tls();
    let at = broker.tls();
    let urls = ["mqtts", "wss"].map(|scheme| format!("{scheme}://{at}/mqtt"));
    node(&broker, &urls, &broker.certificate());
}
