//! The numbers of what was delivered with QoS 1 and 2 and is not over: packet ids and what each stands for.
//!
//! Invariants: a packet id is in use once and never 0; there are at most `span` slots, whatever a client acks or does not.
//! Clients ack mostly in order, so slots are a ring of consecutive ids: one byte each, pushed behind and popped in front. A client
//! that never acks one message leaves holes behind it, which are used again when the ring is full. Must not know: bytes.

use clarion_core::port::peer::FeedPlace;
use std::collections::VecDeque;

/// What remains allocated when nothing is in flight.
const KEPT: usize = 64;
/// Packet ids are 1 to this.
const IDS: usize = 65_535;

const FREE: u8 = 0;
const QOS1: u8 = 1;
const QOS2: u8 = 2;
/// PUBREL is sent, PUBCOMP is awaited.
const RELEASED: u8 = 3;
const STATE: u8 = 3;
/// It is of the feed: its place stands beside.
const FEED: u8 = 4;

/// A number that is free, found by [`Inflight::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) id: u16,
    index: usize,
}

/// What an ack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acked {
    /// Nothing was delivered under this id.
    Unknown,
    /// What was delivered under this id is not acked by this kind of packet.
    Wrong,
    /// PUBREL follows.
    Release,
    /// It is over.
    Freed(Option<FeedPlace>),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inflight {
    /// The id of the first slot, less one.
    base: u16,
    slots: VecDeque<u8>,
    used: usize,
    /// Where the search for a hole goes on.
    hand: usize,
    feed: VecDeque<(u16, FeedPlace)>,
}

