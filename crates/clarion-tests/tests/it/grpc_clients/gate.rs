//! Users of a mikudos gate: the package `mikudos-socketio-client` from the registry, behind a gate as those in the field are.

use super::{Language, grpc, root, sent};
use crate::clients::script;
use clarion_tests::{Command, Server};
use serde_json::{Value, json};

/// A running gate.
struct Gate {
    command: Command,
    url: String,
}

impl Gate {
    fn start(server: &Server, service: &str) -> Self {
        let (file, proto) = (
            script("gate.mjs"),
            root().join("proto").join(match service {
                "MessagePusher" => "message_pusher.proto",
                _ => "message_pusher_old.proto",
            }),
        );
        let args = [file.to_str().unwrap(), &grpc(server), proto.to_str().unwrap(), service];
        let command = Command::start("node", args);
        let port = next(&command)["port"].as_u64().unwrap();
        let gate = Self { command, url: format!("http://127.0.0.1:{port}") };
        gate.until("open");
        gate
    }

    /// Passes over what happens until this.
    fn until(&self, kind: &str) -> Value {
        loop {
            let line = next(&self.command);
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// The next answer to the server: its message and kind.
    fn answer(&self) -> (Value, Value) {
        let mut answer = self.until("answer");
        let message = answer["message"].take();
        (message["msg"].clone(), message["messageType"].clone())
    }

    /// Logs a user in.
    fn user(&self, args: &[&str]) -> Command {
        let file = script("gate_user.mjs");
        let user = Command::start("node", [&[file.to_str().unwrap(), &self.url], args].concat());
        let hello = next(&user);
        let said = json!({ "version": "0.0.7", "refused": 501, "user": args[0] });
        assert_eq!(hello, said);
        user
    }

    fn logout(&self, user: Command) {
        drop(user);
        self.until("logout");
    }
}

fn next(command: &Command) -> Value {
    let line = command.line();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// Takes the seconds that are left out of a message that comes again.
fn without_expire(mut message: Value) -> Value {
    let expire = message["expire"].take().as_i64().unwrap();
    assert!((500..=600).contains(&expire), "{expire}");
    message
}

fn push(server: &Server, args: &str) -> Vec<String> {
    sent(server, &Language::Node.command("push", args))
}

fn behind_a_gate(service: &str) {
    let mut server = Server::start();
    let gate = Gate::start(&server, service);
    // Nobody is there: the gate says so, the server keeps it.
    assert_eq!(push(&server, r#"21 '{"n":1}' --status"#), ["UNRECEIVED 21 1"]);
    assert_eq!(gate.answer(), (json!(r#"{"n":1}"#), json!(3)));
    let quiet = gate.user(&["21", "quiet"]);
    let waited = json!({
        "msg": r#"{"n":1}"#, "channelId": "21", "msgId": "1", "expire": null, "messageType": "RESPONSE"
    });
    assert_eq!(without_expire(next(&quiet)), waited);
    gate.logout(quiet);
    // It was not acked: it comes again. Then it is acked.
    let user = gate.user(&["21"]);
    assert_eq!(without_expire(next(&user)), waited);
    assert_eq!(gate.answer(), (json!(r#"{"n":1}"#), json!(2)));
    // Live.
    assert_eq!(push(&server, "21 live --status"), ["RECEIVED 21 2"]);
    let live = json!({
        "msg": "live", "channelId": "21", "msgId": "2", "expire": 600, "messageType": "REQUEST"
    });
    assert_eq!(next(&user), live);
    gate.logout(user);
    push(&server, "21 'while away'");
    assert_eq!(gate.answer(), (json!("while away"), json!(3)));
    // Only what was not acked comes at the next login, also after a crash of the server.
    server.kill9();
    gate.until("lost");
    server.restart();
    gate.until("open");
    let user = gate.user(&["21"]);
    assert_eq!(next(&user)["msg"], "while away");
    assert_eq!(push(&server, "21 last --status"), ["RECEIVED 21 4"]);
    assert_eq!(next(&user)["msg"], "last");
    gate.logout(user);
    let user = gate.user(&["21"]);
    assert_eq!(push(&server, "21 marker --status"), ["RECEIVED 21 5"]);
    assert_eq!(next(&user)["msg"], "marker", "nothing that was acked comes again");
    println!(
        "mikudos-socketio-client 0.0.7, socket.io 2: login, ack, offline, live, over a crash ({service})"
    );
}

#[test]
fn mikudos_users_behind_a_gate() {
    behind_a_gate("MessagePusher");
}

#[test]
fn mikudos_users_behind_a_gate_with_the_old_name() {
    behind_a_gate("Message_pusher");
}
