//! Dead lists: what a message carries there, reading one, putting messages back.
//!
//! Invariant: putting back publishes before it takes off the list, under an idempotency key, so that a crash between
//! the two neither loses nor doubles. Must not know: leases.

use crate::clock;
use crate::history::HistoryPage;
use crate::node::{Node, store_refusal};
use crate::shared::reader_number;
use clarion_core::port::store::{Done, Publish, ReadRange, Reader, Unit};
use clarion_core::{Address, Code, Content, Message, Principal, Refusal, Seq, Verb};
use std::sync::Arc;

/// In front of the headers that tell whence a dead message came.
const PREFIX: &str = "clarion-dead-";
/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 256;
/// Most messages that one request puts back.
const PUT_BACK_MAX: usize = 1000;
/// Messages that are put back with one commit; they are in memory at once.
const PUT_BACK_PART: usize = 16;

/// A message as its channel's dead list keeps it: with headers that tell its cursor, id, place and attempts, under a
/// key of its own, so that a burial that is tried again buries nothing twice.
pub(crate) fn dead_content(message: &Message, reader: &Reader, attempts: u32) -> Content {
    let group = String::from_utf8_lossy(&reader.as_bytes()[1..]).into_owned();
    let mut key = format!("{group}/{}/{}", message.epoch, message.seq);
    if key.len() > KEY_BYTES_MAX {
        key = format!("{:016x}/{}/{}", reader_number(reader), message.epoch, message.seq);
    }
    let mut content = (*message.content).clone();
    let facts = [
        ("group", group),
        ("id", message.id.to_string()),
        ("epoch", message.epoch.to_string()),
        ("seq", message.seq.to_string()),
        ("attempts", attempts.to_string()),
        ("at", clock::now().to_string()),
    ];
    // A message that died before, and was put back, tells of its last death.
    content.headers.retain(|(name, _)| !name.starts_with(PREFIX));
    let header = |(name, value): (&str, String)| (format!("{PREFIX}{name}").into(), value.into());
    content.headers.extend(facts.map(header));
    // What nobody could handle is kept for people, whatever its life was.
    content.expires_at = None;
    content.idempotency_key = Some(key.into());
    content
}

impl Node {
    fn check_dead(principal: &Principal, address: &Address, verb: Verb) -> Result<(), Refusal> {
        if !principal.allows(verb, address) {
            return Err(Refusal::new(Code::Forbidden, "these credentials do not allow this"));
        }
        Ok(())
    }

    /// Reads the dead list of a channel, ascending above `after`.
    pub async fn dead(
        &self,
        principal: &Principal,
        address: &Address,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        Self::check_dead(principal, address, Verb::Read)?;
        self.read_history(&address.dead_list(), Some(after), None, limit, bytes).await
    }

    /// Publishes dead messages to their channel again and takes them off the list. Returns how many there were.
    pub async fn put_back(
        &self,
        principal: &Principal,
        address: &Address,
        mut seqs: Vec<Seq>,
    ) -> Result<usize, Refusal> {
        Self::check_dead(principal, address, Verb::Admin)?;
        if seqs.len() > PUT_BACK_MAX {
            return Err(Refusal::new(Code::BatchTooLong, "put back at most 1,000 at once"));
        }
        self.check_taking()?;
        seqs.sort_unstable();
        seqs.dedup();
        let list = address.dead_list();
        let (mut back, mut result) = (0, Ok(()));
        for part in seqs.chunks(PUT_BACK_PART) {
            match self.put_part_back(address, &list, part).await {
                Ok(part) => back += part,
                Err(refusal) => {
                    result = Err(refusal);
                    break;
                }
            }
        }
        // Also after a failure: what was put back before it has left the list.
        self.trim_dead(&list).await?;
        result.map(|()| back)
    }

    /// Puts a few back: one commit publishes them, a second one takes them off the list. Fails when one was refused; those
    /// that were not are back all the same.
    async fn put_part_back(
        &self,
        address: &Address,
        list: &Address,
        seqs: &[Seq],
    ) -> Result<usize, Refusal> {
        let mut messages = Vec::with_capacity(seqs.len());
        for seq in seqs {
            messages.extend(self.dead_at(list, *seq, *seq).await?);
        }
        if messages.is_empty() {
            return Ok(0);
        }
        let publish = |message: &Message| {
            let mut content = (*message.content).clone();
            content.headers.retain(|(name, _)| !name.starts_with(PREFIX));
            content.idempotency_key = Some(format!("dead/{}", message.id).into());
            Unit::Publish(Publish {
                channel: address.clone(),
                content: Arc::new(content),
                refs: Vec::new(),
                retention: self.config().retention.of(address.kind()),
            })
        };
        let units = messages.iter().map(publish).collect();
        let (_, published) = self.submit(units).await?.map_err(store_refusal)?;
        let (mut erase, mut refused) = (Vec::new(), None);
        for (message, done) in messages.iter().zip(published) {
            match done {
                Done::Refused(code) => refused = Some(code),
                _ => erase.push(Unit::Erase { channel: list.clone(), seq: message.seq }),
            }
        }
        let erased = if erase.is_empty() { Vec::new() } else { self.commit(erase).await? };
        match refused {
            Some(code) => Err(code.into()),
            None => Ok(erased.iter().filter(|done| matches!(done, Done::Erased(true))).count()),
        }
    }

    /// Gives back what the list no longer holds.
    async fn trim_dead(&self, list: &Address) -> Result<(), Refusal> {
        let heads = self.store().heads(vec![list.clone()]).await.map_err(store_refusal)?;
        let Some(head) = heads.first() else { return Ok(()) };
        let first = self.dead_at(list, 1, Seq::MAX).await?.map_or(head.last + 1, |m| m.seq);
        if first > head.first {
            self.commit(vec![Unit::Trim { channel: list.clone(), below: first }]).await?;
        }
        Ok(())
    }

    /// The first message of a dead list in this range.
    async fn dead_at(
        &self,
        list: &Address,
        mut from: Seq,
        to: Seq,
    ) -> Result<Option<Message>, Refusal> {
        loop {
            let channel = list.clone();
            let range =
                ReadRange { channel, from, to, backwards: false, count: 1, bytes: usize::MAX };
            let pages =
                self.store().read(clock::now(), vec![range]).await.map_err(store_refusal)?;
            let Some(page) = pages.into_iter().next() else { return Ok(None) };
            if let Some(message) = page.messages.into_iter().next() {
                return Ok(Some(message));
            }
            if page.through >= page.head.last.min(to) {
                return Ok(None);
            }
            from = page.through + 1;
        }
    }
}
