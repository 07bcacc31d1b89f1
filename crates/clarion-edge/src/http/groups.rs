//! `/api/v1/channels/{address}/groups/{group}/…`: a reader group takes the messages of any channel.

use super::auth::Caller;
use super::body::JsonBytes;
use super::problem::{Failure, Refusals};
use super::query::{Params, Part, readable};
use super::router::App;
use super::stream::parse_from;
use super::taking::{
    Asked, LeaseAckAnswer, LeaseAckRequest, LeaseNackAnswer, LeaseNackRequest, NextAnswer, Place,
    not_by_head,
};
use axum::extract::State;
use axum::response::Response;
use clarion_core::start::From;
use clarion_core::{Code, Refusal};
use hyper::Method;
use serde::Deserialize;
use std::sync::Arc;

/// How to take.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GroupNextParams {
    /// Seconds to wait for the first message, fractions too. Default 0: what is there now.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<f64>,
    /// At most so many messages. Default 1.
    #[param(minimum = 1, maximum = 100)]
    count: Option<usize>,
    /// Seconds until what was not acked is handed out again. Default: `cursors.ack_wait`.
    #[param(minimum = 1, maximum = 86400)]
    ack_wait: Option<f64>,
    /// Where a new group starts: `earliest`, `latest` or a seq. Default `earliest`. One that exists goes on where it is.
    from: Option<String>,
}

fn place((address, group): (String, String)) -> Result<Place, Refusal> {
    Ok(Place { address: readable(&address)?, group: Some(group) })
}

fn start(text: &str) -> Result<From, Refusal> {
    match parse_from(text) {
        Ok(From::Unacked) | Err(_) => {
            Err(Refusal::new(Code::BadRequest, "from must be earliest, latest or a seq"))
        }
        from => from,
    }
}

/// Hands out the next messages of a channel to a reader group: one of the group gets each, under a lease. The group is
/// made by its first request; a topic that it reads is stored from then on.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{address}/groups/{group}/next",
    tag = "groups",
    params(
        ("address" = String, Path, description = "An address, percent-encoded"),
        ("group" = String, Path, description = "The group's name, 1 to 256 bytes, not `*`"),
        GroupNextParams
    ),
    responses((status = 200, description = "Handed out", body = NextAnswer), Refusals)
)]
pub(super) async fn next(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    method: Method,
    Part(path): Part<(String, String)>,
    Params(params): Params<GroupNextParams>,
) -> Result<Response, Failure> {
    not_by_head(&method)?;
    let GroupNextParams { wait, count, ack_wait, from } = params;
    let from = from.as_deref().map(start).transpose()?;
    let asked = Asked { wait, count, ack_wait, from };
    Ok(place(path)?.next(&app, &principal, asked).await?)
}

/// Acks messages that were handed out to a group.
#[utoipa::path(
    post,
    path = "/api/v1/channels/{address}/groups/{group}/ack",
    tag = "groups",
    params(
        ("address" = String, Path, description = "An address, percent-encoded"),
        ("group" = String, Path, description = "The group's name")
    ),
    request_body = LeaseAckRequest,
    responses((status = 200, description = "Acked", body = LeaseAckAnswer), Refusals)
)]
pub(super) async fn ack(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(path): Part<(String, String)>,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    Ok(place(path)?.ack(&app, &principal, &body).await?)
}

/// Gives back messages that were handed out to a group: they are handed out again.
#[utoipa::path(
    post,
    path = "/api/v1/channels/{address}/groups/{group}/nack",
    tag = "groups",
    params(
        ("address" = String, Path, description = "An address, percent-encoded"),
        ("group" = String, Path, description = "The group's name")
    ),
    request_body = LeaseNackRequest,
    responses((status = 200, description = "Given back", body = LeaseNackAnswer), Refusals)
)]
pub(super) async fn nack(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(path): Part<(String, String)>,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    Ok(place(path)?.nack(&app, &principal, &body).await?)
}
