//! The verb ack: a reader says what it has taken, by the positions of a resume token.
//!
//! An attached device's cursors move in its shard's memory and are written lazily; for one that is not attached the
//! move is committed at once. Must not know: tokens (the edge decodes and proves them).

use crate::attach::{ReaderRef, channel_tag};
use crate::node::Node;
use clarion_core::port::store::{Move, Reader, StoredCursor, Unit};
use clarion_core::{Code, Epoch, Principal, Refusal, Seq, Verb};

/// What a reader was given of one channel: `start..=seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckPosition {
    /// The channel (see `channel_tag`).
    pub tag: u32,
    /// Its history.
    pub epoch: Epoch,
    /// First seq that was given.
    pub start: Seq,
    /// Last seq that was given.
    pub seq: Seq,
}

impl Node {
    /// Acks what a device was given. Returns whether a cursor moved.
    pub async fn ack(
        &self,
        principal: &Principal,
        reader: ReaderRef,
        positions: Vec<AckPosition>,
    ) -> Result<bool, Refusal> {
        if !principal.may(Verb::Subscribe) {
            return Err(Refusal::new(Code::Forbidden, "these credentials may not ack"));
        }
        if reader.number == 0 {
            return Err(Refusal::new(
                Code::BadToken,
                "the token belongs to no durable reader: nothing to ack",
            ));
        }
        let (shard, in_memory) = (self.shard_of_tag(reader.user_tag), positions.clone());
        match self.on_shard(shard, move |s| s.ack(reader.number, &in_memory)).await? {
            Some(moved) => Ok(moved),
            None => self.ack_stored(reader.number, &positions).await,
        }
    }

    async fn ack_stored(&self, number: u64, positions: &[AckPosition]) -> Result<bool, Refusal> {
        let reader = Reader::device(number);
        let stored =
            self.store().cursors(reader.clone()).await.map_err(crate::node::store_refusal)?;
        let moves: Vec<Move> = positions.iter().filter_map(|p| stored_move(&stored, p)).collect();
        if moves.is_empty() {
            return Ok(false);
        }
        let channels: Vec<_> = moves.iter().map(|moved| moved.channel.clone()).collect();
        self.commit(vec![Unit::Ack { reader, moves }]).await?;
        channels.iter().for_each(|channel| self.inner.trimmable.note(channel));
        Ok(true)
    }
}

/// The move that a position means for the cursors that the device has; none when its channel is not clear.
fn stored_move(stored: &[StoredCursor], position: &AckPosition) -> Option<Move> {
    let mut candidates = stored.iter().filter(|c| channel_tag(&c.channel) == position.tag);
    let (found, ambiguous) = (candidates.next()?, candidates.next().is_some());
    let mut cursor = found.cursor.clone();
    let moved = found.epoch == position.epoch && cursor.ack_run(position.start, position.seq);
    (moved && !ambiguous).then(|| Move {
        channel: found.channel.clone(),
        epoch: found.epoch,
        cursor,
    })
}
