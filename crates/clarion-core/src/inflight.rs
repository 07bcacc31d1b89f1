//! The numbers of what was delivered with QoS 1 and 2 and is not over: packet ids and what each stands for.
//!
//! Invariants: a packet id is in use once and never 0; there are at most `span` slots, whatever a client acks or does not.
//! Clients ack mostly in order, so slots are a ring of consecutive ids: one byte each, pushed behind and popped in front. A client
//! that never acks one message leaves holes behind it, which are used again when the ring is full.
//!
//! A session that outlives its connection commits what stands here before the client sees it (design §1.8): a QoS 2 number is
//! *held* until it is committed with its place, then *sent*; the client's PUBREC makes it *received*, and once that is
//! committed it is *released*. Must not know: bytes, who commits.

use crate::mutant;
use crate::port::peer::{Out, OutState, Place};
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
/// QoS 2, not committed yet: the client has not seen it.
const HELD: u8 = 4;
/// PUBREC is here; PUBREL waits until that is committed.
const RECEIVED: u8 = 5;
const STATE: u8 = 7;
/// It was read from a log: its place stands beside.
const PLACED: u8 = 8;

/// A number that is free, found by [`Inflight::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// The packet id.
    pub id: u16,
    index: usize,
}

/// What an ack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acked {
    /// Nothing was delivered under this id.
    Unknown,
    /// What was delivered under this id is not acked by this kind of packet.
    Wrong,
    /// PUBREL follows.
    Release,
    /// PUBREL follows when that is committed.
    Received,
    /// It is over.
    Freed(Option<Place>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Inflight {
    /// The id of the first slot, less one.
    base: u16,
    slots: VecDeque<u8>,
    used: usize,
    /// Where the search for a hole goes on.
    hand: usize,
    /// Where what was read from logs stands, in the order of sending.
    places: VecDeque<(u16, Place)>,
}

impl Inflight {
    /// How many are not over.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none is out.
    pub fn is_empty(&self) -> bool {
        self.used == 0
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
    pub fn next(&self, span: usize) -> Option<Number> {
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
    pub fn take(&mut self, number: Number, exactly_once: bool, place: Option<Place>) {
        self.put(number, if exactly_once { QOS2 } else { QOS1 }, place);
    }

    /// Puts a number to use that the client sees only when it is committed with its place.
    pub fn hold(&mut self, number: Number, place: Place) {
        self.put(number, HELD, Some(place));
    }

    fn put(&mut self, number: Number, mut state: u8, place: Option<Place>) {
        if let Some(place) = place {
            state |= PLACED;
            self.places.push_back((number.id, place));
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

    /// What was held is committed and goes out. Returns whether it was held.
    pub fn send_held(&mut self, id: u16) -> bool {
        let held = self.turn(id, HELD, QOS2);
        // What was sent while it waited comes before it.
        if held
            && let Some(at) = self.places.iter().position(|(other, _)| *other == id)
            && let Some(one) = self.places.remove(at)
        {
            self.places.push_back(one);
        }
        held
    }

    /// What was held does not go out.
    pub fn drop_held(&mut self, id: u16) {
        if let Some((index, HELD)) = self.find(id) {
            self.free(index, id);
        }
    }

    /// PUBREC is committed. Returns whether PUBREL follows, or follows again.
    pub fn release(&mut self, id: u16) -> bool {
        self.turn(id, RECEIVED, RELEASED) || matches!(self.find(id), Some((_, RELEASED)))
    }

    /// The body of what is out is gone. QoS 1: its number is free, `Some(false)`. QoS 2: nobody knows whether the client has it,
    /// so that it is closed as if it were received: `Some(true)`.
    pub fn lose(&mut self, id: u16) -> Option<bool> {
        match self.find(id)? {
            (index, QOS1) => {
                self.free(index, id);
                Some(false)
            }
            (_, QOS2) => Some(self.turn(id, QOS2, RECEIVED)),
            _ => None,
        }
    }

    fn turn(&mut self, id: u16, from: u8, to: u8) -> bool {
        let Some((index, state)) = self.find(id) else { return false };
        if state == from
            && let Some(slot) = self.slots.get_mut(index)
        {
            *slot = *slot & PLACED | to;
            return true;
        }
        false
    }

    /// PUBACK.
    pub fn puback(&mut self, id: u16) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some((index, QOS1)) => self.free(index, id),
            Some((_, HELD)) => Acked::Unknown,
            Some(_) => Acked::Wrong,
        }
    }

    /// PUBREC; `refused` = with a reason code of 0x80 or above. `commits`: what has a place is released only when that is
    /// committed.
    pub fn pubrec(&mut self, id: u16, refused: bool, commits: bool) -> Acked {
        match self.find(id) {
            None | Some((_, HELD)) => Acked::Unknown,
            Some((index, QOS2)) if refused => self.free(index, id),
            Some((_, QOS2))
                if commits && self.is_placed(id) && !mutant!("release_before_commit") =>
            {
                self.turn(id, QOS2, RECEIVED);
                Acked::Received
            }
            Some((_, QOS2)) => {
                self.turn(id, QOS2, RELEASED);
                Acked::Release
            }
            Some((_, RECEIVED)) => Acked::Received,
            Some((_, RELEASED)) => Acked::Release,
            Some(_) => Acked::Wrong,
        }
    }

    fn is_placed(&self, id: u16) -> bool {
        let slot = self.index(id).and_then(|index| self.slots.get(index));
        slot.is_some_and(|slot| slot & PLACED != 0)
    }

    /// The place of what is out under this number.
    pub fn place_of(&self, id: u16) -> Option<Place> {
        self.places.iter().find(|(other, _)| *other == id).map(|(_, place)| *place)
    }

    /// PUBCOMP.
    pub fn pubcomp(&mut self, id: u16) -> Acked {
        match self.find(id) {
            None => Acked::Unknown,
            Some((index, RELEASED)) => self.free(index, id),
            Some((_, HELD)) => Acked::Unknown,
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
        let place = if slot & PLACED == 0 { None } else { self.place(id) };
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

    fn place(&mut self, id: u16) -> Option<Place> {
        let at = self.places.iter().position(|(other, _)| *other == id)?;
        let (_, place) = self.places.remove(at)?;
        if self.places.is_empty() && self.places.capacity() > KEPT / 8 {
            self.places = VecDeque::new();
        }
        Some(place)
    }

    /// What was read from logs and is out, in the order of sending. `at_end`: as the end of a connection leaves it, QoS 1 too,
    /// without what the client has not seen; else what must be committed while it lasts: QoS 2.
    pub fn outs(&self, at_end: bool) -> Vec<Out> {
        let out = |&(number, place): &(u16, Place)| {
            let (_, state) = self.find(number)?;
            let state = match state {
                QOS1 if at_end => OutState::AtLeastOnce,
                HELD if !at_end => OutState::ExactlyOnce,
                QOS2 => OutState::ExactlyOnce,
                RECEIVED | RELEASED => OutState::Released,
                _ => return None,
            };
            Some(Out { number, state, place })
        };
        // What is held is sent after all that is out now.
        let is_held = |(number, _): &&(u16, Place)| self.find(*number).is_some_and(|f| f.1 == HELD);
        let (held, sent): (Vec<_>, Vec<_>) = self.places.iter().partition(is_held);
        let mut outs: Vec<Out> = sent.into_iter().chain(held).filter_map(out).collect();
        if mutant!("outs_order_lost") {
            outs.sort_by_key(|out| out.number);
        }
        outs
    }

    /// Takes over what an earlier connection left; nothing is out yet.
    pub fn restore(&mut self, outs: &[Out]) {
        let mut ids: Vec<u16> = outs.iter().map(|out| out.number).filter(|id| *id > 0).collect();
        ids.sort_unstable();
        ids.dedup();
        let (Some(&first), Some(&last)) = (ids.first(), ids.last()) else { return };
        // The ring begins behind the widest stretch of free numbers.
        let around = usize::from(first) + IDS - usize::from(last);
        let (mut begin, mut widest) = (first, around);
        for pair in ids.windows(2) {
            let gap = usize::from(pair[1] - pair[0]);
            if gap > widest {
                (begin, widest) = (pair[1], gap);
            }
        }
        self.base = begin - 1;
        self.slots = vec![FREE; IDS - widest + 1].into();
        for out in outs {
            let state = match out.state {
                OutState::AtLeastOnce => QOS1,
                OutState::ExactlyOnce => QOS2,
                OutState::Released => RELEASED,
            };
            let free = self.index(out.number).filter(|index| self.slots[*index] == FREE);
            let forgotten = mutant!("restore_forgets_released") && state == RELEASED;
            if let Some(index) = free.filter(|_| !forgotten) {
                self.slots[index] = state | PLACED;
                self.places.push_back((out.number, out.place));
                self.used += 1;
            }
        }
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
        assert_eq!(inflight.pubrec(one, false, false), Acked::Wrong);
        assert_eq!(inflight.pubcomp(one), Acked::Wrong);
        assert_eq!(inflight.puback(two), Acked::Wrong);
        assert_eq!(inflight.pubcomp(two), Acked::Wrong);
        assert_eq!(inflight.pubrec(two, false, false), Acked::Release);
        assert_eq!(inflight.pubrec(two, false, false), Acked::Release);
        assert_eq!(inflight.puback(two), Acked::Wrong);
        assert_eq!(inflight.pubcomp(two), Acked::Freed(None));
        assert_eq!(inflight.pubcomp(two), Acked::Unknown);
        assert_eq!(inflight.puback(one), Acked::Freed(None));
        assert_eq!(inflight.puback(0), Acked::Unknown);
        let refused = give(&mut inflight, 2);
        assert_eq!(inflight.pubrec(refused, true, false), Acked::Freed(None));
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

    fn place(seq: u64) -> Place {
        Place { log: 7, epoch: 1, seq }
    }

    #[test]
    fn what_is_committed_goes_its_way_and_comes_back_the_same() {
        let mut inflight = Inflight { base: 65_533, ..Inflight::default() };
        let mut ids = Vec::new();
        for seq in 1..=4 {
            let number = inflight.next(SPAN).unwrap();
            ids.push(number.id);
            if seq == 1 {
                inflight.take(number, false, Some(place(seq)));
            } else {
                inflight.hold(number, place(seq));
            }
        }
        assert_eq!(ids, [65_534, 65_535, 1, 2]);
        assert_eq!(inflight.pubrec(ids[1], false, true), Acked::Unknown, "nobody has seen it");
        assert!(
            inflight.send_held(ids[1]) && inflight.send_held(ids[2]) && !inflight.send_held(ids[0])
        );
        assert_eq!(inflight.pubrec(ids[1], false, true), Acked::Received);
        assert_eq!(inflight.pubcomp(ids[1]), Acked::Wrong, "it is not released");
        assert_eq!(inflight.outs(false).len(), 3, "QoS 1 is not committed while it lasts");
        assert!(inflight.release(ids[1]) && !inflight.release(ids[2]));
        let left = inflight.outs(true);
        let states: Vec<_> = left.iter().map(|out| (out.number, out.state)).collect();
        let (once, exactly, released) =
            (OutState::AtLeastOnce, OutState::ExactlyOnce, OutState::Released);
        assert_eq!(states, [(ids[0], once), (ids[1], released), (ids[2], exactly)]);
        let mut again = Inflight::default();
        again.restore(&left);
        assert_eq!((again.outs(true), again.len()), (left, 3));
        assert_eq!(again.next(SPAN).map(|number| number.id), Some(2));
        assert_eq!(again.puback(ids[0]), Acked::Freed(Some(place(1))));
        assert_eq!(again.pubcomp(ids[1]), Acked::Freed(Some(place(2))));
        assert_eq!(again.pubrec(ids[2], true, true), Acked::Freed(Some(place(3))));
        assert!(again.is_empty());
    }

    #[test]
    fn what_was_held_is_in_the_order_of_sending() {
        let mut inflight = Inflight::default();
        let numbers: Vec<u16> = (1..=4_u64)
            .map(|seq| {
                let number = inflight.next(SPAN).unwrap();
                match seq {
                    2 => inflight.take(number, false, Some(place(seq))),
                    _ => inflight.hold(number, place(seq)),
                }
                number.id
            })
            .collect();
        let order = |inflight: &Inflight, at_end| -> Vec<u16> {
            inflight.outs(at_end).iter().map(|out| out.number).collect()
        };
        assert!(inflight.send_held(numbers[2]));
        assert_eq!(order(&inflight, false), [numbers[2], numbers[0], numbers[3]]);
        assert!(inflight.send_held(numbers[0]));
        assert_eq!(order(&inflight, true), [numbers[1], numbers[2], numbers[0]]);
    }

    proptest! {
        #[test]
        fn it_does_what_a_map_does(steps in prop::collection::vec((0..4_u8, 0..12_u16, any::<bool>()), 0..300)) {
            let mut inflight = Inflight { base: 65_530, ..Inflight::default() };
            let mut model: BTreeMap<u16, (bool, bool, Option<Place>)> = BTreeMap::new();
            for (step, near, flag) in steps {
                let id = (65_530_u32 + u32::from(near)) % 65_535 + 1;
                let id = u16::try_from(id).unwrap();
                match step {
                    0 => match inflight.next(SPAN) {
                        Some(number) => {
                            let place = flag.then_some(Place { log: 0, epoch: 1, seq: u64::from(number.id) });
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
                        prop_assert_eq!(inflight.pubrec(id, flag, false), expected);
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
                prop_assert!(inflight.slots.len() <= SPAN && inflight.places.len() <= model.len());
            }
        }
    }
}
