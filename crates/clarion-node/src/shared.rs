//! Shared cursors as the store knows them: a cursor named by its group, and the note that keeps its channel stored.
//!
//! Invariant: a shared cursor and its note are committed before a member is answered; two first members of one cursor
//! start it once. Must not know: leases (a shard has them in memory), sessions.

use crate::attach::SharedPlan;
use crate::devices::durable_record;
use crate::node::{Node, store_refusal};
use clarion_core::port::store::{Move, Reader, Unit};
use clarion_core::start::{From, floor_of_new};
use clarion_core::{AddressKind, Cursor, Refusal};

/// The number under which a shared cursor is noted as a reader of its channel. Devices draw theirs at random; the
/// highest bit keeps the two apart well enough for what it tells: that somebody reads here.
pub(crate) fn reader_number(reader: &Reader) -> u64 {
    let hash = reader.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash | 1 << 63
}

impl Node {
    /// Starts a shared cursor that does not exist yet: at the earliest message kept, or where the first member says.
    pub(crate) async fn ensure_shared(
        &self,
        plan: &SharedPlan,
        from: Option<From>,
    ) -> Result<(), Refusal> {
        if self.has_shared(plan).await? {
            return Ok(());
        }
        let _start = self.start_lock(plan.channel.as_str()).lock().await;
        if self.has_shared(plan).await? {
            return Ok(());
        }
        let channel = &plan.channel;
        let heads = self.store().heads(vec![channel.clone()]).await.map_err(store_refusal)?;
        let head = heads.first().copied().unwrap_or_default();
        let from = match from {
            None | Some(From::Unacked) => From::Earliest,
            Some(from) => from,
        };
        let cursor = Cursor::at(floor_of_new(channel.kind(), from, &head, None));
        let moves = vec![Move { channel: channel.clone(), epoch: head.epoch, cursor }];
        let number = reader_number(&plan.reader);
        let units =
            vec![Unit::Ack { reader: plan.reader.clone(), moves }, durable_record(channel, number)];
        self.inner.planner.durable.enter(channel);
        self.commit(units).await?;
        Ok(())
    }

    async fn has_shared(&self, plan: &SharedPlan) -> Result<bool, Refusal> {
        if plan.channel.kind() == AddressKind::Topic
            && !self.inner.planner.durable.has(&plan.channel)
        {
            return Ok(false);
        }
        let readers = self.store().readers(plan.channel.clone()).await.map_err(store_refusal)?;
        Ok(readers.iter().any(|stored| stored.reader == plan.reader))
    }
}
