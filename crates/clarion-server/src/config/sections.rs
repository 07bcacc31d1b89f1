//! The one table of keys: name, type, default, bounds, and what each does (its doc comment is its documentation).
//!
//! Everything else that knows keys is made from it: see [`super::reader`]. A new key is one entry here.

use super::{
    kinds::{
        Choice, DAY, Folder, HOUR, ListOf, SECOND, count, one_of, show_size, show_span, size, span,
    },
    listeners::Listener,
    mikudos_file::Notices,
    reader::{Reader, Section},
};
use clarion_core::{Address, AddressKind, Retention};
use std::{path::PathBuf, time::Duration};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const ANY: u64 = u64::MAX;
const YEAR: u64 = 365 * DAY;

/// Declares a section: a struct whose fields are keys.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident : $type:ty = $default:expr, $kind:expr ; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])+ pub(crate) $field: $type, )+
        }

        impl Section for $name {
            fn read(reader: &mut Reader<'_>, path: &str) -> Self {
                reader.section(path, &[$($about),+]);
                Self {
                    $( $field: reader.take(
                        &format!("{path}.{}", stringify!($field)),
                        &$kind,
                        $default,
                        &[$($doc),+],
                    ), )+
                }
            }
        }
    };
}

// Below the macro, which it uses.
mod auth;
mod grpc;
mod mqtt;

pub(crate) use auth::{AclDefault, Auth, Jwt};
pub(crate) use grpc::{Grpc, Mikudos, MikudosMode};
pub(crate) use mqtt::Mqtt;

/// All of it, valid.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) node: Node,
    pub(crate) store: Store,
    pub(crate) retention: Retentions,
    pub(crate) topics: Topics,
    pub(crate) limits: Limits,
    pub(crate) cursors: Cursors,
    pub(crate) sse: Sse,
    pub(crate) grpc: Grpc,
    pub(crate) mikudos: Mikudos,
    pub(crate) mqtt: Mqtt,
    pub(crate) auth: Auth,
    pub(crate) jwt: Jwt,
    /// In the order of [`super::listeners::ListenerName::ALL`].
    pub(crate) listeners: Vec<Listener>,
    pub(crate) log: Log,
    /// Not a key: there was a `--mikudos-config`.
    pub(crate) mikudos_file: Option<Notices>,
}

impl Section for Config {
    fn read(reader: &mut Reader<'_>, _path: &str) -> Self {
        let data_dir = reader.take(
            "data_dir",
            &Folder,
            "./clarion-data",
            &["Where messages are kept. Made when it is missing; one process at a time."],
        );
        Self {
            data_dir,
            node: Node::read(reader, "node"),
            store: Store::read(reader, "store"),
            retention: Retentions::read(reader, "retention"),
            topics: Topics::read(reader, "topics"),
            limits: Limits::read(reader, "limits"),
            cursors: Cursors::read(reader, "cursors"),
            sse: Sse::read(reader, "sse"),
            grpc: Grpc::read(reader, "grpc"),
            mikudos: Mikudos::read(reader, "mikudos"),
            mqtt: Mqtt::read(reader, "mqtt"),
            auth: Auth::read(reader, "auth"),
            jwt: Jwt::read(reader, "auth.jwt"),
            listeners: Listener::read_all(reader, "listeners"),
            log: Log::read(reader, "log"),
            mikudos_file: None,
        }
    }
}

section! {
    /// Threads.
    Node {
        /// Threads that own connections and deliver. 0 = half of the machine's cores, at least one. A second shard
        /// costs more processor time per message, so few are better until one is busy.
        shards: usize = "0", count(0, 64);
        /// Threads that serve HTTP and gRPC requests. 0 = as many as the machine has cores.
        http_workers: usize = "0", count(0, 256);
    }
}

impl Node {
    /// Shards and HTTP workers on a machine with so many cores.
    pub(crate) fn threads(&self, cores: usize) -> (usize, usize) {
        let or = |given: usize, automatic: usize| if given == 0 { automatic } else { given };
        (or(self.shards, (cores / 2).clamp(1, 64)), or(self.http_workers, cores.clamp(1, 256)))
    }
}

