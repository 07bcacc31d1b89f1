use super::*;
use proptest::prelude::*;

fn header() -> Header {
    Header {
        created_at: 1_790_000_000_000,
        bytes: 900,
        weight: 300,
        counted: 2,
        expires_at: Some(7),
    }
}

fn full() -> Content {
    Content {
        payload: Bytes::from_static(b"\0\xff body"),
        json: true,
        utf8: true,
        retain: true,
        qos: 2,
        counted: true,
        content_type: Some("text/plain".into()),
        kind: Some("".into()),
        sender: Some(Sender { user: "u".into(), device: Some("d".into()) }),
        headers: vec![("a".into(), "1".into()), ("a".into(), "".into())],
        reply_to: Some("r".into()),
        correlation: Some(Bytes::from_static(b"\0")),
        expires_at: Some(7),
        idempotency_key: Some("k".into()),
        ..Content::default()
    }
}

fn unpacked(bytes: &[u8]) -> Option<Content> {
    match record(bytes)?.1 {
        Body::Full(packed) => packed.unpack(),
        Body::Copy(copied) => copied.packed.unpack(),
        Body::Reference(..) | Body::Erased => None,
    }
}

#[test]
fn records_come_back_as_they_were() {
    for content in [full(), Content::default()] {
        let header = Header { expires_at: content.expires_at, ..header() };
        let mut out = Vec::new();
        put_message(&mut out, &header, &content);
        assert_eq!(record(&out).unwrap().0, header);
        assert_eq!(unpacked(&out), Some(content.clone()));
        out.clear();
        put_copy(&mut out, &header, (7, 8, "topic:t"), &content);
        let (found, Body::Copy(copied)) = record(&out).unwrap() else { panic!("no copy") };
        assert_eq!((found, copied.number, copied.seq), (header, 7, 8));
        assert_eq!((copied.address, copied.packed.unpack()), ("topic:t", Some(content)));
    }
    let mut out = Vec::new();
    put_reference(&mut out, &header(), 7, 8);
    assert_eq!(record(&out).unwrap().1, Body::Reference(7, 8));
    out.clear();
    put_erased(&mut out, &header());
    assert_eq!(record(&out), Some((header(), Body::Erased)));
}

#[test]
fn channel_records_cursors_and_claims_come_back_as_they_were() {
    let channel = ChannelRecord {
        base_epoch: u32::MAX,
        floor: 1,
        floor_bytes: 2,
        last: 3,
        bytes: u64::MAX,
        counted: 5,
        last_at: 6,
        age_ms: 7,
        count: 8,
        due: 9,
    };
    let mut out = Vec::new();
    channel.put(&mut out);
    assert_eq!(ChannelRecord::take(&out), Some(channel));
    let mut stored = StoredCursor {
        channel: Address::all(),
        reader: Reader::device(3),
        epoch: 4,
        cursor: Cursor::at(9),
        updated_at: 5,
        marks: vec![(1, 2), (3, 4)],
    };
    stored.cursor.ack(11);
    out.clear();
    put_cursor(&mut out, &stored);
    assert_eq!(cursor(&out, Address::all(), Reader::device(3)), Some(stored));
    let claim = Claim { fence: 3, until: 4, owner: Bytes::from_static(b"o") };
    out.clear();
    claim.put(&mut out);
    assert_eq!(Claim::take(&out), Some(claim));
    let remembered = Remembered { epoch: 1, seq: 2, created_at: 3 };
    out.clear();
    remembered.put(&mut out);
    assert_eq!(Remembered::take(&out), Some(remembered));
}

proptest! {
    #[test]
    fn damage_is_no_panic(at in 0usize..64, byte: u8, cut in 0usize..64) {
        let mut out = Vec::new();
        put_message(&mut out, &header(), &full());
        let at = at % out.len();
        out[at] = byte;
        out.truncate(out.len() - cut % out.len());
        let _ = unpacked(&out);
        out.clear();
        put_copy(&mut out, &header(), (7, 8, "topic:t"), &full());
        let at = at % out.len();
        out[at] = byte;
        out.truncate(out.len() - cut % out.len());
        let _ = unpacked(&out);
        let _ = cursor(&out, Address::all(), Reader::device(1));
        let _ = ChannelRecord::take(&out);
    }
}
