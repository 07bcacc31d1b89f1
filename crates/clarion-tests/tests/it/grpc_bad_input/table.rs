//! The table of docs/grpc-errors.md, made from what the server says. `UPDATE_GENERATED=1` writes it anew.

use std::{env, fs, path::PathBuf};

use bytes::Bytes;
use clarion_tests::{
    Server,
    grpc::{Grpc, Status, frame, framed},
};
use clarion_wire::proto::{
    clarion_v1::{
        Ack, AckRange, Hello, Mode, PublishRequest, PublishResponse, SubscribeRequest,
        SubscribeResponse, subscribe_request::Request,
    },
    message_pusher::{Message, PushMessage, Response},
    push::{ConnRequest, MessageReply, SubmitReply, SubmitRequest},
};
use prost::Message as Prost;

use super::assert_well;
use crate::grpc::{connect, feed, message, path, reads};

const PUSH: &str = "/message_pusher.MessagePusher/PushToChannel";
const GATE: &str = "/message_pusher.MessagePusher/GateStream";
const SUBMIT: &str = "/MessageSync/SubmitMessage";
const CONSUME: &str = "/MessageSync/PushMessageStream";
const LIMIT: usize = 4_194_304;

/// The names of gRPC's codes.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The rows of the table.
#[derive(Default)]
struct Rows(Vec<String>);

impl Rows {
    fn note(&mut self, what: &str, status: &Status) {
        let code = usize::try_from(status.code).ok().and_then(|code| CODES.get(code)).copied();
        let code = code.unwrap_or(if status.code == -1 { "no gRPC answer" } else { "reset" });
        let name = status.get("clarion-name").map(|name| format!(" `{name}`")).unwrap_or_default();
        let text = status.text.replace('|', "\\|");
        self.0.push(format!("| {what} | {code}{name} | {text} |"));
    }

    /// A unary call with these bytes.
    async fn unary<A: Prost + Default>(
        &mut self,
        grpc: &Grpc,
        what: &str,
        (path, metadata): (&str, &[(&str, &str)]),
        bytes: Bytes,
    ) {
        match grpc.call_with::<A>(path, metadata, bytes).await {
            Ok(_) => self.0.push(format!("| {what} | OK | |")),
            Err(status) => self.note(what, &status),
        }
    }

    /// A stream that says these bytes, and perhaps half-closes; what comes before its end is passed over.
    async fn stream<A: Prost + Default>(
        &mut self,
        grpc: &Grpc,
        what: &str,
        (path, metadata): (&str, &[(&str, &str)]),
        said: Vec<Bytes>,
        finishes: bool,
    ) {
        let mut call = grpc.start::<A>(path, metadata).await.expect("a call");
        said.into_iter().for_each(|bytes| call.say_bytes(bytes));
        if finishes {
            call.finish();
        }
        loop {
            match call.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return self.0.push(format!("| {what} | OK | |")),
                Err(status) => return self.note(what, &status),
            }
        }
    }
}

fn say(request: Request) -> Bytes {
    framed(&SubscribeRequest { request: Some(request) })
}

fn pushed(channel_id: &str, msg: &str) -> Bytes {
    let push = PushMessage { msg: msg.into(), channel_id: channel_id.into(), expire: 600 };
    framed(&push)
}

/// The head of a frame that says to be so long.
fn head(length: usize) -> Bytes {
    let length = u32::try_from(length).expect("32 bits");
    Bytes::from([&[0][..], &length.to_be_bytes()].concat())
}

/// A push whose message has exactly so many bytes.
fn push_of(bytes: usize) -> Bytes {
    let fill = "x".repeat(bytes - 16);
    let mut push = PushMessage { msg: fill, channel_id: "a".into(), expire: 0 };
    while push.encoded_len() < bytes {
        push.msg.push('x');
    }
    assert_eq!(push.encoded_len(), bytes);
    framed(&push)
}

