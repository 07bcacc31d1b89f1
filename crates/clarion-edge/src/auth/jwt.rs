//! JSON Web Tokens (RFC 7519): which keys are believed, what a token says, and making one.
//!
//! Invariants: a key verifies the one algorithm that it was made for (so `none` is nothing, and a public key is no HMAC
//! secret); every token ends; a key or a token appears in no text and no `Debug`. Must not know: where keys lie.

use clarion_core::address::check_user_id;
use clarion_core::{Code, Millis, Refusal, Verb};
use jsonwebtoken::DecodingKeyKind;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Shortest secret of HS256 (RFC 7518 §3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Shortest modulus of RS256 (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 256;
/// Longest token; longer ones are not looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// What a token's user may do when it does not say.
const ALLOW: [Verb; 3] = [Verb::Publish, Verb::Subscribe, Verb::Read];

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signing {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Signing {
    /// All of them with their names in a token's header.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("HS256", Self::Hs256),
        ("RS256", Self::Rs256),
        ("ES256", Self::Es256),
        ("EdDSA", Self::EdDsa),
    ];

    fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Rs256 => Algorithm::RS256,
            Self::Es256 => Algorithm::ES256,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

#[derive(Clone)]
struct Key {
    signing: Signing,
    id: Option<String>,
    key: DecodingKey,
}

impl Key {
    /// Checks that it is what it says it is.
    fn new(signing: Signing, id: Option<String>, key: DecodingKey) -> Result<Self, String> {
        let made = (DEFAULT_PROVIDER.verifier_factory)(&signing.algorithm(), &key);
        made.map_err(|_| format!("is no key for {}", signing.name()))?;
        let bytes = match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
            DecodingKeyKind::SecretOrDer(der) if signing == Signing::Rs256 => {
                let parts = (DEFAULT_PROVIDER.key_utils.rsa_pub_components_from_public_key)(der);
                parts.map_err(|_| "is no RSA public key".to_owned())?.0.len()
            }
            DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        };
        match signing {
            Signing::Hs256 if bytes < SECRET_BYTES_MIN => Err(format!(
                "has {bytes} bytes: a secret for HS256 has at least {SECRET_BYTES_MIN} (openssl rand -hex 32)"
            )),
            Signing::Rs256 if bytes < RSA_BYTES_MIN => {
                Err(format!("is an RSA key of {} bits, at least 2048 are needed", bytes * 8))
            }
            _ => Ok(Self { signing, id, key }),
        }
    }
}

impl Signing {
    /// Its name in a token's header.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, signing)| *signing == self).map_or("", |(name, _)| name)
    }
}

/// The keys that are believed, and what tokens must say.
#[derive(Clone, Default)]
pub struct JwtKeys {
    keys: Vec<Key>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.keys.iter().map(|key| key.signing.name()).collect();
        f.debug_struct("JwtKeys").field("keys", &kinds).finish_non_exhaustive()
    }
}

/// What a token that is believed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) user: Arc<str>,
    pub(super) allow: Box<[Verb]>,
    pub(super) client_id: Option<Arc<str>>,
    /// From then on it is nothing.
    pub(super) ends: Millis,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    iat: Option<f64>,
    client_id: Option<String>,
    allow: Option<Vec<String>>,
}

impl JwtKeys {
    /// No key yet. Empty texts ask for nothing.
    pub fn new(issuer: &str, audience: &str, leeway: Duration) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Self { keys: Vec::new(), issuer: some(issuer), audience: some(audience), leeway }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds the secret of HS256; a line's end behind it is not part of it.
    pub fn add_secret(&mut self, secret: &[u8]) -> Result<(), String> {
        let key = DecodingKey::from_secret(without_line_end(secret));
        self.keys.push(Key::new(Signing::Hs256, None, key)?);
        Ok(())
    }

