//! The reference model: plain sets of what was published, given, told and acked, and the rules over them.

use crate::client::Style;
use crate::gates::GateModel;
use crate::invariant;
use crate::node::{Frame, Sid, UNACKED_MAX, user_of};
use crate::queue::SharedModel;
use crate::store::{Reader, Store};
use crate::world::{ALL, CHANNELS, Chan, DEVICES, Dev, GROUP, QUEUE, USERS, World};
use clarion_core::port::store::{Head, Move};
use clarion_core::subscription::{Gap, GapReason};
use clarion_core::window::{Numbering, Window};
use clarion_core::{Address, Cursor, Epoch, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet};

type Spot = (Chan, Epoch, Seq);
type Span = (Chan, Epoch, Seq, Seq);

/// What one session was given.
#[derive(Default)]
struct Given {
    dev: Dev,
    /// The device's stored cursors when it began.
    stored: Vec<(Chan, Epoch, Cursor)>,
    last: BTreeMap<Chan, (Epoch, Seq)>,
    again: BTreeSet<Spot>,
    gaps: Vec<Span>,
    turned: BTreeSet<(Chan, Epoch)>,
}

#[derive(Default)]
pub(crate) struct Oracle {
    sessions: BTreeMap<Sid, Given>,
    next_sid: Sid,
    /// Publishes that were acknowledged, and those of them that the engine lost.
    published: BTreeSet<(Chan, u64)>,
    lost: BTreeSet<(Chan, u64)>,
    /// Not owed to a device: older than its start.
    excused: BTreeSet<(Dev, Chan, u64)>,
    received: BTreeSet<(Dev, Chan, u64)>,
    told: Vec<(Dev, Span)>,
    /// Acked by a device or passed for it; and that since the node's start.
    acks: BTreeMap<(Dev, Chan, Epoch), BTreeSet<Seq>>,
    acks_of_life: BTreeMap<(Dev, Chan, Epoch), BTreeSet<Seq>>,
    committed_numbers: BTreeSet<(Dev, u64, Spot)>,
    ever_shown: BTreeMap<(Dev, u64), Spot>,
    unacked_numbers: BTreeMap<(Dev, u64), Spot>,
    pub(crate) shared: [SharedModel; 2],
    pub(crate) gates: [GateModel; USERS],
}

impl Oracle {
    pub(crate) fn next_session(&mut self) -> Sid {
        self.next_sid += 1;
        self.next_sid
    }

    pub(crate) fn node_restarted(&mut self) {
        self.sessions.clear();
        self.acks_of_life.clear();
        for model in &mut self.shared {
            model.node_restarted();
        }
        for model in &mut self.gates {
            model.node_restarted();
        }
    }

    pub(crate) fn history_lost(&mut self, store: &Store) {
        for &(chan, id) in &self.published {
            let log = store.log(chan);
            let kept = log.records.iter().skip(log.first as usize - 1).any(|rec| rec.id == id);
            if !kept {
                self.lost.insert((chan, id));
            }
        }
    }

    pub(crate) fn queue_trimmed(&mut self, store: &Store) {
        let log = store.log(QUEUE);
        for model in &mut self.shared {
            model.trimmed(log.records.iter().take(log.first as usize - 1).map(|rec| rec.id));
        }
    }

    pub(crate) fn published(&mut self, chan: Chan, id: u64) {
        self.published.insert((chan, id));
    }

    fn has_acked(&self, dev: Dev, (chan, epoch, seq): Spot) -> bool {
        self.acks.get(&(dev, chan, epoch)).is_some_and(|seqs| seqs.contains(&seq))
    }

    pub(crate) fn acked(&mut self, dev: Dev, (chan, epoch, from, to): Span) {
        let key = (dev, chan, epoch);
        self.acks.entry(key).or_default().extend(from..=to);
        self.acks_of_life.entry(key).or_default().extend(from..=to);
    }

    /// A device's cursor goes over to another history, from its earliest message kept: a mark without a range tells it.
    pub(crate) fn turned(&mut self, dev: Dev, span: Span) {
        self.acked(dev, span);
        self.told.push((dev, span));
    }

    /// The node passes a seq that a page left out.
    pub(crate) fn passed(&self, store: &Store, now: Millis, dev: Dev, spot: Spot) {
        let fine = !is_owed(store, now, spot) || self.has_acked(dev, spot);
        invariant!(fine, "nothing is passed that has not expired", "device {dev}: {spot:?}");
    }

