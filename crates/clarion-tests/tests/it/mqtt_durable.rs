//! Durable sessions of MQTT: what a client that is away, was cut off or whose server died gets when it is back.
//!
//! `scenarios`: what the specifications say · `traps`: what is easily lost, doubled or mixed up on the way · `shared`:
//! `$share` with durable members, as MQTT has it · `groups`: the same, as it is made · `crash`: rounds with clients that others
//! wrote, SIGKILL in each · `faults`: a disk that is slow, fails, is full, or loses its power. Must not know: the server's codec, the store's files.

mod crash;
mod faults;
mod groups;
mod scenarios;
mod shared;
mod traps;

use clarion_tests::{
    Server,
    mqtt::{Client, Message, Options, Packet, Version, id, number, prop},
};
use std::{collections::BTreeSet, net::SocketAddr, slice};

/// Seconds for which sessions of 5 are kept here, unless a test is about that.
const KEPT: u32 = 1000;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// DISCONNECT.
    Said,
    /// Without a word.
    Cut,
    /// Another connection takes the session over.
    TakenOver,
}

impl End {
    const ALL: [Self; 3] = [Self::Said, Self::Cut, Self::TakenOver];
}

/// A server with these keys of the configuration.
fn start(sets: &[(&str, &str)]) -> Server {
    sets.iter().fold(Server::builder(), |builder, (key, value)| builder.set(key, value)).start()
}

fn at(server: &Server) -> SocketAddr {
    server.listener("mqtt")
}

/// A client whose session ends with its connection.
fn client(server: &Server, version: Version, id: &str) -> Client {
    Client::connect(at(server), version, id)
}

/// A CONNECT that goes on with a session, which is kept.
fn durable(version: Version, id: &str) -> Options {
    let options = Options::new(version, id).clean(false);
    if version == Version::V5 { options.with(prop::session_expiry(KEPT)) } else { options }
}

/// The first connection of a durable session.
#[track_caller]
fn begin(server: &Server, version: Version, id: &str) -> Client {
    let client = durable(version, id).connect(at(server));
    assert!(!client.connack().present, "{id} has a session already");
    client
}

/// A further connection of a durable session.
#[track_caller]
fn resume(server: &Server, version: Version, id: &str) -> Client {
    let client = durable(version, id).connect(at(server));
    // 3.1 has no word for it.
    assert_eq!(client.connack().present, version > Version::V31, "{id} has no session");
    client
}

/// A durable session that subscribed this and is away.
fn away(server: &Server, version: Version, id: &str, filters: &[(&str, u8)]) {
    let mut client = begin(server, version, id);
    let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
    assert_eq!(client.subscribe(filters), granted);
    client.disconnect();
}

/// Ends a connection in this way and makes the next one.
#[track_caller]
fn again(server: &Server, version: Version, id: &str, old: Client, end: End) -> Client {
    match end {
        End::Said => old.disconnect(),
        End::Cut => old.vanish(),
        End::TakenOver => {
            let mut old = old;
            let new = resume(server, version, id);
            let told = (version == Version::V5).then_some(0x8E);
            assert_eq!(old.ended(), told, "the older connection");
            return new;
        }
    }
    resume(server, version, id)
}

/// All of the session's logs are read up to their ends: a mark published now is the next message on each of these topics.
#[track_caller]
fn nothing_more(server: &Server, version: Version, client: &mut Client, topics: &[&str]) {
    let mut writer = self::client(server, version, "marker");
    for topic in topics {
        // QoS 2 is not faster than anything before it.
        assert_eq!(writer.publish(topic, "mark", 2), 0);
        let got = client.message();
        assert_eq!((got.topic.as_str(), got.text().as_str()), (*topic, "mark"), "{got:?}");
    }
    writer.disconnect();
}

/// Waits until so many seconds have passed, by the clock of the server: a will has that delay.
fn pass(server: &Server, seconds: u32) {
    let mut watcher = client(server, Version::V5, "clock-watcher");
    watcher.subscribe(&[("clock", 0)]);
    Options::new(Version::V5, "clock")
        .with(prop::session_expiry(KEPT))
        .will(Message::new("clock", ""), &[prop::will_delay(seconds)])
        .connect(at(server))
        .vanish();
    assert_eq!(watcher.message().topic, "clock");
    watcher.disconnect();
}

/// The subscription identifiers of a message.
fn ids(message: &Message) -> BTreeSet<u32> {
    let ids = message.properties.iter().filter(|property| property.0 == id::SUBSCRIPTION_ID);
    ids.filter_map(|property| number(slice::from_ref(property), property.0)).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Messages with these numbers as their payloads.
fn numbered(topic: &str, qos: u8, range: std::ops::Range<u32>) -> impl Iterator<Item = Message> {
    range.map(move |n| Message::new(topic, n.to_string()).qos(qos))
}

/// A PUBLISH of this id that was sent before.
#[track_caller]
fn assert_again(got: &Message, id: u16, text: &str) {
    assert_eq!((got.id, got.text().as_str(), got.dup), (id, text, true), "{got:?}");
}

/// Lets go of QoS 2 messages that the client has: PUBREL comes, and is answered.
#[track_caller]
fn assert_released(client: &mut Client, id: u16) {
    match client.packet() {
        Packet::Ack { kind: 6, id: i, reason: 0, .. } if i == id => client.ack(7, id, 0),
        other => panic!("no PUBREL of {id} but {other:?}"),
    }
}

fn assert_no_panic(server: &Server) {
    let stderr = server.stderr();
    assert!(!stderr.contains("panicked"), "{stderr}");
}
