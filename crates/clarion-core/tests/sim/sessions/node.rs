//! Connections and sessions on the node: attaching, what a client says, answers of the committer, ends.

use super::committer::{Change, Job, Then, session_record};
use super::deliver::Reading;
use super::packets::{ToClient, ToServer};
use super::store::{Op, session_key};
use super::{BodyId, Cid, ConnId, Event, Msg, World};
use crate::note;
use clarion_core::cursor_set::CursorSet;
use clarion_core::durable::commits::{Again, WindowCommits, again};
use clarion_core::durable::inbound::{Ending, Handed, Inbounds};
use clarion_core::durable::record::{self, InboundRecord, WindowRecord, parse_inbound_key};
use clarion_core::durable::subs::{PENDING, StoredSub, Subs};
use clarion_core::inflight::{Acked, Inflight};
use clarion_core::port::peer::{Out, OutState, Place};
use clarion_core::subscription::Subscription;
use clarion_core::{Address, Cursor, Epoch, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A socket.
#[derive(Default)]
pub(crate) struct Conn {
    pub(crate) to_client: VecDeque<ToClient>,
    pub(crate) to_server: VecDeque<ToServer>,
}

#[derive(Default)]
pub(crate) struct Session {
    pub(crate) cid: Cid,
    pub(crate) number: u64,
    clean: bool,
    /// Its last connection had no end that was stored.
    pub(crate) crashed: bool,
    pub(crate) loaded: bool,
    /// Its connection ends: when it is loaded; what it was is under way to the store.
    dying: bool,
    ending: bool,
    pub(crate) subs: Subs,
    /// A change of these slots is being committed: nothing more is heard.
    pub(crate) settling: Option<Vec<u32>>,
    /// Its logs, as places number them.
    pub(crate) logs: Vec<Address>,
    pub(crate) reading: BTreeMap<u32, Reading>,
    pub(crate) set: CursorSet,
    pub(crate) inflight: Inflight,
    /// How many of QoS 2 are out.
    pub(crate) twice: usize,
    pub(crate) commits: WindowCommits,
    /// Held until a commit.
    pub(crate) held: BTreeMap<u16, (BodyId, bool)>,
    /// Out since an earlier connection.
    pub(crate) restored: BTreeSet<(Address, Seq)>,
    inbounds: Inbounds,
}

impl Session {
    pub(crate) fn log(&mut self, channel: &Address) -> u32 {
        let at = self.logs.iter().position(|log| log == channel).unwrap_or_else(|| {
            self.logs.push(channel.clone());
            self.logs.len() - 1
        });
        at as u32
    }

    pub(crate) fn is_active(&self) -> bool {
        self.loaded && !self.ending
    }

    pub(crate) fn ack(&mut self, place: Place) {
        let channel = &self.logs[place.log as usize];
        self.set.ack(channel, place.epoch, place.seq, place.seq);
    }

    pub(crate) fn window(&self, at_end: bool) -> WindowRecord {
        let name = |log: u32| self.logs[log as usize].as_str().into();
        WindowRecord::new(self.inflight.outs(at_end), name)
    }
}

#[derive(Default)]
pub(crate) struct Node {
    pub(crate) sessions: BTreeMap<ConnId, Session>,
    /// Who waits until the end of the last connection of its client is stored.
    waiting: BTreeMap<Cid, (ConnId, bool)>,
    pub(crate) stopping: bool,
    /// What was committed up to this stamp has been told.
    pub(crate) told: Millis,
    /// To tell the readings of a slot apart.
    pub(crate) readings: u64,
}

impl World {
    pub(crate) fn send(&mut self, conn: ConnId, packet: ToClient) {
        if let Some(session) = self.node.sessions.get(&conn) {
            self.oracle.sent(&self.store, session, &packet);
        }
        // The node may not know yet that the connection is gone.
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.to_client.push_back(packet);
        }
    }

    pub(crate) fn connect(&mut self, cid: Cid, clean: bool) -> ConnId {
        let conn = self.fresh();
        self.conns.insert(conn, Conn::default());
        note!(self.now, "client {cid} connects as {conn}, clean {clean}");
        if let Some((waiting, _)) = self.node.waiting.insert(cid, (conn, clean)) {
            self.conns.remove(&waiting);
        }
        let old = self.node.sessions.iter().find(|(_, session)| session.cid == cid);
        match old.map(|(conn, _)| *conn) {
            Some(old) => {
                self.stats.peer_takeovers += 1;
                self.end(old);
            }
            None => self.begin_attach(cid),
        }
        conn
    }

    fn begin_attach(&mut self, cid: Cid) {
        let Some((conn, clean)) = self.node.waiting.remove(&cid) else { return };
        if self.node.stopping {
            self.conns.remove(&conn);
            return;
        }
        self.stats.peer_attaches += 1;
        let known = self.store.session(cid).filter(|_| !clean);
        let fresh = self.fresh();
        let number = known.as_ref().map_or(fresh, |record| record.number);
        let crashed = known.as_ref().is_some_and(|record| record.ended_at.is_none());
        let session =
            Session { cid, number, clean: known.is_none(), crashed, ..Session::default() };
        self.node.sessions.insert(conn, session);
        if known.is_none() {
            return self.submit(Job::Change(conn, number, Change::Clean(cid)));
        }
        let ops = vec![Op::Put(session_key(cid), session_record(number, None))];
        self.submit(Job::Ops(conn, ops, Then::Attached));
    }

    /// The session is attached and that is stored: what it brings, then CONNACK.
    pub(crate) fn load(&mut self, conn: ConnId) {
        let (store, delay) = (&self.store, self.rng.range(0, 10));
        let Some(session) = self.node.sessions.get_mut(&conn) else { return };
        let number = session.number;
        session.loaded = true;
        session.subs = store.subs(number);
        let cursors = store.cursors.range((number, Address::all())..);
        for ((_, channel), cursor) in cursors.take_while(|((other, _), _)| *other == number) {
            session.set.load(channel, 1, cursor);
        }
        for (key, value) in store.with_prefix(&record::inbounds_prefix(number)) {
            let (_, pid) = parse_inbound_key(key).expect("its key");
            session.inbounds.load(pid, InboundRecord::decode(value).expect("what was encoded"));
        }
        let slots: Vec<u32> = session.subs.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if session.subs.get(slot).is_some_and(StoredSub::is_durable) {
                self.node.readings += 1;
                let sub = Subscription::entering();
                session.reading.insert(slot, Reading { sub, id: self.node.readings, begun: false });
            }
        }
        let outs = store
            .window(number)
            .into_outs(|log| session.log(&Address::parse_any(log).expect("an address")));
        let packets = self.take_over(conn, outs);
        let Some(session) = self.node.sessions.get(&conn) else { return };
        let present = !session.clean;
        self.send(conn, ToClient::Connack { present, number });
        self.oracle.comes_again(&self.store, number, &packets);
        for packet in packets {
            self.send(conn, packet);
        }
        self.node_after(0, Event::Server(conn));
        self.node_after(delay, Event::Heads(conn));
        if self.node.sessions[&conn].dying {
            self.end(conn);
        }
    }

    /// What the last connection left.
    fn take_over(&mut self, conn: ConnId, outs: Vec<Out>) -> Vec<ToClient> {
        let session = self.node.sessions.get_mut(&conn).expect("it is loaded");
        let (mut kept, mut packets) = (Vec::new(), Vec::new());
        for mut out in outs {
            let channel = session.logs[out.place.log as usize].clone();
            let seq = out.place.seq;
            let body = self.store.body_at(&channel, seq).expect("it was appended");
            let there = !self.store.bodies[body].erased;
            let id = out.number;
            note!(self.now, "{conn} brings {out:?}, body {body}");
            match again(out.state, session.crashed, there) {
                Again::Publish => {
                    let qos = if out.state == OutState::AtLeastOnce { 1 } else { 2 };
                    packets.push(ToClient::Publish { id, qos, dup: true, body });
                    self.stats.peer_again += 1;
                }
                Again::Release => {
                    self.stats.peer_released_again += 1;
                    self.stats.peer_closed += u64::from(out.state == OutState::ExactlyOnce);
                    out.state = OutState::Released;
                    packets.push(ToClient::Pubrel(id));
                }
                Again::Pass => {
                    session.ack(out.place);
                    continue;
                }
                Again::Read => {
                    self.stats.peer_read_again += 1;
                    continue;
                }
            }
            session.twice += usize::from(out.state != OutState::AtLeastOnce);
            session.restored.insert((channel, seq));
            kept.push(out);
        }
        session.inflight.restore(&kept);
        packets
    }

    /// The connection has ended: what it was is stored, and then the next one may begin.
    pub(crate) fn end(&mut self, conn: ConnId) {
        let Some(session) = self.node.sessions.get_mut(&conn) else { return };
        if session.ending || !session.loaded {
            session.dying = true;
            return;
        }
        note!(self.now, "{conn} ends");
        session.ending = true;
        for id in std::mem::take(&mut session.held).into_keys() {
            self.stats.peer_held_dropped += 1;
            session.inflight.drop_held(id);
        }
        let number = session.number;
        let moves = session.set.channels();
        let cursor = |channel: &Address| (channel.clone(), session.set.get(channel, 1).cloned());
        let moves: Vec<(Address, Cursor)> =
            moves.map(cursor).filter_map(|(channel, cursor)| Some((channel, cursor?))).collect();
        let ops = vec![
            Op::Ack { number, moves },
            Op::Put(record::window_key(number), session.window(true).encode()),
            Op::Put(session_key(session.cid), session_record(number, Some(self.now))),
        ];
        self.conns.remove(&conn);
        self.submit(Job::Ops(conn, ops, Then::Ended));
    }

    /// What the client has sent.
    pub(crate) fn server_step(&mut self, conn: ConnId) {
        if !self.node.sessions.get(&conn).is_some_and(Session::is_active) {
            return;
        }
        let pause = if self.calm { 1 } else { self.rng.range(1, 12) };
        self.node_after(pause, Event::Server(conn));
        for _ in 0..self.rng.range(1, 6) {
            if self.node.sessions[&conn].settling.is_some() {
                break;
            }
            let packet = self.conns.get_mut(&conn).and_then(|conn| conn.to_server.pop_front());
            let Some(packet) = packet else { break };
            if !self.node.sessions[&conn].is_active() {
                return;
            }
            self.hear(conn, packet);
        }
        self.pump(conn);
    }

    fn hear(&mut self, conn: ConnId, packet: ToServer) {
        note!(self.now, "{conn} says {packet:?}");
        let number = self.node.sessions[&conn].number;
        match packet {
            ToServer::Publish { pid, msg } if msg.qos == 2 => self.take(conn, pid, msg),
            ToServer::Publish { pid, msg } => {
                let key = self.fresh();
                let record = false;
                self.submit(Job::Publish { conn, number, pid, key, msg, record });
            }
            ToServer::Pubrel(pid) => {
                let session = self.node.sessions.get_mut(&conn).expect("just seen");
                match session.inbounds.release(pid) {
                    Ending::Remove => {
                        let ops = vec![Op::Delete(record::inbound_key(number, pid))];
                        self.submit(Job::Ops(conn, ops, Then::Removed(pid)));
                    }
                    Ending::Wait => {}
                    Ending::Unknown => self.send(conn, ToClient::Pubcomp(pid)),
                }
            }
            ToServer::Puback(_) | ToServer::Pubrec(..) | ToServer::Pubcomp(_) => {
                self.acked(conn, packet);
            }
            ToServer::Subscribe(filter, options) => {
                let session = self.node.sessions.get_mut(&conn).expect("just seen");
                let head = (1, Seq::MAX);
                let (slot, other) = session.subs.subscribe(filter, None, options, PENDING, head);
                session.settling = Some([Some(slot), other].into_iter().flatten().collect());
                self.submit(Job::Change(conn, number, Change::Subscribe(filter, options)));
            }
            ToServer::Unsubscribe(filter) => {
                let session = self.node.sessions.get_mut(&conn).expect("just seen");
                let slot = session.subs.unsubscribe(filter, None, PENDING, (1, Seq::MAX));
                session.settling = Some(slot.into_iter().collect());
                if let Some(slot) = slot {
                    self.read_slot(conn, slot, (1, 0));
                }
                self.submit(Job::Change(conn, number, Change::Unsubscribe(filter)));
            }
            ToServer::Disconnect => {
                self.stats.peer_ends += 1;
                self.end(conn);
            }
        }
    }

    /// A QoS 2 publish of the client.
    fn take(&mut self, conn: ConnId, pid: u16, msg: Msg) {
        let fresh = self.fresh();
        let two = self.config.two_commits;
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let number = session.number;
        match session.inbounds.publish(pid, fresh) {
            Handed::New(key) if two => {
                let value = InboundRecord { key, at: 0 }.encode();
                let ops = vec![Op::Put(record::inbound_key(number, pid), value)];
                self.submit(Job::Ops(conn, ops, Then::Recorded(pid, key, msg)));
            }
            Handed::New(key) => {
                self.submit(Job::Publish { conn, number, pid, key, msg, record: true });
            }
            Handed::Append(key) => {
                self.submit(Job::Publish { conn, number, pid, key, msg, record: false });
            }
            Handed::Wait => {}
            Handed::Taken => self.send(conn, ToClient::Pubrec(pid)),
        }
    }

    /// An ack of the client.
    fn acked(&mut self, conn: ConnId, packet: ToServer) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let number = session.number;
        let (id, twice, acked) = match packet {
            ToServer::Puback(id) => (id, false, session.inflight.puback(id)),
            ToServer::Pubrec(id, refused) => {
                self.stats.peer_refused += u64::from(refused);
                (id, true, session.inflight.pubrec(id, refused, true))
            }
            ToServer::Pubcomp(id) => (id, true, session.inflight.pubcomp(id)),
            _ => return,
        };
        match acked {
            Acked::Freed(place) => {
                let place = place.expect("all are of logs");
                self.oracle.over(number, id);
                session.ack(place);
                if twice {
                    session.twice -= 1;
                    session.commits.freed(place);
                }
            }
            Acked::Received => {
                self.oracle.received(number, id);
                session.commits.received(id);
                self.kick_window(conn);
            }
            Acked::Release => self.send(conn, ToClient::Pubrel(id)),
            Acked::Unknown | Acked::Wrong => {}
        }
    }

    /// A commit.
    pub(crate) fn done(&mut self, conn: ConnId, then: Then) {
        let delay = self.store_delay();
        let Some(session) = self.node.sessions.get_mut(&conn) else { return };
        let number = session.number;
        match then {
            Then::Nothing => {}
            Then::Attached => {
                if session.clean {
                    self.stats.peer_clean_starts += 1;
                }
                self.node_after(delay, Event::Load(conn));
            }
            Then::Ended => {
                let cid = session.cid;
                self.node.sessions.remove(&conn);
                self.begin_attach(cid);
            }
            _ if !session.is_active() => {}
            Then::Recorded(pid, key, msg) => {
                self.submit(Job::Publish { conn, number, pid, key, msg, record: false });
            }
            Then::Published { pid, qos: 1 } => self.send(conn, ToClient::Puback(pid)),
            Then::Published { pid, .. } => {
                if session.inbounds.taken(pid) {
                    self.send(conn, ToClient::Pubrec(pid));
                }
            }
            Then::Removed(pid) => {
                if session.inbounds.removed(pid) {
                    self.send(conn, ToClient::Pubcomp(pid));
                }
            }
            Then::Window => self.window_done(conn),
            Then::Flushed => session.set.end_flush(true),
        }
    }

    /// Its subscriptions have changed.
    pub(crate) fn changed(
        &mut self,
        conn: ConnId,
        change: &Change,
        at: Millis,
        head: (Epoch, Seq),
    ) {
        let Some(session) = self.node.sessions.get_mut(&conn) else { return };
        if !session.is_active() {
            return;
        }
        match change {
            Change::Subscribe(filter, options) => {
                let slots = session.settling.take().expect("it was asked for");
                session.subs.settle(slots.clone(), at);
                for slot in slots {
                    self.read_slot(conn, slot, head);
                }
                self.send(conn, ToClient::Suback(filter, *options));
            }
            Change::Unsubscribe(_) => {
                let slots = session.settling.take().expect("it was asked for");
                session.subs.settle(slots, at);
                self.send(conn, ToClient::Unsuback);
            }
            Change::Tidy(_) => {}
            Change::Clean(_) => {}
        }
    }
}
