//! QoS 2 publishes of a client whose session is stored: taken once, also over a crash.
//!
//! By orderings (design §1.8, `core/durable/inbound.rs`): the record of the packet id, with the key by which the append is idempotent,
//! is committed in front of the append or with it, then PUBREC; PUBCOMP only when the record's removal is committed. Must not
//! know: how packets look.

use super::Stored;
use crate::clock;
use crate::committer::{CommitAnswer, Reply};
use crate::node::random;
use crate::sessions::{delete, put};
use crate::shard::deliver::list_dirty;
use crate::shard::session::Session;
use crate::shard::{SessionKey, Shard};
use clarion_core::durable::inbound::{Ending, Handed};
use clarion_core::durable::record::{self, InboundRecord};
use clarion_core::port::outlet::CloseReason;
use clarion_core::port::store::Unit;
use clarion_core::{Millis, Refusal};
use std::rc::Rc;

/// A key of an append is remembered by the store for a day. What is older was appended long ago.
const REMEMBERED_MS: Millis = 23 * 3600 * 1000;

/// How a QoS 2 publish is taken.
pub(in crate::shard) enum Once {
    /// It was taken: only its answer is missing.
    Taken,
    /// Its packet id is not free yet.
    Wait,
    /// Its record was there: it is appended under this key, perhaps again.
    Again(Box<str>),
    /// Appended under this key, behind this record.
    New(Box<str>, Unit),
}

impl Stored {
    /// What an earlier connection left.
    pub(super) fn load_inbound(&mut self, id: u16, record: InboundRecord) {
        let old = clock::now().saturating_sub(record.at) > REMEMBERED_MS;
        let key = record.key;
        self.inbound.load(id, record);
        if old {
            self.inbound.publish(id, key);
            self.inbound.taken(id);
        }
    }
}

impl Shard {
    /// How a publish with this packet id is taken.
    pub(in crate::shard) fn take_once(&self, key: SessionKey, id: u16) -> Result<Once, Refusal> {
        let mut state = self.state.borrow_mut();
        let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else {
            return Ok(Once::Taken);
        };
        let number = stored.number();
        Ok(match stored.inbound.publish(id, u64::from_be_bytes(random()?)) {
            Handed::Taken => Once::Taken,
            Handed::Wait => Once::Wait,
            Handed::Append(key) => Once::Again(once_key(number, key)),
            Handed::New(key) => {
                let record = InboundRecord { key, at: clock::now() };
                let unit = put(record::inbound_key(number, id), record.encode());
                Once::New(once_key(number, key), unit)
            }
        })
    }

    /// A publish of this packet id was taken.
    pub(in crate::shard) fn once_taken(&self, key: SessionKey, id: u16) {
        let mut state = self.state.borrow_mut();
        if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
            stored.inbound.taken(id);
        }
    }

    /// A publish of this packet id was refused; `recorded` = its record may be there all the same.
    pub(in crate::shard) fn once_refused(&self, key: SessionKey, id: u16, recorded: bool) {
        let mut state = self.state.borrow_mut();
        if let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) {
            stored.inbound.refused(id, recorded);
        }
    }

    /// The client's publish of this packet id is over: it is told so when that is committed.
    pub(in crate::shard::peer) fn peer_completes(self: &Rc<Self>, key: SessionKey, id: u16) {
        let (ending, number) = {
            let mut state = self.state.borrow_mut();
            let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
            (stored.inbound.release(id), stored.number())
        };
        match ending {
            Ending::Unknown => return self.completed(key, id, false),
            Ending::Wait => return,
            Ending::Remove => {}
        }
        let told = Box::new(move |shard: &Rc<Self>, answer: CommitAnswer| match answer {
            Ok(_) => shard.once_removed(key, id),
            // Its client asks again, on another connection.
            Err(_) => shard.close_peer(key, CloseReason::Store),
        });
        let units = vec![delete(record::inbound_key(number, id))];
        let reply = Reply::Shard { shard: self.context.index, told };
        if self.context.queue.submit(units, reply, true).is_err() {
            self.close_session(&mut self.state.borrow_mut(), key, CloseReason::Store);
        }
    }

    fn once_removed(&self, key: SessionKey, id: u16) {
        {
            let mut state = self.state.borrow_mut();
            let Some(stored) = state.sessions.get_mut(key).and_then(Stored::of) else { return };
            stored.inbound.removed(id);
        }
        self.completed(key, id, true);
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
