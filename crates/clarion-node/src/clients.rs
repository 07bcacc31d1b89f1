//! Client ids: each names one session of the node, and the newer one takes over. Wills that wait for their time stand here
//! too, each with a record in the store, which says so after a restart.
//!
//! Invariants: whether an id is free, and what follows from it, are one step under one lock; each session that entered
//! leaves once; what waits is bounded, in count and in bytes, and is taken out by who has the client id's stored session only.
//! Must not know: what a session is, when anybody looks.

use crate::attach::SessionRef;
use crate::wills::{DueWill, Hold, Kept, WillRecord};
use clarion_core::durable::record::will_key;
use clarion_core::port::peer::PeerPublish;
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

/// A will that waits.
pub(crate) struct Waiting {
    pub(crate) will: WillRecord,
    at: DueAt,
    weight: usize,
}

/// A session ends.
pub(crate) struct Leaving {
    /// With its `due`, should it wait.
    pub(crate) will: Option<WillRecord>,
    /// Where it may wait; `None` = that ends too, and it waits for the next start.
    pub(crate) shard: Option<usize>,
    /// [`Clients::now`].
    pub(crate) now: u64,
}

/// What becomes of the will of a session that has ended.
#[derive(Debug)]
pub(crate) enum Fate {
    /// There is none, or the client is back already.
    Over,
    /// It is published now.
    Due(Box<PeerPublish>),
    /// It waits.
    Waits,
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

