//! The kinds of values: how each is written, what it may be, and what it becomes.
//!
//! A kind turns a value of a source into a valid Rust value, or says what is wrong with it. It never guesses: a text in
//! a file is no number, and a size or duration without its unit is refused where that could be misread.

pub(crate) mod plain;

use super::{
    At,
    tree::{Node, Value, parse_yaml},
};
use std::{marker::PhantomData, net::SocketAddr, path::PathBuf, time::Duration};

/// See the module.
pub(crate) trait Kind {
    /// What a valid value becomes.
    type Out;

    /// The value, or `None` with a problem told to `at`.
    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Self::Out>;

    /// What may stand here, for people.
    fn describe(&self) -> String;
}

/// A text, or a problem.
pub(crate) fn text_of(node: &Node, expected: &str, at: &mut At<'_>) -> Option<String> {
    match &node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Bool(_) | Value::Whole(_) | Value::OtherNumber(_) => {
            let found = node.value.describe();
            at.problem(format!("expected {expected}, found {found} (put it in quotes)"))
        }
        other => at.problem(format!("expected {expected}, found {}", other.describe())),
    }
}

/// The items of a list. An untyped text is a YAML list (`[a, b]`) or items with commas between them.
pub(crate) fn items_of(node: &Node, expected: &str, at: &mut At<'_>) -> Option<Vec<Node>> {
    let list = match &node.value {
        Value::List(items) => return Some(items.clone()),
        Value::Text(text) if node.origin.untyped => text.trim(),
        other => {
            return at
                .problem(format!("expected a list of {expected}, found {}", other.describe()));
        }
    };
    if !list.starts_with('[') {
        let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        return Some(items.map(|item| Node::untyped(item, &node.origin.source)).collect());
    }
    match parse_yaml(list, &node.origin.source, true) {
        Ok(Node { value: Value::List(items), .. }) => Some(items),
        Ok(other) => {
            at.problem(format!("expected a list of {expected}, found {}", other.value.describe()))
        }
        Err(error) => at.problem(error),
    }
}

fn in_range(
    number: u64,
    (min, max): (u64, u64),
    show: fn(u64) -> String,
    at: &mut At<'_>,
) -> Option<u64> {
    if number < min {
        at.problem(format!("{} is below the smallest, {}", show(number), show(min)))
    } else if number > max {
        at.problem(format!("{} is above the largest, {}", show(number), show(max)))
    } else {
        Some(number)
    }
}

fn describe_range(what: &str, (min, max): (u64, u64), show: fn(u64) -> String) -> String {
    match max {
        u64::MAX if min == 0 => what.to_owned(),
        u64::MAX => format!("{what}, from {}", show(min)),
        _ => format!("{what}, {} to {}", show(min), show(max)),
    }
}

/// Splits `10ms` into 10 and `ms`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A whole number within bounds.
pub(crate) struct Count<T>((u64, u64), PhantomData<T>);

/// A whole number from `min` to `max`.
pub(crate) fn count<T: TryFrom<u64>>(min: u64, max: u64) -> Count<T> {
    Count((min, max), PhantomData)
}

fn show_number(number: u64) -> String {
    number.to_string()
}

impl<T: TryFrom<u64>> Kind for Count<T> {
    type Out = T;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<T> {
        let number = match &node.value {
            Value::Whole(number) => Some(*number),
            Value::Text(text) if node.origin.untyped => text.trim().parse().ok(),
            _ => None,
        };
        let Some(number) = number else {
            return at.problem(format!("expected a whole number, found {}", node.value.describe()));
        };
        let number = in_range(number, self.0, show_number, at)?;
        T::try_from(number).ok().or_else(|| at.problem(format!("{number} is too large")))
    }

    fn describe(&self) -> String {
        describe_range("whole number", self.0, show_number)
    }
}

/// A number of bytes within bounds.
pub(crate) struct Size<T>((u64, u64), PhantomData<T>);

/// Bytes from `min` to `max`.
pub(crate) fn size<T: TryFrom<u64>>(min: u64, max: u64) -> Size<T> {
    Size((min, max), PhantomData)
}

