//! Frames as a client of another kind sends and reads them, and those that no client may send.

use super::*;
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Bytes, Message};

const MAX: u64 = 1 << 20;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_frame(&mut bytes, first & OPCODE, body);
    bytes[0] = first;
    let head = bytes.len() - body.len();
    bytes[1] |= MASKED;
    let mut out = bytes[..head].to_vec();
    out.extend_from_slice(&MASK);
    unmask(body, MASK, &mut out);
    out
}

fn binary(body: &[u8]) -> Vec<u8> {
    frame(FIN | BINARY, body)
}

/// What comes of these bytes: plain ones, answers, how it went on.
fn open(parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Result<Opened, LayerError>) {
    let mut socket = WebSocket::new(MAX);
    let (mut plain, mut answers, mut last) = (Vec::new(), Vec::new(), Ok(Opened::More));
    for part in parts {
        last = socket.open(part, &mut plain, &mut answers);
        if last.is_err() {
            break;
        }
    }
    (plain, answers, last)
}

/// The code of the only close frame of an answer.
fn close_code(answer: &[u8]) -> u16 {
    assert_eq!(answer[0], FIN | CLOSE, "{answer:x?}");
    assert_eq!(answer.len(), 2 + usize::from(answer[1]));
    u16::from_be_bytes([answer[2], answer[3]])
}

