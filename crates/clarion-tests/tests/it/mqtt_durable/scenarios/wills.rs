//! Wills of sessions that are kept, and wills that outlive the server.

use crate::{
    mqtt::versions,
    mqtt_durable::{KEPT, at, away, client, durable, nothing_more, pass, resume, start},
};
use clarion_tests::{
    Server,
    mqtt::{Message, Options, Version, prop},
};

versions! {
    a_will_waits_for_its_readers: v311 v5;
    a_take_over_publishes_it: v311 v5;
    a_crash_publishes_it: v31 v311 v5;
    who_is_back_after_a_crash_has_not_died: v311 v5;
    who_said_goodbye_before_a_crash_has_no_will: v311 v5;
    the_newest_will_counts_after_a_crash: v311 v5;
}

const WILL: &str = "will/s";

fn with_will(options: Options, text: &str, qos: u8) -> Options {
    options.will(Message::new(WILL, text).qos(qos), &[])
}

/// Of 5, kept, with a delay.
fn delayed(id: &str, text: &str, seconds: u32) -> Options {
    durable(Version::V5, id).will(Message::new(WILL, text).qos(1), &[prop::will_delay(seconds)])
}

/// What the durable session `watcher` was told of wills, and nothing else.
#[track_caller]
fn assert_told(server: &Server, version: Version, expected: &[&str]) {
    let mut watcher = resume(server, version, "watcher");
    let mut told = watcher.texts(expected.len());
    told.sort();
    assert_eq!(told, expected);
    nothing_more(server, version, &mut watcher, &[WILL]);
    watcher.disconnect();
}

fn watched(sets: &[(&str, &str)], version: Version) -> Server {
    let server = start(sets);
    away(&server, version, "watcher", &[("will/+", 2)]);
    server
}

fn a_will_waits_for_its_readers(version: Version) {
    let server = watched(&[], version);
    let mut witness = client(&server, version, "witness");
    witness.subscribe(&[("will/#", 2)]);
    for qos in [1, 2] {
        with_will(durable(version, "s"), "gone", qos).connect(at(&server)).vanish();
        assert_eq!(witness.message().text(), "gone");
        let mut watcher = resume(&server, version, "watcher");
        let got = watcher.message();
        assert_eq!((got.text().as_str(), got.qos, got.dup), ("gone", qos, false));
        nothing_more(&server, version, &mut watcher, &[WILL]);
        witness.texts(1);
        watcher.disconnect();
    }
}

/// Without a delay: the connection is over, though the session goes on.
fn a_take_over_publishes_it(version: Version) {
    let server = watched(&[], version);
    let first = with_will(durable(version, "s"), "taken over", 1).connect(at(&server));
    let mut second = resume(&server, version, "s");
    assert_told(&server, version, &["taken over"]);
    second.quiet();
    drop(first);
    // The second has none.
    second.vanish();
    resume(&server, version, "s").disconnect();
    assert_told(&server, version, &[]);
}

#[test]
fn a_take_over_within_the_delay_does_not() {
    let server = watched(&[], Version::V5);
    let mut first = delayed("s", "taken over", 1).connect(at(&server));
    let mut second = resume(&server, Version::V5, "s");
    assert_eq!(first.ended(), Some(0x8E));
    pass(&server, 2);
    second.quiet();
    assert_told(&server, Version::V5, &[]);
    // A clean start ends the session, and with it the wait.
    let first = delayed("s", "ended", KEPT).connect(at(&server));
    drop(second);
    client(&server, Version::V5, "s").disconnect();
    assert_told(&server, Version::V5, &["ended"]);
    drop(first);
}

#[test]
fn a_delay_goes_on_over_a_restart() {
    for crash in [false, true] {
        let mut server = watched(&[("mqtt.will_grace", "1s")], Version::V5);
        delayed("s", "late", 1).connect(at(&server)).disconnect_with(4, &[]);
        delayed("kept", "much later", KEPT / 2).connect(at(&server)).disconnect_with(4, &[]);
        // Written by now.
        client(&server, Version::V5, "writer").publish(WILL, "before", 1);
        if !crash {
            server.terminate();
        }
        server.restart();
        assert_told(&server, Version::V5, &["before", "late"]);
        // The other one is still to come: at the end of its session.
        client(&server, Version::V5, "kept").disconnect();
        assert_told(&server, Version::V5, &["much later"]);
        assert!(!durable(Version::V5, "kept").connect(at(&server)).connack().present);
    }
}