/// Where messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Memory,
    Embedded,
}

impl Choice for StoreKind {
    const NAMES: &'static [(&'static str, Self)] =
        &[("embedded", Self::Embedded), ("memory", Self::Memory)];
}

/// What a publish waits for before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreDurability {
    Disk,
    Memory,
}

impl Choice for StoreDurability {
    const NAMES: &'static [(&'static str, Self)] =
        &[("disk", Self::Disk), ("memory", Self::Memory)];
}

section! {
    /// The message store.
    Store {
        /// `embedded` keeps messages in `data_dir`; `memory` keeps them in the process and loses them with it.
        kind: StoreKind = "embedded", one_of();
        /// What a publish waits for before it is answered: `disk` = an fsync, so that neither a crash nor a power
        /// failure loses it; `memory` = the operating system has it, a power failure may lose the last seconds.
        durability: StoreDurability = "disk", one_of();
        /// Most bytes that the store may hold; above it publishes are refused (retryable). 0 = what the disk holds.
        max_bytes: u64 = "0", size(0, ANY);
        /// Publishes are refused (retryable) while the disk has less than this free, or less than the store may itself
        /// still need for tables and compactions (at most 544 MiB and what is in memory), if that is more. 0 = never.
        min_free_bytes: u64 = "256MiB", size(0, ANY);
        /// Most bytes of journal before its oldest part is written out as tables.
        journal_bytes: u64 = "64MiB", size(64 * MIB, 64 * GIB);
        /// Size at which the in-memory table of message bodies is written out.
        memtable_bytes: u64 = "32MiB", size(MIB, 4 * GIB);
        /// The same for the small tables: cursors, records, names.
        small_memtable_bytes: u64 = "8MiB", size(MIB, 4 * GIB);
        /// Cache of blocks read from disk.
        cache_bytes: u64 = "64MiB", size(0, 256 * GIB);
        /// Threads that write out and compact tables.
        worker_threads: usize = "2", count(1, 64);
        /// Threads that read.
        reader_threads: usize = "2", count(1, 64);
        /// Messages from this size on are kept beside the log's tables, so that compaction does not copy them.
        separate_bytes: u32 = "4KiB", size(256, 64 * MIB);
        /// Channels whose state stays in memory.
        cached_channels: usize = "65536", count(1, 100_000_000);
        /// Reads that wait for a reading thread; more are refused (retryable).
        read_queue: usize = "1024", count(1, 1_000_000);
        /// Batches that wait for the writing thread; more are refused (retryable).
        commit_queue: usize = "64", count(1, 1_000_000);
        /// How often expired messages and old channels are looked for.
        sweep_interval: Duration = "60s", span(10, DAY);
    }
}

/// What channels keep, by kind of address.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Retentions {
    pub(crate) user: Retention,
    pub(crate) group: Retention,
    pub(crate) all: Retention,
    pub(crate) topic: Retention,
    pub(crate) queue: Retention,
}

impl Section for Retentions {
    fn read(reader: &mut Reader<'_>, path: &str) -> Self {
        reader.section(
            path,
            &["What a channel keeps, by kind of address: by age, count and bytes of the channel, never by its",
              "slowest reader. Who was away for longer is told what is missing. 0 = without that bound."],
        );
        let mut read = |name: &str, kind, doc: &str| {
            read_retention(reader, &format!("{path}.{name}"), kind, doc)
        };
        Self {
            user: read("user", AddressKind::User, "Channels `user:…`."),
            group: read("group", AddressKind::Group, "Channels `group:…`."),
            all: read("all", AddressKind::All, "The channel `all`."),
            topic: read(
                "topic",
                AddressKind::Topic,
                "Channels `topic:…` that keep history, and what durable wildcard subscriptions wait for.",
            ),
            queue: read(
                "queue",
                AddressKind::Queue,
                "Channels `queue:…` and lists of dead messages. A queue that is full of unacked messages refuses \
                 publishes (retryable); it never trims them.",
            ),
        }
    }
}

