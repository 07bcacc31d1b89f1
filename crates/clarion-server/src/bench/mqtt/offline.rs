//! The workload `offline`: durable sessions subscribe and leave, messages are published for them, they return and get them.
//!
//! Owns: the phases and the order they come in; between two of them no connection is open, so the broker may be killed there.
//! Must not know: the broker's insides.

mod drain;
mod enqueue;
mod load;

use std::time::{Duration, Instant};

use clarion_wire::mqtt::{Qos, Version};
use rustix::event::{Timespec, poll};
use serde_json::json;

use super::{
    super::{
        BenchError,
        histogram::Histogram,
        meter::{Faults, Report, ServerFigures},
        process::ServerProcess,
        progress::Progress,
    },
    Autosave, Broker, Common, Ground, Hand,
    client::{Heard, Session, Wish},
    ground,
    pool::Pool,
};
use load::Load;

/// How long a broker that was started again may take until it lets a client in.
const START: Duration = Duration::from_secs(60);
/// How often that is tried.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// What to store and drain.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Durable sessions.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: u32,
    /// Messages that each of them is to get.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// What they subscribe.
    #[arg(long, value_enum, default_value_t = Filters::Own)]
    filters: Filters,
    /// Topics that messages for a wildcard filter are published to, in turn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    topics: u32,
    /// Further subscriptions of each session, to topics that nobody publishes to.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000), value_name = "N")]
    beside: u32,
    /// Clients that publish.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    publishers: u32,
    /// Messages that each of them has published and that are not acked yet.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    in_flight: u32,
    /// How often the broker is killed (SIGKILL) and started again before the sessions return.
    #[arg(long, default_value_t = 0, value_name = "TIMES")]
    kill: u32,
    /// How a broker that was not started by the bench is started again: a line for sh.
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
    /// Nobody returns; the sessions are removed with what they have.
    #[arg(long)]
    no_drain: bool,
    #[command(flatten)]
    pub(super) autosave: Autosave,
}

/// What the sessions subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Filters {
    /// Each its own topic.
    Own,
    /// Each its own filter that ends with #.
    OwnWildcard,
    /// All the same topic: each message goes to all of them.
    One,
    /// All the same filter, likewise.
    OneWildcard,
}

impl Args {
    /// Connections at a time, for the limit of open files.
    pub(super) fn clients(&self) -> u64 {
        u64::from(self.sessions.max(self.publishers))
    }

    /// Clarion's, where the bench starts it: nothing of this workload is beyond its retention and limits.
    pub(super) fn settings(&self) -> Vec<String> {
        let mut settings: Vec<String> =
            ["age", "count", "bytes"].map(|name| format!("retention.topic.{name}=0")).into();
        for name in ["mqtt.subscriptions_max", "limits.max_cursors"] {
            settings.push(format!("{name}={}", 1000.max(self.beside + 1).min(1_000_000)));
        }
        settings
    }

    /// Looks for what cannot be, before anything is started.
    pub(super) fn check(&self, common: &Common) -> Result<(), BenchError> {
        let odd = |text: &str| Err(BenchError::Other(text.into()));
        if common.qos == Some(Qos::AtMostOnce) || common.subscribe_qos == Some(Qos::AtMostOnce) {
            return odd("messages with QoS 0 do not wait for anybody: --qos 1 or 2");
        }
        if !self.load("").lanes_are_numbers() {
            return odd("too many sessions, topics and publishers to number what they publish");
        }
        let own = common.compare.is_none() || common.port.is_some();
        if self.kill > 0 && own && self.restart_command.is_none() {
            return odd("--kill needs --restart-command for a broker that the bench did not start");
        }
        Ok(())
    }

    fn load(&self, prefix: &str) -> Load {
        let wildcard = matches!(self.filters, Filters::OwnWildcard | Filters::OneWildcard);
        let own = matches!(self.filters, Filters::Own | Filters::OwnWildcard);
        Load {
            prefix: prefix.into(),
            wildcard,
            sessions: self.sessions,
            groups: if own { self.sessions } else { 1 },
            topics: if wildcard { self.topics } else { 1 },
            publishers: self.publishers,
            messages: self.messages,
        }
    }
}

/// One broker's measurement, as long as it lasts.
struct Run<'a> {
    common: &'a Common,
    args: &'a Args,
    version: Version,
    progress: &'a Progress,
}

/// Measures.
pub(super) fn run(
    common: &Common,
    args: &Args,
    broker: &mut Broker,
    progress: &Progress,
    hand: &mut Hand<'_>,
) -> Result<(), BenchError> {
    let mut run = Run { common, args, version: Version::V5, progress };
    run.version = match common.version {
        Some(version) => version,
        None if run.is_let_in(broker).is_ok() => Version::V5,
        None => Version::V311,
    };
    let result = run.phases(broker, hand);
    // Nobody would remove them later.
    let removed = run.ground(broker).and_then(|ground| remove(&ground, args.sessions));
    result.and(removed)
}

