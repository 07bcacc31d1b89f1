//! Opening a data directory: whose it is, who else has it, what format it is in.
//!
//! ```text
//! LOCK      locked while a process has the directory; holds its pid
//! CLEAN     there after a clean stop only: the number that the journal ends with
//! FORMAT    text: magic, format number, where each keyspace stands; written last
//! db/       fjall's
//! db.new/   a directory that is being made; never holds anything
//! ```
//!
//! Invariants: a directory that is not ours is not touched; a half-made one is made anew only while it cannot hold
//! data; a damaged one is an error, never a panic and never an empty store.

use super::EmbeddedConfig;
use super::channels::Channels;
use super::engine::{Engine, IDEMPOTENCY_PREFIX, Keyspaces};
use super::filter::{FloorSource, LogFilterFactory};
use super::keys;
use fjall::config::FilterPolicy;
use fjall::{
    CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode, Readable,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, Once, RwLock};

/// The format that this build writes.
pub const FORMAT: u32 = 1;
const MAGIC: &str = "clarion-store";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_NEW: &str = "FORMAT.new";
const CLEAN_FILE: &str = "CLEAN";
const CLEAN_NEW: &str = "CLEAN.new";
const LOCK_FILE: &str = "LOCK";
const DB: &str = "db";
const DB_NEW: &str = "db.new";
const NAMES: [&str; 7] = ["log", "channels", "names", "cursors", "records", "due", "meta"];
/// What every keyspace's folder holds from its first moment on.
const KEYSPACE_MARKER: &str = "current";
/// fjall does not take less.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data directory {} is in use by {}", dir.display(), owner(*pid))]
    Locked {
        /// Which directory.
        dir: PathBuf,
        /// Who has it, as far as known.
        pid: Option<u32>,
    },
    /// A newer version wrote it.
    #[error("the data directory has format {found}, this build knows formats up to {known}")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// Something in it is broken or missing.
    #[error("the data directory is damaged: {what}: {detail}")]
    Damaged {
        /// Which part.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// It holds something else.
    #[error("{} is not empty and no data directory of this server: it holds {entry:?}", dir.display())]
    Foreign {
        /// Which directory.
        dir: PathBuf,
        /// What was found in it.
        entry: String,
    },
    /// It cannot be made or written to.
    #[error("the data directory {} cannot be made or written to: {source}", dir.display())]
    ReadOnly {
        /// Which directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("the data directory {}: {source}", dir.display())]
    Io {
        /// Which directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

impl OpenError {
    fn io(dir: &Path, source: io::Error) -> Self {
        let dir = dir.to_path_buf();
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { dir, source }
            }
            _ => Self::Io { dir, source },
        }
    }

    fn damaged(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged { what: what.into(), detail: detail.into() }
    }

    fn from_fjall(dir: &Path, error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::Locked { dir: dir.to_path_buf(), pid: None },
            // What should be there is missing or cut short: that is damage, not a failing disk.
            fjall::Error::Io(e)
                if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                Self::io(dir, e)
            }
            other => Self::damaged(DB, other.to_string()),
        }
    }
}

/// What the threads start with.
pub(super) struct Opened {
    pub(super) engine: Engine,
    pub(super) next_number: u32,
    pub(super) memory_flagged: bool,
}

/// Opens or makes a data directory.
pub(super) fn open(dir: &Path, config: EmbeddedConfig) -> Result<Opened, OpenError> {
    let io = |e| OpenError::io(dir, e);
    make_dir(dir).map_err(|source| OpenError::ReadOnly { dir: dir.to_path_buf(), source })?;
    check_ours(dir)?;
    let lock = lock(dir)?;
    let floors = Arc::new(FloorSource::default());
    let format = match fs::read(dir.join(FORMAT_FILE)) {
        Ok(bytes) => Some(parse_format(&bytes)?),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(io(e)),
    };
    let (db, ks) = match format {
        Some(keyspaces) => {
            check_parts(dir, &keyspaces)?;
            let (db, ks) = open_db(dir, DB, &config, &floors, false)?;
            (db, ks)
        }
        None => make(dir, &config, &floors)?,
    };
    check_clean(dir, &db, &ks)?;
    floors.set(ks.channels.clone());
    build(dir, config, lock, db, ks, floors)
}

