//! Who asks: the identity that every verb of the node takes, and what it may do.
//!
//! Must not know: how an identity was proved.

use crate::acl::{AclCell, Action, Cover, Verdict, Who};
use crate::{Address, AddressKind};
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
    /// Trim, erase, kick, delete what is retained.
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

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    name: Box<str>,
    allow: Box<[Verb]>,
    users: Option<Box<[Box<str>]>>,
    user: Option<Arc<str>>,
    client: Option<Arc<str>>,
    is_key: bool,
    /// It is its user and nobody else.
    is_user: bool,
    acl: Option<AclCell>,
}

impl Principal {
    /// Whoever shows the static key of this name: what it may do, and the users it may act for (`None` = all).
    pub fn new(name: &str, allow: &[Verb], users: Option<Vec<Box<str>>>) -> Self {
        let users = users.map(Vec::into_boxed_slice);
        let inner = Inner {
            name: name.into(),
            allow: allow.into(),
            users,
            user: None,
            client: None,
            is_key: true,
            is_user: false,
            acl: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The caller of a listener without authentication: may do everything that the access rules allow.
    pub fn open() -> Self {
        let all = Verb::NAMES.map(|(_, verb)| verb);
        Self::new("open", &all, None).change(|inner| inner.is_key = false)
    }

    /// The same for users' clients: no administrator.
    pub fn open_client() -> Self {
        let allow = [Verb::Publish, Verb::Subscribe, Verb::Read];
        Self::new("open", &allow, None).change(|inner| inner.is_key = false)
    }

    /// A user who has proved to be this one. Without the verb `admin` he acts for himself only, uses topics, and what else
    /// a rule allows him by name or pattern.
    pub fn user_of(user: &str, allow: &[Verb]) -> Self {
        let bound = !allow.contains(&Verb::Admin);
        let users = bound.then(|| vec![user.into()]);
        // Keys have names too, and what was given to one is not the other's.
        Self::new(&format!("user:{user}"), allow, users).change(|inner| {
            inner.user = Some(user.into());
            inner.is_key = false;
            inner.is_user = bound;
        })
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// The same under this user name, for access rules; a principal that has one keeps it.
    #[must_use]
    pub fn as_user(self, user: Option<Arc<str>>) -> Self {
        if user.is_none() || self.inner.user.is_some() {
            return self;
        }
        self.change(|inner| inner.user = user)
    }

    /// The same with this client id, for access rules.
    #[must_use]
    pub fn with_client(self, client: Option<Arc<str>>) -> Self {
        if client.is_none() { self } else { self.change(|inner| inner.client = client) }
    }

    /// The same under these access rules.
    #[must_use]
    pub fn under(self, acl: Option<&AclCell>) -> Self {
        if acl.is_none() { self } else { self.change(|inner| inner.acl = acl.cloned()) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The user that it is, if it is one.
    pub fn user(&self) -> Option<&Arc<str>> {
        self.inner.user.as_ref()
    }

    /// Whether it is one user who acts for himself only.
    pub fn is_one_user(&self) -> bool {
        self.inner.is_user
    }

    /// Its client id or device.
    pub fn client(&self) -> Option<&Arc<str>> {
        self.inner.client.as_ref()
    }

    /// Whether it may do this at all.
    pub fn may(&self, verb: Verb) -> bool {
        self.inner.allow.contains(&verb)
    }

    /// Whether it may do this to this user or, with `None`, to what belongs to no one user. Says nothing of access rules: for
    /// an address there is [`Self::allows`].
    pub fn may_for(&self, verb: Verb, user: Option<&str>) -> bool {
        let user_ok = match (&self.inner.users, user) {
            (None, _) => true,
            (Some(users), Some(user)) => users.iter().any(|u| **u == *user),
            (Some(_), None) => false,
        };
        self.may(verb) && user_ok
    }

    /// Whether it may do this to this address, by its rights and by the access rules.
    pub fn allows(&self, verb: Verb, address: &Address) -> bool {
        let inner = &*self.inner;
        let action = match verb {
            Verb::Publish => Action::Publish,
            Verb::Subscribe | Verb::Read => Action::Subscribe,
            // Rules are about messages; this is about the server.
            Verb::Admin => return self.may_for(verb, owner(address)),
        };
        if inner.is_user && address.kind() != AddressKind::User {
            return self.may(verb) && self.user_may(action, address);
        }
        self.may_for(verb, owner(address))
            && inner.acl.as_ref().is_none_or(|acl| acl.load().allows(&self.who(), action, address))
    }

    /// What belongs to no one user: topics are everybody's, `all` may be read; the rest wants a rule.
    fn user_may(&self, action: Action, address: &Address) -> bool {
        let by_default = match address.kind() {
            AddressKind::Topic => true,
            AddressKind::All => action == Action::Subscribe,
            _ => false,
        };
        let verdict =
            self.inner.acl.as_ref().map(|acl| acl.load().decide(&self.who(), action, address));
        match verdict {
            Some(Verdict::Allowed) => true,
            Some(Verdict::Denied | Verdict::Default(false)) => false,
            Some(Verdict::Default(true)) | None => by_default,
        }
    }

    /// How much of an MQTT filter (without `$share/<group>/`) it may read.
    pub fn covers(&self, filter: &str) -> Cover {
        let may_topics =
            self.may(Verb::Subscribe) && (self.inner.is_user || self.inner.users.is_none());
        match &self.inner.acl {
            _ if !may_topics => Cover::None,
            None => Cover::All,
            Some(acl) => acl.load().covers(&self.who(), filter),
        }
    }

    /// Changes when the access rules do: what [`Self::covers`] said before is then to be asked again. Read it before asking.
    pub fn acl_version(&self) -> u64 {
        self.inner.acl.as_ref().map_or(0, AclCell::version)
    }

    fn who(&self) -> Who<'_> {
        let inner = &*self.inner;
        Who {
            user: inner.user.as_deref(),
            client: inner.client.as_deref(),
            key: inner.is_key.then_some(&*inner.name),
        }
    }
}

/// The user whose own an address is.
fn owner(address: &Address) -> Option<&str> {
    (address.kind() == AddressKind::User).then(|| address.id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::{Acl, Pattern, Rule};

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

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn allowed(principal: &Principal, verb: Verb) -> Vec<&'static str> {
        let all = ["user:u", "user:v", "topic:a/b", "all", "queue:q", "group:g"];
        all.into_iter().filter(|text| principal.allows(verb, &address(text))).collect()
    }

    fn rule(allow: bool, pattern: &str) -> Rule {
        let patterns = vec![Pattern::parse(pattern).unwrap()];
        Rule { allow, publish: true, subscribe: true, patterns, subjects: None }
    }

    const ALL: [Verb; 3] = [Verb::Publish, Verb::Subscribe, Verb::Read];

    #[test]
    fn a_user_is_himself_and_uses_topics() {
        let user = Principal::user_of("u", &ALL);
        assert_eq!(allowed(&user, Verb::Publish), ["user:u", "topic:a/b"]);
        assert_eq!(allowed(&user, Verb::Read), ["user:u", "topic:a/b", "all"]);
        assert_eq!(allowed(&user, Verb::Admin), [""; 0]);
        assert!(!user.may_for(Verb::Read, None) && !user.may_for(Verb::Read, Some("v")));
        assert_eq!(user.covers("#"), Cover::All);
        assert_eq!(Principal::user_of("u", &[Verb::Publish]).covers("#"), Cover::None);
        let admin = Principal::user_of("u", &[Verb::Publish, Verb::Admin]);
        assert_eq!(allowed(&admin, Verb::Publish).len(), 6);
        // A key for some users has no topics, as ever.
        let key = Principal::new("k", &ALL, Some(vec!["u".into()]));
        assert_eq!(allowed(&key, Verb::Publish), ["user:u"]);
        assert_eq!(key.covers("a"), Cover::None);
    }

    #[test]
    fn rules_narrow_and_give_what_is_nobodys() {
        let cell = AclCell::new(Acl::new(vec![rule(true, "queue:#"), rule(true, "user:#")], false));
        let user = Principal::user_of("u", &ALL).under(Some(&cell));
        assert_eq!(allowed(&user, Verb::Publish), ["user:u", "queue:q"]);
        assert_eq!((user.covers("a/+"), user.acl_version()), (Cover::None, 1));
        cell.replace(Acl::new(vec![rule(false, "topic:a/b"), rule(false, "user:%u")], true));
        assert_eq!((user.covers("a/+"), user.acl_version()), (Cover::Part, 2));
        assert_eq!(allowed(&user, Verb::Subscribe), ["all"]);
        let open = Principal::open().under(Some(&cell));
        assert_eq!(allowed(&open, Verb::Publish).len(), 5);
        let named = open.as_user(Some("v".into()));
        assert_eq!(allowed(&named, Verb::Publish), ["user:u", "all", "queue:q", "group:g"]);
        assert_eq!(named.user().map(|user| &**user), Some("v"));
        assert_eq!(named.as_user(Some("w".into())).user().map(|user| &**user), Some("v"));
    }
}
