//! The workload `publish`: as fast as the answers come, one request under way per connection.
//! Must not know: who reads.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, BenchError,
    histogram::Histogram,
    http::Poster,
    meter::{Faults, Meter},
    payload::{Clock, Stamp, put_message},
};

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Messages per request; 1 uses the single publish.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    batch: u64,
    /// Connections, each with one request under way.
    #[arg(long, visible_alias = "connections", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    callers: u64,
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
    clock: Clock,
    taken: Cell<u64>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    latency: RefCell<Histogram>,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, args: Args) -> Result<(), BenchError> {
    let path = if args.batch == 1 { "/api/v1/publish" } else { "/api/v1/publish/batch" };
    let mut posters = Vec::new();
    for _ in 0..args.callers {
        posters.push(Poster::connect(bench.at, &bench.head, path).await?);
    }
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        args,
        clock: Clock::new(),
        taken: Cell::new(0),
        answered: Cell::new(0),
        failed: Cell::new(0),
        latency: RefCell::new(Histogram::new()),
    });
    let meter = Meter::start(bench.server.as_ref());
    let mut callers = JoinSet::new();
    for poster in posters {
        callers.spawn_local(call(Rc::clone(&run), poster));
    }
    while let Some(done) = callers.join_next().await {
        done.map_err(|e| BenchError::Other(e.to_string()))??;
    }
    let faults = Faults { lost: run.failed.get(), ..Faults::default() };
    let latency = run.latency.replace(Histogram::new());
    let name = if run.args.live { "publish-live" } else { "publish" };
    bench.tell(&meter.finish(bench.server.as_ref(), name, run.answered.get(), latency, faults));
    Ok(())
}

async fn call(run: Rc<Run>, mut poster: Poster) -> Result<(), BenchError> {
    let refused = memchr::memmem::Finder::new(b"\"error\":");
    let mut body = Vec::new();
    loop {
        let first = run.taken.get();
        let count = run.args.batch.min(run.args.messages - first);
        if count == 0 {
            return Ok(());
        }
        run.taken.set(first + count);
        run.request(&mut body, first..first + count);
        let asked = Instant::now();
        let answer = poster.exchange(&body).await?;
        answer.fatal()?;
        let failed = match answer.status {
            200 => refused.find_iter(answer.body).count() as u64,
            _ => count,
        };
        run.latency.borrow_mut().record(asked.elapsed());
        run.failed.set(run.failed.get() + failed);
        run.answered.set(run.answered.get() + count - failed);
        run.bench.progress.show("published", run.answered.get(), run.args.messages);
    }
}

impl Run {
    fn request(&self, body: &mut Vec<u8>, messages: std::ops::Range<u64>) {
        let args = &self.args;
        let micros = self.clock.micros();
        body.clear();
        if args.batch > 1 {
            body.extend_from_slice(b"{\"messages\":[");
        }
        for (i, n) in messages.enumerate() {
            if i > 0 {
                body.push(b',');
            }
            let address = format!("user:pub-{}", n % args.users);
            let number = (n % (1 << 32)) as u32;
            put_message(body, &address, Stamp { lane: 0, number, micros }, args.size, args.live);
        }
        if args.batch > 1 {
            body.extend_from_slice(b"]}");
        }
    }
}
