//! JSON Web Tokens of all algorithms, signed by openssl and by `clarion token`, over HTTP and gRPC.

use super::{bearer, clarion, folder, get, publish, text};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL};
use clarion_tests::{Command, Server};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::{SystemTime, UNIX_EPOCH},
};

const ALGORITHMS: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

fn openssl(args: &[&str]) -> Vec<u8> {
    let output = process::Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A private key for each algorithm, the public ones beside them.
fn make_keys(dir: &Path) {
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    fs::write(dir.join("HS256"), openssl(&["rand", "-hex", "32"])).unwrap();
    for (alg, kind) in [
        ("RS256", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"][..]),
        ("ES256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("EdDSA", &["-algorithm", "ED25519"]),
    ] {
        openssl(&[&["genpkey", "-out", &file(alg)], kind].concat());
        openssl(&["pkey", "-in", &file(alg), "-pubout", "-out", &file(&format!("{alg}.pub"))]);
    }
}

fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tokens are of the present")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The two numbers of an ECDSA signature, without the DER around them.
fn without_der(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        ([vec![0; 32 - digits.len()], digits.to_vec()].concat(), at + 2 + length)
    };
    let (r, behind) = number(2);
    [r, number(behind).0].concat()
}

/// A token that openssl signed.
fn sign(dir: &Path, alg: &str, claims: &Value) -> String {
    let part = |json: &Value| BASE64URL.encode(json.to_string());
    let message = format!("{}.{}", part(&json!({"alg": alg, "typ": "JWT"})), part(claims));
    let (file, key) = (dir.join("message"), dir.join(alg));
    fs::write(&file, &message).unwrap();
    let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
    let signature = match alg {
        "HS256" => {
            let secret = fs::read_to_string(key).unwrap();
            let hex: String = secret.trim_end().bytes().map(|b| format!("{b:02x}")).collect();
            let key = format!("hexkey:{hex}");
            openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary", file])
        }
        "EdDSA" => openssl(&["pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", file]),
        "ES256" => without_der(&openssl(&["dgst", "-sha256", "-sign", key, file])),
        _ => openssl(&["dgst", "-sha256", "-sign", key, file]),
    };
    format!("{message}.{}", BASE64URL.encode(signature))
}

fn start(dir: &Path) -> Server {
    let public = |alg: &str| dir.join(format!("{alg}.pub")).to_str().unwrap().to_owned();
    let list = format!("[{}, {}, {}]", public("RS256"), public("ES256"), public("EdDSA"));
    Server::builder()
        .set("listeners.http.auth", "required")
        .set("listeners.grpc.auth", "required")
        .set("auth.jwt.secret_file", text(&dir.join("HS256")))
        .set("auth.jwt.public_keys", &list)
        .start()
}

#[test]
fn every_algorithm_proves_its_user() {
    let dir = folder();
    let dir = dir.path();
    make_keys(dir);
    let server = start(dir);
    for alg in ALGORITHMS {
        let claims = json!({"sub": "carol", "exp": now() + 600});
        let key = dir.join(alg);
        let own = clarion(&["token", "--user", "carol", "--key", text(&key), "--alg", alg]);
        for token in [sign(dir, alg, &claims), own.trim().to_owned()] {
            let auth = bearer(&token);
            assert_eq!(publish(&server, &auth, "user:carol"), "ok", "{alg}");
            assert_eq!(publish(&server, &auth, "topic:a/b"), "ok", "{alg}");
            for address in ["user:dave", "all", "queue:jobs"] {
                assert_eq!(publish(&server, &auth, address), "forbidden", "{alg} {address}");
            }
            assert_eq!(get(&server, &auth, "/api/v1/channels/user:carol/messages"), "ok");
            for target in [
                "/api/v1/channels/user:dave/messages",
                "/api/v1/stream?user=dave",
                "/api/v1/users/dave/presence",
                "/api/v1/sessions",
                "/metrics",
            ] {
                assert_eq!(get(&server, &auth, target), "forbidden", "{alg} {target}");
            }
        }
        let reads = json!({"sub": "carol", "exp": now() + 600, "allow": ["read", "subscribe"]});
        let auth = bearer(&sign(dir, alg, &reads));
        assert_eq!(publish(&server, &auth, "user:carol"), "forbidden");
        let admin = json!({"sub": "root", "exp": now() + 600, "allow": ["publish", "admin"]});
        let auth = bearer(&sign(dir, alg, &admin));
        assert_eq!(publish(&server, &auth, "user:dave"), "ok");
        assert_eq!(publish(&server, &auth, "queue:jobs"), "ok");
    }
    assert!(!server.stderr().contains("eyJ"), "no token is logged");
}

#[test]
fn tokens_that_prove_nothing() {
    let dir = folder();
    let dir = dir.path();
    make_keys(dir);
    let server = start(dir);
    let good = json!({"sub": "carol", "exp": now() + 600});
    let refused = |token: &str, what: &str| {
        let auth = bearer(token);
        assert_eq!(publish(&server, &auth, "user:carol"), "unauthenticated", "{what}");
        assert_eq!(get(&server, &auth, "/api/v1/stream?user=carol"), "unauthenticated", "{what}");
    };
    let foreign = folder();
    make_keys(foreign.path());
    for alg in ALGORITHMS {
        refused(&sign(foreign.path(), alg, &good), "another key");
        refused(&sign(dir, alg, &json!({"sub": "carol", "exp": now() - 600})), "it has expired");
        refused(&sign(dir, alg, &json!({"sub": "carol"})), "it never ends");
        let later = json!({"sub": "carol", "exp": now() + 600, "nbf": now() + 300});
        refused(&sign(dir, alg, &later), "it is not valid yet");
        let token = sign(dir, alg, &good);
        let (message, _) = token.rsplit_once('.').unwrap();
        refused(&format!("{message}."), "it is not signed");
        let other = BASE64URL.encode(json!({"sub": "root", "exp": now() + 600}).to_string());
        let parts: Vec<&str> = token.split('.').collect();
        refused(&format!("{}.{other}.{}", parts[0], parts[2]), "its claims were changed");
    }
    for alg in ["none", "None", "HS384"] {
        let header = BASE64URL.encode(json!({"alg": alg}).to_string());
        let claims = BASE64URL.encode(good.to_string());
        refused(&format!("{header}.{claims}."), alg);
    }
    // Public keys as the secret of HS256.
    for alg in ["RS256", "ES256", "EdDSA"] {
        fs::copy(dir.join(format!("{alg}.pub")), foreign.path().join("HS256")).unwrap();
        refused(&sign(foreign.path(), "HS256", &good), "a public key is no secret");
    }
}

#[test]
fn the_command_signs_with_the_secret_of_the_configuration() {
    let secret = "a secret of more than 32 bytes, as it must be";
    let server = Server::builder()
        .set("listeners.http.auth", "required")
        .set("listeners.grpc.auth", "required")
        .env("CLARION_AUTH__JWT__SECRET", secret)
        .set("auth.jwt.issuer", "us")
        .set("auth.jwt.audience", "clarion")
        .start();
    let dir = folder();
    let file: PathBuf = dir.path().join("secret");
    fs::write(&file, format!("{secret}\n")).unwrap();
    let from_file = format!("auth.jwt.secret_file={}", text(&file));
    let base = ["token", "--user", "carol", "--set", &from_file];
    let with = |more: &[&str]| clarion(&[&base[..], more].concat()).trim().to_owned();
    let ours = ["--set", "auth.jwt.issuer=us", "--set", "auth.jwt.audience=clarion"];
    assert_eq!(publish(&server, &bearer(&with(&ours)), "user:carol"), "ok");
    let options = ["--issuer", "us", "--audience", "clarion", "--ttl", "5m"];
    assert_eq!(publish(&server, &bearer(&with(&options)), "user:carol"), "ok");
    assert_eq!(publish(&server, &bearer(&with(&[])), "user:carol"), "unauthenticated");
    for args in [
        &["token", "--user", "carol"][..],
        &["token", "--user", "", "--key", text(&file)],
        &["token", "--user", "carol", "--key", text(&file), "--alg", "RS256"],
        &["token", "--user", "carol", "--key", text(&file), "--ttl", "soon"],
        &["token", "--user", "carol", "--key", text(&file), "--allow", "everything"],
    ] {
        assert_eq!(Command::clarion(args).status.code(), Some(64), "{args:?}");
    }
    assert!(!server.stderr().contains("a secret"));
}
