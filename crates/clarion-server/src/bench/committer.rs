//! The node's committer alone, in process, on an embedded store of its own. Must not know: HTTP.

use std::{cell::Cell, cell::RefCell, net::SocketAddr, path::PathBuf, rc::Rc, time::Instant};

use bytes::Bytes;
use clarion_core::{Address, Content, Principal};
use clarion_node::{Draft, Expire, Node, NodeConfig};
use clarion_store::{Engine, StoreConfig, embedded::EmbeddedConfig};
use tokio::task::JoinSet;

use super::{
    BenchError, Report, histogram::Histogram, meter::Faults, meter::Meter, process::ServerProcess,
    progress::Progress,
};

/// What to measure.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tasks that publish, one message under way each.
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    size: usize,
    /// Users that the messages go to, in turn.
    #[arg(long, default_value_t = 10_000)]
    users: u64,
    /// A new directory for the store; it is removed afterwards.
    #[arg(long, default_value = "./clarion-bench-data")]
    data: PathBuf,
}

struct Run {
    node: Node,
    principal: Principal,
    addresses: Vec<Address>,
    payload: Bytes,
    messages: u64,
    taken: Cell<u64>,
    failed: Cell<u64>,
    latency: RefCell<Histogram>,
}

/// Measures.
pub(super) async fn run(args: Args, progress: &Rc<Progress>) -> Result<Report, BenchError> {
    if args.data.exists() {
        let text = format!(
            "{} exists: name a directory that may be made and removed",
            args.data.display()
        );
        return Err(BenchError::Other(text));
    }
    let other = |error: &dyn std::fmt::Display| BenchError::Other(error.to_string());
    let store = StoreConfig::Embedded { dir: args.data.clone(), config: EmbeddedConfig::default() };
    let engine = Engine::open(store).map_err(|e| other(&e))?;
    let node = Node::start(NodeConfig::default(), engine.store()).await.map_err(|e| other(&e))?;
    let users = 0..args.users.max(1);
    let run = Rc::new(Run {
        node: node.clone(),
        principal: Principal::open(),
        addresses: users
            .map(|n| Address::user(&format!("bench-{n}")))
            .collect::<Result<_, _>>()
            .map_err(|e| other(&e))?,
        payload: Bytes::from(vec![b'x'; args.size]),
        messages: args.messages,
        taken: Cell::new(0),
        failed: Cell::new(0),
        latency: RefCell::new(Histogram::new()),
    });
    let this = ServerProcess::find(Some(std::process::id()), None, SocketAddr::from(([0; 4], 0)))?;
    let meter = Meter::start(this.as_ref());
    let mut callers = JoinSet::new();
    for _ in 0..args.callers {
        callers.spawn_local(call(Rc::clone(&run), Rc::clone(progress)));
    }
    while let Some(done) = callers.join_next().await {
        done.map_err(|e| other(&e))?;
    }
    let faults = Faults { lost: run.failed.get(), ..Faults::default() };
    let latency = run.latency.replace(Histogram::new());
    let report = meter.finish(this.as_ref(), "committer", args.messages, latency, faults);
    node.shut_down();
    engine.close().map_err(|e| other(&e))?;
    std::fs::remove_dir_all(&args.data)?;
    Ok(report)
}

async fn call(run: Rc<Run>, progress: Rc<Progress>) {
    while run.taken.get() < run.messages {
        let number = run.taken.get();
        run.taken.set(number + 1);
        let address = run.addresses[(number % run.addresses.len() as u64) as usize].clone();
        let content = Content { payload: run.payload.clone(), counted: true, ..Content::default() };
        let asked = Instant::now();
        let answer = run
            .node
            .publish(&run.principal, Draft { address, content, expire: Expire::Never })
            .await;
        run.latency.borrow_mut().record(asked.elapsed());
        if answer.is_err() {
            run.failed.set(run.failed.get() + 1);
        }
        progress.show("published", number, run.messages);
    }
}
