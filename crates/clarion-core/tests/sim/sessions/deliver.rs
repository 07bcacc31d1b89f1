//! From logs to clients: hints, pages, what goes through which subscription, the window and its commits, lazy acks.

use super::committer::{Change, Job, Then};
use super::node::Session;
use super::packets::ToClient;
use super::store::Op;
use super::{BodyId, ConnId, Event, World};
use crate::{invariant, note};
use clarion_core::durable::record;
use clarion_core::durable::subs::{Choice, StoredSub};
use clarion_core::port::peer::Place;
use clarion_core::subscription::{Hint, Offer, Subscription};
use clarion_core::{Address, Cursor, Epoch, Millis, Seq};
use std::collections::btree_map::Entry;

/// One log that a session reads.
pub(crate) struct Reading {
    pub(crate) sub: Subscription,
    pub(crate) id: u64,
    /// Its log's head is known.
    pub(crate) begun: bool,
}

/// What is to be done with a message of a log.
enum Way {
    /// It is acked, or out since before.
    Past,
    Elsewhere,
    Give(u8),
    /// Whether it came before or after a change is not known yet.
    Later,
}

impl Session {
    /// Cursors whose subscription is gone.
    pub(crate) fn forget_unread(&mut self) {
        let read = |channel: &Address| {
            let mut slots = self.reading.keys().filter_map(|slot| self.subs.get(*slot));
            slots.any(|sub| sub.channel().as_ref() == Some(channel))
        };
        let gone: Vec<Address> = self.set.channels().filter(|c| !read(c)).cloned().collect();
        for channel in gone {
            self.set.forget(&channel);
        }
    }
}