    /// A device's cursor starts: nothing that nobody of its user has acked is left out, `all` starts at its head.
    pub(crate) fn check_start(
        &mut self,
        store: &Store,
        dev: Dev,
        chan: Chan,
        head: &Head,
        floor: Seq,
        highest: Option<Seq>,
    ) {
        self.acks.entry((dev, chan, head.epoch)).or_default().extend(1..=floor);
        let log = store.log(chan);
        if log.epoch != head.epoch && head.epoch != 0 {
            return;
        }
        let others = (0..DEVICES).filter(|other| *other != dev && user_of(*other) == user_of(dev));
        let others: Vec<Dev> = others.collect();
        let acked =
            |seq| others.iter().any(|other| self.has_acked(*other, (chan, head.epoch, seq)));
        let right = match chan {
            ALL => floor == head.last,
            _ => (head.first..=floor).all(acked) && floor >= highest.unwrap_or(0).min(head.last),
        };
        invariant!(
            right,
            "a new cursor starts where its kind of channel says",
            "device {dev} on {chan}: {floor} of {head:?}"
        );
        for seq in 1..=floor {
            self.excused.extend(log.rec(seq).map(|rec| (dev, chan, rec.id)));
        }
    }

    pub(crate) fn session_begins(&mut self, sid: Sid, dev: Dev, store: &Store) {
        let cursors = (0..CHANNELS).filter_map(|chan| {
            let (epoch, cursor) = store.cursor(Reader::Device(dev), chan)?;
            Some((chan, epoch, cursor))
        });
        let given = Given { dev, stored: cursors.collect(), ..Given::default() };
        self.sessions.insert(sid, given);
    }

    pub(crate) fn sub_begins(
        &mut self,
        store: &Store,
        now: Millis,
        sid: Sid,
        chan: Chan,
        epoch: Epoch,
        next: Seq,
    ) {
        let dev = self.sessions[&sid].dev;
        for seq in store.log(chan).first..next {
            let spot = (chan, epoch, seq);
            let fine = self.has_acked(dev, spot) || !is_owed(store, now, spot);
            invariant!(
                fine,
                "a session begins at the first unacked",
                "session {sid} of device {dev} skips {spot:?}, begins at {next}"
            );
        }
        if let Some(given) = self.sessions.get_mut(&sid) {
            given.last.insert(chan, (epoch, next - 1));
        }
    }

    pub(crate) fn given_again(&mut self, sid: Sid, chan: Chan, epoch: Epoch, seq: Seq) {
        let given = self.sessions.get_mut(&sid).expect("it has begun");
        let last = given.again.range((chan, 0, 0)..(chan + 1, 0, 0)).next_back().copied();
        let ascends = last.is_none_or(|last| last < (chan, epoch, seq));
        invariant!(
            ascends,
            "a window is given again in order",
            "session {sid}: {seq} after {last:?}"
        );
        given.again.insert((chan, epoch, seq));
    }

    pub(crate) fn told(&mut self, sid: Sid, chan: Chan, epoch: Epoch, gap: Gap) {
        let given = self.sessions.get_mut(&sid).expect("it has begun");
        match gap.reason {
            GapReason::Epoch => {
                given.turned.insert((chan, epoch));
            }
            GapReason::Retention => given.gaps.push((chan, epoch, gap.from, gap.to)),
        }
    }

    /// Something goes into a session's outbox.
    pub(crate) fn delivered(&mut self, store: &Store, now: Millis, sid: Sid, spot: Spot, id: u64) {
        let (chan, epoch, seq) = spot;
        let given = &self.sessions[&sid];
        let (dev, last) = (given.dev, given.last.get(&chan).copied().unwrap_or((epoch, 0)));
        let repeated = given
            .stored
            .iter()
            .any(|(c, e, cursor)| (*c, *e) == (chan, epoch) && cursor.is_acked(seq));
        invariant!(
            !repeated,
            "nothing is repeated whose ack was stored",
            "session {sid} of device {dev}: {spot:?}"
        );
        invariant!(
            !given.again.contains(&spot),
            "a session gets nothing twice",
            "session {sid} of device {dev}: {spot:?}"
        );
        let turned = last.0 == epoch || given.turned.contains(&(chan, epoch));
        invariant!(turned, "a lost history is told", "session {sid}: {last:?} then {spot:?}");
        let before = if last.0 == epoch { last.1 } else { 0 };
        invariant!(
            seq > before,
            "a session gets each channel in order",
            "session {sid}: {last:?} then {spot:?}"
        );
        let log = store.log(chan);
        if log.epoch == epoch {
            let same = log.rec(seq).is_some_and(|rec| rec.id == id);
            invariant!(
                same,
                "what is delivered was committed",
                "session {sid}: {spot:?} is not {id}"
            );
        }
        for between in before + 1..seq {
            let spot = (chan, epoch, between);
            let told = given
                .gaps
                .iter()
                .any(|g| (g.0, g.1) == (chan, epoch) && (g.2..=g.3).contains(&between));
            let fine = told
                || given.again.contains(&spot)
                || self.has_acked(dev, spot)
                || !is_owed(store, now, spot)
                || last.0 != epoch && between < log.first;
            invariant!(
                fine,
                "a session skips nothing",
                "session {sid} of device {dev}: {spot:?} before {seq}"
            );
        }
        self.sessions.get_mut(&sid).expect("just seen").last.insert(chan, (epoch, seq));
    }

