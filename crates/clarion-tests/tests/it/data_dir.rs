//! Data directories, ports and configurations that a server cannot start with, and what it says then.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
};

use clarion_tests::{Builder, Command, FailedStart, Server, raw, target_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

const CANNOT_CREATE: i32 = 73;
const UNREADABLE: i32 = 74;

fn temp_dir() -> TempDir {
    let tmp = target_dir().join("tmp");
    fs::create_dir_all(&tmp).unwrap();
    tempfile::Builder::new().prefix("data-dir-").tempdir_in(tmp).unwrap()
}

fn fail(builder: Builder) -> FailedStart {
    let failed = builder.try_start().expect_err("it must not start");
    assert_calm(&failed.stderr);
    failed
}

/// Words for people, nothing of the program's insides.
fn assert_calm(stderr: &str) {
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", "unwrap()"] {
        assert!(!stderr.contains(word), "{stderr}");
    }
}

fn assert_fails(builder: Builder, code: i32, words: &[&str]) {
    let failed = fail(builder);
    assert_eq!(failed.status.code(), Some(code), "{}", failed.stderr);
    for word in words {
        assert!(failed.stderr.contains(word), "{word:?} is not in: {}", failed.stderr);
    }
}

fn with_data(dir: &Path) -> Builder {
    Server::builder().data(dir)
}

fn publish(server: &Server, address: &str, text: &str) -> u16 {
    let body = json!({"address": address, "text": text}).to_string();
    let headers = "content-type: application/json\r\n";
    let at = server.addr();
    let request = raw::request("POST", "/api/v1/publish", at, headers, body.as_bytes());
    raw::exchange(at, &request).unwrap().status
}

fn read(server: &Server, address: &str, after: u64) -> raw::Answer {
    let target = format!("/api/v1/channels/{address}/messages?limit=1000&after={after}");
    raw::exchange(server.addr(), &raw::request("GET", &target, server.addr(), "", b"")).unwrap()
}

