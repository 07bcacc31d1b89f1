//! `/api/v1/retained`: the last message of each topic that was published to be kept: list them, delete one.

use super::auth::Caller;
use super::channels::{BYTES_MAX, SenderDoc, checked_limit};
use super::problem::{Failure, Refusals};
use super::query::{Params, Part};
use super::router::{App, json_bytes};
use axum::extract::State;
use axum::response::Response;
use clarion_core::Principal;
use clarion_node::RetainedPage;
use clarion_wire::json::{write_retained, write_string};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Which retained messages.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Of topics that this MQTT filter matches. Default `#`.
    filter: Option<String>,
    /// Go on here: `next` of the page before.
    after: Option<String>,
    /// At most so many, 1 to 1,000. Default 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

// Described only: `clarion_wire::json` writes it.
/// A retained message. Exactly one of `text` and `base64`.
#[derive(Serialize, ToSchema)]
pub(super) struct RetainedMessage {
    topic: String,
    #[schema(nullable = false)]
    text: Option<String>,
    #[schema(nullable = false)]
    base64: Option<String>,
    /// 0, 1 or 2, as it was published.
    qos: u8,
    #[schema(nullable = false)]
    content_type: Option<String>,
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

/// Part of the list.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `list` writes")]
pub(super) struct RetainedList {
    /// In the order of their topics; a page may have fewer than asked for, even none, while there are more.
    messages: Vec<RetainedMessage>,
    /// Opaque; go on with this as `after`; null at the end.
    next: Option<String>,
}

/// Lists retained messages.
#[utoipa::path(
    get,
    path = "/api/v1/retained",
    tag = "retained",
    params(ListParams),
    responses((status = 200, description = "Part of the list", body = RetainedList), Refusals)
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Failure> {
    let ListParams { filter, after, limit } = params;
    let (filter, limit) = (filter.as_deref().unwrap_or("#"), checked_limit(limit)?);
    let listed =
        app.node.list_retained(&principal, filter, after.as_deref(), limit, BYTES_MAX).await?;
    Ok(json_bytes(list_json(&listed)))
}

fn list_json(page: &RetainedPage) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + page.messages.len() * 256);
    out.extend_from_slice(b"{\"messages\":[");
    for (i, message) in page.messages.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_retained(message, &mut out);
    }
    out.extend_from_slice(b"],\"next\":");
    match &page.next {
        Some(next) => write_string(next, &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    out
}

/// Deletes a topic's retained message. Later subscribers do not get it; who is there is not told.
#[utoipa::path(
    delete,
    path = "/api/v1/retained/{topic}",
    tag = "retained",
    params(("topic" = String, Path, description = "The topic, percent-encoded")),
    responses((status = 204, description = "Deleted"), Refusals)
)]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Part(topic): Part,
) -> Result<StatusCode, Failure> {
    deleted(&app, &principal, &topic).await
}

/// Whose retained message to delete.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteParams {
    /// The topic.
    topic: String,
}

/// The same with the topic in the query, for those whose way here decodes `%2F` in a path.
#[utoipa::path(
    delete,
    path = "/api/v1/retained",
    tag = "retained",
    params(DeleteParams),
    responses((status = 204, description = "Deleted"), Refusals)
)]
pub(super) async fn delete_by_query(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    Params(params): Params<DeleteParams>,
) -> Result<StatusCode, Failure> {
    deleted(&app, &principal, &params.topic).await
}

async fn deleted(app: &App, principal: &Principal, topic: &str) -> Result<StatusCode, Failure> {
    app.node.delete_retained(principal, topic).await?;
    Ok(StatusCode::NO_CONTENT)
}
