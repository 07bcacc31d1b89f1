//! The subscriptions of one session that outlives its connections, and the choice among those that overlap.
//!
//! Each subscription of QoS ≥ 1 reads a log of its own: `topic:…` of an exact filter, `filter:…` of one with wildcards. So a
//! message that several of them match is read several times, each at its own time, before and after subscriptions came, went
//! and changed. [`Subs::choose`] is asked each time and lets it through once.
//!
//! Invariants:
//! - Of all subscriptions that a message was published to one *wins*, by what they were at its stamp, never by what they have
//!   become since: so it is the same one whenever it is asked. What a log gives up (`Elsewhere`) the winner's log gives.
//! - In doubt twice, never zero.
//! - For one subscription, and for any number without wildcards, a choice looks nothing up.
//!
//! A message's stamp is ≥ a subscription's `since` exactly if it came after it: stamps never fall, and the batch of a SUBSCRIBE
//! or UNSUBSCRIBE has one above all before. Must not know: who reads, who acks, stored forms.
//!
//! # Tails
//! An UNSUBSCRIBE with something unread behind it makes the subscription a *tail* ([`StoredSub::end`]): it keeps its slot and its
//! cursor and reads its log up to [`Tail::until`] in [`Tail::epoch`] (another epoch: nothing is left of it). With `all` it gives
//! whatever it wins, as one does whose QoS became 0 (a live subscription takes its filter over, in a slot of its own); else only
//! what another own subscription matches as well, since that one has left it to the tail. `find` does not see tails. The same
//! filter subscribed to again takes its tail back ([`StoredSub::revive`]): there is one cursor for a log.
//!
//! A tail says of older messages who wins. So it may go only when *every* log of the session that overlaps with it is read past
//! its stamp, and that is committed: see [`Subs::spent`]. If it goes earlier, what it gave may come twice.

use crate::port::peer::SubOptions;
use crate::{Address, Epoch, Millis, Seq, mutant, topic};

mod change;
mod slots;
pub use change::Subscribing;
pub use slots::Subs;

/// So many changes of QoS are told apart while messages of before may be unread; what is older is in doubt.
const RANKS_MAX: usize = 32;

/// The stamp of a change that is being committed. Until [`Subs::settle`] it is later than all messages.
pub const PENDING: Millis = Millis::MAX;

const RANK_QOS: u8 = 3;
const RANK_NO_LOCAL: u8 = 4;
const RANK_DOUBT: u8 = 8;

/// One subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSub {
    /// What it matches, without `$share/<group>/`.
    pub filter: Box<str>,
    /// The group of a shared one. It takes no part in any choice.
    pub share: Option<Box<str>>,
    /// How it is now.
    pub options: SubOptions,
    /// Stamp of its SUBSCRIBE.
    pub since: Millis,
    /// What it was earlier, each valid for messages with a stamp below (ascending): QoS in two bits, 0 = none at that time;
    /// then No Local; then "in doubt". See [`Self::set_options`].
    pub ranks: Vec<(Millis, u8)>,
    /// It has ended and still gives what was published before.
    pub tail: Option<Tail>,
}

/// What is left of a subscription that ended; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Stamp of its end: it has nothing of this stamp or above.
    pub at: Millis,
    /// The history of its log at its end.
    pub epoch: Epoch,
    /// The head of its log at its end: nothing above is its own.
    pub until: Seq,
    /// It gives all that it wins; else only what another own subscription matches.
    pub all: bool,
}

/// What it was at some stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rank(u8);

impl Rank {
    fn of(options: SubOptions) -> Self {
        Self(options.qos & RANK_QOS | if options.no_local { RANK_NO_LOCAL } else { 0 })
    }

    fn qos(self) -> u8 {
        self.0 & RANK_QOS
    }

    /// Whether it is for a message.
    fn takes(self, own: bool) -> bool {
        self.qos() > 0 && !(own && self.0 & RANK_NO_LOCAL != 0)
    }

    fn in_doubt(self) -> bool {
        self.0 & RANK_DOUBT != 0
    }
}

impl StoredSub {
    /// A new one.
    pub fn new(filter: &str, share: Option<&str>, options: SubOptions, since: Millis) -> Self {
        let share = share.map(Into::into);
        Self { filter: filter.into(), share, options, since, ranks: Vec::new(), tail: None }
    }

    /// The log that it reads; `None` for what is none, as `$SYS/…`: nothing is stored there.
    pub fn channel(&self) -> Option<Address> {
        log_of(&self.filter)
    }

    /// Whether it reads a log by itself.
    pub fn is_durable(&self) -> bool {
        self.share.is_none() && (self.options.qos > 0 || self.tail.is_some())
    }

    fn is_current(&self) -> bool {
        self.tail.is_none()
    }

    /// It is subscribed to again, at this stamp, and keeps its cursor: messages before it stay ranked as they were. From QoS 0 on
    /// it begins anew, at the head. To QoS 0: see [`Subs::subscribe`].
    pub fn set_options(&mut self, options: SubOptions, at: Millis) {
        let (old, new) = (Rank::of(self.options), Rank::of(options));
        self.options = options;
        if old.qos() == 0 {
            self.since = at;
            self.ranks = Vec::new();
        } else if old != new && self.share.is_none() && !mutant!("rank_ignored") {
            self.push_rank(at, old);
        }
    }

    fn push_rank(&mut self, at: Millis, rank: Rank) {
        if self.ranks.last().is_some_and(|(until, _)| *until >= at) {
            // Nothing lies between two changes of one stamp.
            return;
        }
        if self.ranks.len() >= RANKS_MAX {
            self.ranks.remove(0);
            if let Some((_, oldest)) = self.ranks.first_mut() {
                *oldest = RANK_QOS | RANK_DOUBT;
            }
        }
        self.ranks.push((at, rank.0));
    }

