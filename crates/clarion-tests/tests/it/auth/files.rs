//! Files that are missing or broken: the start and `check-config` say which, by key and path, and tell no secret.

use super::{folder, text};
use clarion_tests::{Command, Server};
use std::fs;

#[test]
fn what_cannot_be_read_is_told_at_the_start() {
    let dir = folder();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = dir.path().join("missing");
    let missing = text(&missing);
    let secret = file("secret", "too short a secret");
    let passwords = file("passwords", "alice:secret-word\n");
    let rules = file("rules", "- {allow: [publish], on: 'topic:a+'}\n");
    let strangers = file("strangers", "- {allow: [publish], on: all, who: 'key:stranger'}\n");
    let jwks = file("jwks", "{\"keys\": []}");
    for (key, value, expected) in [
        (
            "auth.password_file",
            missing,
            format!("cannot be opened: No such file or directory (os error 2) ({missing})"),
        ),
        (
            "auth.password_file",
            &passwords,
            format!("line 1: what stands behind the last ':' is no hash ({passwords})"),
        ),
        (
            "auth.jwt.secret_file",
            &secret,
            "has 18 bytes: a secret for HS256 has at least 32".into(),
        ),
        ("auth.jwt.jwks_file", &jwks, "has no key for HS256, RS256, ES256 or EdDSA".into()),
        (
            "auth.acl_file",
            missing,
            format!("cannot be opened: No such file or directory (os error 2) ({missing})"),
        ),
        ("auth.acl_file", &strangers, "a rule is about key:stranger".into()),
        ("auth.acl_file", &rules, "'topic:a+': '+' stands alone in its level".into()),
    ] {
        let failed = Server::builder().set(key, value).try_start().expect_err("a broken file");
        assert_eq!(failed.status.code(), Some(64), "{key}: {}", failed.stderr);
        let set = format!("{key}={value}");
        let checked = Command::clarion(["check-config", "--set", &set]);
        let stderr = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(checked.status.code(), Some(64), "{stderr}");
        for told in [&failed.stderr, &stderr] {
            assert!(told.contains(&expected) && told.contains("clarion: auth."), "{told}");
            assert!(!told.contains("secret-word") && !told.contains("too short"), "{told}");
        }
    }
    let listed = format!("auth.jwt.public_keys=[{secret}]");
    let checked = Command::clarion(["check-config", "--set", &listed]);
    let stderr = String::from_utf8(checked.stderr).unwrap();
    assert!(stderr.contains("auth.jwt.public_keys[0]: is no public key in PEM"), "{stderr}");
}

#[test]
fn required_without_any_proof_does_not_start() {
    let failed = Server::builder().set("listeners.http.auth", "required").try_start();
    let failed = failed.expect_err("nobody could come in");
    assert_eq!(failed.status.code(), Some(64));
    let told = "listeners.http.auth: required, but nothing proves who somebody is";
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
}
