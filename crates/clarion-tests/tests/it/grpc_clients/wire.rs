//! Reflection, health, compression, limits, what is unknown, keys: as grpcio sees them.

use super::{Language, example, grpc, reader, sent, stubs};
use crate::clients::{python, run, script};
use clarion_tests::Server;
use sha2::{Digest, Sha256};

/// Runs a Python script with these arguments.
fn script_lines(name: &str, args: &[&str]) -> Vec<String> {
    let file = script(name);
    let out = run(&python("python"), &[&[file.to_str().unwrap()], args].concat());
    out.lines().map(str::to_owned).collect()
}

const COMMON: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Services and calls that a script found by reflection.
fn reflected(at: &str) -> (Vec<String>, Vec<String>) {
    let lines = script_lines("reflection.py", &[at]);
    lines.into_iter().partition(|line| !line.starts_with("called "))
}

#[test]
fn reflection_and_health_know_all_that_is_spoken() {
    let server = Server::start();
    let (services, calls) = reflected(&grpc(&server));
    let mut expected = COMMON.to_vec();
    expected.extend([
        "MessageSync",
        "clarion.v1.Clarion",
        "message_deliver.MessageDeliver",
        "message_pusher.MessagePusher",
        "message_pusher.Message_pusher",
    ]);
    expected.sort_unstable();
    assert_eq!(services, expected);
    let answers: Vec<&str> = calls.iter().map(|call| call.split_once(": ").unwrap().1).collect();
    assert_eq!(answers[0], r#"{"msgId": 1, "channelId": "21"}"#);
    assert_eq!(answers[1], r#"{"msgId": 2, "channelId": "21"}"#);
    assert!(answers[2].contains(r#""messageType": "UNRECEIVED""#), "{}", answers[2]);
    assert_eq!(answers[3], r#"{"result": true}"#);
    assert_eq!(answers[4], r#"{"reply": "received"}"#);
    assert!(answers[5].contains(r#""channel": "user:22""#), "{}", answers[5]);
    Language::Python.tell(&format!(
        "by reflection alone: {} services, {} calls",
        services.len(),
        calls.len()
    ));
}

#[test]
fn a_listener_describes_only_what_it_speaks() {
    let server = Server::builder()
        .set("listeners.grpc.speaks", "[mikudos]")
        .set("listeners.message-sync.speaks", "[message-sync]")
        .start();
    let mikudos = [
        "message_deliver.MessageDeliver",
        "message_pusher.MessagePusher",
        "message_pusher.Message_pusher",
    ];
    assert_eq!(reflected(&grpc(&server)).0, [&COMMON[..], &mikudos].concat());
    let old = server.listener("message-sync").to_string();
    let (services, calls) = reflected(&old);
    assert_eq!(services, [&["MessageSync"], &COMMON[..]].concat());
    assert_eq!(calls, [r#"called /MessageSync/SubmitMessage: {"reply": "received"}"#]);
}

#[test]
fn grpcio_at_the_edges_of_the_wire() {
    let server = Server::start();
    let lines = script_lines("wire.py", &[&stubs(), &grpc(&server)]);
    let too_long =
        "RESOURCE_EXHAUSTED grpc: received message larger than max (4194305 vs. 4194304)";
    let submitted = r#"OK reply: "received""#;
    let expected = [
        format!("gzip: {submitted}"),
        "deflate: UNIMPLEMENTED messages may be gzip or identity, not `deflate`".into(),
        r#"push 4194304: OK msgId: 1 channelId: "21""#.into(),
        format!("submit 4194304: {submitted}"),
        format!("zipped submit 4194304: {submitted}"),
        format!("push 4194305: {too_long}"),
        format!("submit 4194305: {too_long}"),
        "zipped submit 4194305: RESOURCE_EXHAUSTED grpc: received message after decompression \
         larger than max 4194304"
            .into(),
        "/no.Such/Push: UNIMPLEMENTED unknown service no.Such".into(),
        "/MessageSync/Push: UNIMPLEMENTED unknown method Push for service MessageSync".into(),
        "/message_pusher.MessagePusher/Push: UNIMPLEMENTED unknown method Push for service \
         message_pusher.MessagePusher"
            .into(),
    ];
    assert_eq!(lines[..expected.len()], expected);
    let [cut, text, channel] = &lines[expected.len()..] else { panic!("{lines:?}") };
    assert!(cut.starts_with("cut bytes: INTERNAL "), "{cut}");
    assert!(text.starts_with("not UTF-8: INTERNAL "), "{text}");
    assert!(channel.starts_with("no channel: INVALID_ARGUMENT channel: "), "{channel}");
    Language::Python.tell("gzip, 4194304 bytes and one more, unknown services and methods");
}

#[test]
fn keys() {
    let hash: String = Sha256::digest(b"secret").iter().map(|b| format!("{b:02x}")).collect();
    let key = format!("[{{name: k, sha256: {hash}, allow: [publish, subscribe]}}]");
    let server =
        Server::builder().set("listeners.grpc.auth", "required").set("auth.keys", &key).start();
    for language in [Language::Python, Language::Node] {
        for command in [
            "consumer c",
            "producer c",
            "gate 21",
            "push 21 x",
            "publisher user:1 x",
            "subscriber --user 1",
        ] {
            let (name, args) = command.split_once(' ').unwrap();
            for key in ["", " --key wrong"] {
                let mut refused =
                    example(&server, &language.command(name, &format!("{args}{key}")));
                assert_eq!(refused.rest(), [""; 0]);
                assert!(!refused.wait().success());
                // A client may say that its stream is open when it sees the answer's head.
                let mut errors = refused.rest_of_errors();
                errors.retain(|line| line != "# open");
                let errors = errors.join("\n");
                assert!(errors.starts_with("refused: UNAUTHENTICATED: "), "{command}: {errors}");
            }
        }
        let with_key = |name, args: &str| language.command(name, &format!("{args} --key secret"));
        let consumer = reader(&server, &with_key("consumer", "c"));
        sent(&server, &with_key("producer", "c --count 1 --text m"));
        assert_eq!(consumer.line(), "m1");
        let gate = reader(&server, &with_key("gate", "21"));
        let pushed = sent(&server, &with_key("push", "21 x --status"));
        assert!(pushed[0].starts_with("RECEIVED 21 "), "{pushed:?}");
        assert!(gate.line().starts_with("21 "));
        language.tell("a listener with auth: required, with and without a key");
    }
}
