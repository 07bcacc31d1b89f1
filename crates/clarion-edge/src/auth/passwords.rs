//! The password file: `user:$argon2id$…` a line, and the checks against it.
//!
//! Invariants: a user that does not exist costs what a wrong password costs; checks under way are bounded, and so are those
//! that wait; a hash appears in no text and no `Debug`. Must not know: where the file lies.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier};
use clarion_core::address::check_user_id;
use clarion_core::{Code, Refusal};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Most users of a file.
const USERS_MAX: usize = 1_000_000;
/// Most memory that a hash may ask for, in KiB.
const MEMORY_KIB_MAX: u32 = 1 << 20;
/// Most rounds that a hash may ask for.
const ROUNDS_MAX: u32 = 1_000;
/// Begins a comment.
const COMMENT: char = '#';

/// Users and their hashes.
#[derive(Clone)]
pub struct PasswordFile {
    hashes: HashMap<Box<str>, Box<str>>,
    /// What the password of an unknown user is compared with.
    decoy: Box<str>,
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordFile").field("users", &self.hashes.len()).finish_non_exhaustive()
    }
}

impl PasswordFile {
    /// Reads a file's text; what is wrong is told with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut hashes = HashMap::new();
        let mut decoy: Option<Box<str>> = None;
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with(COMMENT) {
                continue;
            }
            let (user, hash) =
                parse_line(line).map_err(|error| format!("line {number}: {error}"))?;
            if hashes.len() >= USERS_MAX {
                return Err(format!("more than {USERS_MAX} users"));
            }
            decoy.get_or_insert_with(|| hash.into());
            if hashes.insert(Box::from(user), Box::from(hash)).is_some() {
                return Err(format!("line {number}: the user '{user}' stands twice"));
            }
        }
        let decoy = match decoy {
            Some(decoy) => decoy,
            None => hash_password(b"")?.into(),
        };
        Ok(Self { hashes, decoy })
    }

    /// Whether this is the user's password. Takes tens of milliseconds of processor time, and memory.
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(user);
        let hash = known.unwrap_or(&self.decoy);
        let verified = PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok());
        verified && known.is_some()
    }
}

fn parse_line(line: &str) -> Result<(&str, &str), String> {
    let (user, hash) = line
        .trim_end()
        .rsplit_once(':')
        .ok_or("expected user:$argon2id$…, as 'clarion passwd' writes it")?;
    check_user_id(user).map_err(|error| format!("the user's name: {error}"))?;
    check_hash(hash)?;
    Ok((user, hash))
}

fn check_hash(hash: &str) -> Result<(), String> {
    let parsed =
        PasswordHash::new(hash).map_err(|_| "what stands behind the last ':' is no hash")?;
    if Algorithm::try_from(parsed.algorithm.as_str()) != Ok(Algorithm::Argon2id) {
        return Err("the hash is not of argon2id".into());
    }
    let params =
        Params::try_from(&parsed).map_err(|_| "the hash has parameters that do not exist")?;
    if parsed.hash.is_none() || parsed.salt.is_none() {
        return Err("the hash is not complete".into());
    }
    if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > ROUNDS_MAX {
        return Err(format!(
            "the hash asks for more than {MEMORY_KIB_MAX} KiB of memory or {ROUNDS_MAX} rounds"
        ));
    }
    Ok(())
}

/// A hash for the password file: argon2id, 19 MiB, 2 rounds, a random salt.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    let hash = Argon2::default().hash_password(password);
    hash.map(|hash: PasswordHash| hash.to_string()).map_err(|error| format!("cannot hash: {error}"))
}

/// A file's text with this user's hash set, or without him. The rest, comments too, stays as it is. Tells whether he stood
/// there before.
pub fn edit(text: &str, user: &str, hash: Option<&str>) -> (String, bool) {
    let mut out = String::with_capacity(text.len() + 128);
    let mut found = false;
    for line in text.lines() {
        let is_his = !line.starts_with(COMMENT)
            && line.trim_end().rsplit_once(':').is_some_and(|(name, _)| name == user);
        if !is_his {
            out.push_str(line);
            out.push('\n');
        } else if let (false, Some(hash)) = (found, hash) {
            out.push_str(&format!("{user}:{hash}\n"));
        }
        found |= is_his;
    }
    if let (false, Some(hash)) = (found, hash) {
        out.push_str(&format!("{user}:{hash}\n"));
    }
    (out, found)
}

