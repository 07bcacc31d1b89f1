//! Commands that ask a running server and print what it says, one JSON line each: how they print, and how they end.
//!
//! Must not know: what they ask for.

use crate::publish::{complain, fail};
use clarion_client::ClientError;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Entries of a list that are asked for at once.
pub(crate) const PAGE: u64 = 1000;

/// Why a command stops.
pub(crate) enum Stopped {
    Client(ClientError),
    Output(io::Error),
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Prints lines.
pub(crate) fn print(lines: &[impl Display]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}

/// What a command ends with.
pub(crate) fn ended(done: io::Result<Result<(), Stopped>>) -> ExitCode {
    match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(Stopped::Client(error))) => fail(&error),
        // Nobody reads any more.
        Ok(Err(Stopped::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Ok(Err(Stopped::Output(error))) => complain(&format!("standard output: {error}"), 1),
        Err(error) => complain(&error.to_string(), 1),
    }
}
