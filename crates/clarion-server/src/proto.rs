//! `clarion proto`: the proto files that clients are generated from. Must not know: what listens.

use crate::{
    commands::say,
    exit::{self, Failure},
};
use clarion_wire::proto::{FILES, find};
use std::process::ExitCode;

/// Prints the proto files of the gRPC services.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to print, such as push.proto or push; without it, the names of all, one a line.
    name: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    match text(args.name.as_deref()) {
        Ok(text) => say(&text),
        Err(failure) => failure.report(),
    }
}

fn text(name: Option<&str>) -> Result<String, Failure> {
    let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
    match name {
        None => Ok(names.join("\n") + "\n"),
        Some(name) => match find(name) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => {
                let text =
                    format!("no proto file is called '{name}'; there are {}", names.join(", "));
                Err(Failure::new(exit::USAGE, text))
            }
        },
    }
}
