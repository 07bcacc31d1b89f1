//! The account of messages that each reach one of several readers: who published what, what came, what came again.
//!
//! Invariant: a message counts as received once, whoever got it. Must not know: how messages travel.

use std::cell::{Cell, RefCell};

use prost::Message;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        Bench, BenchError,
        histogram::Histogram,
        meter::{Faults, Meter, Report},
        payload::{Clock, Stamp},
        tally::QUIET,
    },
    client::{Connection, Method},
    joined,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    clock: Clock,
    messages: u64,
    /// Channels that one lane's messages go to in turn; order is kept in each.
    slots: u32,
    taken: Cell<u64>,
    sent: Vec<Cell<u32>>,
    got: RefCell<Vec<Vec<bool>>>,
    received: Cell<u64>,
    faults: RefCell<Faults>,
    latency: RefCell<Histogram>,
    changed: Notify,
    finished: Notify,
}

/// What one reader has seen last of each lane and slot.
#[derive(Debug)]
pub(super) struct Order(Vec<u32>);

impl Flow {
    pub(super) fn new(lanes: u64, slots: u64, messages: u64) -> Self {
        Self {
            clock: Clock::new(),
            messages,
            slots: u32::try_from(slots.max(1)).unwrap_or(u32::MAX),
            taken: Cell::new(0),
            sent: (0..lanes).map(|_| Cell::new(0)).collect(),
            got: RefCell::new(vec![Vec::new(); lanes as usize]),
            received: Cell::new(0),
            faults: RefCell::default(),
            latency: RefCell::new(Histogram::new()),
            changed: Notify::new(),
            finished: Notify::new(),
        }
    }

    fn next(&self, lane: u32) -> Option<Stamp> {
        let taken = self.taken.get();
        if taken >= self.messages {
            return None;
        }
        self.taken.set(taken + 1);
        let sent = &self.sent[lane as usize];
        let number = sent.replace(sent.get() + 1);
        Some(Stamp { lane, number, micros: self.clock.micros() })
    }

    /// Which of its channels a message goes to.
    pub(super) fn slot(&self, stamp: Stamp) -> u32 {
        stamp.number % self.slots
    }

    /// Publishes a lane's messages, one under way.
    pub(super) async fn produce<M: Message>(
        &self,
        mut connection: Connection,
        method: &Method,
        lane: u32,
        request: impl Fn(Stamp) -> M,
    ) -> Result<(), BenchError> {
        while let Some(stamp) = self.next(lane) {
            connection.call(method, &request(stamp)).await?;
        }
        Ok(())
    }

    /// What a new reader has seen.
    pub(super) fn order(&self) -> Order {
        Order(vec![0; self.sent.len() * self.slots as usize])
    }

    /// A reader has got a message.
    pub(super) fn take(&self, bench: &Bench, order: &mut Order, stamp: Stamp) {
        let mut got = self.got.borrow_mut();
        let Some(lane) = got.get_mut(stamp.lane as usize) else { return };
        let number = stamp.number as usize;
        if lane.len() <= number {
            lane.resize(number + 1, false);
        }
        let mut faults = self.faults.borrow_mut();
        if std::mem::replace(&mut lane[number], true) {
            faults.repeated += 1;
            return;
        }
        let next = &mut order.0[(stamp.lane * self.slots + self.slot(stamp)) as usize];
        if stamp.number < *next {
            faults.reordered += 1;
        }
        *next = (*next).max(stamp.number + 1);
        let micros = self.clock.micros().saturating_sub(stamp.micros);
        self.latency.borrow_mut().record_micros(micros);
        self.received.set(self.received.get() + 1);
        self.changed.notify_one();
        bench.progress.show("received", self.received.get(), self.messages);
    }

    /// Waits until every message was received, or nothing comes any more. A task that fails ends the run.
    pub(super) async fn settle(
        &self,
        tasks: &mut JoinSet<Result<(), BenchError>>,
    ) -> Result<(), BenchError> {
        while self.received.get() < self.messages {
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = tasks.join_next() => joined(done)?,
                () = sleep_until(Instant::now() + QUIET) => break,
            }
        }
        Ok(())
    }

    /// Tells the readers to end, and waits for them.
    pub(super) async fn finish(
        &self,
        tasks: &mut JoinSet<Result<(), BenchError>>,
    ) -> Result<(), BenchError> {
        self.finished.notify_waiters();
        while let Some(done) = tasks.join_next().await {
            joined(done)?;
        }
        Ok(())
    }

    /// Resolves at a [`Self::finish`] that comes after this call.
    pub(super) fn finished(&self) -> impl Future<Output = ()> + '_ {
        self.finished.notified()
    }

    /// The measurement.
    pub(super) fn report(&self, bench: &Bench, meter: Meter, name: &str) -> Report {
        let latency = self.latency.replace(Histogram::new());
        let received = self.received.get();
        // What came more than once is counted apart.
        let lost = self.messages.saturating_sub(received);
        let faults = Faults { lost, ..*self.faults.borrow() };
        meter.finish(bench.server.as_ref(), name, received, latency, faults)
    }
}
