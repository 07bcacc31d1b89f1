//! Who is told of what was committed: the shards with live readers, each with one entry, in commit order.
//!
//! Invariant: a record is told in its own log first, then in those that refer to it. Must not know: what shards make of it.

use super::{Committer, Going};
use crate::durable::Known;
use crate::interest::ShardSet;
use crate::shard::Hinted;
use clarion_core::port::store::{Committed, Done, Referred, Stored};
use clarion_core::{Address, Epoch, Message, Seq};
use std::cell::OnceCell;
use std::sync::Arc;

impl Committer {
    /// Records of the batch, in commit order, one entry for each shard that has somebody live.
    pub(super) fn hint(&self, going: Vec<Option<Going>>, committed: &Committed) {
        let mut records: Vec<Vec<Hinted>> = vec![Vec::new(); self.mailboxes.len()];
        let mut shared = Vec::new();
        let mut refs = committed.refs.iter().peekable();
        let interest = self.interest.read();
        for (unit, (going, done)) in going.into_iter().zip(&committed.results).enumerate() {
            let (Some(going), Done::Published(stored)) = (going, done) else { continue };
            let message = LazyMessage::new(going, stored);
            if !stored.duplicate && interest.has_any(message.channel()) {
                let shards = interest.shards(message.channel());
                let mut picked = interest.pick(message.channel());
                // Groups with a cursor get it by that.
                let at = stored.created_at;
                picked.retain(|picked| !self.durable.groups.reads(&picked.name, at));
                let hinted = Hinted { via: None, message: message.get() };
                post_to(&mut records, shards, hinted);
                shared.extend(picked.into_iter().map(|picked| (message.get(), picked)));
            }
            while let Some(referred) = refs.next_if(|referred| referred.unit == unit) {
                let Some(log) = message.log(referred.at) else { continue };
                let shards = interest.shards(log);
                if shards != 0 {
                    let via = Some(log.clone());
                    let message = message.at(referred.epoch, referred.seq);
                    post_to(&mut records, shards, Hinted { via, message });
                }
            }
        }
        drop(interest);
        for (message, picked) in shared {
            picked.post(&self.mailboxes, message);
        }
        for (mailbox, records) in self.mailboxes.iter().zip(records) {
            if !records.is_empty() {
                mailbox.post_records(records);
            }
        }
    }
}

fn post_to(records: &mut [Vec<Hinted>], shards: ShardSet, hinted: Hinted) {
    for (shard, records) in records.iter_mut().enumerate() {
        if shards >> shard & 1 == 1 {
            records.push(hinted.clone());
        }
    }
}

/// The logs that a batch made grow.
pub(super) fn grown<'a>(
    going: &'a [Option<Going>],
    committed: &'a Committed,
) -> impl Iterator<Item = (&'a Address, Known)> {
    let published = going.iter().zip(&committed.results).filter_map(|(going, done)| {
        let (Some(going), Done::Published(stored)) = (going, done) else { return None };
        let Stored { epoch, seq, created_at, .. } = *stored;
        Some((&going.channel, Known { epoch, last: seq, last_at: created_at }))
    });
    let referred = committed.refs.iter().filter_map(|referred| {
        let going = going.get(referred.unit)?.as_ref()?;
        let Done::Published(stored) = committed.results.get(referred.unit)? else { return None };
        let Referred { epoch, seq, at, .. } = *referred;
        Some((going.refs.get(at)?, Known { epoch, last: seq, last_at: stored.created_at }))
    });
    published.chain(referred)
}

/// A message that is made when somebody is to be told of it.
struct LazyMessage<'a> {
    going: Going,
    stored: &'a Stored,
    made: OnceCell<Arc<Message>>,
}

impl<'a> LazyMessage<'a> {
    fn new(going: Going, stored: &'a Stored) -> Self {
        Self { going, stored, made: OnceCell::new() }
    }

    fn channel(&self) -> &Address {
        &self.going.channel
    }

    fn log(&self, at: usize) -> Option<&Address> {
        self.going.refs.get(at)
    }

    fn get(&self) -> Arc<Message> {
        self.made.get_or_init(|| self.at(self.stored.epoch, self.stored.seq)).clone()
    }

    /// The message as it is read from another log.
    fn at(&self, epoch: Epoch, seq: Seq) -> Arc<Message> {
        Arc::new(Message {
            id: self.stored.id,
            channel: self.going.channel.clone(),
            epoch,
            seq,
            created_at: self.stored.created_at,
            content: self.going.content.clone(),
        })
    }
}
