//! The workload `grpc publish`: callers that share a few connections, one request of each under way.
//! Must not know: who reads.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use clarion_wire::proto::clarion_v1::{
    PublishBatchRequest, PublishBatchResponse, PublishRequest, publish_result,
};
use prost::Message;
use tokio::{task::JoinSet, time::Instant};

use super::{
    super::{
        Bench, BenchError,
        histogram::Histogram,
        meter::{Faults, Meter},
        payload::{Clock, Stamp},
    },
    PUBLISH, PUBLISH_BATCH, Target,
    client::{Connection, Method},
    joined, text,
};

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Messages per request; 1 uses the single publish.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    batch: u64,
    /// Callers, each with one request under way.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    callers: u64,
    /// Connections that they share.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Users that they are for, in turn.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// Only for those who are there now: nothing is stored.
    #[arg(long)]
    live: bool,
}

struct Run {
    bench: Rc<Bench>,
    args: Args,
    method: Method,
    clock: Clock,
    taken: Cell<u64>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    latency: RefCell<Histogram>,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: Args) -> Result<(), BenchError> {
    let connections = Connection::open_many(bench.at, args.connections.min(args.callers)).await?;
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        method: target.method(if args.batch == 1 { PUBLISH } else { PUBLISH_BATCH })?,
        args,
        clock: Clock::new(),
        taken: Cell::new(0),
        answered: Cell::new(0),
        failed: Cell::new(0),
        latency: RefCell::new(Histogram::new()),
    });
    let meter = Meter::start(bench.server.as_ref());
    let mut callers = JoinSet::new();
    for connection in connections.iter().cycle().take(run.args.callers as usize) {
        callers.spawn_local(call(Rc::clone(&run), connection.clone()));
    }
    while let Some(done) = callers.join_next().await {
        joined(done)?;
    }
    let faults = Faults { lost: run.failed.get(), ..Faults::default() };
    let latency = run.latency.replace(Histogram::new());
    let name = if run.args.live { "grpc-publish-live" } else { "grpc-publish" };
    bench.tell(&meter.finish(bench.server.as_ref(), name, run.answered.get(), latency, faults));
    Ok(())
}

async fn call(run: Rc<Run>, mut connection: Connection) -> Result<(), BenchError> {
    loop {
        let first = run.taken.get();
        let count = run.args.batch.min(run.args.messages - first);
        if count == 0 {
            return Ok(());
        }
        run.taken.set(first + count);
        let asked = Instant::now();
        let answer = if run.args.batch == 1 {
            connection.call(&run.method, &run.message(first)).await.map(|_| 0)
        } else {
            let messages = (first..first + count).map(|n| run.message(n)).collect();
            let answer = connection.call(&run.method, &PublishBatchRequest { messages }).await;
            answer.and_then(|answer| refused_of(&answer))
        };
        let failed = match answer {
            Err(error) if !error.is_passing() => return Err(error),
            Err(_) => count,
            Ok(failed) => failed,
        };
        run.latency.borrow_mut().record(asked.elapsed());
        run.failed.set(run.failed.get() + failed);
        run.answered.set(run.answered.get() + count - failed);
        run.bench.progress.show("published", run.answered.get(), run.args.messages);
    }
}

/// How many of a batch were not taken.
fn refused_of(answer: &[u8]) -> Result<u64, BenchError> {
    let answer = PublishBatchResponse::decode(answer)
        .map_err(|e| BenchError::Other(format!("the answer: {e}")))?;
    let taken = |result: &Option<_>| matches!(result, Some(publish_result::Result::Taken(_)));
    Ok(answer.results.iter().filter(|one| !taken(&one.result)).count() as u64)
}

impl Run {
    fn message(&self, n: u64) -> PublishRequest {
        let number = (n % (1 << 32)) as u32;
        let stamp = Stamp { lane: 0, number, micros: self.clock.micros() };
        PublishRequest {
            address: format!("user:pub-{}", n % self.args.users),
            payload: text(stamp, self.args.size).into(),
            expire: self.args.live.then_some(0),
            ..PublishRequest::default()
        }
    }
}
