//! `clarion bench mqtt`: the workloads over MQTT, against any broker, or beside another one in the same run.
//!
//! Owns: the one thread that is the load (epoll, one buffer for all clients, so that it costs less than any broker), and
//! the comparison. Must not know: the brokers' insides.

mod broker;
mod client;
mod compare;
mod flow;
mod link;
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
use broker::{Broker, Dress};
use client::Plan;
use flow::{Flow, Pace};
use link::Layers;
use open::Stay;

/// Clients that share a source address: fewer than the ports that the system gives out.
const PER_SOURCE: u32 = 5_000;
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
    /// The protocol: 3.1, 3.1.1 or 5.
    #[arg(long, default_value = "3.1.1", value_parser = version, global = true)]
    version: Version,
    /// Of publishes and, unless --subscribe-qos is given, of subscriptions.
    #[arg(long, default_value = "0", value_parser = qos, global = true)]
    qos: Qos,
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
    match args.common.compare {
        None => {
            let broker = running(&args.common, shared)?;
            tell(shared, &measure(args, &broker, shared.progress)?);
            Ok(())
        }
        Some(Rival::Mosquitto) => compare::run(args, shared),
    }
}

fn tell(shared: &Shared<'_>, report: &Report) {
    shared.progress.clear();
    super::print(&if shared.json { report.json() } else { report.table() });
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

/// One measurement of one broker.
fn measure(args: &Args, broker: &Broker, progress: &Progress) -> Result<Report, BenchError> {
    let common = &args.common;
    let tls = common.tls.then(link::tls_config).transpose();
    let tls = tls.map_err(|e| BenchError::Other(format!("TLS: {e}")))?;
    let subprotocol = if common.version == Version::V31 { "mqttv3.1" } else { "mqtt" };
    let websocket = common.websocket.then_some(subprotocol);
    let ground = Ground {
        plan: Plan { at: broker.at, layers: Layers { tls, websocket }, version: common.version },
        qos: common.qos,
        subscribe_qos: common.subscribe_qos.unwrap_or(common.qos),
        size: common.payload,
        opening: common.opening as usize,
        topic: format!("bench/{}", std::process::id()),
        server: broker.process.as_ref(),
        progress,
    };
    let mut report = match &args.workload {
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
    report.more.push(("qos", json!(common.qos as u8)));
    Ok(report)
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
