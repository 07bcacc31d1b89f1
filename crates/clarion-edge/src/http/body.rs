//! Reading a request's body: bounded in bytes and time, and all bodies of a listener together in bytes.
//!
//! Invariant: no byte of a body is kept without room for it, and the room is held until the request's handler is done.

use super::auth::check_content_type;
use super::problem::Failure;
use super::router::App;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use clarion_core::{Code, Refusal};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that are counted as one.
const UNIT: usize = 1 << 10;

/// The room for the bodies of a listener's requests.
pub(super) struct Bodies(Arc<Semaphore>);

impl Bodies {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(UNIT).min(Semaphore::MAX_PERMITS))))
    }

    /// Grows what a body holds to so many bytes.
    fn grow(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), Refusal> {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let room = u32::try_from(more).ok().and_then(|more| {
            // Waiting for others' bodies would keep this one's bytes, too.
            self.0.clone().try_acquire_many_owned(more).ok()
        });
        let room = room.ok_or_else(|| {
            Refusal::new(Code::Overloaded, "too many bytes of requests are under way")
        })?;
        match held {
            Some(held) => OwnedSemaphorePermit::merge(held, room),
            None => *held = Some(room),
        }
        Ok(())
    }
}

/// The whole body of a JSON request, and the room that it takes while this lives.
pub(super) struct JsonBytes(pub(super) Bytes, pub(super) Option<OwnedSemaphorePermit>);

impl FromRequest<Arc<App>> for JsonBytes {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        check_content_type(app, request.headers())?;
        let limit = app.config.body_bytes;
        let body = request.into_body();
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large(limit).into());
        }
        let reading = collect(body, limit, &app.bodies);
        match tokio::time::timeout(app.config.body_timeout, reading).await {
            Ok(read) => Ok(read?),
            Err(_) => {
                Err(Refusal::new(Code::RequestTimeout, "the body did not arrive in time").into())
            }
        }
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(Code::RequestTooLarge, format!("the body has more than {limit} bytes"))
}

async fn collect(
    mut body: axum::body::Body,
    limit: usize,
    bodies: &Bodies,
) -> Result<JsonBytes, Refusal> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    let mut held = None;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Refusal::new(Code::BadRequest, "the body could not be read"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len().max(whole.len()) + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        bodies.grow(&mut held, length)?;
        // Most bodies come in one piece, which then is not copied.
        if first.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(JsonBytes(if whole.is_empty() { first } else { whole.freeze() }, held))
}

/// Parses a body; what is wrong is told with its place.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    // Serde would also take the fields in a list, by their order.
    if body.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        return Err(Refusal::new(Code::BadRequest, "body: it must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("body: {error}")))
}
