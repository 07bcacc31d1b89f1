//! What peers publish: live at once, stored with the next commit, retained under a number of its own.
//!
//! Invariants: outcomes are told in the order of the publishes; a session whose publish the store does not take yet is not
//! heard until it does, so its order holds and nothing is dropped; what is retained is handed to the committer before it
//! is delivered. Must not know: how a peer's protocol acks.

use super::PeerState;
use super::stored::Once;
use crate::clock;
use crate::committer::{CommitAnswer, Rejected, Reply};
use crate::metrics::VerbCounters;
use crate::retained::{self, Refused};
use crate::sessions::delete;
use crate::shard::deliver::list_dirty;
use crate::shard::session::Session;
use crate::shard::{LiveDone, SessionKey, Shard};
use crate::wills::{DueWill, Hold, Kept};
use clarion_core::port::peer::{Goes, PeerPublish, Receipt};
use clarion_core::port::store::{Change, Done, Expect, Publish, StoreError, Unit};
use clarion_core::{Address, AddressKind, Code, Content, Message, Refusal};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Publishes that go to the committer before the tick ends.
const SUBMIT_UNITS: usize = 64;
/// Wills that wait until the committer takes more.
const PARKED_WILLS_MAX: usize = 1024;

/// Who waits for units of a submission.
#[derive(Debug)]
pub(crate) struct PeerReply {
    /// `None` = nobody, such as for a will.
    key: Option<SessionKey>,
    token: u32,
    units: usize,
    readers: bool,
    /// The packet id of a publish that is taken once.
    once: Option<u16>,
    /// A live message that goes out when that is committed.
    live: Option<Arc<Message>>,
    /// The topic and number of a change of retained messages.
    retained: Option<(Box<str>, u64)>,
    /// Kept until then.
    hold: Option<Hold>,
}

/// Publishes on their way to the committer.
#[derive(Default)]
pub(in crate::shard) struct Publishing {
    units: Vec<Unit>,
    replies: Vec<PeerReply>,
    /// The committer took nothing when it was last asked.
    blocked: bool,
    /// Those that wait until the committer takes more, in order.
    parked: VecDeque<Parked>,
}

impl Publishing {
    /// A session has ended.
    pub(super) fn forget(&mut self, key: SessionKey) {
        if !self.parked.is_empty() {
            self.parked.retain(|parked| parked.key != Some(key));
        }
    }

    /// Whether nothing is on its way to the committer.
    pub(in crate::shard) fn is_empty(&self) -> bool {
        self.units.is_empty() && self.parked.is_empty()
    }
}

struct Parked {
    key: Option<SessionKey>,
    publish: PeerPublish,
    /// Of a will.
    kept: Option<Kept>,
}

/// What became of a publish for now.
enum Outcome {
    /// It is told.
    Told(Result<Receipt, Refusal>),
    /// It is told when it is committed.
    Later,
    /// The committer takes nothing more for now.
    Full,
}

/// How a publish is taken.
#[derive(Default)]
struct Taking<'a> {
    /// Of one that is taken once: the record in front of it, and the key by which it is appended.
    first: Option<Unit>,
    idempotency_key: Option<Box<str>>,
    /// Of a will: its record, which goes with it.
    kept: Option<&'a Kept>,
}

impl Shard {
    /// A peer publishes.
    pub(super) fn peer_publishes(self: &Rc<Self>, key: SessionKey, publish: PeerPublish) {
        let token = publish.token;
        {
            let mut state = self.state.borrow_mut();
            if !state.publishing.parked.is_empty() && self.is_stored(&publish) {
                return park(&mut state, Some(key), publish);
            }
        }
        match self.publish_for(Some(key), &publish, None) {
            Outcome::Told(result) => self.answer_publish(key, token, result),
            Outcome::Later => self.expect_answer(key, token),
            Outcome::Full => park(&mut self.state.borrow_mut(), Some(key), publish),
        }
    }