const SIZE_UNITS: [(&str, u64); 5] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// A size in its largest whole unit: `64MiB`.
pub(crate) fn show_size(bytes: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| bytes.is_multiple_of(*unit);
    match SIZE_UNITS.iter().rev().find(whole) {
        Some((name, unit)) if bytes >= 1 << 10 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

impl<T: TryFrom<u64>> Kind for Size<T> {
    type Out = T;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<T> {
        let bytes = match &node.value {
            Value::Whole(bytes) => Some(*bytes),
            Value::Text(text) => split_unit(text).and_then(|(number, unit)| {
                let unit = if unit.is_empty() { "B" } else { unit };
                let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
                number.checked_mul(*scale)
            }),
            _ => None,
        };
        let Some(bytes) = bytes else {
            let found = node.value.describe();
            return at.problem(format!(
                "expected a size such as 64MiB (B, KiB, MiB, GiB, TiB) or a number of bytes, found {found}"
            ));
        };
        let bytes = in_range(bytes, self.0, show_size, at)?;
        T::try_from(bytes).ok().or_else(|| at.problem(format!("{bytes} is too large")))
    }

    fn describe(&self) -> String {
        describe_range("size", self.0, show_size)
    }
}

/// A duration within bounds, in milliseconds.
pub(crate) struct Span((u64, u64));

/// From `min` to `max`, both written as durations are written.
pub(crate) const fn span(min_ms: u64, max_ms: u64) -> Span {
    Span((min_ms, max_ms))
}

/// Milliseconds of a second.
pub(crate) const SECOND: u64 = 1_000;
/// Milliseconds of an hour.
pub(crate) const HOUR: u64 = 3_600 * SECOND;
/// Milliseconds of a day.
pub(crate) const DAY: u64 = 24 * HOUR;

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", SECOND), ("m", 60 * SECOND), ("h", HOUR), ("d", DAY)];

/// A duration in its largest whole unit: `30d`.
pub(crate) fn show_span(ms: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| ms.is_multiple_of(*unit);
    match TIME_UNITS.iter().rev().find(whole) {
        Some((name, unit)) if ms > 0 => format!("{}{name}", ms / unit),
        _ => ms.to_string(),
    }
}

impl Kind for Span {
    type Out = Duration;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Duration> {
        let ms = match &node.value {
            Value::Whole(0) => Some(0),
            Value::Text(text) => split_unit(text).and_then(|(number, unit)| {
                if number == 0 && unit.is_empty() {
                    return Some(0);
                }
                let (_, scale) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
                number.checked_mul(*scale)
            }),
            _ => None,
        };
        let Some(ms) = ms else {
            let found = node.value.describe();
            return at.problem(format!(
                "expected a duration such as 10s (ms, s, m, h, d), found {found}"
            ));
        };
        in_range(ms, self.0, show_span, at).map(Duration::from_millis)
    }

    fn describe(&self) -> String {
        describe_range("duration", self.0, show_span)
    }
}

/// A value of a closed set.
pub(crate) trait Choice: Copy + 'static {
    /// The names and what they mean.
    const NAMES: &'static [(&'static str, Self)];
}

/// One of the names of `T`.
pub(crate) struct OneOf<T>(PhantomData<T>);

/// One of the names of `T`.
pub(crate) const fn one_of<T: Choice>() -> OneOf<T> {
    OneOf(PhantomData)
}

impl<T: Choice> Kind for OneOf<T> {
    type Out = T;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<T> {
        let expected = self.describe();
        let text = text_of(node, &expected, at)?;
        match T::NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Some(*value),
            None => at.problem(format!("expected {expected}, found {}", node.value.describe())),
        }
    }

    fn describe(&self) -> String {
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    }
}

/// Another kind, or `none`.
pub(crate) struct OrNone<K>(pub(crate) K);

impl<K: Kind> Kind for OrNone<K> {
    type Out = Option<K::Out>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Option<K::Out>> {
        match &node.value {
            Value::Text(text) if text.trim() == "none" => Some(None),
            _ => self.0.parse(node, at).map(Some),
        }
    }

    fn describe(&self) -> String {
        format!("{}, or none", self.0.describe())
    }
}

/// A text, read by a function; `none` says nothing.
pub(crate) struct Optional<T> {
    /// What it is.
    pub(crate) what: &'static str,
    /// Reads it.
    pub(crate) item: fn(&str) -> Result<T, String>,
}

impl<T> Kind for Optional<T> {
    type Out = Option<T>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Option<T>> {
        let text = text_of(node, self.what, at)?;
        if text == "none" {
            return Some(None);
        }
        let found = node.value.describe();
        (self.item)(&text).map_or_else(|e| at.problem(format!("{found}: {e}")), |v| Some(Some(v)))
    }

    fn describe(&self) -> String {
        format!("{}, or none", self.what)
    }
}

/// A folder.
pub(crate) struct Folder;

impl Kind for Folder {
    type Out = PathBuf;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<PathBuf> {
        let text = text_of(node, "a folder", at)?;
        if text.is_empty() || text.contains('\0') {
            return at.problem("expected the path of a folder".into());
        }
        Some(PathBuf::from(text))
    }

    fn describe(&self) -> String {
        "path of a folder".into()
    }
}

/// Where a listener listens.
pub(crate) struct Bind;

impl Kind for Bind {
    type Out = SocketAddr;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<SocketAddr> {
        let expected = "an IP address and a port such as 127.0.0.1:8080 or [::]:8080";
        let text = text_of(node, expected, at)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => at.problem(format!("expected {expected}, found {}", node.value.describe())),
        }
    }

    fn describe(&self) -> String {
        "IP address and port; port 0 takes a free one".into()
    }
}

/// A list of texts, each read by a function.
pub(crate) struct ListOf<T> {
    /// What one is, in the plural.
    pub(crate) what: &'static str,
    /// At most so many.
    pub(crate) max: usize,
    /// Reads one.
    pub(crate) item: fn(&str) -> Result<T, String>,
}

impl<T> Kind for ListOf<T> {
    type Out = Vec<T>;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<Vec<T>> {
        let items = items_of(node, self.what, at)?;
        if items.len() > self.max {
            return at.problem(format!("{} items are too many, at most {}", items.len(), self.max));
        }
        let mut values = Some(Vec::with_capacity(items.len()));
        for (index, item) in items.iter().enumerate() {
            let mut at = at.below(&format!("[{index}]"), &item.origin);
            let value = text_of(item, "a text", &mut at).and_then(|text| {
                let found = item.value.describe();
                (self.item)(&text).map_or_else(|e| at.problem(format!("{found}: {e}")), Some)
            });
            values = values.zip(value).map(|(mut values, value)| {
                values.push(value);
                values
            });
        }
        values
    }

    fn describe(&self) -> String {
        format!("list of {}, at most {}", self.what, self.max)
    }
}
