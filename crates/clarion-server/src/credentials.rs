//! The files that prove identities and hold access rules: read at the start, by `check-config`, and again at SIGHUP.
//!
//! Invariants: what is loaded is whole and valid, or nothing of it is used; a problem names the key and the file, and repeats
//! nothing of what stands in a file of secrets. Must not know: how anything is proved.

use crate::config::{
    Config, Origin, Problem, listeners::Listener, read_rules_file, sections::AclDefault,
};
use clarion_core::acl::{Acl, Subject};
use clarion_edge::{
    auth::{ApiKey, Authenticator, Credentials, JwtKeys, PasswordFile},
    tls::{TlsConfig, server_config},
};
use std::{fs::File, io::Read, path::Path, sync::Arc};

/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What was read.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    pub(crate) credentials: Credentials,
    /// `None` = there are no access rules.
    pub(crate) acl: Option<Acl>,
}

/// Reads everything; the problems are all that there are.
fn load(config: &Config) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let keys = config.auth.keys.iter();
    let keys = keys.map(|key| ApiKey { sha256: key.sha256, principal: key.principal() }).collect();
    let passwords = config.auth.password_file.as_deref().and_then(|path| {
        let key = "auth.password_file";
        let read = read_text(key, path)
            .and_then(|text| PasswordFile::parse(&text).map_err(|error| problem(key, path, error)));
        note(read, &mut problems).map(Arc::new)
    });
    let jwt = config.jwt.has_keys().then(|| load_jwt(config, &mut problems));
    let acl = load_acl(config, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Loaded { credentials: Credentials { keys, passwords, jwt }, acl })
}

fn load_jwt(config: &Config, problems: &mut Vec<Problem>) -> JwtKeys {
    let jwt = &config.jwt;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut keys = JwtKeys::new(&text(&jwt.issuer), &text(&jwt.audience), jwt.leeway);
    if let Some(secret) = &jwt.secret {
        let origin = Origin::untyped("the environment");
        let added = keys.add_secret(secret.0.as_bytes());
        note(added.map_err(|e| Problem::new("auth.jwt.secret", e, &origin)), problems);
    }
    type Add = fn(&mut JwtKeys, &[u8]) -> Result<(), String>;
    let mut add = |key: &str, path: &Path, add: Add| {
        let read = read(key, path)
            .and_then(|bytes| add(&mut keys, &bytes).map_err(|error| problem(key, path, error)));
        note(read, problems);
    };
    if let Some(path) = &jwt.secret_file {
        add("auth.jwt.secret_file", path, JwtKeys::add_secret);
    }
    for (index, path) in jwt.public_keys.iter().enumerate() {
        add(&format!("auth.jwt.public_keys[{index}]"), path, JwtKeys::add_public_pem);
    }
    if let Some(path) = &jwt.jwks_file {
        add("auth.jwt.jwks_file", path, JwtKeys::add_jwks);
    }
    keys
}

fn load_acl(config: &Config, problems: &mut Vec<Problem>) -> Option<Acl> {
    let auth = &config.auth;
    if !auth.has_acl() {
        return None;
    }
    let mut rules = auth.acl.clone();
    if let Some(path) = &auth.acl_file {
        let key = "auth.acl_file";
        let read = read_text(key, path)
            .map_err(|problem| vec![problem])
            .and_then(|text| read_rules_file(key, &path.display().to_string(), &text));
        match read {
            Ok(read) => rules.extend(read),
            Err(told) => problems.extend(told),
        }
    }
    let named = rules.iter().flat_map(|rule| rule.subjects.iter().flatten());
    for subject in named {
        let Subject::Key(name) = subject else { continue };
        if auth.keys.iter().all(|key| *key.name != **name) {
            let text = format!("a rule is about key:{name}, but auth.keys has none of this name");
            problems.push(Problem::new("auth.acl", text, &Origin::untyped("")));
        }
    }
    Some(Acl::new(rules, auth.acl_default == AclDefault::Allow))
}

/// Reads the TLS files of a listener; `None` when it has none.
pub(crate) fn load_tls(listener: &Listener) -> Result<Option<TlsConfig>, Problem> {
    let Some(files) = listener.tls.files() else { return Ok(None) };
    match server_config(&files, &[]) {
        Ok(config) => Ok(Some(config)),
        Err(error) => {
            let key = format!("listeners.{}.tls.{}", listener.name, error.key);
            Err(problem(&key, &error.path, error.text.clone()))
        }
    }
}

/// Reads everything that the configuration names, TLS files too; the problems are all that there are.
pub(crate) fn load_all(config: &Config) -> Result<Loaded, Vec<Problem>> {
    let loaded = load(config);
    let open = config.listeners.iter().filter(|listener| listener.is_open());
    let tls: Vec<Problem> = open.filter_map(|listener| load_tls(listener).err()).collect();
    match loaded {
        Ok(loaded) if tls.is_empty() => Ok(loaded),
        Ok(_) => Err(tls),
        Err(problems) => Err([problems, tls].concat()),
    }
}

/// Reads everything again and puts it in force; when something is wrong, all of the old stays and the log says why.
pub(crate) fn reload(config: &Config, auth: &Authenticator) {
    match load(config) {
        Ok(loaded) => {
            auth.replace(loaded.credentials);
            if let (Some(cell), Some(acl)) = (auth.acl(), loaded.acl) {
                cell.replace(acl);
            }
            tracing::info!("credentials and access rules were read again");
        }
        Err(problems) => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            tracing::error!("credentials and access rules stay as they were");
        }
    }
}

fn note<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

fn problem(key: &str, path: &Path, text: impl Into<String>) -> Problem {
    Problem::new(key, text, &Origin::untyped(&path.display().to_string()))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Problem> {
    let file = File::open(path)
        .map_err(|error| problem(key, path, format!("cannot be opened: {error}")))?;
    let mut bytes = Vec::new();
    // One byte more than allowed, so that "too long" is seen without reading it all.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| problem(key, path, format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(problem(key, path, format!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn read_text(key: &str, path: &Path) -> Result<String, Problem> {
    String::from_utf8(read(key, path)?).map_err(|_| problem(key, path, "is not UTF-8"))
}
