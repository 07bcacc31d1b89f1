//! Acks of what was delivered: PUBACK, PUBREC, PUBCOMP from the client, PUBREL towards it.

use super::MqttPeer;
use clarion_core::inflight::Acked;
use clarion_core::port::peer::Ask;
use clarion_wire::mqtt::{Ack, AckKind, Version};

const WRONG: &str = "this packet does not answer a message of this QoS";

impl MqttPeer {
    pub(super) fn hear_puback(&mut self, packet: &Ack<'_>, out: &mut Vec<u8>) -> Ask {
        match self.inflight.puback(packet.packet_id) {
            Acked::Freed(acked) => Ask::Freed { acked, exactly_once: false },
            // Not forbidden: it may answer something of a connection before this one.
            Acked::Unknown | Acked::Release | Acked::Received => Ask::Nothing,
            Acked::Wrong => self.fail(0x82, WRONG, out),
        }
    }

    pub(super) fn hear_pubrec(&mut self, packet: &Ack<'_>, out: &mut Vec<u8>) -> Ask {
        let refused = packet.reason >= 0x80;
        match self.inflight.pubrec(packet.packet_id, refused, self.stored) {
            Acked::Freed(acked) => Ask::Freed { acked, exactly_once: true },
            Acked::Release => {
                self.ack(AckKind::Pubrel, packet.packet_id, 0, None, out);
                Ask::Nothing
            }
            Acked::Received => Ask::Received { number: packet.packet_id },
            Acked::Unknown if refused => Ask::Nothing,
            // So that the client can forget it, too.
            Acked::Unknown => {
                let code = if self.version == Version::V5 { 0x92 } else { 0 };
                self.ack(AckKind::Pubrel, packet.packet_id, code, None, out);
                Ask::Nothing
            }
            Acked::Wrong => self.fail(0x82, WRONG, out),
        }
    }

    pub(super) fn hear_pubcomp(&mut self, packet: &Ack<'_>, out: &mut Vec<u8>) -> Ask {
        match self.inflight.pubcomp(packet.packet_id) {
            Acked::Freed(acked) => Ask::Freed { acked, exactly_once: true },
            Acked::Unknown | Acked::Release | Acked::Received => Ask::Nothing,
            Acked::Wrong => self.fail(0x82, WRONG, out),
        }
    }
}
