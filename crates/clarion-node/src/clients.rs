//! Client ids: each names one session of the node, and the newer one takes over. Wills that wait for their time stand here
//! too, since the client's return takes them back.
//!
//! Invariants: whether an id is free, and what follows from it, are one step under one lock; each session that entered
//! leaves once; a will waits only while nobody has its client id, and what waits is bounded, in count and in bytes. Must
//! not know: what a session is, when anybody looks.

use crate::attach::SessionRef;
use clarion_core::port::peer::{PeerPublish, Will};
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const PARTS: usize = 16;
/// Wills that wait, at most. One above the bounds is published at once.
const WAITING_WILLS: usize = 100_000;
/// Bytes that they take, at most.
const WAITING_BYTES: usize = 64 << 20;

/// A session that takes a client id.
pub(crate) struct Coming {
    /// Who it proved to be.
    pub(crate) owner: Option<Arc<str>>,
    /// What somebody else has is not taken over.
    pub(crate) exclusive: bool,
    /// It does not go on where the one before was.
    pub(crate) clean: bool,
}

/// A client id was taken.
#[derive(Debug)]
pub(crate) struct Entered {
    /// The session's number among those of its client id.
    pub(crate) turn: u64,
    /// Whose it was.
    pub(crate) before: Option<SessionRef>,
    /// A will whose session has gone with this: it is due.
    pub(crate) due: Option<PeerPublish>,
}

/// Somebody else has the client id.
#[derive(Debug)]
pub(crate) struct Foreign;

/// Who has a client id.
#[derive(Debug)]
struct Holder {
    turn: u64,
    /// `None` until it has begun.
    session: Option<SessionRef>,
    owner: Option<Arc<str>>,
}

/// On which shard a will is due, and when ([`Clients::now`]); the number makes it unique.
type DueAt = (usize, u64, u64);

struct Waiting {
    publish: PeerPublish,
    at: DueAt,
    owner: Option<Arc<str>>,
    weight: usize,
}

#[derive(Default)]
struct Part {
    holders: HashMap<Arc<str>, Holder>,
    /// Sessions that have lost their id and not left yet; whether the one after began anew.
    taken_over: HashMap<u64, bool>,
    wills: HashMap<Arc<str>, Waiting>,
    /// The same wills in the order of their times.
    times: BTreeMap<DueAt, Arc<str>>,
    last_number: u64,
}

