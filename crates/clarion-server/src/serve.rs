//! `clarion serve`: configuration, logs, listeners, ready file, signals.
//!
//! Owns the order of the start and of the stop. Must not know: protocols, or how anything is stored.

mod files;
mod open;
mod ready;
mod signals;
mod start_table;
mod wire;

use crate::{
    commands::{SourceArgs, report},
    config::{
        Config,
        listeners::{Dialect, Listener, ListenerKind},
    },
    credentials::{self, Loaded},
    data_dir,
    exit::{self, Failure},
    logs,
};
use clarion_edge::Stop;
use clarion_edge::auth::Authenticator;
use clarion_edge::http::App;
use clarion_node::Node;
use clarion_store::Engine;
use std::{io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use tokio::{sync::watch, task::JoinSet, time::timeout};

/// The share of the time for the shutdown in which requests under way may be answered.
const LISTENERS_SHARE: f64 = 0.6;
/// The share in which what was cut off then ends.
const CUT_SHARE: f64 = 0.1;

/// Starts the server.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    /// Written when all listeners accept: {"pid", "version", "listeners": {name: address}}.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs the server until a signal.
pub(crate) fn run(args: &Args) -> ExitCode {
    let config = match args.sources.load_or_report() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let loaded = match credentials::load_all(&config) {
        Ok(loaded) => loaded,
        Err(problems) => return report(&problems),
    };
    logs::init(&config.log);
    for notice in config.mikudos_file.iter().flat_map(|file| &file.ignored) {
        tracing::warn!("{notice}");
    }
    files::raise_limit(&config);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (_, workers) = config.node.threads(cores);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("http")
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => exit::code_of(runtime.block_on(serve(&config, loaded, args, cores))),
        Err(error) => Failure::new(exit::SOFTWARE, format!("no runtime: {error}")).report(),
    }
}

async fn serve(config: &Config, loaded: Loaded, args: &Args, cores: usize) -> Result<(), Failure> {
    if let Some(path) = &args.ready_file {
        ready::clear(path)?;
    }
    let mut signals = signals::Signals::install()?;
    // The ports first: one that is busy is told before the store is opened.
    let opened = open::open(config)?;
    let engine = open_engine(config).await?;
    let node = Node::start(wire::node_config(config, cores), engine.store())
        .await
        .map_err(|error| Failure::new(exit::IO, format!("the node cannot start: {error}")))?;
    let auth = wire::authenticator(config, loaded, cores)
        .map_err(|error| Failure::new(exit::SOFTWARE, error))?;
    announce(config, &opened, args)?;
    let (stop, stopping) = watch::channel(Stop::Run);
    let mut servers = spawn_servers(config, opened, &node, &auth, &stopping)?;
    let ended = tokio::select! {
        // This thread serves nothing, so files may be read on it.
        signal = signals.stop(|| credentials::reload(config, &auth)) => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        () = node.failed() => Err(Failure::new(exit::SOFTWARE, "a thread of the node died")),
        Some(server) = servers.join_next() => {
            Err(Failure::new(exit::SOFTWARE, format!("a listener ended: {server:?}")))
        }
    };
    if let Some(path) = &args.ready_file {
        ready::clear(path)?;
    }
    let time = config.limits.shutdown_timeout;
    let cut_off = tokio::select! {
        done = timeout(time, shut_down(node, engine, servers, stop, time)) => match done {
            Ok(()) => return ended,
            Err(_) => "the shutdown took too long: the store was not closed",
        },
        _ = signals.stop(|| ()) => "a second signal: the store was not closed",
    };
    tracing::warn!("{cut_off}");
    // Threads that still run would hold the exit; nothing acknowledged depends on them.
    std::process::exit(i32::from(ended.map_or_else(|failure| failure.code, |()| 0)));
}

