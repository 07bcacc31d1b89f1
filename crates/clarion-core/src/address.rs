//! Addresses: the names of channels.
//!
//! Owns the text form (`user:42`, `group:g1`, `queue:jobs`, `topic:a/b`, `all`) and its validation. An `Address` that
//! exists is valid. Must not know: which channels exist or what they keep.

use std::{fmt, hash, sync::Arc};

/// Longest id of a user, group or queue, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Longest topic, in bytes (MQTT 5 §1.5.4: a UTF-8 string's length is two bytes).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// What topics of the server's own begin with.
pub const SERVER_TOPICS: &str = "$SYS/";

/// What an address names; decides what its channel keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressKind {
    /// `user:<id>`: one account.
    User,
    /// `group:<id>`: a named set of users.
    Group,
    /// `queue:<id>`: work that consumers share.
    Queue,
    /// `topic:<name>`: an MQTT topic without wildcards.
    Topic,
    /// `all`: everyone.
    All,
    /// `filter:<filter>`: references kept for durable wildcard subscriptions; refused from outside.
    Filter,
    /// `$dead/<address>`: what was given up on the channel behind it; refused from outside.
    Dead,
}

impl AddressKind {
    /// The text in front of the id.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::User => "user:",
            Self::Group => "group:",
            Self::Queue => "queue:",
            Self::Topic => "topic:",
            Self::All => "all",
            Self::Filter => "filter:",
            Self::Dead => "$dead/",
        }
    }

    const ALL: [Self; 7] =
        [Self::User, Self::Group, Self::Queue, Self::Topic, Self::All, Self::Filter, Self::Dead];
}

/// The valid name of one channel. Cloning costs a reference count.
#[derive(Clone)]
pub struct Address {
    kind: AddressKind,
    text: Arc<str>,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No known prefix.
    #[error("unknown kind of address: expected user:, group:, queue:, topic: or all")]
    UnknownKind,
    /// Nothing behind the prefix.
    #[error("the id is empty")]
    Empty,
    /// Longer than [`ID_BYTES_MAX`] or [`TOPIC_BYTES_MAX`].
    #[error("the id has {bytes} bytes, the limit is {limit}")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A control character, U+0000 included.
    #[error("the id has a control character")]
    ControlCharacter,
    /// `+` or `#` in a topic, or one that starts with `$`.
    #[error("a topic to publish to has no '+' and no '#' and does not start with '$'")]
    TopicSyntax,
    /// `filter:` and `$…` are the server's own.
    #[error("addresses of this kind are the server's own")]
    Reserved,
}

