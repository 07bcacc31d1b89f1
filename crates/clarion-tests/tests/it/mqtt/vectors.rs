//! Packet sequences that another broker is tested with (`vectors/mosquitto` beside the repository; the format is told
//! there). Invariant: a sequence that ends differently stands in `exceptions` with what excuses it, ends as it says there,
//! and does not end as the sequence says.

mod exceptions;

use super::broker::Broker;
use clarion_tests::mqtt::{Client, Options, Packet, Property, Version, id, parse, unhex};
use exceptions::EXCEPTIONS;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

/// Less than elsewhere: all answers come at once, and a server that gives many wrong ones should not take an hour to say so.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
struct Group {
    group: String,
    tests: Vec<Sequence>,
}

#[derive(Debug, Deserialize)]
struct Sequence {
    name: String,
    #[serde(default = "four")]
    ver: u8,
    #[serde(default = "yes")]
    connect: bool,
    #[serde(default = "yes")]
    expect_disconnect: bool,
    msgs: Vec<Step>,
}

/// What is done, and what must come.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
enum Step {
    Send { payload: String },
    Recv { payload: String },
    Publish { topic: String, payload: String, qos: u8 },
    Connected,
    Disconnected,
}

fn four() -> u8 {
    4
}

fn yes() -> bool {
    true
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/mosquitto")
}

fn read() -> Vec<Group> {
    let folder = folder();
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    assert!(!files.is_empty(), "{} has no sequences", folder.display());
    let group = |file: &PathBuf| -> Vec<Group> {
        let text = fs::read(file).expect("readable");
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    files.iter().flat_map(group).collect()
}

/// What the specification fixes of a packet: without what a server may add to explain itself, and without its own limits.
fn fixed(version: Version, first: u8, body: &[u8]) -> Packet {
    let own = |property: &Property| {
        let limits = [
            id::RECEIVE_MAXIMUM,
            id::TOPIC_ALIAS_MAXIMUM,
            id::MAXIMUM_PACKET_SIZE,
            id::SESSION_EXPIRY,
            id::SERVER_KEEP_ALIVE,
            id::MAXIMUM_QOS,
            id::RETAIN_AVAILABLE,
            id::WILDCARD_AVAILABLE,
            id::SUBSCRIPTION_IDS_AVAILABLE,
            id::SHARED_AVAILABLE,
        ];
        property.0 == id::REASON_STRING
            || property.0 == id::USER_PROPERTY
            || limits.contains(&property.0)
    };
    let mut packet = parse(version, first, body);
    if let Packet::Connack { properties, .. }
    | Packet::Ack { properties, .. }
    | Packet::Suback { properties, .. }
    | Packet::Disconnect { properties, .. } = &mut packet
    {
        properties.retain(|property| !own(property));
    }
    packet
}

fn expect(client: &mut Client, version: Version, hex: &str) {
    let bytes = unhex(hex);
    // One byte of length suffices for all of them.
    let mut rest = &bytes[..];
    while let [first, length, behind @ ..] = rest {
        let (body, next) = behind.split_at(usize::from(*length));
        let Some((got, got_body)) = client.frame() else {
            panic!("the connection ended before {hex}")
        };
        assert_eq!(fixed(version, got, &got_body), fixed(version, *first, body));
        rest = next;
    }
    assert!(rest.is_empty(), "{hex} ends within a packet");
}

/// The version that a sequence speaks: those that say CONNECT themselves may differ from what is noted.
fn version(sequence: &Sequence) -> Version {
    let connect = sequence.msgs.iter().find_map(|step| match step {
        Step::Send { payload } if !sequence.connect => Some(unhex(payload)),
        _ => None,
    });
    match (connect.as_deref(), sequence.ver) {
        (Some([0x10, _, 0, 4, b'M', b'Q', b'T', b'T', 5, ..]), _) => Version::V5,
        (_, 3) => Version::V31,
        (_, 4) => Version::V311,
        (_, 5) => Version::V5,
        (_, other) => panic!("version {other}"),
    }
}

/// Runs a sequence; with `instead` up to its first answer, which must be that one and the last.
fn run(at: SocketAddr, sequence: &Sequence, instead: Option<&str>) {
    let version = version(sequence);
    let mut client = Client::open(at, version);
    client.stream().set_read_timeout(Some(PATIENCE)).expect("a socket");
    if sequence.connect {
        let options = Options::new(version, &sequence.name).keep_alive(60);
        assert_eq!(client.handshake(&options).code, 0, "CONNECT was refused");
    }
    for step in &sequence.msgs {
        match step {
            Step::Send { payload } => client.try_send(&unhex(payload)),
            Step::Recv { payload } => {
                expect(&mut client, version, instead.unwrap_or(payload));
                if instead.is_some() {
                    break;
                }
            }
            Step::Publish { topic, payload, qos } => {
                let mut other = Client::connect(at, Version::V311, "vectors-publisher");
                other.publish(topic, payload, *qos);
            }
            Step::Connected => client.ping(),
            Step::Disconnected => assert_eq!(client.frame(), None, "it is still connected"),
        }
    }
    if !sequence.expect_disconnect && instead.is_none() {
        return client.ping();
    }
    match client.rest().as_slice() {
        [] | [Packet::Disconnect { .. }] => {}
        [Packet::Connack { code, .. }] if !sequence.connect && *code > 0 => {}
        more => panic!("it goes on with {more:?}"),
    }
}

/// What went wrong, if anything did.
fn complaint(at: SocketAddr, sequence: &Sequence, instead: Option<&str>) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| run(at, sequence, instead))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| Some((*panic.downcast_ref::<&str>()?).to_owned())).unwrap_or_default())
}

#[test]
fn all_sequences_end_as_they_should() {
    // The broker that the sequences are from has 10 in its tests.
    let broker = Broker::with(&[("mqtt.topic_aliases", "10")]);
    let at = broker.at();
    let mut complaints = Vec::new();
    let mut excused: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut count = 0;
    for group in &read() {
        for sequence in &group.tests {
            count += 1;
            let exception = EXCEPTIONS.iter().find_map(|exception| {
                let name = exception.names.iter().find(|name| **name == sequence.name)?;
                (exception.group == group.group).then_some((exception, *name))
            });
            let wrong = complaint(at, sequence, None);
            let wrong = match exception {
                None => wrong,
                Some(_) if wrong.is_none() => Some("is an exception, but passes".to_owned()),
                Some((exception, name)) => {
                    excused.insert((exception.group, name));
                    let wrong = complaint(at, sequence, Some(exception.instead));
                    wrong.map(|wrong| format!("not as {}: {wrong}", exception.excuse))
                }
            };
            complaints
                .extend(wrong.map(|text| format!("{}: {}: {text}", group.group, sequence.name)));
        }
    }
    println!("{count} sequences, {} of them excused", excused.len());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    let listed: usize = EXCEPTIONS.iter().map(|exception| exception.names.len()).sum();
    assert_eq!(excused.len(), listed, "an exception names no sequence");
}
