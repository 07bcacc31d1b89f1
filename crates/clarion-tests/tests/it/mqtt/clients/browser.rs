//! mqtt.js in a real Chromium. The page and the library come from a small server of the test, and the page posts there what
//! came of it.

use crate::{clients::crate_dir, mqtt::broker::Broker};
use clarion_tests::{Command, DEADLINE, raw::Connection, target_dir};
use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    process,
    sync::mpsc::{Sender, channel},
    thread,
};

/// Answers one request; what is posted goes to the test.
fn answer(stream: TcpStream, posted: &Sender<String>) {
    let mut connection = Connection::from_stream(stream).expect("a socket");
    while let Ok(head) = connection.until(b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let file = match target.split('?').next() {
            Some("/") => Some(("text/html", "tests/it/mqtt/clients/browser.html")),
            Some("/mqtt.js") => Some(("text/javascript", "js/node_modules/mqtt/dist/mqtt.min.js")),
            _ => None,
        };
        if target == "/result" {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse().expect("a number"))
            });
            let body = connection.take(length.expect("a length")).expect("a body");
            let _ = posted.send(String::from_utf8(body).expect("text"));
        }
        let (kind, body) = match file {
            Some((kind, file)) => (kind, fs::read(crate_dir().join(file)).expect("readable")),
            None => ("text/plain", Vec::new()),
        };
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n");
        if connection.stream().write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

#[test]
fn chromium() {
    let broker = Broker::start();
    let pages = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = pages.local_addr().expect("bound");
    let (posted, results) = channel();
    thread::spawn(move || {
        for stream in pages.incoming().map_while(Result::ok) {
            let posted = posted.clone();
            thread::spawn(move || answer(stream, &posted));
        }
    });
    // In a browser mqtt:// is WebSocket.
    let urls = [broker.at(), broker.http()];
    let urls = urls.iter().flat_map(|at| [format!("mqtt://{at}/mqtt"), format!("ws://{at}/mqtt")]);
    let query: Vec<String> = urls.map(|url| format!("url={url}")).collect();
    let profile = tempfile::tempdir_in(target_dir().join("tmp")).expect("writable");
    let version = process::Command::new("chromium").args(["--no-sandbox", "--version"]).output();
    let version = version.expect("chromium is there: run ./test.sh, or apt-get install chromium");
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let args = [
        "--headless".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        format!("--user-data-dir={}", profile.path().display()),
        "--remote-debugging-port=0".to_owned(),
        format!("http://{at}/?{}", query.join("&")),
    ];
    let _chromium = Command::start("chromium", args);
    let mut worked = 0;
    loop {
        let result = results.recv_timeout(DEADLINE).expect("the page tells what happens");
        match result.split(' ').next() {
            Some("ok") => worked += 1,
            Some("done") => break,
            _ => panic!("{result}"),
        }
    }
    assert_eq!(worked, query.len() * 3);
    let name = version.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    println!(
        "{name}, mqtt.js: {worked} connections over WebSocket on both ports, each version: each QoS, retained"
    );
}
