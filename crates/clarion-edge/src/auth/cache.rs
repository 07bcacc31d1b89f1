//! What was proved lately, so that who comes back is not checked at full cost again.
//!
//! Invariants: bounded; holds no secret, only a MAC of it under a key of this process; an entry never outlives its time, nor
//! the credentials that it was checked against (a cache belongs to one state of them). Only successes are kept.

use clarion_core::Millis;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The key of a process's MACs.
#[derive(Clone)]
pub(super) struct MacKey([u8; 32]);

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey")
    }
}

/// Names what was proved.
pub(super) type Mac = [u8; 32];

impl MacKey {
    /// From random bytes.
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The MAC of two texts. HMAC's two passes, with keys of a whole block.
    pub(super) fn mac(&self, first: &[u8], second: &[u8]) -> Mac {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.0).for_each(|(block, key)| *block ^= key);
            block
        };
        let mut inner = Sha256::new();
        inner.update(pad(0x36));
        inner.update((first.len() as u64).to_be_bytes());
        inner.update(first);
        inner.update(second);
        let mut outer = Sha256::new();
        outer.update(pad(0x5c));
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache<V> {
    entries: Mutex<Entries<V>>,
    max: usize,
}

#[derive(Debug)]
struct Entries<V> {
    by_mac: HashMap<Mac, (Millis, V)>,
    /// Oldest first.
    order: VecDeque<Mac>,
}

impl<V: Clone> Cache<V> {
    /// At most so many entries; 0 = none.
    pub(super) fn new(max: usize) -> Self {
        let entries = Entries { by_mac: HashMap::new(), order: VecDeque::new() };
        Self { entries: Mutex::new(entries), max }
    }

    /// What is known of it now.
    pub(super) fn get(&self, mac: &Mac, now: Millis) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, value) = entries.by_mac.get(mac)?;
        (now < *until).then(|| value.clone())
    }

    /// Keeps it until then; the oldest makes place.
    pub(super) fn put(&self, mac: Mac, until: Millis, value: V) {
        if self.max == 0 {
            return;
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_mac.insert(mac, (until, value)).is_some() {
            return;
        }
        entries.order.push_back(mac);
        if entries.order.len() > self.max
            && let Some(oldest) = entries.order.pop_front()
        {
            entries.by_mac.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_in_number_and_time() {
        let key = MacKey::new([7; 32]);
        let mac = |text: &str| key.mac(b"u", text.as_bytes());
        let cache = Cache::new(2);
        cache.put(mac("a"), 10, 'a');
        cache.put(mac("b"), 20, 'b');
        cache.put(mac("b"), 30, 'B');
        assert_eq!((cache.get(&mac("a"), 9), cache.get(&mac("a"), 10)), (Some('a'), None));
        assert_eq!(cache.get(&mac("b"), 25), Some('B'));
        cache.put(mac("c"), 30, 'c');
        assert_eq!((cache.get(&mac("a"), 0), cache.get(&mac("c"), 0)), (None, Some('c')));
        let none = Cache::new(0);
        none.put(mac("a"), 10, ());
        assert_eq!(none.get(&mac("a"), 0), None);
    }

    #[test]
    fn macs_tell_texts_and_keys_apart() {
        let key = MacKey::new([7; 32]);
        assert_ne!(key.mac(b"ab", b"c"), key.mac(b"a", b"bc"));
        assert_ne!(key.mac(b"a", b"b"), MacKey::new([8; 32]).mac(b"a", b"b"));
        assert_eq!(format!("{key:?}"), "MacKey");
    }
}
