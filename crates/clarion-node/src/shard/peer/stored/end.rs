//! The end of a stored session's connection: all that is unwritten is committed once, then the session is given back.
//!
//! Invariant: whoever holds the client id next finds what is written here. Must not know: any protocol.

use super::Stored;
use crate::clock;
use crate::committer::{CommitAnswer, Reply};
use crate::sessions::{delete, end_units, put};
use crate::shard::session::{Role, Session};
use crate::shard::{SessionKey, Shard, State};
use clarion_core::Address;
use clarion_core::durable::record;
use clarion_core::port::peer::Out;
use clarion_core::port::store::{Change, Expect, Reader, Unit};
use std::rc::Rc;

impl Stored {
    /// What is written at the end, and the logs that it may free for trimming; `expiry_s` = how long the session is kept from now on.
    fn last_units(
        &mut self,
        client: &str,
        (outs, expiry_s): (&[Out], u32),
        seen: u64,
        trimmed: &mut Vec<Address>,
    ) -> Vec<Unit> {
        let number = self.number();
        let Some(key) = record::session_key(client) else { return Vec::new() };
        if expiry_s == 0 {
            return end_units(key, self.version, number);
        }
        let mut outs = outs.to_vec();
        outs.extend(self.held_replays());
        let outs = &outs[..];
        self.ack_received(outs);
        let held = self.flight.as_ref().map_or(0, |flight| flight.held);
        if let Some(flight) = self.flight.take() {
            // Whether that is committed is not known here; written twice is as good.
            self.fly_again(flight);
        }
        let settled = self.tails == 0
            && !self.unsure
            && self.settling.is_none()
            && !self.resending
            && outs.is_empty()
            && self.inbound.is_empty()
            && self.replays.is_empty()
            && self.logs.iter().flatten().all(|log| log.is_settled());
        self.record.ended_at = Some(clock::now());
        self.record.expiry_s = expiry_s;
        self.record.settled = settled.then_some(seen);
        let (moves, _) = self.take_moves();
        trimmed.extend(moves.iter().map(|of| of.channel.clone()));
        let mut units = Vec::with_capacity(3);
        if !moves.is_empty() {
            units.push(Unit::Ack { reader: Reader::session(number), moves });
        }
        self.kept_units(held, outs, &mut units);
        units.push(self.owed_unit(&[]));
        let window = self.window(outs);
        let window_key = record::window_key(number);
        units.push(if window.outs.is_empty() {
            delete(window_key)
        } else {
            put(window_key, window.encode())
        });
        let expect = Expect::Version(self.version);
        let change = Change::Put(self.record.encode());
        units.push(Unit::Record { key, expect, change });
        units
    }
}

impl Shard {
    /// A client has taken its leave: what it leaves is committed before its connection closes. Returns whether there is anything.
    pub(in crate::shard::peer) fn stores_first(&self, state: &mut State, key: SessionKey) -> bool {
        let Some(session) = state.sessions.get_mut(key) else { return false };
        let Session { outlet, role, .. } = &mut *session;
        let Role::Peer(peer) = role else { return false };
        if peer.stored.is_none() {
            return false;
        }
        let (Some(of), Some(deadline)) = (outlet.peer(), peer.finish_by) else { return false };
        let (mut outs, expiry_s) = (of.outs(true), of.expiry_s());
        let Some(mut stored) = peer.stored.take() else { return false };
        let shares = std::mem::take(&mut peer.shares);
        session.finishing = true;
        self.end_shares(state, shares, Some((&mut *stored, &mut outs)).filter(|_| expiry_s > 0));
        self.leave_stored(state, key, &stored);
        self.end_stored((stored, &outs, expiry_s), None, Some(key));
        state.timers.arm(key, deadline);
        true
    }

    /// What a session stored is committed: the connection of a client that took its leave closes.
    fn stored_left(&self, key: SessionKey) {
        let leaves = {
            let mut state = self.state.borrow_mut();
            let session = state.sessions.get_mut(key);
            session.is_some_and(|session| std::mem::take(&mut session.finishing))
        };
        if leaves {
            self.peer_ends(key, false);
        }
    }

    /// A session that is stored has ended here; `will` = what becomes of its will's record; `leaves`: the client took its leave and waits.
    pub(in crate::shard::peer) fn end_stored(
        &self,
        (mut stored, outs, expiry_s): (Box<Stored>, &[Out], u32),
        will: Option<Unit>,
        leaves: Option<SessionKey>,
    ) {
        self.context.counters.stored_attached.sub(1);
        let client = stored.guard.client().clone();
        let mut trimmed = Vec::new();
        let left = (outs, expiry_s);
        let mut units = stored.last_units(&client, left, self.seen.get(), &mut trimmed);
        units.extend(will);
        let number = stored.number();
        let (guard, sessions) = (stored.guard, self.context.sessions.clone());
        self.endings.set(self.endings.get() + 1);
        let told = Box::new(move |shard: &Rc<Self>, answer: CommitAnswer| {
            match answer {
                Ok(_) if expiry_s == 0 => sessions.is_gone(number),
                // After the commit: the sweeper reads what is written.
                Ok(_) => trimmed.iter().for_each(|log| shard.context.trimmable.note(log)),
                Err(error) => {
                    tracing::debug!(%error, client = &*client, "the end of a session is not stored");
                }
            }
            drop(guard);
            shard.endings.set(shard.endings.get() - 1);
            if let Some(key) = leaves {
                shard.stored_left(key);
            }
            shard.context.mailbox.nudge();
        });
        let reply = Reply::Shard { shard: self.context.index, told };
        if self.context.queue.submit(units, reply, true).is_err() {
            self.endings.set(self.endings.get() - 1);
            if let Some(key) = leaves {
                self.context.post_job(self.context.index, move |shard| shard.stored_left(key));
            }
        }
    }
}
