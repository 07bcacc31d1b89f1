//! Unary calls of a played recording. Invariant: a reply is compared with the recording's bytes where that is right, and
//! always with the model.

use super::player::Player;
use super::proto::{
    PUSH, PUSH_WITH_STATUS, REMOVE, Said, UNRECEIVED, number_in, removal, text_in, with_number,
};
use super::table::Here;
use super::vectors::{Step, hex, text};
use bytes::Bytes;
use clarion_tests::{DEADLINE, wait_until};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};

/// The longest request that is a push.
const REQUEST_MAX: usize = 4 << 20;

/// A call under way.
pub(super) struct Waiting {
    handle: JoinHandle<Result<Bytes, Status>>,
    path: String,
    /// The push that it is, in the model.
    push: Option<usize>,
    /// What a removal must say.
    removes: Option<bool>,
    deadline: Duration,
}

/// A call's request as bytes.
fn request(step: &Step) -> Bytes {
    if let Some(bytes) = step.bytes() {
        return bytes;
    }
    let send = step.send.as_ref().expect("a request");
    let expire = send["expire"].as_i64().unwrap_or(0) as i32;
    let (channel, text) = (text(send, "channelId"), Bytes::from(text(send, "msg")));
    Said { channel, text, expire, ..Said::default() }.as_push()
}

impl Player {
    pub(super) async fn call_begins(&mut self, step: &Step) {
        let call = step.call.expect("a call has a number");
        let own = format!("/message_pusher.MessagePusher/{}", step.rpc);
        let path = step.path.clone().unwrap_or(own);
        let mut bytes = request(step);
        let sent = step.send.as_ref().expect("a request");
        let (mut push, mut removes) = (None, None);
        if path == REMOVE {
            let (channel, id) = (text_in(&bytes, 1), number_in(&bytes, 2) as i64);
            let ours = match u64::try_from(id) {
                Ok(golden) => self.id_here(&channel, golden, false) as i64,
                Err(_) => id,
            };
            bytes = removal(&channel, ours);
            removes = Some(self.model.removed(&channel, u64::try_from(ours).unwrap_or(0)));
        } else if [PUSH, PUSH_WITH_STATUS].contains(&&*path) && sent["undecodable"] != true {
            let said = Said::push(&bytes);
            let refused = said.channel.is_empty() || said.channel.contains(char::is_control);
            if !refused && bytes.len() <= REQUEST_MAX {
                push = Some(self.model.push(said));
            }
        }
        let mut client = self.client(&step.actor).await;
        if step.grpc_encoding.is_some() {
            client = client.gzip();
        }
        let deadline = Duration::from_millis(step.deadline_ms.unwrap_or(8000));
        let of = path.clone();
        let handle = tokio::spawn(async move { client.unary(&of, bytes).await });
        if push.is_some_and(|push| self.model.pushes[push].decided.is_some()) {
            // Without a gate it waits for nobody.
            wait_until("the answer to a push", async || handle.is_finished()).await;
        }
        self.calls.insert(call, Waiting { handle, path, push, removes, deadline });
    }

    /// The end of a call. The client's own deadline is kept where the recording shows that it passed.
    async fn end_of(&self, waiting: Waiting, passes: bool) -> Option<Result<Bytes, Status>> {
        let limit = if passes { waiting.deadline } else { DEADLINE };
        match timeout(limit, waiting.handle).await {
            Ok(joined) => Some(joined.expect("a call does not panic")),
            Err(_) if passes => None,
            Err(_) => panic!("{}: the call {} hangs", self.here(), waiting.path),
        }
    }

