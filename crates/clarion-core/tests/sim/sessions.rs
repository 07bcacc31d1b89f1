//! A world of its own: clients whose sessions outlive their connections, their subscriptions to filters that overlap, QoS 1 and
//! 2 in both directions. Connections break at any step; the node crashes and stops.

mod client;
mod committer;
mod deliver;
mod node;
mod oracle;
mod packets;
mod store;

use crate::rng::Rng;
use crate::stats::Stats;
use crate::{invariant, note};
use clarion_core::{Address, Millis, Seq};
use client::Client;
use committer::Committer;
use node::{Conn, Node};
use oracle::Oracle;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use store::Store;

pub(crate) type Cid = usize;
pub(crate) type ConnId = u64;
pub(crate) type BodyId = usize;

pub(crate) const CLIENTS: usize = 3;
pub(crate) const TOPICS: [&str; 4] = ["a", "b", "a/a", "a/b"];
pub(crate) const FILTERS: [&str; 9] = ["a", "b", "a/a", "+", "a/+", "+/a", "#", "a/#", "+/#"];
const ACK_FLUSH_MS: u64 = 100;
const PATIENCE_MS: u64 = 30_000;

/// What a client publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) publisher: Cid,
    /// Counts up, per publisher.
    pub(crate) number: u64,
    pub(crate) topic: &'static str,
    pub(crate) qos: u8,
}

pub(crate) struct Config {
    pub(crate) slow_ms: u64,
    pub(crate) page: usize,
    /// Most that is unacked; of it QoS 2.
    pub(crate) span: usize,
    pub(crate) twice_max: usize,
    /// What waits on the way to a client.
    pub(crate) outbox: usize,
    /// The record of a QoS 2 publish is committed before its append, not with it.
    pub(crate) two_commits: bool,
    /// Faults, each so many times in a thousand.
    pub(crate) breaks: u64,
    pub(crate) unknown: u64,
    pub(crate) clean: u64,
    pub(crate) lazy: u64,
    pub(crate) busy: u64,
    /// How often a client changes its subscriptions.
    pub(crate) changes: u64,
    pub(crate) filters: usize,
    pub(crate) end: Millis,
}

