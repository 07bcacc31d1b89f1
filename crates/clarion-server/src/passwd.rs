//! `clarion passwd`: sets or deletes a user's password in a password file.
//!
//! Invariants: the file is replaced as a whole or not at all, and only its owner may read it; a password is shown nowhere. Must
//! not know: the running server (it reads the file at its start and at SIGHUP).

use crate::exit::{self, Failure, code_of};
use clarion_edge::auth::{PasswordFile, check_name, edit_password_file, hash_password};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

/// Sets a user's password in a password file, which is made when it is missing.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file, `auth.password_file` of the server.
    file: PathBuf,
    /// The user.
    user: String,
    /// Delete the user.
    #[arg(long, conflicts_with = "batch")]
    delete: bool,
    /// The password; others on this machine may see it. Without it, it is asked for, or read from standard input.
    #[arg(long, short, value_name = "PASSWORD")]
    batch: Option<String>,
}

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args")
            .field("file", &self.file)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    code_of(change(args))
}

fn change(args: &Args) -> Result<(), Failure> {
    let usage = |text: String| Failure::new(exit::USAGE, text);
    check_name(&args.user).map_err(|error| usage(format!("the user: {error}")))?;
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(&args.file).unwrap_or_else(|_| args.file.clone());
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => {
            let text = format!("{}: cannot be read: {error}", path.display());
            return Err(Failure::new(exit::IO, text));
        }
    };
    PasswordFile::parse(&before)
        .map_err(|error| Failure::new(exit::IO, format!("{}: {error}", path.display())))?;
    let hash = if args.delete { None } else { Some(new_hash(args)?) };
    let (after, was_there) = edit_password_file(&before, &args.user, hash.as_deref());
    if args.delete && !was_there {
        return Err(usage(format!("{} has no user '{}'", path.display(), args.user)));
    }
    replace(&path, &after).map_err(|error| {
        Failure::new(exit::CANNOT_CREATE, format!("{}: cannot be written: {error}", path.display()))
    })
}

fn new_hash(args: &Args) -> Result<String, Failure> {
    let password = match &args.batch {
        Some(password) => password.clone(),
        None => ask(&args.user)?,
    };
    if password.is_empty() {
        return Err(Failure::new(exit::USAGE, "the password is empty"));
    }
    hash_password(password.as_bytes()).map_err(|error| Failure::new(exit::SOFTWARE, error))
}

/// Asks for the password, twice at a terminal; else reads one line.
fn ask(user: &str) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::new(exit::IO, format!("standard input: {error}"));
    if !isatty(io::stdin()) {
        return read_line().map_err(failed);
    }
    let first = ask_hidden(&format!("Password of {user}: ")).map_err(failed)?;
    let second = ask_hidden("Once more: ").map_err(failed)?;
    if first == second {
        Ok(first)
    } else {
        Err(Failure::new(exit::USAGE, "the two are not the same"))
    }
}

fn ask_hidden(prompt: &str) -> io::Result<String> {
    let mut terminal = io::stderr().lock();
    terminal.write_all(prompt.as_bytes())?;
    terminal.flush()?;
    let shown = tcgetattr(io::stdin())?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
    let line = read_line();
    tcsetattr(io::stdin(), OptionalActions::Flush, &shown)?;
    terminal.write_all(b"\n")?;
    line
}

fn read_line() -> io::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

/// A file beside it that only its owner may read, then a rename.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", process::id()));
    let written = write(&beside, path, text).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // Nothing more can be done about a leftover when even this fails.
        let _ = fs::remove_file(&beside);
    }
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn write(beside: &Path, old: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    if let Ok(old) = fs::metadata(old) {
        // The server may be another user than the one who edits; who may not give files away keeps his own.
        let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn args(file: &Path, user: &str, password: Option<&str>) -> Args {
        let batch = password.map(str::to_owned);
        Args { file: file.into(), user: user.into(), delete: password.is_none(), batch }
    }

    #[test]
    fn users_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwords");
        change(&args(&file, "alice", Some("one"))).unwrap();
        change(&args(&file, "bob", Some("two"))).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        assert!(before.starts_with("alice:$argon2id$") && before.lines().count() == 2, "{before}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        change(&args(&file, "alice", Some("three"))).unwrap();
        let after = fs::read_to_string(&file).unwrap();
        assert_eq!(after.lines().nth(1), before.lines().nth(1));
        assert_ne!(after.lines().next(), before.lines().next());
        change(&args(&file, "alice", None)).unwrap();
        assert!(fs::read_to_string(&file).unwrap().starts_with("bob:"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_done_is_told_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwords");
        let fails = |args: &Args| change(args).unwrap_err();
        assert_eq!(fails(&args(&file, "alice", None)).code, exit::USAGE);
        assert_eq!(fails(&args(&file, "#alice", Some("x"))).code, exit::USAGE);
        assert_eq!(fails(&args(&file, "alice", Some(""))).code, exit::USAGE);
        assert!(!file.exists());
        fs::write(&file, "alice:secret\n").unwrap();
        let failure = fails(&args(&file, "bob", Some("x")));
        assert_eq!(failure.code, exit::IO);
        assert!(failure.text.contains("line 1") && !failure.text.contains("secret"), "{failure}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "alice:secret\n");
        let missing = dir.path().join("no/passwords");
        assert_eq!(fails(&args(&missing, "a", Some("x"))).code, exit::CANNOT_CREATE);
    }
}
