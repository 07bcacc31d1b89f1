//! What goes over a connection.

use super::{BodyId, Msg};
use clarion_core::port::peer::SubOptions;

#[derive(Debug, Clone, Copy)]
pub(crate) enum ToServer {
    Publish {
        pid: u16,
        msg: Msg,
    },
    Pubrel(u16),
    Puback(u16),
    /// `true`: refused.
    Pubrec(u16, bool),
    Pubcomp(u16),
    Subscribe(&'static str, SubOptions),
    Unsubscribe(&'static str),
    Disconnect,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ToClient {
    Connack { present: bool, number: u64 },
    Publish { id: u16, qos: u8, dup: bool, body: BodyId },
    Pubrel(u16),
    Puback(u16),
    Pubrec(u16),
    Pubcomp(u16),
    Suback(&'static str, SubOptions),
    Unsuback,
}
