//! SUBSCRIBE and UNSUBSCRIBE of a session that has a backlog, and the identifiers of what comes.

use crate::{
    mqtt::versions,
    mqtt_durable::{
        KEPT, assert_again, at, begin, client, durable, ids, nothing_more, numbered, numbers,
        resume, start,
    },
};
use clarion_tests::{
    Server,
    mqtt::{Client, Filter, Message, Version, prop},
};
use std::collections::BTreeSet;

versions! {
    subscribing_again_keeps_the_cursor: v31 v311 v5;
    a_lower_qos_lets_the_backlog_run_out: v311 v5;
    from_qos_0_it_starts_at_the_head: v311 v5;
    a_change_of_qos_holds_for_what_comes_after: v311 v5;
    unsubscribing_finishes_what_is_under_way: v311 v5;
    subscribing_after_unsubscribing_starts_at_the_head: v311 v5;
    retained_messages_come_at_each_subscribe: v31 v311 v5;
}

/// Three of ten messages under way, the others wait.
fn with_backlog(
    server: &Server,
    version: Version,
    filter: &str,
    qos: u8,
) -> (Client, Vec<Message>) {
    let mut session = begin(server, version, "s");
    session.subscribe(&[(filter, qos)]);
    session.disconnect();
    client(server, version, "writer").publish_all(numbered("q/a", 2, 0..10));
    let mut session = resume(server, version, "s");
    let sent = (0..3).map(|_| session.unacked()).collect();
    session.quiet();
    (session, sent)
}

const WINDOW: [(&str, &str); 1] = [("mqtt.max_inflight", "3")];

fn finish(client: &mut Client, message: &Message) {
    if message.qos == 1 {
        client.ack(4, message.id, 0);
    } else if message.qos == 2 {
        client.ack(5, message.id, 0);
        assert_eq!(client.wait_ack(6, message.id), 0);
        client.ack(7, message.id, 0);
    }
}

fn subscribing_again_keeps_the_cursor(version: Version) {
    for filter in ["q/a", "q/+"] {
        let server = start(&WINDOW);
        let (mut session, sent) = with_backlog(&server, version, filter, 1);
        for qos in [1, 2, 1] {
            assert_eq!(session.subscribe(&[(filter, qos)]), [qos]);
        }
        session.quiet();
        session.disconnect();
        let mut session = resume(&server, version, "s");
        assert_eq!(session.subscribe(&[(filter, 1)]), [1]);
        for before in &sent {
            let got = session.unacked();
            assert_again(&got, before.id, &before.text());
            finish(&mut session, &got);
        }
        assert_eq!(session.texts(7), numbers(3..10));
        nothing_more(&server, version, &mut session, &["q/a"]);
    }
}

fn a_lower_qos_lets_the_backlog_run_out(version: Version) {
    for filter in ["q/a", "q/+"] {
        let server = start(&WINDOW);
        let (mut session, sent) = with_backlog(&server, version, filter, 1);
        assert_eq!(session.subscribe(&[(filter, 0)]), [0]);
        session.quiet();
        let mut writer = client(&server, version, "writer");
        for n in 10..13 {
            writer.publish("q/a", n.to_string(), 1);
        }
        sent.iter().for_each(|message| finish(&mut session, message));
        let mut old = Vec::new();
        let mut new = Vec::new();
        while old.len() < 7 || new.len() < 3 {
            let got = session.message();
            let n: u32 = got.text().parse().expect("a number");
            // What came after the SUBSCRIBE has its QoS; it may come before what waited.
            assert!(n < 10 || got.qos == 0, "{got:?}");
            if n < 10 { old.push(n) } else { new.push(n) }
        }
        assert!(old.into_iter().eq(3..10) && new.into_iter().eq(10..13));
        session.ping();
        session.disconnect();
        // Nothing waits any more.
        writer.publish("q/a", "to nobody", 1);
        let mut session = resume(&server, version, "s");
        session.quiet();
        writer.publish("q/a", "live", 1);
        let got = session.message();
        assert_eq!((got.text().as_str(), got.qos), ("live", 0));
    }
}

