//! Topic aliases of 5 (§3.3.2.3.4), both ways.
//!
//! Invariants: an alias counts from 1 and is known on one connection only; what a client makes this server remember is bounded in
//! number and bytes. Must not know: packets.

use clarion_core::Address;
use std::sync::Arc;

/// Topics whose name is shorter than what an alias takes are sent as they are; longer ones are not held for it.
const WORTH: std::ops::RangeInclusive<usize> = 4..=1024;

/// Why an alias cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadAlias {
    /// 0, or above the maximum.
    Invalid,
    /// It stands alone and was not set.
    Unknown,
    /// The topics behind the aliases are too many bytes.
    Bytes,
}

/// Those that the client sets.
#[derive(Debug, Default)]
pub(super) struct AliasesIn {
    topics: Vec<Option<Arc<str>>>,
    bytes: usize,
}

impl AliasesIn {
    /// What a PUBLISH with this alias and topic is about. A topic that is not empty is noted and `None` answered.
    pub(super) fn resolve(
        &mut self,
        alias: u16,
        topic: &str,
        max: u16,
        bytes_max: usize,
    ) -> Result<Option<Arc<str>>, BadAlias> {
        if alias == 0 || alias > max {
            return Err(BadAlias::Invalid);
        }
        let index = usize::from(alias) - 1;
        if topic.is_empty() {
            let known = self.topics.get(index).cloned().flatten();
            return known.map(Some).ok_or(BadAlias::Unknown);
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        let Some(slot) = self.topics.get_mut(index) else { return Err(BadAlias::Invalid) };
        if slot.as_deref() == Some(topic) {
            return Ok(None);
        }
        let old = slot.as_ref().map_or(0, |old| old.len());
        let bytes = self.bytes - old + topic.len();
        if bytes > bytes_max {
            return Err(BadAlias::Bytes);
        }
        self.bytes = bytes;
        *slot = Some(topic.into());
        Ok(None)
    }
}

/// How a topic goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alias {
    /// By its name.
    None,
    /// By its name, and this alias will be known for it once it is sent: see [`AliasesOut::sent`].
    New(u16),
    /// By this alias alone.
    Known(u16),
}

/// Those that this server sets: first come, first served. When all are given, a topic that comes takes the place of one that did not
/// come since the last look at it.
#[derive(Debug)]
pub(super) struct AliasesOut {
    max: u16,
    hand: u16,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    what: What,
    hits: u8,
}

#[derive(Debug, PartialEq)]
enum What {
    Topic(Address),
    /// The topic of the feed; whether the client was told which.
    Feed(bool),
}

impl AliasesOut {
    pub(super) fn new(max: u16) -> Self {
        Self { max, hand: 0, slots: Vec::new() }
    }

    /// How a topic goes.
    pub(super) fn of(&mut self, topic: &Address) -> Alias {
        if self.max == 0 || !WORTH.contains(&topic.id().len()) {
            return Alias::None;
        }
        self.find(|what| match what {
            // Mostly it is the same text in memory, since a publisher's peer remembers its last topic.
            What::Topic(known) => std::ptr::eq(known.as_str(), topic.as_str()) || known == topic,
            What::Feed(_) => false,
        })
    }

    /// How the feed's topic goes.
    pub(super) fn of_feed(&mut self, topic: &str) -> Alias {
        if self.max == 0 || !WORTH.contains(&topic.len()) {
            return Alias::None;
        }
        let alias = self.find(|what| matches!(what, What::Feed(_)));
        match alias {
            Alias::Known(number) if !self.feed_is_told(number) => Alias::New(number),
            alias => alias,
        }
    }

    fn feed_is_told(&self, number: u16) -> bool {
        let slot = self.slots.get(usize::from(number) - 1);
        slot.is_some_and(|slot| slot.what == What::Feed(true))
    }

    /// The feed comes on another topic from now on.
    pub(super) fn feed_moves(&mut self) {
        for slot in &mut self.slots {
            if slot.what == What::Feed(true) {
                slot.what = What::Feed(false);
            }
        }
    }

