//! `/api/v1/channels/{address}/dead`: what a channel's shared cursors gave up on.

use super::auth::Caller;
use super::body::{JsonBytes, bounded, parse};
use super::channels::{BYTES_MAX, ChannelPage, checked_limit, page_json};
use super::problem::{Failure, Refusals};
use super::query::{Params, Part, readable};
use super::router::{App, json_bytes, json_response};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, Object, SchemaFormat, Type};

/// Seqs that are kept before their number is judged.
const SEQS_KEPT: usize = 1001;

/// Which dead messages.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadParams {
    /// Ascending, above this seq of the list. Default 0.
    #[param(format = "uint64")]
    after: Option<u64>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Reads the dead list of a channel: messages that were handed out too often. Seqs and epoch are the list's own; headers
/// `clarion-dead-…` say whence each came.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{address}/dead",
    tag = "dead",
    params(("address" = String, Path, description = "An address, percent-encoded"), DeadParams),
    responses((status = 200, description = "Part of the list", body = ChannelPage), Refusals)
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(address): Part,
    Params(params): Params<DeadParams>,
) -> Result<Response, Failure> {
    let address = readable(&address)?;
    let (after, limit) = (params.after.unwrap_or(0), checked_limit(params.limit)?);
    let page = app.node.dead(&principal, &address, after, limit, BYTES_MAX).await?;
    Ok(json_bytes(page_json(&address, &page)))
}

/// What to put back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutBackRequest {
    /// Seqs of the list, at most 1,000.
    #[serde(deserialize_with = "bounded::<_, SEQS_KEPT, _>")]
    #[schema(schema_with = list_of_seqs)]
    seqs: Vec<u64>,
}

/// By itself a list of `u64` is described as one of 63 bits.
fn list_of_seqs() -> Array {
    let seq = Object::builder()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::Custom("uint64".into())))
        .minimum(Some(0));
    Array::builder().items(seq).description(Some("Seqs of the list, at most 1,000.")).build()
}

/// What was put back.
#[derive(Serialize, ToSchema)]
pub(super) struct PutBackAnswer {
    /// How many of them were on the list.
    put_back: usize,
}

/// Publishes dead messages to their channel again and takes them off the list.
#[utoipa::path(
    post,
    path = "/api/v1/channels/{address}/dead/put-back",
    tag = "dead",
    params(("address" = String, Path, description = "An address, percent-encoded")),
    request_body = PutBackRequest,
    responses((status = 200, description = "Put back", body = PutBackAnswer), Refusals)
)]
pub(super) async fn put_back(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(address): Part,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    let address = readable(&address)?;
    let request: PutBackRequest = parse(&body)?;
    let put_back = app.node.put_back(&principal, &address, request.seqs).await?;
    Ok(json_response(&PutBackAnswer { put_back }))
}
