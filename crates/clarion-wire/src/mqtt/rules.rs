//! Why packets are refused: each rule with the reason code of 5 and the statements of both OASIS specifications.
//!
//! Reason codes: 0x81 is for what cannot be parsed and wherever 5 says *malformed*, 0x82 wherever it says *protocol error*
//! and for what is well-formed but must not be there. 3.1 has no numbered statements and no reason codes: it is refused by
//! the statement of 3.1.1. Must not know: when a rule applies.

use super::{Malformed, Version};

/// A rule that a packet broke.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rule {
    reason: u8,
    what: &'static str,
    five: &'static str,
    older: &'static str,
}

impl Rule {
    /// The refusal of a packet of this version.
    #[cold]
    pub(super) const fn broken(&self, version: Version) -> Malformed {
        let statement = match version {
            Version::V5 => self.five,
            Version::V31 | Version::V311 => self.older,
        };
        Malformed { reason: self.reason, what: self.what, statement }
    }
}

macro_rules! rules {
    ($($name:ident: $reason:literal, $what:literal, $five:literal, $older:literal;)*) => {
        $(pub(super) const $name: Rule =
            Rule { reason: $reason, what: $what, five: $five, older: $older };)*
        /// All of them, so that tests can tell that each is tried.
        #[cfg(test)]
        pub(super) const ALL: &[(&str, Rule)] = &[$((stringify!($name), $name)),*];
    };
}

