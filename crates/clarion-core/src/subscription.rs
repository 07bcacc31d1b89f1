//! One subscription of a session: what it delivers next, live or catching up (design §1.5).
//!
//! Invariants: `next` never goes back within an epoch; every seq from `start` on is either delivered in order or known
//! to be acked, expired, erased or trimmed; live means that nothing committed before the last hint is undelivered.
//! A session enters the live list first (state `Entering`), then its channel's head is read, so a commit is either
//! hinted or visible in that read. Must not know: sockets, outboxes, stores; the caller says whether there is room.

use crate::{Epoch, Seq, mutant};

/// Why messages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The channel no longer keeps them.
    Retention,
    /// The channel's history was lost; it is another one now.
    Epoch,
}

impl GapReason {
    /// The name that clients see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Epoch => "epoch",
        }
    }
}

/// Messages that this reader will not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First missing seq.
    pub from: Seq,
    /// Last missing seq; below `from` when nobody knows.
    pub to: Seq,
    /// Why.
    pub reason: GapReason,
}

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// In the live list, head not read yet.
    Entering,
    /// Behind; no page under way.
    Behind,
    /// Behind; a page is under way.
    Reading,
    /// Delivers hints.
    Live,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// 0 while the channel does not exist.
    epoch: Epoch,
    start: Seq,
    next: Seq,
    head: Seq,
    phase: Phase,
    other: Option<Other>,
}

/// A hint of another history came. A page or a head that was read before it may still show the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Other {
    epoch: Epoch,
    head: Seq,
    /// So many pages may still deny it; then it was a late hint of a history that is gone.
    denials: u8,
}

/// Pages that may deny a hint of another history: one that was joined under way, and one asked for after it.
const DENIALS: u8 = 3;

/// What to do with a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Put the record into the outbox.
    Deliver,
    /// It was delivered, or will be found by a page.
    Ignore,
    /// The subscription just fell behind: ask for a page.
    Behind,
}

/// What to do with a record of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Put the record into the outbox.
    Deliver,
    /// Not for this reader.
    Skip,
    /// No room: end the page here.
    Stop,
}

impl Subscription {
    /// A subscription that has just entered the live list.
    pub fn entering() -> Self {
        Self { epoch: 0, start: 1, next: 1, head: 0, phase: Phase::Entering, other: None }
    }

    /// The head is known: starts at `next` in the channel's present history, whose last seq is `last`.
    /// Hints that came since it entered may have raised the head above `last`.
    pub fn begin(&mut self, epoch: Epoch, next: Seq, last: Seq) {
        let mut hinted = self.head;
        if self.epoch != epoch && self.epoch != 0 {
            self.other = Some(Other { epoch: self.epoch, head: hinted, denials: DENIALS });
            hinted = 0;
        }
        self.epoch = epoch;
        self.start = next;
        self.next = next;
        self.head = if mutant!("live_without_head_check") { 0 } else { last.max(hinted) };
        self.settle();
    }

    /// The history that it reads.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The first seq that it gave or will give: what a cumulative ack starts at.
    pub fn start(&self) -> Seq {
        self.start
    }

    /// The seq that it will deliver next.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The last committed seq that it knows of.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// Whether its head is not known yet.
    pub fn is_entering(&self) -> bool {
        self.phase == Phase::Entering
    }

    /// Whether hints are delivered at once.
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether a page should be asked for.
    pub fn wants_page(&self) -> bool {
        self.phase == Phase::Behind
    }

    /// A committed record of its channel. `acked`: this reader has acked it already; `room`: the outbox takes it.
    pub fn hint(&mut self, epoch: Epoch, seq: Seq, acked: bool, room: bool) -> Hint {
        match self.phase {
            Phase::Entering => {
                if self.epoch != epoch {
                    (self.epoch, self.head) = (epoch, 0);
                }
                if !mutant!("hint_lost_while_entering") {
                    self.head = self.head.max(seq);
                }
                Hint::Ignore
            }
            Phase::Behind | Phase::Reading => {
                if epoch == self.epoch {
                    self.head = self.head.max(seq);
                } else {
                    self.note_other(epoch, seq);
                }
                Hint::Ignore
            }
            Phase::Live if self.epoch == 0 && seq == self.next => {
                self.epoch = epoch;
                self.hint_live(seq, acked, room)
            }
            Phase::Live if epoch != self.epoch => {
                self.note_other(epoch, seq);
                self.fall_behind()
            }
            Phase::Live if seq < self.next => Hint::Ignore,
            Phase::Live => self.hint_live(seq, acked, room),
        }
    }

