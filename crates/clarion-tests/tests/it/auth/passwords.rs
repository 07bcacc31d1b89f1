//! The password file: `clarion passwd` writes it, clients show what stands in it, SIGHUP reads it again.

use super::{basic, clarion, folder, get, publish, reload, text};
use crate::clients::{python, run};
use clarion_tests::{Command, Server, binary};
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{self, Stdio},
};

fn start(file: &Path) -> Server {
    Server::builder()
        .set("listeners.http.auth", "required")
        .set("listeners.grpc.auth", "required")
        .set("auth.password_file", text(file))
        .start()
}

fn set(file: &Path, user: &str, password: &str) {
    clarion(&["passwd", text(file), user, "-b", password]);
}

#[test]
fn users_with_passwords_come_in() {
    let dir = folder();
    let file = dir.path().join("passwords");
    set(&file, "alice", "se:cret");
    set(&file, "bob", "other");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let server = start(&file);
    let alice = basic("alice", "se:cret");
    for _ in 0..3 {
        assert_eq!(publish(&server, &alice, "user:alice"), "ok");
    }
    assert_eq!(publish(&server, &alice, "user:bob"), "forbidden");
    assert_eq!(publish(&server, &alice, "topic:a"), "ok");
    for (user, password) in [("alice", "other"), ("bob", "se:cret"), ("carol", "x"), ("alice", "")]
    {
        assert_eq!(publish(&server, &basic(user, password), "user:alice"), "unauthenticated");
    }
    for auth in ["", "Basic", "Basic !", "Basic YWxpY2U=", "Bearer se:cret", "Negotiate x"] {
        assert_eq!(publish(&server, auth, "user:alice"), "unauthenticated", "{auth}");
    }
    // Clients that others wrote.
    let target = format!("{}/api/v1/channels/user:alice/messages", server.url());
    let shown = |user: &str| {
        let format = ["-sS", "-o", "body", "-w", "%{http_code}", "-u", user, &target];
        run(Path::new("curl"), &format)
    };
    assert_eq!((shown("alice:se:cret"), shown("alice:x")), ("200".into(), "401".into()));
    let script = format!(
        "import requests\nfor password in ('se:cret', 'x'):\n    \
         print(requests.get('{target}', auth=('alice', password), timeout=30).status_code)"
    );
    assert_eq!(run(&python("python"), &["-c", &script]), "200\n401\n");
    let stderr = server.stderr();
    assert!(!stderr.contains("cret") && !stderr.contains("argon2"), "{stderr}");
}

#[test]
fn the_file_is_read_again_and_a_broken_one_changes_nothing() {
    let dir = folder();
    let file = dir.path().join("passwords");
    set(&file, "alice", "old");
    let server = start(&file);
    let (old, new) = (basic("alice", "old"), basic("alice", "new"));
    assert_eq!(publish(&server, &old, "user:alice"), "ok");
    set(&file, "alice", "new");
    set(&file, "bob", "his");
    assert_eq!(publish(&server, &new, "user:alice"), "unauthenticated");
    reload(&server, 1, true);
    // The old one was right a moment ago; that is forgotten.
    assert_eq!(publish(&server, &old, "user:alice"), "unauthenticated");
    assert_eq!(publish(&server, &new, "user:alice"), "ok");
    assert_eq!(publish(&server, &basic("bob", "his"), "user:bob"), "ok");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{good}carol:plain-text\n")).unwrap();
    reload(&server, 1, false);
    assert_eq!(publish(&server, &new, "user:alice"), "ok");
    let stderr = server.stderr();
    assert!(stderr.contains("auth.password_file: line 3: "), "{stderr}");
    assert!(!stderr.contains("plain-text"), "{stderr}");
    fs::remove_file(&file).unwrap();
    reload(&server, 2, false);
    assert_eq!(publish(&server, &new, "user:alice"), "ok");
    fs::write(&file, good).unwrap();
    clarion(&["passwd", text(&file), "bob", "--delete"]);
    reload(&server, 2, true);
    assert_eq!(publish(&server, &basic("bob", "his"), "user:bob"), "unauthenticated");
    assert_eq!(get(&server, &new, "/api/v1/channels/user:alice/messages"), "ok");
}

#[test]
fn the_command_reads_a_line_and_refuses_what_cannot_stand() {
    let dir = folder();
    let file = dir.path().join("passwords");
    let mut command = process::Command::new(binary());
    command.args(["passwd", text(&file), "alice"]).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe\n").unwrap();
    assert!(child.wait().unwrap().success());
    let server = start(&file);
    assert_eq!(publish(&server, &basic("alice", "from a pipe"), "user:alice"), "ok");
    for args in [
        &["passwd", text(&file), "nobody", "--delete"][..],
        &["passwd", text(&file), "#x", "-b", "p"],
        &["passwd", text(&file), "", "-b", "p"],
        &["passwd", text(&file), "x", "-b", ""],
        &["passwd", text(&file), "x", "-b", "p", "--delete"],
        &["passwd", text(&file)],
    ] {
        assert_eq!(Command::clarion(args).status.code(), Some(64), "{args:?}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the file");
}
