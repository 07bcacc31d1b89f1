//! A message: what a publisher gave (`Content`) and what the channel made of it (`Message`).
//!
//! Content is immutable and shared: it is built once, by the edge that decoded it, and reaches the store and every
//! reader by reference. Must not know: any wire form.

use crate::{Address, Epoch, MessageId, Millis, Position, Seq};
use bytes::Bytes;
use std::sync::Arc;

/// Who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sender {
    /// Account id.
    pub user: Box<str>,
    /// Device of that account, if it was one.
    pub device: Option<Box<str>>,
}

/// What a publisher gave. Sizes and forms were checked by the edge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// The body.
    pub payload: Bytes,
    /// The body is one valid compact JSON value.
    pub json: bool,
    /// The body is declared UTF-8 (MQTT 5 payload format indicator).
    pub utf8: bool,
    /// MQTT retain flag.
    pub retain: bool,
    /// MQTT QoS of the publish, 0 to 2.
    pub qos: u8,
    /// Whether it counts as unread for the receivers.
    pub counted: bool,
    /// Media type of the body.
    pub content_type: Option<Box<str>>,
    /// The application's name for this event.
    pub kind: Option<Box<str>>,
    /// Who sent it.
    pub sender: Option<Sender>,
    /// Ordered; names may repeat.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Where a reply goes (MQTT 5 response topic).
    pub reply_to: Option<Box<str>>,
    /// What ties a reply to its request.
    pub correlation: Option<Bytes>,
    /// Absolute end of life; `None` = as long as the channel keeps it.
    pub expires_at: Option<Millis>,
    /// Seconds to live as the publisher gave them, whatever the channel made of it. For those who are given it at once;
    /// not stored.
    pub asked_s: Option<i64>,
    /// The same key again on the channel within 24 h returns the first answer. At most 256 bytes.
    pub idempotency_key: Option<Box<str>>,
}

impl Content {
    /// Memory and disk that it takes, roughly, in bytes: what bounds are counted in.
    pub fn weight(&self) -> usize {
        let text = |t: &Option<Box<str>>| t.as_ref().map_or(0, |t| t.len());
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + v.len() + 8).sum();
        let sender = self.sender.as_ref().map_or(0, |s| s.user.len() + text(&s.device));
        64 + self.payload.len()
            + text(&self.content_type)
            + text(&self.kind)
            + text(&self.reply_to)
            + text(&self.idempotency_key)
            + self.correlation.as_ref().map_or(0, Bytes::len)
            + sender
            + headers
    }

    /// The end of a life of so many seconds that begins now. One of no seconds is for those who are there, which is not over
    /// within the same second.
    pub fn end_of_life(asked_s: Option<i64>, now: Millis) -> Option<Millis> {
        let seconds = u64::try_from(asked_s?).unwrap_or(0).max(1);
        Some(now.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whether its life is over.
    pub fn expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A message in its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its channel.
    pub channel: Address,
    /// History of the channel; 0 when live.
    pub epoch: Epoch,
    /// Place in the channel; 0 when live.
    pub seq: Seq,
    /// When the store (live: the node) took it; never falls within a channel.
    pub created_at: Millis,
    /// What the publisher gave.
    pub content: Arc<Content>,
}

impl Message {
    /// Whether it was never stored.
    pub fn is_live(&self) -> bool {
        self.seq == 0
    }

    /// Its place.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_counts_every_part_that_a_publisher_chooses_the_size_of() {
        let bare = Content::default().weight();
        let texts: [fn(Box<str>) -> Content; 4] = [
            |t| Content { content_type: Some(t), ..Content::default() },
            |t| Content { kind: Some(t), ..Content::default() },
            |t| Content { reply_to: Some(t), ..Content::default() },
            |t| Content { idempotency_key: Some(t), ..Content::default() },
        ];
        for content in texts {
            assert_eq!(content("x".repeat(100).into()).weight(), bare + 100);
        }
        let bytes = Bytes::from(vec![0; 100]);
        assert_eq!(Content { payload: bytes.clone(), ..Content::default() }.weight(), bare + 100);
        let correlation = Some(bytes);
        assert_eq!(Content { correlation, ..Content::default() }.weight(), bare + 100);
        let sender = Some(Sender { user: "12345".into(), device: Some("678".into()) });
        assert_eq!(Content { sender, ..Content::default() }.weight(), bare + 8);
        let headers = vec![("a".into(), "bc".into()); 3];
        assert!(Content { headers, ..Content::default() }.weight() >= bare + 9);
    }

    #[test]
    fn a_life_ends_at_its_end() {
        let content = Content { expires_at: Some(10), ..Content::default() };
        assert!(!content.expired(9) && content.expired(10));
        assert!(!Content::default().expired(u64::MAX));
    }
}
