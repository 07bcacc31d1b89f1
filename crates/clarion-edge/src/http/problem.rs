//! Refusals as `application/problem+json` (RFC 9457), from the one code table.

use axum::response::{IntoResponse, Response};
use clarion_core::{Code, Refusal};
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The kind of problem, in words.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// Stable number of the problem.
    code: u16,
    /// Stable name of the problem.
    name: &'static str,
    /// What was wrong this time.
    detail: String,
    /// Whether the same request can succeed later.
    retry: bool,
}

/// Why one message of a batch was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemError {
    /// Stable number of the problem.
    code: u16,
    /// Stable name of the problem.
    name: &'static str,
    /// What was wrong this time.
    detail: String,
    /// Whether the same message can succeed later.
    retry: bool,
}

impl From<Refusal> for ItemError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, detail } = refusal;
        Self {
            code: code.number(),
            name: code.name(),
            detail: detail.into(),
            retry: code.retryable(),
        }
    }
}

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Refusal);

impl<T: Into<Refusal>> From<T> for Failure {
    fn from(refusal: T) -> Self {
        Self(refusal.into())
    }
}

/// The body of a refusal.
pub(crate) fn problem_json(refusal: &Refusal) -> Vec<u8> {
    let row = refusal.code.row();
    let problem = Problem {
        title: row.title,
        status: row.http,
        code: refusal.code.number(),
        name: row.name,
        detail: refusal.detail.clone().into(),
        retry: refusal.code.retryable(),
    };
    // Plain strings and numbers always serialize.
    serde_json::to_vec(&problem).unwrap_or_default()
}

/// A refusal as a whole HTTP/1.1 response that closes the connection, for those that reach no handler.
pub(crate) fn raw_response(code: Code) -> Vec<u8> {
    raw_refusal(&code.into(), "")
}

/// The same with a reason, and further header lines that end with CRLF.
pub(crate) fn raw_refusal(refusal: &Refusal, headers: &str) -> Vec<u8> {
    let body = problem_json(refusal);
    let status = refusal.code.http();
    let reason = hyper::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason());
    let mut response = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{headers}connection: \
         close\r\n\r\n",
        status,
        reason.unwrap_or_default(),
        body.len()
    )
    .into_bytes();
    response.extend_from_slice(&body);
    response
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(problem_json(&self.0).into());
        *response.status_mut() =
            hyper::StatusCode::from_u16(self.0.code.http()).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.0.code == Code::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.0.code.retryable() {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The refusals that every operation may answer with.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described: the refusals come from the code table")]
pub(crate) enum Refusals {
    /// The request is malformed.
    #[response(status = 400, content_type = "application/problem+json")]
    BadRequest(Problem),
    /// No valid credentials.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The credentials, the network or the `Host` do not allow this.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// There is no such thing.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// This path does not take this method.
    #[response(status = 405, content_type = "application/problem+json")]
    MethodNotAllowed(Problem),
    /// The request did not arrive in time.
    #[response(status = 408, content_type = "application/problem+json")]
    Timeout(Problem),
    /// Somebody else changed it first.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// The request, its payload or its batch is larger than the limit.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(Problem),
    /// The body must be `application/json`.
    #[response(status = 415, content_type = "application/problem+json")]
    UnsupportedMedia(Problem),
    /// The request's head is larger than the limit.
    #[response(status = 431, content_type = "application/problem+json")]
    HeadTooLarge(Problem),
    /// The server made a mistake.
    #[response(status = 500, content_type = "application/problem+json")]
    Internal(Problem),
    /// Too much work, no store, or going down; try again.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
    /// The store is full; try again.
    #[response(status = 507, content_type = "application/problem+json")]
    StoreFull(Problem),
}
