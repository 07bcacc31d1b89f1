//! The workloads `fanout` and `stalled`: one channel, many streams, a bounded number of messages under way.
//!
//! A message is under way from its publish until every stream has it (or has shown that it will not get it): the load
//! closes its loop over the slowest part. Must not know: the server's insides.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use clarion_client::encode_component;
use memchr::memmem::Finder;
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use super::{
    Bench, BenchError,
    histogram::Histogram,
    http::Poster,
    lanes::Lanes,
    meter::{Faults, Meter},
    payload::{Clock, MARK, Stamp, find_stamp, put_message},
    sse::SseConn,
};

/// With no delivery for so long, what is missing is lost.
const QUIET: Duration = Duration::from_secs(10);

/// What to fan out.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Streams that read the channel.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Messages published.
    #[arg(long, default_value_t = 2000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Messages published and not yet with every stream.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// Publishing connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    publishers: u64,
    /// The channel.
    #[arg(long, default_value = "topic:bench")]
    address: String,
    /// One message under way: the latency of a server with nothing else to do.
    #[arg(long)]
    idle: bool,
}

/// What to pass a reader that stopped.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct StalledArgs {
    /// Streams that read the channel, the stalled one among them.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(2..))]
    streams: u64,
    /// Bytes of payload that go past it.
    #[arg(long, default_value = "200MB", value_parser = bytes)]
    bytes: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Messages published and not yet with every other stream.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    in_flight: u64,
    /// Publishing connections.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    publishers: u64,
    /// The channel.
    #[arg(long, default_value = "topic:bench")]
    address: String,
}

fn bytes(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[end..].trim() {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("expected a number and B, KB, KiB, MB, MiB, GB or GiB".into()),
    };
    let number: u64 = text[..end].parse().map_err(|e| format!("{e}"))?;
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}

/// Measures a fan-out.
pub(super) async fn run(bench: &Rc<Bench>, args: &Args) -> Result<(), BenchError> {
    let mut args = args.clone();
    if args.idle {
        args.in_flight = 1;
    }
    measure(bench, args, "fanout").await
}

/// Measures a fan-out twice: all read, then one more that does not.
pub(super) async fn run_stalled(
    bench: &Rc<Bench>,
    stalled: &StalledArgs,
) -> Result<(), BenchError> {
    let args = Args {
        streams: stalled.streams - 1,
        messages: stalled.bytes.div_ceil(stalled.size.max(1) as u64),
        size: stalled.size,
        in_flight: stalled.in_flight,
        publishers: stalled.publishers,
        address: stalled.address.clone(),
        idle: false,
    };
    measure(bench, args.clone(), "stalled-baseline").await?;
    let stopped =
        SseConn::open_small(bench.at, &bench.head, &target(&stalled.address), 4096).await?;
    measure(bench, args, "stalled").await?;
    drop(stopped);
    Ok(())
}

fn target(address: &str) -> String {
    format!("/api/v1/stream?address={}", encode_component(address))
}

struct Run {
    bench: Rc<Bench>,
    args: Args,
    clock: Clock,
    window: Semaphore,
    taken: Cell<u64>,
    sent: Vec<Cell<u32>>,
    received: Cell<u64>,
    settled: Cell<u64>,
    credited: Cell<u64>,
    latency: RefCell<Histogram>,
    faults: RefCell<Faults>,
    changed: Notify,
    finished: Notify,
}

async fn measure(bench: &Rc<Bench>, args: Args, name: &str) -> Result<(), BenchError> {
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        clock: Clock::new(),
        window: Semaphore::new(args.in_flight as usize),
        taken: Cell::new(0),
        sent: (0..args.publishers).map(|_| Cell::new(0)).collect(),
        received: Cell::new(0),
        settled: Cell::new(0),
        credited: Cell::new(0),
        latency: RefCell::new(Histogram::new()),
        faults: RefCell::default(),
        changed: Notify::new(),
        finished: Notify::new(),
        args,
    });
    let streams = open(&run).await?;
    let mut publishers = Vec::new();
    for _ in 0..run.args.publishers {
        publishers.push(Poster::connect(bench.at, &bench.head, "/api/v1/publish").await?);
    }
    let mut readers = JoinSet::new();
    for stream in streams {
        readers.spawn_local(read(Rc::clone(&run), stream));
    }
    let meter = Meter::start(bench.server.as_ref());
    let mut writers = JoinSet::new();
    for (lane, poster) in (0u32..).zip(publishers) {
        writers.spawn_local(publish(Rc::clone(&run), poster, lane));
    }
    let result = settle(&run, &mut writers).await;
    let latency = run.latency.replace(Histogram::new());
    let report =
        meter.finish(bench.server.as_ref(), name, run.received.get(), latency, Faults::default());
    // Each reader settles its account when it is told to.
    run.finished.notify_waiters();
    while let Some(done) = readers.join_next().await {
        done.map_err(|e| BenchError::Other(e.to_string()))?;
    }
    result?;
    bench.tell(&super::Report { faults: *run.faults.borrow(), ..report });
    Ok(())
}

