//! The workload `grpc idle`: consumers of message-sync that only stay open; what one of them costs the server in memory,
//! and all of them in CPU. Must not know: the server's insides.

use std::{rc::Rc, time::Duration};

use clarion_wire::proto::push::ConnRequest;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        Bench, BenchError,
        histogram::Histogram,
        meter::{Faults, Meter},
        process::ServerProcess,
    },
    PUSH_STREAM, Target,
    client::Connection,
    joined, new_name,
};

/// What to open.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Streams, each of a channel of its own.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Connections that they share.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Seconds that they stay open before the memory is read.
    #[arg(long, default_value_t = 3)]
    hold: u64,
    /// Seconds after that in which the CPU at rest is measured.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    rest: u64,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, target: &Target, args: &Args) -> Result<(), BenchError> {
    let method = target.method(PUSH_STREAM)?;
    let prefix = new_name();
    let channel = |n: u64| ConnRequest { channel: format!("{prefix}-{n}") };
    // The first stream warms up what exists once.
    let mut first = Connection::open(bench.at).await?;
    drop(first.stream(&method, Some(&channel(0)), true).await?);
    let rss = || bench.server.as_ref().and_then(ServerProcess::rss_kib);
    let before = rss();
    let meter = Meter::start(bench.server.as_ref());
    let connections = Connection::open_many(bench.at, args.connections.min(args.streams)).await?;
    let mut latency = Histogram::new();
    let mut open = Vec::new();
    let mut opening = JoinSet::new();
    for (n, connection) in (1..=args.streams).zip(connections.iter().cycle()) {
        let (mut connection, method) = (connection.clone(), method.clone());
        let channel = channel(n);
        opening.spawn_local(async move {
            let asked = Instant::now();
            let stream = connection.stream(&method, Some(&channel), true).await?;
            Ok((stream, asked.elapsed()))
        });
        if opening.len() >= 64 || n == args.streams {
            while let Some(stream) = opening.join_next().await {
                let (stream, took) = joined(stream)?;
                latency.record(took);
                open.push(stream);
            }
            bench.progress.show("open", open.len() as u64, args.streams);
        }
    }
    let server = bench.server.as_ref();
    let mut report = meter.finish(server, "grpc-idle", args.streams, latency, Faults::default());
    let wait = |seconds| sleep_until(Instant::now() + Duration::from_secs(seconds));
    wait(args.hold).await;
    let after = rss();
    let cpu = || server.and_then(ServerProcess::cpu_seconds);
    let rested = cpu();
    wait(args.rest).await;
    if let Some(figures) = &mut report.server {
        let grown = after.zip(before).map(|(after, before)| after.saturating_sub(before) as f64);
        figures.kib_per_connection = grown.map(|grown| grown / args.streams as f64);
        let spent = cpu().zip(rested).map(|(end, start)| end - start);
        figures.percent_at_rest = spent.map(|spent| spent * 100.0 / args.rest as f64);
    }
    drop(open);
    bench.tell(&report);
    Ok(())
}
