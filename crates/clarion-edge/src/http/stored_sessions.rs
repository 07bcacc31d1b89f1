//! `/api/v1/stored-sessions`: sessions that outlive their connections: list them, look at one, delete one, move a cursor.

use super::auth::Caller;
use super::body::{JsonBytes, parse};
use super::channels::checked_limit;
use super::problem::{Failure, Refusals};
use super::query::{Params, Part};
use super::router::{App, json_response};
use axum::extract::State;
use axum::response::Response;
use clarion_core::start::From as Start;
use clarion_core::{Code, Refusal};
use clarion_node::{CursorDetails, SessionDetails, SubscriptionDetails};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Which stored sessions.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only this user's.
    user: Option<String>,
    /// Above this client id: `next` of the page before.
    after: Option<String>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A session that outlives its connections.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredSession {
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    user: Option<String>,
    /// Its client is connected.
    attached: bool,
    /// Milliseconds since 1970.
    created_at: u64,
    /// When its last connection ended, in milliseconds since 1970; absent while it is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    ended_at: Option<u64>,
    /// Seconds that it lives without a connection; 4294967295 = for ever.
    expiry_s: u32,
    /// When it ends if nobody comes, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    expires_at: Option<u64>,
    /// How many it has.
    subscriptions: usize,
}

impl From<clarion_node::StoredSession> for StoredSession {
    fn from(session: clarion_node::StoredSession) -> Self {
        Self {
            client_id: session.client_id,
            user: session.user,
            attached: session.attached,
            created_at: session.created_at,
            ended_at: session.ended_at,
            expiry_s: session.expiry_s,
            expires_at: session.expires_at,
            subscriptions: session.subscriptions,
        }
    }
}

/// Part of the list.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredSessionList {
    /// In the order of their client ids; a page may have fewer than asked for, even none, while there are more.
    sessions: Vec<StoredSession>,
    /// Go on with this as `after`; null at the end.
    next: Option<String>,
}

/// Lists stored sessions, attached or not.
#[utoipa::path(
    get,
    path = "/api/v1/stored-sessions",
    tag = "sessions",
    params(ListParams),
    responses((status = 200, description = "Part of the list", body = StoredSessionList), Refusals)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Failure> {
    let limit = checked_limit(params.limit)?;
    let (user, after) = (params.user.as_deref(), params.after.as_deref());
    let page = app.node.list_stored_sessions(&principal, user, after, limit).await?;
    let sessions = page.sessions.into_iter().map(Into::into).collect();
    Ok(json_response(&StoredSessionList { sessions, next: page.next }))
}

/// Which of its subscriptions.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowParams {
    /// From this place on: `next` of the page before.
    from: Option<u32>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Deliveries that are out.
#[derive(Serialize, ToSchema)]
pub(super) struct InFlight {
    qos1: usize,
    qos2: usize,
}

/// A stored session and some of its subscriptions.
#[derive(Serialize, ToSchema)]
pub(super) struct StoredSessionDetails {
    session: StoredSession,
    in_flight: InFlight,
    /// QoS 2 publishes of its client that are not over.
    inbound_qos2: usize,
    /// Filters whose retained messages it has not been given in full.
    retained_owed: usize,
    subscriptions: Vec<Subscription>,
    /// Go on with this as `from`; null at the end.
    next: Option<u32>,
}

/// A subscription.
#[derive(Serialize, ToSchema)]
pub(super) struct Subscription {
    /// Without `$share/<group>/`.
    filter: String,
    /// The group of a shared one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    share: Option<String>,
    /// It is the user's feed, which a device's cursors read.
    feed: bool,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    /// Its subscription identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<u32>,
    /// When it was made, in milliseconds since 1970; absent while that is being stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    since: Option<u64>,
    /// The log that it reads by a cursor of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    channel: Option<String>,
    /// It has ended, and gives what was published before.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tail: Option<Tail>,
    /// How far its log is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cursor: Option<Cursor>,
}

/// How a subscription ended that is not read to its end.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionTail)]
pub(super) struct Tail {
    /// When, in milliseconds since 1970; absent while that is being stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    at: Option<u64>,
    /// The last seq of its log that is for it.
    until: u64,
    /// It gives all of that; else only what another subscription of the session matches too.
    all: bool,
}

/// How far a log is read.
#[derive(Serialize, ToSchema)]
#[schema(as = SubscriptionCursor)]
pub(super) struct Cursor {
    epoch: u32,
    /// Everything up to here is acked.
    acked: u64,
    /// The log's last seq; of a subscription that has ended, the last one that is for it.
    head: u64,
    /// Seqs up to there that are kept and not acked.
    backlog: u64,
    /// Seqs that the log kept no longer before they were acked.
    lost: u64,
    /// Age of the oldest message that is not acked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    lag_ms: Option<u64>,
}