    /// Whether it goes through the committer.
    fn is_stored(&self, publish: &PeerPublish) -> bool {
        let live = publish.content.qos == 0 && !self.context.config.store_qos0;
        publish.content.retain || (!live && self.context.planner.is_stored(&publish.address))
    }

    /// Publishes for a session, or for nobody. The record of a will goes with it if it is committed.
    fn publish_for(
        self: &Rc<Self>,
        key: Option<SessionKey>,
        publish: &PeerPublish,
        kept: Option<&Kept>,
    ) -> Outcome {
        if let Err(refusal) = self.context.planner.check_taking() {
            return Outcome::Told(Err(refusal));
        }
        let PeerPublish { address, content, once, .. } = publish;
        let live = (content.qos == 0 && !self.context.config.store_qos0)
            || !self.context.planner.is_stored(address);
        if self.state.borrow().publishing.blocked && (once.is_some() || !live) {
            return Outcome::Full;
        }
        let (Some(session), Some(id)) = (key, *once) else {
            return self.publish_as(key, publish, live, Taking { kept, ..Taking::default() });
        };
        let (taking, recorded) = match self.take_once(session, id) {
            Err(refusal) => return Outcome::Told(Err(refusal)),
            // Its id is not free yet: it is taken when that is committed.
            Ok(Once::Wait) => return Outcome::Full,
            Ok(Once::New(text, record)) => {
                (Taking { first: Some(record), idempotency_key: Some(text), kept }, false)
            }
            Ok(Once::Again(text)) if !live => {
                (Taking { first: None, idempotency_key: Some(text), kept }, true)
            }
            Ok(Once::Again(_) | Once::Taken) => {
                self.once_taken(session, id);
                return Outcome::Told(Ok(Receipt { readers: true }));
            }
        };
        let outcome = self.publish_as(key, publish, live, taking);
        if !matches!(outcome, Outcome::Later) {
            // It is not under way: tried again it is new again.
            self.once_refused(session, id, recorded);
        }
        outcome
    }

    /// Publishes what is allowed and new.
    fn publish_as(
        self: &Rc<Self>,
        key: Option<SessionKey>,
        publish: &PeerPublish,
        live: bool,
        taking: Taking<'_>,
    ) -> Outcome {
        let PeerPublish { address, content, token, once } = publish;
        let Taking { first, idempotency_key, kept } = taking;
        let content = &match idempotency_key {
            None => Cow::Borrowed(content),
            key => Cow::Owned(Content { idempotency_key: key, ..content.clone() }),
        };
        let gone = kept.map(|kept| delete(kept.key.clone()));
        let hold = kept.map(|kept| kept.hold.clone());
        if content.retain && address.kind() == AddressKind::Topic {
            let appended = (!live).then(|| self.unit(address, content));
            return self.publish_retained(key, publish, (first.or(gone), appended), hold);
        }
        if live && let Some(record) = first {
            return self.publish_behind(key, publish, record);
        }
        if live {
            let message =
                self.context.planner.live(address.clone(), (**content).clone(), clock::now());
            let readers = self.deliver_everywhere(&message);
            VerbCounters::count(&self.context.planner.counters.live, 1);
            return Outcome::Told(Ok(Receipt { readers }));
        }
        if self.state.borrow().publishing.blocked {
            return Outcome::Full;
        }
        let first = first.or(gone);
        let unit = self.unit(address, content);
        let reply = PeerReply {
            key,
            token: *token,
            units: 1 + usize::from(first.is_some()),
            readers: self.has_readers(address),
            once: *once,
            live: None,
            retained: None,
            hold,
        };
        let mut state = self.state.borrow_mut();
        state.publishing.units.extend(first);
        state.publishing.units.push(unit);
        state.publishing.replies.push(reply);
        let many = state.publishing.units.len() >= SUBMIT_UNITS;
        drop(state);
        if many {
            self.submit_publishes();
        }
        self.context.mailbox.nudge();
        Outcome::Later
    }

