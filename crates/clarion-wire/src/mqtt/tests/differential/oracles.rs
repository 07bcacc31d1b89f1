//! Other codecs, asked what a packet is. What they take they are made to write again, so that it can be compared by
//! what this crate reads of it.

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::Arc;
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

/// What an oracle makes of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It waits for more.
    More,
    /// It refuses them, saying so.
    Refused(String),
    /// It takes a packet and writes it thus.
    Taken(Vec<u8>),
}

/// The crate rmqtt-codec. It writes a CONNECT of 3.1 with the level of 3.1.1.
pub(super) fn rmqtt(bytes: &[u8], five: bool) -> Verdict {
    if five {
        return with(&mut v5::Codec::new(0, 0), bytes);
    }
    let mut verdict = with(&mut v3::Codec::new(0), bytes);
    if let Verdict::Taken(again) = &mut verdict
        && let Some(at) = again.windows(7).position(|window| window == b"MQIsdp\x04")
        && again.first() == Some(&0x10)
    {
        again[at + 6] = 3;
    }
    verdict
}

fn with<C, P>(codec: &mut C, bytes: &[u8]) -> Verdict
where
    C: Decoder<Item = (P, u32)> + Encoder<P>,
    <C as Decoder>::Error: std::fmt::Debug,
    <C as Encoder<P>>::Error: std::fmt::Debug,
{
    let mut input = BytesMut::from(bytes);
    match codec.decode(&mut input) {
        Ok(None) => Verdict::More,
        Ok(Some((packet, _))) => {
            let mut again = BytesMut::new();
            match codec.encode(packet, &mut again) {
                Ok(()) => Verdict::Taken(again.to_vec()),
                Err(why) => Verdict::Refused(format!("encode: {why:?}")),
            }
        }
        Err(why) => Verdict::Refused(format!("{why:?}")),
    }
}

/// The crate mqtt-protocol-core, whose functions take the body of a packet.
pub(super) fn core(first: u8, body: &[u8], five: bool) -> Verdict {
    macro_rules! by_kind {
        ($version:ident, $($kind:literal => $packet:ident),*) => {
            match first >> 4 {
                $($kind => taken($version::$packet::parse(body), body, |packet| packet.to_continuous_buffer()),)*
                3 => taken(
                    $version::Publish::parse(first & 15, Arc::from(body)), body,
                    |packet| packet.to_continuous_buffer(),
                ),
                _ => Verdict::Refused("no such packet".to_owned()),
            }
        };
    }
    if five {
        by_kind!(v5_0, 1 => Connect, 2 => Connack, 4 => Puback, 5 => Pubrec, 6 => Pubrel,
            7 => Pubcomp, 8 => Subscribe, 9 => Suback, 10 => Unsubscribe, 11 => Unsuback,
            12 => Pingreq, 13 => Pingresp, 14 => Disconnect, 15 => Auth)
    } else {
        by_kind!(v3_1_1, 1 => Connect, 2 => Connack, 4 => Puback, 5 => Pubrec, 6 => Pubrel,
            7 => Pubcomp, 8 => Subscribe, 9 => Suback, 10 => Unsubscribe, 11 => Unsuback,
            12 => Pingreq, 13 => Pingresp, 14 => Disconnect)
    }
}

fn taken<P, E: std::fmt::Debug>(
    parsed: Result<(P, usize), E>,
    body: &[u8],
    write: impl FnOnce(&P) -> Vec<u8>,
) -> Verdict {
    match parsed {
        Ok((packet, consumed)) if consumed == body.len() => Verdict::Taken(write(&packet)),
        Ok(_) => Verdict::Refused("bytes are left".to_owned()),
        Err(why) => Verdict::Refused(format!("{why:?}")),
    }
}
