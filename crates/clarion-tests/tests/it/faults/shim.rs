//! The preloaded library: built once, steered through a file that it maps.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::OnceLock,
};

use clarion_tests::{Builder, Server, target_dir};
use tempfile::TempDir;

/// Words of the control file, as `shim/faults.c` has them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    SyncDelayMs = 0,
    SyncErrno = 1,
    SyncFails = 2,
    WriteErrno = 3,
    SyncHold = 4,
    Syncs = 16,
    SyncsDone = 17,
    SyncsFailed = 18,
    Writes = 19,
    WritesFailed = 20,
    Others = 21,
    SyncsHeld = 22,
}

/// Bytes of the control file.
const CONTROL_BYTES: u64 = 64 * 8;

/// A data directory and what stands before it.
#[derive(Debug)]
pub(crate) struct Shim {
    dir: TempDir,
    control: File,
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/faults.c");
        let library = target_dir().join("tmp").join(format!("faults-{}.so", process::id()));
        fs::create_dir_all(target_dir().join("tmp")).expect("the target directory is writable");
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-o"]).arg(&library);
        let status = cc.args([source, "-ldl", "-lpthread"]).status().expect("cc runs");
        assert!(status.success(), "cc failed: {status}");
        library
    })
}

impl Shim {
    pub(crate) fn new() -> Self {
        let tmp = target_dir().join("tmp");
        fs::create_dir_all(&tmp).expect("the target directory is writable");
        let dir = tempfile::Builder::new().prefix("faults-").tempdir_in(&tmp);
        let dir = dir.expect("the target directory is writable");
        let mut options = OpenOptions::new();
        let control =
            options.create_new(true).read(true).write(true).open(dir.path().join("control"));
        let control = control.expect("a new file");
        control.set_len(CONTROL_BYTES).expect("a new file");
        Self { dir, control }
    }

    /// The directory that holds `data`, `control` and `log`.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("it exists")
    }

    pub(crate) fn builder_without_preload(&self) -> Builder {
        let path = self.path();
        let text = |file: &str| path.join(file).to_str().expect("text").to_owned();
        Server::builder()
            .data(&path.join("data"))
            .env("CLARION_SHIM_DIR", path.to_str().expect("text"))
            .env("CLARION_SHIM_CTL", &text("control"))
    }

    pub(crate) fn builder(&self) -> Builder {
        self.builder_without_preload().preload(library())
    }

    pub(crate) fn start(&self) -> Server {
        self.builder().start()
    }

    pub(crate) fn get(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, word as u64 * 8).expect("the control file");
        u64::from_ne_bytes(bytes)
    }

    pub(crate) fn set(&self, word: Word, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), word as u64 * 8).expect("the control file");
    }
}
