//! Round trips, damage, keys.

use super::*;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = Box<str>> {
    "[a-zä/+#]{1,12}".prop_map(Into::into)
}

fn options() -> impl Strategy<Value = SubOptions> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0..3_u8, flags, any::<u32>()).prop_map(|(qos, (no_local, retain_as_published, check), id)| {
        SubOptions { qos, no_local, retain_as_published, check, id }
    })
}

fn sub() -> impl Strategy<Value = StoredSub> {
    let tail = (any::<u64>(), any::<u32>(), any::<u64>(), any::<bool>());
    let tail = tail.prop_map(|(at, epoch, until, all)| Tail { at, epoch, until, all });
    let ranks = prop::collection::vec(any::<(u64, u8)>(), 0..4);
    let rest = (any::<u64>(), ranks, prop::option::of(tail));
    (text(), prop::option::of(text()), options(), rest).prop_map(
        |(filter, share, options, (since, ranks, tail))| StoredSub {
            filter,
            share,
            options,
            since,
            ranks,
            tail,
        },
    )
}

fn window() -> impl Strategy<Value = WindowRecord> {
    let logs = prop::collection::vec(text(), 1..4);
    let out = (1..=u16::MAX, 0..3_u8, any::<(prop::sample::Index, u32, u64)>());
    let outs = prop::collection::btree_map(out.clone().prop_map(|o| o.0), out, 0..6);
    (logs, outs).prop_map(|(logs, outs)| {
        let out = |(number, (_, state, (log, epoch, seq))): (
            u16,
            (_, u8, (prop::sample::Index, _, _)),
        )| {
            let state = [OutState::AtLeastOnce, OutState::ExactlyOnce, OutState::Released]
                [usize::from(state)];
            Out { number, state, place: Place { log: log.index(logs.len()) as u32, epoch, seq } }
        };
        let outs = outs.into_iter().map(out).collect();
        WindowRecord { logs, outs }
    })
}

fn decode_all(bytes: &[u8]) {
    SessionRecord::decode(bytes);
    decode_chunk(bytes);
    WindowRecord::decode(bytes);
    OwedRecord::decode(bytes);
    InboundRecord::decode(bytes);
}

proptest! {
    #[test]
    fn what_is_written_comes_back(
        names in (prop::option::of(text()), prop::option::of(text())),
        numbers in any::<(u64, u32, u64, Option<u64>, Option<u64>)>(),
        subs in prop::collection::vec((0..64_u8, sub()), 0..5),
        window in window(),
        owed in prop::collection::vec((text(), options(), any::<Option<Vec<u8>>>()), 0..4),
    ) {
        let (number, expiry_s, created_at, ended_at, settled) = numbers;
        let session = SessionRecord { number, owner: names.0, user: names.1, expiry_s, created_at, ended_at, settled };
        prop_assert_eq!(SessionRecord::decode(&session.encode()), Some(session));
        let stored: Vec<_> = subs.iter().map(|(place, sub)| (*place, sub)).collect();
        prop_assert_eq!(decode_chunk(&encode_chunk(&stored)), Some(subs.clone()));
        prop_assert_eq!(WindowRecord::decode(&window.encode()), Some(window.clone()));
        let owed = OwedRecord { filters: owed };
        prop_assert_eq!(OwedRecord::decode(&owed.encode()), Some(owed));
        let inbound = InboundRecord { key: number, at: created_at };
        prop_assert_eq!(InboundRecord::decode(&inbound.encode()), Some(inbound));
        let (chunk, window) = (encode_chunk(&stored), window.encode());
        prop_assert!((0..chunk.len()).all(|end| decode_chunk(&chunk[..end]).is_none()));
        prop_assert!((0..window.len()).all(|end| WindowRecord::decode(&window[..end]).is_none()));
        let later = [&[VERSION + 1], &chunk[1..]].concat();
        prop_assert_eq!(decode_chunk(&later), None);
    }

    #[test]
    fn damage_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        decode_all(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        decode_all(&bytes);
    }
}

#[test]
fn a_count_that_lies_allocates_nothing() {
    let mut bytes = vec![VERSION];
    put_varint(&mut bytes, u64::MAX >> 1);
    decode_all(&bytes);
}

#[test]
fn a_window_refers_to_its_own_logs_and_names_a_number_once() {
    let place = Place { log: 1, epoch: 1, seq: 1 };
    let out = Out { number: 7, state: OutState::AtLeastOnce, place };
    let window = WindowRecord { logs: vec!["topic:a".into()], outs: vec![out] };
    assert_eq!(WindowRecord::decode(&window.encode()), None);
    let out = Out { place: Place { log: 0, ..place }, ..out };
    let window = WindowRecord { logs: window.logs, outs: vec![out, out] };
    assert_eq!(WindowRecord::decode(&window.encode()), None);
}

#[test]
fn keys_say_what_they_are_of() {
    let key = session_key("ä/b").unwrap();
    assert_eq!(parse_session_key(&key), Some("ä/b"));
    assert_eq!(parse_will_key(&will_key("x").unwrap()), Some("x"));
    assert_eq!((session_key(""), session_key(&"x".repeat(901))), (None, None));
    assert!(session_key(&"x".repeat(900)).is_some());
    assert_eq!(parse_chunk_key(&chunk_key(7, 300)), Some((7, 300)));
    assert!(
        chunk_key(7, 2) < chunk_key(7, 300) && chunk_key(7, 300).starts_with(&chunks_prefix(7))
    );
    assert_eq!(parse_inbound_key(&inbound_key(7, 65_535)), Some((7, 65_535)));
    assert!(inbound_key(7, 1).starts_with(&inbounds_prefix(7)));
    assert_eq!(parse_gone_key(&gone_key(u64::MAX)), Some(u64::MAX));
    assert_eq!(parse_chunk_key(&window_key(7)), None);
    assert_eq!(parse_chunk_key(&chunks_prefix(7)), None);
    assert_ne!(window_key(7), owed_key(7));
    assert_ne!(client_key(7), window_key(7));
}