    /// Adds a public key in PEM. Its kind tells the one algorithm that it is good for.
    pub fn add_public_pem(&mut self, pem: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("PRIVATE KEY") {
            return Err(
                "is a private key; here its public one belongs (openssl pkey -pubout)".into()
            );
        }
        if !text.contains("PUBLIC KEY") {
            return Err("is no public key in PEM".into());
        }
        let read = DecodingKey::from_rsa_pem(pem).map(|key| (Signing::Rs256, key));
        let read = read.or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| (Signing::Es256, key)));
        let read = read.or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| (Signing::EdDsa, key)));
        let (signing, key) =
            read.map_err(|_| "is no RSA, P-256 or Ed25519 public key in PEM".to_owned())?;
        self.keys.push(Key::new(signing, None, key)?);
        Ok(())
    }

    /// Adds the keys of a JWK set (RFC 7517) that verify tokens in one of the known ways; there must be one.
    pub fn add_jwks(&mut self, json: &[u8]) -> Result<(), String> {
        let set: JwkSet = serde_json::from_slice(json).map_err(|error| {
            format!("is no JWK set: line {}, column {}", error.line(), error.column())
        })?;
        let before = self.keys.len();
        for (number, jwk) in (1..).zip(&set.keys) {
            let Some(signing) = signing_of(jwk) else { continue };
            let key = DecodingKey::from_jwk(jwk)
                .map_err(|_| "cannot be read".to_owned())
                .and_then(|key| Key::new(signing, jwk.common.key_id.clone(), key))
                .map_err(|error| format!("key {number} {error}"))?;
            self.keys.push(key);
        }
        if self.keys.len() == before {
            return Err("has no key for HS256, RS256, ES256 or EdDSA".into());
        }
        Ok(())
    }

    /// Whether a text may be a token: three parts with dots between them, of which the first begins with `{` and a `"` or a
    /// space, in base64. A password that does so has to be another one.
    pub(super) fn looks_like_one(text: &[u8]) -> bool {
        let is_part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
        let begins = text.starts_with(b"ey") || text.starts_with(b"ew");
        begins && text.iter().filter(|b| **b == b'.').count() == 2 && text.iter().all(is_part)
    }

    /// What a token says, if it is to be believed now.
    pub(super) fn verify(&self, token: &[u8], now: Millis) -> Result<Token, Refusal> {
        let refused = |why: &'static str| Refusal::new(Code::Unauthenticated, why);
        if token.len() > TOKEN_BYTES_MAX {
            return Err(refused("the token is longer than any that is taken"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| {
            refused("the token's header is not valid, or its algorithm is not taken")
        })?;
        if header.crit.is_some() {
            return Err(refused("the token asks for an extension that is not known here"));
        }
        let fits = |key: &&Key| {
            let id_ok = match (&key.id, &header.kid) {
                (Some(id), Some(asked)) => id == asked,
                _ => true,
            };
            key.signing.algorithm() == header.alg && id_ok
        };
        let mut why = refused("no key is known for the token's algorithm and key id");
        for key in self.keys.iter().filter(fits) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &self.validation(key.signing)) {
                Ok(data) => return self.read(data.claims, now),
                Err(error) => why = refused(reason(error.kind())),
            }
        }
        Err(why)
    }

    fn validation(&self, signing: Signing) -> Validation {
        let mut validation = Validation::new(signing.algorithm());
        validation.leeway = self.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn read(&self, claims: Claims, now: Millis) -> Result<Token, Refusal> {
        let refused = |why: String| Refusal::new(Code::Unauthenticated, why);
        let leeway = self.leeway.as_secs_f64();
        if claims.iat.is_some_and(|at| at > now as f64 / 1000.0 + leeway) {
            return Err(refused("the token is of the future (iat)".into()));
        }
        let ends = claims.exp.ok_or_else(|| refused("the token has no end (exp)".into()))?;
        let user = claims.sub.ok_or_else(|| refused("the token names no user (sub)".into()))?;
        check_user_id(&user)
            .map_err(|error| refused(format!("the token's user (sub): {error}")))?;
        if let Some(id) = &claims.client_id {
            check_user_id(id)
                .map_err(|error| refused(format!("the token's client_id: {error}")))?;
        }
        let allow = match claims.allow {
            None => ALLOW.into(),
            Some(names) => names
                .iter()
                .map(|name| {
                    let found = Verb::NAMES.iter().find(|(known, _)| known == name);
                    found.map(|(_, verb)| *verb)
                })
                .collect::<Option<Box<[Verb]>>>()
                .ok_or_else(|| {
                    refused("the token allows something that is not known here".into())
                })?,
        };
        // A float beyond what fits becomes the largest number: never.
        let ends = ((ends.trunc() + leeway) * 1000.0) as Millis;
        // The library counts the last second as valid; a connection ends at its beginning.
        if ends <= now {
            return Err(refused("the token has expired".into()));
        }
        Ok(Token { user: user.into(), allow, client_id: claims.client_id.map(Into::into), ends })
    }
}

