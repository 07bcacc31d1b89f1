//! The ready file: what a script waits for, and where it learns the ports.
//!
//! Invariant: whoever sees the file sees all of it, and all listeners accept.

use crate::exit::{self, Failure};
use std::{fs, io::ErrorKind, net::SocketAddr, path::Path, process};

/// Removes what an earlier run left, so that nobody takes it for this one's; also at the end of a run.
pub(crate) fn clear(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failure(path, &error)),
        _ => Ok(()),
    }
}

/// Writes it: a file beside it, then a rename.
pub(crate) fn write(path: &Path, listeners: &[(&str, SocketAddr)]) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", process::id()));
    let written = fs::write(&beside, text(listeners)).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // Nothing more can be done about a leftover when even this fails.
        let _ = fs::remove_file(&beside);
        failure(path, &error)
    })
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        exit::CANNOT_CREATE,
        format!("--ready-file {}: cannot be written: {error}", path.display()),
    )
}

fn text(listeners: &[(&str, SocketAddr)]) -> String {
    let listeners: serde_json::Map<String, serde_json::Value> = listeners
        .iter()
        .map(|(name, address)| ((*name).to_owned(), address.to_string().into()))
        .collect();
    let ready = serde_json::json!({
        "pid": process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "listeners": listeners,
    });
    format!("{ready}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_appears_whole_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        clear(&path).unwrap();
        fs::write(&path, "an old one").unwrap();
        write(&path, &[("http", "127.0.0.1:8080".parse().unwrap())]).unwrap();
        let ready: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(ready["pid"], process::id());
        assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(ready["listeners"], serde_json::json!({"http": "127.0.0.1:8080"}));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        clear(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("missing/ready.json");
        let failure = write(&path, &[]).unwrap_err();
        assert_eq!(failure.code, exit::CANNOT_CREATE);
        assert!(failure.text.contains("--ready-file") && failure.text.contains("missing"));
        assert_eq!(clear(dir.path()).unwrap_err().code, exit::CANNOT_CREATE, "a folder stays");
    }
}
