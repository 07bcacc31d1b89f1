//! A fan-out's account: what was published, what every stream has of it, and so how much more may be published.
//!
//! Invariant: a message is under way from its publish until every stream has it, or has shown that it will not get it.
//! Must not know: how messages travel.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::{
    Bench, BenchError,
    histogram::Histogram,
    lanes::Lanes,
    meter::{Faults, Meter, Report},
    payload::{Clock, Stamp},
    progress::Progress,
};

/// With no delivery for so long, what is missing is lost.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct Tally {
    clock: Clock,
    window: Semaphore,
    streams: u64,
    messages: u64,
    taken: Cell<u64>,
    sent: Vec<Cell<u32>>,
    received: Cell<u64>,
    settled: Cell<u64>,
    credited: Cell<u64>,
    latency: RefCell<Histogram>,
    faults: RefCell<Faults>,
    changed: Notify,
    finished: Notify,
}

impl Tally {
    /// So many messages, `in_flight` of them at once, from numbered lanes to streams that each read all.
    pub(super) fn new(lanes: u64, streams: u64, messages: u64, in_flight: u64) -> Self {
        Self {
            clock: Clock::new(),
            window: Semaphore::new(in_flight as usize),
            streams,
            messages,
            taken: Cell::new(0),
            sent: (0..lanes).map(|_| Cell::new(0)).collect(),
            received: Cell::new(0),
            settled: Cell::new(0),
            credited: Cell::new(0),
            latency: RefCell::new(Histogram::new()),
            faults: RefCell::default(),
            changed: Notify::new(),
            finished: Notify::new(),
        }
    }

    /// The stamp of this lane's next message, once it may go; `None` when there is none.
    pub(super) async fn next(&self, lane: u32) -> Option<Stamp> {
        if self.taken.get() >= self.messages {
            return None;
        }
        self.window.acquire().await.ok()?.forget();
        self.stamp(lane)
    }

    /// The same, if it may go now.
    pub(super) fn try_next(&self, lane: u32) -> Option<Stamp> {
        if self.taken.get() >= self.messages {
            return None;
        }
        self.window.try_acquire().ok()?.forget();
        self.stamp(lane)
    }

    fn stamp(&self, lane: u32) -> Option<Stamp> {
        if self.taken.get() >= self.messages {
            // Whoever waits for a place has to learn it, too.
            self.window.add_permits(1);
            return None;
        }
        self.taken.set(self.taken.get() + 1);
        let sent = &self.sent[lane as usize];
        let number = sent.replace(sent.get() + 1);
        Some(Stamp { lane, number, micros: self.clock.micros() })
    }

    /// An empty account for one stream.
    pub(super) fn lanes(&self) -> Lanes {
        Lanes::new(self.sent.len())
    }

    /// A stream has got a message.
    pub(super) fn take(&self, progress: &Progress, lanes: &mut Lanes, stamp: Stamp) {
        self.received.set(self.received.get() + 1);
        let micros = self.clock.micros().saturating_sub(stamp.micros);
        self.latency.borrow_mut().record_micros(micros);
        let settled = self.settled.get() + lanes.take(stamp.lane, stamp.number);
        self.settled.set(settled);
        let whole = settled / self.streams;
        if whole > self.credited.get() {
            self.window.add_permits((whole - self.credited.get()) as usize);
            self.credited.set(whole);
            self.changed.notify_one();
            progress.show("delivered", settled, self.messages * self.streams);
        }
    }

    /// Waits until every message is with every stream, or nothing moves any more.
    pub(super) async fn settle(
        &self,
        writers: &mut JoinSet<Result<(), BenchError>>,
    ) -> Result<(), BenchError> {
        let total = self.messages * self.streams;
        while self.settled.get() < total {
            let before = self.settled.get();
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = writers.join_next() => done.map_err(|e| BenchError::Other(e.to_string()))??,
                () = tokio::time::sleep_until(Instant::now() + QUIET) => {
                    if self.settled.get() == before {
                        self.window.close();
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The measurement, without the faults: the streams' accounts come later.
    pub(super) fn report(&self, bench: &Bench, meter: Meter, name: &str) -> Report {
        let latency = self.latency.replace(Histogram::new());
        let received = self.received.get();
        meter.finish(bench.server.as_ref(), name, received, latency, Faults::default())
    }

    /// Tells every reader to settle its account.
    pub(super) fn finish(&self) {
        self.finished.notify_waiters();
    }

    /// Resolves at a [`Self::finish`] that comes after this call.
    pub(super) fn finished(&self) -> impl Future<Output = ()> + '_ {
        self.finished.notified()
    }

    /// One stream's account, at the end.
    pub(super) fn settle_account(&self, lanes: &Lanes) {
        let sent: Vec<u32> = self.sent.iter().map(Cell::get).collect();
        self.faults.borrow_mut().add(lanes.faults(&sent));
    }

    /// The sum of the accounts.
    pub(super) fn faults(&self) -> Faults {
        *self.faults.borrow()
    }
}
