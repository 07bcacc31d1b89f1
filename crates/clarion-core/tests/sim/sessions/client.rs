//! A client: it keeps its side of the session whatever happens to connections, answers late and out of order, and uses packet
//! ids again as soon as it may.

use super::packets::{ToClient, ToServer};
use super::{Cid, ConnId, Event, FILTERS, Msg, TOPICS, World};
use crate::{invariant, note};
use clarion_core::port::peer::SubOptions;
use std::collections::{BTreeMap, VecDeque};

/// Packet ids of its own.
const PIDS: u16 = 6;
const OUT_MAX: usize = 4;

struct Outgoing {
    pid: u16,
    msg: Msg,
    released: bool,
}

pub(crate) struct Client {
    pub(crate) cid: Cid,
    conn: Option<ConnId>,
    /// CONNACK is here; the session's number.
    number: Option<u64>,
    /// It wants a new session, until it has one.
    clean: bool,
    published: u64,
    last_pid: u16,
    out: VecDeque<Outgoing>,
    /// QoS 2: received, not released.
    held: BTreeMap<u16, usize>,
    acks: Vec<ToServer>,
    subscribing: bool,
}

impl Client {
    pub(crate) fn new(cid: Cid) -> Self {
        Self {
            cid,
            conn: None,
            number: None,
            clean: true,
            published: 0,
            last_pid: 0,
            out: VecDeque::new(),
            held: BTreeMap::new(),
            acks: Vec::new(),
            subscribing: false,
        }
    }

    /// Its connection is gone.
    pub(crate) fn lost(&mut self) {
        self.conn = None;
        self.number = None;
        self.acks.clear();
        self.subscribing = false;
    }

    fn free_pid(&mut self) -> Option<u16> {
        for _ in 0..PIDS {
            self.last_pid = self.last_pid % PIDS + 1;
            if self.out.iter().all(|out| out.pid != self.last_pid) {
                return Some(self.last_pid);
            }
        }
        None
    }

    pub(crate) fn missing(&self) -> Option<String> {
        let done = self.number.is_some()
            && self.out.is_empty()
            && self.held.is_empty()
            && self.acks.is_empty()
            && !self.subscribing;
        (!done).then(|| {
            let out: Vec<u16> = self.out.iter().map(|out| out.pid).collect();
            format!("client {}: {:?}, out {out:?}, holds {:?}", self.cid, self.conn, self.held)
        })
    }
}

impl World {
    pub(crate) fn client_step(&mut self, cid: Cid) {
        let pause = if self.calm { 2 } else { self.rng.range(1, 25) };
        self.after(pause, Event::Client(cid));
        let Some(conn) = self.clients[cid].conn else {
            return self.try_to_connect(cid);
        };
        if !self.conns.contains_key(&conn) {
            // The node has closed it.
            return self.clients[cid].lost();
        }
        let lazy = self.fault(self.config.lazy);
        let count = if self.calm { 50 } else { self.rng.range(0, 4) };
        for _ in 0..if lazy { 0 } else { count } {
            let packet = self.conns.get_mut(&conn).and_then(|conn| conn.to_client.pop_front());
            let Some(packet) = packet else { break };
            self.read_packet(cid, packet);
        }
        self.answer(cid);
        if self.clients[cid].number.is_some() && !self.calm {
            self.act(cid);
        }
        if self.fault(self.config.breaks) {
            note!(self.now, "client {cid}: {conn} breaks");
            self.stats.peer_breaks += 1;
            self.clients[cid].lost();
            self.conns.remove(&conn);
            let late = self.rng.range(0, 60);
            self.node_after(late, Event::Noticed(conn));
        }
    }

    fn try_to_connect(&mut self, cid: Cid) {
        if self.node.stopping || !self.calm && self.rng.chance(400) {
            return;
        }
        if self.fault(self.config.clean) {
            self.clients[cid].clean = true;
        }
        let clean = self.clients[cid].clean;
        let client = &mut self.clients[cid];
        if clean {
            client.out.clear();
            client.held.clear();
        }
        let conn = self.connect(cid, clean);
        self.clients[cid].conn = Some(conn);
    }

    fn say(&mut self, cid: Cid, packet: ToServer) {
        let conn = self.clients[cid].conn.and_then(|conn| self.conns.get_mut(&conn));
        if let Some(conn) = conn {
            conn.to_server.push_back(packet);
        }
    }

