use proptest::prelude::*;

use super::*;

fn event(name: &str, data: &str, id: Option<&str>) -> Event {
    Event { name: name.into(), data: data.into(), id: id.map(Into::into) }
}

fn parse(bytes: &[u8]) -> (Vec<Event>, Parser) {
    let mut parser = Parser::new(1 << 20);
    let mut events = Vec::new();
    parser.push(bytes, &mut events).unwrap();
    (events, parser)
}

fn check(text: &str, expected: &[Event]) {
    for text in [text.to_owned(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
        assert_eq!(parse(text.as_bytes()).0, expected, "{text:?}");
    }
}

#[test]
fn streams_and_their_events() {
    check("", &[]);
    check("\n\n\n", &[]);
    check("data: a\n\n", &[event("message", "a", None)]);
    check("data:a\n\n", &[event("message", "a", None)]);
    check("data:  a\n\n", &[event("message", " a", None)]);
    check("data: a\ndata: b\ndata\n\n", &[event("message", "a\nb\n", None)]);
    check("data\n\n", &[event("message", "", None)]);
    check("data:\ndata:\n\n", &[event("message", "\n", None)]);
    check(": comment\n\n:\n\ndata: a\n: more\n\n", &[event("message", "a", None)]);
    check("event: gap\ndata: {}\nid: t1\n\n", &[event("gap", "{}", Some("t1"))]);
    check("event: gap\n\ndata: a\n\n", &[event("message", "a", None)]);
    check("data: a\nunknown: b\ndatax: c\n data: d\nData: e\n\n", &[event("message", "a", None)]);
    check("data: a:b: c\n\n", &[event("message", "a:b: c", None)]);
    check("data: cut off by the end\n", &[]);
    check(
        "id: 1\ndata: a\n\ndata: b\n\n",
        &[event("message", "a", Some("1")), event("message", "b", None)],
    );
}

#[test]
fn a_byte_order_mark_is_dropped_once_and_only_in_front() {
    check("\u{feff}data: a\n\n", &[event("message", "a", None)]);
    check("\u{feff}\u{feff}data: a\n\n", &[]);
    check("data: a\n\n\u{feff}data: b\n\n", &[event("message", "a", None)]);
}

#[test]
fn bytes_that_are_no_text_become_replacement_characters() {
    let (events, _) = parse(b"data: \xff!\n\n");
    assert_eq!(events, [event("message", "\u{fffd}!", None)]);
}

#[test]
fn the_last_id_survives_events_without_and_is_set_by_blocks_without_data() {
    let last = |text: &str| parse(text.as_bytes()).1.last_event_id().map(str::to_owned);
    assert_eq!(last("id: 1\ndata: a\n\ndata: b\n\n").as_deref(), Some("1"));
    assert_eq!(last("id: 1\n\n").as_deref(), Some("1"));
    assert_eq!(last("id: 1\n\nid\n\n").as_deref(), Some(""), "an empty id resets");
    assert_eq!(last("id: 1\n\nid: 2\0\ndata: x\n\n").as_deref(), Some("1"), "NUL: ignored");
    assert_eq!(last("id: 1\n\nid: 2\ndata: a\n").as_deref(), Some("1"), "cut off: not taken");
}

#[test]
fn retry_is_digits_or_nothing() {
    let retry = |text: &str| parse(text.as_bytes()).1.retry_ms();
    assert_eq!(retry("retry: 2500\n"), Some(2500));
    assert_eq!(retry("retry: 2500\nretry: +1\nretry: 1.5\nretry:\nretry: x\n"), Some(2500));
    assert_eq!(retry("retry: 99999999999999999999999\n"), None);
    assert_eq!(retry("data: a\n\n"), None);
}

#[test]
fn what_is_larger_than_the_limit_is_refused_before_it_is_kept() {
    let feed = |parts: &[&[u8]]| {
        let mut parser = Parser::new(64);
        let mut events = Vec::new();
        let result = parts.iter().try_for_each(|part| parser.push(part, &mut events));
        (result, events.len(), parser.line.len() + parser.data.len())
    };
    let long = [b'x'; 65];
    assert_eq!(feed(&[&long]).0, Err(TooLarge { limit: 64 }));
    assert_eq!(feed(&[b": ", &long[..62]]).0, Ok(()));
    assert_eq!(feed(&[b": ", &long[..63]]).0, Err(TooLarge { limit: 64 }));
    let many_lines: Vec<&[u8]> = vec![b"data: 0123456789\n"; 100];
    let (result, events, kept) = feed(&many_lines);
    assert_eq!((result, events), (Err(TooLarge { limit: 64 }), 0));
    assert!(kept <= 64 + 16, "{kept}");
    let many_events: Vec<&[u8]> = vec![b"data: 0123456789\n\n"; 100];
    assert_eq!(feed(&many_events).1, 100, "the limit is per event");
}

fn line() -> impl Strategy<Value = String> {
    let field =
        prop_oneof![Just("data"), Just("id"), Just("event"), Just("retry"), Just(""), Just("x")];
    let text = prop_oneof!["[a-c:\\x00 é]{0,6}", "[0-9]{1,4}"];
    prop_oneof![
        (field, Just(":"), text).prop_map(|(a, b, c)| format!("{a}{b}{c}")),
        Just(String::new()),
        Just("data".to_owned()),
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    (any::<bool>(), prop::collection::vec((line(), end), 0..20)).prop_map(|(bom, lines)| {
        let text: String = lines.into_iter().map(|(line, end)| line + end).collect();
        format!("{}{text}", if bom { "\u{feff}" } else { "" }).into_bytes()
    })
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_changes_nothing(bytes in stream(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let (whole, parser) = parse(&bytes);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut pieces = Parser::new(1 << 20);
        let mut events = Vec::new();
        for pair in cuts.windows(2) {
            pieces.push(&bytes[pair[0]..pair[1]], &mut events).unwrap();
        }
        prop_assert_eq!(&events, &whole);
        prop_assert_eq!(pieces.last_event_id(), parser.last_event_id());
        prop_assert_eq!(pieces.retry_ms(), parser.retry_ms());
        let mut bytewise = Parser::new(1 << 20);
        let mut single = Vec::new();
        for byte in &bytes {
            bytewise.push(std::slice::from_ref(byte), &mut single).unwrap();
        }
        prop_assert_eq!(single, whole);
    }

    #[test]
    fn any_bytes_are_taken_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0usize..64) {
        let mut parser = Parser::new(limit);
        let mut events: Vec<Event> = Vec::new();
        let _ = parser.push(&bytes, &mut events);
        prop_assert!(parser.line.len() <= limit);
    }
}
