//! Gates and producers for tests that are no recordings. Invariant: every wait has the harness's deadline.

use super::proto::{
    GATE, PUSH, PUSH_WITH_STATUS, RECEIVED, REMOVE, REQUEST, STATE, Said, UNRECEIVED, answer,
    number_in, push, removal,
};
use bytes::Bytes;
use clarion_tests::grpc_bytes::{GrpcClient, GrpcStream};
use clarion_tests::{DEADLINE, Server, wait_until};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Status;

/// A gate with a connection of its own.
pub(super) struct PlainGate {
    pub(super) client: GrpcClient,
    pub(super) stream: GrpcStream,
}

/// A producer with a connection of its own.
#[derive(Clone)]
pub(super) struct Producer(pub(super) GrpcClient);

impl PlainGate {
    /// Opens a gate and waits until the server has `gates`.
    pub(super) async fn open(server: &Server, group: &str, gates: u64) -> Self {
        let client = GrpcClient::open(server.listener("grpc")).await;
        Self::on(client, server, group, gates).await
    }

    /// The same on a connection that there is.
    pub(super) async fn on(client: GrpcClient, server: &Server, group: &str, gates: u64) -> Self {
        let metadata = [("group".to_owned(), group.to_owned())];
        let stream = client.stream(GATE, &metadata).await.expect("the stream opens");
        let gate = Self { client, stream };
        count(server, gates).await;
        gate
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Said {
        let next = timeout(DEADLINE, self.stream.next()).await.expect("a message comes");
        Said::to_gate(&next.expect("the stream goes on"))
    }

    pub(super) async fn say(&self, bytes: Bytes) {
        assert!(self.stream.send(bytes).await, "the stream goes on");
    }

    /// The gate's answer to a message, with its echo.
    pub(super) async fn reply(&self, to: &Said, kind: u64) {
        self.say(Said { kind, ..to.clone() }.as_response()).await;
    }

    pub(super) async fn received(&self, to: &Said) {
        self.reply(to, RECEIVED).await;
    }

    pub(super) async fn unreceived(&self, to: &Said) {
        self.reply(to, UNRECEIVED).await;
    }

    pub(super) async fn request(&self, channel: &str, above: u64) {
        self.say(answer(channel, above, REQUEST)).await;
    }

    /// Everything that a REQUEST brings, other messages apart. The channel `end` marks the end: it has one message that
    /// nobody answers.
    pub(super) async fn all_of(&mut self, channel: &str) -> Vec<Said> {
        self.request(channel, 0).await;
        self.request("end", 0).await;
        let mut all = Vec::new();
        loop {
            let said = self.next().await;
            match &*said.channel {
                "end" if said.kind == super::proto::RESPONSE => return all,
                of if of == channel && said.kind == super::proto::RESPONSE => all.push(said),
                _ => {}
            }
        }
    }
}

impl Producer {
    pub(super) async fn open(server: &Server) -> Self {
        let producer = Self(GrpcClient::open(server.listener("grpc")).await);
        producer.push("end", "end", 600).await;
        producer
    }

    /// Pushes; the number.
    pub(super) async fn push(&self, channel: &str, text: &str, expire: i32) -> u64 {
        let reply = timeout(DEADLINE, self.0.unary(PUSH, push(channel, text, expire))).await;
        number_in(&reply.expect("a push never hangs").expect("it is answered"), 1)
    }

    /// Pushes and waits for what became of it.
    pub(super) fn push_with_status(
        &self,
        channel: &str,
        text: &str,
        expire: i32,
    ) -> JoinHandle<Result<Said, Status>> {
        let (client, bytes) = (self.0.clone(), push(channel, text, expire));
        tokio::spawn(async move {
            let reply = timeout(DEADLINE, client.unary(PUSH_WITH_STATUS, bytes)).await;
            reply.expect("it is answered in time").map(|bytes| Said::response(&bytes))
        })
    }

    /// Removes a message; whether it was unacked.
    pub(super) async fn remove(&self, channel: &str, id: u64) -> bool {
        let reply = self.0.unary(REMOVE, removal(channel, id as i64)).await;
        number_in(&reply.expect("it is answered"), 1) == 1
    }
}

/// A gate that has taken the mark of [`Producer::open`], which was pushed before it came: later the mark is only what
/// [`PlainGate::all_of`] asked for.
pub(super) async fn first_gate(server: &Server, group: &str) -> (Producer, PlainGate) {
    let producer = Producer::open(server).await;
    let mut gate = PlainGate::open(server, group, 1).await;
    assert_eq!(gate.next().await.channel, "end");
    (producer, gate)
}

/// Waits until the server has so many gates.
pub(super) async fn count(server: &Server, gates: u64) {
    let control = GrpcClient::open(server.listener("grpc")).await;
    wait_until("the server's number of gates", async || {
        let state = control.unary(STATE, Bytes::new()).await.expect("the state is told");
        number_in(&state, 1) == gates
    })
    .await;
}

/// The texts of messages.
pub(super) fn texts(all: &[Said]) -> Vec<String> {
    all.iter().map(|said| String::from_utf8_lossy(&said.text).into_owned()).collect()
}
