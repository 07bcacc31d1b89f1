//! `clarion bench mqtt`: the workloads over MQTT, against any broker, or beside another one in the same run.
//!
//! Owns: the one thread that is the load (epoll, one buffer for all clients, so that it costs less than any broker), and
//! the comparison. Must not know: the brokers' insides.

mod broker;
mod client;
mod compare;
mod flow;
mod link;
mod offline;
mod open;
mod pool;
mod websocket;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs},
    path::PathBuf,
};

use clarion_wire::mqtt::{Qos, Version};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::{BenchError, meter::Report, process::ServerProcess, progress::Progress};
use broker::{Autosave, Broker, Dress};
use client::Plan;
use flow::{Flow, Pace};
use link::Layers;
use open::Stay;

/// Clients that share a source address: fewer than the ports that the system gives out.
const PER_SOURCE: u32 = 5_000;
/// What Mosquitto spends at fan-out, QoS 0, on the machine that figures are told for: CPU seconds per million deliveries.
const MOSQUITTO_FANOUT: f64 = 9.0;
/// Descriptors beside the clients'.
const OWN_FILES: u64 = 64;

/// What to measure, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    workload: Workload,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// The broker's host.
    #[arg(long, default_value = "127.0.0.1", global = true)]
    host: String,
    /// The broker's port: 1883, or 8883 with --tls. With --compare and without this, clarion is started for the run.
    #[arg(long, global = true)]
    port: Option<u16>,
    /// The protocol: 3.1, 3.1.1 or 5. By itself 3.1.1; `offline` takes 5 where the broker speaks it.
    #[arg(long, value_parser = version, global = true)]
    version: Option<Version>,
    /// Of publishes and, unless --subscribe-qos is given, of subscriptions. By itself 0; `offline` takes 1.
    #[arg(long, value_parser = qos, global = true)]
    qos: Option<Qos>,
    /// Of subscriptions.
    #[arg(long, value_parser = qos, value_name = "QOS", global = true)]
    subscribe_qos: Option<Qos>,
    /// TLS; any certificate will do.
    #[arg(long, global = true)]
    tls: bool,
    /// MQTT in WebSocket frames, at /mqtt.
    #[arg(long, global = true)]
    websocket: bool,
    /// Bytes of a payload.
    #[arg(
        long,
        visible_alias = "size",
        default_value_t = 200,
        value_name = "BYTES",
        global = true
    )]
    payload: usize,
    /// Clients that connect at the same time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), value_name = "N", global = true)]
    opening: u32,
    /// Measures another broker, too, and tells clarion's share of what that one spends.
    #[arg(long, value_name = "BROKER", global = true)]
    compare: Option<Rival>,
    /// With --compare: how often both are measured, in turns.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N", global = true)]
    rounds: u32,
    /// Measures first what mosquitto spends at fan-out 1 to 1,000, QoS 0, and tells the other figures also as they would be on a
    /// machine where that is 9.0 CPU seconds per million.
    #[arg(long, global = true)]
    calibrate: bool,
}

/// Who else can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Rival {
    /// The mosquitto that is installed.
    Mosquitto,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Workload {
    /// One publisher, one topic, many subscribers.
    Fanout {
        /// Subscribers.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        subscribers: u32,
        /// Messages published.
        #[arg(long, default_value_t = 1000)]
        messages: u32,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Publishers and subscribers in pairs, each pair on a topic of its own.
    Pairs {
        /// Pairs.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        pairs: u32,
        /// Messages published in each pair.
        #[arg(long, default_value_t = 1000)]
        messages: u32,
        #[command(flatten)]
        pace: PaceArgs,
    },
    /// Clients with one subscription each that only stay: their memory, and the CPU at rest.
    Idle {
        /// Clients.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        connections: u32,
        /// Seconds that they stay before the memory is read.
        #[arg(long, default_value_t = 3)]
        hold: u64,
        /// Seconds after that in which the CPU at rest is measured.
        #[arg(long, default_value_t = 0)]
        rest: u64,
    },
    /// Clients with one subscription each, as fast as they are let in.
    Connect {
        /// Clients.
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        connections: u32,
    },
    /// Messages for sessions that are away, and their way to them when they return.
    Offline(offline::Args),
}

#[derive(Debug, Clone, clap::Args)]
struct PaceArgs {
    /// Messages of a topic that are published and not yet with all its subscribers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    in_flight: u32,
    /// Messages a second over all topics, however far the subscribers are.
    #[arg(long, value_parser = rate, value_name = "PER_SECOND", conflicts_with = "in_flight")]
    rate: Option<f64>,
}

impl PaceArgs {
    fn pace(&self) -> Pace {
        self.rate.map_or(Pace::InFlight(self.in_flight), Pace::Rate)
    }
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" => Ok(Version::V31),
        "3.1.1" => Ok(Version::V311),
        "5" | "5.0" => Ok(Version::V5),
        _ => Err("expected 3.1, 3.1.1 or 5".into()),
    }
}

