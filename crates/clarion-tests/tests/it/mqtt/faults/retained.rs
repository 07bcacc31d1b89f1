//! Retained messages: what was acknowledged survives kill -9; a SUBSCRIBE that races with a retained publish gets the old or
//! the new one, and never an old one after a newer live one.

use crate::mqtt::versions;
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Options, Packet, Version, publish},
};
use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
};

versions! {
    a_subscribe_never_gets_an_older_one_later: v31 v311 v5;
}

const WRITERS: usize = 4;
const TOPICS: u64 = 5;
/// Rounds in which something was unanswered at the kill.
const ROUNDS: u32 = 8;
/// Publishes that a writer has under way.
const WINDOW: usize = 16;

/// What a writer knows of one topic: each change is numbered.
#[derive(Debug, Clone, Default)]
struct Known {
    acknowledged: u64,
    sent: u64,
}

/// Every seventh change clears.
fn payload(number: u64) -> String {
    if number.is_multiple_of(7) { String::new() } else { number.to_string() }
}

/// Changes its topics until the server is killed; what became of them. Says each acknowledgement.
fn write_until_killed(
    mut client: Client,
    writer: usize,
    mut known: Vec<Known>,
    acknowledged: &AtomicU64,
) -> (usize, Vec<Known>, usize) {
    client.stream().set_write_timeout(None).expect("a socket");
    let mut under_way: BTreeMap<u16, (usize, u64)> = BTreeMap::new();
    let mut turn = 0;
    loop {
        while under_way.len() < WINDOW {
            turn += 1;
            let place = turn % TOPICS as usize;
            let id = client.next_id();
            known[place].sent += 1;
            let number = known[place].sent;
            let topic = format!("crash/{writer}/{place}");
            let message = Message { id, ..Message::new(&topic, payload(number)).qos(1).retained() };
            client.try_send(&publish(Version::V311, &message));
            under_way.insert(id, (place, number));
        }
        match client.maybe_packet() {
            Some(Packet::Ack { kind: 4, id, .. }) => {
                let (place, number) = under_way.remove(&id).expect("it was sent");
                assert_eq!(number, known[place].acknowledged + 1, "acks keep the order");
                known[place].acknowledged = number;
                acknowledged.fetch_add(1, SeqCst);
            }
            None => return (writer, known, under_way.len()),
            other => panic!("{other:?}"),
        }
    }
}

/// Each topic's message has a number from the last acknowledged to the last sent.
fn look(server: &Server, all: &mut [Vec<Known>]) {
    let mut reader = Client::connect(server.listener("mqtt"), Version::V311, "reader");
    reader.subscribe(&[("crash/#", 1), ("end", 0)]);
    reader.publish("end", "", 0);
    let mut found = BTreeMap::new();
    loop {
        let got = reader.message();
        if got.topic == "end" {
            break;
        }
        let before = found.insert(got.topic.clone(), got.text());
        assert_eq!(before, None, "{} twice", got.topic);
    }
    for (writer, topics) in all.iter_mut().enumerate() {
        for (place, known) in topics.iter_mut().enumerate() {
            let topic = format!("crash/{writer}/{place}");
            let text = found.remove(&topic).unwrap_or_default();
            let possible = known.acknowledged..=known.sent;
            let holds = possible.clone().find(|n| *n > 0 && payload(*n) == text);
            let never = known.acknowledged == 0 && text.is_empty();
            assert!(holds.is_some() || never, "{topic} has {text:?}, not one of {possible:?}");
            // Whatever it is now, it stays.
            if let Some(number) = holds {
                known.acknowledged = number;
            }
            known.sent = known.acknowledged;
        }
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_was_acknowledged_survives_kills() {
    let mut server = Server::start();
    let mut all = vec![vec![Known::default(); TOPICS as usize]; WRITERS];
    let (mut counted, mut total, mut round) = (0, 0, 0);
    while counted < ROUNDS {
        round += 1;
        assert!(round < 3 * ROUNDS, "{counted} of {round} rounds count");
        let acknowledged = AtomicU64::new(0);
        let target = 150 + u64::from(round) * 37 % 200;
        let mut unanswered = 0;
        thread::scope(|scope| {
            let at = server.listener("mqtt");
            let (sender, done) = channel();
            for (writer, known) in all.iter().enumerate() {
                let (known, sender, acknowledged) = (known.clone(), sender.clone(), &acknowledged);
                let client = Client::connect(at, Version::V311, &format!("writer {writer}"));
                scope.spawn(move || {
                    let result = write_until_killed(client, writer, known, acknowledged);
                    sender.send(result).expect("heard");
                });
            }
            clarion_tests::wait_for("acknowledgements", || acknowledged.load(SeqCst) >= target);
            server.kill9();
            drop(sender);
            for (writer, known, open) in done {
                all[writer] = known;
                unanswered += open;
            }
        });
        total += acknowledged.load(SeqCst);
        server.restart();
        look(&server, &mut all);
        counted += u32::from(unanswered > 0);
    }
    println!("{counted} rounds, {total} retained messages acknowledged, none lost");
}

/// Tells a thread to end, also when the test fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// One writer never stops changing a retained message, subscribers come and go.
fn a_subscribe_never_gets_an_older_one_later(version: Version) {
    const ROUNDS: usize = 150;
    let server = Server::start();
    let at = server.listener("mqtt");
    let (stop, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut first = Client::connect(at, version, "writer");
    first.publish_as(Message::new("race/a", "1").qos(1).retained());
    stored.store(1, SeqCst);
    let (mut live_first, mut received) = (0, 0);
    thread::scope(|scope| {
        let _stops = Stops(&stop);
        scope.spawn(|| {
            for number in 2u64.. {
                if stop.load(SeqCst) {
                    return;
                }
                first.publish_as(Message::new("race/a", number.to_string()).qos(1).retained());
                stored.store(number, SeqCst);
            }
        });
        for round in 0..ROUNDS {
            let filter = ["race/a", "race/+", "race/#"][round % 3];
            let mut reader = Options::new(version, "reader").connect(at);
            let before = stored.load(SeqCst);
            reader.subscribe(&[(filter, 1)]);
            let mut last = 0;
            for n in 0..4 {
                let got = reader.message();
                let number: u64 = got.text().parse().expect("a number");
                if n == 0 {
                    // Neither nothing, nor one that was replaced before the SUBSCRIBE.
                    assert!(number >= before, "{number} was replaced by {before}");
                    live_first += u32::from(!got.retain);
                } else {
                    // The one that is both retained and new may come as both.
                    assert!(
                        number == last + 1 || number == last && n == 1,
                        "{number} after {last}, retained: {}",
                        got.retain
                    );
                }
                last = number;
                received += 1;
            }
            reader.disconnect();
        }
    });
    println!("{ROUNDS} races, {received} messages, {live_first} times the first one was live");
}