async fn fields(rows: &mut Rows, grpc: &Grpc) {
    let long = "x".repeat(257);
    let push = (PUSH, &[][..]);
    rows.unary::<Response>(grpc, "mikudos: empty channelId", push, pushed("", "m")).await;
    rows.unary::<Response>(grpc, "mikudos: channelId of 257 bytes", push, pushed(&long, "m")).await;
    rows.unary::<Response>(grpc, "mikudos: empty msg", push, pushed("a", "")).await;
    let key = [("idempotency-key", long.as_str())];
    rows.unary::<Response>(grpc, "idempotency-key of 257 bytes", (PUSH, &key), pushed("a", "m"))
        .await;
    for (what, channel) in [("empty channel", ""), ("channel of 257 bytes", long.as_str())] {
        let request = SubmitRequest { channel: channel.into(), message: "m".into() };
        let name = format!("message-sync, SubmitMessage: {what}");
        rows.unary::<SubmitReply>(grpc, &name, (SUBMIT, &[]), framed(&request)).await;
        let request = framed(&ConnRequest { channel: channel.into() });
        let name = format!("message-sync, PushMessageStream: {what}");
        rows.stream::<MessageReply>(grpc, &name, (CONSUME, &[]), vec![request], true).await;
    }
    let conn = || vec![framed(&ConnRequest { channel: "q".into() })];
    for (what, metadata) in [
        ("mode: some", [("mode", "some")]),
        ("consumer without mode: every", [("consumer", "me")]),
        ("mode that is not ASCII", [("mode", "m\u{fc}")]),
    ] {
        let name = format!("message-sync, PushMessageStream: {what}");
        rows.stream::<MessageReply>(grpc, &name, (CONSUME, &metadata), conn(), true).await;
    }
    let publish = path("Publish");
    for (what, request) in [
        ("Publish: empty address", message("", "x")),
        ("Publish: id of 257 bytes", message(&format!("user:{long}"), "x")),
        ("Publish: negative expire", PublishRequest { expire: Some(-1), ..message("user:a", "x") }),
    ] {
        rows.unary::<PublishResponse>(grpc, what, (&publish, &[]), framed(&request)).await;
    }
    let unknown = [("Publish: unknown metadata", [("mode", "nonsense")])];
    for (what, metadata) in unknown {
        let request = framed(&message("user:a", "x"));
        rows.unary::<PublishResponse>(grpc, what, (&publish, &metadata), request).await;
    }
}

async fn frames(rows: &mut Rows, grpc: &Grpc) {
    let push = (PUSH, &[][..]);
    let unary: [(&str, Bytes); 8] = [
        ("unary: message of 4,194,304 bytes", push_of(LIMIT)),
        ("unary: message of 4,194,305 bytes", push_of(LIMIT + 1)),
        ("unary: head of a frame of 4,194,305 bytes", head(LIMIT + 1)),
        ("unary: bytes that are no message", frame(0, &[0xff; 3])),
        ("unary: no message", Bytes::new()),
        ("unary: two messages", [pushed("a", "m"), pushed("a", "m")].concat().into()),
        ("unary: frame cut short", pushed("a", "m").slice(..7)),
        ("unary: flag of compression without grpc-encoding", frame(1, b"x")),
    ];
    for (what, bytes) in unary {
        rows.unary::<Response>(grpc, what, push, bytes).await;
    }
    let (zip, gzip) = ([("grpc-encoding", "zip")], [("grpc-encoding", "gzip")]);
    rows.unary::<Response>(grpc, "unary: unknown grpc-encoding", (PUSH, &zip), pushed("a", "m"))
        .await;
    rows.unary::<Response>(grpc, "unary: gzip that is none", (PUSH, &gzip), frame(1, b"x")).await;
    let subscribe = path("Subscribe");
    let hello = || say(Request::Hello(feed("u", "d")));
    for (name, at, first) in
        [("Subscribe", subscribe.as_str(), vec![hello()]), ("GateStream", GATE, vec![])]
    {
        for (what, bytes, finishes) in [
            ("head of a frame of 4,194,305 bytes", head(LIMIT + 1), false),
            ("bytes that are no message", frame(0, &[0xff; 3]), false),
            ("frame cut short", hello().slice(..6), true),
            ("flag of compression without grpc-encoding", frame(1, b"x"), false),
            ("unknown flag", frame(7, b"x"), false),
        ] {
            let said = [first.clone(), vec![bytes]].concat();
            let what = format!("{name}: {what}");
            if at == GATE {
                rows.stream::<Message>(grpc, &what, (at, &[]), said, finishes).await;
            } else {
                rows.stream::<SubscribeResponse>(grpc, &what, (at, &[]), said, finishes).await;
            }
        }
        let what = format!("{name}: unknown grpc-encoding");
        rows.stream::<SubscribeResponse>(grpc, &what, (at, &zip), first, false).await;
    }
}

