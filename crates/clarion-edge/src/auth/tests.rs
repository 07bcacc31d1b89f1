//! Proofs of every kind, and names without one.

use super::*;
use clarion_core::Address;
use clarion_core::acl::{Acl, Pattern, Rule};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn credentials() -> Credentials {
    let key = |name: &str, allow: &[Verb], users: Option<Vec<Box<str>>>| ApiKey {
        sha256: Sha256::digest(name).into(),
        principal: Principal::new(name, allow, users),
    };
    let all = Verb::NAMES.map(|(_, verb)| verb);
    let mut jwt = JwtKeys::new("", "", Duration::ZERO);
    jwt.add_secret(SECRET).unwrap();
    let hash = hash_password(b"secret").unwrap();
    Credentials {
        keys: vec![key("app", &all, None), key("bobs", &all, Some(vec!["bob".into()]))],
        passwords: Some(Arc::new(PasswordFile::parse(&format!("alice:{hash}\n")).unwrap())),
        jwt: Some(jwt),
    }
}

fn authenticator(acl: Option<&AclCell>) -> Authenticator {
    Authenticator::new(AuthConfig {
        credentials: credentials(),
        acl: acl.cloned(),
        password_checks: 2,
        password_queue: 2,
        cache_entries: 10,
        cache_time: Duration::from_secs(60),
    })
    .unwrap()
}

fn token(user: &str, client_id: Option<&str>) -> String {
    let spec = TokenSpec {
        user: user.into(),
        client_id: client_id.map(Into::into),
        allow: None,
        ttl: Duration::from_secs(60),
        issuer: String::new(),
        audience: String::new(),
        key_id: None,
    };
    SigningKey::read(SECRET).unwrap().make(&spec, clock::now()).unwrap()
}

fn user(identity: &Identity) -> Option<&str> {
    identity.user.as_deref()
}

#[tokio::test]
async fn passwords_of_the_file() {
    let auth = authenticator(None);
    for _ in 0..2 {
        let alice = auth.password("alice", b"secret", Some("c")).await.unwrap();
        assert_eq!((user(&alice), alice.expires_at), (Some("alice"), None));
        assert_eq!(alice.principal.client().map(|client| &**client), Some("c"));
        assert!(alice.principal.allows(Verb::Publish, &Address::user("alice").unwrap()));
        assert!(!alice.principal.allows(Verb::Publish, &Address::user("bob").unwrap()));
    }
    let mut told = Vec::new();
    for (user, password) in [("alice", "Secret"), ("bob", "secret"), ("", "secret"), ("alice", "")]
    {
        let refusal = auth.password(user, password.as_bytes(), None).await.unwrap_err();
        assert_eq!(refusal.code, Code::Unauthenticated);
        told.push(refusal.detail);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "whether a user exists is not told");
    // What was remembered is forgotten with the file.
    auth.replace(Credentials::default());
    assert!(auth.password("alice", b"secret", None).await.is_err());
}

#[tokio::test]
async fn a_password_that_was_right_costs_nothing_again() {
    let auth = authenticator(None);
    let many = |password: &'static [u8]| {
        let checks: Vec<_> = (0..20).map(|_| auth.password("alice", password, None)).collect();
        async move {
            let mut overloaded = 0;
            for check in futures_of(checks).await {
                overloaded += usize::from(matches!(check, Err(r) if r.code == Code::Overloaded));
            }
            overloaded
        }
    };
    auth.password("alice", b"secret", None).await.unwrap();
    assert_eq!(many(b"secret").await, 0);
    assert!(many(b"wrong").await > 0, "those that are wrong are checked, as many as may wait");
}

