//! The push channel: producers and consumers in both languages, as its first users wrote them and as the examples are.

use super::{Language, example, grpc, reader, sent, stubs, together, until_told};
use crate::api::Api;
use crate::clients::{python, script};
use clarion_tests::{Command, Server, wait_for};
use std::collections::BTreeSet;

/// Starts a program as the first users wrote it.
fn demo(server: &Server, args: &[&str]) -> Command {
    let file = script("push_demo.py");
    let (file, stubs, at) = (file.to_str().unwrap(), stubs(), grpc(server));
    Command::start(python("python"), [&[file, &stubs, &at], args].concat())
}

/// What a producer submitted.
fn submitted(producer: &Command) -> Vec<String> {
    let lines = producer.rest().into_iter();
    lines.map(|line| line.strip_prefix("received ").expect("received").to_owned()).collect()
}

#[test]
fn programs_as_the_first_users_wrote_them() {
    let mut server = Server::start();
    let waits = submitted(&demo(&server, &["produce", "5"]));
    let consumer = demo(&server, &["consume"]);
    for message in &waits {
        assert_eq!(consumer.line(), *message, "what waits comes, all of it, the oldest first");
    }
    for message in submitted(&demo(&server, &["produce", "5"])) {
        assert_eq!(consumer.line(), message);
    }
    // Two consumers share.
    let other = demo(&server, &["consume"]);
    let mut api = Api::of(&server);
    wait_for("the other consumer", || {
        let sessions = api.ok("GET", "/api/v1/sessions", None);
        sessions["sessions"].as_array().unwrap().len() == 2
    });
    let told = submitted(&demo(&server, &["produce", "12"]));
    let mut got = together(&[&consumer, &other], told.len());
    got.sort();
    assert_eq!(got, told, "each once, to one of both");
    assert_eq!(server.terminate().code(), Some(0));
    for consumer in [consumer, other] {
        assert_eq!(consumer.rest(), ["ended: UNAVAILABLE The node is going down"]);
    }
    Language::Python
        .tell("the push channel's producer and consumer, as its first users wrote them");
}

/// Producer and consumers over a crash of the server: nothing is lost, nothing stored twice.
fn over_a_crash(producers: Language, consumers: Language) {
    let mut server = Server::start();
    let consumer = consumers.command("consumer", "jobs");
    let auditor = consumers.command("consumer", "jobs --mode every --consumer audit");
    let readers = [reader(&server, &consumer), reader(&server, &auditor)];
    let command = producers.command("producer", "jobs --count 30 --interval 0.05 --text m");
    let producer = example(&server, &command);
    for _ in 0..10 {
        assert!(producer.line().starts_with("received m"));
    }
    server.kill9();
    until_told(&producer, "# lost");
    server.restart();
    let rest = producer.rest();
    assert_eq!(rest.last().map(String::as_str), Some("received m30"), "{rest:?}");
    for reader in readers {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "m30") {
            seen.push(reader.line());
        }
        let mut once = BTreeSet::new();
        // What the crash took back comes again; nothing is passed over.
        let firsts: Vec<String> = seen.iter().filter(|m| once.insert(*m)).cloned().collect();
        let all: Vec<String> = (1..=30).map(|n| format!("m{n}")).collect();
        assert_eq!(firsts, all, "{seen:?}");
    }
    consumers.tell("push channel consumers, shared and every, over a crash of the server");
    producers.tell("push channel producer, over a crash of the server");
}

#[test]
fn python_over_a_crash() {
    over_a_crash(Language::Python, Language::Python);
}

#[test]
fn node_over_a_crash() {
    over_a_crash(Language::Node, Language::Node);
}

#[test]
fn one_language_to_the_other() {
    let server = Server::start();
    let pairs = [(Language::Python, Language::Node), (Language::Node, Language::Python)];
    for (i, (from, to)) in pairs.into_iter().enumerate() {
        let consumer = reader(&server, &to.command("consumer", &format!("c{i}")));
        let text = "\u{e9}\u{1f600} ";
        let args = format!("c{i} --count 3 --interval 0 --text '{text}'");
        let told = sent(&server, &from.command("producer", &args));
        for (n, line) in (1..=3).zip(told) {
            assert_eq!(line, format!("received {text}{n}"));
            assert_eq!(consumer.line(), format!("{text}{n}"));
        }
    }
}

#[test]
fn what_is_final_is_not_tried_again() {
    let server = Server::start();
    for language in [Language::Python, Language::Node] {
        for command in ["consumer a --mode each", "consumer a --consumer b", "publisher x:1 a"] {
            let (name, args) = command.split_once(' ').unwrap();
            let mut refused = example(&server, &language.command(name, args));
            assert_eq!(refused.rest(), [""; 0]);
            assert!(!refused.wait().success());
            let errors = refused.rest_of_errors().join("\n");
            // argparse knows the modes.
            let known = errors.contains("refused: INVALID_ARGUMENT") || errors.contains("usage:");
            assert!(known, "{errors}");
        }
    }
}
