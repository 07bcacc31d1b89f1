//! Whoever has a SUBACK gets what is published from then on, whatever happens next.

use crate::{
    mqtt::versions,
    mqtt_durable::{End, at, begin, client, durable, nothing_more, resume, start},
};
use clarion_tests::mqtt::{Filter, Message, Version, publish, subscribe};

versions! {
    right_after_a_suback: v311 v5;
    right_after_a_suback_of_a_new_session: v311 v5;
    right_after_a_suback_over_a_kill: v311 v5;
    a_publish_behind_a_subscribe_in_one_piece: v311 v5;
    nothing_from_before_a_suback: v311 v5;
    right_after_an_unsuback: v311 v5;
}

const ROUNDS: u16 = 100;

/// An exact filter or one with a wildcard, new or already there.
fn filter(n: u16) -> String {
    match n % 4 {
        0 => format!("exact/{n}/x"),
        1 => format!("wild/{n}/+"),
        2 => format!("+/{n}/x"),
        // A filter that others have, too.
        _ => "common/+/x".to_owned(),
    }
}

fn topic(n: u16) -> String {
    let first = ["exact", "wild", "any", "common"][usize::from(n % 4)];
    format!("{first}/{n}/x")
}

fn right_after_a_suback(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let mut session = begin(&server, version, "s");
    let qos = |n: u16| 1 + (n / 4 % 2) as u8;
    for n in 0..ROUNDS {
        session.subscribe(&[(&filter(n), qos(n))]);
        // Another connection, which knows of the SUBACK.
        assert!(writer.publish(&topic(n), n.to_string(), 2) < 0x80);
        let end = [None, Some(End::Cut), Some(End::Said)][usize::from(n % 3)];
        match end {
            Some(End::Said) => session.disconnect(),
            Some(_) => session.vanish(),
            None => {
                assert_eq!(session.message().text(), n.to_string());
                continue;
            }
        }
        session = resume(&server, version, "s");
        let got = session.message();
        assert_eq!((got.topic.clone(), got.text()), (topic(n), n.to_string()));
        session.quiet();
    }
}

fn right_after_a_suback_of_a_new_session(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    let id = |n| format!("s{n}");
    for n in 0..ROUNDS {
        let mut session = begin(&server, version, &id(n));
        session.subscribe(&[(&filter(n), 1)]);
        session.reset();
        assert!(writer.publish(&topic(n), n.to_string(), 1) < 0x80);
    }
    for n in 0..ROUNDS {
        let mut session = resume(&server, version, &id(n));
        assert_eq!(session.message().text(), n.to_string());
        session.unsubscribe(&["common/+/x"]);
    }
}

fn right_after_a_suback_over_a_kill(version: Version) {
    let mut server = start(&[]);
    let mut session = durable(version, "s").connect(at(&server));
    for n in 0..12 {
        session.subscribe(&[(&filter(n), 1 + (n % 2) as u8)]);
        let before = n % 3 == 0;
        if before {
            client(&server, version, "writer").publish(&topic(n), n.to_string(), 2);
        }
        server.kill9();
        drop(session);
        server.restart();
        if !before {
            client(&server, version, "writer").publish(&topic(n), n.to_string(), 2);
        }
        session = resume(&server, version, "s");
        let got = session.message();
        assert_eq!((got.topic.clone(), got.text()), (topic(n), n.to_string()));
        assert_eq!(got.qos, 1 + (n % 2) as u8);
        // This is written, so that it does not come again after the next kill.
        session.disconnect();
        session = resume(&server, version, "s");
    }
    nothing_more(&server, version, &mut session, &[&topic(0), &topic(1), &topic(3)]);
}

/// SUBSCRIBE and PUBLISH of one client in one write: the order is that of the packets.
fn a_publish_behind_a_subscribe_in_one_piece(version: Version) {
    let server = start(&[]);
    for (n, filter) in ["one/a", "one/+"].into_iter().enumerate() {
        let id = format!("s{n}");
        let mut session = begin(&server, version, &id);
        let message = |id, text| Message { id, ..Message::new("one/a", text).qos(1) };
        let piece = [
            publish(version, &message(10, "before")),
            subscribe(version, 11, &[Filter::new(filter, 1)], &[]),
            publish(version, &message(12, "after")),
        ];
        session.send(&piece.concat());
        assert_eq!(session.wait_ack(4, 10) & 0x80, 0);
        assert_eq!(session.wait_ack(4, 12), 0);
        session.ping();
        session.disconnect();
        let mut session = resume(&server, version, &id);
        let got = session.message();
        assert_eq!(got.text(), "after");
        nothing_more(&server, version, &mut session, &["one/a"]);
        session.unsubscribe(&[filter]);
    }
}

/// What was acknowledged before a SUBSCRIBE was sent does not come, though others read the same log.
fn nothing_from_before_a_suback(version: Version) {
    let server = start(&[]);
    let mut writer = client(&server, version, "writer");
    for filter in ["log/a", "log/+"] {
        for n in 0..20 {
            let id = format!("{filter} {n}");
            writer.publish("log/a", format!("before {n}"), 1);
            let mut session = begin(&server, version, &id);
            session.subscribe(&[(filter, 1)]);
            session.disconnect();
            writer.publish("log/a", format!("after {n}"), 1);
        }
        for n in 0..20 {
            let mut session = resume(&server, version, &format!("{filter} {n}"));
            let mut expected = vec![format!("after {n}")];
            for later in n + 1..20 {
                expected.extend([format!("before {later}"), format!("after {later}")]);
            }
            assert_eq!(session.texts(expected.len()), expected);
            session.quiet();
            session.disconnect();
            // The other filter is for sessions of its own.
            client(&server, version, &format!("{filter} {n}")).disconnect();
        }
    }
}

fn right_after_an_unsuback(version: Version) {
    let mut server = start(&[]);
    let mut session = begin(&server, version, "s");
    for n in 0..40 {
        session.subscribe(&[(&filter(n), 1)]);
        session.unsubscribe(&[&filter(n)]);
        client(&server, version, "writer").publish(&topic(n), "to nobody", 1);
        session.quiet();
        if n % 10 == 0 {
            server.kill9();
            drop(session);
            server.restart();
            client(&server, version, "writer").publish(&topic(n), "to nobody", 1);
        } else {
            session.disconnect();
        }
        session = resume(&server, version, "s");
        session.quiet();
    }
    session.subscribe(&[("+/+/+", 1)]);
    nothing_more(&server, version, &mut session, &[&topic(0), &topic(1), &topic(3)]);
}