    /// A session takes a client id, and says with [`Self::begun`] where it is.
    pub(crate) fn enter(&self, client: &Arc<str>, coming: Coming) -> Result<Entered, Foreign> {
        let Coming { owner, exclusive, clean } = coming;
        let mut guard = self.part(client);
        let part = &mut *guard;
        if part.holders.get(client).is_some_and(|holder| exclusive && holder.owner != owner) {
            return Err(Foreign);
        }
        let turn = part.number();
        let before = part.holders.insert(client.clone(), Holder { turn, session: None, owner });
        if let Some(before) = &before {
            part.taken_over.insert(before.turn, clean);
        }
        Ok(Entered { turn, before: before.and_then(|holder| holder.session) })
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

    /// A session ends. If its will waits, it keeps the client id's lock until the record says so.
    pub(crate) fn leave(&self, client: &Arc<str>, turn: u64, leaving: Leaving) -> Fate {
        let Leaving { will, shard, now } = leaving;
        let mut guard = self.part(client);
        let part = &mut *guard;
        let taken_over = part.taken_over.remove(&turn);
        if part.holders.get(client).is_some_and(|holder| holder.turn == turn) {
            part.holders.remove(client);
        }
        let Some(will) = will else { return Fate::Over };
        let due = |will: WillRecord| Fate::Due(Box::new(will.publish));
        match (taken_over, shard) {
            _ if will.delay_s == 0 => due(will),
            // The session that it waits for has gone with its client's new beginning.
            (Some(true), _) => due(will),
            (Some(false), _) => Fate::Over,
            (None, None) => Fate::Waits,
            (None, Some(shard)) => {
                // Never early: `now` is rounded down.
                let at = now + 1 + u64::from(will.delay_s) * 1000;
                self.list(part, client, Waiting::new(client, will, shard, at))
                    .map_or(Fate::Waits, due)
            }
        }
    }

    /// A will of an earlier run waits. Gives back what there is no room for.
    pub(crate) fn wait(
        &self,
        client: &Arc<str>,
        will: WillRecord,
        shard: usize,
        at: u64,
    ) -> Option<WillRecord> {
        self.wait_again(client, Waiting::new(client, will, shard, at))
    }

    /// What was taken out by [`Self::take_waiting`] waits again.
    pub(crate) fn wait_again(&self, client: &Arc<str>, waiting: Waiting) -> Option<WillRecord> {
        self.list(&mut self.part(client), client, waiting)
    }

    /// Whether any will waits.
    pub(crate) fn any_waits(&self) -> bool {
        self.wills.load(Ordering::Relaxed) > 0
    }

    /// Of the will that waits for a client: whose it is, and whether its session outlives the connection.
    pub(crate) fn waiting(&self, client: &str) -> Option<(Option<Arc<str>>, bool)> {
        let part = self.part(client);
        let will = &part.wills.get(client)?.will;
        Some((will.owner.clone(), will.expiry_s > 0))
    }

    /// The will that waits for a client, for who has its lock.
    pub(crate) fn take_waiting(&self, client: &str) -> Option<Waiting> {
        self.unlist(&mut self.part(client), client)
    }

    /// Lets a will wait, or gives back what there is no room for.
    fn list(&self, part: &mut Part, client: &Arc<str>, mut waiting: Waiting) -> Option<WillRecord> {
        // The id was its session's until now, so that none should be there.
        drop(self.unlist(part, client));
        waiting.at.2 = part.number();
        let wills = self.wills.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(waiting.weight, Ordering::Relaxed) + waiting.weight;
        if wills > self.wills_max || bytes > self.bytes_max {
            self.freed(waiting.weight);
            return Some(waiting.will);
        }
        part.times.insert(waiting.at, client.clone());
        part.wills.insert(client.clone(), waiting);
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

    /// Takes the wills of a shard that are due by then, with what `hold` gives for their client ids; those for which it gives
    /// nothing stay: their clients are just coming.
    pub(crate) fn take_due(
        &self,
        shard: usize,
        until: u64,
        mut hold: impl FnMut(&str) -> Option<Hold>,
    ) -> Vec<DueWill> {
        let mut due = Vec::new();
        // A shard's own wills are counted here before it asks.
        if !self.any_waits() {
            return due;
        }
        for part in &self.parts {
            let mut guard = lock(part);
            let part = &mut *guard;
            let range = part.times.range((shard, 0, 0)..=(shard, until, u64::MAX));
            let clients: Vec<Arc<str>> = range.map(|(_, client)| client.clone()).collect();
            for client in clients {
                let Some(hold) = hold(&client) else { continue };
                let kept = will_key(&client).map(|key| Kept { key, hold });
                let will = self.unlist(part, &client).map(|waiting| waiting.will);
                due.extend(will.map(|will| DueWill { publish: will.publish, kept }));
            }
        }
        due
    }
}

impl Waiting {
    fn new(client: &str, will: WillRecord, shard: usize, at: u64) -> Self {
        let PeerPublish { content, address, .. } = &will.publish;
        let weight = size_of::<Self>() + content.weight() + address.as_str().len() + client.len();
        Self { will, at: (shard, at, 0), weight }
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

    fn will(kind: &str, delay_s: u32) -> Option<WillRecord> {
        let content = Content { kind: Some(kind.into()), ..Content::default() };
        let publish = PeerPublish { address: Address::all(), content, token: 0, once: None };
        let owner = Some("u".into());
        Some(WillRecord { publish, delay_s, expiry_s: delay_s, owner, due: None })
    }

    fn leave(clients: &Clients, turn: u64, will: Option<WillRecord>, shard: Option<usize>) -> Fate {
        clients.leave(&"c".into(), turn, Leaving { will, shard, now: 0 })
    }

    fn waits(fate: &Fate) -> bool {
        matches!(fate, Fate::Waits)
    }

    fn due(fate: &Fate) -> Option<&str> {
        match fate {
            Fate::Due(publish) => Some(kind(publish)),
            _ => None,
        }
    }

    fn kind(publish: &PeerPublish) -> &str {
        publish.content.kind.as_deref().unwrap()
    }

    fn take(clients: &Clients, shard: usize, until: u64) -> Vec<String> {
        let due = clients.take_due(shard, until, |_| Some(Arc::new(())));
        due.iter().map(|will| kind(&will.publish).to_owned()).collect()
    }

    /// Its client is back.
    fn back(clients: &Clients) -> Option<String> {
        clients.take_waiting("c").map(|waiting| kind(&waiting.will.publish).to_owned())
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
            assert!(matches!(leave(&clients, turn, None, Some(0)), Fate::Over));
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
        let clients = Clients::default();
        assert!(!clients.any_waits() && clients.waiting("c").is_none());
        let (turn, _) = enter(&clients, 1, true);
        assert!(waits(&leave(&clients, turn, will("a", 2), Some(0))));
        assert_eq!(clients.waiting("c"), Some((Some("u".into()), true)));
        assert_eq!(back(&clients).as_deref(), Some("a"));
        let (turn, _) = enter(&clients, 2, false);
        assert!(waits(&leave(&clients, turn, will("b", 2), Some(1))));
        assert!(take(&clients, 1, 2000).is_empty(), "not early");
        assert!(take(&clients, 0, u64::MAX).is_empty(), "it is another shard's");
        assert!(clients.take_due(1, 2001, |_| None).is_empty(), "its client is just coming");
        assert_eq!(take(&clients, 1, 2001), ["b"]);
        assert_empty(&clients);
    }

    #[test]
    fn a_will_does_not_wait_for_who_is_back_already() {
        let clients = Clients::default();
        let (first, _) = enter(&clients, 1, true);
        let (second, _) = enter(&clients, 2, false);
        assert!(matches!(leave(&clients, first, will("a", 9), Some(0)), Fate::Over));
        assert!(take(&clients, 0, u64::MAX).is_empty());
        let (third, _) = enter(&clients, 3, true);
        // Also when that one has gone again meanwhile.
        assert!(waits(&leave(&clients, third, will("c", 9), Some(0))));
        assert_eq!(due(&leave(&clients, second, will("b", 9), Some(0))), Some("b"));
        assert_eq!(take(&clients, 0, u64::MAX), ["c"]);
        assert_empty(&clients);
    }

    #[test]
    fn a_will_is_due_at_once_where_it_may_not_wait() {
        let clients = Clients::new(1, 4096);
        let (turn, _) = enter(&clients, 1, true);
        assert_eq!(due(&leave(&clients, turn, will("a", 0), Some(0))), Some("a"), "no delay");
        let (turn, _) = enter(&clients, 1, true);
        assert_eq!(due(&leave(&clients, turn, will("a", 0), None)), Some("a"), "at the end too");
        let (turn, _) = enter(&clients, 1, true);
        let long = "x".repeat(4096);
        assert!(due(&leave(&clients, turn, will(&long, 9), Some(0))).is_some(), "too long");
        assert_empty(&clients);
        let (turn, _) = enter(&clients, 1, true);
        assert!(waits(&leave(&clients, turn, will("a", 9), Some(0))));
        let other = Arc::from("d");
        let turn = clients.enter(&other, coming("u", true)).unwrap().turn;
        let leaving = Leaving { will: will("b", 9), shard: Some(0), now: 0 };
        assert_eq!(due(&clients.leave(&other, turn, leaving)), Some("b"), "too many");
        let over = clients.wait(&other, will("b", 9).unwrap(), 0, 1);
        assert!(over.is_some(), "nor one of an earlier run");
        assert_eq!(take(&clients, 0, u64::MAX).len(), 1);
        assert_empty(&clients);
    }

    #[test]
    fn a_will_waits_for_the_next_start_where_the_shard_ends() {
        let clients = Clients::default();
        let (turn, _) = enter(&clients, 1, true);
        assert!(waits(&leave(&clients, turn, will("a", 9), None)));
        assert_empty(&clients);
    }

    #[test]
    fn what_was_taken_back_for_nothing_waits_again() {
        let clients = Clients::default();
        assert!(clients.wait(&"c".into(), will("a", 9).unwrap(), 0, 9).is_none());
        let waiting = clients.take_waiting("c").unwrap();
        assert_empty(&clients);
        assert!(clients.wait_again(&"c".into(), waiting).is_none());
        assert!(take(&clients, 0, 8).is_empty());
        assert_eq!(take(&clients, 0, 9), ["a"]);
        assert_empty(&clients);
    }

    #[test]
    fn what_a_client_leaves_round_by_round_takes_the_room_of_one() {
        let clients = Clients::new(1, 4096);
        for round in 0..1000 {
            let (turn, _) = enter(&clients, round, false);
            assert!(waits(&leave(&clients, turn, will("a", 3600), Some(0))));
        }
        assert_eq!(take(&clients, 0, u64::MAX).len(), 1);
        assert_empty(&clients);
    }
}
