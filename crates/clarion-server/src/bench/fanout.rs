//! The workloads `fanout` and `stalled`: one channel, many streams, a bounded number of messages under way.
//!
//! A message is under way from its publish until every stream has it (or has shown that it will not get it): the load
//! closes its loop over the slowest part. Must not know: the server's insides.

use std::rc::Rc;

use clarion_client::encode_component;
use memchr::memmem::Finder;
use tokio::task::JoinSet;

use super::{
    Bench, BenchError,
    http::Poster,
    meter::Meter,
    payload::{MARK, find_stamp, put_message},
    sse::SseConn,
    tally::Tally,
};

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
    tally: Tally,
}

async fn measure(bench: &Rc<Bench>, args: Args, name: &str) -> Result<(), BenchError> {
    let run = Rc::new(Run {
        bench: Rc::clone(bench),
        tally: Tally::new(args.publishers, args.streams, args.messages, args.in_flight),
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
    let result = run.tally.settle(&mut writers).await;
    let report = run.tally.report(bench, meter, name);
    // Each reader settles its account when it is told to.
    run.tally.finish();
    while let Some(done) = readers.join_next().await {
        done.map_err(|e| BenchError::Other(e.to_string()))?;
    }
    result?;
    bench.tell(&super::Report { faults: run.tally.faults(), ..report });
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

async fn publish(run: Rc<Run>, mut poster: Poster, lane: u32) -> Result<(), BenchError> {
    let depth = run.args.in_flight.div_ceil(run.args.publishers);
    let mut under_way = 0;
    let mut body = Vec::new();
    loop {
        while under_way < depth {
            // Only with nothing under way may it wait: answers come first.
            let stamp = match under_way {
                0 => run.tally.next(lane).await,
                _ => run.tally.try_next(lane),
            };
            let Some(stamp) = stamp else { break };
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
    let mut lanes = run.tally.lanes();
    let finished = run.tally.finished();
    tokio::pin!(finished);
    loop {
        let mut take = |event: &[u8]| {
            if let Some(stamp) = find_stamp(&finder, event) {
                run.tally.take(&run.bench.progress, &mut lanes, stamp);
            }
        };
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
    run.tally.settle_account(&lanes);
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
