//! Random histories of one session against plain sets: who was entitled to a message when it was published, and how often it
//! was given when its logs were read at any later time.

use super::*;
use crate::topic;
use std::collections::{BTreeMap, BTreeSet};

const FILTERS: [&str; 12] =
    ["a", "b", "a/a", "a/b", "b/a", "+", "a/+", "+/a", "+/+", "#", "a/#", "+/#"];
const TOPICS: [&str; 5] = ["a", "b", "a/a", "a/b", "b/a"];

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        filter: usize,
        qos: u8,
        no_local: bool,
    },
    Unsubscribe {
        filter: usize,
    },
    Publish {
        topic: usize,
        own: bool,
        tick: bool,
    },
    /// So many records of the log of one of the session's subscriptions.
    Read {
        which: prop::sample::Index,
        count: usize,
    },
    /// What is spent goes.
    Tidy,
}

fn step(filters: usize) -> impl Strategy<Value = Step> {
    let subscribe = (0..filters, 0..3_u8, prop::bool::weighted(0.2));
    let publish = (0..TOPICS.len(), prop::bool::weighted(0.2), any::<bool>());
    prop_oneof![
        4 => subscribe.prop_map(|(filter, qos, no_local)| Step::Subscribe { filter, qos, no_local }),
        2 => (0..filters).prop_map(|filter| Step::Unsubscribe { filter }),
        6 => publish.prop_map(|(topic, own, tick)| Step::Publish { topic, own, tick }),
        6 => (any::<prop::sample::Index>(), 1..4_usize)
            .prop_map(|(which, count)| Step::Read { which, count }),
        2 => Just(Step::Tidy),
    ]
}

struct Published {
    at: Millis,
    topic: &'static str,
    own: bool,
    /// The filters that it was published to and that have not been unsubscribed since.
    entitled: BTreeSet<&'static str>,
    /// At least one was there.
    owed: bool,
    given: usize,
}

#[derive(Default)]
struct World {
    subs: Subs,
    now: Millis,
    /// Something was published at `now`.
    published_now: bool,
    published: Vec<Published>,
    /// The session's cursors: how many of all publishes are read (or were before) of this log.
    cursors: BTreeMap<Box<str>, usize>,
    /// What the session has subscribed to: QoS and No Local.
    current: BTreeMap<&'static str, (u8, bool)>,
    /// What of a filter became QoS 0 and goes on all the same.
    lowered: BTreeSet<(&'static str, usize)>,
    doubts: bool,
}

impl World {
    /// The stamp of a change: above all that was published.
    fn change(&mut self) -> Millis {
        self.now += u64::from(std::mem::take(&mut self.published_now));
        self.now
    }

    fn head(&self) -> (Epoch, Seq) {
        (1, self.published.len() as Seq)
    }

    fn subscribe(&mut self, filter: &'static str, qos: u8, no_local: bool) {
        let at = self.change();
        let options = SubOptions { qos, no_local, ..SubOptions::default() };
        let what = self.subs.subscribing(filter, None, qos);
        let (slot, _) = self.subs.subscribe(filter, None, options, at, self.head());
        if qos > 0 {
            let head = self.published.len();
            let kept = self.cursors.contains_key(filter);
            assert_eq!(
                what == Subscribing::New { starts: true },
                !kept && what != Subscribing::Raised
            );
            self.cursors.entry(filter.into()).or_insert(head);
            // Its backlog is its own again, and ends with it.
            self.lowered.retain(|(other, _)| *other != filter);
        } else if what == Subscribing::Lowered {
            for (i, message) in self.published.iter().enumerate() {
                if message.entitled.contains(filter) {
                    self.lowered.insert((filter, i));
                }
            }
        }
        self.doubts |= self.subs.get(slot).is_some_and(|sub| sub.ranks.len() >= RANKS_MAX);
        self.current.insert(filter, (qos, no_local));
    }

    fn unsubscribe(&mut self, filter: &'static str) {
        let at = self.change();
        let slot = self.subs.unsubscribe(filter, None, at, self.head());
        assert_eq!(slot.is_some(), self.current.remove(filter).is_some());
        for (i, message) in self.published.iter_mut().enumerate() {
            if !self.lowered.contains(&(filter, i)) {
                message.entitled.remove(filter);
            }
        }
        if self.subs.find_tail(filter).is_none() {
            self.cursors.remove(filter);
        }
    }

    fn publish(&mut self, topic: &'static str, own: bool, tick: bool) {
        self.now += u64::from(tick);
        self.published_now = true;
        let entitled = self.current.iter().filter(|(filter, (qos, no_local))| {
            *qos > 0 && topic::matches(filter, topic) && !(own && *no_local)
        });
        let entitled: BTreeSet<_> = entitled.map(|(filter, _)| *filter).collect();
        let owed = !entitled.is_empty();
        self.published.push(Published { at: self.now, topic, own, entitled, owed, given: 0 });
    }