/// Why a name cannot stand in a password file.
pub fn check_name(user: &str) -> Result<(), String> {
    check_user_id(user).map_err(|error| error.to_string())?;
    if user.starts_with(COMMENT) || user.trim() != user {
        return Err("a name does not begin with '#', and begins and ends without spaces".into());
    }
    Ok(())
}

/// The bounded pool in which passwords are checked.
#[derive(Debug, Clone)]
pub(super) struct Checks {
    running: Arc<Semaphore>,
    /// Those that run or wait.
    taken: Arc<Semaphore>,
}

impl Checks {
    /// So many at once, and so many that wait for them.
    pub(super) fn new(running: usize, waiting: usize) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running)),
            taken: Arc::new(Semaphore::new(
                running.saturating_add(waiting).min(Semaphore::MAX_PERMITS),
            )),
        }
    }

    /// Checks a password when its turn comes; `overloaded` when too many wait. Who goes away while he waits leaves the line.
    pub(super) async fn verify(
        &self,
        file: Arc<PasswordFile>,
        user: Box<str>,
        password: Box<[u8]>,
    ) -> Result<bool, Refusal> {
        let overloaded =
            || Refusal::new(Code::Overloaded, "as many passwords wait to be checked as may");
        let place = self.taken.clone().try_acquire_owned().map_err(|_| overloaded())?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| overloaded())?;
        let checking = tokio::task::spawn_blocking(move || {
            let verified = file.verify(&user, &password);
            // A check that runs is not cut off when nobody waits for it any more.
            drop((turn, place));
            verified
        });
        checking.await.map_err(|_| Code::Internal.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let hash = hash_password(b"secret").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let text = format!("# people\n\nalice:{hash}\r\na:b c:{hash}\n");
        let file = PasswordFile::parse(&text).unwrap();
        assert!(file.verify("alice", b"secret") && file.verify("a:b c", b"secret"));
        assert!(!file.verify("alice", b"Secret") && !file.verify("bob", b"secret"));
        assert!(!file.verify("alice", b""));
        assert!(!format!("{file:?}").contains("argon2"));
        let empty = PasswordFile::parse("").unwrap();
        assert!(!empty.verify("alice", b"") && !empty.verify("", b""));
    }

    #[test]
    fn what_is_no_password_file() {
        let hash = hash_password(b"x").unwrap();
        for (text, why) in [
            ("alice".to_owned(), "line 1: expected user:"),
            (format!(":{hash}"), "line 1: the user's name"),
            ("#\na:secret".to_owned(), "line 2: what stands behind"),
            ("a:$argon2i$v=19$m=16,t=2,p=1$MTIzNDU2Nzg$".to_owned(), "line 1: "),
            (
                format!("a:{}", hash.replace("argon2id", "argon2i")),
                "line 1: the hash is not of argon2id",
            ),
            (
                format!("a:{}", hash.replace("m=19456", "m=4000000")),
                "line 1: the hash asks for more",
            ),
            (format!("a:{}", hash.replace("t=2", "t=0")), "line 1: "),
            (format!("a:{}", hash.rsplit_once('$').unwrap().0), "line 1: the hash is not complete"),
            (format!("a:{hash}\na:{hash}"), "line 2: the user 'a' stands twice"),
        ] {
            let error = PasswordFile::parse(&text).unwrap_err();
            assert!(error.starts_with(why), "{text}: {error}");
            assert!(!error.contains("MTIz") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn one_line_is_edited_and_the_rest_stays() {
        let text = "# a\nalice:1\nbob:2";
        assert_eq!(edit(text, "bob", Some("3")), ("# a\nalice:1\nbob:3\n".into(), true));
        assert_eq!(edit(text, "a:b", Some("3")), ("# a\nalice:1\nbob:2\na:b:3\n".into(), false));
        assert_eq!(edit(text, "alice", None), ("# a\nbob:2\n".into(), true));
        assert_eq!(edit("", "x", None), (String::new(), false));
        for bad in ["", "#x", " x", "x ", "a\nb"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(check_name("a:b c"), Ok(()));
    }

    #[tokio::test]
    async fn checks_are_bounded() {
        let file = Arc::new(PasswordFile::parse("").unwrap());
        let checks = Checks::new(1, 1);
        let verify = || checks.verify(file.clone(), "u".into(), Box::from(*b"p"));
        // Three at once: one runs, one waits, one is refused.
        let (a, b, c) = tokio::join!(verify(), verify(), verify());
        assert_eq!((a, b), (Ok(false), Ok(false)));
        assert_eq!(c.unwrap_err().code, Code::Overloaded);
        assert_eq!(verify().await, Ok(false), "both places are free again");
    }
}
