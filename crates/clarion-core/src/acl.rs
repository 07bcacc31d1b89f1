//! Access rules: who may publish to and read which addresses, by patterns.
//!
//! The first rule that matches decides, else the default. Invariants: what [`Acl::covers`] says of a filter is true of
//! every topic (in doubt it says [`Cover::Part`]); who compares [`AclCell::version`] sees every change. Must not know: how
//! rules are written down, who proved what.

mod pattern;
#[cfg(test)]
mod tests;

pub use pattern::{Pattern, PatternError};

use crate::{Address, AddressKind};
use pattern::Lies;
use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

/// What rules are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Handing in messages.
    Publish,
    /// Attaching, taking, reading what was kept.
    Subscribe,
}

impl Action {
    /// Both, with the names that rules use.
    pub const NAMES: [(&'static str, Self); 2] =
        [("publish", Self::Publish), ("subscribe", Self::Subscribe)];
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Who<'a> {
    /// `%u`.
    pub user: Option<&'a str>,
    /// `%c`.
    pub client: Option<&'a str>,
    /// The name of the static key that was shown.
    pub key: Option<&'a str>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// This user.
    User(Box<str>),
    /// Who shows the static key of this name.
    Key(Box<str>),
    /// Who has neither.
    Anonymous,
}

impl Subject {
    fn is(&self, who: &Who<'_>) -> bool {
        match self {
            Self::User(name) => who.user == Some(name),
            Self::Key(name) => who.key == Some(name),
            Self::Anonymous => who.user.is_none() && who.key.is_none(),
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether what it matches is allowed.
    pub allow: bool,
    /// For publishing.
    pub publish: bool,
    /// For reading.
    pub subscribe: bool,
    /// Where; any of them.
    pub patterns: Vec<Pattern>,
    /// About whom; `None` = everybody.
    pub subjects: Option<Vec<Subject>>,
}

impl Rule {
    fn is_about(&self, who: &Who<'_>, action: Action) -> bool {
        let action_ok = match action {
            Action::Publish => self.publish,
            Action::Subscribe => self.subscribe,
        };
        action_ok && self.subjects.as_ref().is_none_or(|list| list.iter().any(|s| s.is(who)))
    }
}

/// What the rules say of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// By a rule.
    Allowed,
    /// By a rule.
    Denied,
    /// No rule matches; this is the default.
    Default(bool),
}

impl Verdict {
    /// Whether it is allowed.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed | Self::Default(true))
    }
}

/// How much of a filter may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cover {
    /// Every topic that it matches.
    All,
    /// Some topics may be, some may not: ask for each message.
    Part,
    /// No topic that it matches.
    None,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    rules: Vec<Rule>,
    default: bool,
}

impl Acl {
    /// Rules in their order, and what holds when none matches.
    pub fn new(rules: Vec<Rule>, default: bool) -> Self {
        Self { rules, default }
    }

    /// What the first rule that matches says.
    pub fn decide(&self, who: &Who<'_>, action: Action, address: &Address) -> Verdict {
        self.decide_id(who, action, (address.kind(), address.id()))
    }

    /// Whether this is allowed.
    pub fn allows(&self, who: &Who<'_>, action: Action, address: &Address) -> bool {
        self.decide(who, action, address).is_allowed()
    }

    fn decide_id(&self, who: &Who<'_>, action: Action, id: (AddressKind, &str)) -> Verdict {
        let mut matching = self.rules.iter().filter(|rule| {
            let patterns = &rule.patterns;
            rule.is_about(who, action) && patterns.iter().any(|p| p.matches(who, id, !rule.allow))
        });
        match matching.next() {
            Some(rule) if rule.allow => Verdict::Allowed,
            Some(_) => Verdict::Denied,
            None => Verdict::Default(self.default),
        }
    }

    /// How much of an MQTT filter (without `$share/<group>/`) may be read.
    pub fn covers(&self, who: &Who<'_>, filter: &str) -> Cover {
        let (mut some_allowed, mut some_denied) = (false, false);
        let mut note = |allow: bool| if allow { some_allowed = true } else { some_denied = true };
        let mut open = true;
        for rule in self.rules.iter().filter(|rule| rule.is_about(who, Action::Subscribe)) {
            let patterns = rule.patterns.iter().map(|p| p.lies(who, filter, !rule.allow));
            let lies = patterns.fold(Lies::Apart, Ord::max);
            if lies != Lies::Apart {
                note(rule.allow);
            }
            // What lies behind a rule that matches every topic is never asked.
            if lies == Lies::Around {
                open = false;
                break;
            }
        }
        if open {
            note(self.default);
        }
        match (some_allowed, some_denied) {
            (true, true) => Cover::Part,
            (true, false) => Cover::All,
            (false, _) => Cover::None,
        }
    }
}

/// Rules that may be replaced while they are in use. Clones share them.
#[derive(Debug, Clone)]
pub struct AclCell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    version: AtomicU64,
    current: RwLock<Arc<Acl>>,
}

impl AclCell {
    /// The first version, 1.
    pub fn new(acl: Acl) -> Self {
        let current = RwLock::new(Arc::new(acl));
        Self { shared: Arc::new(Shared { version: AtomicU64::new(1), current }) }
    }

    /// Puts other rules in force.
    pub fn replace(&self, acl: Acl) {
        // Nothing panics while it holds the lock.
        let mut current = self.shared.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(acl);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// Grows with every change. Read it before [`Self::load`]: what is then loaded is of this version or a later one, so that
    /// a change is at worst looked at twice.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// The rules in force.
    pub fn load(&self) -> Arc<Acl> {
        self.shared.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl PartialEq for AclCell {
    /// The same cell.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}
impl Eq for AclCell {}