rules! {
    // Any packet.
    SHORT: 0x81, "the packet ends within a field", "MQTT-4.13.1-1", "MQTT-4.8.0-1";
    TRAILING: 0x81, "bytes behind the last field", "MQTT-4.13.1-1", "MQTT-4.8.0-1";
    LENGTH: 0x81, "the remaining length has more than four bytes", "MQTT-1.5.5-1", "MQTT-4.8.0-1";
    LENGTH_LONG: 0x81, "a length has more bytes than it needs", "MQTT-1.5.5-1", "MQTT-4.8.0-1";
    NUMBER: 0x81, "a variable byte integer has more than four bytes", "MQTT-1.5.5-1", "MQTT-4.8.0-1";
    TOO_LARGE: 0x95, "the packet is larger than this side takes", "MQTT-3.2.2-15", "MQTT-4.8.0-1";
    FLAGS: 0x81, "reserved flags of the first byte", "MQTT-2.1.3-1", "MQTT-2.2.2-2";
    KIND: 0x82, "there is no such packet, or not from this side", "2.1.2", "2.2.1";
    NOT_CONNECT: 0x82, "the first packet is a CONNECT", "MQTT-3.1.0-1", "MQTT-3.1.0-1";
    SECOND_CONNECT: 0x82, "a second CONNECT", "MQTT-3.1.0-2", "MQTT-3.1.0-2";
    PACKET_ID: 0x82, "packet id 0", "MQTT-2.2.1-3", "MQTT-2.3.1-1";
    REASON: 0x82, "a reason code that this packet does not have", "2.4", "2.4";

    // Strings and topics.
    UTF8: 0x81, "a string that is not UTF-8", "MQTT-1.5.4-1", "MQTT-1.5.3-1";
    NUL: 0x81, "U+0000 in a string", "MQTT-1.5.4-2", "MQTT-1.5.3-2";
    CONTROL: 0x81, "a control character or non-character in a string", "1.5.4", "1.5.3";
    TOPIC_EMPTY: 0x81, "an empty topic", "MQTT-4.7.3-1", "MQTT-4.7.3-1";
    TOPIC_WILDCARD: 0x81, "a wildcard in a topic to publish to", "MQTT-3.3.2-2", "MQTT-3.3.2-2";
    FILTER_HASH: 0x81, "'#' that is not alone in the last level", "MQTT-4.7.1-1", "MQTT-4.7.1-2";
    FILTER_PLUS: 0x81, "'+' that is not alone in its level", "MQTT-4.7.1-2", "MQTT-4.7.1-3";
    FILTER_SHARE: 0x82, "a malformed $share filter", "MQTT-4.8.2-2", "4.7.2";

    // CONNECT.
    PROTOCOL_NAME: 0x84, "an unknown protocol name", "MQTT-3.1.2-1", "MQTT-3.1.2-1";
    PROTOCOL_LEVEL: 0x84, "an unknown protocol level", "MQTT-3.1.2-2", "MQTT-3.1.2-2";
    CONNECT_RESERVED: 0x81, "the reserved connect flag", "MQTT-3.1.2-3", "MQTT-3.1.2-3";
    WILL_QOS: 0x81, "will QoS 3", "MQTT-3.1.2-12", "MQTT-3.1.2-14";
    WILL_QOS_UNSET: 0x81, "a will QoS without a will", "MQTT-3.1.2-11", "MQTT-3.1.2-13";
    WILL_RETAIN_UNSET: 0x81, "will retain without a will", "MQTT-3.1.2-13", "MQTT-3.1.2-15";
    PASSWORD_ALONE: 0x81, "a password without a user name", "MQTT-3.1.2-19", "MQTT-3.1.2-22";
    CLIENT_ID_EMPTY: 0x85, "an empty client id", "MQTT-3.1.3-8", "MQTT-3.1.3-8";

    // CONNACK.
    CONNACK_FLAGS: 0x81, "reserved CONNACK flags", "MQTT-3.2.2-1", "3.2.2.1";
    SESSION_PRESENT: 0x82, "a session is present though the connection is refused", "MQTT-3.2.2-6", "MQTT-3.2.2-4";
    RETURN_CODE: 0x82, "an unknown return code", "MQTT-3.2.2-8", "3.2.2.3";

    // PUBLISH.
    QOS: 0x81, "QoS 3", "MQTT-3.3.1-4", "MQTT-3.3.1-4";
    DUP: 0x81, "DUP with QoS 0", "MQTT-3.3.1-2", "MQTT-3.3.1-2";
    NO_TOPIC: 0x82, "neither a topic nor a topic alias", "3.3.2.1", "MQTT-4.7.3-1";

    // SUBSCRIBE, UNSUBSCRIBE and their answers.
    NO_FILTERS: 0x82, "no topic filter", "MQTT-3.8.3-2", "MQTT-3.8.3-3";
    NO_FILTERS_LEFT: 0x82, "no topic filter to unsubscribe", "MQTT-3.10.3-2", "MQTT-3.10.3-2";
    OPTIONS: 0x81, "reserved bits of the subscription options", "MQTT-3.8.3-5", "MQTT-3-8.3-4";
    OPTIONS_QOS: 0x82, "maximum QoS 3", "3.8.3.1", "MQTT-3-8.3-4";
    RETAIN_HANDLING: 0x82, "retain handling 3", "3.8.3.1", "MQTT-3-8.3-4";
    SHARED_NO_LOCAL: 0x82, "No Local with a shared subscription", "MQTT-3.8.3-4", "4.7.2";
    NO_CODES: 0x81, "no reason code", "MQTT-3.8.4-6", "MQTT-3.8.4-5";
    SUBACK_CODE: 0x82, "an unknown return code", "MQTT-3.9.3-2", "MQTT-3.9.3-2";

    // Properties, of 5 alone.
    PROPERTY_UNKNOWN: 0x81, "an unknown property", "2.2.2.2", "2.2.2.2";
    PROPERTY_PLACE: 0x81, "a property that this packet does not have", "2.2.2.2", "2.2.2.2";
    PROPERTY_TWICE: 0x82, "a property twice", "2.2.2.2", "2.2.2.2";
    PROPERTY_LENGTH: 0x81, "properties longer than the packet", "2.2.2.1", "2.2.2.1";
    PROPERTY_BOOL: 0x82, "a property that is neither 0 nor 1", "2.2.2.2", "2.2.2.2";
    RECEIVE_MAXIMUM: 0x82, "receive maximum 0", "3.1.2.11.3", "3.1.2.11.3";
    MAXIMUM_PACKET: 0x82, "maximum packet size 0", "3.1.2.11.4", "3.1.2.11.4";
    TOPIC_ALIAS: 0x94, "topic alias 0", "MQTT-3.3.2-8", "MQTT-3.3.2-8";
    SUBSCRIPTION_ID: 0x82, "subscription identifier 0", "3.8.2.1.2", "3.8.2.1.2";
    SUBSCRIPTION_ID_CLIENT: 0x82, "a subscription identifier in a client's PUBLISH", "MQTT-3.3.4-6", "MQTT-3.3.4-6";
    RESPONSE_TOPIC: 0x82, "a response topic that is no topic to publish to", "MQTT-3.3.2-14", "MQTT-3.3.2-14";
    AUTH_DATA_ALONE: 0x82, "authentication data without a method", "3.1.2.11.10", "3.1.2.11.10";
    AUTH_METHOD: 0x82, "AUTH without an authentication method", "3.15.2.2.2", "3.15.2.2.2";
    EXPIRY_FROM_SERVER: 0x82, "a session expiry in a server's DISCONNECT", "MQTT-3.14.2-2", "MQTT-3.14.2-2";
}
