//! Client ids, take-over, keep-alive, and how connections end.

use crate::mqtt::{broker::Broker, versions};
use clarion_tests::{
    DEADLINE,
    mqtt::{Client, Message, Options, Version, disconnect, id, prop, publish},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

versions! {
    empty_client_ids: v31 v311 v5;
    client_ids_of_all_kinds: v31 v311 v5;
    a_newer_connection_takes_over: v31 v311 v5;
    silence_ends_a_connection: v31 v311 v5;
    whatever_is_sent_keeps_alive: v311 v5;
    an_end_discards_what_was_not_finished: v31 v311 v5;
    user_names_and_passwords_are_taken: v31 v311 v5;
}

fn empty_client_ids(version: Version) {
    let broker = Broker::start();
    let at = broker.at();
    let empty = Options::new(version, "");
    match version {
        Version::V31 => {
            // 3.1: 1 to 23 characters.
            for clean in [true, false] {
                let (mut client, connack) = empty.clone().clean(clean).attempt(at);
                assert_eq!((connack.code, connack.present), (2, false));
                assert_eq!(client.ended(), None);
            }
        }
        Version::V311 => {
            let (mut client, connack) = empty.clone().clean(false).attempt(at);
            assert_eq!((connack.code, connack.present), (2, false), "MQTT-3.1.3-8");
            assert_eq!(client.ended(), None);
            // MQTT-3.1.3-6: each gets its own id, so none takes over another.
            let mut clients: Vec<Client> = (0..3).map(|_| empty.connect(at)).collect();
            clients.iter_mut().for_each(Client::quiet);
        }
        Version::V5 => {
            let mut clients = BTreeMap::new();
            for clean in [true, false, true, false] {
                let (client, connack) = empty.clone().clean(clean).attempt(at);
                assert_eq!((connack.code, connack.present), (0, false));
                let assigned = connack.text(id::ASSIGNED_CLIENT_ID).expect("MQTT-3.2.2-16");
                assert!(!assigned.is_empty());
                let before = clients.insert(assigned.to_owned(), client);
                assert!(before.is_none(), "{assigned} was given twice");
            }
            // Who says the id takes the session over.
            let (assigned, mut first) = clients.pop_first().expect("four ids");
            let (mut named, connack) = Options::new(version, &assigned).attempt(at);
            assert_eq!(connack.text(id::ASSIGNED_CLIENT_ID), None, "only if it was empty");
            assert_eq!(first.ended(), Some(0x8E));
            clients.values_mut().for_each(Client::quiet);
            named.quiet();
        }
    }
}

fn client_ids_of_all_kinds(version: Version) {
    let broker = Broker::start();
    let long = "x".repeat(65_535);
    let ids =
        ["a", "123456789012345678901234", " ", "ä€𝄞", "a/b+c#", "$SYS", "'\"\\{}", &long[..256]];
    let mut clients: Vec<Client> = ids.iter().map(|id| broker.client(version, id)).collect();
    clients.iter_mut().for_each(Client::quiet);
}

fn a_newer_connection_takes_over(version: Version) {
    let broker = Broker::start();
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[("will", 1)]);
    for newer in Version::ALL {
        let will = Message::new("will", "taken over");
        let mut old = Options::new(version, "same").will(will, &[]).connect(broker.at());
        old.subscribe(&[("a", 0)]);
        let mut new = broker.client(newer, "same");
        let told = (version == Version::V5).then_some(0x8E);
        assert_eq!(old.ended(), told, "{version:?} by {newer:?}");
        assert!(!new.connack().present, "clean");
        assert_eq!(watcher.message().text(), "taken over");
        watcher.publish("a", "the subscription is gone", 0);
        new.quiet();
        new.disconnect();
    }
    watcher.quiet();
}

fn silence_ends_a_connection(version: Version) {
    let broker = Broker::start();
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[("will", 1)]);
    let mut patient = broker.client(version, "no keep-alive");
    let will = Message::new("will", "silent").qos(1);
    let began = Instant::now();
    let mut silent =
        Options::new(version, "silent").keep_alive(1).will(will, &[]).connect(broker.at());
    let ended = silent.ended();
    let after = began.elapsed();
    // MQTT-3.1.2-24 (5: -22): one and a half times the keep-alive.
    assert!(after >= Duration::from_millis(1500), "{after:?}");
    assert!(after < DEADLINE / 2, "{after:?}");
    assert_eq!(ended, (version == Version::V5).then_some(0x8D));
    assert_eq!(watcher.message().text(), "silent");
    patient.quiet();
}

