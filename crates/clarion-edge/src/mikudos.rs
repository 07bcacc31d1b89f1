//! The dialect of mikudos-message-pusher: producers push to channels, gates deliver and answer (`reference/mikudos.md` §1).
//!
//! Its channel c is the user c; its ids are the node's gate numbers. Invariants: original wire forms and texts of errors,
//! none of the original's losses; both names of its service. Must not know: how gates share a cursor (the node does).

mod gate_stream;
mod outlet;

pub(crate) use outlet::text;

use crate::grpc::{App, Call, Unknown, refused, unary};
use bytes::Bytes;
use clarion_core::{Address, Code, Content, Principal, Refusal};
use clarion_node::{Draft, Expire, GateAnswer, Pushed};
use clarion_wire::proto::message_deliver as md;
use clarion_wire::proto::message_pusher::{self as pb, MessageType};
use hyper::{HeaderMap, Response};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;

/// Between two log lines of one kind.
const QUIET: Duration = Duration::from_secs(60);

/// Keeps a log line from being written more than once a minute.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// Seconds of the listener's life at the last line, plus one.
    last: AtomicU64,
}

impl Quiet {
    fn may_speak(&self, since_start: Duration) -> bool {
        let now = since_start.as_secs() + 1;
        let last = self.last.load(Ordering::Relaxed);
        (last == 0 || now >= last + QUIET.as_secs())
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// The methods of `message_pusher.MessagePusher`, under both names.
pub(crate) async fn call(method: &str, call: Call) -> Result<Response<Body>, Unknown> {
    Ok(match method {
        "PushToChannel" => {
            unary(call, |app, principal, request, metadata| async move {
                push(&app, &principal, request, &metadata).await
            })
            .await
        }
        "PushToChannelWithStatus" => {
            unary(call, |app, principal, request, metadata| async move {
                push_with_status(&app, &principal, request, &metadata).await
            })
            .await
        }
        "DeliverRemoveMessage" => {
            unary(call, |app, principal, request: pb::DeliverRemoveRequest, _| async move {
                let pb::DeliverRemoveRequest { channel_id, msg_id } = request;
                let result = remove(&app, &principal, &channel_id, msg_id).await?;
                Ok(pb::DeliverRemoveResponse { result })
            })
            .await
        }
        "GetConfig" => {
            unary(call, |app, _, request, _| std::future::ready(Ok(config(&app, &request)))).await
        }
        "StateInfo" => {
            unary(call, |app, _, _: pb::InfoRequest, _| std::future::ready(Ok(state(&app)))).await
        }
        "GateStream" => gate_stream::open(call).await,
        _ => return Err(Unknown),
    })
}

/// The method of `message_deliver.MessageDeliver`: what the companion process would have removed later is acked now.
pub(crate) async fn deliver_call(method: &str, call: Call) -> Result<Response<Body>, Unknown> {
    match method {
        "MessageReceived" => {
            let handler = |app: std::sync::Arc<App>, principal, request, _| async move {
                let md::MessageReceivedRequest { channel_id, msg_id } = request;
                let result = remove(&app, &principal, &channel_id, msg_id).await?;
                Ok(md::MessageReceivedResponse { result })
            };
            Ok(unary(call, handler).await)
        }
        _ => Err(Unknown),
    }
}

fn channel(id: &str) -> Result<Address, Status> {
    Address::user(id)
        .map_err(|e| refused(&Refusal::new(Code::BadAddress, format!("channelId: {e}"))))
}

/// The metadata `idempotency-key`, which newer producers may send.
pub(crate) fn idempotency_key(metadata: &HeaderMap) -> Result<Option<Box<str>>, Status> {
    let Some(value) = metadata.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=256).contains(&text.len()) => Ok(Some(text.into())),
        _ => Err(refused(&Refusal::new(
            Code::BadRequest,
            "idempotency-key must have 1 to 256 bytes of ASCII text",
        ))),
    }
}

