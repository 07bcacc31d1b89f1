//! The world: virtual time, the queue of events, publishers, crashes; what is configured by the seed.

use crate::client::Client;
use crate::consumer::QueueClient;
use crate::gates::{GATES, GateClient};
use crate::node::{Node, Sid, Snapshot};
use crate::oracle::Oracle;
use crate::queue::SHARED;
use crate::rng::Rng;
use crate::stats::Stats;
use crate::store::{Page, Store, address};
use crate::{invariant, note};
use clarion_core::catch_up::PageKey;
use clarion_core::{Address, Millis};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

pub(crate) type Chan = usize;
pub(crate) type Dev = usize;

/// Channels 0 and 1 are those of the two users.
pub(crate) const USERS: usize = 2;
pub(crate) const ALL: Chan = 2;
pub(crate) const GROUP: Chan = 3;
pub(crate) const QUEUE: Chan = 4;
pub(crate) const DEAD: Chan = 5;
pub(crate) const CHANNELS: usize = 6;
pub(crate) const DEVICES: usize = 6;
/// How late an ack is stored when nothing fails.
const ACK_FLUSH_MS: u64 = 100;
/// Long after the faults stop: who is not done then never will be.
const PATIENCE_MS: u64 = 20_000;

pub(crate) struct Config {
    pub(crate) outbox: usize,
    pub(crate) page: usize,
    pub(crate) reads: usize,
    pub(crate) end: Millis,
    /// Faults, each so many times in a thousand.
    pub(crate) refuse: u64,
    pub(crate) unknown: u64,
    pub(crate) read_fails: u64,
    pub(crate) hint_lost: u64,
    pub(crate) expiring: u64,
    /// Answers before anything is on disk: a crash or the engine may lose it.
    pub(crate) memory: bool,
    pub(crate) slow_ms: u64,
}

