//! Who comes in: proofs of identity become an [`Identity`], whatever protocol carried them.
//!
//! Static bearer keys, passwords of a file, JSON Web Tokens, client certificates; and names without proof where a listener
//! asks for none. Invariants: credentials are replaced as a whole while requests go on; a refusal tells no secret and not
//! whether a user exists; every check has a bound. Must not know: how a protocol carries a proof, what the identity is used
//! for, where files lie.

mod cache;
mod jwt;
mod passwords;
#[cfg(test)]
mod tests;

pub use jwt::{JwtKeys, Signing, SigningKey, TokenSpec};
pub use passwords::{PasswordFile, check_name, edit as edit_password_file, hash_password};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cache::{Cache, MacKey};
use clarion_core::address::check_user_id;
use clarion_core::{AclCell, Code, Millis, Principal, Refusal, Verb};
use clarion_node::clock;
use jwt::Token;
use passwords::Checks;
use sha2::{Digest, Sha256};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What a user with a password or a certificate may do, within the access rules.
const USER_ALLOW: [Verb; 3] = [Verb::Publish, Verb::Subscribe, Verb::Read];

/// A static bearer key.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Who it is.
    pub principal: Principal,
}

/// Who somebody has proved to be, or says he is where no proof is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What he may do. Carries user and client id for access rules.
    pub principal: Principal,
    /// The user; `None` = anonymous, or a key that is no user.
    pub user: Option<Arc<str>>,
    /// The client id that the token is bound to.
    pub client_id: Option<Arc<str>>,
    /// From then on he is nobody.
    pub expires_at: Option<Millis>,
}

/// What proves an identity.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Static bearer keys.
    pub keys: Vec<ApiKey>,
    /// Users with passwords.
    pub passwords: Option<Arc<PasswordFile>>,
    /// Keys of tokens.
    pub jwt: Option<JwtKeys>,
}

/// See the configuration reference for each.
#[derive(Debug, Clone)]
pub struct AuthConfig {
    /// At the start.
    pub credentials: Credentials,
    /// The rules that every identity is under.
    pub acl: Option<AclCell>,
    /// Passwords that are checked at once.
    pub password_checks: usize,
    /// Passwords that wait to be checked.
    pub password_queue: usize,
    /// Proofs that are remembered.
    pub cache_entries: usize,
    /// How long a password that was right is.
    pub cache_time: Duration,
}

/// See the module. Clones share everything.
#[derive(Debug, Clone)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: RwLock<Arc<State>>,
    acl: Option<AclCell>,
    checks: Checks,
    mac_key: MacKey,
    cache_entries: usize,
    cache_time: Millis,
    open: Principal,
    /// The same without being an administrator.
    open_client: Principal,
}

/// Credentials, and what was proved by them lately.
#[derive(Debug)]
struct State {
    credentials: Credentials,
    passwords: Cache<()>,
    tokens: Cache<Arc<Token>>,
}

impl State {
    fn new(credentials: Credentials, entries: usize) -> Arc<Self> {
        Arc::new(Self { credentials, passwords: Cache::new(entries), tokens: Cache::new(entries) })
    }
}

