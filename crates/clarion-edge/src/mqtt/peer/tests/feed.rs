//! The user's feed on his topics.

use super::subscribe::filter;
use super::*;
use clarion_core::port::outlet::Given;
use clarion_core::port::peer::{Place, Taking};
use clarion_wire::mqtt::SubscribeFilter;

fn stored(channel: Address, seq: u64, payload: &'static [u8]) -> Message {
    let content = Content { payload: payload.into(), ..Content::default() };
    Message { epoch: 9, seq, ..message(channel, content) }
}

fn own(seq: u64) -> Message {
    stored(Address::user("bob").unwrap(), seq, b"hi")
}

fn given(message: &Message) -> Given<'_> {
    Given { message, start: message.seq, attempt: 1, replayed: false, now: NOW }
}

/// As the shard gives it.
fn give(session: &mut Session, message: &Message) -> Vec<u8> {
    let mut frame = Vec::new();
    session.peer.encode(message, &mut frame);
    assert_eq!(session.peer.takes(given(message), frame.len()), Taking::Yes);
    session.peer.before(given(message), frame.len(), &mut session.out);
    session.out.extend_from_slice(&frame);
    session.peer.behind(given(message), frame.len(), &mut session.out);
    session.said()
}

#[test]
fn the_first_of_the_subscribed_user_topics_is_the_feed() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        assert!(!session.peer.feed_is_numbered());
        assert_eq!(session.peer.takes(given(&own(1)), 2), Taking::Passed, "nobody asked for it");
        let (list, codes) = session.subscribe(&[filter("u-bob", Qos::ExactlyOnce)]);
        assert_eq!((&*list[0].filter, list[0].feed, codes), ("u-bob", true, vec![2]));
        assert!(session.peer.feed_is_numbered());
        let bytes = give(&mut session, &own(1));
        assert_eq!(bytes, publish_bytes(version, "u-bob", Qos::ExactlyOnce, 1, &[], b"hi"));

        // The template that stands first takes over.
        let (list, codes) = session.subscribe(&[filter("user/bob", Qos::AtMostOnce)]);
        assert_eq!((&*list[0].filter, list[0].feed, codes), ("user/bob", true, vec![0]));
        assert!(!session.peer.feed_is_numbered());
        let bytes = give(&mut session, &own(2));
        assert_eq!(bytes, publish_bytes(version, "user/bob", Qos::AtMostOnce, 0, &[], b"hi"));
        // Asking for the other again changes nothing of that.
        let (list, _) = session.subscribe(&[filter("u-bob", Qos::AtLeastOnce)]);
        assert_eq!((&*list[0].filter, list[0].options.qos), ("u-bob", 1));
        let bytes = give(&mut session, &own(2));
        assert_eq!(bytes, publish_bytes(version, "user/bob", Qos::AtMostOnce, 0, &[], b"hi"));

        // It ends with the last topic.
        let (list, _) = session.unsubscribe(&["user/bob"], &[true]);
        assert!(list.len() == 1 && !list[0].feed);
        let bytes = give(&mut session, &own(3));
        assert_eq!(bytes, publish_bytes(version, "u-bob", Qos::AtLeastOnce, 2, &[], b"hi"));
        let (list, codes) = session.unsubscribe(&["user/bob", "u-bob"], &[true]);
        assert!(list[0].feed);
        assert_eq!(codes, if version == Version::V5 { vec![0x11, 0] } else { vec![] });
        assert_eq!(session.peer.takes(given(&own(4)), 2), Taking::Passed);
    }
}

#[test]
fn rules_that_change_may_end_it() {
    let cell = AclCell::new(all_but("topic:x"));
    let mut setup = Say::new(Version::V5).setup(config());
    setup.principal = setup.principal.under(Some(&cell));
    setup.feed_acl_version = setup.principal.acl_version();
    let mut session = Session::of(setup);
    session.subscribe(&[filter("user/bob", Qos::AtLeastOnce)]);
    cell.replace(all_but("topic:y"));
    assert_eq!(session.peer.takes(given(&own(1)), 2), Taking::Yes);
    cell.replace(all_but("user:bob"));
    assert_eq!(session.peer.takes(given(&own(2)), 2), Taking::End);
}

#[test]
fn an_ack_tells_the_place() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        session.subscribe(&[filter("user/bob", Qos::AtLeastOnce)]);
        give(&mut session, &own(5));
        give(&mut session, &stored(Address::all(), 6, b""));
        // A live one is in no history.
        give(&mut session, &own(0));
        let acked = |ask| match ask {
            Ask::Freed { acked, .. } => acked,
            other => panic!("{other:?}"),
        };
        let all = Place { log: 1, epoch: 9, seq: 6 };
        assert_eq!(acked(session.ack(AckKind::Puback, 2, 0)), Some(all));
        let own = Place { log: 0, epoch: 9, seq: 5 };
        assert_eq!(acked(session.ack(AckKind::Puback, 1, 0)), Some(own));
        assert_eq!(acked(session.ack(AckKind::Puback, 3, 0)), None);
        assert!(session.said().is_empty());
    }
}

#[test]
fn exactly_once_is_acked_by_pubcomp() {
    let mut session = Session::new(Version::V5);
    session.subscribe(&[filter("user/bob", Qos::ExactlyOnce)]);
    give(&mut session, &own(5));
    give(&mut session, &own(6));
    assert!(matches!(session.ack(AckKind::Pubrec, 1, 0), Ask::Nothing));
    let place = |seq| Some(Place { log: 0, epoch: 9, seq });
    assert!(
        matches!(session.ack(AckKind::Pubcomp, 1, 0), Ask::Freed { acked, .. } if acked == place(5))
    );
    assert!(
        matches!(session.ack(AckKind::Pubrec, 2, 0x80), Ask::Freed { acked, .. } if acked == place(6))
    );
}

