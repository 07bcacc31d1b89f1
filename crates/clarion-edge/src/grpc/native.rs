//! The unary methods of `clarion.v1.Clarion`.

use super::call::{Call, unary};
use super::route::{App, Unknown};
use super::status::refused;
use super::stored_sessions::{delete_session, inspect_session, move_cursor, stored_sessions};
use clarion_core::{Address, Code, Message, MessageId, Principal, Refusal};
use clarion_node::{Answer, Draft, Expire, HistoryPage, SessionInfo};
use clarion_wire::proto::clarion_v1 as pb;
use clarion_wire::publish::{Checked, ExpireField, TypedPublish};
use hyper::Response;
use tonic::body::Body;

/// Most entries of one answer.
const LIMIT_MAX: u32 = 1000;
/// What 0 means as a limit.
const LIMIT_DEFAULT: u32 = 100;
/// Place that an answer's frame and fields take beside payloads.
const ANSWER_BYTES: usize = 3 << 20;

pub(super) async fn call(method: &str, call: Call) -> Result<Response<Body>, Unknown> {
    macro_rules! to {
        ($handler:ident) => {
            unary(call, |app, principal, request, _| async move {
                $handler(&app, &principal, request).await.map_err(|refusal| refused(&refusal))
            })
            .await
        };
    }
    Ok(match method {
        "Publish" => to!(publish),
        "PublishBatch" => to!(publish_batch),
        "History" => to!(history),
        "Status" => to!(status),
        "Presence" => to!(presence),
        "Sessions" => to!(sessions),
        "Kick" => to!(kick),
        "Dead" => to!(dead),
        "PutBack" => to!(put_back),
        "Retained" => to!(retained),
        "DeleteRetained" => to!(delete_retained),
        "StoredSessions" => to!(stored_sessions),
        "InspectSession" => to!(inspect_session),
        "DeleteSession" => to!(delete_session),
        "MoveCursor" => to!(move_cursor),
        _ => return Err(Unknown),
    })
}

fn draft(app: &App, request: pb::PublishRequest) -> Result<Draft, Refusal> {
    let headers = request.headers.into_iter();
    let typed = TypedPublish {
        address: &request.address,
        payload: request.payload,
        json: request.json,
        content_type: &request.content_type,
        kind: &request.kind,
        headers: headers.map(|header| (header.name.into(), header.value.into())).collect(),
        expire: request.expire,
        idempotency_key: &request.idempotency_key,
    };
    let Checked { address, content, expire } = typed.check(&app.config.publish)?;
    let expire = match expire {
        ExpireField::Absent => Expire::Never,
        ExpireField::Live => Expire::Live,
        ExpireField::Seconds(seconds) => Expire::Seconds(seconds),
    };
    Ok(Draft { address, content, expire })
}

fn taken(channel: &Address, answer: &Answer) -> pb::PublishResponse {
    let durability = match answer.durability {
        clarion_core::port::store::Durability::Disk => pb::Durability::Disk,
        clarion_core::port::store::Durability::Memory => pb::Durability::Memory,
        clarion_core::port::store::Durability::None => pb::Durability::None,
    };
    pb::PublishResponse {
        id: answer.id.to_string(),
        channel: channel.as_str().to_owned(),
        seq: answer.seq,
        epoch: answer.epoch,
        durability: durability.into(),
        duplicate: answer.duplicate,
    }
}

async fn publish(
    app: &App,
    principal: &Principal,
    request: pb::PublishRequest,
) -> Result<pb::PublishResponse, Refusal> {
    let draft = draft(app, request)?;
    let channel = draft.address.clone();
    let answer = app.node.publish(principal, draft).await?;
    Ok(taken(&channel, &answer))
}

