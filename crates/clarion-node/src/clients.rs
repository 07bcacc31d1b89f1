//! Client ids: each names one session of the node, and the newer one takes over. Wills that wait for their time stand here
//! too, since the client's return takes them back.
//!
//! Invariant: an entry is removed by the session that made it only. Must not know: what a session is.

use crate::attach::SessionRef;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

const PARTS: usize = 16;

/// Who has a client id.
#[derive(Debug, Clone)]
struct Holder {
    session: SessionRef,
    user: Option<Arc<str>>,
    /// It does not go on where the one before was.
    clean: bool,
}

/// What a session that ends finds of its client id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody else has it.
    Free,
    /// A newer session took it, and goes on where this one was, or begins anew (`clean`).
    TakenOver { clean: bool },
}

#[derive(Default)]
struct Part {
    holders: HashMap<Arc<str>, Holder>,
    /// Wills that wait, by number. Told when they are due at once, dropped when they are taken back.
    wills: HashMap<Arc<str>, (u64, oneshot::Sender<()>)>,
    next_will: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Clients {
    parts: [Mutex<Part>; PARTS],
}

impl Clients {
    fn part(&self, client: &str) -> MutexGuard<'_, Part> {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        let part = &self.parts[hasher.finish() as usize % PARTS];
        part.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody else than this user has the client id.
    pub(crate) fn is_foreign(&self, client: &str, user: Option<&str>) -> bool {
        let part = self.part(client);
        part.holders.get(client).is_some_and(|holder| holder.user.as_deref() != user)
    }

    /// A session takes a client id; whose it was. A will that waits is taken back, or is due when the session that it waits
    /// for ends with this one's clean beginning.
    pub(crate) fn enter(
        &self,
        client: &Arc<str>,
        user: Option<Arc<str>>,
        session: SessionRef,
        clean: bool,
    ) -> Option<SessionRef> {
        let mut part = self.part(client);
        if let Some((_, due)) = part.wills.remove(client)
            && clean
        {
            // Its shard may have ended.
            let _ = due.send(());
        }
        let before = part.holders.insert(client.clone(), Holder { session, user, clean });
        before.map(|holder| holder.session)
    }

    /// A session ends.
    pub(crate) fn leave(&self, client: &Arc<str>, session: SessionRef) -> Left {
        match self.part(client).holders.entry(client.clone()) {
            Entry::Occupied(entry) if entry.get().session == session => {
                entry.remove();
                Left::Free
            }
            Entry::Occupied(entry) => Left::TakenOver { clean: entry.get().clean },
            Entry::Vacant(_) => Left::Free,
        }
    }

    /// A will of this client waits; its number, and what tells that it is due before its time (an error: taken back).
    pub(crate) fn will_waits(&self, client: &Arc<str>) -> (u64, oneshot::Receiver<()>) {
        let (due, told) = oneshot::channel();
        let mut part = self.part(client);
        part.next_will += 1;
        let number = part.next_will;
        // An older one is of a session that has ended, too: the newer one stands for it.
        part.wills.insert(client.clone(), (number, due));
        (number, told)
    }

    /// The time of a will has come.
    pub(crate) fn will_is_due(&self, client: &Arc<str>, number: u64) {
        let mut part = self.part(client);
        if part.wills.get(client).is_some_and(|(waiting, _)| *waiting == number) {
            part.wills.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::SessionKey;
    use tokio::sync::oneshot::error::TryRecvError;

    fn session(index: u32) -> SessionRef {
        SessionRef { shard: 0, key: SessionKey { index, generation: 1 } }
    }

    #[test]
    fn the_newer_one_takes_over() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let user: Option<Arc<str>> = Some("u".into());
        assert_eq!(clients.enter(&client, user.clone(), session(1), true), None);
        assert!(clients.is_foreign("c", None) && !clients.is_foreign("c", Some("u")));
        assert_eq!(clients.enter(&client, None, session(2), true), Some(session(1)));
        assert_eq!(clients.leave(&client, session(1)), Left::TakenOver { clean: true });
        assert_eq!(clients.leave(&client, session(2)), Left::Free);
        assert!(!clients.is_foreign("c", Some("v")));
    }

    #[test]
    fn a_will_waits_until_its_client_is_back() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let (_, mut told) = clients.will_waits(&client);
        assert_eq!(clients.enter(&client, None, session(1), false), None);
        assert!(matches!(told.try_recv(), Err(TryRecvError::Closed)), "taken back");
        let (_, mut told) = clients.will_waits(&client);
        clients.enter(&client, None, session(2), true);
        assert_eq!(told.try_recv(), Ok(()), "its session has ended");
        let (old, mut replaced) = clients.will_waits(&client);
        let (new, mut told) = clients.will_waits(&client);
        assert!(matches!(replaced.try_recv(), Err(TryRecvError::Closed)));
        clients.will_is_due(&client, old);
        assert!(matches!(told.try_recv(), Err(TryRecvError::Empty)));
        clients.will_is_due(&client, new);
        assert!(clients.part("c").wills.is_empty());
    }
}
