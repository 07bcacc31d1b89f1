//! The verbs about what a channel keeps: reading, erasing, trimming it.

use crate::clock;
use crate::node::{Node, store_refusal};
use clarion_core::id::IdParts;
use clarion_core::port::store::{Done, Find, Found, FoundState, Head, ReadRange, Unit};
use clarion_core::{Address, AddressKind, Code, Message, MessageId, Principal, Refusal, Seq, Verb};

/// Part of a channel.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The channel's state.
    pub head: Head,
    /// Ascending after `after`, descending below `before`.
    pub messages: Vec<Message>,
    /// The last seq that was looked at; go on from there. `None` when the end was reached.
    pub next: Option<Seq>,
}

/// Reads that one request may cause: each passes a bounded run of expired or erased messages.
const READS_MAX: usize = 8;

impl Node {
    pub(crate) fn check_read(principal: &Principal, address: &Address) -> Result<(), Refusal> {
        if principal.allows(Verb::Read, address) {
            Ok(())
        } else {
            Err(Refusal::new(Code::Forbidden, "these credentials may not read this"))
        }
    }

    /// Reads a channel: ascending above `after`, or descending below `before`.
    pub async fn history(
        &self,
        principal: &Principal,
        address: Address,
        after: Option<Seq>,
        before: Option<Seq>,
        limit: usize,
        bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        Self::check_read(principal, &address)?;
        self.read_history(&address, after, before, limit, bytes).await
    }

    /// Reads any channel; the caller has checked the rights.
    pub(crate) async fn read_history(
        &self,
        address: &Address,
        after: Option<Seq>,
        before: Option<Seq>,
        limit: usize,
        bytes: usize,
    ) -> Result<HistoryPage, Refusal> {
        if after.is_some() && before.is_some() {
            return Err(Refusal::new(Code::BadRequest, "give 'after' or 'before', not both"));
        }
        let backwards = before.is_some();
        let mut from = after.map_or(1, |seq| seq.saturating_add(1));
        let mut to = before.map_or(Seq::MAX, |seq| seq.saturating_sub(1));
        let mut result = HistoryPage { head: Head::default(), messages: Vec::new(), next: None };
        let mut left = bytes;
        for _ in 0..READS_MAX {
            let count = limit - result.messages.len();
            let range =
                ReadRange { channel: address.clone(), from, to, backwards, count, bytes: left };
            let mut pages =
                self.store().read(clock::now(), vec![range]).await.map_err(store_refusal)?;
            let page = pages.pop().unwrap_or_default();
            result.head = page.head;
            let weight: usize = page.messages.iter().map(|m| m.content.weight()).sum();
            left = left.saturating_sub(weight);
            result.messages.extend(page.messages);
            let (through, head) = (page.through, page.head);
            let ended = if backwards {
                through <= head.first.max(from)
            } else {
                through >= head.last.min(to)
            };
            result.next = (!ended).then_some(through);
            if ended || result.messages.len() >= limit || left == 0 {
                break;
            }
            if backwards { to = through.saturating_sub(1) } else { from = through + 1 }
        }
        Ok(result)
    }

    pub(crate) async fn find_message(&self, id: MessageId) -> Result<Found, Refusal> {
        match id.parts() {
            Some(IdParts::Live { .. }) => Err(Code::NotStored.into()),
            None => Err(Refusal::new(Code::NotFound, "no message has this id")),
            Some(IdParts::Stored { .. }) => {
                let found =
                    self.store().find(clock::now(), Find::Id(id)).await.map_err(store_refusal)?;
                found.ok_or_else(|| Refusal::new(Code::NotFound, "no message has this id"))
            }
        }
    }

    /// Blanks a message's body. Fails with `not_found` when there is none left.
    pub async fn erase(&self, principal: &Principal, id: MessageId) -> Result<(), Refusal> {
        Self::check_admin(principal, None)?;
        let found = self.find_message(id).await?;
        let gone = || Refusal::new(Code::NotFound, "the message is gone already");
        // Of a topic's message that was trimmed the logs of filters may still hold copies.
        let copied = found.channel.kind() == AddressKind::Topic;
        if found.state == FoundState::Erased || (found.state == FoundState::Trimmed && !copied) {
            return Err(gone());
        }
        let unit = Unit::Erase { channel: found.channel, seq: found.stored.seq };
        match self.commit(vec![unit]).await?.first() {
            Some(Done::Erased(true)) => Ok(()),
            // What stood there may have been blanked already, when it expired or by somebody else.
            Some(Done::Erased(false)) if found.state != FoundState::Trimmed => Ok(()),
            Some(Done::Erased(false)) => Err(gone()),
            _ => Err(Code::Internal.into()),
        }
    }

    /// Forgets everything below a seq. Returns the first seq that is kept.
    pub async fn trim(
        &self,
        principal: &Principal,
        address: Address,
        below: Seq,
    ) -> Result<Seq, Refusal> {
        let user = (address.kind() == AddressKind::User).then(|| address.id());
        Self::check_admin(principal, user)?;
        let unit = Unit::Trim { channel: address, below };
        match self.commit(vec![unit]).await?.first() {
            Some(Done::Trimmed(first)) => Ok(*first),
            _ => Err(Code::Internal.into()),
        }
    }
}
