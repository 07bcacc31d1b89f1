//! What patterns match, which rule decides, what is said of whole filters.

use super::*;
use crate::topic;
use proptest::prelude::*;

fn rule(allow: bool, patterns: &[&str]) -> Rule {
    let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
    Rule { allow, publish: true, subscribe: true, patterns, subjects: None }
}

fn who<'a>(user: &'a str, client: &'a str) -> Who<'a> {
    Who { user: Some(user), client: Some(client), key: None }
}

fn check(pattern: &str, who: Who<'_>, text: &str, expected: bool) {
    let address = Address::parse(text).unwrap();
    let acl = Acl::new(vec![rule(true, &[pattern])], false);
    assert_eq!(acl.allows(&who, Action::Publish, &address), expected, "{pattern} {who:?} {text}");
}

#[test]
fn patterns_and_what_they_match() {
    let u = || who("u", "c");
    for (pattern, address, expected) in [
        ("#", "all", true),
        ("#", "queue:x", true),
        ("all", "all", true),
        ("all", "user:all", false),
        ("user:42", "user:42", true),
        ("user:42", "user:421", false),
        ("user:#", "user:a/b", true),
        ("user:+", "user:a", true),
        ("user:+", "user:a/b", false),
        ("user:%u", "user:u", true),
        ("user:%u", "user:c", false),
        ("queue:jobs/#", "queue:jobs", true),
        ("queue:jobs/#", "queue:jobs/a/b", true),
        ("queue:jobs/#", "queue:jobsx", false),
        ("queue:c+#", "queue:c+#", true),
        ("queue:a/+", "queue:a/b", true),
        ("topic:a/+/c", "topic:a/b/c", true),
        ("topic:a/+/c", "topic:a/b/d", false),
        ("topic:#", "topic:/", true),
        ("topic:u/%u/%c/#", "topic:u/u/c/x", true),
        ("topic:u/%u/%c/#", "topic:u/c/u/x", false),
        ("topic:dev-%c-%u", "topic:dev-c-u", true),
        ("topic:dev-%c-%u", "topic:dev-c-u-", false),
        ("topic:100%%u/%x%", "topic:100%u/%x%", true),
        ("topic:a", "user:a", false),
    ] {
        check(pattern, u(), address, expected);
    }
}

#[test]
fn a_name_never_widens_a_pattern() {
    for (pattern, user, address, expected) in [
        ("topic:u/%u", "+", "topic:u/x", false),
        ("topic:u/%u", "#", "topic:u/x", false),
        ("topic:u/%u/#", "a/b", "topic:u/a/b", false),
        ("topic:u/%u/#", "a/#", "topic:u/a/b", false),
        ("topic:%u/#", "a/b", "topic:a/b", false),
        ("topic:%u", "a/b", "topic:a/b", true),
        ("topic:%u", "#", "topic:a/b", false),
        ("user:%u", "#", "user:a", false),
        ("user:%u", "#", "user:#", true),
        ("user:%u", "a/b", "user:a/b", true),
        ("user:%u", "%c", "user:c", false),
        ("user:x%u", "%c", "user:xc", false),
    ] {
        check(pattern, who(user, "c"), address, expected);
    }
    // Nobody is no name.
    check("user:%u", Who::default(), "user:u", false);
    check("topic:a%u", who("", ""), "topic:a", false);
    // What denies takes the name as it stands.
    let acl = Acl::new(vec![rule(false, &["topic:u/%u/#"])], true);
    let denied =
        |text| !acl.allows(&who("a/b", "c"), Action::Publish, &Address::parse(text).unwrap());
    assert!(denied("topic:u/a/b/x") && !denied("topic:u/a/x"));
    assert_eq!(acl.covers(&who("a/b", "c"), "u/a/+"), Cover::Part);
}

#[test]
fn what_is_no_pattern() {
    for (text, why) in [
        ("", PatternError::UnknownKind),
        ("a/b", PatternError::UnknownKind),
        ("filter:a", PatternError::UnknownKind),
        ("alles", PatternError::UnknownKind),
        ("user:", PatternError::Empty),
        ("topic:a#", PatternError::Wildcard),
        ("topic:#/a", PatternError::Wildcard),
        ("queue:#/a", PatternError::Wildcard),
        ("topic:a+/b", PatternError::Wildcard),
    ] {
        assert_eq!(Pattern::parse(text), Err(why), "{text}");
    }
    assert_eq!(Pattern::parse(&format!("user:{}", "x".repeat(257))), Err(PatternError::TooLong));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = vec![
        rule(false, &["topic:a/b"]),
        Rule { publish: false, ..rule(true, &["topic:a/+", "all"]) },
        Rule { subjects: Some(vec![Subject::User("u".into())]), ..rule(true, &["queue:q"]) },
        Rule { subjects: Some(vec![Subject::Key("k".into())]), ..rule(true, &["user:#"]) },
        Rule { subjects: Some(vec![Subject::Anonymous]), ..rule(true, &["topic:x"]) },
    ];
    let acl = Acl::new(rules, false);
    let (user, key) = (who("u", "c"), Who { key: Some("k"), ..Who::default() });
    let nobody = Who::default();
    for (who, action, text, expected) in [
        (user, Action::Subscribe, "topic:a/b", Verdict::Denied),
        (user, Action::Subscribe, "topic:a/c", Verdict::Allowed),
        (user, Action::Publish, "topic:a/c", Verdict::Default(false)),
        (user, Action::Subscribe, "all", Verdict::Allowed),
        (user, Action::Publish, "queue:q", Verdict::Allowed),
        (key, Action::Publish, "queue:q", Verdict::Default(false)),
        (key, Action::Publish, "user:x", Verdict::Allowed),
        (user, Action::Publish, "user:x", Verdict::Default(false)),
        (user, Action::Publish, "topic:x", Verdict::Default(false)),
        (key, Action::Publish, "topic:x", Verdict::Default(false)),
        (nobody, Action::Publish, "topic:x", Verdict::Allowed),
    ] {
        let address = Address::parse(text).unwrap();
        assert_eq!(acl.decide(&who, action, &address), expected, "{who:?} {action:?} {text}");
    }
}

