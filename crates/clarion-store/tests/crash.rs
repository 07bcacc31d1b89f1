//! What survives when the process is killed or its writes fail: a child process writes and tells what was answered, the
//! parent ends it and looks.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test with its own harness")]

use bytes::Bytes;
use clarion_core::port::store::{
    Batch, Committed, Done, Durability, Move, Publish, ReadRange, Reader, Store, StoreError, Unit,
};
use clarion_core::{Address, Content, Cursor, Overflow, Retention, Seq};
use clarion_store::embedded::{Durable, EmbeddedConfig, EmbeddedStore};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const NOW: u64 = 1_790_000_000_000;
const CHANNELS: u64 = 20;
const ROUNDS: u64 = 6;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[1..] {
        ["child", "write", dir, durability] => write(Path::new(dir), durability),
        ["child", "fail", dir] => fail(Path::new(dir)),
        _ => {
            killed_while_writing("disk");
            println!("test killed_while_writing_to_disk ... ok");
            killed_while_writing("memory");
            println!("test killed_while_writing_to_memory ... ok");
            writes_that_fail();
            println!("test writes_that_fail ... ok");
        }
    }
}

fn config(durability: &str) -> EmbeddedConfig {
    let durability = if durability == "disk" { Durable::Disk } else { Durable::Memory };
    // Small memtables: tables are written out and compacted while it runs.
    let small = 1 << 20;
    EmbeddedConfig {
        durability,
        log_memtable_bytes: small,
        memtable_bytes: small / 4,
        ..EmbeddedConfig::default()
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn channel(n: u64) -> Address {
    Address::topic(&n.to_string()).unwrap()
}

/// Its log has a reference to every message.
fn everything() -> Address {
    Address::parse_any("filter:#").unwrap()
}

fn reader() -> Reader {
    Reader::device(7)
}

/// The body of a message tells where it must be found.
fn body(channel: u64, seq: Seq) -> Bytes {
    let mut body = format!("{channel} {seq} ").into_bytes();
    body.resize(
        200 + (seq as usize * 37) % 900 + if seq.is_multiple_of(50) { 9_000 } else { 0 },
        b'.',
    );
    body.into()
}

fn publish(to: u64, seq: Seq) -> Unit {
    let content = Content { payload: body(to, seq), ..Content::default() };
    let retention = Retention { age_ms: 0, count: 0, bytes: 0, overflow: Overflow::TrimOldest };
    let channel = channel(to);
    let refs = vec![everything()];
    Unit::Publish(Publish { channel, content: content.into(), refs, retention })
}

fn heads(store: &EmbeddedStore) -> Vec<(u32, Seq)> {
    let heads = wait(store.heads((0..CHANNELS).map(channel).collect())).unwrap();
    heads.into_iter().map(|head| (head.epoch, head.last)).collect()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Writes for ever, several batches under way, and tells of each when it was sent and when it was answered.
fn write(dir: &Path, durability: &str) {
    let store = EmbeddedStore::open(dir, config(durability)).unwrap();
    let mut next: Vec<Seq> = heads(&store).into_iter().map(|(_, last)| last + 1).collect();
    let mut under_way = VecDeque::new();
    let mut sent = 0u64;
    loop {
        let of = sent % CHANNELS;
        let mut units = Vec::new();
        for i in 0..10 {
            let to = (of + i) % CHANNELS;
            units.push(publish(to, next[to as usize]));
            next[to as usize] += 1;
        }
        // Acks what the batch before last stored: never above what is there.
        let acked = Cursor::at(next[of as usize] - 1);
        let moves = vec![Move { channel: channel(of), epoch: 0, cursor: acked }];
        units.push(Unit::Ack { reader: reader(), moves });
        let told: Vec<String> = (0..10)
            .map(|i| (of + i) % CHANNELS)
            .map(|c| format!("{c}={}", next[c as usize] - 1))
            .collect();
        say(&format!("sent {sent}"));
        let told = format!("answered {sent} {of}={} {}", next[of as usize] - 1, told.join(" "));
        under_way.push_back((told, store.commit(Batch { now: NOW, fence: None, units })));
        sent += 1;
        if under_way.len() >= 8
            && let Some((told, commit)) = under_way.pop_front()
        {
            let Committed { results, .. } = wait(commit).unwrap();
            assert!(results.iter().all(|done| !matches!(done, Done::Refused(_))));
            say(&told);
        }
    }
}

/// What a child has told.
#[derive(Default)]
struct Told {
    sent: u64,
    answered: u64,
    /// Last answered seq of each channel, and floor of the cursor on it.
    last: BTreeMap<u64, Seq>,
    floor: BTreeMap<u64, Seq>,
}

impl Told {
    fn take(&mut self, line: &str) {
        let mut words = line.split(' ');
        match words.next() {
            Some("sent") => self.sent += 1,
            Some("answered") => {
                self.answered += 1;
                let pair = |word: &str| {
                    let (channel, seq) = word.split_once('=').unwrap();
                    (channel.parse::<u64>().unwrap(), seq.parse::<Seq>().unwrap())
                };
                let mut pairs = words.skip(1).map(pair);
                self.floor.extend(pairs.next());
                self.last.extend(pairs);
            }
            _ => panic!("what is {line:?}?"),
        }
    }
}

fn child(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("child").args(args);
    command
}

fn killed_while_writing(durability: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut told = Told::default();
    let mut epochs: Option<Vec<u32>> = None;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut totals = [0; 3];
    for round in 0..ROUNDS {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round);
        let answers = 200 + (state >> 33) % 600;
        let mut writer: Child =
            child(&["write", path, durability]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (sent, answered) = (told.sent, told.answered);
        while told.answered < answered + answers {
            told.take(&lines.next().expect("the child ended by itself").unwrap());
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What it still told before it died was answered too. Its last line may be cut.
        let rest: Vec<String> = lines.map(Result::unwrap).collect();
        let whole = rest.len().saturating_sub(1);
        rest[..whole].iter().for_each(|line| told.take(line));
        let unanswered = (told.sent - sent) - (told.answered - answered);
        assert!(unanswered > 0, "round {round} shows nothing: all was answered at the kill");
        let found = look(dir.path(), durability, &told);
        if let Some(before) = epochs.replace(found.0.clone()) {
            let same = before.iter().zip(&found.0).all(|(a, b)| a == b);
            assert_eq!(same, durability == "disk", "{before:?} became {:?}", found.0);
        }
        totals[0] += (told.answered - answered) * 10;
        totals[1] += unanswered * 10;
        totals[2] = found.1;
    }
    println!("answered {}, unanswered at the kill {}, found {}", totals[0], totals[1], totals[2]);
}

/// Opens what the killed process left, checks it, and gives the epochs and the number of messages.
fn look(dir: &Path, durability: &str, told: &Told) -> (Vec<u32>, u64) {
    let store = EmbeddedStore::open(dir, config(durability)).unwrap();
    let heads = heads(&store);
    for (n, answered) in &told.last {
        let last = heads[*n as usize].1;
        assert!(last >= *answered, "channel {n}: {answered} answered, {last} found");
    }
    let mut total = 0;
    for (n, (_, last)) in (0..).zip(&heads) {
        let mut from = 1;
        while from <= *last {
            let range = ReadRange {
                channel: channel(n),
                from,
                to: Seq::MAX,
                backwards: false,
                count: 1_000,
                bytes: 8 << 20,
            };
            let page = wait(store.read(NOW, vec![range])).unwrap().remove(0);
            for message in &page.messages {
                assert_eq!(message.seq, from, "dense");
                assert_eq!(message.content.payload, body(n, from), "channel {n}");
                from += 1;
            }
            assert_eq!(page.through + 1, from);
        }
        total += last;
    }
    look_at_copies(&store, &heads);
    let cursors = wait(store.cursors(reader())).unwrap();
    for (n, floor) in &told.floor {
        let cursor = cursors.iter().find(|cursor| cursor.channel == channel(*n)).unwrap();
        // In a new history the cursor counts from the next ack on.
        let of_this = cursor.epoch == heads[*n as usize].0;
        assert!(!of_this || cursor.cursor.floor() >= *floor, "channel {n}: the ack is lost");
        assert!(of_this || durability == "memory");
    }
    (heads.into_iter().map(|(epoch, _)| epoch).collect(), total)
}

/// The references' log has every message that the topics have, each topic's in order, and nothing else.
fn look_at_copies(store: &EmbeddedStore, heads: &[(u32, Seq)]) {
    let mut found = vec![0; heads.len()];
    let mut from = 1;
    loop {
        let range = ReadRange {
            channel: everything(),
            from,
            to: Seq::MAX,
            backwards: false,
            count: 1_000,
            bytes: 8 << 20,
        };
        let page = wait(store.read(NOW, vec![range])).unwrap().remove(0);
        for message in &page.messages {
            assert_eq!(message.seq, from, "dense");
            let n: u64 = message.channel.id().parse().unwrap();
            found[n as usize] += 1;
            assert_eq!(message.content.payload, body(n, found[n as usize]), "topic {n}");
            from += 1;
        }
        if page.through >= page.head.last {
            break;
        }
    }
    assert!(found.iter().eq(heads.iter().map(|(_, last)| last)), "{found:?}, {heads:?}");
}

/// Writes until the system refuses, then tells what the store says.
fn fail(dir: &Path) {
    let store = EmbeddedStore::open(dir, config("disk")).unwrap();
    let mut next = heads(&store)[0].1 + 1;
    let commit = |seq| {
        let units = vec![publish(0, seq)];
        wait(store.commit(Batch { now: NOW, fence: None, units }))
    };
    let error = loop {
        match commit(next) {
            Ok(committed) => {
                assert_eq!(committed.durability, Durability::Disk);
                assert!(matches!(committed.results[..], [Done::Published(_)]));
                say(&format!("answered {next}"));
                next += 1;
            }
            Err(error) => break error,
        }
    };
    say(&format!("failed {}", error.code().name()));
    for _ in 0..3 {
        say(&format!("refused {}", commit(next).unwrap_err().code().name()));
    }
    let close = store.close();
    assert!(
        matches!(close, Err(StoreError::Refused { .. })),
        "an end after a failure is not clean"
    );
    say("ended");
}

/// A process whose files may not grow: the write fails, nothing is answered from then on, nothing answered is lost.
fn writes_that_fail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    {
        let store = EmbeddedStore::open(dir.path(), config("disk")).unwrap();
        wait(store.commit(Batch { now: NOW, fence: None, units: vec![publish(0, 1)] })).unwrap();
    }
    // The journal of an opened store has no room set aside, so it grows with each commit.
    let command = child(&["fail", path]);
    let program = command.get_program().to_str().unwrap();
    let script = format!("trap '' XFSZ; ulimit -f 2048; exec {program} child fail {path}");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().collect();
    let answered = lines.iter().filter(|line| line.starts_with("answered")).count();
    assert!(answered > 100, "it failed before it wrote: {text}");
    let after = &lines[answered..];
    assert_eq!(after[0], "failed store_outcome_unknown", "{after:?}");
    assert_eq!(
        after[1..],
        ["refused store_unavailable"; 3].into_iter().chain(["ended"]).collect::<Vec<_>>()
    );
    let store = EmbeddedStore::open(dir.path(), config("disk")).unwrap();
    let last = heads(&store)[0].1;
    assert!(last > answered as u64, "{answered} answered, {last} found");
    wait(store.commit(Batch { now: NOW, fence: None, units: vec![publish(0, last + 1)] })).unwrap();
    let told = Told { last: BTreeMap::from([(0, last)]), ..Told::default() };
    drop(store);
    look(dir.path(), "disk", &told);
}