    /// A live message that is taken once: it goes out when its record is committed.
    fn publish_behind(
        self: &Rc<Self>,
        key: Option<SessionKey>,
        publish: &PeerPublish,
        record: Unit,
    ) -> Outcome {
        let PeerPublish { address, content, token, once } = publish;
        let planner = &self.context.planner;
        let message = planner.live(address.clone(), content.clone(), clock::now());
        let reply = PeerReply {
            key,
            token: *token,
            units: 1,
            readers: self.has_readers(address),
            once: *once,
            live: Some(message),
            retained: None,
            hold: None,
        };
        let mut state = self.state.borrow_mut();
        state.publishing.units.push(record);
        state.publishing.replies.push(reply);
        drop(state);
        VerbCounters::count(&planner.counters.live, 1);
        self.context.mailbox.nudge();
        Outcome::Later
    }

    fn unit(&self, address: &Address, content: &Content) -> Unit {
        let retention = self.context.config.retention.of(address.kind());
        let mut content = content.clone();
        if let Some(at) = content.expires_at
            && retention.age_ms > 0
        {
            // A life beyond the channel's age is the channel's age, which needs no mark of its own.
            content.expires_at = (at < clock::now() + retention.age_ms).then_some(at);
        }
        Unit::Publish(Publish {
            channel: address.clone(),
            content: Arc::new(content),
            refs: Vec::new(),
            retention,
        })
    }

    /// Whether somebody reads a channel, live or durable, anywhere.
    fn has_readers(&self, channel: &Address) -> bool {
        channel.kind() != AddressKind::Topic || self.context.planner.durable.has(channel) || {
            let interest = self.context.interest.read();
            interest.shards(channel) != 0 || !interest.pick(channel).is_empty()
        }
    }

    /// A message that stays for later subscribers, or clears the one that does.
    fn publish_retained(
        self: &Rc<Self>,
        key: Option<SessionKey>,
        publish: &PeerPublish,
        (first, appended): (Option<Unit>, Option<Unit>),
        hold: Option<Hold>,
    ) -> Outcome {
        let PeerPublish { address, content, token, once } = publish;
        let planner = &self.context.planner;
        let message = planner.live(address.clone(), content.clone(), clock::now());
        let stays = !content.payload.is_empty();
        // What was published before stands before it.
        if !self.submit_publishes() {
            return Outcome::Full;
        }
        let topic = address.id();
        let change = if stays { Change::Put(retained::encode(&message)) } else { Change::Delete };
        let record = Unit::Record { key: retained::key(topic), expect: Expect::Any, change };
        let live = appended.is_none();
        let mut units = Vec::with_capacity(3);
        units.extend(first);
        units.extend(appended);
        units.push(record);
        let readers = self.has_readers(address);
        let kept = stays.then(|| message.clone());
        let changed = self.context.retained.change(topic, kept, |number| {
            let retained = Some((topic.into(), number));
            let (token, units_len) = (*token, units.len());
            let reply = PeerReply {
                key,
                token,
                units: units_len,
                readers,
                once: *once,
                live: None,
                retained,
                hold,
            };
            self.submit(units, vec![reply])
        });
        match changed {
            Ok(()) => {}
            Err(Refused::Full) => {
                let detail = "as many topics have a retained message as may";
                return Outcome::Told(Err(Refusal::new(Code::StoreFull, detail)));
            }
            Err(Refused::Committer(refusal)) if refusal.code == Code::Overloaded => {
                return Outcome::Full;
            }
            Err(Refused::Committer(refusal)) => return Outcome::Told(Err(refusal)),
        }
        if live {
            VerbCounters::count(&planner.counters.live, 1);
            self.deliver_everywhere(&message);
        }
        Outcome::Later
    }

    /// A live message to all who are there, on this shard at once. Returns whether anybody is.
    fn deliver_everywhere(self: &Rc<Self>, message: &Arc<Message>) -> bool {
        let interest = self.context.interest.read();
        let (set, picked) = (interest.shards(&message.channel), interest.pick(&message.channel));
        drop(interest);
        let own = 1 << self.context.index;
        if set & own != 0 {
            self.deliver_live(message);
        }
        if set & !own != 0 {
            for (shard, mailbox) in self.context.mailboxes.iter().enumerate() {
                if (set & !own) >> shard & 1 == 1 {
                    // Nobody waits for what becomes of it there.
                    mailbox
                        .post_live(vec![message.clone()], LiveDone::new(1, oneshot::channel().0));
                }
            }
        }
        for picked in &picked {
            self.deliver_share(message, picked);
        }
        set != 0 || !picked.is_empty()
    }

