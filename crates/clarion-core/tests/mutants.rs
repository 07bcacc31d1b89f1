//! Shows that the simulation is no ornament: with each seeded bug of `src` compiled in, it fails within 200 seeds, by
//! an invariant that the bug breaks.
//!
//! The builds have their own target directory (`target/mutants`), so that they disturb no other; per bug only the core
//! and the simulation are built anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const MARK: &str = "mutant!(\"";

/// The names of all seeded bugs in the production code.
fn mutants(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            mutants(&path, names);
        } else if path.file_name().is_some_and(|name| name != "mutant.rs") {
            let text = std::fs::read_to_string(&path).expect("the sources are text");
            let found = text.split(MARK).skip(1).filter_map(|rest| rest.split('"').next());
            names.extend(found.map(str::to_string));
        }
    }
}

/// Builds the simulation with a seeded bug (none when empty); the executable.
fn build(target: &Path, mutant: &str) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--package", "clarion-core", "--test", "sim", "--no-run"])
        .args(["--message-format", "json", "--config", "profile.dev.package.\"*\".opt-level=0"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CLARION_MUTANT", mutant)
        .output()
        .expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the build with {mutant:?} failed:\n{text}\n{errors}");
    let key = "\"executable\":\"";
    let path =
        text.lines().filter_map(|line| line.split(key).nth(1)?.split('"').next()).next_back();
    path.expect("cargo names the executable that it built").into()
}

/// The invariant that broke, or what happened instead.
fn verdict(executable: &Path) -> Result<String, String> {
    let output = Command::new(executable)
        .args(["--exact", "every_seed_keeps_the_rules"])
        .env("RUST_BACKTRACE", "0")
        .env_remove("SIM_SEED")
        .env("SIM_SEEDS", "200")
        .output()
        .map_err(|error| error.to_string())?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line =
        text.lines().find(|line| line.starts_with("seed ") && line.contains(": invariant '"));
    match line {
        Some(line) if !output.status.success() => Ok(line.chars().take(160).collect()),
        _ => Err(format!("{}\n{text}", output.status)),
    }
}

#[test]
fn every_seeded_bug_is_caught_by_an_invariant() {
    let mut names = BTreeSet::new();
    mutants(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert!(names.len() >= 10, "only {names:?}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("mutants");
    let mut survivors = Vec::new();
    for name in &names {
        match verdict(&build(&target, name)) {
            Ok(line) => println!("{name}: {line}"),
            Err(text) => survivors.push(format!("{name}: {text}")),
        }
    }
    assert!(survivors.is_empty(), "not caught:\n{}", survivors.join("\n"));
}
