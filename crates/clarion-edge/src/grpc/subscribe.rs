//! `clarion.v1.Clarion/Subscribe`: hello, then deliveries one way, acks, nacks and credit the other.
//!
//! Invariants: the hello has a deadline; what the client says is bounded on its way to the shard; a half-close ends the
//! stream with OK once its outbox is empty.

use super::call::{Call, Requests, principal, requests};
use super::outlet::{SubscribeOutlet, ended};
use super::response::{Ending, GrpcBody, streaming};
use super::route::App;
use super::status::refused;
use crate::stop::{Stop, reached};
use clarion_core::port::outlet::CloseReason;
use clarion_core::start::From;
use clarion_core::{Address, Code, Principal, Refusal};
use clarion_node::{Acks, Guard, Input, Link, PipeWriter, Sharing, StreamSpec, pipe};
use clarion_wire::proto::clarion_v1::subscribe_request::Request as Say;
use clarion_wire::proto::clarion_v1::{self as pb, Hello, Mode, SubscribeRequest};
use hyper::Response;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use tonic::Status;
use tonic::body::Body;

/// Opens the stream.
pub(super) async fn subscribe(call: Call) -> Response<Body> {
    match open(call).await {
        Ok(response) => response,
        Err(status) => status.into_http(),
    }
}

async fn open(call: Call) -> Result<Response<Body>, Status> {
    let Call { app, request, broken, stop } = call;
    let principal = principal(&app, request.headers()).await?;
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| refused(&Code::TooManyStreams.into()))?;
    let (parts, body) = request.into_parts();
    let requests = requests::<SubscribeRequest>(&app, &parts.headers, body)?;
    let (writer, reader) = pipe(app.config.send_buffer_bytes);
    let (body, ending, gone) = GrpcBody::new(vec![reader], broken);
    let stream = Stream { app, principal, requests, ending, gone, stop };
    tokio::spawn(stream.run(writer, Box::new(place)));
    Ok(streaming(body))
}

/// The client's half.
struct Stream {
    app: Arc<App>,
    principal: Principal,
    requests: Requests<SubscribeRequest>,
    ending: Ending,
    /// Resolves when the response has ended.
    gone: oneshot::Receiver<()>,
    stop: watch::Receiver<Stop>,
}

impl Stream {
    async fn run(self, writer: PipeWriter, place: Guard) {
        let ending = self.ending.clone();
        if let Err(status) = self.serve(writer, place).await {
            ending.set(status);
        }
    }

    async fn serve(mut self, writer: PipeWriter, place: Guard) -> Result<(), Status> {
        let hello = self.hello().await?;
        let spec = spec(hello).map_err(|refusal| refused(&refusal))?;
        let node = self.app.node.clone();
        let plan = node.prepare(&self.principal, spec).await.map_err(|r| refused(&r))?;
        let outlet = Box::new(SubscribeOutlet { ending: self.ending.clone() });
        let attached = node.attach(plan, outlet, Link::Pipe(writer), place).await;
        let inputs = node.inputs(attached.map_err(|refusal| refused(&refusal))?);
        let mut batch = Vec::new();
        loop {
            let more = tokio::select! {
                biased;
                _ = &mut self.gone => return Ok(()),
                more = self.requests.batch(&mut batch) => more,
            };
            let mut said = Vec::new();
            let wrong = batch.drain(..).try_for_each(|request| things(request, &mut said));
            let end = match (wrong, more) {
                (Ok(()), Ok(true)) => None,
                (Ok(()), Ok(false)) => Some(Status::ok("")),
                (Ok(()), Err(status)) => Some(status),
                (Err(refusal), _) => Some(refused(&refusal)),
            };
            let over = end.is_some();
            if let Some(status) = end {
                self.ending.set(status);
                said.push(Input::Finish);
            }
            if !inputs.send(said).await || over {
                return Ok(());
            }
        }
    }

    async fn hello(&mut self) -> Result<Hello, Status> {
        let first = tokio::time::timeout(self.app.config.hello_timeout, self.requests.next());
        let first = tokio::select! {
            biased;
            _ = &mut self.gone => return Err(Status::cancelled("")),
            first = first => first,
            // The node does not know this stream yet, so it cannot end it.
            () = reached(self.stop.clone(), Stop::Finish) => {
                return Err(ended(CloseReason::Shutdown, self.app.config.retry_ms));
            }
        };
        let first = first
            .map_err(|_| refused(&Refusal::new(Code::RequestTimeout, "no hello came in time")))??;
        match first.and_then(|first| first.request) {
            Some(Say::Hello(hello)) => Ok(hello),
            _ => Err(refused(&bad("the first request of a stream must be a hello"))),
        }
    }
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(Code::BadRequest, detail)
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn spec(hello: Hello) -> Result<StreamSpec, Refusal> {
    let sharing = match Mode::try_from(hello.mode) {
        Ok(Mode::Every) if hello.group.is_empty() => Sharing::Own,
        Ok(Mode::Unify) if hello.group.is_empty() => Sharing::Unify,
        Ok(Mode::Group) if !hello.group.is_empty() => Sharing::Group(hello.group),
        Ok(Mode::Group) => return Err(bad("mode group needs the group's name")),
        Ok(_) => return Err(bad("a group's name needs mode group")),
        Err(_) => return Err(bad("unknown mode: there are every, group and unify")),
    };
    let from = match pb::From::try_from(hello.from) {
        Ok(pb::From::Unacked) => None,
        Ok(pb::From::Earliest) => Some(From::Earliest),
        Ok(pb::From::Latest) => Some(From::Latest),
        Ok(pb::From::Seq) => Some(From::Seq(hello.seq)),
        Err(_) => return Err(bad("unknown from: there are unacked, earliest, latest and seq")),
    };
    let addresses: Result<Vec<Address>, _> =
        hello.addresses.iter().map(|text| Address::parse(text)).collect();
    Ok(StreamSpec {
        user: given(hello.user),
        device: given(hello.device),
        addresses: addresses?,
        from,
        from_new: None,
        resume: None,
        sharing,
        acks: Acks::Singly,
        credit: hello.credit,
    })
}

fn channel(text: String) -> Result<Option<Address>, Refusal> {
    given(text).map(|text| Address::parse(&text)).transpose().map_err(Refusal::from)
}

/// What a request says: nothing, one thing, or an ack of several ranges.
fn things(request: SubscribeRequest, said: &mut Vec<Input>) -> Result<(), Refusal> {
    match request.request {
        None => {}
        Some(Say::Hello(_)) => return Err(bad("a stream says hello once")),
        Some(Say::Credit(credit)) => said.push(Input::Credit(credit.messages)),
        Some(Say::Nack(nack)) => {
            let pb::Nack { channel: text, epoch, seq, delay_ms } = nack;
            let delay_ms = u64::from(delay_ms);
            said.push(Input::Nack { channel: channel(text)?, epoch, seq, delay_ms });
        }
        Some(Say::Ack(ack)) => {
            for range in ack.ranges {
                let pb::AckRange { channel: text, epoch, from, to } = range;
                if from > to {
                    return Err(bad("an ack's range ends before it begins"));
                }
                said.push(Input::Ack { channel: channel(text)?, epoch, from, to });
            }
            if ack.confirm != 0 {
                said.push(Input::Confirm(ack.confirm));
            }
        }
    }
    Ok(())
}
