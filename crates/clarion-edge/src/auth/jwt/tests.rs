//! Tokens that are taken, and every way in which one is not.

use super::*;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use serde_json::{Value, json};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: Millis = 1_700_000_000_000;

/// Private and public key of each algorithm.
const PAIRS: [(Signing, &[u8], &[u8]); 3] = [
    (Signing::Rs256, include_bytes!("keys/rsa.pem"), include_bytes!("keys/rsa.pub.pem")),
    (Signing::Es256, include_bytes!("keys/p256.pem"), include_bytes!("keys/p256.pub.pem")),
    (Signing::EdDsa, include_bytes!("keys/ed25519.pem"), include_bytes!("keys/ed25519.pub.pem")),
];

fn spec(user: &str) -> TokenSpec {
    TokenSpec {
        user: user.into(),
        client_id: None,
        allow: None,
        ttl: Duration::from_secs(3600),
        issuer: String::new(),
        audience: String::new(),
        key_id: None,
    }
}

fn now() -> Millis {
    jsonwebtoken::get_current_timestamp() * 1000
}

fn keys() -> JwtKeys {
    JwtKeys::new("", "", Duration::from_secs(10))
}

fn with_secret() -> JwtKeys {
    let mut keys = keys();
    keys.add_secret(SECRET).unwrap();
    keys
}

fn part(json: &Value) -> String {
    BASE64URL.encode(json.to_string())
}

