//! Clients that others wrote, as processes of their own: curl, Python, Node, schemathesis. Must not know: our client.

use crate::api::{Api, Stream};
use clarion_tests::{Command, Server, target_dir};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{self, Stdio},
};

pub(crate) fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn script(name: &str) -> PathBuf {
    crate_dir().join("tests/it/clients").join(name)
}

/// A program of the Python environment that `test.sh` makes.
pub(crate) fn python(program: &str) -> PathBuf {
    let path = crate_dir().join("../../target/venv/bin").join(program);
    assert!(
        path.exists(),
        "target/venv has no {program}: run ./test.sh, or python3 -m venv target/venv && \
         target/venv/bin/pip install -r crates/clarion-tests/requirements.txt"
    );
    path
}

/// Runs a program to its end; its output when it succeeded.
pub(crate) fn run(program: &Path, args: &[&str]) -> String {
    let dir = target_dir().join("tmp");
    std::fs::create_dir_all(&dir).expect("the target directory is writable");
    let dir = tempfile::tempdir_in(dir).expect("the target directory is writable");
    let mut command = process::Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(args);
    let output = command.current_dir(dir.path()).stdin(Stdio::null()).output();
    let output = output.expect("setpriv (util-linux) runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {}\n{out}\n{err}", program.display(), output.status);
    out
}

/// The next event that curl shows: its id and data.
fn curl_event(curl: &Command) -> (Option<String>, Value) {
    let (mut id, mut data) = (None, None);
    loop {
        let line = curl.line();
        if let Some(value) = line.strip_prefix("id: ") {
            id = Some(value.to_owned());
        } else if let Some(value) = line.strip_prefix("data: ") {
            data = Some(serde_json::from_str(value).expect("JSON"));
        } else if line.is_empty()
            && let Some(data) = data.take()
        {
            return (id, data);
        }
    }
}

