//! The node's shell around the core types, as small as it can be: sessions, live lists, catch-up, lazy acks, windows.
//! Nothing here outlives a crash.

use crate::client::{Range, Style};
use crate::commit::{Committer, HintOf, Job, Then};
use crate::gates::GateNode;
use crate::queue::SharedNode;
use crate::rng::Rng;
use crate::store::{Page, Reader, Unit};
use crate::world::{Chan, Config, DEVICES, Dev, Event, QUEUE, USERS, World};
use crate::{invariant, note};
use clarion_core::catch_up::{CatchUp, PageKey};
use clarion_core::cursor_set::CursorSet;
use clarion_core::port::store::{Head, Move};
use clarion_core::subscription::{Gap, GapReason, Hint, Offer, Subscription};
use clarion_core::window::{Place, Window};
use clarion_core::{Cursor, Epoch, Millis, Position, Seq};
use std::collections::{BTreeMap, VecDeque};

pub(crate) type Sid = u64;

/// Unacked messages that a session of a reader that acks singly may have.
pub(crate) const UNACKED_MAX: usize = 12;

/// What is written to a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Frame {
    Message { chan: Chan, epoch: Epoch, seq: Seq, id: u64, start: Seq, number: Option<u64> },
    Gap { chan: Chan, epoch: Epoch, from: Seq, to: Seq },
}

pub(crate) struct Sub {
    pub(crate) chan: Chan,
    pub(crate) sub: Subscription,
    /// The last position that it was told of: by the head that it began with or by a hint.
    pub(crate) known: (Epoch, Seq),
}

impl Sub {
    pub(crate) fn learns(&mut self, epoch: Epoch, seq: Seq) {
        let known = if self.known.0 == epoch { self.known.1 } else { 0 };
        self.known = (epoch, known.max(seq));
    }

    pub(crate) fn check_live(&self) {
        let (epoch, seq) = self.known;
        let behind = self.sub.is_live() && self.sub.epoch() == epoch && self.sub.next() <= seq;
        invariant!(
            !behind,
            "live means that nothing hinted is undelivered",
            "{:?}, {seq}",
            self.sub
        );
    }
}

pub(crate) struct Session {
    pub(crate) dev: Dev,
    pub(crate) subs: Vec<Sub>,
    pub(crate) outbox: VecDeque<Frame>,
    pub(crate) token: Vec<Range>,
    pub(crate) ready: bool,
    pub(crate) unacked: Vec<(Chan, Epoch, Seq)>,
}

#[derive(Default)]
pub(crate) struct Device {
    pub(crate) set: CursorSet,
    pub(crate) window: Option<Window>,
    pub(crate) window_busy: bool,
    pub(crate) sessions: usize,
    pub(crate) starting: bool,
    /// When its cursors last began or went over to another history: what was read before is stale.
    pub(crate) turned_at: Millis,
}

/// What an attach reads.
pub(crate) struct Snapshot {
    pub(crate) at: Millis,
    pub(crate) heads: Vec<(Chan, Head)>,
    pub(crate) cursors: Vec<(Chan, Epoch, Cursor)>,
    pub(crate) highest: BTreeMap<Chan, Seq>,
    pub(crate) window: Option<Vec<u8>>,
}

pub(crate) struct Node {
    pub(crate) sessions: BTreeMap<Sid, Session>,
    pub(crate) devices: BTreeMap<Dev, Device>,
    catch_up: CatchUp<(Sid, usize)>,
    pub(crate) mailbox: VecDeque<HintOf>,
    pub(crate) committer: Committer,
    pub(crate) shared: Vec<SharedNode>,
    pub(crate) gates: GateNode,
    reads: usize,
}

impl Node {
    pub(crate) fn new(config: &Config, rng: &mut Rng) -> Self {
        Self {
            sessions: BTreeMap::new(),
            devices: BTreeMap::new(),
            catch_up: CatchUp::new(config.reads),
            mailbox: VecDeque::new(),
            committer: Committer::default(),
            shared: SharedNode::both(rng),
            gates: GateNode::new(rng),
            reads: 0,
        }
    }
}

pub(crate) fn user_of(dev: Dev) -> Chan {
    usize::from(dev >= DEVICES / 2)
}

impl World {
    pub(crate) fn chan_of(&self, channel: &clarion_core::Address) -> Chan {
        self.addresses.iter().position(|a| a == channel).expect("an address of this world")
    }

    pub(crate) fn session(&mut self, sid: Sid) -> &mut Session {
        self.node.sessions.get_mut(&sid).expect("the caller has just seen it")
    }

