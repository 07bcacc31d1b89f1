//! A disk that is slow, fails, is full, or forgets what was not synced.
//!
//! The server runs with a library preloaded (`shim/faults.c`) that stands between it and its files; the tests switch
//! faults on and off while it runs and read its counters. Must not know: the store's files, save that they lie in the
//! data directory.

mod full;
pub(crate) mod power;
pub(crate) mod shim;

use std::{
    net::SocketAddr,
    sync::{
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use clarion_tests::{
    Server,
    raw::{self, Answer, Connection},
    wait_for,
};
use serde_json::{Value, json};
use shim::{Shim, Word};

const EIO: u64 = 5;
const ENOSPC: u64 = 28;

fn publish_request(at: SocketAddr, address: &str, text: &str) -> Vec<u8> {
    let body = json!({"address": address, "text": text}).to_string();
    raw::request(
        "POST",
        "/api/v1/publish",
        at,
        "content-type: application/json\r\n",
        body.as_bytes(),
    )
}

fn publish(at: SocketAddr, address: &str, text: &str) -> Answer {
    raw::exchange(at, &publish_request(at, address, text)).expect("an answer")
}

fn get(at: SocketAddr, target: &str) -> Answer {
    raw::exchange(at, &raw::request("GET", target, at, "", b"")).expect("an answer")
}

/// All texts of a channel with their seqs.
fn history(at: SocketAddr, address: &str) -> Vec<(u64, String)> {
    let mut found: Vec<(u64, String)> = Vec::new();
    loop {
        let after = found.last().map_or(0, |(seq, _)| *seq);
        let target = format!("/api/v1/channels/{address}/messages?after={after}&limit=1000");
        let page = get(at, &target);
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let messages = page["messages"].as_array().expect("messages");
        found.extend(messages.iter().map(|message| {
            let text = message["text"].as_str().expect("a text").to_owned();
            (message["seq"].as_u64().expect("a seq"), text)
        }));
        if page["next"] == Value::Null {
            return found;
        }
    }
}

/// Publishes that must succeed; returns what `history` must have at least.
fn publish_all(
    at: SocketAddr,
    address: &str,
    texts: impl Iterator<Item = String>,
) -> Vec<(u64, String)> {
    let acked = texts.map(|text| {
        let answer = publish(at, address, &text);
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!(answer["durability"], "disk", "{answer}");
        (answer["seq"].as_u64().expect("a seq"), text)
    });
    acked.collect()
}

fn assert_refused(answer: &Answer, names: &[&str]) {
    let problem = answer.json();
    let name = problem["name"].as_str().expect("a name");
    assert!(names.contains(&name), "{problem}");
    assert!(matches!(answer.status, 503 | 507), "{problem}");
    assert_eq!(problem["retry"], true, "{problem}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

fn assert_no_panic(server: &Server) {
    let stderr = server.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// The texts that a stream gives until it gave `count`.
fn stream_texts(at: SocketAddr, query: &str, count: usize) -> Vec<String> {
    let mut stream = Connection::open(at).expect("a connection");
    let request = format!("GET /api/v1/stream?{query} HTTP/1.1\r\nhost: {at}\r\n\r\n");
    stream.send(request.as_bytes()).expect("sent");
    let head = stream.head().expect("a head");
    assert_eq!(head.status, 200, "{head:?}");
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    let (mut texts, mut lines) = (Vec::new(), Vec::new());
    while texts.len() < count {
        let chunk = stream.chunk().expect("a chunk");
        assert!(!chunk.is_empty(), "the stream ended after {texts:?}");
        lines.extend(chunk);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else { continue };
            let event: Value = serde_json::from_slice(data).expect("JSON");
            texts.push(event["text"].as_str().unwrap_or("not a message").to_owned());
        }
    }
    texts
}

#[test]
fn the_shim_stands_between_the_server_and_its_files() {
    let shim = Shim::new();
    let server = shim.start();
    assert_eq!(publish(server.addr(), "user:a", "t").status, 200);
    for counted in [Word::Syncs, Word::SyncsDone, Word::Writes, Word::Others] {
        assert!(shim.get(counted) > 0, "{counted:?} was never counted");
    }
    let other = Shim::new();
    let server = other.builder_without_preload().start();
    assert_eq!(publish(server.addr(), "user:a", "t").status, 200);
    for counted in [Word::Syncs, Word::SyncsDone, Word::Writes, Word::Others] {
        assert_eq!(other.get(counted), 0, "{counted:?} was counted without the shim");
    }
}

#[test]
fn no_answer_comes_before_the_sync_that_it_needs() {
    let shim = Shim::new();
    let server = shim.start();
    let at = server.addr();
    assert_eq!(publish(at, "user:slow", "before").status, 200);
    shim.set(Word::SyncDelayMs, 300);
    for text in ["one", "two"] {
        let began = Instant::now();
        let answer = publish(at, "user:slow", text);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    }
    // Those who come together share syncs.
    let before = shim.get(Word::Syncs);
    thread::scope(|scope| {
        for n in 0..64 {
            scope.spawn(move || {
                let began = Instant::now();
                assert_eq!(publish(at, &format!("user:{n}"), "shared").status, 200);
                assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
            });
        }
    });
    let syncs = shim.get(Word::Syncs) - before;
    println!("64 publishes, {syncs} syncs");
    assert!((1..=32).contains(&syncs), "64 publishes took {syncs} syncs");
}

#[test]
fn nothing_is_seen_before_it_is_on_disk() {
    let shim = Shim::new();
    let server = shim.start();
    let at = server.addr();
    assert_eq!(publish(at, "user:seen", "first").status, 200);
    let (told, heard) = mpsc::channel();
    let mut stream = Connection::open(at).expect("a connection");
    let request = "GET /api/v1/stream?address=user:seen HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    stream.send(request.as_bytes()).expect("sent");
    stream.until(b"retry: ").expect("the stream");
    shim.set(Word::SyncHold, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let answer = publish(at, "user:seen", "second");
            // Whoever is told has it, and so has everybody who looks now.
            told.send((answer.status, shim.get(Word::SyncHold))).expect("heard");
        });
        wait_for("the sync", || shim.get(Word::SyncsHeld) > 0);
        assert_eq!(history(at, "user:seen").len(), 1, "read before it was on disk");
        assert!(heard.try_recv().is_err(), "answered before it was on disk");
        shim.set(Word::SyncHold, 0);
        assert_eq!(heard.recv().expect("told"), (200, 0));
    });
    let event = String::from_utf8(stream.until(b"second").expect("the message")).expect("text");
    assert_eq!(event.matches("event: message").count(), 1, "{event}");
    assert_eq!(history(at, "user:seen").len(), 2);
}

#[test]
fn a_failed_sync_ends_all_writing_until_a_restart() {
    let shim = Shim::new();
    let mut server = shim.start();
    let at = server.addr();
    let acked = publish_all(at, "user:eio", (0..30).map(|n| format!("before {n}")));
    // A device of this user, attached before and away since.
    assert_eq!(stream_texts(at, "user=eio&device=d&from=earliest", 30).len(), 30);
    shim.set(Word::SyncErrno, EIO);
    shim.set(Word::SyncFails, 1);
    assert_refused(&publish(at, "user:eio", "lost"), &["store_outcome_unknown"]);
    assert_eq!(shim.get(Word::SyncsFailed), 1, "the fault was not hit");
    // The disk would do it again by now. Nobody asks it to.
    let (syncs, writes) = (shim.get(Word::Syncs), shim.get(Word::Writes));
    for n in 0..20 {
        let answer = publish(at, &format!("user:eio{}", n % 3), "refused");
        assert_refused(&answer, &["store_unavailable"]);
    }
    assert_eq!(shim.get(Word::Syncs), syncs, "a failed sync was tried again");
    assert_eq!(shim.get(Word::Writes), writes, "something was written after a failed sync");
    assert_refused(&get(at, "/readyz"), &["store_unavailable"]);
    assert_eq!(get(at, "/healthz").status, 200);
    // Live messages need no disk.
    let live = raw::request(
        "POST",
        "/api/v1/publish",
        at,
        "content-type: application/json\r\n",
        br#"{"address":"user:eio","text":"live","expire":0}"#,
    );
    assert_eq!(raw::exchange(at, &live).expect("an answer").status, 200);
    // Reads go on: history, a new stream, and the device that comes back.
    assert_eq!(history(at, "user:eio"), acked);
    let texts: Vec<String> = acked.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(stream_texts(at, "address=user:eio&from=earliest", 30), texts);
    assert_eq!(stream_texts(at, "user=eio&device=d&from=earliest", 30), texts);
    server.restart();
    let after = publish_all(at, "user:eio", (0..5).map(|n| format!("after {n}")));
    let found = history(at, "user:eio");
    assert_eq!(&found[..30], acked, "what was acknowledged comes first");
    assert_eq!(&found[found.len() - 5..], after);
    // The one without an answer may be there or not, and nothing else.
    assert!(found.len() <= 36, "{found:?}");
    assert_eq!(get(at, "/readyz").status, 200);
    assert_no_panic(&server);
}

#[test]
fn after_a_failed_sync_a_stop_is_still_a_stop() {
    let shim = Shim::new();
    let mut server = shim.start();
    let at = server.addr();
    let acked = publish_all(at, "user:stop", (0..5).map(|n| n.to_string()));
    shim.set(Word::SyncErrno, EIO);
    shim.set(Word::SyncFails, 1);
    assert_refused(&publish(at, "user:stop", "lost"), &["store_outcome_unknown"]);
    let status = server.terminate();
    assert!(status.code().is_some(), "{status}");
    server.restart();
    assert_eq!(&history(at, "user:stop")[..5], acked);
    assert_no_panic(&server);
}

#[test]
fn a_full_disk_refuses_publishes_and_goes_on_reading() {
    let shim = Shim::new();
    let mut server = shim.start();
    let at = server.addr();
    let acked = publish_all(at, "user:full", (0..30).map(|n| format!("before {n}")));
    shim.set(Word::WriteErrno, ENOSPC);
    for n in 0..20 {
        let answer = publish(at, "user:full", &format!("refused {n}"));
        assert_refused(&answer, &["store_outcome_unknown", "store_unavailable", "store_full"]);
    }
    assert!(shim.get(Word::WritesFailed) > 0, "the fault was not hit");
    assert_eq!(history(at, "user:full"), acked);
    let texts: Vec<String> = acked.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(stream_texts(at, "address=user:full&from=earliest", 30), texts);
    assert_eq!(get(at, "/healthz").status, 200);
    // Room again: at the latest after a restart all is well.
    shim.set(Word::WriteErrno, 0);
    server.restart();
    let after = publish_all(at, "user:full", (0..5).map(|n| format!("after {n}")));
    let found = history(at, "user:full");
    assert_eq!(&found[..30], acked);
    assert_eq!(&found[found.len() - 5..], after);
    assert_no_panic(&server);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_told() {
    let shim = Shim::new();
    let mut server = shim.start();
    let acked = publish_all(server.addr(), "user:start", (0..5).map(|n| n.to_string()));
    server.kill9();
    shim.set(Word::WriteErrno, ENOSPC);
    // It may start, and refuse; or say why it does not.
    if let Err(status) = server.try_restart() {
        assert!(matches!(status.code(), Some(73 | 74)), "{status}");
        let stderr = server.stderr();
        assert!(stderr.contains("No space left on device"), "{stderr}");
    } else {
        let answer = publish(server.addr(), "user:start", "refused");
        assert_refused(&answer, &["store_outcome_unknown", "store_unavailable", "store_full"]);
    }
    shim.set(Word::WriteErrno, 0);
    server.restart();
    assert_eq!(history(server.addr(), "user:start"), acked);
    assert_no_panic(&server);
}

#[test]
fn too_little_free_space_refuses_publishes_only() {
    let server = Server::builder().set("store.min_free_bytes", "1000000TiB").start();
    let at = server.addr();
    assert_refused(&publish(at, "user:room", "t"), &["store_full"]);
    assert_eq!(history(at, "user:room"), []);
    assert_eq!(get(at, "/readyz").status, 200);
    assert_no_panic(&server);
}

#[test]
fn a_slow_disk_is_answered_with_overloaded_and_bounded_memory() {
    const WORKERS: usize = 8;
    const REQUESTS: u64 = 300;
    let shim = Shim::new();
    let server = shim
        .builder()
        .set("limits.commit_queue_messages", "4")
        .set("limits.batch_messages", "4")
        .set("limits.commit_queue_bytes", "1MiB")
        .start();
    let at = server.addr();
    assert_eq!(publish(at, "user:slow", "warm").status, 200);
    let before = server.peak_rss_kib();
    let text = "x".repeat(900 << 10);
    let (tickets, refused, stored) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    shim.set(Word::SyncHold, 1);
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while tickets.fetch_add(1, SeqCst) < REQUESTS {
                    let answer = publish(at, "user:slow", &text);
                    if answer.status == 200 {
                        stored.fetch_add(1, SeqCst);
                    } else {
                        assert_refused(&answer, &["overloaded"]);
                        refused.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        // Those that were taken in wait, each holding one worker; all others were told at once.
        let bound = REQUESTS - WORKERS as u64;
        wait_for("the refusals", || refused.load(SeqCst) > bound);
        let grown = server.peak_rss_kib().saturating_sub(before);
        println!("{} refused while the disk hung, +{grown} KiB", refused.load(SeqCst));
        assert!(grown < 100 << 10, "{grown} KiB for {REQUESTS} publishes of 900 KiB");
        assert_eq!(stored.load(SeqCst), 0, "answered before the sync");
        shim.set(Word::SyncHold, 0);
    });
    assert!(stored.load(SeqCst) > 0);
    let found = history(at, "user:slow").len() as u64;
    assert_eq!(found, 1 + stored.load(SeqCst), "what was refused was not stored");
    assert_eq!(publish(at, "user:slow", "well again").status, 200);
    assert_no_panic(&server);
}
