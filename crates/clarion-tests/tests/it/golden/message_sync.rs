//! Recordings of the MessageSync push demo, replayed. Invariant: each submit is answered "received", and each message goes
//! to exactly one consumer of its channel, first in, first out; what the original loses comes, too.

use super::proto::{Value, message, text_in};
use super::runtime;
use super::vectors::{Scenario, Step, text};
use crate::api::Api;
use bytes::Bytes;
use clarion_tests::grpc_bytes::{GrpcClient, GrpcStream};
use clarion_tests::{DEADLINE, Server, wait_for};
use std::collections::{BTreeMap, HashMap, VecDeque};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tonic::{Code, Status};

const SUBMIT: &str = "/MessageSync/SubmitMessage";
const STREAM: &str = "/MessageSync/PushMessageStream";
/// Events that may wait for the player.
const EVENTS_MAX: usize = 10_000;

/// A consumer's side of its stream.
#[derive(Default)]
struct Consumer {
    channel: String,
    reader: Option<AbortHandle>,
    came: VecDeque<String>,
    ended: Option<Status>,
    /// Its connection broke: what it got lately may come again.
    broke: bool,
}

struct Player {
    server: Server,
    clients: HashMap<String, GrpcClient>,
    consumers: BTreeMap<String, Consumer>,
    calls: HashMap<u32, JoinHandle<Result<Bytes, Status>>>,
    /// What was submitted and did not come yet, by channel.
    queued: HashMap<String, VecDeque<String>>,
    events: mpsc::Receiver<(String, Result<Bytes, Status>)>,
    sender: mpsc::Sender<(String, Result<Bytes, Status>)>,
    at: usize,
}

/// A submit or a connection request as bytes.
fn request(step: &Step) -> Bytes {
    if let Some(bytes) = step.bytes() {
        return bytes;
    }
    let send = step.send.as_ref().expect("a request");
    let fields = [(1, text(send, "channel")), (2, text(send, "message"))];
    submit_of(fields)
}

fn submit_of(fields: [(u32, String); 2]) -> Bytes {
    let given = fields.into_iter().filter(|(_, text)| !text.is_empty());
    message(&given.map(|(n, text)| (n, Value::Text(text.into()))).collect::<Vec<_>>())
}

/// A server that speaks it.
fn start() -> Server {
    Server::builder().arg("--speak").arg("message-sync").start()
}

pub(super) fn play(scenario: &Scenario) {
    match &*scenario.name {
        "burst" => in_order(50),
        "two_consumers_stress" => stress(),
        "original_clients" => original_clients(),
        _ => runtime().block_on(replay(scenario)),
    }
}

async fn replay(scenario: &Scenario) {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let mut player = Player {
        server: start(),
        clients: HashMap::new(),
        consumers: BTreeMap::new(),
        calls: HashMap::new(),
        queued: HashMap::new(),
        events,
        sender,
        at: 0,
    };
    for (at, step) in scenario.steps.iter().enumerate() {
        player.at = at;
        player.step(step).await;
    }
    player.close().await;
}

async fn read(
    name: String,
    mut stream: GrpcStream,
    to: mpsc::Sender<(String, Result<Bytes, Status>)>,
) {
    loop {
        let next = stream.next().await;
        let over = next.is_err();
        if to.send((name.clone(), next)).await.is_err() || over {
            return;
        }
    }
}

impl Player {
    async fn client(&mut self, actor: &str) -> GrpcClient {
        if let Some(client) = self.clients.get(actor) {
            return client.clone();
        }
        let client = GrpcClient::open(self.server.listener("grpc")).await;
        self.clients.insert(actor.to_owned(), client.clone());
        client
    }

    async fn step(&mut self, step: &Step) {
        match (&*step.actor, step.call) {
            ("server", _) => self.server_step(step),
            ("note", _) => {}
            (_, Some(call)) if step.send.is_some() => self.submits(step, call).await,
            (_, Some(call)) => self.submitted(step, call).await,
            (name, None) => self.consumer_step(name, step).await,
        }
    }

    fn server_step(&mut self, step: &Step) {
        if step.event.as_deref() == Some("kill") {
            self.server.kill9();
            self.clients.clear();
        } else {
            self.server.restart();
        }
    }

    async fn submits(&mut self, step: &Step, call: u32) {
        let own = format!("/MessageSync/{}", step.rpc);
        let path = step.path.clone().unwrap_or(own);
        let bytes = request(step);
        let decodes = step.send.as_ref().is_some_and(|send| send["undecodable"] != true);
        if path == SUBMIT && decodes && bytes.len() <= 4 << 20 {
            let (channel, text) = (text_in(&bytes, 1), text_in(&bytes, 2));
            if !channel.is_empty() {
                self.queued.entry(channel).or_default().push_back(text);
            }
        }
        let client = self.client(&step.actor).await;
        let call_it = async move { client.unary(&path, bytes).await };
        self.calls.insert(call, tokio::spawn(call_it));
    }

