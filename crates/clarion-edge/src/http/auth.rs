//! Who asks: keys, tokens and passwords, and what an open listener demands instead.
//!
//! Invariant: with `auth: none` only requests to an IP address or `localhost` are answered (a page in a browser cannot
//! reach an open listener under a name of its own), and bodies must be JSON by content type (no simple form posts).

use super::problem::Failure;
use super::router::App;
use axum::extract::{FromRequestParts, Request};
use clarion_core::{Code, Principal, Refusal};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Version};
use std::net::IpAddr;
use std::sync::Arc;

/// The principal of a request.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        Ok(Self(authenticate(app, &parts.headers).await?))
    }
}

async fn authenticate(app: &App, headers: &HeaderMap) -> Result<Principal, Refusal> {
    if !app.config.auth_required {
        return Ok(app.open_principal.clone());
    }
    let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    Ok(app.config.auth.header(header).await?.principal)
}

/// What every request to this listener must satisfy.
pub(super) fn check_host(app: &App, request: &Request) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next().is_some());
    // RFC 9112 §3.2; which one of several would be believed depends on who reads.
    if more || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Refusal::new(Code::BadRequest, "an HTTP/1.1 request has exactly one Host"));
    }
    if app.config.auth_required {
        return Ok(());
    }
    // HTTP/1.0 has no Host; a browser always sends one.
    let Some(host) = host else { return Ok(()) };
    let allowed = host.to_str().is_ok_and(is_ip_or_localhost);
    if allowed { Ok(()) } else { Err(Code::HostForbidden.into()) }
}

/// Whether a host, with or without a port, is one that no page in a browser can have for a name of its own.
pub(crate) fn is_ip_or_localhost(host: &str) -> bool {
    name_of(host).is_some_and(|name| is_localhost(name) || name.parse::<IpAddr>().is_ok())
}

/// Whether a host, with or without a port, is this machine by whatever it is asked.
pub(crate) fn is_this_machine(host: &str) -> bool {
    let is_loopback =
        |name: &str| name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    name_of(host).is_some_and(|name| is_localhost(name) || is_loopback(name))
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

/// A host without its port and brackets.
fn name_of(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (name, "") => Some(name),
            (name, port) => port.strip_prefix(':').is_some_and(is_port).then_some(name),
        },
        None => match host.split_once(':') {
            Some((name, port)) => is_port(port).then_some(name),
            None => Some(host),
        },
    }
}

/// What a body's content type must be.
pub(super) fn check_content_type(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    if app.config.auth_required {
        return Ok(());
    }
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    if media.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(Refusal::new(
            Code::UnsupportedMedia,
            "an open listener takes only bodies with 'content-type: application/json'",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::{is_ip_or_localhost, is_this_machine};

    #[test]
    fn hosts() {
        for good in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "localhost",
            "LocalHost:1",
            "[::1]:80",
            "[::1]",
            "10.1.2.3",
        ] {
            assert!(is_ip_or_localhost(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.evil.com",
            "localhost:x",
            "127.0.0.1.nip.io:80",
            "[::1]x",
            "a:b:c",
        ] {
            assert!(!is_ip_or_localhost(bad) && !is_this_machine(bad), "{bad}");
        }
        for here in ["127.0.0.1", "127.8.9.1:80", "localhost:1", "[::1]:80", "[::ffff:127.0.0.1]"] {
            assert!(is_this_machine(here), "{here}");
        }
        for other in ["10.1.2.3", "192.168.0.1:80", "[fe80::1]", "0.0.0.0", "[::ffff:10.0.0.1]:1"] {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
