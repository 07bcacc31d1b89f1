//! When a session's window is committed, and what may be shown after it (design §1.8); what becomes of it when the session is
//! back.
//!
//! Invariants: a held number goes out, and PUBREL is written, only after the commit of a record that was taken when the one was
//! held, or the other received; one commit is under way at a time; a record without a QoS 2 number goes together with the ack of
//! what the number stood for, else a crash would bring that again. Must not know: bytes, who commits.

use crate::mutant;
use crate::port::peer::{OutState, Place};

/// What waits for the record of a session's window.
#[derive(Debug, Default)]
pub struct WindowCommits {
    waiting: Waiting,
    under_way: Option<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    held: Vec<u16>,
    received: Vec<u16>,
    /// Logs with something acked whose number is no longer in the record.
    freed: Vec<u32>,
}

/// What a commit allows, in the order of asking.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// These go out: [`crate::inflight::Inflight::send_held`].
    pub send: Vec<u16>,
    /// For these PUBREL is written: [`crate::inflight::Inflight::release`].
    pub release: Vec<u16>,
}

impl WindowCommits {
    /// A number is held.
    pub fn held(&mut self, number: u16) {
        self.waiting.held.push(number);
    }

    /// The client has received what is out under this number.
    pub fn received(&mut self, number: u16) {
        self.waiting.received.push(number);
    }

    /// What was out under a number of QoS 2 is over, and acked.
    pub fn freed(&mut self, place: Place) {
        if !self.waiting.freed.contains(&place.log) {
            self.waiting.freed.push(place.log);
        }
    }

    /// Whether a commit should begin.
    pub fn wants(&self) -> bool {
        self.under_way.is_none()
            && !(self.waiting.held.is_empty() && self.waiting.received.is_empty())
    }

    /// A commit begins: of what [`crate::inflight::Inflight::outs`] says now, together with the cursors on these logs. The end
    /// of a connection commits its window and all cursors without asking.
    pub fn begin(&mut self) -> Vec<u32> {
        let taken = std::mem::take(&mut self.waiting);
        let logs = taken.freed.clone();
        self.under_way = Some(taken);
        if mutant!("window_without_acks") { Vec::new() } else { logs }
    }

    /// The commit under way is over. What failed waits for the next one.
    pub fn end(&mut self, committed: bool) -> Allowed {
        let Some(mut taken) = self.under_way.take() else { return Allowed::default() };
        if committed {
            if mutant!("held_sent_before_commit") {
                taken.held.append(&mut self.waiting.held);
            }
            return Allowed { send: taken.held, release: taken.received };
        }
        let Waiting { held, received, freed } = std::mem::take(&mut self.waiting);
        taken.held.extend(held);
        taken.received.extend(received);
        taken.freed.extend(freed);
        self.waiting = taken;
        Allowed::default()
    }
}

/// What becomes of a number that an earlier connection left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// PUBLISH with DUP, under its number.
    Publish,
    /// PUBREL: the client has it, or there is nothing left to give. The number is in use until PUBCOMP.
    Release,
    /// Nothing: the number is free, and what it stood for counts as acked.
    Pass,
    /// The number is free; what it stood for is read from its log again, with DUP.
    Read,
}

/// What becomes of it. `crashed`: no end of the connection was stored, so that of QoS 1 nobody knows what is still out;
/// `there`: there is a body. The cursor says nothing of it: unsubscribed from and subscribed to again, a log has another one.
pub fn again(state: OutState, crashed: bool, there: bool) -> Again {
    match state {
        OutState::Released => Again::Release,
        // The client may hold the number.
        OutState::ExactlyOnce if !there && mutant!("number_of_gone_body_free") => Again::Pass,
        OutState::ExactlyOnce if !there => Again::Release,
        OutState::AtLeastOnce if !there => Again::Pass,
        OutState::AtLeastOnce if crashed => Again::Read,
        OutState::ExactlyOnce | OutState::AtLeastOnce => Again::Publish,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_a_commit_began_waits_for_the_next() {
        let mut commits = WindowCommits::default();
        assert!(!commits.wants());
        commits.held(1);
        commits.received(7);
        commits.freed(Place { log: 4, epoch: 1, seq: 1 });
        commits.freed(Place { log: 4, epoch: 1, seq: 2 });
        assert!(commits.wants());
        assert_eq!(commits.begin(), [4]);
        commits.held(2);
        assert!(!commits.wants(), "one at a time");
        assert_eq!(commits.end(false), Allowed::default());
        commits.held(3);
        assert_eq!((commits.wants(), commits.begin()), (true, vec![4]));
        commits.held(5);
        assert_eq!(commits.end(true), Allowed { send: vec![1, 2, 3], release: vec![7] });
        assert_eq!((commits.wants(), commits.begin()), (true, vec![]));
        assert_eq!(commits.end(true), Allowed { send: vec![5], release: vec![] });
    }

    #[test]
    fn what_comes_again() {
        use OutState::{AtLeastOnce, ExactlyOnce, Released};
        for (state, crashed, there, expected) in [
            (AtLeastOnce, false, true, Again::Publish),
            (AtLeastOnce, true, true, Again::Read),
            (AtLeastOnce, true, false, Again::Pass),
            (AtLeastOnce, false, false, Again::Pass),
            (ExactlyOnce, false, true, Again::Publish),
            (ExactlyOnce, true, true, Again::Publish),
            (ExactlyOnce, false, false, Again::Release),
            (Released, true, false, Again::Release),
        ] {
            assert_eq!(again(state, crashed, there), expected, "{state:?}");
        }
    }
}