pub(crate) enum Event {
    Client(Cid),
    Server(ConnId),
    /// The node learns that a connection is gone.
    Noticed(ConnId),
    Commit,
    Mail,
    Load(ConnId),
    Heads(ConnId),
    PageExec(ConnId, u32, u64),
    PageDone(ConnId, u32, u64, Vec<(Seq, BodyId)>, Seq, Seq),
    Flush,
    Tidy,
    Erase,
    Crash,
    Stop,
    Calm,
    Check,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Millis,
    pub(crate) config: Config,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    events: BTreeMap<u64, (u64, Event)>,
    order: u64,
    pub(crate) life: u64,
    pub(crate) calm: bool,
    pub(crate) store: Store,
    pub(crate) committer: Committer,
    pub(crate) node: Node,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) clients: Vec<Client>,
    pub(crate) oracle: Oracle,
    pub(crate) stats: Stats,
    fresh: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5e55);
        let span = rng.range(2, 8) as usize;
        let config = Config {
            slow_ms: rng.range(1, 40),
            page: rng.range(1, 6) as usize,
            span,
            twice_max: (rng.range(1, 4) as usize).min(span),
            outbox: rng.range(2, 8) as usize,
            two_commits: rng.chance(500),
            breaks: rng.range(5, 60),
            unknown: rng.range(0, 80),
            clean: if rng.chance(300) { rng.range(20, 200) } else { 0 },
            lazy: rng.range(100, 800),
            busy: rng.range(0, 800),
            changes: rng.range(50, 500),
            filters: rng.range(2, FILTERS.len() as u64) as usize,
            end: rng.range(1_500, 3_500),
        };
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            order: 0,
            life: 1,
            calm: false,
            store: Store::default(),
            committer: Committer::default(),
            node: Node::default(),
            conns: BTreeMap::new(),
            clients: (0..CLIENTS).map(Client::new).collect(),
            oracle: Oracle::default(),
            stats: Stats::default(),
            fresh: 0,
            config,
            rng,
        }
    }

    /// A number that was never used.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.push(ms, 0, event);
    }

    pub(crate) fn node_after(&mut self, ms: u64, event: Event) {
        self.push(ms, self.life, event);
    }

    fn push(&mut self, ms: u64, life: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + ms, self.order)));
        self.events.insert(self.order, (life, event));
    }

    pub(crate) fn store_delay(&mut self) -> u64 {
        let slow = if self.calm { 2 } else { self.config.slow_ms };
        self.rng.range(0, slow)
    }

    pub(crate) fn fault(&mut self, per_mille: u64) -> bool {
        !self.calm && self.rng.chance(per_mille)
    }

    pub(crate) fn run(mut self) -> Stats {
        let end = self.config.end;
        for cid in 0..CLIENTS {
            let at = self.rng.range(0, 30);
            self.after(at, Event::Client(cid));
        }
        for _ in 0..self.rng.range(0, 4) {
            let at = self.rng.range(100, end);
            let event = if self.rng.chance(300) { Event::Stop } else { Event::Crash };
            self.after(at, event);
        }
        self.after(150, Event::Erase);
        self.after(end, Event::Calm);
        self.after(end + 500, Event::Check);
        self.start_node();
        while let Some(Reverse((at, order))) = self.queue.pop() {
            self.now = at;
            let (life, event) = self.events.remove(&order).expect("every order has its event");
            if life != 0 && life != self.life {
                continue;
            }
            if matches!(event, Event::Check) && self.missing().is_none() {
                return self.stats;
            }
            self.handle(event);
        }
        unreachable!("the check comes again until all is done");
    }

    fn start_node(&mut self) {
        self.committer = Committer::load(&self.store);
        self.node = Node::default();
        self.node.told = self.committer.stamp;
        self.node_after(ACK_FLUSH_MS, Event::Flush);
        self.node_after(70, Event::Tidy);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Client(cid) => self.client_step(cid),
            Event::Server(conn) => self.server_step(conn),
            Event::Noticed(conn) => self.end(conn),
            Event::Commit => self.commit(),
            Event::Mail => self.mail(),
            Event::Load(conn) => self.load(conn),
            Event::Heads(conn) => self.heads(conn),
            Event::PageExec(conn, slot, reading) => self.page_exec(conn, slot, reading),
            Event::PageDone(conn, slot, reading, page, through, last) => {
                self.page_done((conn, slot, reading), &page, through, last);
            }
            Event::Flush => {
                self.flush();
                self.node_after(ACK_FLUSH_MS, Event::Flush);
            }
            Event::Tidy => {
                self.tidy();
                self.node_after(70, Event::Tidy);
            }
            Event::Erase => self.erase(),
            Event::Crash if self.calm => {}
            Event::Crash => self.crash(),
            Event::Stop if self.calm => {}
            Event::Stop => self.stop(),
            Event::Calm => {
                note!(self.now, "all is calm from here on");
                self.calm = true;
            }
            Event::Check => {
                let missing = self.missing().unwrap_or_default();
                let late = self.now > self.config.end + PATIENCE_MS;
                invariant!(!late, "a session loses nothing", "{missing}");
                self.after(50, Event::Check);
            }
        }
    }

    /// What keeps it from being done.
    fn missing(&self) -> Option<String> {
        for client in &self.clients {
            if let Some(missing) = client.missing() {
                return Some(missing);
            }
            let number = self.store.number_of(client.cid)?;
            if let Some(missing) = self.oracle.missing(&self.store, number) {
                return Some(missing);
            }
            let tails = self.committer.planned[&number].iter().filter(|(_, s)| s.tail.is_some());
            if tails.count() > 0 {
                return Some(format!("{number} has tails still"));
            }
        }
        None
    }

    fn erase(&mut self) {
        if !self.calm && !self.store.bodies.is_empty() {
            let from = self.store.bodies.len().saturating_sub(20);
            let body = from + self.rng.index(self.store.bodies.len() - from);
            self.submit_erase(body);
            let at = self.rng.range(50, 400);
            self.after(at, Event::Erase);
        } else if !self.calm {
            self.after(100, Event::Erase);
        }
    }

    /// kill -9 and a restart.
    fn crash(&mut self) {
        note!(self.now, "the node crashes");
        self.stats.peer_crashes += 1;
        if self.rng.chance(500) {
            self.apply_under_way();
        }
        self.restart();
    }

    /// SIGTERM: all connections end, and that is stored; then it restarts.
    fn stop(&mut self) {
        note!(self.now, "the node stops");
        self.stats.peer_stops += 1;
        self.node.stopping = true;
        let conns: Vec<ConnId> = self.node.sessions.keys().copied().collect();
        for conn in conns {
            self.end(conn);
        }
        self.stopped();
    }

    /// Whether it has stopped.
    pub(crate) fn stopped(&mut self) {
        if self.node.stopping && self.node.sessions.is_empty() && self.committer.is_idle() {
            note!(self.now, "it has stopped");
            self.restart();
        }
    }

    fn restart(&mut self) {
        self.life += 1;
        self.conns.clear();
        for client in &mut self.clients {
            client.lost();
        }
        self.start_node();
    }
}

pub(crate) fn topic_log(topic: &str) -> Address {
    Address::topic(topic).expect("a topic")
}
