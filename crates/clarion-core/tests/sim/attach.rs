//! Attaching: enter the live list, read heads and cursors, commit the starts of new cursors, then begin.

use crate::client::{Range, Style};
use crate::commit::{Job, Then};
use crate::node::{Frame, Session, Sid, Snapshot, Sub, user_of};
use crate::note;
use crate::store::{Reader, Unit};
use crate::world::{ALL, Chan, DEVICES, Dev, Event, GROUP, World};
use clarion_core::port::store::{Head, Move};
use clarion_core::start::{From, floor_of_new};
use clarion_core::subscription::{Gap, GapReason, Subscription};
use clarion_core::window::{Place, Window};
use clarion_core::{Cursor, Position};
use std::collections::{BTreeMap, VecDeque};

impl World {
    pub(crate) fn attach(&mut self, dev: Dev, token: Vec<Range>) -> Sid {
        self.stats.attaches += 1;
        let sid = self.oracle.next_session();
        note!(self.now, "device {dev} attaches as session {sid} with {token:?}");
        let entering = |chan| Sub { chan, sub: Subscription::entering(), known: (0, 0) };
        let subs = [user_of(dev), ALL, GROUP].map(entering).into();
        let session =
            Session { dev, subs, outbox: VecDeque::new(), token, ready: false, unacked: vec![] };
        self.node.sessions.insert(sid, session);
        self.node.devices.entry(dev).or_default().sessions += 1;
        let delay = self.store_delay();
        self.node_after(delay, Event::HeadExec(sid));
        sid
    }

    pub(crate) fn detach(&mut self, sid: Sid) {
        if let Some(session) = self.node.sessions.remove(&sid)
            && let Some(device) = self.node.devices.get_mut(&session.dev)
        {
            device.sessions -= 1;
        }
    }

    fn close(&mut self, sid: Sid) {
        if let Some(dev) = self.node.sessions.get(&sid).map(|s| s.dev) {
            note!(self.now, "session {sid} is closed");
            self.detach(sid);
            self.clients[dev].lost(sid);
        }
    }

    pub(crate) fn head_exec(&mut self, sid: Sid) {
        let Some(session) = self.node.sessions.get(&sid) else { return };
        let (dev, chans) = (session.dev, session.subs.iter().map(|s| s.chan).collect::<Vec<_>>());
        let delay = self.store_delay();
        if self.fault(self.config.read_fails) {
            return self.node_after(delay, Event::HeadDone(sid, None));
        }
        let mut snapshot = Snapshot {
            at: self.now,
            heads: chans.iter().map(|chan| (*chan, self.store.log(*chan).head())).collect(),
            cursors: Vec::new(),
            highest: BTreeMap::new(),
            window: self.store.state.windows.get(&dev).cloned(),
        };
        for chan in chans {
            for other in (0..DEVICES).filter(|other| user_of(*other) == user_of(dev)) {
                let Some((epoch, cursor)) = self.store.cursor(Reader::Device(other), chan) else {
                    continue;
                };
                if epoch == self.store.log(chan).epoch {
                    let highest = snapshot.highest.entry(chan).or_default();
                    *highest = (*highest).max(cursor.floor());
                }
                if other == dev {
                    snapshot.cursors.push((chan, epoch, cursor));
                }
            }
        }
        self.node_after(delay, Event::HeadDone(sid, Some(Box::new(snapshot))));
    }

    pub(crate) fn head_done(&mut self, sid: Sid, snapshot: Option<Snapshot>) {
        let Some(session) = self.node.sessions.get(&sid) else { return };
        let dev = session.dev;
        let Some(snapshot) = snapshot else { return self.close(sid) };
        let device = self.node.devices.get_mut(&dev).expect("it has a session");
        let addresses = &self.addresses;
        for (chan, epoch, cursor) in &snapshot.cursors {
            device.set.load(&addresses[*chan], *epoch, cursor);
        }
        let known = |chan: Chan| device.set.channels().any(|c| *c == addresses[chan]);
        let foreign =
            |(chan, head): &(Chan, Head)| device.set.get(&addresses[*chan], head.epoch).is_none();
        let stale = device.turned_at >= snapshot.at && snapshot.heads.iter().any(foreign);
        if device.starting || stale {
            return self.node_after(3, Event::HeadExec(sid));
        }
        let new: Vec<_> =
            snapshot.heads.iter().filter(|(chan, _)| !known(*chan)).copied().collect();
        if new.is_empty() {
            self.begin_session(sid, dev, &snapshot);
        } else {
            device.starting = true;
            self.start_cursors(sid, dev, &new, &snapshot);
        }
    }

