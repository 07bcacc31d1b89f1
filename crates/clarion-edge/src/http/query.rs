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
        if !is_utf8(parts.uri.query().unwrap_or_default()) {
            return Err(Refusal::new(Code::BadRequest, "query: it is not UTF-8").into());
        }
        let Query(params) = Query::<T>::try_from_uri(&parts.uri)
            .map_err(|e| Refusal::new(Code::BadRequest, format!("query: {}", e.body_text())))?;
        Ok(Self(params))
    }
}

/// Whether a query string is UTF-8 once its escapes are decoded; the decoder behind `Query` would replace what is not.
fn is_utf8(query: &str) -> bool {
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let (mut bytes, mut rest) = (Vec::with_capacity(query.len()), query.as_bytes());
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, hex(after.first()), hex(after.get(1))) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[2..];
            }
            _ => bytes.push(*byte),
        }
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// The part of the path that is open, percent-decoded; a tuple when there are several.
pub(super) struct Part<T = String>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Part<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let part: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(part) =
            part.map_err(|e| Refusal::new(Code::BadRequest, format!("path: {}", e.body_text())))?;
        Ok(Self(part))
    }
}

/// An address that may be read: dead lists too.
pub(super) fn readable(text: &str) -> Result<Address, Refusal> {
    Ok(Address::parse(text)?)
}

#[cfg(test)]
mod tests {
    use super::is_utf8;

    #[test]
    fn escapes_are_looked_through() {
        for good in ["", "user=%C3%BC", "user=ü", "a=%", "a=%4", "a=%zz", "%F0%9F%A6%80"] {
            assert!(is_utf8(good), "{good}");
        }
        for bad in ["user=%FF", "%C3(", "a=%ED%A0%80", "%c3"] {
            assert!(!is_utf8(bad), "{bad}");
        }
    }
}
