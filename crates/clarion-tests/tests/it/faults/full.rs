//! A file system that really fills up: a small one in memory, in a mount namespace that ends with the server.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
};

use clarion_tests::{
    Server, binary,
    raw::{self, Answer},
    target_dir,
};
use serde_json::{Value, json};

use super::{assert_no_panic, get, history, publish};

const PUBLISHERS: usize = 4;
const BATCH: usize = 9;
const TEXT_BYTES: usize = 800_000;

/// Mounts 600 MB, puts 150 MB of ballast there, and becomes the server.
const SCRIPT: &str = r#"#!/bin/sh
[ "$(id -u)" = 0 ] || own="--user --map-root-user"
exec unshare $own --mount sh -ec '
mount -t tmpfs -o size=600m tmpfs "$SMALL_DISK"
head -c 150000000 /dev/zero > "$SMALL_DISK/ballast"
exec setpriv --pdeathsig KILL -- "$SMALL_DISK_SERVER" "$@"' sh "$@"
"#;

fn start(dir: &Path) -> Server {
    let (script, disk) = (dir.join("server"), dir.join("disk"));
    fs::write(&script, SCRIPT).expect("a new folder");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("a new file");
    fs::create_dir(&disk).expect("a new folder");
    let text = |path: &Path| path.to_str().expect("text").to_owned();
    Server::builder()
        .binary(&script)
        .data(&disk.join("data"))
        .env("SMALL_DISK", &text(&disk))
        .env("SMALL_DISK_SERVER", &text(binary()))
        .start()
}

/// Text that does not compress to nothing.
fn filler(mut seed: u64) -> String {
    let mut text = String::with_capacity(TEXT_BYTES + 16);
    while text.len() < TEXT_BYTES {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:011x}", seed >> 20));
    }
    text
}

fn publish_batch(at: SocketAddr, address: &str, first: usize, filler: &str) -> Answer {
    let message = |n: usize| json!({"address": address, "text": format!("{n} {filler}")});
    let messages: Vec<Value> = (first..first + BATCH).map(message).collect();
    let body = json!({ "messages": messages }).to_string();
    let headers = "content-type: application/json\r\n";
    let request = raw::request("POST", "/api/v1/publish/batch", at, headers, body.as_bytes());
    raw::exchange(at, &request).expect("an answer")
}

/// Publishes until something is refused, which must be because the disk is full. Returns seqs and numbers.
fn fill(at: SocketAddr, address: &str, filler: &str) -> Vec<(u64, usize)> {
    let mut acked = Vec::new();
    for first in (0..).step_by(BATCH) {
        let answer = publish_batch(at, address, first, filler);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let results = answer["results"].as_array().expect("results");
        assert_eq!(results.len(), BATCH);
        for (n, result) in results.iter().enumerate() {
            if let Some(seq) = result["seq"].as_u64() {
                acked.push((seq, first + n));
                continue;
            }
            let error = result["error"].as_object().expect("an error");
            assert_eq!((&error["name"], &error["retry"]), (&json!("store_full"), &json!(true)));
        }
        if acked.len() < first + BATCH {
            return acked;
        }
    }
    unreachable!("the disk is small")
}

fn assert_all_there(at: SocketAddr, address: &str, acked: &[(u64, usize)]) {
    let found: Vec<(u64, usize)> = history(at, address)
        .into_iter()
        .map(|(seq, text)| {
            let number = text.split(' ').next().expect("a number");
            (seq, number.parse().expect("a number"))
        })
        .collect();
    assert_eq!(found, acked, "{address}");
}

#[test]
fn a_disk_that_fills_up_refuses_publishes_until_there_is_room_again() {
    let tmp = target_dir().join("tmp");
    fs::create_dir_all(&tmp).expect("the target directory is writable");
    let dir = tempfile::Builder::new().prefix("full-").tempdir_in(&tmp);
    let dir = dir.expect("the target directory is writable");
    let path = dir.path().canonicalize().expect("it exists");
    let server = start(&path);
    let at = server.addr();
    let addresses: Vec<String> = (0..PUBLISHERS).map(|n| format!("queue:full{n}")).collect();
    let filler = filler(1);
    let acked: Vec<Vec<(u64, usize)>> = thread::scope(|scope| {
        let threads: Vec<_> =
            addresses.iter().map(|address| scope.spawn(|| fill(at, address, &filler))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let total: usize = acked.iter().map(Vec::len).sum();
    println!("{total} messages of {TEXT_BYTES} bytes until the disk was full");
    assert!(total > 50, "it was full at once");
    let refused = publish(at, "user:full", "t");
    let problem = refused.json();
    assert_eq!((refused.status, &problem["name"]), (507, &json!("store_full")), "{problem}");
    assert_eq!(problem["retry"], json!(true), "{problem}");
    assert_eq!(get(at, "/readyz").status, 200);
    for (address, acked) in addresses.iter().zip(&acked) {
        assert_all_there(at, address, acked);
    }
    let disk = Path::new("/proc").join(server.pid().to_string()).join("root");
    let ballast = path.join("disk/ballast");
    let ballast = disk.join(ballast.strip_prefix("/").expect("it is absolute"));
    fs::remove_file(ballast).expect("the server's disk has ballast");
    assert_eq!(publish(at, "user:full", "room again").status, 200);
    let more = fill(at, "queue:more", &filler);
    assert!(more.len() > 20, "the room of the ballast was used: {}", more.len());
    assert_all_there(at, "queue:more", &more);
    assert_all_there(at, &addresses[0], &acked[0]);
    assert_eq!(get(at, "/readyz").status, 200);
    assert_no_panic(&server);
}
