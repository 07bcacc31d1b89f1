//! What a data directory holds, for people.
//!
//! Takes the same lock as a server, so it never looks at a directory that is in use. Bounded: one page of channels at
//! a time.

use super::engine::Fault;
use super::open::{self, FORMAT, OpenError};
use super::{EmbeddedConfig, keys};
use clarion_core::port::store::Head;
use clarion_core::{Address, Epoch};
use fjall::Readable;
use std::ops::Bound;
use std::path::Path;

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Format of the directory.
    pub format: u32,
    /// How often history was lost to an unclean end with durability `memory`.
    pub generation: u32,
    /// How many channels there are.
    pub channels: u64,
    /// How many small records there are.
    pub records: u64,
    /// How many cursors there are.
    pub cursors: u64,
    /// Bytes on disk, journal included.
    pub disk_bytes: u64,
    /// One page of channels, by number.
    pub page: Vec<ChannelSummary>,
    /// Where the next page begins: give it as `after`. `None` = this was the last one.
    pub next: Option<u32>,
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelSummary {
    /// Its address.
    pub address: Address,
    /// Its number in the store, a part of its messages' ids.
    pub number: u32,
    /// Its history.
    pub epoch: Epoch,
    /// The state of its log.
    pub head: Head,
    /// How many cursors there are on it.
    pub cursors: u64,
}

/// Opens a data directory, tells what it holds (at most `limit` channels above the number `after`), and closes it.
/// Counts everything once, so it takes time in proportion to the number of channels, cursors and records.
pub fn summarize(dir: &Path, after: u32, limit: usize) -> Result<Summary, OpenError> {
    if !dir.is_dir() {
        let source = std::io::ErrorKind::NotFound.into();
        return Err(OpenError::Io { dir: dir.to_path_buf(), source });
    }
    let engine = open::open(dir, EmbeddedConfig::default())?.engine;
    let broken = |fault: Fault| OpenError::Damaged {
        what: "db".into(),
        detail: match fault {
            Fault::Damaged(detail) => detail,
            Fault::Engine(error) => error.to_string(),
            Fault::Refused(code) => code.name().into(),
        },
    };
    let count = |space: &fjall::Keyspace| space.len().map(|n| n as u64).map_err(Fault::from);
    let cursors = |number| -> Result<u64, Fault> {
        let prefix = keys::readers_of(number);
        Ok(engine.db.snapshot().prefix(&engine.ks.cursors, prefix).count() as u64)
    };
    let list = || -> Result<Summary, Fault> {
        let mut page = Vec::new();
        let mut next = None;
        let from = (Bound::Excluded(keys::channel(after)), Bound::Unbounded);
        for item in engine.db.snapshot().range::<[u8; 8], _>(&engine.ks.channels, from) {
            let key = item.key()?;
            let number = keys::trailing_number(&key).ok_or_else(|| Fault::damaged("a channel"))?;
            if page.len() >= limit {
                next = page.last().map(|c: &ChannelSummary| c.number);
                break;
            }
            let Some(channel) = engine.channel_by_number(number)? else {
                return Err(Fault::damaged("a channel without a name"));
            };
            let head = engine.head_of(&channel)?;
            let (address, cursors) = (channel.address.clone(), cursors(number)?);
            page.push(ChannelSummary { address, number, epoch: head.epoch, head, cursors });
        }
        Ok(Summary {
            format: FORMAT,
            generation: engine.generation,
            channels: count(&engine.ks.channels)?,
            records: count(&engine.ks.records)?,
            cursors: count(&engine.ks.cursors)? / 2,
            disk_bytes: engine.db.disk_space()?,
            page,
            next,
        })
    };
    list().map_err(broken)
}
