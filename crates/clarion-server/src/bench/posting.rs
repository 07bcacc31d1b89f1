//! What the publishing workloads have in common, whatever protocol they speak: what to publish, and what came of it.
//! Must not know: how a request is sent.

use std::{
    cell::{Cell, RefCell},
    ops::Range,
    rc::Rc,
};

use tokio::time::Instant;

use super::{
    Bench,
    histogram::Histogram,
    meter::{Faults, Meter},
    payload::{Clock, Stamp},
};

/// What to publish.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Load {
    /// Messages per request; 1 uses the single publish.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) batch: u64,
    /// Messages in all.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 200)]
    pub(super) size: usize,
    /// Users that they are for, in turn.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    users: u64,
    /// Only for those who are there now: nothing is stored.
    #[arg(long)]
    pub(super) live: bool,
}

/// A load while it is published by many callers.
pub(super) struct Posting {
    pub(super) load: Load,
    bench: Rc<Bench>,
    clock: Clock,
    taken: Cell<u64>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    latency: RefCell<Histogram>,
}

impl Posting {
    pub(super) fn new(bench: &Rc<Bench>, load: Load) -> Self {
        Self {
            load,
            bench: Rc::clone(bench),
            clock: Clock::new(),
            taken: Cell::new(0),
            answered: Cell::new(0),
            failed: Cell::new(0),
            latency: RefCell::new(Histogram::new()),
        }
    }

    /// The messages of the next request; `None` when all are under way.
    pub(super) fn take(&self) -> Option<Range<u64>> {
        let first = self.taken.get();
        let end = self.load.messages.min(first + self.load.batch);
        self.taken.set(end);
        (first < end).then_some(first..end)
    }

    /// Who gets the message of this number, and its stamp of this moment.
    pub(super) fn message(&self, n: u64) -> (String, Stamp) {
        let number = (n % (1 << 32)) as u32;
        let stamp = Stamp { lane: 0, number, micros: self.clock.micros() };
        (format!("user:pub-{}", n % self.load.users), stamp)
    }

    /// A request was answered; `failed` of its messages were not taken.
    pub(super) fn done(&self, messages: Range<u64>, failed: u64, asked: Instant) {
        self.latency.borrow_mut().record(asked.elapsed());
        self.failed.set(self.failed.get() + failed);
        self.answered.set(self.answered.get() + (messages.end - messages.start) - failed);
        self.bench.progress.show("published", self.answered.get(), self.load.messages);
    }

    /// Tells what came of it.
    pub(super) fn tell(&self, meter: Meter, name: &str) {
        let faults = Faults { lost: self.failed.get(), ..Faults::default() };
        let latency = self.latency.replace(Histogram::new());
        let server = self.bench.server.as_ref();
        self.bench.tell(&meter.finish(server, name, self.answered.get(), latency, faults));
    }
}
