//! Power loss: what no completed sync covers is taken back from the files before the server starts again.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use clarion_tests::{raw::Connection, wait_for};

use super::{
    assert_no_panic, history, publish, publish_request,
    shim::{Shim, Word},
};

const ROUNDS: usize = 6;
const PUBLISHERS: usize = 8;
const ACKED_PER_ROUND: usize = 1500;

/// What the log says happened, in order; `shim/faults.c` documents its lines.
enum Line {
    Wrote { ino: u64, at: u64, bytes: usize, size: u64, blob: Option<u64> },
    Resized { ino: u64, size: u64 },
    Made(PathBuf),
    Synced { ino: u64, upto: usize },
    SyncedFolder { path: PathBuf, upto: usize },
}

fn parse(line: &str) -> Line {
    let (kind, rest) = line.split_once(' ').expect("a line");
    let numbers = |n: usize| -> Vec<i64> {
        let words = rest.splitn(n, ' ');
        words.map(|word| word.parse().expect("a number")).collect()
    };
    let unsigned = |number: i64| u64::try_from(number).expect("not negative");
    match kind {
        "W" => {
            let n = numbers(5);
            let bytes = usize::try_from(n[2]).expect("a length");
            let (at, size) = (unsigned(n[1]), unsigned(n[3]));
            Line::Wrote { ino: unsigned(n[0]), at, bytes, size, blob: u64::try_from(n[4]).ok() }
        }
        "T" => {
            let n = numbers(3);
            Line::Resized { ino: unsigned(n[0]), size: unsigned(n[1]) }
        }
        "C" => Line::Made(rest.into()),
        "S" => {
            let n = numbers(2);
            Line::Synced { ino: unsigned(n[0]), upto: usize::try_from(n[1]).expect("a line") }
        }
        "D" => {
            let (upto, path) = rest.split_once(' ').expect("two words");
            Line::SyncedFolder { path: path.into(), upto: upto.parse().expect("a line") }
        }
        other => panic!("the log has a line {other}"),
    }
}

fn files_by_number(dir: &Path, found: &mut HashMap<u64, PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("an entry");
        if metadata.is_dir() {
            files_by_number(&entry.path(), found);
        } else {
            found.insert(metadata.ino(), entry.path());
        }
    }
}

/// Puts back what was there before a write.
fn unwrite(file: &File, blobs: &File, at: u64, bytes: usize, size: u64, blob: Option<u64>) {
    let over = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes);
    let mut old = vec![0; over];
    if let Some(blob) = blob {
        blobs.read_exact_at(&mut old, blob).expect("the blob file");
    }
    file.write_all_at(&old, at).expect("a data file");
    if file.metadata().expect("a data file").len() > size {
        file.set_len(size).expect("a data file");
    }
}

/// Takes back, from the last to the first, what no sync covers. Returns how many bytes and names that were.
pub(crate) fn cut_the_power(data: &Path, log: &Path) -> (usize, usize) {
    let text = fs::read_to_string(log).expect("the log");
    let lines: Vec<Line> = text.lines().map(parse).collect();
    let (mut files, mut folders) = (HashMap::new(), HashMap::new());
    for line in &lines {
        match line {
            Line::Synced { ino, upto } => {
                let known = files.entry(*ino).or_insert(0);
                *known = (*upto).max(*known);
            }
            Line::SyncedFolder { path, upto } => {
                let known = folders.entry(path.as_path()).or_insert(0);
                *known = (*upto).max(*known);
            }
            _ => {}
        }
    }
    let mut paths = HashMap::new();
    files_by_number(data, &mut paths);
    let open =
        |ino: &u64| paths.get(ino).and_then(|path| OpenOptions::new().write(true).open(path).ok());
    let blobs = File::open(log.with_extension("blob")).expect("the blob file");
    let (mut lost_bytes, mut lost_names) = (0, 0);
    for (index, line) in lines.iter().enumerate().rev() {
        match line {
            Line::Wrote { ino, at, bytes, size, blob }
                if index >= *files.get(ino).unwrap_or(&0) =>
            {
                if let Some(file) = open(ino) {
                    unwrite(&file, &blobs, *at, *bytes, *size, *blob);
                    lost_bytes += bytes;
                }
            }
            Line::Resized { ino, size } if index >= *files.get(ino).unwrap_or(&0) => {
                if let Some(file) = open(ino) {
                    file.set_len(*size).expect("a data file");
                }
            }
            Line::Made(path) if path.starts_with(data) && path.exists() => {
                let folder = path.parent().expect("it lies in the data directory");
                let named = index < *folders.get(folder).unwrap_or(&0);
                // POSIX wants the folder synced. ext4, xfs and btrfs keep the name of a file that was synced, and
                // the engine relies on it for the files of large bodies.
                let number = fs::metadata(path).expect("it exists").ino();
                if named || index < *files.get(&number).unwrap_or(&0) {
                    continue;
                }
                let removed =
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                removed.expect("a data file");
                lost_names += 1;
            }
            _ => {}
        }
    }
    (lost_bytes, lost_names)
}

