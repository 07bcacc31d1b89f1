//! The node's committer alone, in process, on an embedded store of its own. Must not know: HTTP.

use std::path::PathBuf;

use super::{BenchError, Report, progress::Progress};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tasks that publish, one message under way each.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Where the store is put; a new directory that is removed afterwards when absent.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Measures.
#[expect(clippy::unused_async, reason = "the measurement will await the committer's answers")]
pub(super) async fn run(args: Args, _progress: &Progress) -> Result<Report, BenchError> {
    Err(BenchError::Other(format!("not there yet: {args:?}")))
}
