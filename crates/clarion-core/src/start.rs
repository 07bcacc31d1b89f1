//! Where a new cursor starts (design §1.3).
//!
//! Pure policy: from the state of a log and the floors of the same user's other cursors on it to the new floor.
//! Must not know: who attaches, stores.

use crate::port::store::Head;
use crate::{AddressKind, Seq, mutant};

/// What a reader asks for where its protocol can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum From {
    /// What it has not acked; for a new cursor the rule of its kind of channel.
    #[default]
    Unacked,
    /// The earliest message kept.
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// This seq.
    Seq(Seq),
}

/// The floor of a new cursor on a channel of this kind: everything up to it counts as acked. `highest` is the highest
/// floor among the same user's cursors on the channel, in its present history; `None` when there is none, and for
/// cursors that belong to no user.
pub fn floor_of_new(kind: AddressKind, from: From, head: &Head, highest: Option<Seq>) -> Seq {
    let (earliest, latest) = (head.first.saturating_sub(1), head.last);
    let floor = match from {
        From::Earliest => earliest,
        From::Latest => latest,
        From::Seq(seq) => seq.saturating_sub(1),
        From::Unacked => match kind {
            AddressKind::User if mutant!("new_cursor_at_the_head") => latest,
            AddressKind::User | AddressKind::Group => highest.unwrap_or(earliest),
            AddressKind::Queue | AddressKind::Dead => earliest,
            AddressKind::All | AddressKind::Topic | AddressKind::Filter => latest,
        },
    };
    floor.clamp(earliest.min(latest), latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: AddressKind, from: From, log: (Seq, Seq), highest: Option<Seq>, expected: Seq) {
        let head = Head { epoch: 1, first: log.0, last: log.1, ..Head::default() };
        assert_eq!(floor_of_new(kind, from, &head, highest), expected, "{kind:?} {from:?}");
    }

    #[test]
    fn each_kind_has_its_start() {
        use AddressKind::{All, Filter, Group, Queue, Topic, User};
        check(User, From::Unacked, (5, 20), None, 4);
        check(User, From::Unacked, (5, 20), Some(12), 12);
        check(User, From::Unacked, (5, 20), Some(2), 4);
        check(Group, From::Unacked, (5, 20), None, 4);
        check(Queue, From::Unacked, (5, 20), Some(12), 4);
        for kind in [All, Topic, Filter] {
            check(kind, From::Unacked, (5, 20), Some(12), 20);
        }
        check(User, From::Unacked, (1, 0), None, 0);
        check(User, From::Unacked, (21, 20), None, 20);
    }

    #[test]
    fn a_reader_may_say_otherwise() {
        use AddressKind::{All, User};
        check(All, From::Earliest, (5, 20), None, 4);
        check(User, From::Latest, (5, 20), Some(7), 20);
        check(User, From::Seq(9), (5, 20), None, 8);
        check(User, From::Seq(0), (5, 20), None, 4);
        check(User, From::Seq(u64::MAX), (5, 20), None, 20);
    }
}
