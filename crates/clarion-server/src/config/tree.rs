//! What the sources say, before anybody knows whether it is right: values with the place they came from.
//!
//! Owns: the YAML reading, and the splitting of a file's tree into dotted paths. Bounded: a file has at most 1 MiB, and
//! nesting is bounded by the YAML reader's budget. Must not know: which keys exist, beyond asking [`Known`].

use super::{Problem, suggest::nearest};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::{collections::HashMap, fmt, sync::Arc};

/// The longest configuration file.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    /// File, variable or option; empty for a default.
    pub(crate) source: Arc<str>,
    /// Line in a file.
    pub(crate) line: Option<u64>,
    /// The text has no types of its own (environment, `--set`, defaults): it is read as the key wants it.
    pub(crate) untyped: bool,
}

impl Origin {
    /// Of a text without types.
    pub(crate) fn untyped(source: &str) -> Self {
        Self { source: source.into(), line: None, untyped: true }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

/// A value of a source.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Whole(u64),
    /// Negative, fractional or too large.
    OtherNumber(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".into(),
            Self::Bool(value) => format!("{value}"),
            Self::Whole(number) => format!("the number {number}"),
            Self::OtherNumber(number) => format!("the number {number}"),
            Self::Text(text) => format!("'{}'", clip(text)),
            Self::List(_) => "a list".into(),
            Self::Map(_) => "a map".into(),
        }
    }
}

/// At most 64 characters of a text, for messages.
pub(crate) fn clip(text: &str) -> String {
    let mut clipped: String = text.chars().take(64).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Node {
    /// A text without types.
    pub(crate) fn untyped(text: &str, source: &str) -> Self {
        Self { value: Value::Text(text.into()), origin: Origin::untyped(source) }
    }

    /// Sets the source of this value and all below it.
    fn with_source(mut self, source: &Arc<str>, untyped: bool) -> Self {
        self.origin.source = Arc::clone(source);
        self.origin.untyped = untyped;
        self.value = match self.value {
            Value::List(items) => {
                Value::List(items.into_iter().map(|n| n.with_source(source, untyped)).collect())
            }
            Value::Map(entries) => Value::Map(
                entries.into_iter().map(|(k, n)| (k, n.with_source(source, untyped))).collect(),
            ),
            value => value,
        };
        self
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<Value>::deserialize(deserializer)?;
        let line = Some(spanned.referenced.line()).filter(|line| *line > 0);
        let origin = Origin { source: Arc::from(""), line, untyped: false };
        Ok(Self { value: spanned.value, origin })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(u64::try_from(value)
            .map_or_else(|_| Value::OtherNumber(value.to_string()), Value::Whole))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::OtherNumber(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::OtherNumber(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::OtherNumber(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, Node>()? {
            entries.push(entry);
        }
        Ok(Value::Map(entries))
    }
}

/// Reads a YAML document; the message of a failure has line and column where the reader knows them.
pub(crate) fn parse_yaml(text: &str, source: &str, untyped: bool) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(node) => Ok(node.with_source(&Arc::from(source), untyped)),
        Err(error) => Err(describe_yaml_error(&error)),
    }
}

fn describe_yaml_error(error: &serde_saphyr::Error) -> String {
    let error = error.without_snippet();
    let text = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    match error.location() {
        Some(at) if !text.contains("line ") => {
            format!("line {}, column {}: {text}", at.line(), at.column())
        }
        _ => text,
    }
}

/// The keys and sections that exist.
pub(crate) trait Known {
    /// Whether a value belongs here.
    fn is_key(&self, path: &str) -> bool;
    /// Whether keys lie below.
    fn is_section(&self, path: &str) -> bool;
    /// All keys and sections.
    fn paths(&self) -> Vec<&str>;
}

/// Splits a file's tree into dotted paths; what no key asks for becomes a problem.
pub(crate) fn flatten(root: Node, known: &dyn Known, problems: &mut Vec<Problem>) -> Flat {
    let mut flat = Flat::new();
    match root.value {
        Value::Null => {}
        Value::Map(entries) => flatten_map("", entries, known, &mut flat, problems),
        other => {
            let text = format!("expected a map of keys, found {}", other.describe());
            problems.push(Problem::new("", text, &root.origin));
        }
    }
    flat
}

/// Values by dotted path.
pub(crate) type Flat = HashMap<String, Node>;

fn flatten_map(
    above: &str,
    entries: Vec<(String, Node)>,
    known: &dyn Known,
    flat: &mut Flat,
    problems: &mut Vec<Problem>,
) {
    for (name, node) in entries {
        let path = if above.is_empty() { name } else { format!("{above}.{name}") };
        if known.is_key(&path) {
            flat.insert(path, node);
        } else if known.is_section(&path) {
            match node.value {
                Value::Null => {}
                Value::Map(entries) => flatten_map(&path, entries, known, flat, problems),
                other => {
                    let text = format!("is a section of keys, found {}", other.describe());
                    problems.push(Problem::new(&path, text, &node.origin));
                }
            }
        } else {
            problems.push(unknown_key(&path, known, &node.origin));
        }
    }
}

/// The problem of a path that does not exist, with the nearest one that does.
pub(crate) fn unknown_key(path: &str, known: &dyn Known, origin: &Origin) -> Problem {
    let text = match nearest(path, &known.paths()) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => "unknown key".to_owned(),
    };
    Problem::new(path, text, origin)
}
