//! Access rules as they are written: `auth.acl` and `auth.acl_file`.

use super::{
    At, Problem,
    kinds::{Choice, Kind, items_of, one_of, text_of},
    principals::{NAME_BYTES_MAX, check_fields, field, map_items, required},
    reader::At as Place,
    tree::{Node, Origin, Value, parse_yaml},
};
use clarion_core::{
    acl::{Action, Pattern, Rule, Subject},
    address::check_user_id,
};

const RULES_MAX: usize = 10_000;
const ITEMS_MAX: usize = 10_000;
const FIELDS: [&str; 4] = ["allow", "deny", "on", "who"];

impl Choice for Action {
    const NAMES: &'static [(&'static str, Self)] = &Self::NAMES;
}

/// The kind of `auth.acl`.
pub(crate) struct AccessRules;

impl Kind for AccessRules {
    type Out = Vec<Rule>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Vec<Rule>> {
        let items = map_items(node, "rules", "{allow: [publish], on: …}", at)?;
        if items.len() > RULES_MAX {
            return at.problem(format!("{} rules are too many, at most {RULES_MAX}", items.len()));
        }
        let mut rules = Some(Vec::with_capacity(items.len()));
        for (index, item) in items.iter().enumerate() {
            let rule = read_rule(item, &mut at.below(&format!("[{index}]"), &item.origin));
            rules = rules.zip(rule).map(|(mut rules, rule)| {
                rules.push(rule);
                rules
            });
        }
        rules
    }

    fn describe(&self) -> String {
        format!("list of rules {{allow or deny, on, who?}}, at most {RULES_MAX}")
    }
}

/// Reads a file of rules: the same list.
pub(crate) fn read_rules_file(
    key: &str,
    name: &str,
    text: &str,
) -> Result<Vec<Rule>, Vec<Problem>> {
    let whole = Origin { source: name.into(), line: None, untyped: false };
    let node =
        parse_yaml(text, name, false).map_err(|error| vec![Problem::new(key, error, &whole)])?;
    // An empty file has no rules.
    if node.value == Value::Null {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let rules = AccessRules.parse(&node, &mut Place::new(key, &node.origin, &mut problems));
    match rules {
        Some(rules) if problems.is_empty() => Ok(rules),
        _ => Err(problems),
    }
}

fn read_rule(node: &Node, at: &mut At<'_>) -> Option<Rule> {
    let Value::Map(fields) = &node.value else {
        return at.problem(format!(
            "expected {{allow or deny, on, who?}}, found {}",
            node.value.describe()
        ));
    };
    let whole = check_fields(fields, &FIELDS, at);
    let (allow, actions) = match (field(fields, "allow"), field(fields, "deny")) {
        (Some(node), None) => (true, read_actions(node, &mut at.below(".allow", &node.origin))),
        (None, Some(node)) => (false, read_actions(node, &mut at.below(".deny", &node.origin))),
        _ => return at.problem("says either allow or deny: publish, subscribe, or both".into()),
    };
    let patterns =
        required(fields, "on", at, |node, at| read_some(node, "patterns", at, read_pattern));
    let subjects = match field(fields, "who") {
        None => Some(None),
        Some(node) => {
            let mut at = at.below(".who", &node.origin);
            read_some(node, "user:…, key:…, anonymous", &mut at, read_subject).map(Some)
        }
    };
    let (actions, patterns, subjects) = (actions?, patterns?, subjects?);
    let rule = Rule {
        allow,
        publish: actions.contains(&Action::Publish),
        subscribe: actions.contains(&Action::Subscribe),
        patterns,
        subjects,
    };
    whole.then_some(rule)
}

/// A list of at least one, or one alone.
fn read_some<T>(
    node: &Node,
    what: &str,
    at: &mut At<'_>,
    read: fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    // A text alone is no list with commas, since addresses may have some.
    let items = match &node.value {
        Value::Text(_) => vec![node.clone()],
        _ => items_of(node, what, at)?,
    };
    if items.is_empty() || items.len() > ITEMS_MAX {
        return at.problem(format!("expected 1 to {ITEMS_MAX} of {what}, found {}", items.len()));
    }
    let mut values = Some(Vec::with_capacity(items.len()));
    for (index, item) in items.iter().enumerate() {
        let mut at = at.below(&format!("[{index}]"), &item.origin);
        let value = text_of(item, "a text", &mut at).and_then(|text| {
            let found = item.value.describe();
            read(&text).map_or_else(|error| at.problem(format!("{found}: {error}")), Some)
        });
        values = values.zip(value).map(|(mut values, value)| {
            values.push(value);
            values
        });
    }
    values
}

fn read_actions(node: &Node, at: &mut At<'_>) -> Option<Vec<Action>> {
    let items = items_of(node, "publish, subscribe", at)?;
    if items.is_empty() {
        return at.problem("is about neither publish nor subscribe".into());
    }
    let mut actions = Some(Vec::new());
    for (index, item) in items.iter().enumerate() {
        let mut at = at.below(&format!("[{index}]"), &item.origin);
        let action = one_of::<Action>().parse(item, &mut at);
        actions = actions.zip(action).map(|(mut actions, action)| {
            actions.push(action);
            actions
        });
    }
    actions
}

fn read_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| error.to_string())
}