impl Part {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// See the module.
pub(crate) struct Clients {
    parts: [Mutex<Part>; PARTS],
    wills_max: usize,
    bytes_max: usize,
    /// Wills that wait in all parts, and their bytes.
    wills: AtomicUsize,
    bytes: AtomicUsize,
    began: Instant,
}

impl Default for Clients {
    fn default() -> Self {
        Self::new(WAITING_WILLS, WAITING_BYTES)
    }
}

impl Clients {
    fn new(wills_max: usize, bytes_max: usize) -> Self {
        Self {
            parts: Default::default(),
            wills_max,
            bytes_max,
            wills: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    /// Milliseconds on the clock that wills wait by, which never jumps.
    pub(crate) fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn part(&self, client: &str) -> MutexGuard<'_, Part> {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        lock(&self.parts[hasher.finish() as usize % PARTS])
    }

    /// A session takes a client id, and says with [`Self::begun`] where it is. A will that waits is taken back, or is due
    /// when the session that it waits for has ended with this one's beginning.
    pub(crate) fn enter(&self, client: &Arc<str>, coming: Coming) -> Result<Entered, Foreign> {
        let Coming { owner, exclusive, clean } = coming;
        let mut guard = self.part(client);
        let part = &mut *guard;
        let foreign = |other: &Option<Arc<str>>| exclusive && *other != owner;
        if part.holders.get(client).is_some_and(|holder| foreign(&holder.owner)) {
            return Err(Foreign);
        }
        // Who takes somebody else's id does not take back his will.
        let due = self
            .unlist(part, client)
            .filter(|will| clean || foreign(&will.owner))
            .map(|will| will.publish);
        let turn = part.number();
        let before = part.holders.insert(client.clone(), Holder { turn, session: None, owner });
        if let Some(before) = &before {
            part.taken_over.insert(before.turn, clean);
        }
        Ok(Entered { turn, before: before.and_then(|holder| holder.session), due })
    }

    /// Whether this one may have a client id.
    pub(crate) fn may_enter(
        &self,
        client: &str,
        owner: &Option<Arc<str>>,
        exclusive: bool,
    ) -> bool {
        let part = self.part(client);
        !exclusive || part.holders.get(client).is_none_or(|holder| holder.owner == *owner)
    }

    /// The session that has a client id.
    pub(crate) fn holder(&self, client: &str) -> Option<SessionRef> {
        self.part(client).holders.get(client)?.session
    }

    /// The session of this turn has begun. Returns whether the client id is still its own; else it ends.
    pub(crate) fn begun(&self, client: &str, turn: u64, session: SessionRef) -> bool {
        let mut part = self.part(client);
        let holder = part.holders.get_mut(client).filter(|holder| holder.turn == turn);
        holder.map(|holder| holder.session = Some(session)).is_some()
    }

    /// A session ends. Returns its will if that is due already; otherwise it waits (if it may) for `shard`, or was for
    /// nothing, since the client is back.
    pub(crate) fn leave(
        &self,
        client: &Arc<str>,
        turn: u64,
        will: Option<Will>,
        shard: Option<usize>,
        now: u64,
    ) -> Option<PeerPublish> {
        let mut guard = self.part(client);
        let part = &mut *guard;
        let mut owner = None;
        let taken_over = part.taken_over.remove(&turn);
        if part.holders.get(client).is_some_and(|holder| holder.turn == turn) {
            owner = part.holders.remove(client).and_then(|holder| holder.owner);
        }
        let Will { publish, delay_s } = will?;
        match (taken_over, shard) {
            _ if delay_s == 0 => Some(publish),
            // The session that it waits for has gone with its client's new beginning.
            (Some(true), _) => Some(publish),
            (Some(false), _) => None,
            (None, None) => Some(publish),
            (None, Some(shard)) => {
                // Never early: `now` is rounded down.
                let at = (shard, now + 1 + u64::from(delay_s) * 1000, part.number());
                let weight = size_of::<Waiting>()
                    + publish.content.weight()
                    + publish.address.as_str().len()
                    + client.len();
                self.list(part, client, Waiting { publish, at, owner, weight })
            }
        }
    }

    /// Lets a will wait, or gives back what there is no room for.
    fn list(&self, part: &mut Part, client: &Arc<str>, will: Waiting) -> Option<PeerPublish> {
        // The id was its session's until now, so that none should be there.
        drop(self.unlist(part, client));
        let wills = self.wills.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(will.weight, Ordering::Relaxed) + will.weight;
        if wills > self.wills_max || bytes > self.bytes_max {
            self.freed(will.weight);
            return Some(will.publish);
        }
        part.times.insert(will.at, client.clone());
        part.wills.insert(client.clone(), will);
        None
    }

    fn unlist(&self, part: &mut Part, client: &str) -> Option<Waiting> {
        let will = part.wills.remove(client)?;
        part.times.remove(&will.at);
        self.freed(will.weight);
        Some(will)
    }

    fn freed(&self, weight: usize) {
        self.wills.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Takes the wills of a shard that are due by then.
    pub(crate) fn take_due(&self, shard: usize, until: u64) -> Vec<PeerPublish> {
        let mut due = Vec::new();
        // A shard's own wills are counted here before it asks.
        if self.wills.load(Ordering::Relaxed) == 0 {
            return due;
        }
        for part in &self.parts {
            let mut guard = lock(part);
            let part = &mut *guard;
            let range = (shard, 0, 0)..=(shard, until, u64::MAX);
            while let Some(client) = part.times.range(range.clone()).next().map(|(_, c)| c.clone())
            {
                due.extend(self.unlist(part, &client).map(|will| will.publish));
            }
        }
        due
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::SessionKey;
    use clarion_core::{Address, Content};

    fn session(index: u32) -> SessionRef {
        SessionRef { shard: 0, key: SessionKey { index, generation: 1 } }
    }

    fn coming(owner: &str, clean: bool) -> Coming {
        Coming { owner: Some(owner.into()), exclusive: true, clean }
    }

    /// A session that has begun; its turn and what it found.
    fn enter(clients: &Clients, index: u32, clean: bool) -> (u64, Entered) {
        let client = Arc::from("c");
        let entered = clients.enter(&client, coming("u", clean)).unwrap();
        assert!(clients.begun("c", entered.turn, session(index)));
        (entered.turn, entered)
    }

    fn will(kind: &str, delay_s: u32) -> Option<Will> {
        let content = Content { kind: Some(kind.into()), ..Content::default() };
        let publish = PeerPublish { address: Address::all(), content, token: 0, once: None };
        Some(Will { publish, delay_s })
    }

    fn kind(publish: &PeerPublish) -> &str {
        publish.content.kind.as_deref().unwrap()
    }

    /// Nothing waits, nothing is counted.
    fn assert_empty(clients: &Clients) {
        assert!(clients.parts.iter().map(lock).all(|part| {
            part.wills.is_empty() && part.times.is_empty() && part.taken_over.is_empty()
        }));
        let counted = [&clients.wills, &clients.bytes].map(|c| c.load(Ordering::Relaxed));
        assert_eq!(counted, [0, 0]);
    }

    #[test]
    fn the_newer_one_takes_over_unless_it_is_somebody_else() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let (first, entered) = enter(&clients, 1, true);
        assert_eq!(entered.before, None);
        assert!(clients.enter(&client, coming("v", true)).is_err());
        assert!(clients.enter(&client, Coming { owner: None, ..coming("", true) }).is_err());
        let (second, entered) = enter(&clients, 2, true);
        assert_eq!(entered.before, Some(session(1)));
        let open = Coming { exclusive: false, ..coming("v", true) };
        let third = clients.enter(&client, open).unwrap();
        assert_eq!(third.before, Some(session(2)));
        for turn in [first, third.turn, second] {
            assert!(clients.leave(&client, turn, None, Some(0), 0).is_none());
        }
        assert!(clients.part("c").holders.is_empty());
        assert_empty(&clients);
    }

    #[test]
    fn who_is_overtaken_before_he_has_begun_learns_it() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let slow = clients.enter(&client, coming("u", true)).unwrap();
        let (_, quick) = enter(&clients, 2, true);
        assert_eq!(quick.before, None, "there is no session to end yet");
        assert!(!clients.begun("c", slow.turn, session(1)));
        assert_eq!(clients.part("c").holders["c"].session, Some(session(2)));
    }

    #[test]
    fn a_will_waits_until_its_time_or_its_client_is_back() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let (turn, _) = enter(&clients, 1, true);
        assert!(clients.leave(&client, turn, will("a", 2), Some(0), 0).is_none());
        let (turn, entered) = enter(&clients, 2, false);
        assert!(entered.due.is_none(), "taken back");
        assert!(clients.leave(&client, turn, will("b", 2), Some(0), 0).is_none());
        let (turn, entered) = enter(&clients, 3, true);
        assert_eq!(entered.due.as_ref().map(kind), Some("b"), "its session has ended");
        assert!(clients.leave(&client, turn, will("c", 2), Some(1), 0).is_none());
        assert!(clients.take_due(1, 2000).is_empty(), "not early");
        assert!(clients.take_due(0, u64::MAX).is_empty(), "it is another shard's");
        assert_eq!(clients.take_due(1, 2001).iter().map(kind).collect::<Vec<_>>(), ["c"]);
        assert_empty(&clients);
    }

