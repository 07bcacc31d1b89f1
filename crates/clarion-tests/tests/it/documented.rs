//! What a running server shows stands in the documentation, and nothing else does.

use std::collections::BTreeSet;

use clarion_tests::{Server, raw};

/// The names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<&str> {
    let name = |c: char| c.is_ascii_lowercase() || c == '_';
    let words = text.split(|c| !name(c)).filter(|word| word.starts_with("clarion_"));
    words.collect()
}

#[test]
fn every_metric_is_documented_by_its_name() {
    let server = Server::start();
    let request = raw::request("GET", "/metrics", server.addr(), "", b"");
    let answer = raw::exchange(server.addr(), &request).expect("an answer");
    let text = String::from_utf8(answer.body).unwrap();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let shown = metrics(&samples.join("\n")).iter().map(|name| (*name).to_owned()).collect();
    let documented: BTreeSet<String> = metrics(include_str!("../../../../docs/operations.md"))
        .into_iter()
        .map(Into::into)
        .collect();
    assert!(samples.len() > 10, "{text}");
    assert_eq!(documented, shown);
}
