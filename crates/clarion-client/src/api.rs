//! The calls of the native HTTP API, typed. Must not know: connections.

use std::{sync::Arc, time::Duration};

use hyper::{Method, header::HeaderValue};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::{
    BaseUrl, ClientError, EventStream, MessageStatus, Page, Presence, Problem, Publish, Published,
    RetainedPage, Sessions, StoredSession, StoredSessions, StreamQuery,
    http::{Call, Pool},
    url::encode_component,
};

/// A client of one server. Cloning is cheap; clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

/// Which part of a channel to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadRange {
    /// Only above this seq, ascending.
    pub after: Option<u64>,
    /// Only below this seq, the last ones.
    pub before: Option<u64>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default)]
pub struct SessionsQuery {
    /// Only this user's.
    pub user: Option<String>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which retained messages to list.
#[derive(Debug, Clone, Default)]
pub struct RetainedQuery {
    /// Only of topics that this filter matches.
    pub filter: Option<String>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Which stored sessions to list.
#[derive(Debug, Clone, Default)]
pub struct StoredSessionsQuery {
    /// Only this user's.
    pub user: Option<String>,
    /// Where the last page ended.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u32>,
}

/// Where a cursor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MoveTo {
    /// An end of the log, by its name.
    End(LogEnd),
    /// The seq that comes next.
    Seq(u64),
}

/// An end of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogEnd {
    /// All that is kept comes.
    Earliest,
    /// Nothing of what is there comes.
    Latest,
}

#[derive(Serialize)]
struct MoveBody<'a> {
    filter: &'a str,
    to: MoveTo,
    force: bool,
}

#[derive(Serialize)]
struct BatchBody<'a> {
    messages: &'a [Publish],
}

#[derive(Deserialize)]
struct BatchAnswer {
    results: Vec<BatchItem>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BatchItem {
    Refused { error: Problem },
    Done(Published),
}

#[derive(Serialize)]
struct AckBody<'a> {
    token: &'a str,
}

#[derive(Deserialize)]
struct AckAnswer {
    moved: bool,
}

#[derive(Deserialize)]
struct KickAnswer {
    kicked: u64,
}

impl Client {
    /// One for the server at this address.
    pub fn new(base: BaseUrl) -> Self {
        Self { pool: Arc::new(Pool::new(base)) }
    }