    /// The device's cursor goes over to another history.
    pub(crate) fn turn(&mut self, dev: Dev, chan: Chan, epoch: Epoch, first: Seq) {
        let device = self.node.devices.get_mut(&dev).expect("it has a session");
        let address = &self.addresses[chan];
        if device.set.get(address, epoch).is_none() {
            device.set.restart(address, epoch, first);
            device.turned_at = self.now;
            self.oracle.turned(dev, (chan, epoch, 1, first.saturating_sub(1)));
        }
    }

    pub(crate) fn push_gap(&mut self, sid: Sid, chan: Chan, head: &Head, gap: Gap) {
        let epoch = head.epoch;
        note!(self.now, "session {sid} is told of {gap:?} on {chan}/{epoch}");
        match gap.reason {
            GapReason::Epoch => self.stats.epoch_gaps += 1,
            GapReason::Retention => self.stats.gaps += 1,
        }
        self.oracle.told(sid, chan, epoch, gap);
        // In another history everything below its first kept seq is told.
        let (from, to) = match gap.reason {
            GapReason::Epoch => (1, head.first - 1),
            GapReason::Retention => (gap.from, gap.to),
        };
        self.session(sid).outbox.push_back(Frame::Gap { chan, epoch, from, to });
    }

    pub(crate) fn mail(&mut self) {
        while let Some(hint) = self.node.mailbox.pop_front() {
            if hint.chan == QUEUE {
                self.queue_hint(hint.epoch, hint.seq);
                continue;
            }
            if hint.chan < USERS {
                self.gate_hint(hint.chan, hint.epoch, hint.seq);
            }
            let sids: Vec<Sid> = self.node.sessions.keys().copied().collect();
            for sid in sids {
                let subs = &self.node.sessions[&sid].subs;
                if let Some(i) = subs.iter().position(|s| s.chan == hint.chan) {
                    self.hint_one(sid, i, hint);
                }
            }
        }
    }

    fn hint_one(&mut self, sid: Sid, i: usize, hint: HintOf) {
        let acked = self.is_acked(sid, hint.chan, hint.epoch, hint.seq);
        let room = self.has_room(sid);
        let one = &mut self.session(sid).subs[i];
        one.learns(hint.epoch, hint.seq);
        let told = one.sub.hint(hint.epoch, hint.seq, acked, room);
        one.check_live();
        match told {
            Hint::Deliver => self.deliver(sid, i, hint.epoch, hint.seq, hint.id),
            Hint::Behind => self.pump(sid),
            Hint::Ignore => {}
        }
    }

    fn is_acked(&self, sid: Sid, chan: Chan, epoch: Epoch, seq: Seq) -> bool {
        let device = &self.node.devices[&self.node.sessions[&sid].dev];
        let channel = &self.addresses[chan];
        device.set.is_acked(channel, epoch, seq)
            || device.window.as_ref().is_some_and(|window| {
                let at = Position { epoch, seq };
                window.number_of(&Place { channel: channel.clone(), at }).is_some()
            })
    }

    fn has_room(&mut self, sid: Sid) -> bool {
        let bound = self.config.outbox;
        let session = self.node.sessions.get_mut(&sid).expect("the caller has just seen it");
        let device = &self.node.devices[&session.dev];
        let unacked = &mut session.unacked;
        unacked.retain(|(chan, epoch, seq)| {
            !device.set.is_acked(&self.addresses[*chan], *epoch, *seq)
                && device.set.get(&self.addresses[*chan], *epoch).is_some()
        });
        let single = self.clients[session.dev].style == Style::Single;
        session.outbox.len() < bound
            && device.window.as_ref().is_none_or(Window::has_room)
            && !(single && unacked.len() >= UNACKED_MAX)
    }

    fn deliver(&mut self, sid: Sid, i: usize, epoch: Epoch, seq: Seq, id: u64) {
        let bound = self.config.outbox;
        let session = self.node.sessions.get_mut(&sid).expect("the caller has just seen it");
        let Sub { chan, sub, .. } = &session.subs[i];
        let (dev, chan, start) = (session.dev, *chan, sub.start());
        let device = self.node.devices.get_mut(&dev).expect("it has a session");
        let number = device.window.as_mut().map(|window| {
            let channel = self.addresses[chan].clone();
            window.reserve(Place { channel, at: Position { epoch, seq } }).expect("there is room")
        });
        note!(self.now, "session {sid} gets {chan}/{epoch}/{seq} ({id}) as {number:?}");
        session.outbox.push_back(Frame::Message { chan, epoch, seq, id, start, number });
        session.unacked.push((chan, epoch, seq));
        self.stats.delivered += 1;
        let held = session.outbox.iter().filter(|f| matches!(f, Frame::Message { .. })).count();
        self.oracle.delivered(&self.store, self.now, sid, (chan, epoch, seq), id);
        // A window that is given again may be larger than the outbox, and is bounded itself.
        self.oracle.check_outbox(held, if number.is_some() { bound.max(8) } else { bound });
        if number.is_some() {
            self.stats.numbered += 1;
            self.kick_window(dev);
        }
    }

