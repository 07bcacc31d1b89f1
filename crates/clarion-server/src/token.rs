//! `clarion token`: makes a JSON Web Token that a server with the matching key takes.
//!
//! Must not know: the running server.

use crate::{
    commands::{SourceArgs, say},
    config::{Config, kinds::plain::duration},
    exit::{self, Failure},
};
use clarion_core::Verb;
use clarion_edge::auth::{Signing, SigningKey, TokenSpec};
use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

/// Makes a token for a user and prints it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Who it is for (sub).
    #[arg(long)]
    user: String,
    /// How long it lives.
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// What signs it: a private key in PEM, or a file with the secret of HS256. Without it, the secret of the configuration.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// How it is signed: HS256, RS256, ES256 or EdDSA. The key tells it already; this makes sure.
    #[arg(long, value_parser = signing)]
    alg: Option<Signing>,
    /// What it allows: publish, subscribe, read, admin; with commas between them. Without it, all but admin.
    #[arg(long, value_delimiter = ',', value_parser = verb)]
    allow: Vec<Verb>,
    /// The one client id that may use it.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// Who issues it (iss); without it, as the configuration wants it.
    #[arg(long)]
    issuer: Option<String>,
    /// For whom it is (aud); without it, as the configuration wants it.
    #[arg(long)]
    audience: Option<String>,
    /// The name of the key (kid).
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
}

fn signing(text: &str) -> Result<Signing, String> {
    let found = Signing::NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|(_, signing)| *signing).ok_or_else(|| "there are HS256, RS256, ES256, EdDSA".into())
}

fn verb(text: &str) -> Result<Verb, String> {
    let found = Verb::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, verb)| *verb).ok_or_else(|| "there are publish, subscribe, read, admin".into())
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    let config = match args.sources.load_or_report() {
        Ok(config) => config,
        Err(code) => return code,
    };
    match make(args, &config) {
        Ok(token) => say(&format!("{token}\n")),
        Err(failure) => failure.report(),
    }
}

fn make(args: &Args, config: &Config) -> Result<String, Failure> {
    let usage = |text: String| Failure::new(exit::USAGE, text);
    let key = signing_key(args, config)?;
    if let Some(alg) = args.alg.filter(|alg| *alg != key.signing()) {
        let (asked, is) = (alg.name(), key.signing().name());
        return Err(usage(format!("--alg {asked}: the key is one for {is}")));
    }
    let or = |given: &Option<String>, set: &Option<String>| given.clone().or_else(|| set.clone());
    let spec = TokenSpec {
        user: args.user.clone(),
        client_id: args.client_id.clone(),
        allow: (!args.allow.is_empty()).then(|| args.allow.clone()),
        ttl: args.ttl,
        issuer: or(&args.issuer, &config.jwt.issuer).unwrap_or_default(),
        audience: or(&args.audience, &config.jwt.audience).unwrap_or_default(),
        key_id: args.key_id.clone(),
    };
    key.make(&spec, clarion_node::clock::now()).map_err(usage)
}

fn signing_key(args: &Args, config: &Config) -> Result<SigningKey, Failure> {
    let usage = |text: String| Failure::new(exit::USAGE, text);
    let (what, path) = match (&args.key, &config.jwt.secret, &config.jwt.secret_file) {
        (Some(path), _, _) => ("--key", path),
        (None, Some(secret), _) => {
            let key = SigningKey::read(secret.0.as_bytes());
            return key.map_err(|error| usage(format!("auth.jwt.secret {error}")));
        }
        (None, None, Some(path)) => ("auth.jwt.secret_file", path),
        (None, None, None) => {
            let text = "nothing signs it: give --key FILE, or the configuration of a server with auth.jwt.secret_file";
            return Err(usage(text.into()));
        }
    };
    let bytes = fs::read(path).map_err(|error| {
        Failure::new(exit::IO, format!("{what} {}: cannot be read: {error}", path.display()))
    })?;
    SigningKey::read(&bytes).map_err(|error| usage(format!("{what} {}: {error}", path.display())))
}
