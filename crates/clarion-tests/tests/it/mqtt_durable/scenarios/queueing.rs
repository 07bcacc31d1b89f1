//! What waits for a session that is away, and in what order and form it comes.

use crate::{
    mqtt::versions,
    mqtt_durable::{away, begin, client, nothing_more, numbered, numbers, resume, start},
};
use clarion_tests::mqtt::{Client, Filter, Message, Options, Version, id, pairs, prop, text};

versions! {
    messages_of_both_qos_wait: v31 v311 v5;
    qos_0_waits_only_where_it_is_stored: v311 v5;
    what_was_granted_qos_0_does_not_wait: v311 v5;
    many_messages_wait: v311 v5;
    messages_of_every_size_wait: v311 v5;
    what_is_retained_meanwhile_comes_as_a_message: v311 v5;
    a_session_that_never_came_back_in_time_lost_nothing: v311 v5;
    several_publishers_keep_their_order: v311 v5;
}

fn messages_of_both_qos_wait(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for (granted, filter) in [(1, "exact"), (2, "exact"), (1, "wild/+"), (2, "wild/#")] {
        let id = format!("{filter} {granted}");
        let topic = if filter == "exact" { filter } else { "wild/a" };
        away(&server, version, &id, &[(filter, granted)]);
        for n in 0..20 {
            writer.publish(topic, n.to_string(), 1 + n % 2);
        }
        let mut session = resume(&server, version, &id);
        // 4.6: the order is that of messages of one QoS.
        let mut next = [0, 1];
        for _ in 0..20 {
            let got = session.message();
            let n: u8 = got.text().parse().expect("a number");
            assert_eq!((got.topic.as_str(), got.qos), (topic, granted.min(1 + n % 2)));
            let own = &mut next[usize::from(n % 2)];
            assert_eq!(n, *own, "of QoS {}", got.qos);
            *own += 2;
            // Never sent before.
            assert!(!got.dup && !got.retain, "{got:?}");
        }
        nothing_more(&server, version, &mut session, &[topic]);
        // What was acked does not come again.
        session.disconnect();
        let mut session = resume(&server, version, &id);
        nothing_more(&server, version, &mut session, &[topic]);
        session.unsubscribe(&[filter]);
        session.disconnect();
    }
}

fn qos_0_waits_only_where_it_is_stored(version: Version) {
    for stored in [false, true] {
        let server = start(&[("mqtt.store_qos0", if stored { "true" } else { "false" })]);
        away(&server, version, "s", &[("a", 1), ("b/+", 2)]);
        let mut writer = client(&server, version, "writer");
        for (topic, qos) in [("a", 0), ("a", 1), ("b/c", 0), ("b/c", 2)] {
            writer.publish(topic, format!("{topic} {qos}"), qos);
        }
        let mut session = resume(&server, version, "s");
        let mut got: Vec<(String, u8)> = Vec::new();
        for _ in 0..if stored { 4 } else { 2 } {
            let message = session.message();
            got.push((message.text(), message.qos));
        }
        got.sort();
        let all = [("a 0", 0), ("a 1", 1), ("b/c 0", 0), ("b/c 2", 2)];
        let expected = all.into_iter().filter(|(_, qos)| stored || *qos > 0);
        let expected: Vec<(String, u8)> = expected.map(|(t, qos)| (t.to_owned(), qos)).collect();
        assert_eq!(got, expected);
        nothing_more(&server, version, &mut session, &["a", "b/c"]);
        // While it is here, both come.
        writer.publish("a", "live", 0);
        assert_eq!(session.message().text(), "live");
    }
}

fn what_was_granted_qos_0_does_not_wait(version: Version) {
    let server = start(&[]);
    away(&server, version, "s", &[("a", 0), ("b/#", 0), ("c", 1)]);
    let mut writer = client(&server, version, "writer");
    for topic in ["a", "b/x", "c"] {
        writer.publish(topic, topic, 2);
    }
    let mut session = resume(&server, version, "s");
    assert_eq!(session.message().text(), "c");
    nothing_more(&server, version, &mut session, &["c"]);
    session.quiet();
}

