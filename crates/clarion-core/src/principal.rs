//! Who asks: the identity that every verb of the node takes, and what it may do.
//!
//! Must not know: how an identity was proved.

use std::sync::Arc;

/// What a principal may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Hand in messages.
    Publish,
    /// Attach as a user or to a channel, ack.
    Subscribe,
    /// Read channels and the status of messages, presence, sessions.
    Read,
    /// Trim, erase, kick.
    Admin,
}

impl Verb {
    /// All of them with the names that a configuration uses.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("publish", Self::Publish),
        ("subscribe", Self::Subscribe),
        ("read", Self::Read),
        ("admin", Self::Admin),
    ];
}

/// An identity and its rights. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq)]
struct Inner {
    name: Box<str>,
    allow: Box<[Verb]>,
    users: Option<Box<[Box<str>]>>,
}

impl Principal {
    /// Name, what it may do, and the users it may act for (`None` = all).
    pub fn new(name: &str, allow: &[Verb], users: Option<Vec<Box<str>>>) -> Self {
        let users = users.map(Vec::into_boxed_slice);
        Self { inner: Arc::new(Inner { name: name.into(), allow: allow.into(), users }) }
    }

    /// The caller of a listener without authentication: may do everything.
    pub fn open() -> Self {
        Self::new("open", &Verb::NAMES.map(|(_, verb)| verb), None)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Whether it may do this at all.
    pub fn may(&self, verb: Verb) -> bool {
        self.inner.allow.contains(&verb)
    }

    /// Whether it may do this to this user or, with `None`, to what belongs to no one user.
    pub fn may_for(&self, verb: Verb, user: Option<&str>) -> bool {
        let user_ok = match (&self.inner.users, user) {
            (None, _) => true,
            (Some(users), Some(user)) => users.iter().any(|u| **u == *user),
            (Some(_), None) => false,
        };
        self.may(verb) && user_ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_what_was_given() {
        let open = Principal::open();
        assert!(open.may_for(Verb::Admin, None));
        let one = Principal::new("k", &[Verb::Subscribe], Some(vec!["u".into()]));
        assert!(one.may_for(Verb::Subscribe, Some("u")));
        assert!(!one.may_for(Verb::Subscribe, Some("v")));
        assert!(!one.may_for(Verb::Subscribe, None));
        assert!(!one.may_for(Verb::Publish, Some("u")));
    }
}
