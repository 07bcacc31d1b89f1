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
    epoch: Epoch,
    start: Seq,
    next: Seq,
    head: Seq,
    phase: Phase,
}

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
        Self { epoch: 0, start: 1, next: 1, head: 0, phase: Phase::Entering }
    }

    /// The head is known: starts at `next` in the channel's present history, whose last seq is `last`.
    /// Hints that came since it entered may have raised the head above `last`.
    pub fn begin(&mut self, epoch: Epoch, next: Seq, last: Seq) {
        let hinted = if self.epoch == epoch || self.epoch == 0 { self.head } else { 0 };
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
                self.head = self.head.max(seq);
                Hint::Ignore
            }
            Phase::Behind | Phase::Reading => {
                if epoch == self.epoch {
                    self.head = self.head.max(seq);
                }
                Hint::Ignore
            }
            Phase::Live if epoch != self.epoch => self.fall_behind(),
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

    fn fall_behind(&mut self) -> Hint {
        self.phase = Phase::Behind;
        Hint::Behind
    }

    /// A page from `next` on was asked for.
    pub fn page_began(&mut self) {
        self.phase = Phase::Reading;
    }

    /// A page is here: the channel's present epoch and first kept seq. Returns what this reader has lost.
    pub fn page_opened(&mut self, epoch: Epoch, first_kept: Seq) -> Option<Gap> {
        let lost = |from, reason| Gap { from, to: first_kept - 1, reason };
        if epoch != self.epoch {
            let gap = Gap { from: self.next, to: 0, reason: GapReason::Epoch };
            self.epoch = epoch;
            self.start = first_kept;
            self.next = first_kept;
            self.head = 0;
            return Some(gap);
        }
        if first_kept > self.next {
            let gap = lost(self.next, GapReason::Retention);
            self.next = first_kept;
            return Some(gap);
        }
        None
    }

    /// One record of the page, ascending.
    pub fn offer(&mut self, seq: Seq, acked: bool, room: bool) -> Offer {
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
        if let Some(through) = through {
            self.next = self.next.max(through + 1);
        }
        self.head = if mutant!("page_forgets_hints") { last } else { self.head.max(last) };
        self.settle();
    }

    /// The page could not be read.
    pub fn page_failed(&mut self) {
        self.phase = Phase::Behind;
    }

    fn settle(&mut self) {
        self.phase = if self.next > self.head { Phase::Live } else { Phase::Behind };
    }
}

#[cfg(test)]
mod tests;