fn many_messages_wait(version: Version) {
    // More than wait for a session without a store, and than may be unacked.
    let server = start(&[("mqtt.queue_messages", "100"), ("mqtt.max_inflight", "50")]);
    let mut writer = client(&server, version, "writer");
    for (qos, filter, topic) in [(1, "many", "many"), (2, "more/+", "more/x")] {
        let id = format!("s{qos}");
        away(&server, version, &id, &[(filter, qos)]);
        let pad = "x".repeat(200);
        let message = |n: u32| Message::new(topic, format!("{n} {pad}")).qos(qos);
        writer.publish_all((0..3000).map(message));
        let mut session = resume(&server, version, &id);
        for n in 0..3000 {
            // Now and then the connection ends in between; this is not the test of what was under way.
            if n % 1000 == 999 {
                session.disconnect();
                session = resume(&server, version, &id);
            }
            let text = session.message().text();
            assert_eq!(text.split(' ').next(), Some(&*n.to_string()));
        }
        nothing_more(&server, version, &mut session, &[topic]);
    }
}

/// Bodies are stored in more than one way.
fn messages_of_every_size_wait(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let kib = 1 << 10;
    let sizes =
        [0, 1, 4 * kib - 1, 4 * kib, 16 * kib - 1, 16 * kib, 16 * kib + 1, 100_000, 900_000];
    let filters = [("size/a", 1), ("size/+", 1), ("+/a", 2), ("#", 1)];
    for (n, filter) in filters.iter().enumerate() {
        away(&server, version, &format!("s{n}"), &[*filter]);
    }
    let body = |size: usize| -> Vec<u8> { (0..size).map(|n| (n * 31 + size) as u8).collect() };
    for size in sizes {
        assert_eq!(writer.publish("size/a", body(size), 2), 0);
    }
    for (n, (_, qos)) in filters.iter().enumerate() {
        let mut session = resume(&server, version, &format!("s{n}"));
        for size in sizes {
            let got = session.message();
            assert_eq!((got.topic.as_str(), got.qos), ("size/a", *qos));
            assert!(got.payload == body(size), "session {n}: {size} bytes");
        }
        session.disconnect();
    }
}

fn what_is_retained_meanwhile_comes_as_a_message(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    writer.publish_as(Message::new("a/b", "before").qos(1).retained());
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a/+", 1)]);
    let got = session.message();
    assert_eq!((got.text().as_str(), got.retain), ("before", true));
    session.disconnect();
    writer.publish_as(Message::new("a/b", "meanwhile").qos(1).retained());
    // To clear it is a message, too.
    writer.publish_as(Message::new("a/b", "").qos(1).retained());
    let mut session = resume(&server, version, "s");
    for expected in ["meanwhile", ""] {
        let got = session.message();
        // MQTT-3.3.1-9: it was subscribed before.
        assert_eq!((got.text().as_str(), got.retain), (expected, false));
    }
    nothing_more(&server, version, &mut session, &["a/b"]);
}

#[test]
fn retain_as_published_holds_for_what_waited() {
    let server = start(&[]);
    let mut session = begin(&server, Version::V5, "s");
    session.subscribe_as(&[Filter::new("a", 1).as_published(), Filter::new("b/+", 1)], &[]);
    session.disconnect();
    let mut writer = client(&server, Version::V5, "writer");
    for topic in ["a", "b/c"] {
        writer.publish_as(Message::new(topic, "kept").qos(1).retained());
        writer.publish_as(Message::new(topic, "not kept").qos(1));
    }
    let mut session = resume(&server, Version::V5, "s");
    let mut got: Vec<(String, String, bool)> = Vec::new();
    for _ in 0..4 {
        let message = session.message();
        got.push((message.topic.clone(), message.text(), message.retain));
    }
    got.sort();
    let expected = [
        ("a", "kept", true),
        ("a", "not kept", false),
        ("b/c", "kept", false),
        ("b/c", "not kept", false),
    ];
    let expected =
        expected.map(|(topic, text, retain)| (topic.to_owned(), text.to_owned(), retain));
    assert_eq!(got, expected);
}

fn a_session_that_never_came_back_in_time_lost_nothing(version: Version) {
    // Cut off, and the publisher is faster than the server notices: part of it was sent to nobody.
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 2)]);
    let mut next = 0;
    for _ in 0..10 {
        session.vanish();
        writer.publish_all(numbered("a", 1, next..next + 20));
        writer.publish_all(numbered("b/c", 2, next..next + 20));
        session = resume(&server, version, "s");
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            let got = session.message();
            if got.topic == "a" { of_a.push(got.text()) } else { of_b.push(got.text()) }
        }
        assert_eq!((of_a, of_b), (numbers(next..next + 20), numbers(next..next + 20)));
        session.quiet();
        next += 20;
    }
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
}

