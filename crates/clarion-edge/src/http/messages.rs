//! `/api/v1/messages/{id}`: what became of a message, and erasing it.

use super::auth::Caller;
use super::problem::{Failure, Refusals};
use super::query::Part;
use super::router::{App, json_response};
use axum::extract::State;
use axum::response::Response;
use clarion_core::port::store::FoundState;
use clarion_core::{AddressKind, Code, MessageId, Refusal};
use clarion_node::SessionAck;
use hyper::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// What became of a message.
#[derive(Serialize, ToSchema)]
pub(super) struct MessageStatus {
    id: String,
    channel: String,
    seq: u64,
    epoch: u32,
    /// `stored`, `expired`, `erased` or `trimmed`.
    #[schema(example = "stored")]
    state: &'static str,
    /// Milliseconds since 1970.
    created_at: u64,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<u64>,
    /// For a message to a user, each of his devices; for one on a topic, each device that reads the topic.
    devices: Vec<DeviceStatus>,
    /// For a message on a topic, each stored session that reads it, by name or by a filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sessions: Option<Vec<SessionStatus>>,
    /// There are more readers than were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    more: Option<bool>,
}

/// Whether a device has acked it.
#[derive(Serialize, ToSchema)]
pub(super) struct DeviceStatus {
    /// Whose it is, where that is not the message's user.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<String>,
    device: String,
    acked: bool,
    /// When the cursor write that covered it happened; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    acked_at: Option<u64>,
}

/// Whether a stored session has acked it.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionStatus {
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<String>,
    /// On each of its subscriptions that the message is for.
    acked: bool,
    /// When the cursor write that covered it happened; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    acked_at: Option<u64>,
}

impl From<SessionAck> for SessionStatus {
    fn from(ack: SessionAck) -> Self {
        let SessionAck { client_id, user, acked, acked_at } = ack;
        Self { client_id, user, acked, acked_at }
    }
}

fn parse_id(text: &str) -> Result<MessageId, Refusal> {
    text.parse()
        .map_err(|e: clarion_core::id::IdError| Refusal::new(Code::BadRequest, e.to_string()))
}

/// Says what became of a message.
#[utoipa::path(
    get,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    params(("id" = String, Path, description = "The message's id")),
    responses((status = 200, description = "What is known", body = MessageStatus), Refusals)
)]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(id): Part,
) -> Result<Response, Failure> {
    let status = app.node.message_status(&principal, parse_id(&id)?).await?;
    let found = status.found;
    let of_topic = found.channel.kind() == AddressKind::Topic;
    let devices = status.devices.into_iter().map(|d| DeviceStatus {
        user: of_topic.then_some(d.user),
        device: d.device,
        acked: d.acked,
        acked_at: d.acked_at,
    });
    Ok(json_response(&MessageStatus {
        id: found.stored.id.to_string(),
        channel: found.channel.as_str().to_owned(),
        seq: found.stored.seq,
        epoch: found.stored.epoch,
        state: match found.state {
            FoundState::Stored => "stored",
            FoundState::Expired => "expired",
            FoundState::Erased => "erased",
            FoundState::Trimmed => "trimmed",
        },
        created_at: found.stored.created_at,
        expires_at: found.expires_at,
        devices: devices.collect(),
        sessions: of_topic.then(|| status.sessions.into_iter().map(Into::into).collect()),
        more: of_topic.then_some(status.more),
    }))
}

/// Blanks a message's body; its number stays.
#[utoipa::path(
    delete,
    path = "/api/v1/messages/{id}",
    tag = "messages",
    params(("id" = String, Path, description = "The message's id")),
    responses((status = 204, description = "Erased"), Refusals)
)]
pub(super) async fn erase(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(id): Part,
) -> Result<StatusCode, Failure> {
    app.node.erase(&principal, parse_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
