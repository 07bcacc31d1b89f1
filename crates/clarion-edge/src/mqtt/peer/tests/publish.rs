//! What a client publishes.

use super::*;

const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

fn answer(version: Version, qos: Qos, id: u16, code: u8) -> Vec<u8> {
    match qos {
        Qos::AtMostOnce => Vec::new(),
        Qos::AtLeastOnce => ack_bytes(version, AckKind::Puback, id, code),
        Qos::ExactlyOnce => ack_bytes(version, AckKind::Pubrec, id, code),
    }
}

#[test]
fn a_publish_is_handed_in_and_answered_when_it_is_done() {
    for version in VERSIONS {
        for qos in QOS {
            let mut session = Session::new(version);
            let publish = handed_in(session.publish("a/b", qos, 7));
            assert_eq!(publish.address.as_str(), "topic:a/b");
            let content = &publish.content;
            assert_eq!((&*content.payload, content.qos), (&b"hi"[..], qos as u8));
            let sender = Sender { user: "bob".into(), device: Some("client".into()) };
            assert_eq!(content.sender, Some(sender));
            assert_eq!((content.expires_at, content.asked_s, content.retain), (None, None, false));
            assert!(session.said().is_empty());
            if qos == Qos::AtMostOnce {
                assert_eq!(publish.token, 0);
                continue;
            }
            assert_eq!(session.published(publish.token, Ok(true)), Goes::On);
            assert_eq!(session.said(), answer(version, qos, 7, 0));
        }
    }
}

#[test]
fn no_reader_is_told_by_puback_of_5() {
    for version in VERSIONS {
        for (qos, code) in [(Qos::AtLeastOnce, 0x10), (Qos::ExactlyOnce, 0)] {
            let mut session = Session::new(version);
            let token = handed_in(session.publish("a", qos, 1)).token;
            assert_eq!(session.published(token, Ok(false)), Goes::On);
            assert_eq!(session.said(), answer(version, qos, 1, code));
        }
    }
}

#[test]
fn properties_are_parts_of_the_message() {
    let mut session = Session::new(Version::V5);
    let properties = [
        Property::UserProperty("b", "1"),
        Property::PayloadFormat(1),
        Property::MessageExpiry(30),
        Property::ContentType("text/plain"),
        Property::UserProperty("a", "2"),
        Property::ResponseTopic("answers/1"),
        Property::CorrelationData(b"\x00\x01"),
        Property::UserProperty("b", "3"),
    ];
    let bytes = publish_bytes(Version::V5, "a", Qos::AtLeastOnce, 1, &properties, "é".as_bytes());
    let content = handed_in(session.hear(&bytes)).content;
    assert!(content.utf8);
    assert_eq!((content.asked_s, content.expires_at), (Some(30), Some(NOW + 30_000)));
    assert_eq!(content.content_type.as_deref(), Some("text/plain"));
    assert_eq!(content.reply_to.as_deref(), Some("answers/1"));
    assert_eq!(content.correlation.as_deref(), Some(&b"\x00\x01"[..]));
    let headers: Vec<(&str, &str)> = content.headers.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(headers, [("b", "1"), ("a", "2"), ("b", "3")]);
    let expiry = [Property::MessageExpiry(0)];
    let bytes = publish_bytes(Version::V5, "a", Qos::AtMostOnce, 0, &expiry, b"");
    let content = handed_in(session.hear(&bytes)).content;
    assert_eq!((content.asked_s, content.expires_at), (Some(0), Some(NOW + 1000)));
}

#[test]
fn retain_and_dup_come_as_flags() {
    let mut session = Session::new(Version::V311);
    let mut bytes = publish_bytes(Version::V311, "a", Qos::AtLeastOnce, 1, &[], b"hi");
    bytes[0] |= 0b1001;
    assert!(handed_in(session.hear(&bytes)).content.retain);
}