async fn publish_batch(
    app: &App,
    principal: &Principal,
    request: pb::PublishBatchRequest,
) -> Result<pb::PublishBatchResponse, Refusal> {
    use pb::publish_result::Result as Outcome;
    let max = app.config.batch_messages;
    if request.messages.len() > max {
        let detail = format!("{} messages, the limit is {max}", request.messages.len());
        return Err(Refusal::new(Code::BatchTooLong, detail));
    }
    let mut checked = Vec::with_capacity(request.messages.len());
    let mut drafts = Vec::with_capacity(request.messages.len());
    for message in request.messages {
        checked.push(draft(app, message).map(|draft| {
            let channel = draft.address.clone();
            drafts.push(draft);
            channel
        }));
    }
    let mut answers = app.node.publish_many(principal, drafts).await.into_iter();
    let results = checked.into_iter().map(|checked| {
        let answer = checked.and_then(|channel| {
            let answer = answers.next().unwrap_or_else(|| Err(Code::Internal.into()))?;
            Ok(taken(&channel, &answer))
        });
        let result = Some(match answer {
            Ok(taken) => Outcome::Taken(taken),
            Err(refusal) => Outcome::Error(error(&refusal)),
        });
        pb::PublishResult { result }
    });
    Ok(pb::PublishBatchResponse { results: results.collect() })
}

fn error(refusal: &Refusal) -> pb::Error {
    pb::Error {
        code: refusal.code.number().into(),
        name: refusal.code.name().to_owned(),
        detail: refusal.detail.clone().into(),
        retry: refusal.code.retryable(),
    }
}

pub(super) fn limit(asked: u32) -> Result<usize, Refusal> {
    match asked {
        0 => Ok(LIMIT_DEFAULT as usize),
        1..=LIMIT_MAX => Ok(asked as usize),
        _ => Err(Refusal::new(Code::BadRequest, format!("limit must be 0 to {LIMIT_MAX}"))),
    }
}

fn header((name, value): &(Box<str>, Box<str>)) -> pb::Header {
    pb::Header { name: name.to_string(), value: value.to_string() }
}

fn message(message: &Message) -> pb::Message {
    let content = &message.content;
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or_default().to_owned();
    pb::Message {
        id: message.id.to_string(),
        channel: message.channel.as_str().to_owned(),
        seq: message.seq,
        epoch: message.epoch,
        payload: content.payload.clone(),
        json: content.json,
        content_type: text(&content.content_type),
        kind: text(&content.kind),
        headers: content.headers.iter().map(header).collect(),
        sender: sender(message),
        created_at: message.created_at,
        expires_at: content.expires_at,
        reply_to: text(&content.reply_to),
        correlation: content.correlation.clone().unwrap_or_default(),
    }
}

fn sender(message: &Message) -> Option<pb::Sender> {
    message.content.sender.as_ref().map(|sender| pb::Sender {
        user: sender.user.to_string(),
        device: sender.device.as_deref().unwrap_or_default().to_owned(),
    })
}

fn page(page: &HistoryPage) -> pb::HistoryResponse {
    pb::HistoryResponse {
        messages: page.messages.iter().map(message).collect(),
        epoch: page.head.epoch,
        first: page.head.first,
        last: page.head.last,
        next: page.next,
    }
}

async fn history(
    app: &App,
    principal: &Principal,
    request: pb::HistoryRequest,
) -> Result<pb::HistoryResponse, Refusal> {
    let address = Address::parse(&request.address)?;
    let (after, before) = (request.after, request.before);
    let limit = limit(request.limit)?;
    let read = app.node.history(principal, address, after, before, limit, ANSWER_BYTES).await?;
    Ok(page(&read))
}

async fn dead(
    app: &App,
    principal: &Principal,
    request: pb::DeadRequest,
) -> Result<pb::HistoryResponse, Refusal> {
    let address = Address::parse(&request.address)?;
    let limit = limit(request.limit)?;
    let read = app.node.dead(principal, &address, request.after, limit, ANSWER_BYTES).await?;
    Ok(page(&read))
}

async fn put_back(
    app: &App,
    principal: &Principal,
    request: pb::PutBackRequest,
) -> Result<pb::PutBackResponse, Refusal> {
    let address = Address::parse(&request.address)?;
    let put_back = app.node.put_back(principal, &address, request.seqs).await?;
    Ok(pb::PutBackResponse { put_back: put_back as u32 })
}

