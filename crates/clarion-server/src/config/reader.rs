//! One walk over the table of keys: reads values, collects every problem, and records what it passed.
//!
//! The same walk over an empty tree is the table itself; documentation, `config --defaults`, the search for unknown keys
//! and the names of environment variables are made from it, so they cannot differ from what is read.

use super::{
    kinds::Kind,
    tree::{Flat, Known, Node, Origin},
};
use std::fmt;

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Which key; empty when it is a source as a whole.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) text: String,
    /// File and line, variable or option; empty for a default.
    pub(crate) source: String,
}

impl Problem {
    /// Of a key and the place where its value was written.
    pub(crate) fn new(path: &str, text: impl Into<String>, origin: &Origin) -> Self {
        Self { path: path.to_owned(), text: text.into(), source: origin.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.path.is_empty(), self.source.is_empty()) {
            (true, true) => f.write_str(&self.text),
            (true, false) => write!(f, "{}: {}", self.source, self.text),
            (false, true) => write!(f, "{}: {}", self.path, self.text),
            (false, false) => write!(f, "{}: {} ({})", self.path, self.text, self.source),
        }
    }
}

/// The place that a kind is looking at, where it can tell what is wrong.
pub(crate) struct At<'a> {
    path: String,
    origin: Origin,
    problems: &'a mut Vec<Problem>,
}

impl<'a> At<'a> {
    /// A place.
    pub(crate) fn new(path: &str, origin: &Origin, problems: &'a mut Vec<Problem>) -> Self {
        Self { path: path.to_owned(), origin: origin.clone(), problems }
    }

    /// A place below: an item, or a field of one.
    pub(crate) fn below(&mut self, suffix: &str, origin: &Origin) -> At<'_> {
        let path = format!("{}{suffix}", self.path);
        At { path, origin: origin.clone(), problems: self.problems }
    }

    /// Tells a problem; there is no value then.
    pub(crate) fn problem<T>(&mut self, text: String) -> Option<T> {
        self.problems.push(Problem::new(&self.path, text, &self.origin));
        None
    }
}

/// A row of the table of keys, for people and for the checks of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    /// Keys lie below.
    Section {
        /// Its path.
        path: String,
        /// What it is about.
        doc: String,
    },
    /// A value.
    Key {
        /// Its path.
        path: String,
        /// What may stand here.
        kind: String,
        /// As it would be written.
        default: String,
        /// What it does.
        doc: String,
    },
}

impl Row {
    /// Its path.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::Section { path, .. } | Self::Key { path, .. } => path,
        }
    }
}

/// A part of the configuration that reads itself.
pub(crate) trait Section {
    /// Reads all keys below `path`; a bad value becomes a problem and is replaced by its default.
    fn read(reader: &mut Reader<'_>, path: &str) -> Self;
}

/// See the module.
pub(crate) struct Reader<'a> {
    flat: &'a Flat,
    rows: Vec<Row>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A walk over these values.
    pub(crate) fn new(flat: &'a Flat) -> Self {
        Self { flat, rows: Vec::new(), problems: Vec::new() }
    }

    /// Enters a section.
    pub(crate) fn section(&mut self, path: &str, doc: &[&str]) {
        self.rows.push(Row::Section { path: path.to_owned(), doc: join_doc(doc) });
    }

    /// Reads one key.
    pub(crate) fn take<K: Kind>(
        &mut self,
        path: &str,
        kind: &K,
        default: &str,
        doc: &[&str],
    ) -> K::Out {
        self.rows.push(Row::Key {
            path: path.to_owned(),
            kind: kind.describe(),
            default: default.to_owned(),
            doc: join_doc(doc),
        });
        let given = self.flat.get(path).and_then(|node| {
            let mut at = At::new(path, &node.origin, &mut self.problems);
            kind.parse(node, &mut at)
        });
        given.unwrap_or_else(|| {
            let node = Node::untyped(default, "");
            let mut wrong = Vec::new();
            let value = kind.parse(&node, &mut At::new(path, &node.origin, &mut wrong));
            value.unwrap_or_else(|| unreachable!("the table's own default is wrong: {wrong:?}"))
        })
    }

    /// Where the value of a key came from; empty when it is the default.
    pub(crate) fn origin(&self, path: &str) -> Origin {
        self.flat.get(path).map_or_else(|| Origin::untyped(""), |node| node.origin.clone())
    }

    /// Tells a problem of a key.
    pub(crate) fn problem(&mut self, path: &str, text: impl Into<String>) {
        let origin = self.origin(path);
        self.problems.push(Problem::new(path, text, &origin));
    }

    /// Whether there is a problem of this key or below it already.
    pub(crate) fn is_broken(&self, path: &str) -> bool {
        self.problems.iter().any(|problem| {
            let rest = problem.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// What was passed and what was wrong.
    pub(crate) fn finish(self) -> (Table, Vec<Problem>) {
        (Table { rows: self.rows }, self.problems)
    }
}

/// Doc comments as one text: lines are joined, an empty line begins a paragraph.
fn join_doc(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines.iter().map(|line| line.trim()) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push(if line.is_empty() { '\n' } else { ' ' });
        }
        text.push_str(line);
    }
    text
}

/// All sections and keys, in order.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

impl Known for Table {
    fn is_key(&self, wanted: &str) -> bool {
        self.rows.iter().any(|row| matches!(row, Row::Key { path, .. } if path == wanted))
    }

    fn is_section(&self, wanted: &str) -> bool {
        self.rows.iter().any(|row| matches!(row, Row::Section { path, .. } if path == wanted))
    }

    fn paths(&self) -> Vec<&str> {
        self.rows.iter().map(Row::path).collect()
    }
}
