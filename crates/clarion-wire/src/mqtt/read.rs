//! Fields of a packet, taken from its bytes one after the other.
//!
//! Invariants: never reads beyond the packet; every string it gives is UTF-8 and, unless topics are free, has no character
//! that is refused. Must not know: which packet has which fields.

use super::rules::{self, Rule};
use super::{Malformed, Profile, Topic, Version};
use clarion_core::topic::{TopicError, parse_filter};

/// What a byte of a string is, as a set.
const NUL: u8 = 1;
const CONTROL: u8 = 2;
const WILDCARD: u8 = 4;
const WIDE: u8 = 8;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0 => NUL,
            1..=0x1f | 0x7f => CONTROL,
            b'+' | b'#' => WILDCARD,
            0x80.. => WIDE,
            _ => 0,
        };
        byte += 1;
    }
    classes
};

/// Characters beyond ASCII that are refused: C1 controls and what is no character.
fn is_refused(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{9f}' | '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe
}

/// Takes fields from the front.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    version: Version,
    free: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], version: Version, profile: &Profile) -> Self {
        Self { rest: bytes, version, free: profile.free_topics }
    }

    /// Over bytes that have been checked before.
    pub(super) fn checked(bytes: &'a [u8], version: Version) -> Self {
        Self { rest: bytes, version, free: true }
    }

    /// The same over a part of the packet.
    pub(super) fn within(&self, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, version: self.version, free: self.free }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn is_five(&self) -> bool {
        self.version == Version::V5
    }

    pub(super) fn is_free(&self) -> bool {
        self.free
    }

    /// The packet breaks this rule.
    pub(super) fn broken<T>(&self, rule: &Rule) -> Result<T, Malformed> {
        Err(rule.broken(self.version))
    }

    /// What is left, all of it.
    pub(super) fn remainder(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { self.broken(&rules::TRAILING) }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return self.broken(&rules::SHORT);
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some((taken, rest)) = self.rest.split_first_chunk() else {
            return self.broken(&rules::SHORT);
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer, in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u32, Malformed> {
        match varint(self.rest) {
            Varint::More => self.broken(&rules::SHORT),
            Varint::TooLong => self.broken(&rules::NUMBER),
            Varint::Number { shortest: false, .. } => self.broken(&rules::LENGTH_LONG),
            Varint::Number { value, bytes, .. } => {
                self.rest = self.rest.get(bytes..).unwrap_or_default();
                Ok(value)
            }
        }
    }

    /// Bytes behind a length of two bytes.
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u16()?;
        self.bytes(count.into())
    }

    /// A string.
    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        self.text_and_classes().map(|(text, _)| text)
    }

    fn text_and_classes(&mut self) -> Result<(&'a str, u8), Malformed> {
        let bytes = self.binary()?;
        let Ok(text) = std::str::from_utf8(bytes) else {
            return self.broken(&rules::UTF8);
        };
        if self.free {
            return Ok((text, 0));
        }
        let classes = bytes.iter().fold(0, |found, byte| found | CLASSES[usize::from(*byte)]);
        if classes & !WILDCARD != 0 {
            if classes & NUL != 0 {
                return self.broken(&rules::NUL);
            }
            if classes & CONTROL != 0 || text.chars().any(is_refused) {
                return self.broken(&rules::CONTROL);
            }
        }
        Ok((text, classes))
    }

    /// A topic to publish to; may be empty.
    pub(super) fn topic_or_empty(&mut self) -> Result<Topic<'a>, Malformed> {
        if self.free {
            return self.free_topic();
        }
        let (text, classes) = self.text_and_classes()?;
        if classes & WILDCARD != 0 {
            return self.broken(&rules::TOPIC_WILDCARD);
        }
        Ok(text.into())
    }

    /// A topic to publish to.
    pub(super) fn topic(&mut self) -> Result<Topic<'a>, Malformed> {
        let topic = self.topic_or_empty()?;
        if topic.bytes.is_empty() { self.broken(&rules::TOPIC_EMPTY) } else { Ok(topic) }
    }

    /// A topic filter.
    pub(super) fn filter(&mut self) -> Result<Topic<'a>, Malformed> {
        if self.free {
            return self.free_topic();
        }
        let (text, _) = self.text_and_classes()?;
        match parse_filter(text) {
            Ok(_) => Ok(text.into()),
            Err(why) => self.broken(match why {
                TopicError::Empty => &rules::TOPIC_EMPTY,
                TopicError::Wildcard | TopicError::Hash => &rules::FILTER_HASH,
                TopicError::Plus => &rules::FILTER_PLUS,
                TopicError::Share => &rules::FILTER_SHARE,
            }),
        }
    }

    fn free_topic(&mut self) -> Result<Topic<'a>, Malformed> {
        let bytes = self.binary()?;
        Ok(Topic { bytes, text: std::str::from_utf8(bytes).ok() })
    }

    /// A packet id.
    pub(super) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.u16()? {
            0 => self.broken(&rules::PACKET_ID),
            id => Ok(id),
        }
    }
}

/// A number at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Varint {
    /// It ends behind them.
    More,
    /// It has more than four bytes.
    TooLong,
    /// It.
    Number {
        /// Its value.
        value: u32,
        /// So many bytes it took.
        bytes: usize,
        /// It could not have been shorter.
        shortest: bool,
    },
}

pub(super) fn varint(from: &[u8]) -> Varint {
    let mut value = 0;
    for (index, byte) in from.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Varint::Number { value, bytes: index + 1, shortest: index == 0 || *byte != 0 };
        }
    }
    if from.len() < 4 { Varint::More } else { Varint::TooLong }
}