#[test]
fn what_is_refused_here_is_told_as_the_version_can() {
    let large = [b'x'; 1001];
    let many = [Property::UserProperty("n", "v"); 4];
    let utf8 = [Property::PayloadFormat(1)];
    type Case<'a> = (&'a str, &'a [Property<'a>], &'a [u8], u8);
    let cases: [Case<'_>; 9] = [
        ("$SYS/x", &[], b"", 0x90),
        ("$share/g/a", &[], b"", 0x90),
        ("a/b/c/d/e/f", &[], b"", 0x90),
        ("user/alice", &[], b"", 0x87),
        ("u-alice", &[], b"", 0x87),
        ("secret/x", &[], b"", 0x87),
        ("a", &[], &large, 0x97),
        ("a", &many, b"", 0x97),
        ("a", &utf8, b"\xff", 0x99),
    ];
    for (topic, properties, payload, code) in cases {
        for version in VERSIONS {
            if version != Version::V5 && !properties.is_empty() {
                continue;
            }
            for qos in QOS {
                let mut setup = Say::new(version).setup(config());
                setup.principal =
                    setup.principal.under(Some(&AclCell::new(all_but("topic:secret/#"))));
                let mut session = Session::of(setup);
                // Twice, since the last topic is remembered.
                for id in [1, 2] {
                    let bytes = publish_bytes(version, topic, qos, id, properties, payload);
                    let ask = session.hear(&bytes);
                    assert!(matches!(ask, Ask::Nothing), "{topic}: {ask:?}");
                    assert_eq!(session.said(), answer(version, qos, id, code), "{topic}");
                }
                assert!(matches!(session.publish("fine", Qos::AtLeastOnce, 3), Ask::Publish(_)));
            }
        }
    }
}

#[test]
fn what_the_node_refuses_is_told_as_the_version_can() {
    for (code, five, old) in [
        (Code::Forbidden, 0x87, Goes::On),
        (Code::BadAddress, 0x90, Goes::On),
        (Code::NotFound, 0x83, Goes::On),
        (Code::PayloadTooLarge, 0x97, Goes::On),
        (Code::Overloaded, 0x97, Goes::End),
        (Code::StoreFull, 0x97, Goes::End),
        (Code::StoreUnavailable, 0x80, Goes::End),
        (Code::StoreOutcome, 0x80, Goes::End),
        (Code::ShuttingDown, 0x80, Goes::End),
        (Code::Internal, 0x80, Goes::End),
    ] {
        for version in VERSIONS {
            for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut session = Session::new(version);
                let token = handed_in(session.publish("a", qos, 1)).token;
                let goes = session.published(token, Err(code));
                let expected = if version == Version::V5 { Goes::On } else { old };
                assert_eq!(goes, expected, "{code:?}");
                if goes == Goes::End {
                    assert!(session.said().is_empty());
                    assert!(matches!(session.publish("a", qos, 2), Ask::Nothing));
                } else {
                    assert_eq!(session.said(), answer(version, qos, 1, five), "{code:?}");
                }
            }
        }
    }
}

#[test]
fn reasons_are_told_in_words_to_those_who_want_them() {
    let say = Say { properties: Vec::new(), ..Say::new(Version::V5) };
    let mut session = Session::of(say.setup(config()));
    session.publish("$x", Qos::AtLeastOnce, 1);
    let mut told = Vec::new();
    packets(Version::V5, &session.said(), |packet| {
        let Packet::Puback(ack) = packet else { panic!("{packet:?}") };
        told = ack.properties.iter().map(|property| format!("{property:?}")).collect();
    });
    assert_eq!(told, ["ReasonString(\"topics that start with '$' are the server's own\")"]);
    // Not where it makes the packet larger than the client takes.
    let small = say.with([Property::MaximumPacketSize(20)]);
    let mut session = Session::of(small.setup(config()));
    session.publish("$x", Qos::AtLeastOnce, 1);
    assert_eq!(session.said(), ack_bytes(Version::V5, AckKind::Puback, 1, 0x90));
}