impl Inflight {
    /// How many are not over.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.used
    }

    fn id(&self, index: usize) -> u16 {
        let id = usize::from(self.base) + index;
        // Below 65,535, so that it fits.
        u16::try_from(if id >= IDS { id - IDS } else { id }).unwrap_or_default() + 1
    }

    fn index(&self, id: u16) -> Option<usize> {
        let (id, base) = (usize::from(id).checked_sub(1)?, usize::from(self.base));
        let index = if id >= base { id - base } else { id + IDS - base };
        (index < self.slots.len()).then_some(index)
    }

    /// A free number; none when as many as may be are out.
    pub(super) fn next(&self, span: usize) -> Option<Number> {
        let len = self.slots.len();
        let index = if len < span.min(IDS) {
            len
        } else if self.used >= len {
            return None;
        } else {
            let hand = self.hand % len;
            (hand..len).chain(0..hand).find(|&index| self.slots.get(index) == Some(&FREE))?
        };
        Some(Number { id: self.id(index), index })
    }

    /// Puts a number to use.
    pub(super) fn take(&mut self, number: Number, exactly_once: bool, place: Option<FeedPlace>) {
        let mut state = if exactly_once { QOS2 } else { QOS1 };
        if let Some(place) = place {
            state |= FEED;
            self.feed.push_back((number.id, place));
        }
        match self.slots.get_mut(number.index) {
            Some(slot) => {
                *slot = state;
                self.hand = number.index + 1;
            }
            None => self.slots.push_back(state),
        }
        self.used += 1;
    }

    /// PUBACK.
    pub(super) fn puback(&mut self, id: u16) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some((index, QOS1)) => self.free(index, id),
            Some(_) => Acked::Wrong,
        }
    }

    /// PUBREC; `refused` = with a reason code of 0x80 or above.
    pub(super) fn pubrec(&mut self, id: u16, refused: bool) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some((index, QOS2)) if refused => self.free(index, id),
            Some((index, QOS2 | RELEASED)) => {
                if let Some(slot) = self.slots.get_mut(index) {
                    *slot |= RELEASED;
                }
                Acked::Release
            }
            Some(_) => Acked::Wrong,
        }
    }

    /// PUBCOMP.
    pub(super) fn pubcomp(&mut self, id: u16) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some((index, RELEASED)) => self.free(index, id),
            Some(_) => Acked::Wrong,
        }
    }

    fn find(&self, id: u16) -> Option<(usize, u8)> {
        let index = self.index(id)?;
        let state = self.slots.get(index)? & STATE;
        (state != FREE).then_some((index, state))
    }

    fn free(&mut self, index: usize, id: u16) -> Acked {
        let slot = self.slots.get_mut(index).map(std::mem::take).unwrap_or_default();
        self.used -= 1;
        let place = if slot & FEED == 0 { None } else { self.place(id) };
        if index == 0 {
            while self.slots.front() == Some(&FREE) {
                self.slots.pop_front();
                self.base = if usize::from(self.base) + 1 == IDS { 0 } else { self.base + 1 };
                self.hand = self.hand.saturating_sub(1);
            }
            if self.slots.is_empty() && self.slots.capacity() > KEPT {
                self.slots = VecDeque::new();
            }
        }
        Acked::Freed(place)
    }

    fn place(&mut self, id: u16) -> Option<FeedPlace> {
        let at = self.feed.iter().position(|(other, _)| *other == id)?;
        let (_, place) = self.feed.remove(at)?;
        if self.feed.is_empty() && self.feed.capacity() > KEPT / 8 {
            self.feed = VecDeque::new();
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SPAN: usize = 8;

    fn give(inflight: &mut Inflight, qos: u8) -> u16 {
        let number = inflight.next(SPAN).unwrap();
        inflight.take(number, qos == 2, None);
        number.id
    }

    #[test]
    fn ids_count_up_never_are_0_and_come_again() {
        let mut inflight = Inflight::default();
        for round in 0..140_000_u32 {
            let id = give(&mut inflight, 1);
            assert_eq!(u32::from(id), round % 65_535 + 1);
            assert_eq!(inflight.puback(id), Acked::Freed(None));
        }
        assert!(inflight.slots.is_empty() && inflight.slots.capacity() <= KEPT);
    }

    #[test]
    fn each_state_takes_its_own_acks() {
        let mut inflight = Inflight::default();
        let (one, two) = (give(&mut inflight, 1), give(&mut inflight, 2));
        assert_eq!(inflight.pubrec(one, false), Acked::Wrong);
        assert_eq!(inflight.pubcomp(one), Acked::Wrong);
        assert_eq!(inflight.puback(two), Acked::Wrong);
        assert_eq!(inflight.pubcomp(two), Acked::Wrong);
        assert_eq!(inflight.pubrec(two, false), Acked::Release);
        assert_eq!(inflight.pubrec(two, false), Acked::Release);
        assert_eq!(inflight.puback(two), Acked::Wrong);
        assert_eq!(inflight.pubcomp(two), Acked::Freed(None));
        assert_eq!(inflight.pubcomp(two), Acked::Unknown);
        assert_eq!(inflight.puback(one), Acked::Freed(None));
        assert_eq!(inflight.puback(0), Acked::Unknown);
        let refused = give(&mut inflight, 2);
        assert_eq!(inflight.pubrec(refused, true), Acked::Freed(None));
    }

    #[test]
    fn one_that_is_never_acked_holds_neither_ids_nor_memory() {
        let mut inflight = Inflight::default();
        let stuck = give(&mut inflight, 1);
        for _ in 0..100_000 {
            let id = give(&mut inflight, 1);
            assert_ne!(id, stuck);
            assert_eq!(inflight.puback(id), Acked::Freed(None));
        }
        assert!(inflight.slots.len() <= SPAN);
        assert_eq!(inflight.puback(stuck), Acked::Freed(None));
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn when_all_are_out_there_is_none() {
        let mut inflight = Inflight::default();
        let ids: Vec<u16> = (0..SPAN).map(|_| give(&mut inflight, 1)).collect();
        assert_eq!(inflight.next(SPAN), None);
        inflight.puback(ids[3]);
        assert_eq!(inflight.next(SPAN).map(|number| number.id), Some(ids[3]));
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec((0..4_u8, 0..12_u16, any::<bool>()), 0..300)) {
            let mut inflight = Inflight { base: 65_530, ..Inflight::default() };
            let mut model: BTreeMap<u16, (bool, bool, Option<FeedPlace>)> = BTreeMap::new();
            for (step, near, flag) in steps {
                let id = (65_530_u32 + u32::from(near)) % 65_535 + 1;
                let id = u16::try_from(id).unwrap();
                match step {
                    0 => match inflight.next(SPAN) {
                        Some(number) => {
                            let place = flag.then_some(FeedPlace { channel: 0, epoch: 1, seq: u64::from(number.id) });
                            prop_assert!(number.id != 0);
                            inflight.take(number, near % 2 == 0, place);
                            prop_assert!(model.insert(number.id, (near % 2 == 0, false, place)).is_none());
                        }
                        None => prop_assert!(model.len() == SPAN),
                    },
                    1 => {
                        let expected = match model.get(&id) {
                            None => Acked::Unknown,
                            Some((true, ..)) => Acked::Wrong,
                            Some((false, _, place)) => Acked::Freed(*place),
                        };
                        if matches!(expected, Acked::Freed(_)) { model.remove(&id); }
                        prop_assert_eq!(inflight.puback(id), expected);
                    }
                    2 => {
                        let expected = match model.get_mut(&id) {
                            None => Acked::Unknown,
                            Some((false, ..)) => Acked::Wrong,
                            Some((true, false, place)) if flag => Acked::Freed(*place),
                            Some((true, released, _)) => { *released = true; Acked::Release }
                        };
                        if matches!(expected, Acked::Freed(_)) { model.remove(&id); }
                        prop_assert_eq!(inflight.pubrec(id, flag), expected);
                    }
                    _ => {
                        let expected = match model.get(&id) {
                            None => Acked::Unknown,
                            Some((true, true, place)) => Acked::Freed(*place),
                            Some(_) => Acked::Wrong,
                        };
                        if matches!(expected, Acked::Freed(_)) { model.remove(&id); }
                        prop_assert_eq!(inflight.pubcomp(id), expected);
                    }
                }
                prop_assert_eq!(inflight.len(), model.len());
                prop_assert!(inflight.slots.len() <= SPAN && inflight.feed.len() <= model.len());
            }
        }
    }
}
