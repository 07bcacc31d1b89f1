//! Who a CONNECT is from: client id, user, what he may do.
//!
//! Invariants: a client id that the server chooses is never one that is in use; without proof no name is taken where the
//! listener asks for it. Must not know: sockets, sessions.

use super::App;
use super::refuse::Refused;
use crate::auth::Identity;
use clarion_core::address::check_user_id;
use clarion_core::{Code, Refusal};
use clarion_wire::mqtt::Connect;
use std::sync::Arc;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^22 is more than 2^128; 3.1 had allowed 23.
const ID_LETTERS: usize = 22;
/// Bytes above it would make the first letters more frequent.
const FAIR: u8 = 4 * 62;

const BAD_CLIENT_ID: u8 = 0x85;
const BAD_CREDENTIALS: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;

/// Somebody who may come in.
pub(super) struct Admitted {
    pub(super) client_id: Arc<str>,
    /// The server chose the client id.
    pub(super) assigned: bool,
    pub(super) identity: Identity,
}

/// Finds out, or says why not.
pub(super) async fn admit(
    app: &App,
    connect: &Connect<'_>,
    certificate: Option<&str>,
) -> Result<Admitted, Refused> {
    if connect.client_id.len() > app.config.client_id_bytes {
        return Err(Refused::new(BAD_CLIENT_ID, "the client id is too long"));
    }
    // An identity with this client id may be bound to it; one without may be bound to another.
    let given = Some(connect.client_id).filter(|id| !id.is_empty());
    let mut identity = identify(app, connect, certificate, given).await?;
    let (client_id, assigned): (Arc<str>, bool) = match (given, identity.client_id.clone()) {
        (Some(given), _) => (given.into(), false),
        (None, Some(bound)) => (bound, true),
        (None, None) => (random_id()?, true),
    };
    if assigned {
        identity.principal = identity.principal.with_client(Some(client_id.clone()));
    }
    Ok(Admitted { client_id, assigned, identity })
}

async fn identify(
    app: &App,
    connect: &Connect<'_>,
    certificate: Option<&str>,
    client_id: Option<&str>,
) -> Result<Identity, Refused> {
    // An empty name is none.
    let user = connect.user_name.filter(|name| !name.is_empty());
    if let Some(user) = user {
        check_user_id(user)
            .map_err(|_| Refused::new(BAD_CREDENTIALS, "the user name is not valid"))?;
    }
    let proved = match (certificate, connect.password) {
        (Some(name), _) if user.is_some_and(|user| user != name) => {
            Err(Refusal::new(Code::Forbidden, "the certificate is of another user"))
        }
        (Some(name), _) => app.auth.certificate(name, client_id),
        (None, _) if !app.config.auth_required => {
            return Ok(app.auth.open_client(user, client_id));
        }
        (None, Some(password)) => {
            app.auth.password(user.unwrap_or_default(), password, client_id).await
        }
        (None, None) => {
            return Err(Refused::new(NOT_AUTHORIZED, "this listener asks for a password"));
        }
    };
    proved.map_err(|refusal| match refusal.code {
        Code::Unauthenticated => Refused::new(BAD_CREDENTIALS, refusal.detail),
        _ => refusal.into(),
    })
}

/// A client id that nobody has or guesses.
fn random_id() -> Result<Arc<str>, Refused> {
    let mut id = String::with_capacity(ID_LETTERS);
    while id.len() < ID_LETTERS {
        let mut bytes = [0; ID_LETTERS];
        getrandom::fill(&mut bytes).map_err(|_| Refused::from(Refusal::from(Code::Internal)))?;
        let fair = bytes.iter().filter(|byte| **byte < FAIR).take(ID_LETTERS - id.len());
        id.extend(fair.map(|byte| char::from(LETTERS[usize::from(byte % 62)])));
    }
    Ok(id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_that_the_server_chooses() {
        let ids: std::collections::HashSet<Arc<str>> =
            (0..1000).map(|_| random_id().map_err(|refused| refused.what).unwrap()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter().all(|id| id.len() == 22 && id.bytes().all(|b| b.is_ascii_alphanumeric()))
        );
    }
}