#[test]
fn answers_keep_the_order_of_the_publishes() {
    let version = Version::V5;
    let mut session = Session::new(version);
    let first = handed_in(session.publish("a", Qos::AtLeastOnce, 1)).token;
    session.publish("$x", Qos::AtLeastOnce, 2);
    session.publish("$x", Qos::ExactlyOnce, 3);
    let second = handed_in(session.publish("a", Qos::ExactlyOnce, 4)).token;
    session.publish("$x", Qos::AtMostOnce, 0);
    assert!(session.said().is_empty());
    let _ = session.published(first, Ok(true));
    let expected = [
        answer(version, Qos::AtLeastOnce, 1, 0),
        answer(version, Qos::AtLeastOnce, 2, 0x90),
        answer(version, Qos::ExactlyOnce, 3, 0x90),
    ];
    assert_eq!(session.said(), expected.concat());
    let _ = session.published(second, Ok(true));
    assert_eq!(session.said(), answer(version, Qos::ExactlyOnce, 4, 0));
}

#[test]
fn exactly_once_is_handed_in_once() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        let token = handed_in(session.publish("a", Qos::ExactlyOnce, 9)).token;
        // Nobody knows yet what becomes of it.
        assert!(matches!(session.publish("a", Qos::ExactlyOnce, 9), Ask::Nothing));
        assert!(session.said().is_empty());
        let _ = session.published(token, Ok(true));
        let pubrec = ack_bytes(version, AckKind::Pubrec, 9, 0);
        assert_eq!(session.said(), pubrec);
        assert!(matches!(session.publish("a", Qos::ExactlyOnce, 9), Ask::Nothing));
        assert_eq!(session.said(), pubrec);
        for code in [0, 0x92] {
            assert!(matches!(session.ack(AckKind::Pubrel, 9, 0), Ask::Nothing));
            assert_eq!(session.said(), ack_bytes(version, AckKind::Pubcomp, 9, code));
        }
        handed_in(session.publish("a", Qos::ExactlyOnce, 9));
    }
}

#[test]
fn a_refused_id_is_free_again_in_5_and_waits_for_its_pubrel_in_3() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        session.publish("$x", Qos::ExactlyOnce, 9);
        session.said();
        session.ack(AckKind::Pubrel, 9, 0);
        assert_eq!(session.said(), ack_bytes(version, AckKind::Pubcomp, 9, 0x92));
        assert_eq!(session.peer.inbound.len(), 0);
    }
}

#[test]
fn the_receive_maximum_is_held_to_in_5() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        let mut tokens = Vec::new();
        for id in 1..=5 {
            let qos = if id % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
            tokens.push(handed_in(session.publish("a", qos, id)).token);
        }
        // QoS 0 does not count; an answered QoS 1 counts no longer; a QoS 2 does, until its PUBREL.
        handed_in(session.publish("a", Qos::AtMostOnce, 0));
        for token in tokens {
            let _ = session.published(token, Ok(true));
        }
        assert_eq!(session.peer.inbound.len(), 3);
        session.ack(AckKind::Pubrel, 1, 0);
        for id in 6..=8 {
            handed_in(session.publish("a", Qos::AtLeastOnce, id));
        }
        session.said();
        let ask = session.publish("a", Qos::AtLeastOnce, 9);
        if version == Version::V5 {
            assert_failed(&mut session, &ask, 0x93);
        } else {
            handed_in(ask);
        }
    }
}

#[test]
fn no_client_has_more_unanswered_than_there_are_ids() {
    for topic in ["a", "$x"] {
        let mut session = Session::new(Version::V311);
        handed_in(session.publish("a", Qos::AtLeastOnce, 1));
        let bytes = publish_bytes(Version::V311, topic, Qos::AtLeastOnce, 1, &[], b"");
        for _ in 1..65_535 {
            let heard = session.peer.hear(&bytes, NOW, &mut session.out);
            assert!(matches!(heard.ask, Ask::Publish(_) | Ask::Nothing));
        }
        let ask = session.hear(&bytes);
        assert_failed(&mut session, &ask, 0);
    }
}

