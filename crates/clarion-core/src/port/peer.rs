//! The Peer port: a protocol that talks both ways with a shard, such as MQTT.
//!
//! The shard hands a peer the bytes of its connection, one packet at a time; the peer answers by itself what concerns the
//! protocol alone (a PINGREQ, a malformed packet, a packet id) and *asks* the shard for what concerns others. The shard does
//! that and tells the outcome. So a peer never reaches into a shard, and one packet is handled to its end before the next.
//! Peers live on one shard. A peer is an [`Outlet`] too: for the feed of its user, which it reads by cursors like any
//! reader; `format` and `encode` are then of the payload alone, `before` writes the packet's head.
//!
//! Invariants: every ask has one outcome, in the order of asks; a peer owns the numbers of its window (packet ids), the
//! shard counts how many are out. Must not know: any wire form, how anything is matched or stored.

use super::outlet::{Given, Outlet};
use crate::{Address, Content, Epoch, Message, Millis, Refusal, Seq};

/// What one packet came to.
#[derive(Debug)]
pub struct Heard {
    /// So many of the bytes are done with.
    pub consumed: usize,
    /// What the shard is asked for.
    pub ask: Ask,
}

/// What a peer asks its shard for.
#[derive(Debug)]
pub enum Ask {
    /// The bytes end within a packet: nothing before more of them have come.
    More,
    /// Nothing: the packet is handled.
    Nothing,
    /// Hand in a message. Answered by [`Peer::published`] if `token` is not 0, in the order of asking.
    Publish(Box<PeerPublish>),
    /// Subscribe. Answered by [`Peer::subscribed`] at once; retained messages follow.
    Subscribe {
        /// Names it in the answer.
        token: u32,
        /// What was found to be allowed; may be empty.
        list: Vec<Subscribe>,
    },
    /// Unsubscribe. Answered by [`Peer::unsubscribed`] at once.
    Unsubscribe {
        /// Names it in the answer.
        token: u32,
        /// Filters as they were given to `Subscribe`.
        list: Vec<Unsubscribe>,
    },
    /// A delivery that held a place in the window is over.
    Freed {
        /// It was read from a log: this is acked.
        acked: Option<Place>,
        /// It was one of QoS 2.
        exactly_once: bool,
    },
    /// Of a session that outlives its connection: the client has taken a QoS 2 delivery. [`Peer::released`] follows when that
    /// is committed.
    Received {
        /// Its number.
        number: u16,
    },
    /// Of a session that outlives its connection: a QoS 2 publish of the client is over. [`Peer::completed`] follows when
    /// that is committed.
    Complete {
        /// Its packet id.
        number: u16,
    },
    /// The connection ends. The last bytes are in `out` already.
    End {
        /// Whether its will is published.
        will: bool,
    },
}

/// Where a delivery was read, as a peer remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which of the session's logs: 0 = the feed's own channel, 1 = the feed's `all`; others as the shard has numbered them.
    pub log: u32,
    /// Its history.
    pub epoch: Epoch,
    /// Its seq.
    pub seq: Seq,
}

/// A numbered delivery that is out, as it is kept for the next connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Out {
    /// The packet id.
    pub number: u16,
    /// How far it is.
    pub state: OutState,
    /// What it stands for.
    pub place: Place,
}

/// How far a numbered delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutState {
    /// QoS 1.
    AtLeastOnce,
    /// QoS 2, not received.
    ExactlyOnce,
    /// QoS 2, received: only the end is missing.
    Released,
}

/// What a subscription of an earlier connection is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The access rules do not allow it any more.
    Gone,
    /// It is the user's feed.
    Feed,
    /// A topic or filter.
    Topic {
        /// See [`SubOptions::check`].
        check: bool,
    },
}

/// What a session that was there before brings to its peer.
#[derive(Debug, Clone, Default)]
pub struct Resumed {
    /// It outlives the connection.
    pub stored: bool,
    /// It was there.
    pub present: bool,
    /// Its subscriptions: filter and group, and how.
    pub subs: Vec<(Box<str>, Option<Box<str>>, SubOptions)>,
    /// What is out, in the order of sending.
    pub outs: Vec<Out>,
}

/// A message that a peer hands in. The peer has checked what its principal may do.
#[derive(Debug, Clone)]
pub struct PeerPublish {
    /// `topic:…`, or `user:…` where the topic is a user topic.
    pub address: Address,
    /// What. `retain` also sets what later subscribers get (an empty payload clears it); `expires_at` and `asked_s` are
    /// set.
    pub content: Content,
    /// Names it in the answer; 0 = none is wanted.
    pub token: u32,
    /// Of a session that outlives its connection, with QoS 2: its packet id, by which it is taken once.
    pub once: Option<u16>,
}

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Somebody reads that channel, live or durable, anywhere.
    pub readers: bool,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Goes {
    /// It does.
    On,
    /// It ends as with [`Ask::End`], its will is published. The last bytes are in `out` already.
    End,
}

/// How a subscription wants its messages. `filter` + `share` name it within its session; the same again replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Valid by [`crate::topic`]; without the `$share/…/` part.
    pub filter: Box<str>,
    /// The group of `$share/<group>/<filter>`.
    pub share: Option<Box<str>>,
    /// It is the session's user's feed, not a filter. A session has one feed, whatever the topic: asking again changes the
    /// options and moves nothing.
    pub feed: bool,
    /// How.
    pub options: SubOptions,
    /// Which retained messages follow.
    pub retained: RetainHandling,
}