/// Serves every listener.
fn spawn_servers(
    config: &Config,
    opened: Vec<open::Opened>,
    node: &Node,
    auth: &Authenticator,
    stopping: &watch::Receiver<Stop>,
) -> Result<JoinSet<std::io::Result<()>>, Failure> {
    let mut servers = JoinSet::new();
    let peers = wire::mqtt_peers(config);
    let mqtt = |listener: &Listener| {
        let tls = credentials::load_tls(listener)
            .map_err(|problem| Failure::new(exit::USAGE, problem.to_string()))?;
        let told = wire::mqtt_config(config, listener, tls, peers.clone());
        Ok::<_, Failure>(clarion_edge::mqtt::App::new(node.clone(), auth.clone(), told))
    };
    for open in opened {
        let Some(listener) = config.listeners.iter().find(|listener| listener.name == open.name)
        else {
            continue;
        };
        let (socket, stopping) = (open.socket, stopping.clone());
        match listener.kind() {
            ListenerKind::Http => {
                let app = App::new(node.clone(), wire::http_config(config, listener, auth, &peers));
                let speaks = listener.speaks(Dialect::Mqtt);
                let mqtt = speaks.then(|| mqtt(listener)).transpose()?;
                servers.spawn(clarion_edge::http::serve(socket, app, mqtt, stopping));
            }
            ListenerKind::Mqtt => {
                servers.spawn(clarion_edge::mqtt::serve(socket, mqtt(listener)?, stopping));
            }
            ListenerKind::Grpc => {
                let told = wire::grpc_config(config, listener, open.address.port(), auth);
                servers.spawn(clarion_edge::grpc::serve(socket, node.clone(), told, stopping));
            }
        }
    }
    Ok(servers)
}

async fn open_engine(config: &Config) -> Result<Engine, Failure> {
    let store = data_dir::store_config(config);
    let opening = tokio::task::spawn_blocking(move || Engine::open(store)).await;
    opening
        .map_err(|error| Failure::new(exit::SOFTWARE, format!("opening the store: {error}")))?
        .map_err(|error| data_dir::failure(&error))
}

/// Sessions are told, requests under way are answered, acks are written, then the store is closed. A client that takes its
/// time is cut off, so that there is time for the store.
async fn shut_down(
    node: Node,
    engine: Engine,
    mut servers: JoinSet<std::io::Result<()>>,
    stop: watch::Sender<Stop>,
    time: Duration,
) {
    node.close_sessions();
    // The receivers are the servers; they may have ended.
    let _ = stop.send(Stop::Finish);
    if timeout(time.mul_f64(LISTENERS_SHARE), join(&mut servers)).await.is_err() {
        tracing::warn!("requests under way are cut off: their clients are too slow");
        let _ = stop.send(Stop::Cut);
        if timeout(time.mul_f64(CUT_SHARE), join(&mut servers)).await.is_err() {
            servers.abort_all();
        }
    }
    let closing = tokio::task::spawn_blocking(move || {
        node.shut_down();
        engine.close()
    });
    match closing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the store could not be closed cleanly"),
        Err(error) => tracing::error!(%error, "the shutdown panicked"),
    }
}

/// Waits for the listeners' ends.
async fn join(servers: &mut JoinSet<std::io::Result<()>>) {
    while let Some(server) = servers.join_next().await {
        if !matches!(server, Ok(Ok(()))) {
            tracing::error!(?server, "a listener ended badly");
        }
    }
}

/// Prints the table and writes the ready file; everything accepts by now.
fn announce(config: &Config, opened: &[open::Opened], args: &Args) -> Result<(), Failure> {
    let table = start_table::render(config, opened);
    // A closed standard output is no reason not to serve.
    let _ = std::io::stdout().lock().write_all(table.as_bytes());
    for listener in opened {
        tracing::info!(listener = listener.name.name(), address = %listener.address, "open");
    }
    let addresses: Vec<(&str, SocketAddr)> =
        opened.iter().map(|opened| (opened.name.name(), opened.address)).collect();
    args.ready_file.as_ref().map_or(Ok(()), |path| ready::write(path, &addresses))
}
