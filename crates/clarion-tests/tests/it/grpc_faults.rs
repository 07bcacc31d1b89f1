//! What breaks under gRPC streams: gates and consumers that die, stop reading, or vanish behind a network; servers that are
//! killed under load.
//!
//! `gates`: GateStream · `sync`: the gRPC push channel · `restarts`: servers that come and go · `disk`: slow syncs.

mod disk;
mod gates;
mod restarts;
mod sync;

use clarion_tests::grpc::{Grpc, Status, Streaming};
use clarion_wire::proto::{
    message_pusher::{Message, MessageType, PushMessage, Response},
    push::{ConnRequest, MessageReply, SubmitReply, SubmitRequest},
};

async fn push(grpc: &Grpc, to: &str, msg: &str, expire: i32) -> Response {
    let request = PushMessage { msg: msg.into(), channel_id: to.into(), expire };
    grpc.call("/message_pusher.MessagePusher/PushToChannel", &request).await.expect("pushed")
}

/// A gate; once its response's headers are there it has no further sign that it is known, so it asks for something.
async fn gate(grpc: &Grpc, group: &str) -> Streaming<Message> {
    let metadata = [("group", group)];
    let path = "/message_pusher.MessagePusher/GateStream";
    let mut gate = grpc.start(path, &metadata).await.expect("a call");
    gate.headers().await.expect("headers");
    gate
}

fn received(gate: &mut Streaming<Message>, message: &Message) {
    gate.say(&answer(message, MessageType::Received));
}

fn answer(message: &Message, kind: MessageType) -> Response {
    Response {
        msg_id: u32::try_from(message.msg_id).expect("31 bits"),
        channel_id: message.channel_id.clone(),
        message_type: kind.into(),
        ..Default::default()
    }
}

async fn submit(grpc: &Grpc, channel: &str, text: &str, key: Option<&str>) -> Result<(), Status> {
    let request = SubmitRequest { channel: channel.into(), message: text.into() };
    let metadata: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
    let bytes = clarion_tests::grpc::framed(&request);
    let reply: SubmitReply = grpc.call_with("/MessageSync/SubmitMessage", &metadata, bytes).await?;
    assert_eq!(reply.reply, "received");
    Ok(())
}

/// A consumer of the gRPC push channel.
async fn consume(
    grpc: &Grpc,
    channel: &str,
    metadata: &[(&str, &str)],
) -> Result<Streaming<MessageReply>, Status> {
    let mut stream = grpc.start("/MessageSync/PushMessageStream", metadata).await?;
    stream.say(&ConnRequest { channel: channel.into() });
    stream.finish();
    Ok(stream)
}

async fn texts(stream: &mut Streaming<MessageReply>, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        texts.push(stream.message_of().await.message);
    }
    texts
}