    fn find(&mut self, same: impl Fn(&What) -> bool) -> Alias {
        for (number, slot) in (1..).zip(&mut self.slots) {
            if same(&slot.what) {
                slot.hits = slot.hits.saturating_add(1);
                return Alias::Known(number);
            }
        }
        let len = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        if len < self.max {
            return Alias::New(len + 1);
        }
        let hand = self.hand;
        match self.slots.get_mut(usize::from(hand)) {
            Some(slot) if slot.hits > 0 => {
                slot.hits /= 2;
                self.hand = if hand + 1 < len { hand + 1 } else { 0 };
                Alias::None
            }
            _ => Alias::New(hand + 1),
        }
    }

    /// What was [`Alias::New`] is sent; `topic` is `None` for the feed's.
    pub(super) fn sent(&mut self, alias: Alias, topic: Option<&Address>) {
        let Alias::New(number) = alias else { return };
        let what = topic.map_or(What::Feed(true), |topic| What::Topic(topic.clone()));
        let slot = Slot { what, hits: 1 };
        match self.slots.get_mut(usize::from(number) - 1) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_sets_and_uses_its_aliases() {
        let mut aliases = AliasesIn::default();
        let mut resolve = |alias, topic: &str| {
            aliases.resolve(alias, topic, 3, 10).map(|known| known.map(|known| known.to_string()))
        };
        assert_eq!(resolve(1, ""), Err(BadAlias::Unknown));
        assert_eq!(resolve(0, "a"), Err(BadAlias::Invalid));
        assert_eq!(resolve(4, "a"), Err(BadAlias::Invalid));
        assert_eq!(resolve(3, "abcdef"), Ok(None));
        assert_eq!(resolve(3, ""), Ok(Some("abcdef".to_owned())));
        assert_eq!(resolve(2, ""), Err(BadAlias::Unknown));
        assert_eq!(resolve(1, "abcde"), Err(BadAlias::Bytes));
        assert_eq!(resolve(3, "x"), Ok(None));
        assert_eq!(resolve(1, "abcde"), Ok(None));
        assert_eq!(resolve(3, ""), Ok(Some("x".to_owned())));
        assert_eq!(resolve(1, ""), Ok(Some("abcde".to_owned())));
    }

    fn topic(name: &str) -> Address {
        Address::topic(name).unwrap()
    }

    fn send(aliases: &mut AliasesOut, name: &str) -> Alias {
        let topic = topic(name);
        let alias = aliases.of(&topic);
        aliases.sent(alias, Some(&topic));
        alias
    }

    #[test]
    fn topics_get_aliases_as_they_come() {
        let mut aliases = AliasesOut::new(2);
        assert_eq!(aliases.of(&topic("first")), Alias::New(1));
        // It was not sent.
        assert_eq!(send(&mut aliases, "second"), Alias::New(1));
        assert_eq!(send(&mut aliases, "second"), Alias::Known(1));
        assert_eq!(send(&mut aliases, "abc"), Alias::None);
        assert_eq!(send(&mut aliases, &"x".repeat(1025)), Alias::None);
        assert_eq!(send(&mut aliases, "third"), Alias::New(2));
        assert_eq!(send(&mut aliases, "second"), Alias::Known(1));
        assert_eq!(send(&mut AliasesOut::new(0), "second"), Alias::None);
    }

    #[test]
    fn one_that_is_used_keeps_its_alias() {
        let mut aliases = AliasesOut::new(2);
        send(&mut aliases, "often");
        send(&mut aliases, "once");
        let mut told = 0;
        for round in 0..100 {
            for _ in 0..4 {
                assert_eq!(send(&mut aliases, "often"), Alias::Known(1));
            }
            told += usize::from(send(&mut aliases, &format!("other/{round}")) != Alias::None);
        }
        assert!(told > 10, "{told}");
    }

    #[test]
    fn the_feed_has_one_alias_on_whatever_topic() {
        let mut aliases = AliasesOut::new(2);
        assert_eq!(aliases.of_feed("user/bob"), Alias::New(1));
        aliases.sent(Alias::New(1), None);
        assert_eq!(aliases.of_feed("user/bob"), Alias::Known(1));
        assert_eq!(send(&mut aliases, "user/bob"), Alias::New(2));
        aliases.feed_moves();
        assert_eq!(aliases.of_feed("u/bob"), Alias::New(1));
        aliases.sent(Alias::New(1), None);
        assert_eq!(aliases.of_feed("u/bob"), Alias::Known(1));
    }
}
