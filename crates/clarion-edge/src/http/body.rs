//! Reading a request's body: bounded in bytes and time, and all bodies of a listener together in bytes (`bodies`).
//!
//! Invariant: no byte of a body is kept without room for it, and the room is held until the request's handler is done.

use super::auth::check_content_type;
use super::problem::Failure;
use super::router::App;
use crate::bodies::Bodies;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use clarion_core::{Code, Refusal};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

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
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    // Serde would also take the fields in a list, by their order.
    if body.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
        return Err(Refusal::new(Code::BadRequest, "body: it must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(Code::BadRequest, format!("body: {error}")))
}

/// Reads a list, but keeps `KEPT` entries at most: one of tiny entries would take many times the size of its text, and
/// one that is too long is refused anyway.
pub(super) fn bounded<'de, T, const KEPT: usize, D>(input: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Entries<T, const KEPT: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const KEPT: usize> Visitor<'de> for Entries<T, KEPT> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut kept = Vec::new();
            while let Some(entry) = entries.next_element()? {
                if kept.len() < KEPT {
                    kept.push(entry);
                }
            }
            Ok(kept)
        }
    }
    input.deserialize_seq(Entries::<T, KEPT>(PhantomData))
}
