//! When a session is there, how long, and what ends it.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        KEPT, assert_again, at, away, begin, client, durable, nothing_more, numbered, numbers,
        pass, resume, start,
    },
};
use clarion_tests::mqtt::{Message, Options, Version, id, prop};

versions! {
    it_is_present_when_it_was_kept: v311 v5;
    it_has_its_subscriptions: v31 v311 v5;
    a_clean_start_discards_it: v31 v311 v5;
    a_clean_start_discards_what_was_under_way: v311 v5;
    a_take_over_keeps_everything: v311 v5;
    a_clean_connection_takes_over_and_discards: v311 v5;
    sessions_are_their_own: v311 v5;
}

fn it_is_present_when_it_was_kept(version: Version) {
    let server = start(&[]);
    begin(&server, version, "s").disconnect();
    for _ in 0..3 {
        resume(&server, version, "s").disconnect();
        resume(&server, version, "s").vanish();
    }
    // A clean one is not kept, neither before nor after.
    assert!(!client(&server, version, "s").connack().present);
    let first = durable(version, "s").connect(at(&server));
    assert!(!first.connack().present);
    first.disconnect();
    resume(&server, version, "s").disconnect();
    assert!(!client(&server, version, "other").connack().present);
}

fn it_has_its_subscriptions(version: Version) {
    let server = start(&[]);
    away(&server, version, "s", &[("a", 1), ("b/+", 2), ("live", 0)]);
    let mut writer = client(&server, version, "writer");
    // The subscription of QoS 0 is there, too, though nothing waits for it.
    for _ in 0..2 {
        let mut session = resume(&server, version, "s");
        for (topic, qos) in [("a", 1), ("b/1", 2), ("live", 0), ("b/2", 2)] {
            writer.publish(topic, topic, 2);
            let got = session.message();
            assert_eq!((got.topic.as_str(), got.qos, got.dup), (topic, qos, false), "{got:?}");
        }
        session.quiet();
        session.disconnect();
    }
}

fn a_clean_start_discards_it(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for kept in [false, true] {
        away(&server, version, "s", &[("a", 1), ("b/#", 2)]);
        writer.publish("a", "lost", 1);
        writer.publish("b/c", "lost", 2);
        // In 5 the new session may be one that is kept.
        let clean = Options { clean: true, ..durable(version, "s") };
        let clean = if kept { clean } else { Options::new(version, "s") };
        let mut session = clean.connect(at(&server));
        assert!(!session.connack().present);
        writer.publish("a", "to nobody", 1);
        writer.publish("b/c", "to nobody", 1);
        session.quiet();
        assert_eq!(session.subscribe(&[("a", 1), ("b/+", 1)]), [1, 1]);
        nothing_more(&server, version, &mut session, &["a", "b/c"]);
        session.disconnect();
        let present = durable(version, "s").connect(at(&server));
        assert_eq!(present.connack().present, kept && version == Version::V5);
        present.disconnect();
        client(&server, version, "s").disconnect();
    }
}

fn a_clean_start_discards_what_was_under_way(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 2)]);
    writer.publish_all(numbered("a", 1, 0..3));
    writer.publish_all(numbered("a", 2, 3..6));
    for n in 0..6 {
        assert_eq!(session.unacked().text(), n.to_string());
    }
    // Its own publish of QoS 2 is half done.
    let own = session.send_message(Message::new("other", "half").qos(2));
    session.wait_ack(5, own);
    session.vanish();
    client(&server, version, "s").disconnect();
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 2)]);
    nothing_more(&server, version, &mut session, &["a"]);
    // The same id is a new message now.
    let mut reader = client(&server, version, "reader");
    reader.subscribe(&[("other", 0)]);
    let message = Message { id: own, dup: true, ..Message::new("other", "whole").qos(2) };
    session.send_message(message);
    session.wait_ack(5, own);
    session.ack(6, own, 0);
    session.wait_ack(7, own);
    assert_eq!(reader.message().text(), "whole");
    reader.quiet();
}