pub(crate) enum Event {
    Publish,
    Commit,
    Mail,
    HeadExec(Sid),
    HeadDone(Sid, Option<Box<Snapshot>>),
    PageExec(PageKey),
    PageDone(PageKey, Option<Page>),
    Client(Dev),
    Flush,
    QueueTick,
    QueueClient(usize),
    Gate(usize),
    Sweep,
    Sync,
    Crash,
    Stop,
    Lose,
    Calm,
    LastMessages,
    Check,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Millis,
    pub(crate) config: Config,
    queue: BinaryHeap<Reverse<(Millis, u64)>>,
    /// The events by order, each with the life of the node that it belongs to; 0 = the world's own.
    events: BTreeMap<u64, (u64, Event)>,
    order: u64,
    pub(crate) life: u64,
    pub(crate) calm: bool,
    pub(crate) store: Store,
    pub(crate) node: Node,
    pub(crate) clients: Vec<Client>,
    pub(crate) queue_clients: Vec<QueueClient>,
    pub(crate) gate_clients: Vec<GateClient>,
    pub(crate) oracle: Oracle,
    pub(crate) addresses: Vec<Address>,
    pub(crate) stats: Stats,
    next_id: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let stormy = !rng.chance(150);
        let mut fault = |most: u64| if stormy { rng.range(0, most) } else { 0 };
        let (refuse, unknown, read_fails) = (fault(150), fault(120), fault(100));
        let hint_lost = if fault(10) < 4 { 0 } else { fault(120) };
        let config = Config {
            outbox: rng.range(2, 8) as usize,
            page: rng.range(1, 6) as usize,
            reads: rng.range(1, 3) as usize,
            end: rng.range(900, 2_000),
            refuse,
            unknown,
            read_fails,
            hint_lost,
            expiring: rng.range(0, 250),
            memory: rng.chance(250),
            slow_ms: rng.range(1, 60),
        };
        let age = if rng.chance(400) { rng.range(300, 900) } else { 0 };
        let store = Store::new(rng.range(6, 30), age, rng.range(15, 60));
        let node = Node::new(&config, &mut rng);
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            order: 0,
            life: 1,
            calm: false,
            clients: (0..DEVICES).map(|dev| Client::new(dev, config.memory, &mut rng)).collect(),
            queue_clients: (0..SHARED * 3).map(|c| QueueClient::new(c, &mut rng)).collect(),
            gate_clients: (0..GATES).map(|_| GateClient::default()).collect(),
            oracle: Oracle::default(),
            addresses: (0..CHANNELS).map(address).collect(),
            stats: Stats::default(),
            next_id: 1,
            config,
            store,
            node,
            rng,
        }
    }

    /// An event of the world, in so many milliseconds.
    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.push(ms, 0, event);
    }

    /// An event of this life of the node: a restart forgets it.
    pub(crate) fn node_after(&mut self, ms: u64, event: Event) {
        self.push(ms, self.life, event);
    }

    fn push(&mut self, ms: u64, life: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + ms, self.order)));
        self.events.insert(self.order, (life, event));
    }

    /// A delay of the store; small when all is calm.
    pub(crate) fn store_delay(&mut self) -> u64 {
        let slow = if self.calm { 2 } else { self.config.slow_ms };
        self.rng.range(0, slow)
    }

    /// Whether this fault happens now.
    pub(crate) fn fault(&mut self, per_mille: u64) -> bool {
        !self.calm && self.rng.chance(per_mille)
    }

    pub(crate) fn run(mut self) -> Stats {
        self.begin();
        while let Some(Reverse((at, order))) = self.queue.pop() {
            self.now = at;
            let (life, event) = self.events.remove(&order).expect("every order has its event");
            if life != 0 && life != self.life {
                continue;
            }
            if matches!(event, Event::Check) && self.is_done() {
                self.check_at_the_end();
                return self.stats;
            }
            self.handle(event);
        }
        unreachable!("the check comes again until all is done");
    }

    fn begin(&mut self) {
        let end = self.config.end;
        for _ in 0..3 {
            self.after(0, Event::Publish);
        }
        for dev in 0..DEVICES {
            // The third device of the first user comes late.
            let at = if dev == 2 { end / 2 } else { self.rng.range(0, 40) };
            self.after(at, Event::Client(dev));
        }
        for i in 0..self.queue_clients.len() {
            let at = self.rng.range(0, 60);
            self.after(at, Event::QueueClient(i));
        }
        for gate in 0..GATES {
            let at = self.rng.range(0, 60);
            self.after(at, Event::Gate(gate));
        }
        for _ in 0..self.rng.range(0, 3) {
            let at = self.rng.range(50, end);
            let event = if self.rng.chance(250) { Event::Stop } else { Event::Crash };
            self.after(at, event);
        }
        if self.config.memory {
            self.after(30, Event::Sync);
            let at = self.rng.range(100, end);
            self.after(at, Event::Lose);
        }
        self.after(20, Event::Sweep);
        self.after(end, Event::Calm);
        self.after(end + 400, Event::LastMessages);
        self.after(end + 500, Event::Check);
        self.start_node();
    }

    fn start_node(&mut self) {
        self.node_after(ACK_FLUSH_MS, Event::Flush);
        self.node_after(1, Event::QueueTick);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Publish => self.publisher(),
            Event::Commit => self.commit_done(),
            Event::Mail => self.mail(),
            Event::HeadExec(sid) => self.head_exec(sid),
            Event::HeadDone(sid, snapshot) => self.head_done(sid, snapshot.map(|s| *s)),
            Event::PageExec(key) => self.page_exec(key),
            Event::PageDone(key, page) => self.page_done(&key, page.as_ref()),
            Event::Client(dev) => self.client_step(dev),
            Event::Flush => {
                self.flush();
                self.node_after(ACK_FLUSH_MS, Event::Flush);
            }
            Event::QueueTick => {
                self.queue_tick();
                self.node_after(10, Event::QueueTick);
            }
            Event::QueueClient(i) => self.queue_client_step(i),
            Event::Gate(gate) => self.gate_step(gate),
            Event::Sweep => self.sweep(),
            Event::Sync => {
                self.store.sync();
                self.after(150, Event::Sync);
            }
            Event::Crash => self.crash(),
            Event::Stop => self.stop(),
            Event::Lose => self.lose_history(),
            Event::Calm => {
                note!(self.now, "all is calm from here on");
                self.calm = true;
            }
            // Where the bus loses hints, the next message shows it. Else nothing may wait for a next message.
            Event::LastMessages if !self.hints_may_lack() => {}
            Event::LastMessages => {
                for chan in 0..CHANNELS - 1 {
                    self.publish(chan, None);
                }
            }
            Event::Check => {
                let late = self.now > self.config.end + PATIENCE_MS;
                invariant!(
                    !late,
                    "everything is delivered in the end",
                    "{}",
                    self.what_is_missing()
                );
                self.after(50, Event::Check);
            }
        }
    }

    fn hints_may_lack(&self) -> bool {
        self.config.hint_lost > 0 || self.config.memory || self.node.committer.unhinted
    }

    fn publisher(&mut self) {
        if self.calm {
            return;
        }
        for _ in 0..if self.rng.chance(100) { self.rng.range(5, 12) } else { 1 } {
            let chan = self.rng.index(CHANNELS - 1);
            let life = self.rng.range(1, 300);
            let expires = self.rng.chance(self.config.expiring).then_some(self.now + life);
            self.publish(chan, expires);
        }
        let pause = self.rng.range(1, 60);
        self.after(pause, Event::Publish);
    }

    fn publish(&mut self, chan: Chan, expires: Option<Millis>) {
        let id = self.next_id;
        self.next_id += 1;
        self.submit_publish(chan, id, expires);
    }

    fn sweep(&mut self) {
        self.store.sweep(self.now);
        if self.fault(30) {
            let chan = self.rng.index(QUEUE + 1);
            let log = self.store.log(chan);
            let below = log.first + self.rng.next() % (log.last() + 2 - log.first);
            note!(self.now, "somebody trims {chan} below {below}");
            self.store.trim(chan, below);
            if chan == QUEUE {
                self.oracle.queue_trimmed(&self.store);
            }
        }
        self.after(20, Event::Sweep);
    }

    /// kill -9 and a restart: everything that was in memory is gone.
    fn crash(&mut self) {
        if self.calm {
            return;
        }
        note!(self.now, "the node crashes");
        self.stats.crashes += 1;
        self.crash_committer();
        if self.config.memory {
            self.lose_history();
        }
        self.restart();
    }

    /// SIGTERM and a restart: streams end in order.
    fn stop(&mut self) {
        if self.calm {
            return;
        }
        note!(self.now, "the node stops");
        self.stats.stops += 1;
        self.stop_shared();
        self.streams_end();
        self.crash_committer();
        self.restart();
    }

    fn restart(&mut self) {
        self.life += 1;
        self.node = Node::new(&self.config, &mut self.rng);
        for client in &mut self.clients {
            client.lost_all();
        }
        for client in &mut self.queue_clients {
            client.lost();
        }
        for client in &mut self.gate_clients {
            *client = GateClient::default();
        }
        self.oracle.node_restarted();
        self.start_node();
    }

    /// The engine lost what it had not synced.
    fn lose_history(&mut self) {
        if self.calm {
            return;
        }
        note!(self.now, "the store loses what was not on disk");
        self.stats.lost_histories += 1;
        self.store.lose();
        self.oracle.history_lost(&self.store);
    }
}
