//! The README's first five minutes, as a new user would spend them: start, listen, publish, curl, a crash in between.

use clarion_tests::{Command, Server, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"))
}

/// Publishes by command line; the answer.
fn publish(server: &Server, args: &[&str]) -> Value {
    let url = server.url();
    let output = Command::clarion([&["publish"], args, &["--url", &url]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    json(&text)
}

fn listen(server: &Server, args: &[&str]) -> Command {
    let url = server.url();
    let listener = Command::start_clarion([&["listen"], args, &["--url", &url]].concat());
    assert_eq!(json(&listener.error_line())["event"], "open");
    listener
}

/// Waits until the user's one device has acked a message and that is on disk.
fn wait_for_stored_ack(server: &Server, message: &Value) {
    wait_for("the ack to be stored", || {
        let url = format!("{}/api/v1/messages/{}", server.url(), message["id"].as_str().unwrap());
        let status = json(&Command::start("curl", ["-s", &url]).rest().concat());
        status["devices"][0]["acked_at"].is_u64()
    });
}

/// The next event that carries data, from a `curl -N` of a stream.
fn curl_event(curl: &Command) -> Value {
    loop {
        if let Some(data) = curl.line().strip_prefix("data: ") {
            return json(data);
        }
    }
}

#[test]
fn what_is_published_arrives_and_is_acked() {
    let server = Server::start();
    let listener = listen(&server, &["user:42"]);
    let answer = publish(&server, &["user:42", "hello"]);
    assert_eq!((&answer["channel"], &answer["seq"]), (&"user:42".into(), &1.into()));
    assert_eq!(answer["durability"], "disk");
    let got = json(&listener.line());
    assert_eq!((&got["text"], &got["seq"]), (&"hello".into(), &1.into()));
    assert_eq!(got["id"], answer["id"]);
    assert_eq!(got["epoch"], answer["epoch"]);
    publish(
        &server,
        &["user:42", r#"{ "n": [1, 2] }"#, "--json", "--kind", "k", "--header", "a=b=c"],
    );
    let line = listener.line();
    assert!(line.contains(r#""json":{"n":[1,2]}"#), "{line}");
    assert_eq!((&json(&line)["kind"], &json(&line)["headers"][0][1]), (&"k".into(), &"b=c".into()));
    // The listener acks what it printed, so the same device gets only what comes after.
    wait_for_stored_ack(&server, &json(&line));
    drop(listener);
    publish(&server, &["user:42", "third"]);
    let mut again = listen(&server, &["user:42", "--count", "1"]);
    assert_eq!(json(&again.line())["text"], "third");
    assert!(again.wait().success());
}

#[test]
fn curl_publishes_and_reads_a_stream() {
    let server = Server::start();
    let url = server.url();
    let stream =
        Command::start("curl", ["-sN", &format!("{url}/api/v1/stream?user=42&device=curl")]);
    assert!(stream.line().starts_with("retry: "));
    let listener = listen(&server, &["user:42"]);
    let body = r#"{"address": "user:42", "text": "from curl"}"#;
    let publish = format!("{url}/api/v1/publish");
    let curl = Command::start(
        "curl",
        ["-s", &publish, "-H", "content-type: application/json", "-d", body],
    );
    let answer = json(&curl.rest().concat());
    assert_eq!(answer["durability"], "disk");
    assert_eq!(json(&listener.line())["id"], answer["id"]);
    let event = curl_event(&stream);
    assert_eq!((&event["id"], &event["text"]), (&answer["id"], &"from curl".into()));
}

#[test]
fn listeners_of_one_queue_share_its_work() {
    let server = Server::start();
    let mut listeners: [_; 2] =
        std::array::from_fn(|_| listen(&server, &["queue:jobs", "--count", "5"]));
    let published: BTreeSet<String> = (0..10)
        .map(|_| publish(&server, &["queue:jobs", "job"])["id"].as_str().unwrap().to_owned())
        .collect();
    let mut got = BTreeSet::new();
    for listener in &mut listeners {
        let lines = listener.rest();
        assert_eq!(lines.len(), 5, "{lines:?}");
        for line in &lines {
            let line = json(line);
            assert_eq!(line["attempt"], 1);
            assert!(got.insert(line["id"].as_str().unwrap().to_owned()), "twice: {line}");
        }
        assert!(listener.wait().success());
    }
    assert_eq!(got, published);
    // What was printed was acked.
    publish(&server, &["queue:jobs", "last"]);
    let last = listen(&server, &["queue:jobs", "--count", "1"]);
    assert_eq!(json(&last.line())["text"], "last");
}

#[test]
fn a_listener_of_a_queue_comes_back_by_itself() {
    let mut server = Server::start();
    let mut listener = listen(&server, &["queue:jobs"]);
    publish(&server, &["queue:jobs", "one"]);
    assert_eq!(json(&listener.line())["text"], "one");
    assert!(server.terminate().success());
    assert_eq!(json(&listener.error_line())["event"], "lost");
    server.restart();
    publish(&server, &["queue:jobs", "two"]);
    assert_eq!(json(&listener.line())["text"], "two");
    listener.interrupt();
    assert!(listener.wait().success());
    let told: Vec<String> =
        listener.errors().iter().map(|line| json(line)["event"].to_string()).collect();
    assert!(told.contains(&"\"open\"".to_owned()), "{told:?}");
}

#[test]
fn the_example_of_trust_is_a_valid_configuration() {
    let readme = include_str!("../../../../README.md");
    let blocks: Vec<&str> =
        readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [yaml] = blocks[..] else { panic!("{} examples", blocks.len()) };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clarion.yaml");
    std::fs::write(&file, yaml).unwrap();
    let output = Command::clarion(["check-config".as_ref(), "--config".as_ref(), file.as_os_str()]);
    assert!(output.status.success(), "{output:?}");
    // The key whose hash it names is the one that the text shows.
    use sha2::Digest;
    let sha256: String =
        sha2::Sha256::digest(b"change-me").iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(yaml.contains(&sha256) && readme.contains("printf %s change-me | sha256sum"));
}

#[test]
fn a_topic_reaches_those_who_listen_and_stores_nothing() {
    let server = Server::start();
    let listener = listen(&server, &["topic:news/today", "--count", "1"]);
    let answer = publish(&server, &["topic:news/today", "now"]);
    assert_eq!((&answer["durability"], &answer["seq"]), (&"none".into(), &0.into()));
    assert_eq!(json(&listener.line())["text"], "now");
}

#[test]
fn a_message_in_between_outlives_a_crash() {
    let mut server = Server::start();
    let mut listener = listen(&server, &["user:42"]);
    let before = publish(&server, &["user:42", "before"]);
    assert_eq!(json(&listener.line())["text"], "before");
    // A crash may repeat what was acked just before it; this is not about that.
    wait_for_stored_ack(&server, &before);
    listener.interrupt();
    assert!(listener.wait().success(), "Ctrl-C ends a listener cleanly");
    assert_eq!(publish(&server, &["user:42", "in between"])["seq"], 2);
    server.kill9();
    server.restart();
    let mut listener = listen(&server, &["user:42", "--count", "1"]);
    assert_eq!(json(&listener.line())["text"], "in between");
    assert!(listener.wait().success());
}

#[test]
fn a_listener_that_stays_comes_back_by_itself() {
    let mut server = Server::start();
    let listener = listen(&server, &["user:42"]);
    publish(&server, &["user:42", "one"]);
    assert_eq!(json(&listener.line())["text"], "one");
    server.kill9();
    assert_eq!(json(&listener.error_line())["event"], "lost");
    server.restart();
    publish(&server, &["user:42", "two"]);
    // "one" went with the token of the reconnect: acked, whether or not its own ack was stored before the kill.
    assert_eq!(json(&listener.line())["text"], "two");
    assert!(server.terminate().success());
    let mut told = Vec::new();
    while told.last().is_none_or(|line: &Value| line["event"] != "close") {
        told.push(json(&listener.error_line()));
    }
    assert_eq!(told.last().unwrap()["reason"], "shutdown");
}

#[test]
fn errors_are_one_line_and_a_status() {
    let server = Server::start();
    let url = server.url();
    let check = |args: &[&str], status: i32, text: &str| {
        let output = Command::clarion(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
        assert!(output.stdout.is_empty(), "{args:?}");
        errors
    };
    let one_line = |errors: String| assert_eq!(errors.lines().count(), 1, "{errors}");
    one_line(check(&["publish", "nobody:1", "x", "--url", &url], 1, "bad_address (1001)"));
    one_line(check(
        &["publish", "user:1", "x", "--expire", "-1", "--url", &url],
        1,
        "bad_expire (1003)",
    ));
    one_line(check(&["publish", "user:1", "{", "--json", "--url", &url], 64, "not JSON"));
    one_line(check(&["listen", "nobody:1", "--url", &url], 1, "bad_address (1001)"));
    one_line(check(&["listen", "topic:a", "--device", "d", "--url", &url], 64, "--device"));
    one_line(check(&["listen", "queue:q", "--device", "d", "--url", &url], 64, "share its work"));
    one_line(check(&["listen", "queue:q", "--from", "1", "--url", &url], 64, "--from"));
    one_line(check(&["listen", "queue:", "--url", &url], 1, "bad_address (1001)"));
    check(&["publish", "user:1", "--url", &url], 64, "<TEXT>");
    check(&["publish", "user:1", "x", "--url", "ftp://x"], 64, "http://host:port");
    let mut server = server;
    server.kill9();
    one_line(check(&["publish", "user:1", "x", "--url", &url], 69, "not reachable"));
    one_line(check(&["listen", "user:1", "--url", &url], 69, "not reachable"));
    one_line(check(&["listen", "queue:q", "--url", &url], 69, "not reachable"));
}
