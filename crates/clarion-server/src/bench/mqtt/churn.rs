//! The workload `churn`: many durable sessions that come and go in every way while messages are published for them, and whether
//! the broker's memory and disk settle; or only the making of them, and how the broker starts with them.
//!
//! Owns: the phases and what is told of them. Must not know: the broker's insides.

mod crowd;
mod drive;
mod kind;
mod plot;
mod series;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use clarion_wire::mqtt::{Qos, Version};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    super::{BenchError, progress::Progress},
    Broker, Common, Ground, Hand, ground, offline,
    restart::Restart,
    rounded,
};
use crowd::Crowd;
use drive::{Drive, Pace};
use kind::Kind;
use series::{Row, csv, slope};

/// What to churn.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    size: Population,
    /// Only makes the sessions and stores --messages, then ends the broker and starts it again.
    #[arg(long)]
    create_only: bool,
    /// With --create-only: messages that are stored.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    messages: u64,
    /// With --create-only: how the broker is ended.
    #[arg(long, value_enum, default_value_t = End::Both)]
    end: End,
    /// How a broker that was not started by the bench is started again: a line for sh.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// How long they come and go.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Seconds in which each session comes once.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..), value_name = "SECONDS")]
    cycle: u32,
    /// Connections at a time.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    open: u32,
    /// Messages that are published in a second.
    #[arg(long, default_value_t = 200, value_name = "N")]
    publishes: u32,
    /// Seconds between two looks at the broker.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..), value_name = "SECONDS")]
    every: u32,
    /// Where the broker keeps its data, if the bench did not start it.
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// The clarion that is started when no --port is given; by itself this one.
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// Where the figures are written as a table.
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// Where they are drawn.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// How many there are.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Population {
    /// Durable sessions.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    sessions: u32,
    /// Subscriptions of each: topics of its own, and filters with wildcards.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    subscriptions: u32,
    /// Those of them that are topics of its own; by itself half of them.
    #[arg(long, value_name = "N")]
    own: Option<u32>,
    /// Distinct filters with wildcards.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    filters: u32,
}

impl Population {
    fn own(&self) -> u32 {
        self.own.unwrap_or(self.subscriptions.div_ceil(2)).min(self.subscriptions)
    }
}

/// How a broker is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum End {
    /// SIGTERM.
    Orderly,
    /// SIGKILL.
    Kill,
    /// The one, then the other.
    Both,
}

impl Args {
    /// Connections at a time, for the limit of open files.
    pub(super) fn clients(&self) -> u64 {
        u64::from(self.open) + 16
    }

    /// Looks for what cannot be, before anything is started.
    pub(super) fn check(&self, common: &Common) -> Result<(), BenchError> {
        let odd = |text: &str| Err(BenchError::Other(text.into()));
        if common.version.is_some_and(|version| version != Version::V5) {
            return odd("sessions with an expiry of their own are MQTT 5's");
        }
        if common.compare.is_some() {
            return odd("churn looks at one broker: no --compare");
        }
        if common.qos == Some(Qos::AtMostOnce) || common.subscribe_qos == Some(Qos::AtMostOnce) {
            return odd("messages with QoS 0 do not wait for anybody: --qos 1 or 2");
        }
        if self.create_only && common.port.is_some() && self.restart_command.is_none() {
            return odd(
                "--create-only needs --restart-command for a broker that the bench did not start",
            );
        }
        Ok(())
    }

    /// The broker that is started for it.
    pub(super) fn start(&self, common: &Common) -> Result<Broker, BenchError> {
        match &self.executable {
            Some(executable) => Broker::clarion_of(executable, common.dress(), &[]),
            None => Broker::clarion(common.dress(), &[]),
        }
    }

    fn circumstances(&self) -> [(&'static str, Value); 4] {
        let Population { sessions, subscriptions, filters, .. } = self.size;
        [
            ("sessions", json!(sessions)),
            ("subscriptions", json!(subscriptions)),
            ("own", json!(self.size.own())),
            ("filters", json!(filters)),
        ]
    }
}

/// Measures.
pub(super) fn run(
    common: &Common,
    args: &Args,
    broker: &mut Broker,
    progress: &Progress,
    hand: &mut Hand<'_>,
) -> Result<(), BenchError> {
    let run = Run { common, args, progress };
    let result = if args.create_only { run.starts(broker, hand) } else { run.series(broker) };
    if broker.is_own() {
        return result;
    }
    // Nobody would remove them later.
    let ground = run.ground(broker)?;
    let crowd = Crowd::new(&ground.topic, args.size);
    let removed = Drive::new(&ground, crowd).and_then(|mut drive| {
        // Whether they are there is not known here.
        (0..args.size.sessions).for_each(|n| drive.crowd.known(n).kept = crowd::Kept::Unknown);
        drive.each(Kind::Remove, common.opening as usize)
    });
    result.and(removed)
}

struct Run<'a> {
    common: &'a Common,
    args: &'a Args,
    progress: &'a Progress,
}