fn qos(text: &str) -> Result<Qos, String> {
    match text {
        "0" => Ok(Qos::AtMostOnce),
        "1" => Ok(Qos::AtLeastOnce),
        "2" => Ok(Qos::ExactlyOnce),
        _ => Err("expected 0, 1 or 2".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|e| format!("{e}"))?;
    let sane = number > 0.0 && number <= 1e7;
    if sane { Ok(number) } else { Err("expected a number above 0, at most 10000000".into()) }
}

/// What the bench's own command line says.
#[derive(Debug)]
pub(super) struct Shared<'a> {
    pub(super) pid: Option<u32>,
    pub(super) ready_file: Option<PathBuf>,
    pub(super) progress: &'a Progress,
    pub(super) json: bool,
}

/// What one measurement stands on.
struct Ground<'a> {
    plan: Plan,
    qos: Qos,
    subscribe_qos: Qos,
    size: usize,
    opening: usize,
    /// How the topics begin.
    topic: String,
    server: Option<&'a ServerProcess>,
    progress: &'a Progress,
}

impl Ground<'_> {
    /// Short enough for 3.1: 23 characters.
    fn client_id(&self, number: u32) -> String {
        format!("b{:x}-{number:x}", std::process::id())
    }

    /// Where the client comes from: on loopback there are addresses enough for any number.
    fn source(&self, number: u32) -> Option<IpAddr> {
        let at = self.plan.at.ip();
        let place = Ipv4Addr::LOCALHOST.to_bits().checked_add(number / PER_SOURCE)?;
        (at.is_ipv4() && at.is_loopback()).then(|| Ipv4Addr::from_bits(place).into())
    }
}

/// Runs a workload.
pub(super) fn run(args: &Args, shared: &Shared<'_>) -> Result<(), BenchError> {
    raise_limit(args.workload.clients())?;
    if let Workload::Offline(workload) = &args.workload {
        workload.check(&args.common)?;
    }
    let mut voice = Voice { shared, scale: None };
    if args.common.calibrate {
        voice.calibrate()?;
    }
    match args.common.compare {
        None => {
            let mut broker = running(&args.common, shared)?;
            measure(args, &mut broker, shared.progress, &mut |report| {
                voice.tell(report);
                Ok(())
            })
        }
        Some(Rival::Mosquitto) => compare::run(args, &voice),
    }
}

/// How measurements are told.
struct Voice<'a> {
    shared: &'a Shared<'a>,
    /// How much dearer this machine is than the one that figures are told for.
    scale: Option<f64>,
}