    /// The same with a bearer key; `None` when the key has characters that no header takes.
    pub fn with_key(&self, key: &str) -> Option<Self> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).ok()?;
        bearer.set_sensitive(true);
        Some(Self { pool: Arc::new(self.pool.with(Some(bearer), self.pool.timeout())) })
    }

    /// The same with another limit to how long one call may take.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { pool: Arc::new(self.pool.with(self.pool.bearer(), timeout)) }
    }

    /// Where the server is.
    pub fn base(&self) -> &BaseUrl {
        self.pool.base()
    }

    /// Publishes one message.
    pub async fn publish(&self, message: &Publish) -> Result<Published, ClientError> {
        self.json(Method::POST, "/api/v1/publish", Some(message)).await
    }

    /// Publishes several; the answers are in their order. There is no atomicity.
    pub async fn publish_batch(
        &self,
        messages: &[Publish],
    ) -> Result<Vec<Result<Published, Problem>>, ClientError> {
        let answer: BatchAnswer =
            self.json(Method::POST, "/api/v1/publish/batch", Some(&BatchBody { messages })).await?;
        if answer.results.len() != messages.len() {
            let (got, asked) = (answer.results.len(), messages.len());
            return Err(ClientError::Protocol(format!("{got} results for {asked} messages")));
        }
        let result = |item| match item {
            BatchItem::Refused { error } => Err(error),
            BatchItem::Done(published) => Ok(published),
        };
        Ok(answer.results.into_iter().map(result).collect())
    }

    /// Reads part of a channel's log.
    pub async fn messages(&self, address: &str, range: ReadRange) -> Result<Page, ClientError> {
        let query = query(&[
            ("after", range.after.map(|n| n.to_string())),
            ("before", range.before.map(|n| n.to_string())),
            ("limit", range.limit.map(|n| n.to_string())),
        ]);
        let path = format!("/api/v1/channels/{}/messages{query}", encode_component(address));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Drops what lies below a seq.
    pub async fn trim(&self, address: &str, below: u64) -> Result<(), ClientError> {
        let address = encode_component(address);
        self.done(Method::DELETE, &format!("/api/v1/channels/{address}/messages?below={below}"))
            .await
    }

    /// What became of a message.
    pub async fn message_status(&self, id: &str) -> Result<MessageStatus, ClientError> {
        let path = format!("/api/v1/messages/{}", encode_component(id));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Blanks a message's body.
    pub async fn erase(&self, id: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &format!("/api/v1/messages/{}", encode_component(id))).await
    }

    /// Acks all that the token's device was given up to it; answers whether anything was not acked before.
    pub async fn ack(&self, token: &str) -> Result<bool, ClientError> {
        let answer: AckAnswer =
            self.json(Method::POST, "/api/v1/ack", Some(&AckBody { token })).await?;
        Ok(answer.moved)
    }

    /// Whether a user is there.
    pub async fn presence(&self, user: &str) -> Result<Presence, ClientError> {
        let path = format!("/api/v1/users/{}/presence", encode_component(user));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Live sessions, a page at a time.
    pub async fn sessions(&self, of: &SessionsQuery) -> Result<Sessions, ClientError> {
        let query = query(&[
            ("user", of.user.clone()),
            ("after", of.after.clone()),
            ("limit", of.limit.map(|n| n.to_string())),
        ]);
        self.json(Method::GET, &format!("/api/v1/sessions{query}"), None::<&()>).await
    }

    /// Ends one session.
    pub async fn end_session(&self, id: &str) -> Result<(), ClientError> {
        self.done(Method::DELETE, &format!("/api/v1/sessions/{}", encode_component(id))).await
    }

    /// Ends a user's sessions, or those of one device; answers how many. Bans nobody.
    pub async fn kick(&self, user: &str, device: Option<&str>) -> Result<u64, ClientError> {
        let query = query(&[("device", device.map(str::to_owned))]);
        let user = encode_component(user);
        let path = format!("/api/v1/users/{user}/sessions{query}");
        let answer: KickAnswer = self.json(Method::DELETE, &path, None::<&()>).await?;
        Ok(answer.kicked)
    }

    /// Retained messages, a page at a time.
    pub async fn retained(&self, of: &RetainedQuery) -> Result<RetainedPage, ClientError> {
        let query = query(&[
            ("filter", of.filter.clone()),
            ("after", of.after.clone()),
            ("limit", of.limit.map(|n| n.to_string())),
        ]);
        self.json(Method::GET, &format!("/api/v1/retained{query}"), None::<&()>).await
    }

    /// Deletes a topic's retained message.
    pub async fn delete_retained(&self, topic: &str) -> Result<(), ClientError> {
        let query = query(&[("topic", Some(topic.to_owned()))]);
        self.done(Method::DELETE, &format!("/api/v1/retained{query}")).await
    }

    /// Stored sessions, a page at a time.
    pub async fn stored_sessions(
        &self,
        of: &StoredSessionsQuery,
    ) -> Result<StoredSessions, ClientError> {
        let query = query(&[
            ("user", of.user.clone()),
            ("after", of.after.clone()),
            ("limit", of.limit.map(|n| n.to_string())),
        ]);
        self.json(Method::GET, &format!("/api/v1/stored-sessions{query}"), None::<&()>).await
    }

    /// A stored session, a page of its subscriptions at a time.
    pub async fn stored_session(
        &self,
        client_id: &str,
        from: u32,
    ) -> Result<StoredSession, ClientError> {
        let query = query(&[("from", Some(from.to_string())), ("limit", Some("1000".to_owned()))]);
        let path = format!("/api/v1/stored-sessions/{}{query}", encode_component(client_id));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Ends a stored session.
    pub async fn delete_stored_session(&self, client_id: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/stored-sessions/{}", encode_component(client_id));
        self.done(Method::DELETE, &path).await
    }

    /// Moves the cursor of a stored session's subscription; what it was answered.
    pub async fn move_cursor(
        &self,
        client_id: &str,
        filter: &str,
        to: MoveTo,
        force: bool,
    ) -> Result<Box<RawValue>, ClientError> {
        let path = format!("/api/v1/stored-sessions/{}/move", encode_component(client_id));
        self.json(Method::POST, &path, Some(&MoveBody { filter, to, force })).await
    }

    /// Whether the process answers.
    pub async fn healthy(&self) -> Result<(), ClientError> {
        self.done(Method::GET, "/healthz").await
    }

    /// Whether it takes work.
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.done(Method::GET, "/readyz").await
    }

    /// The body of any page, such as `/metrics` or `/openapi.json`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.pool.call(Call::new(Method::GET, path)).await?;
        String::from_utf8(body.into()).map_err(|e| ClientError::Protocol(e.to_string()))
    }

    /// An event stream; it connects when it is first asked for an item.
    pub fn stream(&self, query: StreamQuery) -> EventStream {
        EventStream::new(Arc::clone(&self.pool), query)
    }

    async fn done(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.pool.call(Call::new(method, path)).await.map(drop)
    }

    /// A call that the server answers after a while.
    pub(crate) async fn waiting<T: DeserializeOwned>(
        &self,
        path: &str,
        wait: Duration,
    ) -> Result<T, ClientError> {
        let call = Call { wait, ..Call::new(Method::GET, path) };
        let odd = |e: serde_json::Error| ClientError::Protocol(e.to_string());
        serde_json::from_slice(&self.pool.call(call).await?).map_err(odd)
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let odd = |e: serde_json::Error| ClientError::Protocol(e.to_string());
        let mut call = Call::new(method, path);
        call.json = body.map(serde_json::to_vec).transpose().map_err(odd)?;
        serde_json::from_slice(&self.pool.call(call).await?).map_err(odd)
    }
}

/// A query string, with its `?`; empty without a value.
pub(crate) fn query(fields: &[(&str, Option<String>)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if let Some(value) = value {
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(&format!("{name}={}", encode_component(value)));
        }
    }
    out
}
