//! Exit codes (those of sysexits.h where one fits) and the failures that carry them.
//!
//! The table for people stands in docs/configuration.md.

use std::{fmt, process::ExitCode};

/// Wrong command line or configuration (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// A busy address (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// Stopped by an internal failure (`EX_SOFTWARE`).
pub(crate) const SOFTWARE: u8 = 70;
/// Something cannot be made or written, or another process holds it (`EX_CANTCREAT`).
pub(crate) const CANNOT_CREATE: u8 = 73;
/// Something cannot be read: damaged, or of a newer version (`EX_IOERR`).
pub(crate) const IO: u8 = 74;

/// Why a command ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One of the codes above.
    pub(crate) code: u8,
    /// For people.
    pub(crate) text: String,
}

impl Failure {
    /// A failure.
    pub(crate) fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Tells it on standard error.
    #[expect(clippy::print_stderr, reason = "this is a command's output")]
    pub(crate) fn report(&self) -> ExitCode {
        eprintln!("clarion: {}", self.text);
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The exit code of a command that ends this way; a failure is told on standard error.
pub(crate) fn code_of(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