/// Makes the directory if it is not there, and its name durable.
fn make_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A directory that is not empty must look like ours.
fn check_ours(dir: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(dir).map_err(|e| OpenError::io(dir, e))? {
        let name = entry.map_err(|e| OpenError::io(dir, e))?.file_name();
        let name = name.to_string_lossy();
        if ![FORMAT_FILE, FORMAT_NEW, CLEAN_FILE, CLEAN_NEW, LOCK_FILE, DB, DB_NEW]
            .contains(&&*name)
        {
            return Err(OpenError::Foreign { dir: dir.to_path_buf(), entry: name.into_owned() });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let io = |e| OpenError::io(dir, e);
    let path = dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.take(20).read_to_string(&mut text);
            let pid = text.trim().parse().ok();
            return Err(OpenError::Locked { dir: dir.to_path_buf(), pid });
        }
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    file.set_len(0).map_err(io)?;
    file.rewind().map_err(io)?;
    writeln!(file, "{}", std::process::id()).map_err(io)?;
    Ok(file)
}

/// Reads the format record: the folder of each keyspace.
fn parse_format(bytes: &[u8]) -> Result<BTreeMap<String, String>, OpenError> {
    let damaged = |detail: &str| OpenError::damaged(FORMAT_FILE, detail);
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("it does not begin as it should"));
    }
    let number = lines.next().and_then(|line| line.strip_prefix("format "));
    let found: u32 =
        number.and_then(|n| n.parse().ok()).ok_or_else(|| damaged("it names no format"))?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { found, known: FORMAT });
    }
    let mut keyspaces = BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ');
        let (Some("keyspace"), Some(name), Some(folder), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(damaged("it has a line that is not understood"));
        };
        keyspaces.insert(name.to_owned(), folder.to_owned());
    }
    if NAMES.iter().any(|name| !keyspaces.contains_key(*name)) {
        return Err(damaged("it is cut short"));
    }
    Ok(keyspaces)
}

/// fjall takes a keyspace without its marker, and a database without a journal, for a new one: that would be an empty
/// store in place of what was lost.
fn check_parts(dir: &Path, keyspaces: &BTreeMap<String, String>) -> Result<(), OpenError> {
    let db = dir.join(DB);
    // fjall's own list of keyspaces: without its marker fjall takes all others for strays and deletes them.
    let own = ("list", "0");
    let ours = keyspaces.iter().map(|(name, folder)| (name.as_str(), folder.as_str()));
    for (name, folder) in ours.chain([own]) {
        let marker = db.join("keyspaces").join(folder).join(KEYSPACE_MARKER);
        if !marker.is_file() {
            let detail = format!("{} is missing", marker.display());
            return Err(OpenError::damaged(format!("keyspace {name}"), detail));
        }
    }
    let entries = fs::read_dir(&db).map_err(|e| OpenError::io(dir, e))?;
    let journals = entries.flatten().filter(|e| e.path().extension().is_some_and(|x| x == "jnl"));
    if journals.count() == 0 {
        return Err(OpenError::damaged("journal", "it is missing"));
    }
    if !db.join("version").is_file() {
        return Err(OpenError::damaged(DB, "its version is missing"));
    }
    Ok(())
}

