//! `clarion bench mqtt`: every workload runs, small, and what it counts is right.

use clarion_tests::{Command, Server};
use serde_json::Value;
use std::path::Path;

/// Runs a workload with `arguments`; what it printed.
fn run(arguments: &str) -> Vec<Value> {
    let output =
        Command::clarion(["bench", "mqtt", "--json"].into_iter().chain(arguments.split(' ')));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(report: &Value, arguments: &str) {
    for fault in ["lost", "repeated", "reordered"] {
        assert_eq!(report[fault], 0, "{arguments}: {report}");
    }
    assert!(report["server"]["rss_mib"].as_f64().unwrap() > 1.0, "{report}");
}

/// The one measurement of a workload against the server.
fn measure(server: &Server, arguments: &str) -> Value {
    let at = server.listener("mqtt");
    let place = format!("--host {} --port {}", at.ip(), at.port());
    let mut reports = run(&format!("{arguments} {place}"));
    assert_eq!(reports.len(), 1, "{arguments}: {reports:?}");
    let report = reports.remove(0);
    check(&report, arguments);
    report
}

#[test]
fn every_subscriber_gets_everything_at_every_quality() {
    let server = Server::start();
    for version in ["3.1", "3.1.1", "5"] {
        for qos in [0, 1, 2] {
            let load = "fanout --subscribers 20 --messages 30 --in-flight 4 --payload 300";
            let report = measure(&server, &format!("{load} --version {version} --qos {qos}"));
            assert_eq!(report["workload"], "mqtt-fanout");
            assert_eq!((&report["messages"], &report["qos"]), (&600.into(), &qos.into()));
        }
    }
}

#[test]
fn a_rate_is_kept() {
    let server = Server::start();
    let report = measure(&server, "fanout --subscribers 5 --messages 20 --rate 100");
    assert_eq!(report["messages"], 100);
    // Each message has its turn, the last one, too.
    assert!(report["seconds"].as_f64().unwrap() >= 0.2, "{report}");
}

#[test]
fn pairs_do_not_hear_each_other() {
    let server = Server::start();
    for more in ["", " --qos 1 --in-flight 8", " --qos 2 --subscribe-qos 1 --websocket"] {
        let report = measure(&server, &format!("pairs --pairs 10 --messages 40{more}"));
        assert_eq!(report["messages"], 400, "{more}");
    }
}

#[test]
fn clients_that_stay_or_only_come_are_counted() {
    let server = Server::start();
    let report = measure(&server, "idle --connections 100 --hold 0 --rest 1");
    assert_eq!(report["messages"], 100);
    assert!(report["server"]["kib_per_connection"].is_number(), "{report}");
    assert!(report["server"]["cpu_percent_at_rest"].as_f64().unwrap() < 100.0, "{report}");
    let report = measure(&server, "connect --connections 200");
    assert_eq!(report["messages"], 200);
    assert!(report["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn two_brokers_are_compared_in_turns() {
    let paths = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let installed = paths.iter().any(|path| Path::new(path).exists());
    assert!(installed, "mosquitto is not installed; test.sh installs it");
    for dress in ["", " --websocket", " --tls", " --tls --websocket --version 5"] {
        let load = "pairs --pairs 5 --messages 20 --compare mosquitto --rounds 2 --qos 1";
        let reports = run(&format!("{load}{dress}"));
        let brokers: Vec<&Value> = reports.iter().map(|report| &report["broker"]).collect();
        let turns = ["clarion", "mosquitto", "mosquitto", "clarion"];
        assert_eq!(brokers[..4], turns, "{reports:?}");
        for report in &reports[..4] {
            check(report, dress);
            assert_eq!(report["messages"], 100, "{report}");
        }
        let share = reports.last().unwrap();
        assert_eq!(share["measure"], "cpu_s_per_million");
        assert_eq!(share["ratios"].as_array().unwrap().len(), 2, "{share}");
        // So little work may be too little to be measured: then there is no number.
        assert!(share.get("ratio").is_some(), "{share}");
    }
}

#[test]
fn no_broker_is_told_so() {
    let output = Command::clarion(["bench", "mqtt", "fanout", "--port", "1"]);
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("127.0.0.1:1 is not reachable"), "{errors}");
}
