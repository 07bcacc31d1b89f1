//! Taking messages of a shared cursor: what queues and reader groups have in common. `next` hands out under leases, `ack`
//! and `nack` name them.
//!
//! Invariants: an answer holds a bounded number of messages and bytes; a lease is taken back only where it was given.

use super::body::{bounded, parse};
use super::channels::Message;
use super::router::{App, json_bytes, json_response};
use axum::response::Response;
use clarion_core::start::From;
use clarion_core::{Address, Code, Principal, Refusal};
use clarion_node::{Lease, Leased, NextSpec};
use clarion_wire::json::write_leased;
use clarion_wire::lease::{self, Cursor};
use hyper::Method;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;
use utoipa::ToSchema;

/// Seconds that a request waits.
const WAIT: RangeInclusive<f64> = 0.0..=60.0;
/// Seconds that a lease lasts.
const ACK_WAIT: RangeInclusive<f64> = 1.0..=86_400.0;
/// Seconds before what was given back is handed out again.
const DELAY: RangeInclusive<f64> = 0.0..=86_400.0;
/// Messages in one answer.
const COUNT_MAX: usize = 100;
/// Bytes of messages in one answer; escaped as JSON they may be six times as many.
const BYTES_MAX: usize = 2 << 20;
/// Leases in one request.
const LEASES_MAX: usize = 1000;
/// Leases that are kept before their number is judged.
const LEASES_KEPT: usize = LEASES_MAX + 1;

// Described only: `clarion_wire::json` writes it.
/// A message that was handed out.
#[derive(Serialize, ToSchema)]
pub(super) struct LeasedMessage {
    #[serde(flatten)]
    message: Message,
    /// Which hand-out of this message it is, from 1; a restart of the server begins anew.
    #[schema(minimum = 1)]
    attempt: u32,
    /// Names this hand-out, for ack and nack. Opaque.
    lease: String,
}

// Described only: `Place::written` writes it.
/// Messages that were handed out.
#[derive(Serialize, ToSchema)]
pub(super) struct NextAnswer {
    /// In the order of their hand-out; none when none came in time.
    messages: Vec<LeasedMessage>,
}

/// What was handled.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseAckRequest {
    /// Leases of this queue or group, at most 1,000.
    #[serde(deserialize_with = "bounded::<_, LEASES_KEPT, _>")]
    leases: Vec<String>,
}

/// What the acks did.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaseAckAnswer {
    /// How many messages were not acked before.
    acked: u64,
}

/// What is given back.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseNackRequest {
    /// Leases of this queue or group, at most 1,000.
    #[serde(deserialize_with = "bounded::<_, LEASES_KEPT, _>")]
    leases: Vec<String>,
    /// Seconds before the messages are handed out again. Default 0.
    #[schema(nullable = false, minimum = 0, maximum = 86400)]
    delay: Option<f64>,
}

/// What giving back did.
#[derive(Serialize, ToSchema)]
pub(super) struct LeaseNackAnswer {
    /// How many leases still held; their messages come again, or went to the dead list.
    returned: usize,
}

/// Whose cursor hands out.
pub(super) struct Place {
    pub(super) address: Address,
    /// `None` = the one that a queue has.
    pub(super) group: Option<String>,
}

/// What a request for messages says.
pub(super) struct Asked {
    pub(super) wait: Option<f64>,
    pub(super) count: Option<usize>,
    pub(super) ack_wait: Option<f64>,
    pub(super) from: Option<From>,
}

fn seconds(what: &str, value: f64, range: &RangeInclusive<f64>) -> Result<Duration, Refusal> {
    if range.contains(&value) {
        return Ok(Duration::from_secs_f64(value.abs()));
    }
    let detail = format!("{what} must be {} to {} seconds", range.start(), range.end());
    Err(Refusal::new(Code::BadRequest, detail))
}

/// A route for GET takes HEAD too; what that handed out nobody would see.
pub(super) fn not_by_head(method: &Method) -> Result<(), Refusal> {
    if *method == Method::GET { Ok(()) } else { Err(Code::MethodNotAllowed.into()) }
}

impl Place {
    fn cursor(&self) -> Cursor<'_> {
        Cursor { channel: &self.address, group: self.group.as_deref() }
    }

    fn spec(&self, asked: Asked) -> Result<NextSpec, Refusal> {
        let count = asked.count.unwrap_or(1);
        if !(1..=COUNT_MAX).contains(&count) {
            let detail = format!("count must be 1 to {COUNT_MAX}");
            return Err(Refusal::new(Code::BadRequest, detail));
        }
        let ack_wait = asked.ack_wait.map(|s| seconds("ack_wait", s, &ACK_WAIT)).transpose()?;
        Ok(NextSpec {
            address: self.address.clone(),
            group: self.group.clone(),
            from: asked.from,
            count,
            bytes: BYTES_MAX,
            wait: seconds("wait", asked.wait.unwrap_or(0.0), &WAIT)?,
            ack_wait,
        })
    }

    /// Hands out the next messages.
    pub(super) async fn next(
        &self,
        app: &App,
        principal: &Principal,
        asked: Asked,
    ) -> Result<Response, Refusal> {
        let leased = app.node.next(principal, self.spec(asked)?).await?;
        let mut response = json_bytes(self.written(app, &leased));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    fn written(&self, app: &App, leased: &[Leased]) -> Vec<u8> {
        let mut out = b"{\"messages\":[".to_vec();
        for (i, Leased { message, attempt, lease }) in leased.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let Lease { epoch, seq, member } = *lease;
            let lease =
                lease::encode(&app.secret, self.cursor(), lease::Lease { epoch, member, seq });
            write_leased(message, *attempt, &lease, &mut out);
        }
        out.extend_from_slice(b"]}");
        out
    }

    fn leases(&self, app: &App, texts: &[String]) -> Result<Vec<Lease>, Refusal> {
        if texts.len() > LEASES_MAX {
            let detail = format!("name at most {LEASES_MAX} leases at once");
            return Err(Refusal::new(Code::BatchTooLong, detail));
        }
        let read = |(i, text): (usize, &String)| {
            let lease::Lease { epoch, member, seq } =
                lease::decode(&app.secret, self.cursor(), text).map_err(|_| {
                    let detail = format!("leases[{i}] was not given here, or is damaged");
                    Refusal::new(Code::BadToken, detail)
                })?;
            Ok(Lease { epoch, seq, member })
        };
        texts.iter().enumerate().map(read).collect()
    }

    /// Acks what was handed out.
    pub(super) async fn ack(
        self,
        app: &App,
        principal: &Principal,
        body: &[u8],
    ) -> Result<Response, Refusal> {
        let request: LeaseAckRequest = parse(body)?;
        let leases = self.leases(app, &request.leases)?;
        let acked = app.node.ack_leases(principal, self.address, self.group, &leases).await?;
        Ok(json_response(&LeaseAckAnswer { acked }))
    }

    /// Gives back what was handed out.
    pub(super) async fn nack(
        self,
        app: &App,
        principal: &Principal,
        body: &[u8],
    ) -> Result<Response, Refusal> {
        let request: LeaseNackRequest = parse(body)?;
        let delay = seconds("delay", request.delay.unwrap_or(0.0), &DELAY)?;
        let leases = self.leases(app, &request.leases)?;
        let Self { address, group } = self;
        let returned = app.node.nack_leases(principal, address, group, &leases, delay).await?;
        Ok(json_response(&LeaseNackAnswer { returned }))
    }
}