#[test]
fn what_is_said_of_filters() {
    let cover = |rules: &[(bool, &str)], default, filter| {
        let rules = rules.iter().map(|(allow, pattern)| rule(*allow, &[*pattern])).collect();
        Acl::new(rules, default).covers(&who("u", "c"), filter)
    };
    let mine = [(true, "topic:u/%u/#")];
    assert_eq!(cover(&mine, false, "u/u/#"), Cover::All);
    assert_eq!(cover(&mine, false, "u/u"), Cover::All);
    assert_eq!(cover(&mine, false, "u/+/x"), Cover::Part);
    assert_eq!(cover(&mine, false, "#"), Cover::Part);
    assert_eq!(cover(&mine, false, "u/v/#"), Cover::None);
    assert_eq!(cover(&mine, true, "#"), Cover::All);
    let secret = [(false, "topic:secret/#"), (true, "topic:#")];
    assert_eq!(cover(&secret, false, "#"), Cover::Part);
    assert_eq!(cover(&secret, false, "+/x"), Cover::Part);
    assert_eq!(cover(&secret, false, "a/#"), Cover::All);
    assert_eq!(cover(&secret, false, "secret/a/+"), Cover::None);
    // MQTT-4.7.2-1.
    assert_eq!(cover(&secret, false, "$SYS/#"), Cover::None);
    assert_eq!(cover(&[(true, "topic:$SYS/#")], false, "#"), Cover::None);
    assert_eq!(cover(&[(true, "#")], false, "$SYS/#"), Cover::All);
    assert_eq!(cover(&[(true, "user:#"), (true, "queue:#")], false, "#"), Cover::None);
}

#[test]
fn a_change_is_seen_by_its_version() {
    let cell = AclCell::new(Acl::new(Vec::new(), true));
    let (other, before) = (cell.clone(), cell.version());
    other.replace(Acl::new(Vec::new(), false));
    assert!(cell.version() > before);
    assert_eq!(*cell.load(), Acl::new(Vec::new(), false));
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", "$a", "ab"])
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest {
            levels.pop();
            levels.push("#");
        }
        let text = levels.join("/");
        if text.is_empty() { "+".to_owned() } else { text }
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        3 => level(),
        2 => Just("+"),
        2 => prop::sample::select(vec!["%u", "a%u", "%c", "%u%c"]),
    ];
    let topic = (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, rest)| {
        let text = levels.join("/") + if rest { "/#" } else { "" };
        format!("topic:{}", if text.is_empty() { "+" } else { &text })
    });
    prop_oneof![8 => topic, 1 => Just("topic:#".to_owned()), 1 => Just("#".to_owned())]
}

/// Every topic of one to four of the levels.
fn topics() -> Vec<String> {
    let levels = ["", "a", "b", "$a", "ab", "aa"];
    let mut all: Vec<String> = levels.iter().map(ToString::to_string).collect();
    let mut last = all.clone();
    for _ in 0..3 {
        let longer = |topic: &String| levels.map(|level| format!("{topic}/{level}"));
        last = last.iter().flat_map(longer).collect();
        all.extend_from_slice(&last);
    }
    all.retain(|topic| !topic.is_empty());
    all
}

fn names() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(prop::sample::select(vec!["a", "b", "a/b", "+", "#", "a/#", "$a", ""]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// What is said of a filter holds for every topic; and with one rule of one pattern it is exact.
    #[test]
    fn covers_agrees_with_every_topic(
        rules in prop::collection::vec((any::<bool>(), pattern()), 0..5),
        default in any::<bool>(),
        (user, client) in (names(), names()),
        filter in filter(),
    ) {
        let who = Who { user, client, key: None };
        let acl: Vec<Rule> = rules.iter().map(|(allow, text)| rule(*allow, &[text])).collect();
        let acl = Acl::new(acl, default);
        let allowed = |topic: &&String| {
            acl.decide_id(&who, Action::Subscribe, (AddressKind::Topic, topic)).is_allowed()
        };
        let all = topics();
        let matching: Vec<&String> = all.iter().filter(|t| topic::matches(&filter, t)).collect();
        let some = matching.iter().copied().filter(|t| allowed(t)).count();
        match acl.covers(&who, &filter) {
            Cover::All => prop_assert_eq!(some, matching.len()),
            Cover::None => prop_assert_eq!(some, 0),
            Cover::Part => {}
        }
        // Without wildcards there is one topic, so there is no part where the rules leave no doubt.
        if !topic::is_wildcard(&filter) {
            prop_assert_ne!(acl.covers(&who, &filter), Cover::Part);
        }
    }

    /// A name never gives more than the same pattern with a wildcard level in its place gives, and never another user's.
    #[test]
    fn names_do_not_widen(text in pattern(), user in names(), topic in prop::sample::select(topics())) {
        let who = Who { user, client: user, key: None };
        let pattern = Pattern::parse(&text).unwrap();
        let id = (AddressKind::Topic, topic.as_str());
        let wide = text.replace("a%u", "+").replace("%u%c", "+").replace("%u", "+").replace("%c", "+");
        let whole = text == "topic:%u" || text == "topic:%c";
        if !whole && pattern.matches(&who, id, false) && user.is_some_and(|u| !u.starts_with('$')) {
            prop_assert!(Pattern::parse(&wide).unwrap().matches(&who, id, false), "{wide}");
        }
    }
}
