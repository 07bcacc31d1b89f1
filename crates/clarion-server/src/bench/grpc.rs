//! `clarion bench grpc`: the workloads over gRPC, native and in the dialects of the originals.
//!
//! Nothing but the rpcs themselves is asked of the server, so an original that speaks the same dialect can be measured
//! with the same commands. Must not know: the server's insides.

mod client;
mod fanout;
mod flow;
mod framing;
mod gates;
mod idle;
mod publish;
mod queue;

use std::rc::Rc;

use super::{Bench, BenchError, payload};
use client::Method;

const PUBLISH: &str = "/clarion.v1.Clarion/Publish";
const PUBLISH_BATCH: &str = "/clarion.v1.Clarion/PublishBatch";
const SUBSCRIBE: &str = "/clarion.v1.Clarion/Subscribe";
const SUBMIT: &str = "/MessageSync/SubmitMessage";
const PUSH_STREAM: &str = "/MessageSync/PushMessageStream";

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    workload: Workload,
    /// The server's gRPC listener.
    #[arg(long, default_value = "127.0.0.1:50051", value_name = "HOST:PORT", global = true)]
    grpc: String,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// Publishes as fast as the answers come.
    Publish(publish::Args),
    /// One channel, many Subscribe streams.
    Fanout(fanout::Args),
    /// Producers and consumers of one queue: each message to one consumer, once.
    Queue(queue::Args),
    /// mikudos: producers push to channels, gates answer RECEIVED to everything.
    Gates(gates::Args),
    /// message-sync: consumers that only stay open, their memory and the CPU at rest.
    Idle(idle::Args),
}

/// The server's place on the command line.
#[derive(Debug)]
struct Target {
    authority: String,
    key: Option<String>,
}

impl Args {
    /// Where the server is.
    pub(super) fn address(&self) -> &str {
        &self.grpc
    }
}

impl Target {
    fn method(&self, path: &str) -> Result<Method, BenchError> {
        Method::new(&self.authority, path, self.key.as_deref())
    }
}

/// Runs a workload.
pub(super) async fn run(
    bench: &Rc<Bench>,
    key: Option<String>,
    args: Args,
) -> Result<(), BenchError> {
    let target = &Target { authority: args.grpc, key };
    match args.workload {
        Workload::Publish(workload) => publish::run(bench, target, workload).await,
        Workload::Fanout(workload) => fanout::run(bench, target, workload).await,
        Workload::Queue(workload) => queue::run(bench, target, workload).await,
        Workload::Gates(workload) => gates::run(bench, target, workload).await,
        Workload::Idle(workload) => idle::run(bench, target, &workload).await,
    }
}

/// A payload as text.
fn text(stamp: payload::Stamp, size: usize) -> String {
    let mut text = Vec::with_capacity(size.max(64));
    payload::put_text(&mut text, stamp, size);
    // It is ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// A name that no earlier run had.
fn new_name() -> String {
    format!("bench-{}", std::process::id())
}

fn joined<T>(done: Result<Result<T, BenchError>, tokio::task::JoinError>) -> Result<T, BenchError> {
    done.map_err(|e| BenchError::Other(e.to_string()))?
}

#[cfg(test)]
mod tests;