impl Run<'_> {
    fn ground<'b>(&'b self, broker: &'b Broker) -> Result<Ground<'b>, BenchError> {
        let qos = self.common.qos.unwrap_or(Qos::AtLeastOnce);
        ground(self.common, Version::V5, qos, broker, self.progress)
    }

    /// All sessions, made.
    fn made<'b>(&self, ground: &'b Ground<'b>) -> Result<Drive<'b>, BenchError> {
        let mut drive = Drive::new(ground, Crowd::new(&ground.topic, self.args.size))?;
        drive.each(Kind::Create, self.common.opening as usize)?;
        match drive.counts.first_error.take() {
            None => Ok(drive),
            Some(error) => {
                let errors = drive.counts.errors;
                Err(BenchError::Other(format!("{errors} sessions were not made: {error}")))
            }
        }
    }

    /// `--create-only`.
    fn starts(&self, broker: &mut Broker, hand: &mut Hand<'_>) -> Result<(), BenchError> {
        let data = self.args.data.clone().or_else(|| broker.data());
        let began = Instant::now();
        {
            let ground = self.ground(broker)?;
            let mut drive = self.made(&ground)?;
            let made = began.elapsed().as_secs_f64();
            drive.fill(self.args.messages)?;
            let seen = Row::look(broker.process.as_ref(), data.as_deref());
            let filled = began.elapsed().as_secs_f64();
            self.tell(
                "mqtt-churn-made",
                &drive.row(filled, seen),
                &[("made_s", json!(rounded(made)))],
            );
        }
        let signals: &[Signal] = match self.args.end {
            End::Orderly => &[Signal::TERM],
            End::Kill => &[Signal::KILL],
            End::Both => &[Signal::TERM, Signal::KILL],
        };
        for signal in signals {
            let restart = Restart {
                signal: *signal,
                command: self.args.restart_command.as_deref(),
                workload: "mqtt-churn-start",
                stored: self.args.messages,
            };
            let mut report =
                restart.run(broker, |broker| offline::is_let_in(&self.ground(broker)?))?;
            let end = if *signal == Signal::TERM { "orderly" } else { "kill" };
            report.more.push(("end", json!(end)));
            report.more.extend(self.args.circumstances());
            hand(report)?;
        }
        Ok(())
    }

    /// They come and go.
    fn series(&self, broker: &Broker) -> Result<(), BenchError> {
        let args = self.args;
        let data = args.data.clone().or_else(|| broker.data());
        let ground = self.ground(broker)?;
        let mut drive = self.made(&ground)?;
        let pace = Pace {
            seconds: args.seconds.into(),
            every: args.every.into(),
            visits: f64::from(args.size.sessions) / f64::from(args.cycle),
            publishes: args.publishes.into(),
            at_once: args.open as usize,
        };
        let mut rows: Vec<Row> = Vec::new();
        drive.churn(&pace, |drive, seconds| {
            let row = drive.row(seconds, Row::look(broker.process.as_ref(), data.as_deref()));
            self.progress.clear();
            super::super::print(&row.json().to_string());
            rows.push(row);
            Ok(())
        })?;
        let slopes = [
            ("rss_mib_per_minute", slope(&rows, |row| row.rss_mib)),
            ("disk_mib_per_minute", slope(&rows, |row| row.disk_mib)),
        ];
        let mut more: Vec<(&str, Value)> =
            slopes.map(|(name, slope)| (name, json!(slope.map(rounded)))).into();
        more.push(("first_error", json!(drive.counts.first_error)));
        let seen = Row::look(broker.process.as_ref(), data.as_deref());
        self.tell("mqtt-churn", &drive.row(args.seconds.into(), seen), &more);
        self.keep(&rows)
    }

    fn tell(&self, workload: &str, row: &Row, more: &[(&'static str, Value)]) {
        let mut told = row.json();
        told["workload"] = json!(workload);
        for (name, value) in more.iter().chain(&self.args.circumstances()) {
            told[*name] = value.clone();
        }
        self.progress.clear();
        super::super::print(&told.to_string());
    }

    /// Writes what is to be written.
    fn keep(&self, rows: &[Row]) -> Result<(), BenchError> {
        let write = |path: &Path, text: String| {
            let odd = |e| BenchError::Other(format!("{}: {e}", path.display()));
            fs::write(path, text).map_err(odd)
        };
        let Population { sessions, subscriptions, .. } = self.args.size;
        let title =
            format!("{sessions} sessions \u{d7} {subscriptions} subscriptions that come and go");
        if let Some(path) = &self.args.plot {
            write(path, plot::svg(rows, &title))?;
        }
        self.args.csv.as_ref().map_or(Ok(()), |path| write(path, csv(rows)))
    }
}
