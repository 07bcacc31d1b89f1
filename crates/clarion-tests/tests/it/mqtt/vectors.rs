//! Packet sequences that another broker is tested with (`vectors/mosquitto` beside the repository; the format is told
//! there). Invariant: a sequence that ends differently stands in [`EXCEPTIONS`] with what excuses it, and one that stands
//! there must end differently.

use super::broker::Broker;
use clarion_tests::mqtt::{Client, Options, Packet, Property, Version, id, parse, unhex};
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

/// Group, name of the sequence, what excuses that it ends differently.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/mosquitto")
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

fn run(at: SocketAddr, sequence: &Sequence) {
    let version = match sequence.ver {
        3 => Version::V31,
        4 => Version::V311,
        5 => Version::V5,
        other => panic!("version {other}"),
    };
    // Those that say CONNECT themselves say which version follows.
    let connects = sequence.msgs.iter().find_map(|step| match step {
        Step::Send { payload } if !sequence.connect => Some(unhex(payload)),
        _ => None,
    });
    let version = match connects.as_deref() {
        Some([0x10, _, 0, 4, b'M', b'Q', b'T', b'T', 5, ..]) => Version::V5,
        _ => version,
    };
    let mut client = Client::open(at, version);
    client.stream().set_read_timeout(Some(PATIENCE)).expect("a socket");
    if sequence.connect {
        let options = Options::new(version, &sequence.name).keep_alive(60);
        assert_eq!(client.handshake(&options).code, 0, "CONNECT was refused");
    }
    for step in &sequence.msgs {
        match step {
            Step::Send { payload } => client.try_send(&unhex(payload)),
            Step::Recv { payload } => expect(&mut client, version, payload),
            Step::Publish { topic, payload, qos } => {
                let mut other = Client::connect(at, Version::V311, "vectors-publisher");
                other.publish(topic, payload, *qos);
            }
            Step::Connected => client.ping(),
            Step::Disconnected => assert_eq!(client.frame(), None, "it is still connected"),
        }
    }
    if !sequence.expect_disconnect {
        return client.ping();
    }
    // Who was told why in the vectors was told in that packet; below, a closed connection says it all.
    match client.rest().as_slice() {
        [] | [Packet::Disconnect { .. }] => {}
        [Packet::Connack { code, .. }] if !sequence.connect && *code > 0 => {}
        more => panic!("it goes on with {more:?}"),
    }
}

#[test]
fn all_sequences_end_as_they_should() {
    let broker = Broker::start();
    let mut complaints = Vec::new();
    let mut excused: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut count = 0;
    let groups = read();
    for group in &groups {
        for sequence in &group.tests {
            count += 1;
            let ended = catch_unwind(AssertUnwindSafe(|| run(broker.at(), sequence)));
            let exception =
                EXCEPTIONS.iter().find(|(g, name, _)| *g == group.group && *name == sequence.name);
            match (ended, exception) {
                (Ok(()), None) => {}
                (Err(_), Some((group, name, _))) => {
                    excused.insert((group, name));
                }
                (Ok(()), Some(_)) => complaints.push(format!(
                    "{}: {}: is an exception, but passes",
                    group.group, sequence.name
                )),
                (Err(panic), None) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text =
                        text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                    let text = text.unwrap_or_default();
                    complaints.push(format!("{}: {}: {text}", group.group, sequence.name));
                }
            }
        }
    }
    println!("{count} sequences, {} of them excused", excused.len());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
    assert_eq!(excused.len(), EXCEPTIONS.len(), "an exception names no sequence");
}