    pub(super) async fn call_ends(&mut self, step: &Step) {
        let call = step.call.expect("a call has a number");
        let waiting = self.calls.remove(&call).expect("the call was begun");
        if step.bug.is_some() && waiting.path == PUSH_WITH_STATUS {
            // Wrong, perhaps too early: it ends when its answer has come.
            self.calls.insert(call, waiting);
            return;
        }
        let (push, path, removes) = (waiting.push, waiting.path.clone(), waiting.removes);
        let seen = step.status.as_ref();
        let gives_up = seen.is_some_and(|s| s.made_by.is_some() && s.number == 4);
        let end = self.end_of(waiting, gives_up && step.bug.is_none()).await;
        let Some(end) = end else { return };
        if let Some(push) = push {
            self.model.pushes[push].replied = Some(Instant::now());
        }
        let here = self.here();
        match (self.differs(), push, removes) {
            (Some(Here::Code(code)), ..) => {
                let status = end.expect_err("it is refused here");
                assert_eq!(i32::from(status.code()), code, "{here}: {status}");
            }
            (Some(Here::Any), ..) => {}
            (Some(Here::Answered), None, _) => drop(end.expect("it is answered here")),
            (differs, Some(push), _) => {
                let golden = step.bytes().filter(|_| step.recv.is_some() && differs.is_none());
                let faulty = step.bug.is_some();
                self.pushed(push, &path, end, golden, faulty);
            }
            (_, None, Some(removes)) => {
                let reply = end.expect("a removal is answered");
                assert_eq!(number_in(&reply, 1), u64::from(removes), "{here}: what it says");
            }
            (_, None, None) => compare(&here, step, end),
        }
    }

    /// A call that the recording does not end.
    pub(super) async fn call_ends_well(&mut self, call: u32) {
        let waiting = self.calls.remove(&call).expect("a call under way");
        let (push, path) = (waiting.push, waiting.path.clone());
        let end = self.end_of(waiting, false).await.expect("no deadline of its own");
        if let Some(push) = push {
            self.pushed(push, &path, end, None, false);
        }
    }

    /// A push was answered.
    fn pushed(
        &mut self,
        push: usize,
        path: &str,
        end: Result<Bytes, Status>,
        golden: Option<Bytes>,
        faulty: bool,
    ) {
        let here = self.here();
        if path == PUSH_WITH_STATUS {
            return self.decided(push, end, golden.filter(|_| !faulty));
        }
        let reply = end.unwrap_or_else(|status| panic!("{here}: a push is answered, not {status}"));
        let id = number_in(&reply, 1);
        self.model.name(push, id);
        let channel = self.model.pushes[push].said.channel.clone();
        match golden {
            Some(golden) => {
                let named = number_in(&golden, 1);
                let same = with_number(&reply, 1, named) == golden;
                assert!(same, "{here}: the reply is {}, not {}", hex(&reply), hex(&golden));
                // The original names the number after that of the message.
                self.ids.insert((channel, named - 1), id);
            }
            None => assert_eq!(Said::response(&reply), Said { id, channel, ..Said::default() }),
        }
    }

    /// A push with status: the model knows what decided it.
    fn decided(&mut self, push: usize, end: Result<Bytes, Status>, golden: Option<Bytes>) {
        let here = self.here();
        let of = &self.model.pushes[push];
        let Some(decided) = of.decided.clone() else {
            let status = end.expect_err("nobody answered");
            let told = if self.server.is_running() && status.code() == Code::Unknown {
                status.message() == "time out"
            } else {
                status.code() == Code::Unavailable
            };
            assert!(told, "{here}: {status}");
            return;
        };
        let reply =
            end.unwrap_or_else(|status| panic!("{here}: it was answered: {status}; {of:?}"));
        let said = Said::response(&reply);
        self.model.name(push, said.id);
        let of = &self.model.pushes[push].said;
        let kind = if decided.kind == 0 { UNRECEIVED } else { decided.kind };
        let right = Said { id: said.id, channel: of.channel.clone(), kind, ..decided };
        assert_eq!(said, right, "{here}: the true answer");
        if let Some(golden) = golden {
            let same = with_number(&reply, 1, number_in(&golden, 1)) == golden;
            assert!(same, "{here}: the answer is {}, not {}", hex(&reply), hex(&golden));
        }
    }
}

/// An end that is the same here as in the recording.
fn compare(here: &str, step: &Step, end: Result<Bytes, Status>) {
    match (&step.status, end) {
        (Some(seen), Err(status)) => {
            assert_eq!(i32::from(status.code()), seen.number, "{here}: {status}");
            let exact = [Code::ResourceExhausted, Code::Unimplemented].contains(&status.code());
            if exact && seen.made_by.is_none() {
                assert_eq!(status.message(), seen.details, "{here}");
            }
        }
        (None, Ok(reply)) => {
            let golden = step.bytes().unwrap_or_default();
            assert!(reply == golden, "{here}: the reply is {}, not {}", hex(&reply), hex(&golden));
        }
        (seen, end) => panic!("{here}: {end:?}, not {seen:?}"),
    }
}
