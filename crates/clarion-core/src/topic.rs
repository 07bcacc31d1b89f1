//! Topic names and filters (MQTT 5 §4.7): what is valid, and what matches.
//!
//! Must not know: who subscribes, how matching is made fast.

/// Why a text is no topic or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// At least one character (MQTT-4.7.3-1).
    #[error("a topic has at least one character")]
    Empty,
    /// `+` or `#` in a topic name (MQTT-3.3.2-2).
    #[error("a topic to publish to has no '+' and no '#'")]
    Wildcard,
    /// `#` that is not the whole last level (MQTT-4.7.1-1).
    #[error("'#' stands alone, as the last level")]
    Hash,
    /// `+` that is not a whole level (MQTT-4.7.1-2).
    #[error("'+' stands alone in its level")]
    Plus,
    /// `$share` without a valid group and filter (MQTT-4.8.2-1, -2).
    #[error("a shared subscription is $share/<group>/<filter>, the group without '/', '+' and '#'")]
    Share,
}

/// A filter as it was given, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The group of `$share/<group>/<filter>`.
    pub share: Option<&'a str>,
    /// What it matches.
    pub filter: &'a str,
}

/// Checks a topic name.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    if name.is_empty() {
        Err(TopicError::Empty)
    } else if name.contains(['+', '#']) {
        Err(TopicError::Wildcard)
    } else {
        Ok(())
    }
}

/// Takes a filter apart and checks it.
pub fn parse_filter(text: &str) -> Result<Filter<'_>, TopicError> {
    let Some(rest) = text.strip_prefix("$share/") else {
        if text == "$share" {
            return Err(TopicError::Share);
        }
        check_filter(text)?;
        return Ok(Filter { share: None, filter: text });
    };
    let (group, filter) = rest.split_once('/').ok_or(TopicError::Share)?;
    if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
        return Err(TopicError::Share);
    }
    check_filter(filter)?;
    Ok(Filter { share: Some(group), filter })
}

fn check_filter(filter: &str) -> Result<(), TopicError> {
    if filter.is_empty() {
        return Err(TopicError::Empty);
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level.len() > 1 || levels.peek().is_some()) {
            return Err(TopicError::Hash);
        }
        if level.contains('+') && level.len() > 1 {
            return Err(TopicError::Plus);
        }
    }
    Ok(())
}

/// Whether a filter has a wildcard.
pub fn is_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

/// Whether a filter matches a topic. One that begins with a wildcard matches no topic that begins with `$`
/// (MQTT-4.7.2-1).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for part in filter.split('/') {
        match (part, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (part, Some(level)) if part == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/+", "a/b", true),
            ("a/+", "a/b/c", false),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "x", true),
            ("#", "/x", true),
            ("+/b", "a/b", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("a", "a/b", false),
            ("A", "a", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn what_is_valid() {
        for good in
            ["a", "a/b", "a/+/c", "#", "a/#", "+", "+/#", "/", "a//b", "$SYS/#", "$shared/a"]
        {
            assert_eq!(parse_filter(good), Ok(Filter { share: None, filter: good }), "{good}");
        }
        let shared = |share, filter| Ok(Filter { share: Some(share), filter });
        assert_eq!(parse_filter("$share/g/a/#"), shared("g", "a/#"));
        assert_eq!(parse_filter("$share/g//"), shared("g", "/"));
        for (bad, why) in [
            ("", TopicError::Empty),
            ("a#", TopicError::Hash),
            ("#/a", TopicError::Hash),
            ("a/#/b", TopicError::Hash),
            ("a+", TopicError::Plus),
            ("a/b+/c", TopicError::Plus),
            ("$share", TopicError::Share),
            ("$share/", TopicError::Share),
            ("$share/g", TopicError::Share),
            ("$share/g/", TopicError::Share),
            ("$share//a", TopicError::Share),
            ("$share/g+/a", TopicError::Share),
            ("$share/g/a#", TopicError::Hash),
        ] {
            assert_eq!(parse_filter(bad), Err(why), "{bad}");
        }
        assert_eq!(check_name("a/b"), Ok(()));
        assert_eq!(check_name(""), Err(TopicError::Empty));
        assert_eq!(check_name("a/+"), Err(TopicError::Wildcard));
    }
}
