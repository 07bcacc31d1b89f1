//! Whom a listener trusts: networks, and bearer keys.
//!
//! Must not know: how a protocol carries a key.

use clarion_core::{Code, Principal, Refusal};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;

/// Whether connections from an address are taken.
pub type AllowFrom = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A static bearer key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Who it is.
    pub principal: Principal,
}

/// Who sent this `Authorization: Bearer KEY`.
pub(crate) fn bearer(keys: &[ApiKey], header: Option<&str>) -> Result<Principal, Refusal> {
    let missing = || Refusal::new(Code::Unauthenticated, "send 'Authorization: Bearer KEY'");
    let (scheme, key) = header.and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let digest: [u8; 32] = Sha256::digest(key.trim().as_bytes()).into();
    let known = keys.iter().find(|known| known.sha256 == digest);
    known
        .map(|known| known.principal.clone())
        .ok_or_else(|| Refusal::new(Code::Unauthenticated, "the key is not known here"))
}