fn draft(app: &App, request: pb::PushMessage, metadata: &HeaderMap) -> Result<Draft, Status> {
    let address = channel(&request.channel_id)?;
    let default = app.config.mikudos.default_expire.filter(|_| request.expire == 0);
    let seconds = default.map_or(i64::from(request.expire), |span| span.as_secs() as i64);
    let expire = match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Expire::Seconds(seconds),
        _ => Expire::Live,
    };
    let content = Content {
        payload: Bytes::from(request.msg),
        counted: true,
        asked_s: Some(seconds),
        idempotency_key: idempotency_key(metadata)?,
        ..Content::default()
    };
    Ok(Draft { address, content, expire })
}

fn pushed_response(pushed: &Pushed, channel_id: String) -> pb::Response {
    pb::Response { msg_id: pushed.msg_id, channel_id, ..pb::Response::default() }
}

async fn push(
    app: &App,
    principal: &Principal,
    request: pb::PushMessage,
    metadata: &HeaderMap,
) -> Result<pb::Response, Status> {
    let channel_id = request.channel_id.clone();
    let draft = draft(app, request, metadata)?;
    let live = draft.expire == Expire::Live;
    let pushed = app.node.push(principal, draft).await.map_err(|r| refused(&r))?;
    if live && pushed.delivered == 0 {
        warn_dropped(app);
    }
    Ok(pushed_response(&pushed, channel_id))
}

/// Tells the operator, now and then, why pushes vanish.
fn warn_dropped(app: &App) {
    if app.quiet.may_speak(app.started.elapsed()) {
        tracing::warn!(
            "a push without expire found nobody and is gone (counted as expire_zero); mikudos.default_expire keeps such \
             pushes"
        );
    }
}

async fn push_with_status(
    app: &App,
    principal: &Principal,
    request: pb::PushMessage,
    metadata: &HeaderMap,
) -> Result<pb::Response, Status> {
    let channel_id = request.channel_id.clone();
    let draft = draft(app, request, metadata)?;
    let patience = app.config.mikudos.status_timeout;
    let pushed = app.node.push_with_status(principal, draft, patience).await;
    let (pushed, answer) = pushed.map_err(|refusal| refused(&refusal))?;
    // The text and code of the original: producers match them.
    let GateAnswer { received, echo } = answer.ok_or_else(|| Status::unknown("time out"))?;
    let kind = if received { MessageType::Received } else { MessageType::Unreceived };
    Ok(pb::Response {
        msg: String::from_utf8_lossy(&echo.text).into_owned(),
        expire: echo.expire,
        message_type: kind.into(),
        ..pushed_response(&pushed, channel_id)
    })
}

async fn remove(
    app: &App,
    principal: &Principal,
    channel_id: &str,
    msg_id: i64,
) -> Result<bool, Status> {
    // What cannot have been given out is not there, as the original says it.
    let (Ok(channel), Ok(msg_id)) = (Address::user(channel_id), u32::try_from(msg_id)) else {
        return Ok(false);
    };
    app.node.remove(principal, channel, msg_id).await.map_err(|refusal| refused(&refusal))
}

/// The asked keys that there are, in any case; all without any.
fn config(app: &App, request: &pb::ConfigRequest) -> pb::ConfigResponse {
    let asked = |key: &str| {
        request.keys.is_empty() || request.keys.iter().any(|asked| asked.eq_ignore_ascii_case(key))
    };
    let shown = app.config.mikudos.shown.iter().filter(|(key, _)| asked(key));
    pb::ConfigResponse { values: shown.cloned().collect() }
}

fn state(app: &App) -> pb::InfoResponse {
    let (shards, verbs) = (app.node.shard_totals(), app.node.verb_counters());
    pb::InfoResponse {
        gates: shards.gates,
        pending: shards.gate_pending,
        stored: verbs.pushed_stored.load(Ordering::Relaxed),
        pushed: verbs.pushed.load(Ordering::Relaxed),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_seconds: app.started.elapsed().as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute() {
        let quiet = Quiet::default();
        let spoken =
            [0, 1, 59, 60, 61, 120, 179, 180].map(|s| quiet.may_speak(Duration::from_secs(s)));
        assert_eq!(spoken, [true, false, false, true, false, true, false, true]);
    }
}
