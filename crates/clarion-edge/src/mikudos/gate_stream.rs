//! `GateStream`: a gate. Messages go out; REQUEST, RECEIVED and UNRECEIVED come in.
//!
//! Invariants: in mode group a gate without a group is refused at once, with the original's text; what means nothing (an
//! empty channel, an unknown type) is passed over, as the original does; a half-close ends the stream with OK.

use super::outlet::GateOutlet;
use crate::grpc::{App, Call, Ending, GrpcBody, Requests, principal, refused, requests, streaming};
use bytes::Bytes;
use clarion_core::mode::Mode;
use clarion_core::{Address, Code, Refusal};
use clarion_node::{Echo, GateInput, GateInputs, pipe};
use clarion_wire::proto::message_pusher::{self as pb, MessageType};
use hyper::{HeaderMap, Response};
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

/// Longest group name.
const GROUP_BYTES_MAX: usize = 256;

pub(super) async fn open(call: Call) -> Response<Body> {
    match try_open(call).await {
        Ok(response) => response,
        Err(status) => status.into_http(),
    }
}

/// The group that a gate names: the first value counts.
fn group(app: &App, metadata: &HeaderMap) -> Result<String, Status> {
    let value = metadata.get("group").map(|value| value.as_bytes()).unwrap_or_default();
    if app.config.mikudos.mode == Mode::Group && value.is_empty() {
        return Err(Status::unknown("METADATA of group cannot be empty"));
    }
    if value.len() > GROUP_BYTES_MAX {
        let detail = "METADATA of group is longer than 256 bytes";
        return Err(refused(&Refusal::new(Code::BadRequest, detail)));
    }
    Ok(String::from_utf8_lossy(value).into_owned())
}

async fn try_open(call: Call) -> Result<Response<Body>, Status> {
    let (app, request) = (call.app.clone(), call.request);
    let principal = principal(&app, request.headers()).await?;
    let group = group(&app, request.headers())?;
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| refused(&Code::TooManyStreams.into()))?;
    let (parts, body) = request.into_parts();
    let requests = requests::<pb::Response>(&app, &parts.headers, body)?;
    let pipes = (0..app.node.shards()).map(|_| pipe(app.config.send_buffer_bytes));
    let (writers, readers) = pipes.unzip();
    let (body, ending, gone) = GrpcBody::new(readers, call.broken);
    let age_ms = app.node.config().retention.user.age_ms;
    let outlet = || Box::new(GateOutlet { ending: ending.clone(), age_ms }) as _;
    // The headers tell the gate that it is one, so they come after this.
    let inputs = app.node.attach_gate(&principal, &group, writers, outlet, Box::new(place)).await;
    let inputs = inputs.map_err(|refusal| refused(&refusal))?;
    tokio::spawn(Gate { requests, inputs, ending, gone }.run());
    Ok(streaming(body))
}

/// The gate's half.
struct Gate {
    requests: Requests<pb::Response>,
    inputs: GateInputs,
    ending: Ending,
    /// Resolves when the response has ended.
    gone: oneshot::Receiver<()>,
}

impl Gate {
    async fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let more = tokio::select! {
                biased;
                _ = &mut self.gone => return,
                more = self.requests.batch(&mut batch) => more,
            };
            let said: Vec<GateInput> = batch.drain(..).filter_map(input).collect();
            if !said.is_empty() && !self.inputs.send(said).await {
                return;
            }
            let end = match more {
                Ok(true) => continue,
                Ok(false) => Status::ok(""),
                Err(status) => status,
            };
            self.ending.set(end);
            self.inputs.finish().await;
            return;
        }
    }
}

/// What a gate's message says; `None` when it means nothing.
fn input(said: pb::Response) -> Option<GateInput> {
    let pb::Response { msg_id, channel_id, msg, expire, message_type } = said;
    let channel = Address::user(&channel_id).ok()?;
    let echo = Echo { text: Bytes::from(msg), expire };
    match MessageType::try_from(message_type).ok()? {
        MessageType::Request => Some(GateInput::Request { channel, above: msg_id }),
        MessageType::Response => None,
        MessageType::Received => Some(GateInput::Received { channel, msg_id, echo }),
        MessageType::Unreceived => Some(GateInput::Unreceived { channel, msg_id, echo }),
    }
}
