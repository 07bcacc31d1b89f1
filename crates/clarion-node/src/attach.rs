//! The verb attach: a stream of a user's feed, of a durable reader of one channel, or of a channel without a reader.
//!
//! Two steps: [`Node::prepare`] checks rights, makes the device's record and the starts of its cursors durable;
//! [`Node::attach`] moves the connection to its shard. Must not know: how a stream is written (that is the `Outlet`).

use crate::ack::AckPosition;
use crate::devices::Reads;
use crate::node::Node;
use crate::shard::Mail;
use bytes::Bytes;
use clarion_core::port::outlet::Outlet;
use clarion_core::start::From;
use clarion_core::{Address, AddressKind, Code, Epoch, Principal, Refusal, Seq, Verb};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What carries a stream's bytes.
pub enum Link {
    /// A connection that belongs to the shard from now on.
    Tcp(std::net::TcpStream),
    /// The body of a response that somebody else writes.
    Body(mpsc::Sender<Bytes>),
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
    /// One channel; `None` = the user's feed.
    pub address: Option<Address>,
    /// Where to start, if it said so.
    pub from: Option<From>,
    /// What it was given before (from a resume token), acked by coming back with it.
    pub resume: Option<Resume>,
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
    pub(crate) acks: Vec<AckPosition>,
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
        spec: StreamSpec,
    ) -> Result<AttachPlan, Refusal> {
        // A channel of another user, or of nobody, is not the user's own by being read in his name.
        let owner = |a: &Address| (a.kind() == AddressKind::User).then(|| a.id().to_owned());
        let address_ok = spec
            .address
            .as_ref()
            .is_none_or(|a| principal.may_for(Verb::Subscribe, owner(a).as_deref()));
        let user_ok = match (&spec.user, &spec.address) {
            (None, Some(_)) => true,
            (user, _) => principal.may_for(Verb::Subscribe, user.as_deref()),
        };
        if !(address_ok && user_ok) {
            return Err(Refusal::new(
                Code::Forbidden,
                "these credentials may not read this stream",
            ));
        }
        self.check_taking()?;
        if let Some(user) = &spec.user {
            clarion_core::address::check_user_id(user)
                .map_err(|e| Refusal::new(Code::BadUser, format!("user: {e}")))?;
        }
        if let Some(device) = &spec.device {
            clarion_core::address::check_user_id(device)
                .map_err(|e| Refusal::new(Code::BadUser, format!("device: {e}")))?;
        }
        if spec.address.as_ref().is_some_and(|a| a.kind() == AddressKind::Group) {
            return Err(Refusal::new(Code::NotFound, "there is no such group"));
        }
        match (&spec.user, &spec.device, &spec.address) {
            (Some(user), device, None) => {
                let device = device.as_deref().unwrap_or(DEFAULT_DEVICE).to_owned();
                let feed = Reads::Feed(vec![Address::user(user)?, Address::all()]);
                self.prepare_reader(user.clone(), device, feed, spec).await
            }
            (Some(user), Some(_), Some(address))
                if address.kind() == AddressKind::User && address.id() != user =>
            {
                // Its cursors say how far that user's own devices are.
                Err(Refusal::new(
                    Code::Forbidden,
                    "a user's channel is read durably by his own devices only; leave out 'device'",
                ))
            }
            (Some(user), Some(device), Some(address)) => {
                let reads = Reads::Channel(address.clone());
                self.prepare_reader(user.clone(), device.clone(), reads, spec).await
            }
            (_, None, Some(address)) => self.prepare_plain(address.clone(), &spec),
            (None, Some(_), Some(_)) => {
                Err(Refusal::new(Code::BadRequest, "a device belongs to a user: give 'user' too"))
            }
            (None, _, None) => Err(Refusal::new(Code::BadRequest, "give 'user' or 'address'")),
        }
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
        let number = self.ensure_device(&user, &device, spec.from, &reads).await?;
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
            acks: resume.positions,
        })
    }

    fn prepare_plain(&self, address: Address, spec: &StreamSpec) -> Result<AttachPlan, Refusal> {
        let resumed = match &spec.resume {
            None => None,
            Some(resume) => {
                let tag = channel_tag(&address);
                let position = resume.positions.iter().find(|position| position.tag == tag);
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
            channels: vec![(address, start)],
            acks: Vec::new(),
        })
    }

    /// Hands the connection to its shard; from here on the shard answers.
    pub async fn attach(
        &self,
        plan: AttachPlan,
        outlet: Box<dyn Outlet>,
        link: Link,
        guard: Guard,
    ) -> Result<(), Refusal> {
        let shard = match &plan.user {
            Some(user) => self.shard_of_tag(user_tag(user)),
            None => self.any_shard(),
        };
        let (sender, answer) = oneshot::channel();
        let attach = Box::new(Attach { plan, outlet, link, guard });
        if !self.mailbox(shard).post(Mail::Attach(attach, sender)) {
            return Err(Code::ShuttingDown.into());
        }
        answer.await.unwrap_or_else(|_| Err(Code::ShuttingDown.into()))
    }
}
