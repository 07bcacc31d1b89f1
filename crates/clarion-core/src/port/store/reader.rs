//! Who keeps cursors, by a stored name.

use bytes::Bytes;
use std::{borrow::Cow, fmt};

/// A longer name of a group is told from others by its beginning and a hash.
const GROUP_BYTES_MAX: usize = 256;

/// The stored name of whoever keeps cursors. Equal bytes = the same reader.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader(Bytes);

impl Reader {
    /// A device, by the number of its record. A device that was forgotten and comes back has another number, so its
    /// old cursors are nobody's.
    pub fn device(number: u64) -> Self {
        let mut bytes = Vec::with_capacity(9);
        bytes.push(b'd');
        bytes.extend_from_slice(&number.to_be_bytes());
        Self(bytes.into())
    }

    /// A stored session of a protocol that talks both ways, by its number.
    pub fn session(number: u64) -> Self {
        let mut bytes = Vec::with_capacity(9);
        bytes.push(b's');
        bytes.extend_from_slice(&number.to_be_bytes());
        Self(bytes.into())
    }

    /// The session's number, if it is one.
    pub fn session_number(&self) -> Option<u64> {
        let number = self.0.strip_prefix(b"s")?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }

    /// A cursor that several members share, by name; `*` is the one of mode `unify`.
    pub fn shared(name: &str) -> Self {
        Self([b"g", name.as_bytes()].concat().into())
    }

    /// The cursor that members of `$share/<group>/…` share. Nobody can name one like it otherwise.
    pub fn share(group: &str) -> Self {
        Self([b"g\x01", &*name_of(group)].concat().into())
    }

    /// Whether it is one of [`Self::share`].
    pub fn is_share(&self) -> bool {
        self.0.starts_with(b"g\x01")
    }

    /// What a stored session, by its number, has been given of others' cursors and may be given again: no log is trimmed above it.
    pub fn holding(number: u64) -> Self {
        Self([&b"h"[..], &number.to_be_bytes()].concat().into())
    }

    /// The stored bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From stored bytes.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The device's number, if it is one.
    pub fn device_number(&self) -> Option<u64> {
        let number = self.0.strip_prefix(b"d")?;
        Some(u64::from_be_bytes(number.try_into().ok()?))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

fn name_of(group: &str) -> Cow<'_, [u8]> {
    if group.len() <= GROUP_BYTES_MAX {
        return group.as_bytes().into();
    }
    let hash = |basis: u64| {
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        group.bytes().fold(basis, step).to_be_bytes()
    };
    let beginning = &group.as_bytes()[..GROUP_BYTES_MAX - 16];
    [beginning, &hash(0xcbf2_9ce4_8422_2325), &hash(0x9e37_79b9_7f4a_7c15)].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_different_kinds_and_names_are_different_readers() {
        let long = |end: char| format!("{}{end}", "x".repeat(60_000));
        let (a, b) = (Reader::share(&long('a')), Reader::share(&long('b')));
        assert!(a != b && a.is_share() && a.as_bytes().len() < 300);
        assert_ne!(Reader::share("g"), Reader::shared("g"));
        assert!(!Reader::shared("g").is_share());
    }
}
