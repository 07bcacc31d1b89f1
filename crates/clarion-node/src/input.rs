//! What a stream's client says after its stream is open: acks, nacks, credit, its end.
//!
//! Invariant: what one stream says reaches its shard in order, and only so much of it waits there. Must not know:
//! protocols.

use crate::attach::SessionRef;
use crate::node::Node;
use crate::shard::Mail;
use clarion_core::{Address, Epoch, Seq};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Batches of one stream's inputs that may wait for its shard.
const BATCHES_MAX: usize = 8;

/// One thing that it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Acks `from..=to`; the channel may be left out where the stream reads one, epoch 0 is the present one.
    Ack {
        /// Which channel.
        channel: Option<Address>,
        /// Its history.
        epoch: Epoch,
        /// First seq.
        from: Seq,
        /// Last seq.
        to: Seq,
    },
    /// Gives a message back for another time.
    Nack {
        /// Which channel.
        channel: Option<Address>,
        /// Its history.
        epoch: Epoch,
        /// Which.
        seq: Seq,
        /// Not before so many milliseconds.
        delay_ms: u64,
    },
    /// It takes so many deliveries more.
    Credit(u32),
    /// It wants to know when its acks so far are committed, under this number.
    Confirm(u64),
    /// It has nothing more to say and wants the stream to end when its acks are committed.
    Finish,
}

/// The way of one stream's inputs to its session.
pub struct Inputs {
    node: Node,
    session: SessionRef,
    room: Arc<Semaphore>,
}

/// Inputs on their way; the permit makes room when they are done.
pub(crate) struct InputBatch {
    pub(crate) inputs: Vec<Input>,
    pub(crate) _room: OwnedSemaphorePermit,
}

impl Node {
    /// The way for inputs of this session.
    pub fn inputs(&self, session: SessionRef) -> Inputs {
        Inputs { node: self.clone(), session, room: Arc::new(Semaphore::new(BATCHES_MAX)) }
    }
}

impl Inputs {
    /// Hands inputs to the session, once there is room; `false` when its shard has ended.
    pub async fn send(&self, inputs: Vec<Input>) -> bool {
        let Ok(room) = self.room.clone().acquire_owned().await else { return false };
        let batch = InputBatch { inputs, _room: room };
        self.node.mailbox(self.session.shard).post(Mail::Inputs(self.session.key, batch))
    }
}