fn a_take_over_keeps_everything(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut first = begin(&server, version, "s");
    first.subscribe(&[("a", 1), ("b/+", 2)]);
    writer.publish_all(numbered("a", 1, 0..2).chain(numbered("b/c", 2, 2..4)));
    let mut under_way: Vec<Message> = (0..4).map(|_| first.unacked()).collect();
    under_way.sort_by_key(Message::text);
    let done = under_way.remove(0);
    first.ack(4, done.id, 0);
    first.quiet();
    let mut sent = None;
    for round in 0..3 {
        let mut second = resume(&server, version, "s");
        assert_eq!(first.ended(), (version == Version::V5).then_some(0x8E), "round {round}");
        let mut found: Vec<Message> = (0..3).map(|_| second.unacked()).collect();
        let order: Vec<u16> = found.iter().map(|message| message.id).collect();
        assert_eq!(*sent.get_or_insert(order.clone()), order, "always in the same order");
        found.sort_by_key(Message::text);
        for (message, before) in found.iter().zip(&under_way) {
            assert_again(message, before.id, &before.text());
        }
        second.quiet();
        first = second;
    }
    for message in &under_way {
        if message.qos == 1 {
            first.ack(4, message.id, 0);
        } else {
            first.ack(5, message.id, 0);
            assert_eq!(first.wait_ack(6, message.id), 0);
            first.ack(7, message.id, 0);
        }
    }
    nothing_more(&server, version, &mut first, &["a", "b/c"]);
}

fn a_clean_connection_takes_over_and_discards(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut first = begin(&server, version, "s");
    first.subscribe(&[("a", 1)]);
    writer.publish("a", "x", 1);
    assert_eq!(first.unacked().text(), "x");
    let mut second = client(&server, version, "s");
    assert!(!second.connack().present);
    assert_eq!(first.ended(), (version == Version::V5).then_some(0x8E));
    writer.publish("a", "y", 1);
    second.quiet();
    second.disconnect();
    begin(&server, version, "s").quiet();
}

fn sessions_are_their_own(version: Version) {
    let server = start(&[]);
    for n in 0..20 {
        away(&server, version, &format!("s{n}"), &[("all", 1), (&*format!("own/{n}"), 1)]);
    }
    let mut writer = client(&server, version, "writer");
    writer.publish_all(numbered("all", 1, 0..10));
    for n in 0..20 {
        writer.publish(&format!("own/{n}"), format!("own {n}"), 1);
    }
    for n in 0..20 {
        let mut session = resume(&server, version, &format!("s{n}"));
        let mut got = session.texts(11);
        got.retain(|text| *text != format!("own {n}"));
        assert_eq!(got, numbers(0..10));
        // What one acked is still there for the others.
        nothing_more(&server, version, &mut session, &[&format!("own/{n}")]);
    }
}

/// A CONNECT that begins a session of so many seconds, whose will is published when it ends.
fn with_expiry(id: &str, seconds: u32) -> Options {
    Options::new(Version::V5, id)
        .with(prop::session_expiry(seconds))
        .will(Message::new("ended", id).qos(1), &[prop::will_delay(100_000u32)])
}

#[test]
fn it_expires() {
    let server = start(&[]);
    let mut watcher = client(&server, Version::V5, "watcher");
    watcher.subscribe(&[("ended", 1)]);
    for (id, seconds) in [("long", KEPT), ("short", 1)] {
        let mut session = with_expiry(id, seconds).connect(at(&server));
        session.subscribe(&[("a", 1), ("b/+", 1)]);
        session.vanish();
    }
    let mut writer = client(&server, Version::V5, "writer");
    writer.publish_all(numbered("a", 1, 0..5));
    assert_eq!(watcher.message().text(), "short");
    watcher.quiet();
    let mut session = begin(&server, Version::V5, "short");
    session.quiet();
    session.subscribe(&[("a", 1)]);
    nothing_more(&server, Version::V5, &mut session, &["a"]);
    let mut session = resume(&server, Version::V5, "long");
    assert_eq!(session.texts(5), numbers(0..5));
}

#[test]
fn a_connection_stops_the_clock() {
    let server = start(&[]);
    let short = Options::new(Version::V5, "s").clean(false).with(prop::session_expiry(2u32));
    let mut session = short.connect(at(&server));
    session.subscribe(&[("a", 1)]);
    pass(&server, 3);
    session.disconnect();
    let mut session = short.connect(at(&server));
    assert!(session.connack().present, "its time began when the connection ended");
    nothing_more(&server, Version::V5, &mut session, &["a"]);
    // With the next connection it has that one's expiry.
    session.disconnect();
    resume(&server, Version::V5, "s").disconnect();
    pass(&server, 3);
    resume(&server, Version::V5, "s").disconnect();
}

#[test]
fn without_expiry_it_ends_with_the_connection() {
    let server = start(&[]);
    for properties in [vec![], vec![prop::session_expiry(0u32)]] {
        let options = Options { clean: false, properties, ..Options::new(Version::V5, "s") };
        for end in [false, true] {
            let mut session = options.connect(at(&server));
            assert!(!session.connack().present);
            session.subscribe(&[("a", 1)]);
            if end { session.disconnect() } else { session.vanish() }
        }
        // What was kept before goes on, and ends with the connection that says so.
        let mut session = begin(&server, Version::V5, "s");
        session.subscribe(&[("b", 1)]);
        session.disconnect();
        let mut writer = client(&server, Version::V5, "writer");
        writer.publish("b", "kept", 1);
        let mut session = options.connect(at(&server));
        assert!(session.connack().present);
        assert_eq!(session.message().text(), "kept");
        session.disconnect();
        let session = begin(&server, Version::V5, "s");
        session.disconnect_with(0, &[prop::session_expiry(0u32)]);
    }
}

