//! The calls about shared work: the next messages of a queue or a reader group, acks, what goes back, dead lists. Must not
//! know: connections.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Client, ClientError, Delivery, Page, url::encode_component};

/// What hands its messages out, each to one taker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// A queue, by its name without `queue:`.
    Queue(String),
    /// A reader group of any channel.
    Group {
        /// The channel's address.
        address: String,
        /// The group's name.
        group: String,
    },
}

/// How to take.
#[derive(Debug, Clone, Default)]
pub struct NextQuery {
    /// How long to wait for the first message, at most a minute.
    pub wait: Duration,
    /// At most so many messages.
    pub count: Option<u32>,
    /// How long the leases last.
    pub ack_wait: Option<Duration>,
    /// Where a new group starts: `earliest`, `latest` or a seq.
    pub from: Option<String>,
}

/// A message that was handed out, under a lease.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The message with attempt and lease, as the server wrote it: one line.
    pub json: Box<RawValue>,
    /// Which hand-out of it this is, from 1.
    pub attempt: u32,
    /// Names this hand-out.
    pub lease: String,
}

#[derive(Deserialize)]
struct HandOut {
    attempt: u32,
    lease: String,
}

#[derive(Deserialize)]
struct NextAnswer {
    messages: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct Leases<'a> {
    leases: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<f64>,
}

#[derive(Deserialize)]
struct AckAnswer {
    acked: u64,
}

#[derive(Deserialize)]
struct NackAnswer {
    returned: u64,
}

#[derive(Serialize)]
struct Seqs<'a> {
    seqs: &'a [u64],
}

#[derive(Deserialize)]
struct PutBackAnswer {
    put_back: u64,
}

impl Shared {
    fn path(&self, verb: &str) -> String {
        match self {
            Self::Queue(name) => format!("/api/v1/queues/{}/{verb}", encode_component(name)),
            Self::Group { address, group } => {
                let (address, group) = (encode_component(address), encode_component(group));
                format!("/api/v1/channels/{address}/groups/{group}/{verb}")
            }
        }
    }
}

impl NextQuery {
    fn text(&self) -> String {
        let seconds = |time: Duration| time.as_secs_f64().to_string();
        crate::api::query(&[
            ("wait", Some(seconds(self.wait))),
            ("count", self.count.map(|count| count.to_string())),
            ("ack_wait", self.ack_wait.map(seconds)),
            ("from", self.from.clone()),
        ])
    }
}

fn odd(error: serde_json::Error) -> ClientError {
    ClientError::Protocol(error.to_string())
}

impl Leased {
    fn read(json: Box<RawValue>) -> Result<Self, ClientError> {
        let HandOut { attempt, lease } = serde_json::from_str(json.get()).map_err(odd)?;
        Ok(Self { json, attempt, lease })
    }

    /// The message alone.
    pub fn message(&self) -> Result<Delivery, ClientError> {
        serde_json::from_str(self.json.get()).map_err(odd)
    }
}

impl Client {
    /// The next messages; none when none came in time.
    pub async fn next(&self, of: &Shared, query: &NextQuery) -> Result<Vec<Leased>, ClientError> {
        let path = format!("{}{}", of.path("next"), query.text());
        let answer: NextAnswer = self.waiting(&path, query.wait).await?;
        answer.messages.into_iter().map(Leased::read).collect()
    }

    /// Acks leases; answers how many messages were not acked before.
    pub async fn ack_leases(&self, of: &Shared, leases: &[String]) -> Result<u64, ClientError> {
        let body = Leases { leases, delay: None };
        let answer: AckAnswer = self.json(Method::POST, &of.path("ack"), Some(&body)).await?;
        Ok(answer.acked)
    }

    /// Gives messages back, to be handed out again after the delay; answers how many leases still held.
    pub async fn nack_leases(
        &self,
        of: &Shared,
        leases: &[String],
        delay: Duration,
    ) -> Result<u64, ClientError> {
        let body = Leases { leases, delay: Some(delay.as_secs_f64()) };
        let answer: NackAnswer = self.json(Method::POST, &of.path("nack"), Some(&body)).await?;
        Ok(answer.returned)
    }

    /// Reads the dead list of a channel, above a seq of the list.
    pub async fn dead(
        &self,
        address: &str,
        after: u64,
        limit: Option<u32>,
    ) -> Result<Page, ClientError> {
        let query = crate::api::query(&[
            ("after", Some(after.to_string())),
            ("limit", limit.map(|limit| limit.to_string())),
        ]);
        let path = format!("/api/v1/channels/{}/dead{query}", encode_component(address));
        self.json(Method::GET, &path, None::<&()>).await
    }

    /// Puts dead messages back into their channel; answers how many of them were on the list.
    pub async fn put_back(&self, address: &str, seqs: &[u64]) -> Result<u64, ClientError> {
        let path = format!("/api/v1/channels/{}/dead/put-back", encode_component(address));
        let answer: PutBackAnswer = self.json(Method::POST, &path, Some(&Seqs { seqs })).await?;
        Ok(answer.put_back)
    }
}
