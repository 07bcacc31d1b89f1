//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use super::auth::Caller;
use super::config::OtherCounter;
use super::problem::{Failure, Refusals};
use super::router::{App, json_bytes, json_response};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use clarion_core::{Code, Refusal, Verb};
use clarion_node::Node;
use clarion_node::metrics::ShardTotals;
use hyper::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use utoipa::ToSchema;

/// How the server is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    status: &'static str,
    /// The server's version.
    version: &'static str,
}

fn healthy() -> Response {
    json_response(&Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// Says that the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "It does", body = Health), Refusals)
)]
pub(super) async fn healthz() -> Response {
    healthy()
}

/// Says whether the server takes publishes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses((status = 200, description = "It does", body = Health), Refusals)
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<Response, Failure> {
    app.node.check_ready()?;
    let health = app.node.store_health().await;
    if health.failed.is_some() {
        // Why is in the log; it may name paths.
        return Err(Refusal::new(
            Code::StoreUnavailable,
            "the store takes no writes until a restart",
        )
        .into());
    }
    Ok(healthy())
}

/// Numbers for Prometheus (OpenMetrics text).
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (status = 200, description = "Numbers", body = String, content_type = "application/openmetrics-text"),
        Refusals
    )
)]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    Caller(principal): Caller,
) -> Result<Response, Failure> {
    if !principal.may(Verb::Read) || principal.is_one_user() {
        return Err(Code::Forbidden.into());
    }
    let disk_bytes = app.node.store_health().await.disk_bytes;
    let mut registry = Registry::default();
    let others = app.config.counters.clone();
    let numbers = NodeNumbers { node: app.node.clone(), disk_bytes, others };
    registry.register_collector(Box::new(numbers));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|_| Refusal::from(Code::Internal))?;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, media)], text).into_response())
}

/// The OpenAPI document of this API.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    responses((status = 200, description = "The document", body = Object), Refusals)
)]
pub(super) async fn openapi(State(app): State<Arc<App>>) -> Response {
    json_bytes(app.openapi.clone().into_bytes())
}

struct NodeNumbers {
    node: Node,
    disk_bytes: Option<u64>,
    others: Vec<OtherCounter>,
}

impl fmt::Debug for NodeNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeNumbers")
    }
}

/// A number: its name, what it is, and its value.
type Number = (&'static str, &'static str, u64);

impl NodeNumbers {
    fn counters(&self, shards: &ShardTotals) -> Vec<Number> {
        let (commit, verbs) = (self.node.commit_counters(), self.node.verb_counters());
        vec![
            ("publishes_stored", "Publishes answered as stored", verbs.stored.load(Relaxed)),
            ("publishes_live", "Publishes answered as live", verbs.live.load(Relaxed)),
            ("publishes_refused", "Publishes refused", verbs.refused.load(Relaxed)),
            ("deliveries", "Messages put into outboxes", shards.delivered),
            ("sent_bytes", "Bytes written to streams", shards.sent_bytes),
            (
                "dropped_outbox_full",
                "Live messages dropped since an outbox was full",
                shards.dropped_outbox,
            ),
            (
                "dropped_mailbox_full",
                "Live messages dropped since a shard had too many waiting",
                self.node.dropped_live(),
            ),
            ("behind", "Times that a subscription fell behind", shards.behind),
            ("gaps", "Gaps that readers were told of", shards.gaps),
            ("pages", "Pages read for catching up", shards.pages),
            ("acks", "Acks that moved a cursor", shards.acks),
            ("ack_flush_failures", "Writes of cursors that failed", shards.flush_failures),
            (
                "handed_back",
                "Messages of shared cursors that came back: given back, lapsed, or their member ended",
                shards.handed_back,
            ),
            ("dead_letters", "Messages that went to a dead list", shards.died),
            ("pushes", "Pushes to users by the gate protocol", verbs.pushed.load(Relaxed)),
            ("pushes_stored", "Those of them that were stored", verbs.pushed_stored.load(Relaxed)),
            (
                "gate_unknown_answers",
                "Answers of gates that name nothing that was given out",
                shards.gate_unknown,
            ),
            (
                "gate_too_long",
                "Pushes too long for a gate's gRPC library: kept, but not handed to gates",
                shards.gate_too_long,
            ),
            (
                "gate_owed_too_much",
                "What gates were owed, or asked for, of more channels than mikudos.parked_channels",
                shards.gate_owed_too_much,
            ),
            (
                "stored_sessions_expired",
                "Stored sessions that ended since nobody came in time",
                self.node.session_numbers().expired,
            ),
            ("commits", "Commits that began", commit.commits.get()),
            ("commit_units", "Units in those commits", commit.units.get()),
            ("commit_failures", "Commits that failed", commit.failures.get()),
        ]
    }

    fn gauges(&self, shards: &ShardTotals) -> Vec<Number> {
        let waiting = self.node.takers_waiting();
        let mut gauges = vec![
            ("sessions", "Streams that are attached", shards.sessions),
            (
                "queue_takers",
                "Requests that wait for the next message of a queue or group",
                waiting,
            ),
            ("gates", "Gates that are attached", shards.gates),
            ("gate_pending", "Hand-outs to gates that wait for an answer", shards.gate_pending),
            ("outbox_bytes", "Bytes that wait in outboxes", shards.outbox_bytes),
            (
                "retained_messages",
                "Topics with a retained message",
                self.node.retained_topics() as u64,
            ),
        ];
        let sessions = self.node.session_numbers();
        gauges.extend([
            (
                "stored_sessions_attached",
                "Stored sessions whose client is connected",
                sessions.attached,
            ),
            ("durable_topics", "Topics that somebody reads durably by name", sessions.topics),
            ("durable_filters", "Filters that somebody reads durably", sessions.filters),
        ]);
        if let Some(stored) = sessions.stored {
            gauges.push(("stored_sessions", "Sessions that outlive their connections", stored));
        }
        if let Some(bytes) = self.disk_bytes {
            gauges.push(("store_disk_bytes", "Bytes that the store takes on disk", bytes));
        }
        gauges
    }
}

impl Collector for NodeNumbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shards = self.node.shard_totals();
        for (name, help, value) in self.counters(&shards) {
            encode(&mut encoder, name, help, &ConstCounter::new(value))?;
        }
        for OtherCounter { name, help, value } in &self.others {
            encode(&mut encoder, name, help, &ConstCounter::new(value()))?;
        }
        let dropped = self.node.verb_counters().expire_zero.load(Relaxed);
        let reason = [("reason", "expire_zero")];
        let help = "Pushes that reached nobody";
        encode_with(&mut encoder, "pushes_dropped", help, &reason, dropped)?;
        for (name, help, value) in self.gauges(&shards) {
            encode(&mut encoder, name, help, &ConstGauge::new(value))?;
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    let kind = metric.metric_type();
    metric.encode(encoder.encode_descriptor(&format!("clarion_{name}"), help, None, kind)?)
}

/// A counter with a label; its values are fixed, none is a client's.
fn encode_with(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &[(&'static str, &'static str); 1],
    value: u64,
) -> fmt::Result {
    let metric = ConstCounter::new(value);
    let name = format!("clarion_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, metric.metric_type())?;
    metric.encode(family.encode_family(label)?)
}
