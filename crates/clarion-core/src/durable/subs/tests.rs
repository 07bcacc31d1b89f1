//! Tables of choices, the index against a scan; histories are in `model`.

use super::{slots::SCANNED, *};
use proptest::prelude::*;

mod model;

fn options(qos: u8, id: u32) -> SubOptions {
    SubOptions { qos, id, ..SubOptions::default() }
}

fn sub(filter: &str, qos: u8, since: Millis, id: u32) -> StoredSub {
    StoredSub::new(filter, None, options(qos, id), since)
}

fn given(choice: Choice) -> Option<(u8, Vec<u32>)> {
    match choice {
        Choice::Give(merged) => Some((merged.qos, merged.ids)),
        Choice::Elsewhere => None,
    }
}

const HEAD: (Epoch, Seq) = (1, 9);

#[test]
fn logs_of_filters() {
    let log = |filter| log_of(filter).map(|address| address.as_str().to_string());
    assert_eq!(log("a/b").as_deref(), Some("topic:a/b"));
    assert_eq!(log("a/+").as_deref(), Some("filter:a/+"));
    assert_eq!(log("#").as_deref(), Some("filter:#"));
    assert_eq!((log("$SYS/#"), log("$x"), log("a\u{1}")), (None, None, None));
}

#[test]
fn one_alone_gives_what_its_log_has() {
    let mut subs = Subs::default();
    let slot = subs.insert(sub("a", 1, 5, 3));
    assert_eq!(given(subs.choose(slot, "a", 7, false)), Some((1, vec![3])));
    let moved_back = given(subs.choose(slot, "a", 2, false));
    assert_eq!(moved_back, Some((1, vec![3])), "its cursor was moved back");
    subs.get_mut(slot).unwrap().options.no_local = true;
    assert_eq!(given(subs.choose(slot, "a", 7, true)), None);
    assert!(subs.has_durable("a") && !subs.has_durable("b"));
    assert_eq!(subs.unsubscribe("a", None, 8, HEAD), Some(slot));
    assert!(subs.is_empty(), "alone it leaves nothing");
}

#[test]
fn the_highest_qos_wins_then_the_oldest_then_the_first() {
    let mut subs = Subs::default();
    let exact = subs.insert(sub("a", 1, 5, 1));
    let wild = subs.insert(sub("+", 2, 8, 2));
    let all = subs.insert(sub("#", 2, 8, 0));
    let live = subs.insert(sub("a/#", 0, 1, 4));
    let chosen = |subs: &Subs, at, own| {
        [exact, wild, all, live].map(|slot| given(subs.choose(slot, "a", at, own)))
    };
    let ids = vec![2, 1, 4];
    assert_eq!(chosen(&subs, 8, false), [None, Some((2, ids)), None, None]);
    // Before the others came only one was there; what those logs have they are entitled to.
    let [first, ..] = chosen(&subs, 7, false);
    assert_eq!(first, Some((1, vec![1, 2, 4])));
    subs.get_mut(wild).unwrap().options.no_local = true;
    assert_eq!(chosen(&subs, 8, true), [None, None, Some((2, vec![1, 4])), None]);
}

#[test]
fn what_was_ranked_stays_ranked() {
    let mut subs = Subs::default();
    let a = subs.insert(sub("a", 2, 1, 1));
    let all = subs.insert(sub("#", 1, 2, 2));
    assert_eq!(subs.subscribing("a", None, 1), Subscribing::Changed);
    assert_eq!(subs.subscribe("a", None, options(1, 7), 10, HEAD), (a, None));
    subs.subscribe("#", None, options(2, 2), 20, HEAD);
    let through_a = |at| given(subs.choose(a, "a", at, false));
    let through_all = |at| given(subs.choose(all, "a", at, false));
    assert_eq!((through_a(9), through_all(9)), (Some((1, vec![7, 2])), None));
    assert_eq!((through_a(10), through_all(10)), (Some((1, vec![7, 2])), None), "the older one");
    assert_eq!((through_a(20), through_all(20)), (None, Some((2, vec![2, 7]))));
    subs.get_mut(a).unwrap().forget_ranks(10);
    assert!(subs.get(a).unwrap().ranks.is_empty());
}