    /// The first attach: cursors are committed before anything is answered.
    fn start_cursors(&mut self, sid: Sid, dev: Dev, new: &[(Chan, Head)], snapshot: &Snapshot) {
        let mut moves = Vec::new();
        for (chan, head) in new {
            let highest = snapshot.highest.get(chan).copied();
            let floor = floor_of_new(self.addresses[*chan].kind(), From::Unacked, head, highest);
            note!(self.now, "device {dev} starts on {chan} at {floor} of {head:?}");
            self.oracle.check_start(&self.store, dev, *chan, head, floor, highest);
            let channel = self.addresses[*chan].clone();
            moves.push(Move { channel, epoch: head.epoch, cursor: Cursor::at(floor) });
        }
        let unit = Unit::Ack { reader: Reader::Device(dev), moves };
        self.submit(vec![Job { unit, then: Then::Start(sid, dev) }]);
    }

    pub(crate) fn start_done(&mut self, sid: Sid, dev: Dev, committed: bool) {
        let device = self.node.devices.get_mut(&dev).expect("it is not dropped while it starts");
        device.starting = false;
        device.turned_at = self.now;
        if committed { self.head_exec(sid) } else { self.close(sid) }
    }

    fn begin_session(&mut self, sid: Sid, dev: Dev, snapshot: &Snapshot) {
        self.oracle.session_begins(sid, dev, &self.store);
        self.load_window(dev, snapshot);
        let token = std::mem::take(&mut self.session(sid).token);
        for range in token {
            self.ack(dev, range);
        }
        for (i, (chan, head)) in snapshot.heads.iter().enumerate() {
            let device = self.node.devices.get_mut(&dev).expect("it has a session");
            let address = &self.addresses[*chan];
            if device.set.get(address, head.epoch).is_none() {
                self.turn(dev, *chan, head.epoch, head.first);
                let gap = Gap { from: head.first, to: 0, reason: GapReason::Epoch };
                self.push_gap(sid, *chan, head, gap);
            }
            let set = &self.node.devices[&dev].set;
            let cursor = set.get(&self.addresses[*chan], head.epoch).expect("just made sure of");
            let next = cursor.next_unacked(1);
            let one = &mut self.session(sid).subs[i];
            one.sub.begin(head.epoch, next, head.last);
            one.learns(head.epoch, head.last);
            one.check_live();
            note!(self.now, "session {sid} begins {chan} at {next} of {head:?}");
            self.oracle.sub_begins(&self.store, self.now, sid, *chan, head.epoch, next);
        }
        self.give_window_again(sid, dev);
        self.session(sid).ready = true;
        self.pump(sid);
    }

    fn load_window(&mut self, dev: Dev, snapshot: &Snapshot) {
        let Style::Numbered(numbering) = self.clients[dev].style else { return };
        let device = self.node.devices.get_mut(&dev).expect("it has a session");
        if device.window.is_none() {
            let stored = snapshot.window.as_ref();
            let mut window = stored.map_or_else(
                || Window::new(numbering),
                |bytes| Window::decode(numbering, bytes).expect("what was encoded"),
            );
            let set = &device.set;
            window.retain(|entry| {
                let Place { channel, at } = &entry.place;
                set.get(channel, at.epoch).is_some_and(|cursor| !cursor.is_acked(at.seq))
            });
            device.window = Some(window);
        }
    }

    /// A session that comes back is given again what is unacked, under the same numbers.
    fn give_window_again(&mut self, sid: Sid, dev: Dev) {
        let Some(window) = &self.node.devices[&dev].window else { return };
        let entries: Vec<_> = window.entries().cloned().collect();
        for entry in entries {
            let chan = self.chan_of(&entry.place.channel);
            let Position { epoch, seq } = entry.place.at;
            let id = self.store.log(chan).rec(seq).expect("it was published").id;
            let frame =
                Frame::Message { chan, epoch, seq, id, start: seq, number: Some(entry.number) };
            self.stats.given_again += 1;
            self.oracle.given_again(sid, chan, epoch, seq);
            self.session(sid).outbox.push_back(frame);
        }
    }
}