fn make(
    dir: &Path,
    config: &EmbeddedConfig,
    floors: &Arc<FloorSource>,
) -> Result<(Database, Keyspaces), OpenError> {
    let io = |e| OpenError::io(dir, e);
    let new = dir.join(DB_NEW);
    if !dir.join(DB).exists() {
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io)?;
        }
        let (db, ks) = open_db(dir, DB_NEW, config, floors, true)?;
        // The first write: a snapshot of nothing at all would see nothing for ever.
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&ks.meta, keys::GENERATION, 0u32.to_be_bytes());
        batch.insert(&ks.meta, keys::NEXT_NUMBER, 1u32.to_be_bytes());
        batch.commit().map_err(|e| OpenError::from_fjall(dir, e))?;
        drop((ks, db));
        fs::rename(&new, dir.join(DB)).map_err(io)?;
        sync_dir(dir)?;
    }
    let (db, ks) = open_db(dir, DB, config, floors, false)?;
    for space in [&ks.log, &ks.channels, &ks.records, &ks.cursors] {
        if !space.is_empty().map_err(|e| OpenError::from_fjall(dir, e))? {
            return Err(OpenError::damaged(FORMAT_FILE, "it is missing"));
        }
    }
    write_format(dir, &ks)?;
    Ok((db, ks))
}

fn write_format(dir: &Path, ks: &Keyspaces) -> Result<(), OpenError> {
    let io = |e| OpenError::io(dir, e);
    let mut text = format!("{MAGIC}\nformat {FORMAT}\n");
    let all = [&ks.log, &ks.channels, &ks.names, &ks.cursors, &ks.records, &ks.due, &ks.meta];
    for (name, space) in NAMES.iter().zip(all) {
        let folder = space.path().file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!("keyspace {name} {folder}\n"));
    }
    replace(dir, FORMAT_NEW, FORMAT_FILE, &text).map_err(io)
}

/// Writes a file so that it is there whole or not at all, and durable.
fn replace(dir: &Path, new: &str, name: &str, text: &str) -> io::Result<()> {
    let new = dir.join(new);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Says that the end was clean: `number` is the last thing in the journal.
pub(super) fn mark_clean(dir: &Path, number: u64) -> io::Result<()> {
    replace(dir, CLEAN_NEW, CLEAN_FILE, &format!("{number}\n"))
}

/// From here on the end is not clean. Before anything is written.
pub(super) fn unmark_clean(dir: &Path) -> Result<(), OpenError> {
    match fs::remove_file(dir.join(CLEAN_FILE)) {
        Ok(()) => sync_dir(dir),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(OpenError::io(dir, e)),
    }
}

/// After a clean end the journal's last record must be there: fjall takes a journal whose end is damaged for one whose
/// last write was not finished, and drops that end.
fn check_clean(dir: &Path, db: &Database, ks: &Keyspaces) -> Result<(), OpenError> {
    let text = match fs::read_to_string(dir.join(CLEAN_FILE)) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(OpenError::io(dir, e)),
    };
    let found = db.snapshot().get(&ks.meta, keys::CLOSED);
    let found = found.map_err(|e| OpenError::from_fjall(dir, e))?;
    let expected = text.trim().parse().map(u64::to_be_bytes);
    if expected.is_ok_and(|number| found.is_some_and(|found| found[..] == number)) {
        return Ok(());
    }
    Err(OpenError::damaged("journal", "its end is missing, though the last stop was a clean one"))
}

fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| OpenError::io(dir, e))
}

/// Opens fjall. It panics on some kinds of damage, so that is caught.
fn open_db(
    dir: &Path,
    name: &str,
    config: &EmbeddedConfig,
    floors: &Arc<FloorSource>,
    create: bool,
) -> Result<(Database, Keyspaces), OpenError> {
    let opened = catch_quietly(|| {
        let floors = floors.clone();
        let db = Database::builder(dir.join(name))
            .cache_size(config.cache_bytes)
            .max_journaling_size(config.journal_bytes.max(JOURNAL_BYTES_MIN))
            .worker_threads(config.worker_threads.max(1))
            .journal_compression(CompressionType::None)
            .manual_journal_persist(true)
            .with_compaction_filter_factories(Arc::new(move |keyspace| {
                (keyspace == "log").then(|| Arc::new(LogFilterFactory(floors.clone())) as _)
            }))
            .open()?;
        if !create && let Some(missing) = NAMES.iter().find(|n| !db.keyspace_exists(n)) {
            return Ok(Err(OpenError::damaged(format!("keyspace {missing}"), "it is missing")));
        }
        let ks = keyspaces(&db, config)?;
        Ok(Ok((db, ks)))
    });
    match opened {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(OpenError::from_fjall(dir, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let detail =
                text.map(|text| format!("it cannot be read ({})", text.replace('\n', ",")));
            Err(OpenError::damaged(DB, detail.unwrap_or_else(|| "it cannot be read".into())))
        }
    }
}

thread_local! {
    /// A panic of this thread is caught and told as an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic without the report that a panic writes.
fn catch_quietly<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                report(info);
            }
        }));
    });
    QUIET.set(true);
    let caught = catch_unwind(AssertUnwindSafe(body));
    QUIET.set(false);
    caught
}

