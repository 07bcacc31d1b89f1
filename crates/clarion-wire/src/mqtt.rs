//! MQTT 3.1, 3.1.1 and 5: packets as values, decoded from the bytes of a connection and encoded onto them.
//!
//! Owns: the wire forms and everything that the specifications say of one packet by itself. Invariants: no input panics;
//! nothing is allocated for a length that was only announced; decoded packets borrow from the input. What may follow what
//! (a second CONNECT, an id that is in use) is the session's. Must not know: sockets, sessions, the node.
//!
//! Sources: MQTT V3.1 Protocol Specification (IBM, 2010), "3.1"; OASIS MQTT 3.1.1 (2014), "3.1.1"; OASIS MQTT 5.0 (2019), "5".

mod types;

pub use types::*;