/// The backlog of a subscription that has QoS 0 now outlives the connection, too.
#[test]
fn a_backlog_that_runs_out_is_kept() {
    let version = Version::V5;
    for filter in ["q/a", "q/+"] {
        let server = start(&WINDOW);
        let (mut session, sent) = with_backlog(&server, version, filter, 1);
        assert_eq!(session.subscribe(&[(filter, 0)]), [0]);
        session.disconnect();
        client(&server, version, "writer").publish("q/a", "to nobody", 1);
        let mut session = resume(&server, version, "s");
        for before in &sent {
            let got = session.unacked();
            assert_again(&got, before.id, &before.text());
            finish(&mut session, &got);
        }
        assert_eq!(session.texts(7), numbers(3..10));
        session.quiet();
    }
}

fn from_qos_0_it_starts_at_the_head(version: Version) {
    let server = start(&[]);
    let mut session = begin(&server, version, "s");
    let filters = [("a", 0), ("b/+", 0)];
    assert_eq!(session.subscribe(&filters), [0, 0]);
    session.disconnect();
    let mut writer = client(&server, version, "writer");
    for topic in ["a", "b/c"] {
        writer.publish(topic, "before", 1);
    }
    let mut session = resume(&server, version, "s");
    assert_eq!(session.subscribe(&filters.map(|(filter, _)| (filter, 1))), [1, 1]);
    session.disconnect();
    for topic in ["a", "b/c"] {
        writer.publish(topic, "after", 1);
    }
    let mut session = resume(&server, version, "s");
    assert_eq!(session.texts(2), ["after", "after"]);
    nothing_more(&server, version, &mut session, &["a", "b/c"]);
}

fn a_change_of_qos_holds_for_what_comes_after(version: Version) {
    let server = start(&[]);
    let mut session = begin(&server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 2)]);
    session.subscribe(&[("a", 2), ("b/+", 1)]);
    session.disconnect();
    let mut writer = client(&server, version, "writer");
    for topic in ["a", "b/c"] {
        writer.publish(topic, "x", 2);
    }
    let mut session = resume(&server, version, "s");
    let mut got = [session.message(), session.message()].map(|got| (got.topic, got.qos));
    got.sort();
    assert_eq!(got, [("a".to_owned(), 2), ("b/c".to_owned(), 1)]);
}

fn unsubscribing_finishes_what_is_under_way(version: Version) {
    for (filter, qos) in [("q/a", 1), ("q/+", 1), ("q/a", 2), ("q/+", 2)] {
        let server = start(&WINDOW);
        let (mut session, sent) = with_backlog(&server, version, filter, qos);
        let codes = session.unsubscribe(&[filter]);
        assert!(codes.iter().all(|code| *code == 0), "{codes:?}");
        let mut writer = client(&server, version, "writer");
        writer.publish("q/a", "to nobody", 2);
        session.quiet();
        session.vanish();
        let mut session = resume(&server, version, "s");
        for before in &sent {
            assert_again(&session.unacked(), before.id, &before.text());
        }
        session.subscribe(&[("end", 1)]);
        writer.publish("q/a", "to nobody", 2);
        sent.iter().for_each(|message| finish(&mut session, message));
        // 3.10.4: what was queued may come or not; what is published now does not.
        writer.publish("end", "end", 1);
        let mut rest = Vec::new();
        loop {
            match session.message().text() {
                end if end == "end" => break,
                text => rest.push(text),
            }
        }
        assert!(rest.is_empty() || rest == numbers(3..10), "{rest:?}");
    }
}

fn subscribing_after_unsubscribing_starts_at_the_head(version: Version) {
    for filter in ["q/a", "q/+"] {
        let server = start(&WINDOW);
        let (mut session, sent) = with_backlog(&server, version, filter, 1);
        session.unsubscribe(&[filter]);
        client(&server, version, "writer").publish("q/a", "to nobody", 1);
        assert_eq!(session.subscribe(&[(filter, 1)]), [1]);
        client(&server, version, "writer").publish("q/a", "after", 1);
        sent.iter().for_each(|message| finish(&mut session, message));
        let mut rest = Vec::new();
        while rest.last().is_none_or(|text| text != "after") {
            rest.push(session.message().text());
        }
        rest.pop();
        assert!(rest.is_empty() || rest == numbers(3..10), "{rest:?}");
        nothing_more(&server, version, &mut session, &["q/a"]);
    }
}

