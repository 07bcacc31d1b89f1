//! Gates of a played recording: what they send, what comes to them, and when both is over.
//!
//! Invariant: after each answer of a gate its stream is synchronized (a REQUEST for a channel of its own is answered), so
//! that everything before has had its effect and nothing else is on the way.

use super::model::Owed;
use super::player::Player;
use super::proto::{
    GATE, PUSH, RECEIVED, REQUEST, RESPONSE, STATE, Said, UNRECEIVED, answer, number_in, push,
    with_number,
};
use super::table::Here;
use super::vectors::{Step, hex, text};
use bytes::Bytes;
use clarion_tests::grpc_bytes::{GrpcStream, StreamSender};
use clarion_tests::wait_until;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::{Code, Status};

/// Numbers that were never given out lie this far beyond those of the recording.
const FORGED: u64 = 500_000;

/// What happens to a gate.
#[derive(Debug)]
pub(super) enum Event {
    Message(Bytes),
    End(Status),
}

/// A gate's side of its stream.
#[derive(Debug, Default)]
pub(super) struct Gate {
    sender: Option<StreamSender>,
    reader: Option<AbortHandle>,
    /// Live pushes that came and were not looked at.
    live: VecDeque<Bytes>,
    /// Others that came.
    again: VecDeque<Bytes>,
    /// What came at once, as it was parked: its channel and text.
    parked: Vec<(String, Bytes)>,
    last: Option<Said>,
    syncs: usize,
    pub(super) ended: Option<Status>,
    /// The model knows that it has left.
    left: bool,
}

async fn read(name: String, mut stream: GrpcStream, to: mpsc::Sender<(String, Event)>) {
    loop {
        let (event, over) = match stream.next().await {
            Ok(message) => (Event::Message(message), false),
            Err(status) => (Event::End(status), true),
        };
        if to.send((name.clone(), event)).await.is_err() || over {
            return;
        }
    }
}

fn sync_channel(gate: &str) -> String {
    format!("sync/{gate}")
}

impl Player {
    pub(super) fn live_gates(&self) -> Vec<String> {
        let live = self.gates.iter().filter(|(_, gate)| gate.ended.is_none());
        let mut live: Vec<String> = live.map(|(name, _)| name.clone()).collect();
        live.sort();
        live
    }

    fn gate(&mut self, name: &str) -> &mut Gate {
        self.gates.get_mut(name).expect("the gate was opened")
    }

    /// Something happened to a gate.
    pub(super) fn event(&mut self, name: &str, event: Event) {
        if let Event::Message(bytes) = &event {
            self.marks.insert((name.to_owned(), Said::to_gate(bytes).channel));
        }
        match event {
            Event::End(status) => self.gate(name).ended = Some(status),
            Event::Message(bytes) => {
                let said = Said::to_gate(&bytes);
                let before = self.model.find(&said);
                let came_before = before.is_some_and(|at| {
                    let push = &self.model.pushes[at];
                    let targets = push.targets.as_ref();
                    let not_live = targets.is_some_and(|t| !t.iter().any(|gate| gate == name));
                    not_live || push.live_to.iter().any(|gate| gate == name)
                });
                let gate = self.gate(name);
                match said.kind {
                    _ if said.channel == sync_channel(name) && said.kind == RESPONSE => {
                        gate.syncs += 1;
                    }
                    _ if said.channel.starts_with("sync/") => {}
                    // Where a message of 4 MiB comes again there is no room for its type.
                    REQUEST if bytes.len() + 8 > 4 << 20 && came_before => {
                        gate.again.push_back(bytes)
                    }
                    REQUEST => gate.live.push_back(bytes),
                    RESPONSE => gate.again.push_back(bytes),
                    kind => panic!("{name} got a message of type {kind}"),
                }
            }
        }
    }

    pub(super) async fn gate_step(&mut self, step: &Step) {
        let name = &*step.actor;
        match step.event.as_deref() {
            Some("open") => {
                let path = step.path.as_deref().unwrap_or(GATE);
                return self.open(name, path, &step.metadata()).await;
            }
            Some("headers") => return,
            Some("end") => return self.ends(step).await,
            Some("half_close") => {
                self.gate(name).sender.as_mut().expect("open").half_close();
                self.until("a stream's end", |p| p.gates[name].ended.is_some()).await;
                return self.left(name).await;
            }
            Some("cancel") => {
                let gate = self.gate(name);
                gate.reader.as_ref().expect("open").abort();
                (gate.sender, gate.ended) = (None, Some(Status::cancelled("")));
                return self.left(name).await;
            }
            Some(other) => panic!("{}: {other}", self.here()),
            None => {}
        }
        match (&step.send, &step.recv) {
            (Some(sent), None) => self.sends(name, step, sent).await,
            (None, Some(seen)) => self.gets(name, step, seen).await,
            _ => panic!("{}: {step:?}", self.here()),
        }
    }

