//! The verbs about retained messages: list them, delete one.
//!
//! Invariants: a delete goes through the same ordered change as an empty publish, and its outcome is noted whether or not
//! the asker still waits; what one list reads is bounded, in records and bytes. Must not know: sessions.

use super::{Refused, decode, key, prefix};
use crate::clock;
use crate::node::{Node, all_done, store_refusal};
use bytes::Bytes;
use clarion_core::port::store::{Change, Expect, Unit};
use clarion_core::{Address, Code, Message, Principal, Refusal, topic};

/// Records that are read at once, at first and at most. How large they are shows only then.
const FIRST_READ: usize = 4;
const READ_MAX: usize = 256;
/// Bytes that one read should have.
const READ_BYTES: usize = 1 << 20;
/// Records that one request looks at, so that one that matches little ends too.
const LOOKED_MAX: usize = 10_000;

/// Part of the retained messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedPage {
    /// In the order of their topics' bytes; may be fewer than asked for, even none, while there are more.
    pub messages: Vec<Message>,
    /// Where to go on, if there may be more.
    pub next: Option<String>,
}

/// A place in the list as text: the record's key, since a long topic's is shorter than itself.
fn place(key: &[u8]) -> String {
    use std::fmt::Write;
    let own = key.get(prefix("").len()..).unwrap_or_default();
    own.iter().fold(String::with_capacity(own.len() * 2), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The key of a place.
fn parse_place(text: &str) -> Result<Bytes, Refusal> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let own: Option<Vec<u8>> = text.as_bytes().chunks(2).map(pair).collect();
    match own {
        Some(own) => Ok([&prefix("")[..], &own].concat().into()),
        None => Err(Refusal::new(Code::BadRequest, "'after' is no place in this list")),
    }
}

fn check_filter(filter: &str) -> Result<(), Refusal> {
    match topic::parse_filter(filter) {
        Ok(parsed) if parsed.share.is_none() => Ok(()),
        Ok(_) => Err(Refusal::new(Code::BadRequest, "filter: nothing is retained for a group")),
        Err(error) => Err(Refusal::new(Code::BadRequest, format!("filter: {error}"))),
    }
}

impl Node {
    /// Retained messages whose topics a filter matches, above `after`, at most `limit` and about so many bytes of them.
    pub async fn list_retained(
        &self,
        principal: &Principal,
        filter: &str,
        after: Option<&str>,
        limit: usize,
        bytes: usize,
    ) -> Result<RetainedPage, Refusal> {
        Self::check_admin(principal, None)?;
        check_filter(filter)?;
        let mut after = after.map(parse_place).transpose()?;
        let exact = !topic::is_wildcard(filter);
        let prefix = if exact { key(filter) } else { prefix(filter) };
        let mut want = if exact { 1 } else { FIRST_READ };
        let (mut looked, mut left, now) = (0, bytes, clock::now());
        let mut messages = Vec::new();
        loop {
            let records = self.store().records(prefix.clone(), after.clone(), want).await;
            let records = records.map_err(store_refusal)?;
            let ended = exact || records.len() < want;
            let mut read = 0;
            for record in records {
                let size = record.value.len();
                (read, looked) = (read + size, looked + 1);
                let message = decode(record.value).filter(|message| {
                    topic::matches(filter, message.channel.id()) && !message.content.expired(now)
                });
                if let Some(message) = message {
                    // The first one whatever its size.
                    if messages.len() >= limit || (size > left && !messages.is_empty()) {
                        let next = after.as_deref().map(place);
                        return Ok(RetainedPage { messages, next });
                    }
                    left = left.saturating_sub(size);
                    messages.push(message);
                }
                after = Some(record.key);
            }
            if ended {
                return Ok(RetainedPage { messages, next: None });
            }
            if looked >= LOOKED_MAX {
                return Ok(RetainedPage { messages, next: after.as_deref().map(place) });
            }
            want = (READ_BYTES * want / read.max(1)).clamp(1, READ_MAX);
        }
    }

    /// Deletes a topic's retained message: later subscribers do not get it, and nobody is told. Fails with `not_found` when
    /// there is none.
    pub async fn delete_retained(&self, principal: &Principal, topic: &str) -> Result<(), Refusal> {
        Self::check_admin(principal, None)?;
        let address = Address::topic(topic)?;
        self.check_taking()?;
        if !self.is_retained(topic).await? {
            return Err(Refusal::new(Code::NotFound, "this topic has no retained message"));
        }
        let record = Unit::Record { key: key(topic), expect: Expect::Any, change: Change::Delete };
        let (mut number, mut answer) = (0, None);
        let changed = self.inner.retained.change(topic, None, |given| {
            number = given;
            answer = Some(self.hand_in(vec![record])?);
            Ok(())
        });
        match changed {
            Ok(()) => {}
            Err(Refused::Committer(refusal)) => return Err(refusal),
            Err(Refused::Full) => return Err(Code::Internal.into()),
        }
        let answer = answer.ok_or(Code::Internal)?;
        let retained = self.inner.retained.clone();
        // A task of its own: the change is noted as committed although the asker may go away.
        let noted = tokio::spawn(async move {
            let answer =
                answer.await.map_err(|_| Refusal::new(Code::StoreOutcome, "the committer ended"));
            let done = answer.and_then(all_done);
            retained.committed(address.id(), number, done.is_ok());
            done.map(drop)
        });
        noted.await.map_err(|_| Refusal::from(Code::StoreOutcome))?
    }

    /// Whether a topic has a retained message that lives.
    async fn is_retained(&self, topic: &str) -> Result<bool, Refusal> {
        let retained = &self.inner.retained;
        if !retained.may_have(topic) {
            return Ok(false);
        }
        let reading = retained.read(topic);
        if let Some((_, message)) = reading.overlay.first() {
            return Ok(message.as_ref().is_some_and(|m| !m.content.expired(clock::now())));
        }
        let records = self.store().records(key(topic), None, 1).await.map_err(store_refusal)?;
        let message = records.into_iter().next().and_then(|record| decode(record.value));
        Ok(message.is_some_and(|m| m.channel.id() == topic && !m.content.expired(clock::now())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_keys_and_nothing_else() {
        for topic in ["a", "a/ü", &"x/".repeat(30_000)] {
            let text = place(&key(topic));
            assert!(text.len() < 2000);
            assert_eq!(parse_place(&text), Ok(key(topic)));
        }
        for bad in ["x", "abc", "0g", "é"] {
            assert!(parse_place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_are_judged() {
        for good in ["#", "a", "a/+/b", "$SYS/#"] {
            assert_eq!(check_filter(good), Ok(()));
        }
        for bad in ["", "a#", "$share/g/a"] {
            assert_eq!(check_filter(bad).map_err(|refusal| refusal.code), Err(Code::BadRequest));
        }
    }
}
