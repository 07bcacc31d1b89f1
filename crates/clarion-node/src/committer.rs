//! The committer: the only place of group commit.
//!
//! Owns: the bounded queue of submissions and one thread that takes what is there, has it committed with one fsync, and
//! hands answers and records on. While a commit runs the next batch gathers. Publishers that were answered together
//! come back one by one: a batch waits for as many as the last one had, at most a quarter of the time that one took, so
//! that an fsync is not spent on the first of them. Who publishes alone never waits. Invariants: a submission
//! is never split; answers come in submission order; the time of batches never falls, also over restarts; what a publish is
//! referred from is worked out here, so that a subscription begins between two publishes for all logs alike; records reach every shard in commit order, before the publisher is
//! answered. Must not know: protocols, what the records mean.

mod hint;
mod stamp;

pub(crate) use stamp::CommitClock;

use crate::clock;
use crate::config::NodeConfig;
use crate::durable::Durable;
use crate::interest::Interest;
use crate::metrics::CommitCounters;
use crate::shard::{Mail, Mailbox, PeerReply, SessionKey, Shard};
use crate::sweeper::Trimmable;
use clarion_core::port::store::{
    Batch, Change, Committed, Done, Durability, Store, StoreError, Unit,
};
use clarion_core::{Address, AddressKind, Code, Content, Millis, Refusal};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Longest wait for the publishers of the last batch.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

/// What became of a submission: how safe it is and one result for each unit.
pub(crate) type CommitAnswer = Result<(Durability, Vec<Done>), StoreError>;

/// Something that runs on a shard when a submission is answered.
pub(crate) type Told = Box<dyn FnOnce(&Rc<Shard>, CommitAnswer) + Send>;

/// Who is told.
pub(crate) enum Reply {
    /// A waiting task.
    Task(oneshot::Sender<CommitAnswer>),
    /// Peers of a shard that publish.
    Peers { shard: usize, who: Vec<PeerReply> },
    /// A shard that writes cursors.
    Flush { shard: usize, who: Flusher },
    /// A shard that does something then.
    Shard { shard: usize, told: Told },
}

/// Units by which subscriptions begin or change: made when the committer knows their time, which lies above that of every
/// earlier batch, so that a message's time says on which side of it the message stands.
pub(crate) struct Begins {
    /// Channels that get durable readers.
    pub(crate) enters: Vec<Address>,
    pub(crate) units: Box<dyn FnOnce(Millis) -> Vec<Unit> + Send>,
}

/// Whose cursors a shard writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flusher {
    /// Those of a device.
    Device(u64),
    /// A shared one.
    Shared(SessionKey),
    /// Those that gates have on users' channels.
    Gates,
    /// Those of a stored session, and its window.
    Stored(SessionKey),
}

struct Submission {
    units: Vec<Unit>,
    begins: Option<Box<Begins>>,
    weight: usize,
    reply: Reply,
}

/// What the queue did not take.
pub(crate) struct Rejected {
    pub(crate) refusal: Refusal,
    pub(crate) units: Vec<Unit>,
    pub(crate) reply: Reply,
}

#[derive(Default)]
struct Waiting {
    submissions: Vec<Submission>,
    units: usize,
    bytes: usize,
    /// The committer is told when so many units wait.
    wanted: usize,
    /// Shards whose peers' publishes were refused for want of room, a bit each.
    refused: u64,
    closed: bool,
}

/// The queue in front of the committer.
pub(crate) struct CommitQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    units_max: usize,
    bytes_max: usize,
    batch_units: usize,
    batch_bytes: usize,
}

impl CommitQueue {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            units_max: config.commit_queue_messages,
            bytes_max: config.commit_queue_bytes,
            batch_units: config.commit_batch_messages,
            batch_bytes: config.commit_batch_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands units in; gives them back when the queue is full or closed.
    pub(crate) fn offer(&self, units: Vec<Unit>, reply: Reply) -> Result<(), Rejected> {
        let weight = units.iter().map(weigh).sum();
        self.put(Submission { units, begins: None, weight, reply }, false).map_err(
            |(refusal, Submission { units, reply, .. })| Rejected { refusal, units, reply },
        )
    }