    fn hint_live(&mut self, seq: Seq, acked: bool, room: bool) -> Hint {
        self.head = self.head.max(seq);
        let expected = if mutant!("gap_check_off_by_one") {
            seq == self.next || seq == self.next + 1
        } else {
            seq == self.next
        };
        if !expected {
            return self.fall_behind();
        }
        if acked {
            self.next = seq + 1;
            return Hint::Ignore;
        }
        if !room {
            if mutant!("full_outbox_drops") {
                self.next = seq + 1;
                return Hint::Ignore;
            }
            return self.fall_behind();
        }
        self.next = seq + 1;
        Hint::Deliver
    }

    fn note_other(&mut self, epoch: Epoch, seq: Seq) {
        let known = self.other.filter(|other| other.epoch == epoch).map_or(0, |other| other.head);
        self.other = Some(Other { epoch, head: known.max(seq), denials: DENIALS });
    }

    fn fall_behind(&mut self) -> Hint {
        self.phase = Phase::Behind;
        Hint::Behind
    }

    /// A page from `next` on was asked for.
    pub fn page_began(&mut self) {
        self.phase = Phase::Reading;
    }

    /// A page is here: the channel's present epoch and first kept seq. Returns what this reader has lost. When the
    /// epoch is another one, the page was read from a place that means nothing there: all of it is refused
    /// ([`Self::offer`] stops), and the next one is asked for from the first kept seq.
    pub fn page_opened(&mut self, epoch: Epoch, first_kept: Seq) -> Option<Gap> {
        let lost = |from, reason| Gap { from, to: first_kept - 1, reason };
        let hinted = self.other.take_if(|other| other.epoch == epoch).map_or(0, |o| o.head);
        if self.epoch == 0 {
            // The channel did not exist when this subscription began: its history is the first one.
            self.epoch = epoch;
        }
        if epoch != self.epoch {
            let gap = Gap { from: self.next, to: 0, reason: GapReason::Epoch };
            self.epoch = epoch;
            self.start = first_kept;
            self.next = first_kept;
            self.head = hinted;
            self.phase = Phase::Behind;
            return Some(gap);
        }
        self.head = self.head.max(hinted);
        if first_kept > self.next {
            let gap = lost(self.next, GapReason::Retention);
            self.next = first_kept;
            return Some(gap).filter(|_| !mutant!("gap_not_told"));
        }
        None
    }

    /// One record of the page, ascending.
    pub fn offer(&mut self, seq: Seq, acked: bool, room: bool) -> Offer {
        if self.phase != Phase::Reading {
            return Offer::Stop;
        }
        if seq < self.next && !mutant!("page_repeats") {
            return Offer::Skip;
        }
        if acked {
            self.next = seq + 1;
            return Offer::Skip;
        }
        if !room {
            return Offer::Stop;
        }
        self.next = seq + 1;
        Offer::Deliver
    }

    /// The page is done: everything up to `through` was looked at (`None`: it ended early), and the channel's last seq
    /// was `last`.
    pub fn page_ended(&mut self, through: Option<Seq>, last: Seq) {
        if let Some(through) = through.filter(|_| self.phase == Phase::Reading) {
            self.next = self.next.max(through + 1);
        }
        self.other = self.other.filter(|other| other.denials > 0);
        if let Some(other) = &mut self.other {
            other.denials -= 1;
        }
        self.head = if mutant!("page_forgets_hints") { last } else { self.head.max(last) };
        self.settle();
    }

    /// The page could not be read.
    pub fn page_failed(&mut self) {
        self.phase = Phase::Behind;
    }

    fn settle(&mut self) {
        let live = self.next > self.head && self.other.is_none();
        self.phase = if live { Phase::Live } else { Phase::Behind };
    }
}

#[cfg(test)]
mod tests;
