//! The dialect of the gRPC push channel (`reference/mikudos.md` §2): producers submit to a channel, consumers share it.
//!
//! Its channel c is the queue c, read in mode unify: first in, first out, each message to one consumer, and what is
//! certainly written to a consumer's stream is acked. Metadata `mode: every` makes a subscriber, `consumer: NAME` a
//! durable one. Must not know: leases (the node has them).

use crate::grpc::{
    App, Call, Ending, GrpcBody, Unknown, ended, principal, refused, requests, streaming, unary,
};
use crate::mikudos::{idempotency_key, text};
use crate::stop::{Stop, reached};
use bytes::Bytes;
use clarion_core::port::outlet::{CloseReason, Given, Outlet};
use clarion_core::start::From;
use clarion_core::subscription::Gap;
use clarion_core::{Address, Code, Content, Epoch, Message, Principal, Refusal};
use clarion_node::{Acks, Draft, Expire, Link, Sharing, StreamSpec, pipe};
use clarion_wire::grpc;
use clarion_wire::proto::push::{ConnRequest, SubmitReply, SubmitRequest};
use hyper::{HeaderMap, Response};
use tonic::Status;
use tonic::body::Body;

/// The device of a durable subscriber.
const DEVICE: &str = "message-sync";

pub(crate) async fn call(method: &str, call: Call) -> Result<Response<Body>, Unknown> {
    Ok(match method {
        "SubmitMessage" => {
            unary(call, |app, principal, request, metadata| async move {
                submit(&app, &principal, request, &metadata).await
            })
            .await
        }
        "PushMessageStream" => match open(call).await {
            Ok(response) => response,
            Err(status) => status.into_http(),
        },
        _ => return Err(Unknown),
    })
}

fn queue(channel: &str) -> Result<Address, Status> {
    Address::queue(channel)
        .map_err(|e| refused(&Refusal::new(Code::BadAddress, format!("channel: {e}"))))
}

async fn submit(
    app: &App,
    principal: &Principal,
    request: SubmitRequest,
    metadata: &HeaderMap,
) -> Result<SubmitReply, Status> {
    let content = Content {
        payload: Bytes::from(request.message),
        counted: true,
        idempotency_key: idempotency_key(metadata)?,
        ..Content::default()
    };
    let draft = Draft { address: queue(&request.channel)?, content, expire: Expire::Never };
    app.node.publish(principal, draft).await.map_err(|refusal| refused(&refusal))?;
    Ok(SubmitReply { reply: "received".to_owned() })
}

/// How a consumer reads, from its metadata.
fn spec(metadata: &HeaderMap, address: Address) -> Result<StreamSpec, Status> {
    let bad = |detail: &'static str| refused(&Refusal::new(Code::BadRequest, detail));
    let value = |name| match metadata.get(name).map(hyper::header::HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(bad("metadata must be ASCII text")),
    };
    let base = StreamSpec { addresses: vec![address], acks: Acks::ByWrite, ..Default::default() };
    match (value("mode")?, value("consumer")?) {
        (None | Some("unify"), None) => Ok(StreamSpec { sharing: Sharing::Unify, ..base }),
        (Some("every"), None) => Ok(StreamSpec { from: Some(From::Latest), ..base }),
        (Some("every"), Some(name)) => Ok(StreamSpec {
            user: Some(name.to_owned()),
            device: Some(DEVICE.to_owned()),
            from_new: Some(From::Latest),
            ..base
        }),
        (None | Some("unify"), Some(_)) => {
            Err(bad("consumer is the name of a subscriber: it needs mode: every"))
        }
        (Some(_), _) => Err(bad("unknown mode: there are unify and every")),
    }
}

async fn open(call: Call) -> Result<Response<Body>, Status> {
    let (app, request) = (call.app.clone(), call.request);
    let principal = principal(&app, request.headers()).await?;
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| refused(&Code::TooManyStreams.into()))?;
    let (parts, body) = request.into_parts();
    let mut requests = requests::<ConnRequest>(&app, &parts.headers, body)?;
    let first = tokio::time::timeout(app.config.body_timeout, requests.next());
    let first = tokio::select! {
        biased;
        first = first => first,
        () = reached(call.stop, Stop::Finish) => {
            return Err(ended(CloseReason::Shutdown, app.config.retry_ms));
        }
    };
    let first = first.map_err(|_| refused(&Code::RequestTimeout.into()))??;
    let first = first.ok_or_else(|| Status::internal("the request has no message"))?;
    drop(requests);
    let spec = spec(&parts.headers, queue(&first.channel)?)?;
    let (writer, reader) = pipe(app.config.send_buffer_bytes);
    let (body, ending, _) = GrpcBody::new(vec![reader], call.broken);
    let outlet = Box::new(ReplyOutlet { ending });
    // The headers tell a subscriber that from now on it misses nothing, so they come after this.
    let plan = app.node.prepare(&principal, spec).await.map_err(|refusal| refused(&refusal))?;
    let attached = app.node.attach(plan, outlet, Link::Pipe(writer), Box::new(place)).await;
    attached.map_err(|refusal| refused(&refusal))?;
    Ok(streaming(body))
}

/// Writes frames of `MessageReply`.
struct ReplyOutlet {
    ending: Ending,
}

impl Outlet for ReplyOutlet {
    fn format(&self) -> u32 {
        3
    }

    fn dialect(&self) -> &'static str {
        "message-sync"
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        grpc::message_reply(&text(&message.content.payload), out);
    }

    // The shared frame is the whole frame.
    fn before(&mut self, _given: Given<'_>, _frame_len: usize, _out: &mut Vec<u8>) {}

    fn behind(&mut self, _given: Given<'_>, _frame_len: usize, _out: &mut Vec<u8>) {}

    // The protocol has no opening, no gaps and no heartbeat of its own.
    fn open(&mut self, _out: &mut Vec<u8>) {}

    fn gap(&mut self, _channel: &Address, _epoch: Epoch, _gap: Gap, _out: &mut Vec<u8>) {}

    fn heartbeat(&mut self, _out: &mut Vec<u8>) {}

    fn close(&mut self, reason: CloseReason, retry_ms: u64, _out: &mut Vec<u8>) {
        self.ending.set(ended(reason, retry_ms));
    }
}