#[test]
fn who_is_back_within_the_delay_has_not_died_though_the_server_did() {
    for crash in [false, true] {
        let mut server = watched(&[("mqtt.will_grace", "1s")], Version::V5);
        // So long a delay that the restart falls into it on any machine.
        delayed("s", "no", 60).connect(at(&server)).disconnect_with(4, &[]);
        if !crash {
            server.terminate();
        }
        server.restart();
        let session = resume(&server, Version::V5, "s");
        pass(&server, 2);
        session.disconnect();
        pass(&server, 1);
        assert_told(&server, Version::V5, &[]);
    }
}

/// Those of all who were connected, of sessions that are kept and of others.
fn a_crash_publishes_it(version: Version) {
    let mut server = watched(&[("mqtt.will_grace", "1s")], version);
    let mut clients = Vec::new();
    for (n, options) in
        [Options::new(version, "clean"), durable(version, "kept")].iter().enumerate()
    {
        let will = with_will(options.clone(), &format!("crash {n}"), n as u8 + 1);
        let mut client = will.connect(at(&server));
        client.quiet();
        clients.push(client);
    }
    // Right after its CONNACK.
    clients.push(with_will(Options::new(version, "late"), "crash 2", 0).connect(at(&server)));
    server.kill9();
    server.restart();
    let mut watcher = resume(&server, version, "watcher");
    let mut told = watcher.texts(2);
    told.sort();
    // The one of QoS 0 comes, if it does, to those who are there.
    told.retain(|text| text != "crash 2");
    while told.len() < 2 {
        told.push(watcher.message().text());
        told.retain(|text| text != "crash 2");
    }
    told.sort();
    assert_eq!(told, ["crash 0", "crash 1"]);
    watcher.disconnect();
    // All that it answered is committed when the next connection begins.
    resume(&server, version, "watcher").disconnect();
    // Once is enough.
    server.restart();
    pass(&server, 2);
    let mut watcher = resume(&server, version, "watcher");
    let mut writer = client(&server, version, "writer");
    writer.publish(WILL, "mark", 1);
    let next = watcher.message().text();
    assert!(next == "mark" || (next == "crash 2" && watcher.message().text() == "mark"), "{next}");
}

fn who_is_back_after_a_crash_has_not_died(version: Version) {
    // So long that everybody is back in time on any machine, and short enough to wait for its end.
    let mut server = watched(&[("mqtt.will_grace", "8s")], version);
    let dies = with_will(durable(version, "dies"), "dead", 1);
    let lives = [Options::new(version, "clean"), durable(version, "kept")];
    let lives = lives.map(|options| with_will(options, "alive", 1));
    let mut clients = vec![dies.connect(at(&server))];
    clients.extend(lives.iter().map(|options| options.connect(at(&server))));
    server.kill9();
    server.restart();
    let mut back: Vec<_> = lives.iter().map(|options| options.connect(at(&server))).collect();
    assert_told(&server, version, &["dead"]);
    pass(&server, 1);
    back.iter_mut().for_each(clarion_tests::mqtt::Client::quiet);
    back.into_iter().for_each(clarion_tests::mqtt::Client::disconnect);
    assert_told(&server, version, &[]);
}

fn who_said_goodbye_before_a_crash_has_no_will(version: Version) {
    let mut server = watched(&[("mqtt.will_grace", "1s")], version);
    for options in [Options::new(version, "clean"), durable(version, "kept")] {
        with_will(options, "no", 1).connect(at(&server)).disconnect();
    }
    // Written by now.
    client(&server, version, "writer").publish(WILL, "before", 1);
    server.kill9();
    server.restart();
    pass(&server, 2);
    assert_told(&server, version, &["before"]);
}

fn the_newest_will_counts_after_a_crash(version: Version) {
    let mut server = watched(&[("mqtt.will_grace", "1s")], version);
    with_will(durable(version, "s"), "old", 1).connect(at(&server)).disconnect();
    let newest = with_will(durable(version, "s"), "new", 1).connect(at(&server));
    with_will(durable(version, "none"), "old", 1).connect(at(&server)).disconnect();
    let none = durable(version, "none").connect(at(&server));
    client(&server, version, "writer").publish(WILL, "before", 1);
    server.kill9();
    drop((newest, none));
    server.restart();
    assert_told(&server, version, &["before", "new"]);
    pass(&server, 2);
    assert_told(&server, version, &[]);
}
