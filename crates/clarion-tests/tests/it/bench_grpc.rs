//! `clarion bench grpc`: every workload runs, small, and what it counts is right.

use crate::api::Api;
use clarion_tests::{Command, Server};
use serde_json::Value;

/// Runs a workload; its one measurement.
fn measure(server: &Server, arguments: &str) -> Value {
    let at = server.listener("grpc").to_string();
    let place = ["--json", "--grpc", &at];
    let output =
        Command::clarion(["bench", "grpc"].into_iter().chain(arguments.split(' ')).chain(place));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments}: {errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for fault in ["lost", "repeated", "reordered"] {
        assert_eq!(report[fault], 0, "{arguments}: {report}");
    }
    assert!(report["server"]["rss_mib"].as_f64().unwrap() > 1.0, "{report}");
    report
}

#[test]
fn publishes_are_counted_and_stored() {
    let server = Server::start();
    for (more, name) in
        [("", "grpc-publish"), (" --batch 50", "grpc-publish"), (" --live", "grpc-publish-live")]
    {
        let report = measure(
            &server,
            &format!("publish --callers 8 --connections 2 --users 1 --messages 320{more}"),
        );
        assert_eq!((&report["workload"], &report["messages"]), (&name.into(), &320.into()));
    }
    // The single ones and the batches, not the live ones.
    let stored = Api::of(&server).read("user:pub-0", "?limit=1000");
    assert_eq!(stored["messages"].as_array().unwrap().len(), 640);
}

#[test]
fn every_stream_gets_everything() {
    let server = Server::start();
    let report = measure(
        &server,
        "fanout --streams 20 --connections 3 --messages 30 --in-flight 4 --size 300",
    );
    assert_eq!(report["messages"], 600);
}

#[test]
fn a_queue_gives_each_message_once() {
    let server = Server::start();
    for more in ["", " --singly", " --dialect message-sync"] {
        let report = measure(
            &server,
            &format!("queue --producers 2 --depth 4 --consumers 3 --messages 400{more}"),
        );
        assert_eq!(report["messages"], 400, "{more}");
    }
}

#[test]
fn gates_get_each_push_once() {
    let server = Server::start();
    for more in ["", " --live", " --gates 2 --service message_pusher.Message_pusher"] {
        let report = measure(
            &server,
            &format!("gates --producers 2 --depth 4 --channels 20 --messages 400{more}"),
        );
        assert_eq!(report["messages"], 400, "{more}");
    }
}

#[test]
fn idle_streams_are_measured() {
    let server = Server::start();
    let report = measure(&server, "idle --streams 100 --connections 3 --hold 0 --rest 1");
    assert_eq!(report["messages"], 100);
    assert!(report["server"]["cpu_percent_at_rest"].as_f64().unwrap() < 100.0, "{report}");
}

#[test]
fn no_server_is_told_so() {
    let output = Command::clarion(["bench", "grpc", "publish", "--grpc", "127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(69));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("127.0.0.1:1 is not reachable"), "{errors}");
}
