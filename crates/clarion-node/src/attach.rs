//! The verb attach: a stream of a user's feed, of a durable reader of channels, of channels without a reader, or of a
//! member of a shared cursor.
//!
//! Two steps: [`Node::prepare`] checks rights, makes the device's record and the starts of its cursors durable;
//! [`Node::attach`] moves the connection to its shard. Must not know: how a stream is written (that is the `Outlet`).

use crate::ack::AckPosition;
use crate::devices::Reads;
use crate::node::Node;
use crate::pipe::PipeWriter;
use crate::shard::{Mail, SessionKey};
use clarion_core::port::layer::Layer;
use clarion_core::port::outlet::Outlet;
use clarion_core::port::store::Reader;
use clarion_core::start::From;
use clarion_core::{Address, AddressKind, Code, Epoch, Principal, Refusal, Seq, Verb};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What carries a stream's bytes.
pub enum Link {
    /// A connection that belongs to the shard from now on, and what lies between it and the session's bytes.
    Tcp(std::net::TcpStream, Option<Box<dyn Layer>>),
    /// The body of a response that somebody else writes.
    Pipe(PipeWriter),
}

/// Something of the edge's that lives as long as the session: its place among the listener's connections.
pub type Guard = Box<dyn Send>;

/// What a client asked for.
#[derive(Debug, Clone, Default)]
pub struct StreamSpec {
    /// Whose stream.
    pub user: Option<String>,
    /// Which durable reader of that user.
    pub device: Option<String>,
    /// Channels; none = the user's feed.
    pub addresses: Vec<Address>,
    /// Where to start, if it said so.
    pub from: Option<From>,
    /// Where a reader starts that does not exist yet; one that does goes on where it was.
    pub from_new: Option<From>,
    /// What it was given before (from a resume token), acked by coming back with it.
    pub resume: Option<Resume>,
    /// Whether it shares its cursor.
    pub sharing: Sharing,
    /// How its protocol acks.
    pub acks: Acks,
    /// Deliveries that it takes before it grants more; `None` = they are not counted.
    pub credit: Option<u32>,
}

/// Whose cursor a stream reads by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Its own, or none.
    #[default]
    Own,
    /// That of a reader group: one of the group gets each message.
    Group(String),
    /// The one reserved group `*` of the channel.
    Unify,
}

/// How a protocol acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Up to a position, by a token: no window of unacked messages.
    #[default]
    UpTo,
    /// Each message by itself: a window bounds what is unacked.
    Singly,
    /// Not at all: what was certainly written counts as acked, after the time in which a broken connection shows.
    ByWrite,
}

/// A resume token, decoded and proved by the edge.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    /// Number of the reader that got it; 0 = none.
    pub number: u64,
    /// What that reader was given.
    pub positions: Vec<AckPosition>,
}

/// Who reads, as a resume token names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReaderRef {
    /// Number of the device; 0 = no reader.
    pub number: u64,
    /// Tells the shard (see [`user_tag`]).
    pub user_tag: u32,
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// After what the device's cursor has acked.
    Cursor,
    Earliest,
    Latest,
    Seq(Seq),
    /// After this position; another epoch is a gap.
    After(Epoch, Seq),
}

/// A prepared attach.
#[derive(Debug)]
pub struct AttachPlan {
    pub(crate) user: Option<Arc<str>>,
    pub(crate) device: Option<Arc<str>>,
    pub(crate) reader: ReaderRef,
    pub(crate) channels: Vec<(Address, Start)>,
    /// What coming back acks.
    pub(crate) resumed: Vec<AckPosition>,
    pub(crate) acks: Acks,
    pub(crate) credit: Option<u32>,
    pub(crate) shared: Option<SharedPlan>,
}

/// A shared cursor to become a member of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedPlan {
    pub(crate) channel: Address,
    pub(crate) reader: Reader,
}