#[test]
fn places_where_no_directory_can_be() {
    let dir = temp_dir();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    assert_fails(with_data(&file), CANNOT_CREATE, &["data directory", "file"]);
    assert_fails(with_data(&file.join("below")), CANNOT_CREATE, &["data directory"]);
    assert_fails(with_data(Path::new("/proc/clarion")), CANNOT_CREATE, &["/proc/clarion"]);
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

/// A server that may not write where the mode forbids it, also when root runs the tests.
fn without_privilege(dir: &Path) -> PathBuf {
    let script = dir.join("clarion");
    let drop = "setpriv --bounding-set=-dac_override,-dac_read_search,-fowner --";
    let text = format!(
        "#!/bin/sh\nif [ \"$(id -u)\" = 0 ]; then exec {drop} '{0}' \"$@\"; else exec '{0}' \"$@\"; fi\n",
        clarion_tests::binary().display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    script
}

#[test]
fn a_directory_that_cannot_be_written() {
    let dir = temp_dir();
    let binary = without_privilege(dir.path());
    let read_only = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        path
    };
    let empty = read_only("empty");
    let start = |data: &Path| with_data(data).binary(&binary);
    assert_fails(start(&empty), CANNOT_CREATE, &["empty", "cannot be made or written to"]);
    assert_fails(start(&empty.join("data")), CANNOT_CREATE, &["cannot be made or written to"]);
    // One that was written before.
    let mut server = with_data(&dir.path().join("used")).start();
    assert_eq!(publish(&server, "user:a", "t"), 200);
    assert_eq!(server.terminate().code(), Some(0));
    let used = read_only("used");
    fs::set_permissions(used.join("db"), fs::Permissions::from_mode(0o555)).unwrap();
    for file in ["LOCK", "FORMAT"] {
        fs::set_permissions(used.join(file), fs::Permissions::from_mode(0o444)).unwrap();
    }
    assert_fails(start(&used), CANNOT_CREATE, &["used", "cannot be made or written to"]);
    for path in [&used, &used.join("db"), &empty] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for file in ["LOCK", "FORMAT"] {
        fs::set_permissions(used.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let server = start(&used).start();
    assert_eq!(read(&server, "user:a", 0).json()["messages"][0]["text"], "t");
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = temp_dir();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    assert_fails(with_data(dir.path()), CANNOT_CREATE, &["thesis.txt", "not empty"]);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let data = dir.path().to_str().unwrap();
    let output = Command::clarion(["inspect", "--data", data]);
    assert_eq!(output.status.code(), Some(CANNOT_CREATE));
    assert_calm(&String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_newer_format_is_told() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let mut server = with_data(&data).start();
    assert_eq!(publish(&server, "user:a", "t"), 200);
    assert_eq!(server.terminate().code(), Some(0));
    let format = fs::read_to_string(data.join("FORMAT")).unwrap();
    fs::write(data.join("FORMAT"), format.replace("format 1\n", "format 2\n")).unwrap();
    assert_fails(with_data(&data), UNREADABLE, &["format 2", "up to 1"]);
    fs::write(data.join("FORMAT"), &format).unwrap();
    let server = with_data(&data).start();
    assert_eq!(read(&server, "user:a", 0).json()["messages"][0]["text"], "t");
}

#[test]
fn a_directory_in_use_is_refused_to_others() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let server = with_data(&data).start();
    assert_eq!(publish(&server, "user:a", "t"), 200);
    let pid = format!("process {}", server.pid());
    assert_fails(with_data(&data), CANNOT_CREATE, &["in use", &pid]);
    let output = Command::clarion(["inspect", "--data", data.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(CANNOT_CREATE), "{stderr}");
    assert!(stderr.contains("in use") && stderr.contains(&pid), "{stderr}");
    assert_calm(&stderr);
    // The first one never noticed.
    assert_eq!(publish(&server, "user:a", "u"), 200);
    assert_eq!(read(&server, "user:a", 0).json()["messages"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_busy_port_is_told_by_its_key() {
    let server = Server::start();
    let at = server.addr().to_string();
    let words = ["listeners.http.bind", &at, "is busy"];
    assert_fails(Server::builder().set("listeners.http.bind", &at), 69, &words);
    assert_eq!(publish(&server, "user:a", "t"), 200);
    assert_fails(
        Server::builder()
            .set("listeners.http.bind", "192.0.2.1:0")
            .set("listeners.http.auth", "none")
            .set("listeners.http.allow_from", "192.0.2.0/24"),
        69,
        &["listeners.http.bind", "no address of this machine"],
    );
}

#[test]
fn a_bind_beyond_loopback_needs_trust() {
    for bind in ["0.0.0.0:0", "[::]:0", "192.168.1.1:0"] {
        let failed = fail(Server::builder().set("listeners.http.bind", bind));
        assert_eq!(failed.status.code(), Some(64), "{}", failed.stderr);
        for word in ["listeners.http", "auth", "allow_from"] {
            assert!(failed.stderr.contains(word), "{word} is not in: {}", failed.stderr);
        }
    }
    let trusted = Server::builder().set("listeners.http.bind", "0.0.0.0:0");
    let server = trusted.set("listeners.http.allow_from", "127.0.0.0/8").start();
    let at = format!("127.0.0.1:{}", server.addr().port()).parse().unwrap();
    let answer = raw::exchange(at, &raw::request("GET", "/readyz", at, "", b"")).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn all_problems_of_a_configuration_are_told_at_once() {
    let dir = temp_dir();
    let file = dir.path().join("clarion.yaml");
    let text = "limits:\n  payload_byte: 1\n  connections: many\n  head_timeout: 5\nlisteners:\n  \
                http: {bind: here, speaks: [smtp]}\nauth:\n  keys: [{name: a, sha256: zz, allow: [fly]}]\n\
                nonsense: true\n";
    fs::write(&file, text).unwrap();
    let builder = Server::builder().arg("--config").arg(file.to_str().unwrap());
    let builder = builder.set("listeners.http.bind", "127.0.0.1:0").set("store.kind", "paper");
    let builder = builder.env("CLARION_LIMITS__STREAMS", "-1");
    let words = [
        "limits.payload_byte",
        "limits.connections",
        "limits.head_timeout",
        "listeners.http.speaks",
        "sha256",
        "fly",
        "nonsense",
        "store.kind",
        "limits.streams",
        "problems",
    ];
    assert_fails(builder, 64, &words);
    let not_yaml = dir.path().join("bad.yaml");
    fs::write(&not_yaml, "a: [b\n\tc").unwrap();
    for file in [&not_yaml, &dir.path().join("missing.yaml")] {
        let builder = Server::builder().arg("--config").arg(file.to_str().unwrap());
        assert_fails(builder, 64, &[file.file_name().unwrap().to_str().unwrap()]);
    }
}

#[test]
fn the_file_of_a_mikudos_server_starts_in_its_place() {
    let dir = temp_dir();
    let file = dir.path().join("config.yaml");
    let text = "port: 50051\nmode: group\nstorageType: redis\nredisSource: {\"node1:1\": \"tcp@localhost:6379\"}\n\
                mySQLSource: {}\n";
    fs::write(&file, text).unwrap();
    let builder = || Server::builder().arg("--mikudos-config").arg(file.to_str().unwrap());
    assert_fails(builder(), 64, &["storageType", "--set store.kind=embedded"]);
    let server = builder().set("store.kind", "embedded").set("log.level", "info").start();
    assert_eq!(server.listeners(), ["grpc", "http"]);
    assert_eq!(publish(&server, "user:a", "t"), 200);
    let (out, log) = (server.stdout(), server.stderr());
    assert!(out.contains("To open grpc to other machines: --set listeners.grpc.bind="), "{out}");
    for key in ["storageType redis", "redisSource", "mySQLSource"] {
        let told = format!("{key} is ignored");
        assert_eq!(log.matches(&told).count(), 1, "{told}: {log}");
    }
    fs::write(&file, "mode: all\n").unwrap();
    assert_fails(builder(), 64, &["mode", "unify, group, every", "config.yaml:1"]);
    fs::remove_file(&file).unwrap();
    assert_fails(builder(), 64, &["config.yaml", "cannot be opened"]);
}

// Damage ---------------------------------------------------------------------------------------------------------------

const CHANNELS: [&str; 3] = ["user:a", "queue:b", "all"];
const EACH: u64 = 400;

/// A directory with tables, files of large bodies and a journal, closed or killed.
fn filled(data: &Path, clean: bool) {
    let mut server = small_tables(with_data(data)).start();
    let at = server.addr();
    for from in (0..EACH).step_by(50) {
        let messages: Vec<Value> = CHANNELS
            .iter()
            .flat_map(|address| {
                (from..from + 50).map(move |n| json!({"address": address, "text": text(n)}))
            })
            .collect();
        let body = json!({ "messages": messages }).to_string();
        let headers = "content-type: application/json\r\n";
        let request = raw::request("POST", "/api/v1/publish/batch", at, headers, body.as_bytes());
        let answer = raw::exchange(at, &request).unwrap().json();
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["durability"] == "disk"), "{answer}");
    }
    if clean {
        assert_eq!(server.terminate().code(), Some(0));
    } else {
        server.kill9();
    }
}

fn small_tables(builder: Builder) -> Builder {
    builder
        .set("store.memtable_bytes", "1MiB")
        .set("store.small_memtable_bytes", "1MiB")
        .set("store.separate_bytes", "1KiB")
}

fn text(n: u64) -> String {
    // Every third one is large.
    format!("{n} {}", "x".repeat(if n.is_multiple_of(3) { 4000 } else { 100 }))
}

fn files_below(dir: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.insert(path);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    FlipFirst,
    FlipMiddle,
    FlipLast,
    CutHalf,
    Empty,
    Gone,
}

const DAMAGES: [Damage; 6] = [
    Damage::FlipFirst,
    Damage::FlipMiddle,
    Damage::FlipLast,
    Damage::CutHalf,
    Damage::Empty,
    Damage::Gone,
];

/// Damages a file; `false` when it has nothing to damage so.
fn damage(path: &Path, how: Damage) -> bool {
    let size = fs::metadata(path).unwrap().len();
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let flip = |at: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], at).unwrap();
    };
    match how {
        _ if size == 0 => return false,
        Damage::FlipFirst => flip(0),
        Damage::FlipMiddle => flip(size / 2),
        Damage::FlipLast => flip(size - 1),
        Damage::CutHalf => file.set_len(size / 2).unwrap(),
        Damage::Empty => drop(File::create(path).unwrap()),
        Damage::Gone => fs::remove_file(path).unwrap(),
    }
    true
}

/// What became of a start on a damaged directory, if it is not as it should be.
fn complaint(data: &Path, may_be_unfinished: bool) -> Option<String> {
    let server = match small_tables(with_data(data)).try_start() {
        Err(failed) => {
            let calm = !failed.stderr.contains("panicked") && failed.stderr.contains("clarion: ");
            let right = failed.status.code() == Some(UNREADABLE) && calm;
            return (!right).then(|| format!("{}: {}", failed.status, failed.stderr));
        }
        Ok(server) => server,
    };
    for address in CHANNELS {
        let answer = read(&server, address, 0);
        if matches!(answer.status, 500 | 503) {
            // Told, not hidden.
            continue;
        }
        let page = answer.json();
        let found: Vec<&str> =
            page["messages"].as_array()?.iter().filter_map(|m| m["text"].as_str()).collect();
        let expected: Vec<String> = (0..EACH).map(text).collect();
        // After a kill the end of a journal that is not whole is what an unfinished write leaves behind: it is taken
        // for one.
        let unfinished = may_be_unfinished && expected.iter().zip(&found).all(|(a, b)| a == b);
        if found != expected && !(unfinished && found.len() < expected.len()) {
            let (found, last) = (found.len(), &page["last"]);
            return Some(format!("it starts and has {found} of {EACH} in {address}, last {last}"));
        }
    }
    let stderr = server.stderr();
    stderr.contains("panicked").then_some(stderr)
}

fn damage_everything(clean: bool) {
    let dir = temp_dir();
    let original = dir.path().join("original");
    filled(&original, clean);
    let mut files = BTreeSet::new();
    files_below(&original, &mut files);
    assert!(files.len() > 10, "{files:?}");
    let mut complaints = Vec::new();
    let mut tried = 0;
    for file in &files {
        let name = file.strip_prefix(&original).unwrap();
        for how in DAMAGES {
            let data = dir.path().join("damaged");
            copy(&original, &data);
            if damage(&data.join(name), how) {
                tried += 1;
                let journal = name.extension().is_some_and(|extension| extension == "jnl");
                let found = complaint(&data, journal && !clean);
                complaints.extend(found.map(|what| format!("{} {how:?}: {what}", name.display())));
            }
            fs::remove_dir_all(&data).unwrap();
        }
    }
    println!("{tried} damages to {} files", files.len());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn damage_after_a_clean_end_is_told_or_healed() {
    damage_everything(true);
}

#[test]
fn damage_after_a_kill_is_told_or_healed() {
    damage_everything(false);
}
