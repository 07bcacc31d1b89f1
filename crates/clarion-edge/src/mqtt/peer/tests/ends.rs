//! How connections end, and wills.

use super::*;
use clarion_core::port::outlet::CloseReason;
use clarion_core::subscription::{Gap, GapReason};

fn client_disconnect(version: Version, code: u8, properties: &[Property<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    mqtt::disconnect(&mut bytes, version, code, properties.iter().copied());
    bytes
}

const WILL: (&str, &[u8], Qos, bool) = ("will/topic", b"gone", Qos::AtLeastOnce, true);

fn with_will(version: Version) -> Say {
    Say { will: Some(WILL), ..Say::new(version) }
}

#[test]
fn pings_are_answered() {
    for version in VERSIONS {
        let mut session = Session::new(version);
        assert!(matches!(session.hear(&[0xC0, 0]), Ask::Nothing));
        assert_eq!(session.said(), [0xD0, 0]);
    }
}

#[test]
fn one_packet_is_heard_at_a_time() {
    let mut session = Session::new(Version::V311);
    let heard = session.peer.hear(&[0xC0, 0, 0xC0], NOW, &mut session.out);
    assert_eq!(heard.consumed, 2);
    let heard = session.peer.hear(&[0xC0], NOW, &mut session.out);
    assert!(heard.consumed == 0 && matches!(heard.ask, Ask::More));
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let connect = |version| {
        let say = Say::new(version);
        let mut bytes = Vec::new();
        say.decoded(|connect| {
            mqtt::connect(&mut bytes, connect, std::iter::empty(), std::iter::empty());
        });
        bytes
    };
    for version in VERSIONS {
        let five = version == Version::V5;
        let mut cases: Vec<(Vec<u8>, u8)> = vec![
            (connect(version), 0x82),
            (vec![0x00, 0], 0x82),
            (vec![0x20, 2, 0, 0], 0x82),
            (vec![0x90, 3, 0, 1, 0], 0x82),
            (vec![0xB0, 2, 0, 1], 0x82),
            (vec![0xD0, 0], 0x82),
            (vec![0x36, 2, 0, 0], 0x81),
            (vec![0xC0, 1, 0], 0x81),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F], 0x95),
            (vec![0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81),
        ];
        if five {
            let mut auth = Vec::new();
            mqtt::auth(&mut auth, 0x18, [Property::AuthMethod("X")].into_iter());
            cases.push((auth, 0x82));
        } else {
            cases.push((vec![0xF0, 0], 0x82));
        }
        for (bytes, code) in cases {
            let mut session = Session::of(with_will(version).setup(config()));
            let ask = session.hear(&bytes);
            assert_failed(&mut session, &ask, code);
            assert!(session.peer.will(NOW).is_some());
            assert!(session.peer.will(NOW).is_none(), "once");
        }
    }
}

#[test]
fn an_error_is_told_in_words_as_far_as_there_is_room() {
    for (maximum, expected) in [(4096, true), (10, false), (2, false)] {
        let say =
            Say { properties: vec![Property::MaximumPacketSize(maximum)], ..Say::new(Version::V5) };
        let mut session = Session::of(say.setup(config()));
        session.hear(&[0xD0, 0]);
        let bytes = session.said();
        if maximum == 2 {
            assert!(bytes.is_empty());
            continue;
        }
        packets(Version::V5, &bytes, |packet| {
            let Packet::Disconnect(disconnect) = packet else { panic!("{packet:?}") };
            assert_eq!(disconnect.reason, 0x82);
            assert_eq!(!disconnect.properties.is_empty(), expected);
        });
    }
}

#[test]
fn a_disconnect_decides_on_the_will() {
    for (version, code, will) in [
        (Version::V31, 0, false),
        (Version::V311, 0, false),
        (Version::V5, 0, false),
        (Version::V5, 0x04, true),
        (Version::V5, 0x80, true),
    ] {
        let mut session = Session::of(with_will(version).setup(config()));
        let ask = session.hear(&client_disconnect(version, code, &[]));
        assert!(matches!(ask, Ask::End { will: told } if told == will), "{ask:?}");
        assert!(session.said().is_empty());
        assert_eq!(session.peer.will(NOW).is_some(), will);
        assert!(matches!(session.hear(&[0xC0, 0]), Ask::Nothing));
        let mut out = Vec::new();
        session.peer.close(CloseReason::Kicked, 0, &mut out);
        assert!(out.is_empty() && session.said().is_empty());
    }
}

#[test]
fn a_session_expiry_cannot_be_asked_for_at_the_end() {
    let expiry = |seconds| client_disconnect(Version::V5, 0, &[Property::SessionExpiry(seconds)]);
    let mut session = Session::of(with_will(Version::V5).setup(config()));
    let ask = session.hear(&expiry(1));
    assert_failed(&mut session, &ask, 0x82);
    let mut session = Session::of(with_will(Version::V5).setup(config()));
    assert!(matches!(session.hear(&expiry(0)), Ask::End { will: false }));
    let say = with_will(Version::V5).with([Property::SessionExpiry(60)]);
    let mut session = Session::of(say.setup(config()));
    assert!(matches!(session.hear(&expiry(1)), Ask::End { will: false }));
}

