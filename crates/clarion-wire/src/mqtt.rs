//! MQTT 3.1, 3.1.1 and 5: packets as values, decoded from the bytes of a connection and encoded onto them.
//!
//! Owns: the wire forms and everything that the specifications say of one packet by itself. Invariants: no input panics;
//! nothing is allocated for a length that was only announced, or at all to decode; decoded packets borrow from the input;
//! what the header alone shows to be wrong is told before the rest has come. What may follow what (a second use of an id
//! that is taken, more than the receive maximum) is the session's. Must not know: sockets, sessions, the node.
//!
//! Sources: MQTT V3.1 Protocol Specification (IBM, 2010), "3.1"; OASIS MQTT 3.1.1 (2014), "3.1.1"; OASIS MQTT 5.0 (2019), "5".

mod decode;
mod encode;
mod property;
mod read;
mod rules;
mod types;

pub use decode::{connect_version, decode, decode_connect};
pub use encode::{
    AckKind, PublishHead, ack, auth, connack, connect, disconnect, pingreq, pingresp, publish_head,
    suback, subscribe, unsuback, unsubscribe,
};
pub use property::Property;
pub use types::*;

/// No packet of the protocol is longer: five bytes of header and what four bytes of length can say.
pub const PACKET_BYTES_LIMIT: usize = 5 + LENGTH_LIMIT;

/// The largest remaining length.
const LENGTH_LIMIT: usize = 268_435_455;

#[cfg(test)]
mod tests;