#[test]
fn a_tail_gives_what_another_one_left_to_it() {
    let mut subs = Subs::default();
    let a = subs.insert(sub("a", 2, 1, 1));
    let b = subs.insert(sub("b", 2, 1, 5));
    let all = subs.insert(sub("a/#", 1, 2, 2));
    assert_eq!(subs.unsubscribe("a", None, 10, HEAD), Some(a));
    assert_eq!(subs.unsubscribe("b", None, 10, HEAD), Some(b));
    assert_eq!((subs.find("a", None), subs.find_tail("a")), (None, Some(a)));
    assert_eq!(given(subs.choose(a, "a", 5, false)), Some((2, vec![1, 2])));
    assert_eq!(given(subs.choose(all, "a", 5, false)), None);
    assert_eq!(given(subs.choose(b, "b", 5, false)), None, "nobody else has it: it left nothing");
    assert_eq!(given(subs.choose(a, "a", 10, false)), None);
    assert_eq!(given(subs.choose(all, "a", 10, false)), Some((1, vec![2])));
    assert!(subs.has_durable("a") && !subs.has_durable("b"));
    assert_eq!(subs.spent(|slot| if slot == all { 9 } else { 30 }), []);
    assert_eq!(subs.spent(|_| 10), [a]);
}

#[test]
fn subscribed_again_a_tail_goes_on_without_what_came_between() {
    let mut subs = Subs::default();
    let a = subs.insert(sub("a", 2, 1, 1));
    let all = subs.insert(sub("#", 1, 2, 2));
    subs.unsubscribe("a", None, 10, HEAD);
    assert_eq!(subs.subscribing("a", None, 0), Subscribing::New { starts: false });
    assert_eq!(subs.subscribing("a", None, 1), Subscribing::Revived);
    assert_eq!(subs.subscribe("a", None, options(2, 9), 20, HEAD), (a, None));
    for (at, through_a) in [(9, true), (10, false), (19, false), (20, true)] {
        assert_eq!(given(subs.choose(a, "a", at, false)).is_some(), through_a, "{at}");
        assert_eq!(given(subs.choose(all, "a", at, false)).is_some(), !through_a, "{at}");
    }
}

#[test]
fn to_qos_0_the_backlog_runs_out_and_from_it_the_head_begins() {
    let mut subs = Subs::default();
    let a = subs.insert(sub("a", 1, 1, 1));
    assert_eq!(subs.subscribing("a", None, 0), Subscribing::Lowered);
    let (live, tail) = subs.subscribe("a", None, options(0, 2), 10, HEAD);
    assert_eq!((tail, subs.find("a", None)), (Some(a), Some(live)));
    assert_eq!(subs.get(a).unwrap().tail, Some(Tail { at: 10, epoch: 1, until: 9, all: true }));
    assert_eq!(given(subs.choose(a, "a", 5, false)), Some((1, vec![1, 2])));
    assert_eq!(given(subs.choose(a, "a", 10, false)), None);
    assert!(!subs.has_durable("a"));
    assert_eq!(subs.subscribing("a", None, 2), Subscribing::Raised);
    assert_eq!(subs.subscribe("a", None, options(2, 3), 20, HEAD), (a, Some(live)));
    assert_eq!((subs.len(), given(subs.choose(a, "a", 15, false))), (1, None));
    assert_eq!(given(subs.choose(a, "a", 5, false)), Some((2, vec![3])));
    assert_eq!(given(subs.choose(a, "a", 20, false)), Some((2, vec![3])));
    // Where nothing was before, it begins anew.
    let b = subs.insert(sub("b", 0, 1, 0));
    assert_eq!(subs.subscribe("b", None, options(1, 0), 30, HEAD), (b, None));
    assert_eq!(subs.get(b).unwrap().since, 30);
}

#[test]
fn while_a_change_has_no_stamp_what_may_come_after_it_waits() {
    let mut subs = Subs::default();
    let a = subs.insert(sub("a", 2, 1, 1));
    let all = subs.insert(sub("#", 1, 2, 2));
    assert_eq!(subs.unsubscribe("a", None, PENDING, HEAD), Some(a));
    let told = |subs: &Subs, at| subs.choose_told(all, "a", at, false, 9).map(given);
    assert_eq!((told(&subs, 9), told(&subs, 10)), (Some(None), None));
    assert_eq!(given(subs.choose(all, "a", 10, false)), None, "a hint comes in its order");
    subs.settle([a], 10);
    assert_eq!((told(&subs, 9), told(&subs, 10)), (Some(None), Some(Some((1, vec![2])))));
}

