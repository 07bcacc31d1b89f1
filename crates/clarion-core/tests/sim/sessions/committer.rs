//! The committer: stamps that never fall, what is published before a change of subscriptions and what after, references by the
//! interest of that moment; one batch under way; answers and hints in the order of commits.

use super::oracle::Entitled;
use super::store::{Op, Store, session_key};
use super::{BodyId, Cid, ConnId, Event, Msg, World, topic_log};
use crate::note;
use bytes::Bytes;
use clarion_core::durable::record::{self, InboundRecord, SessionRecord};
use clarion_core::durable::subs::{StoredSub, Subs, Subscribing};
use clarion_core::port::peer::SubOptions;
use clarion_core::{Address, Epoch, Millis, Seq, topic};
use std::collections::{BTreeMap, VecDeque};

/// A change of a session's subscriptions.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Subscribe(&'static str, SubOptions),
    Unsubscribe(&'static str),
    /// Tails that may go: slots, with the stamps of their ends.
    Tidy(Vec<(u32, Millis)>),
    /// A new session takes the place of what was there.
    Clean(Cid),
}

#[derive(Debug, Clone)]
pub(crate) enum Then {
    Nothing,
    Attached,
    Recorded(u16, u64, Msg),
    Published { pid: u16, qos: u8 },
    Removed(u16),
    Window,
    Flushed,
    Ended,
}

pub(crate) enum Job {
    Change(ConnId, u64, Change),
    /// `record`: of a QoS 2 publish, that goes along.
    Publish {
        conn: ConnId,
        number: u64,
        pid: u16,
        key: u64,
        msg: Msg,
        record: bool,
    },
    Ops(ConnId, Vec<Op>, Then),
}

/// What the node is told, in commit order.
#[derive(Debug, Clone)]
pub(crate) enum Post {
    Changed {
        conn: ConnId,
        change: Change,
        at: Millis,
        head: (Epoch, Seq),
    },
    Done(ConnId, Then),
    Hint(BodyId),
    /// That was all up to this stamp.
    Told(Millis),
}

/// What an op's effect is announced by.
enum Step {
    Op(Op),
    Post(Post),
    Told(Told),
}

