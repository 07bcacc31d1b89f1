//! `auth.keys`: the static bearer keys.
//!
//! Invariant: a key's text never enters the process by configuration, only its SHA-256.

use super::{
    At,
    kinds::{Choice, Kind, items_of, text_of},
    suggest::nearest,
    tree::{Node, Value, parse_yaml},
};
use clarion_core::{Principal, Verb, address::check_user_id};

const KEYS_MAX: usize = 1000;
const USERS_MAX: usize = 10_000;
pub(super) const NAME_BYTES_MAX: usize = 64;
const FIELDS: [&str; 4] = ["name", "sha256", "allow", "users"];

/// A bearer key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiKey {
    /// For logs and answers.
    pub(crate) name: String,
    /// Of the key's bytes.
    pub(crate) sha256: [u8; 32],
    /// What it may do.
    pub(crate) allow: Vec<Verb>,
    /// For which users; `None` = all.
    pub(crate) users: Option<Vec<Box<str>>>,
}

impl ApiKey {
    /// Who comes in with it.
    pub(crate) fn principal(&self) -> Principal {
        Principal::new(&self.name, &self.allow, self.users.clone())
    }
}

impl Choice for Verb {
    const NAMES: &'static [(&'static str, Self)] = &Self::NAMES;
}

/// The kind of `auth.keys`.
pub(crate) struct ApiKeys;

impl Kind for ApiKeys {
    type Out = Vec<ApiKey>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Vec<ApiKey>> {
        let items = map_items(node, "keys", "{name: …, sha256: …, allow: […]}", at)?;
        if items.len() > KEYS_MAX {
            return at.problem(format!("{} keys are too many, at most {KEYS_MAX}", items.len()));
        }
        let mut keys: Vec<ApiKey> = Vec::with_capacity(items.len());
        let mut whole = true;
        for (index, item) in items.iter().enumerate() {
            let mut at = at.below(&format!("[{index}]"), &item.origin);
            let Some(key) = read_key(item, &mut at) else {
                whole = false;
                continue;
            };
            if keys.iter().any(|other| other.name == key.name) {
                whole = false;
                at.problem::<()>(format!("the name '{}' stands twice", key.name));
            } else if keys.iter().any(|other| other.sha256 == key.sha256) {
                whole = false;
                at.problem::<()>("another key has the same sha256".into());
            }
            keys.push(key);
        }
        whole.then_some(keys)
    }

    fn describe(&self) -> String {
        format!("list of keys {{name, sha256, allow, users?}}, at most {KEYS_MAX}")
    }
}

/// A list of maps; an untyped text must be YAML here, since commas stand inside the maps.
pub(super) fn map_items(node: &Node, what: &str, one: &str, at: &mut At<'_>) -> Option<Vec<Node>> {
    match &node.value {
        Value::Text(text) if node.origin.untyped && !text.trim().is_empty() => {
            match parse_yaml(text, &node.origin.source, true) {
                Ok(Node { value: Value::List(items), .. }) => Some(items),
                Ok(other) => {
                    at.problem(format!("expected a list [{one}], found {}", other.value.describe()))
                }
                Err(error) => at.problem(error),
            }
        }
        _ => items_of(node, what, at),
    }
}

/// Tells fields that do not exist; whether there are none.
pub(super) fn check_fields(fields: &[(String, Node)], known: &[&str], at: &mut At<'_>) -> bool {
    let mut whole = true;
    for (name, node) in fields {
        if !known.contains(&name.as_str()) {
            whole = false;
            let near = nearest(name, known).map(|near| format!("; did you mean {near}?"));
            at.below(&format!(".{name}"), &node.origin)
                .problem::<()>(format!("unknown key{}", near.unwrap_or_default()));
        }
    }
    whole
}

fn read_key(node: &Node, at: &mut At<'_>) -> Option<ApiKey> {
    let Value::Map(fields) = &node.value else {
        return at.problem(format!(
            "expected {{name, sha256, allow, users?}}, found {}",
            node.value.describe()
        ));
    };
    let whole = check_fields(fields, &FIELDS, at);
    let name = required(fields, "name", at, read_name);
    let sha256 = required(fields, "sha256", at, read_sha256);
    let allow = required(fields, "allow", at, read_allow);
    let users = match field(fields, "users") {
        None => Some(None),
        Some(node) => read_users(node, &mut at.below(".users", &node.origin)).map(Some),
    };
    let key = ApiKey { name: name?, sha256: sha256?, allow: allow?, users: users? };
    whole.then_some(key)
}

pub(super) fn field<'a>(fields: &'a [(String, Node)], name: &str) -> Option<&'a Node> {
    fields.iter().find(|(field, _)| field == name).map(|(_, node)| node)
}

pub(super) fn required<T>(
    fields: &[(String, Node)],
    name: &str,
    at: &mut At<'_>,
    read: fn(&Node, &mut At<'_>) -> Option<T>,
) -> Option<T> {
    match field(fields, name) {
        Some(node) => read(node, &mut at.below(&format!(".{name}"), &node.origin)),
        None => at.problem(format!("has no {name}")),
    }
}

fn read_name(node: &Node, at: &mut At<'_>) -> Option<String> {
    let name = text_of(node, "a name", at)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return at
            .problem(format!("a name has 1 to {NAME_BYTES_MAX} bytes, none a control character"));
    }
    Some(name)
}

fn read_sha256(node: &Node, at: &mut At<'_>) -> Option<[u8; 32]> {
    let text = text_of(node, "64 hex digits", at)?;
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        Some(digit(pair[0])? << 4 | digit(pair[1])?)
    };
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    match bytes.and_then(|bytes| bytes.try_into().ok()) {
        Some(sha256) if rest.is_empty() => Some(sha256),
        // The text is not repeated: somebody may have put the key itself here.
        _ => {
            at.problem(format!("expected 64 hex digits, found {} characters", text.chars().count()))
        }
    }
}

fn read_allow(node: &Node, at: &mut At<'_>) -> Option<Vec<Verb>> {
    let items = items_of(node, "publish, subscribe, read, admin", at)?;
    if items.is_empty() {
        return at.problem("allows nothing".into());
    }
    let mut allow = Some(Vec::new());
    for (index, item) in items.iter().enumerate() {
        let mut at = at.below(&format!("[{index}]"), &item.origin);
        let verb = super::kinds::one_of::<Verb>().parse(item, &mut at);
        allow = allow.zip(verb).map(|(mut allow, verb)| {
            if !allow.contains(&verb) {
                allow.push(verb);
            }
            allow
        });
    }
    allow
}

fn read_users(node: &Node, at: &mut At<'_>) -> Option<Vec<Box<str>>> {
    let items = items_of(node, "users", at)?;
    if items.len() > USERS_MAX {
        return at.problem(format!("{} users are too many, at most {USERS_MAX}", items.len()));
    }
    let mut users = Some(Vec::new());
    for (index, item) in items.iter().enumerate() {
        let mut at = at.below(&format!("[{index}]"), &item.origin);
        let user = text_of(item, "a user", &mut at).and_then(|user| match check_user_id(&user) {
            Ok(()) => Some(user.into_boxed_str()),
            Err(error) => at.problem(error.to_string()),
        });
        users = users.zip(user).map(|(mut users, user)| {
            users.push(user);
            users
        });
    }
    users
}