/// What was acknowledged: channel, seq, text.
type Acked = Mutex<Vec<(String, u64, String)>>;

/// Publishes one after the other until the connection ends; half to a channel of its own, half to a shared one.
fn publisher(at: std::net::SocketAddr, round: usize, number: usize, acked: &Acked) -> usize {
    let mut connection = Connection::open(at).expect("a connection");
    let padding = "x".repeat(2000);
    for n in 0.. {
        let address =
            if n % 2 == 0 { format!("user:p{number}") } else { "queue:shared".to_owned() };
        let text = format!("{round}-{number}-{n} {padding}");
        if connection.send(&publish_request(at, &address, &text)).is_err() {
            return n;
        }
        let Ok(answer) = connection.answer() else { return n };
        assert_eq!(answer.status, 200, "{answer:?}");
        let seq = answer.json()["seq"].as_u64().expect("a seq");
        acked.lock().expect("no panic").push((address, seq, text));
    }
    unreachable!("publishers end with their connection")
}

#[test]
fn nothing_acknowledged_is_lost_with_the_power() {
    let shim = Shim::new();
    let (data, log) = (shim.path().join("data"), shim.path().join("log"));
    // Small tables, so that they are written out, compacted and switched many times in every round.
    let settings = [
        ("store.memtable_bytes", "1MiB"),
        ("store.small_memtable_bytes", "1MiB"),
        ("store.separate_bytes", "1KiB"),
    ];
    let mut builder = shim.builder().env("CLARION_SHIM_LOG", log.to_str().expect("text"));
    for (key, value) in settings {
        builder = builder.set(key, value);
    }
    let mut server = builder.start();
    let at = server.addr();
    let acked = Acked::default();
    for round in 1..=ROUNDS {
        thread::scope(|scope| {
            let acked = &acked;
            for number in 0..PUBLISHERS {
                scope.spawn(move || publisher(at, round, number, acked));
            }
            let enough = round * ACKED_PER_ROUND;
            wait_for("publishes", || acked.lock().expect("no panic").len() >= enough);
            // The power goes while something is written and not on disk.
            let held = shim.get(Word::SyncsHeld);
            shim.set(Word::SyncHold, 1);
            wait_for("a sync", || shim.get(Word::SyncsHeld) > held);
            server.kill9();
        });
        shim.set(Word::SyncHold, 0);
        let (bytes, names) = cut_the_power(&data, &log);
        assert!(bytes > 0, "the power took nothing");
        server.restart();
        let acked = acked.lock().expect("no panic");
        println!(
            "power, round {round}: {} acknowledged, {bytes} bytes and {names} names lost",
            acked.len()
        );
        assert_all_there(at, &acked);
        assert_no_panic(&server);
    }
}

#[test]
fn the_power_takes_what_was_never_synced() {
    let shim = Shim::new();
    let (data, log) = (shim.path().join("data"), shim.path().join("log"));
    let builder = shim.builder().env("CLARION_SHIM_LOG", log.to_str().expect("text"));
    let mut server = builder.set("store.durability", "memory").start();
    let at = server.addr();
    for n in 0..50 {
        let answer = publish(at, "user:memory", &n.to_string());
        assert_eq!(answer.json()["durability"], "memory", "{answer:?}");
    }
    assert_eq!(history(at, "user:memory").len(), 50);
    server.kill9();
    cut_the_power(&data, &log);
    server.restart();
    // Not a promise of the server, but a proof that the other test would notice.
    assert!(history(at, "user:memory").len() < 50, "nothing was lost");
    assert_eq!(publish(at, "user:memory", "again").status, 200);
    assert_no_panic(&server);
}

fn assert_all_there(at: std::net::SocketAddr, acked: &[(String, u64, String)]) {
    let mut channels: HashMap<&str, HashMap<u64, String>> = HashMap::new();
    for (address, seq, text) in acked {
        let found = channels.entry(address).or_insert_with(|| {
            let found = history(at, address);
            let dense = found.iter().zip(1..).all(|((seq, _), expected)| *seq == expected);
            assert!(dense, "the seqs of {address} are not dense");
            found.into_iter().collect()
        });
        assert_eq!(found.get(seq), Some(text), "{address} {seq} was acknowledged");
    }
    assert_eq!(channels.len(), PUBLISHERS + 1);
}
