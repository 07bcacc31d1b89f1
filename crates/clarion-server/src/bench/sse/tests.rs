use super::*;

fn scan(pieces: &[&[u8]], chunked: bool) -> Vec<String> {
    let mut scanner = Scanner::new(chunked);
    let mut events = Vec::new();
    for piece in pieces {
        scanner
            .feed(piece, &mut |event: &[u8]| {
                events.push(String::from_utf8(event.to_vec()).unwrap())
            })
            .unwrap();
    }
    events
}

#[test]
fn the_events_do_not_depend_on_the_cuts() {
    let plain = b"id: 1\ndata: a\n\n: heartbeat\n\nid: 2\ndata: b\n\ndata: cut";
    let chunked =
        b"5\r\nid: 1\r\n1a;x=y\r\n\ndata: a\n\n: heartbeat\n\nid:\r\nC\r\n 2\ndata: b\n\n\r\n";
    for (bytes, is_chunked) in [(&plain[..], false), (&chunked[..], true)] {
        for a in 0..=bytes.len() {
            for b in a..=bytes.len() {
                let events = scan(&[&bytes[..a], &bytes[a..b], &bytes[b..]], is_chunked);
                assert_eq!(
                    events,
                    ["id: 1\ndata: a", ": heartbeat", "id: 2\ndata: b"],
                    "cut at {a} and {b}"
                );
            }
        }
    }
}

#[test]
fn what_is_no_chunk_size_is_an_error() {
    assert!(Scanner::new(true).feed(b"xyz", &mut |_| ()).is_err());
    assert!(Scanner::new(true).feed(b"fffffffffffffffff", &mut |_| ()).is_err());
}

#[test]
fn ids_are_found() {
    assert_eq!(id_of(b"id: t1\ndata: a"), Some(&b"t1"[..]));
    assert_eq!(id_of(b"event: gap\nid:t2"), Some(&b"t2"[..]));
    assert_eq!(id_of(b"data: id: x"), None);
}