/// Polls all of them to their ends, all at once.
async fn futures_of<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn tokens_as_passwords() {
    let auth = authenticator(None);
    let (free, bound) = (token("carol", None), token("carol", Some("c1")));
    for name in ["", "carol"] {
        let carol = auth.password(name, free.as_bytes(), Some("x")).await.unwrap();
        assert_eq!((user(&carol), &carol.client_id), (Some("carol"), &None));
        assert!(carol.expires_at.is_some());
    }
    let refused = auth.password("dave", free.as_bytes(), None).await.unwrap_err();
    assert_eq!(refused.detail, "the token is of another user");
    for given in [None, Some(""), Some("c1")] {
        let carol = auth.password("carol", bound.as_bytes(), given).await.unwrap();
        assert_eq!(carol.client_id.as_deref(), Some("c1"));
    }
    let refused = auth.password("carol", bound.as_bytes(), Some("c2")).await.unwrap_err();
    assert_eq!(refused.detail, "the token is for another client id");
    auth.replace(Credentials { jwt: None, ..credentials() });
    assert!(auth.password("carol", free.as_bytes(), None).await.is_err());
}

#[tokio::test]
async fn keys_as_passwords_act_for_whom_they_may() {
    let auth = authenticator(None);
    let as_anybody = auth.password("dave", b"app", None).await.unwrap();
    assert_eq!(user(&as_anybody), Some("dave"));
    assert_eq!(user(&auth.password("", b"app", None).await.unwrap()), None);
    assert_eq!(user(&auth.password("bob", b"bobs", None).await.unwrap()), Some("bob"));
    let refused = auth.password("dave", b"bobs", None).await.unwrap_err();
    assert_eq!(refused.code, Code::Forbidden);
}

#[tokio::test]
async fn headers() {
    let auth = authenticator(None);
    let header = async |text: &str| auth.header(Some(text)).await;
    let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
    assert_eq!(header("Bearer app").await.unwrap().principal.name(), "app");
    let carol = header(&format!("bearer {}", token("carol", None))).await.unwrap();
    assert_eq!(user(&carol), Some("carol"));
    assert_eq!(user(&header(&basic("alice:secret")).await.unwrap()), Some("alice"));
    assert_eq!(user(&header(&basic("dave:app")).await.unwrap()), Some("dave"));
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "Basic",
        "Basic !",
        "Digest x",
        &basic("alice"),
        &basic("alice:wrong"),
        &basic("\u{0}:x"),
        // A key acts for users, not for what is no name.
        &basic("\u{0}:app"),
        &basic(&format!("{}:app", "x".repeat(5000))),
    ] {
        assert_eq!(header(bad).await.unwrap_err().code, Code::Unauthenticated, "{bad}");
    }
    assert_eq!(auth.header(None).await.unwrap_err().code, Code::Unauthenticated);
}

#[test]
fn names_without_proof_and_certificates() {
    let pattern = |text| vec![Pattern::parse(text).unwrap()];
    let rule = |text| Rule {
        allow: true,
        publish: true,
        subscribe: true,
        patterns: pattern(text),
        subjects: None,
    };
    let cell = AclCell::new(Acl::new(vec![rule("topic:%u/%c")], false));
    let auth = authenticator(Some(&cell));
    let topic = Address::topic("a/c").unwrap();
    let may = |identity: &Identity| identity.principal.allows(Verb::Publish, &topic);
    assert!(may(&auth.open(Some("a"), Some("c"))));
    assert!(!may(&auth.open(Some("a"), Some("d"))) && !may(&auth.open(None, Some("c"))));
    assert!(!may(&auth.open(Some(""), None)) && user(&auth.open(Some(""), None)).is_none());
    assert!(may(&auth.certificate("a", Some("c")).unwrap()));
    assert!(!may(&auth.certificate("b", Some("c")).unwrap()));
    assert!(auth.certificate("", None).is_err() && auth.certificate("a\u{0}b", None).is_err());
    cell.replace(Acl::new(Vec::new(), true));
    assert!(may(&auth.open(None, None)));
    let open = authenticator(None).open(Some("a"), Some("c"));
    assert_eq!((user(&open), open.principal.acl_version()), (Some("a"), 0));
}