    pub(crate) fn check_outbox(&self, held: usize, bound: usize) {
        invariant!(held <= bound, "outboxes are bounded", "{held} of {bound}");
    }

    pub(crate) fn check_reads(&self, reads: usize, bound: usize) {
        invariant!(reads <= bound, "reads under way are bounded", "{reads} of {bound}");
    }

    /// The client has read a frame.
    pub(crate) fn received(&mut self, dev: Dev, frame: &Frame, style: Style) {
        match *frame {
            Frame::Message { chan, epoch, seq, id, number, .. } => {
                self.received.insert((dev, chan, id));
                if let (Some(number), Style::Numbered(numbering)) = (number, style) {
                    self.shown(dev, number, (chan, epoch, seq), numbering);
                }
            }
            Frame::Gap { chan, epoch, from, to, .. } => {
                self.told.push((dev, (chan, epoch, from, to)))
            }
        }
    }

    fn shown(&mut self, dev: Dev, number: u64, spot: Spot, numbering: Numbering) {
        let committed = self.committed_numbers.contains(&(dev, number, spot));
        invariant!(
            committed,
            "a number is committed before it is shown",
            "device {dev}: {number} for {spot:?}"
        );
        let unacked = self.unacked_numbers.insert((dev, number), spot);
        invariant!(
            unacked.is_none_or(|old| old == spot),
            "a number in use is not given again",
            "device {dev}: {number} for {unacked:?} and {spot:?}"
        );
        let ever = self.ever_shown.insert((dev, number), spot);
        invariant!(
            numbering.wraps || ever.is_none_or(|old| old == spot),
            "a number is never given again",
            "device {dev}: {number} for {ever:?} and {spot:?}"
        );
    }

    pub(crate) fn number_acked(&mut self, dev: Dev, number: u64) {
        self.unacked_numbers.remove(&(dev, number));
    }

    pub(crate) fn window_stored(&mut self, dev: Dev, bytes: &[u8]) {
        let window = Window::decode(Numbering::gap_free(100), bytes).expect("what was encoded");
        for entry in window.entries() {
            let at = entry.place.at;
            let chan = (0..CHANNELS).find(|c| crate::store::address(*c) == entry.place.channel);
            let spot = (chan.expect("a channel"), at.epoch, at.seq);
            self.committed_numbers.insert((dev, entry.number, spot));
        }
    }

    /// A cursor goes to the store: it holds nothing that was not acked.
    pub(crate) fn check_stored(&self, dev: Dev, moves: &[Move], addresses: &[Address]) {
        for one in moves {
            let chan = addresses.iter().position(|a| *a == one.channel).expect("a channel");
            self.check_cursor(dev, (chan, one.epoch), &one.cursor);
        }
    }

    pub(crate) fn check_cursor(&self, dev: Dev, (chan, epoch): (Chan, Epoch), cursor: &Cursor) {
        for seq in (1..=cursor.top()).filter(|seq| cursor.is_acked(*seq)) {
            let acked = self.has_acked(dev, (chan, epoch, seq));
            invariant!(
                acked,
                "a cursor holds only what was acked",
                "device {dev} on {chan}/{epoch}: {seq} in {cursor:?}"
            );
        }
        let runs = cursor.runs().len();
        invariant!(runs <= 2 * UNACKED_MAX, "runs are bounded", "{runs} of device {dev} on {chan}");
    }

    /// A device has nothing to write: everything that it acked since the node's start is in the store.
    pub(crate) fn check_clean(&self, dev: Dev, store: &Store) {
        for (&(_, chan, epoch), seqs) in self.acks_of_life.range((dev, 0, 0)..=(dev, CHANNELS, 0)) {
            if store.log(chan).epoch != epoch {
                continue;
            }
            let cursor = store.cursor(Reader::Device(dev), chan).filter(|(e, _)| *e == epoch);
            let missing =
                seqs.iter().find(|seq| !cursor.as_ref().is_some_and(|(_, c)| c.is_acked(**seq)));
            invariant!(
                missing.is_none(),
                "an ack is stored before its cursor is clean",
                "device {dev} on {chan}/{epoch}: {missing:?}"
            );
        }
    }