    /// Hands units in. Refused when the queue is full or closed; acks and records of the node itself (`urgent`) pass
    /// the bound, they are few and bounded by the sessions.
    pub(crate) fn submit(
        &self,
        units: Vec<Unit>,
        reply: Reply,
        urgent: bool,
    ) -> Result<(), Refusal> {
        let weight = units.iter().map(weigh).sum();
        let submission = Submission { units, begins: None, weight, reply };
        self.put(submission, urgent).map_err(|(refusal, _)| refusal)
    }

    /// Hands in what begins subscriptions; `urgent` as for [`Self::submit`].
    pub(crate) fn begin(&self, begins: Begins, reply: Reply, urgent: bool) -> Result<(), Refusal> {
        let weight = 256 * (1 + begins.enters.len());
        let submission =
            Submission { units: Vec::new(), begins: Some(Box::new(begins)), weight, reply };
        self.put(submission, urgent).map_err(|(refusal, _)| refusal)
    }

    fn put(&self, submission: Submission, urgent: bool) -> Result<(), (Refusal, Submission)> {
        let (units, weight) = (submission.size(), submission.weight);
        let mut waiting = self.lock();
        if waiting.closed {
            return Err((Code::ShuttingDown.into(), submission));
        }
        let full =
            waiting.units + units > self.units_max || waiting.bytes + weight > self.bytes_max;
        if full && !urgent && waiting.units > 0 {
            if let Reply::Peers { shard, .. } = &submission.reply {
                waiting.refused |= 1 << shard;
            }
            let refusal = Refusal::new(Code::Overloaded, "too many publishes wait for the store");
            return Err((refusal, submission));
        }
        waiting.units += units;
        waiting.bytes += weight;
        waiting.submissions.push(submission);
        let tell = waiting.units >= waiting.wanted;
        if tell {
            waiting.wanted = usize::MAX;
        }
        drop(waiting);
        if tell {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// No more is taken; the committer ends when it has done what is here.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// The next batch; waits for one, and a little for the publishers of the last one. Empty when the queue is closed
    /// and done.
    fn take(&self, last: &Last) -> Vec<Submission> {
        let mut waiting = self.lock();
        waiting.wanted = 1;
        while waiting.submissions.is_empty() && !waiting.closed {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let worth = last.units;
        if waiting.units < worth && !waiting.closed {
            waiting.wanted = worth;
            let patience = (last.took / 4).min(PATIENCE_MAX);
            let waited = self.arrived.wait_timeout_while(waiting, patience, |waiting| {
                waiting.units < worth && !waiting.closed
            });
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        // While the batch is under way nobody needs to be told.
        waiting.wanted = usize::MAX;
        self.take_bounded(&mut waiting)
    }

    /// Shards that were refused for want of room since the last time.
    fn refused(&self) -> u64 {
        std::mem::take(&mut self.lock().refused)
    }

    /// The next batch if it is worth an fsync already.
    fn take_now(&self, last: &Last) -> Vec<Submission> {
        let mut waiting = self.lock();
        if waiting.units >= last.units.max(1) {
            self.take_bounded(&mut waiting)
        } else {
            Vec::new()
        }
    }

    fn take_bounded(&self, waiting: &mut Waiting) -> Vec<Submission> {
        let (mut units, mut bytes, mut end) = (0, 0, 0);
        for submission in &waiting.submissions {
            let over = units + submission.size() > self.batch_units
                || bytes + submission.weight > self.batch_bytes
                || submission.begins.is_some();
            if over && end > 0 {
                break;
            }
            units += submission.size();
            bytes += submission.weight;
            end += 1;
        }
        waiting.units -= units;
        waiting.bytes -= bytes;
        if end == waiting.submissions.len() {
            return std::mem::take(&mut waiting.submissions);
        }
        waiting.submissions.drain(..end).collect()
    }
}

impl Submission {
    fn size(&self) -> usize {
        self.units.len() + usize::from(self.begins.is_some())
    }
}

fn weigh(unit: &Unit) -> usize {
    match unit {
        Unit::Publish(publish) => publish.content.weight() + publish.channel.as_str().len(),
        Unit::Ack { moves, .. } => 64 * (1 + moves.len()),
        Unit::Record { change, .. } => match change {
            Change::Put(value) => 64 + value.len(),
            Change::Delete => 64,
        },
        Unit::Start { .. } | Unit::Forget { .. } | Unit::Trim { .. } | Unit::Erase { .. } => 64,
    }
}

/// The last batch: how many units it had, and how long its commit took.
#[derive(Default)]
struct Last {
    units: usize,
    took: Duration,
}

/// A publish under way: what the shards will be told when it is committed.
struct Going {
    channel: Address,
    refs: Vec<Address>,
    content: Arc<Content>,
}

/// A batch under way.
struct UnderWay {
    at: Millis,
    replies: Vec<(Reply, usize)>,
    going: Vec<Option<Going>>,
}

/// The committer's thread.
pub(crate) struct Committer {
    pub(crate) queue: Arc<CommitQueue>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) interest: Arc<Interest>,
    pub(crate) mailboxes: Arc<[Arc<Mailbox>]>,
    pub(crate) counters: Arc<CommitCounters>,
    pub(crate) durable: Arc<Durable>,
    pub(crate) trimmable: Arc<Trimmable>,
    pub(crate) clock: CommitClock,
    /// Where the publishers wait.
    pub(crate) runtime: tokio::runtime::Handle,
}

impl Committer {
    /// Runs until the queue is closed and done.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let mut last = Last::default();
        let mut batch = self.queue.take(&last);
        while !batch.is_empty() {
            let (mut under_way, mut commit) = self.begin(batch);
            loop {
                let began = Instant::now();
                let result = runtime.block_on(commit);
                last = Last { units: under_way.going.len(), took: began.elapsed() };
                // What gathered meanwhile goes to the store before this batch's answers are handed on.
                let next = self.queue.take_now(&last);
                if next.is_empty() {
                    self.finish(under_way, result);
                    break;
                }
                let (next_under_way, next_commit) = self.begin(next);
                self.finish(std::mem::replace(&mut under_way, next_under_way), result);
                commit = next_commit;
            }
            batch = self.queue.take(&last);
        }
        let units = vec![self.clock.end()];
        let end = Batch { now: self.clock.last, fence: None, units };
        if self.clock.ceiling > 0
            && let Err(error) = runtime.block_on(self.store.commit(end))
        {
            tracing::debug!(%error, "the last time was not written");
        }
        Ok(())
    }

    fn begin(
        &mut self,
        batch: Vec<Submission>,
    ) -> (UnderWay, impl Future<Output = Result<Committed, StoreError>> + use<>) {
        let mut units = Vec::with_capacity(batch.len());
        let mut under_way =
            UnderWay { at: 0, replies: Vec::with_capacity(batch.len()), going: Vec::new() };
        let begins = batch.iter().any(|submission| submission.begins.is_some());
        let now = self.clock.next(clock::now(), begins);
        under_way.at = now;
        for submission in batch {
            let before = units.len();
            match submission.begins {
                None => units.extend(submission.units),
                Some(begins) => {
                    begins.enters.iter().for_each(|channel| self.durable.enter(channel));
                    units.extend((begins.units)(now));
                }
            }
            self.refer(&mut units[before..]);
            under_way.replies.push((submission.reply, units.len() - before));
        }
        // Who is interested is asked after the commit, not now: a reader that enters while the commit runs may read
        // the head before it is visible, and then needs the hint.
        under_way.going.extend(units.iter().map(|unit| match unit {
            Unit::Publish(publish) => Some(Going {
                channel: publish.channel.clone(),
                refs: publish.refs.clone(),
                content: publish.content.clone(),
            }),
            _ => None,
        }));
        self.counters.batch(units.len());
        units.extend(self.clock.ceiling(now));
        (under_way, self.store.commit(Batch { now, fence: None, units }))
    }

    /// Which filters' logs get references of what is published, and which acks are nobody's.
    fn refer(&self, units: &mut [Unit]) {
        for unit in units {
            self.durable.groups.filter(unit);
            if let Unit::Publish(publish) = unit
                && publish.channel.kind() == AddressKind::Topic
            {
                self.durable.filters_of(&publish.channel, &mut publish.refs);
                if !publish.refs.is_empty() {
                    // The references are enough, unless it has readers of its own.
                    self.trimmable.note(&publish.channel);
                }
            }
        }
    }

    fn finish(&self, under_way: UnderWay, result: Result<Committed, StoreError>) {
        let mut answers = Answers::new(self.mailboxes.len());
        match result {
            Ok(committed) => {
                self.durable.grew(hint::grown(&under_way.going, &committed));
                let mut results = committed.results.iter();
                for (reply, count) in under_way.replies {
                    let part: Vec<Done> = results.by_ref().take(count).cloned().collect();
                    answers.add(reply, Ok((committed.durability, part)));
                }
                // In front of what was published behind it: a subscription knows then that it has begun.
                answers.tell_shards(&self.mailboxes);
                self.hint(under_way.going, &committed);
                self.durable.has_hinted(under_way.at);
            }
            Err(error) => {
                self.counters.failed();
                tracing::debug!(%error, "a commit failed");
                for (reply, _) in under_way.replies {
                    answers.add(reply, Err(error.clone()));
                }
            }
        }
        answers.tell_shards(&self.mailboxes);
        for (mailbox, flushed) in self.mailboxes.iter().zip(answers.flushed) {
            if !flushed.is_empty() {
                mailbox.post_flushed(flushed);
            }
        }
        let refused = self.queue.refused();
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            if refused >> shard & 1 == 1 {
                mailbox.nudge();
            }
        }
        for (shard, who, answer) in answers.peers {
            self.mailboxes[shard].post(Mail::Published(who, answer));
        }
        // Told from within their runtime, the publishers cost it one wake instead of one each.
        let tasks = answers.tasks;
        self.runtime.spawn(async move {
            for (publisher, answer) in tasks {
                // The publisher may have gone; its units took effect all the same.
                let _ = publisher.send(answer);
            }
        });
    }
}

/// The answers of a batch, by who is told.
struct Answers {
    tasks: Vec<(oneshot::Sender<CommitAnswer>, CommitAnswer)>,
    peers: Vec<(usize, Vec<PeerReply>, CommitAnswer)>,
    /// Whose acks were to be written, by shard, and whether they are.
    flushed: Vec<Vec<(Flusher, bool)>>,
    told: Vec<(usize, Told, CommitAnswer)>,
}

impl Answers {
    fn new(shards: usize) -> Self {
        Self {
            tasks: Vec::new(),
            peers: Vec::new(),
            flushed: vec![Vec::new(); shards],
            told: Vec::new(),
        }
    }

    fn tell_shards(&mut self, mailboxes: &[Arc<Mailbox>]) {
        for (shard, told, answer) in self.told.drain(..) {
            mailboxes[shard].post(Mail::Job(Box::new(move |shard| told(shard, answer))));
        }
    }

    fn add(&mut self, reply: Reply, answer: CommitAnswer) {
        match reply {
            Reply::Task(publisher) => self.tasks.push((publisher, answer)),
            Reply::Peers { shard, who } => self.peers.push((shard, who, answer)),
            Reply::Shard { shard, told } => self.told.push((shard, told, answer)),
            Reply::Flush { shard, who } => {
                let refused = |done: &Done| matches!(done, Done::Refused(_));
                let written = answer.is_ok_and(|(_, results)| !results.iter().any(refused));
                self.flushed[shard].push((who, written));
            }
        }
    }
}

#[cfg(test)]
mod tests;
