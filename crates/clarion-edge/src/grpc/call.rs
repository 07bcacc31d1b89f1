//! Calls: a unary one from its one message to its one answer, and the requests of a stream.
//!
//! Invariants: a request message is bounded before memory is taken for it; unary requests under way are bounded
//! together, and each must arrive in time. Must not know: what is called.

use super::response::one_message;
use super::route::App;
use super::socket::Broken;
use super::status::{refused, told, too_long_by};
use crate::stop::Stop;
use bytes::{Buf, Bytes, BytesMut};
use clarion_core::{Code, Principal, Refusal};
use clarion_wire::grpc::FRAME_HEAD_BYTES;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, Streaming};
use tonic_prost::ProstCodec;

/// One call: what it says, and to which listener.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) request: Request<Incoming>,
    pub(crate) broken: Broken,
    pub(crate) stop: watch::Receiver<Stop>,
}

/// Who calls.
pub(crate) async fn principal(app: &App, metadata: &HeaderMap) -> Result<Principal, Status> {
    if !app.config.auth_required {
        return Ok(app.open_principal.clone());
    }
    let header = metadata.get("authorization").and_then(|header| header.to_str().ok());
    let identity = app.config.auth.header(header).await.map_err(|refusal| refused(&refusal))?;
    Ok(identity.principal)
}

/// Serves a unary call.
pub(crate) async fn unary<Req, Res, F>(
    call: Call,
    handler: impl FnOnce(Arc<App>, Principal, Req, HeaderMap) -> F,
) -> Response<Body>
where
    Req: Message + Default + 'static,
    Res: Message,
    F: Future<Output = Result<Res, Status>>,
{
    match serve(call, handler).await {
        Ok(answer) => one_message(&answer),
        Err(status) => told(status).into_http(),
    }
}

async fn serve<Req, Res, F>(
    call: Call,
    handler: impl FnOnce(Arc<App>, Principal, Req, HeaderMap) -> F,
) -> Result<Res, Status>
where
    Req: Message + Default + 'static,
    F: Future<Output = Result<Res, Status>>,
{
    let Call { app, request, .. } = call;
    let principal = principal(&app, request.headers()).await?;
    let (parts, body) = request.into_parts();
    let reading = read::<Req>(&app, &parts.headers, body);
    let (message, _room) = match tokio::time::timeout(app.config.body_timeout, reading).await {
        Ok(read) => read?,
        Err(_) => {
            let detail = "the request's message did not arrive in time";
            return Err(refused(&Refusal::new(Code::RequestTimeout, detail)));
        }
    };
    handler(app, principal, message, parts.headers).await
}

/// The encoding of a request's messages; `None` = as they are.
fn encoding(metadata: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    match metadata.get("grpc-encoding").map(hyper::header::HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(None),
        Some(b"gzip") => Ok(Some(CompressionEncoding::Gzip)),
        Some(other) => {
            let name = other.escape_ascii();
            let mut status =
                Status::unimplemented(format!("messages may be gzip or identity, not `{name}`"));
            status = super::status::named(status, Code::UnsupportedMedia);
            let accepted = tonic::metadata::MetadataValue::from_static("identity,gzip");
            status.metadata_mut().insert("grpc-accept-encoding", accepted);
            Err(status)
        }
    }
}

async fn read<Req: Message + Default + 'static>(
    app: &App,
    metadata: &HeaderMap,
    body: Incoming,
) -> Result<(Req, Option<OwnedSemaphorePermit>), Status> {
    if let Some(encoding) = encoding(metadata)? {
        // What it unpacks to is bounded, too, by the decoder.
        let mut room = None;
        app.bodies.grow(&mut room, app.config.request_bytes).map_err(|r| refused(&r))?;
        let mut requests = streaming::<Req>(app, body, Some(encoding));
        let message = requests.message().await?;
        return Ok((message.ok_or_else(missing)?, room));
    }
    let (bytes, room) = one_frame(app, body).await?;
    let message = Req::decode(bytes);
    let message = message.map_err(|e| Status::internal(format!("the request: {e}")))?;
    Ok((message, room))
}

fn missing() -> Status {
    Status::internal("the request has no message")
}

/// The one message of a request that is not compressed.
async fn one_frame(
    app: &App,
    mut body: Incoming,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Status> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut room = None;
    let mut length = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Status::cancelled("the request ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        // Most messages come in one piece, which then is not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        let held = if whole.is_empty() { &first[..] } else { &whole[..] };
        app.bodies.grow(&mut room, held.len()).map_err(|refusal| refused(&refusal))?;
        if length.is_none()
            && let Some(head) = held.first_chunk::<FRAME_HEAD_BYTES>()
        {
            length = Some(frame_length(*head, app.config.request_bytes)?);
        }
        if length.is_some_and(|length| held.len() > length) {
            return Err(Status::internal("the request has more than one message"));
        }
    }
    let mut bytes = if whole.is_empty() { first } else { whole.freeze() };
    if bytes.is_empty() {
        return Err(missing());
    }
    if length != Some(bytes.len()) {
        return Err(Status::internal("the request's message is cut short"));
    }
    bytes.advance(FRAME_HEAD_BYTES);
    Ok((bytes, room))
}

/// The length of a whole frame with this head.
fn frame_length(head: [u8; FRAME_HEAD_BYTES], limit: usize) -> Result<usize, Status> {
    let [flag, length @ ..] = head;
    if flag != 0 {
        return Err(Status::internal("a compressed message needs the metadata grpc-encoding"));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(too_long_by(length, limit));
    }
    Ok(FRAME_HEAD_BYTES + length)
}

fn streaming<M: Message + Default + 'static>(
    app: &App,
    body: Incoming,
    encoding: Option<CompressionEncoding>,
) -> Streaming<M> {
    let decoder = ProstCodec::<(), M>::default().decoder();
    Streaming::new_request(decoder, body, encoding, Some(app.config.request_bytes))
}

/// The requests of a stream.
pub(crate) struct Requests<M>(Streaming<M>);

/// Most requests that are handed on together.
const BATCH_MAX: usize = 256;

impl<M: Message + Default + 'static> Requests<M> {
    /// The next one; `None` when the client has half-closed.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, Status> {
        self.0.message().await.map_err(told)
    }

    /// The next one and all that are there with it, into `batch`. Returns whether more may come.
    pub(crate) async fn batch(&mut self, batch: &mut Vec<M>) -> Result<bool, Status> {
        let Some(first) = self.next().await? else { return Ok(false) };
        batch.push(first);
        while batch.len() < BATCH_MAX {
            let more = tokio::select! {
                biased;
                more = self.0.message() => more.map_err(told)?,
                () = std::future::ready(()) => return Ok(true),
            };
            let Some(more) = more else { return Ok(false) };
            batch.push(more);
        }
        Ok(true)
    }
}

/// The requests of a stream's call.
pub(crate) fn requests<M: Message + Default + 'static>(
    app: &App,
    metadata: &HeaderMap,
    body: Incoming,
) -> Result<Requests<M>, Status> {
    Ok(Requests(streaming(app, body, encoding(metadata)?)))
}
