//! Gates: external connection servers that share the cursor `*` of each user's channel. They come and go, answer
//! RECEIVED, UNRECEIVED or nothing, on the stream that they were asked on or on another, late and twice, and REQUEST
//! again what is unacked. The model of what they may still answer for is a plain state per seq.

use crate::commit::{Job, Then};
use crate::rng::Rng;
use crate::store::{Reader, Unit};
use crate::world::{Chan, Event, USERS, World};
use crate::{invariant, note};
use clarion_core::gate_channel::{GateChannel, LIVE_IDS, Outcome, msg_id};
use clarion_core::mode::{Candidate, Member, Mode, pick};
use clarion_core::port::store::{Head, Move};
use clarion_core::shared_cursor::Acked;
use clarion_core::{Cursor, Epoch, Millis, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Gate streams; the first two are of one process, and so are the others.
pub(crate) const GATES: usize = 4;
/// What a stream has queued at most, but for what it asked for.
const OUTBOX: usize = 4;

type Given = (Chan, Epoch, Seq, u64);

/// The node's side.
pub(crate) struct GateNode {
    channels: [Option<GateChannel>; USERS],
    mode: Mode,
    /// A hand-out that is not answered for so long may come again.
    silence_ms: u64,
    outboxes: BTreeMap<Member, VecDeque<Given>>,
}

impl GateNode {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let mode = [Mode::Unify, Mode::Group, Mode::Every][rng.index(3)];
        let silence_ms = rng.range(20, 150);
        Self { channels: [None, None], mode, silence_ms, outboxes: BTreeMap::new() }
    }
}

/// A gate's side.
#[derive(Default)]
pub(crate) struct GateClient {
    member: Option<Member>,
    /// Not answered, or answered already.
    former: Vec<Given>,
}

/// What must hold for one user's channel.
#[derive(Default)]
pub(crate) struct GateModel {
    epoch: Epoch,
    first: Seq,
    acked: BTreeSet<Seq>,
    /// Who may still answer, in the order in which they got it; and when that was last.
    waiting: BTreeMap<Seq, (Vec<(Member, u32)>, Millis)>,
    /// Received or expired.
    finished: BTreeSet<u64>,
}

impl GateModel {
    pub(crate) fn node_restarted(&mut self) {
        self.acked.clear();
        self.waiting.clear();
        self.epoch = 0;
    }

    fn begins(&mut self, head: &Head, stored: &Cursor) {
        self.node_restarted();
        (self.epoch, self.first) = (head.epoch, 1);
        self.trimmed(head.first);
        self.acked.extend((1..=head.last).filter(|seq| stored.is_acked(*seq)));
    }

    fn trimmed(&mut self, first: Seq) {
        if first > self.first {
            self.acked.extend(self.first..first);
            self.waiting = self.waiting.split_off(&first);
            self.first = first;
        }
    }

    fn handed_out(&mut self, seq: Seq, gates: &[Member], now: Millis) {
        let repeated = self.acked.contains(&seq);
        invariant!(!repeated, "nothing that gates acked comes again", "{seq} to {gates:?}");
        let (waiting, at) = self.waiting.entry(seq).or_insert((Vec::new(), now));
        for gate in gates {
            *at = now;
            match waiting.iter().position(|(of, _)| of == gate) {
                Some(at) => waiting[at].1 += 1,
                None => waiting.push((*gate, 1)),
            }
        }
    }

    fn received(&mut self, seq: Seq, id: u64) {
        self.acked.insert(seq);
        self.waiting.remove(&seq);
        self.finished.insert(id);
    }

    /// One answer, or with `leaves` all of a gate's. Returns whether it is parked now.
    fn take_off(&mut self, seq: Seq, from: Member, leaves: bool) -> bool {
        let Some((waiting, _)) = self.waiting.get_mut(&seq) else { return false };
        let own = waiting.iter().position(|(gate, _)| *gate == from);
        let Some(at) = own.or((!leaves && !waiting.is_empty()).then_some(0)) else { return false };
        waiting[at].1 -= 1;
        if waiting[at].1 == 0 || leaves {
            waiting.remove(at);
        }
        waiting.is_empty()
    }

    fn parked(&self, before: Millis) -> Vec<Seq> {
        let parked =
            self.waiting.iter().filter(|(_, (gates, at))| gates.is_empty() || *at < before);
        parked.map(|(seq, _)| *seq).collect()
    }