    /// What the client reads next; a number is shown only after its commit.
    pub(crate) fn next_frame(&mut self, sid: Sid) -> Option<Frame> {
        let session = self.node.sessions.get_mut(&sid)?;
        let frame = *session.outbox.front()?;
        if let Frame::Message { number: Some(number), .. } = frame {
            let window = self.node.devices[&session.dev].window.as_ref()?;
            if !window.is_shown(number) {
                return None;
            }
        }
        session.outbox.pop_front()
    }

    /// Asks for the pages that this session wants and has room for.
    pub(crate) fn pump(&mut self, sid: Sid) {
        if !self.node.sessions.get(&sid).is_some_and(|s| s.ready) || !self.has_room(sid) {
            return;
        }
        let session = self.node.sessions.get_mut(&sid).expect("just seen");
        for (i, Sub { chan, sub, .. }) in session.subs.iter_mut().enumerate() {
            if sub.wants_page() {
                self.node.catch_up.ask(&self.addresses[*chan], sub.next(), (sid, i));
                sub.page_began();
            }
        }
        self.begin_reads();
    }

    fn begin_reads(&mut self) {
        while let Some(key) = self.node.catch_up.begin() {
            self.node.reads += 1;
            self.oracle.check_reads(self.node.reads, self.config.reads);
            let delay = self.store_delay();
            self.node_after(delay, Event::PageExec(key));
        }
    }

    pub(crate) fn page_exec(&mut self, key: PageKey) {
        let failed = self.fault(self.config.read_fails);
        let chan = self.chan_of(&key.channel);
        // Reads may begin a little earlier, as those of aligned blocks do.
        let early = self.rng.range(0, 3).min(key.from - 1);
        let count = self.config.page + early as usize;
        let page = self.store.page(self.now, chan, key.from - early, count);
        let delay = self.store_delay();
        self.node_after(delay, Event::PageDone(key, (!failed).then_some(page)));
    }

    pub(crate) fn page_done(&mut self, key: &PageKey, page: Option<&Page>) {
        self.node.reads -= 1;
        let waiters = self.node.catch_up.end(key);
        self.stats.pages += 1;
        self.stats.shared_reads += u64::from(waiters.len() > 1);
        for (sid, i) in waiters {
            if !self.node.sessions.contains_key(&sid) {
                continue;
            }
            match page {
                Some(page) => self.page_for(sid, i, page),
                None => self.session(sid).subs[i].sub.page_failed(),
            }
            self.pump(sid);
        }
        self.begin_reads();
    }

    fn page_for(&mut self, sid: Sid, i: usize, page: &Page) {
        let session = self.session(sid);
        let (dev, Sub { chan, sub, .. }) = (session.dev, &mut session.subs[i]);
        let (chan, head) = (*chan, page.head);
        let gap = sub.page_opened(head.epoch, head.first);
        note!(self.now, "session {sid} has a page of {chan}: {page:?}");
        if let Some(gap) = gap {
            if gap.reason == GapReason::Epoch {
                self.turn(dev, chan, head.epoch, head.first);
            }
            self.push_gap(sid, chan, &head, gap);
        }
        let mut through = Some(page.through);
        for &(seq, id) in &page.records {
            let acked = self.is_acked(sid, chan, head.epoch, seq);
            let room = self.has_room(sid);
            let sub = &mut self.session(sid).subs[i].sub;
            let before = sub.next();
            match sub.offer(seq, acked, room) {
                Offer::Deliver => {
                    self.pass_holes(dev, chan, head.epoch, before, seq);
                    self.deliver(sid, i, head.epoch, seq, id);
                }
                Offer::Skip => self.pass_holes(dev, chan, head.epoch, before, seq),
                Offer::Stop => {
                    through = None;
                    break;
                }
            }
        }
        let one = &mut self.session(sid).subs[i];
        let before = one.sub.next();
        one.sub.page_ended(through, head.last);
        one.check_live();
        let after = one.sub.next();
        self.pass_holes(dev, chan, head.epoch, before, after);
    }

