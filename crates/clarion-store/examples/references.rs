//! Measures what references cost in the embedded engine: messages of 200 bytes for 1,000 topics, in batches of 64, fsync
//! before each answer, without and with one filter that matches all, also when each topic is trimmed at once; then reading
//! both in pages of 1,000; then a reader's 10,000 cursors.
//!
//! `cargo run --release -p clarion-store --example references [messages] [directory]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use bytes::Bytes;
use clarion_core::port::store::{Batch, Publish, ReadRange, Reader, Store, Unit};
use clarion_core::{Address, Content, Overflow, Retention, Seq};
use clarion_store::embedded::{EmbeddedConfig, EmbeddedStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPICS: u64 = 1_000;
const BATCH: u64 = 64;
const NOW: u64 = 1_790_000_000_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let messages: u64 = args.next().map_or(500_000, |n| n.parse().unwrap());
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let everything = Address::parse_any("filter:#").unwrap();
    let cases = [
        ("exact topics", TOPICS, vec![], false),
        ("exact topics and one reference", TOPICS, vec![everything.clone()], false),
        ("the same, topics trimmed at once", TOPICS, vec![everything.clone()], true),
        ("one topic and one reference", 1, vec![everything], false),
    ];
    for (label, topics, refs, trim) in cases {
        let dir = base.join(format!("clarion-references-{}", std::process::id()));
        let store = EmbeddedStore::open(&dir, EmbeddedConfig::default()).unwrap();
        let topics: Vec<Address> =
            (0..topics).map(|n| Address::topic(&format!("bench/{n}/state")).unwrap()).collect();
        runtime.block_on(fill(label, &store, messages, &topics, &refs, trim));
        if let [topic] = &topics[..] {
            runtime.block_on(read("the topic", &store, topic, messages));
        }
        if let [filter] = &refs[..] {
            runtime.block_on(read("the filter", &store, filter, messages));
        }
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }
    let dir = base.join(format!("clarion-references-{}", std::process::id()));
    runtime.block_on(cursors(&dir));
    std::fs::remove_dir_all(&dir).unwrap();
}

fn contents() -> Vec<Arc<Content>> {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let mut content = || {
        let body: Vec<u8> = (0..200).map(|i| if i < 112 { random() } else { b'x' }).collect();
        Arc::new(Content { payload: Bytes::from(body), qos: 1, ..Content::default() })
    };
    (0..1_000).map(|_| content()).collect()
}

async fn fill(
    label: &str,
    store: &EmbeddedStore,
    messages: u64,
    topics: &[Address],
    refs: &[Address],
    trim: bool,
) {
    let contents = contents();
    let retention = Retention { age_ms: 0, count: 0, bytes: 0, overflow: Overflow::TrimOldest };
    let next = |from: u64| {
        let unit = |n: u64| {
            Unit::Publish(Publish {
                channel: topics[(n * 7) as usize % topics.len()].clone(),
                content: contents[n as usize % contents.len()].clone(),
                refs: refs.to_vec(),
                retention,
            })
        };
        let mut units: Vec<Unit> = (from..(from + BATCH).min(messages)).map(unit).collect();
        if trim {
            let trim = |n: u64| Unit::Trim {
                channel: topics[(n * 7) as usize % topics.len()].clone(),
                below: Seq::MAX,
            };
            units.extend((from..(from + BATCH).min(messages)).map(trim));
        }
        Batch { now: NOW + from / 100, fence: None, units }
    };
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut batch = next(0);
    let mut done = 0;
    while done < messages {
        // As the committer does: while a commit runs the next batch gathers.
        let commit = store.commit(batch);
        batch = next(done + BATCH);
        commit.await.unwrap();
        done += BATCH;
    }
    println!(
        "{label}: {:.0} messages/s, {:.2} µs CPU each",
        messages as f64 / start.elapsed().as_secs_f64(),
        (cpu_seconds() - cpu) * 1e6 / messages as f64,
    );
}

async fn read(label: &str, store: &EmbeddedStore, channel: &Address, messages: u64) {
    for round in ["first", "again"] {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut found = 0;
        while found < messages {
            let range = ReadRange {
                channel: channel.clone(),
                from: found + 1,
                to: Seq::MAX,
                backwards: false,
                count: 1_000,
                bytes: 64 << 20,
            };
            let page = store.read(NOW, vec![range]).await.unwrap().remove(0);
            assert!(!page.messages.is_empty(), "something is missing");
            found += page.messages.len() as u64;
        }
        println!(
            "  {label} is read ({round}) at {:.0} messages/s, {:.2} µs CPU each",
            messages as f64 / start.elapsed().as_secs_f64(),
            (cpu_seconds() - cpu) * 1e6 / messages as f64,
        );
    }
}

/// Starts, and what a session does that comes back.
async fn cursors(dir: &Path) {
    const CURSORS: u64 = 10_000;
    let reader = Reader::session(1);
    let topics: Vec<Address> =
        (0..CURSORS).map(|n| Address::topic(&format!("bench/{n}/state")).unwrap()).collect();
    let store = EmbeddedStore::open(dir, EmbeddedConfig::default()).unwrap();
    let cpu = cpu_seconds();
    for topics in topics.chunks(BATCH as usize) {
        let start =
            |topic: &Address| Unit::Start { reader: reader.clone(), channel: topic.clone() };
        let units = topics.iter().map(start).collect();
        store.commit(Batch { now: NOW, fence: None, units }).await.unwrap();
    }
    println!("a start: {:.2} µs CPU", (cpu_seconds() - cpu) * 1e6 / CURSORS as f64);
    drop(store);
    let store = EmbeddedStore::open(dir, EmbeddedConfig::default()).unwrap();
    for round in ["first", "again"] {
        let mut told = Vec::new();
        let cpu = cpu_seconds();
        for _ in 0..10 {
            store.cursors(reader.clone()).await.unwrap();
        }
        told.push(cpu_seconds() - cpu);
        let cpu = cpu_seconds();
        for _ in 0..10 {
            store.cursors_on(reader.clone(), topics.clone()).await.unwrap();
        }
        told.push(cpu_seconds() - cpu);
        let cpu = cpu_seconds();
        for _ in 0..10 {
            store.heads(topics.clone()).await.unwrap();
        }
        told.push(cpu_seconds() - cpu);
        let each = told.into_iter().map(|t| format!("{:.2}", t * 1e6 / (10 * CURSORS) as f64));
        let [all, on, heads] = each.collect::<Vec<_>>().try_into().unwrap();
        println!("  {round}: {all} µs CPU a cursor of all, {on} by channel; {heads} a head");
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}
