//! One measurement: from its start to the line that tells it. Must not know: what was done meanwhile.

use std::time::Instant;

use serde_json::{Value, json};

use super::{histogram::Histogram, process::ServerProcess};

/// What must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) reordered: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.reordered += other.reordered;
    }
}

/// A measurement under way.
#[derive(Debug)]
pub(super) struct Meter {
    started: Instant,
    cpu: Option<f64>,
}

/// A finished one.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) workload: String,
    pub(super) messages: u64,
    pub(super) seconds: f64,
    pub(super) latency: Histogram,
    pub(super) server: Option<ServerFigures>,
    pub(super) faults: Faults,
    /// What else tells this measurement from others.
    pub(super) more: Vec<(&'static str, Value)>,
}

/// What it cost the server.
#[derive(Debug)]
pub(super) struct ServerFigures {
    pub(super) cpu_seconds: f64,
    pub(super) peak_rss_kib: u64,
    pub(super) kib_per_connection: Option<f64>,
    /// CPU time while nothing happened, in percent of one core.
    pub(super) percent_at_rest: Option<f64>,
}

impl Meter {
    /// Starts the clocks; the peak of the server's memory counts from here.
    pub(super) fn start(server: Option<&ServerProcess>) -> Self {
        if let Some(server) = server {
            server.reset_peak();
        }
        Self { started: Instant::now(), cpu: server.and_then(ServerProcess::cpu_seconds) }
    }

    /// Stops them.
    pub(super) fn finish(
        self,
        server: Option<&ServerProcess>,
        workload: &str,
        messages: u64,
        latency: Histogram,
        faults: Faults,
    ) -> Report {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu = server.and_then(ServerProcess::cpu_seconds).zip(self.cpu);
        let peak = server.and_then(ServerProcess::peak_rss_kib);
        let server = cpu.zip(peak).map(|((end, start), peak_rss_kib)| ServerFigures {
            cpu_seconds: end - start,
            peak_rss_kib,
            kib_per_connection: None,
            percent_at_rest: None,
        });
        Report {
            workload: workload.into(),
            messages,
            seconds,
            latency,
            server,
            faults,
            more: Vec::new(),
        }
    }
}

impl Report {
    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.messages as f64 / self.seconds } else { 0.0 }
    }

    /// NaN (in JSON null) where there were none.
    fn per_million(&self, cpu_seconds: f64) -> f64 {
        if self.messages == 0 { f64::NAN } else { cpu_seconds * 1e6 / self.messages as f64 }
    }

    /// What the server spent, if its process is known.
    pub(super) fn cpu_s_per_million(&self) -> Option<f64> {
        self.server.as_ref().map(|server| self.per_million(server.cpu_seconds))
    }

    /// The measurement as one JSON object.
    pub(super) fn json(&self) -> String {
        let server = self.server.as_ref().map(|s| {
            let mut fields = json!({
                "cpu_s_per_million": round(self.per_million(s.cpu_seconds), 1000.0),
                "rss_mib": round(s.peak_rss_kib as f64 / 1024.0, 10.0),
            });
            if let Value::Object(fields) = &mut fields {
                let more = [
                    ("kib_per_connection", s.kib_per_connection),
                    ("cpu_percent_at_rest", s.percent_at_rest),
                ];
                for (name, value) in more {
                    if let Some(value) = value {
                        fields.insert(name.into(), json!(round(value, 100.0)));
                    }
                }
            }
            fields
        });
        let mut report = json!({
            "workload": self.workload,
            "messages": self.messages,
            "seconds": round(self.seconds, 1000.0),
            "per_second": self.per_second().round() as u64,
            "latency_ms": {
                "p50": round(self.latency.percentile_ms(0.5), 1000.0),
                "p99": round(self.latency.percentile_ms(0.99), 1000.0),
                "max": round(self.latency.max_ms(), 1000.0),
            },
            "server": server,
            "lost": self.faults.lost,
            "repeated": self.faults.repeated,
            "reordered": self.faults.reordered,
        });
        for (name, value) in &self.more {
            report[*name] = value.clone();
        }
        report.to_string()
    }

    /// The measurement for people.
    pub(super) fn table(&self) -> String {
        let server = match &self.server {
            None => "the server's process is not known (--pid)".to_owned(),
            Some(s) => {
                let each = s.kib_per_connection.map(|k| format!(", {k:.2} KiB per connection"));
                let rest = s.percent_at_rest.map(|p| format!(", {p:.2} % of a core at rest"));
                format!(
                    "server: {:.3} CPU s per million ({:.2} s), peak memory {:.1} MiB{}{}",
                    self.per_million(s.cpu_seconds),
                    s.cpu_seconds,
                    s.peak_rss_kib as f64 / 1024.0,
                    each.unwrap_or_default(),
                    rest.unwrap_or_default()
                )
            }
        };
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let more: String =
            self.more.iter().map(|(name, value)| format!(" {name} {}", plain(value))).collect();
        format!(
            "{}{more}: {} in {:.2} s = {:.0} per s; latency ms p50 {:.2} p99 {:.2} max {:.2}; lost {} repeated {} \
             reordered {}\n  {server}",
            self.workload,
            self.messages,
            self.seconds,
            self.per_second(),
            self.latency.percentile_ms(0.5),
            self.latency.percentile_ms(0.99),
            self.latency.max_ms(),
            self.faults.lost,
            self.faults.repeated,
            self.faults.reordered,
        )
    }
}

fn round(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}