impl Address {
    /// Parses a text that came from outside: `filter:` and `$…` are refused.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let address = Self::parse_any(text)?;
        match address.kind {
            AddressKind::Filter | AddressKind::Dead => Err(AddressError::Reserved),
            _ => Ok(address),
        }
    }

    /// Parses any address, the server's own kinds too (for names that come back from a store).
    pub fn parse_any(text: &str) -> Result<Self, AddressError> {
        for kind in AddressKind::ALL {
            if let Some(id) = text.strip_prefix(kind.prefix()) {
                check_id(kind, id)?;
                return Ok(Self { kind, text: text.into() });
            }
        }
        Err(if text.starts_with('$') { AddressError::Reserved } else { AddressError::UnknownKind })
    }

    fn build(kind: AddressKind, id: &str) -> Result<Self, AddressError> {
        check_id(kind, id)?;
        Ok(Self { kind, text: format!("{}{id}", kind.prefix()).into() })
    }

    /// `user:<id>`.
    pub fn user(id: &str) -> Result<Self, AddressError> {
        Self::build(AddressKind::User, id)
    }

    /// `group:<id>`.
    pub fn group(id: &str) -> Result<Self, AddressError> {
        Self::build(AddressKind::Group, id)
    }

    /// `queue:<id>`.
    pub fn queue(id: &str) -> Result<Self, AddressError> {
        Self::build(AddressKind::Queue, id)
    }

    /// `topic:<name>`.
    pub fn topic(name: &str) -> Result<Self, AddressError> {
        Self::build(AddressKind::Topic, name)
    }

    /// `topic:$SYS/…`: what the server tells of itself. Never from outside: [`Self::parse`] and [`Self::topic`] refuse it, so
    /// only the server publishes there, and none of it is ever stored.
    pub fn server_topic(name: &str) -> Result<Self, AddressError> {
        let rest = name.strip_prefix(SERVER_TOPICS).ok_or(AddressError::TopicSyntax)?;
        check_id(AddressKind::Topic, rest)?;
        Ok(Self { kind: AddressKind::Topic, text: format!("topic:{name}").into() })
    }

    /// Whether it is one of [`Self::server_topic`].
    pub fn is_server_topic(&self) -> bool {
        self.kind == AddressKind::Topic && self.id().starts_with(SERVER_TOPICS)
    }

    /// `all`.
    pub fn all() -> Self {
        Self { kind: AddressKind::All, text: "all".into() }
    }

    /// The list of what was given up on this channel.
    pub fn dead_list(&self) -> Self {
        Self {
            kind: AddressKind::Dead,
            text: format!("{}{}", AddressKind::Dead.prefix(), self.text).into(),
        }
    }

    /// What it names.
    pub fn kind(&self) -> AddressKind {
        self.kind
    }

    /// The text behind the prefix; empty for `all`.
    pub fn id(&self) -> &str {
        &self.text[self.kind.prefix().len()..]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Checks an account id as clients give it: 1 to 256 bytes, no control character.
pub fn check_user_id(id: &str) -> Result<(), AddressError> {
    check_id(AddressKind::User, id)
}

fn check_id(kind: AddressKind, id: &str) -> Result<(), AddressError> {
    let limit = match kind {
        AddressKind::All => {
            return if id.is_empty() { Ok(()) } else { Err(AddressError::UnknownKind) };
        }
        AddressKind::Dead => return Address::parse_any(id).map(|_| ()),
        AddressKind::Topic | AddressKind::Filter => TOPIC_BYTES_MAX,
        AddressKind::User | AddressKind::Group | AddressKind::Queue => ID_BYTES_MAX,
    };
    if id.is_empty() {
        return Err(AddressError::Empty);
    }
    if id.len() > limit {
        return Err(AddressError::TooLong { bytes: id.len(), limit });
    }
    // The names of queues come from programs alone, and one dialect takes any text for them.
    if kind != AddressKind::Queue && id.chars().any(char::is_control) {
        return Err(AddressError::ControlCharacter);
    }
    if kind == AddressKind::Topic && (id.starts_with('$') || id.contains(['+', '#'])) {
        return Err(AddressError::TopicSyntax);
    }
    Ok(())
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Address {}
impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Address {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}
impl hash::Hash for Address {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl std::borrow::Borrow<str> for Address {
    fn borrow(&self) -> &str {
        &self.text
    }
}
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(AddressKind, &str), AddressError>) {
        let got = Address::parse(text);
        assert_eq!(
            got.as_ref().map(|a| (a.kind(), a.id())).map_err(Clone::clone),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn texts_and_what_they_name() {
        check("user:42", Ok((AddressKind::User, "42")));
        check("user:ünï:cødé", Ok((AddressKind::User, "ünï:cødé")));
        check("group:g1", Ok((AddressKind::Group, "g1")));
        check("queue:a b/c+#", Ok((AddressKind::Queue, "a b/c+#")));
        check("topic:a/b", Ok((AddressKind::Topic, "a/b")));
        check("topic:/", Ok((AddressKind::Topic, "/")));
        check("all", Ok((AddressKind::All, "")));
        check("all:x", Err(AddressError::UnknownKind));
        check("", Err(AddressError::UnknownKind));
        check("USER:1", Err(AddressError::UnknownKind));
        check("user:", Err(AddressError::Empty));
        check("topic:a/+", Err(AddressError::TopicSyntax));
        check("topic:$SYS/x", Err(AddressError::TopicSyntax));
        check("user:a\0b", Err(AddressError::ControlCharacter));
        check("filter:a/+", Err(AddressError::Reserved));
        check("$dead/queue:q", Err(AddressError::Reserved));
        check("$SYS", Err(AddressError::Reserved));
    }

    #[test]
    fn ids_are_bounded() {
        let long = |n| format!("user:{}", "x".repeat(n));
        check(&long(256), Ok((AddressKind::User, &"x".repeat(256))));
        check(&long(257), Err(AddressError::TooLong { bytes: 257, limit: 256 }));
        let topic = format!("topic:{}", "x".repeat(65_535));
        assert!(Address::parse(&topic).is_ok());
        assert!(Address::parse(&format!("{topic}x")).is_err());
    }

    #[test]
    fn what_the_server_tells_of_itself_has_addresses_that_nobody_else_makes() {
        let uptime = Address::server_topic("$SYS/broker/uptime").unwrap();
        assert_eq!((uptime.kind(), uptime.id()), (AddressKind::Topic, "$SYS/broker/uptime"));
        assert!(uptime.is_server_topic() && !Address::topic("SYS/x").unwrap().is_server_topic());
        assert_eq!(Address::parse_any(uptime.as_str()), Err(AddressError::TopicSyntax));
        for other in ["$SYS", "$SYS/", "$SYS/#", "$SYS/a/+", "$other/x", "a/b", "$SYS/$x"] {
            assert!(Address::server_topic(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_dead_list_is_the_servers_own_and_readable_by_name() {
        let dead = Address::queue("q").unwrap().dead_list();
        assert_eq!(dead.as_str(), "$dead/queue:q");
        assert_eq!(Address::parse_any(dead.as_str()), Ok(dead));
    }
}