#[test]
fn a_will_is_a_publish_of_its_own() {
    for version in VERSIONS {
        let mut session = Session::of(with_will(version).setup(config()));
        let last = session.peer.last_will().unwrap();
        let will = session.peer.will(NOW).unwrap();
        assert_eq!(last.publish.content, will.publish.content, "it can be known before");
        assert!(session.peer.last_will().is_none());
        let PeerPublish { address, content, token, .. } = will.publish;
        assert_eq!((address.as_str(), token, will.delay_s), ("topic:will/topic", 0, 0));
        assert_eq!((&*content.payload, content.qos, content.retain), (&b"gone"[..], 1, true));
        assert_eq!(content.sender.unwrap().device.as_deref(), Some("client"));
        assert!(Session::new(version).peer.will(NOW).is_none());
    }
}

#[test]
fn a_will_waits_no_longer_than_its_session() {
    for (expiry, at_end, expected) in
        [(None, None, 0), (Some(3), None, 3), (Some(60), None, 5), (Some(60), Some(2), 2)]
    {
        let mut say = with_will(Version::V5).with(expiry.map(Property::SessionExpiry));
        say.will_properties = vec![
            Property::WillDelay(5),
            Property::MessageExpiry(10),
            Property::UserProperty("a", "b"),
        ];
        let mut session = Session::of(say.setup(config()));
        if let Some(seconds) = at_end {
            let properties = [Property::SessionExpiry(seconds)];
            session.hear(&client_disconnect(Version::V5, 0x04, &properties));
        }
        let last = session.peer.last_will().unwrap();
        assert_eq!((last.delay_s, last.publish.content.expires_at), (expected, None));
        let will = session.peer.will(NOW).unwrap();
        assert_eq!(will.delay_s, expected);
        let content = will.publish.content;
        assert_eq!(content.expires_at, Some(NOW + u64::from(expected) * 1000 + 10_000));
        assert_eq!(content.headers.len(), 1);
    }
}

#[test]
fn a_will_is_held_to_the_rules_of_its_time() {
    let cell = AclCell::new(all_but("topic:other"));
    let mut setup = with_will(Version::V5).setup(config());
    setup.principal = setup.principal.under(Some(&cell));
    let mut session = Session::of(setup);
    assert!(session.peer.last_will().is_some());
    cell.replace(all_but("topic:will/#"));
    assert!(session.peer.last_will().is_none());
    assert!(session.peer.will(NOW).is_none());
    for topic in ["$SYS/x", "user/alice"] {
        let say =
            Say { will: Some((topic, b"", Qos::AtMostOnce, false)), ..Say::new(Version::V311) };
        let mut session = Session::of(say.setup(config()));
        assert!(session.peer.will(NOW).is_none());
        let counters = &session.peer.config.counters;
        assert_eq!(counters.refused.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[test]
fn the_server_says_why_it_ends() {
    for (reason, code) in [
        (CloseReason::Kicked, 0x98),
        (CloseReason::Shutdown, 0x8B),
        (CloseReason::TakenOver, 0x8E),
        (CloseReason::KeepAlive, 0x8D),
        (CloseReason::TooSlow, 0x97),
        (CloseReason::TooManyNacks, 0x97),
        (CloseReason::Store, 0x88),
        (CloseReason::Expired, 0x87),
        (CloseReason::Finished, 0),
    ] {
        for version in VERSIONS {
            let mut session = Session::new(version);
            session.peer.close(reason, 2000, &mut session.out);
            assert_eq!(session.said(), disconnect_bytes(version, code), "{reason:?}");
            assert!(matches!(session.publish("a", Qos::AtLeastOnce, 1), Ask::Nothing));
            session.peer.close(reason, 2000, &mut session.out);
            assert!(session.said().is_empty());
        }
    }
}

#[test]
fn a_stop_may_name_another_server() {
    for (moved, code) in [(false, 0x9C), (true, 0x9D)] {
        let config = MqttPeerConfig {
            server_reference: Some("other:1883".into()),
            server_moved: moved,
            ..config()
        };
        let mut session = Session::of(Say::new(Version::V5).setup(config));
        session.peer.close(CloseReason::Shutdown, 2000, &mut session.out);
        let mut expected = Vec::new();
        let reference = [Property::ServerReference("other:1883")];
        mqtt::disconnect(&mut expected, Version::V5, code, reference.into_iter());
        assert_eq!(session.said(), expected);
    }
}

#[test]
fn gaps_and_silence_write_nothing() {
    let mut session = Session::new(Version::V5);
    let gap = Gap { from: 1, to: 2, reason: GapReason::Retention };
    session.peer.gap(&Address::all(), 1, gap, &mut session.out);
    session.peer.heartbeat(&mut session.out);
    assert!(session.said().is_empty());
    assert_eq!(session.peer.dialect(), "mqtt");
}

#[test]
fn how_long_older_clients_keep_a_session_is_configured() {
    for version in [Version::V31, Version::V311] {
        for (clean, expected) in [(true, 0), (false, 7)] {
            let say = Say { clean, ..Say::new(version) };
            let config = MqttPeerConfig { session_expiry_3x_s: 7, ..config() };
            assert_eq!(say.setup(config).hello.session_expiry_s, expected);
        }
    }
}
