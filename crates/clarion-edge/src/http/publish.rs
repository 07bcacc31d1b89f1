//! `POST /api/v1/publish` and `/api/v1/publish/batch`.

use super::auth::Caller;
use super::body::{JsonBytes, bounded, parse};
use super::problem::{Failure, ItemError, Refusals};
use super::router::{App, json_response};
use axum::extract::State;
use axum::response::Response;
use clarion_core::{Address, Code, Refusal};
use clarion_node::{Answer, Draft, Expire};
use clarion_wire::publish::{Checked, ExpireField, PublishRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

/// A message to publish. Exactly one of `text`, `json` and `base64`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PublishRequest)]
#[expect(dead_code, reason = "describes what `clarion_wire::publish` reads")]
pub(super) struct PublishRequestDoc {
    /// `user:ID`, `queue:ID`, `topic:NAME`, `all`.
    #[schema(min_length = 1, example = "user:42")]
    address: String,
    /// The body as text.
    #[schema(nullable = false)]
    text: Option<String>,
    /// The body as any JSON value.
    #[schema(value_type = Value, required = false)]
    json: Option<Value>,
    /// The body as base64 (RFC 4648 §4, padded).
    #[schema(nullable = false)]
    base64: Option<String>,
    /// Media type of the body.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    content_type: Option<String>,
    /// The application's name for this event.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    kind: Option<String>,
    /// Pairs of name and value, in order; names may repeat.
    #[schema(nullable = false)]
    headers: Option<Vec<(String, String)>>,
    /// Seconds to live: absent = as long as the channel keeps it, 0 = only for those who are there.
    #[schema(nullable = false, format = "uint64", minimum = 0)]
    expire: Option<u64>,
    /// The same key again on the channel within 24 h returns the first answer.
    #[schema(nullable = false, min_length = 1, max_length = 256)]
    idempotency_key: Option<String>,
}

/// Where a message went.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishAnswer {
    /// Its id.
    id: String,
    /// Its channel.
    channel: Address1,
    /// Its number in the channel; 0 = live.
    seq: u64,
    /// The channel's history; 0 = live.
    epoch: u32,
    /// `disk`: survives a power failure; `memory`: in memory; `none`: live.
    durability: &'static str,
    /// It was there already, under the same idempotency key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    duplicate: bool,
}

/// An address as text.
#[derive(ToSchema)]
#[schema(value_type = String)]
struct Address1(Address);

impl Serialize for Address1 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl PublishAnswer {
    fn new(channel: Address, answer: &Answer) -> Self {
        Self {
            id: answer.id.to_string(),
            channel: Address1(channel),
            seq: answer.seq,
            epoch: answer.epoch,
            durability: answer.durability.name(),
            duplicate: answer.duplicate,
        }
    }
}

/// Publishes one message.
#[utoipa::path(
    post,
    path = "/api/v1/publish",
    tag = "publish",
    request_body = PublishRequestDoc,
    responses((status = 200, description = "Taken", body = PublishAnswer), Refusals)
)]
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    let request: PublishRequest<'_> = parse(&body)?;
    let draft = draft(request.check(&app.config.publish)?);
    let channel = draft.address.clone();
    let answer = app.node.publish(&principal, draft).await?;
    Ok(json_response(&PublishAnswer::new(channel, &answer)))
}

fn draft(checked: Checked) -> Draft {
    let expire = match checked.expire {
        ExpireField::Absent => Expire::Never,
        ExpireField::Live => Expire::Live,
        ExpireField::Seconds(seconds) => Expire::Seconds(seconds),
    };
    Draft { address: checked.address, content: checked.content, expire }
}

/// Several messages.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchRequest)]
#[expect(dead_code, reason = "describes `Batch`")]
pub(super) struct BatchRequestDoc {
    /// At most 1,000; those of one channel keep their order.
    messages: Vec<PublishRequestDoc>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow, deserialize_with = "bounded::<_, BATCH_KEPT_MAX, _>")]
    messages: Vec<&'a RawValue>,
}

/// Most entries of a batch that are kept before its length is judged: one above what any configuration allows.
const BATCH_KEPT_MAX: usize = 100_001;

/// One result for each message, in order.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchAnswer {
    results: Vec<BatchItem>,
}

/// What became of one message.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum BatchItem {
    /// Taken.
    Taken(PublishAnswer),
    /// Refused.
    Refused {
        /// Why.
        error: ItemError,
    },
}

/// Publishes several messages. Each has its own result; nothing is atomic over them.
#[utoipa::path(
    post,
    path = "/api/v1/publish/batch",
    tag = "publish",
    request_body = BatchRequestDoc,
    responses((status = 200, description = "A result for each, in order", body = BatchAnswer), Refusals)
)]
pub(super) async fn publish_batch(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
    JsonBytes(body, _room): JsonBytes,
) -> Result<Response, Failure> {
    let batch: Batch<'_> = parse(&body)?;
    let max = app.config.batch_messages;
    if batch.messages.len() > max {
        let detail = format!("{} messages, the limit is {max}", batch.messages.len());
        return Err(Refusal::new(Code::BatchTooLong, detail).into());
    }
    let mut checked: Vec<Result<Address, Refusal>> = Vec::with_capacity(batch.messages.len());
    let mut drafts = Vec::with_capacity(batch.messages.len());
    for message in batch.messages {
        let request = parse::<PublishRequest<'_>>(message.get().as_bytes());
        match request.and_then(|request| request.check(&app.config.publish)) {
            Ok(valid) => {
                checked.push(Ok(valid.address.clone()));
                drafts.push(draft(valid));
            }
            Err(refusal) => checked.push(Err(refusal)),
        }
    }
    let mut answers = app.node.publish_many(&principal, drafts).await.into_iter();
    let results = checked.into_iter().map(|checked| {
        let answer = checked.and_then(|channel| {
            let answer = answers.next().unwrap_or_else(|| Err(Code::Internal.into()))?;
            Ok(PublishAnswer::new(channel, &answer))
        });
        match answer {
            Ok(answer) => BatchItem::Taken(answer),
            Err(refusal) => BatchItem::Refused { error: refusal.into() },
        }
    });
    Ok(json_response(&BatchAnswer { results: results.collect() }))
}
