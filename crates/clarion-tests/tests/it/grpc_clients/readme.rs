//! The README of the examples: each of its commands does what it says, as it is written.

use super::{example, reader, root};
use clarion_tests::Server;
use std::fs;

/// The blocks of commands, each a list of lines.
fn blocks() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("examples/README.md")).unwrap();
    let blocks = text.split("```sh\n").skip(1).map(|rest| {
        let (block, _) = rest.split_once("```").expect("a block ends");
        block.lines().map(str::to_owned).collect()
    });
    blocks.collect()
}

/// The commands that make code for Python.
pub(super) fn protoc_commands() -> Vec<String> {
    let is_protoc = |line: &String| line.starts_with("python -m grpc_tools.protoc");
    let commands: Vec<String> = blocks().into_iter().flatten().filter(is_protoc).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    commands
}

/// Whether a command reads, and so has no end.
fn reads(command: &str) -> bool {
    ["consumer", "gate", "subscriber"].iter().any(|name| command.contains(&format!("/{name}.")))
}

#[test]
fn every_command_works_as_it_is_written() {
    let mut done = 0;
    for block in blocks() {
        let written = |line: &&String| {
            ["python examples/", "node examples/"].iter().any(|start| line.starts_with(start))
        };
        let commands: Vec<&String> = block.iter().filter(written).collect();
        if commands.is_empty() {
            continue;
        }
        let server = Server::start();
        let (readers, senders): (Vec<&String>, Vec<&String>) =
            commands.iter().partition(|command| reads(command));
        let readers: Vec<_> = readers.iter().map(|command| reader(&server, command)).collect();
        for sender in &senders {
            let sender = example(&server, sender);
            let told = sender.line();
            assert!(
                ["received ", "pushed ", "RECEIVED ", "user:42 1 disk ", "queue:jobs 1 disk "]
                    .iter()
                    .any(|start| told.starts_with(start)),
                "{told}"
            );
            // What the reader printed, the sender said, or the other way round: its last word is what was sent.
            for reader in &readers {
                assert!(!reader.line().is_empty());
            }
        }
        done += commands.len();
    }
    assert_eq!(done, 16);
    println!("examples/README.md: {done} commands work as they are written");
}

#[test]
fn the_examples_use_what_the_tests_have() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let pinned = read("crates/clarion-tests/requirements.txt");
    for line in read("examples/python/requirements.txt").lines() {
        assert!(pinned.lines().any(|pin| pin == line), "{line}");
    }
    let json = |path| serde_json::from_str::<serde_json::Value>(&read(path)).unwrap();
    let tested = json("crates/clarion-tests/js/package.json");
    for (name, version) in json("examples/node/package.json")["dependencies"].as_object().unwrap() {
        assert_eq!(tested["dependencies"][name], *version, "{name}");
    }
    let lock = read("crates/clarion-tests/js/package-lock.json");
    assert!(!lock.contains("\"resolved\""), "the lock names no registry");
}
