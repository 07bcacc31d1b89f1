//! Deliveries of topics and their acks.

use super::*;
use std::collections::BTreeMap;

#[test]
fn each_version_gets_its_packet() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        let message = on_topic("a/b", b"hi");
        for (qos, id) in [(Qos::AtMostOnce, 0), (Qos::AtLeastOnce, 1), (Qos::ExactlyOnce, 2)] {
            assert_eq!(session.give(&message, qos as u8), Gave::Head);
            session.out.extend_from_slice(b"hi");
            assert_eq!(session.said(), publish_bytes(version, "a/b", qos, id, &[], b"hi"));
        }
        let delivery = Delivery {
            message: &message,
            qos: 0,
            retain: true,
            ids: &[],
            check: false,
            place: None,
            number: None,
            dup: false,
            now: NOW,
        };
        session.peer.give(delivery, &mut session.out);
        assert_eq!(session.said()[0], 0x31);
    }
}

#[test]
fn parts_of_the_message_are_properties_of_5() {
    let content = Content {
        payload: b"hi"[..].into(),
        utf8: true,
        content_type: Some("text/plain".into()),
        reply_to: Some("answers".into()),
        correlation: Some(b"\x01"[..].into()),
        expires_at: Some(NOW + 1500),
        asked_s: Some(2),
        headers: vec![("b".into(), "1".into()), ("a".into(), "2".into())],
        ..Content::default()
    };
    let message = message(Address::topic("a").unwrap(), content);
    for version in VERSIONS {
        let mut session = Session::new(version);
        let delivery = Delivery {
            message: &message,
            qos: 1,
            retain: false,
            ids: &[4, 2],
            check: false,
            place: None,
            number: None,
            dup: false,
            now: NOW,
        };
        assert_eq!(session.peer.give(delivery, &mut session.out), Gave::Head);
        session.out.extend_from_slice(b"hi");
        let expected: &[&str] = match version {
            Version::V5 => &[
                "PayloadFormat(1)",
                "MessageExpiry(2)",
                "ContentType(\"text/plain\")",
                "ResponseTopic(\"answers\")",
                "CorrelationData([1])",
                "SubscriptionId(4)",
                "SubscriptionId(2)",
                "UserProperty(\"b\", \"1\")",
                "UserProperty(\"a\", \"2\")",
            ],
            _ => &[],
        };
        assert_eq!(one_publish(version, &session.said()).2, expected);
        let late = Delivery { now: NOW + 1500, ..delivery };
        assert_eq!(session.peer.give(late, &mut session.out), Gave::Passed);
        assert!(session.said().is_empty());
    }
}

#[test]
fn acks_free_places() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        let message = on_topic("a", b"");
        for qos in [1, 2, 2] {
            session.give(&message, qos);
        }
        session.said();
        assert!(matches!(session.ack(AckKind::Puback, 1, 0), Ask::Freed { acked: None, .. }));
        for _ in 0..2 {
            assert!(matches!(session.ack(AckKind::Pubrec, 2, 0), Ask::Nothing));
            assert_eq!(session.said(), ack_bytes(version, AckKind::Pubrel, 2, 0));
        }
        assert!(matches!(session.ack(AckKind::Pubcomp, 2, 0), Ask::Freed { acked: None, .. }));
        if version == Version::V5 {
            assert!(matches!(
                session.ack(AckKind::Pubrec, 3, 0x87),
                Ask::Freed { acked: None, .. }
            ));
            assert_eq!(session.peer.inflight.len(), 0);
        }
        assert!(session.said().is_empty());
    }
}

#[test]
fn acks_of_nothing_end_nothing() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        for kind in [AckKind::Puback, AckKind::Pubcomp] {
            assert!(matches!(session.ack(kind, 7, 0), Ask::Nothing));
            assert!(session.said().is_empty());
        }
        assert!(matches!(session.ack(AckKind::Pubrec, 7, 0), Ask::Nothing));
        assert_eq!(session.said(), ack_bytes(version, AckKind::Pubrel, 7, 0x92));
        if version == Version::V5 {
            assert!(matches!(session.ack(AckKind::Pubrec, 7, 0x97), Ask::Nothing));
            assert!(session.said().is_empty());
        }
    }
}

#[test]
fn an_ack_of_the_wrong_kind_breaks_the_protocol() {
    for version in VERSIONS {
        for (qos, kind) in [
            (1, AckKind::Pubrec),
            (1, AckKind::Pubcomp),
            (2, AckKind::Puback),
            (2, AckKind::Pubcomp),
        ] {
            let mut session = Session::new(version);
            session.give(&on_topic("a", b""), qos);
            session.said();
            let ask = session.ack(kind, 1, 0);
            assert_failed(&mut session, &ask, 0x82);
        }
    }
}

#[test]
fn a_packet_that_is_too_large_is_passed_over_and_takes_no_number() {
    let say = Say::new(Version::V5)
        .with([Property::MaximumPacketSize(20), Property::TopicAliasMaximum(10)]);
    let mut session = Session::of(say.setup(config()));
    // Type and length, topic, packet id, length of properties, payload.
    let large = on_topic("abcd", &[b'x'; 20 - 10]);
    assert_eq!(session.give(&large, 1), Gave::Passed);
    assert!(session.said().is_empty());
    let counters = &session.peer.config.counters;
    assert_eq!(counters.too_large.load(std::sync::atomic::Ordering::Relaxed), 1);
    // This one fits as long as no alias comes with it.
    let fits = on_topic("abcd", &[b'x'; 20 - 11]);
    for id in [1, 2] {
        assert_eq!(session.give(&fits, 1), Gave::Head);
        session.out.extend_from_slice(&fits.content.payload);
        let bytes = session.said();
        assert_eq!(bytes.len(), 20);
        assert_eq!(one_publish(Version::V5, &bytes), ("abcd".to_owned(), id, Vec::new()));
    }
    let small = on_topic("abcd", b"");
    assert_eq!(session.give(&small, 0), Gave::Head);
    assert_eq!(one_publish(Version::V5, &session.said()).2, ["TopicAlias(1)"]);
}

#[test]
fn topics_have_aliases_where_the_client_takes_them() {
    for (maximum, aliased) in [(0, 0), (2, 2), (100, 4)] {
        let say = Say::new(Version::V5).with([Property::TopicAliasMaximum(maximum)]);
        let mut session = Session::of(say.setup(config()));
        let mut read: BTreeMap<String, String> = BTreeMap::new();
        for round in 0..3 {
            for number in 0..5 {
                let name = format!("topic/{number}");
                assert_eq!(session.give(&on_topic(&name, b""), 0), Gave::Head);
                let (topic, _, properties) = one_publish(Version::V5, &session.said());
                // As a client does.
                let topic = match properties.first() {
                    None => topic,
                    Some(alias) if topic.is_empty() => read[alias].clone(),
                    Some(alias) => {
                        read.insert(alias.clone(), topic.clone());
                        topic
                    }
                };
                assert_eq!(topic, name, "round {round}");
            }
        }
        assert_eq!(read.len(), aliased);
    }
}

#[test]
fn a_full_window_gives_nothing() {
    let mut session = Session::new(Version::V311);
    let message = on_topic("a", b"");
    // More than the shard would ever give.
    let gave = (0..SPAN_MIN).filter(|_| session.give(&message, 1) == Gave::Head).count();
    assert_eq!(gave, SPAN_MIN);
    session.said();
    assert_eq!(session.give(&message, 1), Gave::Passed);
    assert_eq!(session.give(&message, 0), Gave::Head);
}