    /// The next unread message of a subscription's log.
    fn next(&self, slot: u32) -> Option<usize> {
        let sub = self.subs.get(slot).filter(|sub| sub.is_durable())?;
        let end = sub.tail.map_or(self.published.len(), |tail| tail.until as usize);
        let from = self.cursors[&sub.filter];
        (from..end).find(|i| topic::matches(&sub.filter, self.published[*i].topic))
    }

    fn read(&mut self, slot: u32) -> bool {
        let Some(next) = self.next(slot) else { return false };
        let message = &mut self.published[next];
        let choice = self.subs.choose(slot, message.topic, message.at, message.own);
        message.given += usize::from(choice != Choice::Elsewhere);
        let filter = self.subs.get(slot).unwrap().filter.clone();
        self.cursors.insert(filter, next + 1);
        true
    }

    fn read_to(&self, slot: u32) -> Millis {
        self.next(slot).map_or(self.now, |next| self.published[next].at)
    }

    fn tidy(&mut self) {
        for slot in self.subs.spent(|slot| self.read_to(slot)) {
            let sub = self.subs.remove(slot).unwrap();
            assert!(sub.tail.is_some());
            self.cursors.remove(&sub.filter);
        }
        let slots: Vec<u32> = self.subs.iter().map(|(slot, _)| slot).collect();
        let logs = slots.iter().filter(|slot| self.subs.get(**slot).unwrap().is_durable());
        let least = logs.map(|slot| self.read_to(*slot)).min().unwrap_or(0);
        for slot in slots {
            self.subs.get_mut(slot).unwrap().forget_ranks(least);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe { filter, qos, no_local } => {
                self.subscribe(FILTERS[*filter], *qos, *no_local);
            }
            Step::Unsubscribe { filter } => self.unsubscribe(FILTERS[*filter]),
            Step::Publish { topic, own, tick } => self.publish(TOPICS[*topic], *own, *tick),
            Step::Read { which, count } => {
                let slots: Vec<u32> = self.subs.iter().map(|(slot, _)| slot).collect();
                if let Some(&slot) = slots.get(which.index(slots.len().max(1))) {
                    (0..*count).for_each(|_| {
                        self.read(slot);
                    });
                }
            }
            Step::Tidy => self.tidy(),
        }
    }

    fn finish(&mut self) {
        let slots: Vec<u32> = self.subs.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            while self.read(slot) {}
        }
        self.tidy();
        assert!(self.subs.iter().all(|(_, sub)| sub.tail.is_none()), "all tails are spent");
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (i, message) in self.published.iter().enumerate() {
            let Published { at, topic, given, .. } = message;
            if message.owed && !message.entitled.is_empty() {
                prop_assert!(*given > 0, "{i}, {topic} of {at}, is lost");
            }
            if !message.owed {
                prop_assert!(*given == 0 || self.doubts, "{i}, {topic} of {at}, is nobody's");
            }
            prop_assert!(*given <= 1 || self.doubts, "{i}, {topic} of {at}: {given} times");
        }
        Ok(())
    }
}

fn run(steps: &[Step]) -> Result<bool, TestCaseError> {
    let mut world = World::default();
    for step in steps {
        world.step(step);
    }
    world.finish();
    world.check()?;
    Ok(world.doubts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn every_message_goes_through_once(
        filters in 1..=FILTERS.len(),
        steps in prop::collection::vec(step(FILTERS.len()), 1..80),
    ) {
        // Few filters: tails and changes of the same ones; many: the index.
        let steps: Vec<Step> = steps.into_iter().map(|mut step| {
            if let Step::Subscribe { filter, .. } | Step::Unsubscribe { filter } = &mut step {
                *filter = FILTERS.len() - 1 - *filter % filters;
            }
            step
        }).collect();
        prop_assert!(!run(&steps)? || steps.len() > RANKS_MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn after_more_changes_than_are_told_apart_nothing_is_lost(
        steps in prop::collection::vec((0..3_usize, 0..8_u8, 1..3_u8, any::<prop::sample::Index>()), 100..400),
    ) {
        let mut world = World::default();
        for (filter, what, qos, which) in steps {
            let filter = 9 + filter;
            world.step(&match what {
                0..4 => Step::Subscribe { filter, qos, no_local: false },
                4..7 => Step::Publish { topic: 2, own: false, tick: true },
                _ => Step::Read { which, count: 1 },
            });
        }
        world.finish();
        world.check()?;
    }
}