#[test]
fn the_specifications_examples() {
    // RFC 6455 §5.7, with the binary opcode in place of text.
    let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(open(&[&hello]), (b"Hello".to_vec(), vec![], Ok(Opened::More)));
    let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let pong = [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f];
    assert_eq!(open(&[&ping]), (vec![], pong.to_vec(), Ok(Opened::More)));
    let sealed = |length| {
        let mut out = Vec::new();
        WebSocket::new(MAX).seal(&vec![1; length], &mut out).unwrap();
        out[..out.len() - length].to_vec()
    };
    assert_eq!(sealed(5), [0x82, 5]);
    assert_eq!(sealed(125), [0x82, 125]);
    assert_eq!(sealed(126), [0x82, 126, 0, 126]);
    assert_eq!(sealed(256), [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(sealed(65_536), [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(sealed(0), [0; 0], "nothing is no frame");
}

#[test]
fn a_partial_frame_is_passed_on_as_it_comes() {
    let bytes = binary(&[7; 1000]);
    let mut socket = WebSocket::new(MAX);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    for (index, byte) in bytes.iter().enumerate() {
        assert_eq!(socket.open(&[*byte], &mut plain, &mut out), Ok(Opened::More));
        assert_eq!(plain.len(), (index + 1).saturating_sub(8));
    }
    assert!(out.is_empty() && plain == [7; 1000]);
}

#[test]
fn fragments_and_control_frames_between_them() {
    let bytes = [
        frame(BINARY, b"ab"),
        frame(FIN | PING, b"?"),
        frame(CONTINUATION, b""),
        frame(FIN | PONG, b"unasked"),
        frame(FIN | CONTINUATION, b"c"),
        binary(b""),
        binary(b"d"),
    ]
    .concat();
    let pong = [FIN | PONG, 1, b'?'];
    assert_eq!(open(&[&bytes]), (b"abcd".to_vec(), pong.to_vec(), Ok(Opened::More)));
}

#[test]
fn what_is_wrong_is_answered_by_its_code() {
    let unmasked = {
        let mut out = Vec::new();
        push_frame(&mut out, BINARY, b"x");
        out
    };
    let head = |second: u8, lengths: &[u8]| [&[FIN | BINARY, MASKED | second], lengths].concat();
    let mask = [0; 4];
    let long = |length: u64| [head(127, &length.to_be_bytes()), mask.to_vec()].concat();
    for (what, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("RSV1", frame(FIN | 0x40 | BINARY, b"x"), 1002),
        ("RSV3", frame(FIN | 0x10 | BINARY, b"x"), 1002),
        ("text", frame(FIN | TEXT, b"x"), 1003),
        ("opcode 3", frame(FIN | 3, b"x"), 1002),
        ("opcode 11", frame(FIN | 11, b"x"), 1002),
        ("nothing to continue", frame(FIN | CONTINUATION, b"x"), 1002),
        ("within a message", [frame(BINARY, b"x"), binary(b"y")].concat(), 1002),
        ("text within a message", [frame(BINARY, b"x"), frame(TEXT, b"y")].concat(), 1002),
        ("fragmented ping", frame(PING, b"x"), 1002),
        ("fragmented close", frame(CLOSE, b""), 1002),
        ("long ping", frame(FIN | PING, &[0; 126]), 1002),
        ("125 in two bytes", [head(126, &[0, 125]), mask.to_vec()].concat(), 1002),
        ("65535 in eight bytes", long(65_535), 1002),
        ("negative", long(1 << 63), 1002),
        ("too long", long(MAX + 1), 1009),
        ("longest", long((1 << 63) - 1), 1009),
        (
            "too long together",
            [frame(BINARY, &[0; 9]), {
                let mut rest = long(MAX - 8);
                rest[0] = FIN | CONTINUATION;
                rest
            }]
            .concat(),
            1009,
        ),
        ("half a close code", frame(FIN | CLOSE, &[3]), 1002),
        ("close code 999", frame(FIN | CLOSE, &999u16.to_be_bytes()), 1002),
        ("close code 1005", frame(FIN | CLOSE, &1005u16.to_be_bytes()), 1002),
        ("close code 1015", frame(FIN | CLOSE, &1015u16.to_be_bytes()), 1002),
        ("close code 5000", frame(FIN | CLOSE, &5000u16.to_be_bytes()), 1002),
        ("close text", frame(FIN | CLOSE, &[3, 232, 0xff]), 1007),
    ] {
        let (_, answer, result) = open(&[&bytes]);
        assert!(result.is_err(), "{what}");
        assert_eq!(close_code(&answer), code, "{what}");
        // Byte by byte the same comes of it.
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let (_, answer, result) = open(&single);
        assert!(result.is_err(), "{what}");
        assert_eq!(close_code(&answer), code, "{what}");
    }
}

#[test]
fn what_follows_a_violation_is_not_read() {
    let mut socket = WebSocket::new(MAX);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let bytes = [binary(b"good"), frame(FIN | TEXT, b"x"), binary(b"late")].concat();
    assert!(socket.open(&bytes, &mut plain, &mut out).is_err());
    assert_eq!((plain.as_slice(), close_code(&out)), (&b"good"[..], 1003));
    assert_eq!(socket.open(&binary(b"late"), &mut plain, &mut out), Ok(Opened::End));
    let before = out.len();
    socket.seal(b"x", &mut out).unwrap();
    socket.close(&mut out);
    assert_eq!((plain.as_slice(), out.len()), (&b"good"[..], before));
}

#[test]
fn the_peers_close_is_echoed_once() {
    let close = frame(FIN | CLOSE, &[0x0f, 0xa0, b'b', b'y', b'e']);
    let bytes = [binary(b"x"), close, binary(b"y")].concat();
    let (plain, answer, result) = open(&[&bytes]);
    assert_eq!(
        (plain, answer, result),
        (b"x".to_vec(), vec![0x88, 2, 0x0f, 0xa0], Ok(Opened::End))
    );
    let empty = open(&[&frame(FIN | CLOSE, b"")]);
    assert_eq!(empty, (vec![], vec![0x88, 0], Ok(Opened::End)));
}

#[test]
fn after_the_servers_close_only_the_peers_is_waited_for() {
    let mut socket = WebSocket::new(MAX);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    socket.close(&mut out);
    socket.close(&mut out);
    assert_eq!(out, [0x88, 2, 0x03, 0xe8]);
    out.clear();
    let bytes = [binary(b"x"), frame(FIN | PING, b"x")].concat();
    assert_eq!(socket.open(&bytes, &mut plain, &mut out), Ok(Opened::More));
    let close = frame(FIN | CLOSE, &1000u16.to_be_bytes());
    assert_eq!(socket.open(&close, &mut plain, &mut out), Ok(Opened::End));
    assert!(plain.is_empty() && out.is_empty());
}

#[test]
fn nothing_is_kept_between_frames() {
    let mut socket = WebSocket::new(MAX);
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    let bytes = [frame(FIN | PING, &[0; 125]), binary(&[0; 5000])].concat();
    socket.open(&bytes, &mut plain, &mut out).unwrap();
    assert_eq!(socket.control.capacity(), 0);
    assert!(size_of::<WebSocket>() <= 96, "{}", size_of::<WebSocket>());
}

proptest! {
    #[test]
    fn however_it_is_cut_the_same_comes_of_it(
        frames in prop::collection::vec((0u8..5, prop::collection::vec(any::<u8>(), 0..300)), 0..12),
        cuts in prop::collection::vec(1usize..700, 1..30),
    ) {
        let (mut raw, mut expected, mut pongs, mut within) = (vec![], vec![], vec![], false);
        for (kind, body) in &frames {
            let opcode = if within { CONTINUATION } else { BINARY };
            match kind {
                0 => {
                    let body = &body[..body.len().min(SHORT_MAX)];
                    raw.extend(frame(FIN | PING, body));
                    push_frame(&mut pongs, PONG, body);
                    continue;
                }
                1 | 2 => raw.extend(frame(opcode, body)),
                _ => raw.extend(frame(FIN | opcode, body)),
            }
            within = *kind <= 2;
            expected.extend_from_slice(body);
        }
        let (mut socket, mut plain, mut out) = (WebSocket::new(MAX), vec![], vec![]);
        let (mut rest, mut cuts) = (raw.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            prop_assert_eq!(socket.open(now, &mut plain, &mut out), Ok(Opened::More));
            rest = later;
        }
        prop_assert_eq!(plain, expected);
        prop_assert_eq!(out, pongs);
    }

    #[test]
    fn no_bytes_panic_and_answers_are_bounded(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        start in prop::sample::select(vec![0x82u8, 0x02, 0x80, 0x89, 0x88, 0x81]),
    ) {
        let (mut socket, mut plain, mut out) = (WebSocket::new(MAX), vec![], vec![]);
        let bytes = [&[start][..], &bytes].concat();
        let _ = socket.open(&bytes, &mut plain, &mut out);
        prop_assert!(plain.len() <= bytes.len() && out.len() <= bytes.len() + 2 + SHORT_MAX);
    }
}

/// Both ends in memory: what a client that others wrote writes is opened, what the server seals is read by it.
struct Ends {
    server: WebSocket,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl Read for Ends {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.out.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.out.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.out[..taken]);
        self.out.drain(..taken);
        Ok(taken)
    }
}

impl Write for Ends {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.server.open(bytes, &mut self.plain, &mut self.out).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn with_a_client_that_others_wrote() {
    let ends = Ends { server: WebSocket::new(MAX), plain: vec![], out: vec![] };
    let mut client = tungstenite::WebSocket::from_raw_socket(ends, Role::Client, None);
    let mut sent = Vec::new();
    for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
        let body: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        sent.extend_from_slice(&body);
        client.send(Message::Binary(body.clone().into())).unwrap();
        let ends = client.get_mut();
        ends.server.seal(&body, &mut ends.out).unwrap();
        if length > 0 {
            assert_eq!(client.read().unwrap(), Message::Binary(body.into()));
        }
    }
    client.send(Message::Ping(Bytes::from_static(b"are you there"))).unwrap();
    assert_eq!(client.read().unwrap(), Message::Pong(Bytes::from_static(b"are you there")));
    assert_eq!(client.get_ref().plain, sent);
    let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    client.close(Some(frame)).unwrap();
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close frame") };
    assert_eq!(frame.code, CloseCode::Normal);
}

#[test]
fn a_client_that_others_wrote_reads_why_it_was_closed() {
    let ends = Ends { server: WebSocket::new(MAX), plain: vec![], out: vec![] };
    let mut client = tungstenite::WebSocket::from_raw_socket(ends, Role::Client, None);
    client.send(Message::text("no")).unwrap_err();
    let Message::Close(Some(frame)) = client.read().unwrap() else { panic!("no close frame") };
    assert_eq!(frame.code, CloseCode::Unsupported);
    assert_eq!(frame.reason.as_str(), "only binary WebSocket messages are taken");
}