#[test]
fn shared_ones_take_no_part() {
    let mut subs = Subs::default();
    let shared = subs.insert(StoredSub::new("a", Some("g"), options(2, 1), 1));
    let a = subs.insert(sub("a", 1, 2, 2));
    assert_eq!((subs.find("a", Some("g")), subs.find("a", None)), (Some(shared), Some(a)));
    assert!(!subs.get(shared).unwrap().is_durable());
    assert_eq!(given(subs.choose(a, "a", 5, false)), Some((1, vec![2])));
    assert_eq!(subs.unsubscribe("a", Some("g"), 6, HEAD), Some(shared));
    assert_eq!((subs.find("a", Some("g")), subs.len()), (None, 1));
}

#[test]
fn slots_are_used_again_and_bounded() {
    let mut subs = Subs::default();
    let slots: Vec<u32> = (0..20).map(|i| subs.insert(sub(&format!("t{i}"), 1, 1, 0))).collect();
    assert_eq!(slots, (0..20).collect::<Vec<_>>());
    subs.remove(7);
    subs.remove(19);
    let again = [subs.insert(sub("x", 1, 1, 0)), subs.insert(sub("y", 1, 1, 0))];
    assert_eq!(again, [7, 19]);
    subs.put(u32::MAX, sub("z", 1, 1, 0));
    assert_eq!(subs.len(), 20);
    let mut loaded = Subs::default();
    loaded.put(5, sub("five", 1, 1, 0));
    loaded.put(1, sub("one", 1, 1, 0));
    let mut slots: Vec<u32> = (0..5).map(|_| loaded.insert(sub("f", 0, 1, 0))).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 2, 3, 4, 6]);
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "c", "+"]);
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest {
            levels.push("#");
        }
        levels.join("/")
    })
}

proptest! {
    #[test]
    fn the_index_knows_what_a_scan_finds(
        steps in prop::collection::vec((0..4_u8, filter(), prop::option::weighted(0.2, Just("g")), any::<prop::sample::Index>()), 1..60),
        topics in prop::collection::vec("[abc](/[abc]){0,2}", 1..8),
    ) {
        let mut subs = Subs::default();
        let mut model: std::collections::BTreeMap<u32, StoredSub> = std::collections::BTreeMap::new();
        for (step, filter, share, pick) in steps {
            if step > 0 || model.is_empty() {
                let new = StoredSub::new(&filter, share, options(1, 0), 0);
                let slot = subs.insert(new.clone());
                prop_assert!(model.insert(slot, new).is_none());
            } else {
                let slot = *model.keys().nth(pick.index(model.len())).unwrap();
                prop_assert_eq!(subs.remove(slot), model.remove(&slot));
            }
            prop_assert_eq!(subs.len(), model.len());
            prop_assert_eq!(subs.index.is_some() || model.len() <= SCANNED, true);
            let of = |sub: &StoredSub| *sub.filter == *filter && sub.share.as_deref() == share;
            let found = subs.find(&filter, share);
            prop_assert_eq!(found.is_some(), model.values().any(of));
            prop_assert!(found.is_none_or(|slot| of(&model[&slot])));
            let unshared = model.values().filter(|sub| sub.share.is_none());
            prop_assert_eq!(subs.unshared, unshared.clone().count());
            let distinct: std::collections::BTreeSet<_> = unshared.map(|sub| &sub.filter).collect();
            prop_assert_eq!(subs.twins, subs.unshared - distinct.len());
        }
        for topic in topics {
            let mut found = Vec::new();
            subs.matching(&topic, |slot, _| found.push(slot));
            found.sort_unstable();
            let matches = model.iter().filter(|(_, sub)| sub.share.is_none() && topic::matches(&sub.filter, &topic));
            prop_assert_eq!(found, matches.map(|(slot, _)| *slot).collect::<Vec<_>>());
        }
    }
}
