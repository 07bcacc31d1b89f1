//! Wills as records: `will/<client id>` from CONNACK on, until the will is published or taken back, so that it outlives crashes.
//!
//! After a crash the wills of all who were attached wait for their clients, those that waited already for the rest of their time.
//! Whoever is back within that has not died. Invariants: a record is written and removed by whoever has the client id's lock; it
//! goes with the publish of its will if that is stored, else right after it; before anybody is let in, all wills of earlier runs
//! wait or are published. Must not know: any protocol, who may publish what: that was asked at CONNECT, and when the
//! connection ended.

mod record;

pub(crate) use record::WillRecord;

use crate::attach::user_tag;
use crate::clients::Waiting;
use crate::clock;
use crate::node::{Node, store_refusal};
use crate::peer::PeerPlan;
use crate::sessions::{SessionGuard, delete, put};
use bytes::Bytes;
use clarion_core::durable::record as keys;
use clarion_core::port::peer::{PeerPublish, Will};
use clarion_core::port::store::{Record, Unit};
use clarion_core::{Content, Refusal};
use std::any::Any;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Records that are read at once.
const PAGE: usize = 1000;

/// Kept by what is under way, and dropped when that is committed: the lock of a client id, or somebody who waits.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// A will's record, which goes when the will is published.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) key: Bytes,
    pub(crate) hold: Hold,
}

/// A will that is to be published.
#[derive(Debug, Clone)]
pub(crate) struct DueWill {
    pub(crate) publish: PeerPublish,
    pub(crate) kept: Option<Kept>,
}

/// The record of an attached session's will. Who has it has the client id's lock.
pub(crate) struct OwnWill {
    pub(crate) key: Bytes,
    pub(crate) guard: Arc<SessionGuard>,
}

/// What a CONNECT does about wills.
#[derive(Default)]
pub(crate) struct Testament {
    /// To be committed with its session.
    pub(crate) unit: Option<Unit>,
    /// The record that it has then.
    pub(crate) own: Option<Box<OwnWill>>,
    /// It takes back the will that waits.
    pub(crate) back: bool,
}

impl OwnWill {
    /// By which the record goes with its will.
    pub(crate) fn kept(self) -> Kept {
        Kept { key: self.key, hold: self.guard }
    }
}

impl WillRecord {
    /// The will of a session that is attached.
    fn of(will: Will, plan: &PeerPlan) -> Self {
        let Will { publish, delay_s } = will;
        let delay_s = delay_s.min(plan.will_delay_max_s);
        let (expiry_s, owner) = (plan.expiry_s, plan.owner.clone());
        Self { publish, delay_s, expiry_s, owner, due: None }
    }
}

impl Node {
    /// What a CONNECT that has the client id's lock does about the will that waits, and its own; `goes_on` = it goes on where an
    /// earlier session was. A will whose session has gone with that is published before anything else.
    pub(crate) async fn meet_wills(
        &self,
        plan: &PeerPlan,
        guard: &Arc<SessionGuard>,
        will: Option<Will>,
        goes_on: bool,
    ) -> Testament {
        let client = &plan.client_id;
        let Some(key) = keys::will_key(client) else { return Testament::default() };
        let back = self.inner.clients.waiting(client).is_some_and(|(owner, of_session)| {
            // Who takes somebody else's id does not take back his will. One of a session without a life of its own waits only
            // because the server has ended: there is no session that would have to go on.
            (!plan.exclusive || owner == plan.owner) && (goes_on || !of_session)
        });
        if !back && let Some(waiting) = self.inner.clients.take_waiting(client) {
            self.publish_will(client, waiting.will.publish).await;
        }
        let Some(will) = will else {
            return Testament { unit: back.then(|| delete(key)), own: None, back };
        };
        let unit = Some(put(key.clone(), WillRecord::of(will, plan).encode()));
        let own = Some(Box::new(OwnWill { key, guard: guard.clone() }));
        Testament { unit, own, back }
    }

    /// A CONNECT came to nothing: its own will goes, and that which it took back waits again. It has the client id's lock.
    pub(crate) async fn undo_wills(&self, client: &Arc<str>, back: Option<Waiting>) {
        let Some(key) = keys::will_key(client) else { return };
        let unit = match &back {
            Some(waiting) => put(key, waiting.will.encode()),
            None => delete(key),
        };
        if let Err(refusal) = self.commit(vec![unit]).await {
            tracing::debug!(%refusal, "a will of nobody stays");
        }
        let over = back.and_then(|waiting| self.inner.clients.wait_again(client, waiting));
        if let Some(will) = over {
            self.publish_will(client, will.publish).await;
        }
    }

    /// Publishes a will that waited, for whoever has the client id's lock; waits until that is committed, or was refused.
    pub(crate) async fn publish_will(&self, client: &str, publish: PeerPublish) {
        let (hold, over) = oneshot::channel::<()>();
        self.begin_will(client, publish, Arc::new(hold));
        // Nothing is said: it is dropped.
        let _ = over.await;
    }

    fn begin_will(&self, client: &str, publish: PeerPublish, hold: Hold) {
        let kept = keys::will_key(client).map(|key| Kept { key, hold });
        let shard = self.shard_of_tag(user_tag(client));
        self.post_job(shard, move |shard| shard.will_is_due(DueWill { publish, kept }));
    }

    /// All wills of earlier runs wait, or are published if there is no room. Before a listener accepts.
    pub(crate) async fn load_wills(&self) -> Result<(), Refusal> {
        let mut after = None;
        loop {
            let prefix = Bytes::from_static(keys::WILLS);
            let page = self.store().records(prefix, after, PAGE).await.map_err(store_refusal)?;
            let last = page.len() < PAGE;
            after = page.last().map(|found| found.key.clone());
            self.wait_for_clients(page).await;
            if last {
                return Ok(());
            }
        }
    }

    async fn wait_for_clients(&self, page: Vec<Record>) {
        let grace_ms = self.config().will_grace.as_millis() as u64;
        let now = clock::now();
        let (mut wills, mut units): (Vec<(Arc<str>, WillRecord)>, Vec<Unit>) = Default::default();
        for found in page {
            let will = WillRecord::decode(found.value);
            let (Some(client), Some(mut will)) = (keys::parse_will_key(&found.key), will) else {
                tracing::warn!("the record of a will is damaged");
                continue;
            };
            let asked = will.due.unwrap_or_else(|| now + u64::from(will.delay_s) * 1000);
            let due = asked.max(now + grace_ms);
            if will.due.replace(due).is_none() && asked == due {
                // Its delay counts from here on, over further restarts too.
                units.push(put(found.key.clone(), will.encode()));
            }
            let content = &mut will.publish.content;
            content.expires_at = Content::end_of_life(content.asked_s, due);
            wills.push((client.into(), will));
        }
        if !units.is_empty()
            && let Err(refusal) = self.commit(units).await
        {
            tracing::debug!(%refusal, "the delays of wills count from the next start on");
        }
        let mut under_way = Vec::new();
        for (client, will) in wills {
            let wait_ms = will.due.unwrap_or(now).saturating_sub(now);
            let (clients, shard) = (&self.inner.clients, self.shard_of_tag(user_tag(&client)));
            let at = clients.now() + 1 + wait_ms;
            if let Some(will) = clients.wait(&client, will, shard, at) {
                let (hold, over) = oneshot::channel::<()>();
                self.begin_will(&client, will.publish, Arc::new(hold));
                under_way.push(over);
            }
        }
        for over in under_way {
            let _ = over.await;
        }
    }
}
