//! The commands about configuration: `check-config` and `config`, and the options that all of them share with `serve`.

use crate::{
    config::{Config, Problem, Sources, read_file, render},
    credentials,
    exit::{self, Failure},
};
use std::{
    io::{ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
};

/// Where a configuration comes from, besides the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SourceArgs {
    /// A YAML file; `clarion config --defaults` prints one with every key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration file of a mikudos-message-pusher: opens its port and the HTTP port, and no other.
    #[arg(long, value_name = "FILE")]
    mikudos_config: Option<PathBuf>,
    /// The data directory, the same as --set data_dir=DIR.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// One key of the configuration; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Dialects to switch on: mikudos, message-sync, mqtt, dino, mage, mqant or all; with commas between them.
    #[arg(long, value_name = "DIALECTS")]
    speak: Vec<String>,
}

impl SourceArgs {
    /// Reads everything; the problems are all that there are.
    pub(crate) fn load(&self) -> Result<Config, Vec<Problem>> {
        let mut unread = Vec::new();
        let mut read = |path: &Option<PathBuf>| {
            read_file(path.as_deref()?).map_err(|problem| unread.push(problem)).ok()
        };
        let sources = Sources {
            file: read(&self.config),
            mikudos_file: read(&self.mikudos_config),
            env: std::env::vars_os().collect(),
            sets: self.set.clone(),
            data: self.data.clone(),
            speak: self.speak.clone(),
        };
        match Config::load(&sources) {
            Ok(config) if unread.is_empty() => Ok(config),
            Ok(_) => Err(unread),
            Err(problems) => Err([unread, problems].concat()),
        }
    }

    /// Reads everything; problems are told on standard error.
    pub(crate) fn load_or_report(&self) -> Result<Config, ExitCode> {
        self.load().map_err(|problems| report(&problems))
    }
}

#[expect(clippy::print_stderr, reason = "this is a command's output")]
pub(crate) fn report(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("clarion: {problem}");
    }
    let plural = if problems.len() == 1 { "" } else { "s" };
    eprintln!("clarion: the configuration has {} problem{plural}", problems.len());
    ExitCode::from(exit::USAGE)
}

/// Checks a configuration and starts nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    sources: SourceArgs,
}

/// `clarion check-config`.
pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    match args.sources.load_or_report() {
        Ok(config) => match credentials::load_all(&config) {
            Ok(_) => say("ok\n"),
            Err(problems) => report(&problems),
        },
        Err(code) => code,
    }
}

/// Prints the keys of the configuration.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct PrintArgs {
    /// Every key with its default and what it does, as YAML.
    #[arg(long)]
    defaults: bool,
    /// The page docs/configuration.md.
    #[arg(long, hide = true)]
    markdown: bool,
}

/// `clarion config`.
pub(crate) fn print(args: &PrintArgs) -> ExitCode {
    let text = if args.markdown { render::markdown() } else { render::defaults_yaml() };
    say(&text)
}

/// Writes a command's whole answer. A reader that has gone (`| head`) is no failure.
pub(crate) fn say(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Failure::new(exit::IO, format!("standard output: {error}")).report()
        }
        _ => ExitCode::SUCCESS,
    }
}