    /// Hands what was gathered to the committer. Returns whether nothing is left.
    fn submit_publishes(&self) -> bool {
        let (units, replies) = {
            let mut state = self.state.borrow_mut();
            let publishing = &mut state.publishing;
            if publishing.units.is_empty() {
                return true;
            }
            (std::mem::take(&mut publishing.units), std::mem::take(&mut publishing.replies))
        };
        let reply = Reply::Peers { shard: self.context.index, who: replies };
        let Err(Rejected { refusal, units, reply }) = self.context.queue.offer(units, reply) else {
            self.state.borrow_mut().publishing.blocked = false;
            return true;
        };
        let Reply::Peers { who, .. } = reply else { return true };
        if refusal.code == Code::Overloaded {
            let publishing = &mut self.state.borrow_mut().publishing;
            (publishing.units, publishing.replies, publishing.blocked) = (units, who, true);
            return false;
        }
        for reply in who {
            if let Some(key) = reply.key {
                self.published(key, reply.token, Err(refusal.clone()));
            }
        }
        true
    }

    fn submit(&self, units: Vec<Unit>, who: Vec<PeerReply>) -> Result<(), Refusal> {
        let reply = Reply::Peers { shard: self.context.index, who };
        self.context.queue.submit(units, reply, false)
    }