    /// The channel agrees, seq by seq.
    fn check(&self, channel: &GateChannel) {
        for seq in self.first..=channel.head() {
            let expected = match self.waiting.get(&seq) {
                _ if self.acked.contains(&seq) => Outcome::Received,
                Some((gates, _)) if !gates.is_empty() => Outcome::Waiting,
                _ => Outcome::Unreceived,
            };
            let outcome = channel.outcome(seq);
            invariant!(
                outcome == expected,
                "a gate channel knows who may still answer",
                "{seq} is {outcome:?}, not {expected:?}: {:?}",
                self.waiting.get(&seq)
            );
        }
        let (pending, expected) = (channel.pending(), self.waiting.len());
        invariant!(pending == expected, "only hand-outs are pending", "{pending} of {expected}");
    }
}

impl World {
    /// The channel as the store has it now; `None` when it cannot be read.
    fn load_gates(&mut self, chan: Chan) -> Option<Head> {
        let head = self.store.log(chan).head();
        if head.epoch == 0 || self.fault(self.config.read_fails) {
            return None;
        }
        let model = &mut self.oracle.gates[chan];
        match &mut self.node.gates.channels[chan] {
            Some(channel) if channel.epoch() == head.epoch => {
                channel.trimmed(head.first);
                model.trimmed(head.first);
            }
            Some(channel) => {
                channel.restart(head.epoch, head.first, head.last);
                model.begins(&head, &Cursor::at(head.first - 1));
            }
            none => {
                let stored = self.store.cursor(Reader::Gates, chan);
                let stored = stored.filter(|(epoch, _)| *epoch == head.epoch);
                let stored = stored.map_or(Cursor::at(head.first - 1), |(_, cursor)| cursor);
                note!(self.now, "gates go on with {chan} from {stored:?} of {head:?}");
                model.begins(&head, &stored);
                let mut channel = GateChannel::new(head.epoch, stored, head.last);
                channel.trimmed(head.first);
                *none = Some(channel);
            }
        }
        Some(head)
    }

    /// A commit on a user's channel.
    pub(crate) fn gate_hint(&mut self, chan: Chan, epoch: Epoch, seq: Seq) {
        let fresh = self.node.gates.channels[chan].is_none();
        if self.load_gates(chan).is_none() {
            return;
        }
        let channel = self.node.gates.channels[chan].as_mut().expect("just loaded");
        let raised = channel.raise_head(epoch, seq);
        let known = fresh && channel.epoch() == epoch && seq == channel.head();
        if !raised && !known || channel.outcome(seq) == Outcome::Received {
            return;
        }
        let outboxes = &self.node.gates.outboxes;
        let streams = self.gate_clients.iter().enumerate();
        let candidates: Vec<_> = streams
            .filter_map(|(g, client)| Some((g, client.member?)))
            .filter(|(_, member)| outboxes[member].len() < OUTBOX)
            .map(|(g, member)| Candidate { member, group: ["a", "b"][g / 2], rank: member })
            .collect();
        let chosen = pick(self.node.gates.mode, &candidates, self.rng.next());
        self.stats.gate_pushes += 1;
        self.push_to_gates(chan, seq, &chosen);
    }

    fn push_to_gates(&mut self, chan: Chan, seq: Seq, gates: &[Member]) {
        let rec = *self.store.log(chan).rec(seq).expect("it was committed");
        let channel = self.node.gates.channels[chan].as_mut().expect("the caller loaded it");
        note!(self.now, "{chan}/{seq} ({}) goes to the gates {gates:?}", rec.id);
        let stored = self.store.cursor(Reader::Gates, chan);
        let stored = stored.filter(|(epoch, _)| *epoch == channel.epoch());
        let again = stored.is_some_and(|(_, cursor)| cursor.is_acked(seq));
        invariant!(!again, "nothing comes again whose ack was stored", "{chan}/{seq} to {gates:?}");
        channel.hand_out(seq, gates, self.now);
        self.oracle.gates[chan].handed_out(seq, gates, self.now);
        self.oracle.gates[chan].check(channel);
        for gate in gates {
            let outbox = self.node.gates.outboxes.get_mut(gate).expect("a live gate");
            outbox.push_back((chan, channel.epoch(), seq, rec.id));
        }
    }

    pub(crate) fn gate_step(&mut self, g: usize) {
        let pause = if self.calm { 5 } else { self.rng.range(1, 30) };
        self.after(pause, Event::Gate(g));
        let Some(member) = self.gate_clients[g].member else {
            return self.gate_joins(g);
        };
        if self.fault(25) {
            return self.gate_leaves(g, member);
        }
        if self.fault(100) {
            self.somebody_asks_nonsense();
        }
        if self.rng.chance(if self.calm { 200 } else { 60 }) {
            let chan = self.rng.index(USERS);
            let last = self.store.log(chan).last();
            let above = if self.calm || last == 0 { 0 } else { self.rng.index(last as usize) };
            self.request(chan, above as Seq, member);
        }
        let outbox = self.node.gates.outboxes.get_mut(&member).expect("it has joined");
        let count = if self.calm { outbox.len() } else { self.rng.index(3).min(outbox.len()) };
        for given in outbox.drain(..count).collect::<Vec<_>>() {
            self.gate_answers(g, member, given);
        }
        if self.fault(200)
            && let Some(former) = self.gate_clients[g].former.pop()
        {
            self.gate_says(g, member, former);
        }
    }