#[test]
fn curl_publishes_streams_and_resumes() {
    let server = Server::start();
    let url = server.url();
    let publish = |text: &str| {
        let body = json!({ "address": "user:u", "text": text }).to_string();
        let header = "content-type: application/json";
        let target = format!("{url}/api/v1/publish");
        let args = ["-sS", "--fail-with-body", "-H", header, "-d", &body, &target];
        let answer = run(Path::new("curl"), &args);
        serde_json::from_str::<Value>(&answer).expect("JSON")
    };
    assert_eq!(publish("1")["durability"], "disk");
    let feed = format!("{url}/api/v1/stream?user=u");
    let curl = Command::start("curl", ["-sS", "-N", "--fail-with-body", &feed]);
    let (first, data) = curl_event(&curl);
    assert_eq!(data["text"], "1");
    publish("2");
    assert_eq!(curl_event(&curl).1["text"], "2");
    drop(curl);
    publish("3");
    let resume = format!("Last-Event-ID: {}", first.expect("a stored message has an id"));
    let curl = Command::start("curl", ["-sS", "-N", "--fail-with-body", "-H", &resume, &feed]);
    assert_eq!(curl_event(&curl).1["text"], "2");
    let (last, data) = curl_event(&curl);
    assert_eq!(data["text"], "3");
    drop(curl);
    let body = json!({ "token": last }).to_string();
    let target = format!("{url}/api/v1/ack");
    let args = ["-sS", "-H", "content-type: application/json", "-d", &body, &target];
    assert_eq!(run(Path::new("curl"), &args), r#"{"moved":true}"#);
    // A download that is stopped by a signal: the status code of a stream is 200, of a refusal its own.
    let format = "%{http_code} %{content_type}";
    let bad = format!("{url}/api/v1/stream?user=");
    let refused = run(Path::new("curl"), &["-sS", "-o", "body", "-w", format, &bad]);
    assert_eq!(refused, "400 application/problem+json");
}

#[test]
fn python_requests_and_httpx() {
    let server = Server::start();
    let file = script("streams.py");
    let file = file.to_str().expect("a path");
    for library in ["requests", "httpx"] {
        let out = run(&python("python"), &[file, &server.url(), library]);
        assert_eq!(out.trim(), format!("{library} ok"));
    }
}

/// The next line of the Node script, as JSON.
fn node_line(node: &Command) -> Value {
    let line = node.line();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// The next message of the Node script; opens and lost connections are passed over.
fn node_text(node: &Command) -> String {
    loop {
        let line = node_line(node);
        if line["type"] == "message" {
            return line["data"]["text"].as_str().expect("a text").to_owned();
        }
        assert!(matches!(line["type"].as_str(), Some("open" | "error")), "{line}");
    }
}

#[test]
fn node_eventsource_comes_back_after_a_kill() {
    let modules = crate_dir().join("js/node_modules/eventsource");
    assert!(
        modules.exists(),
        "the package eventsource is absent: run ./test.sh, or npm --prefix crates/clarion-tests/js ci"
    );
    let mut server = Server::builder().set("sse.retry", "300ms").start();
    let mut api = Api::of(&server);
    let feed = format!("{}/api/v1/stream?user=u&device=browser", server.url());
    let node = Command::start("node", [script("eventsource.mjs").as_os_str(), feed.as_ref()]);
    assert_eq!(node_line(&node)["type"], "open");
    api.publish_numbers("user:u", 1, 50);
    for expected in 1..=50 {
        assert_eq!(node_text(&node), expected.to_string());
    }
    for round in 1..=3 {
        let from = round * 50 + 1;
        // Some of these may have been written to the stream, and some of those read, when the server dies.
        api.publish_numbers("user:u", from, from + 9);
        server.kill9();
        server.restart();
        api = Api::of(&server);
        api.publish_numbers("user:u", from + 10, from + 49);
        for expected in from..from + 50 {
            assert_eq!(node_text(&node), expected.to_string(), "nothing is lost or given twice");
        }
    }
    drop(node);
    // Coming back acked; what came since the last time did not.
    let first = Stream::feed(&server, "u", "browser").text();
    let first: u64 = first.parse().expect("a number");
    assert!((101..=200).contains(&first), "{first}");
}

#[test]
fn node_eventsource_is_told_gaps_and_ends() {
    let mut server = Server::builder().set("sse.retry", "300ms").start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 9);
    api.ok("DELETE", "/api/v1/channels/user:u/messages?below=5", None);
    let feed = format!("{}/api/v1/stream?address=user:u&from=2", server.url());
    let node = Command::start("node", [script("eventsource.mjs").as_os_str(), feed.as_ref()]);
    assert_eq!(node_line(&node)["type"], "open");
    let gap = node_line(&node);
    assert_eq!((&gap["type"], &gap["data"]["to"]), (&json!("gap"), &json!(4)), "{gap}");
    for expected in 5..=9 {
        assert_eq!(node_text(&node), expected.to_string());
    }
    assert_eq!(server.terminate().code(), Some(0));
    let close = node_line(&node);
    let told = (close["type"].as_str(), close["data"]["reason"].as_str());
    assert_eq!(told, (Some("close"), Some("shutdown")));
}

#[test]
fn schemathesis_finds_nothing() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let document = api.ok("GET", "/openapi.json", None);
    let paths = document["paths"].as_object().expect("paths").values();
    let count: usize = paths.map(|path| path.as_object().expect("operations").len()).sum();
    let config = script("schemathesis.toml");
    let config = config.to_str().expect("a path");
    let target = format!("{}/openapi.json", server.url());
    let args = ["--config-file", config, "run", &target, "--no-color"];
    let out = run(&python("schemathesis"), &args);
    // It leaves out the document's own address; the configuration, the stream.
    let tested = out.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    assert_eq!(tested, Some(&*(count - 2).to_string()), "{out}");
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