fn retained_messages_come_at_each_subscribe(version: Version) {
    let server = start(&[]);
    client(&server, version, "writer").publish_as(Message::new("a/b", "kept").qos(1).retained());
    let mut session = begin(&server, version, "s");
    for _ in 0..2 {
        for filter in ["a/b", "a/+"] {
            assert_eq!(session.subscribe(&[(filter, 1)]), [1]);
            let got = session.message();
            assert_eq!((got.text().as_str(), got.retain), ("kept", true));
        }
        session.disconnect();
        session = resume(&server, version, "s");
        // Not by itself.
        session.quiet();
    }
}

/// A subscription of the resumed session exists, for Retain Handling 1.
#[test]
fn retain_handling_knows_the_resumed_session() {
    let server = start(&[]);
    let version = Version::V5;
    client(&server, version, "writer").publish_as(Message::new("a/b", "kept").qos(1).retained());
    let mut session = begin(&server, version, "s");
    let filters = ["a/b", "a/+", "a/#"];
    session.subscribe(&[("a/b", 1), ("a/+", 0)]);
    session.texts(2);
    session.disconnect();
    let mut session = resume(&server, version, "s");
    let only_new = filters.map(|filter| Filter::new(filter, 1).retain_handling(1));
    assert_eq!(session.subscribe_as(&only_new, &[]), [1, 1, 1]);
    // Of `a/#` alone.
    assert_eq!(session.texts(1), ["kept"]);
    session.quiet();
    assert_eq!(session.subscribe_as(&only_new, &[]), [1, 1, 1]);
    session.quiet();
    session.unsubscribe(&["a/+"]);
    session.disconnect();
    let mut session = resume(&server, version, "s");
    assert_eq!(session.subscribe_as(&only_new, &[]), [1, 1, 1]);
    assert_eq!(session.texts(1), ["kept"]);
    session.quiet();
    // Not of a session that is over.
    session.disconnect();
    client(&server, version, "s").disconnect();
    let mut session = begin(&server, version, "s");
    assert_eq!(session.subscribe_as(&only_new, &[]), [1, 1, 1]);
    assert_eq!(session.texts(3), ["kept", "kept", "kept"]);
    session.quiet();
}

#[test]
fn identifiers_are_kept() {
    let server = start(&[]);
    let version = Version::V5;
    let mut session = begin(&server, version, "s");
    for (filter, id) in [("a/b", 1u32), ("a/+", 200), ("#", 268_435_455), ("other", 9)] {
        session.subscribe_as(&[Filter::new(filter, 1)], &[prop::subscription_id(id)]);
    }
    session.subscribe(&[("+/b", 1), ("none", 1)]);
    session.disconnect();
    let mut writer = client(&server, version, "writer");
    let topics = [
        ("a/b", vec![1, 200, 268_435_455]),
        ("a/c", vec![200, 268_435_455]),
        ("x/b", vec![268_435_455]),
        ("other", vec![9, 268_435_455]),
        ("none", vec![268_435_455]),
    ];
    for (topic, _) in &topics {
        writer.publish(topic, "x", 1);
    }
    let mut session = resume(&server, version, "s");
    let mut got: Vec<(String, BTreeSet<u32>)> = Vec::new();
    for _ in &topics {
        // Each once, with all that match; what comes again has them, too.
        let message = session.unacked();
        got.push((message.topic.clone(), ids(&message)));
    }
    session.quiet();
    session.disconnect();
    let mut session = resume(&server, version, "s");
    for before in &got {
        let message = session.message();
        assert!(message.dup, "{message:?}");
        assert_eq!((message.topic.clone(), ids(&message)), *before);
    }
    session.quiet();
    got.sort();
    let mut expected = topics.map(|(topic, ids)| (topic.to_owned(), ids.into_iter().collect()));
    expected.sort();
    assert_eq!(got, expected);
}