    async fn submitted(&mut self, step: &Step, call: u32) {
        let handle = self.calls.remove(&call).expect("it was begun");
        let end = timeout(DEADLINE, handle).await.expect("no call hangs").expect("no panic");
        let at = self.at;
        match (&step.status, end) {
            // The original hangs; here a submit is answered always.
            (Some(_), Ok(_)) if step.bug.is_some() => {}
            (Some(seen), Err(status)) => {
                let unknown = seen.number == 12;
                assert_eq!(status.code() == Code::Unimplemented, unknown, "step {at}: {status}");
            }
            (None, Ok(reply)) => assert_eq!(reply, step.bytes().unwrap_or_default(), "step {at}"),
            // A name of no bytes is refused here.
            (None, Err(status)) => assert_eq!(status.code(), Code::InvalidArgument, "step {at}"),
            (seen, end) => panic!("step {at}: {end:?}, not {seen:?}"),
        }
    }

    async fn consumer_step(&mut self, name: &str, step: &Step) {
        if step.send.is_some() {
            return self.opens(name, step).await;
        }
        match step.event.as_deref() {
            Some("headers") | None => {}
            Some("cancel") => {
                let consumer = self.consumers.get_mut(name).expect("open");
                consumer.reader.as_ref().expect("open").abort();
                consumer.ended = Some(Status::cancelled(""));
                self.gone();
            }
            Some("connection_closed") => {
                self.clients.remove(name).expect("open").break_off();
                self.until(|p| p.consumers[name].ended.is_some()).await;
                self.consumers.get_mut(name).expect("open").broke = true;
                self.gone();
            }
            Some("end") if step.bug.is_none() => self.ends(name, step).await,
            Some(_) => {}
        }
        if step.recv.is_some() && step.bug.is_none() {
            let golden = text_in(&step.bytes().unwrap_or_default(), 1);
            let channel = self.consumers[name].channel.clone();
            if channel.is_empty() {
                return;
            }
            let one = |p: &Self| p.queued[&channel].iter().all(|queued| *queued != golden);
            self.until(one).await;
        }
    }

    /// The server knows that a consumer has gone, too.
    fn gone(&self) {
        let live = self.consumers.values().filter(|consumer| consumer.ended.is_none()).count();
        let mut api = Api::of(&self.server);
        wait_for("the server's number of consumers", || {
            let list = api.ok("GET", "/api/v1/sessions?limit=100", None);
            let sessions = list["sessions"].as_array().expect("sessions");
            sessions.iter().filter(|s| s["dialect"] == "message-sync").count() == live
        });
    }

    async fn ends(&mut self, name: &str, step: &Step) {
        let seen = step.status.as_ref().expect("a status");
        // What ended there for want of ASCII goes on here.
        if seen.details.contains("'ascii' codec") {
            return;
        }
        self.until(|p| p.consumers[name].ended.is_some()).await;
        let status = self.consumers[name].ended.clone().expect("waited for");
        let same = i32::from(status.code()) == seen.number;
        assert!(same || seen.made_by.is_some(), "step {}: {status}", self.at);
    }

    async fn opens(&mut self, name: &str, step: &Step) {
        let bytes = request(step);
        let channel = text_in(&bytes, 1);
        let client = self.client(name).await;
        let stream = client.server_stream(STREAM, bytes, &[]).await;
        if channel.is_empty() {
            let status = stream.expect_err("a name of no bytes is refused here");
            assert_eq!(status.code(), Code::InvalidArgument, "step {}", self.at);
            self.consumers.insert(name.to_owned(), Consumer::default());
            return;
        }
        let stream = stream.unwrap_or_else(|status| panic!("step {}: {status}", self.at));
        let reader = tokio::spawn(read(name.to_owned(), stream, self.sender.clone()));
        let reader = Some(reader.abort_handle());
        self.queued.entry(channel.clone()).or_default();
        self.consumers.insert(name.to_owned(), Consumer { channel, reader, ..Consumer::default() });
    }

