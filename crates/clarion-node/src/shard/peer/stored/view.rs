//! A stored session as administrators see it while it is attached: its cursors and its window are ahead of what is written.
//!
//! Must not know: who asks.

use super::Stored;
use crate::sessions::SessionView;
use crate::shard::peer::PeerState;
use crate::shard::{SessionKey, Shard};

impl Shard {
    /// The session of this number, with its subscriptions from slot `from` on, at most `limit`; `None` = it is not here.
    pub(crate) fn view_stored(
        &self,
        key: SessionKey,
        number: u64,
        from: u32,
        limit: usize,
    ) -> Option<SessionView> {
        let mut state = self.state.borrow_mut();
        let session = state.sessions.get_mut(key)?;
        let outs = session.outlet.peer().map_or(Vec::new(), |peer| peer.outs(true));
        let peer = PeerState::of(session)?;
        let owed = peer.owed.as_ref().map_or(0, |owed| owed.filters());
        let stored = peer.stored.as_deref().filter(|stored| stored.number() == number)?;
        let page = stored.subs.iter().filter(|(slot, _)| *slot >= from).take(limit + 1);
        let mut view = SessionView::default();
        for (slot, sub) in page {
            if view.subs.len() == limit {
                view.next = Some(slot);
                break;
            }
            view.subs.push((slot, sub.clone(), stored.position(slot)));
        }
        view.subscriptions = stored.subs.iter().filter(|(_, sub)| sub.tail.is_none()).count();
        view.count_outs(&outs);
        view.inbound = stored.inbound.len();
        view.retained_owed = owed;
        Some(view)
    }
}

impl Stored {
    /// The history that a subscription's cursor counts in, and what is acked there.
    fn position(&self, slot: u32) -> Option<(clarion_core::Epoch, clarion_core::Cursor)> {
        let log = self.logs.get(slot as usize)?.as_ref()?;
        let begun = log.sub.epoch();
        Some((if begun == 0 { log.epoch } else { begun }, log.cursor.clone()))
    }
}
