//! The kinds of visits, and how often each thing was done.
//!
//! Must not know: connections.

/// What a visit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The session is made.
    Create,
    /// It comes, gets what is there and leaves.
    Resume,
    /// Somebody else connects as the same client while it is there.
    TakeOver,
    /// That somebody.
    Second,
    /// It unsubscribes some and subscribes others.
    Change,
    /// It begins anew.
    Clean,
    /// It leaves a session that expires soon.
    Short,
    /// Its connection breaks.
    Cut,
    /// The session is to go.
    Remove,
}

/// Those that a churn consists of, with how many of 100 visits are such ones.
const SHARES: [(Kind, u32); 6] = [
    (Kind::Resume, 45),
    (Kind::TakeOver, 10),
    (Kind::Change, 15),
    (Kind::Clean, 10),
    (Kind::Short, 12),
    (Kind::Cut, 8),
];

impl Kind {
    /// What is drawn from.
    pub(super) const WEIGHTS: u32 = 100;

    /// The kind that a number below [`Self::WEIGHTS`] stands for.
    pub(super) fn drawn(mut number: u32) -> Self {
        for (kind, share) in SHARES {
            match number.checked_sub(share) {
                None => return kind,
                Some(rest) => number = rest,
            }
        }
        Self::Resume
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Resume => "resume",
            Self::TakeOver => "take_over",
            Self::Second => "second",
            Self::Change => "change",
            Self::Clean => "clean",
            Self::Short => "short",
            Self::Cut => "cut",
            Self::Remove => "remove",
        }
    }
}

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    visits: [u64; SHARES.len()],
    /// Sessions that had expired when their client came back.
    pub(super) expired: u64,
    pub(super) published: u64,
    pub(super) acked: u64,
    pub(super) received: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Counts {
    /// A visit has ended as it should.
    pub(super) fn done(&mut self, kind: Kind) {
        let place = SHARES.iter().position(|(one, _)| *one == kind);
        if let Some(count) = place.and_then(|place| self.visits.get_mut(place)) {
            *count += 1;
        }
    }

    /// Something went wrong.
    pub(super) fn fault(&mut self, text: &str) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| text.to_owned());
    }

    pub(super) fn operations(&self) -> Vec<(&'static str, u64)> {
        let visits = SHARES.iter().zip(self.visits).map(|((kind, _), count)| (kind.name(), count));
        let others =
            [("expired", self.expired), ("published", self.acked), ("received", self.received)];
        visits.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_drawn_by_their_shares() {
        assert_eq!(SHARES.iter().map(|(_, share)| share).sum::<u32>(), Kind::WEIGHTS);
        for (kind, share) in SHARES {
            let drawn = (0..Kind::WEIGHTS).filter(|number| Kind::drawn(*number) == kind);
            assert_eq!(drawn.count() as u32, share);
        }
    }

    #[test]
    fn what_was_done_is_counted() {
        let mut counts = Counts::default();
        counts.done(Kind::Cut);
        counts.done(Kind::Second);
        counts.fault("a");
        counts.fault("b");
        assert_eq!(counts.operations().iter().map(|(_, count)| count).sum::<u64>(), 1);
        assert_eq!((counts.errors, counts.first_error.as_deref()), (2, Some("a")));
    }
}