    /// A gate opens its stream; what is parked comes at once.
    pub(super) async fn open(&mut self, name: &str, path: &str, metadata: &[(String, String)]) {
        let client = self.client(name).await;
        let asked = Instant::now();
        let opened = client.unlimited_if(name != "gate2").stream(path, metadata).await;
        let mut gate = Gate::default();
        let stream = match opened {
            Ok(stream) => stream,
            Err(status) => {
                (gate.ended, gate.left) = (Some(status), true);
                self.gates.insert(name.to_owned(), gate);
                return;
            }
        };
        let (sender, stream) = stream.split();
        gate.sender = Some(sender);
        let reader = tokio::spawn(read(name.to_owned(), stream, self.sender.clone()));
        gate.reader = Some(reader.abort_handle());
        self.gates.insert(name.to_owned(), gate);
        let owed = self.model.parked(asked);
        let group = metadata.first().map(|(_, group)| &**group).unwrap_or_default();
        self.model.gate_came(name, group);
        self.counted().await;
        let control = self.client("control").await;
        let synced = control.unary(PUSH, push(&sync_channel(name), "s", 600)).await;
        synced.expect("a push is answered");
        // What is still on its way to a gate does not come again.
        let (mark, any) = (sync_channel(name), self.model.gets_one());
        self.until("the mark", |p| {
            p.marks.iter().any(|(gate, of)| *of == mark && (any || gate == name))
        })
        .await;
        self.sync(name).await;
        for said in self.take_again(name, &owed).await {
            self.gate(name).parked.push((said.channel, said.text));
        }
    }

    /// Waits until the server has as many gates as the model.
    async fn counted(&mut self) {
        let (control, gates) = (self.client("control").await, self.model.gates() as u64);
        wait_until("the server's number of gates", async || {
            let state = control.unary(STATE, Bytes::new()).await.expect("the state is told");
            number_in(&state, 1) == gates
        })
        .await;
    }

    /// A stream has ended: the server knows it, too.
    async fn left(&mut self, name: &str) {
        if !std::mem::replace(&mut self.gate(name).left, true) {
            self.model.gate_left(name);
            self.counted().await;
        }
    }

    /// Everything that the gate said has had its effect.
    pub(super) async fn sync(&mut self, name: &str) {
        let gate = self.gate(name);
        let due = gate.syncs + 1;
        let sender = gate.sender.as_ref().expect("open");
        sender.send(answer(&sync_channel(name), 0, REQUEST)).await;
        self.until("a gate's synchronization", |p| {
            p.gates[name].syncs >= due || p.gates[name].ended.is_some()
        })
        .await;
        let ended = &self.gates[name].ended;
        assert!(ended.is_none(), "{}: {name} ended: {ended:?}", self.here());
    }

    async fn ends(&mut self, step: &Step) {
        let (name, here) = (&*step.actor, self.here());
        if step.bug.is_some() || self.differs() == Some(Here::Skip) {
            return;
        }
        self.until("a stream's end", |p| p.gates[name].ended.is_some()).await;
        let seen = step.status.as_ref().expect("a stream ends with a status");
        let status = self.gates[name].ended.clone().expect("waited for");
        assert_eq!(i32::from(status.code()), seen.number, "{here}: {name} ended: {status}");
        let exact = [Code::Unknown, Code::ResourceExhausted].contains(&status.code());
        if exact && seen.made_by.is_none() {
            assert_eq!(status.message(), seen.details, "{here}");
        }
        if !self.stopping && self.server.is_running() {
            self.left(name).await;
        }
    }

    /// A number of the recording as it is here.
    pub(super) fn id_here(&self, channel: &str, id: u64, asks: bool) -> u64 {
        if let Some(known) = self.ids.get(&(channel.to_owned(), id)).filter(|_| !asks || id != 0) {
            return *known;
        }
        let below = self.ids.iter().filter(|((of, golden), _)| of == channel && *golden < id);
        match below.max_by_key(|((_, golden), _)| *golden) {
            Some((_, known)) if asks => *known,
            _ if id == 0 => 0,
            _ => (id + FORGED).min(u64::from(u32::MAX)),
        }
    }

