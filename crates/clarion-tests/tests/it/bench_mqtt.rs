//! `clarion bench mqtt`: every workload runs, small, and what it counts is right.

use clarion_tests::{Command, Server, wait_for};
use serde_json::Value;
use std::{
    net::{TcpListener, TcpStream},
    path::Path,
};

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

/// Where Mosquitto is.
fn mosquitto() -> &'static str {
    let paths = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let installed = paths.into_iter().find(|path| Path::new(path).exists());
    installed.expect("mosquitto is not installed; test.sh installs it")
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
    mosquitto();
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

/// What `--compare` measured of Mosquitto.
fn of_mosquitto(arguments: &str) -> Vec<Value> {
    mosquitto();
    let mut reports = run(&format!("{arguments} --compare mosquitto"));
    reports.retain(|report| report["broker"] == "mosquitto");
    reports
}

#[test]
fn what_waits_for_durable_sessions_is_drained() {
    for (load, published) in [
        ("", 120),
        (" --qos 2 --in-flight 1", 120),
        (" --filters own-wildcard --topics 5 --version 3.1.1", 120),
        (" --filters one --version 3.1 --publishers 1", 12),
        (" --filters one-wildcard --topics 2 --publishers 20 --websocket", 12),
        (" --beside 1200 --opening 3", 120),
    ] {
        let reports = of_mosquitto(&format!("offline --sessions 10 --messages 12{load}"));
        let workloads: Vec<&Value> = reports.iter().map(|report| &report["workload"]).collect();
        assert_eq!(workloads, ["mqtt-offline-enqueue", "mqtt-offline-drain"], "{load}");
        for report in &reports {
            check(report, load);
        }
        assert_eq!(reports[0]["messages"], published, "{load}");
        assert_eq!(reports[1]["messages"], 120, "{load}");
        assert_eq!(reports[1]["sessions_present"], 10, "{load}");
        assert!(reports[1]["latency_ms"]["p50"].as_f64().unwrap() > 0.0, "{load}");
    }
    let reports = of_mosquitto("offline --sessions 10 --messages 12 --no-drain");
    assert_eq!(reports.len(), 1);
}

/// Enqueue, two restarts and drain; Mosquitto has saved nothing before it is killed.
fn all_is_lost(reports: &[Value]) {
    let workloads: Vec<&Value> = reports.iter().map(|report| &report["workload"]).collect();
    let restart = "mqtt-offline-restart";
    assert_eq!(workloads, ["mqtt-offline-enqueue", restart, restart, "mqtt-offline-drain"]);
    assert!(reports[1]["seconds"].as_f64().unwrap() > 0.0, "{reports:?}");
    assert!(reports[1]["cpu_s"].is_number(), "{reports:?}");
    let drain = &reports[3];
    assert_eq!((&drain["messages"], &drain["sessions_present"]), (&0.into(), &0.into()));
    assert_eq!((&drain["lost"], &drain["repeated"]), (&120.into(), &0.into()));
    assert_eq!(drain["server"]["cpu_s_per_million"], Value::Null, "{drain}");
}

#[test]
fn what_a_killed_broker_lost_is_counted() {
    all_is_lost(&of_mosquitto("offline --sessions 10 --messages 12 --kill 2"));
}

#[test]
fn a_broker_that_ran_before_is_started_again_as_it_is_told() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (path, number) = (mosquitto(), port.to_string());
    let config = tempfile::NamedTempFile::new().unwrap();
    // Another user's process would no longer end with the one that started it.
    let lines = format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n");
    std::fs::write(&config, lines).unwrap();
    let config = config.path().to_str().unwrap();
    let mut before = Command::start(path, ["-c", config]);
    wait_for("mosquitto accepts", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    // Ends with the bench.
    let again = format!("exec setpriv --pdeathsig KILL {path} -c {config} 2>&1");
    let load = "bench mqtt offline --json --sessions 10 --messages 12 --kill 2";
    let place = ["--port", &number, "--restart-command", &again];
    let output = Command::clarion(load.split(' ').chain(place));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(!before.wait().success());
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    all_is_lost(&reports);
}

