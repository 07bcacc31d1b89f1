//! `clarion bench`: loads a running server over HTTP, gRPC or MQTT and measures both ends.
//!
//! Owns: the workloads, the cheap load generator under them, and the one form in which every measurement is told
//! ([`Report`]). One thread, so that most of the machine is left to the server. Must not know: the server's insides
//! (save for [`committer`], which measures one part of it in process).

mod committer;
mod fanout;
mod grpc;
mod histogram;
mod http;
mod idle;
mod lanes;
mod meter;
mod mqtt;
mod offline;
mod payload;
mod posting;
mod process;
mod progress;
mod publish;
mod sse;
mod tally;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
};

use tokio::task::LocalSet;

use crate::{
    exit,
    publish::{ServerArgs, block_on, complain},
};
use meter::Report;
use process::ServerProcess;
use progress::Progress;

/// Measures a running server (or, `committer`, a part of one in this process).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    workload: Workload,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON objects, one per measurement.
    #[arg(long, global = true)]
    json: bool,
    /// Show progress on standard error even when that is no terminal.
    #[arg(long, global = true)]
    progress: bool,
    /// The server's process, whose CPU time and memory are measured; found by itself on the same machine.
    #[arg(long, value_name = "PID", global = true)]
    pid: Option<u32>,
    /// The server's ready file, to take the process from.
    #[arg(long, value_name = "FILE", global = true)]
    ready_file: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Workload {
    /// Publishes as fast as the answers come.
    Publish(publish::Args),
    /// One channel, many streams.
    Fanout(fanout::Args),
    /// Streams that only stay open: the memory of one connection.
    Idle(idle::Args),
    /// Messages for users who are away, and their way to them later.
    Offline(offline::Args),
    /// One of many streams stops reading.
    Stalled(fanout::StalledArgs),
    /// The workloads over gRPC.
    Grpc(grpc::Args),
    /// The workloads over MQTT, against any broker or beside Mosquitto.
    Mqtt(mqtt::Args),
    /// The node's committer alone, in this process, without HTTP.
    Committer(committer::Args),
}

/// What every workload needs.
#[derive(Debug)]
struct Bench {
    at: SocketAddr,
    head: http::HeadLines,
    server: Option<ServerProcess>,
    progress: Rc<Progress>,
    json: bool,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{at} is not reachable: {cause}")]
    Unreachable { at: String, cause: io::Error },
    #[error("the server refused: HTTP status {status}: {body}")]
    Refused { status: u16, body: String },
    #[error("the server refused: gRPC status {code}: {detail}")]
    Grpc { code: u16, detail: String },
    #[error("{0}")]
    Other(String),
}

impl From<rustix::io::Errno> for BenchError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl BenchError {
    /// Another request may succeed: RESOURCE_EXHAUSTED or UNAVAILABLE.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Grpc { code: 8 | 14, .. })
    }
}

impl Bench {
    /// Prints a measurement.
    fn tell(&self, report: &Report) {
        self.progress.clear();
        print(&if self.json { report.json() } else { report.table() });
    }
}

/// One line of the command's output; whoever closed the pipe does not want it.
fn print(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Runs the command.
pub(crate) fn run(args: Args) -> ExitCode {
    let result = match args.workload {
        // It has a loop of its own.
        Workload::Mqtt(workload) => {
            let progress = &Progress::new(args.progress);
            let (pid, ready_file, json) = (args.pid, args.ready_file, args.json);
            mqtt::run(&workload, &mqtt::Shared { pid, ready_file, progress, json })
        }
        _ => block_on(LocalSet::new().run_until(measure(args)))
            .map_err(BenchError::from)
            .and_then(|done| done),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ BenchError::Unreachable { .. }) => {
            complain(&error.to_string(), exit::UNAVAILABLE)
        }
        Err(error) => complain(&error.to_string(), 1),
    }
}

async fn measure(args: Args) -> Result<(), BenchError> {
    let progress = Rc::new(Progress::new(args.progress));
    if let Workload::Committer(workload) = args.workload {
        let report = committer::run(workload, &progress).await?;
        progress.clear();
        print(&if args.json { report.json() } else { report.table() });
        return Ok(());
    }
    let (url, key) = (&args.server.url, args.server.key());
    let (authority, found) = match &args.workload {
        Workload::Grpc(grpc) => (grpc.address().to_owned(), lookup(grpc.address()).await),
        _ => (url.authority(), lookup((url.host(), url.port())).await),
    };
    let unreachable = |cause| BenchError::Unreachable { at: authority.clone(), cause };
    let at = found.map_err(unreachable)?;
    drop(tokio::net::TcpStream::connect(at).await.map_err(unreachable)?);
    let bench = Bench {
        at,
        head: http::HeadLines::new(url, key.as_deref()),
        server: ServerProcess::find(args.pid, args.ready_file.as_deref(), at)?,
        progress,
        json: args.json,
    };
    let bench = Rc::new(bench);
    match args.workload {
        Workload::Publish(workload) => publish::run(&bench, workload).await,
        Workload::Fanout(workload) => fanout::run(&bench, &workload).await,
        Workload::Idle(workload) => idle::run(&bench, &workload).await,
        Workload::Offline(workload) => offline::run(&bench, workload).await,
        Workload::Grpc(workload) => grpc::run(&bench, key, workload).await,
        Workload::Stalled(workload) => fanout::run_stalled(&bench, &workload).await,
        Workload::Committer(_) | Workload::Mqtt(_) => Ok(()),
    }
}

async fn lookup(place: impl tokio::net::ToSocketAddrs) -> io::Result<SocketAddr> {
    let found = tokio::net::lookup_host(place).await?.next();
    found.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}
