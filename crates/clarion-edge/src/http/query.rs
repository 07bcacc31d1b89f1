//! Query strings and path parts, with refusals from the code table.

use super::problem::Failure;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use clarion_core::{Address, Code, Refusal};
use hyper::http::request::Parts;
use serde::de::DeserializeOwned;

/// A query string.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let Query(params) = Query::<T>::try_from_uri(&parts.uri)
            .map_err(|e| Refusal::new(Code::BadRequest, format!("query: {}", e.body_text())))?;
        Ok(Self(params))
    }
}

/// One part of the path, percent-decoded.
pub(super) struct Part(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Part {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let part: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path(part) =
            part.map_err(|e| Refusal::new(Code::BadRequest, format!("path: {}", e.body_text())))?;
        Ok(Self(part))
    }
}

/// An address that may be read: dead lists too.
pub(super) fn readable(text: &str) -> Result<Address, Refusal> {
    Ok(Address::parse(text)?)
}
