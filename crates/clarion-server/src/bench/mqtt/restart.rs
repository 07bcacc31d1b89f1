//! A broker that is ended and started again on its data.
//!
//! Must not know: what it keeps.

use std::time::{Duration, Instant};

use rustix::{
    event::{Timespec, poll},
    process::Signal,
};
use serde_json::json;

use super::{
    super::{
        BenchError,
        histogram::Histogram,
        meter::{Faults, Report, ServerFigures},
        process::ServerProcess,
    },
    Broker, rounded,
};

/// How long a broker that was started again may take until it lets a client in.
const START: Duration = Duration::from_secs(60);
/// How often that is tried.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// How a restart is to be.
pub(super) struct Restart<'a> {
    pub(super) signal: Signal,
    /// For a broker that the bench did not start.
    pub(super) command: Option<&'a str>,
    pub(super) workload: &'static str,
    /// Messages that it has.
    pub(super) stored: u64,
}

impl Restart<'_> {
    /// Ends the broker and starts it; that lasts until a client is let in.
    pub(super) fn run(
        &self,
        broker: &mut Broker,
        is_let_in: impl Fn(&Broker) -> Result<(), BenchError>,
    ) -> Result<Report, BenchError> {
        broker.end(self.signal)?;
        let started = Instant::now();
        broker.start_again(self.command)?;
        while let Err(error) = is_let_in(broker) {
            if started.elapsed() > START {
                return Err(error);
            }
            poll(&mut [], Some(&LOOK))?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let process = broker.process.as_ref();
        let cpu = process.and_then(ServerProcess::cpu_seconds);
        let server = cpu.zip(process.and_then(ServerProcess::peak_rss_kib));
        let server = server.map(|(cpu_seconds, peak_rss_kib)| ServerFigures {
            cpu_seconds,
            peak_rss_kib,
            kib_per_connection: None,
            percent_at_rest: None,
        });
        let rss = process.and_then(ServerProcess::rss_kib);
        let rss = rss.map(|kib| rounded(kib as f64 / 1024.0));
        Ok(Report {
            workload: self.workload.into(),
            messages: self.stored,
            seconds,
            latency: Histogram::new(),
            server,
            faults: Faults::default(),
            more: vec![("cpu_s", json!(cpu)), ("rss_mib", json!(rss))],
        })
    }
}