    fn is_told(&self, dev: Dev, chan: Chan, epoch: Epoch, seq: Seq) -> bool {
        self.told
            .iter()
            .any(|(d, g)| *d == dev && (g.0, g.1) == (chan, epoch) && (g.2..=g.3).contains(&seq))
    }

    /// Every acknowledged message reached every device that it is owed to, or its gap was told.
    fn check_all_delivered(&self, store: &Store, now: Millis) {
        for dev in 0..DEVICES {
            for chan in [user_of(dev), ALL, GROUP] {
                let log = store.log(chan);
                for (i, rec) in log.records.iter().enumerate() {
                    let (seq, key) = (i as Seq + 1, (chan, rec.id));
                    let owed = self.published.contains(&key)
                        && !self.lost.contains(&key)
                        && !rec.expired(now)
                        && !self.excused.contains(&(dev, chan, rec.id));
                    let fine = !owed
                        || self.received.contains(&(dev, chan, rec.id))
                        || self.is_told(dev, chan, log.epoch, seq);
                    invariant!(
                        fine,
                        "nothing acknowledged is lost",
                        "device {dev} never got {chan}/{}/{seq} ({})",
                        log.epoch,
                        rec.id
                    );
                }
            }
        }
        for &(chan, id) in self.published.difference(&self.lost) {
            let there = store.log(chan).records.iter().any(|rec| rec.id == id);
            invariant!(there, "what was acknowledged is in its log", "{chan}: {id}");
        }
    }

    fn check_numbers(&self, dev: Dev) {
        let numbers = self.ever_shown.range((dev, 0)..=(dev, u64::MAX)).map(|((_, n), _)| *n);
        for (expected, number) in (1..).zip(numbers) {
            invariant!(
                number == expected,
                "numbers have no gap",
                "device {dev}: {number}, not {expected}"
            );
        }
    }
}

/// Whether somebody may still expect this seq: kept and not expired.
fn is_owed(store: &Store, now: Millis, (chan, epoch, seq): Spot) -> bool {
    let log = store.log(chan);
    log.epoch == epoch && log.rec(seq).is_some_and(|rec| !rec.expired(now))
}

impl World {
    pub(crate) fn is_done(&self) -> bool {
        self.what_is_missing().is_empty()
    }

    /// Who is not done; empty when everybody is.
    pub(crate) fn what_is_missing(&self) -> String {
        let mut missing = Vec::new();
        for (dev, client) in self.clients.iter().enumerate() {
            if client.connections.is_empty() || !client.waits_for_nothing() {
                missing.push(format!("device {dev} is not attached or has something to ack"));
            }
        }
        for (sid, session) in &self.node.sessions {
            for one in &session.subs {
                let log = self.store.log(one.chan);
                if (one.sub.epoch(), one.sub.next()) != (log.epoch, log.last() + 1)
                    || !one.sub.is_live()
                {
                    missing.push(format!(
                        "session {sid} on {} is at {:?} of {:?}",
                        one.chan,
                        one.sub,
                        log.head()
                    ));
                }
            }
            if !session.outbox.is_empty() {
                missing.push(format!("session {sid} has an outbox"));
            }
        }
        for (dev, device) in &self.node.devices {
            if !device.set.is_clean() {
                missing.push(format!("device {dev} has acks to write"));
            }
        }
        missing.extend(self.queue_missing());
        missing.extend(self.gates_missing());
        missing.join("; ")
    }

    pub(crate) fn check_at_the_end(&self) {
        self.oracle.check_all_delivered(&self.store, self.now);
        for dev in 0..DEVICES {
            self.oracle.check_clean(dev, &self.store);
            if let Style::Numbered(Numbering { wraps: false, .. }) = self.clients[dev].style {
                self.oracle.check_numbers(dev);
            }
        }
        self.check_queue_at_the_end(QUEUE);
        self.check_gates_at_the_end();
    }

    pub(crate) fn acknowledged(&self, chan: Chan) -> Vec<u64> {
        let oracle = &self.oracle;
        let ids = oracle.published.difference(&oracle.lost);
        ids.filter(|(c, _)| *c == chan).map(|(_, id)| *id).collect()
    }
}