impl World {
    /// A slot has changed: it has a log to read now, or none any more.
    pub(crate) fn read_slot(&mut self, conn: ConnId, slot: u32, head: (Epoch, Seq)) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let durable = session.subs.get(slot).filter(|sub| sub.is_durable());
        let Some(channel) = durable.and_then(StoredSub::channel) else {
            session.reading.remove(&slot);
            return session.forget_unread();
        };
        if let Entry::Vacant(entry) = session.reading.entry(slot) {
            let mut sub = Subscription::entering();
            sub.begin(head.0, head.1 + 1, head.1);
            self.node.readings += 1;
            entry.insert(Reading { sub, id: self.node.readings, begun: true });
            session.set.load(&channel, head.0, &Cursor::at(head.1));
        }
    }

    /// The heads of the logs of a session that was there before.
    pub(crate) fn heads(&mut self, conn: ConnId) {
        let Some(session) = self.node.sessions.get_mut(&conn).filter(|s| s.is_active()) else {
            return;
        };
        let slots: Vec<u32> = session.reading.keys().copied().collect();
        for slot in slots {
            let channel = session.subs.get(slot).and_then(StoredSub::channel);
            let channel = channel.expect("it is read");
            let cursor = session.set.get(&channel, 1).expect("it has a cursor");
            let reading = session.reading.get_mut(&slot).expect("just seen");
            if !std::mem::replace(&mut reading.begun, true) {
                let next = cursor.next_unacked(1);
                note!(self.now, "{conn} begins {channel} at {next}, {cursor:?}");
                reading.sub.begin(1, next, self.store.last(&channel));
            }
        }
        self.pump(conn);
    }

    fn has_room(&self, conn: ConnId) -> bool {
        let session = &self.node.sessions[&conn];
        let waiting = self.conns.get(&conn).map_or(0, |conn| conn.to_client.len());
        session.inflight.next(self.config.span).is_some()
            && session.twice < self.config.twice_max
            && (waiting < self.config.outbox || self.calm)
    }

    fn way(
        &self,
        (conn, slot): (ConnId, u32),
        channel: &Address,
        seq: Seq,
        body: BodyId,
        told: Millis,
    ) -> Way {
        let session = &self.node.sessions[&conn];
        if session.set.is_acked(channel, 1, seq)
            || session.restored.contains(&(channel.clone(), seq))
        {
            return Way::Past;
        }
        let found = &self.store.bodies[body];
        let own = found.msg.publisher == session.cid;
        match session.subs.choose_told(slot, found.msg.topic, found.at, own, told) {
            None => Way::Later,
            Some(Choice::Elsewhere) => Way::Elsewhere,
            Some(Choice::Give(merged)) => Way::Give(merged.qos.min(found.msg.qos)),
        }
    }

    pub(crate) fn hint(&mut self, body: BodyId) {
        let conns: Vec<ConnId> = self.node.sessions.keys().copied().collect();
        for (channel, seq) in self.store.bodies[body].places.clone() {
            for &conn in &conns {
                let session = &self.node.sessions[&conn];
                let reads = |slot: &&u32| {
                    session.subs.get(**slot).and_then(StoredSub::channel).as_ref() == Some(&channel)
                };
                let slot = session.reading.keys().find(reads).copied();
                if let Some(slot) = slot.filter(|_| session.is_active()) {
                    self.hint_one(conn, slot, &channel, seq, body);
                }
            }
        }
    }

    fn hint_one(&mut self, conn: ConnId, slot: u32, channel: &Address, seq: Seq, body: BodyId) {
        // It comes in the order of commits.
        let way = self.way((conn, slot), channel, seq, body, Millis::MAX);
        let room = self.has_room(conn);
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let sub = &mut session.reading.get_mut(&slot).expect("just seen").sub;
        let before = sub.next();
        let hint = sub.hint(1, seq, !matches!(way, Way::Give(_)), room);
        let passed = before == seq && sub.next() == seq + 1;
        match (hint, way) {
            (Hint::Deliver, Way::Give(qos)) => self.give(conn, slot, channel, seq, body, qos),
            (Hint::Ignore, Way::Elsewhere) if passed => self.elsewhere(conn, channel, seq),
            (Hint::Behind, _) => self.pump(conn),
            _ => {}
        }
    }

    fn elsewhere(&mut self, conn: ConnId, channel: &Address, seq: Seq) {
        self.stats.peer_elsewhere += 1;
        note!(self.now, "{conn}: {channel}/{seq} goes elsewhere");
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        session.set.ack(channel, 1, seq, seq);
    }

    fn give(
        &mut self,
        conn: ConnId,
        slot: u32,
        channel: &Address,
        seq: Seq,
        body: BodyId,
        qos: u8,
    ) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let number = session.inflight.next(self.config.span).expect("there is room");
        let place = Place { log: session.log(channel), epoch: 1, seq };
        let (id, dup) = (number.id, session.crashed);
        note!(self.now, "{conn}: {channel}/{seq}, body {body}, goes as {id}, QoS {qos}");
        self.stats.peer_given += 1;
        let filter = session.subs.get(slot).expect("just seen").filter.clone();
        self.oracle.given(session.number, body, &filter, qos);
        if qos == 1 {
            session.inflight.take(number, false, Some(place));
            self.send(conn, ToClient::Publish { id, qos, dup, body });
        } else {
            session.inflight.hold(number, place);
            session.commits.held(id);
            session.held.insert(id, (body, dup));
            session.twice += 1;
        }
        let session = &self.node.sessions[&conn];
        let (out, twice) = (session.inflight.len(), session.twice);
        let bounded = out <= self.config.span && twice <= self.config.twice_max;
        invariant!(bounded, "the window is bounded", "{out} are out, {twice} of QoS 2");
        self.kick_window(conn);
    }

    /// Begins a commit of the window if one is wanted.
    pub(crate) fn kick_window(&mut self, conn: ConnId) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        if !session.commits.wants() {
            return;
        }
        self.stats.peer_window_commits += 1;
        let number = session.number;
        let mut moves = Vec::new();
        for log in session.commits.begin() {
            let channel = session.logs[log as usize].clone();
            if let Some(cursor) = session.set.get(&channel, 1).cloned() {
                moves.push((channel, cursor));
            }
        }
        let window = session.window(false).encode();
        let ops = vec![Op::Ack { number, moves }, Op::Put(record::window_key(number), window)];
        self.submit(Job::Ops(conn, ops, Then::Window));
    }

    pub(crate) fn window_done(&mut self, conn: ConnId) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let allowed = session.commits.end(true);
        for id in allowed.send {
            let session = self.node.sessions.get_mut(&conn).expect("just seen");
            if let Some((body, dup)) = session.held.remove(&id)
                && session.inflight.send_held(id)
            {
                self.send(conn, ToClient::Publish { id, qos: 2, dup, body });
            }
        }
        for id in allowed.release {
            let session = self.node.sessions.get_mut(&conn).expect("just seen");
            if session.inflight.release(id) {
                self.send(conn, ToClient::Pubrel(id));
            }
        }
        self.kick_window(conn);
    }

    /// Asks for the pages that are wanted.
    pub(crate) fn pump(&mut self, conn: ConnId) {
        if !self.node.sessions.get(&conn).is_some_and(Session::is_active) || !self.has_room(conn) {
            return;
        }
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        let mut asked = Vec::new();
        for (slot, reading) in &mut session.reading {
            if reading.begun && reading.sub.wants_page() {
                reading.sub.page_began();
                asked.push((*slot, reading.id));
            }
        }
        for (slot, reading) in asked {
            let delay = self.store_delay();
            self.node_after(delay, Event::PageExec(conn, slot, reading));
        }
    }

    fn reading(
        &mut self,
        conn: ConnId,
        slot: u32,
        id: u64,
    ) -> Option<(Address, &mut Subscription)> {
        let session = self.node.sessions.get_mut(&conn).filter(|s| s.is_active())?;
        let channel = session.subs.get(slot)?.channel()?;
        let reading = session.reading.get_mut(&slot).filter(|reading| reading.id == id)?;
        Some((channel, &mut reading.sub))
    }

    pub(crate) fn page_exec(&mut self, conn: ConnId, slot: u32, id: u64) {
        let count = self.config.page as Seq;
        let Some((channel, sub)) = self.reading(conn, slot, id) else { return };
        let from = sub.next();
        let last = self.store.last(&channel);
        let through = last.min(from + count - 1);
        let body = |seq| Some((seq, self.store.body_at(&channel, seq)?));
        let page: Vec<(Seq, BodyId)> = (from..=through).filter_map(body).collect();
        let page = page.into_iter().filter(|(_, body)| !self.store.bodies[*body].erased).collect();
        let delay = self.store_delay() / 4;
        self.node_after(delay, Event::PageDone(conn, slot, id, page, through, last));
    }

    pub(crate) fn page_done(
        &mut self,
        (conn, slot, id): (ConnId, u32, u64),
        page: &[(Seq, BodyId)],
        through: Seq,
        last: Seq,
    ) {
        let now = self.now;
        let Some((channel, sub)) = self.reading(conn, slot, id) else { return };
        note!(now, "{conn} has a page of {channel} up to {through}: {page:?}");
        sub.page_opened(1, 1);
        let mut whole = Some(through);
        for &(seq, body) in page {
            let way = self.way((conn, slot), &channel, seq, body, self.node.told);
            if matches!(way, Way::Later) {
                self.stats.peer_later += 1;
                whole = None;
                break;
            }
            let room = self.has_room(conn);
            let Some((_, sub)) = self.reading(conn, slot, id) else { return };
            let before = sub.next();
            let offer = sub.offer(seq, !matches!(way, Way::Give(_)), room);
            if offer != Offer::Stop {
                self.pass(conn, &channel, before, seq);
            }
            match (offer, way) {
                (Offer::Deliver, Way::Give(qos)) => {
                    self.give(conn, slot, &channel, seq, body, qos);
                }
                (Offer::Skip, Way::Elsewhere) if before <= seq => {
                    self.elsewhere(conn, &channel, seq);
                }
                (Offer::Stop, _) => {
                    whole = None;
                    break;
                }
                _ => {}
            }
        }
        let Some((_, sub)) = self.reading(conn, slot, id) else { return };
        let before = sub.next();
        sub.page_ended(whole, last);
        let after = sub.next();
        self.pass(conn, &channel, before, after);
        self.pump(conn);
    }

    /// What a page left out is erased.
    fn pass(&mut self, conn: ConnId, channel: &Address, from: Seq, until: Seq) {
        let session = self.node.sessions.get_mut(&conn).expect("just seen");
        for seq in from..until {
            if !session.restored.contains(&(channel.clone(), seq)) {
                note!(self.now, "{conn}: {channel}/{seq} is passed");
                session.set.ack(channel, 1, seq, seq);
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        let conns: Vec<ConnId> = self.node.sessions.keys().copied().collect();
        for conn in conns {
            let session = self.node.sessions.get_mut(&conn).expect("just seen");
            if !session.is_active() {
                continue;
            }
            let number = session.number;
            let moves = session.set.begin_flush();
            if !moves.is_empty() {
                let moves = moves.into_iter().map(|one| (one.channel, one.cursor)).collect();
                self.submit(Job::Ops(conn, vec![Op::Ack { number, moves }], Then::Flushed));
            }
        }
    }

    /// Tails that nobody needs any more go.
    pub(crate) fn tidy(&mut self) {
        let conns: Vec<ConnId> = self.node.sessions.keys().copied().collect();
        for conn in conns {
            let session = &self.node.sessions[&conn];
            if !session.is_active() {
                continue;
            }
            let number = session.number;
            let spent = session.subs.spent(|slot| self.read_to(session, slot));
            let tails =
                spent.into_iter().filter_map(|slot| Some((slot, session.subs.get(slot)?.tail?.at)));
            let tails: Vec<(u32, Millis)> = tails.collect();
            if !tails.is_empty() && session.settling.is_none() {
                let session = self.node.sessions.get_mut(&conn).expect("just seen");
                for (slot, _) in &tails {
                    session.subs.remove(*slot);
                    session.reading.remove(slot);
                }
                session.forget_unread();
                self.submit(Job::Change(conn, number, Change::Tidy(tails)));
            }
        }
    }

    /// Everything below this stamp in a slot's log is acked, and that is stored.
    fn read_to(&self, session: &Session, slot: u32) -> Millis {
        let channel = session.subs.get(slot).and_then(StoredSub::channel).expect("it is read");
        let Some(cursor) = self.store.cursors.get(&(session.number, channel.clone())) else {
            return 0;
        };
        let first = cursor.next_unacked(1);
        let body = self.store.body_at(&channel, first);
        body.map_or(self.committer.stamp, |body| self.store.bodies[body].at)
    }
}
