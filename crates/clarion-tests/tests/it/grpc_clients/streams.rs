//! Gates of mikudos, and streams of the native API, by the examples.

use super::{Language, example, reader, sent, together, until_told};
use clarion_tests::{Command, Server};

/// Logs a user of a gate in or out.
fn say(gate: &mut Command, line: &str) {
    gate.say(line);
    until_told(gate, &format!("# done {line}"));
}

/// One push by command line: what came of it, its id.
fn push(server: &Server, language: Language, args: &str) -> (String, u32) {
    let lines = sent(server, &language.command("push", args));
    let [line] = &lines[..] else { panic!("{lines:?}") };
    let words: Vec<&str> = line.split(' ').collect();
    let [what, _, id] = words[..] else { panic!("{line}") };
    (what.to_owned(), id.parse().unwrap())
}

/// What a gate prints next. What it was given and asked for again before it had answered may come twice.
fn next(gate: &Command, last: &str) -> String {
    let line = gate.line();
    if line == last { gate.line() } else { line }
}

fn gate_and_producer(gates: Language, producers: Language) {
    let mut server = Server::start();
    let status = |server: &Server, args: &str| push(server, producers, &format!("{args} --status"));
    // Without any gate it is stored.
    assert_eq!(push(&server, producers, "21 early"), ("pushed".into(), 1));
    let mut gate = reader(&server, &gates.command("gate", "21"));
    assert_eq!(gate.line(), "21 1 early");
    assert_eq!(status(&server, "21 here"), ("RECEIVED".into(), 2));
    assert_eq!(next(&gate, "21 1 early"), "21 2 here");
    assert_eq!(status(&server, "22 absent"), ("UNRECEIVED".into(), 1));
    say(&mut gate, "in 22");
    assert_eq!(gate.line(), "22 1 absent");
    say(&mut gate, "out 21");
    assert_eq!(status(&server, "21 out"), ("UNRECEIVED".into(), 3));
    // What is for those who are there only goes by.
    let (what, id) = status(&server, "21 lost --expire 0");
    assert_eq!((&*what, id >= 1 << 31), ("UNRECEIVED", true));
    // The gate comes back, and asks again for those who are in.
    server.kill9();
    until_told(&gate, "# lost");
    server.restart();
    assert_eq!(push(&server, producers, "22 'while away'"), ("pushed".into(), 2));
    assert_eq!(next(&gate, "22 1 absent"), "22 2 while away");
    say(&mut gate, "in 21");
    assert_eq!(gate.line(), "21 3 out", "what was received does not come again");
    gates.tell("GateStream: login, logout, REQUEST, RECEIVED, UNRECEIVED, over a crash");
    producers.tell("PushToChannel, PushToChannelWithStatus");
}

#[test]
fn python_is_a_gate_and_node_pushes() {
    gate_and_producer(Language::Python, Language::Node);
}

#[test]
fn node_is_a_gate_and_python_pushes() {
    gate_and_producer(Language::Node, Language::Python);
}

#[test]
fn gates_of_groups() {
    let server = Server::builder().set("mikudos.mode", "group").start();
    let gate = |language: Language, args: &str| language.command("gate", args);
    for language in [Language::Python, Language::Node] {
        let mut refused = example(&server, &gate(language, "21"));
        assert!(!refused.wait().success());
        let errors = refused.rest_of_errors().join("\n");
        assert!(errors.contains("refused: UNKNOWN: METADATA of group cannot be empty"), "{errors}");
    }
    let gates = [
        reader(&server, &gate(Language::Python, "21 --group a")),
        reader(&server, &gate(Language::Node, "--group b")),
    ];
    let pushed = push(&server, Language::Node, "21 text --status");
    assert_eq!(pushed, ("RECEIVED".into(), 1), "one of the two has the user");
    assert_eq!(gates[0].line(), "21 1 text");
}

fn native(language: Language) {
    let mut server = Server::start();
    let phone = language.command("subscriber", "--user 42 --device phone");
    let feed = reader(&server, &phone);
    // More than the credit that a subscriber gives at once.
    let texts: Vec<String> = (1..=50).map(|n| format!("t{n}")).collect();
    let publisher = |to: &str, texts: &[String]| {
        language.command("publisher", &format!("{to} {}", texts.join(" ")))
    };
    let told = sent(&server, &publisher("user:42", &texts[..30]));
    for (i, line) in told.iter().enumerate() {
        assert!(line.starts_with(&format!("user:42 {} disk ", i + 1)), "{line}");
    }
    for n in 1..=30 {
        assert_eq!(feed.line(), format!("user:42 {n} t{n}"));
    }
    until_told(&feed, "# acked 30 messages");
    server.kill9();
    until_told(&feed, "# lost");
    server.restart();
    sent(&server, &publisher("user:42", &texts[30..]));
    for n in 31..=50 {
        assert_eq!(feed.line(), format!("user:42 {n} t{n}"), "what is acked does not come again");
    }
    // Two that share a queue.
    let jobs = language.command("subscriber", "queue:jobs --mode unify");
    let workers = [reader(&server, &jobs), reader(&server, &jobs)];
    sent(&server, &publisher("queue:jobs", &texts));
    let lines = together(&[&workers[0], &workers[1]], texts.len());
    let seq = |line: &String| line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut seqs: Vec<u64> = lines.iter().map(seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=50).collect::<Vec<u64>>(), "each once");
    for worker in &workers {
        until_told(worker, "# acked");
    }
    language.tell("clarion.v1 Publish and Subscribe: acks, confirmations, credit, over a crash");
}

#[test]
fn python_subscribes() {
    native(Language::Python);
}

#[test]
fn node_subscribes() {
    native(Language::Node);
}