fn read_subject(text: &str) -> Result<Subject, String> {
    if text == "anonymous" {
        return Ok(Subject::Anonymous);
    }
    if let Some(user) = text.strip_prefix("user:") {
        check_user_id(user).map_err(|error| error.to_string())?;
        return Ok(Subject::User(user.into()));
    }
    match text.strip_prefix("key:") {
        Some(name) if (1..=NAME_BYTES_MAX).contains(&name.len()) => Ok(Subject::Key(name.into())),
        _ => Err("expected user:NAME, key:NAME (of auth.keys) or anonymous".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_rules() {
        let text = "# mine\n- allow: [publish, subscribe]\n  on: ['topic:u/%u/#', 'user:%u']\n\
                    - {deny: [subscribe], on: 'topic:secret/#', who: [user:mallory, anonymous]}\n\
                    - {allow: [publish], on: '#', who: 'key:app'}\n";
        let rules = read_rules_file("auth.acl_file", "rules.yaml", text).unwrap();
        let [mine, secret, app] = &rules[..] else { panic!("{rules:?}") };
        assert!(mine.allow && mine.publish && mine.subscribe && mine.subjects.is_none());
        assert_eq!(mine.patterns.len(), 2);
        assert!(!secret.allow && !secret.publish && secret.subscribe);
        let subjects = [Subject::User("mallory".into()), Subject::Anonymous];
        assert_eq!(secret.subjects.as_deref(), Some(&subjects[..]));
        assert_eq!(app.subjects.as_deref(), Some(&[Subject::Key("app".into())][..]));
        assert_eq!(read_rules_file("k", "f", "# nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("a: b", "auth.acl_file: expected a list"),
            (
                "- allow",
                "auth.acl_file[0]: expected {allow or deny, on, who?}, found 'allow' (f:1)",
            ),
            ("- {on: all}", "auth.acl_file[0]: says either allow or deny"),
            ("- {allow: [publish], deny: [publish], on: all}", "auth.acl_file[0]: says either"),
            ("- {allow: [read], on: all}", "auth.acl_file[0].allow[0]: expected one of publish"),
            ("- {allow: [], on: all}", "auth.acl_file[0].allow: is about neither"),
            ("- {allow: [publish]}", "auth.acl_file[0]: has no on"),
            ("- {allow: [publish], on: []}", "auth.acl_file[0].on: expected 1 to"),
            (
                "- {allow: [publish], on: [all, 'topic:a#']}",
                "auth.acl_file[0].on[1]: 'topic:a#': '+' stands",
            ),
            (
                "- {allow: [publish], on: all, who: bob}",
                "auth.acl_file[0].who[0]: 'bob': expected user:NAME",
            ),
            (
                "- {allow: [publish], on: all, whom: x}",
                "auth.acl_file[0].whom: unknown key; did you mean who?",
            ),
            ("- [", "auth.acl_file: "),
        ] {
            let problems = read_rules_file("auth.acl_file", "f", text).unwrap_err();
            let told = problems[0].to_string();
            assert!(told.starts_with(expected), "{text}: {told}");
            assert!(told.contains("f"), "{told}");
        }
    }
}
