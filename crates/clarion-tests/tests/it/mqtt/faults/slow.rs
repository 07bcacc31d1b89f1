//! Subscribers that stop reading: bounded memory, and nobody else notices.

use crate::bad_input::assert_healthy;
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Options, Packet, Version, publish},
    raw::narrow,
};

/// How much goes past them, in parts of this size.
const TOTAL: usize = 210 << 20;
const PART: usize = 64 << 10;
/// What the server may take on top of what it had: 1 MiB each waits in queues and outboxes (`mqtt.queue_bytes`), and twice
/// the publisher's and the reader's own buffers.
const GROWN_KIB_MAX: u64 = 40 << 10;

#[test]
fn who_stops_reading_costs_nobody_anything() {
    let server = Server::start();
    let at = server.listener("mqtt");
    let mut stuck = Vec::new();
    for version in Version::ALL {
        for qos in 0..3 {
            let mut client = Client::on(narrow(at), version);
            let options = Options::new(version, &format!("stuck {version:?} {qos}"));
            assert_eq!(client.handshake(&options).code, 0);
            client.subscribe(&[("flood", qos), ("after", 1)]);
            stuck.push((qos, client));
        }
    }
    let mut reader = Client::connect(at, Version::V5, "reader");
    reader.subscribe(&[("flood", 1)]);
    let mut writer = Client::connect(at, Version::V311, "writer");
    let before = server.peak_rss_kib();
    let mut number = 0u64;
    while number as usize * PART < TOTAL {
        // The reader paces it; those who are stuck do not.
        let mut parts = Vec::with_capacity(8 * (PART + 20));
        for id in 1..=8 {
            let mut payload = vec![b'x'; PART];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            let message = Message { id, ..Message::new("flood", payload).qos(2) };
            parts.extend(publish(Version::V311, &message));
            number += 1;
        }
        writer.send(&parts);
        for id in 1..=8 {
            writer.wait("PUBREC", |packet| is(packet, 5, id));
            writer.ack(6, id, 0);
            let got = reader.message();
            assert_eq!(got.payload[..8], (number + u64::from(id) - 9).to_be_bytes());
        }
        for id in 1..=8 {
            writer.wait("PUBCOMP", |packet| is(packet, 7, id));
        }
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("{} MiB past 9 subscribers that stopped reading: +{grown} KiB", TOTAL >> 20);
    assert!(grown < GROWN_KIB_MAX, "{grown} KiB");
    assert_healthy(&server);
    // They come back to themselves: what waited comes, in order, then what is new.
    for (qos, client) in &mut stuck {
        let mut last = None;
        writer.publish("after", "the flood", 1);
        loop {
            let got = client.message();
            if got.topic == "after" {
                break;
            }
            assert!(got.qos == *qos && got.payload.len() == PART, "{got:?}");
            let number = u64::from_be_bytes(got.payload[..8].try_into().expect("eight"));
            assert!(last < Some(number), "{number} after {last:?}");
            last = Some(number);
        }
    }
}

fn is(packet: &Packet, kind: u8, id: u16) -> bool {
    matches!(packet, Packet::Ack { kind: k, id: i, .. } if (*k, *i) == (kind, id))
}

/// Who reads but acks nothing has a bounded queue too.
#[test]
fn who_acks_nothing_has_a_bounded_queue() {
    let server =
        Server::builder().set("mqtt.max_inflight", "10").set("mqtt.queue_messages", "50").start();
    let at = server.listener("mqtt");
    let mut silent = Client::connect(at, Version::V5, "silent");
    silent.subscribe(&[("flood", 1)]);
    let mut writer = Client::connect(at, Version::V5, "writer");
    let before = server.peak_rss_kib();
    for n in 0..2000 {
        writer.publish("flood", format!("{n} {}", "x".repeat(10_000)), 1);
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("2000 messages of 10 kB, 10 in flight, 50 waiting: +{grown} KiB");
    assert!(grown < 10 << 10, "{grown} KiB");
    // The first that were taken are there, in order; the rest was dropped, not the connection.
    for n in 0..60 {
        let got = silent.message();
        assert!(got.text().starts_with(&format!("{n} ")), "{n}: {}", &got.text()[..20]);
    }
    silent.quiet();
    writer.publish("flood", "new", 1);
    assert_eq!(silent.message().text(), "new");
}

/// A publisher that does not read its acknowledgements.
#[test]
fn who_reads_no_acks_is_not_read_either() {
    let server = Server::start();
    let at = server.listener("mqtt");
    let mut writer = Client::on(narrow(at), Version::V311);
    writer.handshake(&Options::new(Version::V311, "writer"));
    let before = server.peak_rss_kib();
    let one = publish(Version::V311, &Message { id: 1, ..Message::new("a", "x").qos(1) });
    let many = one.repeat(10_000);
    let patience = std::time::Duration::from_secs(1);
    writer.stream().set_write_timeout(Some(patience)).expect("a socket");
    let mut stream = writer.stream();
    let mut sent = 0;
    // Until nothing more goes in, or a hundred megabytes did.
    while sent < 100 << 20 {
        match std::io::Write::write(&mut stream, &many) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    let grown = server.peak_rss_kib().saturating_sub(before);
    println!("a publisher that reads nothing got {sent} bytes in: +{grown} KiB");
    assert!(grown < 30 << 10, "{grown} KiB");
    Client::connect(at, Version::V5, "other").quiet();
}
