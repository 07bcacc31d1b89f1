//! SUBSCRIBE and UNSUBSCRIBE: what is granted, and the user's feed behind his user topics.
//!
//! The shard holds the subscriptions; here is only what the protocol needs: a hash of each filter, so that they can be counted, and
//! the user topics. Invariants: a session has one feed, whatever the number of user topics it subscribed; it comes on the first of
//! them in order of the templates. Refusals: 5 by code, 3.1.1 by 0x80, and 3.1, which has none, is told that it is granted.

use super::MqttPeer;
use clarion_core::port::peer::{self, Ask, Resumed, RetainHandling, SubOptions, Verdict};
use clarion_core::topic::{self, Filter};
use clarion_core::{Address, Cover, Verb};
use clarion_wire::mqtt::{self, Property, Qos, Subscribe, SubscribeFilter, Unsubscribe, Version};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

const FILTER_INVALID: u8 = 0x8F;
const QUOTA: u8 = 0x97;
const NOT_THERE: u8 = 0x11;
/// Stands for a code that the shard knows.
const ASKED: u8 = 0xFF;

/// The feed of the session's user.
#[derive(Debug)]
pub(super) struct Feed {
    /// The user topics that are subscribed, by the order of their templates; never empty.
    topics: Vec<FeedTopic>,
}

#[derive(Debug)]
struct FeedTopic {
    template: u8,
    topic: Box<str>,
    options: SubOptions,
}

impl Feed {
    pub(super) fn new(template: u8, topic: Box<str>, options: SubOptions) -> Self {
        Self { topics: vec![FeedTopic { template, topic, options }] }
    }

    /// Where it comes, and how.
    pub(super) fn current(&self) -> Option<(&str, SubOptions)> {
        self.topics.first().map(|first| (&*first.topic, first.options))
    }

    fn put(&mut self, template: u8, topic: &str, options: SubOptions) {
        match self.topics.binary_search_by_key(&template, |one| one.template) {
            Ok(at) => {
                if let Some(one) = self.topics.get_mut(at) {
                    one.options = options;
                }
            }
            Err(at) => {
                self.topics.insert(at, FeedTopic { template, topic: topic.into(), options });
            }
        }
    }

    /// Whether it was there.
    fn remove(&mut self, template: u8) -> bool {
        let before = self.topics.len();
        self.topics.retain(|one| one.template != template);
        self.topics.len() < before
    }
}

/// A SUBACK or UNSUBACK that waits for the shard to have done it, which it does at once.
#[derive(Debug)]
pub(super) struct Answer {
    id: u16,
    codes: Vec<u8>,
}

fn hash(filter: &Filter<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (filter.share, filter.filter).hash(&mut hasher);
    hasher.finish()
}

fn options(filter: &SubscribeFilter<'_>, check: bool, id: u32) -> SubOptions {
    SubOptions {
        qos: filter.qos as u8,
        no_local: filter.no_local,
        retain_as_published: filter.retain_as_published,
        check,
        id,
    }
}

fn retained(filter: &SubscribeFilter<'_>) -> RetainHandling {
    match filter.retain_handling {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        _ => RetainHandling::Never,
    }
}

