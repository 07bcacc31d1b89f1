//! One event stream, across as many connections as it takes.
//!
//! Invariants: a reconnect sends the last token that the caller was given (or set), so nothing between two connections
//! is missed; the pause before it grows up to [`PAUSE_MAX`] with jitter, or is what the server asked for; `next` can be
//! dropped at any await and called again. Must not know: what the events mean, save for the `close` event's `retry_ms`.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    ClientError, CloseEvent, Event,
    http::{Call, Pool},
    sse::Parser,
    url::encode_component,
};

/// Longest pause before a reconnect that the server did not ask for.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// First pause.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause that a server may ask for.
const ASKED_MAX: Duration = Duration::from_secs(300);
/// A stream that is silent for so long, without even a heartbeat, is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Largest event: a payload of the default limit, escaped, and its envelope.
const EVENT_MAX: usize = 16 << 20;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamQuery {
    /// The user whose feed it is, or who reads the address.
    pub user: Option<String>,
    /// The device, `default` when absent.
    pub device: Option<String>,
    /// A single channel.
    pub address: Option<String>,
    /// `earliest`, `latest`, `unacked` or a seq.
    pub from: Option<String>,
    /// A token to start with.
    pub token: Option<String>,
}

impl StreamQuery {
    /// The feed of a user, as his device.
    pub fn feed(user: impl Into<String>, device: impl Into<String>) -> Self {
        Self { user: Some(user.into()), device: Some(device.into()), ..Self::default() }
    }

    /// One channel, as nobody's reader.
    pub fn address(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), ..Self::default() }
    }

    fn target(&self) -> String {
        let fields = [
            ("user", &self.user),
            ("device", &self.device),
            ("address", &self.address),
            ("from", &self.from),
        ];
        let pairs: Vec<String> = fields
            .iter()
            .filter_map(|(name, value)| {
                Some(format!("{name}={}", encode_component(value.as_ref()?)))
            })
            .collect();
        format!("/api/v1/stream?{}", pairs.join("&"))
    }
}

/// What a stream gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamItem {
    /// The server took the stream, for the first time or again.
    Open,
    /// An event.
    Event(Event),
    /// The connection is gone; the next call waits, then reconnects.
    Lost {
        /// Why.
        cause: String,
        /// After how long.
        retry_ms: u64,
    },
}

/// See the module.
#[derive(Debug)]
pub struct EventStream {
    pool: Arc<Pool>,
    query: StreamQuery,
    state: State,
    opened: bool,
    token: Option<String>,
    asked: Option<Duration>,
    failures: u32,
    ready: VecDeque<Event>,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Instant>),
    Open(Box<(Incoming, Parser)>),
}

impl EventStream {
    pub(crate) fn new(pool: Arc<Pool>, query: StreamQuery) -> Self {
        let token = query.token.clone();
        let state = State::Waiting(None);
        Self {
            pool,
            query,
            state,
            opened: false,
            token,
            asked: None,
            failures: 0,
            ready: VecDeque::new(),
        }
    }

    /// The token of the last event given out, for an ack or another stream.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The next item; it reconnects as often as it must. An error is final: a refusal that will not pass, or an answer
    /// that is no event stream. An unreachable server is final only as long as `Open` was never given.
    pub async fn next(&mut self) -> Result<StreamItem, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.note(&event);
                return Ok(StreamItem::Event(event));
            }
            let lost = match &mut self.state {
                State::Waiting(until) => {
                    if let Some(until) = *until {
                        sleep_until(until).await;
                    }
                    match self.connect().await {
                        Ok(()) => return Ok(StreamItem::Open),
                        Err(error) => self.may_pass(error)?,
                    }
                }
                State::Open(open) => {
                    let (body, parser) = &mut **open;
                    match read(body, parser, &mut self.ready).await {
                        Ok(()) => {
                            if let Some(ms) = parser.retry_ms() {
                                self.asked = Some(Duration::from_millis(ms).min(ASKED_MAX));
                            }
                            continue;
                        }
                        Err(ReadError::Ended(cause)) => cause,
                        Err(ReadError::Fatal(error)) => return Err(error),
                    }
                }
            };
            let pause = self.pause();
            self.state = State::Waiting(Some(Instant::now() + pause));
            let retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
            return Ok(StreamItem::Lost { cause: lost, retry_ms });
        }
    }

    /// The next event; `Open` and `Lost` are passed over.
    pub async fn next_event(&mut self) -> Result<Event, ClientError> {
        loop {
            if let StreamItem::Event(event) = self.next().await? {
                return Ok(event);
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let mut call = Call::new(Method::GET, self.query.target());
        // An empty Last-Event-ID is none, after the standard.
        call.last_event_id = Some(self.token.clone().unwrap_or_default()).filter(|t| !t.is_empty());
        let response = self.pool.open(call).await?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let kind = kind.unwrap_or("none").to_owned();
            return Err(ClientError::Protocol(format!(
                "content-type {kind}, not text/event-stream"
            )));
        }
        self.failures = 0;
        self.state = State::Open(Box::new((response.into_body(), Parser::new(EVENT_MAX))));
        self.opened = true;
        Ok(())
    }

    fn may_pass(&self, error: ClientError) -> Result<String, ClientError> {
        if error.is_passing() && (self.opened || !error.is_unreachable()) {
            return Ok(error.to_string());
        }
        Err(error)
    }

    fn note(&mut self, event: &Event) {
        if let Some(id) = &event.id {
            self.token = Some(id.clone());
        }
        if event.name == "close"
            && let Ok(close) = serde_json::from_str::<CloseEvent>(&event.data)
            && close.retry_ms > 0
        {
            self.asked = Some(Duration::from_millis(close.retry_ms).min(ASKED_MAX));
        }
    }

    /// The pause that the server asked for, the first time; then doubling. A quarter of it is chance, so that the
    /// readers of a node that went down do not all come back in one moment.
    fn pause(&mut self) -> Duration {
        let doubled = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        let base = self.asked.take().unwrap_or(doubled);
        self.failures = self.failures.saturating_add(1);
        let chance = RandomState::new().build_hasher().finish() % 256;
        base.mul_f64(1.0 + 0.25 * f64::from(u8::try_from(chance).unwrap_or(0)) / 256.0)
    }
}

enum ReadError {
    Ended(String),
    Fatal(ClientError),
}

/// Reads one frame and parses it.
async fn read(
    body: &mut Incoming,
    parser: &mut Parser,
    ready: &mut VecDeque<Event>,
) -> Result<(), ReadError> {
    let frame = match timeout(SILENCE_MAX, body.frame()).await {
        Err(_) => return Err(ReadError::Ended("silence".into())),
        Ok(None) => return Err(ReadError::Ended("end of the stream".into())),
        Ok(Some(Err(error))) => return Err(ReadError::Ended(error.to_string())),
        Ok(Some(Ok(frame))) => frame,
    };
    let Ok(data) = frame.into_data() else { return Ok(()) };
    parser.push(&data, ready).map_err(|e| ReadError::Fatal(ClientError::Protocol(e.to_string())))
}

#[cfg(test)]
mod tests;
