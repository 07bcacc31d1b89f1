//! A slow disk: what is confirmed is committed.

use clarion_wire::proto::clarion_v1::{Hello, Mode, PresenceRequest, PresenceResponse};

use crate::{
    faults::shim::{Shim, Word},
    grpc::{Stream, connect, feed, numbers, path, publish_all, reads, seq},
};

#[tokio::test]
async fn acks_are_confirmed_when_they_are_on_disk() {
    for hello in [feed("d", "d"), reads("queue:d", Mode::Unify)] {
        let shim = Shim::new();
        let mut server = shim.builder().set("node.shards", "2").start();
        let grpc = connect(&server).await;
        let address = hello.addresses.first().cloned().unwrap_or("user:d".into());
        publish_all(&grpc, &address, &numbers(6)).await;
        let mut stream = Stream::open(&grpc, Hello { credit: Some(6), ..hello.clone() }).await;
        stream.texts(6).await;
        shim.set(Word::SyncHold, 1);
        stream.ack(&address, 0, 2, 0);
        stream.ack(&address, 0, 4, 9);
        clarion_tests::wait_until("the sync", async || shim.get(Word::SyncsHeld) > 0).await;
        // Whoever was told before the sync has it by the time that a later call is answered.
        let ask = PresenceRequest { user: "nobody".into() };
        let _: PresenceResponse = grpc.call(&path("Presence"), &ask).await.expect("an answer");
        tokio::select! {
            biased;
            told = stream.response() => panic!("{told:?} before the sync"),
            () = std::future::ready(()) => {}
        }
        let done = shim.get(Word::SyncsDone);
        shim.set(Word::SyncHold, 0);
        stream.stored(9).await;
        assert!(shim.get(Word::SyncsDone) > done, "confirmed before the sync");
        server.restart();
        let grpc = connect(&server).await;
        let mut stream = Stream::open(&grpc, hello).await;
        let mut again = Vec::new();
        for _ in 0..4 {
            again.push(seq(&stream.delivery().await));
        }
        assert_eq!(again, [1, 3, 5, 6]);
    }
}
