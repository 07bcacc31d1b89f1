//! Measures the embedded engine alone: messages of 200 bytes for 10,000 channels, fsync before each answer, in batches
//! of 64 and 512; then how long an unclean end takes to recover, and a scan of everything.
//!
//! `cargo run --release -p clarion-store --example commit [messages] [directory]`
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool")]

use bytes::Bytes;
use clarion_core::port::store::{Batch, Publish, ReadRange, Store, Unit};
use clarion_core::{Address, AddressKind, Content, Retention, Seq};
use clarion_store::embedded::{Durable, EmbeddedConfig, EmbeddedStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

// As in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANNELS: u64 = 10_000;
const NOW: u64 = 1_790_000_000_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let messages: u64 = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (durability, batch) in [(Durable::Disk, 64), (Durable::Disk, 512), (Durable::Memory, 512)] {
        let dir = base.join(format!("clarion-commit-{}", std::process::id()));
        let config = EmbeddedConfig { durability, ..EmbeddedConfig::default() };
        let store = EmbeddedStore::open(&dir, config.clone()).unwrap();
        let label = format!("{durability:?} batches of {batch}");
        runtime.block_on(fill(&label, &store, messages, batch));
        report_disk(&dir);
        drop(store);
        let start = Instant::now();
        let store = EmbeddedStore::open(&dir, config).unwrap();
        println!("  reopened in {:.3} s", start.elapsed().as_secs_f64());
        runtime.block_on(scan(&store, messages));
        drop(store);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn contents() -> Vec<Arc<Content>> {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    let mut content = || {
        let body: Vec<u8> = (0..200).map(|i| if i < 112 { random() } else { b'x' }).collect();
        Arc::new(Content { payload: Bytes::from(body), counted: true, ..Content::default() })
    };
    (0..1_000).map(|_| content()).collect()
}

async fn fill(label: &str, store: &EmbeddedStore, messages: u64, batch: u64) {
    let channels: Vec<Address> =
        (0..CHANNELS).map(|n| Address::user(&n.to_string()).unwrap()).collect();
    let contents = contents();
    let mut draw = 1u64;
    let mut next = |from: u64| {
        let unit = |n: u64| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            Unit::Publish(Publish {
                channel: channels[(draw >> 33) as usize % channels.len()].clone(),
                content: contents[n as usize % contents.len()].clone(),
                refs: Vec::new(),
                retention: Retention::default_of(AddressKind::User),
            })
        };
        let units = (from..(from + batch).min(messages)).map(unit).collect();
        Batch { now: NOW + from / 100, fence: None, units }
    };
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut slowest = 0.0f64;
    let mut batch_of_now = next(0);
    let mut done = 0;
    while done < messages {
        // As the committer does: while a commit runs the next batch gathers.
        let began = Instant::now();
        let commit = store.commit(batch_of_now);
        batch_of_now = next(done + batch);
        let results = commit.await.unwrap().results;
        slowest = slowest.max(began.elapsed().as_secs_f64());
        done += results.len() as u64;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    println!(
        "{label}: {:.0} messages/s, {:.2} CPU s per million, slowest commit {:.0} ms, peak {} MiB",
        messages as f64 / seconds,
        cpu * 1e6 / messages as f64,
        slowest * 1e3,
        peak_mib(),
    );
}

async fn scan(store: &EmbeddedStore, messages: u64) {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut found = 0;
    for n in 0..CHANNELS {
        let channel = Address::user(&n.to_string()).unwrap();
        let range = ReadRange {
            channel,
            from: 1,
            to: Seq::MAX,
            backwards: false,
            count: 4_000,
            bytes: 64 << 20,
        };
        found += store.read(NOW, vec![range]).await.unwrap()[0].messages.len() as u64;
    }
    assert_eq!(found, messages, "something is missing");
    println!(
        "  read back at {:.0} messages/s, {:.2} CPU s per million",
        found as f64 / start.elapsed().as_secs_f64(),
        (cpu_seconds() - cpu) * 1e6 / found as f64
    );
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn report_disk(dir: &Path) {
    fn size(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).unwrap();
        if !meta.is_dir() {
            return meta.blocks() * 512;
        }
        std::fs::read_dir(path).unwrap().map(|entry| size(&entry.unwrap().path())).sum()
    }
    println!("  {} MiB on disk", size(dir) >> 20);
}
