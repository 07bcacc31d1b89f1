//! The keys of what speaks gRPC: the transport, and the habits of the mikudos dialect.

use super::{GIB, KIB, MIB, YEAR};
use crate::config::{
    kinds::{Choice, DAY, HOUR, count, one_of, size, span},
    reader::{Reader, Section},
};
use std::time::Duration;

section! {
    /// gRPC connections and streams, of every listener that speaks it.
    Grpc {
        /// A connection on which nothing came for this long is asked by a ping whether it is still there.
        keep_alive_interval: Duration = "20s", span(100, DAY);
        /// Time in which the ping must be answered, else the connection is closed.
        keep_alive_timeout: Duration = "10s", span(100, HOUR);
        /// Largest request message; larger ones are refused. Clients of the dialects rely on the default.
        request_bytes: usize = "4MiB", size(KIB, 256 * MIB);
        /// Most HTTP/2 streams at once on one connection; further ones wait at the client.
        connection_streams: u32 = "10000", count(1, 1_000_000);
        /// Bytes that a client may send ahead on one stream.
        stream_window_bytes: u32 = "128KiB", size(64 * KIB, GIB);
        /// Bytes that a client may send ahead on all streams of one connection together. Half of it bounds what small
        /// frames that wait cost, 256 bytes each; beyond that the connection ends. So keep it 64 times the stream's.
        connection_window_bytes: u32 = "8MiB", size(64 * KIB, GIB);
        /// Time in which a Subscribe stream must say hello, else it is ended.
        hello_timeout: Duration = "10s", span(100, HOUR);
        /// Bytes that wait in one stream beyond its outbox (`limits.outbox_bytes`).
        send_buffer_bytes: usize = "64KiB", size(4 * KIB, 64 * MIB);
    }
}

/// Which gates get a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MikudosMode {
    Unify,
    Group,
    Every,
}

impl Choice for MikudosMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("unify", Self::Unify), ("group", Self::Group), ("every", Self::Every)];
}

section! {
    /// The mikudos dialect: gates and their producers.
    Mikudos {
        /// Which gates get a push: `unify` = one of all, in turn; `group` = the newest of each `group` that the gates
        /// name in their metadata; `every` = all.
        mode: MikudosMode = "unify", one_of();
        /// How long a push lives that says no `expire`. 0 = it is live: only for the gates that are there.
        default_expire: Duration = "0", span(0, 100 * YEAR);
        /// Longest time that PushToChannelWithStatus waits for the gates' answer.
        status_timeout: Duration = "5s", span(10, HOUR);
        /// Channels with unanswered messages that each shard remembers for the next gate. What is forgotten stays
        /// stored, and comes when a gate asks for it.
        parked_channels: usize = "100000", count(1, 100_000_000);
        /// Messages that are with gates, unanswered, and that each shard remembers. What is forgotten stays stored, and
        /// comes when a gate asks for it.
        pending_messages: usize = "100000", count(1, 100_000_000);
    }
}