    #[test]
    fn a_will_does_not_wait_for_who_is_back_already() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let (first, _) = enter(&clients, 1, true);
        let (second, _) = enter(&clients, 2, false);
        assert!(clients.leave(&client, first, will("a", 9), Some(0), 0).is_none());
        assert!(clients.take_due(0, u64::MAX).is_empty());
        let (third, _) = enter(&clients, 3, true);
        // Also when that one has gone again meanwhile.
        assert!(clients.leave(&client, third, will("c", 9), Some(0), 0).is_none());
        let due = clients.leave(&client, second, will("b", 9), Some(0), 0);
        assert_eq!(due.as_ref().map(kind), Some("b"));
        assert_eq!(clients.take_due(0, u64::MAX).iter().map(kind).collect::<Vec<_>>(), ["c"]);
        assert_empty(&clients);
    }

    #[test]
    fn a_will_is_due_at_once_where_it_may_not_wait() {
        let (clients, client) = (Clients::new(1, 4096), Arc::from("c"));
        let (turn, _) = enter(&clients, 1, true);
        assert!(clients.leave(&client, turn, will("a", 0), Some(0), 0).is_some(), "no delay");
        let (turn, _) = enter(&clients, 1, true);
        assert!(clients.leave(&client, turn, will("a", 9), None, 0).is_some(), "the shard ends");
        let (turn, _) = enter(&clients, 1, true);
        let long = "x".repeat(4096);
        assert!(clients.leave(&client, turn, will(&long, 9), Some(0), 0).is_some(), "too long");
        assert_empty(&clients);
        let (turn, _) = enter(&clients, 1, true);
        assert!(clients.leave(&client, turn, will("a", 9), Some(0), 0).is_none());
        let other = Arc::from("d");
        let turn = clients.enter(&other, coming("u", true)).unwrap().turn;
        assert!(clients.leave(&other, turn, will("b", 9), Some(0), 0).is_some(), "too many");
        assert_eq!(clients.take_due(0, u64::MAX).len(), 1);
        assert_empty(&clients);
    }

    #[test]
    fn what_a_client_leaves_round_by_round_takes_the_room_of_one() {
        let (clients, client) = (Clients::new(1, 4096), Arc::from("c"));
        for round in 0..1000 {
            let (turn, entered) = enter(&clients, round, false);
            assert!(entered.due.is_none());
            assert!(clients.leave(&client, turn, will("a", 3600), Some(0), 0).is_none());
        }
        assert_eq!(clients.take_due(0, u64::MAX).len(), 1);
        assert_empty(&clients);
    }

    #[test]
    fn somebody_else_does_not_take_a_will_back() {
        let (clients, client) = (Clients::default(), Arc::from("c"));
        let (turn, _) = enter(&clients, 1, true);
        assert!(clients.leave(&client, turn, will("a", 9), Some(0), 0).is_none());
        let entered = clients.enter(&client, coming("v", false)).unwrap();
        assert_eq!(entered.due.as_ref().map(kind), Some("a"));
        assert_empty(&clients);
    }
}