impl Voice<'_> {
    fn tell(&self, mut report: Report) {
        if let Some((scale, spent)) = self.scale.zip(report.cpu_s_per_million()) {
            report.more.push(("scaled_cpu_s_per_million", json!(rounded(spent / scale))));
        }
        self.print(&report);
    }

    fn print(&self, report: &Report) {
        self.shared.progress.clear();
        super::print(&if self.shared.json { report.json() } else { report.table() });
    }

    /// Finds the scale, and tells it.
    fn calibrate(&mut self) -> Result<(), BenchError> {
        let (name, pace) = ("calibration", Pace::InFlight(16));
        let flow = Flow { name, groups: 1, readers: 1000, messages: 500, pace };
        raise_limit(u64::from(flow.readers) + 1)?;
        let broker = Broker::mosquitto(Dress::default(), None)?;
        let ground = Ground {
            plan: Plan { at: broker.at, layers: Layers::default(), version: Version::V311 },
            qos: Qos::AtMostOnce,
            subscribe_qos: Qos::AtMostOnce,
            size: 200,
            opening: 64,
            topic: "bench".into(),
            server: broker.process.as_ref(),
            progress: self.shared.progress,
        };
        let mut report = flow::run(&ground, &flow)?;
        self.scale = report.cpu_s_per_million().map(|spent| spent / MOSQUITTO_FANOUT);
        report.more =
            vec![("broker", json!("mosquitto")), ("scale", json!(self.scale.map(rounded)))];
        self.print(&report);
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// The broker that the command line names.
fn running(common: &Common, shared: &Shared<'_>) -> Result<Broker, BenchError> {
    let port = common.port.unwrap_or(if common.tls { 8883 } else { 1883 });
    let unreachable =
        |cause| BenchError::Unreachable { at: format!("{}:{port}", common.host), cause };
    let found = (common.host.as_str(), port).to_socket_addrs().map_err(unreachable)?.next();
    let at: SocketAddr =
        found.ok_or_else(|| unreachable(std::io::ErrorKind::AddrNotAvailable.into()))?;
    drop(TcpStream::connect(at).map_err(unreachable)?);
    let process = ServerProcess::find(shared.pid, shared.ready_file.as_deref(), at)?;
    Ok(Broker::running(at, process))
}

/// What a measurement's reports go to.
type Hand<'a> = dyn FnMut(Report) -> Result<(), BenchError> + 'a;

/// The broker's side of a measurement, as it is now.
fn ground<'a>(
    common: &Common,
    version: Version,
    qos: Qos,
    broker: &'a Broker,
    progress: &'a Progress,
) -> Result<Ground<'a>, BenchError> {
    let tls = common.tls.then(link::tls_config).transpose();
    let tls = tls.map_err(|e| BenchError::Other(format!("TLS: {e}")))?;
    let subprotocol = if version == Version::V31 { "mqttv3.1" } else { "mqtt" };
    let websocket = common.websocket.then_some(subprotocol);
    Ok(Ground {
        plan: Plan { at: broker.at, layers: Layers { tls, websocket }, version },
        qos,
        subscribe_qos: common.subscribe_qos.unwrap_or(qos),
        size: common.payload,
        opening: common.opening as usize,
        topic: format!("bench/{}", std::process::id()),
        server: broker.process.as_ref(),
        progress,
    })
}

/// One broker's measurements.
fn measure(
    args: &Args,
    broker: &mut Broker,
    progress: &Progress,
    hand: &mut Hand<'_>,
) -> Result<(), BenchError> {
    let common = &args.common;
    if let Workload::Offline(workload) = &args.workload {
        return offline::run(common, workload, broker, progress, hand);
    }
    let (version, qos) = (common.version.unwrap_or(Version::V311), common.qos.unwrap_or_default());
    let ground = ground(common, version, qos, broker, progress)?;
    let mut report = match &args.workload {
        Workload::Offline(_) => return Ok(()),
        Workload::Fanout { subscribers, messages, pace } => {
            let name = "mqtt-fanout";
            let (readers, messages, pace) = (*subscribers, *messages, pace.pace());
            flow::run(&ground, &Flow { name, groups: 1, readers, messages, pace })
        }
        Workload::Pairs { pairs, messages, pace } => {
            let name = "mqtt-pairs";
            let (groups, messages, pace) = (*pairs, *messages, pace.pace());
            flow::run(&ground, &Flow { name, groups, readers: 1, messages, pace })
        }
        Workload::Idle { connections, hold, rest } => {
            open::idle(&ground, *connections, Stay { hold: *hold, rest: *rest })
        }
        Workload::Connect { connections } => open::connect(&ground, *connections),
    }?;
    report.more.push(("qos", json!(qos as u8)));
    hand(report)
}

impl Common {
    fn dress(&self) -> Dress {
        Dress { tls: self.tls, websocket: self.websocket }
    }
}

impl Workload {
    fn clients(&self) -> u64 {
        match self {
            Self::Fanout { subscribers, .. } => u64::from(*subscribers) + 1,
            Self::Pairs { pairs, .. } => u64::from(*pairs) * 2,
            Self::Idle { connections, .. } | Self::Connect { connections } => {
                u64::from(*connections)
            }
            Self::Offline(offline) => offline.clients(),
        }
    }
}

/// Raises the soft limit of open files to the hard one, and looks whether that is enough.
fn raise_limit(clients: u64) -> Result<(), BenchError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < clients + OWN_FILES => Err(BenchError::Other(format!(
            "{clients} clients need more open files than this process may have, {files} (ulimit -n)"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