    /// Takes events until it holds; messages must come first in, first out.
    async fn until(&mut self, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let event = timeout(DEADLINE, self.events.recv()).await;
            let Ok(Some((name, event))) = event else {
                panic!("step {}: waited in vain; queued: {:?}", self.at, self.queued)
            };
            let consumer = self.consumers.get_mut(&name).expect("open");
            match event {
                Err(status) => consumer.ended = Some(status),
                Ok(bytes) => {
                    let text = text_in(&bytes, 1);
                    let channel = consumer.channel.clone();
                    consumer.came.push_back(text.clone());
                    let queued = self.queued.get_mut(&channel).expect("a channel");
                    if queued.front() == Some(&text) {
                        queued.pop_front();
                        continue;
                    }
                    let mut broke =
                        self.consumers.values_mut().filter(|c| c.broke && c.channel == channel);
                    let again = broke.any(|c| c.came.pop_front().as_ref() == Some(&text));
                    assert!(again, "{text:?} is not first in, first out: {:?}", self.queued);
                }
            }
        }
    }

    /// Everything that was submitted reaches somebody.
    async fn close(&mut self) {
        let calls: Vec<u32> = self.calls.keys().copied().collect();
        for call in calls {
            let handle = self.calls.remove(&call).expect("under way");
            let end = timeout(DEADLINE, handle).await.expect("no call hangs").expect("no panic");
            end.expect("a submit is answered");
        }
        if !self.server.is_running() {
            return;
        }
        let left: Vec<String> = self.queued.keys().cloned().collect();
        for (n, channel) in left.into_iter().enumerate() {
            let listens =
                self.consumers.values().any(|c| c.channel == channel && c.ended.is_none());
            if !listens && self.queued[&channel].iter().all(|text| text.len() < 1000) {
                let name = format!("last{n}");
                let client = self.client(&name).await;
                let bytes = submit_of([(1, channel.clone()), (2, String::new())]);
                let stream = client.server_stream(STREAM, bytes, &[]).await.expect("it opens");
                tokio::spawn(read(name.clone(), stream, self.sender.clone()));
                self.consumers
                    .insert(name, Consumer { channel: channel.clone(), ..Consumer::default() });
            }
            let listens =
                self.consumers.values().any(|c| c.channel == channel && c.ended.is_none());
            if listens {
                self.until(|p| p.queued[&channel].is_empty()).await;
            }
        }
    }
}

async fn submit(client: &GrpcClient, channel: &str, text: &str) {
    let bytes = submit_of([(1, channel.to_owned()), (2, text.to_owned())]);
    let reply = timeout(DEADLINE, client.unary(SUBMIT, bytes)).await.expect("no call hangs");
    assert_eq!(text_in(&reply.expect("it is answered"), 1), "received");
}

async fn consumer(server: &Server, channel: &str) -> (GrpcClient, GrpcStream) {
    let client = GrpcClient::open(server.listener("grpc")).await;
    let bytes = submit_of([(1, channel.to_owned()), (2, String::new())]);
    let stream = client.server_stream(STREAM, bytes, &[]).await.expect("it opens");
    (client, stream)
}

async fn next(stream: &mut GrpcStream) -> String {
    let next = timeout(DEADLINE, stream.next()).await.expect("a message comes");
    text_in(&next.expect("the stream goes on"), 1)
}

/// So many submits without pause come in order.
fn in_order(count: usize) {
    runtime().block_on(async {
        let server = start();
        let (_client, mut stream) = consumer(&server, "aaaa").await;
        let producer = GrpcClient::open(server.listener("grpc")).await;
        for n in 0..count {
            submit(&producer, "aaaa", &format!("m{n}")).await;
        }
        for n in 0..count {
            assert_eq!(next(&mut stream).await, format!("m{n}"));
        }
    });
}

/// Two consumers, 600 submits: each message once, each consumer in order.
fn stress() {
    runtime().block_on(async {
        let server = start();
        let (one, two) = (consumer(&server, "aaaa").await, consumer(&server, "aaaa").await);
        let producer = GrpcClient::open(server.listener("grpc")).await;
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        for (name, (_, stream)) in [("one", one), ("two", two)] {
            tokio::spawn(read(name.to_owned(), stream, sender.clone()));
        }
        for n in 0..600 {
            submit(&producer, "aaaa", &n.to_string()).await;
        }
        let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
        for _ in 0..600 {
            let event = timeout(DEADLINE, events.recv()).await.expect("600 come");
            let (name, message) = event.expect("open");
            let text = text_in(&message.expect("the stream goes on"), 1);
            seen.entry(name).or_default().push(text.parse().expect("a number"));
        }
        assert!(seen.values().all(|of| of.is_sorted()), "each consumer sees rising numbers");
        let mut all: Vec<usize> = seen.into_values().flatten().collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..600), "each message comes once");
    });
}

/// As the original programs do: a submit each tenth of a second and a consumer, each unaware of the other.
fn original_clients() {
    runtime().block_on(async {
        let server = start();
        let (_client, mut stream) = consumer(&server, "aaaa").await;
        let producer = GrpcClient::open(server.listener("grpc")).await;
        for n in 0..20 {
            submit(&producer, "aaaa", &format!("1526700000.{n}")).await;
            assert_eq!(next(&mut stream).await, format!("1526700000.{n}"));
        }
    });
}