    fn read_packet(&mut self, cid: Cid, packet: ToClient) {
        note!(self.now, "client {cid} reads {packet:?}");
        match packet {
            ToClient::Connack { present, number } => self.let_in(cid, present, number),
            ToClient::Publish { id, qos, dup, body } => self.receive(cid, (id, qos, dup, body)),
            ToClient::Pubrel(id) => {
                let client = &mut self.clients[cid];
                client.held.remove(&id);
                client.acks.push(ToServer::Pubcomp(id));
            }
            ToClient::Puback(pid) | ToClient::Pubcomp(pid) => {
                let client = &mut self.clients[cid];
                client.out.retain(|out| out.pid != pid);
            }
            ToClient::Pubrec(pid) => {
                let client = &mut self.clients[cid];
                if let Some(out) = client.out.iter_mut().find(|out| out.pid == pid) {
                    out.released = true;
                    self.say(cid, ToServer::Pubrel(pid));
                }
            }
            ToClient::Suback(..) | ToClient::Unsuback => self.clients[cid].subscribing = false,
        }
    }

    fn let_in(&mut self, cid: Cid, present: bool, number: u64) {
        let client = &mut self.clients[cid];
        invariant!(
            present != client.clean,
            "a session is there until its client wants a new one",
            "client {cid}: present {present}"
        );
        client.clean = false;
        client.number = Some(number);
        let again: Vec<ToServer> = client
            .out
            .iter()
            .map(|out| match out.released {
                true => ToServer::Pubrel(out.pid),
                false => ToServer::Publish { pid: out.pid, msg: out.msg },
            })
            .collect();
        for packet in again {
            self.say(cid, packet);
        }
    }

    fn receive(&mut self, cid: Cid, (id, qos, dup, body): (u16, u8, bool, usize)) {
        let refuses = self.fault(20);
        let client = &mut self.clients[cid];
        let number = client.number.expect("CONNACK is first");
        if let Some(held) = client.held.get(&id) {
            let same = qos == 2 && *held == body;
            invariant!(
                same || qos == 1,
                "a number that the client holds is given to nothing else",
                "client {cid} holds {id} for body {held}, gets body {body}"
            );
            if same {
                invariant!(dup, "what comes again says so", "client {cid}: {id}, body {body}");
                return client.acks.push(ToServer::Pubrec(id, false));
            }
        }
        if qos == 1 {
            self.oracle.delivered(&self.store, number, body, qos, true);
            return client.acks.push(ToServer::Puback(id));
        }
        self.oracle.delivered(&self.store, number, body, qos, !refuses);
        client.acks.push(ToServer::Pubrec(id, refuses));
        if refuses {
            self.oracle.refused(number, body);
        } else {
            client.held.insert(id, body);
        }
    }

    /// Some of the acks, in any order.
    fn answer(&mut self, cid: Cid) {
        while !self.clients[cid].acks.is_empty() && !self.fault(400) {
            let at = if self.calm { 0 } else { self.rng.index(self.clients[cid].acks.len()) };
            let ack = self.clients[cid].acks.remove(at);
            self.say(cid, ack);
        }
    }

    fn act(&mut self, cid: Cid) {
        if self.clients[cid].out.len() < OUT_MAX && self.rng.chance(500) {
            for _ in 0..self.rng.range(1, 3) {
                self.publish(cid);
            }
        }
        if !self.clients[cid].subscribing && self.rng.chance(self.config.changes) {
            self.clients[cid].subscribing = true;
            let filter = FILTERS[FILTERS.len() - 1 - self.rng.index(self.config.filters)];
            let packet = if self.rng.chance(350) {
                ToServer::Unsubscribe(filter)
            } else {
                let qos = [0, 1, 1, 2, 2][self.rng.index(5)];
                let no_local = self.rng.chance(150);
                let options = SubOptions { qos, no_local, ..SubOptions::default() };
                ToServer::Subscribe(filter, options)
            };
            self.say(cid, packet);
        }
        if self.rng.chance(10) {
            self.say(cid, ToServer::Disconnect);
        }
    }

    fn publish(&mut self, cid: Cid) {
        let topic = TOPICS[self.rng.index(TOPICS.len())];
        let qos = self.rng.range(1, 2) as u8;
        let client = &mut self.clients[cid];
        let Some(pid) = client.free_pid() else { return };
        client.published += 1;
        let msg = Msg { publisher: cid, number: client.published, topic, qos };
        client.out.push_back(Outgoing { pid, msg, released: false });
        self.say(cid, ToServer::Publish { pid, msg });
    }
}
