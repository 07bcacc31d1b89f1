//! The address of a server: `http://host[:port][/prefix]`, nothing more. Owns percent-encoding of path segments and query
//! values. Must not know: what is asked of the server.

use std::{fmt, str::FromStr};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    host: String,
    port: u16,
    prefix: String,
}

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("{0:?}: expected http://host:port")]
    Scheme(String),
    /// Nothing, or something odd, where the host should be.
    #[error("{0:?} has no valid host")]
    Host(String),
    /// Not a number from 1 to 65535.
    #[error("{0:?} has no valid port")]
    Port(String),
}

impl BaseUrl {
    /// The host as a connect takes it: IPv6 without brackets.
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port, 80 when the text had none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as the `host` header has it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The target of a request: the prefix and this absolute path.
    pub fn target(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.prefix)
    }
}

impl Default for BaseUrl {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 8080, prefix: String::new() }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

impl FromStr for BaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let scheme = text.get(..7).filter(|s| s.eq_ignore_ascii_case("http://"));
        let rest = match scheme {
            Some(_) => &text[7..],
            None => return Err(UrlError::Scheme(text.into())),
        };
        let (authority, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority).ok_or_else(|| UrlError::Host(text.into()))?;
        let odd =
            |c: char| c.is_whitespace() || c.is_control() || "@?#/\\%".contains(c) || !c.is_ascii();
        if host.is_empty() || host.contains(odd) {
            return Err(UrlError::Host(text.into()));
        }
        if prefix.contains(|c: char| {
            c.is_whitespace() || c.is_control() || "?#".contains(c) || !c.is_ascii()
        }) {
            return Err(UrlError::Host(text.into()));
        }
        let digits =
            |p: &str| p.bytes().all(|b| b.is_ascii_digit()).then(|| p.parse().ok()).flatten();
        let port = match port {
            None => 80,
            Some(port) => {
                digits(port).filter(|port| *port != 0).ok_or_else(|| UrlError::Port(text.into()))?
            }
        };
        Ok(Self { host: host.into(), port, prefix: prefix.trim_end_matches('/').into() })
    }
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters: fit for one path segment and for a query value.
pub fn encode_component(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests;
