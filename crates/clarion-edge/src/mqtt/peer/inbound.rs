//! What a client has published and is not over: which QoS 2 ids wait for what, and answers that wait for their turn.
//!
//! The shard answers publishes in the order of asking, so an answer needs no memory: its token holds QoS and packet id. Only a
//! publish that is refused here, while others are with the shard, waits in a list, since acks keep the order of the publishes
//! (MQTT-4.6.0-2). Invariants: with 5 all of it is bounded by the receive maximum, with 3.x by the number of ids; nothing is
//! allocated while idle, some bytes apart. Must not know: bytes.

use clarion_core::Refusal;
use clarion_wire::mqtt::Qos;
use std::collections::VecDeque;

/// What remains allocated when nothing is under way.
const KEPT: usize = 32;
/// Ids that are kept as a list; more are kept as bits.
const FEW: usize = 512;

/// A publish that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) qos: Qos,
    pub(super) id: u16,
}

impl Asked {
    /// Its name towards the shard; 0 = no answer is wanted.
    pub(super) fn token(self) -> u32 {
        match self.qos {
            Qos::AtMostOnce => 0,
            qos => (qos as u32) << 16 | u32::from(self.id),
        }
    }

    /// The other way.
    pub(super) fn of(token: u32) -> Self {
        let qos = match token >> 16 {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            _ => Qos::ExactlyOnce,
        };
        Self { qos, id: u16::try_from(token & 0xffff).unwrap_or_default() }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// QoS 1 publishes without PUBACK.
    at_least_once: usize,
    /// QoS 2 ids without PUBREC.
    pub(super) asking: IdSet,
    /// QoS 2 ids with PUBREC and without PUBREL.
    pub(super) received: IdSet,
    /// Publishes handed to the shard for an answer, and answered; they wrap.
    asked: u32,
    answered: u32,
    /// Refused here, each behind so many of `asked`.
    waiting: VecDeque<(u32, Asked, Refusal)>,
}

impl Inbound {
    /// How many count against the receive maximum.
    pub(super) fn len(&self) -> usize {
        self.at_least_once + self.asking.len() + self.received.len()
    }

    /// A publish is there; it is answered later.
    pub(super) fn begin(&mut self, asked: Asked) {
        match asked.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.at_least_once += 1,
            Qos::ExactlyOnce => self.asking.insert(asked.id),
        }
    }

    /// It is with the shard.
    pub(super) fn handed_on(&mut self, asked: Asked) {
        if asked.token() != 0 {
            self.asked = self.asked.wrapping_add(1);
        }
    }

    /// It is refused here. `Some` when it is its turn to be answered.
    pub(super) fn refused(&mut self, asked: Asked, refusal: Refusal) -> Option<Refusal> {
        if self.asked == self.answered && self.waiting.is_empty() {
            return Some(refusal);
        }
        self.waiting.push_back((self.asked, asked, refusal));
        None
    }

    /// The shard has answered one.
    pub(super) fn answered(&mut self) {
        self.answered = self.answered.wrapping_add(1);
    }

    /// The next that was refused here and whose turn it is.
    pub(super) fn next_refused(&mut self) -> Option<(Asked, Refusal)> {
        let (behind, ..) = self.waiting.front()?;
        // It stands behind at most what is unanswered, so that the difference tells the order although both wrap.
        if behind.wrapping_sub(self.answered) as i32 > 0 {
            return None;
        }
        let (_, asked, refusal) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((asked, refusal))
    }

    /// It is answered; `taken` = with QoS 2, PUBREL follows.
    pub(super) fn end(&mut self, asked: Asked, taken: bool) {
        match asked.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.at_least_once = self.at_least_once.saturating_sub(1),
            Qos::ExactlyOnce => {
                self.asking.remove(asked.id);
                if taken {
                    self.received.insert(asked.id);
                }
            }
        }
    }
}

/// A set of packet ids. Mostly empty or small and used in order.
#[derive(Debug)]
pub(super) enum IdSet {
    Few(Vec<u16>),
    Many { bits: Box<[u64]>, len: usize },
}

