//! A will as a record of the store.
//!
//! Layout (version 1): version, flags, delay and session expiry (4 bytes each, big-endian), when it is due (8; 0 = its session is
//! attached), seconds to live (8), owner and address, each with its length (4 bytes) in front, then the message as retained
//! ones are stored, whose topic and end of life mean nothing here. Invariant: no input panics.

use crate::retained;
use bytes::{Buf, BufMut, Bytes};
use clarion_core::port::peer::PeerPublish;
use clarion_core::{Address, Content, Message, MessageId, Millis};
use std::sync::Arc;

const VERSION: u8 = 1;
const RETAIN: u8 = 1;
const COUNTED: u8 = 1 << 1;
const OWNER: u8 = 1 << 2;
const LIFE: u8 = 1 << 3;
/// The address stands for itself.
const NO_TOPIC: &str = "-";

/// A will, and what is to be known of it when its session is not there.
#[derive(Debug, Clone)]
pub(crate) struct WillRecord {
    pub(crate) publish: PeerPublish,
    /// Seconds that it waits when its connection has ended.
    pub(crate) delay_s: u32,
    /// Seconds that its session outlives the connection.
    pub(crate) expiry_s: u32,
    /// Whose client id it is.
    pub(crate) owner: Option<Arc<str>>,
    /// When it is to be published; `None` = its connection has not ended.
    pub(crate) due: Option<Millis>,
}

impl WillRecord {
    /// The record's value.
    pub(crate) fn encode(&self) -> Bytes {
        let PeerPublish { address, content, .. } = &self.publish;
        let flag = |there: bool, flag: u8| if there { flag } else { 0 };
        let flags = flag(content.retain, RETAIN)
            | flag(content.counted, COUNTED)
            | flag(self.owner.is_some(), OWNER)
            | flag(content.asked_s.is_some(), LIFE);
        let mut out = Vec::with_capacity(64 + content.weight());
        out.put_u8(VERSION);
        out.put_u8(flags);
        out.put_u32(self.delay_s);
        out.put_u32(self.expiry_s);
        out.put_u64(self.due.unwrap_or(0));
        out.put_i64(content.asked_s.unwrap_or(0));
        for text in [self.owner.as_deref().unwrap_or_default(), address.as_str()] {
            out.put_u32(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
        let message = Message {
            id: MessageId::live(0, 0, 0),
            channel: Address::topic(NO_TOPIC).unwrap_or_else(|_| Address::all()),
            epoch: 0,
            seq: 0,
            created_at: 0,
            content: Arc::new(content.clone()),
        };
        out.extend_from_slice(&retained::encode(&message));
        out.into()
    }

    /// `None` = it is damaged, or of a later version.
    pub(crate) fn decode(mut value: Bytes) -> Option<Self> {
        if value.try_get_u8().ok()? != VERSION {
            return None;
        }
        let flags = value.try_get_u8().ok()?;
        let delay_s = value.try_get_u32().ok()?;
        let expiry_s = value.try_get_u32().ok()?;
        let due = Some(value.try_get_u64().ok()?).filter(|due| *due != 0);
        let asked_s = value.try_get_i64().ok()?;
        let (owner, address) = (text(&mut value)?, text(&mut value)?);
        let content = retained::decode(value)?.content;
        let mut content = Arc::try_unwrap(content).unwrap_or_else(|shared| Content::clone(&shared));
        content.retain = flags & RETAIN != 0;
        content.counted = flags & COUNTED != 0;
        content.asked_s = Some(asked_s).filter(|_| flags & LIFE != 0);
        content.expires_at = None;
        let address = Address::parse(&address).ok()?;
        let publish = PeerPublish { address, content, token: 0, once: None };
        let owner = Some(owner.into()).filter(|_| flags & OWNER != 0);
        Some(Self { publish, delay_s, expiry_s, owner, due })
    }
}

fn text(value: &mut Bytes) -> Option<String> {
    let len = value.try_get_u32().ok()? as usize;
    if len > value.len() {
        return None;
    }
    String::from_utf8(value.split_to(len).into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::Sender;

    #[test]
    fn what_goes_in_comes_out() {
        let text = |t: &str| Some(Box::from(t));
        let full = Content {
            payload: Bytes::from_static(b"payload"),
            utf8: true,
            retain: true,
            counted: true,
            qos: 2,
            content_type: text("text/plain"),
            reply_to: text("r"),
            correlation: Some(Bytes::from_static(b"\0\x01")),
            sender: Some(Sender { user: "u".into(), device: text("d") }),
            headers: vec![("a".into(), "b".into())],
            asked_s: Some(0),
            ..Content::default()
        };
        for (address, content, owner, due) in [
            (Address::topic("a/b").unwrap(), full, Some(Arc::from("u")), None),
            (Address::user("#+").unwrap(), Content::default(), None, Some(9)),
        ] {
            let publish = PeerPublish { address, content, token: 0, once: None };
            let record = WillRecord { publish, delay_s: 3, expiry_s: 4, owner, due };
            let value = record.encode();
            let back = WillRecord::decode(value.clone()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{record:?}"));
            for cut in 0..value.len() {
                // A shorter one is damaged, or has less of a payload.
                let cut = WillRecord::decode(value.slice(..cut));
                assert!(cut.is_none_or(|will| will.publish.content.payload.len() < 7));
            }
        }
        assert!(WillRecord::decode(Bytes::from_static(b"\x02")).is_none());
    }
}
