//! CONNACK, and what of a CONNECT is refused.

use super::*;
use clarion_core::port::outlet::Outlet;
use clarion_core::port::peer::Resumed;

fn greeting(setup: PeerSetup) -> Vec<u8> {
    let mut out = Vec::new();
    MqttPeer::new(setup).open(&mut out);
    out
}

fn properties(setup: PeerSetup) -> Vec<String> {
    let mut found = Vec::new();
    packets(Version::V5, &greeting(setup), |packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert_eq!((connack.session_present, connack.code), (false, 0));
        found = connack.properties.iter().map(|property| format!("{property:?}")).collect();
    });
    found
}

#[test]
fn each_version_is_greeted() {
    for version in [Version::V31, Version::V311] {
        assert_eq!(greeting(Say::new(version).setup(config())), [0x20, 2, 0, 0]);
    }
    let expected = ["ReceiveMaximum(5)", "MaximumPacketSize(4096)", "TopicAliasMaximum(2)"];
    assert_eq!(properties(Say::new(Version::V5).setup(config())), expected);
    // A client id without clean session is no session that outlives its connection.
    let say = Say { clean: false, ..Say::new(Version::V311) };
    assert_eq!(greeting(say.setup(config())), [0x20, 2, 0, 0]);
}

#[test]
fn what_is_not_as_asked_is_told() {
    let say = Say::new(Version::V5)
        .with([Property::SessionExpiry(60), Property::RequestResponseInfo(true)]);
    let mut config = config();
    config.response_information = Some("answers/".into());
    config.receive_maximum = u16::MAX;
    config.topic_aliases = 0;
    let session = SessionTerms { expiry_s: 50, expiry_max_s: 50 };
    let setup = PeerSetup { assigned: true, keep_alive: 30, session, ..say.setup(config) };
    assert_eq!(
        properties(setup),
        [
            "SessionExpiry(50)",
            "MaximumPacketSize(4096)",
            "AssignedClientId(\"client\")",
            "ServerKeepAlive(30)",
            "ResponseInfo(\"answers/\")",
        ]
    );
}

#[test]
fn a_session_that_was_kept_has_its_place() {
    let say = Say::new(Version::V5).with([Property::SessionExpiry(60)]);
    let session = SessionTerms { expiry_s: 60, expiry_max_s: 60 };
    let mut session = Session::of(PeerSetup { session, ..say.setup(config()) });
    session.peer.resume(Resumed { stored: true, present: true, ..Resumed::default() });
    session.peer.open(&mut session.out);
    let bytes = session.said();
    packets(Version::V5, &bytes, |packet| {
        let Packet::Connack(connack) = packet else { panic!("{packet:?}") };
        assert!(connack.session_present);
        let told = |property| matches!(property, Property::SessionExpiry(_));
        assert!(!connack.properties.iter().any(told));
    });
}

#[test]
fn a_client_of_small_packets_is_told_what_it_has_to_know_and_may_set_no_alias() {
    let say = Say::new(Version::V5).with([Property::MaximumPacketSize(15)]);
    assert_eq!(properties(say.setup(config())), ["ReceiveMaximum(5)", "MaximumPacketSize(4096)"]);
    let mut session = Session::of(say.setup(config()));
    let alias = [Property::TopicAlias(1)];
    let ask = session.hear(&publish_bytes(Version::V5, "a", Qos::AtMostOnce, 0, &alias, b""));
    assert_failed(&mut session, &ask, 0x94);
}

#[test]
fn a_hello_is_what_connect_says() {
    let config = config();
    let of = |say: &Say| say.decoded(|connect| Hello::of(connect, &config));
    let five = of(&Say::new(Version::V5));
    assert_eq!((five.receive_maximum, five.packet_bytes), (65_535, u32::MAX));
    assert_eq!((five.session_expiry_s, five.topic_aliases), (0, 0));
    assert_eq!(five.window(&config), 8);
    let few = of(&Say::new(Version::V5).with([Property::ReceiveMaximum(3)]));
    assert_eq!(few.window(&config), 3);
    let old = Say { clean: false, ..Say::new(Version::V311) };
    assert_eq!(of(&old).session_expiry_s, u32::MAX);
}

#[test]
fn what_cannot_be_had_is_refused() {
    let check = |say: &Say| say.decoded(|connect| check_connect(connect, &config()));
    let code = |say: &Say| check(say).unwrap_err().code;
    let five = || Say::new(Version::V5);
    assert_eq!(check(&five()), Ok(()));
    assert_eq!(code(&five().with([Property::AuthMethod("SCRAM-SHA-1")])), Some(0x8C));
    assert_eq!(code(&five().with([Property::MaximumPacketSize(2)])), None);
    assert_eq!(check(&five().with([Property::MaximumPacketSize(20)])), Ok(()));
    static LARGE: [u8; 1001] = [b'x'; 1001];
    let will = |topic, payload, properties: &[Property<'static>], version| Say {
        will: Some((topic, payload, Qos::ExactlyOnce, true)),
        will_properties: properties.to_vec(),
        ..Say::new(version)
    };
    let utf8 = [Property::PayloadFormat(1)];
    let v5 = Version::V5;
    for (say, expected) in [
        (will("$SYS/x", b"", &[], v5), 0x90),
        (will("a", b"\xff", &utf8, v5), 0x99),
        (will("a", &LARGE, &[], v5), 0x95),
    ] {
        assert_eq!(code(&say), Some(expected));
    }
    assert_eq!(check(&will("a", b"ok", &utf8, v5)), Ok(()));
    for version in [Version::V31, Version::V311] {
        assert_eq!(check(&will("$SYS/x", &LARGE, &[], version)), Ok(()));
    }
}
