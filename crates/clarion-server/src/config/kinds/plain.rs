//! Kinds of single values: yes or no, files and texts that may be left out, a secret.

use super::super::At;
use super::super::tree::{Node, Value};
use super::{Kind, text_of};
use std::{fmt, path::PathBuf, time::Duration};

/// What stands for a value that is not there.
const NONE: &str = "none";

/// `true` or `false`.
pub(crate) struct Flag;

impl Kind for Flag {
    type Out = bool;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<bool> {
        match &node.value {
            Value::Bool(flag) => Some(*flag),
            Value::Text(text) if node.origin.untyped && text == "true" => Some(true),
            Value::Text(text) if node.origin.untyped && text == "false" => Some(false),
            other => at.problem(format!("expected true or false, found {}", other.describe())),
        }
    }

    fn describe(&self) -> String {
        "true or false".into()
    }
}

/// The path of a file, or `none`.
pub(crate) struct OptionalFile;

impl Kind for OptionalFile {
    type Out = Option<PathBuf>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Option<PathBuf>> {
        let text = text_of(node, "the path of a file", at)?;
        if text.is_empty() || text.contains('\0') {
            return at.problem("expected the path of a file, or none".into());
        }
        Some((text != NONE).then(|| text.into()))
    }

    fn describe(&self) -> String {
        "path of a file, or none".into()
    }
}

/// The path of a file, for lists.
pub(crate) fn file_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("expected the path of a file".into());
    }
    Ok(text.into())
}

/// A text, or `none`.
pub(crate) struct OptionalText;

impl Kind for OptionalText {
    type Out = Option<String>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Option<String>> {
        let text = text_of(node, "a text", at)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return at.problem("expected a text without control characters, or none".into());
        }
        Some((text != NONE).then_some(text))
    }

    fn describe(&self) -> String {
        "text, or none".into()
    }
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret that only the environment may hold, or `none`: files are kept and shown, command lines seen by others.
pub(crate) struct EnvironmentSecret;

impl Kind for EnvironmentSecret {
    type Out = Option<Secret>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Option<Secret>> {
        match &node.value {
            Value::Text(text) if text == NONE => Some(None),
            Value::Text(text) if node.origin.source.starts_with("CLARION_") => {
                Some(Some(Secret(text.clone())))
            }
            _ => at.problem("may only stand in the environment; or put it in a file".into()),
        }
    }

    fn describe(&self) -> String {
        "text in the environment, or none".into()
    }
}

/// A duration on the command line.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parts = super::split_unit(text).and_then(|(number, unit)| {
        let (_, scale) = super::TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
        number.checked_mul(*scale)
    });
    parts.map(Duration::from_millis).ok_or_else(|| "expected 10s, 15m, 1h, 30d".into())
}