impl SharedPlan {
    /// Tells the shard that owns it.
    pub(crate) fn tag(&self) -> u32 {
        match self.channel.kind() {
            // A user's sessions and cursors are together.
            AddressKind::User => user_tag(self.channel.id()),
            _ => channel_tag(&self.channel),
        }
    }
}

/// An attached session, as its edge names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRef {
    pub(crate) shard: usize,
    pub(crate) key: SessionKey,
}

impl AttachPlan {
    /// Who reads.
    pub fn reader(&self) -> ReaderRef {
        self.reader
    }
}

/// What goes to the shard.
pub(crate) struct Attach {
    pub(crate) plan: AttachPlan,
    pub(crate) outlet: Box<dyn Outlet>,
    pub(crate) link: Link,
    pub(crate) guard: Guard,
}

/// Name of a device when the client gave none.
pub(crate) const DEFAULT_DEVICE: &str = "default";

/// A channel's short name in resume tokens. Two channels of one reader may share it; then neither is acked by it.
pub fn channel_tag(channel: &Address) -> u32 {
    fold(channel.as_str())
}

/// A user's short name, from which the shard follows.
pub fn user_tag(user: &str) -> u32 {
    fold(user)
}

/// FNV-1a, 64 bits folded to 32: stable over versions and machines.
fn fold(text: &str) -> u32 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    (hash >> 32) as u32 ^ hash as u32
}

impl Node {
    /// Checks a stream request and makes its reader durable. Fails with `forbidden`, `bad_user`, `bad_address`,
    /// `foreign_token`, `not_found` (a group that does not exist) and whatever the store says.
    pub async fn prepare(
        &self,
        principal: &Principal,
        mut spec: StreamSpec,
    ) -> Result<AttachPlan, Refusal> {
        check_rights(principal, &spec)?;
        self.check_taking()?;
        check_names(&spec)?;
        let mut seen = std::collections::HashSet::new();
        spec.addresses.retain(|address| seen.insert(address.clone()));
        if spec.addresses.len() > self.inner.config.max_cursors {
            return Err(Code::TooManyCursors.into());
        }
        if spec.addresses.len() > 1 && matches!(spec.from, Some(From::Seq(_))) {
            return Err(Refusal::new(Code::BadRequest, "a seq to start at needs one address"));
        }
        if spec.sharing != Sharing::Own {
            return self.prepare_shared(spec).await;
        }
        match (spec.user.clone(), spec.device.clone(), spec.addresses.is_empty()) {
            (Some(user), device, true) => {
                let device = device.unwrap_or_else(|| DEFAULT_DEVICE.to_owned());
                let feed = Reads::Feed(vec![Address::user(&user)?, Address::all()]);
                self.prepare_reader(user, device, feed, spec).await
            }
            (Some(user), Some(device), false) => {
                let foreign = |a: &Address| a.kind() == AddressKind::User && a.id() != user;
                if spec.addresses.iter().any(foreign) {
                    // Its cursors say how far that user's own devices are.
                    return Err(Refusal::new(
                        Code::Forbidden,
                        "a user's channel is read durably by his own devices only; leave out 'device'",
                    ));
                }
                let reads = Reads::Channels(std::mem::take(&mut spec.addresses));
                self.prepare_reader(user, device, reads, spec).await
            }
            (_, None, false) => self.prepare_plain(spec),
            (None, Some(_), false) => {
                Err(Refusal::new(Code::BadRequest, "a device belongs to a user: give 'user' too"))
            }
            (None, _, true) => Err(Refusal::new(Code::BadRequest, "give 'user' or 'address'")),
        }
    }