    /// A change that was made before its stamp was known ([`PENDING`]) has this one.
    pub fn settle(&mut self, at: Millis) {
        let pending = |stamp: &mut Millis| {
            if *stamp == PENDING {
                *stamp = at;
            }
        };
        pending(&mut self.since);
        self.ranks.iter_mut().for_each(|(until, _)| pending(until));
        self.tail.iter_mut().for_each(|tail| pending(&mut tail.at));
    }

    /// It ends, at this stamp, with its log's head there.
    pub fn end(&mut self, tail: Tail) {
        self.tail = Some(tail);
    }

    /// A tail is subscribed to again, at this stamp: it goes on with its cursor. What was published in between is not its own.
    pub fn revive(&mut self, options: SubOptions, at: Millis) {
        let old = Rank::of(self.options);
        if let Some(tail) = self.tail.take() {
            self.push_rank(tail.at, old);
            if !mutant!("revived_without_hole") {
                self.push_rank(at, Rank(0));
            }
        }
        self.options = options;
    }

    /// Every log of the session is read up to this stamp, and that is committed: what it was before is of no use any more.
    pub fn forget_ranks(&mut self, below: Millis) {
        self.ranks.retain(|(until, _)| *until > below);
    }

    fn rank(&self, at: Millis) -> Rank {
        let earlier = self.ranks.iter().find(|(until, _)| *until > at);
        earlier.map_or_else(|| Rank::of(self.options), |(_, rank)| Rank(*rank))
    }

    /// What it was for a message that it did not bring itself; `None` = not there, or not for it.
    fn stood(&self, at: Millis, own: bool) -> Option<Rank> {
        let there = self.since <= at && self.tail.is_none_or(|tail| at < tail.at);
        let rank = self.rank(at);
        ((there || mutant!("choose_ignores_since")) && rank.takes(own)).then_some(rank)
    }
}

/// The log of a filter; `None` for what is none.
pub fn log_of(filter: &str) -> Option<Address> {
    if filter.starts_with('$') {
        return None;
    }
    if topic::is_wildcard(filter) {
        Address::parse_any(&["filter:", filter].concat()).ok()
    } else {
        Address::topic(filter).ok()
    }
}

/// How a message goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Through the subscription whose log was read.
    Give(Merged),
    /// Through another one, or not at all: it counts as acked here.
    Elsewhere,
}

/// What the matching subscriptions want together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Granted QoS; a message comes with at most its own.
    pub qos: u8,
    /// One of them wants the retain flag as it was published.
    pub retain_as_published: bool,
    /// None of them is allowed as a whole.
    pub check: bool,
    /// Subscription identifiers of all of them, those of QoS 0 too.
    pub ids: Vec<u32>,
}

impl Merged {
    fn add(&mut self, options: SubOptions) {
        self.retain_as_published |= options.retain_as_published;
        self.check &= options.check;
        if options.id != 0 && !self.ids.contains(&options.id) {
            self.ids.push(options.id);
        }
    }
}

impl Subs {
    /// How the message that was read through `slot` goes out. `at` = its stamp; `own`: this client id published it.
    pub fn choose(&self, slot: u32, topic: &str, at: Millis, own: bool) -> Choice {
        let Some(this) = self.get(slot) else { return Choice::Elsewhere };
        // What is in its log came after it, whatever `since` says: somebody may have moved its cursor back.
        let rank = this.rank(at);
        if !rank.takes(own) || this.tail.is_some_and(|tail| at >= tail.at) {
            return Choice::Elsewhere;
        }
        let mut merged = Merged {
            qos: this.options.qos,
            retain_as_published: false,
            check: true,
            ids: Vec::new(),
        };
        merged.add(this.options);
        let ended = this.tail.filter(|tail| !tail.all).is_some();
        let alone = self.unshared == 1 || self.wild == 0 && self.twins == 0;
        if alone {
            return if ended { Choice::Elsewhere } else { Choice::Give(merged) };
        }
        let (mut wins, mut doubt, mut wanted) = (true, rank.in_doubt(), !ended);
        self.matching(topic, |other, sub| {
            if other == slot {
                return;
            }
            if sub.is_current() && !(own && sub.options.no_local) {
                merged.add(sub.options);
            }
            let Some(others) = sub.stood(at, own) else { return };
            doubt |= others.in_doubt();
            wanted |= sub.tail.is_none_or(|tail| tail.all);
            let better = others.qos().cmp(&rank.qos());
            wins &= better.then((this.since, slot).cmp(&(sub.since, other))).is_lt();
        });
        let wanted = wanted && !(ended && mutant!("tail_dropped"));
        if wanted && (wins || doubt) { Choice::Give(merged) } else { Choice::Elsewhere }
    }

    /// As [`Self::choose`] while changes may be under way: `None` if nobody can say yet whether the message came before or after
    /// one, so that it is to be read again later. `told`: all commits up to this stamp have been told here, changes too. A hint
    /// comes in its order and needs no asking; a page may be ahead of what was told.
    pub fn choose_told(
        &self,
        slot: u32,
        topic: &str,
        at: Millis,
        own: bool,
        told: Millis,
    ) -> Option<Choice> {
        let unknown = self.pending && at > told;
        (!unknown).then(|| self.choose(slot, topic, at, own))
    }

    /// Whether one of QoS ≥ 1 matches that has not ended: the session reads what is stored on this topic from a log.
    pub fn has_durable(&self, topic: &str) -> bool {
        let mut has = false;
        self.matching(topic, |_, sub| has |= sub.is_current() && sub.options.qos > 0);
        has
    }
}

#[cfg(test)]
mod tests;
