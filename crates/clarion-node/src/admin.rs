//! The verbs about sessions: presence, lists, kicking.

use crate::node::Node;
use crate::shard::{SessionKey, SessionView};
use clarion_core::{Code, Millis, Principal, Refusal, Verb};

/// One live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Opaque id.
    pub id: String,
    /// Whose, if anybody's.
    pub user: Option<String>,
    /// Which device, if any.
    pub device: Option<String>,
    /// The protocol that it speaks.
    pub dialect: &'static str,
    /// Since when.
    pub since: Millis,
}

/// Whether a user is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Whether there is a session.
    pub online: bool,
    /// Each of them.
    pub sessions: Vec<SessionInfo>,
}

/// Part of the list of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPage {
    /// In the order of their ids.
    pub sessions: Vec<SessionInfo>,
    /// Where to go on, if there is more.
    pub next: Option<String>,
}

/// Text form of a session's id: shard, place, generation.
fn session_id(shard: usize, key: SessionKey) -> String {
    format!("{shard:02x}{:08x}{:08x}", key.index, key.generation)
}

fn parse_session_id(text: &str) -> Option<(usize, SessionKey)> {
    let valid = text.len() == 18 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let number = |from, to| u32::from_str_radix(text.get(from..to)?, 16).ok();
    let key = SessionKey { index: number(2, 10)?, generation: number(10, 18)? };
    valid.then_some((number(0, 2)? as usize, key))
}

fn info(shard: usize, view: SessionView) -> SessionInfo {
    SessionInfo {
        id: session_id(shard, view.key),
        user: view.user.as_deref().map(str::to_owned),
        device: view.device.as_deref().map(str::to_owned),
        dialect: view.dialect,
        since: view.since,
    }
}

/// Of more sessions than the limit the first ones, and where to go on.
fn page(mut sessions: Vec<SessionInfo>, limit: usize) -> SessionPage {
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next = if more { sessions.last().map(|session| session.id.clone()) } else { None };
    SessionPage { sessions, next }
}

impl Node {
    pub(crate) fn check_admin(principal: &Principal, user: Option<&str>) -> Result<(), Refusal> {
        if principal.may_for(Verb::Admin, user) {
            Ok(())
        } else {
            Err(Refusal::new(Code::Forbidden, "these credentials may not administer this"))
        }
    }

    /// The sessions of a user.
    pub async fn presence(&self, principal: &Principal, user: &str) -> Result<Presence, Refusal> {
        if !principal.may_for(Verb::Read, Some(user)) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not read this"));
        }
        clarion_core::address::check_user_id(user)
            .map_err(|e| Refusal::new(Code::BadUser, e.to_string()))?;
        // A user's streams of shared cursors are where those are.
        let mut sessions = Vec::new();
        for shard in 0..self.mailboxes().len() {
            let name = user.to_owned();
            let views = self.on_shard(shard, move |s| s.user_sessions(&name)).await?;
            sessions.extend(views.into_iter().map(|view| info(shard, view)));
        }
        Ok(Presence { online: !sessions.is_empty(), sessions })
    }

    /// The sessions of this node, or of one user on it, above `after`, at most `limit`.
    pub async fn list_sessions(
        &self,
        principal: &Principal,
        user: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<SessionPage, Refusal> {
        let Some(user) = user else { return self.all_sessions(principal, after, limit).await };
        let mut sessions = self.presence(principal, user).await?.sessions;
        sessions.sort_by(|a, b| a.id.cmp(&b.id));
        sessions.retain(|session| after.is_none_or(|after| session.id.as_str() > after));
        Ok(page(sessions, limit))
    }

    async fn all_sessions(
        &self,
        principal: &Principal,
        after: Option<&str>,
        limit: usize,
    ) -> Result<SessionPage, Refusal> {
        if !principal.may_for(Verb::Read, None) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not read this"));
        }
        let after = match after {
            None => None,
            Some(text) => {
                let bad = || Refusal::new(Code::BadRequest, "'after' is no session id");
                Some(parse_session_id(text).ok_or_else(bad)?)
            }
        };
        let mut sessions = Vec::new();
        let first = after.map_or(0, |(shard, _)| shard);
        for shard in first..self.mailboxes().len() {
            let after = after.filter(|(s, _)| *s == shard).map(|(_, key)| key);
            let want = limit + 1 - sessions.len();
            let views = self.on_shard(shard, move |s| s.list_sessions(after, want)).await?;
            sessions.extend(views.into_iter().map(|view| info(shard, view)));
            if sessions.len() > limit {
                break;
            }
        }
        Ok(page(sessions, limit))
    }

    /// Ends a session.
    pub async fn kick_session(&self, principal: &Principal, id: &str) -> Result<(), Refusal> {
        Self::check_admin(principal, None)?;
        let (shard, key) = parse_session_id(id)
            .filter(|(shard, _)| *shard < self.mailboxes().len())
            .ok_or(Code::SessionNotFound)?;
        if self.on_shard(shard, move |s| s.kick(key)).await? {
            Ok(())
        } else {
            Err(Code::SessionNotFound.into())
        }
    }

    /// Ends the sessions of a user, or of one of his devices. Returns how many.
    pub async fn kick_user(
        &self,
        principal: &Principal,
        user: &str,
        device: Option<String>,
    ) -> Result<usize, Refusal> {
        Self::check_admin(principal, Some(user))?;
        clarion_core::address::check_user_id(user)
            .map_err(|e| Refusal::new(Code::BadUser, e.to_string()))?;
        if let Some(device) = &device {
            clarion_core::address::check_user_id(device)
                .map_err(|e| Refusal::new(Code::BadUser, format!("device: {e}")))?;
        }
        let mut kicked = 0;
        for shard in 0..self.mailboxes().len() {
            let (name, device) = (user.to_owned(), device.clone());
            kicked += self.on_shard(shard, move |s| s.kick_user(&name, device.as_deref())).await?;
        }
        Ok(kicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_round_trip_and_others_are_refused() {
        let key = SessionKey { index: 7, generation: u32::MAX };
        assert_eq!(parse_session_id(&session_id(3, key)), Some((3, key)));
        for bad in ["", "x", "0300000007fffffffff", "03+0000007ffffffff", "0300000007FFFFFFFF"] {
            assert_eq!(parse_session_id(bad), None, "{bad}");
        }
    }
}
