//! QoS 2 publishes of a client whose session is stored: taken once, also over a crash.
//!
//! By orderings (design §1.8): the record of the packet id, with the key by which the append is idempotent, is committed in front of
//! the append or with it, then PUBREC; PUBCOMP only when the record's removal is committed, since the client may use the id
//! again at once. Must not know: how packets look.

use super::Stored;
use crate::clock;
use crate::committer::Reply;
use crate::node::random;
use crate::sessions::{delete, put};
use crate::shard::deliver::list_dirty;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard};
use clarion_core::Refusal;
use clarion_core::durable::record::{self, InboundRecord};
use clarion_core::port::store::Unit;
use std::rc::Rc;

/// A key of an append is remembered by the store for a day; what is older was appended long ago.
const REMEMBERED_MS: u64 = 23 * 3600 * 1000;

/// How a QoS 2 publish is taken.
pub(in crate::shard) enum Once {
    /// It was taken: only its answer is missing.
    Taken,
    /// Appended under this key, behind this record if it is not committed yet.
    Key(Box<str>, Option<Unit>),
}

impl Shard {
    /// How a publish with this packet id is taken.
    pub(in crate::shard) fn take_once(&self, key: SessionKey, id: u16) -> Result<Once, Refusal> {
        let mut state = self.state.borrow_mut();
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else {
            return Ok(Once::Taken);
        };
        let number = stored.number();
        let now = clock::now();
        if let Some(known) = stored.inbound.get(&id) {
            if now.saturating_sub(known.at) > REMEMBERED_MS {
                return Ok(Once::Taken);
            }
            return Ok(Once::Key(once_key(number, known.key), None));
        }
        let inbound = InboundRecord { key: u64::from_be_bytes(random()?), at: now };
        let unit = put(record::inbound_key(number, id), inbound.encode());
        let text = once_key(number, inbound.key);
        stored.inbound.insert(id, inbound);
        Ok(Once::Key(text, Some(unit)))
    }

    /// A publish of this packet id was refused: it is not known.
    pub(in crate::shard) fn forget_once(&self, key: SessionKey, id: u16) {
        let mut state = self.state.borrow_mut();
        if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
            stored.inbound.remove(&id);
        }
    }

    /// The client's publish of this packet id is over: it is told so when that is committed.
    pub(in crate::shard::peer) fn peer_completes(self: &Rc<Self>, key: SessionKey, id: u16) {
        let known = {
            let mut state = self.state.borrow_mut();
            let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
            stored.inbound.remove(&id).map(|inbound| (stored.number(), inbound))
        };
        let Some((number, inbound)) = known else {
            return self.completed(key, id, false);
        };
        let told = Box::new(move |shard: &Rc<Self>, answer: crate::committer::CommitAnswer| {
            if answer.is_ok() {
                return shard.completed(key, id, true);
            }
            // Not answered, so that the client asks again.
            let mut state = shard.state.borrow_mut();
            if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
                stored.inbound.entry(id).or_insert(inbound);
            }
        });
        let units = vec![delete(record::inbound_key(number, id))];
        let reply = Reply::Shard { shard: self.context.index, told };
        if let Err(refusal) = self.context.queue.submit(units, reply, true) {
            tracing::debug!(%refusal, "the end of a publish is not committed");
        }
    }

    fn completed(&self, key: SessionKey, id: u16, known: bool) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(key) else { return };
        if session.closing.is_some() {
            return;
        }
        let Session { outlet, outbox, .. } = &mut *session;
        if let Some(peer) = outlet.peer() {
            peer.completed(id, known, outbox.control());
        }
        list_dirty(session, &mut state.dirty);
        self.context.mailbox.nudge();
    }
}

/// No client can choose one like it: they have no NUL.
fn once_key(session: u64, key: u64) -> Box<str> {
    format!("\0once/{session:016x}/{key:016x}").into()
}