    /// What a page left out between two seqs has expired: it counts as acked, unless a window has handed it out.
    fn pass_holes(&mut self, dev: Dev, chan: Chan, epoch: Epoch, from: Seq, until: Seq) {
        for seq in from..until {
            let place =
                Place { channel: self.addresses[chan].clone(), at: Position { epoch, seq } };
            let window = self.node.devices[&dev].window.as_ref();
            if window.is_none_or(|window| window.number_of(&place).is_none()) {
                self.stats.expired += 1;
                self.oracle.passed(&self.store, self.now, dev, (chan, epoch, seq));
                self.ack(dev, (chan, epoch, seq, seq));
            }
        }
    }

    /// An ack of a client or of the node itself.
    pub(crate) fn ack(&mut self, dev: Dev, (chan, epoch, from, to): Range) {
        let Some(device) = self.node.devices.get_mut(&dev) else { return };
        let address = &self.addresses[chan];
        if device.set.get(address, epoch).is_some() {
            self.oracle.acked(dev, (chan, epoch, from, to));
            device.set.ack(address, epoch, from, to);
            let cursor = device.set.get(address, epoch).expect("just seen");
            self.oracle.check_cursor(dev, (chan, epoch), cursor);
        }
    }

    pub(crate) fn ack_number(&mut self, dev: Dev, number: u64) {
        let Some(device) = self.node.devices.get_mut(&dev) else { return };
        let place = device.window.as_mut().and_then(|window| window.ack(number));
        if let Some(Place { channel, at }) = place {
            let chan = self.chan_of(&channel);
            self.ack(dev, (chan, at.epoch, at.seq, at.seq));
        }
    }

    pub(crate) fn flush(&mut self) {
        let devs: Vec<Dev> = self.node.devices.keys().copied().collect();
        for dev in devs {
            self.kick_window(dev);
            let device = self.node.devices.get_mut(&dev).expect("just listed");
            let moves = device.set.begin_flush();
            if device.set.is_clean() {
                self.oracle.check_clean(dev, &self.store);
            }
            let window_clean = device.window.as_ref().is_none_or(|window| !window.is_dirty());
            let busy = device.window_busy || device.starting || device.sessions > 0;
            if !busy && device.set.is_clean() && window_clean {
                self.node.devices.remove(&dev);
            }
            self.submit_flush(dev, moves);
        }
        self.flush_shared();
        self.flush_gates();
    }

    fn submit_flush(&mut self, dev: Dev, moves: Vec<Move>) {
        if !moves.is_empty() {
            let unit = Unit::Ack { reader: Reader::Device(dev), moves };
            self.submit(vec![Job { unit, then: Then::Flush(dev) }]);
        }
    }

    pub(crate) fn flush_ended(&mut self, dev: Dev, committed: bool) {
        let device = self.node.devices.get_mut(&dev).expect("it is not dropped while it writes");
        device.set.end_flush(committed);
        if committed {
            self.kick_window(dev);
        }
    }

    /// Writes the session record. It must not run ahead of the cursor: what has left the window is acked there.
    fn kick_window(&mut self, dev: Dev) {
        let device = self.node.devices.get_mut(&dev).expect("the caller has just seen it");
        let Some(window) = device.window.as_mut().filter(|window| window.is_dirty()) else {
            return;
        };
        if device.window_busy {
            return;
        }
        let moves = device.set.begin_flush();
        if moves.is_empty() && !device.set.is_clean() {
            return;
        }
        let mut bytes = Vec::new();
        let mark = window.begin_commit(&mut bytes);
        device.window_busy = true;
        let mut jobs = Vec::new();
        if !moves.is_empty() {
            let unit = Unit::Ack { reader: Reader::Device(dev), moves };
            jobs.push(Job { unit, then: Then::Flush(dev) });
        }
        let unit = Unit::Window { dev, bytes };
        jobs.push(Job { unit, then: Then::Window(dev, mark) });
        self.submit(jobs);
    }

    pub(crate) fn window_stored(&mut self, dev: Dev, mark: Option<clarion_core::window::Mark>) {
        let device = self.node.devices.get_mut(&dev).expect("it is not dropped while it writes");
        device.window_busy = false;
        let Some(window) = &mut device.window else { return };
        match mark {
            Some(mark) => window.committed(mark),
            None => return window.commit_failed(),
        }
        self.kick_window(dev);
    }
}