/// For the oracle, in order.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    Lowered(u64, &'static str),
    Raised(u64, &'static str),
    Unsubscribed(u64, &'static str),
    Began(u64),
    Gone(u64),
}

struct Batch {
    id: u64,
    at: Millis,
    steps: Vec<Step>,
}

#[derive(Default)]
pub(crate) struct Committer {
    pending: VecDeque<Job>,
    under_way: Option<Batch>,
    /// The last stamp, and whether something was published with it.
    pub(crate) stamp: Millis,
    published: bool,
    /// The subscriptions of each session, as they are after the batch under way.
    pub(crate) planned: BTreeMap<u64, Subs>,
    mailbox: VecDeque<Post>,
}

impl Committer {
    pub(crate) fn load(store: &Store) -> Self {
        let numbers = store.numbers().into_iter();
        Self {
            stamp: store.last_at,
            published: true,
            planned: numbers.map(|number| (number, store.subs(number))).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_none() && self.mailbox.is_empty()
    }

    /// Who is entitled to what is published now.
    fn entitled(&self, msg: &Msg, own: Option<u64>) -> Entitled {
        let mut all = Entitled::new();
        for (number, subs) in &self.planned {
            for (_, sub) in subs.iter() {
                let is_own = own == Some(*number);
                if sub.tail.is_none()
                    && sub.options.qos > 0
                    && topic::matches(&sub.filter, msg.topic)
                    && !(is_own && sub.options.no_local)
                {
                    all.entry(*number).or_default().insert(sub.filter.clone());
                }
            }
        }
        all
    }

    /// The filter logs that get a reference; `None`: nobody needs it later.
    fn refs(&self, msg: &Msg) -> Option<Vec<Address>> {
        let subs = self.planned.values().flat_map(Subs::iter).map(|(_, sub)| sub);
        let current = subs.filter(|sub| sub.tail.is_none() && sub.is_durable());
        let matching = current.filter(|sub| topic::matches(&sub.filter, msg.topic));
        let mut logs: Vec<Address> = matching.filter_map(StoredSub::channel).collect();
        logs.sort();
        logs.dedup();
        let interest = !logs.is_empty();
        logs.retain(|log| *log != topic_log(msg.topic));
        interest.then_some(logs)
    }
}

/// The record of a slot's chunk.
fn chunk_op(number: u64, subs: &Subs, slot: u32) -> Op {
    let chunk = slot / record::CHUNK as u32;
    let of =
        |slot: u32| (slot / record::CHUNK as u32 == chunk).then_some(slot as usize % record::CHUNK);
    let those = subs.iter().filter_map(|(slot, sub)| Some((of(slot)? as u8, sub)));
    let those: Vec<(u8, &StoredSub)> = those.collect();
    let key = record::chunk_key(number, chunk);
    if those.is_empty() { Op::Delete(key) } else { Op::Put(key, record::encode_chunk(&those)) }
}

pub(crate) fn session_record(number: u64, ended_at: Option<Millis>) -> Bytes {
    let record = SessionRecord {
        number,
        owner: None,
        user: None,
        expiry_s: u32::MAX,
        created_at: 0,
        ended_at,
        settled: None,
    };
    record.encode()
}

impl World {
    pub(crate) fn submit(&mut self, job: Job) {
        self.committer.pending.push_back(job);
        self.kick_committer();
    }

    pub(crate) fn submit_erase(&mut self, body: BodyId) {
        self.submit(Job::Ops(0, vec![Op::Erase(body)], Then::Nothing));
    }

    fn kick_committer(&mut self) {
        if self.committer.under_way.is_none() && !self.committer.pending.is_empty() {
            self.build();
            let delay = 1 + self.store_delay();
            self.node_after(delay, Event::Commit);
        }
    }

    /// The next batch: it may begin with changes, and ends before the next one.
    fn build(&mut self) {
        let id = self.fresh();
        // Coarse, so that stamps tie.
        let mut at = (self.now / 10).max(self.committer.stamp);
        if matches!(self.committer.pending.front(), Some(Job::Change(..)))
            && self.committer.published
            && at == self.committer.stamp
        {
            at += 1;
        }
        if at > self.committer.stamp {
            self.committer.published = false;
        }
        self.committer.stamp = at;
        let mut steps = Vec::new();
        while let Some(job) = self.committer.pending.pop_front() {
            if matches!(job, Job::Change(..)) && self.committer.published {
                self.committer.pending.push_front(job);
                break;
            }
            self.plan(job, at, &mut steps);
            if steps.len() > 12 && self.rng.chance(500) {
                break;
            }
        }
        self.committer.under_way = Some(Batch { id, at, steps });
    }

    fn plan(&mut self, job: Job, at: Millis, steps: &mut Vec<Step>) {
        match job {
            Job::Change(conn, number, change) => self.plan_change(conn, number, change, at, steps),
            Job::Ops(conn, ops, then) => {
                for mut op in ops {
                    // What a session has unsubscribed from meanwhile has no cursor: an ack would make it anew.
                    if let Op::Ack { number, moves } = &mut op {
                        let subs = self.committer.planned.get(number);
                        let reads = |channel: &Address| {
                            let mut all = subs.into_iter().flat_map(Subs::iter);
                            all.any(|(_, sub)| {
                                sub.is_durable() && sub.channel().as_ref() == Some(channel)
                            })
                        };
                        moves.retain(|(channel, _)| reads(channel));
                    }
                    steps.push(Step::Op(op));
                }
                steps.push(Step::Post(Post::Done(conn, then)));
            }
            Job::Publish { conn, number, pid, key, msg, record } => {
                if record {
                    let value = InboundRecord { key, at }.encode();
                    steps.push(Step::Op(Op::Put(record::inbound_key(number, pid), value)));
                }
                self.committer.published = true;
                if let Some(refs) = self.committer.refs(&msg) {
                    let entitled = self.committer.entitled(&msg, Some(number));
                    steps.push(Step::Op(Op::Append { key, msg, refs, entitled }));
                } else {
                    self.stats.peer_live += 1;
                    self.oracle.lived(msg);
                }
                let then = Then::Published { pid, qos: msg.qos };
                steps.push(Step::Post(Post::Done(conn, then)));
            }
        }
    }

    fn plan_change(
        &mut self,
        conn: ConnId,
        number: u64,
        change: Change,
        at: Millis,
        steps: &mut Vec<Step>,
    ) {
        if let Change::Clean(cid) = change {
            if let Some(old) = self.store.number_of(cid) {
                self.committer.planned.remove(&old);
                steps.push(Step::Op(Op::Put(record::gone_key(old), Bytes::new())));
                steps.push(Step::Told(Told::Gone(old)));
            }
            self.committer.planned.insert(number, Subs::default());
            steps.push(Step::Op(Op::Put(session_key(cid), session_record(number, None))));
            steps.push(Step::Told(Told::Began(number)));
            steps.push(Step::Post(Post::Done(conn, Then::Attached)));
            return;
        }
        // The session may be another one by now.
        let Some(subs) = self.committer.planned.get_mut(&number) else { return };
        let mut head = (1, 0);
        match &change {
            Change::Subscribe(filter, options) => {
                let channel = clarion_core::durable::subs::log_of(filter).expect("it has a log");
                head.1 = self.store.last(&channel);
                let what = subs.subscribing(filter, None, options.qos);
                let (slot, other) = subs.subscribe(filter, None, *options, at, head);
                steps.extend(other.map(|other| Step::Op(chunk_op(number, subs, other))));
                steps.push(Step::Op(chunk_op(number, subs, slot)));
                if options.qos > 0 {
                    steps.push(Step::Op(Op::Start { number, channel }));
                    steps.push(Step::Told(Told::Raised(number, filter)));
                }
                match what {
                    Subscribing::Lowered => {
                        self.stats.peer_lowered += 1;
                        steps.push(Step::Told(Told::Lowered(number, filter)));
                    }
                    Subscribing::New { .. } => self.stats.peer_subscribed += 1,
                    Subscribing::Changed => self.stats.peer_changed += 1,
                    Subscribing::Raised => self.stats.peer_raised += 1,
                    Subscribing::Revived => self.stats.peer_revived += 1,
                }
            }
            Change::Unsubscribe(filter) => {
                let channel = clarion_core::durable::subs::log_of(filter).expect("it has a log");
                head.1 = self.store.last(&channel);
                if let Some(slot) = subs.unsubscribe(filter, None, at, head) {
                    steps.push(Step::Op(chunk_op(number, subs, slot)));
                    steps.push(Step::Told(Told::Unsubscribed(number, filter)));
                    self.stats.peer_tails += u64::from(subs.get(slot).is_some());
                    if subs.get(slot).is_none() && subs.find_tail(filter).is_none() {
                        steps.push(Step::Op(Op::Forget { number, channel }));
                    }
                }
            }
            Change::Tidy(tails) => {
                for &(slot, ended) in tails {
                    let sub = subs.get(slot).filter(|s| s.tail.is_some_and(|t| t.at == ended));
                    if let Some(channel) = sub.and_then(StoredSub::channel) {
                        self.stats.peer_spent += 1;
                        subs.remove(slot);
                        steps.push(Step::Op(chunk_op(number, subs, slot)));
                        steps.push(Step::Op(Op::Forget { number, channel }));
                    }
                }
            }
            Change::Clean(_) => {}
        }
        note!(self.now, "{number} at {at}, head {head:?}: {change:?}");
        steps.push(Step::Post(Post::Changed { conn, change, at, head }));
    }

    pub(crate) fn apply_under_way(&mut self) {
        let Some(batch) = &self.committer.under_way else { return };
        let again = !self.store.applied.insert(batch.id);
        self.store.last_at = self.store.last_at.max(batch.at);
        for step in &batch.steps {
            match step {
                Step::Op(op) if !again => {
                    let appended = self.store.apply(op, batch.at);
                    match (op, appended) {
                        (Op::Append { entitled, .. }, Some((body, true))) => {
                            let Msg { publisher, number, topic, qos } = self.store.bodies[body].msg;
                            let at = batch.at;
                            note!(
                                self.now,
                                "body {body} at {at}: {publisher}/{number} on {topic}, QoS {qos}, for {entitled:?}"
                            );
                            self.stats.peer_published += 1;
                            self.oracle.appended(&self.store, body, entitled);
                        }
                        (Op::Append { .. }, Some((_, false))) => self.stats.peer_inbound_again += 1,
                        (Op::Put(key, value), _) if key.starts_with(record::SESSIONS) => {
                            let session = SessionRecord::decode(value).expect("what was encoded");
                            self.oracle.recorded(session.number, session.ended_at.is_some());
                        }
                        (Op::Erase(_), _) => self.stats.peer_erased += 1,
                        _ => {}
                    }
                }
                Step::Told(told) if !again => self.oracle.told(told),
                _ => {}
            }
        }
    }

    pub(crate) fn commit(&mut self) {
        if self.fault(self.config.unknown) {
            if self.rng.chance(500) {
                self.apply_under_way();
            }
            let delay = 1 + self.store_delay();
            return self.node_after(delay, Event::Commit);
        }
        self.apply_under_way();
        let batch = self.committer.under_way.take().expect("it is under way");
        for step in batch.steps {
            match step {
                Step::Op(Op::Append { key, .. }) => {
                    let body = self.store.keys[&key];
                    self.committer.mailbox.push_back(Post::Hint(body));
                }
                Step::Post(post) => self.committer.mailbox.push_back(post),
                _ => {}
            }
        }
        self.committer.mailbox.push_back(Post::Told(batch.at));
        // A shard may be busy: what is visible is told later.
        let busy = if self.fault(self.config.busy) { 100 } else { 4 };
        let delay = self.rng.range(0, busy);
        self.node_after(delay, Event::Mail);
        self.kick_committer();
    }

    pub(crate) fn mail(&mut self) {
        while let Some(post) = self.committer.mailbox.pop_front() {
            match post {
                Post::Hint(body) => self.hint(body),
                Post::Told(at) => self.node.told = at,
                Post::Done(conn, then) => self.done(conn, then),
                Post::Changed { conn, change, at, head } => self.changed(conn, &change, at, head),
            }
        }
        self.stopped();
    }
}