#[test]
fn a_disconnect_changes_the_expiry() {
    let server = start(&[]);
    let mut watcher = client(&server, Version::V5, "watcher");
    watcher.subscribe(&[("ended", 1)]);
    // To nothing: at once. The will is published as DISCONNECT asks for it.
    with_expiry("now", KEPT).connect(at(&server)).disconnect_with(4, &[prop::session_expiry(0u32)]);
    assert_eq!(watcher.message().text(), "now");
    begin(&server, Version::V5, "now").disconnect();
    // To less.
    with_expiry("soon", KEPT)
        .connect(at(&server))
        .disconnect_with(4, &[prop::session_expiry(1u32)]);
    assert_eq!(watcher.message().text(), "soon");
    begin(&server, Version::V5, "soon").disconnect();
    // To more.
    let mut session = with_expiry("later", 1).connect(at(&server));
    session.subscribe(&[("a", 1)]);
    session.disconnect_with(0, &[prop::session_expiry(KEPT)]);
    pass(&server, 2);
    resume(&server, Version::V5, "later").disconnect();
    watcher.quiet();
    // MQTT-3.14.2-2: not from nothing; that is a protocol error, and the session ends as it was to.
    let mut session = client(&server, Version::V5, "never");
    session.send(&clarion_tests::mqtt::disconnect(Version::V5, 0, &[prop::session_expiry(9u32)]));
    assert_eq!(session.ended(), Some(0x82));
    begin(&server, Version::V5, "never").disconnect();
}

#[test]
fn the_longest_expiry_is_told() {
    let server = start(&[("mqtt.max_session_expiry", "2s")]);
    let mut watcher = client(&server, Version::V5, "watcher");
    watcher.subscribe(&[("ended", 1)]);
    for (asked, told) in [(1, [None, Some(1)]), (2, [None, Some(2)])] {
        let session = with_expiry("short", asked).connect(at(&server));
        assert!(told.contains(&session.connack().number(id::SESSION_EXPIRY)));
        session.disconnect_with(0, &[prop::session_expiry(0u32)]);
    }
    for (n, asked) in [3, 1000, u32::MAX].into_iter().enumerate() {
        let session = with_expiry(&format!("long {n}"), asked).connect(at(&server));
        assert_eq!(session.connack().number(id::SESSION_EXPIRY), Some(2), "{asked}");
        session.vanish();
    }
    // What is told holds; a DISCONNECT cannot ask for more either.
    with_expiry("said", 1)
        .connect(at(&server))
        .disconnect_with(4, &[prop::session_expiry(u32::MAX)]);
    let mut ended: Vec<String> = (0..4).map(|_| watcher.message().text()).collect();
    ended.sort();
    assert_eq!(ended, ["long 0", "long 1", "long 2", "said"]);
    begin(&server, Version::V5, "long 1").disconnect();
}

#[test]
fn sessions_of_3_have_an_expiry_too() {
    let server = start(&[("mqtt.session_expiry_3x", "1s")]);
    let versions = [Version::V31, Version::V311];
    for version in versions {
        away(&server, version, version_name(version), &[("a", 1)]);
    }
    away(&server, Version::V5, "5", &[("a", 1)]);
    client(&server, Version::V5, "writer").publish("a", "x", 1);
    pass(&server, 2);
    for version in versions {
        let mut session = begin(&server, version, version_name(version));
        session.quiet();
        session.subscribe(&[("a", 1)]);
        nothing_more(&server, version, &mut session, &["a"]);
    }
    assert_eq!(resume(&server, Version::V5, "5").message().text(), "x");
}

fn version_name(version: Version) -> &'static str {
    if version == Version::V31 { "3.1" } else { "3.1.1" }
}

/// A session goes on with another version of the protocol, too: it belongs to the client id.
#[test]
fn it_may_go_on_in_another_version() {
    let server = start(&[]);
    away(&server, Version::V311, "s", &[("a", 1)]);
    let mut writer = client(&server, Version::V5, "writer");
    for version in [Version::V5, Version::V311] {
        writer.publish_all(numbered("a", 1, 0..3));
        let mut session = resume(&server, version, "s");
        assert_eq!(session.texts(3), numbers(0..3));
        session.disconnect();
    }
}