impl Run<'_> {
    fn ground<'b>(&'b self, broker: &'b Broker) -> Result<Ground<'b>, BenchError> {
        let qos = self.common.qos.unwrap_or(Qos::AtLeastOnce);
        ground(self.common, self.version, qos, broker, self.progress)
    }

    fn phases(&self, broker: &mut Broker, hand: &mut Hand<'_>) -> Result<(), BenchError> {
        let mut told = |mut report: Report| {
            report.more.extend(self.circumstances());
            hand(report)
        };
        let load = {
            let ground = self.ground(broker)?;
            let load = self.args.load(&ground.topic);
            begin(&ground, &load, self.args.beside)?;
            told(enqueue::run(&ground, &load, self.args.in_flight)?)?;
            load
        };
        for _ in 0..self.args.kill {
            told(self.restart(broker, load.published())?)?;
        }
        if self.args.no_drain {
            return Ok(());
        }
        told(drain::run(&self.ground(broker)?, &load)?)
    }

    /// What tells this run from others.
    fn circumstances(&self) -> [(&'static str, serde_json::Value); 6] {
        let version = match self.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5",
        };
        let filters = match self.args.filters {
            Filters::Own => "own",
            Filters::OwnWildcard => "own-wildcard",
            Filters::One => "one",
            Filters::OneWildcard => "one-wildcard",
        };
        [
            ("version", json!(version)),
            ("qos", json!(self.common.qos.unwrap_or(Qos::AtLeastOnce) as u8)),
            ("sessions", json!(self.args.sessions)),
            ("filters", json!(filters)),
            ("beside", json!(self.args.beside)),
            ("kill", json!(self.args.kill)),
        ]
    }

    /// A kill, and a start that lasts until a client is let in.
    fn restart(&self, broker: &mut Broker, stored: u64) -> Result<Report, BenchError> {
        broker.kill()?;
        let started = Instant::now();
        broker.start_again(self.args.restart_command.as_deref())?;
        while let Err(error) = self.is_let_in(broker) {
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
        Ok(Report {
            workload: "mqtt-offline-restart".into(),
            messages: stored,
            seconds,
            latency: Histogram::new(),
            server,
            faults: Faults::default(),
            more: vec![("cpu_s", json!(cpu))],
        })
    }

    /// Whether a client is.
    fn is_let_in(&self, broker: &Broker) -> Result<(), BenchError> {
        let ground = self.ground(broker)?;
        let pool = open(&ground, u32::MAX - 1..u32::MAX)?;
        pool.leave(self.progress, |_, _| {})
    }
}

/// Clients with these numbers, without sessions or subscriptions.
fn open(ground: &Ground<'_>, numbers: std::ops::Range<u32>) -> Result<Pool, BenchError> {
    let mut pool = Pool::new(&ground.plan)?;
    let wishes = numbers.map(|n| wish(ground, n, Session::Clean, None, 0));
    let wishes: Vec<Wish> = wishes.collect();
    pool.open(wishes.into_iter(), ground.opening, &mut Histogram::new(), ground.progress)?;
    Ok(pool)
}

fn wish(
    ground: &Ground<'_>,
    number: u32,
    session: Session,
    subscription: Option<(String, Qos)>,
    beside: u32,
) -> Wish {
    let (client_id, from) = (ground.client_id(number), ground.source(number));
    Wish { client_id, from, session, subscription, beside }
}

/// All sessions subscribe and leave.
fn begin(ground: &Ground<'_>, load: &Load, beside: u32) -> Result<(), BenchError> {
    let mut pool = Pool::new(&ground.plan)?;
    let wishes = (0..load.sessions).map(|n| {
        let subscription = Some((load.filter(load.group_of(n)), ground.subscribe_qos));
        wish(ground, n, Session::Kept, subscription, beside)
    });
    let mut old = 0;
    pool.open_hearing(wishes, ground.opening, ground.progress, |_, heard| {
        old += u32::from(heard == Heard::Present);
    })?;
    if old > 0 && ground.plan.version != Version::V31 {
        return Err(BenchError::Other(format!(
            "the broker has {old} sessions of an earlier run with the same process id"
        )));
    }
    pool.leave(ground.progress, |_, _| {})
}

/// Clean starts take all sessions away.
fn remove(ground: &Ground<'_>, sessions: u32) -> Result<(), BenchError> {
    open(ground, 0..sessions)?.leave(ground.progress, |_, _| {})
}