    /// A new gate gets what nobody is left to answer for.
    fn gate_joins(&mut self, g: usize) {
        let member = self.oracle.next_session();
        note!(self.now, "gate {g} joins as {member}");
        self.gate_clients[g].member = Some(member);
        self.node.gates.outboxes.insert(member, VecDeque::new());
        for chan in 0..USERS {
            let Some(head) = self.load_gates(chan) else { continue };
            let before = self.now.saturating_sub(self.node.gates.silence_ms);
            let channel = self.node.gates.channels[chan].as_ref().expect("just loaded");
            let parked = channel.parked(0, before);
            let expected = self.oracle.gates[chan].parked(before);
            invariant!(
                parked == expected,
                "what nobody answers for is parked",
                "{parked:?}, not {expected:?}"
            );
            for seq in parked.into_iter().filter(|seq| *seq <= head.last).take(OUTBOX) {
                self.stats.gate_parked += 1;
                self.push_to_gates(chan, seq, &[member]);
            }
        }
    }

    fn gate_leaves(&mut self, g: usize, member: Member) {
        note!(self.now, "gate {g} ({member}) leaves");
        self.gate_clients[g] = GateClient::default();
        self.node.gates.outboxes.remove(&member);
        for chan in 0..USERS {
            let Some(channel) = &mut self.node.gates.channels[chan] else { continue };
            let model = &mut self.oracle.gates[chan];
            let seqs: Vec<Seq> = model.waiting.keys().copied().collect();
            let expected: Vec<Seq> =
                seqs.into_iter().filter(|seq| model.take_off(*seq, member, true)).collect();
            let parked = channel.gate_left(member);
            invariant!(
                parked == expected,
                "what only a gate that left could answer for is parked",
                "{parked:?}, not {expected:?}"
            );
            model.check(channel);
        }
    }

    /// REQUEST: everything unacked above a number, in order, but for what this stream has queued.
    fn request(&mut self, chan: Chan, above: Seq, member: Member) {
        let Some(head) = self.load_gates(chan) else { return };
        let channel = self.node.gates.channels[chan].as_mut().expect("just loaded");
        channel.raise_head(head.epoch, head.last);
        self.stats.gate_requests += 1;
        note!(self.now, "{member} asks for all of {chan} above {above}");
        for seq in (above + 1).max(head.first)..=head.last {
            let rec = *self.store.log(chan).rec(seq).expect("up to the head");
            let channel = self.node.gates.channels[chan].as_mut().expect("just loaded");
            let outbox = &self.node.gates.outboxes[&member];
            let acked = channel.cursor().is_acked(seq);
            if acked || outbox.contains(&(chan, head.epoch, seq, rec.id)) {
                continue;
            }
            if rec.expired(self.now) {
                channel.received(seq);
                self.oracle.gates[chan].received(seq, rec.id);
                continue;
            }
            self.stats.gate_again += 1;
            self.push_to_gates(chan, seq, &[member]);
        }
        let outbox = &self.node.gates.outboxes[&member];
        let asked = outbox.iter().filter(|(c, epoch, _, _)| (*c, *epoch) == (chan, head.epoch));
        let asked: BTreeSet<Seq> = asked.map(|(_, _, seq, _)| *seq).collect();
        let model = &self.oracle.gates[chan];
        let missing = ((above + 1).max(head.first)..=head.last)
            .find(|seq| !model.acked.contains(seq) && !asked.contains(seq));
        invariant!(missing.is_none(), "REQUEST brings all that is unacked", "{chan}/{missing:?}");
    }

    fn gate_answers(&mut self, g: usize, member: Member, given: Given) {
        if self.fault(200) {
            // Silence; perhaps it answers when it is too late.
            return self.gate_clients[g].former.push(given);
        }
        if self.fault(200) {
            self.gate_clients[g].former.push(given);
        }
        self.gate_says(g, member, given);
    }

