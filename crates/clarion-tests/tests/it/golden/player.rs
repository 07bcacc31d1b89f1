//! Plays a recording against a fresh server: the stimuli as they were, step by step, each awaited by what it causes.
//!
//! What the recording shows and is right must be the same bytes here, numbers apart; what it shows and is wrong, or what
//! it does not show, is checked against the model.

use super::calls::Waiting;
use super::gates::{Event, Gate};
use super::model::Model;
use super::table::Plan;
use super::vectors::{Scenario, Step};
use clarion_tests::grpc_bytes::GrpcClient;
use clarion_tests::{DEADLINE, Server};
use rustix::process::Signal;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Events that may wait for the player.
const EVENTS_MAX: usize = 100_000;

/// See the module.
pub(super) struct Player {
    pub(super) plan: Plan,
    pub(super) server: Server,
    pub(super) model: Model,
    /// One connection for each actor.
    clients: HashMap<String, GrpcClient>,
    pub(super) gates: HashMap<String, Gate>,
    pub(super) events: mpsc::Receiver<(String, Event)>,
    pub(super) sender: mpsc::Sender<(String, Event)>,
    pub(super) calls: HashMap<u32, Waiting>,
    /// It was told to stop.
    pub(super) stopping: bool,
    /// Gates, and channels of which something came to them.
    pub(super) marks: HashSet<(String, String)>,
    /// The numbers of the recording, by channel, and ours.
    pub(super) ids: HashMap<(String, u64), u64>,
    /// The step that is played.
    pub(super) at: usize,
}

/// A server for a scenario.
pub(super) fn server(mode: &str, status_timeout_ms: u64) -> Server {
    let timeout = format!("{status_timeout_ms}ms");
    let server = Server::builder().set("mikudos.status_timeout", &timeout);
    // What is not set has its default.
    let server = if mode.is_empty() { server } else { server.set("mikudos.mode", mode) };
    server.set("grpc.keep_alive_interval", "60s").arg("--speak").arg("mikudos").start()
}

/// Plays a scenario.
pub(super) async fn play(scenario: &Scenario, plan: Plan) {
    let mode = scenario.mode.clone().unwrap_or_default();
    let patience = plan.status_timeout_ms;
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let model = Model::new(&mode, Duration::from_millis(patience));
    let mut player = Player {
        plan,
        server: server(&mode, patience),
        model,
        clients: HashMap::new(),
        gates: HashMap::new(),
        events,
        sender,
        calls: HashMap::new(),
        stopping: false,
        marks: HashSet::new(),
        ids: HashMap::new(),
        at: 0,
    };
    let started = Instant::now();
    for (at, step) in scenario.steps.iter().enumerate() {
        player.at = at;
        if player.plan.timed {
            let moment = started + Duration::from_millis(step.at_ms);
            tokio::time::sleep_until(moment.into()).await;
        }
        player.step(step).await;
    }
    player.at = scenario.steps.len();
    player.close().await;
}

impl Player {
    /// Fails, naming the step.
    pub(super) fn here(&self) -> String {
        format!("step {}", self.at)
    }

    /// What the plan says of this step, when it differs on purpose.
    pub(super) fn differs(&self) -> Option<super::table::Here> {
        self.plan.differs.iter().find(|(at, _)| *at == self.at).map(|(_, here)| *here)
    }

    /// The actor's connection; `gate1b` shares that of `gate1`.
    pub(super) async fn client(&mut self, actor: &str) -> GrpcClient {
        let owner = actor.trim_end_matches('b').to_owned();
        if let Some(client) = self.clients.get(&owner) {
            return client.clone();
        }
        let client = GrpcClient::open(self.server.listener("grpc")).await;
        self.clients.insert(owner, client.clone());
        client
    }

    async fn step(&mut self, step: &Step) {
        match &*step.actor {
            "server" => self.server_step(step).await,
            // What they held is asked for by REQUEST at the end.
            "redis" | "mysql" | "note" => {}
            actor if actor.starts_with("gate") => self.gate_step(step).await,
            _ if step.call.is_some() && step.send.is_some() => self.call_begins(step).await,
            _ if step.call.is_some() => self.call_ends(step).await,
            _ => panic!("{}: nobody knows what this is: {step:?}", self.here()),
        }
    }

    async fn server_step(&mut self, step: &Step) {
        match step.event.as_deref() {
            Some("kill") => {
                self.server.kill9();
                self.clients.clear();
                self.marks.clear();
                self.model.killed();
                self.ids.clear();
                self.all_ended().await;
            }
            Some("start") => self.server.restart(),
            Some("SIGTERM") => {
                self.stopping = true;
                self.server.signal(Signal::TERM);
                self.all_ended().await;
                self.model.killed();
            }
            Some("exited") => {
                let status = self.server.wait();
                assert!(status.success(), "{}: it ends in order: {status}", self.here());
            }
            _ => panic!("{}: {step:?}", self.here()),
        }
    }

    async fn all_ended(&mut self) {
        self.until("the end of all streams", |p| p.gates.values().all(|g| g.ended.is_some())).await;
    }

    /// Takes events until it holds.
    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let event = timeout(DEADLINE, self.events.recv()).await;
            let Ok(Some((gate, event))) = event else {
                panic!("{}: waited in vain for {what}", self.here());
            };
            self.event(&gate, event);
        }
    }

    /// Everything that was pushed went where it had to, and what is unacked comes with a REQUEST.
    async fn close(&mut self) {
        let calls: Vec<u32> = self.calls.keys().copied().collect();
        for call in calls {
            self.call_ends_well(call).await;
        }
        if !self.server.is_running() {
            return;
        }
        let live: Vec<String> = self.live_gates();
        for gate in &live {
            self.sync(gate).await;
        }
        self.take_leftovers();
        self.model.check_live();
        let asker = match live.first() {
            Some(gate) => gate.clone(),
            None => {
                let group = [("group".to_owned(), "last".to_owned())];
                self.open("gate-last", super::proto::GATE, &group).await;
                "gate-last".to_owned()
            }
        };
        let mut channels: Vec<String> =
            self.model.pushes.iter().map(|push| push.said.channel.clone()).collect();
        channels.sort();
        channels.dedup();
        for channel in channels {
            self.request(&asker, &channel, 0, super::proto::answer(&channel, 0, 0)).await;
        }
    }
}
