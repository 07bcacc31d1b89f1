//! The workload `offline`: messages for users who are away, then every user comes and gets his own.
//!
//! Which user has how many follows from the arguments alone, so the two phases may run in two processes, with the server
//! killed in between. Must not know: the server's insides.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use memchr::memmem::Finder;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    Bench, BenchError,
    histogram::Histogram,
    http::Poster,
    lanes::Lanes,
    meter::{Faults, Meter},
    payload::{Clock, MARK, Stamp, find_stamp, put_message},
    sse::{SseConn, id_of},
};

/// With nothing new for so long, what a user is missing is lost.
const QUIET: Duration = Duration::from_secs(10);

/// What to store and drain.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Users who are away.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// Messages in all, dealt to the users in turn.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages per request.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    batch: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Publishing connections.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    callers: u32,
    /// Users who come at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    streams: u32,
    /// What the users' names begin with; another one for another run on the same data.
    #[arg(long, default_value = "away-")]
    prefix: String,
    /// What to do.
    #[arg(long, value_enum, default_value_t = Phase::All)]
    phase: Phase,
    /// Short for `--phase drain`.
    #[arg(long)]
    drain: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Phase {
    /// Publish, nobody reads.
    Store,
    /// Every user comes once.
    Drain,
    /// One after the other.
    All,
}

impl Args {
    /// How many messages this user has.
    fn share(&self, user: u32) -> u32 {
        let users = u64::from(self.users);
        let share = self.messages / users + u64::from(u64::from(user) < self.messages % users);
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

struct Run {
    bench: Rc<Bench>,
    args: Args,
    clock: Clock,
    done: Cell<u64>,
    next_user: Cell<u32>,
    faults: RefCell<Faults>,
    latency: RefCell<Histogram>,
}

/// Measures one phase or both.
pub(super) async fn run(bench: &Rc<Bench>, args: Args) -> Result<(), BenchError> {
    let phase = if args.drain { Phase::Drain } else { args.phase };
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        args,
        clock: Clock::new(),
        done: Cell::new(0),
        next_user: Cell::new(0),
        faults: RefCell::default(),
        latency: RefCell::new(Histogram::new()),
    });
    if phase != Phase::Drain {
        let meter = Meter::start(bench.server.as_ref());
        let mut callers = JoinSet::new();
        for caller in 0..run.args.callers {
            callers.spawn_local(store(Rc::clone(&run), caller));
        }
        run.tell(meter, callers, "offline-store").await?;
    }
    if phase != Phase::Store {
        let meter = Meter::start(bench.server.as_ref());
        let mut readers = JoinSet::new();
        for _ in 0..run.args.streams {
            readers.spawn_local(drain(Rc::clone(&run)));
        }
        run.tell(meter, readers, "offline-drain").await?;
    }
    Ok(())
}

impl Run {
    /// Waits for the tasks and tells what they did.
    async fn tell(
        &self,
        meter: Meter,
        mut tasks: JoinSet<Result<(), BenchError>>,
        name: &str,
    ) -> Result<(), BenchError> {
        while let Some(done) = tasks.join_next().await {
            done.map_err(|e| BenchError::Other(e.to_string()))??;
        }
        let latency = self.latency.replace(Histogram::new());
        let faults = self.faults.take();
        let server = self.bench.server.as_ref();
        self.bench.tell(&meter.finish(server, name, self.done.take(), latency, faults));
        Ok(())
    }

    fn progress(&self, what: &str) {
        self.bench.progress.show(what, self.done.get(), self.args.messages);
    }
}

/// One connection serves every `callers`-th user, so each user's messages are published in order.
async fn store(run: Rc<Run>, caller: u32) -> Result<(), BenchError> {
    let args = &run.args;
    let refused = Finder::new(b"\"error\":");
    let mut poster =
        Poster::connect(run.bench.at, &run.bench.head, "/api/v1/publish/batch").await?;
    let mine = || (caller..args.users).step_by(args.callers as usize);
    let mut messages = (0..args.share(0))
        .flat_map(|n| mine().filter(move |u| n < args.share(*u)).map(move |u| (u, n)));
    let mut body = Vec::new();
    loop {
        body.clear();
        body.extend_from_slice(b"{\"messages\":[");
        let mut count = 0;
        for (user, number) in messages.by_ref().take(args.batch as usize) {
            if count > 0 {
                body.push(b',');
            }
            let stamp = Stamp { lane: user, number, micros: run.clock.micros() };
            let address = format!("user:{}{user}", args.prefix);
            put_message(&mut body, &address, stamp, args.size, false);
            count += 1;
        }
        if count == 0 {
            return Ok(());
        }
        body.extend_from_slice(b"]}");
        let asked = Instant::now();
        let answer = poster.exchange(&body).await?;
        answer.fatal()?;
        let failed = match answer.status {
            200 => refused.find_iter(answer.body).count() as u64,
            _ => count,
        };
        run.latency.borrow_mut().record(asked.elapsed());
        run.faults.borrow_mut().lost += failed;
        run.done.set(run.done.get() + count - failed);
        run.progress("stored");
    }
}

/// One user after the other comes, gets his messages and acks them.
async fn drain(run: Rc<Run>) -> Result<(), BenchError> {
    let mut acks = Poster::connect(run.bench.at, &run.bench.head, "/api/v1/ack").await?;
    let finder = Finder::new(MARK);
    loop {
        let user = run.next_user.get();
        if user >= run.args.users {
            return Ok(());
        }
        run.next_user.set(user + 1);
        let token = drain_user(&run, &finder, user).await?;
        let Some(token) = token else { continue };
        let body = serde_json::json!({ "token": String::from_utf8_lossy(&token) }).to_string();
        let answer = acks.exchange(body.as_bytes()).await?;
        answer.fatal()?;
        if answer.status >= 300 {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(BenchError::Refused { status: answer.status, body });
        }
    }
}

async fn drain_user(
    run: &Run,
    finder: &Finder<'_>,
    user: u32,
) -> Result<Option<Vec<u8>>, BenchError> {
    let args = &run.args;
    let share = args.share(user);
    let asked = Instant::now();
    let target = format!("/api/v1/stream?user={}{user}&device=bench", args.prefix);
    let mut stream = SseConn::open(run.bench.at, &run.bench.head, &target).await?;
    let mut lanes = Lanes::new(1);
    let settled = Cell::new(0);
    let mut token = None;
    let mut take = |event: &[u8]| {
        let Some(stamp) = find_stamp(finder, event).filter(|stamp| stamp.lane == user) else {
            return;
        };
        settled.set(settled.get() + lanes.take(0, stamp.number));
        run.done.set(run.done.get() + 1);
        if let Some(id) = id_of(event) {
            let kept: &mut Vec<u8> = token.get_or_insert_default();
            kept.clear();
            kept.extend_from_slice(id);
        }
    };
    while settled.get() < u64::from(share) {
        match timeout(QUIET, stream.pump(&mut take)).await {
            Ok(pumped) => pumped?,
            Err(_) => break,
        }
    }
    run.latency.borrow_mut().record(asked.elapsed());
    run.faults.borrow_mut().add(lanes.faults(&[share]));
    run.progress("drained");
    Ok(token)
}
