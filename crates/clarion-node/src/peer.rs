//! Peers: connections that talk both ways, handed to a shard for life.
//!
//! Invariant: a client id names one session of the node. Must not know: protocols (they come as `Peer`s).

use crate::attach::{AttachPlan, Guard, Link, SessionRef, user_tag};
use crate::node::Node;
use crate::sessions::{Opened, Opening};
use crate::shard::Mail;
use crate::wills::OwnWill;
use clarion_core::port::peer::Peer;
use clarion_core::{Code, Millis, Refusal};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a peer's session begins with.
pub struct PeerPlan {
    /// Its client id, never empty.
    pub client_id: Arc<str>,
    /// Whose it is; `None` = nobody's.
    pub user: Option<Arc<str>>,
    /// Who has its client id: its user, or who else it is for the listener. Others' sessions with the same are told apart by
    /// it.
    pub owner: Option<Arc<str>>,
    /// Another user's session of the same client id is in the way, instead of being taken over.
    pub exclusive: bool,
    /// It does not go on where an earlier session of this client id was.
    pub clean: bool,
    /// Seconds for which its session is kept when the connection has ended; 0 = not at all.
    pub expiry_s: u32,
    /// How its user's feed would be read (see [`Node::prepare`]).
    pub feed: Option<AttachPlan>,
    /// It reads the feed at once, unasked.
    pub auto_feed: bool,
    /// Silence that ends it.
    pub keep_alive: Option<Duration>,
    /// Numbered deliveries that its client takes before it acks.
    pub window: u32,
    /// Its will waits for so many seconds at most.
    pub will_delay_max_s: u32,
    /// When what it proved its identity with ends.
    pub expires_at: Option<Millis>,
}

/// Why a connection was not attached, and the connection, on which nothing was written.
pub struct NotAttached {
    /// For the client.
    pub refusal: Refusal,
    /// `None` when it is closed.
    pub link: Option<Link>,
}

/// What goes to the shard.
pub(crate) struct AttachPeer {
    pub(crate) plan: PeerPlan,
    pub(crate) peer: Box<dyn Peer>,
    pub(crate) link: Link,
    pub(crate) leftover: Vec<u8>,
    pub(crate) guard: Guard,
    /// Its stored session.
    pub(crate) opened: Option<Box<Opened>>,
    /// The record of its will.
    pub(crate) will: Option<Box<OwnWill>>,
}

impl Node {
    /// Hands a connection to its shard, which speaks from here on; `leftover` was read from it already (without its layer).
    /// An older session of the client id ends. Fails with `bad_user` (somebody else has the client id), `overloaded`,
    /// `shutting_down`; then nothing was written.
    pub async fn attach_peer(
        &self,
        plan: PeerPlan,
        peer: Box<dyn Peer>,
        link: Link,
        leftover: Vec<u8>,
        guard: Guard,
    ) -> Result<SessionRef, NotAttached> {
        if let Err(refusal) = self.inner.planner.check_taking() {
            return Err(NotAttached { refusal, link: Some(link) });
        }
        let opening = match self.open_session(&plan, peer.last_will()).await {
            Ok(opening) => opening,
            Err(refusal) => return Err(NotAttached { refusal, link: Some(link) }),
        };
        let tag = user_tag(plan.user.as_deref().unwrap_or(&plan.client_id));
        let shard = self.shard_of_tag(tag);
        let (sender, answer) = oneshot::channel();
        let Opening { session: opened, will, back, guard: held } = opening;
        let client = plan.client_id.clone();
        let undo = opened.as_ref().map(|opened| (opened.version, opened.before.clone()));
        let attach = Box::new(AttachPeer { plan, peer, link, leftover, guard, opened, will });
        let gone = || NotAttached { refusal: Code::ShuttingDown.into(), link: None };
        let posted = self.mailbox(shard).post(Mail::AttachPeer(attach, sender));
        let attached =
            if posted { answer.await.unwrap_or_else(|_| Err(gone())) } else { Err(gone()) };
        if attached.is_err() && held.is_some() {
            self.undo_wills(&client, back).await;
            if let Some((version, before)) = undo {
                self.undo_session(&client, version, &before).await;
            }
        }
        drop(held);
        Ok(SessionRef { shard, key: attached? })
    }

    /// Topics that have a retained message, about.
    pub fn retained_topics(&self) -> usize {
        self.inner.retained.len()
    }
}
