//! The workloads `fanout` and `pairs`: groups of one publisher and its readers on a topic of their own.
//!
//! A fan-out is one group with many readers, pairs are many groups with one. Invariant of the closed loop: a message is
//! under way from its publish until every reader of its group has it, or has shown that it will not get it; no more than
//! `in_flight` of a group are. Must not know: the broker's insides.

use std::{collections::VecDeque, time::Duration};

use clarion_wire::mqtt::Qos;
use memchr::memmem::Finder;

use super::{
    super::{
        BenchError,
        histogram::Histogram,
        lanes::Lanes,
        meter::{Faults, Meter, Report},
        payload::{Clock, Stamp, TEXT_MARK, find_stamp, put_text},
        progress::Progress,
        tally::QUIET,
    },
    Ground,
    client::{Heard, Session, Wish},
    pool::Pool,
};

/// What flows.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) name: &'static str,
    pub(super) groups: u32,
    pub(super) readers: u32,
    /// Published in each group.
    pub(super) messages: u32,
    pub(super) pace: Pace,
}

/// When the next message goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// When fewer than so many of its group are under way.
    InFlight(u32),
    /// So many a second, over all groups.
    Rate(f64),
}

/// One publisher's account.
#[derive(Debug)]
struct Group {
    topic: String,
    /// How many messages may have been published by now.
    allowed: u32,
    sent: u32,
    /// For each message from the first that is under way: readers that it has to reach.
    under_way: VecDeque<u32>,
    first: u32,
}

/// One reader's.
#[derive(Debug)]
struct Reader {
    group: u32,
    lanes: Lanes,
}

/// The state of a measurement.
struct Run<'a> {
    flow: &'a Flow,
    qos: Qos,
    size: usize,
    clock: Clock,
    finder: Finder<'static>,
    groups: Vec<Group>,
    /// By the client's place; publishers are no readers.
    readers: Vec<Option<Reader>>,
    /// Groups that may have something to publish.
    dirty: Vec<u32>,
    acks_due: u64,
    latency: Histogram,
    /// Messages that the pace has let out, and those that were published.
    allowed: u64,
    sent: u64,
    received: u64,
    settled: u64,
    payload: Vec<u8>,
}

impl Group {
    /// A reader has shown what it has, or will not get, of the messages up to this one.
    fn settle(&mut self, number: u32, count: u64) {
        let from = u64::from(number) + 1 - count;
        for message in from..=u64::from(number) {
            let place = message.checked_sub(u64::from(self.first)).map(|place| place as usize);
            if let Some(left) = place.and_then(|place| self.under_way.get_mut(place)) {
                *left = left.saturating_sub(1);
            }
        }
        while self.under_way.front() == Some(&0) {
            self.under_way.pop_front();
            self.first += 1;
        }
    }
}

impl Flow {
    fn clients(&self) -> u32 {
        self.groups * (self.readers + 1)
    }

    /// The group of the client at this place; its first client publishes.
    fn group_of(&self, place: u32) -> u32 {
        place / (self.readers + 1)
    }

    fn publisher_of(&self, group: u32) -> u32 {
        group * (self.readers + 1)
    }

    fn reads(&self, place: u32) -> bool {
        place != self.publisher_of(self.group_of(place))
    }
}

/// Measures.
pub(super) fn run(ground: &Ground<'_>, flow: &Flow) -> Result<Report, BenchError> {
    let mut pool = Pool::new(&ground.plan)?;
    let topic = |group: u32| format!("{}/{group}", ground.topic);
    let wishes = (0..flow.clients()).map(|n| {
        let subscription = || (topic(flow.group_of(n)), ground.subscribe_qos);
        Wish {
            client_id: ground.client_id(n),
            from: ground.source(n),
            session: Session::Clean,
            subscription: flow.reads(n).then(subscription),
            beside: 0,
        }
    });
    pool.open(wishes, ground.opening, &mut Histogram::new(), ground.progress)?;
    let mut run = Run::new(ground, flow, (0..flow.groups).map(topic));
    let meter = Meter::start(ground.server);
    let result = run.drive(&mut pool, ground.progress);
    let latency = std::mem::replace(&mut run.latency, Histogram::new());
    let faults = run.faults();
    let report = meter.finish(ground.server, flow.name, run.received, latency, faults);
    result.map(|()| report)
}

impl<'a> Run<'a> {
    fn new(ground: &Ground<'_>, flow: &'a Flow, topics: impl Iterator<Item = String>) -> Self {
        let allowed = match flow.pace {
            Pace::InFlight(_) => flow.messages,
            Pace::Rate(_) => 0,
        };
        let group = |topic| Group { topic, allowed, sent: 0, under_way: VecDeque::new(), first: 0 };
        let reader = |n: u32| {
            flow.reads(n).then(|| Reader { group: flow.group_of(n), lanes: Lanes::new(1) })
        };
        Self {
            flow,
            qos: ground.qos,
            size: ground.size,
            clock: Clock::new(),
            finder: Finder::new(TEXT_MARK),
            groups: topics.map(group).collect(),
            readers: (0..flow.clients()).map(reader).collect(),
            dirty: (0..flow.groups).collect(),
            acks_due: 0,
            latency: Histogram::new(),
            allowed: 0,
            sent: 0,
            received: 0,
            settled: 0,
            payload: Vec::new(),
        }
    }

