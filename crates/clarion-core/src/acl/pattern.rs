//! Patterns of addresses: `topic:a/+/%u/#`, `user:%u`, `queue:jobs/#`, `all`, and `#` for every address.
//!
//! Levels are what stands between `/`, in every kind of address; `+` is one level, `#` at the end the rest, none included.
//! `%u` is the user, `%c` the client id, `%%` a percent sign. Invariant: a name never widens a pattern. What it contains
//! counts as text: `+` and `#` in it are no wildcards, and a `/` in it makes no level in a pattern that allows, which then
//! matches nothing; a pattern that denies takes the name as it stands. A pattern that is nothing but `%u` or `%c` is
//! compared with the whole id. Must not know: rules, or who may do what.

use super::Who;
use crate::AddressKind;
use std::borrow::Cow;

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No known prefix.
    #[error("expected user:…, group:…, queue:…, topic:…, all, or # for every address")]
    UnknownKind,
    /// Nothing behind the prefix.
    #[error("nothing stands behind the ':'")]
    Empty,
    /// Longer than an address can be.
    #[error("is longer than an address can be")]
    TooLong,
    /// A wildcard that is not a whole level, or a `#` that is not the last.
    #[error("'+' stands alone in its level, '#' alone in the last one")]
    Wildcard,
}

/// A part of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Client,
}

impl Part {
    fn value<'a>(&'a self, who: &Who<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::User => who.user.filter(|name| !name.is_empty()),
            Self::Client => who.client.filter(|name| !name.is_empty()),
        }
    }

    fn is_name(&self) -> bool {
        !matches!(self, Self::Text(_))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    /// Its parts one after the other.
    Parts(Box<[Part]>),
    /// `+`.
    One,
    /// `#`.
    Rest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// Every address.
    Everything,
    /// The whole id is this name.
    Name(AddressKind, Part),
    Levels(AddressKind, Box<[Level]>),
}

/// A level of a topic pattern with the names put in.
enum Filled<'a> {
    Text(Cow<'a, str>),
    One,
    Rest,
}

/// How the topics of a pattern lie to those of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lies {
    /// No topic is in both.
    Apart,
    /// Some may be.
    Across,
    /// Every topic of the filter is the pattern's.
    Around,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    shape: Shape,
}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        use AddressKind as K;
        if text == "#" {
            return Ok(Self { shape: Shape::Everything });
        }
        if text == K::All.prefix() {
            return Ok(Self { shape: Shape::Levels(K::All, [].into()) });
        }
        let kinds = [K::User, K::Group, K::Queue, K::Topic];
        let mut found =
            kinds.iter().filter_map(|kind| Some((*kind, text.strip_prefix(kind.prefix())?)));
        let (kind, id) = found.next().ok_or(PatternError::UnknownKind)?;
        let limit = if kind == K::Topic {
            crate::address::TOPIC_BYTES_MAX
        } else {
            crate::address::ID_BYTES_MAX
        };
        if id.is_empty() {
            return Err(PatternError::Empty);
        }
        if id.len() > limit {
            return Err(PatternError::TooLong);
        }
        let shape = match id {
            "%u" => Shape::Name(kind, Part::User),
            "%c" => Shape::Name(kind, Part::Client),
            id => Shape::Levels(kind, read_levels(kind, id)?),
        };
        Ok(Self { shape })
    }

    /// Whether it matches what stands behind an address' kind. `denies` tells how names with `/` are taken.
    pub(super) fn matches(
        &self,
        who: &Who<'_>,
        (kind, id): (AddressKind, &str),
        denies: bool,
    ) -> bool {
        match &self.shape {
            Shape::Everything => true,
            Shape::Name(of, name) => *of == kind && name.value(who) == Some(id),
            Shape::Levels(of, _) if *of != kind => false,
            Shape::Levels(_, levels) if denies && has_split_name(levels, who) => {
                fill(levels, who).is_some_and(|filled| matches_levels(&filled, who, kind, id))
            }
            Shape::Levels(_, levels) => matches_levels(levels, who, kind, id),
        }
    }

    /// How its topics lie to those of an MQTT filter.
    pub(super) fn lies(&self, who: &Who<'_>, filter: &str, denies: bool) -> Lies {
        let filled = match &self.shape {
            Shape::Everything => return Lies::Around,
            Shape::Name(AddressKind::Topic, name) => {
                let Some(name) = name.value(who) else { return Lies::Apart };
                name.split('/').map(|level| Filled::Text(level.into())).collect()
            }
            Shape::Levels(AddressKind::Topic, levels) => {
                if !denies && has_split_name(levels, who) {
                    return Lies::Apart;
                }
                let Some(filled) = fill(levels, who) else { return Lies::Apart };
                filled
            }
            Shape::Name(..) | Shape::Levels(..) => return Lies::Apart,
        };
        // No topic has such a level.
        let no_topic =
            |level: &Filled<'_>| matches!(level, Filled::Text(t) if t.contains(['+', '#']));
        if filled.iter().any(no_topic) { Lies::Apart } else { lies(&filled, filter) }
    }
}