    /// A member of a shared cursor; the cursor is durable from here on.
    async fn prepare_shared(&self, mut spec: StreamSpec) -> Result<AttachPlan, Refusal> {
        let (Some(address), true) = (spec.addresses.pop(), spec.addresses.is_empty()) else {
            let detail = "modes group and unify read exactly one address; open a stream for each";
            return Err(Refusal::new(Code::BadRequest, detail));
        };
        if spec.device.is_some() || spec.resume.is_some() {
            let detail = "a device reads alone: leave it out in modes group and unify";
            return Err(Refusal::new(Code::BadRequest, detail));
        }
        let shared = shared_plan(address, &spec.sharing)?;
        self.ensure_shared(&shared, spec.from.or(spec.from_new)).await?;
        Ok(AttachPlan {
            user: spec.user.as_deref().map(Arc::from),
            device: None,
            reader: ReaderRef::default(),
            channels: Vec::new(),
            resumed: Vec::new(),
            acks: spec.acks,
            credit: spec.credit,
            shared: Some(shared),
        })
    }

    async fn prepare_reader(
        &self,
        user: String,
        device: String,
        reads: Reads,
        spec: StreamSpec,
    ) -> Result<AttachPlan, Refusal> {
        let resume = match spec.resume {
            Some(resume) => self.check_resume(&user, &device, resume).await?,
            None => Resume::default(),
        };
        let number =
            self.ensure_device(&user, &device, spec.from.or(spec.from_new), &reads).await?;
        let is_feed = matches!(reads, Reads::Feed(_));
        let channels = reads
            .channels()
            .iter()
            .map(|channel| {
                let tag = channel_tag(channel);
                let resumed = resume.positions.iter().find(|position| position.tag == tag);
                let start = match (spec.from, resumed) {
                    (None | Some(From::Unacked), _) => Start::Cursor,
                    (Some(_), Some(position)) => Start::After(position.epoch, position.seq),
                    // Coming back: nothing was given of this channel yet, and where it began the first time is over.
                    (Some(_), None) if resume.number != 0 => Start::Cursor,
                    // A seq counts in the reader's own channel; the rest of a feed goes on where it was.
                    (Some(From::Seq(_)), None) if channel.kind() == AddressKind::All && is_feed => {
                        Start::Cursor
                    }
                    (Some(From::Earliest), None) => Start::Earliest,
                    (Some(From::Latest), None) => Start::Latest,
                    (Some(From::Seq(seq)), None) => Start::Seq(seq),
                };
                (channel.clone(), start)
            })
            .collect();
        Ok(AttachPlan {
            reader: ReaderRef { number, user_tag: user_tag(&user) },
            user: Some(user.into()),
            device: Some(device.into()),
            channels,
            resumed: resume.positions,
            acks: spec.acks,
            credit: spec.credit,
            shared: None,
        })
    }

    fn prepare_plain(&self, spec: StreamSpec) -> Result<AttachPlan, Refusal> {
        let resumed = match &spec.resume {
            None => None,
            Some(resume) => {
                let tag = spec.addresses.first().map(channel_tag);
                let position = resume.positions.iter().find(|position| Some(position.tag) == tag);
                if resume.number != 0 || position.is_none() {
                    return Err(Refusal::new(
                        Code::BadToken,
                        "the token belongs to another stream",
                    ));
                }
                position
            }
        };
        let start = match (resumed, spec.from) {
            (Some(position), _) => Start::After(position.epoch, position.seq),
            (None, Some(From::Earliest)) => Start::Earliest,
            (None, Some(From::Seq(seq))) => Start::Seq(seq),
            (None, Some(From::Latest) | None) => Start::Latest,
            (None, Some(From::Unacked)) => {
                return Err(Refusal::new(
                    Code::BadRequest,
                    "'from=unacked' needs a user and a device",
                ));
            }
        };
        Ok(AttachPlan {
            user: spec.user.as_deref().map(Arc::from),
            device: None,
            reader: ReaderRef::default(),
            channels: spec.addresses.into_iter().map(|address| (address, start)).collect(),
            resumed: Vec::new(),
            acks: Acks::UpTo,
            credit: spec.credit,
            shared: None,
        })
    }