#[test]
fn it_comes_with_what_its_subscription_asks_for() {
    let mut session = Session::new(Version::V5);
    let one = SubscribeFilter {
        no_local: true,
        retain_as_published: true,
        ..filter("user/bob", Qos::AtLeastOnce)
    };
    let ask = session.subscribe_with(&[one], &[Property::SubscriptionId(7)]);
    assert!(matches!(ask, Ask::Subscribe { .. }));
    let mut message = own(1);
    let content = Content {
        retain: true,
        content_type: Some("text/plain".into()),
        ..(*message.content).clone()
    };
    message.content = Arc::new(content.clone());
    let bytes = give(&mut session, &message);
    assert_eq!(bytes[0], 0x33);
    let (topic, id, properties) = one_publish(Version::V5, &bytes);
    assert_eq!((&*topic, id), ("user/bob", 1));
    assert_eq!(properties, ["ContentType(\"text/plain\")", "SubscriptionId(7)"]);

    let by = |user: &str, device: &str| {
        let sender = Some(Sender { user: user.into(), device: Some(device.into()) });
        let content = Arc::new(Content { sender, ..content.clone() });
        Message { content, ..message.clone() }
    };
    assert_eq!(session.peer.takes(given(&by("bob", "client")), 2), Taking::Passed, "No Local");
    assert_eq!(session.peer.takes(given(&by("bob", "other")), 2), Taking::Yes);
    assert_eq!(session.peer.takes(given(&by("eve", "client")), 2), Taking::Yes);
}

#[test]
fn what_the_client_cannot_have_is_not_taken() {
    let say = Say::new(Version::V5).with([Property::MaximumPacketSize(40)]);
    let mut session = Session::of(say.setup(config()));
    session.subscribe(&[filter("user/bob", Qos::AtLeastOnce)]);
    // Type and length, topic, packet id, no properties, payload.
    let of = |payload| stored(Address::user("bob").unwrap(), 1, payload);
    let (fits, too_large) = (of(&[b'x'; 40 - 15]), of(&[b'x'; 40 - 14]));
    assert_eq!(session.peer.takes(given(&fits), 40 - 15), Taking::Yes);
    assert_eq!(session.peer.takes(given(&too_large), 40 - 14), Taking::Passed);
    assert_eq!(give(&mut session, &fits).len(), 40);
    let mut ended = own(1);
    ended.content = Arc::new(Content { expires_at: Some(NOW), ..(*ended.content).clone() });
    assert_eq!(session.peer.takes(given(&ended), 2), Taking::Passed);
}

#[test]
fn it_has_an_alias_where_the_client_takes_one() {
    let say = Say::new(Version::V5).with([Property::TopicAliasMaximum(10)]);
    let mut session = Session::of(say.setup(config()));
    session.subscribe(&[filter("u-bob", Qos::AtMostOnce)]);
    let alias = |session: &mut Session| {
        let bytes = give(session, &own(1));
        let (topic, _, properties) = one_publish(Version::V5, &bytes);
        (topic, properties)
    };
    let expected = vec!["TopicAlias(1)".to_owned()];
    assert_eq!(alias(&mut session), ("u-bob".to_owned(), expected.clone()));
    assert_eq!(alias(&mut session), (String::new(), expected.clone()));
    session.subscribe(&[filter("user/bob", Qos::AtMostOnce)]);
    assert_eq!(alias(&mut session), ("user/bob".to_owned(), expected.clone()));
    assert_eq!(alias(&mut session), (String::new(), expected));
}

#[test]
fn wildcards_and_anonymous_clients_have_no_feed() {
    let mut session = Session::new(Version::V5);
    let (list, _) = session.subscribe(&[filter("user/+", Qos::AtMostOnce)]);
    assert!(!list[0].feed);
    let setup = Say::new(Version::V5).setup(config());
    let mut anonymous = Session::of(PeerSetup {
        user: None,
        principal: Principal::open(),
        auto_feed: true,
        ..setup
    });
    assert_eq!(anonymous.peer.takes(given(&own(1)), 2), Taking::Passed);
    let (list, codes) = anonymous.subscribe(&[filter("user/bob", Qos::AtMostOnce)]);
    assert_eq!((list.len(), codes), (0, vec![0x87]));
}

#[test]
fn it_comes_unasked_where_the_listener_says_so() {
    for version in VERSIONS {
        let setup = PeerSetup { auto_feed: true, ..Say::new(version).setup(config()) };
        let mut session = Session::of(setup);
        assert!(session.peer.feed_is_numbered());
        let bytes = give(&mut session, &own(1));
        assert_eq!(bytes, publish_bytes(version, "user/bob", Qos::AtLeastOnce, 1, &[], b"hi"));
        let (list, _) = session.unsubscribe(&["user/bob"], &[true]);
        assert!(list[0].feed);
    }
    // A name that makes no topic has none.
    assert!(config().has_user_topic("bob") && !config().has_user_topic("a/b"));
    let setup = PeerSetup {
        auto_feed: true,
        user: Some("a/b".into()),
        ..Say::new(Version::V5).setup(config())
    };
    assert!(!Session::of(setup).peer.feed_is_numbered());
}