fn read_levels(kind: AddressKind, id: &str) -> Result<Box<[Level]>, PatternError> {
    let mut levels = Vec::new();
    let mut given = id.split('/').peekable();
    while let Some(level) = given.next() {
        levels.push(match level {
            "+" => Level::One,
            "#" if given.peek().is_none() => Level::Rest,
            // Other ids than topics may contain these.
            level if kind == AddressKind::Topic && level.contains(['+', '#']) => {
                return Err(PatternError::Wildcard);
            }
            "#" => return Err(PatternError::Wildcard),
            level => Level::Parts(read_parts(level)),
        });
    }
    Ok(levels.into())
}

fn read_parts(level: &str) -> Box<[Part]> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = level;
    while let Some(c) = rest.chars().next() {
        let (name, length) = match rest.get(..2) {
            Some("%u") => (Some(Part::User), 2),
            Some("%c") => (Some(Part::Client), 2),
            Some("%%") => (None, 2),
            _ => (None, c.len_utf8()),
        };
        match name {
            Some(name) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text).into()));
                }
                parts.push(name);
            }
            None => text.push(c),
        }
        rest = &rest[length..];
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
    parts.into()
}

/// Whether a name in it has a `/`.
fn has_split_name(levels: &[Level], who: &Who<'_>) -> bool {
    let split = |part: &Part| part.is_name() && part.value(who).is_some_and(|v| v.contains('/'));
    levels.iter().any(|level| matches!(level, Level::Parts(parts) if parts.iter().any(split)))
}

/// Puts names in; their `/` make levels. `None` when there is no such name.
fn fill<'a>(levels: &'a [Level], who: &Who<'a>) -> Option<Vec<Filled<'a>>> {
    let mut filled = Vec::with_capacity(levels.len());
    for level in levels {
        match level {
            Level::One => filled.push(Filled::One),
            Level::Rest => filled.push(Filled::Rest),
            Level::Parts(parts) => match &parts[..] {
                [Part::Text(text)] => filled.push(Filled::Text(text.as_ref().into())),
                parts => {
                    let values: Option<Vec<&str>> = parts.iter().map(|p| p.value(who)).collect();
                    let text = values?.concat();
                    filled
                        .extend(text.split('/').map(|level| Filled::Text(level.to_owned().into())));
                }
            },
        }
    }
    Some(filled)
}

/// A level of a pattern, as an id is compared with it.
trait Step {
    fn is_wildcard(&self) -> bool;
    fn is_rest(&self) -> bool;
    fn takes(&self, who: &Who<'_>, given: &str) -> bool;
}

impl Step for Level {
    fn is_wildcard(&self) -> bool {
        !matches!(self, Self::Parts(_))
    }

    fn is_rest(&self) -> bool {
        matches!(self, Self::Rest)
    }

    fn takes(&self, who: &Who<'_>, given: &str) -> bool {
        let Self::Parts(parts) = self else { return true };
        let mut rest = Some(given);
        for part in parts {
            rest = rest.and_then(|rest| rest.strip_prefix(part.value(who)?));
        }
        rest == Some("")
    }
}

impl Step for Filled<'_> {
    fn is_wildcard(&self) -> bool {
        !matches!(self, Self::Text(_))
    }

    fn is_rest(&self) -> bool {
        matches!(self, Self::Rest)
    }

    fn takes(&self, _: &Who<'_>, given: &str) -> bool {
        !matches!(self, Self::Text(text) if text != given)
    }
}

fn matches_levels<S: Step>(levels: &[S], who: &Who<'_>, kind: AddressKind, id: &str) -> bool {
    // MQTT-4.7.2-1.
    let hidden = kind == AddressKind::Topic && id.starts_with('$');
    if hidden && levels.first().is_some_and(Step::is_wildcard) {
        return false;
    }
    // `all` has no id and its pattern no levels.
    let mut given = id.split('/').filter(|_| kind != AddressKind::All);
    for level in levels {
        if level.is_rest() {
            return true;
        }
        if !given.next().is_some_and(|given| level.takes(who, given)) {
            return false;
        }
    }
    given.next().is_none()
}

fn lies(pattern: &[Filled<'_>], filter: &str) -> Lies {
    let wild = |level: &str| level == "+" || level == "#";
    let first = filter.split('/').next().unwrap_or_default();
    match pattern.first() {
        Some(Filled::Text(text)) if text.starts_with('$') && wild(first) => return Lies::Apart,
        Some(Filled::One | Filled::Rest) if first.starts_with('$') => return Lies::Apart,
        _ => {}
    }
    let mut around = true;
    let mut given = filter.split('/');
    for level in pattern {
        match (level, given.next()) {
            (Filled::Rest, _) => return if around { Lies::Around } else { Lies::Across },
            (_, Some("#")) => return Lies::Across,
            (Filled::One, Some(_)) => {}
            (Filled::Text(_), Some("+")) => around = false,
            (Filled::Text(text), Some(given)) if text == given => {}
            (Filled::Text(_) | Filled::One, _) => return Lies::Apart,
        }
    }
    match given.next() {
        None if around => Lies::Around,
        None | Some("#") => Lies::Across,
        Some(_) => Lies::Apart,
    }
}