    /// What the gate means, in our numbers; a message that the original takes out of nothing is pushed first.
    async fn meaning(&mut self, name: &str, step: &Step, sent: &Value) -> Option<Said> {
        if !sent["note"].is_null() {
            let echo = self.gate(name).last.clone().expect("the gate got one");
            return Some(Said { kind: UNRECEIVED, ..echo });
        }
        if sent["undecodable"] == true || sent["not_utf8"] == true || !sent["bytes"].is_null() {
            return None;
        }
        let mut said = match step.bytes() {
            Some(bytes) => Said::response(&bytes),
            None => self.told(name, sent),
        };
        let on_purpose =
            step.note.as_deref().is_some_and(|note| note.contains("id + 1 on purpose"));
        let known = |said: &Said, id| self.ids.contains_key(&(said.channel.clone(), id));
        if said.id > 0 && (on_purpose || (self.plan.plus_one && !known(&said, said.id))) {
            said.id -= u64::from(on_purpose || known(&said, said.id - 1));
        }
        let forged = said.kind == UNRECEIVED && !known(&said, said.id);
        if self.plan.push_first && forged && !said.channel.is_empty() {
            self.push_first(name, &said).await;
        }
        said.id = self.id_here(&said.channel, said.id, said.kind == REQUEST);
        Some(said)
    }

    /// What a gate says where the recording has no bytes, since they depend on the clock.
    fn told(&self, name: &str, sent: &Value) -> Said {
        let kinds = ["REQUEST", "RESPONSE", "RECEIVED", "UNRECEIVED"];
        let kind = kinds.iter().position(|kind| sent["messageType"] == *kind).expect("a type");
        // An absolute time there is what was left of it here.
        let echoed = self.gates[name].last.as_ref().map_or(0, |last| i64::from(last.expire));
        Said {
            id: sent["msgId"].as_u64().unwrap_or(0),
            channel: text(sent, "channelId"),
            text: text(sent, "msg").into(),
            expire: sent["expire"].as_i64().unwrap_or(echoed) as i32,
            kind: kind as u64,
        }
    }

    async fn push_first(&mut self, name: &str, said: &Said) {
        let at = self.model.push(said.clone());
        let control = self.client("control").await;
        let reply = control.unary(PUSH, said.as_push()).await.expect("a push is answered");
        self.model.pushes[at].replied = Some(Instant::now());
        self.model.name(at, number_in(&reply, 1));
        self.ids.insert((said.channel.clone(), said.id), number_in(&reply, 1));
        self.take_live(name, at).await;
    }

    async fn sends(&mut self, name: &str, step: &Step, sent: &Value) {
        if self.gates[name].ended.is_some() {
            return;
        }
        let said = self.meaning(name, step, sent).await;
        let bytes = match (&said, step.bytes()) {
            (Some(said), Some(bytes)) if Said::response(&bytes).id != said.id => {
                with_number(&bytes, 1, said.id)
            }
            (Some(said), None) => said.as_response(),
            (None, None) => {
                let total = sent["bytes"].as_u64().expect("a length") as usize;
                answer(&"x".repeat(total - 5), 0, 0)
            }
            (_, Some(bytes)) => bytes,
        };
        match said {
            Some(said) if said.kind == REQUEST => {
                self.request(name, &said.channel, said.id, bytes).await;
            }
            said => {
                let sender = self.gates[name].sender.as_ref().expect("open");
                sender.send(bytes).await;
                if let Some(said) = said {
                    if [RECEIVED, UNRECEIVED].contains(&said.kind) {
                        self.model.answered(name, &said);
                    }
                    self.sync(name).await;
                }
            }
        }
    }

    /// A gate asks; all that is unacked comes, in order.
    pub(super) async fn request(&mut self, name: &str, channel: &str, above: u64, bytes: Bytes) {
        let asked = Instant::now();
        let sender = self.gates[name].sender.as_ref().expect("open");
        sender.send(bytes).await;
        self.sync(name).await;
        let owed = self.model.requested(channel, above, asked);
        self.take_again(name, &owed).await;
    }

    /// Takes what came again; it must be what is owed, in form and order.
    async fn take_again(&mut self, name: &str, owed: &Owed) -> Vec<Said> {
        let (here, due) = (self.here(), owed.must.len());
        let what = format!("{due} messages again at {name}");
        self.until(&what, |p| p.gates[name].again.len() >= due).await;
        let came: Vec<Said> =
            self.gate(name).again.drain(..).map(|bytes| Said::to_gate(&bytes)).collect();
        let mut found = Vec::new();
        for said in &came {
            let at = self.model.find(said);
            let at =
                at.unwrap_or_else(|| panic!("{here}: {name} got what nobody pushed: {said:?}"));
            self.model.name(at, said.id);
            let pushed = &self.model.pushes[at].said;
            let too_long = said.text.len() + 16 > 4 << 20;
            let in_time = said.expire >= 1 || too_long;
            let form = (&said.text, in_time && said.expire <= pushed.expire);
            assert_eq!(form, (&pushed.text, true), "{here}: {name} got {said:?}");
            self.model.got(at, name, false);
            found.push(at);
        }
        let missing = owed.must.iter().find(|at| !found.contains(at));
        let missing = missing.map(|at| &self.model.pushes[*at]);
        assert!(missing.is_none(), "{here}: it did not come to {name}: {missing:?}");
        let more = found.iter().find(|at| !owed.must.contains(at) && !owed.may.contains(at));
        assert!(
            more.is_none(),
            "{here}: {name} got more: {:?}",
            more.map(|at| &self.model.pushes[*at])
        );
        let in_order = came.iter().enumerate().all(|(i, said)| {
            came[i + 1..].iter().all(|later| later.channel != said.channel || later.id > said.id)
        });
        assert!(in_order, "{here}: out of order, or twice: {came:?}");
        came
    }

