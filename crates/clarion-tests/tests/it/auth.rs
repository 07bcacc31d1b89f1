//! Who comes in, and what he may do: the same proofs and rules over HTTP and gRPC.
//!
//! `tokens`: JSON Web Tokens that openssl signed · `passwords`: the password file and its command · `rules`: access rules ·
//! `files`: what is read at the start and again at SIGHUP.

mod files;
mod passwords;
mod rules;
mod tokens;

use crate::grpc::{message, path};
use base64::{Engine, prelude::BASE64_STANDARD};
use clarion_tests::{
    Command, Server,
    grpc::{Grpc, framed},
    raw::{self, Answer},
    target_dir, wait_for,
};
use clarion_wire::proto::clarion_v1::PublishResponse;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{fs, path::Path};
use tempfile::TempDir;

fn folder() -> TempDir {
    let tmp = target_dir().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    tempfile::tempdir_in(tmp).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A list of static keys, each of them its own name.
fn keys(names: &[&str]) -> String {
    let key = |name: &&str| {
        let digest = Sha256::digest(name.as_bytes());
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{name: {name}, sha256: {sha256}, allow: [publish, subscribe, read, admin]}}")
    };
    format!("[{}]", names.iter().map(key).collect::<Vec<_>>().join(", "))
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A request with an `Authorization`, or without one when it is empty.
fn http(server: &Server, auth: &str, method: &str, target: &str, body: &str) -> Answer {
    let auth = if auth.is_empty() { String::new() } else { format!("authorization: {auth}\r\n") };
    let headers = format!("{auth}content-type: application/json\r\nconnection: close\r\n");
    let at = server.addr();
    raw::exchange(at, &raw::request(method, target, at, &headers, body.as_bytes())).unwrap()
}

/// The name of the refusal, or `ok`.
fn outcome(answer: &Answer) -> String {
    if answer.status < 300 {
        return "ok".into();
    }
    answer.json()["name"].as_str().unwrap().to_owned()
}

fn get(server: &Server, auth: &str, target: &str) -> String {
    outcome(&http(server, auth, "GET", target, ""))
}

fn publish_http(server: &Server, auth: &str, address: &str) -> String {
    let body = json!({"address": address, "text": "t"}).to_string();
    outcome(&http(server, auth, "POST", "/api/v1/publish", &body))
}

fn metadata(auth: &str) -> Vec<(&'static str, &str)> {
    if auth.is_empty() { Vec::new() } else { vec![("authorization", auth)] }
}

async fn publish_grpc(grpc: &Grpc, auth: &str, address: &str) -> String {
    let request = framed(&message(address, "t"));
    match grpc.call_with::<PublishResponse>(&path("Publish"), &metadata(auth), request).await {
        Ok(_) => "ok".into(),
        Err(status) => status.get("clarion-name").unwrap_or(&status.text).to_owned(),
    }
}

/// What a publish comes to: the same over both.
#[track_caller]
fn publish(server: &Server, auth: &str, address: &str) -> String {
    let http = publish_http(server, auth, address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let grpc = runtime.block_on(async {
        let grpc = Grpc::open(server.listener("grpc")).await;
        publish_grpc(&grpc, auth, address).await
    });
    assert_eq!(http, grpc, "HTTP and gRPC agree on {address}");
    http
}

/// Has the server read its files again and waits until it has said how that went, so many times by now.
fn reload(server: &Server, times: usize, good: bool) {
    let line = if good { "were read again" } else { "stay as they were" };
    server.signal(Signal::HUP);
    wait_for("the server's word about its files", || {
        server.stderr().matches(line).count() == times
    });
}

fn clarion(args: &[&str]) -> String {
    let output = Command::clarion(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
