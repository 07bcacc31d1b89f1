//! Which topics belong to users, and the address behind a topic.
//!
//! A template such as `user/{user}` names one topic of each user. `{user}` stands for a part of one level: an id with `/`, `+` or
//! `#` in it has no user topic, so that a topic has one meaning only. Must not know: who may use them.

use clarion_core::{Address, Code, Refusal};
use std::fmt;

const PLACE: &str = "{user}";

/// Templates, in order: where several fit, the first counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserTopics {
    templates: Box<[Template]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    before: Box<str>,
    behind: Box<str>,
}

/// Why a text is no template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateError {
    /// `{user}` is missing, or is there twice.
    Place,
    /// It does not make a topic to publish to.
    Topic,
    /// There are more than 255.
    TooMany,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Place => "a user topic has '{user}' in it, once",
            Self::Topic => {
                "a user topic has no '+', no '#' and no control character, and does not start with '$'"
            }
            Self::TooMany => "there are at most 255 user topics",
        })
    }
}

impl std::error::Error for TemplateError {}

impl UserTopics {
    /// Takes templates apart and checks them.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, TemplateError> {
        let templates: Box<[Template]> =
            texts.into_iter().map(Template::parse).collect::<Result<_, _>>()?;
        if templates.len() > usize::from(u8::MAX) {
            return Err(TemplateError::TooMany);
        }
        Ok(Self { templates })
    }

    /// The user whose topic this is, and by which template. Nobody's when it has a wildcard in the user's place.
    pub(super) fn user_of<'t>(&self, topic: &'t str) -> Option<(u8, &'t str)> {
        let found = |(index, template): (usize, &Template)| {
            Some((u8::try_from(index).ok()?, template.user_of(topic)?))
        };
        self.templates.iter().enumerate().find_map(found)
    }

    /// The first topic of a user.
    pub(super) fn first_of(&self, user: &str) -> Option<Box<str>> {
        let template = self.templates.first()?;
        let topic = format!("{}{user}{}", template.before, template.behind);
        let (_, found) = self.user_of(&topic)?;
        (found == user && Address::topic(&topic).is_ok()).then(|| topic.into())
    }

    /// The channel of what is published to this topic.
    pub(super) fn address(&self, topic: &str) -> Result<Address, Refusal> {
        // A topic with '$' in front is the server's own, whatever the templates are.
        if topic.starts_with('$') {
            let detail = "topics that start with '$' are the server's own";
            return Err(Refusal::new(Code::BadAddress, detail));
        }
        Ok(match self.user_of(topic) {
            Some((_, user)) => Address::user(user)?,
            None => Address::topic(topic)?,
        })
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, TemplateError> {
        let (before, behind) = text.split_once(PLACE).ok_or(TemplateError::Place)?;
        if behind.contains(PLACE) {
            return Err(TemplateError::Place);
        }
        Address::topic(&format!("{before}x{behind}")).map_err(|_| TemplateError::Topic)?;
        Ok(Self { before: before.into(), behind: behind.into() })
    }

    fn user_of<'t>(&self, topic: &'t str) -> Option<&'t str> {
        let user = topic.strip_prefix(&*self.before)?.strip_suffix(&*self.behind)?;
        (!user.is_empty() && !user.contains(['/', '+', '#'])).then_some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(texts: &[&str]) -> UserTopics {
        UserTopics::parse(texts.iter().copied()).unwrap()
    }

    #[test]
    fn templates_name_one_topic_of_each_user() {
        let topics = topics(&["user/{user}", "u-{user}/in", "{user}"]);
        for (topic, expected) in [
            ("user/42", Some((0, "42"))),
            ("u-42/in", Some((1, "42"))),
            ("42", Some((2, "42"))),
            ("user/", None),
            ("user/a/b", None),
            ("user/+", None),
            ("u-#/in", None),
            ("+", None),
            ("a/b", None),
        ] {
            assert_eq!(topics.user_of(topic), expected, "{topic}");
        }
        assert_eq!(topics.first_of("42").as_deref(), Some("user/42"));
        for none in ["a/b", "a+", "", "a\u{1}b"] {
            assert_eq!(topics.first_of(none), None, "{none}");
        }
        assert_eq!(UserTopics::default().first_of("42"), None);
    }

    #[test]
    fn a_topic_has_one_channel() {
        let topics = topics(&["user/{user}"]);
        let of = |topic: &str| topics.address(topic).map(|address| address.as_str().to_owned());
        assert_eq!(of("a/b").unwrap(), "topic:a/b");
        assert_eq!(of("user/bob").unwrap(), "user:bob");
        assert_eq!(of("user/a/b").unwrap(), "topic:user/a/b");
        let long = format!("user/{}", "x".repeat(257));
        for bad in ["$SYS/x", "$", "a\u{7f}", "user/b\u{1}", &long] {
            assert_eq!(of(bad).unwrap_err().code, Code::BadAddress, "{bad}");
        }
    }

    #[test]
    fn bad_templates_are_told() {
        for (text, error) in [
            ("user", TemplateError::Place),
            ("{user}/{user}", TemplateError::Place),
            ("a/+/{user}", TemplateError::Topic),
            ("$x/{user}", TemplateError::Topic),
        ] {
            assert_eq!(UserTopics::parse([text]), Err(error), "{text}");
        }
        assert_eq!(UserTopics::parse(vec!["a{user}"; 256]), Err(TemplateError::TooMany));
    }
}