impl Default for IdSet {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl IdSet {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(ids) => ids.len(),
            Self::Many { len, .. } => *len,
        }
    }

    pub(super) fn contains(&self, id: u16) -> bool {
        match self {
            Self::Few(ids) => ids.contains(&id),
            Self::Many { bits, .. } => bits.get(word(id)).is_some_and(|word| word & bit(id) != 0),
        }
    }

    fn insert(&mut self, id: u16) {
        if self.contains(id) {
            return;
        }
        match self {
            Self::Few(ids) if ids.len() < FEW => ids.push(id),
            Self::Few(ids) => {
                let mut bits = vec![0_u64; 1024].into_boxed_slice();
                for id in ids.iter().copied().chain([id]) {
                    if let Some(word) = bits.get_mut(word(id)) {
                        *word |= bit(id);
                    }
                }
                *self = Self::Many { bits, len: FEW + 1 };
            }
            Self::Many { bits, len } => {
                if let Some(word) = bits.get_mut(word(id)) {
                    *word |= bit(id);
                    *len += 1;
                }
            }
        }
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, id: u16) -> bool {
        match self {
            Self::Few(ids) => {
                let Some(at) = ids.iter().position(|other| *other == id) else { return false };
                ids.remove(at);
                if ids.is_empty() && ids.capacity() > KEPT {
                    *ids = Vec::new();
                }
                true
            }
            Self::Many { bits, len } => {
                let there = bits.get_mut(word(id)).is_some_and(|word| {
                    let there = *word & bit(id) != 0;
                    *word &= !bit(id);
                    there
                });
                *len -= usize::from(there);
                if *len == 0 {
                    *self = Self::default();
                }
                there
            }
        }
    }
}

fn word(id: u16) -> usize {
    usize::from(id) / 64
}

fn bit(id: u16) -> u64 {
    1 << (id % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::Code;
    use std::collections::BTreeSet;

    #[test]
    fn tokens_name_what_is_answered() {
        for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
            for id in [1, 2, 65_535] {
                let asked = Asked { qos, id };
                assert_ne!(asked.token(), 0);
                assert_eq!(Asked::of(asked.token()), asked);
            }
        }
        assert_eq!(Asked { qos: Qos::AtMostOnce, id: 0 }.token(), 0);
    }

    #[test]
    fn sets_of_any_size_hold_what_was_put_in() {
        let mut set = IdSet::default();
        let mut model = BTreeSet::new();
        let mut random = 12345_u32;
        for round in 0..20_000_u32 {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let id = u16::try_from(random >> 16 & 0x7ff).unwrap() + 1;
            // It fills, then empties, twice.
            if round % 10_000 < 5_000 {
                set.insert(id);
                model.insert(id);
            } else {
                assert_eq!(set.remove(id), model.remove(&id));
            }
            assert_eq!((set.len(), set.contains(id)), (model.len(), model.contains(&id)));
        }
        for id in model {
            assert!(set.remove(id));
        }
        assert!(matches!(set, IdSet::Few(ids) if ids.capacity() <= KEPT));
    }

    #[test]
    fn what_is_refused_here_waits_for_its_turn() {
        let asked = |id| Asked { qos: Qos::AtLeastOnce, id };
        let refusal = || Refusal::from(Code::Forbidden);
        let mut inbound = Inbound { asked: u32::MAX, answered: u32::MAX, ..Inbound::default() };
        assert!(inbound.refused(asked(1), refusal()).is_some());
        inbound.handed_on(asked(2));
        inbound.handed_on(asked(3));
        assert!(inbound.refused(asked(4), refusal()).is_none());
        inbound.handed_on(asked(5));
        assert!(inbound.refused(asked(6), refusal()).is_none());
        inbound.answered();
        assert!(inbound.next_refused().is_none());
        inbound.answered();
        assert_eq!(inbound.next_refused().map(|(asked, _)| asked.id), Some(4));
        assert!(inbound.next_refused().is_none());
        inbound.answered();
        assert_eq!(inbound.next_refused().map(|(asked, _)| asked.id), Some(6));
        assert!(inbound.refused(asked(7), refusal()).is_some());
    }
}
