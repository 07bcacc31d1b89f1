//! The workloads `idle` and `connect`: clients with one subscription each that only stay open, or only come.
//! Must not know: the broker's insides.

use std::time::{Duration, Instant};

use super::{
    super::{
        BenchError,
        histogram::Histogram,
        meter::{Faults, Meter, Report},
        process::ServerProcess,
    },
    Ground,
    client::{Session, Wish},
    pool::Pool,
};

/// How long clients stay.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stay {
    /// Seconds before the memory is read.
    pub(super) hold: u64,
    /// Seconds after that in which the CPU at rest is measured.
    pub(super) rest: u64,
}

/// Measures what a client costs that stays.
pub(super) fn idle(ground: &Ground<'_>, clients: u32, stay: Stay) -> Result<Report, BenchError> {
    // The first client warms up what exists once.
    drop(open(ground, u32::MAX..=u32::MAX, &mut Histogram::new())?);
    let server = ground.server;
    let rss = || server.and_then(ServerProcess::rss_kib);
    let before = rss();
    let meter = Meter::start(server);
    let mut latency = Histogram::new();
    let mut pool = open(ground, 0..=clients - 1, &mut latency)?;
    let count = u64::from(clients);
    let mut report = meter.finish(server, "mqtt-idle", count, latency, Faults::default());
    attend(&mut pool, stay.hold)?;
    let after = rss();
    let cpu = || server.and_then(ServerProcess::cpu_seconds);
    let rested = cpu();
    attend(&mut pool, stay.rest)?;
    if let Some(figures) = &mut report.server {
        let grown = after.zip(before).map(|(after, before)| after.saturating_sub(before) as f64);
        figures.kib_per_connection = grown.map(|grown| grown / f64::from(clients));
        let spent = cpu().zip(rested).map(|(end, start)| end - start);
        figures.percent_at_rest =
            spent.filter(|_| stay.rest > 0).map(|spent| spent * 100.0 / stay.rest as f64);
    }
    Ok(report)
}

/// Measures what it takes to let clients in.
pub(super) fn connect(ground: &Ground<'_>, clients: u32) -> Result<Report, BenchError> {
    let mut latency = Histogram::new();
    let meter = Meter::start(ground.server);
    let pool = open(ground, 0..=clients - 1, &mut latency)?;
    let count = u64::from(clients);
    let report = meter.finish(ground.server, "mqtt-connect", count, latency, Faults::default());
    drop(pool);
    Ok(report)
}

fn open(
    ground: &Ground<'_>,
    numbers: std::ops::RangeInclusive<u32>,
    latency: &mut Histogram,
) -> Result<Pool, BenchError> {
    let mut pool = Pool::new(&ground.plan)?;
    let wishes: Vec<Wish> = numbers
        .map(|n| Wish {
            client_id: ground.client_id(n),
            from: ground.source(n),
            session: Session::Clean,
            subscription: Some((format!("{}/{n}", ground.topic), ground.subscribe_qos)),
            beside: 0,
        })
        .collect();
    pool.open(wishes.into_iter(), ground.opening, latency, ground.progress)?;
    Ok(pool)
}

/// Answers the broker for so many seconds.
fn attend(pool: &mut Pool, seconds: u64) -> Result<(), BenchError> {
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        pool.wake(Some(left), |_, _| {})?;
    }
}