impl MqttPeer {
    pub(super) fn hear_subscribe(&mut self, packet: &Subscribe<'_>, out: &mut Vec<u8>) -> Ask {
        let id = packet.properties.iter().find_map(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        });
        // What rules said before a change counts no longer: from then on each delivery is checked, until no subscription of
        // before is left.
        if self.filters.is_empty() {
            self.acl_version = self.principal.acl_version();
        }
        let mut list = Vec::new();
        let mut codes = Vec::new();
        for one in packet.filters() {
            let parsed = topic::parse_filter(one.filter.as_str());
            if parsed.is_ok_and(|filter| filter.share.is_some()) && one.no_local {
                return self.fail(0x82, "No Local with a shared subscription", out);
            }
            let granted = match parsed {
                Err(_) => Err(FILTER_INVALID),
                // As many as a session may have are enough for one packet, too.
                Ok(_) if list.len() >= self.config.subscriptions => Err(QUOTA),
                Ok(filter) => self.grant(&filter, &one, id.unwrap_or_default()),
            };
            codes.push(match granted {
                Ok(subscribe) => {
                    let qos = subscribe.options.qos;
                    list.push(subscribe);
                    qos
                }
                Err(code) => self.refused_code(code, one.qos),
            });
        }
        self.answer = Some(Box::new(Answer { id: packet.packet_id, codes }));
        Ask::Subscribe { token: packet.packet_id.into(), list }
    }

    fn refused_code(&self, code: u8, asked: Qos) -> u8 {
        match self.version {
            Version::V31 => asked as u8,
            Version::V311 => 0x80,
            Version::V5 => code,
        }
    }

    fn grant(
        &mut self,
        filter: &Filter<'_>,
        one: &SubscribeFilter<'_>,
        id: u32,
    ) -> Result<peer::Subscribe, u8> {
        let denied = self.config.subscribe_denied_code;
        if filter.filter.split('/').count() > self.config.topic_levels {
            return Err(FILTER_INVALID);
        }
        let hash = hash(filter);
        let place = self.filters.binary_search(&hash);
        if place.is_err() && self.filters.len() >= self.config.subscriptions {
            return Err(QUOTA);
        }
        let feed = match self.config.user_topics.user_of(filter.filter) {
            None => None,
            Some((template, user)) if self.user.as_deref() == Some(user) => {
                let own = Address::user(user).map_err(|_| FILTER_INVALID)?;
                if filter.share.is_some() {
                    return Err(FILTER_INVALID);
                }
                if !self.principal.allows(Verb::Subscribe, &own) {
                    return Err(denied);
                }
                Some(template)
            }
            Some(_) => return Err(denied),
        };
        let check = match feed {
            Some(_) => false,
            None => self.must_check(filter.filter).ok_or(denied)?,
        };
        let mut options = options(one, check, id);
        if feed.is_some() && self.stored {
            // Its numbers are not kept, so that a client could take one for another's.
            options.qos = options.qos.min(1);
        }
        let granted = match feed {
            Some(template) => self.grant_feed(template, filter.filter, options, retained(one)),
            None => peer::Subscribe {
                filter: filter.filter.into(),
                share: filter.share.map(Into::into),
                feed: false,
                options,
                retained: retained(one),
            },
        };
        if let Err(at) = place {
            self.filters.insert(at, hash);
        }
        Ok(granted)
    }

    /// Whether each message is to be checked; `None` = the filter is refused.
    fn must_check(&self, filter: &str) -> Option<bool> {
        // What the server tells of itself is for everyone, and may be asked for when it tells nothing.
        if filter == "$SYS" || filter.starts_with("$SYS/") {
            return Some(false);
        }
        match self.principal.covers(filter) {
            Cover::None => None,
            Cover::Part => Some(true),
            Cover::All => Some(false),
        }
    }

    fn grant_feed(
        &mut self,
        template: u8,
        topic: &str,
        options: SubOptions,
        retained: RetainHandling,
    ) -> peer::Subscribe {
        match &mut self.feed {
            Some(feed) => feed.put(template, topic, options),
            feed => *feed = Some(Box::new(Feed::new(template, topic.into(), options))),
        }
        self.aliases_out.feed_moves();
        peer::Subscribe { filter: topic.into(), share: None, feed: true, options, retained }
    }

    pub(super) fn hear_unsubscribe(&mut self, packet: &Unsubscribe<'_>) -> Ask {
        let mut list = Vec::new();
        let mut codes = Vec::new();
        for one in packet.filters() {
            let Ok(filter) = topic::parse_filter(one.as_str()) else {
                codes.push(FILTER_INVALID);
                continue;
            };
            if let Ok(at) = self.filters.binary_search(&hash(&filter)) {
                self.filters.remove(at);
            }
            let own = match self.config.user_topics.user_of(filter.filter) {
                Some((template, user)) if filter.share.is_none() => {
                    (self.user.as_deref() == Some(user)).then_some(template)
                }
                _ => None,
            };
            codes.push(match own {
                None => {
                    let share = filter.share.map(Into::into);
                    let filter = filter.filter.into();
                    list.push(peer::Unsubscribe { filter, share, feed: false });
                    ASKED
                }
                Some(template) => self.leave_feed(template, &filter, &mut list),
            });
        }
        if self.filters.is_empty() {
            self.filters = Vec::new();
        }
        self.answer = Some(Box::new(Answer { id: packet.packet_id, codes }));
        Ask::Unsubscribe { token: packet.packet_id.into(), list }
    }

    /// The feed ends with the last of its topics.
    fn leave_feed(
        &mut self,
        template: u8,
        filter: &Filter<'_>,
        list: &mut Vec<peer::Unsubscribe>,
    ) -> u8 {
        let Some(feed) = &mut self.feed else { return NOT_THERE };
        if !feed.remove(template) {
            return NOT_THERE;
        }
        self.aliases_out.feed_moves();
        let ends = feed.topics.is_empty();
        if ends {
            self.feed = None;
        }
        list.push(peer::Unsubscribe { filter: filter.filter.into(), share: None, feed: ends });
        ASKED
    }

    /// What an earlier connection of the session left.
    pub(super) fn take_over(&mut self, resumed: Resumed) -> Vec<Verdict> {
        self.stored = resumed.stored;
        if let Some(greeting) = &mut self.greeting {
            greeting.present = resumed.present;
        }
        self.acl_version = self.principal.acl_version();
        self.inflight.restore(&resumed.outs);
        let judge = |(filter, share, options): &(Box<str>, Option<Box<str>>, SubOptions)| {
            let filter = Filter { filter, share: share.as_deref() };
            let verdict = self.judge(&filter, *options);
            if verdict != Verdict::Gone {
                self.filters.push(hash(&filter));
            }
            verdict
        };
        let verdicts = resumed.subs.iter().map(judge).collect();
        self.filters.sort_unstable();
        self.filters.dedup();
        verdicts
    }

    fn judge(&mut self, filter: &Filter<'_>, options: SubOptions) -> Verdict {
        match self.config.user_topics.user_of(filter.filter) {
            None => match self.must_check(filter.filter) {
                None => Verdict::Gone,
                Some(check) => Verdict::Topic { check },
            },
            Some((template, user)) if self.user.as_deref() == Some(user) => {
                if !self.may_read_feed() {
                    return Verdict::Gone;
                }
                match &mut self.feed {
                    Some(feed) => feed.put(template, filter.filter, options),
                    feed => {
                        *feed = Some(Box::new(Feed::new(template, filter.filter.into(), options)));
                    }
                }
                Verdict::Feed
            }
            Some(_) => Verdict::Gone,
        }
    }

    pub(super) fn write_suback(&mut self, granted: bool, out: &mut Vec<u8>) {
        let Some(mut answer) = self.answer.take() else { return };
        if !granted && self.version != Version::V31 {
            let refused = answer.codes.iter_mut().filter(|code| **code <= 2);
            refused.for_each(|code| *code = 0x80);
        }
        let start = out.len();
        mqtt::suback(out, self.version, answer.id, &answer.codes, std::iter::empty());
        if out.len() - start > self.packet_bytes {
            out.truncate(start);
        }
    }

    pub(super) fn write_unsuback(&mut self, existed: &[bool], out: &mut Vec<u8>) {
        let Some(mut answer) = self.answer.take() else { return };
        let asked = answer.codes.iter_mut().filter(|code| **code == ASKED);
        for (code, existed) in asked.zip(existed.iter().chain(std::iter::repeat(&false))) {
            *code = if *existed { 0 } else { NOT_THERE };
        }
        let start = out.len();
        mqtt::unsuback(out, self.version, answer.id, &answer.codes, std::iter::empty());
        if out.len() - start > self.packet_bytes {
            out.truncate(start);
        }
    }
}