async fn status(
    app: &App,
    principal: &Principal,
    request: pb::StatusRequest,
) -> Result<pb::StatusResponse, Refusal> {
    use clarion_core::port::store::FoundState;
    let id: MessageId =
        request.id.parse().map_err(|_| Refusal::new(Code::NotFound, "no message has this id"))?;
    let status = app.node.message_status(principal, id).await?;
    let found = status.found;
    let state = match found.state {
        FoundState::Stored => "stored",
        FoundState::Expired => "expired",
        FoundState::Erased => "erased",
        FoundState::Trimmed => "trimmed",
    };
    let devices = status.devices.into_iter().map(|device| pb::DeviceAck {
        device: device.device,
        acked: device.acked,
        acked_at: device.acked_at,
        user: device.user,
    });
    let sessions = status.sessions.into_iter().map(|session| pb::SessionAck {
        client_id: session.client_id,
        user: session.user.unwrap_or_default(),
        acked: session.acked,
        acked_at: session.acked_at,
    });
    Ok(pb::StatusResponse {
        id: found.stored.id.to_string(),
        channel: found.channel.as_str().to_owned(),
        seq: found.stored.seq,
        epoch: found.stored.epoch,
        state: state.to_owned(),
        created_at: found.stored.created_at,
        expires_at: found.expires_at,
        devices: devices.collect(),
        sessions: sessions.collect(),
        more: status.more,
    })
}

fn session(info: SessionInfo) -> pb::Session {
    pb::Session {
        id: info.id,
        user: info.user.unwrap_or_default(),
        device: info.device.unwrap_or_default(),
        dialect: info.dialect.to_owned(),
        since: info.since,
    }
}

async fn presence(
    app: &App,
    principal: &Principal,
    request: pb::PresenceRequest,
) -> Result<pb::PresenceResponse, Refusal> {
    let presence = app.node.presence(principal, &request.user).await?;
    let sessions = presence.sessions.into_iter().map(session).collect();
    Ok(pb::PresenceResponse { user: request.user, online: presence.online, sessions })
}

async fn sessions(
    app: &App,
    principal: &Principal,
    request: pb::SessionsRequest,
) -> Result<pb::SessionsResponse, Refusal> {
    let limit = limit(request.limit)?;
    let after = (!request.after.is_empty()).then_some(request.after.as_str());
    let user = (!request.user.is_empty()).then_some(request.user.as_str());
    let listed = app.node.list_sessions(principal, user, after, limit).await?;
    Ok(pb::SessionsResponse {
        sessions: listed.sessions.into_iter().map(session).collect(),
        next: listed.next.unwrap_or_default(),
    })
}

async fn kick(
    app: &App,
    principal: &Principal,
    request: pb::KickRequest,
) -> Result<pb::KickResponse, Refusal> {
    let pb::KickRequest { session, user, device } = request;
    let kicked = match (session.is_empty(), user.is_empty()) {
        (false, true) if device.is_empty() => {
            app.node.kick_session(principal, &session).await?;
            1
        }
        (true, false) => {
            let device = (!device.is_empty()).then_some(device);
            app.node.kick_user(principal, &user, device).await?
        }
        _ => {
            let detail = "give a session, or a user and perhaps a device of that user";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
    };
    Ok(pb::KickResponse { kicked: kicked as u32 })
}

fn retained_message(message: &Message) -> pb::RetainedMessage {
    let content = &message.content;
    pb::RetainedMessage {
        topic: message.channel.id().to_owned(),
        payload: content.payload.clone(),
        qos: content.qos.into(),
        content_type: content.content_type.as_deref().unwrap_or_default().to_owned(),
        headers: content.headers.iter().map(header).collect(),
        sender: sender(message),
        created_at: message.created_at,
        expires_at: content.expires_at,
        reply_to: content.reply_to.as_deref().unwrap_or_default().to_owned(),
        correlation: content.correlation.clone().unwrap_or_default(),
    }
}

async fn retained(
    app: &App,
    principal: &Principal,
    request: pb::RetainedRequest,
) -> Result<pb::RetainedResponse, Refusal> {
    let limit = limit(request.limit)?;
    let filter = if request.filter.is_empty() { "#" } else { &request.filter };
    let after = (!request.after.is_empty()).then_some(request.after.as_str());
    let listed = app.node.list_retained(principal, filter, after, limit, ANSWER_BYTES).await?;
    Ok(pb::RetainedResponse {
        messages: listed.messages.iter().map(retained_message).collect(),
        next: listed.next.unwrap_or_default(),
    })
}

async fn delete_retained(
    app: &App,
    principal: &Principal,
    request: pb::DeleteRetainedRequest,
) -> Result<pb::DeleteRetainedResponse, Refusal> {
    app.node.delete_retained(principal, &request.topic).await?;
    Ok(pb::DeleteRetainedResponse {})
}