fn without_line_end(secret: &[u8]) -> &[u8] {
    let secret = secret.strip_suffix(b"\n").unwrap_or(secret);
    secret.strip_suffix(b"\r").unwrap_or(secret)
}

/// How a key of a set is used; `None` = not for tokens, or in no way that is known here.
fn signing_of(jwk: &Jwk) -> Option<Signing> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let signing = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Signing::Rs256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Signing::Es256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Signing::EdDsa
        }
        AlgorithmParameters::OctetKey(_) => Signing::Hs256,
        _ => return None,
    };
    let asked = match jwk.common.key_algorithm {
        None => return Some(signing),
        Some(KeyAlgorithm::HS256) => Signing::Hs256,
        Some(KeyAlgorithm::RS256) => Signing::Rs256,
        Some(KeyAlgorithm::ES256) => Signing::Es256,
        Some(KeyAlgorithm::EdDSA) => Signing::EdDsa,
        Some(_) => return None,
    };
    (asked == signing).then_some(signing)
}

fn reason(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet (nbf)",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the token has no end (exp)",
            "iss" => "the token names no issuer (iss)",
            _ => "the token names no audience (aud)",
        },
        ErrorKind::InvalidSignature => "the token's signature is not valid",
        ErrorKind::Json(_) | ErrorKind::InvalidClaimFormat(_) => "the token's claims are not valid",
        _ => "the token is not valid",
    }
}

/// A token to make.
#[derive(Debug, Clone)]
pub struct TokenSpec {
    /// `sub`.
    pub user: String,
    /// `client_id`.
    pub client_id: Option<String>,
    /// What it allows; `None` = it does not say.
    pub allow: Option<Vec<Verb>>,
    /// How long it lives.
    pub ttl: Duration,
    /// `iss`; empty = none.
    pub issuer: String,
    /// `aud`; empty = none.
    pub audience: String,
    /// `kid`.
    pub key_id: Option<String>,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    sub: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<&'static str>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
}

/// What signs a token.
pub struct SigningKey {
    signing: Signing,
    key: EncodingKey,
}

impl SigningKey {
    /// A private key in PEM (PKCS#8, RSA also PKCS#1), or else the secret of HS256.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            let secret = without_line_end(bytes);
            Key::new(Signing::Hs256, None, DecodingKey::from_secret(secret))?;
            return Ok(Self { signing: Signing::Hs256, key: EncodingKey::from_secret(secret) });
        }
        if !String::from_utf8_lossy(bytes).contains("PRIVATE KEY") {
            return Err("is no private key: tokens are signed with the private one".into());
        }
        let read = EncodingKey::from_ec_pem(bytes).map(|key| (Signing::Es256, key));
        let read =
            read.or_else(|_| EncodingKey::from_ed_pem(bytes).map(|key| (Signing::EdDsa, key)));
        let read =
            read.or_else(|_| EncodingKey::from_rsa_pem(bytes).map(|key| (Signing::Rs256, key)));
        let (signing, key) = read.map_err(|_| {
            "is no RSA, P-256 or Ed25519 private key in PKCS#8 PEM (openssl pkcs8 -topk8 -nocrypt)".to_owned()
        })?;
        Ok(Self { signing, key })
    }

    /// How it signs.
    pub fn signing(&self) -> Signing {
        self.signing
    }

    /// Makes a token.
    pub fn make(&self, spec: &TokenSpec, now: Millis) -> Result<String, String> {
        check_user_id(&spec.user).map_err(|error| format!("the user: {error}"))?;
        let iat = now / 1000;
        let name = |verb: &Verb| Verb::NAMES.iter().find(|(_, v)| v == verb).map(|(name, _)| *name);
        let claims = NewClaims {
            sub: &spec.user,
            iat,
            exp: iat.saturating_add(spec.ttl.as_secs()),
            client_id: spec.client_id.as_deref(),
            allow: spec.allow.as_ref().map(|allow| allow.iter().filter_map(name).collect()),
            iss: &spec.issuer,
            aud: &spec.audience,
        };
        let mut header = Header::new(self.signing.algorithm());
        header.kid.clone_from(&spec.key_id);
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|_| format!("the key cannot sign with {}", self.signing.name()))
    }
}

#[cfg(test)]
mod tests;