fn read_retention(reader: &mut Reader<'_>, path: &str, kind: AddressKind, doc: &str) -> Retention {
    reader.section(path, &[doc]);
    let default = Retention::default_of(kind);
    let age: Duration = reader.take(
        &format!("{path}.age"),
        &span(0, 100 * YEAR),
        &show_span(default.age_ms),
        &["Longest time that a message is kept."],
    );
    Retention {
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        count: reader.take(
            &format!("{path}.count"),
            &count(0, ANY),
            &default.count.to_string(),
            &["Most messages that one channel keeps."],
        ),
        bytes: reader.take(
            &format!("{path}.bytes"),
            &size(0, ANY),
            &show_size(default.bytes),
            &["Most bytes that one channel keeps."],
        ),
        overflow: default.overflow,
    }
}

section! {
    /// Topics.
    Topics {
        /// Topics whose messages are stored even when nobody durable reads them: exact topics, or filters with `+`
        /// and `#`. Messages of other topics are stored only while a durable reader is attached.
        stored: Vec<String> = "[]", ListOf { what: "topics or filters", max: 1000, item: topic_filter };
    }
}

/// A topic, or a filter with `+` for one level and `#` for the rest (MQTT 5 §4.7).
fn topic_filter(text: &str) -> Result<String, String> {
    Address::parse_any(&format!("filter:{text}")).map_err(|error| error.to_string())?;
    if text.starts_with('$') {
        return Err("topics that start with '$' are the server's own".to_owned());
    }
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        let alone = level.len() == 1;
        if level.contains('#') && !(alone && levels.peek().is_none()) {
            return Err("'#' stands alone, as the last level".to_owned());
        }
        if level.contains('+') && !alone {
            return Err("'+' stands alone in its level".to_owned());
        }
    }
    Ok(text.to_owned())
}

section! {
    /// Bounds of everything that a client can make grow.
    Limits {
        /// Largest payload of a message; larger ones are refused.
        payload_bytes: usize = "1MiB", size(1, 64 * MIB);
        /// Largest body of a request; larger ones are refused.
        body_bytes: usize = "8MiB", size(KIB, 256 * MIB);
        /// Most bytes of the bodies of all requests of one listener that are under way; further ones are refused
        /// (retryable).
        bodies_bytes: usize = "128MiB", size(KIB, 64 * GIB);
        /// Most messages in a batch; larger ones are refused.
        batch_messages: usize = "1000", count(1, 100_000);
        /// Most headers of a message.
        headers_count: usize = "64", count(0, 10_000);
        /// Most bytes of a message's headers together.
        headers_bytes: usize = "16KiB", size(0, MIB);
        /// Deepest nesting of JSON.
        json_depth: usize = "128", count(1, 1000);
        /// Most open connections of one listener; more are closed at once.
        connections: usize = "19000", count(1, 10_000_000);
        /// Most open streams of one listener; more are refused (retryable).
        streams: usize = "18000", count(1, 10_000_000);
        /// Longest request line and headers together.
        head_bytes: usize = "16KiB", size(8 * KIB, MIB);
        /// Time in which a request's head must arrive, else the connection is closed.
        head_timeout: Duration = "10s", span(100, HOUR);
        /// Time in which a request's body must arrive, else the request is refused.
        body_timeout: Duration = "30s", span(100, HOUR);
        /// Time that a connection may stay open between two requests.
        idle_timeout: Duration = "75s", span(100, DAY);
        /// Time that a shutdown may take; requests that are under way have 60 % of it, then they are cut off and the
        /// store is closed.
        shutdown_timeout: Duration = "10s", span(0, HOUR);
        /// A stream whose client takes no bytes for this long while some wait is closed; it may come back where it was.
        write_timeout: Duration = "5m", span(100, DAY);
        /// Bytes that wait for one slow connection; what does not fit is read again from the store later.
        outbox_bytes: usize = "64KiB", size(4 * KIB, 64 * MIB);
        /// Messages that wait for one slow connection, likewise.
        outbox_messages: usize = "1024", count(1, 1_000_000);
        /// Reads for readers that catch up, under way at once in each shard; further ones wait their turn.
        catch_up_reads: usize = "64", count(1, 10_000);
        /// Most messages of one such read.
        page_messages: usize = "128", count(1, 10_000);
        /// Most bytes of one such read (one message is always read).
        page_bytes: usize = "256KiB", size(4 * KIB, 64 * MIB);
        /// Messages that wait for the store; above it publishers are not read or are refused (retryable).
        commit_queue_messages: usize = "65536", count(1, 10_000_000);
        /// Bytes that wait for the store, likewise.
        commit_queue_bytes: usize = "64MiB", size(MIB, 16 * GIB);
        /// Most messages written with one fsync.
        commit_batch_messages: usize = "4096", count(1, 1_000_000);
        /// Most bytes written with one fsync (one message is always written).
        commit_batch_bytes: usize = "8MiB", size(64 * KIB, GIB);
        /// Bytes of messages that wait for one shard; above it stored ones are read from the store instead, live ones
        /// are dropped and counted.
        live_queue_bytes: usize = "16MiB", size(MIB, 16 * GIB);
        /// Most devices of one user; above it the one that has been away for longest is forgotten.
        max_devices: usize = "100", count(1, 10_000);
        /// A device that nobody attached for this long is forgotten.
        device_age: Duration = "90d", span(1, 100 * YEAR);
        /// Most channels that one device may have cursors on; further ones are refused.
        max_cursors: usize = "1000", count(1, 1_000_000);
        /// Most requests for the next message of a queue that wait at once; further ones are refused (retryable).
        queue_takers: usize = "10000", count(1, 1_000_000);
    }
}

