//! What can go wrong with a call. Must not know: what the call was.

use std::{fmt, io};

use serde::Deserialize;

use crate::url::UrlError;

/// A refusal by the server, as it put it (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// HTTP status; 0 for an item of a batch.
    #[serde(default)]
    pub status: u16,
    /// Stable number of the code.
    #[serde(default)]
    pub code: u32,
    /// Stable name of the code.
    #[serde(default)]
    pub name: String,
    /// One sentence for people, the same for every refusal of this code.
    #[serde(default)]
    pub title: String,
    /// What it was this time.
    #[serde(default)]
    pub detail: String,
    /// Whether the same request can succeed later.
    #[serde(default)]
    pub retry: bool,
}

impl Problem {
    /// Reads the body of a refusal; a body of another kind becomes the detail, cut at 200 characters.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        let read: Option<Self> = serde_json::from_slice(body).ok();
        let mut problem = read.unwrap_or_else(|| Self {
            status,
            code: 0,
            name: String::new(),
            title: String::new(),
            detail: String::from_utf8_lossy(body).chars().take(200).collect(),
            retry: status == 429 || status >= 500,
        });
        problem.status = status;
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "refused" } else { &self.name };
        write!(f, "{name}")?;
        if self.code != 0 {
            write!(f, " ({})", self.code)?;
        }
        let text = if self.detail.is_empty() { &self.title } else { &self.detail };
        if text.is_empty() {
            write!(f, ": HTTP status {}", self.status)
        } else {
            write!(f, ": {text}")
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address of the server is no address.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// Nobody took the connection: the request was not sent.
    #[error("{authority} is not reachable: {cause}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// Why.
        cause: io::Error,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Problem),
    /// The connection broke while the request was under way: its outcome is not known.
    #[error("the connection broke before the answer: {0}")]
    Broken(String),
    /// No answer in time: its outcome is not known.
    #[error("no answer within {0} s")]
    Timeout(u64),
    /// The answer is not what this client understands.
    #[error("the answer is not understood: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The refusal, if it is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether nobody could be reached.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether trying again later, unchanged, can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) | Self::Timeout(_) => true,
            Self::Refused(problem) => problem.retry,
            Self::Url(_) | Self::Protocol(_) => false,
        }
    }
}
