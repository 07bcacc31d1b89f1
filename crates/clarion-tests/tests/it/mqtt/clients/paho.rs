//! paho-mqtt, Python.

use crate::{
    clients::{crate_dir, python, run},
    mqtt::{broker::Broker, versions},
};
use clarion_tests::mqtt::Version;

versions! {
    paho: v31 v311 v5;
}

fn paho(version: Version) {
    let broker = Broker::start();
    let script = crate_dir().join("tests/it/mqtt/clients/paho_client.py");
    let (host, port) = (broker.at().ip().to_string(), broker.at().port().to_string());
    let level = version.level().to_string();
    let args = [script.to_str().expect("a path"), &host, &port, &level];
    let out = run(&python("python"), &args);
    assert!(out.starts_with("paho-mqtt "), "{out}");
    print!("{out}");
}
