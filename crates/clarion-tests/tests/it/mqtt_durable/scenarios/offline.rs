//! What happens to messages while their reader is away: they expire, or are his own.

use crate::{
    mqtt::versions,
    mqtt_durable::{away, begin, client, nothing_more, numbers, pass, resume, start},
};
use clarion_tests::mqtt::{Filter, Message, Version, id, number, prop};

versions! {
    a_newer_message_does_not_replace_an_older_one: v311 v5;
}

fn a_newer_message_does_not_replace_an_older_one(version: Version) {
    let server = start(&[]);
    away(&server, version, "s", &[("a", 1), ("a/+", 1)]);
    let mut writer = client(&server, version, "writer");
    for n in 0..6 {
        writer.publish_as(Message::new("a", n.to_string()).qos(1).retained());
    }
    let mut session = resume(&server, version, "s");
    assert_eq!(session.texts(6), numbers(0..6));
    nothing_more(&server, version, &mut session, &["a", "a/x"]);
}

#[test]
fn a_message_expires() {
    let server = start(&[]);
    let version = Version::V5;
    for (n, filter) in [("e/a", 1), ("e/+", 2)].into_iter().enumerate() {
        away(&server, version, &format!("s{n}"), &[filter]);
    }
    let mut writer = client(&server, version, "writer");
    let expiring = |text: &str, seconds: u32| {
        Message::new("e/a", text).qos(2).with(prop::message_expiry(seconds))
    };
    writer.publish_as(expiring("short", 1));
    writer.publish_as(expiring("long", 100));
    writer.publish_as(expiring("short, too", 1));
    writer.publish("e/a", "for ever", 2);
    pass(&server, 3);
    for n in 0..2 {
        let mut session = resume(&server, version, &format!("s{n}"));
        let got = session.message();
        assert_eq!(got.text(), "long");
        // MQTT-3.3.2-6: less the time that it waited.
        let left = number(&got.properties, id::MESSAGE_EXPIRY).expect("what is left");
        assert!((1..99).contains(&left), "{left} s are left of 100");
        let got = session.message();
        assert_eq!(got.text(), "for ever");
        assert_eq!(number(&got.properties, id::MESSAGE_EXPIRY), None);
        nothing_more(&server, version, &mut session, &["e/a"]);
    }
}

/// Whoever asked in 3.1.1 has no word for it, and is spared what expired all the same.
#[test]
fn a_message_expires_for_3_too() {
    let server = start(&[]);
    away(&server, Version::V311, "s", &[("e/+", 1)]);
    let mut writer = client(&server, Version::V5, "writer");
    let short = Message::new("e/a", "short").qos(1).with(prop::message_expiry(1u32));
    writer.publish_as(short);
    writer.publish("e/a", "kept", 1);
    pass(&server, 2);
    let mut session = resume(&server, Version::V311, "s");
    assert_eq!(session.message().text(), "kept");
    nothing_more(&server, Version::V311, &mut session, &["e/a"]);
}

#[test]
fn own_messages_do_not_wait_where_they_are_not_wanted() {
    let server = start(&[]);
    let version = Version::V5;
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    let filters = [Filter::new("n/a", 1).no_local(), Filter::new("m/+", 2).no_local()];
    session.subscribe_as(&filters, &[]);
    session.subscribe(&[("both/a", 1)]);
    for topic in ["n/a", "m/a", "both/a"] {
        writer.publish(topic, "of another, 1", 1);
        session.publish(topic, "own", 1);
        writer.publish(topic, "of another, 2", 2);
    }
    // Nothing was acked; all of it waits for the next connection.
    session.vanish();
    for topic in ["n/a", "m/a", "both/a"] {
        writer.publish(topic, "of another, 3", 1);
    }
    let mut session = resume(&server, version, "s");
    let mut got: Vec<String> = (0..10)
        .map(|_| {
            let message = session.message();
            format!("{}: {}", message.topic, message.text())
        })
        .collect();
    got.sort();
    let mut expected = vec!["both/a: own".to_owned()];
    for topic in ["n/a", "m/a", "both/a"] {
        expected.extend((1..4).map(|n| format!("{topic}: of another, {n}")));
    }
    expected.sort();
    assert_eq!(got, expected);
    nothing_more(&server, version, &mut session, &["n/a", "m/a", "both/a"]);
}

/// No Local is one subscription's; another that wants it gets it.
#[test]
fn own_messages_come_by_another_filter() {
    let server = start(&[]);
    let version = Version::V5;
    let mut session = begin(&server, version, "s");
    session.subscribe_as(
        &[Filter::new("o/#", 2).no_local(), Filter::new("o/+", 1), Filter::new("o/a", 0)],
        &[],
    );
    session.publish("o/a", "own", 2);
    session.publish("o/a/b", "own, not wanted", 2);
    session.vanish();
    let mut session = resume(&server, version, "s");
    assert_eq!(session.message().text(), "own");
    nothing_more(&server, version, &mut session, &["o/a", "o/a/b"]);
}
