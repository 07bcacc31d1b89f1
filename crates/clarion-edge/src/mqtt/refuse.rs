//! Why a CONNECT is not accepted, in the form of the client's version.
//!
//! Invariants: 5 gets the reason code and, if there is room for it, the reason; 3.x the nearest return code. What there is no
//! CONNACK for, or what the client would not take, is closed without one (MQTT-3.1.2-24). Must not know: sockets.

use super::peer::ConnectRefusal;
use clarion_core::Refusal;
use clarion_wire::mqtt::{self, Malformed, Property, Version};
use std::borrow::Cow;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// Reason code of 5; `None` = none can be told.
    pub(super) reason: Option<u8>,
    /// For people: in a log and, in 5, in a reason string.
    pub(super) what: Cow<'static, str>,
}

impl Refused {
    pub(super) fn new(reason: u8, what: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason), what: what.into() }
    }

    /// The CONNACK; empty when there is none to send. `packet_bytes` is the largest that the client takes.
    pub(super) fn connack(&self, version: Version, packet_bytes: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(reason) = self.reason else { return out };
        let fits = |out: &Vec<u8>| out.len() <= packet_bytes as usize;
        if version == Version::V5 {
            let why = Property::ReasonString(&self.what);
            mqtt::connack(&mut out, version, false, reason, std::iter::once(why));
            if !fits(&out) {
                out.clear();
                mqtt::connack(&mut out, version, false, reason, std::iter::empty());
            }
        } else if let Some(code) = return_code(reason) {
            mqtt::connack(&mut out, version, false, code, std::iter::empty());
        }
        if !fits(&out) {
            out.clear();
        }
        out
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code.row().mqtt5, refusal.detail)
    }
}

impl From<Malformed> for Refused {
    fn from(wrong: Malformed) -> Self {
        Self::new(wrong.reason, wrong.what)
    }
}

impl From<ConnectRefusal> for Refused {
    fn from(refusal: ConnectRefusal) -> Self {
        Self { reason: refusal.code, what: refusal.what.into() }
    }
}

/// What 3.x says in place of a reason of 5; nothing of what is malformed (MQTT 3.1.1 §3.2.2.3, §4.8).
fn return_code(reason: u8) -> Option<u8> {
    match reason {
        0x81 | 0x82 | 0x90 | 0x93 | 0x95 | 0x99 => None,
        0x84 => Some(1),
        0x85 => Some(2),
        0x86 => Some(4),
        0x87 | 0x8a | 0x8c => Some(5),
        _ => Some(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clarion_core::Code;

    #[test]
    fn each_version_has_its_own_answer() {
        for (reason, of_3) in [
            (0x81, &[][..]),
            (0x84, &[0x20, 2, 0, 1]),
            (0x85, &[0x20, 2, 0, 2]),
            (0x88, &[0x20, 2, 0, 3]),
            (0x97, &[0x20, 2, 0, 3]),
            (0x86, &[0x20, 2, 0, 4]),
            (0x87, &[0x20, 2, 0, 5]),
        ] {
            let refused = Refused::new(reason, "no");
            assert_eq!(refused.connack(Version::V311, u32::MAX), of_3, "{reason:#x}");
            assert_eq!(refused.connack(Version::V31, u32::MAX), of_3, "{reason:#x}");
            let of_5 = [0x20, 8, 0, reason, 5, 0x1f, 0, 2, b'n', b'o'];
            assert_eq!(refused.connack(Version::V5, u32::MAX), of_5);
            assert_eq!(refused.connack(Version::V5, 9), [0x20, 3, 0, reason, 0]);
            assert_eq!(refused.connack(Version::V5, 4), [0; 0]);
        }
        let mute = Refused { reason: None, what: "no".into() };
        assert_eq!(mute.connack(Version::V5, u32::MAX), [0; 0]);
    }

    #[test]
    fn refusals_of_the_node_keep_their_codes() {
        for (code, reason) in [
            (Code::Overloaded, 0x97),
            (Code::StoreUnavailable, 0x88),
            (Code::ShuttingDown, 0x8b),
            (Code::BadUser, 0x85),
        ] {
            assert_eq!(Refused::from(Refusal::from(code)).reason, Some(reason));
        }
    }
}
