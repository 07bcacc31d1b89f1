//! What goes over the wire, as Rust types. Fields that this client does not know are passed over, so an older client
//! reads a newer server. Must not know: how it travels.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A message to publish.
#[derive(Debug, Clone, Serialize, Default)]
pub struct Publish {
    /// `user:42`, `group:g1`, `queue:jobs`, `topic:a/b` or `all`.
    pub address: String,
    /// The payload as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The payload as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Box<RawValue>>,
    /// The payload as bytes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Its media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The application's name of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Names and values, in order; names may repeat.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Seconds until it is of no use; 0 = only for those who are there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire: Option<i64>,
    /// The same key again within 24 h returns the first answer and stores nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Publish {
    /// A text for this address.
    pub fn text(address: impl Into<String>, text: impl Into<String>) -> Self {
        Self { address: address.into(), text: Some(text.into()), ..Self::default() }
    }
}

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Its id.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// Its place in the channel; 0 when it is live only.
    pub seq: u64,
    /// The history that the place counts in.
    pub epoch: u64,
    /// `disk`, `memory` or `none`.
    pub durability: String,
    /// Whether this answers a key that was used before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// Who published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Sender {
    /// The account.
    #[serde(default)]
    pub user: Option<String>,
    /// The device.
    #[serde(default)]
    pub device: Option<String>,
}

/// A message as a stream or a read gives it.
#[derive(Debug, Clone, Deserialize)]
pub struct Delivery {
    /// Its id.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// Its place; 0 or absent when live.
    #[serde(default)]
    pub seq: u64,
    /// The history.
    #[serde(default)]
    pub epoch: u64,
    /// The payload, when it is text.
    #[serde(default)]
    pub text: Option<String>,
    /// The payload, when it was published as JSON.
    #[serde(default)]
    pub json: Option<Box<RawValue>>,
    /// The payload, when it is neither.
    #[serde(default)]
    pub base64: Option<String>,
    /// Its media type.
    #[serde(default)]
    pub content_type: Option<String>,
    /// The application's name of the event.
    #[serde(default)]
    pub kind: Option<String>,
    /// Names and values.
    #[serde(default)]
    pub headers: Option<Vec<(String, String)>>,
    /// Who published it.
    #[serde(default)]
    pub sender: Option<Sender>,
    /// When, in milliseconds.
    #[serde(default)]
    pub created_at: u64,
    /// Until when it is of use.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// The data of a `gap` event: messages that this reader will not get.
#[derive(Debug, Clone, Deserialize)]
pub struct GapEvent {
    /// Where they are missing.
    #[serde(default)]
    pub channel: String,
    /// First one missing.
    #[serde(default)]
    pub from: u64,
    /// Last one missing, when that is known.
    #[serde(default)]
    pub to: Option<u64>,
    /// Why.
    pub reason: String,
}

/// The data of a `close` event.
#[derive(Debug, Clone, Deserialize)]
pub struct CloseEvent {
    /// Why.
    pub reason: String,
    /// When to come back.
    #[serde(default)]
    pub retry_ms: u64,
}

/// Part of a channel's log.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// The channel.
    pub address: String,
    /// Its history; 0 while it does not exist.
    pub epoch: u64,
    /// First seq that is kept.
    pub first: u64,
    /// Last seq.
    pub last: u64,
    /// The messages, in the order asked for.
    pub messages: Vec<Delivery>,
    /// What to go on with as `after` (or `before`); absent at the end.
    #[serde(default)]
    pub next: Option<u64>,
}

/// What became of a message.
#[derive(Debug, Clone, Deserialize)]
pub struct MessageStatus {
    /// Its id.
    pub id: String,
    /// Its channel.
    pub channel: String,
    /// Its place.
    pub seq: u64,
    /// The history.
    pub epoch: u64,
    /// `stored`, `expired`, `erased`, `trimmed`.
    pub state: String,
    /// What each device of the user, or each that reads the topic, has done with it.
    #[serde(default)]
    pub devices: Vec<DeviceStatus>,
    /// What each stored session that reads the topic has done with it.
    #[serde(default)]
    pub sessions: Vec<SessionStatus>,
    /// There are more readers.
    #[serde(default)]
    pub more: bool,
}

/// One device and one message.
#[derive(Debug, Clone, Deserialize)]
pub struct DeviceStatus {
    /// Whose it is, where the message is nobody's.
    #[serde(default)]
    pub user: Option<String>,
    /// The device's name.
    pub device: String,
    /// Whether it acked the message.
    pub acked: bool,
    /// When the write that covered it was stored.
    #[serde(default)]
    pub acked_at: Option<u64>,
}

/// One stored session and one message.
#[derive(Debug, Clone, Deserialize)]
pub struct SessionStatus {
    /// Its client id.
    pub client_id: String,
    /// Its user, if it has one.
    #[serde(default)]
    pub user: Option<String>,
    /// Whether it acked the message.
    pub acked: bool,
    /// When the write that covered it was stored.
    #[serde(default)]
    pub acked_at: Option<u64>,
}

/// One live session.
#[derive(Debug, Clone, Deserialize)]
pub struct Session {
    /// Its id, for a kick.
    pub id: String,
    /// Its user, where the list is not about one.
    #[serde(default)]
    pub user: Option<String>,
    /// Its device.
    #[serde(default)]
    pub device: Option<String>,
    /// What it speaks.
    #[serde(default)]
    pub dialect: String,
    /// Since when, in milliseconds.
    #[serde(default)]
    pub since: u64,
}

/// Whether a user is there.
#[derive(Debug, Clone, Deserialize)]
pub struct Presence {
    /// Who.
    pub user: String,
    /// Whether any session is live.
    pub online: bool,
    /// Those that are.
    #[serde(default)]
    pub sessions: Vec<Session>,
}

/// A page of sessions.
#[derive(Debug, Clone, Deserialize)]
pub struct Sessions {
    /// Those on this page.
    pub sessions: Vec<Session>,
    /// What to pass as `after` for the next page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A page of retained messages.
#[derive(Debug, Clone, Deserialize)]
pub struct RetainedPage {
    /// Those on this page, each an object as the server wrote it.
    pub messages: Vec<Box<RawValue>>,
    /// What to pass as `after` for the next page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A page of stored sessions.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredSessions {
    /// Those on this page, each an object as the server wrote it.
    pub sessions: Vec<Box<RawValue>>,
    /// What to pass as `after` for the next page.
    #[serde(default)]
    pub next: Option<String>,
}

/// A stored session and a page of its subscriptions, each an object as the server wrote it.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredSession {
    /// What a list tells of it.
    pub session: Box<RawValue>,
    /// Deliveries that are out.
    pub in_flight: Box<RawValue>,
    /// QoS 2 publishes of its client that are not over.
    pub inbound_qos2: u64,
    /// Filters whose retained messages it has not been given in full.
    pub retained_owed: u64,
    /// Those on this page.
    pub subscriptions: Vec<Box<RawValue>>,
    /// Where the next page begins.
    #[serde(default)]
    pub next: Option<u32>,
}
