//! The wire protos: what is generated from them is current, the program hands them out, and the stock tools of other
//! languages take them and find what prost's descriptors say.

mod generated;

use crate::clients::{python, run};
use clarion_tests::{Command, Server, raw};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/protos").join(name)
}

/// Runs `clarion proto` with these arguments: exit code, standard output, standard error.
fn clarion_proto(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::clarion([&["proto"], args].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_prints_every_file() {
    let folder = generated::proto_folder();
    let names = generated::proto_files(&folder);
    assert_eq!(clarion_proto(&[]), (Some(0), names.join("\n") + "\n", String::new()));
    for name in &names {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(clarion_proto(&[name]), (Some(0), text, String::new()));
    }
    for (short, name) in [("push", "push.proto"), ("clarion.proto", "clarion/v1/clarion.proto")] {
        assert_eq!(clarion_proto(&[short]), clarion_proto(&[name]));
    }
    let (code, out, err) = clarion_proto(&["pusher"]);
    assert_eq!((code, &*out), (Some(64), ""));
    assert!(names.iter().all(|name| err.contains(&**name)), "{err}");
}

#[test]
fn the_server_gives_every_file() {
    let folder = generated::proto_folder();
    let server = Server::start();
    let get = |name: &str| {
        let request = raw::request("GET", &format!("/proto/{name}"), server.addr(), "", b"");
        raw::exchange(server.addr(), &request).expect("an answer")
    };
    for name in generated::proto_files(&folder) {
        let text = fs::read(folder.join(&name)).unwrap();
        for given in [name.clone(), name.replace('/', "%2F")] {
            let answer = get(&given);
            assert_eq!(answer.status, 200, "{given}");
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert!(answer.body == text, "{given}");
        }
    }
    for unknown in ["x", "clarion/v1/push.proto", "clarion/v1", "..%2Fpush.proto", ""] {
        let answer = get(unknown);
        assert_eq!((answer.status, &answer.json()["name"]), (404, &"not_found".into()));
    }
}

/// What a script printed: `PATH CLIENT_STREAMS SERVER_STREAMS` of each method, then the number of files.
#[track_caller]
fn assert_methods(out: &str) {
    let mut lines: Vec<&str> = out.lines().collect();
    let files = generated::proto_files(&generated::proto_folder()).len();
    assert_eq!(lines.pop(), Some(&*format!("{files} files")), "{out}");
    let count = lines.len();
    let found: BTreeSet<String> = lines.into_iter().map(Into::into).collect();
    assert_eq!(found, generated::methods());
    assert_eq!(count, found.len(), "each once");
    for known in [
        "/clarion.v1.Clarion/Subscribe true true",
        "/message_deliver.MessageDeliver/MessageReceived false false",
        "/message_pusher.MessagePusher/GateStream true true",
        "/message_pusher.Message_pusher/PushToChannel false false",
        "/MessageSync/PushMessageStream false true",
    ] {
        assert!(found.contains(known), "{known}");
    }
}

#[test]
fn python_makes_stubs_of_every_file() {
    let (file, folder) = (script("stubs.py"), generated::proto_folder());
    let args = [file.to_str().unwrap(), folder.to_str().unwrap()];
    assert_methods(&run(&python("python"), &args));
}

#[test]
fn node_loads_every_file() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("js/node_modules/@grpc/proto-loader");
    assert!(
        modules.exists(),
        "the package @grpc/proto-loader is absent: run ./test.sh, or npm --prefix crates/clarion-tests/js ci"
    );
    let (file, folder) = (script("load.mjs"), generated::proto_folder());
    let args = [file.to_str().unwrap(), folder.to_str().unwrap()];
    assert_methods(&run(Path::new("node"), &args));
}
