//! What sessions that have ended leave is removed.
//!
//! Invariant: `gone/<number>` goes last, so that a crash in between is made up for at the next start. Must not know: why a session
//! ended.

use super::delete;
use crate::committer::Begins;
use crate::durable;
use crate::node::{Node, store_refusal};
use crate::shares::ShareName;
use bytes::Bytes;
use clarion_core::durable::record;
use clarion_core::durable::subs::StoredSub;
use clarion_core::port::store::{Reader, Record, Unit};
use clarion_core::{Address, Code, Refusal};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

/// Records that are read or removed at once.
const PAGE: usize = 256;
/// Sessions that are cleaned up after at once: their commits go together.
const AT_ONCE: usize = 16;

/// Removes what ended sessions leave, those of earlier runs first.
pub(crate) async fn run(node: Node) {
    let mut again = true;
    loop {
        if again {
            match node.clean_all().await {
                Ok(()) => again = false,
                Err(error) => {
                    tracing::debug!(%error, "cleaning up after sessions");
                    let patience = node.config().sweep_interval;
                    // Whoever comes meanwhile is cleaned up after with all the others.
                    let _ = timeout(patience, node.inner.sessions.note.notified()).await;
                    continue;
                }
            }
        }
        if let Err(error) = node.clean_sessions(node.inner.sessions.take_gone()).await {
            tracing::debug!(%error, "cleaning up after sessions");
            again = true;
        }
        if !again {
            node.inner.sessions.note.notified().await;
        }
    }
}

impl Node {
    async fn clean_all(&self) -> Result<(), Refusal> {
        loop {
            let found = self.records_of(record::GONE).await?;
            let numbers: Vec<u64> =
                found.iter().filter_map(|found| record::parse_gone_key(&found.key)).collect();
            let all = numbers.len() < PAGE;
            self.clean_sessions(numbers).await?;
            if all {
                return Ok(());
            }
        }
    }

    /// Some at once; after an error the rest stays.
    async fn clean_sessions(&self, numbers: Vec<u64>) -> Result<(), Refusal> {
        let mut under_way: JoinSet<Result<(), Refusal>> = JoinSet::new();
        let over = |done: Option<Result<Result<(), Refusal>, JoinError>>| match done {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(Refusal::new(Code::Internal, error.to_string())),
            None => Ok(()),
        };
        for number in numbers {
            if under_way.len() >= AT_ONCE {
                over(under_way.join_next().await)?;
            }
            let node = self.clone();
            under_way.spawn(async move { node.clean_session(number).await });
        }
        while !under_way.is_empty() {
            over(under_way.join_next().await)?;
        }
        Ok(())
    }

    async fn records_of(&self, prefix: &[u8]) -> Result<Vec<Record>, Refusal> {
        let prefix = Bytes::copy_from_slice(prefix);
        self.store().records(prefix, None, PAGE).await.map_err(store_refusal)
    }

    /// Somebody reads these channels no more.
    async fn nobody_reads(&self, channels: &[Address]) -> Result<(), Refusal> {
        for channel in channels {
            self.inner.trimmable.note(channel);
            self.inner.planner.durable.left(self.store(), channel).await?;
        }
        Ok(())
    }

    /// A session that has ended is a member of no group.
    async fn leave_groups(&self, number: u64, subs: &[StoredSub]) -> Result<(), Refusal> {
        let names: Arc<[ShareName]> = subs.iter().filter_map(ShareName::of).collect();
        if names.is_empty() {
            return Ok(());
        }
        let (groups, ends) = (self.inner.planner.durable.groups.clone(), names.clone());
        let units = move |_| ends.iter().flat_map(|name| groups.end(name, number)).collect();
        self.commit_begins(Begins { enters: Vec::new(), units: Box::new(units) }).await?;
        for plan in names.iter().filter_map(|name| name.plan.clone()) {
            self.nobody_reads(std::slice::from_ref(&plan.channel)).await?;
            let shard = self.shard_of_tag(plan.tag());
            self.post_job(shard, move |shard| shard.team_changes(&plan, &[], None));
        }
        Ok(())
    }

    async fn clean_session(&self, number: u64) -> Result<(), Refusal> {
        loop {
            let chunks = self.records_of(&record::chunks_prefix(number)).await?;
            let mut units: Vec<Unit> =
                chunks.iter().map(|chunk| delete(chunk.key.clone())).collect();
            let subs =
                chunks.iter().filter_map(|chunk| record::decode_chunk(&chunk.value)).flatten();
            let subs: Vec<StoredSub> = subs.map(|(_, sub)| sub).collect();
            self.leave_groups(number, &subs).await?;
            let durable = subs.iter().filter(|sub| sub.is_durable());
            let channels: Vec<Address> = durable.filter_map(StoredSub::channel).collect();
            units.extend(channels.iter().map(|channel| delete(durable::key(channel, number))));
            if !units.is_empty() {
                units.extend(channels.iter().map(|channel| Unit::Forget {
                    reader: Reader::session(number),
                    channel: Some(channel.clone()),
                }));
                self.commit(units).await?;
            }
            self.nobody_reads(&channels).await?;
            if chunks.len() < PAGE {
                break;
            }
        }
        let mut units = vec![
            Unit::Forget { reader: Reader::session(number), channel: None },
            Unit::Forget { reader: Reader::holding(number), channel: None },
            delete(record::client_key(number)),
            delete(record::window_key(number)),
            delete(record::owed_key(number)),
        ];
        loop {
            let inbound = self.records_of(&record::inbounds_prefix(number)).await?;
            units.extend(inbound.iter().map(|found| delete(found.key.clone())));
            let more = inbound.len() == PAGE;
            if !more {
                units.push(delete(record::gone_key(number)));
            }
            self.commit(std::mem::take(&mut units)).await?;
            if !more {
                return Ok(());
            }
        }
    }
}