/// Opens the streams, some at a time.
async fn open(run: &Rc<Run>) -> Result<Vec<SseConn>, BenchError> {
    let mut streams = Vec::new();
    let mut opening = JoinSet::new();
    for i in 0..run.args.streams {
        let opened = Rc::clone(run);
        opening.spawn_local(async move {
            let target = target(&opened.args.address);
            SseConn::open(opened.bench.at, &opened.bench.head, &target).await
        });
        if opening.len() >= 64 || i + 1 == run.args.streams {
            while let Some(stream) = opening.join_next().await {
                streams.push(stream.map_err(|e| BenchError::Other(e.to_string()))??);
            }
        }
    }
    Ok(streams)
}

/// Waits until every message is with every stream, or nothing moves any more.
async fn settle(
    run: &Run,
    writers: &mut JoinSet<Result<(), BenchError>>,
) -> Result<(), BenchError> {
    let total = run.args.messages * run.args.streams;
    while run.settled.get() < total {
        let before = run.settled.get();
        tokio::select! {
            () = run.changed.notified() => {}
            Some(done) = writers.join_next() => done.map_err(|e| BenchError::Other(e.to_string()))??,
            () = quiet() => {
                if run.settled.get() == before {
                    run.window.close();
                    break;
                }
            }
        }
    }
    Ok(())
}

async fn quiet() {
    tokio::time::sleep_until(tokio::time::Instant::now() + QUIET).await;
}

async fn publish(run: Rc<Run>, mut poster: Poster, lane: u32) -> Result<(), BenchError> {
    let depth = run.args.in_flight.div_ceil(run.args.publishers);
    let mut under_way = 0;
    let mut body = Vec::new();
    loop {
        while under_way < depth && run.taken.get() < run.args.messages {
            // Only with nothing under way may it wait: answers come first.
            let permit = if under_way == 0 {
                run.window.acquire().await.ok()
            } else {
                run.window.try_acquire().ok()
            };
            let Some(permit) = permit else { break };
            if run.taken.get() >= run.args.messages {
                break;
            }
            permit.forget();
            run.taken.set(run.taken.get() + 1);
            let number = run.sent[lane as usize].get();
            run.sent[lane as usize].set(number + 1);
            let stamp = Stamp { lane, number, micros: run.clock.micros() };
            body.clear();
            put_message(&mut body, &run.args.address, stamp, run.args.size, false);
            poster.push(&body);
            under_way += 1;
        }
        if under_way == 0 {
            return Ok(());
        }
        poster.flush().await?;
        let answer = poster.answer().await?;
        answer.fatal()?;
        if answer.status != 200 {
            let body = String::from_utf8_lossy(answer.body).into_owned();
            return Err(BenchError::Refused { status: answer.status, body });
        }
        under_way -= 1;
    }
}

async fn read(run: Rc<Run>, mut stream: SseConn) {
    let finder = Finder::new(MARK);
    let mut lanes = Lanes::new(run.sent.len());
    let finished = run.finished.notified();
    tokio::pin!(finished);
    loop {
        let mut take = |event: &[u8]| run.take(&finder, &mut lanes, event);
        let pumped = tokio::select! {
            biased;
            pumped = stream.pump(&mut take) => pumped,
            () = &mut finished => break,
        };
        if pumped.is_err() {
            // What it did not get shows as lost.
            finished.await;
            break;
        }
    }
    let sent: Vec<u32> = run.sent.iter().map(Cell::get).collect();
    run.faults.borrow_mut().add(lanes.faults(&sent));
}

impl Run {
    fn take(&self, finder: &Finder<'_>, lanes: &mut Lanes, event: &[u8]) {
        let Some(stamp) = find_stamp(finder, event) else { return };
        self.received.set(self.received.get() + 1);
        let micros = self.clock.micros().saturating_sub(stamp.micros);
        self.latency.borrow_mut().record_micros(micros);
        let settled = self.settled.get() + lanes.take(stamp.lane, stamp.number);
        self.settled.set(settled);
        let whole = settled / self.args.streams;
        if whole > self.credited.get() {
            self.window.add_permits((whole - self.credited.get()) as usize);
            self.credited.set(whole);
            self.changed.notify_one();
            self.bench.progress.show("delivered", settled, self.args.messages * self.args.streams);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("200MB"), Ok(200_000_000));
        assert_eq!(bytes("4 KiB"), Ok(4096));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("x").is_err());
        assert!(bytes("1 furlong").is_err());
        assert!(bytes("99999999999999999999").is_err());
        assert!(bytes("99999999999999999GiB").is_err());
    }
}
