//! QoS 2 deliveries that a stored session has of groups (`$share`): once committed they are its own, and die with it.
//!
//! Such a delivery stands in the session's window in a log by its own name ([`kept_name`]). One commit puts it there and acks it in
//! the group's cursor, before it is written; so nobody else gets it, whatever dies. Since that cursor goes on, a cursor of
//! the session's ([`Reader::holding`]) keeps the log from being trimmed above what may be sent again. Invariant: what may have been
//! committed for a session is in its window at the end, written or not. Must not know: whose turn it is in a group.

use super::{FIRST_KEPT, Flight, Held, Stored};
use crate::shard::Shard;
use crate::shard::peer::PeerState;
use crate::shard::peer::share::{ForGood, ShareSub};
use crate::shard::session::Session;
use clarion_core::port::peer::{Out, OutState, Place, SubOptions};
use clarion_core::port::store::{Move, Reader, Unit};
use clarion_core::{Address, AddressKind, Cursor, Epoch, Seq};
use std::collections::HashMap;

/// Before the name of a log that a session has by a group.
const MARK: char = '\u{1}';

/// The name of the log in which deliveries of a group stand.
pub(in crate::shard::peer) fn kept_name(group: &str, channel: &Address) -> String {
    format!("{MARK}{group}\0{}", channel.as_str())
}

/// The group and the log of such a name.
pub(super) fn parse_kept(name: &str) -> Option<(&str, Address)> {
    let (group, channel) = name.strip_prefix(MARK)?.split_once('\0')?;
    Some((group, Address::parse_any(channel).ok()?))
}

/// What a session keeps of groups.
#[derive(Default)]
pub(super) struct Kept {
    /// Names of the logs that it stands in.
    names: Vec<Box<str>>,
    /// Logs that are held, and their floors.
    pins: HashMap<Address, (Epoch, Seq)>,
    /// Committed when the connection was already ending.
    unwritten: Vec<Out>,
}

impl Stored {
    /// The number of the log in which QoS 2 deliveries of a group stand.
    pub(in crate::shard::peer) fn kept_log(&mut self, name: &str) -> u32 {
        let names = &mut self.kept.names;
        let at = names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        FIRST_KEPT + at as u32
    }

    pub(super) fn kept_name_of(&self, log: u32) -> Option<&str> {
        let at = log.checked_sub(FIRST_KEPT)?;
        self.kept.names.get(at as usize).map(|name| &**name)
    }

    /// What is kept since an earlier connection is known.
    pub(super) fn load_kept(&mut self, outs: &[Out]) {
        self.kept.pins = self.pins_of(outs);
    }

    fn kept_place(&self, place: Place) -> Option<(&str, Address)> {
        parse_kept(self.kept_name_of(place.log)?)
    }

    /// Below what of each log nothing is sent again.
    fn pins_of(&self, outs: &[Out]) -> HashMap<Address, (Epoch, Seq)> {
        let mut pins: HashMap<Address, (Epoch, Seq)> = HashMap::new();
        for out in outs.iter().filter(|out| out.state == OutState::ExactlyOnce) {
            let Some((_, channel)) = self.kept_place(out.place) else { continue };
            let Place { epoch, seq, .. } = out.place;
            let new = (epoch, seq.saturating_sub(1));
            let pin = pins.entry(channel).or_insert(new);
            if pin.0 != epoch || new.1 < pin.1 {
                *pin = new;
            }
        }
        pins
    }

