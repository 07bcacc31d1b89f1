use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

/// What comes out when the stream arrives in pieces of this size, and what is sent for it.
fn unwrap_in(pieces: usize, stream: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut socket, mut payload, mut out) = (WebSocket::default(), Vec::new(), Vec::new());
    for piece in stream.chunks(pieces) {
        let mut piece = piece.to_vec();
        let kept = socket.unwrap(&mut piece, &mut out).unwrap();
        payload.extend_from_slice(&piece[..kept]);
    }
    assert!(socket.is_open());
    (payload, out)
}

#[test]
fn the_payload_comes_out_however_the_stream_is_cut() {
    let mut stream = ANSWER.to_vec();
    stream.extend_from_slice(b"\x82\x05hello\x82\x00\x02\x01,");
    stream.extend_from_slice(b"\x89\x02hi\x80\x00\x8a\x01x\x89\x00");
    stream.extend_from_slice(&[0x82, 126, 1, 44]);
    stream.extend_from_slice(&[b'y'; 300]);
    stream.extend_from_slice(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    stream.extend_from_slice(&[b'z'; 65_536]);
    let mut pongs = Vec::new();
    put_frame(PONG, b"hi", &mut pongs);
    put_frame(PONG, b"", &mut pongs);
    let mut expected = b"hello,".to_vec();
    expected.resize(306, b'y');
    expected.resize(306 + 65_536, b'z');
    for pieces in [1, 2, 3, 7, 64, 100_000] {
        let (payload, out) = unwrap_in(pieces, &stream);
        assert!(payload == expected, "in pieces of {pieces}");
        assert_eq!(out, pongs, "in pieces of {pieces}");
    }
}

#[test]
fn what_is_wrapped_can_be_unmasked() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let bytes: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let mut out = Vec::new();
        WebSocket::default().wrap(&bytes, &mut out);
        let payload = &out[out.len() - length..];
        let unmasked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        assert!(unmasked.eq(bytes.iter().copied()), "{length}");
    }
}

#[test]
fn what_is_no_websocket_is_told() {
    let check = |stream: &[u8], expected: &str| {
        let mut stream = stream.to_vec();
        let error = WebSocket::default().unwrap(&mut stream, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(b"HTTP/1.1 404 Not Found\r\n\r\n", "no WebSocket: HTTP/1.1 404 Not Found");
    check(&[b'x'; HEAD_MAX + 1], "no end");
    check(&[ANSWER, b"\x88\x00"].concat(), "closed");
    check(&[ANSWER, b"\x82\x81"].concat(), "masks");
    check(&[ANSWER, &[0x89, 126, 1, 0]].concat(), "control frame");
}