/// Another identifier of the same filter is the one that comes, also with what waited.
#[test]
fn an_identifier_may_change() {
    let server = start(&[]);
    let version = Version::V5;
    let mut session = begin(&server, version, "s");
    for id in [7u32, 8] {
        session.subscribe_as(&[Filter::new("a/+", 1)], &[prop::subscription_id(id)]);
    }
    session.subscribe_as(&[Filter::new("b", 1)], &[prop::subscription_id(7u32)]);
    session.subscribe(&[("b", 1)]);
    session.disconnect();
    let mut writer = client(&server, version, "writer");
    writer.publish_all(numbered("a/x", 1, 0..3).chain(numbered("b", 1, 3..6)));
    let mut session = resume(&server, version, "s");
    for _ in 0..6 {
        let got = session.message();
        let expected = if got.topic == "b" { vec![] } else { vec![8] };
        assert_eq!(ids(&got), expected.into_iter().collect(), "{got:?}");
    }
}

/// Overlapping filters of different QoS give what waited once, with the highest.
#[test]
fn overlapping_filters_give_what_waited_once() {
    for version in [Version::V311, Version::V5] {
        let server = start(&[]);
        let mut session = begin(&server, version, "s");
        let filters = [("a/#", 0), ("a/+", 2), ("a/b", 1), ("#", 1), ("+/b", 1)];
        assert_eq!(session.subscribe(&filters), [0, 2, 1, 1, 1]);
        session.disconnect();
        let mut writer = client(&server, version, "writer");
        let published = ["a/b", "a/c", "x/b", "x", "a/b/c"];
        for n in 0..20 {
            writer.publish(published[n % 5], n.to_string(), 2);
        }
        let mut session = resume(&server, version, "s");
        let mut seen = BTreeSet::new();
        for _ in 0..20 {
            let got = session.message();
            let highest = if matches!(got.topic.as_str(), "a/b" | "a/c") { 2 } else { 1 };
            assert_eq!(got.qos, highest, "{got:?}");
            assert!(seen.insert(got.text()), "twice: {got:?}");
        }
        nothing_more(&server, version, &mut session, &["a/b", "a/c", "x/b", "x", "a/b/c"]);
    }
}

/// A client that may have few unacked gets what waited in parts, whatever it asked for before.
#[test]
fn receive_maximum_is_that_of_the_connection() {
    let server = start(&[]);
    let version = Version::V5;
    for (n, filter) in ["w/a", "w/+"].into_iter().enumerate() {
        let id = format!("s{n}");
        let mut session = begin(&server, version, &id);
        session.subscribe(&[(filter, 2)]);
        let mut writer = client(&server, version, "writer");
        writer.publish_all(numbered("w/a", 1, 0..4).chain(numbered("w/a", 2, 4..12)));
        let sent: Vec<Message> = (0..12).map(|_| session.unacked()).collect();
        session.disconnect();
        writer.publish_all(numbered("w/a", 1, 12..15));
        let few = durable(version, &id).with(prop::receive_maximum(3u16));
        let mut session = few.connect(at(&server));
        let mut window: Vec<Message> = (0..3).map(|_| session.unacked()).collect();
        session.quiet();
        for n in 3..15 {
            // In the order in which they were sent, one for each that is finished.
            let first = window.remove(0);
            assert_again_or_new(&first, &sent, n - 3);
            finish(&mut session, &first);
            let next = session.unacked();
            session.quiet();
            window.push(next);
        }
        window.iter().for_each(|message| finish(&mut session, message));
        nothing_more(&server, version, &mut session, &["w/a"]);
        session.unsubscribe(&[filter]);
        session.disconnect_with(0, &[prop::session_expiry(KEPT)]);
    }
}

#[track_caller]
fn assert_again_or_new(got: &Message, sent: &[Message], n: usize) {
    match sent.get(n) {
        Some(before) => assert_again(got, before.id, &before.text()),
        None => assert_eq!((got.text(), got.dup), (n.to_string(), false)),
    }
}
