//! `clarion serve --mikudos-config`: the configuration file of a mikudos-message-pusher starts Clarion in its place.

use crate::grpc::connect;
use clarion_tests::{Builder, Server};
use clarion_wire::proto::message_pusher::{
    ConfigRequest, ConfigResponse, Message, PushMessage, Response,
};

/// The keys of the file that the original ships, with its values.
const SHIPPED: &str = "\
port: 50051
mode: \"group\"
storageType: \"redis\"
redisSource:
  \"node1:1\": \"tcp@localhost:6379\"
mySQLSource:
  \"node1:1\": \"root:secret@(127.0.0.1:3306)/mikudos_message_pusher?charset=utf8\"
";

fn started_with(text: &str) -> (tempfile::TempDir, Builder) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, text).expect("written");
    let builder = Server::builder().arg("--mikudos-config");
    let builder = builder.arg(file.to_str().expect("a path"));
    (dir, builder)
}

#[tokio::test]
async fn the_shipped_file_starts_a_server_for_gates() {
    let (_dir, builder) = started_with(SHIPPED);
    let server = builder.set("store.kind", "embedded").start();
    assert_eq!(server.listeners(), ["grpc", "http"]);
    let out = server.stdout();
    assert!(out.contains("--set listeners.grpc.bind=0.0.0.0:"), "{out}");
    let told = server.stderr();
    for key in ["storageType", "redisSource", "mySQLSource"] {
        assert_eq!(told.matches(key).count(), 1, "{told}");
    }
    assert!(!format!("{out}{told}").contains("secret"), "{out}{told}");
    let grpc = connect(&server).await;
    let path = |method: &str| format!("/message_pusher.MessagePusher/{method}");
    let asked = ConfigRequest { keys: vec!["MODE".into(), "mySQLSource".into()] };
    let shown: ConfigResponse = grpc.call(&path("GetConfig"), &asked).await.expect("an answer");
    let shown: Vec<_> = shown.values.into_iter().collect();
    assert_eq!(shown, [("mode".to_owned(), "group".to_owned())]);
    let group = [("group", "g")];
    let gate = grpc.start::<Message>(&path("GateStream"), &group).await;
    let mut gate = gate.expect("a stream");
    gate.headers().await.expect("it is attached");
    let push = PushMessage { msg: "hi".into(), channel_id: "21".into(), expire: 600 };
    let pushed: Response = grpc.call(&path("PushToChannel"), &push).await.expect("an answer");
    assert_eq!(gate.message_of().await.msg_id, i64::from(pushed.msg_id));
}

#[test]
fn shared_stores_are_refused_with_the_way_out() {
    let (_dir, builder) = started_with(SHIPPED);
    let failed = builder.try_start().expect_err("redis is not there");
    assert_eq!(failed.status.code(), Some(64), "{}", failed.stderr);
    assert!(failed.stderr.contains("--set store.kind=embedded"), "{}", failed.stderr);
}

#[test]
fn an_unknown_mode_names_the_three() {
    let (_dir, builder) = started_with(&SHIPPED.replace("\"group\"", "\"foo\""));
    let failed = builder.set("store.kind", "embedded").try_start().expect_err("no such mode");
    assert_eq!(failed.status.code(), Some(64), "{}", failed.stderr);
    for mode in ["unify", "group", "every"] {
        assert!(failed.stderr.contains(mode), "{}", failed.stderr);
    }
}
