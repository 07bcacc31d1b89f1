//! What a connection speaks, by its first bytes.
//!
//! Invariant: as few bytes as tell it are waited for. Must not know: what comes of it.

use super::upgrade::is_for_mqtt;
use std::io::{self, ErrorKind};
use tokio::net::TcpStream;

/// Bytes that tell HTTP from MQTT at its path: the path's and the one behind it. Those of a request at `/` tell that it is one.
const LOOK_BYTES: usize = PATH.len() + 1;
const PATH: &[u8] = b"GET /mqtt";
/// Clients that drop the path ask here: the whole head tells.
const ROOT: &[u8] = b"GET / ";
/// Bytes of such a head that are read at a time.
const READ_BYTES: usize = 4 << 10;
/// The upper half of CONNECT's first byte (MQTT 5 §3.1.1). The lower one is judged with the packet: 3.1 has no use for it.
const CONNECT: u8 = 1;
/// TLS that nobody expects here (RFC 8446 §5.1); no CONNECT has QoS 3.
const TLS: u8 = 0x16;

/// How MQTT may come in on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// As it is.
    pub tcp: bool,
    /// In WebSocket frames.
    pub websocket: bool,
}

/// Verdict on first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// They do not tell yet.
    More,
    /// MQTT.
    Mqtt,
    /// A request that may become a WebSocket.
    WebSocket,
    /// Nothing of both.
    Other,
}

fn is_connect(first: u8) -> bool {
    first >> 4 == CONNECT && first != TLS
}

/// On a listener that speaks MQTT alone: every GET is an upgrade, or a mistake that deserves an answer.
pub(super) fn alone(bytes: &[u8], over: Over) -> First {
    match bytes {
        [] => First::More,
        [first, ..] if over.tcp && is_connect(*first) => First::Mqtt,
        _ if over.websocket => begins(bytes, b"GET "),
        _ => First::Other,
    }
}

/// On a listener that speaks HTTP too: what is not at `/mqtt`, nor at `/` and names MQTT, is its own, as is a head of more
/// than `head_bytes`.
fn beside_http(bytes: &[u8], over: Over, head_bytes: usize) -> First {
    match bytes {
        [] => First::More,
        [first, ..] if over.tcp && is_connect(*first) => First::Mqtt,
        _ if !over.websocket => First::Other,
        bytes if bytes.starts_with(ROOT) => match is_for_mqtt(bytes) {
            None if bytes.len() < head_bytes => First::More,
            Some(true) => First::WebSocket,
            None | Some(false) => First::Other,
        },
        bytes => match (begins(bytes, PATH), bytes.get(PATH.len())) {
            (First::WebSocket, None) => First::More,
            (First::WebSocket, Some(b' ' | b'?')) => First::WebSocket,
            (First::WebSocket, Some(_)) => First::Other,
            (first, _) => first,
        },
    }
}

/// Reads as much of a connection to such a listener as tells; `head` holds it. One that ends meanwhile is HTTP's.
pub(super) async fn look(
    stream: &TcpStream,
    over: Over,
    head_bytes: usize,
    head: &mut Vec<u8>,
) -> First {
    loop {
        match beside_http(head, over, head_bytes) {
            First::More => {}
            first => return first,
        }
        if stream.readable().await.is_err() {
            return First::Other;
        }
        match read_more(stream, head) {
            Ok(length) if length > 0 => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            _ => return First::Other,
        }
    }
}

/// The buffer is on the stack for as long as the read lasts, so that no waiting connection holds one.
fn read_more(stream: &TcpStream, head: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = [0; READ_BYTES];
    let most =
        if head.starts_with(ROOT) { READ_BYTES } else { LOOK_BYTES.saturating_sub(head.len()) };
    let length = stream.try_read(&mut bytes[..most])?;
    head.extend_from_slice(&bytes[..length]);
    Ok(length)
}

fn begins(bytes: &[u8], wanted: &[u8]) -> First {
    if bytes.starts_with(wanted) {
        First::WebSocket
    } else if wanted.starts_with(bytes) {
        First::More
    } else {
        First::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Over = Over { tcp: true, websocket: true };

    #[test]
    fn as_soon_as_it_can_be_told() {
        for (bytes, on_mqtt, on_http) in [
            (&b""[..], First::More, First::More),
            (b"\x10", First::Mqtt, First::Mqtt),
            (b"\x10\x0c", First::Mqtt, First::Mqtt),
            (b"\x21", First::Other, First::Other),
            (b"\x16\x03", First::Other, First::Other),
            (b"G", First::More, First::More),
            (b"GET", First::More, First::More),
            (b"GET ", First::WebSocket, First::More),
            (b"GET /", First::WebSocket, First::More),
            (b"GET /api", First::WebSocket, First::Other),
            (b"GET /mqtt", First::WebSocket, First::More),
            (b"GET /mqtt ", First::WebSocket, First::WebSocket),
            (b"GET /mqtt?x", First::WebSocket, First::WebSocket),
            (b"GET /mqttx", First::WebSocket, First::Other),
            (b"GETX", First::Other, First::Other),
            (b"POST /mqtt ", First::Other, First::Other),
        ] {
            let shown = bytes.escape_ascii();
            assert_eq!(alone(bytes, BOTH), on_mqtt, "{shown}");
            assert_eq!(beside_http(bytes, BOTH, 8192), on_http, "{shown}");
        }
    }

    #[test]
    fn at_the_root_the_whole_head_tells() {
        let websocket =
            b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
        let plain = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for (head, told) in [(&websocket[..], First::WebSocket), (plain, First::Other)] {
            for length in 0..head.len() {
                assert_eq!(beside_http(&head[..length], BOTH, 8192), First::More);
            }
            assert_eq!(beside_http(head, BOTH, 8192), told);
            assert_eq!(beside_http(&[head, b"GET /healthz"].concat(), BOTH, 8192), told);
            assert_eq!(beside_http(&head[..30], BOTH, 30), First::Other);
            let tcp = Over { websocket: false, ..BOTH };
            assert_eq!(beside_http(head, tcp, 8192), First::Other);
        }
        assert_eq!(beside_http(b"GET / \0", BOTH, 8192), First::Other);
    }

    #[test]
    fn what_is_switched_off_is_nothing() {
        let (tcp, websocket) =
            (Over { tcp: true, websocket: false }, Over { tcp: false, websocket: true });
        assert_eq!(alone(b"GET /mqtt ", tcp), First::Other);
        assert_eq!(beside_http(b"GET /mqtt ", tcp, 8192), First::Other);
        assert_eq!(beside_http(b"G", tcp, 8192), First::Other);
        assert_eq!(alone(b"\x10", websocket), First::Other);
        assert_eq!(beside_http(b"\x10", websocket, 8192), First::Other);
    }
}
