//! `GET /api/v1/stream` (SSE) and `POST /api/v1/ack`.

use super::auth::Caller;
use super::body::{JsonBytes, parse};
use super::connection::{Detach, Handle};
use super::outlet::{Framing, SseOutlet, TokenOwner};
use super::problem::{Failure, Refusals};
use super::query::Params;
use super::router::{App, json_response};
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use bytes::Bytes;
use clarion_core::start::From;
use clarion_core::{Address, Code, Principal, Refusal};
use clarion_node::{
    AckPosition, AttachPlan, Guard, Link, PipeReader, ReaderRef, StreamSpec, pipe, user_tag,
};
use clarion_wire::token::{self, Token};
use hyper::body::{Body as _, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Version};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use utoipa::ToSchema;

/// Bytes between a shard and a stream that hyper writes.
const BODY_BYTES: usize = 64 << 10;

/// Which stream.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// The user whose feed it is, or who reads `address` durably.
    user: Option<String>,
    /// The durable reader. Default for a feed: `default`.
    device: Option<String>,
    /// One channel instead of the user's feed. Without `device` nothing is stored for this reader.
    address: Option<String>,
    /// `earliest`, `latest`, `unacked` or a seq. Default: `unacked` for a durable reader, else `latest`.
    from: Option<String>,
}

/// Where to start, as a query says it.
pub(super) fn parse_from(text: &str) -> Result<From, Refusal> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        "unacked" => Ok(From::Unacked),
        seq => seq.parse().map(From::Seq).map_err(|_| {
            Refusal::new(Code::BadRequest, "from must be earliest, latest, unacked or a seq")
        }),
    }
}

/// Reads and proves a token for this principal.
fn read_token(app: &App, principal: &Principal, text: &str) -> Result<Token, Refusal> {
    let token = token::decode(&app.secret, text)
        .map_err(|e| Refusal::new(Code::BadToken, e.to_string()))?;
    if token.principal_tag != user_tag(principal.name()) {
        return Err(Code::ForeignToken.into());
    }
    Ok(token)
}

fn positions(token: &Token) -> Vec<AckPosition> {
    let position = |p: &token::TokenPosition| AckPosition {
        tag: p.tag,
        epoch: p.epoch,
        start: p.start,
        seq: p.seq,
    };
    token.positions.iter().map(position).collect()
}

fn spec(
    app: &App,
    principal: &Principal,
    params: StreamParams,
    headers: &HeaderMap,
) -> Result<StreamSpec, Refusal> {
    let resume = match headers.get("last-event-id") {
        None => None,
        Some(value) if value.is_empty() => None,
        Some(value) => {
            let text = value.to_str().map_err(|_| Code::BadToken)?;
            let token = read_token(app, principal, text)?;
            Some(clarion_node::Resume { number: token.reader, positions: positions(&token) })
        }
    };
    Ok(StreamSpec {
        user: params.user,
        device: params.device,
        addresses: params.address.as_deref().map(Address::parse).transpose()?.into_iter().collect(),
        from: params.from.as_deref().map(parse_from).transpose()?,
        resume,
        ..StreamSpec::default()
    })
}

/// Opens a stream of server-sent events: `message` events with a resume token as `id`, `gap` and `close` events. Coming
/// back with `Last-Event-ID` acks what was given up to there.
#[utoipa::path(
    get,
    path = "/api/v1/stream",
    tag = "streams",
    params(
        StreamParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The last event's id, when coming back")
    ),
    responses((status = 200, description = "Events", body = String, content_type = "text/event-stream"), Refusals)
)]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Params(params): Params<StreamParams>,
    Extension(handle): Extension<Handle>,
    request: Request,
) -> Result<Response, Failure> {
    if request.method() != Method::GET {
        // A route for GET takes HEAD too; this one would never end.
        return Err(Code::MethodNotAllowed.into());
    }
    let place =
        app.streams.clone().try_acquire_owned().map_err(|_| Refusal::from(Code::TooManyStreams))?;
    let spec = spec(&app, &principal, params, request.headers())?;
    let plan = app.node.prepare(&principal, spec).await?;
    let owner = TokenOwner { reader: plan.reader(), principal_tag: user_tag(principal.name()) };
    let outlet =
        |framing| Box::new(SseOutlet::new(app.secret.clone(), owner, app.config.retry_ms, framing));
    if request.body().is_end_stream() {
        let chunked = request.version() >= Version::HTTP_11;
        let framing = if chunked { Framing::Chunked } else { Framing::UntilClose };
        handle.detach(Detach { plan, outlet: outlet(framing), place });
        // The connection's task takes the connection from here; this future is dropped with hyper's half of it.
        return std::future::pending().await;
    }
    through_hyper(&app, plan, outlet(Framing::Hyper), handle, Box::new(place)).await
}

/// A stream whose request has a body: hyper keeps the connection, the shard writes into the response's body.
async fn through_hyper(
    app: &App,
    plan: AttachPlan,
    outlet: Box<SseOutlet>,
    handle: Handle,
    place: Guard,
) -> Result<Response, Failure> {
    let (writer, mut reader) = pipe(BODY_BYTES);
    app.node.attach(plan, outlet, Link::Pipe(writer), place).await?;
    // Not answered before the shard says that the stream is open.
    let first = reader.part().await;
    let body = StreamBody { first, reader, _streaming: handle.streaming() };
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// What a shard hands over, as a response's body.
struct StreamBody {
    first: Option<Bytes>,
    reader: PipeReader,
    _streaming: super::connection::Streaming,
}

impl hyper::body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.reader.poll_part(context).map(|part| part.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What was taken.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AckRequest {
    /// The `id` of the last event that was taken.
    token: String,
}

/// What the ack did.
#[derive(Serialize, ToSchema)]
pub(super) struct AckAnswer {
    /// Whether anything was acked that was not before.
    moved: bool,
}

/// Acks everything that a durable reader was given up to an event.
#[utoipa::path(
    post,
    path = "/api/v1/ack",
    tag = "streams",
    request_body = AckRequest,
    responses((status = 200, description = "Acked", body = AckAnswer), Refusals)
)]
pub(super) async fn ack(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    let request: AckRequest = parse(&body)?;
    let token = read_token(&app, &principal, &request.token)?;
    let reader = ReaderRef { number: token.reader, user_tag: token.user_tag };
    let moved = app.node.ack(&principal, reader, positions(&token)).await?;
    Ok(json_response(&AckAnswer { moved }))
}