/// A token with any header and claims, signed as HS256.
fn signed(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

fn hs256(claims: &Value) -> String {
    signed(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

fn why(keys: &JwtKeys, token: &str) -> String {
    let refusal = keys.verify(token.as_bytes(), now()).unwrap_err();
    assert_eq!(refusal.code, Code::Unauthenticated);
    assert!(!refusal.detail.contains(token));
    refusal.detail.into_owned()
}

#[test]
fn each_algorithm_signs_and_verifies_with_its_own_key_alone() {
    let mut made = vec![(Signing::Hs256, SigningKey::read(SECRET).unwrap(), with_secret())];
    for (signing, private, public) in PAIRS {
        let mut keys = keys();
        keys.add_public_pem(public).unwrap();
        let key = SigningKey::read(private).unwrap();
        assert_eq!(key.signing(), signing);
        made.push((signing, key, keys));
    }
    for (signing, key, _) in &made {
        let token = key.make(&spec("alice"), now()).unwrap();
        for (other, _, keys) in &made {
            let verified = keys.verify(token.as_bytes(), now());
            assert_eq!(verified.is_ok(), signing == other, "{signing:?} {other:?}");
        }
        let mut changed = token.clone().into_bytes();
        let place = token.rfind('.').unwrap() + 10;
        changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
        for (_, _, keys) in &made {
            assert!(keys.verify(&changed, now()).is_err());
        }
    }
}

#[test]
fn what_a_token_says() {
    let key = SigningKey::read(SECRET).unwrap();
    let spec = TokenSpec {
        client_id: Some("c1".into()),
        allow: Some(vec![Verb::Subscribe, Verb::Admin]),
        ..spec("alice")
    };
    let token = key.make(&spec, now()).unwrap();
    let said = with_secret().verify(token.as_bytes(), now()).unwrap();
    assert_eq!((&*said.user, said.client_id.as_deref()), ("alice", Some("c1")));
    assert_eq!(*said.allow, [Verb::Subscribe, Verb::Admin]);
    assert!((3_605_000..=3_615_000).contains(&(said.ends - now())), "{said:?}");
    let plain = hs256(&json!({"sub": "u", "exp": 4e9}));
    let said = with_secret().verify(plain.as_bytes(), now()).unwrap();
    assert_eq!((*said.allow).to_vec(), ALLOW);
    assert_eq!(said.ends, 4_000_000_010_000);
    let forever = hs256(&json!({"sub": "u", "exp": u64::MAX}));
    assert_eq!(with_secret().verify(forever.as_bytes(), now()).unwrap().ends, Millis::MAX);
}

#[test]
fn tokens_that_are_not_believed() {
    let s = now() / 1000;
    let keys = with_secret();
    for (claims, expected) in [
        (json!({"sub": "u", "exp": s - 11}), "the token has expired"),
        (json!({"sub": "u"}), "the token has no end (exp)"),
        (json!({"sub": "u", "exp": "never"}), "the token"),
        (json!({"sub": "u", "exp": -5}), "the token"),
        (json!({"sub": "u", "exp": null}), "the token"),
        (json!({"sub": "u", "exp": s + 60, "nbf": s + 30}), "the token is not valid yet (nbf)"),
        (json!({"sub": "u", "exp": s + 60, "iat": s + 30}), "the token is of the future (iat)"),
        (json!({"sub": "u", "exp": s + 60, "aud": "x"}), "the token is for another audience"),
        (json!({"exp": s + 60}), "the token names no user (sub)"),
        (json!({"sub": "", "exp": s + 60}), "the token's user (sub): "),
        (json!({"sub": "a\u{0}", "exp": s + 60}), "the token's user (sub): "),
        (json!({"sub": 5, "exp": s + 60}), "the token's claims are not valid"),
        (json!({"sub": "u", "exp": s + 60, "client_id": 7}), "the token's claims are not valid"),
        (json!({"sub": "u", "exp": s + 60, "allow": ["all"]}), "the token allows something"),
        (json!({"sub": "u", "exp": s + 60, "allow": "admin"}), "the token's claims are not valid"),
        (json!(["sub"]), "the token"),
    ] {
        let told = why(&keys, &hs256(&claims));
        assert!(told.starts_with(expected), "{claims}: {told}");
    }
    // Within the leeway.
    for claims in [
        json!({"sub": "u", "exp": s - 5}),
        json!({"sub": "u", "exp": s + 60, "nbf": s + 5, "iat": s + 5}),
    ] {
        assert!(keys.verify(hs256(&claims).as_bytes(), now()).is_ok(), "{claims}");
    }
}

#[test]
fn issuer_and_audience_when_they_are_asked_for() {
    let s = now() / 1000;
    let mut keys = JwtKeys::new("me", "clarion", Duration::ZERO);
    keys.add_secret(SECRET).unwrap();
    for (issuer, audience, expected) in [
        (json!("me"), json!("clarion"), None),
        (json!("me"), json!(["x", "clarion"]), None),
        (json!("you"), json!("clarion"), Some("the token is of another issuer")),
        (json!(null), json!("clarion"), Some("the token names no issuer (iss)")),
        (json!("me"), json!("x"), Some("the token is for another audience")),
        (json!("me"), json!(null), Some("the token names no audience (aud)")),
    ] {
        let claims = json!({"sub": "u", "exp": s + 60, "iss": issuer, "aud": audience});
        let told = keys.verify(hs256(&claims).as_bytes(), now()).map_err(|r| r.detail.into_owned());
        assert_eq!(told.err().as_deref(), expected, "{claims}");
    }
}

#[test]
fn headers_that_try_something() {
    let s = now() / 1000;
    let claims = json!({"sub": "u", "exp": s + 60});
    let mut keys = keys();
    let (_, _, rsa) = PAIRS[0];
    keys.add_public_pem(rsa).unwrap();
    // The public key as the secret of an HMAC.
    let confused = signed(&json!({"alg": "HS256"}), &claims, rsa);
    assert_eq!(why(&keys, &confused), "no key is known for the token's algorithm and key id");
    let unsigned = |alg: &str| format!("{}.{}.", part(&json!({"alg": alg})), part(&claims));
    keys.add_secret(SECRET).unwrap();
    for alg in ["none", "None", "NONE", "", "HS1", "HS384", "RS512", "ES384"] {
        let told = why(&keys, &unsigned(alg));
        assert!(told.contains("algorithm"), "{alg}: {told}");
    }
    assert_eq!(why(&keys, &unsigned("HS256")), "the token's signature is not valid");
    let asks = json!({"alg": "HS256", "crit": ["x"], "x": 1});
    assert!(why(&keys, &signed(&asks, &claims, SECRET)).contains("extension"));
    for bad in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "\u{fc}.b.c"] {
        assert!(keys.verify(bad.as_bytes(), NOW).is_err(), "{bad}");
    }
    let long = hs256(&json!({"sub": "u", "exp": s + 60, "x": "y".repeat(TOKEN_BYTES_MAX)}));
    assert!(why(&keys, &long).contains("longer"));
}

#[test]
fn what_may_be_a_token() {
    let key = SigningKey::read(SECRET).unwrap();
    let made = key.make(&spec("u"), now()).unwrap();
    for (text, expected) in [
        (made.as_str(), true),
        ("ewogImFsZyI6IDF9.e30.", true),
        ("my.pass.word", false),
        ("eyes.only", false),
        ("eye.for.an.eye", false),
        ("", false),
    ] {
        assert_eq!(JwtKeys::looks_like_one(text.as_bytes()), expected, "{text}");
    }
}

#[test]
fn key_ids_choose_among_keys_of_a_set() {
    let secret =
        |id: &str, secret: &[u8]| json!({"kty": "oct", "kid": id, "k": BASE64URL.encode(secret)});
    let other = [b'x'; 32];
    let set = json!({"keys": [
        secret("a", SECRET),
        secret("b", &other),
        {"kty": "oct", "use": "enc", "k": BASE64URL.encode(b"short")},
        {"kty": "oct", "alg": "HS512", "k": BASE64URL.encode(b"short")},
        {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"},
        {"kty": "new", "z": 1},
    ]});
    let mut keys = keys();
    keys.add_jwks(set.to_string().as_bytes()).unwrap();
    let claims = json!({"sub": "u", "exp": now() / 1000 + 60});
    let token = |id: Option<&str>, secret| {
        let mut header = json!({"alg": "HS256"});
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        signed(&header, &claims, secret)
    };
    for (id, secret, expected) in [
        (Some("a"), SECRET, true),
        (Some("b"), SECRET, false),
        (Some("b"), &other[..], true),
        (Some("c"), SECRET, false),
        (None, SECRET, true),
        (None, &other[..], true),
    ] {
        assert_eq!(keys.verify(token(id, secret).as_bytes(), now()).is_ok(), expected, "{id:?}");
    }
    for (bad, expected) in [
        ("{", "is no JWK set: line 1"),
        ("[]", "is no JWK set"),
        (r#"{"keys": []}"#, "has no key for"),
        (r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#, "key 1 has 5 bytes"),
        (r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}"#, "key 1 is no key"),
    ] {
        let told = JwtKeys::default().add_jwks(bad.as_bytes()).unwrap_err();
        assert!(told.starts_with(expected), "{bad}: {told}");
    }
}

#[test]
fn keys_that_are_not_taken() {
    let pem = |bytes: &[u8]| JwtKeys::default().add_public_pem(bytes).unwrap_err();
    assert!(pem(PAIRS[0].1).starts_with("is a private key"));
    assert!(pem(include_bytes!("keys/rsa1024.pub.pem")).contains("1024 bits"));
    assert!(pem(include_bytes!("keys/p384.pub.pem")).contains("ES256"));
    assert!(pem(b"secret").starts_with("is no public key"));
    assert!(
        pem(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n").starts_with("is no ")
    );
    let short = JwtKeys::default().add_secret(b"0123456789abcdef0123456789abcde\n").unwrap_err();
    assert!(short.starts_with("has 31 bytes"), "{short}");
    assert!(JwtKeys::default().add_secret(&[SECRET, b"\r\n"].concat()).is_ok());
    assert!(SigningKey::read(b"short").is_err() && SigningKey::read(PAIRS[0].2).is_err());
    assert!(!format!("{:?}", with_secret()).contains("0123"));
}
