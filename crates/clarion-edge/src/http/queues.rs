//! `/api/v1/queues/{name}/…`: consumers of a queue share its work.

use super::auth::Caller;
use super::body::JsonBytes;
use super::problem::{Failure, Refusals};
use super::query::{Params, Part};
use super::router::App;
use super::taking::{
    Asked, LeaseAckAnswer, LeaseAckRequest, LeaseNackAnswer, LeaseNackRequest, NextAnswer, Place,
    not_by_head,
};
use axum::extract::State;
use axum::response::Response;
use clarion_core::{Address, Refusal};
use hyper::Method;
use serde::Deserialize;
use std::sync::Arc;

/// How to take.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NextParams {
    /// Seconds to wait for the first message, fractions too. Default 0: what is there now.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<f64>,
    /// At most so many messages. Default 1.
    #[param(minimum = 1, maximum = 100)]
    count: Option<usize>,
    /// Seconds until what was not acked is handed out again. Default: `cursors.ack_wait`.
    #[param(minimum = 1, maximum = 86400)]
    ack_wait: Option<f64>,
}

fn queue(name: &str) -> Result<Place, Refusal> {
    Ok(Place { address: Address::queue(name)?, group: None })
}

/// Hands out the next messages of a queue, each to one consumer, under a lease. What is not acked in time comes again.
/// Answers with an empty list when no message came in time.
#[utoipa::path(
    get,
    path = "/api/v1/queues/{name}/next",
    tag = "queues",
    params(("name" = String, Path, description = "The queue, without `queue:`"), NextParams),
    responses((status = 200, description = "Handed out", body = NextAnswer), Refusals)
)]
pub(super) async fn next(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    method: Method,
    Part(name): Part,
    Params(params): Params<NextParams>,
) -> Result<Response, Failure> {
    not_by_head(&method)?;
    let NextParams { wait, count, ack_wait } = params;
    let asked = Asked { wait, count, ack_wait, from: None };
    Ok(queue(&name)?.next(&app, &principal, asked).await?)
}

/// Acks messages that were handed out.
#[utoipa::path(
    post,
    path = "/api/v1/queues/{name}/ack",
    tag = "queues",
    params(("name" = String, Path, description = "The queue, without `queue:`")),
    request_body = LeaseAckRequest,
    responses((status = 200, description = "Acked", body = LeaseAckAnswer), Refusals)
)]
pub(super) async fn ack(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(name): Part,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    Ok(queue(&name)?.ack(&app, &principal, &body).await?)
}

/// Gives back messages that were handed out: they are handed out again.
#[utoipa::path(
    post,
    path = "/api/v1/queues/{name}/nack",
    tag = "queues",
    params(("name" = String, Path, description = "The queue, without `queue:`")),
    request_body = LeaseNackRequest,
    responses((status = 200, description = "Given back", body = LeaseNackAnswer), Refusals)
)]
pub(super) async fn nack(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(name): Part,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    Ok(queue(&name)?.nack(&app, &principal, &body).await?)
}
