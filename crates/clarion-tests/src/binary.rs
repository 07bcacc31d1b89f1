//! The binary under test. Invariant: built at most once per test process, with the profile and the target directory of the
//! tests themselves.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The path of `clarion`: `CLARION_BIN`, or built now.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("CLARION_BIN").map_or_else(build, PathBuf::from))
}

/// The target directory that the tests were built into.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's directory lies in the target directory").to_owned()
}

/// `<target>/debug`, from `<target>/debug/deps/it-0123`.
fn profile_dir() -> PathBuf {
    let exe = env::current_exe().expect("a process knows its file");
    let deps = exe.parent().expect("a file lies in a directory");
    deps.parent().expect("test binaries lie in deps").to_owned()
}

fn build() -> PathBuf {
    let profile = profile_dir();
    let name = profile.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "clarion-server", "--bin", "clarion", "--profile"]);
    cargo.arg(if name == "debug" { "dev" } else { &name });
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    cargo.env("CARGO_TARGET_DIR", target_dir());
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building the binary failed: {status}");
    profile.join("clarion")
}
