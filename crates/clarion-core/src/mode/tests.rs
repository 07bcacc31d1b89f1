//! Tables of picks, and that a pick is fair.

use super::*;

fn candidates<'a>(list: &[(Member, &'a str, u64)]) -> Vec<Candidate<'a>> {
    list.iter().map(|&(member, group, rank)| Candidate { member, group, rank }).collect()
}

#[track_caller]
fn check(mode: Mode, list: &[(Member, &str, u64)], random: u64, expected: &[Member]) {
    assert_eq!(pick(mode, &candidates(list), random), expected, "{mode:?} of {list:?} by {random}");
}

#[test]
fn who_gets_a_message() {
    let gates = [(7, "a", 1), (3, "a", 4), (5, "b", 2), (9, "", 3)];
    check(Mode::Every, &gates, 0, &[3, 5, 7, 9]);
    check(Mode::Group, &gates, 0, &[3, 5, 9]);
    check(Mode::Group, &gates, 1, &[3, 5, 9]);
    check(Mode::Unify, &gates, 0, &[7]);
    check(Mode::Unify, &gates, 6, &[5]);
    for mode in [Mode::Every, Mode::Group, Mode::Unify] {
        check(mode, &[], 5, &[]);
        check(mode, &[(1, "g", 0)], u64::MAX, &[1]);
        assert_eq!(Mode::parse(mode.name()), Some(mode));
    }
    assert_eq!(Mode::parse("all"), None);
}

#[test]
fn equals_of_a_group_take_turns_by_chance() {
    let list = [(1, "g", 0), (2, "g", 0), (3, "g", 0)];
    for random in 0..9 {
        check(Mode::Group, &list, random, &[random % 3 + 1]);
    }
}

#[test]
fn a_member_named_twice_is_given_a_message_once() {
    check(Mode::Every, &[(1, "g", 0), (1, "h", 0)], 0, &[1]);
}
