//! An MQTT client of plain bytes, for all three versions: it may say anything, and shows everything that it is told.
//!
//! `packet`: packets, written and read · `property` · `client`: a connection. Invariants: every read has a deadline;
//! nothing is sent that the test did not ask for (acknowledgements only by the methods that say so). Must not know: the
//! server's codec, whose mistakes would be its own.

mod client;
mod packet;
mod property;

pub use client::{Client, Connack, Options};
pub use packet::{
    Filter, Message, Packet, Version, Will, ack, connect, disconnect, frame, parse, publish,
    subscribe, unhex, unsubscribe,
};
pub use property::{Property, Value, id, number, pairs, prop, text};