    /// The recording shows a message at a gate.
    async fn gets(&mut self, name: &str, step: &Step, seen: &Value) {
        let again = seen["messageType"] == "RESPONSE";
        if step.bug.is_some() || again || self.differs() == Some(Here::Skip) {
            return;
        }
        let channel = text(seen, "channelId");
        let bytes = Bytes::from(text(seen, "msg"));
        let parked = &mut self.gate(name).parked;
        if let Some(at) = parked.iter().position(|(c, t)| *c == channel && *t == bytes) {
            parked.remove(at);
            return;
        }
        let live = Said { channel: channel.clone(), text: bytes, ..Said::default() };
        let id = seen["msgId"].as_u64().unwrap_or(0);
        let known = self.ids.get(&(channel.clone(), id)).copied();
        let pushes = self.model.pushes.iter();
        let at = pushes.enumerate().position(|(_, p)| {
            let unseen = !p.live_to.iter().any(|gate| gate == name);
            let targets = p.targets.as_ref();
            p.said.channel == live.channel
                && p.said.text == live.text
                && unseen
                && known.is_none_or(|known| p.id == known)
                && targets.map_or(p.live_to.is_empty(), |t| t.iter().any(|gate| gate == name))
        });
        let at = at.unwrap_or_else(|| panic!("{}: no push fits {live:?}", self.here()));
        let got = self.take_live(name, at).await;
        let golden = step.bytes().unwrap_or_else(|| {
            // As the server would have written it.
            let expire = seen["expire"].as_i64().unwrap_or(0) as i32;
            let said = Said { expire, ..live };
            with_number(&said.as_push(), 4, id)
        });
        let same = with_number(&got, 4, id) == golden;
        assert!(same, "{}: {name} got {}, not {}", self.here(), hex(&got), hex(&golden));
        let ours = self.model.pushes[at].id;
        let before = self.ids.insert((channel, id), ours);
        assert!(before.is_none_or(|before| before == ours), "{}: another number", self.here());
    }

    /// Waits for a push at a gate, or at any where one of them gets it; its bytes.
    async fn take_live(&mut self, name: &str, at: usize) -> Bytes {
        let any = self.model.pushes[at].targets.is_none();
        let (channel, text) = {
            let said = &self.model.pushes[at].said;
            (said.channel.clone(), said.text.clone())
        };
        let id = self.model.pushes[at].id;
        let fits = move |bytes: &Bytes| {
            let said = Said::to_gate(bytes);
            said.channel == channel && said.text == text && (id == 0 || said.id == id)
        };
        let what = format!("the push {:?} at {name}", self.model.pushes[at]);
        let at_any = |p: &Self| {
            let mut gates = p.gates.iter().filter(|(gate, _)| any || *gate == name);
            gates.find(|(_, gate)| gate.live.iter().any(&fits)).map(|(gate, _)| gate.clone())
        };
        self.until(&what, |p| at_any(p).is_some()).await;
        let found = at_any(self).expect("waited for");
        let gate = self.gate(&found);
        let place = gate.live.iter().position(&fits).expect("waited for");
        let bytes = gate.live.remove(place).expect("it is there");
        let said = Said::to_gate(&bytes);
        gate.last = Some(said.clone());
        self.model.name(at, said.id);
        self.model.got(at, &found, true);
        bytes
    }

    /// Live pushes that the recording does not show.
    pub(super) fn take_leftovers(&mut self) {
        let names: Vec<String> = self.gates.keys().cloned().collect();
        for name in names {
            let left: Vec<Bytes> = self.gate(&name).live.drain(..).collect();
            for bytes in left {
                let said = Said::to_gate(&bytes);
                let at = self.model.find(&said);
                let at = at.unwrap_or_else(|| panic!("{name} got what nobody pushed: {said:?}"));
                self.model.name(at, said.id);
                self.model.got(at, &name, true);
                let pushed = &self.model.pushes[at].said;
                let too_long = pushed.text.len() + 16 > 4 << 20;
                let same = said.text == pushed.text
                    && (said.expire == pushed.expire || (too_long && said.expire == 0));
                assert!(same, "{name} got another message than {:?}", self.model.pushes[at].id);
            }
        }
    }
}
