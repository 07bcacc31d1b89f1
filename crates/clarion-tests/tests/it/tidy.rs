//! The repository keeps its own rules: module docs, file sizes, dependency arrows, words, links.
//!
//! Every check is a function from text to complaints, with a test that it complains. Whether docs/configuration.md is
//! current is checked beside the table that it is made from, in clarion-server.

#![allow(clippy::unwrap_used, reason = "a repository that cannot be read fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

const LINES_MAX: usize = 800;

/// Arrows between our crates: who may depend on whom, exactly (tests apart).
const ARROWS: [(&str, &[&str]); 7] = [
    ("clarion-core", &[]),
    ("clarion-wire", &["clarion-core"]),
    ("clarion-store", &["clarion-core"]),
    ("clarion-node", &["clarion-core"]),
    ("clarion-edge", &["clarion-core", "clarion-node", "clarion-wire"]),
    ("clarion-client", &[]),
    (
        "clarion-server",
        &[
            "clarion-client",
            "clarion-core",
            "clarion-edge",
            "clarion-node",
            "clarion-store",
            "clarion-wire",
        ],
    ),
];

/// What the pure core may use.
const CORE_DEPENDENCIES: [&str; 2] = ["bytes", "thiserror"];

/// Crates that stay out of others: the node knows no protocol, the edge and the node no driver, the codecs no runtime.
const STRANGERS: [(&str, &[&str]); 3] = [
    ("clarion-node", &["axum", "hyper", "hyper-util", "fjall", "tonic"]),
    ("clarion-edge", &["fjall"]),
    ("clarion-wire", &["tokio", "hyper", "axum"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// All files below, but not what was built or downloaded.
fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let skipped = ["target", "node_modules", "__pycache__", ".git", "clarion-data"];
        if skipped.iter().any(|skip| name == *skip) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files_below(&entry.path(), found);
        } else if entry.file_type().unwrap().is_file() {
            found.push(entry.path());
        }
    }
}

/// The repository's texts with these endings, by path from the root.
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    files_below(&root, &mut files);
    files.sort();
    let wanted = files.iter().filter(|path| {
        path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted))
    });
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    let texts: Vec<(String, String)> = wanted.map(read).collect();
    assert!(!texts.is_empty(), "no file ends with {endings:?}");
    texts
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn check_source(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    // The module above a tests.rs says what it is about.
    if !text.starts_with("//!") && !name.ends_with("/tests.rs") {
        complaints.push(format!("{name} does not start with //!: say what the module owns"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complaints.push(format!("{name} has {lines} lines, at most {LINES_MAX}"));
    }
    complaints
}

#[test]
fn sources_say_what_they_are_and_stay_short() {
    let complaints: Vec<String> =
        texts(&["rs"]).iter().flat_map(|(name, text)| check_source(name, text)).collect();
    assert_none(&complaints);
    assert_eq!(check_source("a.rs", "fn main() {}").len(), 1);
    assert_eq!(check_source("a.rs", &"//! x\n".repeat(LINES_MAX + 1)).len(), 1);
    assert_eq!(check_source("a.rs", "//! x\n"), [""; 0]);
}

fn find_words(name: &str, text: &str, words: &[&str]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let found = words.iter().filter(|word| line.to_lowercase().contains(&word.to_lowercase()));
        complaints.extend(found.map(|word| format!("{name}:{}: '{word}'", index + 1)));
    }
    complaints
}

#[test]
fn nothing_is_left_for_later_and_no_machine_is_named() {
    // Put together here, so that this file does not hold them.
    let words =
        [concat!("TO", "DO:"), concat!("TO", "DO("), concat!("FIX", "ME"), concat!("/wo", "rk/")];
    let files = texts(&["rs", "md", "toml", "sh", "yaml", "yml", "py", "js", "mjs", "proto", "c"]);
    let complaints: Vec<String> =
        files.iter().flat_map(|(name, text)| find_words(name, text, &words)).collect();
    assert_none(&complaints);
    let bad = format!("fine\n// {} later", words[0]);
    assert_eq!(find_words("a.rs", &bad, &words), [format!("a.rs:2: '{}'", words[0])]);
}

#[test]
fn documentation_does_not_boast() {
    let words = ["blazing", "production-ready", "enterprise-grade", "zero-cost"];
    let complaints: Vec<String> =
        texts(&["md"]).iter().flat_map(|(name, text)| find_words(name, text, &words)).collect();
    assert_none(&complaints);
    assert_eq!(find_words("a.md", "Blazing fast", &words).len(), 1);
}

/// The names in one table of a Cargo.toml.
fn dependencies(manifest: &str, table: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = header == table;
            if let Some(name) = header.strip_prefix(table).and_then(|rest| rest.strip_prefix('.')) {
                names.insert(name.to_owned());
            }
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            names.insert(name.to_owned());
        }
    }
    names
}

fn manifest(name: &str) -> String {
    fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap()
}

#[test]
fn manifests_are_understood() {
    let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n# b = 1\nc = \"1\"\n\
                    d = { path = \"d\" }\n[dependencies.e]\nversion = \"1\"\n[dev-dependencies]\nf = \"1\"\n";
    let names = dependencies(manifest, "dependencies");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "c", "d", "e"]);
    assert_eq!(dependencies(manifest, "dev-dependencies").len(), 1);
}

#[test]
fn dependency_arrows_are_the_drawn_ones() {
    let mut complaints = Vec::new();
    for (name, expected) in ARROWS {
        let found = dependencies(&manifest(name), "dependencies");
        let found: Vec<&str> =
            found.iter().map(String::as_str).filter(|name| name.starts_with("clarion-")).collect();
        if found != expected {
            complaints.push(format!("{name} depends on {found:?}, drawn is {expected:?}"));
        }
    }
    for (name, strangers) in STRANGERS {
        let found = dependencies(&manifest(name), "dependencies");
        let strange = strangers.iter().filter(|stranger| found.contains(**stranger));
        complaints.extend(strange.map(|stranger| format!("{name} must not know {stranger}")));
    }
    let core = dependencies(&manifest("clarion-core"), "dependencies");
    if core.iter().ne(CORE_DEPENDENCIES.iter()) {
        complaints
            .push(format!("clarion-core depends on {core:?}, not only {CORE_DEPENDENCIES:?}"));
    }
    assert_none(&complaints);
    let drawn: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let crates: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "clarion-tests")
        .collect();
    assert_eq!(crates, drawn, "every crate is in the picture");
}

/// The targets of Markdown links to files, without their fragments.
fn local_links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ', '\n']).next());
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty())
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut complaints = Vec::new();
    for (name, text) in texts(&["md"]) {
        let folder = root.join(&name).parent().unwrap().to_owned();
        for link in local_links(&text) {
            let target = folder.join(link);
            let inside =
                Path::new(link).components().all(|part| !matches!(part, Component::RootDir));
            if !inside || !target.exists() {
                complaints.push(format!("{name}: the link to {link} leads nowhere"));
            }
        }
    }
    assert_none(&complaints);
    let text = "[a](b.md#c) [d](https://e.f) [g](#h) ![i](j/k.png \"title\")";
    assert_eq!(local_links(text), ["b.md", "j/k.png"]);
}
