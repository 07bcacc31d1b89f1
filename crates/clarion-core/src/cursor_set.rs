//! The cursors of one attached device in memory: acks move them at once, their records are written lazily (design
//! §1.3).
//!
//! Invariants: an ack is never forgotten before a commit that carries it succeeded; one flush is under way at a time;
//! a flush holds one move per dirty cursor however many acks came. Must not know: timers, stores.

use crate::{Address, Cursor, Epoch, Seq, mutant, port::store::Move};

/// See the module.
#[derive(Debug, Default)]
pub struct CursorSet {
    entries: Vec<Entry>,
    flushing: bool,
}

#[derive(Debug)]
struct Entry {
    channel: Address,
    epoch: Epoch,
    cursor: Cursor,
    /// Acked since the last flush began.
    dirty: bool,
    /// Part of the flush under way.
    in_flush: bool,
}

impl CursorSet {
    /// Takes over a stored cursor; what is already here is merged, a newer epoch replaces.
    pub fn load(&mut self, channel: &Address, epoch: Epoch, cursor: &Cursor) {
        match self.entry(channel) {
            Some(entry) if entry.epoch == epoch => {
                entry.cursor.merge(cursor);
            }
            Some(_) => {}
            None => {
                // Most devices read two channels, and there is one set for each attached device.
                if self.entries.is_empty() {
                    self.entries.reserve_exact(2);
                }
                self.entries.push(Entry {
                    channel: channel.clone(),
                    epoch,
                    cursor: cursor.clone(),
                    dirty: false,
                    in_flush: false,
                });
            }
        }
    }

    /// The cursor on a channel in this history.
    pub fn get(&self, channel: &Address, epoch: Epoch) -> Option<&Cursor> {
        self.entries.iter().find(|e| e.channel == *channel && e.epoch == epoch).map(|e| &e.cursor)
    }

    /// Whether this seq is acked.
    pub fn is_acked(&self, channel: &Address, epoch: Epoch, seq: Seq) -> bool {
        self.get(channel, epoch).is_some_and(|cursor| cursor.is_acked(seq))
    }

    /// The channels that it has cursors on.
    pub fn channels(&self) -> impl Iterator<Item = &Address> {
        self.entries.iter().map(|entry| &entry.channel)
    }

    /// The channel's history is another one now: its cursor starts anew below `first`.
    pub fn restart(&mut self, channel: &Address, epoch: Epoch, first: Seq) {
        if let Some(entry) = self.entry(channel)
            && entry.epoch != epoch
        {
            entry.epoch = epoch;
            entry.cursor = Cursor::at(first.saturating_sub(1));
            entry.dirty = true;
        }
    }

    /// Acks `from..=to` of a channel that it has a cursor on, in this history. Returns whether anything changed.
    pub fn ack(&mut self, channel: &Address, epoch: Epoch, from: Seq, to: Seq) -> bool {
        let Some(entry) = self.entry(channel).filter(|entry| entry.epoch == epoch) else {
            return false;
        };
        let changed = entry.cursor.ack_run(from, to);
        entry.dirty |= changed;
        changed
    }

    /// This reader has no cursor on this channel any more.
    pub fn forget(&mut self, channel: &Address) {
        self.entries.retain(|entry| entry.channel != *channel);
    }

    /// Whether something waits to be written.
    pub fn is_dirty(&self) -> bool {
        self.entries.iter().any(|entry| entry.dirty)
    }

    /// Whether everything is written.
    pub fn is_clean(&self) -> bool {
        !self.flushing && !self.is_dirty()
    }

    /// Begins a flush: what must be committed now. Empty when nothing is dirty or a flush is under way.
    pub fn begin_flush(&mut self) -> Vec<Move> {
        if self.flushing {
            return Vec::new();
        }
        let mut moves = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| entry.dirty) {
            entry.dirty = false;
            entry.in_flush = true;
            moves.push(Move {
                channel: entry.channel.clone(),
                epoch: entry.epoch,
                cursor: entry.cursor.clone(),
            });
        }
        self.flushing = !moves.is_empty();
        moves
    }

    /// The channels that the flush under way writes.
    pub fn in_flush(&self) -> impl Iterator<Item = &Address> {
        self.entries.iter().filter(|entry| entry.in_flush).map(|entry| &entry.channel)
    }

    /// The flush under way is over; what did not succeed is dirty again.
    pub fn end_flush(&mut self, committed: bool) {
        self.flushing = false;
        for entry in &mut self.entries {
            entry.dirty |=
                entry.in_flush && !committed && !mutant!("dirty_forgotten_on_failed_commit");
            entry.in_flush = false;
        }
    }

    fn entry(&mut self, channel: &Address) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.channel == *channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> (CursorSet, Address) {
        let (mut set, user) = (CursorSet::default(), Address::user("u").unwrap());
        set.load(&user, 1, &Cursor::at(3));
        (set, user)
    }

    #[test]
    fn many_acks_are_one_move_and_a_failed_flush_is_repeated() {
        let (mut set, user) = set();
        assert!(set.is_clean());
        assert!(set.ack(&user, 1, 4, 5) && set.ack(&user, 1, 7, 7) && !set.ack(&user, 1, 4, 4));
        let moves = set.begin_flush();
        assert_eq!(moves.len(), 1);
        assert!(set.begin_flush().is_empty(), "one flush at a time");
        assert!(set.ack(&user, 1, 6, 6));
        set.end_flush(false);
        let again = set.begin_flush();
        assert_eq!(again[0].cursor, Cursor::at(7));
        set.end_flush(true);
        assert!(set.is_clean());
    }

    #[test]
    fn a_forgotten_cursor_is_not_written() {
        let (mut set, user) = set();
        set.ack(&user, 1, 4, 4);
        set.forget(&user);
        assert!(set.is_clean() && set.begin_flush().is_empty() && !set.ack(&user, 1, 5, 5));
    }

    #[test]
    fn acks_of_another_history_or_channel_do_nothing() {
        let (mut set, user) = set();
        assert!(!set.ack(&user, 2, 4, 9) && !set.ack(&Address::all(), 1, 1, 1));
        set.restart(&user, 2, 10);
        assert!(
            set.ack(&user, 2, 10, 11) && set.is_acked(&user, 2, 11) && !set.is_acked(&user, 1, 3)
        );
        set.load(&user, 1, &Cursor::at(99));
        assert_eq!(set.get(&user, 2), Some(&Cursor::at(11)), "an old history never comes back");
    }
}