    /// RECEIVED or UNRECEIVED, mostly on the stream that it was asked on.
    fn gate_says(&mut self, g: usize, member: Member, (chan, epoch, seq, id): Given) {
        let other = self.gate_clients[g ^ 1].member;
        let from = other.filter(|_| self.fault(200)).unwrap_or(member);
        self.stats.gate_strays += u64::from(from != member);
        let unreceived = self.fault(400);
        let Some(channel) = &mut self.node.gates.channels[chan] else { return };
        if channel.epoch() != epoch {
            return;
        }
        let found = channel.seq_of(msg_id(seq));
        invariant!(found == Some(seq), "a number leads back to its message", "{seq}: {found:?}");
        let model = &mut self.oracle.gates[chan];
        if unreceived {
            self.stats.gate_unreceived += 1;
            let (parked, expected) =
                (channel.unreceived(seq, from), model.take_off(seq, from, false));
            note!(self.now, "{from}: UNRECEIVED {chan}/{seq} ({id}), parked: {parked}");
            invariant!(
                parked == expected,
                "the last UNRECEIVED of a set parks",
                "{seq} from {from}: {parked}"
            );
        } else {
            self.stats.gate_received += 1;
            let acked = channel.received(seq);
            note!(self.now, "{from}: RECEIVED {chan}/{seq} ({id}): {acked:?}");
            let expected = if model.acked.contains(&seq) { Acked::Before } else { Acked::Now };
            invariant!(acked == expected, "the first RECEIVED acks", "{seq}: {acked:?}");
            model.received(seq, id);
        }
        model.check(channel);
    }

    /// Numbers that no stored push ever had.
    fn somebody_asks_nonsense(&mut self) {
        let chan = self.rng.index(USERS);
        let Some(channel) = &mut self.node.gates.channels[chan] else { return };
        let head = channel.head();
        for number in [0, LIVE_IDS, u32::MAX, msg_id(head + 1)] {
            let found = channel.seq_of(number);
            invariant!(found.is_none(), "a number never given out is nobody's", "{number}");
        }
        for seq in [0, head + 1] {
            let acked = channel.received(seq);
            invariant!(acked == Acked::Unknown, "nothing unknown is acked", "{seq}: {acked:?}");
        }
        if self.rng.chance(100) {
            channel.forget_hand_outs();
            self.oracle.gates[chan].waiting.clear();
        }
    }

    /// Writes the cursors, and drops from memory what is idle.
    pub(crate) fn flush_gates(&mut self) {
        for chan in 0..USERS {
            let slot = &mut self.node.gates.channels[chan];
            let Some(channel) = slot else { continue };
            let epoch = channel.epoch();
            if let Some(cursor) = channel.begin_flush() {
                let moves = vec![Move { channel: self.addresses[chan].clone(), epoch, cursor }];
                let unit = Unit::Ack { reader: Reader::Gates, moves };
                self.submit(vec![Job { unit, then: Then::GateFlush(chan) }]);
                continue;
            }
            if channel.is_idle() && self.store.log(chan).epoch == epoch {
                self.stats.gate_idle += 1;
                let stored = self.store.cursor(Reader::Gates, chan).map(|(_, cursor)| cursor);
                let stored = stored.unwrap_or_default();
                let model = &self.oracle.gates[chan];
                let lost = model
                    .acked
                    .iter()
                    .find(|seq| !stored.is_acked(**seq) && **seq >= self.store.log(chan).first);
                invariant!(lost.is_none(), "what leaves memory is stored", "{chan}/{lost:?}");
                *slot = None;
            }
        }
    }

    pub(crate) fn gate_flushed(&mut self, chan: Chan, committed: bool) {
        if let Some(channel) = &mut self.node.gates.channels[chan] {
            channel.end_flush(committed);
        }
    }

    pub(crate) fn gates_missing(&self) -> Vec<String> {
        let missing = (0..USERS).filter_map(|chan| {
            let log = self.store.log(chan);
            let stored = self.store.cursor(Reader::Gates, chan);
            let done = stored
                .as_ref()
                .is_some_and(|(epoch, cursor)| *epoch == log.epoch && cursor.floor() >= log.last());
            let trimmed = log.first > log.last();
            (!done && !trimmed).then(|| {
                let channel = &self.node.gates.channels[chan];
                format!("the gates' {chan} is at {stored:?} of {:?}: {channel:?}", log.head())
            })
        });
        missing.collect()
    }

    pub(crate) fn check_gates_at_the_end(&self) {
        for chan in 0..USERS {
            let log = self.store.log(chan);
            let kept = log.records.iter().skip(log.first as usize - 1).map(|rec| rec.id);
            let kept: BTreeSet<u64> = kept.collect();
            let finished = &self.oracle.gates[chan].finished;
            let mut owed = self.acknowledged(chan).into_iter().filter(|id| kept.contains(id));
            let lost = owed.find(|id| !finished.contains(id));
            invariant!(lost.is_none(), "nothing kept is lost to the gates", "{chan}: {lost:?}");
        }
    }
}