fn whatever_is_sent_keeps_alive(version: Version) {
    let broker = Broker::start();
    let mut silent = Options::new(version, "silent").keep_alive(1).connect(broker.at());
    let mut pings = Options::new(version, "pings").keep_alive(1).connect(broker.at());
    let mut publishes = Options::new(version, "publishes").keep_alive(1).connect(broker.at());
    // Messages to a client do not keep it alive, only its own packets do.
    silent.subscribe(&[("a", 0)]);
    let (ended, mut count) = (std::sync::mpsc::channel(), 0);
    let told = std::thread::spawn(move || {
        silent.rest();
        ended.0.send(()).expect("heard");
    });
    while ended.1.recv_timeout(Duration::from_millis(50)).is_err() {
        pings.quiet();
        publishes.publish("a", "x", 0);
        count += 1;
        assert!(count < 400, "the silent one was never ended");
    }
    told.join().expect("it ended");
    pings.quiet();
    publishes.quiet();
}

/// MQTT-3.14.4: DISCONNECT ends it, and what follows is not looked at.
fn an_end_discards_what_was_not_finished(version: Version) {
    let broker = Broker::start();
    let mut watcher = broker.client(version, "watcher");
    watcher.subscribe(&[("#", 2)]);
    let mut client = broker.client(version, "client");
    let one = Message { id: 1, ..Message::new("a", "before").qos(1) };
    let late = publish(version, &Message::new("a", "after"));
    let bytes = [publish(version, &one), vec![0xE0, 0], late].concat();
    client.send(&bytes);
    client.rest();
    assert_eq!(watcher.message().text(), "before");
    watcher.quiet();
    // In the middle of a packet.
    let mut client = broker.client(version, "client");
    let whole = publish(version, &Message::new("a", "x".repeat(1000)));
    client.send(&whole[..500]);
    client.vanish();
    let mut client = broker.client(version, "client");
    client.quiet();
    watcher.quiet();
}

fn user_names_and_passwords_are_taken(version: Version) {
    let broker = Broker::start();
    for (user, password) in [("u", "p"), ("", ""), ("ä", "\0\u{1}\0")] {
        let mut client =
            Options::new(version, "c").user(user).password(password).connect(broker.at());
        client.quiet();
    }
    Options::new(version, "c").user("only a name").connect(broker.at()).quiet();
    if version == Version::V5 {
        // 3.1.2.9: a password without a name is allowed since 5.
        Options::new(version, "c").password("p").connect(broker.at()).quiet();
    }
}

#[test]
fn a_server_may_ask_for_a_shorter_keep_alive() {
    let broker = Broker::with(&[("mqtt.max_keep_alive", "20s")]);
    for (asked, told) in [(0, Some(20)), (5, None), (20, None), (21, Some(20)), (65_535, Some(20))]
    {
        let (mut client, connack) =
            Options::new(Version::V5, "c").keep_alive(asked).attempt(broker.at());
        assert_eq!(connack.number(id::SERVER_KEEP_ALIVE), told, "asked for {asked}");
        client.quiet();
    }
}

#[test]
fn what_a_server_tells_about_itself() {
    let broker = Broker::start();
    let (_client, connack) = Options::new(Version::V5, "c").attempt(broker.at());
    let missing_or_one = |id| assert!(matches!(connack.number(id), None | Some(1)), "{connack:?}");
    missing_or_one(id::RETAIN_AVAILABLE);
    missing_or_one(id::WILDCARD_AVAILABLE);
    missing_or_one(id::SUBSCRIPTION_IDS_AVAILABLE);
    missing_or_one(id::SHARED_AVAILABLE);
    assert_eq!(connack.number(id::MAXIMUM_QOS), None, "all of them");
    assert!(connack.number(id::RECEIVE_MAXIMUM).is_none_or(|most| most > 0));
    assert!(connack.number(id::TOPIC_ALIAS_MAXIMUM).is_some_and(|most| most > 0));
    assert_eq!(connack.text(id::AUTH_METHOD), None);
    let mut seen = BTreeSet::new();
    let twice: Vec<_> = connack
        .properties
        .iter()
        .filter(|p| p.0 != id::USER_PROPERTY && !seen.insert(p.0))
        .collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn session_expiry_may_not_be_made_up_at_the_end() {
    let broker = Broker::start();
    // MQTT-3.14.2-2.
    let mut client = broker.client(Version::V5, "c");
    client.send(&disconnect(Version::V5, 0, &[prop::session_expiry(10u32)]));
    assert_eq!(client.ended(), Some(0x82));
    let mut client = broker.client(Version::V5, "c");
    client.send(&disconnect(Version::V5, 0, &[prop::session_expiry(0u32)]));
    assert_eq!(client.ended(), None);
}

#[test]
fn a_disconnect_may_give_its_reasons() {
    let broker = Broker::start();
    let mut watcher = broker.client(Version::V5, "watcher");
    watcher.subscribe(&[("will/#", 0)]);
    let properties = [prop::reason_string("so it is"), prop::user("k", "v"), prop::user("k", "v")];
    for reason in [0, 4, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let will = Message::new(&format!("will/{reason}"), "");
        let client = Options::new(Version::V5, "c").will(will, &[]).connect(broker.at());
        client.disconnect_with(reason, &properties);
        // 3.14.4: the will is discarded with reason 0, and only then.
        if reason > 0 {
            assert_eq!(watcher.message().topic, format!("will/{reason}"));
        }
    }
    watcher.quiet();
}
