//! Room on the disk and in the engine's own bound, and fjall's queues.
//!
//! Invariants: too little free disk or a full engine refuses publishes only, and heals by itself; what fjall writes by
//! itself later (tables, compactions) finds room, because one write that fails ends all writing until a restart; a
//! commit is never begun while fjall would hold it up, because fjall's own wait does not end when its threads have
//! failed.

use super::engine::{Engine, Fault};
use super::writer::Writer;
use clarion_core::Code;
use clarion_core::port::store::StoreError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The disk is asked again when half of what was free above the reserve may be used up, or after so much time: others
/// write too.
const TIME_BETWEEN: Duration = Duration::from_secs(1);
/// What is appended is written to the journal, to a table and, at the same time, to the table that it is merged into.
const AMPLIFICATION: u64 = 3;
/// One batch may overshoot by its own size, and small writes are not refused.
const BATCH_BYTES: u64 = 32 << 20;
/// A compaction has its input and its output on disk at once. It takes a few tables of fjall's 64 MiB at a time.
const COMPACTION_BYTES_MAX: u64 = 512 << 20;
/// The engine's bytes are counted again after so many appended ones.
const COUNT_AFTER_BYTES: u64 = 1 << 20;
/// fjall stops commits at 4 sealed memtables and at 30 runs in level 0.
const SEALED_MAX: usize = 2;
const TABLES_MAX: usize = 24;
const ROOM_POLL: Duration = Duration::from_millis(1);

pub(super) struct Space {
    asked_at: Instant,
    /// Bytes that may be appended until the disk is asked again.
    allowance: u64,
    disk_low: bool,
    /// What the present batch was told, once one of its publishes asked.
    verdict: Option<bool>,
    /// Bytes on disk when they were counted last, and appended since.
    counted: u64,
    since: u64,
}

impl Space {
    pub(super) fn new(engine: &Engine) -> Self {
        Self {
            asked_at: Instant::now(),
            allowance: 0,
            disk_low: false,
            verdict: None,
            counted: engine.used_bytes(),
            since: 0,
        }
    }

    /// A batch begins.
    pub(super) fn begin(&mut self) {
        self.verdict = None;
    }

    pub(super) fn appended(&mut self, bytes: u64) {
        self.since += bytes;
        self.allowance = self.allowance.saturating_sub(bytes);
    }
}

/// Free bytes of the file system that holds `dir`; `None` when it does not say.
pub(super) fn free_bytes(dir: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

impl Engine {
    /// Free bytes that publishes leave: what is configured, or more while fjall may itself still write more.
    fn reserve(&self) -> u64 {
        let compaction = self.ks.log.disk_space().min(COMPACTION_BYTES_MAX);
        let own = self.db.write_buffer_size() + compaction + BATCH_BYTES;
        self.config.min_free_bytes.max(own)
    }
}

impl Writer {
    /// Whether a publish may take room. Asked once per batch, so a batch may overshoot by its own size.
    pub(super) fn check_space(&mut self) -> Result<(), Fault> {
        let room = match self.space.verdict {
            Some(room) => room,
            None => {
                let room = self.disk_has_room() && self.engine_has_room();
                self.space.verdict = Some(room);
                room
            }
        };
        if room { Ok(()) } else { Err(Code::StoreFull.into()) }
    }

    fn disk_has_room(&mut self) -> bool {
        let engine = &self.engine;
        let space = &mut self.space;
        let ask =
            space.disk_low || space.allowance == 0 || space.asked_at.elapsed() >= TIME_BETWEEN;
        if ask && engine.config.min_free_bytes > 0 {
            space.asked_at = Instant::now();
            let reserve = engine.reserve();
            let above = free_bytes(&engine.dir).map(|free| free.checked_sub(reserve));
            // A file system that does not say is asked again with every batch.
            space.disk_low = above == Some(None);
            space.allowance = above.flatten().unwrap_or(0) / 2 / AMPLIFICATION;
        }
        !space.disk_low
    }

    fn engine_has_room(&mut self) -> bool {
        let bound = self.engine.config.max_bytes;
        if bound == 0 {
            return true;
        }
        let space = &mut self.space;
        if space.since >= COUNT_AFTER_BYTES || space.counted + space.since >= bound {
            space.counted = self.engine.used_bytes();
            space.since = 0;
        }
        let full = space.counted + space.since >= bound;
        self.engine.full.store(full, Ordering::Relaxed);
        !full
    }

    /// Waits until fjall's threads have caught up. Fails when one of them failed.
    pub(super) fn wait_for_room(&self) -> Result<(), StoreError> {
        loop {
            let ks = &self.engine.ks;
            let all =
                [&ks.log, &ks.channels, &ks.names, &ks.cursors, &ks.records, &ks.due, &ks.meta];
            let behind = all.iter().any(|space| {
                space.sealed_memtable_count() > SEALED_MAX || space.l0_table_count() > TABLES_MAX
            });
            if !behind {
                return Ok(());
            }
            if let Some(detail) = self.engine.probe() {
                return Err(StoreError::Refused { code: Code::StoreUnavailable, detail });
            }
            // fjall gives no event to wait for.
            std::thread::park_timeout(ROOM_POLL);
        }
    }
}
