//! `clarion inspect`: what a data directory holds. Refuses one that a process has open, and makes none.
//!
//! Must not know: how anything is stored.

use crate::{
    commands::say,
    data_dir,
    exit::{self, Failure},
};
use clarion_store::embedded::{ChannelSummary, Summary, summarize};
use serde_json::{Value, json};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Prints what a data directory holds.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "./clarion-data")]
    data: PathBuf,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    /// How many channels to list.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// List channels above this number; the end of a longer list tells it.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u32,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> ExitCode {
    match summary(args) {
        Ok(summary) if args.json => say(&format!("{}\n", as_json(&summary))),
        Ok(summary) => say(&as_text(&args.data, &summary)),
        Err(failure) => failure.report(),
    }
}

fn summary(args: &Args) -> Result<Summary, Failure> {
    let io = |text: String| Failure::new(exit::IO, format!("{}: {text}", args.data.display()));
    let mut entries = std::fs::read_dir(&args.data).map_err(|error| io(error.to_string()))?;
    // Opening would make a store in an empty folder.
    if entries.next().is_none() {
        return Err(io("is empty, no data directory".into()));
    }
    summarize(&args.data, args.after, args.limit as usize)
        .map_err(|error| data_dir::failure(&error))
}

fn as_json(summary: &Summary) -> Value {
    let channel = |channel: &ChannelSummary| {
        json!({
            "address": channel.address.as_str(),
            "number": channel.number,
            "epoch": channel.epoch,
            "first": channel.head.first,
            "last": channel.head.last,
            "bytes": channel.head.bytes,
            "last_at": channel.head.last_at,
            "cursors": channel.cursors,
        })
    };
    json!({
        "format": summary.format,
        "generation": summary.generation,
        "disk_bytes": summary.disk_bytes,
        "channels": summary.channels,
        "cursors": summary.cursors,
        "records": summary.records,
        "page": summary.page.iter().map(channel).collect::<Vec<_>>(),
        "next": summary.next,
    })
}

fn as_text(dir: &Path, summary: &Summary) -> String {
    let mut out = format!(
        "{}: format {}, {} bytes on disk\n{} channels, {} cursors, {} records\n",
        dir.display(),
        summary.format,
        summary.disk_bytes,
        summary.channels,
        summary.cursors,
        summary.records
    );
    if summary.generation > 0 {
        let _ = writeln!(out, "history was lost to an unclean end {} times", summary.generation);
    }
    for channel in &summary.page {
        let head = &channel.head;
        let kept = head.last + 1 - head.first.min(head.last + 1);
        // A queue's name may have control characters; it cannot move the cursor of a terminal.
        let _ = writeln!(
            out,
            "  {}: {kept} messages (seq {} to {}), {} bytes, {} cursors, epoch {}",
            channel.address.as_str().escape_debug(),
            head.first,
            head.last,
            head.bytes,
            channel.cursors,
            channel.epoch
        );
    }
    if let Some(next) = summary.next {
        let _ = writeln!(out, "  … more: --after {next}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::{
        Address, Content, Retention,
        port::store::{Batch, Done, Publish, Store, Unit},
    };
    use clarion_store::embedded::{EmbeddedConfig, EmbeddedStore};
    use std::sync::Arc;

    fn args(data: &Path) -> Args {
        Args { data: data.to_owned(), json: false, limit: 2, after: 0 }
    }

    fn publish(user: &str) -> Unit {
        let channel = Address::user(user).unwrap();
        let retention = Retention::default_of(channel.kind());
        let content = Content { payload: "hello".into(), ..Content::default() };
        Unit::Publish(Publish { channel, content: Arc::new(content), refs: vec![], retention })
    }

    #[tokio::test]
    async fn it_counts_what_is_there_and_refuses_what_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let store = EmbeddedStore::open(&data, EmbeddedConfig::default()).unwrap();
        let units = ["a", "b", "a", "c"].map(publish).into();
        let committed = store.commit(Batch { now: 1, fence: None, units }).await.unwrap();
        assert!(committed.results.iter().all(|done| matches!(done, Done::Published(_))));

        let locked = summary(&args(&data)).unwrap_err();
        assert_eq!(locked.code, exit::CANNOT_CREATE);
        assert!(locked.text.contains("in use"), "{locked}");
        store.close().unwrap();
        drop(store);

        let found = summary(&args(&data)).unwrap();
        assert_eq!((found.channels, found.page.len()), (3, 2));
        let text = as_text(&data, &found);
        assert!(text.contains("3 channels, 0 cursors, 0 records"), "{text}");
        assert!(text.contains("user:a: 2 messages (seq 1 to 2)"), "{text}");
        assert!(text.contains(&format!("--after {}", found.next.unwrap())), "{text}");
        let json = as_json(&found);
        assert_eq!(
            (&json["page"][0]["address"], &json["page"][0]["last"]),
            (&json!("user:a"), &json!(2))
        );

        let rest = Args { after: found.next.unwrap(), ..args(&data) };
        let rest = summary(&rest).unwrap();
        assert_eq!((rest.page.len(), rest.next), (1, None));
    }

    #[test]
    fn it_makes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(summary(&args(&missing)).unwrap_err().code, exit::IO);
        assert!(!missing.exists());
        assert!(summary(&args(dir.path())).unwrap_err().text.contains("is empty"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