fn keyspaces(db: &Database, config: &EmbeddedConfig) -> Result<Keyspaces, fjall::Error> {
    let small = || Engine::small_options(config);
    Ok(Keyspaces {
        log: db.keyspace("log", || log_options(config))?,
        channels: db.keyspace("channels", small)?,
        names: db.keyspace("names", small)?,
        cursors: db.keyspace("cursors", small)?,
        records: db.keyspace("records", small)?,
        due: db.keyspace("due", small)?,
        meta: db.keyspace("meta", small)?,
    })
}

fn log_options(config: &EmbeddedConfig) -> KeyspaceCreateOptions {
    let bodies = KvSeparationOptions::default()
        .separation_threshold(config.separate_bytes)
        .compression(CompressionType::Lz4);
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(config.log_memtable_bytes)
        .with_kv_separation(Some(bodies))
        // A log is scanned, or asked for a seq that it has: filters would only cost.
        .filter_policy(FilterPolicy::disabled())
        .expect_point_read_hits(true)
}

fn build(
    dir: &Path,
    config: EmbeddedConfig,
    lock: File,
    db: Database,
    ks: Keyspaces,
    floors: Arc<FloorSource>,
) -> Result<Opened, OpenError> {
    let fail = |e| OpenError::from_fjall(dir, e);
    let number = |key: &[u8]| -> Result<u32, OpenError> {
        let value = db.snapshot().get(&ks.meta, key).map_err(fail)?;
        let value = value.and_then(|v| Some(u32::from_be_bytes(v.get(..4)?.try_into().ok()?)));
        value.ok_or_else(|| OpenError::damaged("keyspace meta", "a number is missing"))
    };
    let mut generation = number(keys::GENERATION)?;
    let next_number = number(keys::NEXT_NUMBER)?;
    if db.snapshot().contains_key(&ks.meta, keys::MEMORY).map_err(fail)? {
        // Something was answered that may be lost: every channel's history is another one from here on.
        generation = generation.wrapping_add(1);
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(&ks.meta, keys::GENERATION, generation.to_be_bytes());
        batch.remove(&ks.meta, keys::MEMORY);
        batch.commit().map_err(fail)?;
    }
    let mut remembered = BTreeMap::new();
    for name in db.list_keyspace_names() {
        let half_day = name.strip_prefix(IDEMPOTENCY_PREFIX).and_then(|n| n.parse().ok());
        if let Some(half_day) = half_day {
            let space = db.keyspace(&name, || Engine::small_options(&config)).map_err(fail)?;
            remembered.insert(half_day, space);
        }
    }
    let engine = Engine {
        channels: Channels::new(config.cached_channels),
        dir: dir.to_path_buf(),
        generation,
        loads: AtomicU64::new(0),
        garbage: AtomicU64::new(0),
        full: AtomicBool::new(false),
        floors,
        remembered: RwLock::new(remembered),
        failed: Mutex::new(None),
        config,
        db,
        ks,
        _lock: lock,
    };
    Ok(Opened { engine, next_number, memory_flagged: false })
}

#[cfg(test)]
mod tests;