fn several_publishers_keep_their_order(version: Version) {
    let server = start(&[]);
    away(&server, version, "s", &[("p/+", 2)]);
    let mut writers: Vec<Client> =
        (0..4).map(|n| client(&server, version, &format!("writer {n}"))).collect();
    for n in 0..50 {
        for (own, writer) in writers.iter_mut().enumerate() {
            // 4.6: the order is that of messages of one QoS.
            let message = Message::new(&format!("p/{own}"), n.to_string());
            writer.send_message(message.qos(1 + (own % 2) as u8));
        }
    }
    for (own, writer) in writers.iter_mut().enumerate() {
        for id in 1..=50 {
            if own % 2 == 0 {
                writer.wait_ack(4, id);
            } else {
                writer.wait_ack(5, id);
                writer.ack(6, id, 0);
                writer.wait_ack(7, id);
            }
        }
    }
    let mut session = resume(&server, version, "s");
    let mut next = [0; 4];
    for _ in 0..200 {
        let got = session.message();
        let own: usize = got.topic[2..].parse().expect("a number");
        assert_eq!(got.text(), next[own].to_string(), "of publisher {own}");
        next[own] += 1;
    }
    nothing_more(&server, version, &mut session, &["p/0"]);
}

/// A request waits for who answers it, and the answer for who asked.
#[test]
fn requests_and_responses_wait() {
    let server = start(&[]);
    away(&server, Version::V5, "answers", &[("ask/+", 1)]);
    let mut asks = begin(&server, Version::V5, "asks");
    asks.subscribe(&[("answer/asks", 1)]);
    let request = Message::new("ask/time", "?")
        .qos(1)
        .with(prop::payload_format(1))
        .with(prop::content_type("text/plain"))
        .with(prop::response_topic("answer/asks"))
        .with(prop::correlation([0, 1, 255]))
        .with(prop::user("k", "1"))
        .with(prop::user("k", "2"));
    assert_eq!(asks.publish_as(request), 0);
    asks.disconnect();
    let mut answers = resume(&server, Version::V5, "answers");
    let got = answers.message();
    assert_eq!(pairs(&got.properties), [("k", "1"), ("k", "2")]);
    assert_eq!(text(&got.properties, id::CONTENT_TYPE), Some("text/plain"));
    assert!(got.properties.contains(&prop::correlation([0, 1, 255])), "{got:?}");
    let to = text(&got.properties, id::RESPONSE_TOPIC).expect("a topic");
    let answer = Message::new(to, "!").qos(1).with(prop::correlation([0, 1, 255]));
    assert_eq!(answers.publish_as(answer), 0);
    let mut asks = resume(&server, Version::V5, "asks");
    let got = asks.message();
    assert_eq!(got.text(), "!");
    assert!(got.properties.contains(&prop::correlation([0, 1, 255])), "{got:?}");
}

/// Topic aliases belong to a connection, not to the session.
#[test]
fn aliases_are_not_carried_over() {
    let server = start(&[]);
    let aliased = |maximum: u16| {
        let options = Options::new(Version::V5, "s").clean(false);
        options.with(prop::session_expiry(1000u32)).with(prop::topic_alias_maximum(maximum))
    };
    let mut session = aliased(5).connect(server.listener("mqtt"));
    session.subscribe(&[("long/topic/name", 1)]);
    let mut writer = client(&server, Version::V5, "writer");
    writer.publish_all(numbered("long/topic/name", 1, 0..3));
    let mut known = None;
    for _ in 0..3 {
        let got = session.unacked();
        if got.topic.is_empty() {
            assert!(known.is_some(), "an alias that was never told");
        } else {
            known = Some(got.topic);
        }
    }
    session.disconnect();
    writer.publish_all(numbered("long/topic/name", 1, 3..5));
    let mut session = aliased(0).connect(server.listener("mqtt"));
    for n in 0..5 {
        let got = session.message();
        assert_eq!((got.topic.as_str(), got.text()), ("long/topic/name", n.to_string()));
    }
    session.disconnect();
    // Told anew on the next connection.
    writer.publish_all(numbered("long/topic/name", 1, 5..8));
    let mut session = aliased(5).connect(server.listener("mqtt"));
    assert_eq!(session.unacked().topic, "long/topic/name");
}