#[test]
fn sessions_that_come_and_go_are_watched() {
    let dir = tempfile::tempdir().unwrap();
    let (plot, table) = (dir.path().join("plot.svg"), dir.path().join("table.csv"));
    let size = "churn --sessions 80 --subscriptions 6 --filters 9 --publishes 50";
    let pace = "--seconds 3 --cycle 1 --every 1 --open 60";
    let files = format!("--plot {} --csv {}", plot.display(), table.display());
    let lines = run(&format!("{size} {pace} {files}"));
    let (verdict, rows) = lines.split_last().unwrap();
    assert!(rows.len() >= 3, "{lines:?}");
    for row in &lines {
        assert_eq!(row["errors"], 0, "{verdict}");
        assert!(row["rss_mib"].as_f64().unwrap() > 1.0, "{row}");
        assert!(row["disk_mib"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(verdict["workload"], "mqtt-churn");
    for slope in ["rss_mib_per_minute", "disk_mib_per_minute"] {
        assert!(verdict[slope].is_number(), "{verdict}");
    }
    for kind in ["resume", "take_over", "change", "clean", "short", "cut", "published"] {
        assert!(verdict["operations"][kind].as_u64().unwrap() > 0, "{kind}: {verdict}");
    }
    assert_eq!(std::fs::read_to_string(table).unwrap().lines().count(), rows.len() + 1);
    assert!(std::fs::read_to_string(plot).unwrap().ends_with("</svg>\n"));
}

#[test]
fn a_start_with_many_sessions_is_measured() {
    let lines =
        run("churn --create-only --sessions 50 --subscriptions 7 --filters 5 --messages 300");
    let workloads: Vec<&Value> = lines.iter().map(|line| &line["workload"]).collect();
    let start = "mqtt-churn-start";
    assert_eq!(workloads, ["mqtt-churn-made", start, start], "{lines:?}");
    assert_eq!(lines[0]["operations"]["published"], 300);
    assert_eq!((&lines[1]["end"], &lines[2]["end"]), (&"orderly".into(), &"kill".into()));
    for start in &lines[1..] {
        for figure in ["seconds", "rss_mib", "cpu_s"] {
            assert!(start[figure].is_number(), "{start}");
        }
    }
}

#[test]
fn a_broker_that_runs_already_is_watched() {
    let server = Server::start();
    let at = server.listener("mqtt");
    let place = format!("--host {} --port {}", at.ip(), at.port());
    let load = "churn --sessions 40 --subscriptions 4 --filters 3 --seconds 1 --cycle 1 --every 1";
    let lines = run(&format!("{load} {place}"));
    let verdict = lines.last().unwrap();
    assert_eq!((&verdict["errors"], &verdict["disk_mib"]), (&0.into(), &Value::Null), "{verdict}");
}

#[test]
fn no_broker_is_told_so() {
    let output = Command::clarion(["bench", "mqtt", "fanout", "--port", "1"]);
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("127.0.0.1:1 is not reachable"), "{errors}");
}

#[test]
fn what_was_acked_for_kept_sessions_comes_whatever_dies() {
    mosquitto();
    for load in [
        "",
        " --filters own-wildcard --topics 5 --version 3.1.1",
        " --filters one-wildcard --topics 2 --publishers 20",
        " --beside 1200",
        " --kill 1 --qos 2 --filters one-wildcard",
    ] {
        let load = format!("offline --sessions 10 --messages 12{load} --compare mosquitto");
        let mut reports = run(&load);
        reports.retain(|report| report["broker"] == "clarion");
        for report in &reports {
            check(report, &load);
        }
        let drain = reports.last().unwrap();
        assert_eq!(drain["workload"], "mqtt-offline-drain", "{load}");
        assert_eq!((&drain["messages"], &drain["sessions_present"]), (&120.into(), &10.into()));
    }
}

#[test]
fn a_server_that_runs_already_keeps_its_sessions_for_their_return() {
    let server = Server::start();
    let at = server.listener("mqtt");
    let place = format!("--host {} --port {}", at.ip(), at.port());
    let reports = run(&format!("offline --sessions 10 --messages 12 {place}"));
    assert_eq!(reports.len(), 2, "{reports:?}");
    for report in &reports {
        check(report, "offline");
    }
    let drain = &reports[1];
    assert_eq!((&drain["messages"], &drain["sessions_present"]), (&120.into(), &10.into()));
}
