//! SUBSCRIBE and UNSUBSCRIBE of topics.

use super::*;
use clarion_core::port::peer::{RetainHandling, Subscribe, Unsubscribe};
use clarion_wire::mqtt::SubscribeFilter;

pub(super) fn filter(text: &str, qos: Qos) -> SubscribeFilter<'_> {
    SubscribeFilter {
        filter: Topic::from(text),
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: 0,
    }
}

fn suback(version: Version, id: u16, codes: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    mqtt::suback(&mut bytes, version, id, codes, std::iter::empty());
    bytes
}

impl Session {
    pub(super) fn subscribe_with(
        &mut self,
        filters: &[SubscribeFilter<'_>],
        properties: &[Property<'_>],
    ) -> Ask {
        let mut bytes = Vec::new();
        let filters = filters.iter().copied();
        mqtt::subscribe(&mut bytes, self.version, 3, filters, properties.iter().copied());
        self.hear(&bytes)
    }

    /// What the shard is asked for, and the codes of the answer.
    pub(super) fn subscribe(
        &mut self,
        filters: &[SubscribeFilter<'_>],
    ) -> (Vec<Subscribe>, Vec<u8>) {
        let Ask::Subscribe { token, list } = self.subscribe_with(filters, &[]) else {
            panic!("it is refused")
        };
        assert!(self.said().is_empty());
        self.peer.subscribed(token, true, &mut self.out);
        let mut codes = Vec::new();
        packets(self.version, &self.said(), |packet| {
            let Packet::Suback(suback) = packet else { panic!("{packet:?}") };
            assert_eq!(suback.packet_id, 3);
            codes = suback.codes.to_vec();
        });
        (list, codes)
    }

    /// The code of one filter.
    fn code(&mut self, text: &str) -> u8 {
        let (list, codes) = self.subscribe(&[filter(text, Qos::AtLeastOnce)]);
        assert!(list.len() <= 1);
        assert_eq!(codes.len(), 1);
        codes[0]
    }

    pub(super) fn unsubscribe(
        &mut self,
        filters: &[&str],
        existed: &[bool],
    ) -> (Vec<Unsubscribe>, Vec<u8>) {
        let mut bytes = Vec::new();
        let topics = filters.iter().copied().map(Topic::from);
        mqtt::unsubscribe(&mut bytes, self.version, 4, topics, std::iter::empty());
        let Ask::Unsubscribe { token, list } = self.hear(&bytes) else { panic!("it is refused") };
        assert_eq!(list.len(), existed.len());
        self.peer.unsubscribed(token, existed, &mut self.out);
        let mut codes = Vec::new();
        packets(self.version, &self.said(), |packet| {
            let Packet::Unsuback(unsuback) = packet else { panic!("{packet:?}") };
            assert_eq!(unsuback.packet_id, 4);
            codes = unsuback.codes.to_vec();
        });
        (list, codes)
    }
}

#[test]
fn subscriptions_are_made_as_asked() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        let (list, codes) = session.subscribe(&[
            filter("a/+", Qos::AtMostOnce),
            filter("b/#", Qos::AtLeastOnce),
            filter("c", Qos::ExactlyOnce),
        ]);
        assert_eq!(codes, [0, 1, 2]);
        let of = |one: &Subscribe| (one.filter.to_string(), one.options, one.feed);
        let options = |qos| SubOptions { qos, ..SubOptions::default() };
        assert_eq!(
            list.iter().map(of).collect::<Vec<_>>(),
            [
                ("a/+".to_owned(), options(0), false),
                ("b/#".to_owned(), options(1), false),
                ("c".to_owned(), options(2), false)
            ]
        );
        assert!(list.iter().all(|one| one.retained == RetainHandling::Always));
    }
}

#[test]
fn options_of_5_are_handed_on() {
    let mut session = Session::new(Version::V5);
    let one = SubscribeFilter {
        no_local: true,
        retain_as_published: true,
        retain_handling: 1,
        ..filter("a", Qos::AtLeastOnce)
    };
    let two = SubscribeFilter { retain_handling: 2, ..filter("$share/g/b/#", Qos::AtLeastOnce) };
    let ask = session.subscribe_with(&[one, two], &[Property::SubscriptionId(268_435_455)]);
    let Ask::Subscribe { token: 3, list } = ask else { panic!("{ask:?}") };
    let id = 268_435_455;
    let options =
        SubOptions { qos: 1, no_local: true, retain_as_published: true, check: false, id };
    assert_eq!((list[0].options, list[0].retained), (options, RetainHandling::IfNew));
    assert_eq!((&*list[1].filter, list[1].share.as_deref()), ("b/#", Some("g")));
    assert_eq!(list[1].retained, RetainHandling::Never);
    session.peer.subscribed(3, true, &mut session.out);
    assert_eq!(session.said(), suback(Version::V5, 3, &[1, 1]));
}

#[test]
fn no_local_is_not_shared() {
    let mut session = Session::new(Version::V5);
    let shared = SubscribeFilter { no_local: true, ..filter("$share/g/a", Qos::AtMostOnce) };
    let ask = session.subscribe_with(&[shared], &[]);
    assert_failed(&mut session, &ask, 0x82);
}

#[test]
fn refusals_are_told_as_the_version_can() {
    for (text, five) in [
        ("a/b/c/d/e/f", 0x8F),
        ("user/alice", 0x87),
        ("$share/g/user/alice", 0x87),
        ("$share/g/user/bob", 0x8F),
        ("secret/x", 0x87),
        ("secret/#", 0x87),
        ("$share/g/secret/+", 0x87),
    ] {
        for version in VERSIONS {
            let mut setup = Say::new(version).setup(config());
            setup.principal = setup.principal.under(Some(&AclCell::new(all_but("topic:secret/#"))));
            let mut session = Session::of(setup);
            let (list, codes) =
                session.subscribe(&[filter(text, Qos::ExactlyOnce), filter("a", Qos::AtMostOnce)]);
            assert_eq!(list.len(), 1, "{text}");
            let refused = match version {
                Version::V31 => 2,
                Version::V311 => 0x80,
                Version::V5 => five,
            };
            assert_eq!(codes, [refused, 0], "{text}");
        }
    }
}

#[test]
fn the_code_of_a_forbidden_filter_is_configured() {
    let config = MqttPeerConfig { subscribe_denied_code: 0x80, ..config() };
    let mut session = Session::of(Say::new(Version::V5).setup(config));
    assert_eq!(session.code("user/alice"), 0x80);
}

#[test]
fn what_rules_cover_in_part_is_checked_message_by_message() {
    for version in VERSIONS {
        let cell = AclCell::new(all_but("topic:secret/#"));
        let mut setup = Say::new(version).setup(config());
        setup.principal = setup.principal.under(Some(&cell));
        let mut session = Session::of(setup);
        let (list, _) =
            session.subscribe(&[filter("#", Qos::AtMostOnce), filter("a/+", Qos::AtMostOnce)]);
        let check: Vec<bool> = list.iter().map(|one| one.options.check).collect();
        assert_eq!(check, [true, false]);
        let secret = on_topic("secret/x", b"");
        let plain = on_topic("a/x", b"");
        let mut give = |message, check| {
            let delivery = Delivery {
                message,
                qos: 0,
                retain: false,
                ids: &[],
                check,
                place: None,
                number: None,
                dup: false,
                now: NOW,
            };
            session.peer.give(delivery, &mut Vec::new())
        };
        assert_eq!(give(&secret, true), Gave::Passed);
        assert_eq!(give(&plain, true), Gave::Head);
        // After a change nothing that was found before counts.
        assert_eq!(give(&plain, false), Gave::Head);
        cell.replace(all_but("topic:a/#"));
        assert_eq!(give(&plain, false), Gave::Passed);
        assert_eq!(give(&secret, false), Gave::Head);
        assert_eq!(
            session.peer.config.counters.forbidden.load(std::sync::atomic::Ordering::Relaxed),
            2
        );
    }
}

#[test]
fn what_the_server_tells_of_itself_is_for_everyone() {
    for version in VERSIONS {
        let mut setup = Say::new(version).setup(config());
        setup.principal = Principal::user_of("bob", &[]);
        let mut session = Session::of(setup);
        for text in ["$SYS/#", "$SYS/broker/+"] {
            assert_eq!(session.code(text), 1);
        }
        let refused = session.code("$SYSTEM");
        assert_eq!(refused, [1, 0x80, 0x87][version as usize]);
    }
}

#[test]
fn a_session_has_as_many_subscriptions_as_it_may() {
    let mut session = Session::new(Version::V5);
    for text in ["a", "b", "$share/g/a", "c"] {
        assert_eq!(session.code(text), 1);
    }
    assert_eq!(session.code("d"), 0x97);
    // The same again is no new one.
    assert_eq!(session.code("a"), 1);
    let (list, codes) = session.unsubscribe(&["a", "x"], &[true, false]);
    assert_eq!((list.len(), codes), (2, vec![0, 0x11]));
    assert_eq!(session.code("d"), 1);
    assert_eq!(session.code("a"), 0x97);
    // One packet makes no more of them, even of the same.
    let same = [filter("b", Qos::AtMostOnce); 6];
    let (list, codes) = session.subscribe(&same);
    assert_eq!((list.len(), codes), (4, vec![0, 0, 0, 0, 0x97, 0x97]));
}

#[test]
fn unsubscribing_is_answered_as_the_version_does() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        session.subscribe(&[filter("a", Qos::AtMostOnce)]);
        let filters = ["a", "b", "user/alice", "user/bob", "$share/g/a/+"];
        let (list, codes) = session.unsubscribe(&filters, &[true, false, false, false]);
        assert_eq!(list[3].share.as_deref(), Some("g"));
        assert!(list.iter().all(|one| !one.feed));
        let expected: &[u8] =
            if version == Version::V5 { &[0, 0x11, 0x11, 0x11, 0x11] } else { &[] };
        assert_eq!(codes, expected);
        assert!(session.peer.filters.is_empty());
    }
}