impl From<CursorDetails> for Cursor {
    fn from(cursor: CursorDetails) -> Self {
        let CursorDetails { epoch, acked, head, backlog, lost, lag_ms } = cursor;
        Self { epoch, acked, head, backlog, lost, lag_ms }
    }
}

impl From<SubscriptionDetails> for Subscription {
    fn from(details: SubscriptionDetails) -> Self {
        let options = details.sub.options;
        let tail = details.tail().map(|(at, tail)| Tail { at, until: tail.until, all: tail.all });
        Self {
            share: details.share().map(str::to_owned),
            feed: details.is_feed(),
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id: (options.id != 0).then_some(options.id),
            since: details.since(),
            channel: details.channel().map(|channel| channel.as_str().to_owned()),
            tail,
            cursor: details.cursor.map(Into::into),
            filter: details.sub.filter.into(),
        }
    }
}

/// Tells of a stored session: its subscriptions, how far each is read, and what is under way.
#[utoipa::path(
    get,
    path = "/api/v1/stored-sessions/{client_id}",
    tag = "sessions",
    params(("client_id" = String, Path, description = "The client id, percent-encoded"), ShowParams),
    responses((status = 200, description = "The session", body = StoredSessionDetails), Refusals)
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(client): Part,
    Params(params): Params<ShowParams>,
) -> Result<Response, Failure> {
    let limit = checked_limit(params.limit)?;
    let from = params.from.unwrap_or(0);
    let details = app.node.inspect_session(&principal, &client, from, limit).await?;
    let SessionDetails { session, in_flight_qos1, in_flight_qos2, .. } = details;
    Ok(json_response(&StoredSessionDetails {
        session: session.into(),
        in_flight: InFlight { qos1: in_flight_qos1, qos2: in_flight_qos2 },
        inbound_qos2: details.inbound_qos2,
        retained_owed: details.retained_owed,
        subscriptions: details.subscriptions.into_iter().map(Into::into).collect(),
        next: details.next,
    }))
}

/// Ends a stored session with all that it has; a client that is connected is closed first.
#[utoipa::path(
    delete,
    path = "/api/v1/stored-sessions/{client_id}",
    tag = "sessions",
    params(("client_id" = String, Path, description = "The client id, percent-encoded")),
    responses((status = 204, description = "Ended"), Refusals)
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(client): Part,
) -> Result<StatusCode, Failure> {
    app.node.delete_session(&principal, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which cursor to move, and where to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MoveBody {
    /// The filter of one of its subscriptions.
    filter: String,
    to: MoveTo,
    /// Close the session if it is attached, instead of refusing.
    #[serde(default)]
    force: bool,
}

/// Where to: `earliest`, `latest`, or the seq that comes next.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum MoveTo {
    /// By name.
    Name(MoveName),
    /// The seq that comes next.
    Seq(u64),
}

/// An end of the log.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum MoveName {
    /// All that is kept comes.
    Earliest,
    /// Nothing of what is there comes.
    Latest,
}

/// Where the cursor is now.
#[derive(Serialize, ToSchema)]
#[schema(as = CursorMoved)]
pub(super) struct Moved {
    epoch: u32,
    /// Everything up to here counts as acked.
    acked: u64,
    /// The log's last seq.
    head: u64,
}

/// Moves the cursor of a stored session's subscription. Refused with `conflict` while the session is attached, without `force`.
#[utoipa::path(
    post,
    path = "/api/v1/stored-sessions/{client_id}/move",
    tag = "sessions",
    params(("client_id" = String, Path, description = "The client id, percent-encoded")),
    request_body = MoveBody,
    responses((status = 200, description = "Moved", body = Moved), Refusals)
)]
pub(super) async fn move_cursor(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(client): Part,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    let MoveBody { filter, to, force } = parse(&body)?;
    let to = match to {
        MoveTo::Name(MoveName::Earliest) => Start::Earliest,
        MoveTo::Name(MoveName::Latest) => Start::Latest,
        MoveTo::Seq(0) => return Err(Refusal::new(Code::BadRequest, "to: seqs begin at 1").into()),
        MoveTo::Seq(seq) => Start::Seq(seq),
    };
    let moved = app.node.move_session_cursor(&principal, &client, &filter, to, force).await?;
    Ok(json_response(&Moved { epoch: moved.epoch, acked: moved.acked, head: moved.head }))
}