#[test]
fn what_is_answered_late_ends_nothing_twice() {
    let mut session = Session::new(Version::V311);
    let token = handed_in(session.publish("a", Qos::AtLeastOnce, 1)).token;
    assert!(matches!(session.hear(&[0xE0, 0]), Ask::End { will: false }));
    for result in [Ok(true), Err(Code::Overloaded)] {
        assert_eq!(session.published(token, result), Goes::On);
        assert!(session.said().is_empty());
    }
}

#[test]
fn aliases_stand_for_topics() {
    let version = Version::V5;
    let with = |topic, alias| {
        publish_bytes(version, topic, Qos::AtMostOnce, 0, &[Property::TopicAlias(alias)], b"")
    };
    let mut session = Session::new(version);
    for (topic, alias, address) in [
        ("a/b", 1, "topic:a/b"),
        ("", 1, "topic:a/b"),
        ("user/bob", 2, "user:bob"),
        ("", 1, "topic:a/b"),
        ("", 2, "user:bob"),
        ("c", 1, "topic:c"),
        ("", 1, "topic:c"),
    ] {
        assert_eq!(handed_in(session.hear(&with(topic, alias))).address.as_str(), address);
    }
    for (topic, alias, code) in
        [("a", 3, 0x94), ("", 2, 0x82), ("more/than/32/bytes/of/topics/here", 1, 0x97)]
    {
        let mut session = Session::new(version);
        let ask = session.hear(&with(topic, alias));
        assert_failed(&mut session, &ask, code);
    }
    // A refused publish sets its alias all the same.
    let mut session = Session::new(version);
    assert!(matches!(session.hear(&with("user/eve", 1)), Ask::Nothing));
    assert!(matches!(session.hear(&with("", 1)), Ask::Nothing));
}

#[test]
fn a_user_topic_is_for_its_user_and_administrators() {
    let all = [Verb::Publish, Verb::Subscribe, Verb::Admin];
    let key = Principal::new("key", &all, None);
    for (user, principal, own, others) in [
        (Some("bob"), Principal::user_of("bob", &[Verb::Publish]), true, false),
        (Some("bob"), Principal::user_of("bob", &[Verb::Subscribe]), false, false),
        (Some("bob"), Principal::user_of("bob", &all), true, true),
        (None, Principal::new("key", &[Verb::Publish], None), false, false),
        (None, key, true, true),
    ] {
        let setup = Say::new(Version::V5).setup(config());
        let mut session = Session::of(PeerSetup { user: user.map(Into::into), principal, ..setup });
        for (topic, address, allowed) in [
            ("user/bob", "user:bob", own),
            ("u-bob", "user:bob", own),
            ("user/eve", "user:eve", others),
        ] {
            match session.publish(topic, Qos::AtMostOnce, 0) {
                Ask::Publish(publish) if allowed => assert_eq!(publish.address.as_str(), address),
                Ask::Nothing if !allowed => {}
                other => panic!("{topic}: {other:?}"),
            }
        }
    }
}

#[test]
fn rules_that_change_count_from_the_next_publish_on() {
    let cell = AclCell::new(all_but("topic:b"));
    let mut setup = Say::new(Version::V5).setup(config());
    setup.principal = setup.principal.under(Some(&cell));
    let mut session = Session::of(setup);
    for _ in 0..2 {
        handed_in(session.publish("a", Qos::AtMostOnce, 0));
    }
    cell.replace(all_but("topic:a"));
    for _ in 0..2 {
        assert!(matches!(session.publish("a", Qos::AtMostOnce, 0), Ask::Nothing));
    }
    handed_in(session.publish("b", Qos::AtMostOnce, 0));
}

#[test]
fn an_anonymous_client_is_known_by_its_client_id() {
    let setup = PeerSetup {
        user: None,
        principal: Principal::open(),
        ..Say::new(Version::V311).setup(config())
    };
    let mut session = Session::of(setup);
    let content = handed_in(session.publish("a", Qos::AtMostOnce, 0)).content;
    assert_eq!(content.sender, Some(Sender { user: "".into(), device: Some("client".into()) }));
}