    /// Hands the connection to its shard; from here on the shard answers.
    pub async fn attach(
        &self,
        plan: AttachPlan,
        outlet: Box<dyn Outlet>,
        link: Link,
        guard: Guard,
    ) -> Result<SessionRef, Refusal> {
        let shard = match (&plan.shared, &plan.user) {
            (Some(shared), _) => self.shard_of_tag(shared.tag()),
            (None, Some(user)) => self.shard_of_tag(user_tag(user)),
            (None, None) => self.any_shard(),
        };
        let (sender, answer) = oneshot::channel();
        let attach = Box::new(Attach { plan, outlet, link, guard });
        if !self.mailbox(shard).post(Mail::Attach(attach, sender)) {
            return Err(Code::ShuttingDown.into());
        }
        let key = answer.await.unwrap_or_else(|_| Err(Code::ShuttingDown.into()))?;
        Ok(SessionRef { shard, key })
    }
}

/// The shared cursor that readers of this kind have on a channel. Fails for the one that gates have on a user's.
pub(crate) fn shared_plan(channel: Address, sharing: &Sharing) -> Result<SharedPlan, Refusal> {
    let reader = match sharing {
        Sharing::Group(name) => {
            clarion_core::address::check_user_id(name)
                .map_err(|e| Refusal::new(Code::BadUser, format!("group: {e}")))?;
            if name == "*" {
                return Err(Refusal::new(Code::BadUser, "the group '*' is that of mode unify"));
            }
            Reader::shared(name)
        }
        Sharing::Own | Sharing::Unify if channel.kind() == AddressKind::User => {
            return Err(Refusal::new(
                Code::BadRequest,
                "a user's channel is unified by gates; read it in mode group",
            ));
        }
        Sharing::Own | Sharing::Unify => Reader::shared("*"),
    };
    Ok(SharedPlan { channel, reader })
}

fn check_rights(principal: &Principal, spec: &StreamSpec) -> Result<(), Refusal> {
    // Who may act for a user meets the access rules as that user.
    let mut asking = principal.clone();
    if let (Some(user), 1..) = (&spec.user, principal.acl_version()) {
        asking = asking.as_user(Some(user.as_str().into()));
    }
    // A channel of another user, or of nobody, is not the user's own by being read in his name.
    let own = |a: &Address| a.kind() == AddressKind::User && Some(a.id()) == spec.user.as_deref();
    // Beside his own channel `all` is a part of his feed, by whatever names that is asked for.
    let feeds = spec.addresses.iter().any(own);
    let addresses_ok = spec.addresses.iter().all(|a| {
        let fed = feeds && a.kind() == AddressKind::All;
        fed || asking.allows(Verb::Subscribe, a)
    });
    let user_ok = match (&spec.user, spec.addresses.is_empty()) {
        (None, false) => true,
        (None, true) => principal.may_for(Verb::Subscribe, None),
        (Some(user), false) => principal.may_for(Verb::Subscribe, Some(user)),
        // The rule for a user's own channel decides about his feed. A name that is none is refused for that.
        (Some(user), true) => match Address::user(user) {
            Ok(own) => asking.allows(Verb::Subscribe, &own),
            Err(_) => principal.may_for(Verb::Subscribe, Some(user)),
        },
    };
    if addresses_ok && user_ok {
        Ok(())
    } else {
        Err(Refusal::new(Code::Forbidden, "these credentials may not read this stream"))
    }
}

fn check_names(spec: &StreamSpec) -> Result<(), Refusal> {
    for (what, name) in [("user", &spec.user), ("device", &spec.device)] {
        if let Some(name) = name {
            clarion_core::address::check_user_id(name)
                .map_err(|e| Refusal::new(Code::BadUser, format!("{what}: {e}")))?;
        }
    }
    if spec.addresses.iter().any(|a| a.kind() == AddressKind::Group) {
        return Err(Refusal::new(Code::NotFound, "there is no such group"));
    }
    Ok(())
}