    /// What goes with the window: acks in groups of the first `held` that are held, and what holds logs. Returns the logs whose
    /// hold changes.
    pub(super) fn kept_units(
        &mut self,
        held: usize,
        outs: &[Out],
        units: &mut Vec<Unit>,
    ) -> Vec<Address> {
        if self.kept.names.is_empty() {
            return Vec::new();
        }
        let mut acks: HashMap<(Address, Epoch, &str), Cursor> = HashMap::new();
        for Held { place, .. } in self.held.iter().take(held) {
            if let Some((group, channel)) = self.kept_place(*place) {
                acks.entry((channel, place.epoch, group)).or_default().ack(place.seq);
            }
        }
        units.extend(acks.into_iter().map(|((channel, epoch, group), cursor)| Unit::Ack {
            reader: Reader::share(group),
            moves: vec![Move { channel, epoch, cursor }],
        }));
        let wanted = self.pins_of(outs);
        let known = std::mem::replace(&mut self.kept.pins, wanted.clone());
        let reader = Reader::holding(self.number());
        let forget = |channel: &Address| Unit::Forget {
            reader: reader.clone(),
            channel: Some(channel.clone()),
        };
        let mut changed = Vec::new();
        for channel in known.keys().filter(|channel| !wanted.contains_key(*channel)) {
            units.push(forget(channel));
            changed.push(channel.clone());
        }
        for (channel, (epoch, floor)) in wanted {
            let old = known.get(&channel).copied();
            if old == Some((epoch, floor)) {
                continue;
            }
            // Cursors never go back.
            if old.is_some_and(|old| old.0 != epoch || floor < old.1) {
                units.push(forget(&channel));
            }
            let cursor = Cursor::at(floor);
            let moves = vec![Move { channel: channel.clone(), epoch, cursor }];
            units.push(Unit::Ack { reader: reader.clone(), moves });
            changed.push(channel);
        }
        changed
    }

    /// Whether these logs are held as they should be is not known.
    pub(super) fn doubt_pins(&mut self, changed: Vec<Address>) {
        for channel in changed {
            self.kept.pins.insert(channel, (0, Seq::MAX));
        }
    }

    /// What was held is committed; `written`: it goes out now.
    pub(super) fn kept_committed(
        session: &mut Session,
        held: &[Held],
        written: bool,
    ) -> Vec<ForGood> {
        let mut all = Vec::new();
        for Held { number, place, .. } in held {
            let stored = Self::of(session);
            let Some(stored) = stored.filter(|s| s.kept_place(*place).is_some()) else { continue };
            if !written {
                let state = OutState::ExactlyOnce;
                stored.kept.unwritten.push(Out { number: *number, state, place: *place });
            }
            if let Some(peer) = PeerState::of(session) {
                all.extend(ShareSub::for_good(&mut peer.shares, *place));
            }
        }
        all
    }

    /// Adds to what is out at the end what is committed, or may be, and not written.
    pub(in crate::shard::peer) fn kept_at_end(
        &mut self,
        shares: &mut [ShareSub],
        outs: &mut Vec<Out>,
    ) -> Vec<ForGood> {
        outs.append(&mut self.kept.unwritten);
        let mut all = Vec::new();
        let flying = self.flight.as_ref().map_or(0, |flight| flight.held);
        for Held { number, place, .. } in self.held.iter().take(flying) {
            if self.kept_place(*place).is_some() {
                outs.push(Out { number: *number, state: OutState::ExactlyOnce, place: *place });
                all.extend(ShareSub::for_good(shares, *place));
            }
        }
        all
    }

    /// How a delivery that is kept goes out again; `None` = it is no such, or not subscribed to any more.
    pub(super) fn kept_options(&self, place: Place) -> Option<SubOptions> {
        let (group, channel) = self.kept_place(place)?;
        debug_assert!(matches!(channel.kind(), AddressKind::Topic | AddressKind::Filter));
        let slot = self.subs.find(channel.id(), Some(group))?;
        Some(self.subs.get(slot)?.options)
    }
}

impl Shard {
    /// Logs that a session held may be trimmed.
    pub(super) fn pins_moved(&self, flight: &Flight) {
        flight.pins.iter().for_each(|channel| self.context.trimmable.note(channel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (group, channel) in [("g", "topic:a/b"), ("\u{1}", "filter:+/#")] {
            let channel = Address::parse_any(channel).unwrap();
            let name = kept_name(group, &channel);
            assert_eq!(parse_kept(&name), Some((group, channel)));
        }
        assert_eq!(parse_kept("topic:a"), None);
        assert!(crate::retained::of_name(&kept_name("g", &Address::topic("a").unwrap())).is_none());
    }
}