/// Which subscription ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// As given.
    pub filter: Box<str>,
    /// As given.
    pub share: Option<Box<str>>,
    /// It is the feed that ends.
    pub feed: bool,
}

/// Small, since live lists hold it for each subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubOptions {
    /// Granted QoS: messages come with at most this.
    pub qos: u8,
    /// Not what this client id published.
    pub no_local: bool,
    /// The retain flag comes as it was published.
    pub retain_as_published: bool,
    /// An access rule covers the filter in part: the peer checks each message.
    pub check: bool,
    /// Subscription identifier; 0 = none.
    pub id: u32,
}

impl SubOptions {
    /// The subscription identifier, if there is one, as a delivery has it.
    pub fn ids(&self) -> &[u32] {
        if self.id == 0 { &[] } else { std::slice::from_ref(&self.id) }
    }
}

/// MQTT 5 §3.8.3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetainHandling {
    /// At every SUBSCRIBE.
    #[default]
    Always,
    /// When the subscription did not exist.
    IfNew,
    /// None.
    Never,
}

/// A message on its way to a peer by its topic.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// What.
    pub message: &'a Message,
    /// With which QoS.
    pub qos: u8,
    /// With which retain flag.
    pub retain: bool,
    /// Subscription identifiers, of all matching subscriptions.
    pub ids: &'a [u32],
    /// An access rule may forbid it: see [`SubOptions::check`].
    pub check: bool,
    /// Where it was read; `None` = live, or retained.
    pub place: Option<Place>,
    /// It has this number already: by [`Peer::hold`], or from an earlier connection.
    pub number: Option<u16>,
    /// It may have been sent before.
    pub dup: bool,
    /// For what is told relative to the present.
    pub now: Millis,
}

/// What a peer did with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gave {
    /// The packet's head is written; the payload follows it.
    Head,
    /// Nothing is written: this client may not, or cannot, have it (access rules, its maximum packet size), or its life is
    /// over.
    Passed,
}

/// Whether a client has a message of its feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// It does.
    Yes,
    /// It may not or cannot have this one, which counts as acked.
    Passed,
    /// It may not read this feed any more: the connection ends, and nothing counts as acked.
    End,
}

/// A will.
#[derive(Debug, Clone)]
pub struct Will {
    /// What to publish; `token` is 0.
    pub publish: PeerPublish,
    /// Not before so many seconds, unless the session ends before; not at all when the client is back before.
    pub delay_s: u32,
}

/// See the module. Methods with `out` append bytes for the connection to it.
pub trait Peer: Outlet {
    /// Handles the next packet of `bytes`, which is never empty.
    fn hear(&mut self, bytes: &[u8], now: Millis, out: &mut Vec<u8>) -> Heard;
    /// What became of a publish. Versions that cannot refuse one end the connection over it, so that the client sends it
    /// again.
    fn published(
        &mut self,
        token: u32,
        result: Result<Receipt, Refusal>,
        out: &mut Vec<u8>,
    ) -> Goes;
    /// The subscriptions of this token are made, or, if not `granted`, could not be stored.
    fn subscribed(&mut self, token: u32, granted: bool, out: &mut Vec<u8>);
    /// Those of this token have ended; whether each was there.
    fn unsubscribed(&mut self, token: u32, existed: &[bool], out: &mut Vec<u8>);
    /// Writes the head of a delivery. Of a QoS above 0 it takes a place in the window: the shard calls only while one is free.
    fn give(&mut self, delivery: Delivery<'_>, out: &mut Vec<u8>) -> Gave;
    /// Takes a number for a QoS 2 delivery that is given when it is committed; `None` when none is free.
    fn hold(&mut self, place: Place) -> Option<u16>;
    /// What was held is not given.
    fn drop_held(&mut self, number: u16);
    /// The body of what is out is gone: see [`crate::inflight::Inflight::lose`].
    fn lose(&mut self, number: u16) -> Option<bool>;
    /// That the client has received this QoS 2 delivery is committed, or was before this connection.
    fn released(&mut self, number: u16, out: &mut Vec<u8>);
    /// That the client's QoS 2 publish is over is committed; `known` = there was one.
    fn completed(&mut self, number: u16, known: bool, out: &mut Vec<u8>);
    /// What is out: see [`crate::inflight::Inflight::outs`].
    fn outs(&self, at_end: bool) -> Vec<Out>;
    /// What the session brings, before the client is told that it is in. Returns what each of its subscriptions is by the access
    /// rules of now.
    fn resume(&mut self, resumed: Resumed) -> Vec<Verdict>;
    /// Seconds that the session outlives the connection, as the client last said and may.
    fn expiry_s(&self) -> u32;
    /// Whether deliveries of the feed take places in the window (QoS above 0).
    fn feed_is_numbered(&self) -> bool;
    /// Whether this client may and can have a message of the feed (No Local, its maximum packet size, its life is not over);
    /// one that it cannot counts as acked. Asked before [`Outlet::before`].
    fn takes(&self, given: Given<'_>, frame_len: usize) -> Taking;
    /// The connection has ended: its will, once. Its life counts from when it is to be published.
    fn will(&mut self, now: Millis) -> Option<Will>;
    /// The will as it stands, if its client may publish it now; its life has not begun. For what must be known of it if the
    /// server ends before the connection does.
    fn last_will(&self) -> Option<Will>;
}
