//! The workload `idle`: streams that only stay open; what one of them costs the server in memory.
//! Must not know: the server's insides.

use std::{rc::Rc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use super::{
    Bench, BenchError,
    histogram::Histogram,
    meter::{Faults, Meter},
    process::ServerProcess,
    sse::SseConn,
};

/// What to open.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Streams, one user each.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Seconds that they stay open before the memory is read.
    #[arg(long, default_value_t = 3)]
    hold: u64,
}

/// Measures.
pub(super) async fn run(bench: &Rc<Bench>, args: &Args) -> Result<(), BenchError> {
    // The first stream warms up what exists once.
    drop(SseConn::open(bench.at, &bench.head, "/api/v1/stream?user=idle-warm-up").await?);
    let rss = || bench.server.as_ref().and_then(ServerProcess::rss_kib);
    let before = rss();
    let meter = Meter::start(bench.server.as_ref());
    let mut latency = Histogram::new();
    let mut open = Vec::new();
    let mut opening = JoinSet::new();
    for i in 0..args.streams {
        let shared = Rc::clone(bench);
        opening.spawn_local(async move {
            let asked = Instant::now();
            let target = format!("/api/v1/stream?user=idle-{i}");
            let stream = SseConn::open(shared.at, &shared.head, &target).await;
            stream.map(|stream| (stream, asked.elapsed()))
        });
        if opening.len() >= 64 || i + 1 == args.streams {
            while let Some(stream) = opening.join_next().await {
                let (stream, took) = stream.map_err(|e| BenchError::Other(e.to_string()))??;
                latency.record(took);
                open.push(stream);
            }
            bench.progress.show("open", open.len() as u64, args.streams);
        }
    }
    let mut report =
        meter.finish(bench.server.as_ref(), "idle", args.streams, latency, Faults::default());
    let held = Instant::now() + Duration::from_secs(args.hold);
    tokio::time::sleep_until(held).await;
    let after = rss();
    if let (Some(server), Some(before), Some(after)) = (&mut report.server, before, after) {
        let grown = after.saturating_sub(before) as f64;
        server.kib_per_connection = Some(grown / args.streams as f64);
    }
    drop(open);
    bench.tell(&report);
    Ok(())
}