async fn hellos(rows: &mut Rows, grpc: &Grpc) {
    let long = "x".repeat(257);
    let queue = reads("queue:q", Mode::Unify);
    let two = Hello { addresses: vec!["queue:q".into(), "queue:r".into()], ..queue.clone() };
    let subscribe = path("Subscribe");
    let hello = || say(Request::Hello(feed("u", "d")));
    let backwards = AckRange { channel: "user:u".into(), epoch: 0, from: 5, to: 4 };
    let foreign = AckRange { channel: "nobody".into(), epoch: 0, from: 0, to: 4 };
    let ack = |range| say(Request::Ack(Ack { ranges: vec![range], confirm: 0 }));
    let one = |hello| vec![say(Request::Hello(hello))];
    for (what, said, finishes) in [
        ("an ack before the hello", vec![ack(backwards.clone())], false),
        ("an empty request before the hello", vec![frame(0, &[])], false),
        ("half-close before the hello", vec![], true),
        ("silence", vec![], false),
        ("a second hello", vec![hello(), hello()], false),
        ("an empty request", vec![hello(), frame(0, &[])], true),
        ("an ack that ends before it begins", vec![hello(), ack(backwards)], false),
        ("an ack of no address", vec![hello(), ack(foreign)], false),
        ("neither user nor address", one(Hello::default()), false),
        ("a bad address", one(reads("nobody", Mode::Every)), false),
        ("user of 257 bytes", one(feed(&long, "")), false),
        ("device of 257 bytes", one(feed("u", &long)), false),
        ("group of 257 bytes", one(crate::grpc::in_group("queue:q", &long)), false),
        ("unknown mode", one(Hello { mode: 9, ..feed("u", "d") }), false),
        ("unknown from", one(Hello { from: 9, ..feed("u", "d") }), false),
        ("mode group without a group", one(reads("queue:q", Mode::Group)), false),
        ("a group in mode unify", one(Hello { group: "g".into(), ..queue.clone() }), false),
        ("the group `*`", one(crate::grpc::in_group("queue:q", "*")), false),
        ("mode unify with two addresses", one(two), false),
        ("mode unify with a device", one(Hello { device: "d".into(), ..queue }), false),
        ("mode unify of a user's channel", one(reads("user:u", Mode::Unify)), false),
        ("a group that does not exist", one(reads("group:none", Mode::Every)), false),
    ] {
        let what = format!("Subscribe: {what}");
        rows.stream::<SubscribeResponse>(grpc, &what, (&subscribe, &[]), said, finishes).await;
    }
    rows.stream::<Message>(grpc, "PushMessageStream: silence", (CONSUME, &[]), vec![], false).await;
}

async fn others(rows: &mut Rows, grpc: &Grpc) {
    let unknown = [("unknown service", "/x.Y/Z"), ("unknown method", "/clarion.v1.Clarion/Z")];
    for (what, path) in unknown {
        rows.unary::<Response>(grpc, what, (path, &[]), pushed("a", "m")).await;
    }
    let json = [("content-type", "application/json")];
    rows.unary::<Response>(grpc, "content-type application/json", (PUSH, &json), pushed("a", "m"))
        .await;
    let key = format!("[{{name: a, sha256: '{}', allow: [publish]}}]", "00".repeat(32));
    let server =
        Server::builder().set("listeners.grpc.auth", "required").set("auth.keys", &key).start();
    let keyed = connect(&server).await;
    let wrong = [("authorization", "Bearer nobody")];
    for (what, metadata) in [("no key where one is needed", &[][..]), ("an unknown key", &wrong)] {
        rows.unary::<Response>(&keyed, what, (PUSH, metadata), pushed("a", "m")).await;
    }
    let server = Server::builder().set("mikudos.mode", "group").start();
    let grpc = connect(&server).await;
    let what = "GateStream: no group in mode group";
    rows.stream::<Message>(&grpc, what, (GATE, &[]), vec![], false).await;
    let long = "x".repeat(257);
    let what = "GateStream: group of 257 bytes";
    rows.stream::<Message>(&grpc, what, (GATE, &[("group", &long)]), vec![], false).await;
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/grpc-errors.md")
}

#[tokio::test]
async fn every_refusal_is_the_documented_one() {
    let server = Server::builder()
        .set("grpc.hello_timeout", "300ms")
        .set("limits.body_timeout", "1s")
        .start();
    let grpc = connect(&server).await;
    let mut rows = Rows::default();
    fields(&mut rows, &grpc).await;
    frames(&mut rows, &grpc).await;
    hellos(&mut rows, &grpc).await;
    others(&mut rows, &grpc).await;
    drop(grpc);
    let text = fs::read_to_string(file()).expect("docs/grpc-errors.md");
    let (before, rest) = text.split_once("<!-- calls -->\n").expect("the table's begin");
    let (_, after) = rest.split_once("<!-- end -->\n").expect("the table's end");
    let head = "| What | Status | Text |\n|---|---|---|\n";
    let made =
        format!("{before}<!-- calls -->\n{head}{}\n<!-- end -->\n{after}", rows.0.join("\n"));
    if env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(file(), &made).expect("written");
    } else {
        let (old, new): (Vec<&str>, Vec<&str>) = (text.lines().collect(), made.lines().collect());
        let differ: Vec<&&str> = new.iter().filter(|line| !old.contains(line)).collect();
        assert!(old == new, "docs/grpc-errors.md says otherwise: {differ:#?}");
    }
    assert_well(&server).await;
}
