//! `/api/v1/channels/{address}/messages`: read and trim a channel.

use super::auth::Caller;
use super::problem::{Failure, Refusals};
use super::query::{Params, Part, readable};
use super::router::{App, json_bytes, json_response};
use axum::extract::State;
use axum::response::Response;
use clarion_core::{Address, Code, Refusal};
use clarion_node::HistoryPage;
use clarion_wire::json::{write_message, write_string};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;
use utoipa::ToSchema;

/// Messages in one answer.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;
/// Bytes of messages in one answer.
pub(super) const BYTES_MAX: usize = 8 << 20;

/// Which messages.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParams {
    /// Ascending, above this seq. Default 0.
    #[param(format = "uint64")]
    after: Option<u64>,
    /// Descending, below this seq.
    #[param(format = "uint64")]
    before: Option<u64>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

// Described only: `clarion_wire::json` writes it.
/// A message. Exactly one of `text`, `json` and `base64`.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    id: String,
    channel: String,
    /// Its number in the channel; 0 = live.
    seq: u64,
    /// The channel's history; 0 = live.
    epoch: u32,
    #[schema(nullable = false)]
    text: Option<String>,
    #[schema(value_type = serde_json::Value, required = false)]
    json: Option<serde_json::Value>,
    #[schema(nullable = false)]
    base64: Option<String>,
    #[schema(nullable = false)]
    content_type: Option<String>,
    #[schema(nullable = false)]
    kind: Option<String>,
    /// Pairs of name and value.
    #[schema(nullable = false)]
    headers: Option<Vec<(String, String)>>,
    #[schema(nullable = false, inline)]
    sender: Option<SenderDoc>,
    /// Milliseconds since 1970.
    created_at: u64,
    /// Milliseconds since 1970.
    #[schema(nullable = false)]
    expires_at: Option<u64>,
}

/// Who sent it.
#[derive(Serialize, ToSchema)]
pub(super) struct SenderDoc {
    user: String,
    #[schema(nullable = false)]
    device: Option<String>,
}

/// Part of a channel.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `read` writes")]
pub(super) struct ChannelPage {
    address: String,
    /// The channel's history; 0 while it does not exist.
    epoch: u32,
    /// First seq that is kept; `last + 1` when there is none.
    first: u64,
    /// Last seq.
    last: u64,
    /// In the order asked for; expired and erased ones are passed over.
    messages: Vec<Message>,
    /// Go on with this as `after` (or `before`); null at the end.
    next: Option<u64>,
}

/// Reads a channel.
#[utoipa::path(
    get,
    path = "/api/v1/channels/{address}/messages",
    tag = "channels",
    params(("address" = String, Path, description = "An address, percent-encoded"), ReadParams),
    responses((status = 200, description = "Part of the channel", body = ChannelPage), Refusals)
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(address): Part,
    Params(params): Params<ReadParams>,
) -> Result<Response, Failure> {
    let address = readable(&address)?;
    let limit = checked_limit(params.limit)?;
    let page = app
        .node
        .history(&principal, address.clone(), params.after, params.before, limit, BYTES_MAX)
        .await?;
    Ok(json_bytes(page_json(&address, &page)))
}

/// How many messages an answer may hold.
pub(super) fn checked_limit(limit: Option<usize>) -> Result<usize, Refusal> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Refusal::new(Code::BadRequest, format!("limit must be 1 to {LIMIT_MAX}")))
}

/// A page as JSON.
pub(super) fn page_json(address: &Address, page: &HistoryPage) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + page.messages.len() * 256);
    out.extend_from_slice(b"{\"address\":");
    write_string(address.as_str(), &mut out);
    let head = page.head;
    // Writing to a Vec does not fail.
    let _ =
        write!(out, ",\"epoch\":{},\"first\":{},\"last\":{}", head.epoch, head.first, head.last);
    out.extend_from_slice(b",\"messages\":[");
    for (i, message) in page.messages.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_message(message, &mut out);
    }
    out.extend_from_slice(b"],\"next\":");
    match page.next {
        Some(next) => drop(write!(out, "{next}}}")),
        None => out.extend_from_slice(b"null}"),
    }
    out
}

/// What to trim.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TrimParams {
    /// The first seq to keep.
    #[param(format = "uint64")]
    below: u64,
}

/// What is left.
#[derive(Serialize, ToSchema)]
pub(super) struct TrimAnswer {
    /// The first seq that is kept now.
    first: u64,
}

/// Forgets every message of a channel below a seq.
#[utoipa::path(
    delete,
    path = "/api/v1/channels/{address}/messages",
    tag = "channels",
    params(("address" = String, Path, description = "An address, percent-encoded"), TrimParams),
    responses((status = 200, description = "Trimmed", body = TrimAnswer), Refusals)
)]
pub(super) async fn trim(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(address): Part,
    Params(params): Params<TrimParams>,
) -> Result<Response, Failure> {
    let first = app.node.trim(&principal, readable(&address)?, params.below).await?;
    Ok(json_response(&TrimAnswer { first }))
}
