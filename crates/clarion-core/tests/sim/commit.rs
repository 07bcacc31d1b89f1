//! The node's committer, as a model: one batch under way, the next one gathers; outcomes as the store's port names
//! them; hints in commit order.

use crate::node::Sid;
use crate::store::{Done, Reader, Unit};
use crate::world::{Chan, Dev, Event, World};
use crate::{invariant, note};
use clarion_core::window::Mark;
use clarion_core::{Epoch, Millis, Seq};

/// Who waits for a unit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Publisher { chan: Chan, id: u64 },
    Flush(Dev),
    Start(Sid, Dev),
    Window(Dev, Mark),
    SharedFlush(usize),
    GateFlush(Chan),
    Dead { shared: usize, epoch: Epoch, seq: Seq },
}

#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) unit: Unit,
    pub(crate) then: Then,
}

/// A committed record on its way to the live lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HintOf {
    pub(crate) chan: Chan,
    pub(crate) epoch: Epoch,
    pub(crate) seq: Seq,
    pub(crate) id: u64,
}

const PENDING_MAX: usize = 64;

#[derive(Default)]
pub(crate) struct Committer {
    pending: Vec<Job>,
    under_way: Vec<Job>,
    /// Something took effect though its outcome was unknown, and was refused when it was sent again: it has no hint.
    pub(crate) unhinted: bool,
}

impl World {
    pub(crate) fn submit_publish(&mut self, chan: Chan, id: u64, expires: Option<Millis>) {
        if self.node.committer.pending.len() >= PENDING_MAX && !self.calm {
            return;
        }
        let unit = Unit::Publish { chan, id, expires };
        self.submit(vec![Job { unit, then: Then::Publisher { chan, id } }]);
    }

    pub(crate) fn submit(&mut self, jobs: Vec<Job>) {
        self.node.committer.pending.extend(jobs);
        self.kick_committer();
    }

    fn kick_committer(&mut self) {
        let committer = &mut self.node.committer;
        if committer.under_way.is_empty() && !committer.pending.is_empty() {
            committer.under_way = std::mem::take(&mut committer.pending);
            let delay = 1 + self.store_delay();
            self.node_after(delay, Event::Commit);
        }
    }

    pub(crate) fn commit_done(&mut self) {
        if self.fault(self.config.unknown) {
            self.stats.unknown += 1;
            if self.rng.chance(500) {
                let units = units(&self.node.committer.under_way);
                self.apply(&units);
            }
            note!(self.now, "commit: outcome unknown, sent again");
            let delay = 1 + self.store_delay();
            return self.node_after(delay, Event::Commit);
        }
        let jobs = std::mem::take(&mut self.node.committer.under_way);
        if self.fault(self.config.refuse) {
            self.stats.refused += 1;
            note!(self.now, "commit of {} units refused", jobs.len());
            for job in jobs {
                self.job_failed(&job);
            }
        } else {
            let results = self.apply(&units(&jobs));
            for (job, done) in jobs.iter().zip(results) {
                self.job_done(job, done);
            }
            let delay = self.rng.range(0, 4);
            self.node_after(delay, Event::Mail);
        }
        self.kick_committer();
    }

    /// A crash while a batch is under way: it took effect or not, nobody heard.
    pub(crate) fn crash_committer(&mut self) {
        if self.rng.chance(500) {
            let units = units(&self.node.committer.under_way);
            self.apply(&units);
        }
    }

    fn apply(&mut self, units: &[Unit]) -> Vec<Done> {
        let results = self.store.apply(self.now, units);
        for unit in units {
            match unit {
                Unit::Window { dev, bytes } => self.oracle.window_stored(*dev, bytes),
                Unit::Ack { reader: Reader::Device(dev), moves } => {
                    self.oracle.check_stored(*dev, moves, &self.addresses);
                }
                _ => {}
            }
        }
        results
    }

    fn job_done(&mut self, job: &Job, done: Done) {
        match (job.then, done) {
            (Then::Publisher { chan, id }, Done::Published { epoch, seq }) => {
                note!(self.now, "published {id} as {chan}/{epoch}/{seq}");
                self.stats.published += 1;
                self.oracle.published(chan, id);
                if self.fault(self.config.hint_lost) {
                    self.stats.hints_lost += 1;
                } else {
                    self.node.mailbox.push_back(HintOf { chan, epoch, seq, id });
                }
            }
            (Then::Publisher { .. }, _) => self.stats.queue_full += 1,
            (Then::Dead { shared, epoch, seq }, done) => {
                let stored = matches!(done, Done::Published { .. });
                invariant!(stored, "a dead list takes the dead", "{done:?}");
                self.buried(shared, epoch, seq);
            }
            (Then::Flush(dev), _) => self.flush_ended(dev, true),
            (Then::Start(sid, dev), _) => self.start_done(sid, dev, true),
            (Then::Window(dev, mark), _) => self.window_stored(dev, Some(mark)),
            (Then::SharedFlush(i), _) => self.shared_flushed(i, true),
            (Then::GateFlush(chan), _) => self.gate_flushed(chan, true),
        }
    }

    fn job_failed(&mut self, job: &Job) {
        match job.then {
            Then::Publisher { chan, id } => {
                self.node.committer.unhinted |= self.store.has(chan, id);
                // Half of the publishers try again, with the same key.
                if self.rng.chance(500)
                    && let Unit::Publish { expires, .. } = job.unit
                {
                    self.submit_publish(chan, id, expires);
                }
            }
            Then::Flush(dev) => self.flush_ended(dev, false),
            Then::Start(sid, dev) => self.start_done(sid, dev, false),
            Then::Window(dev, _) => self.window_stored(dev, None),
            Then::SharedFlush(i) => self.shared_flushed(i, false),
            Then::GateFlush(chan) => self.gate_flushed(chan, false),
            Then::Dead { shared, epoch, seq } => self.bury(shared, epoch, seq),
        }
    }
}

fn units(jobs: &[Job]) -> Vec<Unit> {
    jobs.iter().map(|job| job.unit.clone()).collect()
}
