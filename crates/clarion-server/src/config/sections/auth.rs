//! Who may come in, and what he may do then.

use super::super::{
    kinds::{
        DAY, HOUR, ListOf, count,
        plain::{EnvironmentSecret, OptionalFile, OptionalText, Secret, file_path},
        span,
    },
    principals::{ApiKey, ApiKeys},
    reader::{Reader, Section},
    rules::AccessRules,
};
use super::Choice;
use clarion_core::acl::Rule;
use std::{path::PathBuf, time::Duration};

/// What holds where no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AclDefault {
    Allow,
    Deny,
}

impl Choice for AclDefault {
    const NAMES: &'static [(&'static str, Self)] = &[("allow", Self::Allow), ("deny", Self::Deny)];
}

section! {
    /// Who may come in where a listener says `auth: required`, and what those who are in may do. docs/security.md tells more.
    Auth {
        /// Bearer keys, each with what it allows. `sha256` is the SHA-256 of the key in 64 hex digits
        /// (`printf %s "$KEY" | sha256sum`); the key itself stands nowhere. `allow` lists `publish`, `subscribe`,
        /// `read`, `admin`. `users`, when given, lists the users that the key may act for.
        ///
        /// Example: `[{name: app, sha256: 9f86d0…, allow: [publish, read]}]`
        keys: Vec<ApiKey> = "[]", ApiKeys;
        /// Users with passwords: lines `user:$argon2id$…`, written by `clarion passwd`. Read again at SIGHUP.
        password_file: Option<PathBuf> = "none", OptionalFile;
        /// Passwords that are checked at once, each with a core and 19 MiB. 0 = twice as many as the machine has cores.
        password_checks: usize = "0", count(0, 1024);
        /// Passwords that wait to be checked; more are refused (retryable).
        password_queue: usize = "1000", count(0, 1_000_000);
        /// Passwords and tokens that were right lately and are not checked at full cost when they come again. What is kept is
        /// a MAC under a key of the process, in memory. 0 = none.
        cache_entries: usize = "65536", count(0, 10_000_000);
        /// How long a password is remembered so; a token until it ends. SIGHUP forgets all of them.
        cache_time: Duration = "1h", span(0, 30 * DAY);
        /// Access rules, the first that matches decides. `on` is a pattern of addresses or a list of them: `topic:a/+/#`,
        /// `user:%u`, `queue:jobs/#`, `all`, or `#` for every address; `%u` is the user, `%c` the client id. `allow` or `deny`
        /// lists `publish`, `subscribe` (which is reading in every way). `who`, when given, lists `user:NAME`, `key:NAME`
        /// (of `auth.keys`), `anonymous`.
        ///
        /// Example: `[{allow: [publish, subscribe], on: ["topic:home/%u/#", "user:%u"]}]`
        acl: Vec<Rule> = "[]", AccessRules;
        /// A YAML file with the same list, behind the rules of `auth.acl`. Read again at SIGHUP.
        acl_file: Option<PathBuf> = "none", OptionalFile;
        /// What holds where no rule matches. Without `auth.acl` and `auth.acl_file` there are no access rules, and this says
        /// nothing.
        acl_default: AclDefault = "deny", super::one_of();
    }
}

section! {
    /// JSON Web Tokens, as bearer tokens and as passwords. `sub` is the user, `exp` is required, `allow` may list what the
    /// token allows, `client_id` the one client id that may use it. The files are read again at SIGHUP.
    Jwt {
        /// The secret of HS256 tokens, of at least 32 bytes. It may only stand in the environment.
        secret: Option<Secret> = "none", EnvironmentSecret;
        /// A file with such a secret. A line's end behind it does not belong to it.
        secret_file: Option<PathBuf> = "none", OptionalFile;
        /// Files with one public key in PEM each: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
        public_keys: Vec<PathBuf> = "[]", ListOf { what: "files", max: 100, item: file_path };
        /// A file with a JWK set.
        jwks_file: Option<PathBuf> = "none", OptionalFile;
        /// What `iss` must be.
        issuer: Option<String> = "none", OptionalText;
        /// What `aud` must be or contain. A token with `aud` is refused without this.
        audience: Option<String> = "none", OptionalText;
        /// How far clocks may differ, for `exp`, `nbf` and `iat`.
        leeway: Duration = "10s", span(0, HOUR);
    }
}

impl Jwt {
    /// Whether there is a key.
    pub(crate) fn has_keys(&self) -> bool {
        let files = self.secret_file.is_some() || self.jwks_file.is_some();
        files || self.secret.is_some() || !self.public_keys.is_empty()
    }
}

impl Auth {
    /// Whether there are access rules.
    pub(crate) fn has_acl(&self) -> bool {
        !self.acl.is_empty() || self.acl_file.is_some()
    }
}