    /// The end of a tick: what was published goes to the committer, and those who wait for room in it try again.
    pub(in crate::shard) fn flush_publishes(self: &Rc<Self>) {
        if !self.submit_publishes() {
            return;
        }
        loop {
            let Some(Parked { key, publish, kept }) =
                self.state.borrow_mut().publishing.parked.pop_front()
            else {
                return;
            };
            let token = publish.token;
            match self.publish_for(key, &publish, kept.as_ref()) {
                Outcome::Full => {
                    let parked = Parked { key, publish, kept };
                    return self.state.borrow_mut().publishing.parked.push_front(parked);
                }
                Outcome::Told(result) => match key {
                    Some(key) => self.answer_publish(key, token, result),
                    None => self.will_was(result, kept),
                },
                Outcome::Later => {
                    if let Some(key) = key {
                        self.expect_answer(key, token);
                    }
                }
            }
            let mut state = self.state.borrow_mut();
            if let Some(key) = key
                && let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of)
            {
                peer.parked = false;
                self.go_on_soon(&mut state, key);
            }
        }
    }

    /// Publishes a will; waits for the committer if need be.
    pub(super) fn publish_for_nobody(self: &Rc<Self>, will: DueWill) {
        let DueWill { publish, kept } = will;
        let must_wait = {
            let state = self.state.borrow();
            !state.publishing.parked.is_empty() && self.is_stored(&publish)
        };
        let outcome =
            if must_wait { Outcome::Full } else { self.publish_for(None, &publish, kept.as_ref()) };
        match outcome {
            Outcome::Told(result) => self.will_was(result, kept),
            Outcome::Later => {}
            Outcome::Full => {
                let parked = &mut self.state.borrow_mut().publishing.parked;
                let of_nobody = |parked: &&Parked| parked.key.is_none() && parked.kept.is_none();
                // Each that has a record took a commit to come to be: the committer bounds them.
                if kept.is_some() || parked.iter().filter(of_nobody).count() < PARKED_WILLS_MAX {
                    parked.push_back(Parked { key: None, publish, kept });
                } else {
                    self.context.counters.dropped_outbox.add(1);
                }
            }
        }
    }

    /// The outcome of a will is known, of which nothing was handed to the committer.
    fn will_was(&self, result: Result<Receipt, Refusal>, kept: Option<Kept>) {
        if let Err(refusal) = result {
            tracing::debug!(%refusal, "a will was not published");
            if refusal.code == Code::ShuttingDown {
                // Its record says so at the next start.
                return;
            }
        }
        self.will_is_over(kept);
    }

    /// The outcome is known; those before it may not be.
    fn answer_publish(&self, key: SessionKey, token: u32, result: Result<Receipt, Refusal>) {
        if token == 0 {
            return;
        }
        let mut state = self.state.borrow_mut();
        let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
        peer.answers.push_back((token, Some(result)));
        drop(state);
        self.tell_answers(key);
    }

    fn expect_answer(&self, key: SessionKey, token: u32) {
        let mut state = self.state.borrow_mut();
        if token != 0
            && let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of)
        {
            peer.answers.push_back((token, None));
        }
    }

    /// The committer is done with publishes of peers.
    pub(in crate::shard) fn publishes_committed(
        self: &Rc<Self>,
        who: Vec<PeerReply>,
        answer: &CommitAnswer,
    ) {
        let mut at = 0;
        for reply in who {
            let PeerReply { key, token, units, readers, once, live, retained, hold } = reply;
            drop(hold);
            let result = match answer {
                Err(error) => Err(crate::node::store_refusal(error.clone())),
                Ok((_, results)) => {
                    let own = results.get(at..at + units).unwrap_or_default();
                    let refused = own.iter().find_map(|done| match done {
                        Done::Refused(code) => Some(*code),
                        _ => None,
                    });
                    refused.map_or(Ok(Receipt { readers }), |code| Err(code.into()))
                }
            };
            at += units;
            if let Some((topic, number)) = retained {
                self.context.retained.committed(&topic, number, result.is_ok());
            }
            let counters = &self.context.planner.counters;
            VerbCounters::count(
                if result.is_ok() { &counters.stored } else { &counters.refused },
                1,
            );
            if result.is_ok()
                && let Some(message) = live
            {
                self.deliver_everywhere(&message);
            }
            if let Some(key) = key {
                if let Some(id) = once {
                    match &result {
                        Ok(_) => self.once_taken(key, id),
                        // A batch that was refused as a whole has left nothing.
                        Err(_) => self.once_refused(key, id, !is_refused(answer)),
                    }
                }
                self.published(key, token, result);
            }
        }
    }

    fn published(&self, key: SessionKey, token: u32, result: Result<Receipt, Refusal>) {
        if token == 0 {
            return;
        }
        {
            let mut state = self.state.borrow_mut();
            let Some(peer) = state.sessions.get_mut(key).and_then(PeerState::of) else { return };
            let waiting = peer.answers.iter_mut().find(|(t, r)| *t == token && r.is_none());
            let Some((_, waiting)) = waiting else { return };
            *waiting = Some(result);
        }
        self.tell_answers(key);
    }

    /// Tells outcomes, as far as those before them are known.
    fn tell_answers(&self, key: SessionKey) {
        let mut end = false;
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let Some(session) = state.sessions.get_mut(key) else { return };
            while !end && session.closing.is_none() {
                let Some(peer) = PeerState::of(session) else { return };
                let Some((token, result)) = peer.answers.pop_front_if(|(_, r)| r.is_some()) else {
                    break;
                };
                let Session { outlet, outbox, .. } = &mut *session;
                if let (Some(peer), Some(result)) = (outlet.peer(), result) {
                    end = peer.published(token, result, outbox.control()) == Goes::End;
                }
            }
            list_dirty(session, &mut state.dirty);
        }
        if end {
            self.peer_ends(key, true);
        }
    }
}

fn is_refused(answer: &CommitAnswer) -> bool {
    matches!(answer, Err(StoreError::Refused { .. }))
}

fn park(state: &mut crate::shard::State, key: Option<SessionKey>, publish: PeerPublish) {
    let peer = key.and_then(|key| state.sessions.get_mut(key)).and_then(PeerState::of);
    if let Some(peer) = peer {
        peer.parked = true;
    }
    state.publishing.parked.push_back(Parked { key, publish, kept: None });
}