section! {
    /// What readers have acked.
    Cursors {
        /// Acks are stored together, at the latest after this time; a crash may repeat what was acked in it.
        ack_flush: Duration = "100ms", span(1, 60 * SECOND);
        /// What a member of a shared cursor was given and has not acked in this time goes to another one.
        ack_wait: Duration = "30s", span(10, DAY);
        /// A message that was handed out so often on a shared cursor, and never acked, goes to the dead list.
        max_attempts: u32 = "10", count(1, 1_000_000);
        /// Most messages of a shared cursor that are handed out and not acked; nothing more is handed out above it.
        max_unacked: usize = "1000", count(1, 32_767);
        /// The same for one device that acks singly.
        max_unacked_device: usize = "65535", count(1, 65_535);
    }
}

section! {
    /// Streams of server-sent events.
    Sse {
        /// A comment is sent when nothing else was for this long, so that proxies keep the connection.
        heartbeat: Duration = "15s", span(10, HOUR);
        /// Time after which a client should connect again.
        retry: Duration = "2s", span(0, HOUR);
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Choice for LogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// What is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Choice for LogLevel {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

section! {
    /// Log lines, on standard error.
    Log {
        /// How they look.
        format: LogFormat = "text", one_of();
        /// From which weight on. Libraries are logged from `warn` on, except with `trace`.
        level: LogLevel = "info", one_of();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_by_themselves() {
        let check = |shards, http_workers, cores, expected| {
            assert_eq!(Node { shards, http_workers }.threads(cores), expected);
        };
        check(0, 0, 1, (1, 1));
        check(0, 0, 2, (1, 2));
        check(0, 0, 8, (4, 8));
        check(0, 0, 1000, (64, 256));
        check(3, 5, 8, (3, 5));
    }

    #[test]
    fn filters() {
        for good in ["a", "a/b", "a/+/c", "#", "a/#", "+", "+/#", "/", "a//b"] {
            assert_eq!(topic_filter(good).as_deref(), Ok(good));
        }
        for bad in ["", "a#", "#/a", "a/#/b", "a+", "a/b+/c", "$SYS/#", "a\u{0}b"] {
            assert!(topic_filter(bad).is_err(), "{bad}");
        }
    }
}
