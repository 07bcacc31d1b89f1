//! Presence, sessions, kicking.

use super::auth::Caller;
use super::channels::checked_limit;
use super::problem::{Failure, Refusals};
use super::query::{Params, Part};
use super::router::{App, json_response};
use axum::extract::State;
use axum::response::Response;
use clarion_node::SessionInfo;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// One live connection.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// Opaque.
    id: String,
    /// Whose; absent when it is nobody's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<String>,
    /// Which durable reader of the user; absent when it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    device: Option<String>,
    /// The protocol that it speaks.
    #[schema(example = "sse")]
    dialect: &'static str,
    /// Milliseconds since 1970.
    since: u64,
}

impl From<SessionInfo> for Session {
    fn from(info: SessionInfo) -> Self {
        let SessionInfo { id, user, device, dialect, since } = info;
        Self { id, user, device, dialect, since }
    }
}

/// Whether a user is there.
#[derive(Serialize, ToSchema)]
pub(super) struct Presence {
    user: String,
    online: bool,
    sessions: Vec<Session>,
}

/// Says whether a user is there.
#[utoipa::path(
    get,
    path = "/api/v1/users/{user}/presence",
    tag = "sessions",
    params(("user" = String, Path, description = "The user")),
    responses((status = 200, description = "The user's sessions", body = Presence), Refusals)
)]
pub(super) async fn presence(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(user): Part,
) -> Result<Response, Failure> {
    let presence = app.node.presence(&principal, &user).await?;
    let sessions = presence.sessions.into_iter().map(Session::from).collect();
    Ok(json_response(&Presence { user, online: presence.online, sessions }))
}

/// Which sessions.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only this user's.
    user: Option<String>,
    /// Above this session id.
    after: Option<String>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Part of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionList {
    sessions: Vec<Session>,
    /// Go on with this as `after`; null at the end.
    next: Option<String>,
}

/// Lists the sessions of this node.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    tag = "sessions",
    params(ListParams),
    responses((status = 200, description = "Part of the list", body = SessionList), Refusals)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Failure> {
    let limit = checked_limit(params.limit)?;
    let (user, after) = (params.user.as_deref(), params.after.as_deref());
    let page = app.node.list_sessions(&principal, user, after, limit).await?;
    let sessions = page.sessions.into_iter().map(Session::from).collect();
    Ok(json_response(&SessionList { sessions, next: page.next }))
}

/// Ends a session. Its client is told `close {reason: kicked}` and may come back; cursors stay.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{id}",
    tag = "sessions",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 204, description = "Ended"), Refusals)
)]
pub(super) async fn kick(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(id): Part,
) -> Result<StatusCode, Failure> {
    app.node.kick_session(&principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which sessions to end.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct KickParams {
    /// Only this device's.
    device: Option<String>,
}

/// How many ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Kicked {
    kicked: usize,
}

/// Ends the sessions of a user, or of one device.
#[utoipa::path(
    delete,
    path = "/api/v1/users/{user}/sessions",
    tag = "sessions",
    params(("user" = String, Path, description = "The user"), KickParams),
    responses((status = 200, description = "Ended", body = Kicked), Refusals)
)]
pub(super) async fn kick_user(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(user): Part,
    Params(params): Params<KickParams>,
) -> Result<Response, Failure> {
    let kicked = app.node.kick_user(&principal, &user, params.device).await?;
    Ok(json_response(&Kicked { kicked }))
}