    /// Publishes and reads until every reader has everything and every publish its ack, or nothing moves any more.
    fn drive(&mut self, pool: &mut Pool, progress: &Progress) -> Result<(), BenchError> {
        let total = u64::from(self.flow.messages)
            * u64::from(self.flow.groups)
            * u64::from(self.flow.readers);
        let mut heard_at = self.clock.micros();
        loop {
            let due = self.allow();
            self.publish(pool)?;
            if due.is_none() && self.settled >= total && self.acks_due == 0 {
                return Ok(());
            }
            // One look at the clock for all that a client has read at once.
            let (clock, mut last) = (self.clock, (usize::MAX, 0));
            let woken = pool.wake(Some(due.unwrap_or(QUIET)), |place, heard| {
                if last.0 != place {
                    last = (place, clock.micros());
                }
                self.hear(place, heard, last.1);
            })?;
            let waiting = self.settled < self.sent * u64::from(self.flow.readers);
            if woken || !(waiting || self.acks_due > 0) {
                heard_at = clock.micros();
                progress.show("delivered", self.settled, total);
            } else if clock.micros() - heard_at >= QUIET.as_micros() as u64 {
                return Ok(());
            }
        }
    }

    /// Lets out what is due by now; answers when the next is, if the pace is a rate. The last message's turn lasts as long
    /// as the others'.
    fn allow(&mut self) -> Option<Duration> {
        let Pace::Rate(rate) = self.flow.pace else { return None };
        let total = u64::from(self.flow.messages) * u64::from(self.flow.groups);
        let elapsed = self.clock.micros() as f64 / 1e6;
        let due = ((elapsed * rate) as u64 + 1).min(total);
        while self.allowed < due {
            let group = (self.allowed % u64::from(self.flow.groups)) as u32;
            self.groups[group as usize].allowed += 1;
            self.dirty.push(group);
            self.allowed += 1;
        }
        let left = self.allowed as f64 / rate - elapsed;
        (left > 0.0).then(|| Duration::from_secs_f64(left))
    }

    fn hear(&mut self, place: usize, heard: Heard<'_>, micros: u64) {
        match heard {
            Heard::Ready | Heard::Present | Heard::Held | Heard::Released | Heard::Gone => {}
            Heard::Acked => {
                self.acks_due = self.acks_due.saturating_sub(1);
                let group = self.flow.group_of(place as u32);
                if self.dirty.last() != Some(&group) {
                    self.dirty.push(group);
                }
            }
            Heard::Message(payload) => {
                let Some(Some(reader)) = self.readers.get_mut(place) else { return };
                let Some(stamp) = find_stamp(&self.finder, payload) else { return };
                if stamp.lane != reader.group {
                    return;
                }
                self.received += 1;
                self.latency.record_micros(micros.saturating_sub(stamp.micros));
                let count = reader.lanes.take(0, stamp.number);
                if count == 0 {
                    return;
                }
                self.settled += count;
                let group = &mut self.groups[reader.group as usize];
                let before = group.first;
                group.settle(stamp.number, count);
                if group.first > before {
                    self.dirty.push(reader.group);
                }
            }
        }
    }

    /// Publishes what may go in the groups that something has changed for.
    fn publish(&mut self, pool: &mut Pool) -> Result<(), BenchError> {
        let in_flight = match self.flow.pace {
            Pace::InFlight(most) => most as usize,
            Pace::Rate(_) => usize::MAX,
        };
        let (flow, size, qos, clock) = (self.flow, self.size, self.qos, self.clock);
        for lane in self.dirty.drain(..) {
            let group = &mut self.groups[lane as usize];
            let payload = &mut self.payload;
            let (acks_due, sent) = (&mut self.acks_due, &mut self.sent);
            pool.send_from(flow.publisher_of(lane) as usize, |client, out| {
                while group.sent < group.allowed
                    && group.under_way.len() < in_flight
                    && client.may_publish(qos)
                {
                    payload.clear();
                    let stamp = Stamp { lane, number: group.sent, micros: clock.micros() };
                    put_text(payload, stamp, size);
                    client.put_publish(out, &group.topic, qos, payload);
                    group.sent += 1;
                    *sent += 1;
                    group.under_way.push_back(flow.readers);
                    *acks_due += u64::from(qos != Qos::AtMostOnce);
                }
            })?;
        }
        Ok(())
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        for reader in self.readers.iter().flatten() {
            faults.add(reader.lanes.faults(&[self.groups[reader.group as usize].sent]));
        }
        faults
    }
}

#[cfg(test)]
mod tests;
