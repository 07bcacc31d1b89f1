//! A disk that is slow or fails: nothing is acknowledged that is not stored.

use crate::{
    api::Api,
    faults::shim::{Shim, Word},
    mqtt::versions,
};
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Packet, Version, publish},
    wait_for,
};

const EIO: u64 = 5;

versions! {
    a_retained_message_is_acknowledged_when_it_is_stored: v311 v5;
    a_failed_sync_acknowledges_nothing: v31 v311 v5;
}

fn client(server: &Server, version: Version, id: &str) -> Client {
    Client::connect(server.listener("mqtt"), version, id)
}

fn a_retained_message_is_acknowledged_when_it_is_stored(version: Version) {
    let shim = Shim::new();
    let server = shim.start();
    let mut writer = client(&server, version, "writer");
    writer.publish_as(Message::new("kept", "warm").qos(1).retained());
    for qos in [1, 2] {
        shim.set(Word::SyncHold, 1);
        let held = shim.get(Word::SyncsHeld);
        let id = writer.next_id();
        let message = Message { id, ..Message::new("kept", format!("{qos}")).qos(qos).retained() };
        writer.send(&publish(version, &message));
        wait_for("the sync", || shim.get(Word::SyncsHeld) > held);
        // The connection goes on, only that answer waits.
        writer.quiet();
        // Whoever subscribes now gets the old or the new one, once.
        let mut reader = client(&server, version, "reader");
        reader.subscribe(&[("kept", 1)]);
        let got = reader.message();
        assert!(got.retain, "{got:?}");
        shim.set(Word::SyncHold, 0);
        let answer = writer.packet();
        let expected = if qos == 1 { 4 } else { 5 };
        assert!(
            matches!(answer, Packet::Ack { kind, id: i, reason: 0 | 0x10, .. } if (kind, i) == (expected, id)),
            "{answer:?}"
        );
        if qos == 2 {
            writer.ack(6, id, 0);
            assert!(matches!(writer.packet(), Packet::Ack { kind: 7, .. }));
        }
        reader.disconnect();
    }
}

fn a_failed_sync_acknowledges_nothing(version: Version) {
    let shim = Shim::new();
    let mut server = shim.start();
    let mut writer = client(&server, version, "writer");
    for n in 0..10 {
        writer.publish_as(Message::new(&format!("kept/{n}"), "before").qos(1).retained());
    }
    shim.set(Word::SyncErrno, EIO);
    shim.set(Word::SyncFails, 1);
    for n in 0..5 {
        let mut writer = client(&server, version, &format!("writer {n}"));
        let topic = format!("kept/{n}");
        let message = Message { id: 1, ..Message::new(&topic, "after").qos(1).retained() };
        writer.send(&publish(version, &message));
        match writer.maybe_packet() {
            // 5 has words for it; below, the connection ends, and the client sends it again.
            Some(Packet::Ack { kind: 4, id: 1, reason: 0x80.., .. }) if version == Version::V5 => {
                writer.quiet();
            }
            None if version < Version::V5 => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shim.get(Word::SyncsFailed), 1, "the fault was not hit");
    // What needs no disk goes on.
    let mut reader = client(&server, version, "reader");
    reader.subscribe(&[("live", 1)]);
    let mut writer = client(&server, version, "lives");
    assert_eq!(writer.publish("live", "x", 1), 0);
    assert_eq!(reader.message().text(), "x");
    // What is retained still is.
    reader.subscribe(&[("kept/9", 1)]);
    assert_eq!(reader.message().text(), "before");
    server.restart();
    assert_eq!(Api::of(&server).call("GET", "/readyz", None).status, 200);
    let mut reader = client(&server, version, "reader");
    reader.subscribe(&[("kept/+", 1)]);
    for _ in 0..10 {
        let got = reader.message();
        let number: u32 = got.topic["kept/".len()..].parse().expect("a number");
        // The one whose sync failed may be there; it was not acknowledged.
        assert!(got.text() == "before" || (got.text() == "after" && number < 5), "{got:?}");
    }
    reader.quiet();
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