impl Authenticator {
    /// Ready. Fails only when the system has no random bytes.
    pub fn new(config: AuthConfig) -> Result<Self, String> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|error| format!("no random bytes: {error}"))?;
        let AuthConfig { credentials, acl, cache_entries, .. } = config;
        let shared = Shared {
            state: RwLock::new(State::new(credentials, cache_entries)),
            checks: Checks::new(config.password_checks, config.password_queue),
            mac_key: MacKey::new(key),
            cache_entries,
            cache_time: config.cache_time.as_millis() as Millis,
            open: Principal::open().under(acl.as_ref()),
            open_client: Principal::open_client().under(acl.as_ref()),
            acl,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Other credentials from now on. What was remembered of the old ones is forgotten; who is in stays in.
    pub fn replace(&self, credentials: Credentials) {
        let state = State::new(credentials, self.shared.cache_entries);
        *self.shared.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The access rules, to be replaced there.
    pub fn acl(&self) -> Option<&AclCell> {
        self.shared.acl.as_ref()
    }

    fn state(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who gives this name and this password. The password may be a token, whose user the name must be when there is one, or
    /// a static key, which then acts for the user of this name. With a client id it must be the one that a token is bound to.
    pub async fn password(
        &self,
        user: &str,
        password: &[u8],
        client_id: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let state = self.state();
        if let Some(principal) = find_key(&state.credentials.keys, password) {
            return self.key_for_user(principal, user, client_id);
        }
        if let Some(jwt) =
            state.credentials.jwt.as_ref().filter(|_| JwtKeys::looks_like_one(password))
        {
            let token = self.token(&state, jwt, password)?;
            if !user.is_empty() && *user != *token.user {
                return Err(Refusal::new(Code::Unauthenticated, "the token is of another user"));
            }
            return self.of_token(&token, client_id);
        }
        self.check_password(&state, user, password).await?;
        Ok(self.of_user(user, client_id))
    }

    async fn check_password(
        &self,
        state: &State,
        user: &str,
        password: &[u8],
    ) -> Result<(), Refusal> {
        let wrong =
            || Refusal::new(Code::Unauthenticated, "the user name or the password is wrong");
        let Some(file) = &state.credentials.passwords else { return Err(wrong()) };
        let (mac, now) = (self.shared.mac_key.mac(user.as_bytes(), password), clock::now());
        if state.passwords.get(&mac, now).is_some() {
            return Ok(());
        }
        if !self.shared.checks.verify(file.clone(), user.into(), password.into()).await? {
            return Err(wrong());
        }
        state.passwords.put(mac, now.saturating_add(self.shared.cache_time), ());
        Ok(())
    }

    /// Who sends this value of an `Authorization` header.
    pub async fn header(&self, header: Option<&str>) -> Result<Identity, Refusal> {
        let is_basic = header
            .and_then(|text| text.split_once(' '))
            .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        if is_basic && self.state().credentials.passwords.is_some() {
            self.basic(header).await
        } else {
            self.bearer(header)
        }
    }

    /// Who sends this `Authorization: Bearer KEY`, a static key or a token.
    pub fn bearer(&self, header: Option<&str>) -> Result<Identity, Refusal> {
        let missing = || Refusal::new(Code::Unauthenticated, "send 'Authorization: Bearer KEY'");
        let (scheme, key) = header.and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(missing());
        }
        let (key, state) = (key.trim().as_bytes(), self.state());
        if let Some(principal) = find_key(&state.credentials.keys, key) {
            let principal = self.under(principal.clone());
            return Ok(Identity { principal, user: None, client_id: None, expires_at: None });
        }
        match &state.credentials.jwt {
            Some(jwt) if JwtKeys::looks_like_one(key) => {
                let token = self.token(&state, jwt, key)?;
                self.of_token(&token, None)
            }
            _ => Err(Refusal::new(Code::Unauthenticated, "the key is not known here")),
        }
    }

    /// Who sends this `Authorization: Basic …` (RFC 7617): a user of the password file.
    pub async fn basic(&self, header: Option<&str>) -> Result<Identity, Refusal> {
        let bad = || Refusal::new(Code::Unauthenticated, "this is no 'Authorization: Basic'");
        let (scheme, value) = header.and_then(|text| text.split_once(' ')).ok_or_else(bad)?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(bad());
        }
        let decoded = BASE64_STANDARD.decode(value.trim()).map_err(|_| bad())?;
        let colon = decoded.iter().position(|b| *b == b':').ok_or_else(bad)?;
        let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| bad())?;
        self.password(user, &decoded[colon + 1..], None).await
    }

    /// Who comes to a listener that asks for no proof: the names are taken as they are.
    pub fn open(&self, user: Option<&str>, client_id: Option<&str>) -> Identity {
        self.without_proof(&self.shared.open, user, client_id)
    }

    /// The same where names are users' rather than programs': an unproved one makes nobody an administrator.
    pub fn open_client(&self, user: Option<&str>, client_id: Option<&str>) -> Identity {
        self.without_proof(&self.shared.open_client, user, client_id)
    }

    fn without_proof(
        &self,
        principal: &Principal,
        user: Option<&str>,
        client_id: Option<&str>,
    ) -> Identity {
        let user: Option<Arc<str>> = user.filter(|user| !user.is_empty()).map(Arc::from);
        let principal = principal.clone();
        let principal = if self.shared.acl.is_some() {
            principal.as_user(user.clone()).with_client(client_id.map(Arc::from))
        } else {
            principal
        };
        Identity { principal, user, client_id: None, expires_at: None }
    }

    /// Who shows a certificate that was verified, by its common name.
    pub fn certificate(
        &self,
        common_name: &str,
        client_id: Option<&str>,
    ) -> Result<Identity, Refusal> {
        check_user_id(common_name).map_err(|error| {
            Refusal::new(Code::Unauthenticated, format!("the certificate's common name: {error}"))
        })?;
        Ok(self.of_user(common_name, client_id))
    }

    fn under(&self, principal: Principal) -> Principal {
        principal.under(self.shared.acl.as_ref())
    }

    fn of_user(&self, user: &str, client_id: Option<&str>) -> Identity {
        let principal = Principal::user_of(user, &USER_ALLOW).with_client(client_id.map(Arc::from));
        let principal = self.under(principal);
        let user = principal.user().cloned();
        Identity { principal, user, client_id: None, expires_at: None }
    }

    fn key_for_user(
        &self,
        principal: &Principal,
        user: &str,
        client_id: Option<&str>,
    ) -> Result<Identity, Refusal> {
        let user: Option<Arc<str>> = (!user.is_empty()).then(|| user.into());
        if let Some(user) = &user {
            check_user_id(user).map_err(|error| {
                Refusal::new(Code::Unauthenticated, format!("the user's name: {error}"))
            })?;
        }
        let may = Verb::NAMES.iter().any(|(_, verb)| principal.may_for(*verb, user.as_deref()));
        if user.is_some() && !may {
            return Err(Refusal::new(Code::Forbidden, "the key may not act for this user"));
        }
        let principal = principal.clone().as_user(user.clone());
        let principal = self.under(principal.with_client(client_id.map(Arc::from)));
        Ok(Identity { principal, user, client_id: None, expires_at: None })
    }

    fn token(&self, state: &State, jwt: &JwtKeys, token: &[u8]) -> Result<Arc<Token>, Refusal> {
        let (mac, now) = (self.shared.mac_key.mac(b"", token), clock::now());
        if let Some(known) = state.tokens.get(&mac, now) {
            return Ok(known);
        }
        let verified = Arc::new(jwt.verify(token, now)?);
        state.tokens.put(mac, verified.ends, verified.clone());
        Ok(verified)
    }

    fn of_token(&self, token: &Token, client_id: Option<&str>) -> Result<Identity, Refusal> {
        let given = client_id.filter(|given| !given.is_empty());
        if let (Some(bound), Some(given)) = (token.client_id.as_deref(), given)
            && bound != given
        {
            return Err(Refusal::new(Code::Unauthenticated, "the token is for another client id"));
        }
        let client = token.client_id.clone().or_else(|| given.map(Arc::from));
        let principal = Principal::user_of(&token.user, &token.allow).with_client(client);
        Ok(Identity {
            principal: self.under(principal),
            user: Some(token.user.clone()),
            client_id: token.client_id.clone(),
            expires_at: Some(token.ends),
        })
    }
}

fn find_key<'a>(keys: &'a [ApiKey], key: &[u8]) -> Option<&'a Principal> {
    if keys.is_empty() {
        return None;
    }
    let digest: [u8; 32] = Sha256::digest(key).into();
    keys.iter().find(|known| known.sha256 == digest).map(|known| &known.principal)
}
