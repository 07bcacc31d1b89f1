//! The QoS 2 publishes of a client that are under way, in a session that outlives its connections: each is appended once.
//!
//! Invariants: PUBREC is written after the record of the packet id and the append are committed, the append is idempotent by the
//! key in the record, and PUBCOMP is written after the record's removal is committed, since the client may then use the id
//! again. Must not know: bytes, who commits.

use super::record::InboundRecord;
use crate::mutant;
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The record is committed, or is being; whether the append is, nobody knows.
    Recorded,
    /// Record and append are under way.
    Appending,
    /// Both are committed.
    Taken,
    /// The removal is under way.
    Removing,
}

/// What a PUBLISH with QoS 2 comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// It is new: commit a record with this key and the append under it, in this order or at once; then [`Inbounds::taken`].
    New(u64),
    /// An earlier connection recorded it: append it under this key (perhaps again); then [`Inbounds::taken`].
    Append(u64),
    /// It is under way: PUBREC follows anyhow.
    Wait,
    /// It is taken: PUBREC now.
    Taken,
}

/// What a PUBREL comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Commit the removal of the record; then [`Inbounds::removed`].
    Remove,
    /// PUBCOMP follows anyhow.
    Wait,
    /// There is none: PUBCOMP now.
    Unknown,
}

/// By packet id. As many as the client's receive window allows.
#[derive(Debug, Default)]
pub struct Inbounds(HashMap<u16, (u64, State)>);

impl Inbounds {
    /// How many are under way.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A record that an earlier connection left.
    pub fn load(&mut self, id: u16, record: InboundRecord) {
        if !mutant!("inbound_record_forgotten") {
            self.0.insert(id, (record.key, State::Recorded));
        }
    }

    /// PUBLISH; `key` is used if it is new.
    pub fn publish(&mut self, id: u16, key: u64) -> Handed {
        match self.0.get_mut(&id) {
            None => {
                self.0.insert(id, (key, State::Appending));
                Handed::New(key)
            }
            Some((key, state @ State::Recorded)) => {
                *state = State::Appending;
                Handed::Append(*key)
            }
            Some((_, State::Appending | State::Removing)) => Handed::Wait,
            Some((_, State::Taken)) => Handed::Taken,
        }
    }

    /// Record and append are committed (or it needed no append). Returns whether PUBREC is written.
    pub fn taken(&mut self, id: u16) -> bool {
        let Some((_, state @ State::Appending)) = self.0.get_mut(&id) else { return false };
        *state = State::Taken;
        true
    }

    /// The append was refused; `recorded` = the record is there all the same.
    pub fn refused(&mut self, id: u16, recorded: bool) {
        match self.0.get_mut(&id) {
            Some((_, state)) if recorded => *state = State::Recorded,
            _ => {
                self.0.remove(&id);
            }
        }
    }

    /// PUBREL.
    pub fn release(&mut self, id: u16) -> Ending {
        match self.0.get_mut(&id) {
            None => Ending::Unknown,
            Some((_, State::Removing)) => Ending::Wait,
            Some(_) if mutant!("inbound_over_before_commit") => {
                self.0.remove(&id);
                Ending::Unknown
            }
            Some((_, state)) => {
                *state = State::Removing;
                Ending::Remove
            }
        }
    }

    /// The removal is committed: PUBCOMP. Returns whether it was under way.
    pub fn removed(&mut self, id: u16) -> bool {
        self.0.remove(&id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_taken_once_and_over_when_its_record_is_gone() {
        let mut inbounds = Inbounds::default();
        assert_eq!(inbounds.release(1), Ending::Unknown);
        assert_eq!(inbounds.publish(1, 77), Handed::New(77));
        assert_eq!(inbounds.publish(1, 78), Handed::Wait);
        assert!(inbounds.taken(1) && !inbounds.taken(1));
        assert_eq!(inbounds.publish(1, 79), Handed::Taken);
        assert_eq!((inbounds.release(1), inbounds.release(1)), (Ending::Remove, Ending::Wait));
        assert_eq!(inbounds.publish(1, 80), Handed::Wait);
        assert!(inbounds.removed(1) && inbounds.is_empty());
        assert_eq!(inbounds.publish(1, 81), Handed::New(81));
        inbounds.refused(1, false);
        assert_eq!(inbounds.len(), 0);
    }

    #[test]
    fn what_was_recorded_is_appended_under_its_key() {
        let mut inbounds = Inbounds::default();
        inbounds.load(5, InboundRecord { key: 9, at: 1 });
        assert_eq!(inbounds.publish(5, 10), Handed::Append(9));
        inbounds.refused(5, true);
        assert_eq!(inbounds.publish(5, 11), Handed::Append(9));
        assert!(inbounds.taken(5));
        inbounds.load(6, InboundRecord { key: 12, at: 1 });
        assert_eq!(inbounds.release(6), Ending::Remove);
    }
}
